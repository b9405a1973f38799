//! A whole client inside a program with an event loop of its own: the bare core, `mio` for the
//! socket and `tungstenite` for the WebSocket. Start a server, then, as often as you like:
//!
//! ```sh
//! cargo run -p synclayer-core --example client -- 127.0.0.1:8080 'Buy milk'
//! ```
#![allow(
    dead_code,
    reason = "a test runs it without `main`, and the example `game` uses more of it"
)]

use std::error::Error;
use std::io::{self, ErrorKind};
use std::mem;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use synclayer_core::{
    Action, ClientConfig, Collection, Command, ConnId, Disconnect, Document, EventKind, Input,
    Limits, MemoryClientStore, Misuse, Mono, NetAction, Now, Replica, Timestamp, Update, WatchId,
    Write,
};
use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::client::ClientHandshake;
use tungstenite::handshake::{HandshakeError, MidHandshake};
use tungstenite::{Message, Utf8Bytes, WebSocket};

/// A replica, its socket, and what the program's loop needs to run them.
pub struct Client {
    replica: Replica<MemoryClientStore>,
    /// Actions still to be done for the replica, in order.
    actions: Vec<Action>,
    server: SocketAddr,
    socket: Option<(ConnId, Socket)>,
    poll: Poll,
    /// The collections, each with the watch of it.
    watches: Vec<(WatchId, Collection)>,
    started: Instant,
}

/// Something that the replica tells.
#[derive(Debug)]
pub enum News {
    /// A collection has changed.
    Update(Collection, Update),
    /// Something has happened.
    Event(EventKind),
}

/// A connection, from its beginning to its end.
enum Socket {
    Connecting(TcpStream),
    Shaking(Box<MidHandshake<ClientHandshake<TcpStream>>>),
    Open(Box<WebSocket<TcpStream>>),
    Failed(Disconnect),
}

impl Client {
    /// Wakes up a replica of these collections and has it connect. The seed must be a fresh one every
    /// time.
    pub fn open(
        server: SocketAddr,
        seed: u128,
        collections: &[&str],
    ) -> Result<Self, Box<dyn Error>> {
        let (started, mut actions) = (Instant::now(), Vec::new());
        let collections: Result<Vec<_>, _> =
            collections.iter().copied().map(Collection::new).collect();
        let mut config = ClientConfig::default();
        config.collections = collections?;
        config.reconnect_delay = Duration::from_millis(100);
        let watched = config.collections.clone();
        // a durable store calls back when more has become durable: then `replica.poll_store`
        let store = MemoryClientStore::default();
        let mut replica = Replica::open(config, seed, now(started), store, &mut actions)?;
        replica.command(now(started), Command::Connect, &mut actions);
        let mut watches = Vec::new();
        for collection in watched {
            watches.push((replica.watch(&collection, &mut actions)?, collection));
        }
        let (poll, socket) = (Poll::new()?, None);
        Ok(Self { replica, actions, server, socket, poll, watches, started })
    }

    /// Saves a new record: here at once, at the server in the turns to come.
    pub fn save(&mut self, collection: &str, json: &str) -> Result<(), Box<dyn Error>> {
        let document = Document::parse(json, &Limits::default())?;
        let id = self.replica.new_record_id(now(self.started)).ok_or("no id")?;
        self.write(Write::Save(Collection::new(collection)?, id, document))?;
        Ok(())
    }

    /// Writes: here at once, at the server in the turns to come.
    pub fn write(&mut self, write: Write) -> Result<(), Misuse> {
        self.replica.write(now(self.started), write, &mut self.actions).map(drop)
    }

    /// Carries out a command, such as to disconnect.
    pub fn command(&mut self, command: Command) {
        self.replica.command(now(self.started), command, &mut self.actions);
    }

    /// The number of the writes that wait for the server.
    pub fn pending_writes(&self) -> usize {
        self.replica.status().pending_writes
    }

