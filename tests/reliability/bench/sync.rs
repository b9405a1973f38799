//! Many records on their way: upload, cold sync, start, catch-up, deletes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use synclayer_tokio::SyncLayer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use crate::bare;
use crate::peer::Peer;
use crate::process::{Process, Told, arg, begin, end, tell};
use crate::query;
use crate::report::Report;
use crate::usage::{Threads, bytes_of, cpu};
use crate::world::{Result, Sizes, client, config, id, in_groups, save_all};

/// Reads of records on a store that holds many.
const READS: usize = 20_000;

pub(crate) async fn measure(sizes: &Sizes, report: &mut Report) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = |name: &str| dir.path().join(name);
    let (records, held) = (sizes.records, sizes.held);
    let (mut server, address) = Process::server(&path("server"))?;
    let (a, b, small) = (path("a"), path("b"), path("small"));

    upload(report, &mut server, &address, &a, 0..records, 0)?;
    report.limit(bare::save(records, 1)?, "bare record + log");
    upload(report, &mut server, &address, &a, records..2 * records, records)?;
    cold(report, &mut server, &address, &small, 2 * records).await?;

    Peer::connect(&address, "filler").await?.fill(2 * records..held).await?;
    cold(report, &mut server, &address, &b, held).await?;
    start(report, &address, &b)?;
    read(report, &b, held)?;
    upload(report, &mut server, &address, &b, held..held + records, held)?;
    query::measure(report, &b, held + records)?;

    let changes = records.min(10_000);
    let told = away(&mut server, &address, &small, (&a, "update", changes)).await?;
    let pieces = changes as f64;
    report.row(format!("catch-up of {changes} changes, client"), told.number("cpu")? / 1e3, "ms");
    report.limit(bare::change(changes)? * pieces / 1e3, "bare parse, merge, store");
    report.note(told.text("threads")?);
    report.row("the same, server", told.number("server")? / 1e3, "ms");
    report.note(told.text("server-threads")?);
    report.row("the same, bytes down", told.number("down")? / pieces, "B a change");

    let before = (bytes_of(&small)?, bytes_of(&path("server"))?);
    let told = away(&mut server, &address, &small, (&a, "delete", records)).await?;
    let pieces = records as f64;
    report.row(
        format!("catch-up of {records} deletes, client"),
        told.number("cpu")? / pieces,
        "µs",
    );
    report.limit(bare::delete(records)?, "bare removal");
    report.note(told.text("threads")?);
    report.row("the same, server", told.number("server")? / pieces, "µs");
    report.note(format!("in all: {}", told.text("server-threads")?));
    let after = (bytes_of(&small)?, bytes_of(&path("server"))?);
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    report.row("the client's tables after the deletes", mib(after.0), "MiB");
    report.note(format!("before: {:.1} MiB", mib(before.0)));
    report.row("the server's tables after the deletes", mib(after.1), "MiB");
    report.note(format!("before: {:.1} MiB, tombstones stay until the horizon", mib(before.1)));
    Ok(())
}

/// The first sync of a client with a large collection, and its next start.
pub(crate) async fn cold_alone(sizes: &Sizes, report: &mut Report) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = |name: &str| dir.path().join(name);
    let (mut server, address) = Process::server(&path("server"))?;
    Peer::connect(&address, "filler").await?.fill(0..sizes.held).await?;
    cold(report, &mut server, &address, &path("client"), sizes.held).await?;
    start(report, &address, &path("client"))
}

fn upload(
    report: &mut Report,
    server: &mut Process,
    address: &str,
    dir: &Path,
    records: std::ops::Range<usize>,
    held: usize,
) -> Result<()> {
    let (first, count) = (records.start.to_string(), records.len().to_string());
    let told = Process::start("writer", &[arg(dir)?, address, &first, &count])?;
    let told = told.measure(Some(server))?;
    let pieces = records.len() as f64;
    report.row(format!("upload at {held} records, server"), told.number("server")? / pieces, "µs");
    report.row(format!("upload at {held} records, client"), told.number("cpu")? / pieces, "µs");
    report.note(format!("{:.1} s of time; {}", told.number("time")?, told.text("threads")?));
    Ok(())
}

