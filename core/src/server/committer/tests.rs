//! Batches and their ends: in order, all of a batch alike, and nothing answered before it is shown.

use alloc::vec::Vec;
use core::cell::RefCell;

use proptest::prelude::*;

use super::*;
use crate::protocol::limits::Limits;
use crate::protocol::name::{DatabaseId, Epoch, RecordId, Seq};
use crate::protocol::time::Timestamp;
use crate::rules::policy::AllowAll;
use crate::rules::transaction::tests::{insert, todos};
use crate::rules::transaction::{Outcome as WriteOutcome, PlainWrite, Sweep, SweepPlace, Verdict};
use crate::store::MemoryRows;

/// A write to a record of its own, with a number to know it by.
#[derive(Debug)]
struct Numbered(u64, Transaction);

impl Job for Numbered {
    fn transaction(&self) -> &Transaction {
        &self.1
    }
}

fn numbered(number: u64) -> Numbered {
    let write = PlainWrite {
        user: None,
        collection: todos(),
        record_id: RecordId::new(&alloc::format!("r{number}")).unwrap(),
        change: insert("{\"a\":1}"),
        timestamp: None,
        base_version: None,
    };
    Numbered(number, Transaction::Plain(write))
}

/// The store, the rings, and what was heard of them.
struct Bench {
    rows: MemoryRows,
    rings: Rings,
    committer: Committer<Numbered>,
    heard: Vec<Heard>,
}

/// An answer, with the ring's head at that moment, and whether the followers were awake.
#[derive(Debug)]
struct Heard {
    number: u64,
    answer: Result<TransactionAnswer, TransactError>,
    head: Seq,
    awake: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Committed,
    Failed,
    Unknown,
    /// It happened, and nobody knows.
    UnknownDone,
}

fn context(limits: &Limits) -> Context<'_> {
    Context { policy: &AllowAll, limits, now: Timestamp(1_000_000) }
}

fn broken() -> StoreError {
    StoreError::new(StoreErrorKind::Other, "the disk is on fire")
}

fn seq_of(answer: &TransactionAnswer) -> Seq {
    let TransactionAnswer::Plain(WriteOutcome { verdict: Verdict::Applied { seq, .. }, .. }) =
        answer
    else {
        panic!("{answer:?}")
    };
    *seq
}

impl Bench {
    fn new() -> Self {
        let begin = Transaction::BeginEpoch {
            epoch: Epoch::new("e1").unwrap(),
            database: DatabaseId::new("d1").unwrap(),
        };
        let mut rows = MemoryRows::default();
        rows.apply(begin.decide(&rows, context(&Limits::default())).unwrap().batch);
        let committer = Committer::new(1);
        Self { rows, rings: Rings::default(), committer, heard: Vec::new() }
    }

    /// Ends the next batch, if there is one, and returns the numbers of its jobs.
    fn end(&mut self, limit: usize, end: End, decisions: usize) -> Vec<u64> {
        let Some(mut batch) = self.committer.next_batch(limit) else { return Vec::new() };
        assert!(self.committer.next_batch(limit).is_none(), "one batch at a time");
        let numbers: Vec<_> = batch.jobs().map(|job| job.0).collect();
        let head = self.rings.head(&todos());
        let mut rows = Batch::default();
        for _ in 0..decisions {
            rows = batch.decide(&self.rows, context(&Limits::default()));
        }
        let outcome = match end {
            End::Committed => {
                self.rows.apply(rows);
                batch.committed(&mut self.rings)
            }
            End::Failed => batch.failed(TransactError::Failed(broken())),
            End::Unknown => batch.failed(TransactError::Unknown(broken())),
            End::UnknownDone => {
                self.rows.apply(rows);
                batch.failed(TransactError::Unknown(broken()))
            }
        };
        let moved = self.rings.head(&todos()) > head;
        let settled = self.committer.settle(outcome);
        let awake = RefCell::new(false);
        let rings = &self.rings;
        settled.deliver(
            |collections| {
                assert!(collections.into_iter().any(|collection| *collection == todos()));
                *awake.borrow_mut() = true;
            },
            |job, answer| {
                let (head, awake) = (rings.head(&todos()), *awake.borrow());
                self.heard.push(Heard { number: job.0, answer, head, awake });
            },
        );
        assert_eq!(awake.into_inner(), moved, "who follows what moved is woken, and nobody else");
        numbers
    }
}

fn ends() -> impl Strategy<Value = End> {
    prop_oneof![
        3 => Just(End::Committed),
        1 => Just(End::Failed),
        1 => Just(End::Unknown),
        1 => Just(End::UnknownDone),
    ]
}

