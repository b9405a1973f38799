//! The server's session, its states and its actions in words.

use std::collections::VecDeque;
use std::sync::Arc;

use synclayer_core::protocol::Submission;
use synclayer_core::rules::PlainWrite;
use synclayer_core::testing::Checked;
use synclayer_core::{
    AllowAll, Change, Collection, Committer, ConnId, Context, DatabaseId, Document, Environment,
    Epoch, Identity, Job, Limits, MemoryRows, Mono, Now, ReadRequest, RecordId, RingLimits, Rings,
    ServerLimits, Session, SessionAction, SessionInput, StoreError, StoreErrorKind, Ticket,
    Timestamp, Token, TransactError, Transaction, TransactionAnswer, UserId,
};

use super::table::split;

const HELLO: &str =
    r#"frame {"type":"ping","metadata":{"protocol":2,"clientId":"c1","session":1}}"#;
const SUBSCRIBE: &str = r#"frame {"type":"subscribe","collection":"todos"}"#;
const SYNC: &str = r#"frame {"type":"sync","collection":"todos"}"#;
const WRITE: &str = r#"frame {"type":"update","collection":"todos","recordId":"a","data":{"n":2},"timestamp":"2026-01-01T00:00:00Z","metadata":{"mutation":1,"base":1}}"#;
const AUTH: &str = r#"frame {"type":"auth","data":{"token":"t1"}}"#;

/// The inputs that lead to each state, after somebody else has inserted record a, {"n":1}, at seq
/// 1.
const STATES: [(&str, &[&str]); 13] = [
    ("open", &[]),
    ("anonymous", &["anonymous"]),
    ("checking", &["anonymous", AUTH]),
    ("greeting", &[HELLO]),
    ("plain", &[SUBSCRIBE, "pump", "reads", "pump"]),
    ("syncing", &[SYNC, "pump"]),
    ("resumable", &[HELLO, "commits"]),
    ("opening", &[HELLO, "commits", SUBSCRIBE, "pump"]),
    ("live", &[HELLO, "commits", SUBSCRIBE, "pump", "reads", "pump"]),
    ("writing", &[HELLO, "commits", SUBSCRIBE, "pump", "reads", "pump", WRITE]),
    ("committed", &[HELLO, "commits", SUBSCRIBE, "pump", "reads", "pump", WRITE, "commits"]),
    ("expired", &["known", HELLO, "commits", SUBSCRIBE, "pump", "reads", "pump", "token-expires"]),
    ("closed", &["shutdown"]),
];

