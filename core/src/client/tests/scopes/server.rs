//! A model of a server that serves sets of scopes of one collection, written from the protocol, as simple
//! as can be: it looks at all records each time, and keeps all changes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::string::String;
use std::vec::Vec;
use std::{format, vec};

use crate::protocol::document::Document;
use crate::protocol::hash::Checksum;
use crate::protocol::message::{
    Ack, ClientMessage, Cursor, DeleteReason, ErrorCode, ErrorMessage, Features, Level, Mode,
    Mutation, Resume, ServerChange, ServerMessage, SyncRecord, Welcome,
};
use crate::protocol::name::{Collection, Epoch, MutationNumber, RecordId, Seq};
use crate::protocol::scopes::{
    AskedScope, LeftRecord, LoadPlace, ScopeName, ScopePage, ScopePlace,
};
use crate::protocol::time::Timestamp;
use crate::protocol::write::{Change, WriteKind};

/// The scopes in which a document is: of `room`, of `tags[]`, and of `kind` and `room`.
pub(super) fn scopes_of(document: Option<&Document>) -> BTreeSet<String> {
    let Some(document) = document else { return BTreeSet::new() };
    let mut scopes = BTreeSet::new();
    // of all values of a document, this is the only number that is written in two ways
    let number = |room| if room == "1.0" { "1" } else { room };
    if let Some(room) = document.text("room").map(number) {
        scopes.insert(format!("room={room}"));
        if let Some(kind) = document.text("kind") {
            scopes.insert(format!("kind={kind}+room={room}"));
        }
    }
    let tags = document.text("tags").unwrap_or("[]").trim_matches(['[', ']']);
    scopes.extend(tags.split(',').filter(|tag| !tag.is_empty()).map(|tag| format!("tags[]={tag}")));
    scopes
}

fn text_of(name: &ScopeName) -> String {
    let parts: Vec<_> = name.parts.iter().map(|(part, json)| format!("{part}={json}")).collect();
    parts.join("+")
}

/// The fields that are in a key of these scopes.
fn fields_of(scopes: &BTreeSet<String>) -> BTreeSet<String> {
    let parts = scopes.iter().flat_map(|scope| scope.split('+'));
    parts.filter_map(|part| Some(part.split('=').next()?.trim_end_matches("[]").into())).collect()
}

#[derive(Clone, Debug, Default)]
pub(super) struct Held {
    pub(super) document: Option<Document>,
    pub(super) seq: u64,
    whole: u64,
    fields: BTreeMap<String, u64>,
    left: BTreeMap<String, u64>,
    version: u64,
    at: Timestamp,
}

#[derive(Clone, Debug)]
pub(super) struct Logged {
    pub(super) id: RecordId,
    change: Change,
    before: BTreeSet<String>,
    after: BTreeSet<String>,
    document: Option<Document>,
    prev: u64,
    version: u64,
    at: Timestamp,
    /// The connection and number of the write; 0 of another writer's.
    pub(super) by: (u64, u64),
}

#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) head: u64,
    pub(super) records: BTreeMap<RecordId, Held>,
    pub(super) log: Vec<Logged>,
    pub(super) horizon: u64,
    ended: Vec<(Epoch, u64)>,
    epoch: u64,
    last: u64,
    digest: Option<crate::protocol::hash::Digest>,
    pub(super) denied: BTreeSet<String>,
}

#[derive(Clone, Debug, Default)]
enum Sub {
    #[default]
    None,
    Catching {
        floor: Option<u64>,
        after: u64,
        loaded: BTreeSet<String>,
        load: Option<Load>,
        waiting: VecDeque<ScopeName>,
    },
    Live {
        place: u64,
        loaded: BTreeSet<String>,
    },
}

#[derive(Clone, Debug)]
struct Load {
    name: ScopeName,
    began: u64,
    after: Option<u64>,
}

