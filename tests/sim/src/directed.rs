//! Schedules of events that no walk meets often enough: each is a schedule of its own on the
//! server's rules, or in a world.

mod scopes;

use std::collections::BTreeMap;
use std::time::Duration;

use synclayer_core::protocol::{Mode, Mutation, Submission};
use synclayer_core::rules::{
    Content, HelloAnswer, Next, Page, PageLimits, PlainWrite, Position, Push, PushOutcome, Reader,
    Rebuild, Run, Verdict,
};
use synclayer_core::{
    AllowAll, Change, ClientId, Collection, Committer, Context, Cursor, DatabaseId, Delta,
    Document, Epoch, Limits, MemoryRows, MutationNumber, ReadAnswer, ReadRequest, RecordId, Rings,
    Seq, SessionNumber, Sweep, SweepPlace, Timestamp, Transaction, TransactionAnswer, WriteKind,
};

/// A schedule: it says what is broken.
pub type Schedule = fn() -> Result<(), String>;

/// All schedules, by name.
pub const SCHEDULES: &[(&str, Schedule)] = &[
    ("the-horizon-passes-between-pages", the_horizon_passes_between_pages),
    ("a-hello-sees-what-is-committed-with-it", a_hello_sees_what_is_committed_with_it),
    ("a-push-stands-on-its-hellos-epoch", a_push_stands_on_its_hellos_epoch),
    ("a-database-keeps-its-identity", a_database_keeps_its_identity),
    ("a-rebuilt-store-vouches-for-no-cursor", a_rebuilt_store_vouches_for_no_cursor),
    ("a-rebuilt-store-may-lack-tombstones", a_rebuilt_store_may_lack_tombstones),
    ("a-patch-without-effect-is-no-conflict", a_patch_without_effect_is_no_conflict),
    ("a-load-begins-anew-in-another-epoch", scopes::a_load_begins_anew_in_another_epoch),
    ("an-undeclared-scope-goes-with-its-use", scopes::an_undeclared_scope_goes_with_its_use),
    ("each-page-of-a-set-brings-it-further", scopes::each_page_of_a_set_brings_it_further),
];

/// A catch-up is on its first page when the tombstones go that its second page needs: it begins
/// again, as a snapshot.
///
/// # Errors
/// When it goes on, and never tells of a deleted record.
pub fn the_horizon_passes_between_pages() -> Result<(), String> {
    let mut server = LoneServer::new();
    server.hello(1);
    server.write(&[("a", WriteKind::Insert), ("b", WriteKind::Insert), ("c", WriteKind::Insert)]);
    server.write(&[("b", WriteKind::Update), ("a", WriteKind::Delete)]);
    let cursor = Cursor { epoch: epoch(1), seq: Seq(3) };
    let first = server.page(Position::Start { cursor: Some(cursor), resume: None })?;
    let Next::More(place) = first.next else { return Err("the run has one page only".into()) };
    server.now.0 += 60_000;
    let retention = Duration::from_secs(1);
    server.decide(&[Transaction::Sweep(Sweep { retention, from: SweepPlace::Start, budget: 100 })]);
    let second = server.page(place)?;
    match (second.opened, second.content) {
        (Some(_), Content::Snapshot { .. }) => Ok(()),
        other => Err(format!("convergence: the run went on below the horizon: {other:?}")),
    }
}

/// A client's late writes and its next hello are committed together.
///
/// # Errors
/// When the hello doesn't tell of the writes.
pub fn a_hello_sees_what_is_committed_with_it() -> Result<(), String> {
    let mut server = LoneServer::new();
    server.hello(1);
    let late = server.writes(&[("a", WriteKind::Insert)]);
    let hello = server.hello_of(2);
    match server.decide(&[late, hello]).pop() {
        Some(TransactionAnswer::Hello(HelloAnswer::Open {
            last_mutation: MutationNumber(1),
            ..
        })) => Ok(()),
        other => Err(format!("exactly once: a hello told of what was before: {other:?}")),
    }
}

/// The server begins a new epoch between a hello by HTTP and the push that follows it.
///
/// # Errors
/// When the push is judged by seqs of another history.
pub fn a_push_stands_on_its_hellos_epoch() -> Result<(), String> {
    let mut server = LoneServer::new();
    server.hello(1);
    server.decide(&[begin(2)]);
    let Transaction::Writes(run) = server.writes(&[("a", WriteKind::Insert)]) else {
        return Err("no writes".into());
    };
    let client = (client(), SessionNumber(1));
    let push = Push { client, user: None, epoch: epoch(1), writes: run.writes };
    match server.decide(&[Transaction::Push(push)]).pop() {
        Some(TransactionAnswer::Pushed(PushOutcome::OtherEpoch)) => Ok(()),
        other => Err(format!("no lost update: a push of another epoch was judged: {other:?}")),
    }
}

