//! A replica of the small world: its store, its connection, and the writes of its app.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use bytes::Bytes;
use synclayer_core::testing::{InspectReplica, SimulatedDisk};
use synclayer_core::{
    Action, Batch, ClientConfig, ClientStore, Command, CommitNumber, ConnId, ConnectionState,
    Delta, Disconnect, Document, ErrorCode, EventKind, FailureCause, Input, MemoryClientStore,
    MemoryRows, NetAction, Replica, Rows, StoreError,
};

use super::world::{NOW, id};
use crate::world::{document, todos};

#[derive(Clone)]
pub(super) struct SmallDevice {
    pub(super) replica: Replica<Shelf>,
    pub(super) conn: Option<ConnId>,
    pub(super) dialling: Option<ConnId>,
    /// The first connection of this life.
    pub(super) lives: u64,
    pub(super) written: Vec<Written>,
    pub(super) complaint: Option<String>,
    pub(super) sent: Vec<Bytes>,
}

/// A store that knows what a crash may leave.
#[derive(Clone)]
pub(super) struct Shelf {
    store: MemoryClientStore,
    /// Hashes of the rows, from the durable ones to the latest.
    pub(super) at_risk: Vec<u64>,
}

impl Shelf {
    fn new(store: MemoryClientStore) -> Self {
        let at_risk = vec![hash_of(store.memory_rows())];
        Self { store, at_risk }
    }

    fn make_durable(&mut self) {
        self.store.make_durable(self.store.last());
        self.at_risk.drain(..self.at_risk.len() - 1);
    }
}

impl ClientStore for Shelf {
    fn rows(&self) -> &dyn Rows {
        self.store.rows()
    }

    fn commit(&mut self, number: CommitNumber, batch: Batch) -> Result<(), StoreError> {
        self.store.commit(number, batch)?;
        self.at_risk.push(hash_of(self.store.memory_rows()));
        Ok(())
    }

    fn flush(&mut self, up_to: CommitNumber) -> Result<(), StoreError> {
        self.store.flush(up_to)
    }

    fn durable(&mut self) -> Result<CommitNumber, StoreError> {
        self.store.durable()
    }
}

/// A write that the app made and the replica has not forgotten in a crash.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Written {
    pub(super) number: u8,
    pub(super) kind: SmallWrite,
    /// The commit of this life that holds it.
    pub(super) commit: CommitNumber,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum SmallWrite {
    Save,
    Update,
    Delete,
    Unit,
}

impl SmallWrite {
    /// The state of the record after the write.
    pub(super) fn apply(self, record: Option<&Document>, n: u8) -> Option<Document> {
        let fields = document(&format!(r#"{{"h":{n},"t{n}":{n}}}"#));
        match self {
            Self::Save => Some(fields),
            Self::Update | Self::Unit => {
                record.map(|record| Delta::new(fields, Vec::new()).apply(record))
            }
            Self::Delete => None,
        }
    }

    /// Returns `true` if it leaves what it does not set.
    pub(super) fn is_update(self) -> bool {
        matches!(self, Self::Update | Self::Unit)
    }
}

impl SmallDevice {
    pub(super) fn open(i: usize, lives: u64, store: MemoryClientStore) -> Self {
        let mut config = ClientConfig::default();
        config.collections = vec![todos()];
        config.reconnect_delay = Duration::ZERO;
        config.max_reconnect_delay = Duration::ZERO;
        config.reconcile_interval = None;
        let mut out = Vec::new();
        let seed = u128::from(lives) << 8 | i as u128;
        let replica = Replica::open(config, seed, NOW, Shelf::new(store), &mut out);
        let mut device = Self {
            replica: replica.expect("a sound store"),
            conn: None,
            dialling: None,
            lives,
            written: Vec::new(),
            complaint: None,
            sent: Vec::new(),
        };
        device.carry_out(out);
        device.act(|replica, out| replica.command(NOW, Command::Connect, out));
        device
    }

    pub(super) fn act<T>(
        &mut self,
        call: impl FnOnce(&mut Replica<Shelf>, &mut Vec<Action>) -> T,
    ) -> T {
        let mut out = Vec::new();
        let answer = call(&mut self.replica, &mut out);
        self.carry_out(out);
        answer
    }

    pub(super) fn handle(&mut self, input: Input<'_>) {
        self.act(|replica, out| replica.handle(NOW, input, out));
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Durable(_)
                | Action::Fate { .. }
                | Action::Watch(_)
                | Action::Synced { .. }
                | Action::Halted(_) => {}
                Action::Net(NetAction::Connect { conn, .. }) => self.dialling = Some(conn),
                Action::Net(NetAction::Send { frame, .. }) => self.sent.push(frame),
                Action::Net(NetAction::Close { conn }) => {
                    if self.conn.is_some() && conn == self.local() {
                        self.conn = None;
                    }
                }
                Action::Net(NetAction::Ping { .. } | NetAction::Request(_)) => {}
                Action::Event(event) => self.hear(&event.kind),
            }
        }
    }

    fn hear(&mut self, event: &EventKind) {
        // half of a transaction that the strategy gives up takes the other half along
        if matches!(
            event,
            EventKind::OperationFailed { code: ErrorCode::Other(_), transaction: Some(_), .. }
        ) {
            return;
        }
        // so a connection looks that is cut before the server has said anything
        if matches!(event, EventKind::Error { cause: Some(FailureCause::Lost), .. }) {
            return;
        }
        let wrong = matches!(
            event,
            EventKind::ChecksumMismatch { .. }
                | EventKind::ServerLostChanges { .. }
                | EventKind::ReplicaCopied { .. }
                | EventKind::OperationFailed { .. }
                | EventKind::WriteStalled { .. }
                | EventKind::Error { .. }
        );
        if wrong && self.complaint.is_none() {
            self.complaint = Some(format!("{event:?}"));
        }
    }

    pub(super) fn wants_connection(&self) -> bool {
        let state = self.replica.status().connection;
        self.dialling.is_some() || state == ConnectionState::Reconnecting
    }

    pub(super) fn name_of(&self, i: usize, local: ConnId) -> ConnId {
        ConnId((i as u64) << 32 | self.lives << 16 | local.0)
    }

    /// The replica's own name for its connection.
    pub(super) fn local(&self) -> ConnId {
        ConnId(self.conn.map_or(0, |conn| conn.0 & 0xffff))
    }

    pub(super) fn sync(&mut self) {
        self.replica.store_mut().make_durable();
        self.act(|replica, out| replica.poll_store(NOW, out));
    }

    /// The connection is gone. What was sent on it may still arrive.
    pub(super) fn lose(&mut self) {
        let conn = self.local();
        self.conn = None;
        self.handle(Input::Disconnected { conn, why: Disconnect::Lost("cut".into()) });
    }

    pub(super) fn crash(&mut self, i: usize, forgotten: u64) {
        let back_to = CommitNumber(self.replica.store().store.last().0 - forgotten);
        let store = self.replica.store().store.clone().crash_to(back_to);
        let mut written = std::mem::take(&mut self.written);
        written.retain(|write| write.commit <= back_to);
        written.iter_mut().for_each(|write| write.commit = CommitNumber(0));
        *self = Self { written, ..Self::open(i, self.lives + 1, store) };
    }

    pub(super) fn shown(&self) -> Result<Option<Document>, String> {
        let record = self.replica.get(&todos(), &id());
        Ok(record.map_err(|error| error.message)?.map(|record| record.document))
    }
}

fn hash_of(rows: &MemoryRows) -> u64 {
    let mut state = DefaultHasher::new();
    rows.iter().for_each(|row| row.hash(&mut state));
    state.finish()
}
