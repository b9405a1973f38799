mod caps;
mod random;
mod scopes;
mod sweep;
mod unit;

use super::*;

use alloc::string::ToString;
use alloc::vec;
use core::cell::RefCell;
use core::time::Duration;

use bytes::Bytes;

use crate::protocol::delta::Delta;
use crate::protocol::document::Document;
use crate::protocol::message::Mutation;
use crate::protocol::name::DatabaseId;
use crate::protocol::times::FieldTimes;
use crate::protocol::write::{Change, WriteKind};
use crate::rules::policy::{Access, AllowAll};
use crate::rules::record::{Head, RecordRow};
use crate::rules::verify::verify;
use crate::store::MemoryRows;
use crate::store::Visit;

/// A server's rows, changed by one transaction after the other.
pub(crate) struct Store {
    pub(crate) rows: MemoryRows,
    pub(crate) now: Timestamp,
    pub(crate) limits: Limits,
    pub(crate) published: Vec<Published>,
    pub(crate) session: u64,
}

impl Store {
    pub(crate) fn new() -> Self {
        let mut store = Self {
            rows: MemoryRows::default(),
            now: Timestamp(1_000_000),
            limits: Limits::default(),
            published: Vec::new(),
            session: 0,
        };
        store.begin("e1");
        store
    }

    pub(crate) fn begin(&mut self, epoch: &str) {
        let database = DatabaseId::new(&alloc::format!("d-{epoch}")).unwrap();
        let epoch = Epoch::new(epoch).unwrap();
        assert_eq!(
            self.commit(&Transaction::BeginEpoch { epoch, database }),
            TransactionAnswer::Begun
        );
    }

    pub(crate) fn commit(&mut self, transaction: &Transaction) -> TransactionAnswer {
        self.commit_with(transaction, &AllowAll)
    }

    pub(crate) fn commit_with(
        &mut self,
        transaction: &Transaction,
        policy: &dyn Policy,
    ) -> TransactionAnswer {
        let context = Context { policy, limits: &self.limits, now: self.now };
        let decision = transaction.decide(&self.rows, context).unwrap();
        self.rows.apply(decision.batch);
        self.published.extend(decision.published);
        assert_eq!(verify(&self.rows).unwrap().faults, Vec::<String>::new());
        decision.answer
    }

    pub(crate) fn hello(&mut self, id: &str) -> SessionNumber {
        self.session += 1;
        let session = SessionNumber(self.session);
        let answer = self.commit(&hello(id, self.session));
        assert!(matches!(answer, TransactionAnswer::Hello(HelloAnswer::Open { .. })), "{answer:?}");
        session
    }

    /// Numbered writes of the newest session.
    pub(crate) fn run(&mut self, id: &str, mutations: Vec<Mutation>) -> Vec<Outcome> {
        let session = SessionNumber(self.session);
        self.run_in(id, session, mutations, Window::new())
    }

    fn run_in(
        &mut self,
        id: &str,
        session: SessionNumber,
        mutations: Vec<Mutation>,
        window: Window,
    ) -> Vec<Outcome> {
        let client = Some((client(id), session));
        let writes = mutations.into_iter().map(Into::into).collect();
        let run = Run { client, user: None, conn: Some(ConnId(1)), writes, window };
        let TransactionAnswer::Writes(outcomes) = self.commit(&Transaction::Writes(run)) else {
            panic!()
        };
        outcomes
    }

    /// A level-1 write.
    pub(crate) fn plain(&mut self, change: Change) -> Outcome {
        self.plain_to("r", change)
    }

    pub(crate) fn plain_to(&mut self, id: &str, change: Change) -> Outcome {
        let mutation = Mutation { number: None, base: None, ..write(0, 0, id, change) };
        let writes = vec![mutation.into()];
        let run = Run { client: None, user: None, conn: None, writes, window: Window::new() };
        let TransactionAnswer::Writes(mut outcomes) = self.commit(&Transaction::Writes(run)) else {
            panic!()
        };
        outcomes.remove(0)
    }

    fn http(&mut self, change: Change, base_version: Option<u64>) -> Outcome {
        let write = PlainWrite {
            user: None,
            collection: todos(),
            record_id: id("r"),
            change,
            timestamp: None,
            base_version,
        };
        let TransactionAnswer::Plain(outcome) = self.commit(&Transaction::Plain(write)) else {
            panic!()
        };
        outcome
    }

    pub(crate) fn record(&self, of: &str) -> Option<RecordRow> {
        RecordRow::load(&self.rows, &todos(), &id(of)).unwrap()
    }

