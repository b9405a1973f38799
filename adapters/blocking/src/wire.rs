//! The connection to the server, owned by the engine's thread and never blocking it.

use std::io::{self, ErrorKind};
use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token as Place};
use rustls::ClientConfig;
use synclayer_client::address::Endpoint;
use synclayer_client::engine::{self, Job, Network};
use synclayer_client::websocket::{self, failed, lost};
use synclayer_core::client::interface::{Disconnect, Input};
use synclayer_core::protocol::message::Token;
use synclayer_core::protocol::name::ConnId;
use tungstenite::handshake::client::{ClientHandshake, Request};
use tungstenite::handshake::{HandshakeError, MidHandshake};
use tungstenite::{Error, Message, WebSocket};

use crate::elsewhere::Elsewhere;
use crate::stream::{Stream, connect};

pub(crate) type Engine = engine::Engine<Wire>;
pub(crate) type Hold = engine::Hold<Wire>;
pub(crate) type Inbox = engine::Inbox<Wire>;
type Handshake = MidHandshake<ClientHandshake<Stream>>;

/// Where the socket's news are found among those of the poll.
pub(crate) const SOCKET: Place = Place(1);

/// What every connection is made with, and the one that the engine wants, if any.
pub(crate) struct Wire {
    pub(crate) address: Arc<Endpoint>,
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) frame_bytes: usize,
    pub(crate) registry: Registry,
    pub(crate) inbox: Inbox,
    pub(crate) elsewhere: Elsewhere,
    pub(crate) line: Option<Line>,
}

/// A connection, for the replica of this life.
pub(crate) struct Line {
    life: u64,
    conn: ConnId,
    state: State,
    /// Whether the socket may have something to read, or room for what did not fit.
    ready: bool,
    /// Whether something was written that has not gone out.
    unsent: bool,
}

enum State {
    /// A thread looks its address up and connects.
    Dialing(Request),
    /// TLS and the upgrade are under way.
    Shaking(Box<Handshake>),
    /// Messages come and go.
    Open(Box<WebSocket<Stream>>),
    /// It has ended, and that was not reported yet.
    Broken(Disconnect),
    /// It has ended.
    Over,
}

/// What is heard of a connection.
pub(crate) enum Heard {
    Opened,
    Frame(Bytes),
    Alive,
    Ended(Disconnect),
}

impl Heard {
    /// Hands it to the replica that asked for the connection.
    pub(crate) fn tell(self, engine: &mut Engine, life: u64, conn: ConnId) {
        match self {
            Self::Opened => engine.hear(life, Input::Connected { conn }),
            Self::Frame(frame) => engine.hear(life, Input::Frame { conn, frame: &frame }),
            Self::Alive => engine.hear(life, Input::Heard { conn }),
            Self::Ended(why) => engine.hear(life, Input::Disconnected { conn, why }),
        }
    }
}

impl Wire {
    /// Learns that the socket has news.
    pub(crate) fn wake(&mut self) {
        if let Some(line) = &mut self.line {
            line.ready = true;
        }
    }

    /// Whether there may be something to hear without the poll's saying so.
    pub(crate) fn is_ready(&self) -> bool {
        self.line.as_ref().is_some_and(Line::is_ready)
    }

    /// The next that is heard, if there is something.
    pub(crate) fn hear(&mut self) -> Option<(u64, ConnId, Heard)> {
        let line = self.line.as_mut()?;
        let heard = line.hear()?;
        let (life, conn) = (line.life, line.conn);
        if let Heard::Ended(_) = heard {
            self.line = None;
        }
        Some((life, conn, heard))
    }

    /// Writes what was sent, as far as there is room.
    pub(crate) fn flush(&mut self) {
        if let Some(line) = &mut self.line {
            line.flush();
        }
    }

    /// Has a thread connect.
    fn dial(&mut self, life: u64, conn: ConnId) -> io::Result<()> {
        let (address, inbox) = (Arc::clone(&self.address), self.inbox.clone());
        self.elsewhere.run(move || {
            let dialed = connect(&address.host, address.port);
            inbox.tell(move |engine| engine.network().dialed(life, conn, dialed));
        })
    }

    /// Goes on with a socket that was dialed, unless nobody wants it any more.
    fn dialed(&mut self, life: u64, conn: ConnId, dialed: io::Result<TcpStream>) {
        let wanted = |line: &&mut Line| (line.life, line.conn) == (life, conn);
        let Some(line) = self.line.as_mut().filter(wanted) else { return };
        let State::Dialing(request) = mem::replace(&mut line.state, State::Over) else { return };
        let Endpoint { host, port, .. } = &*self.address;
        let stream = dialed.and_then(|mut socket| {
            let news = Interest::READABLE | Interest::WRITABLE;
            self.registry.register(&mut socket, SOCKET, news)?;
            Stream::new(socket, &self.address, &self.tls)
        });
        line.state = stream
            .map_err(|error| lost(format!("{host}:{port}: {error}")))
            .and_then(|stream| shake(stream, request, self.frame_bytes))
            .map_or_else(State::Broken, State::Shaking);
        line.ready = true;
    }

