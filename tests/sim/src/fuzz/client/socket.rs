//! The WebSocket between replica and server: frames get lost, garbled, out of order, or were never said.

use std::time::Duration;

use synclayer_core::{ConnId, Disconnect, Identity, Input, SessionInput, UserId};

use super::super::script::Script;
use super::ClientBench;
use crate::plain_server::Sent;

impl ClientBench {
    pub(super) fn up_comes(&mut self) {
        let conn = self.conn;
        if conn != ConnId(0) && !self.host.down.contains_key(&conn) {
            let identity = match UserId::new(&self.config.user) {
                Ok(_) if self.asks_who => Identity::Unknown,
                Ok(user) => Identity::Known(user.into()),
                Err(_) => Identity::Open,
            };
            self.host.accept(conn, identity, self.now);
            self.plain.iter_mut().for_each(|plain| plain.open(conn));
            self.with(|replica, now, actions| {
                replica.handle(now, Input::Connected { conn }, actions);
            });
        }
    }

    /// Frames get to the server, which does what it can.
    pub(super) fn go_up(&mut self, script: &mut Script<'_>) {
        let count = (1 + script.below(4)).min(self.up.len());
        for frame in self.up.drain(..count).collect::<Vec<_>>() {
            self.reach(&frame);
        }
        self.host.settle(self.now);
    }

    /// A frame reaches the server.
    pub(super) fn reach(&mut self, frame: &[u8]) {
        match &mut self.plain {
            Some(plain) => {
                let sent = plain.hear(self.conn, frame, self.now.wall);
                self.tell_all(sent);
            }
            None => self.host.tell(self.conn, SessionInput::Frame(frame), self.now),
        }
    }

    /// The plain server's messages in transit.
    pub(super) fn tell_all(&mut self, sent: Vec<Sent>) {
        for (conn, frame) in sent {
            if let Some(down) = self.host.down.get_mut(&conn) {
                down.push_back(frame.into());
            }
        }
    }

    pub(super) fn drop_line(&mut self, conn: ConnId) {
        self.host.drop_line(conn, self.now);
        self.plain.iter_mut().for_each(|plain| plain.close(conn));
    }

    pub(super) fn next_down(&mut self) -> Option<bytes::Bytes> {
        let frame = self.host.down.get_mut(&self.conn)?.pop_front()?;
        self.old.push(frame.clone());
        if self.old.len() > 16 {
            self.old.remove(0);
        }
        Some(frame)
    }

    /// Frames get to the replica: in order or not, whole or garbled.
    pub(super) fn come_down(&mut self, script: &mut Script<'_>) {
        let Some(frame) = self.next_down() else { return };
        match script.below(12) {
            0 => self.hear(&script.mutated(&frame)),
            1 => {}
            2 => {
                self.hear(&frame);
                self.hear(&frame);
            }
            3 => {
                let later = self.next_down();
                later.iter().for_each(|later| self.hear(later));
                self.hear(&frame);
            }
            _ => self.hear(&frame),
        }
    }

    /// A frame that the server never said, or said long ago.
    pub(super) fn lie(&mut self, script: &mut Script<'_>) {
        let old = script.below(self.old.len() + 1);
        match self.old.get(old).cloned() {
            Some(frame) if script.chance(3) => self.hear(&frame),
            Some(frame) => self.hear(&script.mutated(&frame)),
            None => self.hear(script.bytes()),
        }
    }

    pub(super) fn hear(&mut self, frame: &[u8]) {
        let conn = self.conn;
        self.with(|replica, now, actions| {
            replica.handle(now, Input::Frame { conn, frame }, actions);
        });
    }

    pub(super) fn lose(&mut self, script: &mut Script<'_>) {
        let conn = ConnId(self.conn.0.saturating_sub(u64::from(script.chance(4))));
        let why = match script.below(3) {
            0 => Disconnect::Refused {
                status: script.pick(&[401, 403, 404, 429, 500, 503, 0]).unwrap_or(0),
                retry_after: Some(Duration::from_millis(script.number())),
                body: [b"".as_slice(), b"<html>", br#"{"error":"no","code":"AUTH_FAILED"}"#]
                    [script.below(3)]
                .to_vec(),
            },
            _ => Disconnect::Lost("lost".into()),
        };
        self.drop_line(conn);
        if conn == self.conn {
            self.up.clear();
        }
        self.with(|replica, now, actions| {
            replica.handle(now, Input::Disconnected { conn, why }, actions);
        });
    }
}