    pub(crate) fn json(&self, of: &str) -> Option<String> {
        Some(self.record(of)?.document?.to_string())
    }

    pub(crate) fn head(&self) -> Head {
        Head::load(&self.rows, &todos()).unwrap()
    }

    fn last_mutation(&self, id: &str) -> MutationNumber {
        ClientRow::load(&self.rows, &client(id)).unwrap().unwrap().last_mutation
    }

    /// Sweeps everything older than this many milliseconds, a few rows at a time.
    pub(crate) fn sweep(&mut self, retention: u64) -> usize {
        self.sweep_until(retention, None)
    }

    /// Sweeps the tombstones, but no clients.
    pub(crate) fn sweep_tombstones(&mut self, retention: u64) {
        self.sweep_until(retention, Some(&SweepPlace::Clients));
    }

    fn sweep_until(&mut self, retention: u64, end: Option<&SweepPlace>) -> usize {
        let mut from = Some(SweepPlace::Start);
        let mut removed = 0;
        for _ in 0..1000 {
            let Some(place) = from.take().filter(|place| Some(place) != end) else {
                return removed;
            };
            let retention = Duration::from_millis(retention);
            let sweep = Sweep { retention, from: place, budget: 1 };
            let TransactionAnswer::Swept(swept) = self.commit(&Transaction::Sweep(sweep)) else {
                panic!()
            };
            removed += swept.removed;
            from = swept.next;
        }
        panic!("the sweep never ends");
    }
}

pub(crate) fn todos() -> Collection {
    Collection::new("todos").unwrap()
}

pub(crate) fn id(text: &str) -> RecordId {
    RecordId::new(text).unwrap()
}

pub(crate) fn client(text: &str) -> ClientId {
    ClientId::new(text).unwrap()
}

pub(crate) fn doc(json: &str) -> Document {
    Document::parse(json, &Limits::default()).unwrap()
}

pub(crate) fn insert(json: &str) -> Change {
    Change::insert(doc(json))
}

pub(crate) fn update(json: &str) -> Change {
    unset(json, &[])
}

pub(crate) fn unset(json: &str, names: &[&str]) -> Change {
    let names = names.iter().map(|name| (*name).into()).collect();
    Change::update(Delta::new(doc(json), names))
}

pub(crate) fn hello(id: &str, session: u64) -> Transaction {
    Transaction::Hello { client: client(id), user: None, session: SessionNumber(session) }
}

pub(crate) fn write(number: u64, base: u64, of: &str, change: Change) -> Mutation {
    Mutation {
        collection: todos(),
        record_id: id(of),
        change,
        timestamp: None,
        at: Vec::new(),
        number: Some(MutationNumber(number)),
        base: Some(Seq(base)),
    }
}

fn unconditional(number: u64, of: &str, change: Change) -> Mutation {
    Mutation { base: None, ..write(number, 0, of, change) }
}

/// The verdict in few words.
fn brief(outcome: &Outcome) -> String {
    match &outcome.verdict {
        Verdict::Applied { seq, version, .. } => alloc::format!("seq {seq} v{version}"),
        Verdict::Unchanged { .. } => alloc::format!("nothing at {}", outcome.at),
        Verdict::Conflict { current } => {
            let seq = current.seq.unwrap();
            let document = current.change.apply(None).map(|document| document.to_string());
            alloc::format!("conflict {seq} {}", document.unwrap_or("null".into()))
        }
        Verdict::Refused { code, .. } => code.to_string(),
        Verdict::Superseded => "superseded".into(),
        Verdict::OutOfOrder { next } => alloc::format!("out of order, next {next}"),
    }
}

fn briefs(outcomes: &[Outcome]) -> Vec<String> {
    outcomes.iter().map(brief).collect()
}

#[test]
fn a_hello_fences_and_reads_in_one_step() {
    let mut store = Store::new();
    let opened = |answer| {
        let TransactionAnswer::Hello(HelloAnswer::Open {
            database,
            last_mutation,
            last_digest,
            epoch,
            ..
        }) = answer
        else {
            panic!("{answer:?}")
        };
        assert_eq!(database.as_deref(), Some("d-e1"), "the identity is of the first opening");
        (last_mutation.0, last_digest.is_some(), epoch.to_string())
    };
    assert_eq!(opened(store.commit(&hello("c", 5))), (0, false, "e1".to_string()));
    assert_eq!(store.commit(&hello("c", 5)), TransactionAnswer::Hello(HelloAnswer::Superseded));
    assert_eq!(store.commit(&hello("c", 4)), TransactionAnswer::Hello(HelloAnswer::Superseded));
    store.run_in("c", SessionNumber(5), vec![write(1, 0, "r", insert("{}"))], Window::new());
    assert_eq!(opened(store.commit(&hello("c", 6))), (1, true, "e1".to_string()));
    let stolen = Transaction::Hello {
        client: client("c"),
        user: Some(UserId::new("eve").unwrap()),
        session: SessionNumber(9),
    };
    assert_eq!(store.commit(&stolen), TransactionAnswer::Hello(HelloAnswer::OtherUser));
    assert_eq!(opened(store.commit(&hello("c", 7))).0, 1);
}

