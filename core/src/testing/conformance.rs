//! The conformance suite of stores: for the in-memory ones, the project's others, and yours.
//!
//! Call [`client_store`] or [`server_store`] from a test. They panic with a message about the first
//! violation. Checks that need threads or processes are left to the adapter: run [`increment`] on
//! many threads at once and then [`check_count`]; kill a process in the middle of its commits;
//! damage a file.
//!
//! ```
//! use synclayer_core::testing::conformance::{self, ClientStores};
//! use synclayer_core::MemoryClientStore;
//!
//! struct InMemory;
//!
//! impl ClientStores for InMemory {
//!     type Store = MemoryClientStore;
//!
//!     fn fresh(&mut self) -> MemoryClientStore {
//!         MemoryClientStore::default()
//!     }
//! }
//!
//! conformance::client_store(&mut InMemory);
//! ```
// a test in a library, so that other crates can run it
#![allow(clippy::missing_panics_doc)]

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Debug;

use bytes::Bytes;
use fastrand::Rng;

use crate::protocol::name::CommitNumber;
use crate::store::{
    Batch, ClientStore, MAX_KEY_BYTES, Op, Rows, Scan, ServerStore, StoreError, StoreErrorKind,
};

/// The number of times that the suite calls `work` before it gives up on a commit's durability.
const PATIENCE: u32 = 10_000;

/// A factory of the client stores to test.
pub trait ClientStores {
    /// The store to test.
    type Store: ClientStore;

    /// An empty store, independent of the earlier ones.
    fn fresh(&mut self) -> Self::Store;

    /// Ends a store without a clean shutdown, as an exiting program would, and reopens it. `None`
    /// (the default) if nothing outlives the store.
    fn reopen(&mut self, store: Self::Store) -> Option<Self::Store> {
        drop(store);
        None
    }

    /// Lets a store make the flushed commits durable. The suite calls it repeatedly until they are,
    /// so wait a short time for your background thread, and panic if that takes too long. The
    /// default does nothing, which suits a store whose commits are durable at once.
    fn work(&mut self, store: &mut Self::Store) {
        let _ = store;
    }
}

/// A factory of the server stores to test.
pub trait ServerStores {
    /// The store to test.
    type Store: ServerStore;

    /// An empty store, independent of the earlier ones.
    fn fresh(&mut self) -> Self::Store;

    /// Ends a store without a clean shutdown, as an exiting program would, and reopens it. `None`
    /// (the default) if nothing outlives the store.
    fn reopen(&mut self, store: Self::Store) -> Option<Self::Store> {
        drop(store);
        None
    }
}

/// Tests a client's store.
pub fn client_store<S: ClientStores>(stores: &mut S) {
    let mut first = ClientSubject::new(stores.fresh());
    reads_in_order_and_within_bounds(&mut first);
    a_batch_counts_as_a_whole(&mut ClientSubject::new(stores.fresh()));
    bad_keys_are_refused(&mut ClientSubject::new(stores.fresh()));
    large_and_empty_values_come_back(&mut ClientSubject::new(stores.fresh()));
    ten_thousand_rows(&mut ClientSubject::new(stores.fresh()));
    numbers_must_rise(stores.fresh());
    a_reader_sees_each_commit(stores.fresh());
    the_watermark_follows_the_flushes(stores);
    a_store_is_what_a_model_is(ClientSubject::new(stores.fresh()), &mut |mut client| {
        fine("a flush", client.store.flush(client.last));
        wait_durable(stores, &mut client.store, client.last);
        stores.reopen(client.store).map(ClientSubject::new)
    });
    a_reopened_client_store_holds_what_was_durable(stores);
}

/// Tests a server's store. Also run [`increment`] on many threads.
pub fn server_store<S: ServerStores>(stores: &mut S) {
    let mut first = ServerSubject(stores.fresh());
    reads_in_order_and_within_bounds(&mut first);
    a_batch_counts_as_a_whole(&mut ServerSubject(stores.fresh()));
    bad_keys_are_refused(&mut ServerSubject(stores.fresh()));
    large_and_empty_values_come_back(&mut ServerSubject(stores.fresh()));
    ten_thousand_rows(&mut ServerSubject(stores.fresh()));
    a_failed_decision_changes_nothing(&stores.fresh());
    a_decision_reads_what_was_decided_before(&stores.fresh());
    a_view_does_not_move(&stores.fresh());
    one_thread_counts_right(&stores.fresh());
    a_store_is_what_a_model_is(ServerSubject(stores.fresh()), &mut |server| {
        stores.reopen(server.0).map(ServerSubject)
    });
}

