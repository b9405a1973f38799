//! A whole server inside a program with an event loop of its own: the bare core, a store in
//! memory, and sockets of the standard library, whose frames have their length in front of them.
//!
//! ```sh
//! cargo run -p synclayer-core --example server -- 127.0.0.1:7070
//! ```
//!
//! Programs and browsers that speak WebSocket are served by the crate `synclayer-server`; this is
//! for who has a transport, a store and a loop already.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use synclayer_core::{
    AllowAll, Batch, ConnId, DatabaseId, Epoch, Hub, HubAction, HubConfig, HubInput, Identity,
    MemoryRows, Mono, Now, Rows, ServerStore, Session, SessionInput, StoreError, StoreErrorKind,
    Timestamp, Transaction,
};

/// About how many writes go into one commit.
const WRITES: usize = 4096;
/// The most bytes that wait for a socket before its session is asked for no more.
const ROOM_BYTES: usize = 256 << 10;
/// The longest frame that is received.
const FRAME_BYTES: usize = 16 << 20;

/// A server, its store, its sockets, and what its loop needs to run them.
pub struct Server {
    listener: TcpListener,
    store: Store,
    hub: Hub,
    /// The actions left to do for the hub, in order.
    actions: Vec<HubAction>,
    sockets: BTreeMap<ConnId, Socket>,
    last: ConnId,
    started: Instant,
}

impl Server {
    /// Listens, and begins the first epoch of an empty store. Its name must be a fresh one every
    /// time.
    pub fn open(address: SocketAddr, name: &str) -> Result<Self, Box<dyn Error>> {
        let started = Instant::now();
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let hub = Hub::new(HubConfig::default(), Arc::new(AllowAll), []);
        let begin =
            Transaction::BeginEpoch { epoch: Epoch::new(name)?, database: DatabaseId::new(name)? };
        let (store, context) = (Store::default(), hub.context(now(started)));
        store.transact(&mut |rows| Ok(begin.decide(rows, context)?.batch))?;
        let (actions, sockets, last) = (Vec::new(), BTreeMap::new(), ConnId(0));
        Ok(Self { listener, store, hub, actions, sockets, last, started })
    }

    /// The address at which the server listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// One turn of the loop: does what there is to do, and waits for nothing. Returns whether there
    /// was anything, so that the loop may sleep if not: until a socket is ready, or until the hub's
    /// deadline.
    pub fn turn(&mut self) -> io::Result<bool> {
        let now = now(self.started);
        self.accept(now)?;
        for conn in self.sockets.keys().copied().collect::<Vec<_>>() {
            self.hear(conn, now);
        }
        if self.hub.deadline().is_some_and(|(at, _)| at <= now.mono) {
            self.hub.handle(now, HubInput::Timeout, &mut self.actions);
        }
        let mut busy = false;
        loop {
            busy |= self.carry_out();
            self.commit(now);
            self.read(now);
            self.give_room(now);
            if self.actions.is_empty() {
                break;
            }
        }
        self.sockets.values_mut().for_each(Socket::flush);
        Ok(busy)
    }

