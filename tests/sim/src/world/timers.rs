//! Virtual time, and the deadlines that it reaches.

use synclayer_core::{Hub, HubInput, Input, Mono, Timer};

use crate::invariants::Invariant;

use super::World;

impl World {
    /// Lets time pass. Everyone who has a deadline is called when it comes, not sooner, not later;
    /// but sleeping devices.
    pub fn pass(&mut self, millis: u64) {
        let end = self.now.mono.0 + millis;
        // nobody sleeps with a commit to come
        self.end_groups();
        while let Some(at) = self.next_deadline().filter(|at| at.0 <= end) {
            self.set_time(at.0.max(self.now.mono.0));
            self.ring_timers();
            self.end_groups();
            self.look_at_the_dead();
            // it might ask for the same time for ever
            if self.broken.contains_key(&Invariant::Contract) {
                break;
            }
        }
        self.set_time(end);
        self.look_at_the_dead();
    }

    pub(super) fn set_time(&mut self, mono: u64) {
        let millis = mono.saturating_sub(self.now.mono.0);
        self.now.mono.0 += millis;
        self.now.wall.0 += i64::try_from(millis).unwrap_or(0);
    }

    pub(super) fn ring_timers(&mut self) {
        self.time_out_calls();
        for device in 0..self.devices.len() {
            if self.due(device).is_none_or(|at| at > self.now.mono) {
                continue;
            }
            let timer = self.devices[device].replica.deadline().map(|(_, timer)| timer);
            if timer == Some(Timer::Leave) {
                self.count("left by itself");
            }
            self.with(device, |replica, now, actions| {
                replica.handle(now, Input::Timeout, actions);
            });
            if self.due(device).is_some_and(|at| at <= self.now.mono) {
                let what = format!("device {device} asks for a time-out that it just had");
                self.fail(Invariant::Contract, what);
            }
        }
        let server_now = self.server_clock.read(self.now).mono;
        let due = |hub: &Hub| hub.deadline().is_some_and(|(at, _)| at <= server_now);
        if due(&self.server.hub) {
            self.serve_input(HubInput::Timeout);
            if due(&self.server.hub) {
                let what = "the server asks for a time-out that it just had".into();
                self.fail(Invariant::Contract, what);
            }
        }
    }

    /// When a device wants to be called, by the world's clock.
    pub(super) fn due(&self, device: usize) -> Option<Mono> {
        let device = &self.devices[device];
        let (at, _) = device.replica.deadline().filter(|_| !device.asleep)?;
        Some(device.clock.when(at))
    }

    /// The next time at which someone wants to be called.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        let devices = (0..self.devices.len()).filter_map(|device| self.due(device));
        let server = self.server.hub.deadline().map(|(at, _)| self.server_clock.when(at));
        devices.chain(server).chain(self.next_patience()).min()
    }

    /// The time until the next deadline, in milliseconds.
    #[must_use]
    pub fn until_deadline(&self) -> Option<u64> {
        Some(self.next_deadline()?.0.saturating_sub(self.now.mono.0))
    }
}
