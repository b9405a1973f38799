//! Many connections at random, each read by a strict client: no gaps, no verdict before its place,
//! nothing applied twice, and what a client holds is what the server's checksum says.

use super::*;
use crate::protocol::document::Document;
use crate::protocol::hash::Checksum;
use crate::protocol::message::Ack;
use crate::protocol::name::Seq;
use crate::protocol::write::WriteKind;
use crate::rules::record::Head;
use crate::rules::transaction::tests::{id, insert, update};
use crate::rules::verify::verify;

const RECORDS: u64 = 4;

/// The state of a client, and the answers that it waits for.
#[derive(Default)]
struct StrictClient {
    session: u64,
    /// Which connection is its own now.
    conn: Option<u64>,
    greeted: bool,
    subscribed: bool,
    live: bool,
    epoch: Option<String>,
    cursor: u64,
    /// Where to resume, as the JSON of the cursor's `resume`.
    resume: Option<String>,
    records: BTreeMap<String, (Option<Document>, u64)>,
    /// The last number that is known to be applied.
    confirmed: u64,
    /// Acknowledged above `confirmed`.
    hollow: Vec<u64>,
    /// Writes to be confirmed, from `confirmed + 1` on.
    outbox: VecDeque<(String, Change)>,
    sent: usize,
    pings: u32,
    /// A verdict came out of place though the stream was live, so that it must end now.
    early: bool,
}

impl StrictClient {
    fn seq_of(&self, id: &str) -> u64 {
        self.records.get(id).map_or(0, |(_, seq)| *seq)
    }

    fn base(&self, id: &str) -> u64 {
        self.seq_of(id).max(self.cursor)
    }

