//! Many records that a server has lost go by its word: in bounded steps, which outlive crashes.

use synclayer_core::client::Client;
use synclayer_core::client::interface::{
    Action, Actions, ClientConfig, Input, NetAction, OnServerLoss, StoreAction,
};
use synclayer_core::memory::MemoryRows;
use synclayer_core::words::name::{CommitNumber, ConnId};
use synclayer_core::words::store::Batch;
use synclayer_core::words::time::{Mono, Now, Timestamp};

use crate::plan::collections;

/// Records that the server has lost.
const LOST: usize = 1_000;
/// The most rows that a commit of the adoption may change.
const BOUND: usize = 300;

/// A client, and every commit that it has made.
struct Device {
    client: Client,
    rows: MemoryRows,
    commits: Vec<Batch>,
    conn: Option<ConnId>,
}

/// Once a loss was adopted, no commit holds more than a bounded number of rows. Wherever the process
/// ends, the next one carries on, and all that was lost goes.
///
/// # Errors
/// When a commit is too large, or a record stays.
pub fn is_bounded_and_outlives_crashes() -> Result<(), String> {
    let mut device = Device::open(Vec::new())?;
    device.learn(1, LOST)?;
    device.learn(2, 1)?;
    let kept = device.shown()?;
    if kept != LOST {
        return Err(format!("losses are decided: {kept} records are left before that"));
    }
    let before = device.commits.len();
    let mut out = Actions::new();
    let adopted = device.client.adopt(now(), &device.rows, &mut out);
    adopted.map_err(|error| error.to_string())?;
    device.take(&mut out);
    device.come_to_rest(&mut out)?;
    let largest = device.commits[before..].iter().map(|batch| batch.ops().len()).max();
    if largest.is_none_or(|largest| largest > BOUND) {
        return Err(format!("bounded: a commit of the adoption changes {largest:?} rows"));
    }
    for end in before + 1..=device.commits.len() {
        let mut again = Device::open(device.commits[..end].to_vec())?;
        again.client.connect(now(), &again.rows, &mut out);
        again.take(&mut out);
        again.come_to_rest(&mut out)?;
        let left = again.shown()?;
        if left != 1 {
            return Err(format!("losses are decided: after a crash at {end} {left} records stay"));
        }
        let status = again.client.status().collections.remove(&collections()[0]);
        if status.is_none_or(|status| status.catching_up || status.missing.is_some()) {
            return Err(format!("losses are decided: after a crash at {end} it does not end"));
        }
    }
    Ok(())
}

impl Device {
    /// A process begins on what an earlier one has committed.
    fn open(commits: Vec<Batch>) -> Result<Self, String> {
        let (mut rows, mut out) = (MemoryRows::new(), Actions::new());
        commits.iter().for_each(|batch| rows.apply(batch.clone()));
        let last = CommitNumber(commits.len() as u64);
        let config = ClientConfig {
            collections: vec![collections().swap_remove(0)],
            on_server_loss: Some(OnServerLoss::Ask),
            ..ClientConfig::default()
        };
        let client = Client::open(config, 7, now(), last, &rows, &mut out);
        let client = client.map_err(|error| error.message)?;
        let mut device = Self { client, rows, commits, conn: None };
        device.take(&mut out);
        device.come_to_rest(&mut out)?;
        Ok(device)
    }

    /// A server of this epoch shows so many records.
    fn learn(&mut self, epoch: u64, records: usize) -> Result<(), String> {
        let mut out = Actions::new();
        self.client.connect(now(), &self.rows, &mut out);
        self.take(&mut out);
        let conn = self.conn.ok_or("it does not connect")?;
        self.tell(Input::Connected { conn }, &mut out)?;
        let record =
            |n| format!(r#"{{"id":"r{n:04}","data":{{"n":{n}}},"version":1,"seq":{}}}"#, n + 1);
        let page: Vec<_> = (0..records).map(record).collect();
        let page = page.join(",");
        for frame in [
            format!(
                r#"{{"type":"pong","metadata":{{"protocol":2,"epoch":"e{epoch}","lastMutation":0}}}}"#
            ),
            format!(
                r#"{{"type":"subscribed","collection":"notes","metadata":{{"head":{records},"mode":"snapshot"}}}}"#
            ),
            format!(
                r#"{{"type":"sync","collection":"notes","data":{{"records":[{page}]}},"metadata":{{"snapshotSeq":{records}}}}}"#
            ),
            format!(
                r#"{{"type":"synced","collection":"notes","metadata":{{"epoch":"e{epoch}","seq":{records},"count":{records}}}}}"#
            ),
        ] {
            self.tell(Input::Frame { conn, frame: frame.as_bytes() }, &mut out)?;
        }
        self.client.disconnect(now(), &self.rows, &mut out);
        self.take(&mut out);
        self.come_to_rest(&mut out)
    }

    fn tell(&mut self, input: Input<'_>, out: &mut Actions) -> Result<(), String> {
        self.client.handle(now(), input, &self.rows, out);
        self.take(out);
        self.come_to_rest(out)
    }

    /// Every commit becomes durable, and whatever follows from that.
    fn come_to_rest(&mut self, out: &mut Actions) -> Result<(), String> {
        for _ in 0..LOST {
            let (before, up_to) = (self.commits.len(), self.client.last_commit());
            self.client.handle(now(), Input::Durable { up_to }, &self.rows, out);
            self.take(out);
            if self.commits.len() == before {
                return Ok(());
            }
        }
        Err("it commits without end".into())
    }

    fn take(&mut self, out: &mut Actions) {
        for action in out.drain(..) {
            match action {
                Action::Store(StoreAction::Commit { batch, .. }) => {
                    self.rows.apply(batch.clone());
                    self.commits.push(batch);
                }
                Action::Net(NetAction::Connect { conn, .. }) => self.conn = Some(conn),
                Action::Store(StoreAction::Flush { .. })
                | Action::Net(
                    NetAction::Send { .. }
                    | NetAction::Ping { .. }
                    | NetAction::Close { .. }
                    | NetAction::Request(_),
                )
                | Action::View(_)
                | Action::Event(_)
                | Action::Synced { .. }
                | Action::Halted(_) => {}
            }
        }
    }

    /// Returns the number of records that the app sees.
    fn shown(&self) -> Result<usize, String> {
        let mut shown = 0;
        let each = self.client.each(&collections()[0], &self.rows, &mut |_| shown += 1);
        each.map(|()| shown).map_err(|error| error.message)
    }
}

fn now() -> Now {
    Now { mono: Mono(1_000), wall: Timestamp(1_790_000_000_000) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adoption_goes_in_bounded_steps_that_outlive_crashes() {
        assert_eq!(is_bounded_and_outlives_crashes(), Ok(()));
    }
}
