//! One run: a walk through a world, drawn from a byte string, then everything heals and must
//! converge.
#![allow(clippy::wildcard_enum_match_arm, reason = "only a few of the many events matter here")]

mod faults;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use synclayer_core::{ConnId, ErrorCode, Event, EventKind, MemoryClientStore};

use crate::draw::{Draw, HEADER, STEP};
use crate::guarantees::{
    Known, Ledger, bounded, holds_what_is_shown, hot, read_your_writes, watchers_show_what_is_held,
};
use crate::invariants::{Findings, Invariant};
use crate::plan::{Plan, Rights, Strategy, collections};
use crate::ruling::renewed;
use crate::scoping::filter;
use crate::world::{Backup, Move, Waking, World};

/// The outcome of a run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// Virtual time that passed, in milliseconds.
    pub simulated_ms: u64,
    /// Writes of apps.
    pub writes: u64,
    /// Counts of events, by name.
    pub counts: BTreeMap<&'static str, u64>,
    /// A digest of everything that was said.
    pub said: u64,
    /// The same, with the final states.
    pub digest: u64,
}

/// Runs a byte string.
///
/// # Errors
/// Says which guarantee is broken.
pub fn run(bytes: &[u8]) -> Result<Outcome, String> {
    let mut run = Run::new(bytes);
    run.go(bytes)?;
    Ok(run.outcome())
}

/// Runs a byte string to its end whatever is broken on the way, and says what is.
#[must_use]
pub fn examine(bytes: &[u8]) -> BTreeMap<Invariant, String> {
    let mut run = Run::new(bytes);
    run.ledger.findings = Findings::new(true);
    let gone = catch_unwind(AssertUnwindSafe(|| run.go(bytes)));
    if gone.is_err() {
        let _ = run.ledger.keep(Invariant::Contract, Err("a machine's own check fails".into()));
    }
    run.ledger.findings.all().clone()
}

/// Runs a byte string, and shows everything that happens, a line each.
#[must_use]
pub fn transcript(bytes: &[u8]) -> Vec<String> {
    let mut run = Run::new(bytes);
    run.world.trace = Some(Vec::new());
    let plan = format!("{:#?}", run.plan);
    let outcome = run.go(bytes);
    let mut lines: Vec<_> = plan.lines().map(str::to_owned).collect();
    lines.append(&mut run.world.trace.take().unwrap_or_default());
    match outcome {
        Ok(()) => lines.push("every guarantee holds".into()),
        Err(broken) => lines.push(format!("BROKEN: {broken}")),
    }
    lines
}

/// A copy of a device's directory.
#[derive(Clone)]
pub(crate) struct DeviceCopy {
    pub(crate) device: usize,
    store: MemoryClientStore,
    known: Known,
}

/// A run under way.
pub(crate) struct Run {
    pub(crate) plan: Plan,
    pub(crate) world: World,
    pub(crate) ledger: Ledger,
    pub(crate) rights: Arc<Rights>,
    pub(crate) backup: Option<Backup>,
    /// The database that the server had before the present one, or will have.
    pub(crate) other: Option<Backup>,
    pub(crate) copy: Option<DeviceCopy>,
    /// Tokens for the server that were handed out.
    pub(crate) fresh_tokens: usize,
    seen_events: Vec<usize>,
    /// True if everything has healed, and every right has come back.
    healed: bool,
}