/// A verdict that waits for its place in the stream.
#[derive(Clone, Debug)]
struct Verdict {
    at: u64,
    in_place: bool,
    message: ServerMessage,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Connection {
    id: u64,
    greeted: bool,
    names: BTreeMap<String, ScopeName>,
    set: u64,
    sub: Sub,
    own: BTreeSet<u64>,
    verdicts: VecDeque<Verdict>,
    /// After an error nothing is applied before this number.
    pub(super) out: VecDeque<ServerMessage>,
}

pub(super) fn todos() -> Collection {
    Collection::new("todos").unwrap()
}

impl Connection {
    pub(super) fn new(id: u64) -> Self {
        Self { id, ..Self::default() }
    }

    pub(super) fn is_idle(&self, server: &Server) -> bool {
        let is_live = matches!(&self.sub, Sub::Live { place, .. } if *place == server.head)
            || matches!(&self.sub, Sub::None);
        self.out.is_empty() && self.verdicts.is_empty() && is_live
    }

    pub(super) fn is_live(&self) -> bool {
        matches!(self.sub, Sub::Live { .. })
    }

    /// The server's memory of changes has moved on: the stream goes on from the store.
    pub(super) fn overrun(&mut self) {
        if let Sub::Live { place, loaded } = &self.sub {
            let (place, loaded) = (*place, loaded.clone());
            self.release_all();
            self.announce(Mode::Delta, Vec::new());
            let (floor, waiting) = (Some(place), VecDeque::new());
            self.sub = Sub::Catching { floor, after: place, loaded, load: None, waiting };
        }
    }

    /// The user loses the right to a scope.
    pub(super) fn revoke(&mut self, scope: &str) {
        let gone = match &mut self.sub {
            Sub::None => false,
            Sub::Live { loaded, .. } => loaded.remove(scope),
            Sub::Catching { floor, after, loaded, load, waiting } => {
                let was = loaded.remove(scope)
                    || load.take_if(|load| text_of(&load.name) == scope).is_some()
                    || waiting.iter().any(|name| text_of(name) == scope);
                waiting.retain(|name| text_of(name) != scope);
                if was {
                    // what was passed over because of it is told now
                    *after = floor.unwrap_or(*after);
                }
                was
            }
        };
        if gone {
            let scopes = vec![self.names[scope].clone()];
            self.out.push_back(ServerMessage::Unsubscribed { collection: todos(), scopes });
        }
    }

    fn announce(&mut self, mode: Mode, refused: Vec<ScopeName>) {
        self.out.push_back(ServerMessage::Subscribed {
            collection: todos(),
            record_count: None,
            head: None,
            mode: Some(mode),
            partial: false,
            rights: None,
            set: Some(self.set),
            refused,
        });
    }

    fn release_all(&mut self) {
        self.out.extend(self.verdicts.drain(..).map(|verdict| verdict.message));
    }

    fn give(&mut self, verdict: Verdict) {
        let is_due = match &self.sub {
            Sub::Live { place, .. } => *place >= verdict.at && !verdict.in_place,
            Sub::None | Sub::Catching { .. } => true,
        };
        if is_due && self.verdicts.is_empty() {
            self.out.push_back(verdict.message);
        } else {
            self.verdicts.push_back(verdict);
        }
    }
}

impl Server {
    pub(super) fn new() -> Self {
        Self {
            head: 0,
            records: BTreeMap::new(),
            log: Vec::new(),
            horizon: 0,
            ended: Vec::new(),
            epoch: 1,
            last: 0,
            digest: None,
            denied: BTreeSet::new(),
        }
    }

    fn epoch(&self) -> Epoch {
        Epoch::new(&format!("e{}", self.epoch)).unwrap()
    }

    pub(super) fn restart_from(&mut self, saved: &Self, epoch: u64) {
        let denied = core::mem::take(&mut self.denied);
        *self = saved.clone();
        self.ended.push((self.epoch(), self.head));
        (self.epoch, self.denied) = (epoch, denied);
    }

