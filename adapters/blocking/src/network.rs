//! The network of a client on its engine's thread: a socket that never blocks, and the poll in which
//! the thread sleeps until the socket, the program or the clock has something for it.

use std::io::{self, ErrorKind};
use std::mem;
use std::net::TcpStream as StdStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token as PollToken, Waker};
use synclayer_client::command::{EngineCommand, SocketEvent};
use synclayer_client::network::{BlockingTask, Network};
use synclayer_client::websocket::{self, Target, lost};
use synclayer_core::{ConnId, ConnectFailure, Disconnect, Token};
use tungstenite::handshake::client::{ClientHandshake, Request};
use tungstenite::handshake::{HandshakeError, MidHandshake};
use tungstenite::{Error, Message, WebSocket};

use crate::byte_stream::ByteStream;
use crate::closing::Closing;
use crate::jobs::JobThreads;

type Upgrade = MidHandshake<ClientHandshake<ByteStream>>;

/// The token of the program's commands in the poll.
const COMMANDS: PollToken = PollToken(0);
/// The token of the socket in the poll.
const SOCKET: PollToken = PollToken(1);

/// The connection that the engine wants, if any, and the poll.
pub(crate) struct Polled {
    target: Target,
    poll: Poll,
    events: Events,
    waker: Arc<Waker>,
    jobs: JobThreads,
    connection: Option<PolledSocket>,
    closing: Closing,
    /// The sockets that threads have connected.
    dialed: (Sender<Dialed>, Receiver<Dialed>),
    /// The socket is looked at before the commands, in every other turn.
    socket_first: bool,
}

/// The result of connecting, for the connection of a life of the replica.
type Dialed = (u64, ConnId, Result<StdStream, ConnectFailure>);

impl Polled {
    /// Makes the network, and a waker for its poll.
    pub(crate) fn new(target: Target) -> io::Result<(Self, Arc<Waker>)> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), COMMANDS)?);
        let network = Self {
            target,
            poll,
            events: Events::with_capacity(8),
            waker: Arc::clone(&waker),
            jobs: JobThreads::new(),
            connection: None,
            closing: Closing::default(),
            dialed: channel(),
            socket_first: false,
        };
        Ok((network, waker))
    }

    /// Lets a thread connect.
    fn dial(&mut self, life: u64, conn: ConnId) -> io::Result<()> {
        let (target, waker) = (self.target.clone(), Arc::clone(&self.waker));
        let dialed = self.dialed.0.clone();
        self.jobs.run(move || {
            // where nobody listens any more, the client has ended
            let _ = dialed.send((life, conn, target.dial()));
            let _ = waker.wake();
        })
    }

    /// Goes on with a socket that was dialed, unless nobody wants it any more.
    fn begin_handshake(&mut self, (life, conn, dialed): Dialed) {
        let wanted = |open: &&mut PolledSocket| (open.life, open.conn) == (life, conn);
        let Some(connection) = self.connection.as_mut().filter(wanted) else { return };
        let SocketState::Dialing(request) = mem::replace(&mut connection.state, SocketState::Ended)
        else {
            return;
        };
        let prepare = |socket: StdStream| {
            socket.set_nonblocking(true)?;
            let mut socket = TcpStream::from_std(socket);
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut socket, SOCKET, interest)?;
            ByteStream::new(socket, &self.target.address, &self.target.tls)
        };
        let stream = dialed.map_err(Disconnect::Lost);
        connection.state = stream
            .and_then(|socket| prepare(socket).map_err(|error| self.target.failed(error.into())))
            .and_then(|stream| shake(stream, request, &self.target))
            .map_or_else(SocketState::Failed, SocketState::Upgrade);
        connection.ready = true;
    }

    /// The next news of the connection, if there are any.
    fn receive(&mut self) -> Option<EngineCommand> {
        let connection = self.connection.as_mut()?;
        let event = connection.receive(&self.target)?;
        let (life, conn) = (connection.life, connection.conn);
        if let SocketEvent::Disconnected(_) = event {
            self.part();
        }
        Some(EngineCommand::Socket { life, conn, event })
    }

    /// Ends the connection; what has been written to it still goes out.
    fn part(&mut self) {
        let open = self.connection.take().and_then(PolledSocket::into_open);
        if let Some(socket) = open {
            self.closing.add(socket);
        }
    }

    fn on(&mut self, conn: ConnId, message: Message) {
        if let Some(connection) = self.connection.as_mut().filter(|open| open.conn == conn) {
            connection.write(message, &self.target);
        }
    }
}