impl Run {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Self::of(Plan::of(bytes))
    }

    pub(crate) fn of(plan: Plan) -> Self {
        let rights = Arc::new(Rights { partial: plan.partial, ..Rights::default() });
        let mut world = World::new(plan.world(&rights));
        if let Some(ruling) = &plan.ruling {
            world.watch_rights(ruling.rulebook);
        }
        if plan.rates.plain > 0 {
            let user = plan.stranger();
            let user = user.as_deref();
            world.add_plain(user);
            world.add_plain(user);
            if plan.scoping.is_some() {
                world.add_plain_with(user, filter());
            }
        }
        let ledger = Ledger::new(&plan);
        let (backup, other, copy) = (None, None, None);
        let (fresh_tokens, seen_events, healed) = (0, Vec::new(), false);
        Self { plan, world, ledger, rights, backup, other, copy, fresh_tokens, seen_events, healed }
    }

    fn go(&mut self, bytes: &[u8]) -> Result<(), String> {
        let steps = bytes.get(HEADER..).unwrap_or_default();
        for (index, bytes) in steps.chunks(STEP).enumerate() {
            self.step(index, &mut Draw::new(bytes))?;
            self.look()?;
            self.look_at_rights()?;
            if index % 16 == 0 {
                let device = index / 16 % self.world.devices.len();
                let read = read_your_writes(&self.ledger, &self.world, device);
                self.ledger.keep(Invariant::ReadYourWrites, read)?;
                self.ledger.keep(Invariant::Bounded, bounded(&self.world))?;
                for collection in collections() {
                    let shown = watchers_show_what_is_held(&self.world, device, &collection);
                    self.ledger.keep(Invariant::Watchers, shown)?;
                }
            }
        }
        self.converge()
    }

    /// Looks whether everybody holds what they may read.
    fn look_at_rights(&mut self) -> Result<(), String> {
        for device in 0..self.world.devices.len() {
            let holds = holds_what_is_shown(&mut self.world, device);
            self.ledger.keep(Invariant::RightsFollowed, holds)?;
        }
        Ok(())
    }

    fn outcome(&mut self) -> Outcome {
        for event in self.world.devices.iter().flat_map(|device| &device.events) {
            let point = match &event.kind {
                EventKind::ConflictDetected { .. } => "conflict",
                EventKind::ResolverFailed { .. } => "resolver failed",
                EventKind::ServerLostChanges { .. } => "server lost changes",
                EventKind::RecordsMissing { .. } => "records missing",
                EventKind::DifferentDatabase { .. } => "different database",
                EventKind::ReplicaCopied { .. } => "replica copied",
                EventKind::ChecksumMismatch { .. } => "checksum mismatch",
                EventKind::OperationSynced { .. } => "synced write",
                EventKind::OperationFailed { .. } => "rejected write",
                EventKind::WriteStalled { .. } => "stalled write",
                EventKind::TokenNeeded { .. } => "token needed",
                _ => continue,
            };
            *self.world.counts.entry(point).or_default() += 1;
        }
        Outcome {
            simulated_ms: self.world.now.mono.0,
            writes: self.ledger.writes().len() as u64,
            counts: std::mem::take(&mut self.world.counts),
            said: self.world.said(),
            digest: self.world.digest(),
        }
    }

    /// Looks at what has happened, and does what apps do about it.
    pub(crate) fn look(&mut self) -> Result<(), String> {
        self.ledger.observe(&mut self.world)?;
        self.seen_events.resize(self.world.devices.len(), 0);
        for device in 0..self.world.devices.len() {
            let events = &self.world.devices[device].events;
            let new = &events[self.seen_events[device]..];
            // what can't be served now is asked for again by itself, and not at once
            let is_refusal = |e: &Event| match &e.kind {
                EventKind::SyncFailed { code, .. } => {
                    !matches!(code, ErrorCode::RateLimitExceeded | ErrorCode::ServerError)
                }
                _ => false,
            };
            // what the server said before the rights came back
            let refused = self.healed && new.iter().any(is_refusal);
            // what is not the server's word passes by itself
            let needs =
                |e: &Event| matches!(e.kind, EventKind::TokenNeeded { by_server: true, .. });
            let needs = new.iter().any(needs);
            self.seen_events[device] = events.len();
            if refused {
                self.world.sync_now(device);
            }
            if needs {
                self.renew_token(device);
            }
        }
        for (invariant, what) in &self.world.broken {
            self.ledger.keep(*invariant, Err(what.clone()))?;
        }
        Ok(())
    }

    /// The app of a device gives a token in the place of the one that has ended.
    fn renew_token(&mut self, device: usize) {
        self.fresh_tokens += 1;
        let config = &self.world.devices[device].config;
        let old = config.token.as_ref().map_or(&*config.user, |token| token.reveal());
        let token = renewed(old, self.fresh_tokens);
        self.world.set_token(device, &token);
    }

    fn converge(&mut self) -> Result<(), String> {
        self.rights.guests_read_only.store(false, Ordering::Relaxed);
        self.rights.guests_barred.store(false, Ordering::Relaxed);
        self.bar_nobody();
        self.healed = true;
        self.world.heal();
        self.restart_halted();
        // each scope counts as one
        let needed = if self.plan.scoping.is_some() { 64 } else { collections().len() };
        if self.plan.subscriptions < needed {
            self.world.allow_subscriptions(needed);
        }
        if self.plan.caps.clients.is_some() {
            self.world.allow_clients();
        }
        self.world.build_scopes();
        if let Some(way) = self.plan.sockets_at_last {
            for device in self.world.devices.iter_mut().filter(|device| device.config.http) {
                device.sockets = way;
            }
        }
        for device in 0..self.world.devices.len() {
            for collection in collections() {
                if !self.world.devices[device].may_hold_scopes(&collection) {
                    self.world.subscribe(device, &collection, true);
                }
            }
        }
        self.use_scopes_at_last();
        // an app whose rights have come back asks again for what was refused
        for device in 0..self.world.devices.len() {
            if self.world.devices[device].is_refused() {
                self.world.sync_now(device);
            }
        }
        for plain in 0..self.world.plains.len() {
            self.world.connect_plain(plain);
        }
        // by itself, also where nothing but polls gets through
        if !self.come_to_rest(World::is_in_step)? {
            return self.ledger.audit(&mut self.world, false);
        }
        // one who polls sees what others did when it asks the next time
        for _ in 0..6 {
            let heads = self.world.heads();
            if !self.ask_everyone()? {
                return self.ledger.audit(&mut self.world, false);
            }
            if self.answer_losses()? == 0 && self.world.heads() == heads {
                return self.ledger.audit(&mut self.world, true);
            }
        }
        let restless = Err("the devices go on writing, although no app does".into());
        self.ledger.keep(Invariant::Convergence, restless)?;
        self.ledger.audit(&mut self.world, false)
    }

    /// Everybody asks to be in step. Says whether everybody was told.
    fn ask_everyone(&mut self) -> Result<bool, String> {
        let asked: Vec<_> =
            (0..self.world.devices.len()).map(|device| self.world.ask_synced(device)).collect();
        let answers = |world: &World, device: usize, id| {
            world.devices[device].synced.iter().filter(|(told, _)| *told == id).count()
        };
        let told = |world: &World| {
            let mut asked = asked.iter().enumerate();
            world.is_quiet() && asked.all(|(device, id)| answers(world, device, *id) > 0)
        };
        if !self.come_to_rest(told)? {
            return Ok(false);
        }
        let twice = |device: usize| answers(&self.world, device, asked[device]) > 1;
        if let Some(device) = (0..asked.len()).find(|device| twice(*device)) {
            let twice = Err(format!("device {device}: a call of synced() was answered twice"));
            self.ledger.keep(Invariant::Contract, twice)?;
        }
        Ok(true)
    }

    fn restart_halted(&mut self) {
        for device in 0..self.world.devices.len() {
            if self.world.devices[device].has_halted() {
                let (_, durable) = self.world.commits(device);
                self.restart(device, durable);
            }
        }
    }

    /// As [`World::converge`], with an eye on everything. Says whether it has.
    fn come_to_rest(&mut self, is_at_rest: impl Fn(&World) -> bool) -> Result<bool, String> {
        let end = self.world.now.mono.0 + 600_000;
        loop {
            self.drive(200_000, |_, _| true)?;
            self.ledger.keep(Invariant::Contract, self.world.check_idle())?;
            if self.answer_losses()? > 0 {
                continue;
            }
            if is_at_rest(&self.world) {
                return Ok(true);
            }
            self.restart_halted();
            if self.world.now.mono.0 > end {
                let devices = self.world.devices.iter();
                let status: Vec<_> = devices.map(|device| device.replica.status()).collect();
                let late = Err(format!("no rest within ten minutes: {status:?}"));
                return self.ledger.keep(Invariant::Convergence, late).map(|()| false);
            }
            self.world.pass(self.world.until_deadline().unwrap_or(1_000).clamp(1, 30_000));
            self.look()?;
        }
    }

    /// Makes moves that are allowed until there is none left, or `limit` were made.
    pub(crate) fn drive(
        &mut self,
        limit: usize,
        allow: impl Fn(&World, Move) -> bool,
    ) -> Result<(), String> {
        for turn in 0..limit {
            let mut moves = self.world.moves();
            moves.retain(|one| allow(&self.world, *one));
            if moves.is_empty() {
                return Ok(());
            }
            self.world.make(moves[turn % moves.len()]);
            self.look()?;
        }
        Ok(())
    }

    // --- the walk ---

    pub(crate) fn step(&mut self, index: usize, draw: &mut Draw<'_>) -> Result<(), String> {
        let stormy = self.plan.storms >> (index / 32 % 16) & 1 == 1;
        let of_fault = |rate: usize| if stormy { 2 * rate } else { rate.div_ceil(2) };
        let rates = self.plan.rates;
        let mut roll = draw.below(1000);
        let mut is = |rate: usize| {
            let hit = roll < rate;
            roll = roll.saturating_sub(rate);
            // a roll that was used up must not hit again
            if hit {
                roll = usize::MAX;
            }
            hit
        };
        if is(of_fault(rates.cut)) {
            self.cut(draw);
        } else if is(of_fault(rates.silence)) {
            let conns = self.world.connected();
            draw.pick(&conns).into_iter().for_each(|conn| self.world.silence(conn));
        } else if is(of_fault(rates.partition)) {
            self.partition(draw);
        } else if is(of_fault(rates.late)) {
            let device = self.device(draw);
            self.world.deliver_late(device);
        } else if is(of_fault(rates.crash)) {
            let device = self.device(draw);
            self.crash(device, draw);
        } else if is(of_fault(rates.server_crash)) {
            if draw.one_in(3) { self.world.shut_server_down() } else { self.world.crash_server() }
        } else if is(of_fault(rates.disk)) {
            self.trouble_disk(draw);
        } else if is(of_fault(rates.server_disk)) {
            self.trouble_server_disk(draw);
        } else if is(of_fault(rates.clock)) {
            self.trouble_clock(draw);
        } else if is(of_fault(rates.sleep)) {
            let device = self.device(draw);
            self.world.devices[device].asleep ^= true;
        } else if is(of_fault(rates.token)) {
            self.expire_token(draw);
        } else if is(of_fault(rates.rights)) {
            self.world.count("rights");
            let rights = [&self.rights.guests_read_only, &self.rights.guests_barred];
            rights[draw.below(2)].fetch_xor(true, Ordering::Relaxed);
        } else if is(of_fault(rates.sweep)) {
            let retention = Duration::from_millis(draw.below(60_000) as u64);
            self.world.sweep(retention, draw.within(1, 20));
        } else if is(self.plan.scoping.map_or(0, |scoping| scoping.rate)) {
            self.change_scopes(draw);
        } else if is(self.plan.ruling.map_or(0, |ruling| ruling.rate)) {
            self.change_rights(draw);
        } else if is(of_fault(rates.restore)) {
            self.end_groups()?;
            self.restore(draw)?;
        } else if is(of_fault(rates.subscription)) {
            let device = self.device(draw);
            let collection = &collections()[draw.below(2)];
            let wanted = draw.below(2) == 0;
            if draw.one_in(2) {
                self.world.ask_synced(device);
            } else if self.world.devices[device].may_hold_scopes(collection) {
                self.change_scopes(draw);
            } else if self.plan.keep_seconds > 0 && !wanted {
                self.world.release(device, collection);
            } else {
                self.world.subscribe(device, collection, wanted);
            }
        } else if is(of_fault(rates.plain)) {
            self.plain(draw);
        } else if is(of_fault(rates.rest)) {
            self.rest(draw);
        } else if is(of_fault(rates.block)) {
            self.block(draw);
        } else if is(of_fault(rates.call)) {
            self.trouble_call(draw);
        } else if is(of_fault(rates.sign_out)) {
            self.end_groups()?;
            self.sign_out(draw);
        } else if is(of_fault(rates.foreign)) {
            let conns = self.world.connected();
            if let Some(conn) = draw.pick(&conns) {
                self.world.speak_of_foreign(conn, draw.below(64));
            }
        } else if is(of_fault(rates.middlebox)) {
            self.meet_middlebox(draw);
        } else if is(of_fault(rates.suspend)) {
            let (device, waking) = (self.device(draw), draw.below(3));
            let waking = [Waking::Online, Waking::SyncNow, Waking::Clocks][waking];
            let millis = [11_000, 20_000, 70_000, 9_000][draw.below(4)];
            // a sleep that the network does not notice
            let outlived = waking == Waking::SyncNow;
            self.world.sleep_and_wake(device, millis, waking, outlived);
        } else if is(rates.schedule) {
            self.schedule(draw)?;
        } else if is(rates.write) {
            self.write_anywhere(draw)?;
        } else if is(rates.time) {
            let millis = self.world.until_deadline().unwrap_or(10).min(3_000);
            let longer = if draw.one_in(8) { 20_000 } else { 1 };
            self.world.pass(draw.below(usize::try_from(millis).unwrap_or(0) + longer) as u64);
        } else if is(20) {
            let device = self.device(draw);
            for collection in self.world.to_take(device) {
                self.ledger.take(&mut self.world, device, &collection)?;
            }
        } else {
            for _ in 0..draw.within(1, 4) {
                self.advance(draw);
                self.look()?;
            }
        }
        Ok(())
    }

    /// Lets everyone hear of all that has happened, before somebody becomes another.
    fn end_groups(&mut self) -> Result<(), String> {
        self.world.end_groups();
        self.look()
    }

    pub(crate) fn device(&self, draw: &mut Draw<'_>) -> usize {
        draw.below(self.world.devices.len())
    }

    /// The connection that a device counts on now.
    pub(crate) fn connection(&self, device: usize) -> Option<ConnId> {
        self.world.connections_of(device).pop()
    }

    /// Returns the contested field of a record, as a device's app sees it.
    pub(crate) fn hot_seen(&self, device: usize, place: &crate::world::Place) -> u64 {
        hot(self.world.view(device, &place.0, &place.1).as_ref()).1
    }

    pub(crate) fn sums(&self) -> bool {
        self.plan.strategy == Strategy::Sum
    }
}