    /// Removes tombstones and leaves.
    pub(super) fn sweep(&mut self) {
        let horizon = &mut self.horizon;
        self.records.retain(|_, held| {
            for (_, seq) in core::mem::take(&mut held.left) {
                *horizon = seq.max(*horizon);
            }
            if held.document.is_none() {
                *horizon = held.seq.max(*horizon);
            }
            held.document.is_some()
        });
    }

    /// Makes a change. Returns `true` if it is one.
    pub(super) fn apply(
        &mut self,
        id: &RecordId,
        change: &Change,
        at: Timestamp,
        by: (u64, u64),
    ) -> bool {
        let held = self.records.entry(id.clone()).or_default();
        let after = change.apply(held.document.as_ref());
        let Some(real) = Change::between(held.document.as_ref(), after.as_ref()) else {
            return false;
        };
        self.head += 1;
        let (seq, prev) = (self.head, held.seq);
        let before = scopes_of(held.document.as_ref());
        let scopes = scopes_of(after.as_ref());
        if real.kind == WriteKind::Update {
            for (name, _) in real.delta.fields() {
                held.fields.insert(name.into(), seq);
            }
        } else {
            (held.whole, held.fields) = (seq, BTreeMap::new());
        }
        for scope in before.difference(&scopes) {
            held.left.insert(scope.clone(), seq);
        }
        held.left.retain(|scope, _| !scopes.contains(scope));
        (held.document, held.seq, held.version) = (after.clone(), seq, held.version + 1);
        held.at = held.at.max(at);
        let (version, at) = (held.version, held.at);
        let (id, after) = (id.clone(), (scopes, after));
        self.log.push(Logged {
            id,
            change: real,
            before,
            after: after.0,
            document: after.1,
            prev,
            version,
            at,
            by,
        });
        true
    }

    fn vouches(&self, epoch: &Epoch, seq: u64) -> bool {
        let now = *epoch == self.epoch() && seq <= self.head;
        now || self.ended.iter().any(|(ended, head)| ended == epoch && seq <= *head)
    }

    pub(super) fn hear(&mut self, conn: &mut Connection, message: ClientMessage) {
        match message {
            ClientMessage::Ping { hello: Some(_) } => {
                conn.greeted = true;
                let welcome = Welcome {
                    database: None,
                    epoch: self.epoch(),
                    last_mutation: MutationNumber(self.last),
                    last_digest: self.digest,
                    first_session: None,
                    user_id: None,
                    max_batch_bytes: 0,
                    features: Features { scopes: true, ..Features::default() },
                };
                let welcome = Some(welcome);
                conn.out.push_back(ServerMessage::Pong { timestamp: None, welcome });
            }
            ClientMessage::Ping { hello: None } => {
                conn.out.push_back(ServerMessage::Pong { timestamp: None, welcome: None });
            }
            ClientMessage::Subscribe { cursor, resume, set, scopes, .. } => {
                self.subscribe(conn, cursor, resume, set.expect("a set"), scopes);
            }
            ClientMessage::Unsubscribe { .. } => {
                conn.release_all();
                conn.sub = Sub::None;
                let scopes = Vec::new();
                conn.out.push_back(ServerMessage::Unsubscribed { collection: todos(), scopes });
            }
            ClientMessage::Write(mutation) => self.judge(conn, &mutation),
            other => panic!("the model does not take {other:?}"),
        }
    }