/// The work of one of many threads in a test of isolation: adds 1 to one row, again and again.
/// Afterwards [`check_count`] tells whether an addition was lost.
pub fn increment(store: &dyn ServerStore, times: u64) {
    for _ in 0..times {
        let done = store.transact(&mut |rows| {
            let mut batch = Batch::default();
            let count = read_count(rows)? + 1;
            // two rows, so that half a batch would show
            batch.put(COUNT, count.to_be_bytes().to_vec());
            batch.put(COUNT_TWIN, count.to_be_bytes().to_vec());
            Ok(batch)
        });
        fine("a transaction", done);
        let seen = store.read(&mut |rows| read_count(rows).map(|count| assert!(count > 0)));
        fine("a read after a transaction", seen);
    }
}

/// Checks that all calls of [`increment`] on a store added up to this number.
pub fn check_count(store: &dyn ServerStore, expected: u64) {
    let done = store.read(&mut |rows| {
        let count = read_count(rows)?;
        assert_eq!(count, expected, "transactions overlapped: additions were lost");
        Ok(())
    });
    fine("a read", done);
}

const COUNT: &[u8] = b"conformance/count";
const COUNT_TWIN: &[u8] = b"conformance/count-twin";

fn read_count(rows: &dyn Rows) -> Result<u64, StoreError> {
    let count = rows.get(COUNT)?;
    assert_eq!(count, rows.get(COUNT_TWIN)?, "half of a batch was to be seen");
    let number = |bytes: Bytes| {
        let bytes = <[u8; 8]>::try_from(&bytes[..]);
        u64::from_be_bytes(fine("eight bytes", bytes))
    };
    Ok(count.map_or(0, number))
}

/// The operations that both kinds of stores have in common.
trait Subject {
    fn change(&mut self, batch: Batch) -> Result<(), StoreError>;
    fn look(&self, look: &mut dyn FnMut(&dyn Rows));
}

struct ClientSubject<S> {
    store: S,
    last: CommitNumber,
}

impl<S: ClientStore> ClientSubject<S> {
    fn new(store: S) -> Self {
        Self { store, last: CommitNumber(0) }
    }
}

impl<S: ClientStore> Subject for ClientSubject<S> {
    fn change(&mut self, batch: Batch) -> Result<(), StoreError> {
        let number = self.last.next();
        self.store.commit(number, batch)?;
        self.last = number;
        Ok(())
    }

    fn look(&self, look: &mut dyn FnMut(&dyn Rows)) {
        look(self.store.rows());
    }
}

struct ServerSubject<S>(S);

impl<S: ServerStore> Subject for ServerSubject<S> {
    fn change(&mut self, batch: Batch) -> Result<(), StoreError> {
        self.0.transact(&mut |_| Ok(batch.clone()))
    }

    fn look(&self, look: &mut dyn FnMut(&dyn Rows)) {
        let done = self.0.read(&mut |rows| {
            look(rows);
            Ok(())
        });
        fine("a read", done);
    }
}

