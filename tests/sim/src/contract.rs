//! Drivers of a replica that break its contract: it has to hold on to what it promises.

use synclayer_core::testing::{InspectReplica, SimulatedDisk};
use synclayer_core::{
    Action, Batch, ClientStore, Command, CommitNumber, ConnId, Input, MemoryClientStore, Mono,
    NetAction, Now, Replica, Rows, StoreError, Timestamp,
};

/// A store that may report a commit as durable which was not made yet.
struct Boaster {
    store: MemoryClientStore,
    reports: CommitNumber,
}

impl ClientStore for Boaster {
    fn rows(&self) -> &dyn Rows {
        self.store.rows()
    }

    fn commit(&mut self, number: CommitNumber, batch: Batch) -> Result<(), StoreError> {
        self.store.commit(number, batch)
    }

    fn flush(&mut self, up_to: CommitNumber) -> Result<(), StoreError> {
        self.store.flush(up_to)
    }

    fn durable(&mut self) -> Result<CommitNumber, StoreError> {
        Ok(self.reports)
    }
}

/// A store says that a commit is durable which was not made yet: what is committed later is not
/// taken for durable by that.
///
/// # Errors
/// When a frame goes out before the commit that it stands on was reported.
pub fn reports_beyond_the_last_commit() -> Result<(), String> {
    let now = Now { mono: Mono(1_000), wall: Timestamp(1_790_000_000_000) };
    let store = Boaster { store: MemoryClientStore::when_told(), reports: CommitNumber(0) };
    let mut out = Vec::new();
    let mut replica = Replica::open(Default::default(), 7, now, store, &mut out)
        .map_err(|error| error.message)?;
    replica.command(now, Command::Connect, &mut out);
    let (mut sent, conn) = take(&mut out);
    replica.store_mut().reports = CommitNumber(999);
    replica.poll_store(now, &mut out);
    let conn = conn.ok_or("it does not connect")?;
    replica.handle(now, Input::Connected { conn }, &mut out);
    sent += take(&mut out).0;
    if sent > 0 {
        return Err("the hello went out before its session was durable".into());
    }
    replica.store_mut().reports = CommitNumber(1_000);
    replica.poll_store(now, &mut out);
    match take(&mut out).0 {
        0 => Err("the hello does not go out".into()),
        _ => Ok(()),
    }
}

/// Returns how many frames go out, and the connection that is asked for.
fn take(out: &mut Vec<Action>) -> (usize, Option<ConnId>) {
    let (mut sent, mut dialled) = (0, None);
    for action in out.drain(..) {
        match action {
            Action::Net(NetAction::Connect { conn, .. }) => dialled = Some(conn),
            Action::Net(NetAction::Send { .. }) => sent += 1,
            Action::Net(
                NetAction::Ping { .. } | NetAction::Close { .. } | NetAction::Request(_),
            )
            | Action::Event(_)
            | Action::Synced { .. }
            | Action::Durable(_)
            | Action::Fate { .. }
            | Action::Watch(_)
            | Action::Halted(_) => {}
        }
    }
    (sent, dialled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_keeps_its_promises_whoever_drives_it() {
        assert_eq!(reports_beyond_the_last_commit(), Ok(()));
    }
}
