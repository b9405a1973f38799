//! The devices: where the readings come from, and where they end.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use synclayer_tokio::query::{Ascending, Descending, is_less_than};
use synclayer_tokio::{Collection, SyncError};
use tokio::time::{MissedTickBehavior, interval};

/// The most readings that are deleted at once.
const DELETED_AT_ONCE: usize = 256;

/// A reading as it is stored.
#[derive(Serialize, Deserialize)]
pub(crate) struct Reading {
    pub(crate) device: String,
    /// The devices' clock, in milliseconds since 1970.
    pub(crate) at: u64,
    pub(crate) value: f64,
}

/// Some devices that report together.
pub(crate) struct Devices {
    readings: Collection,
    count: u32,
    /// The real time between two reports.
    pace: Duration,
    /// The same by the devices' clock, in milliseconds.
    step: u64,
    /// The age at which a reading is deleted, in milliseconds.
    keep: u64,
}

impl Devices {
    /// Devices whose readings are so many a second, with a clock of so much times the usual speed, and
    /// readings that are kept for so many minutes.
    pub(crate) fn new(readings: Collection, count: u32, rate: f64, speed: f64, keep: u64) -> Self {
        let pace = Duration::from_secs_f64((f64::from(count) / rate).clamp(0.001, 3_600.0));
        let step = (pace.as_millis() as f64 * speed).max(1.0) as u64;
        Self { readings, count, pace, step, keep: keep * 60_000 }
    }

    /// Reports until the hours are over.
    pub(crate) async fn report(self, hours: Option<u64>) -> Result<(), SyncError> {
        // after a restart they go on where they were
        let newest = self.readings.query().order_by("at", Descending).first().await?;
        let newest = newest.and_then(|reading| reading.document.get("at").ok()?);
        let begin = newest.map_or_else(now, |newest: u64| newest + self.step);
        let mut ticks = interval(self.pace);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for at in (begin..).step_by(self.step as usize) {
            if hours.is_some_and(|hours| at - begin >= hours * 3_600_000) {
                break;
            }
            ticks.tick().await;
            // of one moment all is seen or nothing
            let all = (0..self.count).map(|device| self.reading(device, at));
            self.readings.save_all(all).await?;
            self.delete_old(at).await?;
        }
        Ok(())
    }

    async fn delete_old(&self, now: u64) -> Result<(), SyncError> {
        let old = self.readings.query().where_("at", is_less_than(now.saturating_sub(self.keep)));
        let old = old.order_by("at", Ascending).limit(DELETED_AT_ONCE).get().await?;
        self.readings.delete_all(old.iter().map(|reading| &reading.id)).await?;
        Ok(())
    }

    /// A temperature that goes up and down with the hour, different for each device.
    fn reading(&self, device: u32, at: u64) -> Reading {
        let hours = at as f64 / 3_600_000.0 + f64::from(device);
        let value =
            20.0 + 5.0 * (hours * std::f64::consts::TAU / 24.0).sin() + (hours * 40.0).sin();
        Reading {
            device: format!("device {device:02}"),
            at,
            value: (value * 100.0).round() / 100.0,
        }
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