#[test]
fn a_write_of_an_older_session_changes_nothing() {
    let mut store = Store::new();
    let old = store.hello("c");
    store.hello("c");
    let writes = vec![write(1, 0, "r", insert("{}")), write(2, 0, "s", insert("{}"))];
    let outcomes = store.run_in("c", old, writes, Window::new());
    assert_eq!(briefs(&outcomes), ["superseded"]);
    assert_eq!(store.record("r"), None);
    // a client that was forgotten is fenced off too
    let outcomes = store.run_in("x", old, vec![write(1, 0, "r", insert("{}"))], Window::new());
    assert_eq!(briefs(&outcomes), ["superseded"]);
}

#[test]
fn numbers_are_consumed_by_success_alone() {
    let mut store = Store::new();
    store.hello("c");
    let outcomes = store.run(
        "c",
        vec![
            write(1, 0, "r", insert("{\"a\":1}")),
            write(2, 0, "s", update("{\"a\":1}")),
            write(3, 0, "t", insert("{}")),
        ],
    );
    // the third is ignored: it was pipelined behind the conflict
    assert_eq!(briefs(&outcomes), ["seq 1 v1", "conflict 0 null"]);
    assert_eq!(store.last_mutation("c"), MutationNumber(1));
    // until its number comes again
    let outcomes =
        store.run("c", vec![write(2, 0, "s", insert("{}")), write(3, 0, "t", insert("{}"))]);
    assert_eq!(briefs(&outcomes), ["seq 2 v1", "seq 3 v1"]);
    let outcomes = store.run("c", vec![write(5, 0, "u", insert("{}"))]);
    assert_eq!(briefs(&outcomes), ["out of order, next 4"]);
    assert_eq!(store.last_mutation("c"), MutationNumber(3));
}

#[test]
fn a_failed_number_that_comes_again_in_the_same_run_counts() {
    let mut store = Store::new();
    store.hello("c");
    let outcomes = store.run(
        "c",
        vec![
            write(1, 0, "r", update("{}")),
            write(2, 0, "s", insert("{}")),
            write(1, 0, "r", insert("{}")),
            write(2, 0, "s", insert("{}")),
        ],
    );
    assert_eq!(briefs(&outcomes), ["conflict 0 null", "seq 1 v1", "seq 2 v1"]);
}

#[test]
fn an_applied_number_is_acknowledged_again_and_not_applied_again() {
    let mut store = Store::new();
    store.hello("c");
    store.run("c", vec![write(1, 0, "r", insert("{\"a\":1}"))]);
    store.hello("d");
    store.run("d", vec![write(1, 1, "r", update("{\"a\":2}"))]);
    store.hello("c");
    let outcomes = store.run("c", vec![write(1, 0, "r", insert("{\"a\":1}"))]);
    assert_eq!(briefs(&outcomes), ["nothing at 2"]);
    assert_eq!(store.json("r").unwrap(), "{\"a\":2}");
    assert_eq!(store.last_mutation("c"), MutationNumber(1));
}

#[test]
fn the_digest_is_of_the_last_applied_write() {
    let mut store = Store::new();
    store.hello("c");
    let first = write(1, 0, "r", insert("{\"a\":1}"));
    let again = Mutation { timestamp: Some(Timestamp(5)), ..write(2, 1, "r", update("{\"a\":1}")) };
    let refused = write(3, 0, "r", update("{\"a\":2}"));
    let digest = Mutation::digest;
    let stored =
        |store: &Store| ClientRow::load(&store.rows, &client("c")).unwrap().unwrap().last_digest;
    store.run("c", vec![first.clone()]);
    assert_eq!(stored(&store), Some(digest(&first)));
    // one that changes nothing is a success too
    assert_eq!(briefs(&store.run("c", vec![again.clone()])), ["nothing at 1"]);
    assert_eq!(stored(&store), Some(digest(&again)));
    assert_eq!(briefs(&store.run("c", vec![refused])), ["conflict 1 {\"a\":1}"]);
    assert_eq!(stored(&store), Some(digest(&again)));
    // a number that comes again was applied as it was then
    let other = write(2, 1, "r", update("{\"a\":9}"));
    assert_eq!(briefs(&store.run("c", vec![other])), ["nothing at 1"]);
    assert_eq!(stored(&store), Some(digest(&again)));
    assert_eq!(store.last_mutation("c"), MutationNumber(2));
}