/// A server is opened three times on the rows of one database.
///
/// # Errors
/// When the database is another one afterwards.
pub fn a_database_keeps_its_identity() -> Result<(), String> {
    let mut server = LoneServer::new();
    server.decide(&[begin(2)]);
    server.decide(&[begin(3)]);
    let hello = server.hello_of(1);
    match server.decide(&[hello]).pop() {
        Some(TransactionAnswer::Hello(HelloAnswer::Open { database: Some(database), .. }))
            if *database == *"d1" =>
        {
            Ok(())
        }
        other => Err(format!("the server's rows: an opening made it another database: {other:?}")),
    }
}

/// A change is lost from the middle of a store, whose head is as far as ever.
///
/// # Errors
/// When a reader that has the change goes on as if the store had it too.
pub fn a_rebuilt_store_vouches_for_no_cursor() -> Result<(), String> {
    let mut server = LoneServer::new();
    server.hello(1);
    server.write(&[("a", WriteKind::Insert), ("b", WriteKind::Insert)]);
    server.rebuild(&[])?;
    let cursor = Cursor { epoch: epoch(1), seq: Seq(2) };
    let page = server.page(Position::Start { cursor: Some(cursor), resume: None })?;
    match page.opened {
        Some(opened) if opened.mode == Mode::Snapshot => Ok(()),
        other => Err(format!("convergence: a cursor of before the damage counts: {other:?}")),
    }
}

/// A tombstone is lost with the damage, and a writer that knew the record inserts it again.
///
/// # Errors
/// When the record comes back.
pub fn a_rebuilt_store_may_lack_tombstones() -> Result<(), String> {
    let mut server = LoneServer::new();
    server.hello(1);
    server.write(&[("a", WriteKind::Insert), ("b", WriteKind::Insert), ("a", WriteKind::Delete)]);
    server.rebuild(&["a"])?;
    server.hello(2);
    let Transaction::Writes(mut run) = server.writes(&[("a", WriteKind::Insert)]) else {
        return Err("no writes".into());
    };
    // the state that it stands on is of before the delete
    let Some(Submission::One(write)) = run.writes.first_mut() else {
        return Err("no writes".into());
    };
    write.base = Some(Seq(1));
    let Some(TransactionAnswer::Writes(outcomes)) =
        server.decide(&[Transaction::Writes(run)]).pop()
    else {
        return Err("no outcome".into());
    };
    match outcomes.first().map(|outcome| &outcome.verdict) {
        Some(Verdict::Conflict { .. }) => Ok(()),
        other => Err(format!("deletes stay deleted: an old write brought it back: {other:?}")),
    }
}

