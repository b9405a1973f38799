//! What moves the bytes of the engine's connections: a task for each, and threads for HTTP calls.

use std::thread::Builder;

use bytes::Bytes;
use synclayer_client::engine::{self, Job, Network};
use synclayer_core::protocol::message::Token;
use synclayer_core::protocol::name::ConnId;

use crate::socket::{Dialer, Socket};

pub(crate) type Engine = engine::Engine<Sockets>;
pub(crate) type Hold = engine::Hold<Sockets>;
pub(crate) type Inbox = engine::Inbox<Sockets>;

/// The connection that the engine wants, if any.
pub(crate) struct Sockets {
    dialer: Dialer,
    inbox: Inbox,
    socket: Option<(ConnId, Socket)>,
}

impl Sockets {
    pub(crate) fn new(dialer: Dialer, inbox: Inbox) -> Self {
        Self { dialer, inbox, socket: None }
    }

    fn on(&self, conn: ConnId, act: impl FnOnce(&Socket)) {
        if let Some((_, socket)) = self.socket.as_ref().filter(|(open, _)| *open == conn) {
            act(socket);
        }
    }
}

impl Network for Sockets {
    fn connect(&mut self, life: u64, conn: ConnId, token: Option<&Token>) {
        self.socket = Some((conn, self.dialer.dial(life, conn, token, self.inbox.clone())));
    }

    fn send(&mut self, conn: ConnId, frame: Bytes) {
        self.on(conn, |socket| socket.send(frame));
    }

    fn ping(&mut self, conn: ConnId) {
        self.on(conn, Socket::ping);
    }

    fn close(&mut self, conn: ConnId) {
        self.socket.take_if(|(open, _)| *open == conn);
    }

    fn close_all(&mut self) {
        self.socket = None;
    }

    fn run(&mut self, job: Job) {
        // not among the runtime's own: its end waits for those, and a server that stalls would hold
        // up the end of the program. A job that finds no thread is dropped, and says so
        let _ = Builder::new().name("synclayer-io".into()).spawn(job);
    }
}
