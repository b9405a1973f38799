//! The small world: what can happen in it, and what must hold where nothing can.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use synclayer_core::rules::{Reader, verify};
use synclayer_core::testing::{Checked, InspectHub, InspectReplica, SimulatedDisk};
use synclayer_core::{
    AllowAll, ConnId, Delta, Document, Identity, Input, MemoryClientStore, Mono, Now, ReadAnswer,
    ReadRequest, RecordId, RingLimits, ServerLimits, Session, SessionInput, Timestamp, Write,
};

use super::Scope;
use super::device::{SmallDevice, SmallWrite, Written};
use crate::host::Host;
use crate::world::{document, record, todos};

pub(super) const NOW: Now = Now { mono: Mono(1_000), wall: Timestamp(1_790_000_000_000) };

/// One thing that happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SmallMove {
    /// The app of a replica saves the record whole.
    Save(usize),
    /// It changes a field that all change, and adds one of its own.
    Update(usize),
    /// It deletes the record.
    Delete(usize),
    /// It changes both records in one transaction.
    Unit(usize),
    /// A replica's disk makes everything durable.
    Sync(usize),
    /// A replica dials, and the connection comes up.
    Connect(usize),
    /// The next frame of a connection gets to the server.
    Up(ConnId),
    /// The next frame of a connection gets to its replica.
    Down(usize),
    /// The server's disk takes what waits for it.
    Commit,
    /// The server reads the page that waits longest.
    Read,
    /// A session hears the answer that waits at this place.
    Answer(usize),
    /// A session sends what there is.
    Pump(ConnId),
    /// The server notices that a connection is gone.
    Notice(ConnId),
    /// A replica notices that the server has ended its connection.
    HungUp(usize),
    /// A replica loses its connection; what it has sent may still arrive.
    Cut(usize),
    /// A replica crashes, and forgets so many of the commits that are not durable.
    Crash(usize, u64),
    /// The server crashes.
    CrashServer,
}

/// Two replicas and a server.
#[derive(Clone)]
pub struct SmallWorld {
    pub(super) host: Host,
    pub(super) devices: [SmallDevice; 2],
    /// Frames on their way to the server, of connections that live and of those that are cut.
    up: BTreeMap<ConnId, VecDeque<Bytes>>,
    left: Scope,
    pub(super) made: u8,
    /// `true` if there are transactions, over two records.
    pub(super) has_units: bool,
}

