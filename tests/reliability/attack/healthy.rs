//! The client that means well: it writes, and reads a small collection, again and again.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use synclayer_e2e::attack::read_answer;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use crate::Result;
use crate::server::ANN;

/// The time after which an exchange has failed.
const PATIENCE: Duration = Duration::from_secs(20);
/// The pause between two exchanges.
const PAUSE: Duration = Duration::from_millis(10);

/// A WebSocket at level 1.
pub(crate) struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    pub(crate) async fn connect(address: SocketAddr, token: &str) -> Result<Self> {
        let url = format!("ws://{address}/ws?token={token}");
        Ok(Self(connect_async_with_config(url, None, true).await?.0))
    }

    pub(crate) async fn write(
        &mut self,
        kind: &str,
        collection: &str,
        id: usize,
        data: Value,
    ) -> Result<()> {
        let id = id.to_string();
        let write = json!({"type": kind, "collection": collection, "recordId": id, "data": data});
        Ok(self.0.send(Message::text(write.to_string())).await?)
    }

    /// Waits until all that was sent is served.
    pub(crate) async fn settle(&mut self) -> Result<()> {
        self.0.send(Message::text(r#"{"type":"ping"}"#)).await?;
        loop {
            match self.0.next().await.ok_or("the connection has ended")?? {
                Message::Text(text) if text.contains("\"pong\"") => return Ok(()),
                Message::Close(_) => return Err("the connection was closed".into()),
                Message::Text(_)
                | Message::Binary(_)
                | Message::Ping(_)
                | Message::Pong(_)
                | Message::Frame(_) => {}
            }
        }
    }
}

pub(crate) struct Healthy {
    socket: Socket,
    http: TcpStream,
    address: SocketAddr,
    written: usize,
}

/// The times that exchanges took, in milliseconds.
#[derive(Default)]
pub(crate) struct Latencies {
    writes: Vec<f64>,
    reads: Vec<f64>,
    pub(crate) failed: usize,
}

impl Healthy {
    pub(crate) async fn connect(address: SocketAddr) -> Result<Self> {
        let socket = Socket::connect(address, ANN).await?;
        let http = TcpStream::connect(address).await?;
        http.set_nodelay(true)?;
        Ok(Self { socket, http, address, written: 0 })
    }

    /// Exchanges for a while.
    pub(crate) async fn measure(&mut self, time: Duration) -> Latencies {
        let (mut found, end) = (Latencies::default(), Instant::now() + time);
        while Instant::now() < end {
            let begun = Instant::now();
            match timeout(PATIENCE, self.write()).await {
                Ok(Ok(())) => found.writes.push(begun.elapsed().as_secs_f64() * 1e3),
                Ok(Err(_)) | Err(_) => found.failed += 1,
            }
            let begun = Instant::now();
            match timeout(PATIENCE, self.read()).await {
                Ok(Ok(())) => found.reads.push(begun.elapsed().as_secs_f64() * 1e3),
                Ok(Err(_)) | Err(_) => {
                    found.failed += 1;
                    self.reconnect().await;
                }
            }
            sleep(PAUSE).await;
        }
        found
    }

    async fn reconnect(&mut self) {
        if let Ok(Ok(healthy)) = timeout(PATIENCE, Self::connect(self.address)).await {
            *self = Self { written: self.written, ..healthy };
        }
    }

    async fn write(&mut self) -> Result<()> {
        // the same ten records, so that they stay few
        let kind = if self.written < 10 { "insert" } else { "update" };
        self.socket.write(kind, "small", self.written % 10, json!({"n": self.written})).await?;
        self.written += 1;
        self.socket.settle().await
    }

    async fn read(&mut self) -> Result<()> {
        let request = format!(
            "GET /sync/small?where[n]=none HTTP/1.1\r\nhost: localhost\r\n\
             authorization: Bearer {ANN}\r\n\r\n"
        );
        self.http.write_all(request.as_bytes()).await?;
        let head = read_answer(&mut self.http).await?;
        if head.starts_with("http/1.1 200") { Ok(()) } else { Err("it was refused".into()) }
    }
}

impl Latencies {
    pub(crate) fn count(&self) -> usize {
        self.writes.len() + self.reads.len() + self.failed
    }

    pub(crate) fn writes(&self) -> f64 {
        p99(&self.writes)
    }

    pub(crate) fn reads(&self) -> f64 {
        p99(&self.reads)
    }
}

fn p99(times: &[f64]) -> f64 {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    times.get(times.len() * 99 / 100).copied().unwrap_or(f64::INFINITY)
}