fn reads_in_order_and_within_bounds(subject: &mut dyn Subject) {
    subject.look(&mut |rows| {
        assert_eq!(get(rows, b"a"), None, "an empty store has a row");
        assert_eq!(all(rows), [], "an empty store shows rows");
        assert_eq!(last(rows, b"", &[0xff]), None, "an empty store has a last row");
    });
    // wrong orders show with bytes above 0x7f, and with keys that are prefixes of others
    let keys: [&[u8]; 8] =
        [b"\x00", b"\x00\x00", b"a", b"a\x00", b"ab", b"b", b"\x80", b"\xff\xff"];
    let mut batch = Batch::default();
    for key in keys.iter().rev() {
        batch.put(*key, [b"v:", *key].concat());
    }
    fine("a commit", subject.change(batch));
    subject.look(&mut |rows| {
        let found = all(rows);
        let found: Vec<&[u8]> = found.iter().map(|(key, _)| &key[..]).collect();
        assert_eq!(found, keys, "a scan shows rows out of the order of their keys");
        for key in keys {
            let expected = [b"v:", key].concat();
            assert_eq!(get(rows, key).as_deref(), Some(&expected[..]), "get({key:?})");
        }
        assert_eq!(get(rows, b"aa"), None, "get found a row that isn't there");
        assert_eq!(scan(rows, b"a", b"b").len(), 3, "a range holds its start and not its end");
        assert_eq!(scan(rows, b"aa", b"b").len(), 1, "a range may start between rows");
        assert_eq!(scan(rows, b"b", b"a").len(), 0, "a range that ends before it starts");
        assert_eq!(scan(rows, b"a", b"a").len(), 0, "a range that ends where it starts");
        let key = |found: Option<(Bytes, Bytes)>| found.map(|(key, _)| key);
        assert_eq!(key(last(rows, b"a", b"b")).as_deref(), Some(&b"ab"[..]), "last(a..b)");
        assert_eq!(key(last(rows, b"a", b"ab")).as_deref(), Some(&b"a\x00"[..]), "last(a..ab)");
        assert_eq!(key(last(rows, b"c", b"d")), None, "last of a range without rows");
        assert_eq!(key(last(rows, b"b", b"a")), None, "last of a range that ends first");
        a_scan_obeys(rows);
    });
}

fn a_scan_obeys(rows: &dyn Rows) {
    let mut seen = 0;
    let done = rows.scan(b"", &[0xff], &mut |_, _| {
        seen += 1;
        Ok(if seen == 2 { Scan::Stop } else { Scan::Next })
    });
    fine("a stopped scan", done);
    assert_eq!(seen, 2, "a scan went on after it was told to stop");
    let ours = StoreError::damaged("ours");
    let failed = rows.scan(b"", &[0xff], &mut |_, _| Err(ours.clone()));
    assert_eq!(failed, Err(ours), "a scan swallowed its visitor's error");
    let done = rows.scan(b"a", b"b", &mut |key, value| {
        assert_eq!(rows.get(key)?, Some(value), "a get within a scan");
        Ok(Scan::Next)
    });
    fine("a scan that reads", done);
}

fn a_batch_counts_as_a_whole(subject: &mut dyn Subject) {
    let mut batch = Batch::default();
    batch.put(&b"twice"[..], &b"1"[..]);
    batch.put(&b"gone"[..], &b"1"[..]);
    batch.delete(&b"back"[..]);
    batch.put(&b"twice"[..], &b"2"[..]);
    batch.delete(&b"gone"[..]);
    batch.put(&b"back"[..], &b"1"[..]);
    batch.delete(&b"never"[..]);
    fine("a commit", subject.change(batch));
    subject.look(&mut |rows| {
        assert_eq!(get(rows, b"twice").as_deref(), Some(&b"2"[..]), "the last put counts");
        assert_eq!(get(rows, b"gone"), None, "a delete after a put counts");
        assert_eq!(get(rows, b"back").as_deref(), Some(&b"1"[..]), "a put after a delete counts");
        assert_eq!(all(rows).len(), 2, "a batch left other rows");
    });
    fine("an empty batch", subject.change(Batch::default()));
    let mut batch = Batch::default();
    batch.put(&b"back"[..], &b"2"[..]);
    batch.delete(&b"twice"[..]);
    fine("a commit", subject.change(batch));
    subject.look(&mut |rows| {
        let expected = [(Bytes::from_static(b"back"), Bytes::from_static(b"2"))];
        assert_eq!(all(rows), expected, "a second batch over the first");
    });
}

fn bad_keys_are_refused(subject: &mut dyn Subject) {
    for key in [vec![], vec![b'k'; MAX_KEY_BYTES + 1]] {
        let mut batch = Batch::default();
        batch.put(&b"innocent"[..], &b"1"[..]);
        batch.put(key, &b"1"[..]);
        let refused = subject.change(batch).map_err(|error| error.kind);
        assert_eq!(refused, Err(StoreErrorKind::Other), "a key of a bad length was taken");
        subject.look(&mut |rows| assert_eq!(all(rows), [], "a refused batch left a row"));
    }
    let mut batch = Batch::default();
    batch.put(&b"innocent"[..], &b"1"[..]);
    fine("a commit after a refused one", subject.change(batch));
}

