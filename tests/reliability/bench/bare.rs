//! The limits: bare loops over the same database, the same texts and the same sockets. Each says how
//! many microseconds of CPU time a piece of its work takes.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use fjall::{Database, Keyspace, KeyspaceCreateOptions};
use serde_json::value::RawValue;
use synclayer_core::{Batch, ClientStore, CommitNumber};
use synclayer_fjall::{ClientOptions, FjallClientStore};

use crate::usage::cpu;
use crate::world::{GROUP, Result, document, id};

/// Changes that a frame or a page has at most.
const PAGE: usize = 500;

/// A record and its entry in a log for each save, as batches of this many saves.
pub(crate) fn save(records: usize, at_once: usize) -> Result<f64> {
    let (_dir, db, rows) = database()?;
    let texts: Vec<_> = (0..records).map(|n| (id(n), document(n).to_string())).collect();
    let begun = cpu();
    for (at, group) in texts.chunks(at_once).enumerate() {
        let mut batch = db.batch();
        for (n, (id, text)) in group.iter().enumerate() {
            batch.insert(&rows, format!("r{id}"), text.as_str());
            batch.insert(&rows, format!("o{:020}", at * at_once + n), text.as_str());
        }
        batch.commit()?;
    }
    Ok(each(begun, records))
}

/// The same through our own store, with its chain of commits: what it costs before anything is decided.
pub(crate) fn save_in_our_store(records: usize, at_once: usize) -> Result<f64> {
    let dir = tempfile::tempdir()?;
    let mut store = FjallClientStore::open(dir.path(), ClientOptions::new())?;
    let texts: Vec<_> = (0..records).map(|n| (id(n), document(n).to_string())).collect();
    let begun = cpu();
    for (at, group) in texts.chunks(at_once).enumerate() {
        let mut batch = Batch::default();
        for (n, (id, text)) in group.iter().enumerate() {
            batch.put(format!("r{id}"), text.clone());
            batch.put(format!("o{:020}", at * at_once + n), text.clone());
        }
        store.commit(CommitNumber(at as u64 + 1), batch)?;
    }
    Ok(each(begun, records))
}

/// The rows that a store holds after so many records were saved, written anew into a database, as
/// batches of the rows of this many records, in no order, as the records' ids have none.
pub(crate) fn same_rows(dir: &Path, records: usize, at_once: usize) -> Result<f64> {
    let mut all = Vec::new();
    FjallClientStore::open(dir, ClientOptions::new())?.rows().scan(
        &[0],
        &[255],
        &mut |key, value| {
            all.push((key.to_vec(), value.to_vec()));
            Ok(synclayer_core::Scan::Next)
        },
    )?;
    fastrand::Rng::with_seed(0).shuffle(&mut all);
    let rows_at_once = (all.len() * at_once).div_ceil(records);
    let (_dir, db, rows) = database()?;
    let begun = cpu();
    for group in all.chunks(rows_at_once) {
        let mut batch = db.batch();
        for (key, value) in group {
            batch.insert(&rows, key.as_slice(), value.as_slice());
        }
        batch.commit()?;
    }
    Ok(each(begun, records))
}

/// One row is read, of many.
pub(crate) fn get(held: usize, reads: usize) -> Result<f64> {
    let (_dir, db, rows) = database()?;
    fill(&db, &rows, held)?;
    let keys: Vec<_> = (0..reads).map(|n| id(n * 7_919 % held)).collect();
    let begun = cpu();
    let mut bytes = 0;
    for key in &keys {
        bytes += rows.get(key)?.map_or(0, |row| row.to_vec().len());
    }
    let each = each(begun, reads);
    if bytes < reads * 100 { Err("rows are missing".into()) } else { Ok(each) }
}

