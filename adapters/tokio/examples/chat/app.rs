//! The chat without its screen: what is shown, and what the user can do.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use synclayer_tokio::query::Descending;
use synclayer_tokio::{
    ConnectionState, Event, EventKind, Events, Query, QuerySnapshot, QueryWatch, Record, Rejected,
    Scope, SyncError, SyncLayer,
};
use tokio::select;

/// The number of messages on a page.
const PAGE: usize = 50;

/// A message as it is stored.
#[derive(Serialize, Deserialize)]
struct Message {
    room: String,
    author: String,
    text: String,
    /// The author's clock, in milliseconds since 1970.
    at: u64,
}

/// The way that a message has made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Tick {
    /// Only this device has it.
    Waiting,
    /// The server has it.
    Sent,
    /// The server has refused it.
    Refused,
}

/// A message as it is shown.
#[derive(Serialize)]
pub(crate) struct Line {
    pub(crate) author: String,
    pub(crate) text: String,
    pub(crate) at: u64,
    pub(crate) tick: Tick,
}

/// Everything that is shown.
#[derive(Serialize)]
pub(crate) struct View<'a> {
    pub(crate) user: &'a str,
    pub(crate) room: &'a str,
    pub(crate) online: bool,
    /// The number of pages between this one and the newest.
    pub(crate) page: usize,
    /// `true` if all messages of the room are here and live.
    pub(crate) complete: bool,
    /// The messages, the oldest first; those that were refused come last.
    pub(crate) lines: Vec<Line>,
    pub(crate) notice: &'a str,
}

/// Something that may have changed what is shown.
pub(crate) enum News {
    Page(QuerySnapshot),
    Event(Event),
}

pub(crate) struct App {
    sync: SyncLayer,
    events: Events,
    user: String,
    room: String,
    messages: Scope,
    page: QueryWatch,
    shown: Option<QuerySnapshot>,
    /// The oldest message of each page that is newer than the one that is shown.
    passed: Vec<Record>,
    refused: Vec<Rejected>,
    online: bool,
    notice: String,
    /// The time of the latest message that was seen or said here.
    latest: u64,
}

impl App {
    pub(crate) async fn open(
        sync: SyncLayer,
        user: String,
        room: String,
    ) -> Result<Self, SyncError> {
        let messages = messages(&sync, &room).await?;
        let page = newest(&messages).watch()?;
        let (events, shown, online, latest) = (sync.events(), None, false, 0);
        let (passed, refused, notice) = (Vec::new(), Vec::new(), String::new());
        let mut app = Self {
            sync,
            events,
            user,
            room,
            messages,
            page,
            shown,
            passed,
            refused,
            online,
            notice,
            latest,
        };
        app.look_around().await?;
        Ok(app)
    }

    /// Waits for news; `None` when the client has ended. May be dropped at any time: what it returns
    /// is taken in by [`take`](Self::take), which may not.
    pub(crate) async fn next(&mut self) -> Option<News> {
        select! {
            update = self.page.next() => update.map(|update| News::Page(update.snapshot)),
            event = self.events.next() => event.map(News::Event),
        }
    }