async fn cold(
    report: &mut Report,
    server: &mut Process,
    address: &str,
    dir: &Path,
    records: usize,
) -> Result<()> {
    let (proxy, counted) = count_bytes(address.to_owned()).await?;
    let told = Process::start("reader", &[arg(dir)?, &proxy])?.measure(Some(server))?;
    let pieces = records as f64;
    if told.number("records")? < pieces {
        return Err("records are missing".into());
    }
    report.row(format!("cold sync of {records}, server"), told.number("server")? / pieces, "µs");
    report.row(format!("cold sync of {records}, client"), told.number("cpu")? / pieces, "µs");
    report.limit(bare::take_pages(records)?, "bare parse, store");
    let (time, threads) = (told.number("time")?, told.text("threads")?);
    report.note(format!("{:.0} B each; {time:.2} s of time; {threads}", counted.down() / pieces));
    Ok(())
}

fn start(report: &mut Report, address: &str, dir: &Path) -> Result<()> {
    let told = Process::start("starter", &[arg(dir)?, address])?.measure(None)?;
    report.row("start until synced, client", told.number("cpu")? * 1e3, "ms");
    report.note(format!("{:.0} ms of it open the store", told.number("open")? * 1e3));
    report.row("the longest get meanwhile", told.number("longest")? * 1e3, "ms of time");
    Ok(())
}

fn read(report: &mut Report, dir: &Path, held: usize) -> Result<()> {
    let bare = bare::get(held, READS)?;
    for (name, role) in [("tokio", "getter"), ("blocking", "waiter")] {
        let told = Process::start(role, &[arg(dir)?, &READS.to_string()])?.measure(None)?;
        report.row(format!("get, {name}"), told.number("each")?, "µs");
        report.limit(bare, "bare get");
        report.note(format!("{:.1} µs of time", told.number("time")?));
    }
    let (each, bytes) = bare::hold_all(dir)?;
    let told = Process::start("watcher", &[arg(dir)?])?.measure(None)?;
    report.row("watch until the first update", told.number("cpu")? * 1e3, "ms");
    report.limit(each * held as f64 / 1e3, "bare scan into a map");
    report.note(format!("{:.0} ms of time", told.number("time")? * 1e3));
    report.row("the same, memory", told.number("bytes")?, "B a record");
    report.limit(bytes, "bytes of keys and rows");
    report.note(format!("{:.0} at its peak", told.number("peak")?));
    Ok(())
}

/// A client is away while another one makes changes, and then catches up.
async fn away(
    server: &mut Process,
    address: &str,
    dir: &Path,
    (other, how, changes): (&Path, &str, usize),
) -> Result<Told> {
    let (proxy, counted) = count_bytes(address.to_owned()).await?;
    let changes = changes.to_string();
    let client = Process::start("returner", &[arg(dir)?, &proxy])?;
    let mut down = 0.0;
    let meanwhile = || {
        Process::start("changer", &[arg(other)?, address, &changes, how])?.measure(None)?;
        down = counted.down();
        Ok(())
    };
    let mut told = client.measure_after(meanwhile, Some(server))?;
    told.add("down", counted.down() - down);
    Ok(told)
}

/// Saves records and sends them.
pub(crate) async fn write(dir: &Path, server: &str, first: usize, records: usize) -> Result<()> {
    let sync = client(dir, server).await?;
    let todos = sync.collection("todos")?;
    begin()?;
    let begun = (cpu(), Threads::now()?, Instant::now());
    save_all(&todos, first..first + records).await?;
    sync.synced().await?;
    tell("cpu", (cpu() - begun.0).as_secs_f64() * 1e6);
    tell("threads", Threads::now()?.since(&begun.1, records));
    tell("time", begun.2.elapsed().as_secs_f64());
    end()?;
    sync.close().await;
    Ok(())
}