    fn on(&mut self, conn: ConnId, message: Message) {
        if let Some(line) = self.line.as_mut().filter(|line| line.conn == conn) {
            line.write(message);
        }
    }
}

impl Network for Wire {
    fn connect(&mut self, life: u64, conn: ConnId, token: Option<&Token>) {
        let dialing = websocket::request(&self.address, token).and_then(|request| {
            self.dial(life, conn).map_err(|error| lost(error.to_string()))?;
            Ok(request)
        });
        let state = dialing.map_or_else(State::Broken, State::Dialing);
        self.line = Some(Line { life, conn, state, ready: false, unsent: false });
    }

    fn send(&mut self, conn: ConnId, frame: Bytes) {
        self.on(conn, websocket::message(frame));
    }

    fn ping(&mut self, conn: ConnId) {
        self.on(conn, Message::Ping(Bytes::new()));
    }

    fn close(&mut self, conn: ConnId) {
        if let Some(line) = self.line.take_if(|line| line.conn == conn) {
            line.say_goodbye();
        }
    }

    fn close_all(&mut self) {
        self.line = None;
    }

    fn run(&mut self, job: Job) {
        // a job that finds no thread is dropped, and says so
        let _ = self.elsewhere.run(job);
    }
}

fn shake(
    stream: Stream,
    request: Request,
    frame_bytes: usize,
) -> Result<Box<Handshake>, Disconnect> {
    let config = Some(websocket::config(frame_bytes));
    ClientHandshake::start(stream, request, config).map(Box::new).map_err(failed)
}

impl Line {
    fn is_ready(&self) -> bool {
        match self.state {
            State::Dialing(_) | State::Over => false,
            State::Shaking(_) | State::Open(_) => self.ready,
            State::Broken(_) => true,
        }
    }

    fn hear(&mut self) -> Option<Heard> {
        if !self.is_ready() {
            return None;
        }
        if let State::Open(socket) = &mut self.state {
            let read = socket.read();
            return self.heard(read);
        }
        match mem::replace(&mut self.state, State::Over) {
            State::Shaking(handshake) => self.shaken(handshake.handshake()),
            State::Broken(why) => Some(Heard::Ended(why)),
            State::Dialing(_) | State::Open(_) | State::Over => None,
        }
    }

    fn shaken(
        &mut self,
        shaken: Result<(WebSocket<Stream>, impl Sized), HandshakeError<ClientHandshake<Stream>>>,
    ) -> Option<Heard> {
        match shaken {
            Ok((socket, _)) => {
                self.state = State::Open(Box::new(socket));
                Some(Heard::Opened)
            }
            Err(HandshakeError::Interrupted(handshake)) => {
                self.state = State::Shaking(Box::new(handshake));
                self.ready = false;
                None
            }
            Err(HandshakeError::Failure(error)) => Some(Heard::Ended(failed(error))),
        }
    }

    fn heard(&mut self, read: Result<Message, Error>) -> Option<Heard> {
        Some(match read {
            Ok(Message::Text(text)) => Heard::Frame(text.into()),
            Ok(Message::Binary(bytes)) => Heard::Frame(bytes),
            Ok(Message::Ping(_) | Message::Pong(_)) => {
                // a ping was answered; the pong may wait for room
                self.unsent = true;
                Heard::Alive
            }
            Ok(Message::Close(Some(close))) => {
                Heard::Ended(lost(format!("the server closed the connection: {close}")))
            }
            Ok(Message::Close(None) | Message::Frame(_)) => {
                Heard::Ended(lost("the server closed the connection"))
            }
            Err(error) if would_block(&error) => {
                self.ready = false;
                return None;
            }
            Err(error) => Heard::Ended(failed(error)),
        })
    }

    fn write(&mut self, message: Message) {
        if let State::Open(socket) = &mut self.state {
            let written = socket.write(message);
            self.unsent = true;
            self.check(written);
        }
    }

    fn flush(&mut self) {
        if let State::Open(socket) = &mut self.state
            && self.unsent
        {
            let flushed = socket.flush();
            self.unsent = flushed.is_err();
            self.check(flushed);
        }
    }

    /// What finds no room waits; the machine's window bounds it.
    fn check(&mut self, done: Result<(), Error>) {
        if let Err(error) =
            done.or_else(|error| if would_block(&error) { Ok(()) } else { Err(error) })
        {
            self.state = State::Broken(failed(error));
        }
    }

    /// Tells the peer, if it can be told at once; else it learns by the end of the connection.
    fn say_goodbye(self) {
        if let State::Open(mut socket) = self.state {
            let _ = socket.close(None);
        }
    }
}

fn would_block(error: &Error) -> bool {
    matches!(error, Error::Io(error) if error.kind() == ErrorKind::WouldBlock)
}
