//! Units of several collections, read by clients that look after each frame: nobody sees half of one
//! where all its collections are live.

use super::*;
use crate::protocol::document::Document;
use crate::protocol::hash::Checksum;
use crate::protocol::message::{ClientMessage, Mutation};
use crate::protocol::name::Seq;
use crate::protocol::unit::{Expectation, Member, Submission, Unit};
use crate::rules::transaction::tests::{id, insert, update};
use crate::rules::transaction::{Published, Run as Writes};

const NAMES: [&str; 3] = ["a", "b", "c"];

fn named(place: usize) -> Collection {
    Collection::new(NAMES[place]).unwrap()
}

fn place(collection: &Collection) -> usize {
    NAMES.iter().position(|name| *name == collection.as_str()).unwrap()
}

/// One collection, as a reader holds it.
#[derive(Default)]
struct Held {
    subscribed: bool,
    live: bool,
    /// It was live, is asked for again, and the answer was not that there is news.
    proof: bool,
    asked: bool,
    known: bool,
    /// A verdict came before its place in the stream, so that this must end now.
    early: bool,
    cursor: u64,
    records: BTreeMap<String, (Option<Document>, u64)>,
}

impl Held {
    /// Takes in a state or a change of a record, if it is news.
    fn learn(&mut self, id: &str, change: &ServerChange) {
        let seq = change.seq.unwrap().0;
        let record = self.records.entry(id.into()).or_default();
        if seq > record.1 {
            *record = (change.change.apply(record.0.as_ref()), seq);
        }
    }

    fn base(&self, id: &str) -> u64 {
        self.records.get(id).map_or(0, |(_, seq)| *seq).max(self.cursor)
    }
}

/// A write that waits for its verdict, or an expectation.
#[derive(Clone)]
struct Entry {
    of: usize,
    id: String,
    change: Option<Change>,
}

#[derive(Default)]
struct Reader {
    held: [Held; 3],
    conn: Option<u64>,
    session: u64,
    greeted: bool,
    /// The last number that is known to be applied.
    confirmed: u64,
    /// Acknowledged above it.
    hollow: Vec<u64>,
    /// Singles and units to be confirmed, from `confirmed + 1` on.
    outbox: VecDeque<Vec<Entry>>,
    /// The number of these that were sent.
    sent: usize,
}

impl Reader {
    fn frame(&mut self, frame: &[u8]) {
        match decode_server(frame, &Limits::default()).unwrap() {
            Incoming::One(message) => self.message(message),
            Incoming::Batch(messages) => {
                assert!(messages.len() > 1, "a batch of one is no batch");
                messages.into_iter().for_each(|message| self.message(message.unwrap()));
            }
        }
    }

    fn message(&mut self, message: ServerMessage) {
        match message {
            ServerMessage::Pong { welcome, .. } => {
                let last = welcome.expect("nobody pings").last_mutation.0;
                assert!(last >= self.confirmed, "an acknowledged write is there");
                while self.confirmed < last {
                    let of_one = self.outbox.pop_front().expect("the server applied what was sent");
                    self.confirmed += of_one.len() as u64;
                }
                assert_eq!(self.confirmed, last, "the last number never stands inside a unit");
                self.hollow.clear();
                (self.sent, self.greeted) = (0, true);
            }
            ServerMessage::Subscribed { collection, mode, head, .. } => {
                let held = &mut self.held[place(&collection)];
                let is_news = mode == Some(Mode::Snapshot) || head.unwrap().0 > held.cursor;
                held.proof = (held.live && held.asked || held.proof) && !is_news;
                (held.live, held.subscribed, held.early) = (false, true, false);
                if mode == Some(Mode::Snapshot) {
                    held.known = false;
                }
            }
            ServerMessage::Unsubscribed { collection, .. } => {
                let held = &mut self.held[place(&collection)];
                (held.live, held.subscribed, held.early) = (false, false, false);
                held.proof = false;
            }
            ServerMessage::Sync { collection, records, range } => {
                let held = &mut self.held[place(&collection)];
                let range = range.unwrap();
                let after = range.after.as_ref().map_or("", |id| id.as_str());
                let up_to = range.up_to.as_ref().map_or("\u{7f}", |id| id.as_str());
                held.records.retain(|id, _| id.as_str() <= after || id.as_str() > up_to);
                for record in &records {
                    let state = (Some(record.document.clone()), record.seq.unwrap().0);
                    held.records.insert(record.id.to_string(), state);
                }
            }
            ServerMessage::Change { collection, record_id, change, .. } => {
                let held = &mut self.held[place(&collection)];
                let seq = change.seq.unwrap().0;
                if held.live {
                    assert!(!held.early, "a verdict waits for the stream");
                    assert_eq!(seq, held.cursor + 1, "a live stream has no gaps");
                    held.cursor = seq;
                }
                held.proof = false;
                held.learn(record_id.as_str(), &change);
            }
            ServerMessage::Synced { collection, cursor, count, checksum, .. } => {
                let held = &mut self.held[place(&collection)];
                (held.live, held.known, held.cursor) = (true, true, cursor.seq.0);
                (held.proof, held.asked) = (false, false);
                let (mut sum, mut live) = (Checksum::default(), 0);
                for (id, (document, seq)) in &held.records {
                    if let Some(document) = document {
                        sum.add(&RecordId::new(id).unwrap(), Seq(*seq), document);
                        live += 1;
                    }
                }
                assert_eq!((live, Some(sum)), (count, checksum), "what is held is what is there");
            }
            ServerMessage::Ack(ack) => self.ack(&ack),
            ServerMessage::Error(error) => self.error(&error),
            ServerMessage::Authenticated { .. }
            | ServerMessage::Load(_)
            | ServerMessage::Unknown { .. } => {
                panic!("{message:?}")
            }
        }
    }