impl Network for Polled {
    fn connect(&mut self, life: u64, conn: ConnId, token: Option<&Token>) {
        let dialing = self.target.request(token).and_then(|request| {
            self.dial(life, conn).map_err(|error| lost(error.to_string()))?;
            Ok(request)
        });
        let state = dialing.map_or_else(SocketState::Failed, SocketState::Dialing);
        self.connection = Some(PolledSocket { life, conn, state, ready: false, unsent: false });
    }

    fn send(&mut self, conn: ConnId, frame: Bytes) {
        self.on(conn, websocket::message(frame));
    }

    fn ping(&mut self, conn: ConnId) {
        self.on(conn, Message::Ping(Bytes::new()));
    }

    fn close(&mut self, conn: ConnId) {
        if self.connection.as_ref().is_some_and(|open| open.conn == conn) {
            self.close_all();
        }
    }

    fn close_all(&mut self) {
        if let Some(connection) = &mut self.connection {
            connection.say_goodbye();
        }
        self.part();
    }

    fn run(&mut self, job: BlockingTask) {
        // a job that finds no thread is dropped, and says so
        let _ = self.jobs.run(job);
    }

    fn wait(
        &mut self,
        _: &Receiver<EngineCommand>,
        timeout: Option<Duration>,
    ) -> io::Result<Option<EngineCommand>> {
        let is_ready = self.connection.as_ref().is_some_and(PolledSocket::is_ready);
        let timeout = if is_ready { Some(Duration::ZERO) } else { timeout };
        let timeout = timeout.into_iter().chain(self.closing.timeout()).min();
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            Ok(()) | Err(_) => {}
        }
        if let Some(connection) = &mut self.connection
            && self.events.iter().any(|event| event.token() == SOCKET)
        {
            connection.ready = true;
        }
        self.closing.go_on();
        while let Ok(dialed) = self.dialed.1.try_recv() {
            self.begin_handshake(dialed);
        }
        Ok(None)
    }

    fn next(&mut self, commands: &Receiver<EngineCommand>) -> Option<EngineCommand> {
        // by turns, so that neither keeps the other waiting
        self.socket_first = !self.socket_first;
        if self.socket_first {
            self.receive().or_else(|| commands.try_recv().ok())
        } else {
            commands.try_recv().ok().or_else(|| self.receive())
        }
    }

    fn flush(&mut self) {
        if let Some(connection) = &mut self.connection {
            connection.flush(&self.target);
        }
    }

    fn shut_down(self: Box<Self>) {
        let Self { jobs, closing, poll, events, .. } = *self;
        if closing.timeout().is_some() {
            // nobody waits for it; without a thread the server learns by the end of the connection
            let finish = move || closing.finish(poll, events);
            let _ = thread::Builder::new().name("synclayer-close".into()).spawn(finish);
        }
        jobs.close();
    }
}

/// A connection, for the replica of this life.
struct PolledSocket {
    life: u64,
    conn: ConnId,
    state: SocketState,
    /// The socket may have something to read, or room for what did not fit.
    ready: bool,
    /// Bytes were written that have not gone out.
    unsent: bool,
}

enum SocketState {
    /// A thread looks its address up and connects.
    Dialing(Request),
    /// TLS and the upgrade are under way.
    Upgrade(Box<Upgrade>),
    /// Messages come and go.
    Open(Box<WebSocket<ByteStream>>),
    /// The end was not reported yet.
    Failed(Disconnect),
    /// The connection has ended.
    Ended,
}

fn shake(
    stream: ByteStream,
    request: Request,
    target: &Target,
) -> Result<Box<Upgrade>, Disconnect> {
    let config = Some(target.config());
    ClientHandshake::start(stream, request, config)
        .map(Box::new)
        .map_err(|error| target.failed(error))
}