#[test]
fn fields_conflict_one_by_one_and_wholes_with_everything() {
    // after: a at 1 (whole), b at 2, c removed at 3
    let cases = [
        (1, update("{\"a\":9}"), true),
        (1, update("{\"b\":9}"), false),
        (2, update("{\"b\":9}"), true),
        (1, unset("{}", &["b"]), false),
        (1, update("{\"a\":9,\"b\":9}"), false),
        (2, update("{\"c\":9}"), false),
        (3, update("{\"c\":9}"), true),
        (1, update("{\"new\":9}"), true),
        (0, update("{\"a\":9}"), false),
        (0, update("{\"new\":9}"), false),
        (2, insert("{}"), false),
        (3, insert("{}"), true),
        (2, Change::delete(), false),
        (3, Change::delete(), true),
        (0, insert("{}"), false),
        // above the head
        (4, update("{\"a\":9}"), false),
    ];
    for (base, change, fine) in cases {
        let mut store = Store::new();
        store.plain(insert("{\"a\":1,\"b\":1,\"c\":1}"));
        store.plain(update("{\"b\":2}"));
        store.plain(unset("{}", &["c"]));
        store.hello("w");
        let outcomes = store.run("w", vec![write(1, base, "r", change.clone())]);
        let expected = if fine { "seq 4 v4" } else { "conflict 3 {\"a\":1,\"b\":2}" };
        assert_eq!(briefs(&outcomes), [expected], "{change:?} at {base}");
    }
}

#[test]
fn an_insert_of_someone_else_raises_whole_above_the_base() {
    let mut store = Store::new();
    store.plain(insert("{\"a\":1,\"b\":1}"));
    store.plain(insert("{\"a\":2}"));
    store.hello("w");
    // `b` is gone without a stamp of its own
    let outcomes = store.run("w", vec![write(1, 1, "r", update("{\"b\":9}"))]);
    assert_eq!(briefs(&outcomes), ["conflict 2 {\"a\":2}"]);
}

#[test]
fn a_missing_record_takes_an_insert_and_a_delete() {
    let mut store = Store::new();
    store.hello("w");
    let outcomes = store.run(
        "w",
        vec![
            write(1, 0, "r", Change::delete()),
            write(2, 0, "r", insert("{\"a\":1}")),
            write(3, 1, "r", Change::delete()),
            write(4, 2, "r", Change::delete()),
            write(5, 2, "r", update("{\"a\":1}")),
        ],
    );
    let expected = ["nothing at 0", "seq 1 v1", "seq 2 v2", "nothing at 2", "conflict 2 null"];
    assert_eq!(briefs(&outcomes), expected);
    // a delete that the writer has not seen meets its insert; one that it has seen does not
    let outcomes = store.run("w", vec![write(5, 1, "r", insert("{}"))]);
    assert_eq!(briefs(&outcomes), ["conflict 2 null"]);
    let outcomes = store.run("w", vec![write(5, 2, "r", insert("{\"b\":1}"))]);
    assert_eq!(briefs(&outcomes), ["seq 3 v3"]);
}

#[test]
fn own_writes_of_the_window_conflict_with_nothing() {
    let mut store = Store::new();
    store.plain(insert("{\"a\":0,\"b\":0}"));
    let session = store.hello("w");
    // two pipelined writes of one field, in one run
    let writes = vec![write(1, 1, "r", update("{\"a\":1}")), write(2, 1, "r", update("{\"a\":2}"))];
    let outcomes = store.run_in("w", session, writes, Window::new());
    assert_eq!(briefs(&outcomes), ["seq 2 v2", "seq 3 v3"]);
    // and in a later run, as long as the connection knows its seqs
    let again = vec![write(3, 1, "r", update("{\"a\":3}"))];
    let window = Window::from([(todos(), vec![Seq(2), Seq(3)])]);
    assert_eq!(briefs(&store.run("w", again.clone())), ["conflict 3 {\"a\":2,\"b\":0}"]);
    let outcomes = store.run_in("w", session, again, window.clone());
    assert_eq!(briefs(&outcomes), ["seq 4 v4"]);
    // a seq of another collection is no excuse
    let other = Window::from([(Collection::new("other").unwrap(), vec![Seq(4)])]);
    let outcomes = store.run_in("w", session, vec![write(4, 3, "r", update("{\"a\":4}"))], other);
    assert_eq!(briefs(&outcomes), ["conflict 4 {\"a\":3,\"b\":0}"]);
    // and someone else's change between them still counts
    store.plain(update("{\"a\":5}"));
    let outcomes = store.run_in("w", session, vec![write(4, 1, "r", update("{\"a\":4}"))], window);
    assert_eq!(briefs(&outcomes), ["conflict 5 {\"a\":5,\"b\":0}"]);
}

