//! The faults of a run: of networks, disks, clocks and servers, as its bytes say.

use std::time::Duration;

use synclayer_core::testing::{InspectReplica, SimulatedDisk};
use synclayer_core::{CommitNumber, StoreError, StoreErrorKind};

use crate::draw::Draw;
use crate::invariants::Invariant;
use crate::world::{CommitFate, History, Middlebox, Move, Way};

use super::{DeviceCopy, Run};

impl Run {
    pub(super) fn cut(&mut self, draw: &mut Draw<'_>) {
        let half_open = self.world.half_open();
        let (conns, forget) = match draw.below(2) {
            1 if !half_open.is_empty() => (half_open, true),
            _ => (self.world.connected(), false),
        };
        let Some(conn) = draw.pick(&conns) else { return };
        if forget { self.world.forget(conn) } else { self.world.cut(conn) }
    }

    pub(super) fn partition(&mut self, draw: &mut Draw<'_>) {
        let device = self.device(draw);
        let cut_off = !self.world.devices[device].cut_off;
        self.world.count("partition");
        self.world.note(|| format!("device {device} is cut off: {cut_off}"));
        self.world.devices[device].cut_off = cut_off;
        if cut_off {
            for conn in self.world.connections_of(device) {
                self.world.silence(conn);
            }
        }
    }

    /// One of a device's transports gets no further, or does again; or its app has a word to say.
    pub(super) fn block(&mut self, draw: &mut Draw<'_>) {
        let device = self.device(draw);
        let way = match draw.below(8) {
            0..=2 => Way::Open,
            3 => Way::Refused(None),
            4 => Way::Refused(Some(Duration::from_millis(draw.below(60_000) as u64))),
            _ => Way::Stalled,
        };
        self.world.count("blocked transport");
        match draw.below(8) {
            0..=3 => {
                self.world.note(|| format!("WebSockets of device {device}: {way:?}"));
                self.world.devices[device].sockets = way;
                if draw.below(2) == 1 {
                    self.cut_device(device);
                }
            }
            4 | 5 => {
                self.world.note(|| format!("calls of device {device}: {way:?}"));
                self.world.devices[device].calls = way;
            }
            6 => self.world.sync_now(device),
            _ => {
                let online = self.world.devices[device].offline;
                self.world.set_online(device, online);
            }
        }
    }

    /// Something on the way answers in the server's place: everything for a while, or one call.
    pub(super) fn meet_middlebox(&mut self, draw: &mut Draw<'_>) {
        let middlebox = Middlebox::of(draw.below(91));
        match draw.below(8) {
            0..=2 => {
                let device = self.device(draw);
                if self.world.has_middlebox(device) {
                    self.world.count("middlebox gone");
                    return self.world.place_middlebox(device, None, [true, true]);
                }
                let on = [[true, true], [true, false], [false, true]][draw.below(3)];
                self.world.place_middlebox(device, Some(middlebox), on);
                if on[0] && draw.below(2) == 1 {
                    self.cut_device(device);
                }
            }
            3 | 4 => {
                if let Some(call) = draw.pick(&self.world.open_calls()) {
                    self.world.break_body(call);
                }
            }
            _ => {
                let calls = self.world.open_calls();
                let pushes: Vec<_> =
                    calls.iter().copied().filter(|call| self.world.is_push(*call)).collect();
                let calls = if pushes.is_empty() { calls } else { pushes };
                if let Some(call) = draw.pick(&calls) {
                    self.world.answer_on_the_way(call, middlebox, draw.below(2) == 1);
                }
            }
        }
    }

    /// Something happens to a call on its way, at the server, or on its way back.
    pub(super) fn trouble_call(&mut self, draw: &mut Draw<'_>) {
        let Some(call) = draw.pick(&self.world.open_calls()) else { return };
        let arrives = draw.below(2) == 1;
        let wait = Duration::from_secs(draw.below(90) as u64);
        match draw.below(8) {
            0..=2 => self.world.lose_call(call, arrives),
            3 => self.world.stall_call(call),
            4 => self.world.delay_call(call),
            5 => self.world.answer_instead(call, 503, Some(wait), arrives),
            6 => {
                let wait = (draw.below(2) == 1).then_some(wait);
                self.world.answer_instead(call, 429, wait, false);
            }
            _ => self.world.answer_instead(call, 504, None, arrives),
        }
    }