fn large_and_empty_values_come_back(subject: &mut dyn Subject) {
    let mut rng = Rng::with_seed(1);
    let large: Vec<u8> = core::iter::repeat_with(|| rng.u8(..)).take(1 << 20).collect();
    let long_key = vec![b'k'; MAX_KEY_BYTES];
    let mut batch = Batch::default();
    batch.put(long_key.clone(), large.clone());
    batch.put(&b"empty"[..], Bytes::new());
    batch.put(&b"zeros"[..], vec![0; 1 << 16]);
    fine("a commit of 1 MiB", subject.change(batch));
    subject.look(&mut |rows| {
        let same = get(rows, &long_key).is_some_and(|value| value == large);
        assert!(same, "a value of 1 MiB under a key of 1 KiB came back changed");
        assert_eq!(get(rows, b"empty"), Some(Bytes::new()), "an empty value");
        assert!(
            get(rows, b"zeros").is_some_and(|value| value == vec![0; 1 << 16]),
            "64 KiB of zeros"
        );
        let sizes: Vec<usize> = all(rows).iter().map(|(_, value)| value.len()).collect();
        assert_eq!(sizes, [0, 1 << 20, 1 << 16], "the sizes that a scan shows");
    });
}

fn ten_thousand_rows(subject: &mut dyn Subject) {
    const ROWS: u32 = 10_000;
    // 7919 has no divisor in common with 10,000: every number once, in a scattered order
    let numbers: Vec<u32> = (0..ROWS).map(|i| i * 7919 % ROWS).collect();
    for chunk in numbers.chunks(500) {
        let mut batch = Batch::default();
        for n in chunk {
            batch.put(n.to_be_bytes().to_vec(), n.to_le_bytes().to_vec());
        }
        fine("a commit of 500 rows", subject.change(batch));
    }
    subject.look(&mut |rows| {
        let mut expected = 0;
        let done = rows.scan(b"", &ROWS.to_be_bytes(), &mut |key, value| {
            assert_eq!(key, u32::to_be_bytes(expected), "a row is missing or out of order");
            assert_eq!(value, &u32::to_le_bytes(expected)[..], "a row has another's value");
            expected += 1;
            Ok(Scan::Next)
        });
        fine("a scan of 10,000 rows", done);
        assert_eq!(expected, ROWS, "a scan lost the last rows");
        let end = last(rows, b"", &5_000_u32.to_be_bytes()).map(|(key, _)| key);
        assert_eq!(end.as_deref(), Some(&4_999_u32.to_be_bytes()[..]), "last in the middle");
    });
}

/// A store that has no reader passes.
fn a_reader_sees_each_commit(mut store: impl ClientStore) {
    let Some(reader) = store.reader() else { return };
    for number in 1..=100_u64 {
        let mut batch = Batch::default();
        if number.is_multiple_of(3) {
            batch.delete(&b"row"[..]);
        } else {
            batch.put(&b"row"[..], number.to_be_bytes().to_vec());
        }
        fine("a commit", store.commit(CommitNumber(number), batch));
        let (seen, held) = (fine("a read", reader.get(b"row")), store.rows().get(b"row"));
        assert_eq!(seen, fine("a read", held), "the reader sees other rows after a commit");
        assert_eq!(seen.is_none(), number.is_multiple_of(3), "after commit {number}");
    }
}

fn numbers_must_rise<S: ClientStore>(mut store: S) {
    let one = |n: u8| {
        let mut batch = Batch::default();
        batch.put(&b"key"[..], vec![n]);
        batch
    };
    fine("a commit", store.commit(CommitNumber(7), one(1)));
    for number in [7, 3] {
        let refused = store.commit(CommitNumber(number), one(2)).map_err(|error| error.kind);
        let expected = Err(StoreErrorKind::Other);
        assert_eq!(refused, expected, "commit {number} was taken after commit 7");
    }
    assert_eq!(get(store.rows(), b"key").as_deref(), Some(&[1][..]), "a refused commit shows");
    // the upper bits of a number may identify a state machine
    fine("a commit far above the last one", store.commit(CommitNumber(7 << 32), one(3)));
    assert_eq!(get(store.rows(), b"key").as_deref(), Some(&[3][..]), "a commit doesn't show");
}