    /// The entry with this number, which was sent, and its place among the sent ones.
    fn entry(&self, number: u64) -> (usize, Entry) {
        let mut next = self.confirmed + 1;
        for (place, of_one) in self.outbox.iter().take(self.sent).enumerate() {
            if number < next + of_one.len() as u64 {
                return (place, of_one[(number - next) as usize].clone());
            }
            next += of_one.len() as u64;
        }
        panic!("{number} was never sent")
    }

    fn ack(&mut self, ack: &crate::protocol::message::Ack) {
        let number = ack.mutation.0;
        assert!(number > self.confirmed && !self.hollow.contains(&number), "acknowledged once");
        let (place, entry) = self.entry(number);
        assert!(place == 0 || self.outbox[place].len() == 1, "a unit is never hollow");
        let held = &mut self.held[entry.of];
        match (ack.seq, &ack.echo) {
            (Some(seq), _) => {
                assert!(held.live && !held.early, "an ack in place needs a place");
                assert_eq!(seq.0, held.cursor + 1, "a live stream has no gaps");
                held.cursor = seq.0;
                let record = held.records.entry(entry.id).or_default();
                *record = (entry.change.unwrap().apply(record.0.as_ref()), seq.0);
            }
            (None, Some(echo)) => {
                assert!(entry.change.is_some(), "an expectation changes nothing");
                held.learn(&entry.id, echo);
            }
            (None, None) => {}
        }
        self.hollow.push(number);
        while self.outbox.front().is_some_and(|of_one| {
            let mut numbers = (self.confirmed + 1..).take(of_one.len());
            numbers.all(|number| self.hollow.contains(&number))
        }) {
            let of_one = self.outbox.pop_front().unwrap();
            self.confirmed += of_one.len() as u64;
            self.sent -= 1;
            self.hollow.retain(|number| *number > self.confirmed);
        }
    }

    fn error(&mut self, error: &ErrorMessage) {
        assert_eq!(error.code, ErrorCode::Conflict, "{error:?}");
        let first = error.mutation.unwrap().0;
        assert_eq!(first, self.confirmed + 1, "an error follows all acks below it");
        assert!(self.hollow.is_empty(), "nothing behind it was applied");
        self.sent = 0;
        let mut of_one = self.outbox.pop_front().unwrap();
        let mut conflicts: Vec<_> = error
            .failed
            .iter()
            .map(|f| (f.mutation.0, f.collection.clone(), f.record_id.clone(), f.current.clone()))
            .collect();
        if of_one.len() == 1 && error.failed.is_empty() {
            let collection = error.collection.clone().unwrap();
            let record = error.record_id.clone().unwrap();
            conflicts.push((first, collection, record, error.current.clone()));
        }
        assert!(!conflicts.is_empty(), "a conflict shows its records");
        for (number, collection, record, current) in conflicts {
            let (of, current) = (place(&collection), current.unwrap());
            let held = &mut self.held[of];
            held.early |= held.live && held.cursor < current.seq.unwrap().0;
            held.learn(record.as_str(), &current);
            let gone = held.records[record.as_str()].0.is_none();
            let entry = &mut of_one[(number - first) as usize];
            if gone && entry.change.is_some() {
                entry.change = Some(insert("{\"again\":1}"));
            }
        }
        self.outbox.push_front(of_one);
    }