    pub(crate) fn crash(&mut self, device: usize, draw: &mut Draw<'_>) {
        let (last, durable) = self.world.commits(device);
        let back_to =
            durable.0 + draw.below(usize::try_from(last.0 - durable.0).unwrap_or(0) + 1) as u64;
        self.restart(device, CommitNumber(back_to));
    }

    pub(crate) fn restart(&mut self, device: usize, back_to: CommitNumber) {
        if self.ledger.waits_for_a_fate(device) {
            self.world.count("fate waited for in a crash");
        }
        self.ledger.crashed(device, back_to);
        self.world.crash_device(device, back_to);
        // a rejection that was not durable yet is lost, and the write goes out again
        let refused = self.world.devices[device].replica.rejected().expect("the store is sound");
        self.ledger.still_refused(device, &refused);
        let lasting = self.ledger.fates_last(device);
        // a run that goes on after the first finding keeps it; any other ends at its next look
        if let Err(broken) = lasting {
            self.world.fail(Invariant::TrueFates, broken);
        }
    }

    pub(super) fn trouble_disk(&mut self, draw: &mut Draw<'_>) {
        let device = self.device(draw);
        if self.world.devices[device].has_halted() {
            let (last, durable) = self.world.commits(device);
            let (last, durable) = (last.0.max(durable.0), durable.0);
            let lost = draw.below(usize::try_from(last - durable).unwrap_or(0) + 1) as u64;
            self.restart(device, CommitNumber(last - lost));
            return;
        }
        match draw.below(4) {
            0 | 1 => self.world.devices[device].disk_paused ^= true,
            kind => {
                let kinds = [StoreErrorKind::Other, StoreErrorKind::Full];
                let error = StoreError::new(kinds[kind - 2], "the disk has had enough");
                self.world.fail_disk(device, draw.below(6) as u64, error);
            }
        }
    }

    pub(super) fn trouble_server_disk(&mut self, draw: &mut Draw<'_>) {
        if self.world.is_poisoned() {
            return match draw.below(2) {
                0 => self.world.crash_server(),
                _ => self.world.reopen_store(),
            };
        }
        match draw.below(6) {
            0 => self.world.pause_server_disk(true),
            1 => self.world.pause_server_disk(false),
            2 => self.world.read(0, true),
            kind => {
                let fates = [CommitFate::Failed, CommitFate::DoneUnsaid, CommitFate::LostUnsaid];
                if self.world.transactions() > 0 {
                    let count = draw.within(1, self.world.transactions());
                    self.world.commit(count, fates[kind - 3]);
                }
            }
        }
    }

    pub(super) fn trouble_clock(&mut self, draw: &mut Draw<'_>) {
        self.world.count("clock trouble");
        let ahead = [0, 5_000, -5_000, 3_600_000, -3_600_000, 90_000][draw.below(6)];
        let (stops, device) = (draw.one_in(4), draw.below(self.world.devices.len() + 1));
        let now = self.world.now;
        let live = self.world.connected();
        let live = live.iter().any(|conn| self.world.connections_of(device).contains(conn));
        if device < self.world.devices.len() {
            self.world.count(if live { "clock set in a session" } else { "clock set off line" });
        }
        let clock = match self.world.devices.get_mut(device) {
            Some(device) => {
                device.clock_moves += 1;
                &mut device.clock
            }
            None => {
                self.world.server_clock_moved = true;
                &mut self.world.server_clock
            }
        };
        if stops {
            clock.stop(now)
        } else {
            clock.set(ahead)
        }
        self.world.note(|| format!("clock {device}: {ahead} ms ahead, stopped: {stops}"));
    }

    pub(super) fn expire_token(&mut self, draw: &mut Draw<'_>) {
        let device = self.device(draw);
        let token = self.world.devices[device].config.token.clone();
        if let Some(token) = token {
            self.world.expired_tokens.insert(token.reveal().to_owned());
        }
        for conn in self.world.connections_of(device) {
            self.world.expire_token(conn);
        }
    }

    /// Makes a copy of something, or lets one come back.
    pub(super) fn restore(&mut self, draw: &mut Draw<'_>) -> Result<(), String> {
        match draw.below(10) {
            5 => self.exchange_database()?,
            6 | 7 => {
                let device = self.device(draw);
                self.answer_loss(device)?;
            }
            0 => self.backup = Some(self.world.backup()),
            1 => {
                let device = self.device(draw);
                self.copy_device(device);
            }
            2 if draw.one_in(2) => self.repair_server(draw)?,
            2 | 8 | 9 => self.restore_server()?,
            _ => self.restore_device(draw.below(2) == 1),
        }
        Ok(())
    }