proptest! {
    /// However jobs come, and batches end: each is answered once, in the order of coming, as its
    /// batch ended; and who hears that a write was applied finds its change in the ring.
    #[test]
    fn jobs_are_answered_in_order_and_behind_their_changes(
        steps in prop::collection::vec((0_u64..5, 1_usize..5, ends(), 1_usize..3), 1..20),
    ) {
        let mut bench = Bench::new();
        let (mut submitted, mut ended) = (0, Vec::new());
        for (more, limit, end, decisions) in steps {
            for _ in 0..more {
                submitted += 1;
                bench.committer.submit(numbered(submitted));
            }
            let waited = bench.committer.waiting().len();
            let numbers = bench.end(limit, end, decisions);
            prop_assert_eq!(numbers.len(), waited.min(limit));
            ended.extend(numbers.into_iter().map(|number| (number, end)));
        }
        let (mut applied, mut answered, mut head) = (0, 0, 0);
        for (index, (heard, (number, end))) in bench.heard.iter().zip(&ended).enumerate() {
            prop_assert_eq!((heard.number, *number), (index as u64 + 1, index as u64 + 1));
            match (&heard.answer, end) {
                (Ok(answer), End::Committed) => {
                    applied += 1;
                    answered += 1;
                    head = applied;
                    prop_assert_eq!(seq_of(answer), Seq(applied));
                    prop_assert!(heard.awake && heard.head >= Seq(applied));
                }
                (Err(TransactError::Failed(_)), End::Failed)
                | (Err(TransactError::Unknown(_)), End::Unknown) => {}
                (Err(TransactError::Unknown(_)), End::UnknownDone) => applied += 1,
                other => prop_assert!(false, "{:?}", other),
            }
        }
        prop_assert_eq!(bench.heard.len(), ended.len());
        prop_assert_eq!(bench.committer.health().transactions, answered);
        prop_assert_eq!(bench.rings.head(&todos()), Seq(head));
    }
}

fn counts(bench: &Bench) -> (u64, u64) {
    let health = bench.committer.health();
    (health.transactions, health.commits)
}

#[test]
fn a_failure_is_kept_until_something_is_committed() {
    let mut bench = Bench::new();
    for number in 1..=3 {
        bench.committer.submit(numbered(number));
    }
    bench.end(1, End::Unknown, 1);
    assert_eq!(bench.committer.health().failure.as_ref(), Some(&broken()));
    assert_eq!(counts(&bench), (0, 0));
    bench.end(1, End::Committed, 1);
    assert_eq!(bench.committer.health().failure.as_ref(), None);
    assert_eq!(counts(&bench), (1, 1));
    // what changes nothing says nothing of the store
    bench.end(1, End::Failed, 1);
    bench.committer.submit(Numbered(4, numbered(2).1));
    bench.end(1, End::Committed, 1);
    assert_eq!(bench.committer.health().failure.as_ref(), Some(&broken()));
    assert_eq!(counts(&bench), (2, 1));
}

#[test]
fn what_happened_unknown_to_anyone_is_noticed_by_the_next_batch() {
    let mut bench = Bench::new();
    bench.committer.submit(numbered(1));
    bench.end(1, End::UnknownDone, 1);
    assert_eq!(bench.rings.head(&todos()), Seq(0));
    // a failure tells nothing of it, and a commit without changes does
    let look = || {
        Transaction::Sweep(Sweep {
            retention: core::time::Duration::from_secs(1),
            from: SweepPlace::Start,
            budget: 1,
        })
    };
    for (number, end, head) in [(2, End::Failed, 0), (3, End::Committed, 1), (4, End::Committed, 1)]
    {
        bench.committer.submit(Numbered(number, look()));
        bench.end(1, end, 1);
        assert_eq!(bench.rings.head(&todos()), Seq(head));
        assert_eq!(bench.heard.last().unwrap().awake, number == 3);
    }
}

#[test]
fn a_batch_that_was_never_decided_has_failed() {
    let mut bench = Bench::new();
    bench.committer.submit(numbered(1));
    bench.end(1, End::Committed, 0);
    assert!(matches!(bench.heard[0].answer, Err(TransactError::Failed(_))));
}

/// A store that fails in every transaction, after it has let it decide or before.
struct Failing {
    rows: MemoryRows,
    decides: bool,
}

impl ServerStore for Failing {
    fn transact(
        &self,
        decide: &mut dyn FnMut(&dyn Rows) -> Result<Batch, StoreError>,
    ) -> Result<(), StoreError> {
        if self.decides {
            decide(&self.rows)?;
        }
        Err(broken())
    }

    fn read(
        &self,
        read: &mut dyn FnMut(&dyn Rows) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        read(&self.rows)
    }
}

#[test]
fn a_failure_is_unknown_where_something_was_to_be_committed() {
    for (decides, error) in
        [(true, TransactError::Unknown(broken())), (false, TransactError::Failed(broken()))]
    {
        let mut bench = Bench::new();
        let store = Failing { rows: bench.rows, decides };
        bench.committer.submit(numbered(1));
        let mut batch = bench.committer.next_batch(1).unwrap();
        assert_eq!(batch.commit(&store, context(&Limits::default())), Err(error));
    }
}

#[test]
fn a_write_counts_and_so_does_what_is_none() {
    let mut committer = Committer::new(1);
    let hello = || crate::rules::transaction::tests::hello("c1", 1);
    (0..5).for_each(|_| committer.submit(hello()));
    let batch = committer.next_batch(3).unwrap();
    assert_eq!(batch.jobs().len(), 3);
    committer
        .settle(batch.failed(TransactError::Failed(broken())))
        .deliver(|_| {}, |_, answer| assert!(answer.is_err()));
    assert_eq!(committer.next_batch(0).map(|batch| batch.jobs().len()), Some(1));
}
