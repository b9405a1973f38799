//! Makes the writes that were saved out of a damaged replica again, at the times at which they were
//! made.
//!
//! A client stamps what it is told to write with the time of now. So the core's replica is opened for
//! this, which is told what time it is.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::value::RawValue;
use synclayer_core::{
    Action, ClientConfig, Collection, CommitNumber, Mono, Now, RecordId, Replica as Core,
    Timestamp, Write,
};
use synclayer_fjall::{ClientOptions, Durability, FjallClientStore};
use synclayer_tokio::{Delta, Document, Limits, SyncError};
use tokio::task;

use super::{Operation, UnsentWrite};
use crate::args::ReplicaArgs;
use crate::failure::Failure;

/// Makes the user's writes again, and returns when they are durable. Those that can't be made yet
/// are returned, and those of other users. `in_sync` says that all that the server has is here.
pub(super) async fn make_all(
    args: &ReplicaArgs,
    unsent: Vec<UnsentWrite>,
    in_sync: bool,
) -> Result<Vec<UnsentWrite>, Failure> {
    let (data, user) = (args.data.clone(), args.user.clone());
    let make = move || {
        let times = unsent.iter().filter(|write| write.user == user).flat_map(UnsentWrite::times);
        let Some(first) = times.min() else { return Ok(unsent) };
        let mut maker = Maker::open(data, &user, first)?;
        let mut left = Vec::new();
        for write in unsent {
            if write.user != user || !maker.make(&write, in_sync)? {
                left.push(write);
            }
        }
        maker.finish()?;
        Ok(left)
    };
    task::spawn_blocking(make).await.map_err(Failure::plain)?
}

impl UnsentWrite {
    /// The time when a field was written; now at the latest.
    fn time_of(&self, field: &str) -> Timestamp {
        self.at.get(field).map_or_else(|| self.written(), |at| time(at))
    }

    /// The time when it was made; now at the latest.
    fn written(&self) -> Timestamp {
        time(&self.written_at)
    }

    /// Every time that it has, in their order.
    fn times(&self) -> BTreeSet<Timestamp> {
        self.at.values().map(|at| time(at)).chain([self.written()]).collect()
    }
}

/// Parses a write's time; an unreadable one is now.
fn time(text: &str) -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let now = Timestamp(i64::try_from(now).unwrap_or(i64::MAX));
    Timestamp::parse(text).map_or(now, |at| at.min(now))
}

/// A replica that is told what time it is.
struct Maker {
    replica: Core<FjallClientStore>,
    /// The server's time at which it was opened.
    first: Timestamp,
    /// Milliseconds that the server's clock is ahead of this one, if known.
    ahead: i64,
    last: Option<CommitNumber>,
    progress: Receiver<()>,
    effects: Vec<Action>,
}

impl Maker {
    fn open(data: PathBuf, user: &str, first: Timestamp) -> Result<Self, Failure> {
        let ahead = open(&data, user, now(first))?.0.status().clock_offset_ms;
        let (replica, progress) = open(&data, user, now(first.plus(-ahead)))?;
        Ok(Self { replica, first, ahead, last: None, progress, effects: Vec::new() })
    }

    /// The time by the server's clock, as this one shows it.
    fn at(&self, server: Timestamp) -> Now {
        let since = server.0.saturating_sub(self.first.0).max(0);
        let mono = Mono(u64::try_from(since).unwrap_or_default());
        Now { mono, wall: self.first.plus(since).plus(-self.ahead) }
    }

    /// Makes a write, unless it needs a record that isn't here.
    fn make(&mut self, write: &UnsentWrite, in_sync: bool) -> Result<bool, Failure> {
        let collection = Collection::new(&write.collection).map_err(Failure::plain)?;
        let id = RecordId::new(&write.id).map_err(Failure::plain)?;
        let document = Document::parse(write.data.get(), &Limits::default());
        let document = document.map_err(Failure::plain)?;
        let is_there = self.replica.get(&collection, &id)?.is_some();
        let at = self.at(write.written());
        match write.operation {
            Operation::Insert if is_there => {
                self.write(at, Write::Save(collection, id, document))?;
            }
            Operation::Insert => {
                let whole = Delta::new(document, Vec::new());
                for (index, (at, part)) in parts(write, &whole)?.into_iter().enumerate() {
                    let at = self.at(at);
                    let (collection, id) = (collection.clone(), id.clone());
                    match index {
                        0 => self.write(at, Write::Save(collection, id, part.set))?,
                        _ => self.write(at, Write::Update(collection, id, part))?,
                    }
                }
            }
            Operation::Update if is_there => {
                let whole = Delta::new(document, write.unset.clone());
                for (at, part) in parts(write, &whole)? {
                    let at = self.at(at);
                    self.write(at, Write::Update(collection.clone(), id.clone(), part))?;
                }
            }
            Operation::Delete if is_there || in_sync => {
                self.write(at, Write::Delete(collection, id))?;
            }
            Operation::Update | Operation::Delete => return Ok(false),
        }
        Ok(true)
    }