    fn frame(&mut self, frame: &[u8]) {
        let message = match decode_server(frame, &Limits::default()).unwrap() {
            Incoming::One(message) => message,
            Incoming::Batch(_) => panic!("no batches"),
        };
        match message {
            ServerMessage::Pong { welcome: Some(welcome), .. } => {
                let last = welcome.last_mutation.0;
                assert!(last >= self.confirmed, "an acknowledged write is there");
                for _ in self.confirmed..last {
                    self.outbox.pop_front().expect("the server applied what was sent");
                }
                self.confirmed = last;
                self.hollow.clear();
                self.sent = 0;
                self.greeted = true;
            }
            ServerMessage::Pong { welcome: None, .. } => self.pings -= 1,
            ServerMessage::Subscribed { mode, .. } => {
                self.live = false;
                self.early = false;
                self.subscribed = true;
                if mode == Some(Mode::Snapshot) {
                    self.cursor = 0;
                    self.epoch = None;
                }
            }
            ServerMessage::Unsubscribed { .. } => {
                self.live = false;
                self.early = false;
                self.subscribed = false;
            }
            ServerMessage::Sync { records, range, .. } => self.page(&records, &range.unwrap()),
            ServerMessage::Change { record_id, change, .. } => {
                let seq = change.seq.unwrap().0;
                if self.live {
                    assert!(!self.early, "the stream had not shown the record before its verdict");
                    assert_eq!(seq, self.cursor + 1, "a live stream has no gaps");
                    self.cursor = seq;
                } else {
                    self.resume = Some(format!(r#"{{"epoch":"EPOCH","seq":{seq}}}"#));
                }
                self.apply(&record_id, &change);
            }
            ServerMessage::Synced { cursor, count, checksum, .. } => {
                self.live = true;
                self.cursor = cursor.seq.0;
                self.epoch = Some(cursor.epoch.to_string());
                self.resume = None;
                self.verify(count, checksum.unwrap());
            }
            ServerMessage::Ack(ack) => self.ack(&ack),
            ServerMessage::Error(error) => self.error(&error),
            ServerMessage::Authenticated { .. }
            | ServerMessage::Load(_)
            | ServerMessage::Unknown { .. } => panic!(),
        }
    }

    fn page(
        &mut self,
        records: &[crate::protocol::message::SyncRecord],
        range: &crate::protocol::message::PageRange,
    ) {
        let after = range.after.as_ref().map_or("", |id| id.as_str());
        let up_to = range.up_to.as_ref().map_or("\u{7f}", |id| id.as_str());
        self.records.retain(|id, _| id.as_str() <= after || id.as_str() > up_to);
        for record in records {
            let entry = (Some(record.document.clone()), record.seq.unwrap().0);
            self.records.insert(record.id.to_string(), entry);
        }
        let seq = range.snapshot_seq;
        self.resume = match &range.up_to {
            Some(up_to) => {
                Some(format!(r#"{{"epoch":"EPOCH","snapshotSeq":{seq},"after":"{up_to}"}}"#))
            }
            None => {
                self.cursor = seq.0;
                self.epoch = Some("EPOCH".into());
                None
            }
        };
    }

    /// Makes a change that the server told of, if it is news.
    fn apply(&mut self, id: &str, change: &ServerChange) {
        let seq = change.seq.unwrap().0;
        let record = self.records.entry(id.into()).or_default();
        if seq <= record.1 {
            return;
        }
        if change.change.kind == WriteKind::Update {
            assert!(record.0.is_some(), "an update of a record that is not held");
        }
        *record = (change.change.apply(record.0.as_ref()), seq);
    }

    fn ack(&mut self, ack: &Ack) {
        let number = ack.mutation.0;
        assert!(number > self.confirmed && !self.hollow.contains(&number), "acknowledged once");
        let place = (number - self.confirmed - 1) as usize;
        assert!(place < self.sent, "acknowledged what was sent");
        let (id, change) = self.outbox[place].clone();
        match (ack.seq, &ack.echo) {
            (Some(seq), _) => {
                assert!(self.live && !self.early, "an ack in place needs a place");
                assert_eq!(seq.0, self.cursor + 1, "a live stream has no gaps");
                self.cursor = seq.0;
                let record = self.records.entry(id).or_default();
                *record = (change.apply(record.0.as_ref()), seq.0);
            }
            (None, Some(echo)) => {
                self.early |= self.live;
                self.apply(&id, echo);
            }
            (None, None) => {}
        }
        self.hollow.push(number);
        while let Some(next) = self.hollow.iter().position(|n| *n == self.confirmed + 1) {
            self.hollow.remove(next);
            self.confirmed += 1;
            self.outbox.pop_front();
            self.sent -= 1;
        }
    }

    fn error(&mut self, error: &ErrorMessage) {
        assert_eq!(error.code, ErrorCode::Conflict, "{error:?}");
        let number = error.mutation.unwrap().0;
        assert_eq!(number, self.confirmed + 1, "an error follows all acks below it");
        assert!(self.hollow.is_empty(), "nothing behind it was applied");
        let (current, record) = (error.current.clone().unwrap(), error.record_id.clone().unwrap());
        self.early |= self.live && self.base(&record) < current.seq.unwrap().0;
        self.apply(&record, &current);
        // resolved: the same fields anew, or nothing where the record is gone
        self.sent = 0;
        if current.change.kind == WriteKind::Delete
            && let Some((_, change)) = self.outbox.front_mut()
        {
            *change = insert("{\"again\":1}");
        }
    }

    fn verify(&self, count: u64, checksum: Checksum) {
        let mut own = Checksum::default();
        let mut live = 0;
        for (id, (document, seq)) in &self.records {
            if let Some(document) = document {
                own.add(&RecordId::new(id).unwrap(), Seq(*seq), document);
                live += 1;
            }
        }
        assert_eq!((live, own), (count, checksum), "what is held is what the server says");
    }
}

struct Run {
    world: World,
    clients: Vec<StrictClient>,
    answers: Vec<(u64, SessionInput<'static>)>,
    pages: Vec<(u64, SessionInput<'static>)>,
    rng: fastrand::Rng,
    next_conn: u64,
    value: u64,
    epoch: u64,
    /// Every value that was written, to find one that is applied twice.
    commits: BTreeMap<String, u32>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut world = World::new();
        world.limits.page.records = 2;
        world.limits.run = 3;
        world.rings = Rings::new(RingLimits { collection_bytes: 4000, ..RingLimits::default() });
        Self {
            world,
            clients: (0..3).map(|_| StrictClient::default()).collect(),
            answers: Vec::new(),
            pages: Vec::new(),
            rng: fastrand::Rng::with_seed(seed),
            next_conn: 1,
            value: 0,
            epoch: 1,
            commits: BTreeMap::new(),
        }
    }

    fn step(&mut self) {
        let who = self.rng.usize(0..self.clients.len());
        match self.rng.u32(0..100) {
            0..20 => self.app_write(who),
            20..32 => self.send(who),
            32..42 => self.commit(),
            42..52 => self.answer(),
            52..62 => self.read(),
            62..78 => self.pump(who),
            78..88 => self.receive(who),
            88..90 => self.elsewhere(),
            90..93 => self.resubscribe(who),
            93..95 => self.ping(who),
            95..97 => self.cut(who),
            97 => self.world.lose_rings(),
            98 => {
                self.world.later(1000);
                self.world.store.sweep_tombstones(5000);
            }
            _ => self.restart(),
        }
        if self.clients[who].conn.is_none() {
            self.connect(who);
        }
    }

    fn app_write(&mut self, who: usize) {
        if self.clients[who].outbox.len() > 6 {
            return;
        }
        self.value += 1;
        let name = format!("r{}", self.rng.u64(0..RECORDS));
        let field = ["a", "b"][self.rng.usize(0..2)];
        let change = match self.rng.u32(0..10) {
            0 => Change::delete(),
            1..3 => insert(&format!("{{\"a\":{},\"n\":1}}", self.value)),
            3 => crate::rules::transaction::tests::unset(
                &format!("{{\"b\":{}}}", self.value),
                &["a"],
            ),
            _ => update(&format!("{{\"{field}\":{}}}", self.value)),
        };
        self.clients[who].outbox.push_back((name, change));
    }

    fn connect(&mut self, who: usize) {
        let conn = self.next_conn;
        self.next_conn += 1;
        self.world.connect(conn, Identity::Open);
        let client = &mut self.clients[who];
        client.session += 1;
        client.conn = Some(conn);
        (client.greeted, client.subscribed, client.live) = (false, false, false);
        (client.sent, client.pings, client.early) = (0, 0, false);
        client.hollow.clear();
        let hello = format!(
            r#"{{"type":"ping","metadata":{{"protocol":2,"clientId":"w{who}","session":{}}}}}"#,
            client.session
        );
        self.world.say(conn, &hello);
        self.subscribe(who);
    }

    fn subscribe(&mut self, who: usize) {
        let client = &mut self.clients[who];
        let mut cursor = Vec::new();
        if let Some(epoch) = &client.epoch {
            cursor.push(format!(r#""epoch":"{epoch}","seq":{}"#, client.cursor));
        }
        if let Some(resume) = &client.resume {
            cursor.push(format!(r#""resume":{resume}"#));
        }
        let subscribe = format!(
            r#"{{"type":"subscribe","collection":"todos","metadata":{{"cursor":{{{}}}}}}}"#,
            cursor.join(",")
        );
        let subscribe = subscribe.replace("EPOCH", &format!("e{}", self.epoch));
        if cursor.is_empty() {
            self.world.subscribe(client.conn.unwrap(), None);
        } else {
            self.world.say(client.conn.unwrap(), &subscribe);
        }
    }

    /// A fresh subscription on the live one, or an end and a beginning.
    fn resubscribe(&mut self, who: usize) {
        let client = &self.clients[who];
        let Some(conn) = client.conn.filter(|_| client.greeted && client.live) else { return };
        if self.rng.bool() {
            self.world.say(conn, r#"{"type":"unsubscribe","collection":"todos"}"#);
        }
        self.subscribe(who);
    }

    fn ping(&mut self, who: usize) {
        let client = &mut self.clients[who];
        let Some(conn) = client.conn.filter(|_| client.greeted) else { return };
        client.pings += 1;
        self.world.say(conn, r#"{"type":"ping"}"#);
    }

    /// Sends the next entry of the outbox.
    fn send(&mut self, who: usize) {
        let client = &mut self.clients[who];
        let Some(conn) = client.conn.filter(|_| client.greeted) else { return };
        let Some((name, change)) = client.outbox.get(client.sent) else { return };
        let number = client.confirmed + 1 + client.sent as u64;
        let mutation = crate::protocol::message::Mutation {
            collection: todos(),
            record_id: id(name),
            change: change.clone(),
            timestamp: None,
            at: Vec::new(),
            number: Some(MutationNumber(number)),
            base: Some(Seq(client.base(name))),
        };
        client.sent += 1;
        let mut frame = Vec::new();
        crate::protocol::message::ClientMessage::Write(mutation).encode(&mut frame);
        self.world.input(conn, SessionInput::Frame(&frame));
    }

    fn commit(&mut self) {
        let before = self.world.store.rows.clone();
        let answers = self.world.commit();
        let faults = verify(&self.world.store.rows).unwrap().faults;
        assert_eq!(faults, Vec::<String>::new());
        let head = |rows| Head::load(rows, &todos()).unwrap().seq;
        let rings = &self.world.rings;
        for seq in head(&before).0 + 1..=head(&self.world.store.rows).0 {
            let entry = rings.get(&todos()).unwrap().entry(Seq(seq)).expect("seqs are dense");
            if let Some(origin) = entry.origin {
                let number = origin.mutation.unwrap();
                let frame = String::from_utf8(entry.frame(Level::Resumable).to_vec()).unwrap();
                let times = self.commits.entry(format!("{number} {frame}")).or_default();
                *times += 1;
                assert_eq!(*times, 1, "applied once");
            }
        }
        self.answers.extend(answers);
    }

    fn answer(&mut self) {
        if !self.answers.is_empty() {
            let which = self.rng.usize(0..self.answers.len());
            let (conn, answer) = self.answers.swap_remove(which);
            self.world.input(conn, answer);
        }
    }

    fn read(&mut self) {
        let pages = self.world.read();
        self.pages.extend(pages);
        if !self.pages.is_empty() && self.rng.bool() {
            let which = self.rng.usize(0..self.pages.len());
            let (conn, page) = self.pages.swap_remove(which);
            self.world.input(conn, page);
        }
    }

    fn pump(&mut self, who: usize) {
        let room = [100, 300, 5000][self.rng.usize(0..3)];
        if let Some(conn) = self.clients[who].conn {
            self.world.input(conn, SessionInput::Pump { room });
        }
    }

    fn receive(&mut self, who: usize) {
        let Some(conn) = self.clients[who].conn else { return };
        let state = self.world.conns.get_mut(&conn).unwrap();
        let frames: Vec<_> = state.frames.drain(..).collect();
        // the id of the epoch is needed before the first `synced`
        let epoch = format!("e{}", self.epoch);
        for frame in frames {
            let client = &mut self.clients[who];
            client.frame(&frame);
            if client.epoch.as_deref() == Some("EPOCH") {
                client.epoch = Some(epoch.clone());
            }
            client.resume = client.resume.take().map(|resume| resume.replace("EPOCH", &epoch));
        }
        assert_eq!(self.world.closed(conn), None, "nobody misbehaves");
    }

    fn elsewhere(&mut self) {
        self.value += 1;
        let name = format!("r{}", self.rng.u64(0..RECORDS));
        self.world.elsewhere(&name, insert(&format!("{{\"a\":{}}}", self.value)));
    }

    /// The connection is gone; what the server still does for it goes on.
    fn cut(&mut self, who: usize) {
        let Some(conn) = self.clients[who].conn.take() else { return };
        self.world.input(conn, SessionInput::Closed);
    }

    fn restart(&mut self) {
        for who in 0..self.clients.len() {
            self.cut(who);
        }
        self.answers.clear();
        self.pages.clear();
        self.world.conns.clear();
        self.world.rings = Rings::default();
        self.epoch += 1;
        let epoch = format!("e{}", self.epoch);
        self.world.store.begin(&epoch);
    }

    fn finish(&mut self) {
        for _ in 0..1000 {
            for who in 0..self.clients.len() {
                if self.clients[who].conn.is_none() {
                    self.connect(who);
                }
                self.send(who);
                self.receive(who);
            }
            for (conn, answer) in core::mem::take(&mut self.answers) {
                self.world.input(conn, answer);
            }
            for (conn, page) in core::mem::take(&mut self.pages) {
                self.world.input(conn, page);
            }
            self.world.settle();
            let idle = |client: &StrictClient| {
                client.live && client.outbox.is_empty() && client.pings == 0
            };
            if self.clients.iter().all(idle) {
                break;
            }
        }
        for who in 0..self.clients.len() {
            self.receive(who);
            let head = self.world.store.head();
            let client = &self.clients[who];
            assert!(client.outbox.is_empty(), "every write was settled");
            assert!(client.live && client.pings == 0);
            assert_eq!(client.cursor, head.seq.0);
            client.verify(head.count, head.checksum);
        }
    }
}

#[test]
fn strict_clients_find_nothing_wrong() {
    let seeds: u64 = option_env!("SEEDS").and_then(|seeds| seeds.parse().ok()).unwrap_or(60);
    for seed in 0..seeds {
        let outcome = std::panic::catch_unwind(|| {
            let mut run = Run::new(seed);
            for _ in 0..200 {
                run.step();
            }
            run.finish();
        });
        assert!(outcome.is_ok(), "seed {seed}");
    }
}

/// Frames that a peer may send at any moment, in and out of place.
const FRAMES: &[&str] = &[
    "",
    "{",
    r#"{"type":"ping"}"#,
    r#"{"type":"auth","data":{"token":"t"}}"#,
    r#"{"type":"ping","metadata":{"protocol":2,"clientId":"c","session":1}}"#,
    r#"{"type":"ping","metadata":{"protocol":2,"clientId":"c","session":9}}"#,
    r#"{"type":"subscribe","collection":"todos"}"#,
    r#"{"type":"subscribe","collection":"todos","metadata":{"cursor":{"epoch":"e1","seq":1}}}"#,
    r#"{"type":"subscribe","collection":"todos","metadata":{"cursor":{"epoch":"e1","seq":9007199254740991}}}"#,
    r#"{"type":"subscribe","collection":"other","metadata":{"filter":{}}}"#,
    r#"{"type":"unsubscribe","collection":"todos"}"#,
    r#"{"type":"sync","collection":"todos"}"#,
    r#"{"type":"insert","collection":"todos","recordId":"r","data":{"a":1}}"#,
    r#"{"type":"insert","collection":"todos","recordId":"r","data":{"a":2},"metadata":{"mutation":1,"base":0}}"#,
    r#"{"type":"update","collection":"todos","recordId":"r","data":{"b":1},"metadata":{"mutation":1}}"#,
    r#"{"type":"update","collection":"todos","recordId":"r","data":{"a":3},"metadata":{"mutation":2,"base":1}}"#,
    r#"{"type":"delete","collection":"todos","recordId":"r","metadata":{"mutation":2,"base":2}}"#,
    r#"{"type":"insert","collection":"todos","recordId":"s","data":7,"metadata":{"mutation":3}}"#,
    r#"{"type":"delete","collection":"todos","recordId":"s","metadata":{"mutation":9007199254740991,"base":9007199254740991}}"#,
    r#"{"type":"batch","messages":[{"type":"ping"},{"type":"batch","messages":[]},7]}"#,
];

proptest::proptest! {
    /// With any input in any order the session keeps its invariants (checked after every
    /// input) and two runs of it are equal.
    #[test]
    fn nothing_breaks_a_session(steps in proptest::collection::vec((0..30usize, 0..3u8), 1..40), identity in 0..2u8) {
        let run = || {
            let mut world = World::new();
            world.limits.bad_frames = 5;
            world.limits.rate = Some(Rate { per_second: 100, burst: 20 });
            let user = UserId::new("u").unwrap();
            world.connect(1, if identity == 0 { Identity::Open } else { Identity::Unknown });
            let mut digests = Vec::new();
            for (step, variant) in &steps {
                if world.closed(1).is_some() {
                    break;
                }
                match (step, variant) {
                    (0..20, _) => world.say(1, FRAMES[*step]),
                    (20, _) => world.elsewhere("r", insert("{\"x\":1}")),
                    (21, _) => world.lose_rings(),
                    (22, _) => world.commit_and_answer(),
                    (23, 0) => {
                        if let Some(ticket) = world.conns.get_mut(&1).unwrap().transactions.pop() {
                            world.input(1, ticket.answer(Err(TransactError::Failed(store_error()))));
                        }
                    }
                    (23, _) => world.input(1, SessionInput::AuthExpired),
                    (24, 0) => {
                        if let Some(ticket) = world.conns.get_mut(&1).unwrap().reads.pop() {
                            world.input(1, ticket.answer(Err(store_error())));
                        }
                    }
                    (24, _) => world.read_and_answer(),
                    (25, _) => {
                        if let Some(ticket) = world.conns.get_mut(&1).unwrap().tokens.pop() {
                            world.input(1, ticket.answer((*variant > 0).then(|| user.clone().into())));
                        }
                    }
                    (26, _) => world.input(1, SessionInput::Pump { room: 100 * usize::from(*variant) }),
                    (27, _) => {
                        world.later(9000);
                        world.input(1, SessionInput::Timeout);
                    }
                    (_, _) => world.settle(),
                }
                digests.push(world.session(1).digest());
            }
            (world.took_raw(1), digests)
        };
        proptest::prop_assert_eq!(run(), run());
    }
}
