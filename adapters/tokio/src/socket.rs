//! A connection: a task that moves frames between a socket and the engine's thread.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::thread::Builder;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use synclayer_client::command::{EngineCommand, Inbox, SocketEvent};
use synclayer_client::fault::Greeting;
use synclayer_client::progress::{Moved, Progress};
use synclayer_client::websocket::{self, DEAF, Target, goodbye, lost};
use synclayer_core::{ConnId, Disconnect, Token};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::http::Request;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config};

/// The bytes of news that may wait for the engine's thread. Beyond it the socket is not read.
const INBOUND_BYTES: usize = 1 << 20;
/// The bytes that news weighs besides its frame: its place in the inbox, and the buffer that it
/// shares with its neighbours.
const NEWS_BYTES: usize = 1 << 10;
/// The time limit of the closing handshake.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A frame or a ping to be written.
enum SocketWrite {
    Frame(Bytes),
    Ping,
}

impl SocketWrite {
    /// The bytes that it takes up while it waits.
    fn size(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Frame(frame) => frame.len(),
                Self::Ping => 0,
            }
    }
}

/// A connection as the engine's thread holds it. Dropping it ends the connection.
pub(crate) struct Socket {
    outgoing: UnboundedSender<SocketWrite>,
    waiting: Arc<Waiting>,
    /// The room of news that the engine has handled, and that is not given back yet.
    handled: usize,
}

/// The bounds on what waits on either side of a connection.
struct Waiting {
    /// The bytes that may still be read before the engine has handled those that wait.
    room: Semaphore,
    /// The bytes that wait to be written.
    unwritten: AtomicUsize,
    /// The most of them.
    most_unwritten: usize,
    /// Told when there are more.
    overrun: Notify,
    /// The bytes that move.
    moved: Arc<Moved>,
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
        let waiting = Arc::new(Waiting {
            room: Semaphore::new(INBOUND_BYTES),
            unwritten: AtomicUsize::new(0),
            most_unwritten: target.outbound_bytes(),
            overrun: Notify::new(),
            moved: Arc::default(),
        });
        let (request, bounds) = (target.request(token), Arc::clone(&waiting));
        runtime.spawn(async move {
            let dialed = tokio::select! {
                opened = dial(&target, request, &bounds.moved) => opened,
                () = given_up(&mut queue) => Err(lost("given up")),
            };
            match dialed {
                Ok(socket) => live(socket, queue, reporter, &target, &bounds).await,
                Err(end) => reporter.conclude(end),
            }
        });
        Self { outgoing, waiting, handled: 0 }
    }

    /// Queues a text frame.
    pub(crate) fn send(&self, frame: Bytes) {
        self.queue(SocketWrite::Frame(frame));
    }

    /// Queues a ping frame.
    pub(crate) fn ping(&self) {
        self.queue(SocketWrite::Ping);
    }

    /// Queues a write, unless too much waits because the server does not read: that ends the
    /// connection.
    fn queue(&self, write: SocketWrite) {
        let size = write.size();
        let before = self.waiting.unwritten.fetch_add(size, Ordering::Relaxed);
        if before.saturating_add(size) > self.waiting.most_unwritten {
            self.waiting.overrun.notify_one();
            return;
        }
        // a connection that has ended reports so
        let _ = self.outgoing.send(write);
    }

    /// Makes room again for news with a frame of this length: not at once, since that may wake the
    /// task that reads, and it would take in one frame and sleep again.
    pub(crate) fn make_room(&mut self, length: usize) {
        self.handled += weight(length) as usize;
        if self.handled >= INBOUND_BYTES / 4 {
            self.return_room();
        }
    }

    /// Gives the room back of all that was handled.
    pub(crate) fn return_room(&mut self) {
        self.waiting.room.add_permits(std::mem::take(&mut self.handled));
    }
}

type WebSocket = WebSocketStream<MaybeTlsStream<Greeted>>;

async fn dial(
    target: &Target,
    request: Result<Request<()>, Disconnect>,
    moved: &Arc<Moved>,
) -> Result<WebSocket, Disconnect> {
    let request = request?;
    let stream = connect(target, moved).await?;
    let connector = Connector::Rustls(Arc::clone(&target.tls));
    client_async_tls_with_config(request, stream, Some(target.config()), Some(connector))
        .await
        .map(|(socket, _)| socket)
        .map_err(|error| target.failed(error))
}

/// Connects on a thread, since looking up a name blocks.
async fn connect(target: &Target, moved: &Arc<Moved>) -> Result<Greeted, Disconnect> {
    let (done, dialed) = oneshot::channel();
    let dialing = target.clone();
    // not among the runtime's own threads: its end waits for those
    let begun = Builder::new().name("synclayer-dial".into()).spawn(move || {
        // where nobody waits any more, the connection was given up
        let _ = done.send(dialing.dial());
    });
    begun.map_err(|error| lost(error.to_string()))?;
    let stream = dialed.await.map_err(|_| lost("the thread that connects has ended"))?;
    let stream = stream.map_err(Disconnect::Lost)?;
    let prepared = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
    let socket = prepared.map_err(|error| target.failed(error.into()))?;
    let greeting = Greeting::new(Arc::clone(&target.address));
    Ok(Greeted { socket, greeting, moved: Arc::clone(moved) })
}

