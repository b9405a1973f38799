//! One connection: a task that moves frames between a socket and the engine's thread.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use rustls::{ClientConfig, RootCertStore};
use synclayer_core::client::interface::Disconnect;
use synclayer_core::words::message::Token;
use synclayer_core::words::name::ConnId;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::header::{AUTHORIZATION, RETRY_AFTER};
use tokio_tungstenite::tungstenite::http::{HeaderMap, HeaderValue, Request};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config};

use crate::address::Address;

/// How many bytes of frames may wait for the engine's thread; then the socket is not read.
const INBOUND_BYTES: usize = 1 << 20;
/// How many bytes of frames are gathered for one write to the socket.
const GATHERED_BYTES: usize = 16 << 10;
/// How long the goodbye to the peer may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// What every connection of a client is made with.
#[derive(Clone)]
pub(crate) struct Dialer {
    pub(crate) runtime: Handle,
    pub(crate) address: Arc<Address>,
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) frame_bytes: usize,
}

/// What a connection of a replica reports.
pub(crate) struct Report {
    /// Which of the client's replicas asked for the connection.
    pub(crate) life: u64,
    pub(crate) conn: ConnId,
    pub(crate) heard: Heard,
}

/// What is heard of a connection.
pub(crate) enum Heard {
    /// The WebSocket is open.
    Opened,
    /// A message came.
    Frame(Frame),
    /// A ping or pong frame came.
    Alive,
    /// It is over; nothing follows.
    Ended(Disconnect),
}

/// A message, with the room that it takes among those that wait for the engine.
pub(crate) struct Frame {
    pub(crate) bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

/// What the engine wants to go out.
enum Outgoing {
    Frame(Bytes),
    Ping,
}

/// A connection as the engine's thread holds it. Dropping it ends the connection.
pub(crate) struct Socket {
    outgoing: UnboundedSender<Outgoing>,
}

impl Socket {
    /// Queues a text frame. How many wait here is bounded by the engine's window.
    pub(crate) fn send(&self, frame: Bytes) {
        // a connection that has ended reports so
        let _ = self.outgoing.send(Outgoing::Frame(frame));
    }

    /// Queues a ping frame.
    pub(crate) fn ping(&self) {
        let _ = self.outgoing.send(Outgoing::Ping);
    }
}

impl Dialer {
    /// Starts a connection, which reports to `reports` whatever becomes of it.
    ///
    /// How long it may take to open is the engine's to decide.
    pub(crate) fn dial<R: From<Report> + Send + 'static>(
        &self,
        life: u64,
        conn: ConnId,
        token: Option<&Token>,
        reports: Sender<R>,
    ) -> Socket {
        let (outgoing, mut queue) = unbounded_channel();
        let end = lost("the tokio runtime has ended");
        let reporter = Reporter { life, conn, reports, end };
        let (dialer, request) = (self.clone(), request(&self.address, token));
        self.runtime.spawn(async move {
            let end = tokio::select! {
                opened = dialer.open(request) => match opened {
                    Ok(socket) => live(socket, queue, &reporter).await,
                    Err(end) => end,
                },
                () = given_up(&mut queue) => lost("given up"),
            };
            reporter.conclude(end);
        });
        Socket { outgoing }
    }

    async fn open(&self, request: Result<Request<()>, Error>) -> Result<WebSocket, Disconnect> {
        let request = request.map_err(failed)?;
        let Address { host, port, .. } = &*self.address;
        let stream = TcpStream::connect((host.as_str(), *port))
            .await
            .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
            .map_err(|error| lost(format!("{host}:{port}: {error}")))?;
        let connector = Connector::Rustls(self.tls.clone());
        let config = websocket_config(self.frame_bytes);
        client_async_tls_with_config(request, stream, Some(config), Some(connector))
            .await
            .map(|(socket, _)| socket)
            .map_err(failed)
    }
}

type WebSocket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// TLS as every connection uses it, whatever other providers the program has linked.
pub(crate) fn tls() -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn request(address: &Address, token: Option<&Token>) -> Result<Request<()>, Error> {
    let mut request = address.uri.clone().into_client_request()?;
    if let Some(token) = token {
        let mut value = HeaderValue::try_from(format!("Bearer {}", token.reveal()))
            .map_err(|error| Error::HttpFormat(error.into()))?;
        value.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, value);
    }
    Ok(request)
}

