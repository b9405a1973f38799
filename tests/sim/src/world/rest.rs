//! The end of a run: everything heals, comes to rest, and is compared.

use synclayer_core::testing::{Checked, InspectReplica, SimulatedDisk};
use synclayer_core::{Collection, ConnId, StoreError, StoreErrorKind, SyncId};

use super::World;
use super::http::Way;
use super::link::Link;

impl World {
    /// Ends every fault: whatever is broken heals, but for what was lost. A device that has stopped
    /// because its disk failed still has to be started again: whoever keeps account of what its app
    /// was shown and told has to know of that.
    pub fn heal(&mut self) {
        self.note(|| "everything heals".into());
        self.healed = true;
        self.end_groups();
        self.store.paused = false;
        if self.store.poisoned {
            self.crash_server();
        }
        for conn in self.half_open() {
            self.forget(conn);
        }
        for device in 0..self.devices.len() {
            let this = &mut self.devices[device];
            (this.disk_paused, this.cut_off, this.asleep) = (false, false, false);
            let answered = |way: &Way| matches!(way, Way::Answered(_));
            let had_middlebox = [this.sockets, this.calls].iter().any(answered);
            (this.sockets, this.calls) = (Way::Open, Way::Open);
            this.late.clear();
            let never = StoreError::new(StoreErrorKind::Other, "never");
            this.replica.store_mut().fail_commit(u64::MAX, never);
            if had_middlebox {
                self.count("middlebox gone at the end");
            }
            if self.devices[device].offline {
                self.set_online(device, true);
            }
        }
    }

    /// Lets moves happen until there is none left, and calls `look` after each.
    ///
    /// # Errors
    /// As `look` says; or names what broke.
    pub fn settle(
        &mut self,
        look: &mut dyn FnMut(&mut Self) -> Result<(), String>,
    ) -> Result<(), String> {
        // far more than any world of ours needs without time passing
        for turn in 0..200_000_usize {
            let moves = self.moves();
            let Some(one) = (!moves.is_empty()).then(|| moves[turn % moves.len()]) else {
                return self.check_idle();
            };
            self.make(one);
            look(self)?;
            self.check_unbroken()?;
        }
        Err("the world does not come to rest, although no time passes".into())
    }

    /// The first breach, if there is one.
    ///
    /// # Errors
    /// That.
    pub fn check_unbroken(&self) -> Result<(), String> {
        match self.broken.first_key_value() {
            Some((invariant, what)) => Err(format!("{invariant}: {what}")),
            None => Ok(()),
        }
    }

    /// Returns `true` if nothing sleeps that has something to send.
    ///
    /// # Errors
    /// Names what sleeps.
    pub fn check_idle(&self) -> Result<(), String> {
        let hub = &self.server.hub;
        hub.check().expect("its invariants hold");
        let asleep = |(conn, link): &(&ConnId, &Link)| {
            !link.silent && link.room() > 0 && hub.needs_room(**conn)
        };
        match self.links.iter().find(asleep) {
            Some((conn, _)) => {
                Err(format!("{conn} has something to say, and nothing will wake it"))
            }
            None => Ok(()),
        }
    }

    /// Lets everything come to rest, after all faults have [ended](Self::heal).
    ///
    /// # Errors
    /// Says what breaks, or does not come to rest within ten virtual minutes.
    pub fn converge(
        &mut self,
        look: &mut dyn FnMut(&mut Self) -> Result<(), String>,
    ) -> Result<(), String> {
        self.come_to_rest(look, &Self::is_quiet)?;
        // one who polls sees what others did when it asks the next time
        for _ in 0..6 {
            let heads = self.heads();
            let polls = |device: &usize| !self.devices[*device].has_socket();
            let pollers: Vec<_> = (0..self.devices.len()).filter(polls).collect();
            let asked: Vec<_> =
                pollers.into_iter().map(|device| (device, self.ask_synced(device))).collect();
            self.come_to_rest(look, &|world| {
                let told = |(device, id): &(usize, SyncId)| world.devices[*device].is_told(*id);
                world.is_quiet() && asked.iter().all(told)
            })?;
            if self.heads() == heads {
                return Ok(());
            }
        }
        Err("the devices go on writing, although no app does".into())
    }

    pub(super) fn come_to_rest(
        &mut self,
        look: &mut dyn FnMut(&mut Self) -> Result<(), String>,
        is_at_rest: &dyn Fn(&Self) -> bool,
    ) -> Result<(), String> {
        let end = self.now.mono.0 + 600_000;
        loop {
            self.settle(look)?;
            if is_at_rest(self) {
                return Ok(());
            }
            if self.now.mono.0 > end {
                let status: Vec<_> =
                    self.devices.iter().map(|device| device.replica.status()).collect();
                return Err(format!("no rest within ten minutes: {status:?}"));
            }
            self.pass(self.until_deadline().unwrap_or(1_000).clamp(1, 30_000));
            look(self)?;
        }
    }

    /// Returns `true` if every outbox is empty, and every collection of a device with a WebSocket
    /// is live.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.devices.iter().all(|device| {
            let status = device.replica.status();
            let live = |c: &Collection| status.collections.get(c).is_some_and(|c| c.live);
            let polls = !device.has_socket();
            status.pending_writes == 0 && (polls || device.collections().iter().all(live))
        })
    }

    /// Returns `true` if everything is [quiet](Self::is_quiet), and the devices that poll know
    /// every change.
    #[must_use]
    pub fn is_in_step(&self) -> bool {
        let heads = self.heads();
        self.is_quiet()
            && self.devices.iter().filter(|device| !device.has_socket()).all(|device| {
                let status = device.replica.status();
                heads.iter().all(|(collection, head)| {
                    let known = status.collections.get(collection);
                    let cursor = known.and_then(|known| known.cursor.as_ref());
                    cursor.is_some_and(|cursor| cursor.seq.0 == *head)
                })
            })
    }
}
