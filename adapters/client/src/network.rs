//! The sockets of a client, as its engine uses them.

use std::io;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use bytes::Bytes;
use synclayer_core::{ConnId, Token};

use crate::command::EngineCommand;

/// Work that may block.
pub type BlockingTask = Box<dyn FnOnce() + Send>;

/// The connections of an engine, of which there is at most one at a time, and the place where its
/// thread sleeps.
///
/// News of a connection reach the engine as [`EngineCommand::Socket`], its end exactly once.
pub trait Network: Send {
    /// Starts a connection for the replica of this life. The engine decides how long it may take.
    fn connect(&mut self, life: u64, conn: ConnId, token: Option<&Token>);

    /// Queues a text frame, if the connection still exists.
    fn send(&mut self, conn: ConnId, frame: Bytes);

    /// Queues a ping, if the connection still exists.
    fn ping(&mut self, conn: ConnId);

    /// Ends a connection, if it still exists. Nobody listens to it any more.
    fn close(&mut self, conn: ConnId);

    /// Ends every connection.
    fn close_all(&mut self);

    /// Runs a job on a thread where it may block. If there is no such thread, it is dropped.
    fn run(&mut self, job: BlockingTask);

    /// Learns that news with a frame of this length, or a sign of life with none, was handled, so
    /// that more may be read.
    fn handled(&mut self, conn: ConnId, length: usize) {
        let _ = (conn, length);
    }

    /// Waits until there is something for the engine, for at most this time; `None`: for ever. May
    /// return a command, if it was waited for.
    ///
    /// # Errors
    /// When the thread can wait no more: the client ends.
    fn wait(
        &mut self,
        commands: &Receiver<EngineCommand>,
        timeout: Option<Duration>,
    ) -> io::Result<Option<EngineCommand>>;

    /// Takes the next command, if there is one by now.
    fn next(&mut self, commands: &Receiver<EngineCommand>) -> Option<EngineCommand>;

    /// Writes what was queued, as far as there is room.
    fn flush(&mut self) {}

    /// Ends: waits, but not for long, for jobs under way.
    fn shut_down(self: Box<Self>) {}
}
