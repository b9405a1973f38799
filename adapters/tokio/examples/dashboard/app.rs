//! The dashboard without its screen: what is shown, kept up to date by what changes.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use futures_util::future::OptionFuture;
use serde::Serialize;
use synclayer_tokio::{
    ConnectionState, RecordChange, RecordId, Status, StatusWatch, SyncError, SyncLayer, Update,
    Watch,
};
use tokio::select;
use tokio::task::JoinHandle;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::devices::Reading;

/// The readings of a device: each by its time.
type Series = BTreeMap<u64, f64>;

/// Everything that is shown.
#[derive(PartialEq, Serialize)]
pub(crate) struct View {
    pub(crate) online: bool,
    /// `true` while devices of this program report.
    pub(crate) reporting: bool,
    /// `true` once the server has confirmed that these are all readings.
    pub(crate) complete: bool,
    pub(crate) readings: usize,
    pub(crate) waiting: usize,
    /// The time between the oldest and the newest reading, in minutes.
    pub(crate) minutes: f64,
    pub(crate) devices: Vec<Device>,
}

/// A device as it is shown.
#[derive(PartialEq, Serialize)]
pub(crate) struct Device {
    pub(crate) name: String,
    pub(crate) readings: usize,
    pub(crate) last: f64,
    pub(crate) lowest: f64,
    pub(crate) highest: f64,
    pub(crate) average: f64,
}

/// Something that may have changed what is shown.
pub(crate) enum News {
    Readings(Update),
    Status(Status),
    /// The devices have ended.
    Reported(Result<(), SyncError>),
}

pub(crate) struct App {
    sync: SyncLayer,
    updates: Watch,
    statuses: StatusWatch,
    reporting: Option<JoinHandle<Result<(), SyncError>>>,
    /// The pace of the screen: updates that come in between are merged into one.
    frames: Interval,
    devices: BTreeMap<String, Series>,
    /// The place of each reading in the series.
    places: HashMap<RecordId, (String, u64)>,
    complete: bool,
    status: Option<Status>,
}

impl App {
    /// A dashboard of a client, with a watch of its readings and the task that reports some.
    pub(crate) fn new(
        sync: SyncLayer,
        updates: Watch,
        reporting: Option<JoinHandle<Result<(), SyncError>>>,
    ) -> Self {
        let mut frames = interval(Duration::from_millis(100));
        frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            statuses: sync.watch_status(),
            sync,
            updates,
            reporting,
            frames,
            devices: BTreeMap::new(),
            places: HashMap::new(),
            complete: false,
            status: None,
        }
    }

    /// Waits for something to [take](Self::take); `None` when the client has ended. May be dropped.
    pub(crate) async fn next(&mut self) -> Option<News> {
        self.frames.tick().await;
        select! {
            biased; // what the devices have written shows before their end
            update = self.updates.next() => update.map(News::Readings),
            status = self.statuses.next() => status.map(News::Status),
            Some(ended) = OptionFuture::from(self.reporting.as_mut()) => {
                Some(News::Reported(ended.unwrap_or(Ok(()))))
            }
        }
    }

    pub(crate) fn take(&mut self, news: News) -> Result<(), SyncError> {
        match news {
            News::Readings(update) => {
                self.complete = update.snapshot.is_complete();
                // only what has changed is looked at: there may be 180,000 readings
                update.changes.into_iter().for_each(|change| self.apply(change));
            }
            News::Status(status) => self.status = Some(status),
            News::Reported(ended) => {
                self.reporting = None;
                ended?;
            }
        }
        Ok(())
    }

    fn apply(&mut self, change: RecordChange) {
        if let Some((device, at)) = self.places.remove(change.id())
            && let Some(series) = self.devices.get_mut(&device)
        {
            series.remove(&at);
            if series.is_empty() {
                self.devices.remove(&device);
            }
        }
        let reading = change.record().and_then(|record| record.document.to::<Reading>().ok());
        if let Some(Reading { device, at, value }) = reading {
            self.places.insert(change.id().clone(), (device.clone(), at));
            self.devices.entry(device).or_default().insert(at, value);
        }
    }

    pub(crate) async fn set_online(&mut self, online: bool) -> Result<(), SyncError> {
        if online { self.sync.connect().await } else { self.sync.disconnect().await }
    }

    pub(crate) fn is_online(&self) -> bool {
        self.status.as_ref().is_some_and(|it| it.connection == ConnectionState::Connected)
    }

    /// The readings of each device, in order of their times.
    pub(crate) fn series(&self) -> impl Iterator<Item = (&str, &Series)> {
        self.devices.iter().map(|(device, series)| (&**device, series))
    }

    /// The times of the oldest and the newest reading.
    pub(crate) fn window(&self) -> Option<(u64, u64)> {
        let oldest = self.devices.values().filter_map(|series| series.keys().next()).min()?;
        let newest = self.devices.values().filter_map(|series| series.keys().next_back()).max()?;
        Some((*oldest, *newest))
    }

    pub(crate) fn view(&self) -> View {
        View {
            online: self.is_online(),
            reporting: self.reporting.is_some(),
            complete: self.complete,
            readings: self.places.len(),
            waiting: self.status.as_ref().map_or(0, |it| it.pending_writes),
            minutes: self.window().map_or(0.0, |(from, to)| (to - from) as f64 / 60_000.0),
            devices: self.series().map(device).collect(),
        }
    }
}

fn device((name, series): (&str, &Series)) -> Device {
    let fold = |first: f64, with: fn(f64, f64) -> f64| series.values().copied().fold(first, with);
    Device {
        name: name.to_owned(),
        readings: series.len(),
        last: series.values().next_back().copied().unwrap_or(f64::NAN),
        lowest: fold(f64::INFINITY, f64::min),
        highest: fold(f64::NEG_INFINITY, f64::max),
        average: fold(0.0, |sum, value| sum + value) / series.len() as f64,
    }
}
