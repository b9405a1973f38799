//! Attacks on a server, as users of it may try them, and those who are none.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

/// An attack. It goes on for as long as its future is polled, and ends when that is dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attack {
    /// Connections that say nothing, opened again when they end.
    IdleConnections,
    /// Answers of many megabytes that nobody reads.
    UnreadAnswers,
    /// Frames of 4 MiB, but for their last bytes.
    HalfFrames,
    /// The same before any token.
    HalfFramesWithoutToken,
    /// Requests whose heads never end.
    SlowHeaders,
    /// Queries that look at every record, one behind the other.
    Scans,
    /// Pings as fast as they go out.
    Pings,
    /// Writes as fast as they go out, which nobody waits for.
    Writes,
}

/// The server that is attacked, with what its user `mallory` may do there.
#[derive(Clone, Debug)]
pub struct Aim {
    pub server: SocketAddr,
    /// The token of mallory.
    pub token: String,
    /// The number of connections at a time.
    pub connections: usize,
}

/// A collection with the records for [`Attack::Scans`], and one for [`Attack::UnreadAnswers`].
pub const LARGE: &str = "large";
pub const WIDE: &str = "wide";

const FRAME_BYTES: usize = 4 << 20;

impl Attack {
    pub const ALL: [Self; 8] = [
        Self::IdleConnections,
        Self::UnreadAnswers,
        Self::HalfFrames,
        Self::HalfFramesWithoutToken,
        Self::SlowHeaders,
        Self::Scans,
        Self::Pings,
        Self::Writes,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::IdleConnections => "idle connections",
            Self::UnreadAnswers => "unread answers",
            Self::HalfFrames => "half frames",
            Self::HalfFramesWithoutToken => "half frames without a token",
            Self::SlowHeaders => "slow headers",
            Self::Scans => "scans",
            Self::Pings => "flood of pings",
            Self::Writes => "flood of writes",
        }
    }

    /// The number of connections that it takes to hurt.
    pub fn connections(self) -> usize {
        match self {
            Self::IdleConnections | Self::SlowHeaders | Self::HalfFramesWithoutToken => 1_100,
            Self::UnreadAnswers | Self::HalfFrames => 200,
            Self::Scans => 64,
            Self::Pings | Self::Writes => 32,
        }
    }

    /// Attacks for ever.
    pub async fn run(self, aim: &Aim) {
        join_all((0..aim.connections).map(|n| self.keep_on(aim, n))).await;
    }

    async fn keep_on(self, aim: &Aim, n: usize) {
        loop {
            // whatever the server does about it, here comes the next
            drop(self.once(aim, n).await);
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn once(self, aim: &Aim, n: usize) -> io::Result<()> {
        match self {
            Self::IdleConnections => {
                let mut idle = connect(aim).await?;
                idle.read_u8().await.map(drop)
            }
            Self::UnreadAnswers => {
                let mut reader = connect(aim).await?;
                reader.write_all(&get(aim, WIDE, "")).await?;
                until_closed(&reader).await
            }
            Self::HalfFrames => send_half_a_frame(websocket(aim, Some(&aim.token)).await?).await,
            Self::HalfFramesWithoutToken => send_half_a_frame(websocket(aim, None).await?).await,
            Self::SlowHeaders => {
                let mut slow = connect(aim).await?;
                slow.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\nx-slow: ").await?;
                loop {
                    slow.write_all(b"x").await?;
                    sleep(Duration::from_secs(1)).await;
                }
            }
            Self::Scans => {
                let mut scanner = connect(aim).await?;
                let request = get(aim, LARGE, "?where[n]=none");
                loop {
                    scanner.write_all(&request).await?;
                    read_answer(&mut scanner).await?;
                }
            }
            Self::Pings => flood(aim, |_| r#"{"type":"ping"}"#.to_owned()).await,
            Self::Writes => {
                let write = |number| {
                    format!(
                        r#"{{"type":"insert","collection":"flood","recordId":"{n}-{number}","data":{{"text":"a flood of writes"}}}}"#
                    )
                };
                flood(aim, write).await
            }
        }
    }
}

/// A connection that takes as little as the system lets it.
async fn connect(aim: &Aim) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4 << 10)?;
    let connected = timeout(Duration::from_secs(10), socket.connect(aim.server)).await;
    connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn get(aim: &Aim, collection: &str, query: &str) -> Vec<u8> {
    let Aim { token, .. } = aim;
    format!(
        "GET /sync/{collection}{query} HTTP/1.1\r\nhost: localhost\r\n\
         authorization: Bearer {token}\r\n\r\n"
    )
    .into_bytes()
}

/// Waits until the server has closed a connection of which nothing is read.
async fn until_closed(stream: &TcpStream) -> io::Result<()> {
    loop {
        // an error is the only thing that shows without reading
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
        sleep(Duration::from_millis(200)).await;
        if stream.try_write(b"").is_err() || stream.peer_addr().is_err() {
            return Ok(());
        }
    }
}

/// Reads an answer to its end, and returns its head in lower case.
pub async fn read_answer(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.and_then(|length| length.parse().ok()).unwrap_or(0);
    stream.read_exact(&mut vec![0; length]).await?;
    Ok(head)
}

/// A WebSocket, with its handshake done.
async fn websocket(aim: &Aim, token: Option<&str>) -> io::Result<TcpStream> {
    let mut stream = connect(aim).await?;
    let query = token.map(|token| format!("?token={token}")).unwrap_or_default();
    let request = format!(
        "GET /ws{query} HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\n\
         upgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    read_answer(&mut stream).await?;
    Ok(stream)
}

async fn send_half_a_frame(mut stream: TcpStream) -> io::Result<()> {
    let mut header = vec![0x81, 0x80 | 127];
    header.extend_from_slice(&(FRAME_BYTES as u64).to_be_bytes());
    // no mask
    header.extend_from_slice(&[0; 4]);
    stream.write_all(&header).await?;
    let chunk = vec![b' '; 16 << 10];
    for _ in 0..FRAME_BYTES / chunk.len() - 1 {
        stream.write_all(&chunk).await?;
    }
    stream.read_u8().await.map(drop)
}

/// Sends frames, and reads nothing but what keeps the server from stopping.
async fn flood(aim: &Aim, frame: impl Fn(usize) -> String) -> io::Result<()> {
    let (mut read, mut write) = websocket(aim, Some(&aim.token)).await?.into_split();
    let reading = async {
        let mut buffer = vec![0; 64 << 10];
        while read.read(&mut buffer).await? > 0 {}
        Ok(())
    };
    let writing = async {
        for number in 0.. {
            let frames: Vec<u8> = (0..64).flat_map(|n| text(&frame(number * 64 + n))).collect();
            write.write_all(&frames).await?;
        }
        Ok(())
    };
    tokio::select! {
        read = reading => read,
        written = writing => written,
    }
}

/// A short text frame of a client, with a mask that changes nothing.
fn text(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81];
    match u8::try_from(text.len()) {
        Ok(len @ 0..126) => frame.push(0x80 | len),
        Ok(_) | Err(_) => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(text.len() as u16).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(text.as_bytes());
    frame
}
