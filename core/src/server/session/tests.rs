//! Sessions in a small world: a store in memory, the rings, and connections whose frames are read
//! as short lines.

mod auth;
mod random;
mod scopes;
mod sets;
mod stream;
mod units;
mod verdicts;

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::*;
use crate::protocol::limits::Limits;
use crate::protocol::message::{DeleteReason, Mode, ServerChange, ServerMessage, Token};
use crate::protocol::name::{Seq, UserId};
use crate::protocol::scopes::ScopePage;
use crate::protocol::time::Timestamp;
use crate::protocol::wire::{Incoming, decode_server};
use crate::protocol::write::Change;
use crate::rules::page::ReadRequest;
use crate::rules::policy::{AllowAll, Policy, Rate};
use crate::rules::transaction::tests::{Store, todos};
use crate::rules::transaction::{Context, Published, TransactError, Transaction};
use crate::server::committer::Committer;
use crate::server::ring::RingLimits;
use crate::store::{StoreError, StoreErrorKind};

pub(crate) struct World {
    store: Store,
    rings: Rings,
    policy: Box<dyn Policy>,
    limits: ServerLimits,
    /// The most writes of a transaction while others write too.
    run: Option<usize>,
    now: Now,
    conns: BTreeMap<u64, Conn>,
    /// The changes that the commits have published, until they are taken.
    published: Vec<Published>,
}

use alloc::boxed::Box;

