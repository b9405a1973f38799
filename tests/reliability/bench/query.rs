//! Queries of a client: with an index and without one, carried out and watched.

use std::path::Path;
use std::process::id as pid;
use std::time::Duration;

use serde_json::json;
use synclayer_tokio::query::{Ascending, is_greater_than_or_equal_to};
use synclayer_tokio::{Collection, Query, SyncLayer};

use crate::process::{Process, arg, tell};
use crate::report::Report;
use crate::usage::{cpu, resident};
use crate::world::{Result, id, offline, offline_client};

/// Changes of one record.
const CHANGES: usize = 1_000;

/// Measures on a store that holds so many records.
pub(crate) fn measure(report: &mut Report, dir: &Path, held: usize) -> Result<()> {
    let told = Process::start("onlooker", &[arg(dir)?])?.measure(None)?;
    report.row("watch 50 of all, no index, memory", told.number("bytes")?, "B a record");
    report.row("a change in its window, more than unwatched", told.number("inside")?, "µs");
    report.row("a change outside, more than unwatched", told.number("outside")?, "µs");
    let told = Process::start("asker", &[arg(dir)?])?.measure(None)?;
    report.row("an index is built", told.number("built")? / held as f64, "µs a record");
    report.row(format!("limit 50 of {held}, by index"), told.number("first")? * 1e3, "ms");
    report.note(format!("{:.2} MiB more", told.number("taken")? / f64::from(1 << 20)));
    report.row("the same, no index", told.number("scan")? * 1e3, "ms");
    report.row("watch 50 of all by index, first update", told.number("watch")? * 1e3, "ms");
    report.note(format!("{:.2} MiB more", told.number("watched")? / f64::from(1 << 20)));
    report.row("a change in its window, more than unwatched", told.number("inside")?, "µs");
    report.row("a change outside, more than unwatched", told.number("outside")?, "µs");
    Ok(())
}

fn first_50(todos: &Collection) -> Query {
    todos.query().where_("n", is_greater_than_or_equal_to(0)).order_by("n", Ascending).limit(50)
}

/// The CPU time in seconds of one change of a record that stays in its place.
async fn change(todos: &Collection, n: usize, round: usize) -> Result<f64> {
    let begun = cpu();
    for change in 0..CHANGES {
        todos.update(&id(n), &json!({ "done": (change + round).is_multiple_of(2) })).await?;
    }
    Ok((cpu() - begun).as_secs_f64() / CHANGES as f64)
}

/// Tells by how much a watched change costs more.
async fn changes(todos: &Collection, query: Query) -> Result<()> {
    let (inside, outside) = (0, 1_000);
    // the first changes pay for what was read and written before
    change(todos, inside, 0).await?;
    let before = change(todos, inside, 1).await?;
    let mut watch = query.watch()?;
    watch.next().await.ok_or("the client has ended")?;
    let reader = tokio::spawn(async move { while watch.next().await.is_some() {} });
    let watched_inside = change(todos, inside, 0).await?;
    let watched_outside = change(todos, outside, 1).await?;
    reader.abort();
    let _ = reader.await;
    let bare = f64::midpoint(before, change(todos, inside, 1).await?);
    tell("inside", (watched_inside - bare) * 1e6);
    tell("outside", (watched_outside - bare) * 1e6);
    Ok(())
}

/// Queries by an index, which is built first.
pub(crate) async fn ask(dir: &Path) -> Result<()> {
    let begun = cpu();
    let sync = SyncLayer::open(offline(dir).index("todos", "n")).await?;
    let todos = sync.collection("todos")?;
    let probe = first_50(&todos).limit(1);
    while probe.clone().explain().await?.index.is_none() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tell("built", (cpu() - begun).as_secs_f64() * 1e6);
    let (begun, before) = (cpu(), resident(pid())?);
    let first = first_50(&todos).get().await?;
    tell("first", (cpu() - begun).as_secs_f64());
    tell("taken", resident(pid())?.saturating_sub(before));
    assert_eq!(first.len(), 50);
    let begun = cpu();
    todos.query().order_by("text", Ascending).limit(50).get().await?;
    tell("scan", (cpu() - begun).as_secs_f64());
    let (begun, before) = (cpu(), resident(pid())?);
    let mut watch = first_50(&todos).watch()?;
    watch.next().await.ok_or("the client has ended")?;
    tell("watch", (cpu() - begun).as_secs_f64());
    tell("watched", resident(pid())?.saturating_sub(before));
    drop(watch);
    changes(&todos, first_50(&todos)).await?;
    sync.close().await;
    Ok(())
}

/// Watches a window of a query that no index serves.
pub(crate) async fn look_on(dir: &Path) -> Result<()> {
    let sync = offline_client(dir).await?;
    let todos = sync.collection("todos")?;
    let held = todos.query().count().await?;
    let before = resident(pid())?;
    let mut watch = first_50(&todos).watch()?;
    watch.next().await.ok_or("the client has ended")?;
    tell("bytes", resident(pid())?.saturating_sub(before) as f64 / held as f64);
    drop(watch);
    changes(&todos, first_50(&todos)).await?;
    sync.close().await;
    Ok(())
}
