//! The network of a client on tokio: a task for each connection, and threads for HTTP requests.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::Builder;
use std::time::Duration;

use bytes::Bytes;
use synclayer_client::command::{EngineCommand, Inbox};
use synclayer_client::network::{BlockingTask, Network};
use synclayer_client::websocket::Target;
use synclayer_core::{ConnId, Token};
use tokio::runtime;

use crate::socket::{Reporter, Socket};

/// The connection that the engine wants, if any.
pub(crate) struct Sockets {
    runtime: runtime::Handle,
    target: Target,
    inbox: Inbox,
    socket: Option<(ConnId, Socket)>,
}

impl Sockets {
    pub(crate) fn new(runtime: runtime::Handle, target: Target, inbox: Inbox) -> Self {
        Self { runtime, target, inbox, socket: None }
    }

    fn on(&mut self, conn: ConnId, act: impl FnOnce(&mut Socket)) {
        if let Some((open, socket)) = &mut self.socket
            && *open == conn
        {
            act(socket);
        }
    }
}

impl Network for Sockets {
    fn connect(&mut self, life: u64, conn: ConnId, token: Option<&Token>) {
        let reporter = Reporter::new(life, conn, self.inbox.clone());
        let socket = Socket::open(&self.runtime, self.target.clone(), token, reporter);
        self.socket = Some((conn, socket));
    }

    fn send(&mut self, conn: ConnId, frame: Bytes) {
        self.on(conn, |socket| socket.send(frame));
    }

    fn ping(&mut self, conn: ConnId) {
        self.on(conn, |socket| socket.ping());
    }

    fn close(&mut self, conn: ConnId) {
        self.socket.take_if(|(open, _)| *open == conn);
    }

    fn close_all(&mut self) {
        self.socket = None;
    }

    fn run(&mut self, job: BlockingTask) {
        // not among the runtime's own: its end waits for those, and a server that stalls would hold
        // up the end of the program. A job that finds no thread is dropped, and says so
        let _ = Builder::new().name("synclayer-io".into()).spawn(job);
    }

    fn handled(&mut self, conn: ConnId, length: usize) {
        self.on(conn, |socket| socket.make_room(length));
    }

    fn wait(
        &mut self,
        commands: &Receiver<EngineCommand>,
        timeout: Option<Duration>,
    ) -> io::Result<Option<EngineCommand>> {
        let waited = match timeout {
            Some(timeout) => commands.recv_timeout(timeout),
            None => commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match waited {
            Ok(command) => Ok(Some(command)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) {
        if let Some((_, socket)) = &mut self.socket {
            socket.return_room();
        }
    }

    fn next(&mut self, commands: &Receiver<EngineCommand>) -> Option<EngineCommand> {
        commands.try_recv().ok()
    }
}
