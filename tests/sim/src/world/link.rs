//! Connections: two directions, each with frames on their way, each cut on its own.
//!
//! The network is modelled in whole frames, because the core gets whole frames: putting them
//! together from bytes that were split and merged anywhere is the WebSocket's work. What the core
//! does see of the bytes is how many the socket has room for, and that decides which messages a
//! session puts into one frame.

use std::collections::VecDeque;

use bytes::Bytes;
use synclayer_core::ConnId;

/// The owner of a connection's client end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// A replica, by its index.
    Device(usize),
    /// A level-1 program, by its index.
    Plain(usize),
}

/// One connection.
pub(super) struct Link {
    pub(super) owner: Owner,
    /// The device's own name for it.
    pub(super) local: ConnId,
    pub(super) up: VecDeque<Bytes>,
    pub(super) down: VecDeque<Bytes>,
    /// The number of bytes that may be in transit to the client before the server's socket is full.
    pub(super) capacity: usize,
    /// `true` if the owner still has its end.
    pub(super) device_end: bool,
    /// `true` if the server has its end: a session.
    pub(super) server_end: bool,
    /// `true` if bytes vanish in both directions and nobody is told.
    pub(super) silent: bool,
    /// The number of bytes that it still carries up, and down, before it breaks.
    left: [usize; 2],
    /// `true` if its owner has sent a numbered write.
    pub(super) has_written: bool,
    /// `true` if the session was woken since it last had nothing more to send.
    pub(super) awake: bool,
}

impl Link {
    pub(super) fn new(owner: Owner, local: ConnId, capacity: usize, carried: usize) -> Self {
        Self {
            owner,
            local,
            up: VecDeque::new(),
            down: VecDeque::new(),
            capacity,
            device_end: true,
            server_end: true,
            silent: false,
            left: [carried; 2],
            has_written: false,
            awake: true,
        }
    }

    /// The number of bytes that the server's socket still takes.
    pub(super) fn room(&self) -> usize {
        if self.silent {
            return self.capacity;
        }
        self.capacity.saturating_sub(self.down.iter().map(Bytes::len).sum())
    }

    /// Carries the next frame up or down. Returns `false` if the link breaks within it.
    pub(super) fn carry(&mut self, up: bool) -> bool {
        let (way, left) = match up {
            true => (&self.up, &mut self.left[0]),
            false => (&self.down, &mut self.left[1]),
        };
        let rest = left.checked_sub(way.front().map_or(0, Bytes::len));
        *left = rest.unwrap_or(0);
        rest.is_some()
    }

    /// The server's end is gone, with what was on its way to it.
    pub(super) fn lose_server_end(&mut self) {
        self.server_end = false;
        self.up.clear();
    }
}
