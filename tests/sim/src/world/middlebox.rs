//! Middleboxes that answer in the server's place: proxies, gateways, portals, filters. Also devices
//! that sleep, whose connections are dead when they wake up.

use synclayer_core::{
    ClientId, ConnId, Disconnect, ErrorCode, Event, EventKind, HttpAnswer, Input, Mono, Transport,
};

use crate::invariants::Invariant;

use super::http::CallId;
use super::{Place, Way, World};

/// A middlebox that answers everything in the server's place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Middlebox {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: &'static str,
}

impl Middlebox {
    /// One of many, by a number.
    #[must_use]
    pub fn of(number: usize) -> Self {
        const STATUSES: [u16; 13] =
            [401, 403, 404, 413, 500, 502, 200, 405, 400, 204, 302, 422, 511];
        const BODIES: [&str; 7] = [
            "<html>not here</html>",
            r#"{"message":"no route matched"}"#,
            "",
            r#"{"status":"login"}"#,
            r#"{"error":"forbidden","code":"FORBIDDEN"}"#,
            "[]",
            "OK",
        ];
        let status = STATUSES[number % STATUSES.len()];
        Self { status, body: BODIES[number / STATUSES.len() % BODIES.len()] }
    }

    /// Returns `true` if a single answer looks like that of a plain server without records. A
    /// middlebox that answers every call so gives the same answer to the hello.
    #[must_use]
    pub fn imitates_a_plain_server(self) -> bool {
        (200..300).contains(&self.status) && self.body == "[]"
    }

    /// Returns `true` if it answers a hello as only a server does that does not know the call.
    #[must_use]
    pub fn knows_no_hello(self) -> bool {
        matches!(self.status, 404 | 405 | 422)
    }

    /// The middlebox's answer to a call.
    #[must_use]
    pub fn answer(self) -> HttpAnswer {
        let (status, body) = (self.status, self.body.as_bytes().to_vec());
        match status {
            // redirects are followed by nobody
            300..=399 => HttpAnswer::Failed("the server redirects".into()),
            _ => HttpAnswer::Answered { status, retry_after: None, body },
        }
    }

    /// The middlebox's answer to a handshake.
    #[must_use]
    pub fn refusal(self) -> Disconnect {
        let body = self.body.as_bytes().to_vec();
        Disconnect::Refused { status: self.status, retry_after: None, body }
    }
}

/// The observer that notices that a device has woken up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Waking {
    /// Its app, which says that there is a network.
    Online,
    /// Its app, which wants to be in step.
    SyncNow,
    /// Nobody: only the clocks show it.
    Clocks,
}

impl World {
    /// From now on something answers in the server's place what a device asks, on one transport or
    /// on both; or does so no longer.
    pub fn place_middlebox(&mut self, device: usize, of: Option<Middlebox>, on: [bool; 2]) {
        self.note(|| format!("what answers device {device} on {on:?}: {of:?}"));
        let way = of.map_or(Way::Open, Way::Answered);
        let this = &mut self.devices[device];
        if let (Some(of), true) = (of, on[1]) {
            this.meet(of);
        }
        for (which, on) in [&mut this.sockets, &mut this.calls].into_iter().zip(on) {
            if on {
                *which = way;
            }
        }
    }

    /// Returns `true` if a middlebox answers a device in the server's place.
    #[must_use]
    pub fn has_middlebox(&self, device: usize) -> bool {
        let this = &self.devices[device];
        [this.sockets, this.calls].iter().any(|way| matches!(way, Way::Answered(_)))
    }

    /// Something answers a single call in the server's place; the call itself may have arrived.
    pub fn answer_on_the_way(&mut self, id: CallId, of: Middlebox, arrives: bool) {
        self.count("call answered on the way");
        if self.is_push(id) {
            self.count("push answered on the way");
        }
        if let 401 | 403 = of.status {
            self.count("access refused on the way");
        }
        if of.imitates_a_plain_server() {
            self.count("empty list on the way");
        }
        if let Some(device) = self.caller(id) {
            self.devices[device].meet(of);
        }
        self.take_call(id, arrives);
        self.answer_call(id, of.answer());
    }

    /// The body of a call breaks off on its way up; the server says so.
    pub fn break_body(&mut self, id: CallId) {
        self.count("body broken off");
        self.take_call(id, false);
        let body = br#"{"error":"the body broke off","code":"INVALID_MESSAGE"}"#.to_vec();
        self.answer_call(id, HttpAnswer::Answered { status: 400, retry_after: None, body });
    }

