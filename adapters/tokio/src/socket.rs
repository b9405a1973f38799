//! One connection: a task that moves frames between a socket and the engine's thread.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use rustls::ClientConfig;
use synclayer_client::address::Endpoint;
use synclayer_client::websocket::{self, failed, lost};
use synclayer_core::client::interface::{Disconnect, Input};
use synclayer_core::protocol::message::Token;
use synclayer_core::protocol::name::ConnId;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::http::Request;
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config};

use crate::network::Inbox;

/// How many bytes of frames may wait for the engine's thread; then the socket is not read.
const INBOUND_BYTES: usize = 1 << 20;
/// How long the goodbye to the peer may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// What every connection of a client is made with.
#[derive(Clone)]
pub(crate) struct Dialer {
    pub(crate) runtime: Handle,
    pub(crate) address: Arc<Endpoint>,
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) frame_bytes: usize,
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
    /// Starts a connection, which tells the engine whatever becomes of it.
    ///
    /// How long it may take to open is the engine's to decide.
    pub(crate) fn dial(
        &self,
        life: u64,
        conn: ConnId,
        token: Option<&Token>,
        inbox: Inbox,
    ) -> Socket {
        let (outgoing, mut queue) = unbounded_channel();
        let end = lost("the tokio runtime has ended");
        let reporter = Reporter { life, conn, inbox, end };
        let (dialer, request) = (self.clone(), websocket::request(&self.address, token));
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

    async fn open(
        &self,
        request: Result<Request<()>, Disconnect>,
    ) -> Result<WebSocket, Disconnect> {
        let request = request?;
        let Endpoint { host, port, .. } = &*self.address;
        let stream = TcpStream::connect((host.as_str(), *port))
            .await
            .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
            .map_err(|error| lost(format!("{host}:{port}: {error}")))?;
        let connector = Connector::Rustls(self.tls.clone());
        let config = websocket::config(self.frame_bytes);
        client_async_tls_with_config(request, stream, Some(config), Some(connector))
            .await
            .map(|(socket, _)| socket)
            .map_err(failed)
    }
}

type WebSocket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Comes back when the engine has dropped its end.
async fn given_up(queue: &mut UnboundedReceiver<Outgoing>) {
    while queue.recv().await.is_some() {}
}

async fn live(
    socket: WebSocket,
    queue: UnboundedReceiver<Outgoing>,
    reporter: &Reporter,
) -> Disconnect {
    reporter.report(|conn| Input::Connected { conn });
    let (sink, stream) = socket.split();
    tokio::select! {
        end = read(stream, reporter) => end,
        end = write(sink, queue) => end,
    }
}

/// Moves frames from the socket to the engine, no faster than the engine handles them.
async fn read(mut stream: SplitStream<WebSocket>, reporter: &Reporter) -> Disconnect {
    let room = Arc::new(Semaphore::new(INBOUND_BYTES));
    while let Some(message) = stream.next().await {
        let bytes: Bytes = match message {
            Ok(Message::Text(text)) => text.into(),
            Ok(Message::Binary(bytes)) => bytes,
            Ok(Message::Ping(_) | Message::Pong(_)) => {
                reporter.report(|conn| Input::Heard { conn });
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
        reporter.hand_in(bytes, permit);
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
            Outgoing::Frame(frame) => websocket::message(frame),
        }
    }
}

/// Reports what a connection hears, and its end exactly once, whatever becomes of the task.
struct Reporter {
    life: u64,
    conn: ConnId,
    inbox: Inbox,
    end: Disconnect,
}

impl Reporter {
    fn report(&self, input: impl FnOnce(ConnId) -> Input<'static> + Send + 'static) {
        let (life, conn) = (self.life, self.conn);
        self.inbox.tell(move |engine| engine.hear(life, input(conn)));
    }

    /// Reports a frame, which takes up room among those that wait for the engine.
    fn hand_in(&self, frame: Bytes, room: OwnedSemaphorePermit) {
        let (life, conn) = (self.life, self.conn);
        self.inbox.tell(move |engine| {
            engine.hear(life, Input::Frame { conn, frame: &frame });
            drop(room);
        });
    }

    fn conclude(mut self, end: Disconnect) {
        self.end = end;
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        let why = std::mem::replace(&mut self.end, lost(""));
        self.report(|conn| Input::Disconnected { conn, why });
    }
}