    fn subscribe(
        &self,
        conn: &mut Connection,
        cursor: Option<Cursor>,
        resume: Option<Resume>,
        set: u64,
        scopes: Vec<AskedScope>,
    ) {
        assert!(set > conn.set, "the number of a set rises");
        assert!(!scopes.is_empty(), "a set has scopes");
        conn.release_all();
        conn.set = set;
        conn.names = scopes.iter().map(|it| (text_of(&it.name), it.name.clone())).collect();
        assert_eq!(conn.names.len(), scopes.len(), "a scope is named twice");
        let (refused, granted): (Vec<_>, Vec<_>) =
            scopes.into_iter().partition(|it| self.denied.contains(&text_of(&it.name)));
        let refused: Vec<_> = refused.into_iter().map(|it| it.name).collect();
        let (mut loaded, mut loads, mut waiting) = (BTreeSet::new(), Vec::new(), VecDeque::new());
        for AskedScope { name, place } in granted {
            match place {
                ScopePlace::Loaded => drop(loaded.insert(text_of(&name))),
                ScopePlace::Loading(load) => loads.push((name, load)),
                ScopePlace::Waiting => waiting.push_back(name),
            }
        }
        assert!(loads.len() <= 1, "one scope is loaded at a time");
        let is_place = |(_, load): &(ScopeName, LoadPlace)| {
            load.epoch == self.epoch()
                && self.vouches(&load.epoch, load.after.0.max(load.snapshot_seq.0))
        };
        let Some(Resume::Delta { epoch, seq }) =
            resume.or(Some(Resume::Delta { epoch: self.epoch(), seq: Seq(0) }))
        else {
            panic!("a set has no snapshot's resume")
        };
        let goes_on = match &cursor {
            Some(Cursor { epoch: of, seq: at }) => {
                self.vouches(of, at.0) && at.0 >= self.horizon && self.vouches(&epoch, seq.0)
            }
            None => {
                let began = |(_, load): &(ScopeName, LoadPlace)| load.snapshot_seq.0;
                loaded.is_empty() && loads.iter().all(|load| began(load) >= self.horizon)
            }
        };
        if goes_on && loads.iter().all(is_place) {
            let load = loads.pop().map(|(name, load)| Load {
                name,
                began: load.snapshot_seq.0,
                after: Some(load.after.0),
            });
            let floor = cursor.map(|cursor| cursor.seq.0).or(load.as_ref().map(|load| load.began));
            let resumed = if epoch == self.epoch() && refused.is_empty() { seq.0 } else { 0 };
            let after = floor.map_or(self.head, |floor| floor.max(resumed));
            conn.sub = Sub::Catching { floor, after, loaded, load, waiting };
            conn.announce(Mode::Delta, refused);
        } else {
            let denied = |name: &&ScopeName| !self.denied.contains(&text_of(name));
            let waiting = conn.names.values().filter(denied).cloned().collect();
            conn.sub = reload(self.head, waiting);
            conn.announce(Mode::Snapshot, refused);
        }
    }

    fn judge(&mut self, conn: &mut Connection, mutation: &Mutation) {
        let number = mutation.number.expect("a number");
        let (Some(base), id) = (mutation.base, mutation.record_id.clone()) else {
            return self.decide(conn, mutation);
        };
        if number.0 <= self.last {
            let message = bare(number, id);
            return conn.give(Verdict { at: 0, in_place: false, message });
        }
        if number.0 > self.last + 1 {
            return;
        }
        let held = self.records.get(&id).cloned().unwrap_or_default();
        let kind = mutation.change.kind;
        let is_newer = |seq: u64| seq > base.0 && !conn.own.contains(&seq);
        let is_touched = |name: &str| mutation.change.touches(name);
        let touched = held.fields.iter().any(|(name, seq)| is_touched(name) && is_newer(*seq));
        let mut conflicts = touched || is_newer(held.whole) || base.0 > self.head;
        conflicts |= kind != WriteKind::Update && is_newer(held.seq);
        conflicts |= base.0 < self.horizon && is_newer(held.seq);
        if held.document.is_none() {
            let gone = !self.records.contains_key(&id) && base.0 < self.horizon && base.0 != 0;
            conflicts = match kind {
                WriteKind::Update => true,
                WriteKind::Delete => false,
                WriteKind::Insert => conflicts || gone,
            };
        }
        if !conflicts {
            return self.decide(conn, mutation);
        }
        let seq = if self.records.contains_key(&id) { held.seq } else { self.horizon };
        let change = held.document.clone().map_or(Change::delete(), Change::insert);
        let current = ServerChange {
            change,
            seq: Some(Seq(seq)),
            version: Some(held.version),
            timestamp: Some(held.at),
            at: Vec::new(),
            user_id: None,
        };
        let message = ServerMessage::Error(ErrorMessage {
            mutation: Some(number),
            collection: Some(todos()),
            record_id: Some(id),
            current: Some(current),
            ..ErrorMessage::new(ErrorCode::Conflict, "conflict")
        });
        conn.give(Verdict { at: held.seq, in_place: false, message });
    }