fn the_watermark_follows_the_flushes<S: ClientStores>(stores: &mut S) {
    let mut store = stores.fresh();
    let mut watermark = fine("durable", store.durable());
    assert_eq!(watermark, CommitNumber(0), "a fresh store reports a commit as durable");
    for number in 1..=50 {
        let mut batch = Batch::default();
        batch.put(vec![number], vec![number]);
        let number = CommitNumber(number.into());
        fine("a commit", store.commit(number, batch));
        let visible = get(store.rows(), &[number.0 as u8]).is_some();
        assert!(visible, "commit {number} wasn't visible when it returned");
        if number.0.is_multiple_of(5) {
            fine("a flush", store.flush(number));
        }
        let now = fine("durable", store.durable());
        assert!(now >= watermark, "the durable number fell from {watermark} to {now}");
        assert!(now <= number, "commit {now} is called durable and {number} is the last one");
        watermark = now;
    }
    fine("a flush of what was flushed", store.flush(CommitNumber(1)));
    wait_durable(stores, &mut store, CommitNumber(50));
}

fn a_reopened_client_store_holds_what_was_durable<S: ClientStores>(stores: &mut S) {
    let mut store = stores.fresh();
    for number in 1..=20 {
        let mut batch = Batch::default();
        batch.put(vec![number], vec![number]);
        batch.put(&b"latest"[..], vec![number]);
        fine("a commit", store.commit(CommitNumber(number.into()), batch));
        if number == 10 {
            fine("a flush", store.flush(CommitNumber(10)));
            wait_durable(stores, &mut store, CommitNumber(10));
        }
    }
    let promised = fine("durable", store.durable());
    let Some(mut store) = stores.reopen(store) else { return };
    let latest = get(store.rows(), b"latest").map_or(0, |value| value[0]);
    assert!(u64::from(latest) >= promised.0, "commit {promised} was durable, {latest} came back");
    for number in 1..=20 {
        let expected = (number <= latest).then_some(number);
        let found = get(store.rows(), &[number]).map(|value| value[0]);
        assert_eq!(found, expected, "row {number} in a store that ends with commit {latest}");
    }
    let mut batch = Batch::default();
    batch.put(&b"latest"[..], &b"!"[..]);
    let number = CommitNumber(1 << 32);
    let before = fine("durable", store.durable());
    assert!(before < number, "a reopened store calls a commit to come durable");
    fine("a commit after reopening", store.commit(number, batch));
    fine("a flush after reopening", store.flush(number));
    wait_durable(stores, &mut store, number);
}

fn wait_durable<S: ClientStores>(stores: &mut S, store: &mut S::Store, number: CommitNumber) {
    for _ in 0..PATIENCE {
        if fine("durable", store.durable()) >= number {
            return;
        }
        stores.work(store);
    }
    panic!("commit {number} was flushed and never became durable");
}

fn a_failed_decision_changes_nothing(store: &dyn ServerStore) {
    let ours = StoreError::damaged("ours");
    let failed = store.transact(&mut |_| Err(ours.clone()));
    assert_eq!(failed, Err(ours.clone()), "transact swallowed the decision's error");
    increment(store, 1);
    let failed = store.read(&mut |_| Err(ours.clone()));
    assert_eq!(failed, Err(ours), "read swallowed its caller's error");
    check_count(store, 1);
}

fn a_decision_reads_what_was_decided_before(store: &dyn ServerStore) {
    for n in 0..100_u8 {
        let done = store.transact(&mut |rows| {
            let expected = n.checked_sub(1);
            let found = get(rows, b"n").map(|value| value[0]);
            assert_eq!(found, expected, "a decision read stale rows");
            let newest = last(rows, b"row", b"rox").map(|(key, _)| key[3]);
            assert_eq!(newest, expected, "a decision scanned stale rows");
            let mut batch = Batch::default();
            batch.put(&b"n"[..], vec![n]);
            batch.put([b"row", &[n][..]].concat(), Bytes::new());
            Ok(batch)
        });
        fine("a transaction", done);
    }
}