#[test]
fn a_write_without_a_base_is_unconditional() {
    let mut store = Store::new();
    store.plain(insert("{\"a\":1}"));
    store.hello("w");
    let outcomes = store.run(
        "w",
        vec![
            unconditional(1, "r", update("{\"a\":2}")),
            unconditional(2, "r", insert("{\"b\":1}")),
            unconditional(3, "none", update("{}")),
        ],
    );
    assert_eq!(briefs(&outcomes), ["seq 2 v2", "seq 3 v3", "conflict 0 null"]);
}

#[test]
fn the_echo_is_what_changed_above_the_base_whoever_changed_it() {
    let mut store = Store::new();
    store.plain(insert("{\"a\":1,\"b\":1,\"c\":1,\"d\":1}"));
    store.plain(unset("{\"b\":2}", &["d"]));
    store.hello("w");
    let echo = |outcome: &Outcome| {
        let Verdict::Applied { echo, .. } = &outcome.verdict else { panic!("{outcome:?}") };
        echo.clone().unwrap()
    };
    let outcomes = store.run("w", vec![write(1, 1, "r", update("{\"c\":3}"))]);
    let said = echo(&outcomes[0]);
    assert_eq!(said.change, unset("{\"b\":2,\"c\":3}", &["d"]));
    assert_eq!((said.seq, said.version), (Some(Seq(3)), Some(3)));
    let outcomes = store.run("w", vec![unconditional(2, "r", update("{\"c\":4}"))]);
    assert_eq!(echo(&outcomes[0]).change, insert("{\"a\":1,\"b\":2,\"c\":4}"));
    let outcomes = store.run("w", vec![write(3, 4, "r", Change::delete())]);
    assert_eq!(echo(&outcomes[0]).change, Change::delete());
}

#[test]
fn what_is_published_is_the_change_alone() {
    let mut store = Store::new();
    store.plain(insert("{\"a\":1,\"b\":1}"));
    store.now = Timestamp(2_000_000);
    store.hello("w");
    let late = Mutation {
        timestamp: Some(Timestamp(1_500_000)),
        ..write(1, 1, "r", unset("{\"a\":2}", &["b", "never"]))
    };
    store.run("w", vec![late]);
    let published = store.published.last().unwrap();
    assert_eq!(published.change.change, unset("{\"a\":2}", &["b"]));
    assert_eq!(published.change.timestamp, Some(Timestamp(1_500_000)));
    assert_eq!(published.seq, Seq(2));
    assert_eq!(published.document, Some(doc("{\"a\":2}")));
    let mutation = Some(MutationNumber(1));
    assert_eq!(published.origin, Some(Origin { conn: ConnId(1), mutation }));
}

#[test]
fn timestamps_are_the_writers_but_never_later_than_the_server() {
    let mut store = Store::new();
    store.hello("w");
    let at = |number, base, millis, change| Mutation {
        timestamp: Some(Timestamp(millis)),
        ..write(number, base, "r", change)
    };
    store.run("w", vec![at(1, 0, 10, insert("{\"a\":1,\"b\":1}"))]);
    store.run("w", vec![at(2, 1, 9_000_000, update("{\"b\":2}"))]);
    let record = store.record("r").unwrap();
    assert_eq!(record.last.at, store.now);
    assert_eq!(record.state().at, [("a".into(), Timestamp(10))]);
    assert_eq!(record.committed_at, store.now);
    // the server's own time never goes back
    store.now = Timestamp(900_000);
    store.run("w", vec![write(3, 2, "r", update("{\"b\":3}"))]);
    let record = store.record("r").unwrap();
    assert_eq!(record.last.at, Timestamp(900_000));
    assert_eq!(record.committed_at, Timestamp(1_000_000));
}

