//! A damaged server's store is put right: what can be read of it is in a sound one in its place.

#![allow(clippy::unwrap_used)]

#[path = "../examples/torture/files.rs"]
#[allow(dead_code)]
mod files;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use synclayer_core::protocol::Mode;
use synclayer_core::rules::{PageLimits, PlainWrite, Position, Reader, verify};
use synclayer_core::{
    AllowAll, Change, ClientId, Collection, Context, Cursor, DatabaseId, Document, Epoch, Limits,
    ReadAnswer, ReadRequest, RecordId, Rows, Seq, ServerStore, SessionNumber, StoreError,
    StoreErrorKind, Timestamp, Transaction, TransactionAnswer,
};
use synclayer_fjall::{FjallServerStore, Repair, ServerOptions, StoreKind};

use files::{copy, files, scratch, used};

/// Enough for some tables with several blocks, and a journal.
const RECORDS: usize = 400;
const MEMTABLE_BYTES: u64 = 16 << 10;

type Records = BTreeMap<String, String>;

fn open(path: &Path) -> Result<FjallServerStore, StoreError> {
    let options = ServerOptions::new().memtable_bytes(MEMTABLE_BYTES);
    FjallServerStore::open(path, options)
}

fn decide(store: &FjallServerStore, transaction: &Transaction) -> TransactionAnswer {
    let limits = Limits::default();
    let context = Context { policy: &AllowAll, limits: &limits, now: Timestamp(1_790_000_000_000) };
    let mut answer = None;
    let decide = &mut |rows: &dyn Rows| {
        let decision = transaction.decide(rows, context)?;
        answer = Some(decision.answer);
        Ok(decision.batch)
    };
    store.transact(decide).unwrap();
    answer.unwrap()
}

fn begin(store: &FjallServerStore, epoch: &str) {
    let database = DatabaseId::new(&format!("d of {epoch}")).unwrap();
    decide(store, &Transaction::BeginEpoch { epoch: Epoch::new(epoch).unwrap(), database });
}

fn todos() -> Collection {
    Collection::new("todos").unwrap()
}

fn write(store: &FjallServerStore, id: usize, change: Change) {
    decide(
        store,
        &Transaction::Plain(PlainWrite {
            user: None,
            collection: todos(),
            record_id: RecordId::new(&format!("t{id:04}")).unwrap(),
            change,
            timestamp: None,
            base_version: None,
        }),
    );
}