    fn accept(&mut self, now: Now) -> io::Result<()> {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    self.last = self.last.next();
                    let conn = self.last;
                    self.sockets.insert(conn, Socket::new(stream)?);
                    let input = HubInput::Accepted { conn, identity: Identity::Open };
                    self.hub.handle(now, input, &mut self.actions);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Hands what a socket has into the hub, as long as the hub wants it and can say something to
    /// it; and its end, once.
    fn hear(&mut self, conn: ConnId, now: Now) {
        let Some(socket) = self.sockets.get_mut(&conn) else { return };
        while socket.room() > 0
            && self.hub.session(conn).is_some_and(Session::wants_frames)
            && let Some(frame) = socket.receive()
        {
            let input = SessionInput::Frame(&frame);
            self.hub.handle(now, HubInput::Session { conn, input }, &mut self.actions);
        }
        if socket.has_ended() {
            let input = SessionInput::Closed;
            self.hub.handle(now, HubInput::Session { conn, input }, &mut self.actions);
            self.sockets.remove(&conn);
        }
    }

    /// Does what the hub wants done. Returns whether that was anything.
    fn carry_out(&mut self) -> bool {
        let actions = mem::take(&mut self.actions);
        let any = !actions.is_empty();
        for action in actions {
            match action {
                HubAction::Send { conn, frame } => {
                    if let Some(socket) = self.sockets.get_mut(&conn) {
                        socket.send(&frame);
                    }
                }
                HubAction::Close { conn, .. } => {
                    if let Some(socket) = self.sockets.get_mut(&conn) {
                        socket.close();
                    }
                }
                // a server that knows users looks the token up
                HubAction::Authenticate(ticket) => self.hub.authenticated(ticket, None),
                // the turn goes on with everything that waits
                HubAction::Commit | HubAction::Read | HubAction::Wake(_) => {}
                // only with `HubInput::Call` and `HubInput::Sweep`
                HubAction::Reply { .. } | HubAction::Swept(_) => {}
            }
        }
        any
    }

    /// Commits what waits for the store, many transactions together.
    fn commit(&mut self, now: Now) {
        while let Some(mut batch) = self.hub.next_batch(WRITES) {
            let ended = batch.commit(&self.store, self.hub.context(now));
            self.hub.settle(now, batch, ended, &mut self.actions);
        }
    }

    /// Reads the pages that wait to be read, and lets the sessions hear all answers.
    fn read(&mut self, now: Now) {
        while let Some(read) = self.hub.take_read(0) {
            let mut found = Err(StoreError::new(StoreErrorKind::Other, "the store read nothing"));
            let done = self.store.read(&mut |rows| {
                found = Ok(self.hub.run_read(&read, rows)?);
                Ok(())
            });
            self.hub.finish_read(read, done.and(found), &mut self.actions);
        }
        while self.hub.answer(now, 0, &mut self.actions).is_some() {}
    }

    /// Lets the sessions send, as far as their sockets have room.
    fn give_room(&mut self, now: Now) {
        for (conn, socket) in &self.sockets {
            let (conn, room) = (*conn, socket.room());
            if room > 0 && self.hub.wants_room(conn) {
                self.hub.handle(now, HubInput::Room { conn, room }, &mut self.actions);
            }
        }
    }
}

/// Rows in memory. A store that lasts writes a batch to its disk before it applies it.
#[derive(Default)]
struct Store(Mutex<MemoryRows>);

impl ServerStore for Store {
    fn transact(
        &self,
        decide: &mut dyn FnMut(&dyn Rows) -> Result<Batch, StoreError>,
    ) -> Result<(), StoreError> {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let batch = decide(&*rows)?;
        rows.apply(batch);
        Ok(())
    }

    fn read(
        &self,
        read: &mut dyn FnMut(&dyn Rows) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        read(&*self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One end of a connection, which never blocks.
pub struct Socket {
    stream: TcpStream,
    received: Vec<u8>,
    sent: Vec<u8>,
    closing: bool,
    ended: bool,
}

impl Socket {
    /// An end of this connection.
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let (received, sent) = (Vec::new(), Vec::new());
        Ok(Self { stream, received, sent, closing: false, ended: false })
    }

    /// The next frame, if it has come whole.
    pub fn receive(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some((length, behind)) = self.received.split_first_chunk::<4>() {
                let length = u32::from_be_bytes(*length) as usize;
                self.ended |= length > FRAME_BYTES;
                if let Some(frame) = behind.get(..length) {
                    let frame = frame.to_vec();
                    self.received.drain(..4 + length);
                    return Some(frame);
                }
            }
            let mut more = [0; 16 << 10];
            match self.stream.read(&mut more) {
                Ok(0) => self.ended = true,
                Ok(count) => self.received.extend_from_slice(&more[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.ended = true,
            }
            if self.ended {
                return None;
            }
        }
    }

    /// Queues a frame.
    pub fn send(&mut self, frame: &[u8]) {
        let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        self.sent.extend_from_slice(&length.to_be_bytes());
        self.sent.extend_from_slice(frame);
    }

    /// Writes what is queued, as far as the system takes it.
    pub fn flush(&mut self) {
        while !self.sent.is_empty() {
            match self.stream.write(&self.sent) {
                Ok(count) => drop(self.sent.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    self.ended = true;
                    return;
                }
            }
        }
        self.ended |= self.closing;
    }

    /// Ends the connection behind what is queued.
    pub fn close(&mut self) {
        self.closing = true;
    }

    /// Returns `true` if nothing comes any more, and nothing can be sent.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// The number of bytes that may still be queued.
    pub fn room(&self) -> usize {
        if self.closing { 0 } else { ROOM_BYTES.saturating_sub(self.sent.len()) }
    }
}

/// The time, by both clocks.
pub fn now(started: Instant) -> Now {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now {
        mono: Mono(started.elapsed().as_millis() as u64),
        wall: Timestamp(since_1970.as_millis() as i64),
    }
}

/// Serves until the program is stopped.
#[allow(dead_code)] // a test runs the server without it
fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).ok_or("usage: server HOST:PORT")?;
    let address = address.to_socket_addrs()?.next().ok_or("there is no such host")?;
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
    let mut server = Server::open(address, &format!("{nanos:x}"))?;
    println!("serving at {}", server.local_addr()?);
    loop {
        if !server.turn()? {
            // a real loop asks the system to wake it up
            thread::sleep(Duration::from_millis(1));
        }
    }
}
