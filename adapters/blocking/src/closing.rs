//! Connections that part with their server: what was written last goes out, and what still comes is read
//! and forgotten. A socket that is closed with bytes unread is reset, and the server may lose what was
//! written last.

use std::io::{ErrorKind, Read};
use std::time::{Duration, Instant};

use mio::{Events, Poll};
use tungstenite::WebSocket;

use crate::byte_stream::ByteStream;

/// The time limit of the closing handshake.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// The number of connections that part at a time. Beyond it the oldest one is closed at once.
const MOST: usize = 4;

/// The connections that part.
#[derive(Default)]
pub(crate) struct Closing {
    sockets: Vec<Parting>,
}

struct Parting {
    socket: Box<WebSocket<ByteStream>>,
    until: Instant,
    /// There may be more to read at once.
    ready: bool,
}

impl Closing {
    /// Takes a connection over, to which the last frame was written.
    pub(crate) fn add(&mut self, socket: Box<WebSocket<ByteStream>>) {
        if self.sockets.len() == MOST {
            self.sockets.remove(0);
        }
        let until = Instant::now() + CLOSE_TIMEOUT;
        self.sockets.push(Parting { socket, until, ready: true });
        self.go_on();
    }

    /// Writes and reads as far as the sockets let it.
    pub(crate) fn go_on(&mut self) {
        self.sockets.retain_mut(Parting::goes_on);
    }

    /// The time after which to go on if nothing happens before; `None` without any.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        let now = Instant::now();
        let wait = |parting: &Parting| match parting.ready {
            true => Duration::ZERO,
            false => parting.until.saturating_duration_since(now),
        };
        self.sockets.iter().map(wait).min()
    }

    /// Goes on until all have ended.
    pub(crate) fn finish(mut self, mut poll: Poll, mut events: Events) {
        while let Some(timeout) = self.timeout() {
            match poll.poll(&mut events, Some(timeout)) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return,
                Ok(()) | Err(_) => self.go_on(),
            }
        }
    }
}

impl Parting {
    /// Returns `false` if the connection has ended, or has had its time. It reads no more than a turn.
    fn goes_on(&mut self) -> bool {
        // an error shows in reading too
        let _ = self.socket.flush();
        let stream = self.socket.get_mut();
        stream.begin_turn();
        let mut bytes = [0; 4096];
        let read = loop {
            match stream.read(&mut bytes) {
                Ok(length) if length > 0 => {}
                read => break read,
            }
        };
        self.ready = stream.begin_turn();
        let waits = read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        waits && Instant::now() < self.until
    }
}