#[test]
fn fields_keep_the_times_at_which_they_were_written() {
    let mut store = Store::new();
    store.hello("w");
    let at = |of: &[(&str, i64)]| -> FieldTimes {
        of.iter().map(|(name, at)| ((*name).into(), Timestamp(*at))).collect()
    };
    let written = |number, base, millis, times: &[(&str, i64)], change| Mutation {
        timestamp: Some(Timestamp(millis)),
        at: at(times),
        ..write(number, base, "r", change)
    };
    // of an insert, and what it does not name means nothing
    let insert = insert("{\"a\":1,\"b\":1,\"c\":1}");
    store.run("w", vec![written(1, 0, 9, &[("a", 3), ("x", 1)], insert)]);
    let record = store.record("r").unwrap();
    assert_eq!((record.whole, record.state().at), (record.last, at(&[("a", 3)])));
    assert_eq!(store.published.last().unwrap().change.at, at(&[("a", 3)]));
    // of an update, a removed field among them, and none of the future
    let change = unset("{\"b\":2,\"d\":1}", &["c"]);
    let future = 9_000_000;
    let times = [("b", 11), ("c", 12), ("d", future)];
    store.run("w", vec![written(2, 1, future, &times, change)]);
    let record = store.record("r").unwrap();
    assert_eq!(record.last.at, store.now);
    let published = &store.published.last().unwrap().change;
    assert_eq!(published.at, at(&[("b", 11), ("c", 12)]));
    let all = at(&[("a", 3), ("b", 11), ("c", 12)]);
    assert_eq!(record.state().at, all, "a reader of the whole learns of the removed one too");
    assert_eq!(record.times(), all);
    // what a field had before is nobody's business
    store.run("w", vec![written(3, 2, 20, &[], update("{\"b\":3}"))]);
    let record = store.record("r").unwrap();
    assert_eq!(record.stamp("b").at, Timestamp(20));
    assert_eq!(store.published.last().unwrap().change.at, at(&[]));
    assert_eq!(record.faults(store.head()), Vec::<&str>::new());
}

#[test]
fn level_one_is_unconditional_and_hears_of_missing_records() {
    let mut store = Store::new();
    assert_eq!(brief(&store.plain(update("{\"a\":1}"))), "RECORD_NOT_FOUND");
    assert_eq!(brief(&store.plain(Change::delete())), "RECORD_NOT_FOUND");
    assert_eq!(brief(&store.plain(insert("{\"a\":1,\"b\":1}"))), "seq 1 v1");
    assert_eq!(brief(&store.plain(insert("{\"a\":2}"))), "seq 2 v2");
    assert_eq!(store.json("r").unwrap(), "{\"a\":2}");
    assert_eq!(brief(&store.plain(insert("{\"a\":2}"))), "nothing at 2");
    assert_eq!(brief(&store.plain(Change::delete())), "seq 3 v3");
    assert_eq!(brief(&store.plain(update("{\"a\":1}"))), "RECORD_NOT_FOUND");
    // one that fails stops nothing
    let at_level_1 = |of, change| Mutation { number: None, base: None, ..write(0, 0, of, change) };
    let writes = vec![at_level_1("x", update("{}")).into(), at_level_1("y", insert("{}")).into()];
    let run = Run { client: None, user: None, conn: None, writes, window: Window::new() };
    let TransactionAnswer::Writes(outcomes) = store.commit(&Transaction::Writes(run)) else {
        panic!()
    };
    assert_eq!(briefs(&outcomes), ["RECORD_NOT_FOUND", "seq 4 v1"]);
}

#[test]
fn http_compares_versions_of_fields() {
    let mut store = Store::new();
    assert_eq!(brief(&store.http(update("{}"), Some(0))), "RECORD_NOT_FOUND");
    assert_eq!(brief(&store.http(Change::delete(), None)), "nothing at 0");
    store.http(insert("{\"a\":1,\"b\":1}"), None);
    store.http(update("{\"a\":2}"), None);
    let now = "conflict 2 {\"a\":2,\"b\":1}";
    assert_eq!(brief(&store.http(update("{\"a\":3}"), Some(1))), now);
    assert_eq!(brief(&store.http(update("{\"b\":3}"), Some(0))), now);
    assert_eq!(brief(&store.http(update("{\"b\":3}"), Some(3))), now);
    assert_eq!(brief(&store.http(update("{\"b\":3}"), Some(1))), "seq 3 v3");
    assert_eq!(brief(&store.http(update("{\"a\":3}"), None)), "seq 4 v4");
    assert_eq!(brief(&store.http(Change::delete(), None)), "seq 5 v5");
    let again = store.http(Change::delete(), None);
    assert_eq!(again.verdict, Verdict::Unchanged { version: None }, "it is gone already");
    assert_eq!(brief(&store.http(update("{}"), None)), "RECORD_NOT_FOUND");
}