    fn decide(&mut self, conn: &mut Connection, mutation: &Mutation) {
        let (number, id) = (mutation.number.unwrap(), mutation.record_id.clone());
        if number.0 != self.last + 1 {
            return;
        }
        (self.last, self.digest) = (number.0, Some(mutation.digest()));
        let at = mutation.timestamp.unwrap_or_default();
        if !self.apply(&id, &mutation.change, at, (conn.id, number.0)) {
            let at = self.records.get(&id).map_or(0, |held| held.seq);
            return conn.give(Verdict { at, in_place: false, message: bare(number, id) });
        }
        conn.own.insert(self.head);
        let held = &self.records[&id];
        let base = mutation.base.map_or(0, |base| base.0);
        let echo = Some(change_above(held, base, false));
        let Ack { timestamp, .. } = ack(number, id.clone());
        let message = ServerMessage::Ack(Ack { echo, timestamp, ..ack(number, id) });
        let in_place = conn.is_live();
        conn.give(Verdict { at: self.head, in_place, message });
    }

    /// Puts out what comes next in the stream.
    pub(super) fn stream(&self, conn: &mut Connection) {
        match core::mem::take(&mut conn.sub) {
            Sub::None => {}
            Sub::Live { place, loaded } => self.follow(conn, place, loaded),
            Sub::Catching { floor: Some(floor), .. } if floor < self.horizon => {
                let waiting = conn.names.iter().filter(|(text, _)| !self.denied.contains(*text));
                conn.sub = reload(self.head, waiting.map(|(_, name)| name.clone()).collect());
                conn.announce(Mode::Snapshot, Vec::new());
            }
            Sub::Catching { floor, after, loaded, load, waiting } => {
                self.catch_up(conn, (floor, after), loaded, load, waiting);
            }
        }
    }

    /// The members and leaves of scopes in a range of seqs.
    fn entries(&self, scopes: &BTreeSet<String>, above: u64) -> BTreeMap<u64, (RecordId, bool)> {
        let mut entries = BTreeMap::new();
        for (id, held) in &self.records {
            for scope in scopes {
                if let Some(seq) = held.left.get(scope).filter(|seq| **seq > above) {
                    entries.entry(*seq).or_insert((id.clone(), true));
                }
            }
            if held.seq > above && !scopes_of(held.document.as_ref()).is_disjoint(scopes) {
                entries.insert(held.seq, (id.clone(), false));
            }
        }
        entries
    }

    fn catch_up(
        &self,
        conn: &mut Connection,
        (floor, mut after): (Option<u64>, u64),
        mut loaded: BTreeSet<String>,
        load: Option<Load>,
        mut waiting: VecDeque<ScopeName>,
    ) {
        let mut held_scopes = loaded.clone();
        held_scopes.extend(load.iter().map(|load| text_of(&load.name)));
        for (seq, (id, is_leave)) in self.entries(&loaded, after) {
            after = seq;
            let held = &self.records[&id];
            if is_leave && !scopes_of(held.document.as_ref()).is_disjoint(&held_scopes) {
                continue;
            }
            let above = floor.unwrap_or(0);
            let entered = fields_of(&conn.names.keys().cloned().collect());
            let enters =
                entered.iter().any(|name| held.fields.get(name).is_some_and(|seq| *seq > above));
            let (change, reason) = match is_leave {
                true => gone(held, seq),
                false => (change_above(held, if enters { 0 } else { above }, enters), None),
            };
            conn.out.push_back(changed(&id, change, reason, None));
            conn.sub = Sub::Catching { floor, after, loaded, load, waiting };
            return;
        }
        if let Some(load) = load {
            let (floor, load) = self.load(conn, (floor, &mut after), load, &mut loaded);
            conn.sub = Sub::Catching { floor, after, loaded, load, waiting };
        } else if let Some(name) = waiting.pop_front() {
            let load = Some(Load { name, began: self.head, after: None });
            conn.sub = Sub::Catching { floor, after, loaded, load, waiting };
        } else {
            let (mut count, mut checksum) = (0, Checksum::default());
            for (id, held) in &self.records {
                for _ in scopes_of(held.document.as_ref()).intersection(&loaded) {
                    count += 1;
                    checksum.add(id, Seq(held.seq), held.document.as_ref().unwrap());
                }
            }
            conn.out.push_back(ServerMessage::Synced {
                collection: todos(),
                cursor: Cursor { epoch: self.epoch(), seq: Seq(self.head) },
                count,
                checksum: Some(checksum),
                set: Some(conn.set),
            });
            conn.sub = Sub::Live { place: self.head, loaded };
        }
    }