    pub(crate) async fn take(&mut self, news: News) -> Result<(), SyncError> {
        let event = match news {
            News::Page(shown) => {
                let newest = shown.iter().next().and_then(line);
                self.latest = newest.map_or(0, |line| line.at).max(self.latest);
                self.shown = Some(shown);
                return Ok(());
            }
            News::Event(event) => event.kind,
        };
        match event {
            EventKind::SyncFailed { message, .. } | EventKind::TokenNeeded { message, .. } => {
                self.notice = message;
            }
            EventKind::OperationFailed { .. } | EventKind::ConnectivityChanged { .. } => {
                self.look_around().await?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Carries out a line of the user's: a message, unless it begins with `/`. What can't be done is
    /// told, and the chat goes on. Returns `false` when they leave.
    pub(crate) async fn enter(&mut self, line: &str) -> bool {
        self.notice.clear();
        if let Err(error) = self.carry_out(line.trim()).await {
            self.notice = error.to_string();
        }
        line.trim() != "/quit"
    }

    async fn carry_out(&mut self, line: &str) -> Result<(), SyncError> {
        match line.split_once(' ').unwrap_or((line, "")) {
            ("/room", room) if !room.is_empty() => self.open_room(room).await?,
            ("/older", _) => {
                let full = self.shown.as_ref().filter(|page| page.len() == PAGE);
                if let Some(oldest) = full.and_then(|page| page.iter().last()) {
                    self.passed.push(oldest.clone());
                    self.turn_page()?;
                }
            }
            ("/newer", _) => {
                self.passed.pop();
                self.turn_page()?;
            }
            ("/retry" | "/discard", _) => {
                let list = self.sync.rejected();
                for refused in self.refused.drain(..) {
                    match line {
                        "/retry" => drop(list.retry(refused.write).await?),
                        _ => list.discard(refused.write).await?,
                    }
                }
            }
            ("/offline", _) => self.sync.disconnect().await?,
            ("/online", _) => self.sync.connect().await?,
            ("/explain", _) => {
                let how = newest(&self.messages).explain().await?;
                let index = how.index.as_deref().unwrap_or("no index");
                self.notice = format!("{} read for {}, by {index}", how.read, how.returned);
            }
            _ if line.is_empty() || line == "/quit" => {}
            _ if line.starts_with('/') => self.notice = format!("no command {line}: see --help"),
            _ => self.say(line).await?,
        }
        Ok(())
    }

    pub(crate) fn view(&self) -> View<'_> {
        let shown = self.shown.iter().flat_map(QuerySnapshot::iter);
        let mut lines: Vec<_> = shown.filter_map(line).collect();
        lines.reverse();
        if self.passed.is_empty() {
            lines.extend(self.refused.iter().filter_map(refused_line));
        }
        View {
            user: &self.user,
            room: &self.room,
            online: self.online,
            page: self.passed.len(),
            complete: self.shown.as_ref().is_some_and(QuerySnapshot::is_complete),
            lines,
            notice: &self.notice,
        }
    }

    async fn say(&mut self, text: &str) -> Result<(), SyncError> {
        // an answer comes behind what it answers, whatever the clocks say
        self.latest = now().max(self.latest.saturating_add(1));
        let (room, author) = (self.room.clone(), self.user.clone());
        let message = Message { room, author, text: text.into(), at: self.latest };
        self.messages.save(&message).await?;
        if !self.passed.is_empty() {
            self.passed.clear();
            self.turn_page()?;
        }
        Ok(())
    }

    async fn open_room(&mut self, room: &str) -> Result<(), SyncError> {
        self.messages = messages(&self.sync, room).await?;
        self.room = room.into();
        self.passed.clear();
        self.turn_page()?;
        self.look_around().await
    }

    /// Shows the page behind the messages that were passed.
    fn turn_page(&mut self) -> Result<(), SyncError> {
        let page = newest(&self.messages);
        let page = self.passed.last().map_or(page.clone(), |oldest| page.start_after(oldest));
        self.page = page.watch()?;
        self.shown = None;
        Ok(())
    }

    /// Asks for what no watch tells.
    async fn look_around(&mut self) -> Result<(), SyncError> {
        let status = self.sync.status().await?;
        self.online = status.connection == ConnectionState::Connected;
        self.refused = self.sync.rejected().list().await?;
        self.refused.retain(|write| refused_message(write).is_some_and(|m| m.room == self.room));
        Ok(())
    }
}

/// The messages of a room, which stay on this device from now on.
async fn messages(sync: &SyncLayer, room: &str) -> Result<Scope, SyncError> {
    let messages = sync.collection("messages")?.scope("room", room)?;
    messages.keep().await?;
    Ok(messages)
}

fn newest(messages: &Scope) -> Query {
    messages.query().order_by("at", Descending).limit(PAGE)
}

/// A message as it is shown; `None` if another program has written something else here.
fn line(record: &Record) -> Option<Line> {
    let Message { author, text, at, .. } = record.document.to().ok()?;
    let tick = if record.pending { Tick::Waiting } else { Tick::Sent };
    Some(Line { author, text, at, tick })
}

fn refused_line(refused: &Rejected) -> Option<Line> {
    let Message { author, text, at, .. } = refused_message(refused)?;
    let text = format!("{text} ({})", refused.message);
    Some(Line { author, text, at, tick: Tick::Refused })
}

/// The message that a refused write would have made.
fn refused_message(refused: &Rejected) -> Option<Message> {
    refused.change.apply(None)?.to().ok()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