impl SmallWorld {
    /// Two replicas that are up to date with a server that has one record, or two where there are
    /// transactions.
    #[must_use]
    pub fn new(scope: Scope) -> Self {
        let ring = RingLimits::default();
        let host = Host::new(ServerLimits::default(), ring, NOW);
        let devices = [0, 1].map(|i| SmallDevice::open(i, 1, MemoryClientStore::when_told()));
        let (up, has_units) = (BTreeMap::new(), scope.units > 0);
        let mut world = Self { host, devices, up, left: scope, made: 0, has_units };
        for id in [id(), second()].into_iter().take(1 + usize::from(has_units)) {
            let saved = world.devices[0].act(|replica, out| {
                let save = Write::Save(todos(), id, document(r#"{"h":0}"#));
                replica.write(NOW, save, out).map(drop)
            });
            saved.expect("a sound write");
        }
        world.settle();
        world
    }

    /// Lets everything that needs no app and no fault happen.
    fn settle(&mut self) {
        while let Some(step) = self.progress().first() {
            self.make(*step).expect("nothing is wrong before anything happens");
        }
    }

    /// Everything that can happen now.
    #[must_use]
    pub fn moves(&self) -> Vec<SmallMove> {
        let mut moves = self.progress();
        if self.left.units > 0 {
            moves.push(SmallMove::Unit(0));
        }
        if self.left.operations > 0 {
            // beside transactions the other client writes
            for i in usize::from(self.has_units)..2 {
                moves.extend([SmallMove::Save(i), SmallMove::Update(i), SmallMove::Delete(i)]);
            }
        }
        for (i, device) in self.devices.iter().enumerate() {
            if self.left.cuts > 0 && device.conn.is_some() {
                moves.push(SmallMove::Cut(i));
            }
            if self.left.crashes > 0 {
                let forgets = 0..device.replica.store().at_risk.len() as u64;
                moves.extend(forgets.map(|forgotten| SmallMove::Crash(i, forgotten)));
            }
        }
        if self.left.crashes > 0 {
            moves.push(SmallMove::CrashServer);
        }
        moves
    }

    /// Returns the moves that happen without an app or a fault.
    fn progress(&self) -> Vec<SmallMove> {
        let mut moves = Vec::new();
        for (i, device) in self.devices.iter().enumerate() {
            if device.replica.store().at_risk.len() > 1 {
                moves.push(SmallMove::Sync(i));
            }
            match device.conn {
                None if device.wants_connection() => moves.push(SmallMove::Connect(i)),
                None => {}
                Some(conn) if self.host.has_hung_up(conn) => moves.push(SmallMove::HungUp(i)),
                Some(conn) if !self.host.down[&conn].is_empty() => moves.push(SmallMove::Down(i)),
                Some(_) => {}
            }
        }
        for conn in self.host.down.keys() {
            let waits = self.up.get(conn).is_some_and(|up| !up.is_empty());
            if waits && self.host.hub.session(*conn).is_some_and(Session::wants_frames) {
                moves.push(SmallMove::Up(*conn));
            }
            if !self.devices.iter().any(|device| device.conn == Some(*conn)) {
                moves.push(SmallMove::Notice(*conn));
            }
        }
        if self.host.hub.waiting_transactions().len() > 0 {
            moves.push(SmallMove::Commit);
        }
        if self.host.hub.waiting_reads() > 0 {
            moves.push(SmallMove::Read);
        }
        moves.extend((0..self.host.hub.waiting_answers().len()).map(SmallMove::Answer));
        moves.extend(self.host.pumpable().into_iter().map(SmallMove::Pump));
        moves
    }

    /// Returns true if nothing happens any more by itself.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.progress().is_empty()
    }

    /// Lets something happen.
    ///
    /// # Errors
    /// Says which guarantee it breaks at once.
    pub fn make(&mut self, step: SmallMove) -> Result<(), String> {
        match step {
            SmallMove::Save(i) => self.write(i, SmallWrite::Save)?,
            SmallMove::Update(i) => self.write(i, SmallWrite::Update)?,
            SmallMove::Delete(i) => self.write(i, SmallWrite::Delete)?,
            SmallMove::Unit(i) => self.write(i, SmallWrite::Unit)?,
            SmallMove::Sync(i) => self.devices[i].sync(),
            SmallMove::Connect(i) => self.connect(i),
            SmallMove::Up(conn) => {
                let frame = self.up.get_mut(&conn).and_then(VecDeque::pop_front);
                if let Some(frame) = frame {
                    self.host.tell(conn, SessionInput::Frame(&frame), NOW);
                }
            }
            SmallMove::Down(i) => self.down(i),
            SmallMove::Commit => self.host.commit(NOW),
            SmallMove::Read => self.host.read(),
            SmallMove::Answer(place) => self.host.answer(place, NOW),
            SmallMove::Pump(conn) => self.host.pump(conn, 1 << 20, NOW),
            SmallMove::Notice(conn) => {
                self.host.drop_line(conn, NOW);
                self.up.remove(&conn);
            }
            SmallMove::HungUp(i) => self.hung_up(i),
            SmallMove::Cut(i) => {
                self.left.cuts -= 1;
                self.devices[i].lose();
            }
            SmallMove::Crash(i, forgotten) => {
                self.left.crashes -= 1;
                self.devices[i].crash(i, forgotten);
            }
            SmallMove::CrashServer => {
                self.left.crashes -= 1;
                self.host.crash(NOW);
                self.up.clear();
            }
        }
        if self.left.quick_server {
            self.host.settle(NOW);
        }
        self.forget_the_dead();
        self.collect()
    }

    /// Drops connections that no replica has and that do nothing any more.
    fn forget_the_dead(&mut self) {
        let lives = |conn: &ConnId| self.devices.iter().any(|device| device.conn == Some(*conn));
        let silent = |conn: &ConnId| self.up.get(conn).is_none_or(VecDeque::is_empty);
        let lines = self.host.down.keys();
        let dead: Vec<_> = lines
            .filter(|conn| !lives(conn) && silent(conn) && self.host.hub.is_idle(**conn))
            .copied()
            .collect();
        for conn in dead {
            self.host.drop_line(conn, NOW);
            self.up.remove(&conn);
        }
    }

    fn write(&mut self, i: usize, kind: SmallWrite) -> Result<(), String> {
        match kind {
            SmallWrite::Unit => self.left.units -= 1,
            SmallWrite::Save | SmallWrite::Update | SmallWrite::Delete => self.left.operations -= 1,
        }
        self.made += 1;
        let n = self.made;
        let fields = document(&format!(r#"{{"h":{n},"t{n}":{n}}}"#));
        let device = &mut self.devices[i];
        let before = device.shown()?;
        let written = device.act(|replica, out| match kind {
            SmallWrite::Save => replica.write(NOW, Write::Save(todos(), id(), fields), out),
            SmallWrite::Update => {
                let delta = Delta::new(fields.clone(), Vec::new());
                replica.write(NOW, Write::Update(todos(), id(), delta), out)
            }
            SmallWrite::Delete => replica.write(NOW, Write::Delete(todos(), id()), out),
            SmallWrite::Unit => replica.write(NOW, transaction(fields.clone()), out),
        });
        let Ok(written) = written else {
            // there is nothing to update
            return if before.is_none() { Ok(()) } else { Err(format!("{kind:?} is refused")) };
        };
        let after = device.shown()?;
        let expected = kind.apply(before.as_ref(), n);
        if after != expected {
            return Err(format!("read your writes: {expected:?} was written, {after:?} is shown"));
        }
        if before != after {
            device.written.push(Written { number: n, kind, commit: written.commit });
        }
        Ok(())
    }

    fn connect(&mut self, i: usize) {
        let device = &mut self.devices[i];
        if device.dialling.is_none() {
            device.handle(Input::Timeout);
        }
        if let Some(local) = device.dialling.take() {
            // the connections of a replica that has started again are others
            let conn = device.name_of(i, local);
            device.conn = Some(conn);
            self.host.accept(conn, Identity::Open, NOW);
            self.up.insert(conn, VecDeque::new());
            self.devices[i].handle(Input::Connected { conn: local });
        }
    }

    fn down(&mut self, i: usize) {
        let device = &mut self.devices[i];
        let line = device.conn.and_then(|conn| self.host.down.get_mut(&conn));
        if let Some(frame) = line.and_then(VecDeque::pop_front) {
            let conn = device.local();
            device.handle(Input::Frame { conn, frame: &frame });
        }
    }

    fn hung_up(&mut self, i: usize) {
        if let Some(conn) = self.devices[i].conn {
            self.host.drop_line(conn, NOW);
            self.up.remove(&conn);
            self.devices[i].lose();
        }
    }

    /// Takes what the replicas have sent, and what they complain about.
    fn collect(&mut self) -> Result<(), String> {
        for (i, device) in self.devices.iter_mut().enumerate() {
            if let Some(complaint) = &device.complaint {
                return Err(format!("replica {i}: {complaint}"));
            }
            device.replica.check().map_err(|what| format!("replica {i}: {what}"))?;
        }
        if self.has_units {
            self.check_units()?;
        }
        for i in 0..2 {
            let sent = std::mem::take(&mut self.devices[i].sent);
            if let Some(up) = self.devices[i].conn.and_then(|conn| self.up.get_mut(&conn)) {
                up.extend(sent);
            }
        }
        Ok(())
    }

    /// The guarantees, where everything is at rest.
    ///
    /// # Errors
    /// Says which one does not hold.
    pub fn check(&self) -> Result<(), String> {
        let report = verify(&self.host.rows).map_err(|error| error.message)?;
        if !report.faults.is_empty() {
            return Err(format!("the server's books: {:?}", report.faults));
        }
        let head = report.collections.get(&todos()).copied().unwrap_or_default();
        let server = self.server_record()?;
        for (i, device) in self.devices.iter().enumerate() {
            let status = device.replica.status();
            let stream = status.collections.get(&todos()).ok_or("no collection")?;
            if status.pending_writes > 0 || !stream.live {
                return Err(format!("liveness: replica {i} is stuck: {status:?}"));
            }
            if status.rejected_writes > 0 && !self.may_lose(i) {
                return Err(format!("exactly once: replica {i} was refused a sound write"));
            }
            let shown = device.shown()?;
            if shown != server || (stream.count, stream.checksum) != (head.count, head.checksum) {
                return Err(format!("convergence: replica {i} shows {shown:?}, not {server:?}"));
            }
        }
        if self.has_units {
            self.check_units_at_rest()?;
        }
        self.check_writes(server.as_ref(), head.seq.0)
    }

    /// Each write took effect once, in its order, unless its replica forgot it in a crash.
    fn check_writes(&self, record: Option<&Document>, head: u64) -> Result<(), String> {
        let [one, other] = &self.devices;
        let written = || one.written.iter().chain(&other.written);
        let start = 1 + u64::from(self.has_units);
        let changes = |write: &Written| 1 + u64::from(write.kind == SmallWrite::Unit);
        let count: u64 = written().map(changes).sum();
        if head > start + count {
            return Err(format!("exactly once: {count} writes made {} changes", head - start));
        }
        let forgotten = (1..=self.made).filter(|n| !written().any(|w| w.number == *n));
        for n in forgotten {
            if record.is_some_and(|record| record.text(&format!("t{n}")).is_some()) {
                return Err(format!("write {n} was sent before it was durable"));
            }
        }
        if one.written.is_empty() || other.written.is_empty() {
            let start = Some(document(r#"{"h":0}"#));
            let end = written().fold(start, |state, w| w.kind.apply(state.as_ref(), w.number));
            if end.as_ref() != record {
                return Err(format!("order: {end:?} was written, {record:?} is there"));
            }
        } else if written().all(|write| write.kind.is_update()) {
            let Some(record) = record else {
                return Err("no lost update: nobody deleted the record".into());
            };
            for n in written().map(|write| write.number) {
                if record.text(&format!("t{n}")) != Some(&n.to_string()) {
                    return Err(format!("no lost update: write {n} is not in {record}"));
                }
            }
            let last = [one, other].map(|device| device.written.last().map(|w| w.number));
            if !last.iter().flatten().any(|n| record.text("h") == Some(&n.to_string())) {
                return Err(format!("order: the last writes are {last:?}, the record is {record}"));
            }
        }
        Ok(())
    }

    fn server_record(&self) -> Result<Option<Document>, String> {
        Ok(self.server_records()?.remove(&id()))
    }

    pub(super) fn server_records(&self) -> Result<BTreeMap<RecordId, Document>, String> {
        let reader = Reader::from(todos());
        let request = ReadRequest::Whole { reader, bytes: usize::MAX };
        match request.run(&self.host.rows, &AllowAll).map_err(|error| error.message)? {
            ReadAnswer::Whole(records) => {
                let records = records.records.unwrap_or_default().into_iter();
                Ok(records.map(|record| (record.id, record.document)).collect())
            }
            ReadAnswer::Page(_)
            | ReadAnswer::Found(_)
            | ReadAnswer::Pulled(_)
            | ReadAnswer::Refused { .. } => Err("another answer".into()),
        }
    }

    /// A hash of all that the future depends on.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut state = DefaultHasher::new();
        self.host.hash_into(&mut state);
        for device in &self.devices {
            (device.replica.digest(), &device.replica.store().at_risk).hash(&mut state);
            (device.conn, device.dialling, device.lives, &device.written).hash(&mut state);
        }
        (&self.up, self.made).hash(&mut state);
        (self.left.operations, self.left.units, self.left.crashes, self.left.cuts).hash(&mut state);
        state.finish()
    }
}

pub(super) fn id() -> RecordId {
    record("r")
}

pub(super) fn second() -> RecordId {
    record("s")
}

/// Sets these fields of both records.
fn transaction(fields: Document) -> Write {
    let delta = Delta::new(fields, Vec::new());
    Write::Transaction(Box::new(move |draft| {
        draft.update(&todos(), &id(), &delta)?;
        draft.update(&todos(), &second(), &delta)
    }))
}