#[test]
fn a_document_that_would_grow_too_large_is_refused() {
    let mut store = Store::new();
    store.limits = Limits { document_bytes: 30, fields: 3, ..Limits::default() };
    store.hello("w");
    store.run("w", vec![write(1, 0, "r", insert("{\"a\":1,\"b\":1}"))]);
    let exactly = doc("{\"a\":1,\"b\":1,\"c\":\"0123456789\"}").size();
    let grow = || vec![write(2, 1, "r", update("{\"c\":\"0123456789\"}"))];
    store.limits.document_bytes = exactly - 1;
    assert_eq!(briefs(&store.run("w", grow())), ["PAYLOAD_TOO_LARGE"]);
    let large = update("{\"c\":\"01234567890123456789\"}");
    let many = update("{\"c\":1,\"d\":1}");
    assert_eq!(briefs(&store.run("w", vec![write(2, 1, "r", large)])), ["PAYLOAD_TOO_LARGE"]);
    assert_eq!(briefs(&store.run("w", vec![write(2, 1, "r", many)])), ["PAYLOAD_TOO_LARGE"]);
    assert_eq!(store.last_mutation("w"), MutationNumber(1));
    store.limits.document_bytes = exactly;
    assert_eq!(briefs(&store.run("w", grow())), ["seq 2 v2"]);
}

#[test]
fn tombstones_of_fields_are_bounded() {
    let mut store = Store::new();
    store.limits = Limits { fields: 2, ..Limits::default() };
    store.plain(insert("{\"a\":1,\"b\":1}"));
    store.plain(unset("{\"c\":1}", &["a", "b"]));
    assert_eq!(store.record("r").unwrap().removed.len(), 2);
    store.plain(unset("{\"d\":1}", &["c"]));
    let record = store.record("r").unwrap();
    assert_eq!((record.removed.len(), record.whole.seq), (0, Seq(3)));
    assert_eq!(store.published.last().unwrap().change.change, insert("{\"d\":1}"));
}

#[test]
fn who_may_not_write_learns_nothing() {
    struct Mine;
    impl Policy for Mine {
        fn read(&self, _: Option<&UserId>, _: &Collection) -> Access {
            Access::Some
        }
        fn read_record(
            &self,
            _: Option<&UserId>,
            _: &Collection,
            _: &RecordId,
            document: &Document,
        ) -> bool {
            document.text("secret").is_none()
        }
        fn write(
            &self,
            _: Option<&UserId>,
            _: &Collection,
            id: &RecordId,
            _: Option<&Document>,
            _: &Change,
        ) -> Result<(), String> {
            if id.starts_with("locked") { Err("it is locked".into()) } else { Ok(()) }
        }
    }
    let mut store = Store::new();
    store.plain_to("locked", insert("{\"a\":1}"));
    store.plain_to("hidden", insert("{\"secret\":1}"));
    let session = store.hello("w");
    let mut run_beside = |mutation: Mutation, window: Window| {
        let client = Some((client("w"), session));
        let writes = vec![mutation.into()];
        let run = Run { client, user: None, conn: None, writes, window };
        let TransactionAnswer::Writes(mut outcomes) =
            store.commit_with(&Transaction::Writes(run), &Mine)
        else {
            panic!()
        };
        outcomes.remove(0)
    };
    let mut run = |mutation: Mutation| run_beside(mutation, Window::new());
    assert_eq!(brief(&run(write(1, 0, "locked", Change::delete()))), "UNAUTHORIZED");
    assert_eq!(brief(&run(write(1, 0, "locked2", Change::delete()))), "UNAUTHORIZED");
    // a conflict would show the record
    assert_eq!(brief(&run(write(1, 0, "hidden", update("{\"a\":1}")))), "UNAUTHORIZED");
    // and so would the echo
    let outcome = run(unconditional(1, "hidden", update("{\"a\":1}")));
    let Verdict::Applied { seq, echo, .. } = outcome.verdict else { panic!() };
    assert_eq!(echo, None, "it would be taken for all that changed above the base");
    let base = seq.0;
    let outcome = run(write(2, base, "hidden", update("{\"a\":2}")));
    let Verdict::Applied { seq, echo, .. } = outcome.verdict else { panic!() };
    assert_eq!(echo.unwrap().change, update("{\"a\":2}"), "nobody else changed anything");
    // the next one was sent before that ack came, which may have told nothing by then
    let own = Window::from([(Collection::new("c").unwrap(), vec![seq])]);
    let outcome = run_beside(write(3, base, "hidden", update("{\"b\":3}")), own);
    let Verdict::Applied { echo, .. } = outcome.verdict else { panic!() };
    assert_eq!(echo, None, "it is not all that changed above the base");
    let outcome = run_beside(unconditional(4, "hidden", insert("{\"c\":4}")), Window::new());
    let Verdict::Applied { echo, .. } = outcome.verdict else { panic!() };
    assert_eq!(echo.unwrap().change, insert("{\"c\":4}"), "it is the whole record");
}