    pub(crate) fn copy_device(&mut self, device: usize) {
        // which of its writes a store holds that has failed is known when it starts again
        if self.world.devices[device].has_halted() {
            return;
        }
        let store = self.world.devices[device].replica.store().clone().reopen();
        self.copy = Some(DeviceCopy { device, store, known: self.ledger.known_of(device) });
    }

    /// Restores a backup: writes that the server took since are lost, and those that it did not
    /// will still come.
    pub(crate) fn restore_server(&mut self) -> Result<(), String> {
        let Some(backup) = self.backup.clone() else { return Ok(()) };
        self.look()?;
        let before = self.world.histories().present().clone();
        self.world.restore_server(backup);
        self.forget_lost(&before);
        Ok(())
    }

    /// The server's store is damaged and repaired: any part of what it had may be lost.
    pub(crate) fn repair_server(&mut self, draw: &mut Draw<'_>) -> Result<(), String> {
        self.look()?;
        let before = self.world.histories().present().clone();
        let present = self.world.backup();
        // what is lost of the present is lost from a backup's future as well
        let backup =
            self.backup.take().filter(|backup| backup.leads_to(&present)).unwrap_or(present);
        self.world.repair_server(&backup, draw);
        self.forget_lost(&before);
        Ok(())
    }

    /// Marks the writes that the server took and no longer has: they will not come again.
    pub(crate) fn forget_lost(&mut self, before: &History) {
        let after = self.world.histories().present();
        self.ledger.forget(|token, write| {
            let field = format!("t{token}");
            let holds = |record: Option<&synclayer_core::Document>| {
                record.is_some_and(|record| record.text(&field).is_some())
            };
            holds(before.now(&write.place)) && !holds(after.now(&write.place))
        });
    }

    /// Restores a copy: writes of the device since are lost, unless the server has them. The copy
    /// comes back in its place, or runs beside it.
    pub(crate) fn restore_device(&mut self, beside: bool) {
        let Some(DeviceCopy { device, store, known }) = self.copy.clone() else { return };
        if beside && self.world.devices.len() < self.plan.devices + 2 {
            self.world.count("replica cloned");
            let config = self.world.devices[device].config.clone();
            let copy = self.world.add_device(config, store);
            self.ledger.copied(copy, device);
            return;
        }
        self.world.count("replica restored");
        self.world.restart_device(device, store);
        self.world.devices[device].restored = true;
        let present = self.world.histories().present();
        self.ledger.forget(|token, write| {
            let there = present.now(&write.place).and_then(|r| r.text(&format!("t{token}")));
            write.device == device && token >= known.end() && there.is_none()
        });
        self.ledger.restored(device, &known);
    }

    /// One thing that goes its way, perhaps only in part.
    pub(super) fn advance(&mut self, draw: &mut Draw<'_>) {
        let moves = self.world.moves();
        let Some(one) = draw.pick(&moves) else { return };
        let is_turn = !matches!(one, Move::EndGroup(_));
        if is_turn && self.world.device_of(one) == Some(self.plan.lazy) && !draw.one_in(8) {
            return;
        }
        match one {
            Move::Sync(device) => {
                let (last, durable) = self.world.commits(device);
                let more = draw.within(1, usize::try_from(last.0 - durable.0).unwrap_or(1));
                self.world.sync_disk(device, CommitNumber(durable.0 + more as u64));
            }
            Move::Commit => {
                let count = draw.within(1, self.world.transactions());
                self.world.commit(count, CommitFate::Done);
            }
            Move::Pump(conn) => self.world.pump(conn, draw.within(1, 600)),
            Move::Read => self.world.read_any(draw.below(256)),
            Move::Answer => self.world.answer_any(draw.below(256)),
            Move::Connect(_)
            | Move::EndGroup(_)
            | Move::Up(_)
            | Move::Down(_)
            | Move::Ask(_)
            | Move::Reply(_) => self.world.make(one),
        }
    }

    /// Cuts every connection of a device that it believes in.
    pub(crate) fn cut_device(&mut self, device: usize) {
        for conn in self.world.connections_of(device) {
            self.world.cut(conn);
        }
    }
}
