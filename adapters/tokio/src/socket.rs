//! A connection: a task that moves frames between a socket and the engine's thread.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use synclayer_client::command::{EngineCommand, Inbox, SocketEvent};
use synclayer_client::websocket::{self, Target, failed, lost};
use synclayer_core::{ConnId, Disconnect, Token};
use tokio::net::TcpStream;
use tokio::runtime;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::http::Request;
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config};

/// The bytes of frames that may wait for the engine's thread. Beyond it the socket is not read.
const INBOUND_BYTES: usize = 1 << 20;
/// The time limit of the closing handshake.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A frame or a ping to be written.
enum SocketWrite {
    Frame(Bytes),
    Ping,
}

/// A connection as the engine's thread holds it. Dropping it ends the connection.
pub(crate) struct Socket {
    outgoing: UnboundedSender<SocketWrite>,
    /// The bytes of frames that may still be read before the engine has handled those that wait.
    room: Arc<Semaphore>,
}

impl Socket {
    /// Starts a connection, which reports whatever becomes of it. How long it may take to open is
    /// the engine's to decide.
    pub(crate) fn open(
        runtime: &runtime::Handle,
        target: Target,
        token: Option<&Token>,
        reporter: Reporter,
    ) -> Self {
        let (outgoing, mut queue) = unbounded_channel();
        let room = Arc::new(Semaphore::new(INBOUND_BYTES));
        let (request, free) = (target.request(token), Arc::clone(&room));
        runtime.spawn(async move {
            let end = tokio::select! {
                opened = dial(&target, request) => match opened {
                    Ok(socket) => live(socket, queue, &reporter, &free).await,
                    Err(end) => end,
                },
                () = given_up(&mut queue) => lost("given up"),
            };
            reporter.conclude(end);
        });
        Self { outgoing, room }
    }

    /// Queues a text frame. The engine's window bounds how many wait here.
    pub(crate) fn send(&self, frame: Bytes) {
        // a connection that has ended reports so
        let _ = self.outgoing.send(SocketWrite::Frame(frame));
    }

    /// Queues a ping frame.
    pub(crate) fn ping(&self) {
        let _ = self.outgoing.send(SocketWrite::Ping);
    }

    /// Makes room again for a frame of this length.
    pub(crate) fn make_room(&self, length: usize) {
        self.room.add_permits(size(length) as usize);
    }
}

type WebSocket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn dial(
    target: &Target,
    request: Result<Request<()>, Disconnect>,
) -> Result<WebSocket, Disconnect> {
    let request = request?;
    let stream = TcpStream::connect((target.address.host.as_str(), target.address.port))
        .await
        .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
        .map_err(|error| target.unreachable(&error))?;
    let connector = Connector::Rustls(Arc::clone(&target.tls));
    client_async_tls_with_config(request, stream, Some(target.config()), Some(connector))
        .await
        .map(|(socket, _)| socket)
        .map_err(failed)
}

/// Comes back when the engine has dropped its end.
async fn given_up(queue: &mut UnboundedReceiver<SocketWrite>) {
    while queue.recv().await.is_some() {}
}

async fn live(
    socket: WebSocket,
    queue: UnboundedReceiver<SocketWrite>,
    reporter: &Reporter,
    room: &Semaphore,
) -> Disconnect {
    reporter.report(SocketEvent::Connected);
    let (sink, stream) = socket.split();
    tokio::select! {
        end = read(stream, reporter, room) => end,
        end = write(sink, queue) => end,
    }
}

/// Moves frames from the socket to the engine, no faster than the engine handles them.
async fn read(
    mut stream: SplitStream<WebSocket>,
    reporter: &Reporter,
    room: &Semaphore,
) -> Disconnect {
    while let Some(message) = stream.next().await {
        match websocket::event(message) {
            SocketEvent::Disconnected(why) => return why,
            SocketEvent::Frame(frame) => {
                let Ok(taken) = room.acquire_many(size(frame.len())).await else { break };
                // given back when the engine has handled it
                taken.forget();
                reporter.report(SocketEvent::Frame(frame));
            }
            event @ (SocketEvent::Connected | SocketEvent::Heard) => reporter.report(event),
        }
    }
    lost("the server closed the connection")
}

/// The room that a frame takes up among those that wait for the engine.
fn size(length: usize) -> u32 {
    length.clamp(1, INBOUND_BYTES) as u32
}

/// Moves frames from the engine to the socket: all that wait, then one flush.
async fn write(
    mut sink: SplitSink<WebSocket, Message>,
    mut queue: UnboundedReceiver<SocketWrite>,
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
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, sink.close()).await;
    lost("closed")
}

impl From<SocketWrite> for Message {
    fn from(outgoing: SocketWrite) -> Self {
        match outgoing {
            SocketWrite::Ping => Self::Ping(Bytes::new()),
            SocketWrite::Frame(frame) => websocket::message(frame),
        }
    }
}

/// Reports the news of a connection, and its end exactly once, whatever becomes of the task.
pub(crate) struct Reporter {
    life: u64,
    conn: ConnId,
    inbox: Inbox,
    end: Disconnect,
}

impl Reporter {
    pub(crate) fn new(life: u64, conn: ConnId, inbox: Inbox) -> Self {
        Self { life, conn, inbox, end: lost("the tokio runtime has ended") }
    }

    fn report(&self, event: SocketEvent) {
        self.inbox.put(EngineCommand::Socket { life: self.life, conn: self.conn, event });
    }

    fn conclude(mut self, end: Disconnect) {
        self.end = end;
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        let why = std::mem::replace(&mut self.end, lost(""));
        self.report(SocketEvent::Disconnected(why));
    }
}