/// Updates or deletes records, and sends that.
pub(crate) async fn change(dir: &Path, server: &str, records: usize, how: &str) -> Result<()> {
    let sync = client(dir, server).await?;
    let todos = &sync.collection("todos")?;
    if how == "delete" {
        in_groups(0..records, |n| async move { todos.delete(&id(n)).await.map(drop) }).await?;
    } else {
        let done = &json!({ "done": true });
        in_groups(0..records, |n| async move { todos.update(&id(n), done).await.map(drop) })
            .await?;
    }
    sync.synced().await?;
    sync.close().await;
    Ok(())
}

/// Fetches everything.
pub(crate) async fn read_all(dir: &Path, server: &str) -> Result<()> {
    begin()?;
    let begun = (cpu(), Threads::now()?, Instant::now());
    let sync = client(dir, server).await?;
    tell("cpu", (cpu() - begun.0).as_secs_f64() * 1e6);
    tell("time", begun.2.elapsed().as_secs_f64());
    let records = held(&sync).await?;
    tell("threads", Threads::now()?.since(&begun.1, records));
    tell("records", records);
    end()?;
    sync.close().await;
    Ok(())
}

/// Catches up after a time away.
pub(crate) async fn come_back(dir: &Path, server: &str) -> Result<()> {
    let sync = client(dir, server).await?;
    sync.disconnect().await?;
    begin()?;
    let begun = (cpu(), Threads::now()?);
    sync.connect().await?;
    sync.synced().await?;
    tell("cpu", (cpu() - begun.0).as_secs_f64() * 1e6);
    tell("threads", Threads::now()?.since(&begun.1, 1));
    end()?;
    // its store clears removed rows in a pause
    sleep(Duration::from_secs(2)).await;
    sync.close().await;
    Ok(())
}

/// Opens a store that holds much, and reads records until it is in sync.
pub(crate) async fn start_up(dir: &Path, server: &str) -> Result<()> {
    let begun = cpu();
    let sync = SyncLayer::open(config(dir, server)).await?;
    tell("open", (cpu() - begun).as_secs_f64());
    let todos = sync.collection("todos")?;
    let reads = tokio::spawn(async move {
        let mut longest = Duration::ZERO;
        for n in 0.. {
            let begun = Instant::now();
            todos.get(&id(n % 1_000)).await?;
            longest = longest.max(begun.elapsed());
            tell("longest", longest.as_secs_f64());
            sleep(Duration::from_millis(2)).await;
        }
        Ok::<_, synclayer_tokio::SyncError>(())
    });
    sync.synced().await?;
    tell("cpu", (cpu() - begun).as_secs_f64());
    reads.abort();
    sync.close().await;
    Ok(())
}

async fn held(sync: &SyncLayer) -> Result<usize> {
    let count: u64 = sync.status().await?.collections.values().map(|todos| todos.count).sum();
    Ok(usize::try_from(count)?)
}

/// Bytes that went to a client.
#[derive(Clone, Default)]
struct Counted(Arc<AtomicU64>);

impl Counted {
    fn down(&self) -> f64 {
        self.0.load(Ordering::Relaxed) as f64
    }
}

/// A proxy that counts what it passes on to clients.
async fn count_bytes(server: String) -> Result<(String, Counted)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let counted = Counted::default();
    let all = counted.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(server) = TcpStream::connect(&server).await else { return };
            let ((from_client, to_client), (from_server, to_server)) =
                (client.into_split(), server.into_split());
            let down = all.clone();
            tokio::spawn(async move { pass(from_server, to_client, &down.0).await });
            tokio::spawn(async move { pass(from_client, to_server, &AtomicU64::new(0)).await });
        }
    });
    Ok((address, counted))
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    counted: &AtomicU64,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let bytes = from.read(&mut buffer).await?;
        if bytes == 0 {
            return to.shutdown().await;
        }
        counted.fetch_add(bytes as u64, Ordering::Relaxed);
        to.write_all(&buffer[..bytes]).await?;
    }
}