/// Changes as texts, each parsed and merged into its row, a batch at a time.
pub(crate) fn change(changes: usize) -> Result<f64> {
    let (_dir, db, rows) = database()?;
    fill(&db, &rows, changes)?;
    let frames: Vec<_> = (0..changes)
        .map(|n| {
            let id = id(n);
            format!(r#"{{"type":"update","recordId":"{id}","data":{{"done":true}},"seq":{n}}}"#)
        })
        .collect();
    let begun = cpu();
    for group in frames.chunks(PAGE) {
        let mut batch = db.batch();
        for frame in group {
            let frame: BTreeMap<&str, &RawValue> = serde_json::from_str(frame)?;
            let id: &str = serde_json::from_str(frame["recordId"].get())?;
            let row = rows.get(id)?.ok_or("no row")?;
            let mut fields: BTreeMap<&str, &RawValue> = serde_json::from_slice(&row)?;
            fields.extend(serde_json::from_str::<BTreeMap<&str, &RawValue>>(frame["data"].get())?);
            batch.insert(&rows, id, serde_json::to_vec(&fields)?);
        }
        batch.commit()?;
    }
    Ok(each(begun, changes))
}

/// Pages of records as texts, each parsed and stored as a batch.
pub(crate) fn take_pages(records: usize) -> Result<f64> {
    let (_dir, db, rows) = database()?;
    let record = |n| format!(r#"{{"id":"{}","data":{},"seq":{n}}}"#, id(n), document(n));
    let page = |first: usize| {
        let records: Vec<_> = (first..records.min(first + PAGE)).map(record).collect();
        format!("[{}]", records.join(","))
    };
    let pages: Vec<_> = (0..records).step_by(PAGE).map(page).collect();
    let begun = cpu();
    for page in &pages {
        let mut batch = db.batch();
        for record in serde_json::from_str::<Vec<BTreeMap<&str, &RawValue>>>(page)? {
            let id: &str = serde_json::from_str(record["id"].get())?;
            batch.insert(&rows, id, record["data"].get());
        }
        batch.commit()?;
    }
    Ok(each(begun, records))
}

/// Rows are removed, a batch at a time.
pub(crate) fn delete(records: usize) -> Result<f64> {
    let (_dir, db, rows) = database()?;
    fill(&db, &rows, records)?;
    let begun = cpu();
    for first in (0..records).step_by(PAGE) {
        let mut batch = db.batch();
        for n in first..records.min(first + PAGE) {
            batch.remove(&rows, id(n));
        }
        batch.commit()?;
    }
    Ok(each(begun, records))
}

/// Every row of a store that nobody has open, in memory by its key: microseconds, and bytes, for each.
pub(crate) fn hold_all(dir: &Path) -> Result<(f64, f64)> {
    let store = FjallClientStore::open(dir, ClientOptions::new())?;
    let begun = cpu();
    let mut all = BTreeMap::new();
    store.rows().scan(&[0], &[255], &mut |key, value| {
        all.insert(key.to_vec(), value);
        Ok(synclayer_core::Scan::Next)
    })?;
    let bytes: usize = all.iter().map(|(key, value)| key.len() + value.len()).sum();
    Ok((each(begun, all.len()), bytes as f64 / all.len() as f64))
}

/// The same bytes to each of many sockets, one call for each.
pub(crate) fn fan_out(subscribers: usize, changes: usize, bytes: usize) -> Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let mut ends = Vec::new();
    for _ in 0..subscribers {
        let near = TcpStream::connect(address)?;
        ends.push((near, listener.accept()?.0));
    }
    let frame = std::iter::repeat_n(b'x', bytes).collect::<Vec<u8>>();
    let mut spent = Duration::ZERO;
    for _ in 0..changes {
        let begun = cpu();
        for (near, _) in &mut ends {
            near.write_all(&frame)?;
        }
        spent += cpu() - begun;
        let mut read = frame.clone();
        for (_, far) in &mut ends {
            far.read_exact(&mut read)?;
        }
    }
    Ok(spent.as_secs_f64() * 1e6 / (subscribers * changes) as f64)
}

fn database() -> Result<(tempfile::TempDir, Database, Keyspace)> {
    let dir = tempfile::tempdir()?;
    let db = Database::builder(dir.path()).worker_threads(1).open()?;
    let rows = db.keyspace("rows", KeyspaceCreateOptions::default)?;
    Ok((dir, db, rows))
}

fn fill(db: &Database, rows: &Keyspace, records: usize) -> Result<()> {
    for first in (0..records).step_by(GROUP) {
        let mut batch = db.batch();
        for n in first..records.min(first + GROUP) {
            batch.insert(rows, id(n), document(n).to_string());
        }
        batch.commit()?;
    }
    // its tables are made before anything is measured
    while rows.sealed_memtable_count() > 0 {
        thread::yield_now();
    }
    Ok(())
}

fn each(begun: Duration, pieces: usize) -> f64 {
    (cpu() - begun).as_secs_f64() * 1e6 / pieces as f64
}
