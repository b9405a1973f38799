//! Many records on their way.

use std::net::SocketAddr;
use std::path::Path;
use std::process::id as pid;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde_json::json;
use synclayer_fjall::Durability;
use synclayer_tokio::SyncLayer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::memory::{peak, resident};
use crate::processes::{Process, arg};
use crate::world::{GROUP, Result, client, config, id, save_all, serve};

const CHANGES: usize = 10_000;
const RECORDS: usize = 100_000;

/// One field of each of 10,000 records of 200 bytes changes while B is away: the time that B
/// takes to catch up, and the bytes that go to it.
pub(crate) async fn catch_up() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (server, _) = serve(&dir.path().join("server"), Durability::Synced).await?;
    let (proxy, counted) = count_bytes(server.local_addr()).await?;
    let a = client(&dir.path().join("a"), server.local_addr()).await?;
    let todos = a.collection("todos")?;
    save_all(&todos, CHANGES).await?;
    a.synced().await?;
    let b = client(&dir.path().join("b"), proxy).await?;
    b.disconnect().await?;
    for first in (0..CHANGES).step_by(GROUP) {
        let todos = &todos;
        let changes = (first..first + GROUP)
            .map(|n| async move { todos.update(&id(n), &json!({ "done": true })).await });
        futures_util::future::try_join_all(changes).await?;
    }
    a.synced().await?;
    let (down, up) = counted.get();
    let begun = Instant::now();
    b.connect().await?;
    b.synced().await?;
    let took = begun.elapsed();
    let (down, up) = (counted.get().0 - down, counted.get().1 - up);
    println!(
        "{CHANGES} changes in {took:.1?}: {down} bytes down ({} each), {up} bytes up",
        down / CHANGES as u64
    );
    a.close().await;
    b.close().await;
    server.shutdown().await;
    Ok(())
}

/// 100,000 records of 200 bytes from a client to a server to a second client, each a process.
pub(crate) async fn whole() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = |name| dir.path().join(name);
    let mut server = Process::start("server", &[arg(&path("server"))?])?;
    let address = server.line()?;
    let before = resident(server.id())?;
    Process::start("writer", &[arg(&path("a"))?, &address])?.show()?;
    Process::start("reader", &[arg(&path("b"))?, &address])?.show()?;
    println!("server: {before} KiB before, peak {} KiB", peak(server.id())?);
    Ok(())
}

/// The first client of [`whole`].
pub(crate) async fn write_all(dir: &Path, server: SocketAddr) -> Result<()> {
    let before = resident(pid())?;
    let sync = client(dir, server).await?;
    let begun = Instant::now();
    save_all(&sync.collection("todos")?, RECORDS).await?;
    let saved = begun.elapsed();
    sync.synced().await?;
    let synced = begun.elapsed();
    let above = peak(pid())?.saturating_sub(before);
    let records = held(&sync).await?;
    println!(
        "writer: {records} records saved after {saved:.1?}, synced after {synced:.1?}, \
         peak {above} KiB above start"
    );
    sync.close().await;
    Ok(())
}

/// The second client of [`whole`].
pub(crate) async fn read_all(dir: &Path, server: SocketAddr) -> Result<()> {
    let before = resident(pid())?;
    let begun = Instant::now();
    let sync = SyncLayer::open(config(dir, server)).await?;
    sync.synced().await?;
    let took = begun.elapsed();
    let above = peak(pid())?.saturating_sub(before);
    let records = held(&sync).await?;
    println!("reader: {records} records after {took:.1?}, peak {above} KiB above start");
    sync.close().await;
    Ok(())
}

async fn held(sync: &SyncLayer) -> Result<u64> {
    Ok(sync.status().await?.collections.values().map(|todos| todos.count).sum())
}

/// Bytes that went to the clients and to the server.
#[derive(Clone, Default)]
struct Counted(Arc<(AtomicU64, AtomicU64)>);

impl Counted {
    fn get(&self) -> (u64, u64) {
        (self.0.0.load(Ordering::Relaxed), self.0.1.load(Ordering::Relaxed))
    }
}

/// A proxy that counts what it passes on.
async fn count_bytes(server: SocketAddr) -> Result<(SocketAddr, Counted)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let counted = Counted::default();
    let all = counted.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(server) = TcpStream::connect(server).await else { return };
            let ((from_client, to_client), (from_server, to_server)) =
                (client.into_split(), server.into_split());
            let (down, up) = (all.clone(), all.clone());
            tokio::spawn(async move { pass(from_server, to_client, &down.0.0).await });
            tokio::spawn(async move { pass(from_client, to_server, &up.0.1).await });
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
