//! Many records that a server has lost go by its word: in bounded steps, which outlive crashes.

use synclayer_core::testing::InspectReplica;
use synclayer_core::{
    Action, Batch, ClientConfig, ClientStore, Command, CommitNumber, ConnId, Input, MemoryRows,
    Mono, NetAction, Now, OnServerLoss, Replica, Rows, StoreError, Timestamp, Write,
};

use crate::plan::collections;

/// Records that the server has lost.
const LOST: usize = 1_000;
/// The most rows that a commit of the adoption may change.
const BOUND: usize = 300;

/// A replica on a store that remembers every commit.
struct RecordedReplica {
    replica: Replica<Recorder>,
    conn: Option<ConnId>,
}

/// A store that remembers every commit, and reports as durable what it was told to.
struct Recorder {
    rows: MemoryRows,
    commits: Vec<Batch>,
    durable: CommitNumber,
}

impl Recorder {
    /// The store of a process that begins on what an earlier one has committed.
    fn new(commits: Vec<Batch>) -> Self {
        let mut rows = MemoryRows::default();
        commits.iter().for_each(|batch| rows.apply(batch.clone()));
        let mut store = Self { rows, commits, durable: CommitNumber(0) };
        store.durable = store.last();
        store
    }

    fn last(&self) -> CommitNumber {
        CommitNumber(self.commits.len() as u64)
    }
}

impl ClientStore for Recorder {
    fn rows(&self) -> &dyn Rows {
        &self.rows
    }

    fn commit(&mut self, _: CommitNumber, batch: Batch) -> Result<(), StoreError> {
        self.rows.apply(batch.clone());
        self.commits.push(batch);
        Ok(())
    }

    fn flush(&mut self, _: CommitNumber) -> Result<(), StoreError> {
        Ok(())
    }

    fn durable(&mut self) -> Result<CommitNumber, StoreError> {
        Ok(self.durable)
    }
}

/// Once a loss was adopted, no commit holds more than a bounded number of rows. Wherever the process
/// ends, the next one carries on, and all that was lost goes.
///
/// # Errors
/// When a commit is too large, or a record stays.
pub fn is_bounded_and_outlives_crashes() -> Result<(), String> {
    let mut device = RecordedReplica::open(Vec::new())?;
    device.learn(1, LOST)?;
    device.learn(2, 1)?;
    let kept = device.shown()?;
    if kept != LOST {
        return Err(format!("losses are decided: {kept} records are left before that"));
    }
    let before = device.commits().len();
    let mut out = Vec::new();
    let adopted = device.replica.write(now(), Write::Adopt, &mut out);
    adopted.map_err(|error| error.to_string())?;
    device.come_to_rest(out)?;
    let largest = device.commits()[before..].iter().map(|batch| batch.ops().len()).max();
    if largest.is_none_or(|largest| largest > BOUND) {
        return Err(format!("bounded: a commit of the adoption changes {largest:?} rows"));
    }
    for end in before + 1..=device.commits().len() {
        let mut again = RecordedReplica::open(device.commits()[..end].to_vec())?;
        let mut out = Vec::new();
        again.replica.command(now(), Command::Connect, &mut out);
        again.come_to_rest(out)?;
        let left = again.shown()?;
        if left != 1 {
            return Err(format!("losses are decided: after a crash at {end} {left} records stay"));
        }
        let status = again.replica.status().collections.remove(&collections()[0]);
        if status.is_none_or(|status| status.catching_up || status.missing.is_some()) {
            return Err(format!("losses are decided: after a crash at {end} it does not end"));
        }
    }
    Ok(())
}

impl RecordedReplica {
    /// A process begins on what an earlier one has committed.
    fn open(commits: Vec<Batch>) -> Result<Self, String> {
        let mut config = ClientConfig::default();
        config.collections = vec![collections().swap_remove(0)];
        config.on_server_loss = Some(OnServerLoss::Ask);
        let (store, mut out) = (Recorder::new(commits), Vec::new());
        let replica = Replica::open(config, 7, now(), store, &mut out);
        let mut device = Self { replica: replica.map_err(|error| error.message)?, conn: None };
        device.come_to_rest(out)?;
        Ok(device)
    }

    fn commits(&self) -> &[Batch] {
        &self.replica.store().commits
    }

    /// A server of this epoch shows so many records.
    fn learn(&mut self, epoch: u64, records: usize) -> Result<(), String> {
        let mut out = Vec::new();
        self.replica.command(now(), Command::Connect, &mut out);
        self.take(out);
        let conn = self.conn.ok_or("it does not connect")?;
        self.tell(Input::Connected { conn })?;
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
            self.tell(Input::Frame { conn, frame: frame.as_bytes() })?;
        }
        let mut out = Vec::new();
        self.replica.command(now(), Command::Disconnect, &mut out);
        self.come_to_rest(out)
    }

    fn tell(&mut self, input: Input<'_>) -> Result<(), String> {
        let mut out = Vec::new();
        self.replica.handle(now(), input, &mut out);
        self.come_to_rest(out)
    }

    /// Every commit becomes durable, and whatever follows from that.
    fn come_to_rest(&mut self, mut out: Vec<Action>) -> Result<(), String> {
        for _ in 0..LOST {
            self.take(std::mem::take(&mut out));
            let last = self.replica.store().last();
            if self.replica.durable() == last {
                return Ok(());
            }
            self.replica.store_mut().durable = last;
            self.replica.poll_store(now(), &mut out);
        }
        Err("it commits without end".into())
    }

    fn take(&mut self, out: Vec<Action>) {
        for action in out {
            if let Action::Net(NetAction::Connect { conn, .. }) = action {
                self.conn = Some(conn);
            }
        }
    }

    /// Returns the number of records that the app sees.
    fn shown(&self) -> Result<usize, String> {
        let shown = self.replica.get_all(&collections()[0]).map_err(|error| error.message)?;
        Ok(shown.len())
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