    /// One turn of the loop, which sleeps until there is something to do, and not for longer than
    /// `longest`.
    pub fn turn(&mut self, longest: Duration) -> io::Result<Vec<News>> {
        // what the program did since the last turn goes out before it sleeps
        let mut news = self.carry_out();
        let due = self.replica.deadline().map(|(at, _)| at.since(now(self.started).mono));
        let failed = matches!(self.socket, Some((_, Socket::Failed(_))));
        let patience = if failed || !news.is_empty() { Duration::ZERO } else { longest };
        let mut events = Events::with_capacity(8);
        match self.poll.poll(&mut events, Some(due.map_or(patience, |due| due.min(patience)))) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            Ok(()) | Err(_) => {}
        }
        // the socket speaks only of what is new: it is read until it has no more
        while self.hear() {}
        let now = now(self.started);
        if self.replica.deadline().is_some_and(|(at, _)| at <= now.mono) {
            self.replica.handle(now, Input::Timeout, &mut self.actions);
        }
        news.extend(self.carry_out());
        Ok(news)
    }

    /// Hands what the socket has into the replica, and says whether there may be more.
    fn hear(&mut self) -> bool {
        let Some((conn, socket)) = self.socket.take() else { return false };
        let now = now(self.started);
        let mut hear = |input| self.replica.handle(now, input, &mut self.actions);
        let (socket, more) = match socket {
            Socket::Connecting(stream) => connected(stream, self.server),
            Socket::Shaking(handshake) => match handshake.handshake() {
                Ok((socket, _)) => {
                    hear(Input::Connected { conn });
                    (Socket::Open(Box::new(socket)), true)
                }
                Err(HandshakeError::Interrupted(more)) => (Socket::Shaking(Box::new(more)), false),
                Err(HandshakeError::Failure(error)) => (lost(error), true),
            },
            Socket::Open(mut socket) => match socket.read() {
                Ok(Message::Text(text)) => {
                    hear(Input::Frame { conn, frame: text.as_bytes() });
                    (Socket::Open(socket), true)
                }
                Ok(Message::Ping(_) | Message::Pong(_)) => {
                    hear(Input::Heard { conn });
                    (Socket::Open(socket), true)
                }
                Ok(_) => (lost("the server closed the connection"), true),
                Err(error) if would_block(&error) => (Socket::Open(socket), false),
                Err(error) => (lost(error), true),
            },
            // the end of a connection is said once
            Socket::Failed(why) => {
                hear(Input::Disconnected { conn, why });
                return false;
            }
        };
        self.socket = Some((conn, socket));
        more
    }

    /// Does what the replica wants done, waiting for nothing.
    fn carry_out(&mut self) -> Vec<News> {
        let mut news = Vec::new();
        for action in mem::take(&mut self.actions) {
            match action {
                Action::Net(NetAction::Connect { conn, token: _ }) => {
                    self.socket = Some((conn, self.dial().unwrap_or_else(lost)));
                }
                Action::Net(NetAction::Send { conn, frame }) => {
                    self.send(
                        conn,
                        Utf8Bytes::try_from(frame).map_or(Message::Close(None), Message::Text),
                    );
                }
                Action::Net(NetAction::Ping { conn }) => self.send(conn, Message::Ping("".into())),
                Action::Net(NetAction::Close { conn }) => {
                    self.socket.take_if(|(open, _)| *open == conn);
                }
                // only with `ClientConfig::http`
                Action::Net(NetAction::Request(_)) => {}
                Action::Watch(watch) => {
                    let of = self.watches.iter().find(|(id, _)| *id == watch);
                    let update = self.replica.take(watch);
                    news.extend(of.zip(update).map(|((_, of), new)| News::Update(of.clone(), new)));
                }
                Action::Event(event) => news.push(News::Event(event.kind)),
                // a program counts what is durable as saved
                Action::Synced { .. } | Action::Fate { .. } | Action::Durable(_) => {}
                // the store has failed: open it anew, and a new replica on it
                Action::Halted(_) => {}
            }
        }
        if let Some((_, socket)) = &mut self.socket
            && let Socket::Open(open) = socket
            && let Err(error) = open.flush()
            && !would_block(&error)
        {
            *socket = lost(error);
        }
        news
    }

    fn dial(&self) -> io::Result<Socket> {
        let mut stream = TcpStream::connect(self.server)?;
        stream.set_nodelay(true)?;
        let interests = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(0), interests)?;
        Ok(Socket::Connecting(stream))
    }

    /// Queues a message; the flush at the end of the turn sends all of them together.
    fn send(&mut self, conn: ConnId, message: Message) {
        if let Some((open, Socket::Open(socket))) = &mut self.socket
            && *open == conn
        {
            // what does not fit waits in the buffer, and a socket that failed says so at the flush
            let _ = socket.write(message);
        }
    }
}

/// Checks if a socket is connected by now, and begins the handshake if so.
fn connected(stream: TcpStream, server: SocketAddr) -> (Socket, bool) {
    if let Ok(Some(error)) | Err(error) = stream.take_error() {
        return (lost(error), true);
    }
    if stream.peer_addr().is_err() {
        return (Socket::Connecting(stream), false);
    }
    let request = format!("ws://{server}/ws").into_client_request();
    let handshake = request.and_then(|request| ClientHandshake::start(stream, request, None));
    (handshake.map_or_else(lost, |begun| Socket::Shaking(Box::new(begun))), true)
}

fn lost(why: impl ToString) -> Socket {
    Socket::Failed(Disconnect::Lost(why.to_string().into()))
}

fn would_block(error: &tungstenite::Error) -> bool {
    matches!(error, tungstenite::Error::Io(error) if error.kind() == ErrorKind::WouldBlock)
}

fn now(started: Instant) -> Now {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now {
        mono: Mono(started.elapsed().as_millis() as u64),
        wall: Timestamp(since_1970.as_millis() as i64),
    }
}

/// Saves a todo for each argument behind the server's address, and shows the list as it changes.
fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let server = args.next().ok_or("usage: client HOST:PORT [TEXT]…")?;
    let server = server.to_socket_addrs()?.next().ok_or("there is no such host")?;
    let seed = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
    let mut client = Client::open(server, seed, &["todos"])?;
    for text in args {
        client.save("todos", &serde_json::json!({ "text": text }).to_string())?;
    }
    loop {
        for news in client.turn(Duration::from_secs(60))? {
            if let News::Update(_, update) = news {
                println!("{} todos:", update.snapshot.len());
                update.snapshot.iter().for_each(|todo| println!("  {}", todo.document));
            }
        }
    }
}