    /// A device sleeps: its monotonic clock stands still. Whatever is on its way forgets its
    /// connections, unless they outlive the sleep. Then it wakes up.
    pub fn sleep_and_wake(&mut self, device: usize, millis: u64, waking: Waking, outlived: bool) {
        self.note(|| format!("device {device} sleeps for {millis} ms: {waking:?}, {outlived}"));
        self.count("slept");
        if !outlived {
            for conn in self.connections_of(device) {
                self.silence(conn);
            }
        }
        // a clock that was set before is one thing, a sleep another
        self.with(device, |replica, now, out| replica.handle(now, Input::Timeout, out));
        let runs = self.devices[device].clock.stopped_at.is_none();
        self.devices[device].slept_unseen |= !runs;
        self.devices[device].naps += 1;
        let before = std::mem::replace(&mut self.devices[device].asleep, true);
        // whatever comes meanwhile wakes it for a moment
        let asleep_at = self.devices[device].clock.read(self.now).mono;
        self.devices[device].clock.stands_at = Some(asleep_at);
        self.pass(millis);
        let this = &mut self.devices[device];
        this.asleep = before;
        this.clock.stands_at = None;
        if let Some((_, until)) = &mut this.to_notice {
            until.0 += millis;
        }
        this.clock.mono_ahead -= i64::try_from(millis).unwrap_or(0);
        match waking {
            Waking::Online => self.set_online(device, true),
            Waking::SyncNow => self.sync_now(device),
            // an input like any other
            Waking::Clocks => self.with(device, |replica, now, out| {
                replica.handle(now, Input::Timeout, out);
            }),
        }
        let unnoticed = waking == Waking::Clocks && (!runs || millis <= 10_000);
        if outlived || unnoticed {
            return;
        }
        self.expect_to_notice(device);
    }

    /// A device that counts on a dead connection has to notice it soon.
    fn expect_to_notice(&mut self, device: usize) {
        let status = self.devices[device].replica.status();
        let counts_on_it = status.transport == Some(Transport::WebSocket);
        let Some(conn) = self.connections_of(device).pop().filter(|_| counts_on_it) else { return };
        self.count("slept with a connection");
        let until = self.now.mono + self.devices[device].config.probe_timeout;
        let until = Mono(until.0 + 1);
        let this = &mut self.devices[device];
        if this.to_notice.is_none_or(|(noticed, _)| noticed != conn) {
            this.to_notice = Some((conn, until));
        }
    }

    /// Returns `true` if every device has noticed in time that its connection is dead.
    pub(super) fn look_at_the_dead(&mut self) {
        for device in 0..self.devices.len() {
            let Some((conn, until)) = self.devices[device].to_notice else { continue };
            let counts_on_it = self.connections_of(device).contains(&conn);
            let this = &self.devices[device];
            if !counts_on_it || this.has_halted() {
                self.devices[device].to_notice = None;
                if !counts_on_it {
                    self.count("dead connection noticed");
                }
            } else if self.now.mono > until && !this.asleep {
                self.devices[device].to_notice = None;
                let what = format!("device {device} has slept, and still counts on {conn}");
                self.fail(Invariant::Progress, what);
            }
        }
    }

    /// The server has refused a write of a client's for good.
    pub(super) fn note_rejection(&mut self, client: &ClientId, place: Place) {
        self.refused.insert((client.clone(), place));
    }

    /// Checks that the server has rejected a write: nobody else may.
    ///
    /// # Errors
    /// When it was not the server.
    pub fn rejected_by_the_server(&self, device: usize, event: &Event) -> Result<(), String> {
        // what falls with another member of its transaction was not refused itself
        let EventKind::OperationFailed { code, message, transaction: None, .. } = &event.kind
        else {
            return Ok(());
        };
        let (Some(collection), Some(id)) = (event.kind.collection(), event.kind.record_id()) else {
            return Ok(());
        };
        // the app's own doing, where it takes another database for its own
        if matches!(code, ErrorCode::Other(_)) {
            return Ok(());
        }
        let client = self.devices[device].replica.status().client_id;
        let place = (collection.clone(), id.clone());
        if self.refused.contains(&(client, place)) {
            return Ok(());
        }
        let what = format!("{collection}/{id} ({code}: {message})");
        Err(format!("device {device} has rejected a write that the server has not: {what}"))
    }
}

/// The connection that a device should notice to be dead, and until when.
pub(super) type ToNotice = Option<(ConnId, Mono)>;
