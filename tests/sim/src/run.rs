//! One run: a walk through a world, drawn from a byte string, then everything heals and must
//! converge.
#![allow(clippy::wildcard_enum_match_arm, reason = "only a few of the many events matter here")]

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use synclayer_core::{
    CommitNumber, ConnId, ErrorCode, Event, EventKind, MemoryClientStore, StoreError,
    StoreErrorKind,
};

use crate::draw::{Draw, HEADER, STEP};
use crate::guarantees::{Ledger, bounded, hot, read_your_writes};
use crate::invariants::{Findings, Invariant};
use crate::plan::{Plan, Rights, Strategy, collections};
use crate::world::{Backup, CommitFate, History, Middlebox, Move, Waking, Way, World};

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

/// A run under way.
pub(crate) struct Run {
    pub(crate) plan: Plan,
    pub(crate) world: World,
    pub(crate) ledger: Ledger,
    pub(crate) rights: Arc<Rights>,
    pub(crate) backup: Option<Backup>,
    /// The database that the server had before the present one, or will have.
    pub(crate) other: Option<Backup>,
    /// An older directory of a device, and how much had been written when it was made.
    pub(crate) copy: Option<(usize, MemoryClientStore, u64)>,
    /// Tokens for the server that were handed out.
    fresh_tokens: usize,
    seen_events: Vec<usize>,
    /// True if everything has healed, and every right has come back.
    healed: bool,
}

impl Run {
    fn new(bytes: &[u8]) -> Self {
        let plan = Plan::of(bytes);
        let rights = Arc::new(Rights { partial: plan.partial, ..Rights::default() });
        let mut world = World::new(plan.world(&rights));
        if plan.rates.plain > 0 {
            let user = plan.users.then_some("owner");
            world.add_plain(user);
            world.add_plain(user);
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
            if index % 16 == 0 {
                let device = index / 16 % self.world.devices.len();
                let read = read_your_writes(&self.ledger, &self.world, device);
                self.ledger.keep(Invariant::ReadYourWrites, read)?;
                self.ledger.keep(Invariant::Bounded, bounded(&self.world))?;
            }
        }
        self.converge()
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
                self.fresh_tokens += 1;
                let token =
                    format!("{}#{}", self.world.devices[device].config.user, self.fresh_tokens);
                self.world.set_token(device, &token);
            }
        }
        for (invariant, what) in &self.world.broken {
            self.ledger.keep(*invariant, Err(what.clone()))?;
        }
        Ok(())
    }

    fn converge(&mut self) -> Result<(), String> {
        self.rights.guests_read_only.store(false, Ordering::Relaxed);
        self.rights.guests_barred.store(false, Ordering::Relaxed);
        self.healed = true;
        self.restart_halted();
        self.world.heal();
        if self.plan.subscriptions < collections().len() {
            self.world.allow_subscriptions(collections().len());
        }
        if let Some(way) = self.plan.sockets_at_last {
            for device in self.world.devices.iter_mut().filter(|device| device.config.http) {
                device.sockets = way;
            }
        }
        for device in 0..self.world.devices.len() {
            for collection in collections() {
                self.world.subscribe(device, &collection, true);
            }
        }
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

    fn step(&mut self, index: usize, draw: &mut Draw<'_>) -> Result<(), String> {
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
        } else if is(of_fault(rates.restore)) {
            self.restore(draw)?;
        } else if is(of_fault(rates.subscription)) {
            let device = self.device(draw);
            let collection = &collections()[draw.below(2)];
            let wanted = draw.below(2) == 0;
            if draw.one_in(2) {
                self.world.ask_synced(device);
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

    pub(crate) fn device(&self, draw: &mut Draw<'_>) -> usize {
        draw.below(self.world.devices.len())
    }

    fn cut(&mut self, draw: &mut Draw<'_>) {
        let half_open = self.world.half_open();
        let (conns, forget) = match draw.below(2) {
            1 if !half_open.is_empty() => (half_open, true),
            _ => (self.world.connected(), false),
        };
        let Some(conn) = draw.pick(&conns) else { return };
        if forget { self.world.forget(conn) } else { self.world.cut(conn) }
    }

    fn partition(&mut self, draw: &mut Draw<'_>) {
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
    fn block(&mut self, draw: &mut Draw<'_>) {
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
    fn meet_middlebox(&mut self, draw: &mut Draw<'_>) {
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
            _ if middlebox.imitates_a_plain_server() => {}
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
    fn trouble_call(&mut self, draw: &mut Draw<'_>) {
        let Some(call) = draw.pick(&self.world.open_calls()) else { return };
        let arrives = draw.below(2) == 1;
        let wait = Duration::from_secs(draw.below(90) as u64);
        match draw.below(8) {
            0..=2 => self.world.lose_call(call, arrives),
            3 => self.world.stall_call(call),
            4 => self.world.delay_call(call),
            5 => self.world.answer_instead(call, 503, Some(wait), arrives),
            6 => self.world.answer_instead(call, 429, Some(wait), false),
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

    fn trouble_disk(&mut self, draw: &mut Draw<'_>) {
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

    fn trouble_server_disk(&mut self, draw: &mut Draw<'_>) {
        if self.world.is_poisoned() {
            return self.world.crash_server();
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

    fn trouble_clock(&mut self, draw: &mut Draw<'_>) {
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

    fn expire_token(&mut self, draw: &mut Draw<'_>) {
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
    fn restore(&mut self, draw: &mut Draw<'_>) -> Result<(), String> {
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
        let store = self.world.devices[device].replica.store().clone().reopen();
        self.copy = Some((device, store, self.ledger.next_token()));
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
        let backup = self.backup.take().filter(|backup| backup.is_of(&present)).unwrap_or(present);
        self.world.repair_server(&backup, draw);
        self.forget_lost(&before);
        Ok(())
    }

    /// Marks the writes that the server took and no longer has: they will not come again.
    fn forget_lost(&mut self, before: &History) {
        let after = self.world.histories().present();
        self.ledger.forget(|token, write| {
            let field = format!("t{token}");
            let holds = |record: Option<&synclayer_core::Document>| {
                record.is_some_and(|record| record.get(&field).is_some())
            };
            holds(before.now(&write.place)) && !holds(after.now(&write.place))
        });
    }

    /// Restores a copy: writes of the device since are lost, unless the server has them. The copy
    /// comes back in its place, or runs beside it.
    pub(crate) fn restore_device(&mut self, beside: bool) {
        let Some((device, store, first)) = self.copy.clone() else { return };
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
            let there = present.now(&write.place).and_then(|r| r.get(&format!("t{token}")));
            write.device == device && token >= first && there.is_none()
        });
        self.ledger.restarted(device);
    }

    /// One thing that goes its way, perhaps only in part.
    fn advance(&mut self, draw: &mut Draw<'_>) {
        let moves = self.world.moves();
        let Some(one) = draw.pick(&moves) else { return };
        if self.world.device_of(one) == Some(self.plan.lazy) && !draw.one_in(8) {
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
            Move::Connect(_) | Move::Up(_) | Move::Down(_) | Move::Ask(_) | Move::Reply(_) => {
                self.world.make(one);
            }
        }
    }

    /// Cuts every connection of a device that it believes in.
    pub(crate) fn cut_device(&mut self, device: usize) {
        for conn in self.world.connections_of(device) {
            self.world.cut(conn);
        }
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