/// Returns the actions of a session for an input in a state, or for several, joined by `&`.
pub(crate) fn step(state: &str, input: &str) -> Vec<String> {
    let (_, inputs) = STATES.iter().find(|(name, _)| *name == state).expect("a known state");
    let mut bench = Bench::new();
    bench.make(r#"elsewhere a {"n":1}"#);
    for input in *inputs {
        bench.make(input);
    }
    input.split(" & ").flat_map(|input| bench.make(input)).collect()
}

/// The session, and what it is env.
struct Bench {
    session: Session,
    rows: MemoryRows,
    rings: Rings,
    now: Now,
    transactions: VecDeque<Ticket<Transaction>>,
    reads: VecDeque<Ticket<ReadRequest>>,
    tokens: VecDeque<Ticket<Token>>,
}

impl Bench {
    fn new() -> Self {
        let now = Now { mono: Mono(1_000_000), wall: Timestamp(1_767_225_600_000) };
        let mut bench = Self {
            session: session(Identity::Open, now),
            rows: MemoryRows::default(),
            rings: Rings::new(RingLimits::default()),
            now,
            transactions: VecDeque::new(),
            reads: VecDeque::new(),
            tokens: VecDeque::new(),
        };
        let (epoch, database) = (Epoch::new("e1").unwrap(), DatabaseId::new("d1").unwrap());
        bench.commit(Transaction::BeginEpoch { epoch, database }).1.unwrap();
        bench
    }

    /// Commits a transaction by itself, and returns its answer.
    fn commit<J: Job>(&mut self, job: J) -> (J, Result<TransactionAnswer, TransactError>) {
        let limits = Limits::default();
        let context = Context { policy: &AllowAll, limits: &limits, now: self.now.wall };
        let mut committer = Committer::new(1);
        committer.submit(job);
        let mut batch = committer.next_batch(1).unwrap();
        let rows = batch.decide(&self.rows, context);
        self.rows.apply(rows);
        let settled = committer.settle(batch.committed(&mut self.rings));
        let mut answered = None;
        settled.deliver(|_| {}, |job, answer| answered = Some((job, answer)));
        answered.unwrap()
    }

    fn make(&mut self, input: &str) -> Vec<String> {
        let (what, rest) = split(input);
        let error = || StoreError::new(StoreErrorKind::Other, "the disk has failed");
        match what {
            "anonymous" => {
                self.session = session(Identity::Unknown, self.now);
                Vec::new()
            }
            "known" => {
                let user = UserId::new("u1").unwrap();
                self.session = session(Identity::Known(user.into()), self.now);
                Vec::new()
            }
            "elsewhere" => {
                self.elsewhere(rest);
                Vec::new()
            }
            "frame" => self.tell(SessionInput::Frame(rest.as_bytes())),
            "ping" => self.tell(SessionInput::Ping),
            "token-is" => {
                let Some(ticket) = self.tokens.pop_front() else { return nothing_is_out() };
                let user = UserId::new(rest).ok().map(Into::into);
                self.tell(ticket.answer(user))
            }
            "token-expires" => self.tell(SessionInput::AuthExpired),
            "commits" => {
                let Some(ticket) = self.transactions.pop_front() else { return nothing_is_out() };
                let (ticket, answer) = self.commit(ticket);
                self.tell(ticket.answer(answer))
            }
            "commit-fails" => {
                let Some(ticket) = self.transactions.pop_front() else { return nothing_is_out() };
                self.tell(ticket.answer(Err(TransactError::Failed(error()))))
            }
            "commit-unknown" => {
                let Some(ticket) = self.transactions.pop_front() else { return nothing_is_out() };
                self.tell(ticket.answer(Err(TransactError::Unknown(error()))))
            }
            "reads" => {
                let Some(ticket) = self.reads.pop_front() else { return nothing_is_out() };
                let answer = ticket.question().run(&self.rows, &AllowAll);
                self.tell(ticket.answer(answer))
            }
            "read-fails" => {
                let Some(ticket) = self.reads.pop_front() else { return nothing_is_out() };
                self.tell(ticket.answer(Err(error())))
            }
            "pump" => self.tell(SessionInput::Pump { room: 1 << 16 }),
            "after" => {
                self.now.mono.0 += rest.parse::<u64>().unwrap();
                self.tell(SessionInput::Timeout)
            }
            "shutdown" => self.tell(SessionInput::Shutdown),
            "gone" => self.tell(SessionInput::Closed),
            _ => panic!("{input}: no such input"),
        }
    }

    /// Somebody else's write.
    fn elsewhere(&mut self, what: &str) {
        let (id, json) = split(what);
        let document = Document::parse(json, &Limits::default()).unwrap();
        let write = PlainWrite {
            user: None,
            collection: Collection::new("todos").unwrap(),
            record_id: RecordId::new(id).unwrap(),
            change: Change::insert(document),
            timestamp: Some(self.now.wall),
            base_version: None,
        };
        self.commit(Transaction::Plain(write)).1.unwrap();
    }

    fn tell(&mut self, input: SessionInput<'_>) -> Vec<String> {
        let mut out = Vec::new();
        let mut env = Environment {
            rings: &self.rings,
            policy: &AllowAll,
            user_bucket: None,
            run: None,
            on_error: None,
        };
        self.session.handle(self.now, input, &mut env, &mut out);
        self.session.check().unwrap();
        out.into_iter().map(|action| self.take(action)).collect()
    }

    /// Keeps a ticket, and says an action in words.
    fn take(&mut self, action: SessionAction) -> String {
        match action {
            SessionAction::Send(frame) => {
                format!("send {}", String::from_utf8(frame.to_vec()).unwrap())
            }
            SessionAction::Close { code, reason } => format!("close {code} {reason}"),
            SessionAction::Follow(interest) => format!("follow {interest}"),
            SessionAction::Unfollow(collection) => format!("unfollow {collection}"),
            SessionAction::Authenticate(ticket) => {
                self.tokens.push_back(ticket);
                "authenticate".into()
            }
            SessionAction::Transact(ticket) => {
                let words = format!("transact {}", transaction(ticket.question()));
                self.transactions.push_back(ticket);
                words
            }
            SessionAction::Read(ticket) => {
                let words = format!("read {}", request(ticket.question()));
                self.reads.push_back(ticket);
                words
            }
        }
    }
}

fn nothing_is_out() -> Vec<String> {
    vec!["(no such ticket is out)".into()]
}

fn session(identity: Identity, now: Now) -> Session {
    Session::new(Arc::new(ServerLimits::default()), ConnId(1), identity, now)
}

fn transaction(transaction: &Transaction) -> String {
    match transaction {
        Transaction::Hello { client, session, .. } => {
            format!("hello of {client}, session {session}")
        }
        Transaction::Writes(run) => {
            let write = |submission: &Submission| {
                let Submission::One(write) = submission else { unreachable!("no units here") };
                let word = |word: &str, number: Option<u64>| {
                    number.map_or(String::new(), |number| format!(" {word} {number}"))
                };
                let number = word("number", write.number.map(|number| number.0));
                let base = word("base", write.base.map(|base| base.0));
                format!("{} {}{number}{base}", write.change.kind, write.record_id)
            };
            let writes: Vec<_> = run.writes.iter().map(write).collect();
            format!("[{}]", writes.join(", "))
        }
        Transaction::Push(_)
        | Transaction::Plain(_)
        | Transaction::PlainUnit(_)
        | Transaction::Sweep(_)
        | Transaction::BeginEpoch { .. }
        | Transaction::DeclareScopes(_)
        | Transaction::DeclareIndexes(_) => {
            unreachable!("no session asks for it")
        }
    }
}

fn request(request: &ReadRequest) -> String {
    match request {
        ReadRequest::CatchUp { reader, .. } => format!("a page of {}", reader.collection),
        ReadRequest::Whole { reader, .. } => format!("the whole of {}", reader.collection),
        other => format!("{other:?}"),
    }
}