fn websocket_config(frame_bytes: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(4096)
        .write_buffer_size(GATHERED_BYTES)
        // the engine's window bounds what waits; this only keeps a frame from being refused
        .max_write_buffer_size(usize::MAX)
        .max_message_size(Some(frame_bytes))
        .max_frame_size(Some(frame_bytes))
}

/// Comes back when the engine has dropped its end.
async fn given_up(queue: &mut UnboundedReceiver<Outgoing>) {
    while queue.recv().await.is_some() {}
}

async fn live<R: From<Report>>(
    socket: WebSocket,
    queue: UnboundedReceiver<Outgoing>,
    reporter: &Reporter<R>,
) -> Disconnect {
    reporter.report(Heard::Opened);
    let (sink, stream) = socket.split();
    tokio::select! {
        end = read(stream, reporter) => end,
        end = write(sink, queue) => end,
    }
}

/// Moves frames from the socket to the engine, no faster than the engine handles them.
async fn read<R: From<Report>>(
    mut stream: SplitStream<WebSocket>,
    reporter: &Reporter<R>,
) -> Disconnect {
    let room = Arc::new(Semaphore::new(INBOUND_BYTES));
    while let Some(message) = stream.next().await {
        let bytes: Bytes = match message {
            Ok(Message::Text(text)) => text.into(),
            Ok(Message::Binary(bytes)) => bytes,
            Ok(Message::Ping(_) | Message::Pong(_)) => {
                reporter.report(Heard::Alive);
                continue;
            }
            Ok(Message::Close(Some(close))) => {
                return lost(format!("the server closed the connection: {close}"));
            }
            Ok(Message::Close(None) | Message::Frame(_)) => break,
            Err(error) => return failed(error),
        };
        let size = bytes.len().clamp(1, INBOUND_BYTES) as u32;
        let Ok(permit) = room.clone().acquire_many_owned(size).await else { break };
        reporter.report(Heard::Frame(Frame { bytes, _room: permit }));
    }
    lost("the server closed the connection")
}

/// Moves frames from the engine to the socket: all that wait, then one flush.
async fn write(
    mut sink: SplitSink<WebSocket, Message>,
    mut queue: UnboundedReceiver<Outgoing>,
) -> Disconnect {
    while let Some(first) = queue.recv().await {
        let mut next = Some(first);
        while let Some(outgoing) = next {
            if let Err(error) = sink.feed(outgoing.into()).await {
                return failed(error);
            }
            next = queue.try_recv().ok();
        }
        if let Err(error) = sink.flush().await {
            return failed(error);
        }
    }
    // the peer learns by the end of the connection what the goodbye does not tell it in time
    let _ = tokio::time::timeout(FAREWELL, sink.close()).await;
    lost("closed")
}

impl From<Outgoing> for Message {
    fn from(outgoing: Outgoing) -> Self {
        match outgoing {
            Outgoing::Ping => Self::Ping(Bytes::new()),
            // what the core encodes is text; if it ever were not, the server would say so
            Outgoing::Frame(frame) => match Utf8Bytes::try_from(frame) {
                Ok(text) => Self::Text(text),
                Err(_) => Self::Binary(Bytes::new()),
            },
        }
    }
}

fn lost(reason: impl Into<String>) -> Disconnect {
    Disconnect::Lost(reason.into())
}

fn failed(error: Error) -> Disconnect {
    if let Error::Http(response) = error {
        let retry_after = retry_after(response.headers());
        return Disconnect::Refused { status: response.status().as_u16(), retry_after };
    }
    lost(error.to_string())
}

/// `Retry-After` in seconds. Its other form, a date, says nothing to a client without a clock.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Reports what a connection hears, and its end exactly once, whatever becomes of the task.
struct Reporter<R: From<Report>> {
    life: u64,
    conn: ConnId,
    reports: Sender<R>,
    end: Disconnect,
}

impl<R: From<Report>> Reporter<R> {
    fn report(&self, heard: Heard) {
        // an engine that has ended needs no reports
        let _ = self.reports.send(Report { life: self.life, conn: self.conn, heard }.into());
    }

    fn conclude(mut self, end: Disconnect) {
        self.end = end;
    }
}

impl<R: From<Report>> Drop for Reporter<R> {
    fn drop(&mut self) {
        let end = std::mem::replace(&mut self.end, lost(""));
        self.report(Heard::Ended(end));
    }
}