    /// A page of one record, or the last page.
    fn load(
        &self,
        conn: &mut Connection,
        (floor, place): (Option<u64>, &mut u64),
        load: Load,
        loaded: &mut BTreeSet<String>,
    ) -> (Option<u64>, Option<Load>) {
        let text = text_of(&load.name);
        let of = BTreeSet::from([text.clone()]);
        let mut page = ScopePage {
            collection: todos(),
            set: conn.set,
            scope: load.name.clone(),
            records: Vec::new(),
            left: Vec::new(),
            after: load.after.map(Seq),
            up_to: None,
            snapshot_seq: Seq(load.began),
        };
        let here: BTreeSet<_> = loaded.iter().cloned().chain([text.clone()]).collect();
        for (seq, (id, is_leave)) in self.entries(&of, load.after.unwrap_or(0)) {
            let held = &self.records[&id];
            let is_elsewhere = !scopes_of(held.document.as_ref()).is_disjoint(&here);
            if is_leave && (seq <= load.began || is_elsewhere) {
                continue;
            }
            if is_leave {
                page.left.push(LeftRecord { id, seq: Seq(seq) });
            } else {
                page.records.push(whole(&id, held));
            }
            page.up_to = Some(Seq(seq));
            conn.out.push_back(ServerMessage::Load(page));
            return (floor, Some(Load { after: Some(seq), ..load }));
        }
        conn.out.push_back(ServerMessage::Load(page));
        if loaded.is_empty() {
            *place = load.began.max(load.after.unwrap_or(0));
        }
        loaded.insert(text);
        (floor.or(Some(load.began)), None)
    }

    fn follow(&self, conn: &mut Connection, mut place: u64, loaded: BTreeSet<String>) {
        while place < self.head {
            let entry = &self.log[place as usize];
            place += 1;
            let was = !entry.before.is_disjoint(&loaded);
            let is = !entry.after.is_disjoint(&loaded);
            let is_own = entry.by.0 == conn.id
                && conn.verdicts.front().is_some_and(|own| own.in_place && own.at == place);
            let fits = was || is && entry.change.kind == WriteKind::Insert;
            let mut told = was || is;
            if is_own && fits {
                let number = MutationNumber(entry.by.1);
                conn.verdicts.pop_front();
                conn.out.push_back(ServerMessage::Ack(Ack {
                    seq: Some(Seq(place)),
                    version: Some(entry.version),
                    ..ack(number, entry.id.clone())
                }));
            } else if told {
                if let Some(own) = conn.verdicts.front_mut().filter(|_| is_own) {
                    own.in_place = false;
                }
                conn.out.push_back(self.live_change(entry, place, (was, is)));
            } else if let Some(own) = conn.verdicts.front_mut().filter(|_| is_own) {
                own.in_place = false;
            }
            while conn.verdicts.front().is_some_and(|due| !due.in_place && due.at <= place) {
                told = true;
                conn.out.extend(conn.verdicts.pop_front().map(|due| due.message));
            }
            if told {
                break;
            }
        }
        conn.sub = Sub::Live { place, loaded };
    }

