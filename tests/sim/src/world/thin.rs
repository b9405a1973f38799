//! Thin links: each connection carries so many bytes and then breaks, and so does a call by HTTP, also
//! when all else has healed.

use std::collections::BTreeSet;

use synclayer_core::testing::InspectReplica;
use synclayer_core::{ConnId, HttpAnswer};

use super::World;
use super::http::{CallId, Leg};
use super::link::Owner;
use crate::invariants::Invariant;

/// The most breaks in a row that may bring a device nothing new: the sizes of pages and of writes shrink
/// in three steps each, by either transport.
const FRUITLESS_BREAKS: usize = 12;

/// The places of a device at the breaks of its links, since everything else has healed.
#[derive(Default)]
pub(super) struct Places {
    seen: BTreeSet<u64>,
    /// The number of breaks in a row at which it was where it had been before.
    fruitless: usize,
}

impl World {
    /// Returns `true` if a connection breaks by its next frame up or down, of which it carries a part.
    pub(super) fn breaks_by_next(&mut self, conn: ConnId, up: bool) -> bool {
        let Some(link) = self.links.get_mut(&conn) else { return false };
        if link.carry(up) {
            return false;
        }
        let (owner, is_open) = (link.owner, link.device_end);
        if up {
            self.forget(conn);
        }
        if is_open {
            self.cut(conn);
        }
        if let Owner::Device(device) = owner {
            self.thin_link_broke(device);
        }
        true
    }

    /// Returns `true` if a call breaks by its body, or its answer's.
    pub(super) fn call_breaks(&mut self, id: CallId) -> bool {
        let (Some(call), Some(carried)) = (self.calls.get(&id), self.config.carried) else {
            return false;
        };
        let bytes = match &call.leg {
            Leg::Up => call.request.body.as_ref().map_or(0, |body| body.len()),
            Leg::Down(HttpAnswer::Answered { body, .. }) => body.len(),
            Leg::Served | Leg::Down(HttpAnswer::Failed(_)) => 0,
        };
        if bytes <= carried {
            return false;
        }
        let device = call.device;
        self.lose_call(id, false);
        self.thin_link_broke(device);
        true
    }

    /// Counts what asks for pages of a size.
    pub(super) fn look_at_page_size(&mut self, asks: &[u8]) {
        const SIZE: &[u8] = b"pageBytes";
        if asks.windows(SIZE.len()).any(|part| part == SIZE) {
            self.count("smaller pages asked for");
        }
    }

    /// **Progress:** where each connection carries enough for a page or a write, it brings something
    /// new, and nothing that has come is asked for again.
    fn thin_link_broke(&mut self, device: usize) {
        self.count("thin link broke");
        if !self.healed {
            return;
        }
        self.count("thin link broke at the end");
        let heads = self.heads();
        let this = &mut self.devices[device];
        let status = this.replica.status();
        let is_behind = heads.iter().any(|(name, head)| {
            let cursor = status.collections.get(name).and_then(|of| of.cursor.as_ref());
            cursor.is_none_or(|cursor| cursor.seq.0 < *head)
        });
        let places = &mut this.places;
        let is_new = places.seen.insert(this.replica.place_digest());
        if is_new || !is_behind && status.pending_writes == 0 {
            places.fruitless = 0;
            return;
        }
        places.fruitless += 1;
        if places.fruitless > FRUITLESS_BREAKS {
            let what = format!(
                "device {device}: {FRUITLESS_BREAKS} connections in a row broke and brought nothing new"
            );
            self.fail(Invariant::Progress, what);
        }
    }
}