    fn write(&mut self, at: Now, write: Write) -> Result<(), Failure> {
        let written = self.replica.write(at, write, &mut self.effects).map_err(SyncError::from)?;
        self.last = Some(written.commit);
        self.effects.clear();
        Ok(())
    }

    /// Waits until everything is durable.
    fn finish(mut self) -> Result<(), Failure> {
        let Some(last) = self.last else { return Ok(()) };
        let now = self.at(self.first);
        loop {
            self.replica.poll_store(now, &mut self.effects);
            for effect in self.effects.drain(..) {
                if let Action::Halted(error) = effect {
                    return Err(error.into());
                }
            }
            if self.replica.durable() >= last {
                return Ok(());
            }
            // the store holds the sender for as long as it is open
            self.progress.recv().map_err(Failure::plain)?;
        }
    }
}

fn now(wall: Timestamp) -> Now {
    Now { mono: Mono(0), wall }
}

fn open(
    data: &Path,
    user: &str,
    now: Now,
) -> Result<(Core<FjallClientStore>, Receiver<()>), Failure> {
    let (told, progress) = channel();
    let on_durable = move || {
        // whoever has what it waited for listens no more
        let _ = told.send(());
    };
    let options = ClientOptions::new().durability(Durability::Synced).on_durable(on_durable);
    let store = FjallClientStore::open(data, options)?;
    let mut config = ClientConfig::default();
    config.user = user.into();
    let half = || u128::from(RandomState::new().hash_one(data));
    let seed = half() << 64 | half();
    Ok((Core::open(config, seed, now, store, &mut Vec::new())?, progress))
}

/// Splits a write by the times of its fields, oldest first.
fn parts(write: &UnsentWrite, whole: &Delta) -> Result<Vec<(Timestamp, Delta)>, Failure> {
    let part = |at: Timestamp| {
        let of_then = |name: &str| write.time_of(name) == at;
        let mut set = BTreeMap::new();
        for (name, text) in whole.set.iter().filter(|(name, _)| of_then(name)) {
            // numbers keep every digit
            let value: &RawValue = serde_json::from_str(text).map_err(Failure::plain)?;
            set.insert(name, value);
        }
        let set = Document::of(&set, &Limits::default()).map_err(Failure::plain)?;
        let unset = whole.unset.iter().filter(|name| of_then(name)).cloned().collect();
        Ok((at, Delta::new(set, unset)))
    };
    write.times().into_iter().map(part).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::read_unsent;
    use super::*;
    use crate::args::{Cli, CliCommand};

    fn args(data: &Path) -> ReplicaArgs {
        let line = ["synclayer", "status", "--user", "ann", "--data", data.to_str().unwrap()];
        let CliCommand::Status(args) = Cli::parse_from(line).command else { panic!("{line:?}") };
        args
    }

    fn unsent(lines: &[&str]) -> Vec<UnsentWrite> {
        lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn text(unsent: &[UnsentWrite]) -> Vec<String> {
        unsent.iter().map(|write| serde_json::to_string(write).unwrap()).collect()
    }

    #[tokio::test]
    async fn writes_are_made_again_at_the_times_at_which_they_were_made() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("replica");
        let saved = [
            r#"{"user":"ann","operation":"insert","collection":"todos","id":"x","data":{"a":1,"b":12345678901234567890123,"c":3},"unset":[],"writtenAt":"2026-01-03T00:00:00.000Z","at":{"a":"2026-01-01T00:00:00.000Z","b":"2026-01-02T00:00:00.500Z"}}"#,
            r#"{"user":"ann","operation":"insert","collection":"todos","id":"y","data":{},"unset":[],"writtenAt":"2026-01-04T00:00:00.000Z"}"#,
        ];
        let others = [
            r#"{"user":"ann","operation":"update","collection":"todos","id":"elsewhere","data":{"a":1},"unset":["b"],"writtenAt":"2026-01-05T00:00:00.000Z"}"#,
            r#"{"user":"bob","operation":"insert","collection":"todos","id":"his","data":{},"unset":[],"writtenAt":"2026-01-06T00:00:00.000Z"}"#,
        ];
        let all = unsent(&[saved, others].concat());
        let left = make_all(&args(&data), all, false).await.unwrap();
        assert_eq!(text(&left), others);
        assert_eq!(text(&read_unsent(&data).unwrap().unsent), saved);

        // an update joins what waits, and what it touches has its own time
        let update = r#"{"user":"ann","operation":"update","collection":"todos","id":"y","data":{"n":1},"unset":[],"writtenAt":"2999-01-01T00:00:00.000Z"}"#;
        let left = make_all(&args(&data), unsent(&[update]), false).await.unwrap();
        assert_eq!(left.len(), 0);
        let writes = read_unsent(&data).unwrap().unsent;
        let last = writes.last().unwrap();
        assert!(last.written_at.as_str() < "2999", "no time is to come: {}", last.written_at);
    }
}