impl PolledSocket {
    fn is_ready(&self) -> bool {
        match self.state {
            SocketState::Dialing(_) | SocketState::Ended => false,
            SocketState::Upgrade(_) | SocketState::Open(_) => self.ready,
            SocketState::Failed(_) => true,
        }
    }

    fn receive(&mut self, target: &Target) -> Option<SocketEvent> {
        if !self.is_ready() {
            return None;
        }
        if let SocketState::Open(socket) = &mut self.state {
            socket.get_mut().begin_turn();
            let read = socket.read();
            return self.received(read, target);
        }
        match mem::replace(&mut self.state, SocketState::Ended) {
            SocketState::Upgrade(handshake) => self.shaken(handshake.handshake(), target),
            SocketState::Failed(why) => Some(SocketEvent::Disconnected(why)),
            SocketState::Dialing(_) | SocketState::Open(_) | SocketState::Ended => None,
        }
    }

    fn shaken(
        &mut self,
        shaken: Result<
            (WebSocket<ByteStream>, impl Sized),
            HandshakeError<ClientHandshake<ByteStream>>,
        >,
        target: &Target,
    ) -> Option<SocketEvent> {
        match shaken {
            Ok((socket, _)) => {
                self.state = SocketState::Open(Box::new(socket));
                Some(SocketEvent::Connected)
            }
            Err(HandshakeError::Interrupted(handshake)) => {
                self.state = SocketState::Upgrade(Box::new(handshake));
                self.ready = false;
                None
            }
            Err(HandshakeError::Failure(error)) => {
                Some(SocketEvent::Disconnected(target.failed(error)))
            }
        }
    }

    fn received(&mut self, read: Result<Message, Error>, target: &Target) -> Option<SocketEvent> {
        let SocketState::Open(socket) = &mut self.state else { return None };
        let moved = socket.get_mut().take_progress();
        if read.as_ref().is_err_and(would_block) {
            // what the ration has left unread is read in the next turn
            self.ready = socket.get_mut().begin_turn();
            return moved.then_some(SocketEvent::Progress);
        }
        let goodbye = read.as_ref().err().and_then(websocket::goodbye);
        let event = target.event(read);
        match event {
            // a ping was answered; the pong may wait for room
            SocketEvent::Heard => self.unsent = true,
            // answers the server's goodbye, or says one
            SocketEvent::Disconnected(_) => drop(socket.close(goodbye)),
            SocketEvent::Connected | SocketEvent::Frame(_) | SocketEvent::Progress => {}
        }
        Some(event)
    }

    fn write(&mut self, message: Message, target: &Target) {
        if let SocketState::Open(socket) = &mut self.state {
            let written = socket.write(message);
            self.unsent = true;
            self.check(written, target);
        }
    }

    fn flush(&mut self, target: &Target) {
        if let SocketState::Open(socket) = &mut self.state
            && self.unsent
        {
            let flushed = socket.flush();
            self.unsent = flushed.is_err();
            self.check(flushed, target);
        }
    }

    /// Notices an error. A message without room waits; the machine's window bounds it.
    fn check(&mut self, done: Result<(), Error>, target: &Target) {
        if let Err(error) =
            done.or_else(|error| if would_block(&error) { Ok(()) } else { Err(error) })
        {
            self.state = SocketState::Failed(target.failed(error));
        }
    }

    /// Tells the peer that the connection ends.
    fn say_goodbye(&mut self) {
        if let SocketState::Open(socket) = &mut self.state {
            let _ = socket.close(None);
        }
    }

    /// The WebSocket, if it was opened and has not failed.
    fn into_open(self) -> Option<Box<WebSocket<ByteStream>>> {
        match self.state {
            SocketState::Open(socket) => Some(socket),
            SocketState::Dialing(_)
            | SocketState::Upgrade(_)
            | SocketState::Failed(_)
            | SocketState::Ended => None,
        }
    }
}

fn would_block(error: &Error) -> bool {
    matches!(error, Error::Io(error) if error.kind() == ErrorKind::WouldBlock)
}