/// An app of level 1 says by HTTP what it has said on its socket, in other JSON, with the version that
/// it knew before.
///
/// # Errors
/// When that is a conflict, or a change; or when one of another value is none.
pub fn a_patch_without_effect_is_no_conflict() -> Result<(), String> {
    let mut server = LoneServer::new();
    server.plain(WriteKind::Insert, r#"{"a":1}"#, None);
    server.plain(WriteKind::Update, r#"{"a":[2,{"b":1,"c":"x"}]}"#, None);
    let said = r#"{"a":[2.0,{"c":"\u0078","b":1}],"none":null}"#;
    match server.plain(WriteKind::Update, said, Some(1)) {
        Some(Verdict::Unchanged { version: Some(2) }) => {}
        other => return Err(format!("exactly once: it took what changes nothing for {other:?}")),
    }
    match server.plain(WriteKind::Update, r#"{"a":[2,{"b":1.5,"c":"x"}]}"#, Some(1)) {
        Some(Verdict::Conflict { .. }) => Ok(()),
        other => Err(format!("no lost update: an outdated write was taken: {other:?}")),
    }
}

/// A server's rows, and one client that writes to them.
struct LoneServer {
    rows: MemoryRows,
    now: Timestamp,
    session: SessionNumber,
    written: u64,
}

impl LoneServer {
    fn new() -> Self {
        let now = Timestamp(1_790_000_000_000);
        let mut server =
            Self { rows: MemoryRows::default(), now, session: SessionNumber(0), written: 0 };
        server.decide(&[begin(1)]);
        server
    }

    /// Commits transactions together.
    fn decide(&mut self, transactions: &[Transaction]) -> Vec<TransactionAnswer> {
        let limits = Limits::default();
        let context = Context { policy: &AllowAll, limits: &limits, now: self.now };
        let mut committer = Committer::new(1);
        transactions.iter().for_each(|transaction| committer.submit(transaction.clone()));
        let mut batch = committer.next_batch(usize::MAX).expect("something is to be decided");
        self.rows.apply(batch.decide(&self.rows, context));
        let settled = committer.settle(batch.committed(&mut Rings::default()));
        let mut answers = Vec::new();
        settled.deliver(|_| {}, |_, answer| answers.push(answer.expect("the rows are sound")));
        answers
    }

    fn hello_of(&mut self, session: u64) -> Transaction {
        self.session = SessionNumber(session);
        Transaction::Hello { client: client(), user: None, session: self.session }
    }

    /// Makes a write of a level-1 HTTP call.
    fn plain(&mut self, kind: WriteKind, json: &str, base: Option<u64>) -> Option<Verdict> {
        let document = Document::parse(json, &Limits::default()).expect("a document");
        let write = PlainWrite {
            user: None,
            collection: todos(),
            record_id: RecordId::new("a").expect("an id"),
            change: Change { kind, delta: Delta::new(document, vec![]) },
            timestamp: None,
            base_version: base,
        };
        match self.decide(&[Transaction::Plain(write)]).pop() {
            Some(TransactionAnswer::Plain(outcome)) => Some(outcome.verdict),
            _ => None,
        }
    }

    fn hello(&mut self, session: u64) {
        let hello = self.hello_of(session);
        self.decide(&[hello]);
    }

    fn write(&mut self, writes: &[(&str, WriteKind)]) {
        let writes = self.writes(writes);
        self.decide(&[writes]);
    }

    fn writes(&mut self, writes: &[(&str, WriteKind)]) -> Transaction {
        let writes = writes.iter().map(|(id, kind)| self.mutation(id, *kind).into()).collect();
        let client = Some((client(), self.session));
        let window = BTreeMap::new();
        Transaction::Writes(Run { client, user: None, conn: None, writes, window })
    }

    fn mutation(&mut self, id: &str, kind: WriteKind) -> Mutation {
        self.written += 1;
        let text = format!(r#"{{"n":{}}}"#, self.written);
        let text = if kind == WriteKind::Delete { "{}" } else { &text };
        let document = Document::parse(text, &Limits::default()).expect("a document");
        Mutation {
            collection: todos(),
            record_id: RecordId::new(id).expect("an id"),
            change: Change { kind, delta: Delta::new(document, vec![]) },
            timestamp: Some(self.now),
            at: Vec::new(),
            number: Some(MutationNumber(self.written)),
            base: None,
        }
    }

    /// The store is damaged and made anew, without what it had of some records.
    fn rebuild(&mut self, lost: &[&str]) -> Result<(), String> {
        let is_lost = |key: &[u8]| lost.iter().any(|id| key.ends_with(id.as_bytes()));
        let left: Vec<_> = self
            .rows
            .iter()
            .filter(|(key, _)| key.first() != Some(&b'r') || !is_lost(key))
            .map(|(key, row)| (key.clone(), row.clone()))
            .collect();
        let mut rebuild = Rebuild::new(None);
        let mut rows = MemoryRows::default();
        rows.apply(rebuild.step(left, &rows).map_err(|error| error.message)?);
        rows.apply(rebuild.finish(&rows).map_err(|error| error.message)?.batch);
        self.rows = rows;
        self.decide(&[begin(2)]);
        Ok(())
    }

    /// A page of one record.
    fn page(&self, position: Position) -> Result<Page, String> {
        let reader = Reader::from(todos());
        let mut limits = PageLimits::default();
        (limits.records, limits.bytes) = (1, usize::MAX);
        let request = ReadRequest::CatchUp { reader, position, limits };
        match request.run(&self.rows, &AllowAll) {
            Ok(ReadAnswer::Page(page)) => Ok(page),
            other => Err(format!("no page: {other:?}")),
        }
    }
}

fn todos() -> Collection {
    Collection::new("todos").expect("a name")
}

fn client() -> ClientId {
    ClientId::new("c1").expect("an id")
}

/// An opening of the database, which proposes an identity of its own.
fn begin(number: u64) -> Transaction {
    let database = DatabaseId::new(&format!("d{number}")).expect("an id");
    Transaction::BeginEpoch { epoch: epoch(number), database }
}

fn epoch(number: u64) -> Epoch {
    Epoch::new(&format!("e{number}")).expect("an id")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schedule_holds() {
        for (name, schedule) in SCHEDULES {
            assert_eq!(schedule(), Ok(()), "{name}");
        }
    }
}