struct Conn {
    session: Session,
    frames: Vec<Vec<u8>>,
    transactions: Vec<Ticket<Transaction>>,
    reads: Vec<Ticket<ReadRequest>>,
    tokens: Vec<Ticket<Token>>,
    follows: Vec<Collection>,
    closed: Option<u16>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            store: Store::new(),
            rings: Rings::new(RingLimits::default()),
            policy: Box::new(AllowAll),
            limits: ServerLimits::default(),
            run: None,
            now: Now { mono: Mono(1000), wall: Timestamp(1_000_000) },
            conns: BTreeMap::new(),
            published: Vec::new(),
        }
    }

    fn connect(&mut self, conn: u64, identity: Identity) {
        let config = Arc::new(self.limits.clone());
        let session = Session::new(config, ConnId(conn), identity, self.now);
        let conn_state = Conn {
            session,
            frames: Vec::new(),
            transactions: Vec::new(),
            reads: Vec::new(),
            tokens: Vec::new(),
            follows: Vec::new(),
            closed: None,
        };
        self.conns.insert(conn, conn_state);
    }

    /// A connection that has said hello as `c{conn}`.
    fn connect_resumable(&mut self, conn: u64) {
        self.connect(conn, Identity::Open);
        self.hello(conn, 1);
        self.settle();
        assert!(self.took(conn)[0].starts_with("pong"), "the hello is answered");
    }

    fn hello(&mut self, conn: u64, session: u64) {
        self.say(
            conn,
            &format!(
                r#"{{"type":"ping","metadata":{{"protocol":2,"clientId":"c{conn}","session":{session}}}}}"#
            ),
        );
    }

    /// One frame of the client's, and nothing that follows from it.
    fn say(&mut self, conn: u64, frame: &str) {
        self.input(conn, SessionInput::Frame(frame.as_bytes()));
    }

    fn subscribe(&mut self, conn: u64, cursor: Option<(&str, u64)>) {
        let metadata = cursor.map_or(String::new(), |(epoch, seq)| {
            format!(r#","metadata":{{"cursor":{{"epoch":"{epoch}","seq":{seq}}}}}"#)
        });
        self.say(conn, &format!(r#"{{"type":"subscribe","collection":"todos"{metadata}}}"#));
    }

    /// A numbered write: `kind` and the record, the data, the base.
    fn write(&mut self, conn: u64, number: u64, what: &str, data: &str, base: u64) {
        let (kind, id) = what.split_once(' ').unwrap();
        self.say(
            conn,
            &format!(
                r#"{{"type":"{kind}","collection":"todos","recordId":"{id}","data":{data},"metadata":{{"mutation":{number},"base":{base}}}}}"#
            ),
        );
    }

    fn input(&mut self, conn: u64, input: SessionInput<'_>) {
        let state = self.conns.get_mut(&conn).unwrap();
        let mut out = Vec::new();
        let mut env = Environment {
            rings: &self.rings,
            policy: self.policy.as_ref(),
            user_bucket: None,
            run: self.run,
            on_error: None,
        };
        state.session.handle(self.now, input, &mut env, &mut out);
        state.session.check().unwrap();
        for action in out {
            assert_eq!(state.closed, None, "nothing comes after a close: {action:?}");
            match action {
                SessionAction::Send(frame) => state.frames.push(frame.to_vec()),
                SessionAction::Close { code, .. } => state.closed = Some(code),
                SessionAction::Authenticate(ticket) => state.tokens.push(ticket),
                SessionAction::Transact(ticket) => state.transactions.push(ticket),
                SessionAction::Read(ticket) => state.reads.push(ticket),
                SessionAction::Follow(interest) => state.follows.push(interest.collection),
                SessionAction::Unfollow(collection) => {
                    let place = state.follows.iter().position(|c| *c == collection).unwrap();
                    state.follows.remove(place);
                }
            }
        }
        assert!(state.transactions.len() <= 1, "one transaction at a time");
        assert!(state.reads.len() <= 1, "one read at a time");
    }

    /// Commits the transactions of all connections together and publishes their changes. The
    /// answers are returned, to be handed in.
    fn commit(&mut self) -> Vec<(u64, SessionInput<'static>)> {
        let mut committer = Committer::new(1);
        let tickets = self.conns.values_mut().flat_map(|state| state.transactions.drain(..));
        tickets.for_each(|ticket| committer.submit(ticket));
        let Some(mut batch) = committer.next_batch(usize::MAX) else { return Vec::new() };
        let limits = &self.limits.input;
        let context = Context { policy: self.policy.as_ref(), limits, now: self.now.wall };
        let rows = batch.decide(&self.store.rows, context);
        self.store.rows.apply(rows);
        self.published.extend(batch.decided().into_iter().flat_map(|d| d.published.clone()));
        let settled = committer.settle(batch.committed(&mut self.rings));
        self.rings.check().unwrap();
        let mut answers = Vec::new();
        settled.deliver(
            |_| {},
            |ticket, answer| answers.push((ticket.conn().0, ticket.answer(answer))),
        );
        answers
    }

    fn commit_and_answer(&mut self) {
        for (conn, answer) in self.commit() {
            self.input(conn, answer);
        }
    }

    /// Runs the reads that are asked for. The answers are returned.
    fn read(&mut self) -> Vec<(u64, SessionInput<'static>)> {
        let mut answers = Vec::new();
        for (conn, state) in &mut self.conns {
            for ticket in state.reads.drain(..) {
                let answer = ticket.question().run(&self.store.rows, self.policy.as_ref());
                answers.push((*conn, ticket.answer(answer)));
            }
        }
        answers
    }

    fn read_and_answer(&mut self) {
        for (conn, answer) in self.read() {
            self.input(conn, answer);
        }
    }

    fn pump(&mut self, conn: u64) {
        self.input(conn, SessionInput::Pump { room: 1 << 20 });
    }

    /// Does everything that is to do, until nothing is.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            self.commit_and_answer();
            self.read_and_answer();
            let wanting = self
                .conns
                .iter()
                .filter(|(_, state)| state.session.wants_pump(&self.rings))
                .map(|(conn, _)| *conn);
            let wanting: Vec<_> = wanting.collect();
            for conn in &wanting {
                self.pump(*conn);
            }
            let idle = |state: &Conn| state.transactions.is_empty() && state.reads.is_empty();
            if wanting.is_empty() && self.conns.values().all(idle) {
                return;
            }
        }
        panic!("the world never settles");
    }

    /// The frames for a connection since the last time, as short lines.
    fn took(&mut self, conn: u64) -> Vec<String> {
        self.took_raw(conn).iter().map(|frame| brief(frame)).collect()
    }

    fn took_raw(&mut self, conn: u64) -> Vec<String> {
        let frames = core::mem::take(&mut self.conns.get_mut(&conn).unwrap().frames);
        frames.into_iter().map(|frame| String::from_utf8(frame).unwrap()).collect()
    }

    fn closed(&self, conn: u64) -> Option<u16> {
        self.conns[&conn].closed
    }

    fn session(&self, conn: u64) -> &Session {
        &self.conns[&conn].session
    }

    /// A write by someone without a connection.
    fn elsewhere(&mut self, id: &str, change: Change) {
        self.store.published.clear();
        self.store.plain_to(id, change);
        self.rings.publish_all(&self.store.published);
    }

    /// Empties the rings, as if they had moved on.
    fn lose_rings(&mut self) {
        let head = self.rings.head(&todos());
        self.rings = Rings::default();
        self.rings.note_head(&todos(), head);
    }

    fn later(&mut self, millis: u64) {
        self.now.mono = Mono(self.now.mono.0 + millis);
        self.now.wall = Timestamp(self.now.wall.0 + i64::try_from(millis).unwrap());
        self.store.now = self.now.wall;
    }
}

fn store_error() -> StoreError {
    StoreError::new(StoreErrorKind::Other, "the disk is on fire")
}