fn document(n: usize) -> Document {
    Document::parse(&format!(r#"{{"n":{n},"text":"some text of record {n}"}}"#), &Limits::default())
        .unwrap()
}

/// A database with two epochs, many records, tombstones and a client.
fn make(path: &Path) -> Records {
    make_in(path, open(path).unwrap())
}

/// One of which nothing is in a table yet.
fn make_in_journal(path: &Path) -> Records {
    make_in(path, FjallServerStore::open(path, ServerOptions::default()).unwrap())
}

fn make_in(path: &Path, store: FjallServerStore) -> Records {
    begin(&store, "e1");
    let client = ClientId::new("client-1").unwrap();
    decide(&store, &Transaction::Hello { client, user: None, session: SessionNumber(7) });
    for id in 0..RECORDS {
        write(&store, id, Change::insert(document(id)));
    }
    begin(&store, "e2");
    for id in (0..RECORDS).step_by(10) {
        write(&store, id, Change::delete());
    }
    for id in (1..RECORDS).step_by(7) {
        write(&store, id, Change::insert(document(id + 1000)));
    }
    drop(store);
    // the threads of the database are done, and the journal is only as long as it is full
    let records = sound(path);
    for file in files(path) {
        if file.extension().is_some_and(|extension| extension == "jnl") {
            fs::write(&file, used(&file)).unwrap();
        }
    }
    records
}

/// The live records of a store that has to be sound.
fn sound(path: &Path) -> Records {
    let store = open(path).unwrap();
    let mut records = Records::new();
    let read = &mut |rows: &dyn Rows| {
        assert_eq!(verify(rows)?.faults, [""; 0]);
        let reader = Reader::from(todos());
        let whole = ReadRequest::Whole { reader, bytes: usize::MAX };
        let ReadAnswer::Whole(found) = whole.run(rows, &AllowAll)? else { panic!() };
        let found = found.records.into_iter().flatten();
        records =
            found.map(|record| (record.id.to_string(), record.document.to_string())).collect();
        Ok(())
    };
    store.read(read).unwrap();
    records
}

fn damaged(path: &Path) {
    let error = open(path).unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Damaged, "{error}");
    assert!(error.message.contains("FjallServerStore::repair"), "{error}");
    assert_eq!(StoreKind::of(path), Ok(Some(StoreKind::Server)));
}

/// Repairs, and checks what holds after every repair.
fn repair(path: &Path) -> (Repair, Records) {
    let before = files(path).len();
    let repair = FjallServerStore::repair(path).unwrap();
    assert!(repair.aside.to_string_lossy().ends_with(".damaged-1"));
    assert_eq!(files(&repair.aside).len(), before, "the damaged one is as it was");
    let records = sound(path);
    assert_eq!(repair.kept.records, records.len() as u64);
    let store = open(path).unwrap();
    begin(&store, "e3");
    for (epoch, mode) in [("e1", Mode::Snapshot), ("e2", Mode::Snapshot), ("e3", Mode::Delta)] {
        let cursor = Some(Cursor { epoch: Epoch::new(epoch).unwrap(), seq: head(&store) });
        assert_eq!(mode_of(&store, cursor), mode, "{epoch}");
    }
    (repair, records)
}

fn head(store: &FjallServerStore) -> Seq {
    let mut seq = Seq(0);
    let read = &mut |rows: &dyn Rows| {
        seq = verify(rows)?.collections.get(&todos()).map_or(Seq(0), |head| head.seq);
        Ok(())
    };
    store.read(read).unwrap();
    seq
}

fn mode_of(store: &FjallServerStore, cursor: Option<Cursor>) -> Mode {
    let reader = Reader::from(todos());
    let position = Position::Start { cursor, resume: None };
    let request = ReadRequest::CatchUp { reader, position, limits: PageLimits::default() };
    let mut mode = None;
    let read = &mut |rows: &dyn Rows| {
        let ReadAnswer::Page(page) = request.run(rows, &AllowAll)? else { panic!() };
        mode = page.opened.map(|opened| opened.mode);
        Ok(())
    };
    store.read(read).unwrap();
    mode.unwrap()
}

/// Which of the records are lacking, and which are not as they were.
fn differences(expected: &Records, found: &Records) -> (usize, usize) {
    let lacking = expected.keys().filter(|id| !found.contains_key(*id)).count();
    let other = found.iter().filter(|(id, text)| expected.get(*id) != Some(*text)).count();
    (lacking, other)
}

fn tables(path: &Path) -> Vec<PathBuf> {
    let mut tables: Vec<_> = files(&path.join("db/keyspaces/1/tables"));
    tables.sort_by_key(|table| std::cmp::Reverse(fs::metadata(table).unwrap().len()));
    assert!(!tables.is_empty(), "nothing is in a table");
    tables
}

/// Takes the journals' contents away, so that all that is left is in tables.
fn empty_journals(path: &Path) {
    for file in files(path) {
        if file.extension().is_some_and(|extension| extension == "jnl") {
            fs::write(file, [0; 64]).unwrap();
        }
    }
}

#[test]
fn damage_in_the_journal_costs_the_commits_that_it_hits() {
    let dir = scratch();
    let path = dir.path().join("store");
    let expected = make_in_journal(&path);
    let journal = path.join("db/0.jnl");
    let mut bytes = fs::read(&journal).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(journal, bytes).unwrap();
    damaged(&path);
    let (repair, found) = repair(&path);
    let (lacking, other) = differences(&expected, &found);
    assert!(lacking + other <= 1, "{lacking} records are lacking, {other} are others");
    assert_eq!(repair.lost_commits, 1, "{repair:?}");
    assert_eq!(repair.kept.clients, 1);
    assert_eq!(repair.database.as_deref(), Some("d of e1"));
}

#[test]
fn a_damaged_block_of_a_table_costs_its_rows() {
    let dir = scratch();
    let (path, twin) = (dir.path().join("store"), dir.path().join("twin"));
    make(&path);
    empty_journals(&path);
    copy(&path, &twin).unwrap();
    FjallServerStore::repair(&twin).unwrap();
    let expected = sound(&twin);
    let table = &tables(&path)[0];
    let mut bytes = fs::read(table).unwrap();
    // rows come first in a table, then what finds them
    let at = bytes.len() / 3;
    for byte in &mut bytes[at..at + 10] {
        *byte ^= 0x55;
    }
    fs::write(table, bytes).unwrap();
    damaged(&path);
    let (repair, found) = repair(&path);
    let (lacking, other) = differences(&expected, &found);
    assert!(lacking + other > 0, "the damage hit nothing");
    assert!(lacking + other < 80, "{lacking} records are lacking, {other} are others");
    assert!(repair.lost.records + repair.lost.outdated > 0, "{repair:?}");
    assert_eq!(repair.database.as_deref(), Some("d of e1"));
    // what is behind the block was read
    let last = |records: &Records| records.keys().next_back().cloned();
    assert_eq!(last(&found), last(&expected));
}

#[test]
fn a_table_that_makes_no_sense_costs_its_rows_alone() {
    let dir = scratch();
    let path = dir.path().join("store");
    make(&path);
    // a second table, newer than the first, which no compaction has taken in yet
    for id in (RECORDS..RECORDS + 6000).step_by(150) {
        let store = open(&path).unwrap();
        (id..id + 150).for_each(|id| write(&store, id, Change::insert(document(id))));
        drop(store);
        if tables(&path).len() > 1 {
            break;
        }
    }
    let tables = tables(&path);
    assert!(tables.len() > 1, "there is one table only");
    let twin = dir.path().join("twin");
    copy(&path, &twin).unwrap();
    let expected = sound(&twin);
    let smallest = tables.last().unwrap();
    let bytes = fs::read(smallest).unwrap();
    fs::write(smallest, &bytes[..bytes.len() - 20]).unwrap();
    damaged(&path);
    let (_, found) = repair(&path);
    let (lacking, _) = differences(&expected, &found);
    assert!(lacking < expected.len() / 2, "{lacking} of {} are lacking", expected.len());
}

#[test]
fn lost_lists_and_promises_cost_nothing() {
    for lost in ["watermark", "db/keyspaces/1/current", "db/keyspaces/0", "db/version", "store"] {
        let dir = scratch();
        let path = dir.path().join("store");
        let expected = make(&path);
        let lost = path.join(lost);
        if lost.is_dir() {
            fs::remove_dir_all(&lost).unwrap();
        } else if lost.ends_with("store") {
            fs::write(&lost, "nonsense").unwrap();
        } else {
            fs::remove_file(&lost).unwrap();
        }
        damaged(&path);
        let (repair, found) = repair(&path);
        assert_eq!(found, expected, "{}", lost.display());
        assert_eq!(repair.lost, Default::default());
        assert_eq!(repair.lost_commits, 0, "{}", lost.display());
        assert_eq!(repair.database.as_deref(), Some("d of e1"));
        // the seqs go on
        let store = open(&path).unwrap();
        assert_eq!(head(&store).0 as usize, RECORDS + RECORDS / 10 + (RECORDS - 1).div_ceil(7));
    }
}

/// An empty database in its place would tell every replica that all is gone.
#[test]
fn a_store_of_which_nothing_is_left_is_not_replaced() {
    let dir = scratch();
    let path = dir.path().join("store");
    make(&path);
    fs::remove_dir_all(path.join("db/keyspaces")).unwrap();
    empty_journals(&path);
    damaged(&path);
    let error = FjallServerStore::repair(&path).unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Damaged, "{error}");
    assert!(error.message.contains("nothing of it can be read"), "{error}");
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["store"], "something was left behind");
}

