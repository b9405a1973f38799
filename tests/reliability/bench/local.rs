//! The work of a client by itself: saves, reads, watches.

use std::path::Path;
use std::process::id as pid;
use std::time::Instant;

use synclayer_tokio::SyncLayer;

use crate::bare;
use crate::process::{Process, arg, tell};
use crate::report::Report;
use crate::usage::{Threads, cpu, peak, resident};
use crate::world::{GROUP, Result, Sizes, document, id, offline, offline_client, save_all};

/// The records of a transaction.
const UNIT: usize = 1_000;

/// Saves with many collections in use.
const SAVES: usize = 500;

pub(crate) async fn measure(sizes: &Sizes, report: &mut Report) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let records = sizes.records.to_string();
    for (name, at_once) in [("one awaited after the other", 1), ("500 at a time", GROUP)] {
        let dir = dir.path().join(at_once.to_string());
        let told = Process::start("saver", &[arg(&dir)?, &records, &at_once.to_string()])?;
        let told = told.measure(None)?;
        report.row(format!("save offline, {name}"), told.number("each")?, "µs");
        report.limit(bare::save(sizes.records, at_once)?, "bare record + log");
        let ours = bare::save_in_our_store(sizes.records, at_once)?;
        report.note(format!("our store alone {ours:.1} µs; {}", told.text("threads")?));
    }
    let dir_of_units = dir.path().join("units");
    let told = Process::start("unit-saver", &[arg(&dir_of_units)?, &records])?.measure(None)?;
    report.row(format!("save_all, {UNIT} records at a time"), told.number("each")?, "µs");
    let rows = bare::same_rows(&dir_of_units, sizes.records, UNIT)?;
    report.limit(rows, "its rows in one batch each");
    report.note(told.text("threads")?);
    for collections in ["1", "5000"] {
        let dir = dir.path().join(format!("many-{collections}"));
        let told = Process::start("many", &[arg(&dir)?, collections])?.measure(None)?;
        let name = format!("save offline, {collections} collections in use");
        report.row(name, told.number("each")?, "µs");
    }
    let dir = dir.path().join("queue");
    let told = Process::start("queue", &[arg(&dir)?, &records])?.measure(None)?;
    report.row("a write that waits, memory", told.number("each")?, "B");
    Ok(())
}

/// Saves records, so many at a time.
pub(crate) async fn save(dir: &Path, records: usize, at_once: usize) -> Result<()> {
    let sync = offline_client(dir).await?;
    let todos = sync.collection("todos")?;
    let (begun, threads) = (cpu(), Threads::now()?);
    if at_once == 1 {
        for n in 0..records {
            todos.save_with_id(&id(n), &document(n)).await?;
        }
    } else {
        save_all(&todos, 0..records).await?;
    }
    tell("each", (cpu() - begun).as_secs_f64() * 1e6 / records as f64);
    tell("threads", Threads::now()?.since(&threads, records));
    sync.close().await;
    Ok(())
}

/// Saves records in transactions.
pub(crate) async fn save_units(dir: &Path, records: usize) -> Result<()> {
    let sync = offline_client(dir).await?;
    let todos = sync.collection("todos")?;
    let (begun, threads) = (cpu(), Threads::now()?);
    for first in (0..records).step_by(UNIT) {
        todos.save_all((first..records.min(first + UNIT)).map(document)).await?;
    }
    tell("each", (cpu() - begun).as_secs_f64() * 1e6 / records as f64);
    tell("threads", Threads::now()?.since(&threads, records));
    sync.close().await;
    Ok(())
}

/// Saves into one of many collections.
pub(crate) async fn many(dir: &Path, collections: usize) -> Result<()> {
    let names = (0..collections).map(|n| format!("collection-{n}"));
    let sync = SyncLayer::open(offline(dir).collections(names)).await?;
    let one = sync.collection("collection-0")?;
    one.save(&document(0)).await?;
    let begun = cpu();
    for n in 0..SAVES {
        one.save_with_id(&id(n), &document(n)).await?;
    }
    tell("each", (cpu() - begun).as_secs_f64() * 1e6 / SAVES as f64);
    sync.close().await;
    Ok(())
}

/// Reads records of a store that holds many.
pub(crate) async fn get(dir: &Path, reads: usize) -> Result<()> {
    let sync = offline_client(dir).await?;
    let todos = sync.collection("todos")?;
    let ids: Vec<_> = (0..reads).map(|n| id(n * 7_919 % reads)).collect();
    let begun = (cpu(), Instant::now());
    for id in &ids {
        todos.get(id).await?.ok_or("a record is missing")?;
    }
    tell("each", (cpu() - begun.0).as_secs_f64() * 1e6 / reads as f64);
    tell("time", begun.1.elapsed().as_secs_f64() * 1e6 / reads as f64);
    sync.close().await;
    Ok(())
}

/// The same on the blocking client.
pub(crate) fn get_blocking(dir: &Path, reads: usize) -> Result<()> {
    let sync = synclayer_blocking::SyncLayer::open(offline(dir))?;
    let todos = sync.collection("todos")?;
    let ids: Vec<_> = (0..reads).map(|n| id(n * 7_919 % reads)).collect();
    let begun = (cpu(), Instant::now());
    for id in &ids {
        todos.get(id)?.ok_or("a record is missing")?;
    }
    tell("each", (cpu() - begun.0).as_secs_f64() * 1e6 / reads as f64);
    tell("time", begun.1.elapsed().as_secs_f64() * 1e6 / reads as f64);
    sync.close();
    Ok(())
}

/// Watches a collection that holds much, until there is the first update.
pub(crate) async fn watch(dir: &Path) -> Result<()> {
    let sync = offline_client(dir).await?;
    let todos = sync.collection("todos")?;
    todos.get("nobody").await?;
    let before = resident(pid())?;
    let begun = (cpu(), Instant::now());
    let mut watch = todos.watch();
    let first = watch.next().await.ok_or("the client has ended")?;
    let records = first.snapshot.len();
    tell("time", begun.1.elapsed().as_secs_f64());
    tell("cpu", (cpu() - begun.0).as_secs_f64());
    tell("peak", peak(pid())?.saturating_sub(before) as f64 / records as f64);
    drop(first);
    tell("bytes", resident(pid())?.saturating_sub(before) as f64 / records as f64);
    sync.close().await;
    Ok(())
}

/// The memory of writes that wait for a server.
pub(crate) async fn queue(dir: &Path, writes: usize) -> Result<()> {
    let sync = offline_client(dir).await?;
    let todos = sync.collection("todos")?;
    save_all(&todos, 0..1_000).await?;
    let before = resident(pid())?;
    save_all(&todos, 1_000..1_000 + writes).await?;
    tell("each", resident(pid())?.saturating_sub(before) as f64 / writes as f64);
    sync.close().await;
    Ok(())
}