/// Rows of which one can't be read.
struct Broken<'a>(&'a MemoryRows, Vec<u8>, RefCell<u32>);

impl Rows for Broken<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        if key == self.1 {
            *self.2.borrow_mut() += 1;
            return Err(StoreError::damaged("broken"));
        }
        self.0.get(key)
    }
    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.0.scan(from, to, visit)
    }
    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        self.0.last(from, to)
    }
}

#[test]
fn transactions_share_a_commit_and_a_failing_one_spoils_none() {
    let mut store = Store::new();
    store.hello("w");
    let session = SessionNumber(1);
    let run = |number, of: &str, base| {
        let client = Some((client("w"), session));
        let writes = vec![
            write(number, base, "first", update("{\"n\":1}")).into(),
            write(number + 1, 0, of, insert("{}")).into(),
        ];
        Transaction::Writes(Run { client, user: None, conn: None, writes, window: Window::new() })
    };
    let start = Transaction::Plain(PlainWrite {
        user: None,
        collection: todos(),
        record_id: id("first"),
        change: insert("{\"n\":0}"),
        timestamp: None,
        base_version: None,
    });
    let transactions = [start, run(1, "bad", 1), run(1, "good", 1)];
    let broken = Broken(&store.rows, record::record_key(&todos(), &id("bad")), RefCell::new(0));
    let context = Context { policy: &AllowAll, limits: &store.limits, now: store.now };
    let decided = decide_all(&transactions, &broken, context);
    assert_eq!(*broken.2.borrow(), 1);
    assert!(decided.answers[1].is_err());
    let Ok(TransactionAnswer::Writes(outcomes)) = &decided.answers[2] else { panic!() };
    assert_eq!(briefs(outcomes), ["seq 2 v2", "seq 3 v1"]);
    let seqs: Vec<_> = decided.published.iter().map(|published| published.seq.0).collect();
    assert_eq!(seqs, [1, 2, 3]);
    store.rows.apply(decided.batch);
    assert_eq!(verify(&store.rows).unwrap().faults, Vec::<String>::new());
    assert_eq!(store.json("bad"), None);
    assert_eq!(store.last_mutation("w"), MutationNumber(2));
}

#[test]
fn a_hello_sees_what_was_written_before_it_in_the_same_commit() {
    let mut store = Store::new();
    let session = store.hello("w");
    let run = Run {
        client: Some((client("w"), session)),
        user: None,
        conn: None,
        writes: vec![write(1, 0, "r", insert("{}")).into()],
        window: Window::new(),
    };
    let transactions = [Transaction::Writes(run), hello("w", session.0 + 1)];
    let context = Context { policy: &AllowAll, limits: &store.limits, now: store.now };
    let decided = decide_all(&transactions, &store.rows, context);
    let Ok(TransactionAnswer::Hello(HelloAnswer::Open { last_mutation, .. })) = &decided.answers[1]
    else {
        panic!("{:?}", decided.answers)
    };
    assert_eq!(*last_mutation, MutationNumber(1));
}

#[test]
fn the_offline_check_finds_what_was_altered() {
    let mut store = Store::new();
    store.plain(insert("{\"a\":1}"));
    let faults = |rows: &MemoryRows| verify(rows).unwrap().faults.len();
    assert_eq!(faults(&store.rows), 0);
    let altered = |change: &dyn Fn(&mut Batch)| {
        let (mut rows, mut batch) = (store.rows.clone(), Batch::default());
        change(&mut batch);
        rows.apply(batch);
        faults(&rows)
    };
    let key = record::record_key(&todos(), &id("r"));
    let record = store.record("r").unwrap();
    let other = RecordRow { document: Some(doc("{\"a\":2}")), ..record.clone() };
    assert_eq!(altered(&|batch| batch.put(key.clone(), other.to_row())), 1);
    assert_eq!(altered(&|batch| batch.put(key.clone(), vec![1, 2, 3])), 4);
    assert_eq!(altered(&|batch| batch.delete(record::index_key(&todos(), Seq(1)))), 2);
    assert_eq!(altered(&|batch| batch.put(record::index_key(&todos(), Seq(7)), vec![b'x'])), 1);
    let head = Head { seq: Seq(0), bytes: 0, measured: Seq(0), ..store.head() };
    assert_eq!(altered(&|batch| batch.put(record::head_key(&todos()), head.to_row())), 1);
}
