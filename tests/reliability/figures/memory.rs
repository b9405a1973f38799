//! Memory of replicas and connections.

use std::path::Path;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::processes::{Process, arg};
use crate::world::{Result, offline_client, save_all};

const CONNECTIONS: usize = 2_000;

/// The memory of a server's process before and after 2,000 clients have connected, said their
/// hello and subscribed to a collection.
pub(crate) async fn connections() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut server = Process::start("server", &[arg(dir.path())?])?;
    let address = server.line()?;
    // what the first ones cost is paid once
    let mut sockets = Vec::new();
    for n in 0..50 {
        sockets.push(Peer::connect(&address, &format!("first-{n}")).await?);
    }
    let before = resident(server.id())?;
    for n in 0..CONNECTIONS {
        sockets.push(Peer::connect(&address, &format!("client-{n}")).await?);
    }
    let after = resident(server.id())?;
    let each = (after - before) * 1024 / CONNECTIONS as u64;
    println!("{before} KiB before, {after} KiB after: {each} bytes for each connection");
    Ok(())
}

/// A raw WebSocket that has said its hello on level 2 and follows a collection.
pub(crate) struct Peer {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Peer {
    pub(crate) async fn connect(server: &str, name: &str) -> Result<Self> {
        let (socket, _) = connect_async(format!("ws://{server}/ws")).await?;
        let mut peer = Self { socket };
        let hello = json!({"protocol": 2, "clientId": name, "session": 1});
        peer.say(&json!({"type": "ping", "metadata": hello})).await?;
        peer.expect("pong").await?;
        peer.say(&json!({"type": "subscribe", "collection": "todos"})).await?;
        peer.expect("synced").await?;
        Ok(peer)
    }

    pub(crate) async fn say(&mut self, message: &Value) -> Result<()> {
        Ok(self.socket.send(Message::text(message.to_string())).await?)
    }

    /// Waits for a message of a type.
    pub(crate) async fn expect(&mut self, kind: &str) -> Result<()> {
        let start = format!(r#""type":"{kind}""#);
        loop {
            match self.socket.next().await.ok_or("the connection has ended")?? {
                Message::Text(text) if text.contains(&start) => return Ok(()),
                Message::Close(why) => return Err(format!("closed: {why:?}").into()),
                Message::Text(_)
                | Message::Binary(_)
                | Message::Ping(_)
                | Message::Pong(_)
                | Message::Frame(_) => {}
            }
        }
    }
}

/// Memory of each of 100,000 writes that wait for a server, on a buffered store.
pub(crate) async fn offline() -> Result<()> {
    for writes in ["20000", "100000"] {
        let dir = tempfile::tempdir()?;
        Process::start("offline", &[arg(dir.path())?, writes])?.show()?;
    }
    Ok(())
}

/// The process that [`offline`] looks at.
pub(crate) async fn queue(dir: &Path, writes: usize) -> Result<()> {
    let pid = std::process::id();
    let sync = offline_client(dir).await?;
    let todos = sync.collection("todos")?;
    save_all(&todos, 1_000).await?;
    let before = resident(pid)?;
    save_all(&todos, writes).await?;
    let after = resident(pid)?;
    let waiting = sync.status().await?.pending_writes;
    let each = after.saturating_sub(before) * 1024 / writes as u64;
    println!("{waiting} writes wait: {before} KiB before, {after} KiB after, {each} bytes each");
    sync.close().await;
    Ok(())
}

/// KiB of memory that a process has.
pub(crate) fn resident(pid: u32) -> Result<u64> {
    status(pid, "VmRSS:")
}

/// The most KiB of memory that a process ever had.
pub(crate) fn peak(pid: u32) -> Result<u64> {
    status(pid, "VmHWM:")
}

fn status(pid: u32, name: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such line")?;
    Ok(line.split_whitespace().next().ok_or("no number")?.parse()?)
}