    fn live_change(&self, entry: &Logged, seq: u64, (was, is): (bool, bool)) -> ServerMessage {
        let of = |change: Change| ServerChange {
            change,
            seq: Some(Seq(seq)),
            version: Some(entry.version),
            timestamp: Some(entry.at),
            at: Vec::new(),
            user_id: None,
        };
        let document = || entry.document.clone().unwrap();
        match (was, is) {
            (false, _) => changed(&entry.id, of(Change::insert(document())), None, None),
            (true, true) => {
                let is_update = entry.change.kind == WriteKind::Update;
                let prev = is_update.then_some(Seq(entry.prev));
                changed(&entry.id, of(entry.change.clone()), None, prev)
            }
            (true, false) => {
                let reason = entry.document.is_some().then_some(DeleteReason::Scope);
                changed(&entry.id, of(Change::delete()), reason, None)
            }
        }
    }
}

fn reload(head: u64, waiting: VecDeque<ScopeName>) -> Sub {
    Sub::Catching { floor: None, after: head, loaded: BTreeSet::new(), load: None, waiting }
}

fn ack(mutation: MutationNumber, record_id: RecordId) -> Ack {
    Ack {
        collection: todos(),
        record_id,
        mutation,
        seq: None,
        version: None,
        echo: None,
        timestamp: None,
    }
}

fn bare(number: MutationNumber, id: RecordId) -> ServerMessage {
    ServerMessage::Ack(ack(number, id))
}

fn changed(
    id: &RecordId,
    change: ServerChange,
    reason: Option<DeleteReason>,
    prev: Option<Seq>,
) -> ServerMessage {
    ServerMessage::Change { collection: todos(), record_id: id.clone(), change, reason, prev }
}

/// The change of a record above a seq.
fn change_above(held: &Held, above: u64, is_whole: bool) -> ServerChange {
    let change = match &held.document {
        None => Change::delete(),
        Some(document) if is_whole || held.whole > above => Change::insert(document.clone()),
        Some(document) => {
            let new = |name: &str| held.fields.get(name).is_some_and(|seq| *seq > above);
            let set = document.iter().filter(|(name, _)| new(name)).collect::<Vec<_>>();
            let unset =
                held.fields.keys().filter(|name| new(name) && document.text(name).is_none());
            let unset = unset.map(|name| name.as_str().into()).collect();
            let set = Document::of_sorted(&set);
            Change::update(crate::protocol::delta::Delta::new(set, unset))
        }
    };
    ServerChange {
        change,
        seq: Some(Seq(held.seq)),
        version: Some(held.version),
        timestamp: Some(held.at),
        at: Vec::new(),
        user_id: None,
    }
}

fn gone(held: &Held, seq: u64) -> (ServerChange, Option<DeleteReason>) {
    let is_deleted = held.document.is_none() && held.seq == seq;
    let change = ServerChange {
        change: Change::delete(),
        seq: Some(Seq(seq)),
        version: None,
        timestamp: Some(held.at),
        at: Vec::new(),
        user_id: None,
    };
    (change, if is_deleted { None } else { Some(DeleteReason::Scope) })
}

fn whole(id: &RecordId, held: &Held) -> SyncRecord {
    SyncRecord {
        id: id.clone(),
        document: held.document.clone().unwrap(),
        version: Some(held.version),
        updated_at: Some(held.at),
        seq: Some(Seq(held.seq)),
        at: Vec::new(),
    }
}

/// A message as it goes over the wire.
pub(super) fn frame(message: &ServerMessage) -> Vec<u8> {
    let mut out = Vec::new();
    message.encode(Level::Resumable, &mut out);
    out
}

impl Logged {
    /// Returns `true` if a write touches what this changed.
    pub(super) fn touches(&self, write: &Change) -> bool {
        self.change.meets(write)
    }
}
