//! Connections: how they begin, carry frames, are cut and forgotten.

use synclayer_core::testing::InspectReplica;
use synclayer_core::{ConnId, Disconnect, HubInput, Identity, Input, SessionInput};

use super::World;
use super::http::Way;
use super::link::{Link, Owner};
use super::rights::user_with_claims;

impl World {
    /// A connection comes up, or is refused.
    pub(super) fn connect(&mut self, device: usize) {
        let Some(local) = self.devices[device].dialling.take() else { return };
        let token = self.devices[device].config.token.clone();
        let token = token.as_ref().map(|token| token.reveal().to_owned());
        if token.as_ref().is_some_and(|token| self.expired_tokens.contains(token)) {
            self.count("connection refused");
            let body = br#"{"error":"the token has expired","code":"AUTH_EXPIRED"}"#.to_vec();
            let why = Disconnect::Refused { status: 401, retry_after: None, body };
            return self.lose_connection(device, local, why);
        }
        if let Way::Refused(retry_after) = self.devices[device].sockets {
            self.count("WebSocket refused");
            let status = if retry_after.is_some() { 503 } else { 426 };
            let why = Disconnect::Refused { status, retry_after, body: Vec::new() };
            return self.lose_connection(device, local, why);
        }
        if let Way::Answered(middlebox) = self.devices[device].sockets {
            self.count("handshake answered on the way");
            if let 401 | 403 = middlebox.status {
                self.count("access refused on the way");
            }
            return self.lose_connection(device, local, middlebox.refusal());
        }
        self.count("connect");
        self.turn_from_calls(device);
        let conn = self.new_conn();
        self.note(|| format!("device {device} has connection {conn}"));
        let identity =
            token.as_deref().map_or(Identity::Open, |it| Identity::Known(user_with_claims(it)));
        let owner = Owner::Device(device);
        let turns = self.config.capacities.len().max(1);
        let turn = usize::try_from(conn.0).unwrap_or(0) % turns;
        let capacity = self.config.capacities.get(turn).copied().unwrap_or(1 << 16);
        self.devices[device].links.insert(local, conn);
        self.owners.insert(conn, owner);
        let carried = self.config.carried.unwrap_or(usize::MAX);
        self.links.insert(conn, Link::new(owner, local, capacity, carried));
        self.bears(conn, token.as_deref());
        self.serve_input(HubInput::Accepted { conn, identity });
        self.with(device, |replica, now, actions| {
            replica.handle(now, Input::Connected { conn: local }, actions);
        });
    }

    pub(super) fn deliver_up(&mut self, conn: ConnId) {
        if self.breaks_by_next(conn, true) {
            return;
        }
        let Some(frame) = self.links.get_mut(&conn).and_then(|link| link.up.pop_front()) else {
            return;
        };
        self.count("frames up");
        self.note(|| format!("{conn} > {}", String::from_utf8_lossy(&frame)));
        if self.links[&conn].device_end || self.trace.is_none() {
            self.look_at_frame_up(&frame);
        }
        self.tell(conn, SessionInput::Frame(&frame));
    }

    pub(super) fn look_at_frame_up(&mut self, frame: &[u8]) {
        let has = |text: &[u8]| frame.windows(text.len()).any(|part| part == text);
        if has(b"\"resume\":") {
            let snapshot = has(b"\"snapshotSeq\":");
            self.count(if snapshot { "resumed snapshot" } else { "resumed delta" });
        }
        self.look_at_page_size(frame);
    }

    pub(super) fn deliver_down(&mut self, conn: ConnId) {
        if self.breaks_by_next(conn, false) {
            return;
        }
        let Some(link) = self.links.get_mut(&conn) else { return };
        let Some(frame) = link.down.pop_front() else { return };
        // the socket has room again
        link.awake = true;
        let (owner, local) = (link.owner, link.local);
        self.count("frames down");
        self.note(|| format!("{conn} < {}", String::from_utf8_lossy(&frame)));
        match owner {
            Owner::Device(device) => {
                let input = Input::Frame { conn: local, frame: &frame };
                let parked = self.devices[device].replica.deferred();
                self.with(device, |replica, now, actions| replica.handle(now, input, actions));
                if self.devices[device].replica.deferred() > parked {
                    self.count("parked change");
                }
            }
            Owner::Plain(plain) => self.hear_plain(plain, conn, &frame),
        }
        self.sweep_links();
    }

    // --- what the network does ---

    /// Connections whose owner still has its end.
    #[must_use]
    pub fn connected(&self) -> Vec<ConnId> {
        self.links.iter().filter(|(_, link)| link.device_end).map(|(conn, _)| *conn).collect()
    }

    /// Connections whose owner is gone, while the server goes on with what it got.
    #[must_use]
    pub fn half_open(&self) -> Vec<ConnId> {
        let half = |link: &Link| !link.device_end && link.server_end;
        self.links.iter().filter(|(_, link)| half(link)).map(|(conn, _)| *conn).collect()
    }

    /// An owner loses a connection with what was on its way down. What was on its way up may still
    /// arrive.
    pub fn cut(&mut self, conn: ConnId) {
        let Some(link) = self.links.get(&conn) else { return };
        let (owner, local) = (link.owner, link.local);
        self.count("cut");
        self.note(|| format!("connection {conn} is cut"));
        match owner {
            Owner::Device(device) => {
                let why = Disconnect::Lost("cut".into());
                self.lose_connection(device, local, why);
            }
            Owner::Plain(_) => {
                if let Some(link) = self.links.get_mut(&conn) {
                    link.device_end = false;
                }
            }
        }
        self.sweep_links();
    }

    /// From now on every byte of a connection vanishes, and nobody is told.
    pub fn silence(&mut self, conn: ConnId) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        (link.silent, link.awake) = (true, true);
        link.up.clear();
        link.down.clear();
        self.count("silent connection");
        self.note(|| format!("the bytes of connection {conn} vanish"));
    }

    /// Returns `true` if nothing comes through a connection any more, although the server does not
    /// know.
    #[must_use]
    pub fn is_dead(&self, conn: ConnId) -> bool {
        self.links.get(&conn).is_none_or(|link| link.silent || !link.device_end)
    }

    /// The server loses a connection with what was on its way up.
    pub fn forget(&mut self, conn: ConnId) {
        self.count("tail lost");
        self.note(|| format!("the server loses {conn}"));
        self.lose_server_end(conn);
        self.sweep_links();
    }

    /// The server has closed connections; their owners see the end after the last frame, where
    /// they are not deaf.
    pub(super) fn sweep_links(&mut self) {
        let ended: Vec<_> = self
            .links
            .iter()
            .filter(|(_, link)| !link.server_end && link.device_end)
            .filter(|(_, link)| link.down.is_empty() && !link.silent)
            .map(|(conn, _)| *conn)
            .collect();
        for conn in ended {
            self.cut(conn);
        }
        self.links.retain(|_, link| link.server_end || link.device_end);
    }
}