/// Comes back when the engine has dropped its end.
async fn given_up(queue: &mut UnboundedReceiver<SocketWrite>) {
    while queue.recv().await.is_some() {}
}

/// Moves messages both ways until the connection ends, reports that, and parts with the server.
async fn live(
    socket: WebSocket,
    queue: UnboundedReceiver<SocketWrite>,
    reporter: Reporter,
    target: &Target,
    waiting: &Waiting,
) {
    reporter.report(SocketEvent::Connected);
    let (mut sink, mut stream) = socket.split();
    let running = async {
        tokio::select! {
            end = read(&mut stream, &reporter, target, waiting) => end,
            end = write(&mut sink, queue, target, &waiting.unwritten) => (end, None),
            () = waiting.overrun.notified() => (lost(DEAF), None),
        }
    };
    let (end, goodbye) = reporter.follow(&waiting.moved, running).await;
    reporter.conclude(end);
    // a peer that is not told in time learns by the end of the connection
    let _ = timeout(CLOSE_TIMEOUT, part(sink, stream, goodbye)).await;
}

/// Says goodbye or answers the server's, and waits until the server has closed the connection.
async fn part(
    sink: SplitSink<WebSocket, Message>,
    stream: SplitStream<WebSocket>,
    goodbye: Option<CloseFrame>,
) {
    let Ok(mut socket) = sink.reunite(stream) else { return };
    if goodbye.is_some() {
        // where the server has said goodbye first, this is refused, and its answer goes out below
        let _ = socket.send(Message::Close(goodbye)).await;
    }
    if SinkExt::close(&mut socket).await.is_ok() {
        // what is unread when a socket is closed would take our last words with it
        let mut bytes = [0; 4096];
        while socket.get_mut().read(&mut bytes).await.is_ok_and(|length| length > 0) {}
    }
}

/// Moves frames from the socket to the engine, no faster than the engine handles them.
async fn read(
    stream: &mut SplitStream<WebSocket>,
    reporter: &Reporter,
    target: &Target,
    waiting: &Waiting,
) -> (Disconnect, Option<CloseFrame>) {
    while let Some(message) = stream.next().await {
        let goodbye = message.as_ref().err().and_then(goodbye);
        // what came is a sign of life as it is
        waiting.moved.take();
        let event = target.event(message);
        let length = match event {
            SocketEvent::Disconnected(why) => return (why, goodbye),
            SocketEvent::Frame(ref frame) => frame.len(),
            SocketEvent::Connected | SocketEvent::Heard | SocketEvent::Progress => 0,
        };
        let Ok(taken) = waiting.room.acquire_many(weight(length)).await else { break };
        // given back when the engine has handled it
        taken.forget();
        reporter.report(event);
    }
    (lost(websocket::CLOSED), None)
}

/// The room that news takes up among what waits for the engine.
fn weight(length: usize) -> u32 {
    length.saturating_add(NEWS_BYTES).min(INBOUND_BYTES) as u32
}

/// Moves frames from the engine to the socket: all that wait, then one flush.
async fn write(
    sink: &mut SplitSink<WebSocket, Message>,
    mut queue: UnboundedReceiver<SocketWrite>,
    target: &Target,
    unwritten: &AtomicUsize,
) -> Disconnect {
    while let Some(first) = queue.recv().await {
        let mut next = Some(first);
        while let Some(outgoing) = next {
            let size = outgoing.size();
            if let Err(error) = sink.feed(outgoing.into()).await {
                return target.failed(error);
            }
            unwritten.fetch_sub(size, Ordering::Relaxed);
            next = queue.try_recv().ok();
        }
        if let Err(error) = sink.flush().await {
            return target.failed(error);
        }
    }
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

    /// Runs a connection. While it waits for more, the engine is told that bytes have moved.
    async fn follow<T>(&self, moved: &Moved, running: impl Future<Output = T>) -> T {
        let mut progress = Progress::new(|| self.report(SocketEvent::Progress));
        let mut running = pin!(running);
        poll_fn(|context| {
            let ran = running.as_mut().poll(context);
            if ran.is_pending() && moved.take() {
                progress.note();
            }
            ran
        })
        .await
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

/// A socket whose first bytes are looked at, and all counted.
struct Greeted {
    socket: TcpStream,
    greeting: Greeting,
    moved: Arc<Moved>,
}

impl AsyncRead for Greeted {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { socket, greeting, moved } = self.get_mut();
        let before = bytes.filled().len();
        let read = Pin::new(socket).poll_read(context, bytes);
        moved.read(bytes.filled().len() - before);
        read.map(|read| read.and_then(|()| greeting.check(&bytes.filled()[before..])))
    }
}

impl AsyncWrite for Greeted {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self { socket, moved, .. } = self.get_mut();
        let written = Pin::new(socket).poll_write(context, bytes);
        moved.written(written.is_pending());
        written
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(context)
    }
}