    /// Where all collections of a unit are live, all of it is shown, or none.
    fn check(&self, units: &[Vec<(usize, u64)>]) {
        for unit in units {
            let is_live = |held: &Held| held.live || held.proof;
            let live = unit.iter().filter(|(of, _)| is_live(&self.held[*of]));
            let shown: Vec<_> = live.map(|(of, seq)| self.held[*of].cursor >= *seq).collect();
            assert!(shown.iter().all(|one| *one == shown[0]), "half of {unit:?} is shown");
        }
    }
}

/// A world with readers of three collections, and others that write units.
struct Run {
    world: World,
    readers: Vec<Reader>,
    pages: Vec<(u64, SessionInput<'static>)>,
    answers: Vec<(u64, SessionInput<'static>)>,
    next_conn: u64,
    /// The numbers of each client's units that a commit has made, to find one made by half or twice.
    applied: BTreeMap<(u64, u64), u32>,
    /// Committed, and not published yet.
    unpublished: Vec<Vec<Published>>,
    /// The parts of each unit, with their seqs.
    units: Vec<Vec<(usize, u64)>>,
    rng: fastrand::Rng,
    value: u64,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut world = World::new();
        world.limits.page.records = 2;
        world.rings = Rings::new(RingLimits { collection_bytes: 3000, ..RingLimits::default() });
        let mut run = Self {
            world,
            readers: (0..2).map(|_| Reader::default()).collect(),
            pages: Vec::new(),
            answers: Vec::new(),
            next_conn: 1,
            applied: BTreeMap::new(),
            unpublished: Vec::new(),
            units: Vec::new(),
            rng: fastrand::Rng::with_seed(seed),
            value: 0,
        };
        (0..run.readers.len()).for_each(|who| run.connect(who));
        run
    }

    fn connect(&mut self, who: usize) {
        let conn = self.next_conn;
        self.next_conn += 1;
        self.world.connect(conn, Identity::Open);
        let reader = &mut self.readers[who];
        reader.session += 1;
        (reader.conn, reader.greeted, reader.sent) = (Some(conn), false, 0);
        reader.hollow.clear();
        reader.held.iter_mut().for_each(|held| {
            (held.live, held.subscribed, held.early) = (false, false, false);
            (held.proof, held.asked) = (false, false);
        });
        let hello = format!(
            r#"{{"type":"ping","metadata":{{"protocol":2,"clientId":"w{who}","session":{}}}}}"#,
            reader.session
        );
        self.world.say(conn, &hello);
        (0..3).for_each(|of| self.subscribe(who, of));
    }

    fn cut(&mut self, who: usize) {
        if let Some(conn) = self.readers[who].conn.take() {
            self.world.input(conn, SessionInput::Closed);
        }
    }

    /// A client makes a unit, or a write of its own.
    fn own_write(&mut self, who: usize) {
        if self.readers[who].outbox.len() > 5 {
            return;
        }
        let size = [1, 2, 3][self.rng.usize(0..3)];
        let mut entries: Vec<Entry> = Vec::new();
        for _ in 0..size {
            self.value += 1;
            let (of, name) = (self.rng.usize(0..3), format!("r{}", self.rng.u64(0..3)));
            let change = match self.rng.u32(0..6) {
                0 => Some(Change::delete()),
                1 if size > 1 => None,
                2 => Some(insert(&format!("{{\"n\":{}}}", self.value))),
                _ => Some(update(&format!("{{\"m\":{}}}", self.value))),
            };
            let twice =
                |e: &Entry| (e.of, &e.id, e.change.is_some()) == (of, &name, change.is_some());
            if !entries.iter().any(twice) {
                entries.push(Entry { of, id: name, change });
            }
        }
        // a single expectation is no write
        if entries.len() > 1 || entries[0].change.is_some() {
            self.readers[who].outbox.push_back(entries);
        }
    }

    /// Sends what is next.
    fn send(&mut self, who: usize) {
        let reader = &mut self.readers[who];
        let Some(conn) = reader.conn.filter(|_| reader.greeted) else { return };
        let Some(of_one) = reader.outbox.get(reader.sent) else { return };
        let before: usize = reader.outbox.iter().take(reader.sent).map(Vec::len).sum();
        let first = reader.confirmed + 1 + before as u64;
        let member = |(entry, number): (&Entry, u64)| {
            let held = &reader.held[entry.of];
            let (collection, record_id) = (named(entry.of), id(&entry.id));
            let (number, base) = (MutationNumber(number), Some(Seq(held.base(&entry.id))));
            match &entry.change {
                Some(change) => Member::Write(Mutation {
                    collection,
                    record_id,
                    change: change.clone(),
                    timestamp: None,
                    at: Vec::new(),
                    number: Some(number),
                    base,
                }),
                None => {
                    let there = held.records.get(&entry.id).is_some_and(|(d, _)| d.is_some());
                    let base = base.filter(|_| there);
                    Member::Expect(Expectation { collection, record_id, number, base })
                }
            }
        };
        let mut members: Vec<_> = of_one.iter().zip(first..).map(member).collect();
        let message = match members.len() {
            1 => match members.remove(0) {
                Member::Write(mutation) => ClientMessage::Write(mutation),
                Member::Expect(_) => unreachable!(),
            },
            _ => ClientMessage::Unit(Unit { members }),
        };
        reader.sent += 1;
        let mut frame = Vec::new();
        message.encode(&mut frame);
        self.world.input(conn, SessionInput::Frame(&frame));
    }

    /// Commits what waits, after which it is published.
    fn commit(&mut self) {
        while !self.unpublished.is_empty() {
            self.publish();
        }
        self.answers.extend(self.world.commit());
        let published = core::mem::take(&mut self.world.published);
        for unit in published.chunk_by(|_, next| next.joined) {
            self.units.push(unit.iter().map(|c| (place(&c.collection), c.seq.0)).collect());
        }
        for change in &published {
            let origin = change.origin.expect("clients made them");
            let (conn, number) = (origin.conn.0, origin.mutation.unwrap().0);
            let who = self.world.conns[&conn]
                .session
                .status()
                .client
                .map(|(client, _)| client.as_str()[1..].parse::<u64>().unwrap());
            let who = who.unwrap_or(conn + 1000);
            let times = self.applied.entry((who, number)).or_default();
            *times += 1;
            assert_eq!(*times, 1, "applied once");
        }
        let faults = crate::rules::verify::verify(&self.world.store.rows).unwrap().faults;
        assert_eq!(faults, Vec::<String>::new());
    }

    fn step(&mut self) {
        let (who, of) = (self.rng.usize(0..self.readers.len()), self.rng.usize(0..3));
        match self.rng.u32(0..100) {
            0..8 => self.write(),
            8..16 => self.own_write(who),
            16..26 => self.publish(),
            26..36 => self.pages.extend(self.world.read()),
            36..44 => self.turn(),
            44..52 => self.send(who),
            52..58 => self.commit(),
            58..64 => self.answer(),
            64..78 => {
                let room = [50, 200, 5000][self.rng.usize(0..3)];
                if let Some(conn) = self.readers[who].conn {
                    self.world.input(conn, SessionInput::Pump { room });
                }
            }
            78..91 => self.receive(who),
            91..94 if self.readers[who].held[of].subscribed => self.subscribe(who, of),
            94 if self.readers[who].held[of].subscribed => {
                let frame = format!(r#"{{"type":"unsubscribe","collection":"{}"}}"#, NAMES[of]);
                self.world.say(self.readers[who].conn.unwrap(), &frame);
                self.subscribe(who, of);
            }
            95 => self.cut(who),
            96 => {
                let heads = [0, 1, 2].map(|of| (named(of), self.world.rings.head(&named(of))));
                self.world.rings = Rings::default();
                for (collection, head) in heads {
                    self.world.rings.note_head(&collection, head);
                }
            }
            _ => {}
        }
        if self.readers[who].conn.is_none() {
            self.connect(who);
        }
    }

    fn answer(&mut self) {
        if !self.answers.is_empty() {
            let which = self.rng.usize(0..self.answers.len());
            let (conn, answer) = self.answers.swap_remove(which);
            self.world.input(conn, answer);
        }
    }

    /// Someone elsewhere commits a unit, or a change of its own.
    fn write(&mut self) {
        let parts = [1, 1, 2, 2, 3, 4][self.rng.usize(0..6)];
        let mut mutations = Vec::new();
        for _ in 0..parts {
            self.value += 1;
            let name = format!("r{}", self.rng.u64(0..3));
            let document = format!("{{\"n\":{}}}", self.value);
            let change = if self.rng.bool() { insert(&document) } else { update(&document) };
            mutations.push(Submission::One(Mutation {
                collection: named(self.rng.usize(0..3)),
                record_id: id(&name),
                change,
                timestamp: None,
                at: Vec::new(),
                number: None,
                base: None,
            }));
        }
        let (user, conn, window) = (None, None, BTreeMap::new());
        let run = Writes { client: None, user, conn, writes: mutations, window };
        self.world.store.published.clear();
        self.world.store.commit(&Transaction::Writes(run));
        let mut published = core::mem::take(&mut self.world.store.published);
        for (place, change) in published.iter_mut().enumerate() {
            change.joined = place > 0;
        }
        self.units.push(published.iter().map(|c| (place(&c.collection), c.seq.0)).collect());
        self.unpublished.push(published);
    }

    fn publish(&mut self) {
        if !self.unpublished.is_empty() {
            self.world.rings.publish_all(&self.unpublished.remove(0));
            self.world.rings.check().unwrap();
        }
    }

    fn turn(&mut self) {
        if !self.pages.is_empty() {
            let which = self.rng.usize(0..self.pages.len());
            let (conn, page) = self.pages.swap_remove(which);
            self.world.input(conn, page);
        }
    }

    fn subscribe(&mut self, who: usize, of: usize) {
        let held = &mut self.readers[who].held[of];
        held.asked |= held.live;
        let cursor = match held.known {
            true => format!(r#","metadata":{{"cursor":{{"epoch":"e1","seq":{}}}}}"#, held.cursor),
            false => String::new(),
        };
        let name = NAMES[of];
        let frame = format!(r#"{{"type":"subscribe","collection":"{name}"{cursor}}}"#);
        self.world.say(self.readers[who].conn.unwrap(), &frame);
    }

    fn receive(&mut self, who: usize) {
        let Some(conn) = self.readers[who].conn else { return };
        let frames: Vec<_> = self.world.conns.get_mut(&conn).unwrap().frames.drain(..).collect();
        for frame in frames {
            self.readers[who].frame(&frame);
            self.readers[who].check(&self.units);
        }
        assert_eq!(self.world.closed(conn), None, "nobody misbehaves");
    }

    fn finish(&mut self) {
        while !self.unpublished.is_empty() {
            self.publish();
        }
        for _ in 0..1000 {
            for (conn, answer) in core::mem::take(&mut self.answers) {
                self.world.input(conn, answer);
            }
            for (conn, page) in core::mem::take(&mut self.pages) {
                self.world.input(conn, page);
            }
            self.world.settle();
            self.world.published.clear();
            for who in 0..self.readers.len() {
                self.receive(who);
                self.send(who);
            }
            if self.readers.iter().all(|reader| reader.outbox.is_empty()) {
                break;
            }
        }
        self.world.settle();
        for who in 0..self.readers.len() {
            self.receive(who);
            let reader = &self.readers[who];
            assert!(reader.outbox.is_empty(), "every write was settled");
            for (of, held) in reader.held.iter().enumerate() {
                assert!(held.live, "every collection is live in the end");
                assert_eq!(held.cursor, self.world.rings.head(&named(of)).0);
            }
            self.world.session(reader.conn.unwrap()).check_at_rest().unwrap();
        }
    }
}

#[test]
fn nobody_sees_half_a_unit_where_all_is_live() {
    let seeds: u64 = option_env!("SEEDS").and_then(|seeds| seeds.parse().ok()).unwrap_or(100);
    for seed in 0..seeds {
        let outcome = std::panic::catch_unwind(|| {
            let mut run = Run::new(seed);
            for _ in 0..300 {
                run.step();
            }
            run.finish();
        });
        assert!(outcome.is_ok(), "seed {seed}");
    }
}
