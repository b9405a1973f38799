//! Ends and restarts of the server, from its own disk or from an older one.

use std::time::Duration;

use synclayer_core::rules::{database as database_of, verify};

use synclayer_core::testing::InspectHub;
use synclayer_core::{
    ConnId, DatabaseId, Epoch, HubInput, SessionInput, Sweep, SweepPlace, Transaction,
};

use crate::invariants::Invariant;

use super::World;
use super::history::History;
use super::server::{Backup, Server};

impl World {
    /// The server's end of a connection is gone, with what was on its way to it.
    pub(super) fn lose_server_end(&mut self, conn: ConnId) {
        if let Some(link) = self.links.get_mut(&conn) {
            link.lose_server_end();
        }
        let now = self.server_clock.read(self.now);
        let input = SessionInput::Closed;
        self.with_hub(|hub, out| hub.handle(now, HubInput::Session { conn, input }, out));
    }

    // --- its process ---

    /// The server's process dies and starts again: what was committed is there.
    pub fn crash_server(&mut self) {
        self.count("server crash");
        self.note(|| "the server crashes".into());
        self.restart_server(None);
    }

    /// The server ends as it should, and starts again.
    pub fn shut_server_down(&mut self) {
        self.count("server shutdown");
        self.note(|| "the server shuts down".into());
        for conn in self.links.keys().copied().collect::<Vec<_>>() {
            self.tell(conn, SessionInput::Shutdown);
        }
        self.restart_server(None);
    }

    /// The server's disk takes nothing for a while, or goes on.
    pub fn pause_server_disk(&mut self, paused: bool) {
        self.store.paused = paused;
    }

    /// The server's store, which had failed, works again by itself, and the server tries whether it
    /// does.
    pub fn reopen_store(&mut self) {
        self.count("server store reopened");
        self.note(|| "the server's store works again".into());
        self.store.poisoned = false;
        let look = Sweep { retention: Duration::MAX, from: SweepPlace::Start, budget: 1 };
        self.serve_input(HubInput::Sweep(look));
    }

    /// Returns `true` if the server's store refuses everything until it is reopened.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.store.poisoned
    }

    /// The server's rows, as a backup.
    #[must_use]
    pub fn backup(&self) -> Backup {
        let history = self.store.histories.present().clone();
        Backup { rows: self.store.rows.clone(), history }
    }

    /// The server starts again from a backup.
    pub fn restore_server(&mut self, backup: Backup) {
        self.count("server restored");
        self.note(|| "the server starts from a backup".into());
        self.restart_server(Some(backup));
        self.expect_less();
    }

    pub(super) fn start_from(&mut self, backup: Backup) {
        self.restart_server(Some(backup));
        self.expect_less();
    }

    pub(super) fn restart_server(&mut self, backup: Option<Backup>) {
        self.count("server restart");
        if self.devices.iter().any(|device| device.replica.status().pending_writes > 0) {
            self.count("new epoch with pending writes");
        }
        self.store.poisoned = false;
        let mut restored = None;
        if let Some(Backup { rows, history }) = backup {
            self.store.rows = rows;
            restored = Some(history);
        }
        self.server = Server::new(&self.config);
        self.links.values_mut().for_each(super::link::Link::lose_server_end);
        self.drop_served_calls();
        self.begin_epoch(restored);
        self.sweep_links();
    }

    /// The current epoch.
    pub(super) fn epoch(&self) -> Epoch {
        let id = format!("e{}-{}", self.config.seed, self.store.openings);
        Epoch::new(&id).expect("a valid epoch")
    }

    pub(super) fn begin_epoch(&mut self, restored: Option<History>) {
        self.store.openings += 1;
        let epoch = self.epoch();
        self.store.histories.begin(epoch.clone(), restored);
        let now = self.server_clock.read(self.now);
        let proposed = format!("d{}-{}", self.config.seed, self.store.openings);
        let database = DatabaseId::new(&proposed).expect("a valid identity");
        let before = database_of(&self.store.rows).expect("the rows can be read");
        let begin = Transaction::BeginEpoch { epoch, database };
        let context = self.server.hub.context(now);
        let decision = begin.decide(&self.store.rows, context).expect("the rows can be read");
        self.store.rows.apply(decision.batch);
        self.declare_scopes();
        self.look_at_members();
        self.members_are_known();
        let after = database_of(&self.store.rows).expect("the rows can be read");
        if before.is_some_and(|before| after.as_ref() != Some(&before)) {
            let what = "an opening made the server's another database".into();
            self.fail(Invariant::ServerRows, what);
        }
        let report = verify(&self.store.rows).expect("the rows can be read");
        let heads = report.collections.into_iter().map(|(name, head)| (name, head.seq));
        self.server.hub.forget_changes(heads);
    }
}
