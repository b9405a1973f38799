//! Time passes, disks fail, both ends stop and start again.

use synclayer_core::testing::{InspectReplica, SimulatedDisk};
use synclayer_core::{
    Command, CommitNumber, ConnId, Disconnect, Input, MemoryClientStore, MemoryRows, Replica,
    StoreError, StoreErrorKind,
};

use super::super::script::Script;
use super::ClientBench;

impl ClientBench {
    pub(super) fn sync_disk(&mut self, script: &mut Script<'_>) {
        let back = CommitNumber(script.number().min(3));
        let last = self.replica.store().last().0;
        self.replica.store_mut().make_durable(CommitNumber(last.saturating_sub(back.0)));
        self.with(|replica, now, actions| replica.poll_store(now, actions));
    }

    /// The disk fails, or the process dies; the replica is opened again.
    pub(super) fn break_disk(&mut self, script: &mut Script<'_>) {
        let store = self.replica.store_mut();
        let error = StoreError::new(StoreErrorKind::Other, "broken");
        match script.below(3) {
            0 => store.fail_commit(1 + script.number().min(4), error),
            1 => store.fail(error),
            _ => {}
        }
        if script.chance(2) {
            return;
        }
        let (last, durable) = (self.replica.store().last(), self.replica.durable());
        let back_to = CommitNumber(last.0.saturating_sub(script.number()).max(durable.0));
        self.reopen(self.replica.store().clone().crash_to(back_to));
    }

    pub(super) fn reopen(&mut self, store: MemoryClientStore) {
        self.openings += 1;
        let mut actions = Vec::new();
        let opened =
            Replica::open(self.config.clone(), self.openings, self.now, store, &mut actions);
        match opened {
            Ok(replica) => self.replica = replica,
            Err(error) => {
                assert!(!self.sound, "a crash leaves a sound store: {error}");
                return;
            }
        }
        self.drop_line(self.conn);
        self.up.clear();
        self.tickets.clear();
        self.watches.clear();
        self.conn = ConnId(0);
        self.replica.command(self.now, Command::Connect, &mut actions);
        self.take(actions);
    }

    pub(super) fn restart_server(&mut self, rows: MemoryRows) {
        let conn = self.conn;
        let was_connected = self.host.down.contains_key(&conn);
        if let Err(error) = self.host.restart(rows, self.now) {
            assert!(!self.sound, "a server loses nothing: {error}");
            self.host.restart(MemoryRows::default(), self.now).expect("no rows are sound");
        }
        self.up.clear();
        if was_connected {
            let why = Disconnect::Lost("the server is gone".into());
            self.with(|replica, now, actions| {
                replica.handle(now, Input::Disconnected { conn, why }, actions);
            });
        }
    }

    pub(super) fn pass(&mut self, script: &mut Script<'_>) {
        let due = self.replica.deadline().map_or(0, |(at, _)| at.0.saturating_sub(self.now.mono.0));
        let millis = if script.chance(3) { script.number().saturating_mul(1_000) } else { due };
        self.now.mono.0 = self.now.mono.0.saturating_add(millis.min(1 << 40));
        // the wall clock jumps as it likes
        self.now.wall.0 = self.now.wall.0.saturating_add(i64::from(script.byte()) - 100);
        // what ends just then may leave something to begin at once, but not for ever
        for _ in 0..3 {
            self.with(|replica, now, actions| replica.handle(now, Input::Timeout, actions));
            if self.replica.deadline().is_none_or(|(at, _)| at > self.now.mono) {
                break;
            }
        }
        if let Some((at, timer)) = self.replica.deadline() {
            assert!(
                at > self.now.mono,
                "{timer:?} is due at {at:?}, again, at {:?}",
                self.now.mono
            );
        }
    }
}