/// A store's owner is known as long as any part of the store tells it.
#[test]
fn a_store_says_whose_it_is_whatever_is_damaged() {
    let dir = scratch();
    let path = dir.path().join("store");
    make(&path);
    let mark = fs::read_to_string(path.join("store")).unwrap();
    assert_eq!(StoreKind::of(&path), Ok(Some(StoreKind::Server)));
    // by its rows, without a mark, or with one that makes no sense
    fs::remove_file(path.join("store")).unwrap();
    assert_eq!(StoreKind::of(&path), Ok(Some(StoreKind::Server)));
    fs::write(path.join("store"), "nonsense").unwrap();
    assert_eq!(StoreKind::of(&path), Ok(Some(StoreKind::Server)));
    // by what can be read of the mark, without any rows
    empty_journals(&path);
    fs::remove_dir_all(path.join("db/keyspaces")).unwrap();
    assert_eq!(StoreKind::of(&path), Ok(None));
    fs::write(path.join("store"), mark.replace("SyncLayer", "SyncLoyer")).unwrap();
    assert_eq!(StoreKind::of(&path), Ok(Some(StoreKind::Server)));
    fs::remove_dir_all(path.join("db")).unwrap();
    assert_eq!(StoreKind::of(&path), Ok(Some(StoreKind::Server)));
}