fn brief(frame: &str) -> String {
    match decode_server(frame.as_bytes(), &Limits::default()).unwrap() {
        Incoming::One(message) => brief_of(&message),
        Incoming::Batch(messages) => {
            let brief = |message: &Result<_, _>| brief_of(message.as_ref().unwrap());
            format!("[{}]", messages.iter().map(brief).collect::<Vec<_>>().join(", "))
        }
    }
}

fn brief_load(page: &ScopePage) -> String {
    let seq = |seq: Option<Seq>| seq.map_or("*".to_string(), |seq| seq.to_string());
    let (after, up_to) = (seq(page.after), seq(page.up_to));
    let mut brief = format!("load {} {after}..{up_to} at {}:", page.scope, page.snapshot_seq);
    for record in &page.records {
        brief += &format!(" {} {}@{}", record.id, record.document, seq(record.seq));
    }
    for left in &page.left {
        brief += &format!(" left {}@{}", left.id, left.seq);
    }
    brief
}

fn brief_of(message: &ServerMessage) -> String {
    match message {
        ServerMessage::Authenticated { user_id } => format!("authenticated {user_id:?}"),
        ServerMessage::Subscribed { record_count, head, mode, partial, .. } => {
            let mode = match mode {
                Some(Mode::Delta) => "delta",
                Some(Mode::Snapshot) => "snapshot",
                None => "plain",
            };
            let count = record_count.map_or("?".to_string(), |count| count.to_string());
            let head = head.map_or("?".to_string(), |head| head.to_string());
            let partial = if *partial { " partial" } else { "" };
            format!("subscribed {mode} count {count} head {head}{partial}")
        }
        ServerMessage::Unsubscribed { .. } => "unsubscribed".into(),
        ServerMessage::Change { record_id, change, reason, .. } => {
            let filtered = match reason {
                None => "",
                Some(DeleteReason::Filter) => " filtered",
                Some(DeleteReason::Scope) => " scope",
            };
            format!("{}{filtered}", brief_change(record_id, change))
        }
        ServerMessage::Sync { records, range, .. } => {
            let range = range.as_ref().map_or("all".to_string(), |range| {
                let key = |key: &Option<RecordId>| {
                    key.as_ref().map_or("*".to_string(), |k| k.to_string())
                };
                format!("{}..{} at {}", key(&range.after), key(&range.up_to), range.snapshot_seq)
            });
            let seq = |seq: Option<_>| {
                seq.map_or("?".to_string(), |seq: crate::protocol::name::Seq| seq.to_string())
            };
            let records: Vec<_> = records
                .iter()
                .map(|r| format!(" {} {}@{}", r.id, r.document, seq(r.seq)))
                .collect();
            format!("sync {range}:{}", records.concat())
        }
        ServerMessage::Load(page) => brief_load(page),
        ServerMessage::Synced { cursor, count, checksum, .. } => {
            let sum = if checksum.is_some() { "" } else { " no checksum" };
            format!("synced {} {} count {count}{sum}", cursor.epoch, cursor.seq)
        }
        ServerMessage::Ack(ack) => {
            let seq = ack.seq.map_or(String::new(), |seq| format!(" @{seq}"));
            let echo = ack.echo.as_ref().map_or(String::new(), |echo| {
                format!(" echo {}", brief_change(&ack.record_id, echo))
            });
            format!("ack {}{seq}{echo}", ack.mutation)
        }
        ServerMessage::Error(error) => {
            let number = error.mutation.map_or(String::new(), |n| format!(" {n}"));
            let current = error.current.as_ref().map_or(String::new(), |current| {
                let id = error.record_id.clone().unwrap();
                format!(" {}", brief_change(&id, current))
            });
            let collection = match (&error.collection, error.mutation) {
                (Some(collection), None) => format!(" in {collection}"),
                (_, _) => String::new(),
            };
            format!("error {}{number}{collection}{current}", error.code)
        }
        ServerMessage::Pong { welcome, .. } => welcome.as_ref().map_or("pong".into(), |welcome| {
            format!("pong {} last {}", welcome.epoch, welcome.last_mutation)
        }),
        ServerMessage::Unknown { kind } => format!("unknown {kind}"),
    }
}

fn brief_change(id: &RecordId, change: &ServerChange) -> String {
    let delta = &change.change.delta;
    let data = match change.change.kind {
        crate::protocol::write::WriteKind::Delete => String::new(),
        crate::protocol::write::WriteKind::Insert | crate::protocol::write::WriteKind::Update => {
            format!(" {}", delta.set)
        }
    };
    let unset: Vec<_> = delta.unset.iter().map(|name| format!(" -{name}")).collect();
    let seq = change.seq.map_or(String::new(), |seq| format!(" @{seq}"));
    format!("{} {id}{data}{}{seq}", change.change.kind, unset.concat())
}