fn a_view_does_not_move(store: &dyn ServerStore) {
    increment(store, 1);
    let done = store.read(&mut |rows| {
        let before = all(rows);
        increment(store, 1);
        assert_eq!(all(rows), before, "a view moved while it was read");
        Ok(())
    });
    fine("a read", done);
    check_count(store, 2);
}

fn one_thread_counts_right(store: &dyn ServerStore) {
    increment(store, 50);
    check_count(store, 50);
}

/// Random batches and reads, compared with a map, and repeated over the resulting rows.
fn a_store_is_what_a_model_is<U: Subject>(mut subject: U, reopen: &mut dyn FnMut(U) -> Option<U>) {
    let mut rng = Rng::with_seed(7);
    let mut model = BTreeMap::new();
    for _ in 0..3 {
        for _ in 0..100 {
            let batch = random_batch(&mut rng);
            apply(&mut model, &batch);
            fine("a commit", subject.change(batch));
            subject.look(&mut |rows| compare(rows, &model, &mut rng));
        }
        let Some(next) = reopen(subject) else { return };
        subject = next;
        subject.look(&mut |rows| {
            let expected: Vec<_> = model.clone().into_iter().collect();
            assert_eq!(all(rows), expected, "the rows of a store that was opened again");
        });
    }
}

fn random_key(rng: &mut Rng) -> Vec<u8> {
    let len = rng.usize(1..4);
    core::iter::repeat_with(|| *rng.choice(b"\x00ab\xff").unwrap_or(&b'a')).take(len).collect()
}

fn random_batch(rng: &mut Rng) -> Batch {
    let mut batch = Batch::default();
    for _ in 0..rng.usize(0..8) {
        let key = random_key(rng);
        match rng.usize(0..3) {
            0 => batch.delete(key),
            _ => batch.put(key, vec![rng.u8(..); rng.usize(0..40)]),
        }
    }
    batch
}

fn apply(model: &mut BTreeMap<Bytes, Bytes>, batch: &Batch) {
    for op in batch.ops() {
        match op {
            Op::Put(key, value) => model.insert(key.clone(), value.clone()),
            Op::Delete(key) => model.remove(key),
        };
    }
}

fn compare(rows: &dyn Rows, model: &BTreeMap<Bytes, Bytes>, rng: &mut Rng) {
    let key = random_key(rng);
    assert_eq!(get(rows, &key).as_ref(), model.get(&key[..]), "get({key:?})");
    let (from, to) = (random_key(rng), random_key(rng));
    let within = |key: &Bytes| from.as_slice() <= &key[..] && &key[..] < to.as_slice();
    let expected: Vec<(Bytes, Bytes)> = model
        .iter()
        .filter(|(key, _)| within(key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    assert_eq!(last(rows, &from, &to).as_ref(), expected.last(), "last({from:?}..{to:?})");
    assert_eq!(scan(rows, &from, &to), expected, "scan({from:?}..{to:?})");
}

fn get(rows: &dyn Rows, key: &[u8]) -> Option<Bytes> {
    fine("a get", rows.get(key))
}

fn last(rows: &dyn Rows, from: &[u8], to: &[u8]) -> Option<(Bytes, Bytes)> {
    fine("a last", rows.last(from, to))
}

fn scan(rows: &dyn Rows, from: &[u8], to: &[u8]) -> Vec<(Bytes, Bytes)> {
    let mut found = Vec::new();
    let done = rows.scan(from, to, &mut |key, value| {
        found.push((Bytes::copy_from_slice(key), value));
        Ok(Scan::Next)
    });
    fine("a scan", done);
    found
}

/// Every row of the suite's stores: no key starts with more than two bytes of 0xff.
fn all(rows: &dyn Rows) -> Vec<(Bytes, Bytes)> {
    scan(rows, b"", &[0xff; 8])
}

fn fine<T, E: Debug>(what: &str, result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => {
            let message: String = format!("{what} failed: {error:?}");
            panic!("{message}")
        }
    }
}