#[test]
fn an_interrupted_repair_is_done_again_or_finished() {
    let dir = scratch();
    let (path, beside) = (dir.path().join("store"), |name: &str| dir.path().join(name));
    let expected = make(&path);
    // it ended while the new store was made
    fs::create_dir_all(beside("store.repairing/db")).unwrap();
    // or before the damaged one was renamed
    fs::create_dir_all(beside("store.repaired/db")).unwrap();
    fs::remove_file(path.join("watermark")).unwrap();
    let (_, found) = repair(&path);
    assert_eq!(found, expected);
    assert!(!beside("store.repairing").exists() && !beside("store.repaired").exists());
    // or after that
    fs::rename(&path, beside("store.repaired")).unwrap();
    assert_eq!(sound(&path), expected);
}

#[test]
fn only_a_servers_store_that_nobody_uses_is_repaired() {
    let dir = scratch();
    let path = dir.path().join("store");
    let store = open(&path).unwrap();
    let error = FjallServerStore::repair(&path).unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::InUse, "{error}");
    drop(store);
    let client = dir.path().join("client");
    drop(synclayer_fjall::FjallClientStore::open(&client, Default::default()).unwrap());
    for other in [client, dir.path().join("nowhere"), dir.path().to_owned()] {
        let error = FjallServerStore::repair(&other).unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Foreign, "{error}");
    }
}

/// Random damage to any file: what opens no more can be repaired, and is sound then.
#[test]
fn what_does_not_open_can_be_repaired() {
    let dir = scratch();
    let original = dir.path().join("original");
    make(&original);
    let mut rng = fastrand::Rng::with_seed(5);
    let mut repaired = 0;
    let names: Vec<_> = files(&original)
        .iter()
        .map(|file| file.strip_prefix(&original).unwrap().to_owned())
        .collect();
    for round in 0..60 {
        let name = &names[round % names.len()];
        let path = dir.path().join("copy");
        copy(&original, &path).unwrap();
        let mut bytes = fs::read(path.join(name)).unwrap();
        if bytes.is_empty() {
            fs::remove_dir_all(path).unwrap();
            continue;
        }
        let at = rng.usize(..bytes.len());
        match rng.u8(..3) {
            0 => bytes[at] ^= 1 << rng.u8(..8),
            1 => bytes.truncate(at),
            _ => {
                let end = bytes.len().min(at + 512);
                bytes[at..end].fill(0);
            }
        }
        fs::write(path.join(name), bytes).unwrap();
        let what = format!("round {round}: {} at {at}", name.display());
        if open(&path).is_err() {
            repaired += 1;
            let repair = FjallServerStore::repair(&path);
            let repair = repair.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(sound(&path).len() as u64 == repair.kept.records, "{what}");
            fs::remove_dir_all(repair.aside).unwrap();
        }
        fs::remove_dir_all(path).unwrap();
    }
    assert!(repaired > 10, "{repaired} openings failed");
}
