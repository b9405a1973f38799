//! A link as slow ones are, and as those that break again and again: it carries bytes at a rate, and of
//! each connection only so many.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// The room of its sockets for what comes in.
const RECEIVED_BYTES: u32 = 4 << 10;

/// The bytes that a link carries.
#[derive(Clone, Copy, Debug)]
pub struct Carries {
    /// The bytes of each direction in a second.
    pub per_second: usize,
    /// The bytes of each direction of a connection, behind which it breaks.
    pub per_connection: usize,
}

impl Default for Carries {
    fn default() -> Self {
        Self { per_second: usize::MAX, per_connection: usize::MAX }
    }
}

/// A link to a server. Its connections end with it.
pub struct SlowLink {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    listening: JoinHandle<()>,
}

impl SlowLink {
    pub async fn start(server: SocketAddr, carries: Carries) -> Self {
        // a slow link has no room for what it has not carried
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(RECEIVED_BYTES).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(64).unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let listening = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(carry(client, server, carries));
            }
        });
        Self { address, connections, listening }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the number of connections so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for SlowLink {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// Carries a connection until either direction ends or has had its share; then both break.
async fn carry(client: TcpStream, server: SocketAddr, carries: Carries) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(RECEIVED_BYTES).unwrap();
    let Ok(server) = socket.connect(server).await else { return };
    for end in [&client, &server] {
        end.set_nodelay(true).unwrap();
    }
    let ((from_client, to_client), (from_server, to_server)) =
        (client.into_split(), server.into_split());
    tokio::select! {
        () = one_way(from_client, to_server, carries) => {}
        () = one_way(from_server, to_client, carries) => {}
    }
}

async fn one_way(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    carries: Carries,
) {
    let mut left = carries.per_connection;
    let mut bytes = [0; 1 << 10];
    let mut free = Instant::now();
    while left > 0 {
        let most = bytes.len().min(left);
        let Ok(read @ 1..) = from.read(&mut bytes[..most]).await else { return };
        left -= read;
        if carries.per_second != usize::MAX {
            // no sleep for an event: this is what a slow link is
            free = free.max(Instant::now())
                + Duration::from_secs_f64(read as f64 / carries.per_second as f64);
            sleep_until(free).await;
        }
        if to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}
