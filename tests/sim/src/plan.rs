//! The plan of a run: drawn from the head of its bytes, so that every run has its own mix of
//! faults.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use synclayer_core::{
    Access, Asker, Change, ClientConfig, Collection, Conflict, ConflictStrategy, Document,
    FieldWise, Limits, OnServerLoss, Policy, Rate, RecordId, Resolver, ResolverFailure,
    ServerLimits, Token, UserId,
};

use crate::draw::{Draw, fold_into};
use crate::ruling::Ruling;
use crate::scoping::{BARRED_ROOM, Scoping};
use crate::world::{Way, WorldConfig};

/// The strategies that a run can use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Strategy {
    /// Last write wins.
    Lww,
    /// The server wins.
    Server,
    /// The client wins.
    Client,
    /// Sums of changes.
    Sum,
    /// A resolver of an app's: both sides' additions to a list, in their order.
    Append,
    /// The same, of a resolver that fails now and then.
    Failing,
}

/// The way in which a device reaches the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// By WebSocket, and by HTTP where that fails.
    Both,
    /// By WebSocket alone.
    Socket,
    /// By HTTP alone, in polls.
    Poll,
}

/// Rates of the faults, in thousandths of the steps; 0 for those that the run is spared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rates {
    /// A connection is cut, or the server forgets one.
    pub cut: usize,
    /// A connection's bytes vanish.
    pub silence: usize,
    /// A device is cut off, or comes back.
    pub partition: usize,
    /// A late frame turns up.
    pub late: usize,
    /// A device crashes.
    pub crash: usize,
    /// The server crashes, or is shut down.
    pub server_crash: usize,
    /// A device's disk fails, is full, or pauses.
    pub disk: usize,
    /// The server's disk fails or pauses, or a read does.
    pub server_disk: usize,
    /// A clock jumps, stops or goes on.
    pub clock: usize,
    /// A device falls asleep or wakes up.
    pub sleep: usize,
    /// A token expires.
    pub token: usize,
    /// A user's rights change.
    pub rights: usize,
    /// Old tombstones are swept.
    pub sweep: usize,
    /// An older state comes back, or a copy of a device joins.
    pub restore: usize,
    /// A subscription ends or begins.
    pub subscription: usize,
    /// A level-1 program does something.
    pub plain: usize,
    /// Somebody writes by HTTP.
    pub rest: usize,
    /// A transport of a device is blocked, or comes back.
    pub block: usize,
    /// Something happens to a call by HTTP.
    pub call: usize,
    /// A server speaks of a collection that nobody uses.
    pub foreign: usize,
    /// A user signs out of a device, and comes back.
    pub sign_out: usize,
    /// Something on the way answers in the server's place, or does so no longer.
    pub middlebox: usize,
    /// A device sleeps and wakes up.
    pub suspend: usize,
    /// One of the directed schedules is played.
    pub schedule: usize,
    /// An app writes.
    pub write: usize,
    /// Time passes.
    pub time: usize,
}

/// The plan of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Replicas at the beginning.
    pub devices: usize,
    /// Replicas of the second user, whose rights differ.
    pub guests: usize,
    /// True if the server knows users.
    pub users: bool,
    /// True if guests see only some records.
    pub partial: bool,
    /// The winner of conflicts.
    pub strategy: Strategy,
    /// True if records are deleted.
    pub deletes: bool,
    /// Rates of the faults.
    pub rates: Rates,
    /// In which of sixteen phases, by turns, there are many faults; in the others there are few.
    pub storms: u16,
    /// The device that seldom gets a turn; beyond the last one, none does.
    pub lazy: usize,
    /// Writes that a device sends without a verdict.
    pub window: usize,
    /// Records in a page.
    pub page: usize,
    /// Bytes in a ring.
    pub ring: usize,
    /// Bytes on their way down a connection, by turns.
    pub capacities: [usize; 4],
    /// Collections that a connection may subscribe until everything heals.
    pub subscriptions: usize,
    /// Time for which an unused collection is kept in sync, in seconds; 0 for ever.
    pub keep_seconds: usize,
    /// Messages that a connection and a user may send in a second; 0 for any number.
    pub rate_limit: usize,
    /// The way in which each of the first devices reaches the server; those that come later are like
    /// others.
    pub reaches: [Reach; 4],
    /// The time between two polls, in seconds.
    pub poll_seconds: usize,
    /// Time limit of a call, in seconds.
    pub call_seconds: usize,
    /// The way of new WebSockets at the end, when everything else heals, of devices that have HTTP
    /// too; `None`: the server.
    pub sockets_at_last: Option<Way>,
    /// The treatment of records that the server lost, at each of the first devices.
    pub on_loss: [Option<OnServerLoss>; 4],
    /// Calls of a device that share a commit with the one before them.
    pub shared: usize,
    /// Milliseconds that the wall clock of each of the first devices is ahead at first.
    pub clocks: [i64; 4],
    /// The limits of what the server keeps.
    pub caps: Caps,
    /// Of so many writes one is a transaction; 0 for none.
    pub units: usize,
    /// The thin links of the devices, where a run has some.
    pub thin: Option<Thin>,
    /// The use of scopes, where a run has some.
    pub scoping: Option<Scoping>,
    /// The use of rules, where a run has some.
    pub ruling: Option<Ruling>,
}

/// Links that break behind a number of bytes, also when all else has healed. Each carries enough for
/// the smallest pages of both collections, and for any write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Thin {
    /// The bytes that a connection carries in each direction, and a call by HTTP.
    pub carried: usize,
    /// The bytes of a field that each record has.
    pub pad: usize,
}

/// The limits of what a server keeps, where a run has some.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Caps {
    /// Records of a collection.
    pub records: Option<u64>,
    /// Bytes of a collection.
    pub bytes: Option<u64>,
    /// Collections.
    pub collections: Option<u64>,
    /// Client ids of a user, until everything heals.
    pub clients: Option<u64>,
}

/// The collections of every run.
///
/// # Panics
/// Never: the names are valid.
#[must_use]
pub fn collections() -> Vec<Collection> {
    ["notes", "todos"].map(|name| Collection::new(name).expect("a valid name")).to_vec()
}

impl Plan {
    /// Draws a plan.
    #[must_use]
    pub fn draw(draw: &mut Draw<'_>) -> Self {
        use Strategy::{Append, Client, Lww, Server, Sum};
        let strategies = [Append, Lww, Server, Client, Append, Lww, Sum, Client];
        let strategy = strategies[draw.below(8)];
        let devices = draw.within(2, 4);
        let users = draw.one_in(2);
        let deletes = strategy != Strategy::Sum && draw.one_in(2);
        let guests = if users { draw.below(3).min(devices - 1) } else { 0 };
        let partial = guests > 0 && draw.one_in(3);
        let restores = strategy != Strategy::Sum && draw.one_in(3);
        let mut rates = Rates {
            cut: draw.rate(40),
            silence: draw.rate(10),
            partition: draw.rate(20),
            late: draw.rate(20),
            crash: draw.rate(20),
            server_crash: draw.rate(8),
            disk: draw.rate(12),
            server_disk: draw.rate(12),
            clock: draw.rate(15),
            sleep: draw.rate(10),
            token: if users { draw.rate(10) } else { 0 },
            rights: if users { draw.rate(10) } else { 0 },
            sweep: draw.rate(12),
            restore: if restores { draw.within(8, 28) } else { 0 },
            subscription: draw.rate(8),
            plain: draw.rate(30),
            rest: draw.rate(30),
            // drawn at the end, lest everything before it be drawn otherwise
            block: 0,
            call: 0,
            foreign: 0,
            sign_out: 0,
            middlebox: 0,
            suspend: 0,
            schedule: 2 * draw.rate(20),
            write: draw.within(60, 200),
            time: draw.within(10, 60),
        };
        if strategy == Strategy::Sum {
            // what has no author can't be accounted for
            (rates.plain, rates.rest) = (0, 0);
        }
        let storms = u16::try_from(draw.below(1 << 16)).unwrap_or(0);
        let mut plan = Self {
            devices,
            guests,
            users,
            partial,
            strategy,
            deletes,
            rates,
            storms,
            lazy: draw.below(devices + 2),
            window: draw.within(1, 6),
            page: draw.within(1, 4),
            ring: draw.within(200, 4000),
            capacities: [0; 4].map(|_| 1 << draw.within(8, 14)),
            rate_limit: if draw.one_in(6) { draw.within(5, 50) } else { 0 },
            subscriptions: 16,
            keep_seconds: 0,
            reaches: [Reach::Both; 4],
            poll_seconds: 0,
            call_seconds: 0,
            sockets_at_last: None,
            on_loss: [None; 4],
            shared: 0,
            clocks: [0; 4],
            caps: Caps::default(),
            units: 0,
            thin: None,
            scoping: None,
            ruling: None,
        };
        // some runs are little else than schedules, one upon the other
        if draw.one_in(6) {
            plan.rates.schedule = 120;
        }
        plan.draw_transports(draw);
        plan
    }

    fn draw_transports(&mut self, draw: &mut Draw<'_>) {
        use Reach::{Both, Poll, Socket};
        let reaches = [Both, Both, Both, Socket, Socket, Socket, Poll, Poll];
        self.reaches = [0; 4].map(|_| reaches[draw.below(8)]);
        self.poll_seconds = draw.within(3, 60);
        self.call_seconds = draw.within(4, 30);
        self.rates.block = draw.rate(12);
        self.rates.call = draw.rate(30);
        self.rates.foreign = draw.rate(12);
        self.subscriptions = if draw.one_in(5) { 1 } else { 16 };
        self.rates.sign_out = draw.rate(20);
        self.keep_seconds = if draw.one_in(2) { draw.within(1, 4) } else { 0 };
        if self.keep_seconds > 0 {
            self.rates.subscription += 15;
        }
        let ways =
            [None, None, None, None, None, None, Some(Way::Refused(None)), Some(Way::Stalled)];
        self.sockets_at_last = ways[draw.below(8)];
        if self.rates.restore > 0 {
            use OnServerLoss::{Ask, Offer};
            let kinds = [[None, Some(Ask), Some(Offer), Some(Ask)], [Some(Ask); 4], [None; 4]];
            let most = [0, 1, 1, 1, 1, 1, 2][draw.below(7)];
            self.on_loss = kinds[most];
        }
        let day = 86_400_000;
        let clocks = [0, 0, 0, 0, 3_600_000, -3_600_000, day, -day];
        self.clocks = [0; 4].map(|_| clocks[draw.below(8)]);
        if self.strategy == Strategy::Append && draw.one_in(3) {
            self.strategy = Strategy::Failing;
        }
        self.rates.middlebox = draw.rate(52);
        self.rates.suspend = draw.rate(8);
        if draw.one_in(5) {
            let caps = &mut self.caps;
            match draw.below(5) {
                0 | 1 => caps.records = Some(draw.within(1, 6) as u64),
                2 => caps.bytes = Some(draw.within(100, 2_000) as u64),
                3 => caps.collections = Some(draw.below(2) as u64),
                _ => caps.clients = Some(draw.within(1, self.devices) as u64),
            }
        }
        self.shared = [0, 0, 1, 5][draw.below(4)];
        if draw.one_in(6) {
            let pad = draw.within(500, 3_500);
            // two pages of 4 KiB end with whole records
            let least = 10_000 + 3 * pad;
            self.thin = Some(Thin { carried: draw.within(least, 2 * least), pad });
            // their size is what counts
            self.page = ServerLimits::default().page.records;
        }
        // sums are counted by write
        let units = [0, 0, 3, 8][draw.below(4)];
        self.units = if self.strategy == Strategy::Sum { 0 } else { units };
        // where sums are counted, everybody has to see them
        let has_scopes = draw.one_in(4) && self.strategy != Strategy::Sum;
        self.scoping = has_scopes.then(|| Scoping::draw(draw));
        if draw.one_in(6) && self.strategy != Strategy::Sum {
            self.rule(Ruling::draw(draw));
        }
    }

    /// The server has rules, by which everybody sees a part only.
    fn rule(&mut self, ruling: Ruling) {
        (self.users, self.guests, self.partial) = (true, 0, true);
        (self.caps, self.rates.rights) = (Caps::default(), 0);
        self.ruling = Some(ruling);
    }

    /// The plan at the head of a run's bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::draw(&mut Draw::new(&bytes[..bytes.len().min(crate::draw::HEADER)]))
    }

    /// The user of a device.
    #[must_use]
    pub fn user_of(&self, device: usize) -> &'static str {
        if self.ruling.is_some() {
            return Ruling::user_of(device);
        }
        match (self.users, device + self.guests >= self.devices) {
            (false, _) => "",
            (true, false) => "owner",
            (true, true) => "guest",
        }
    }

    /// The token with which a device starts.
    fn token_of(&self, device: usize) -> Option<Token> {
        match &self.ruling {
            Some(ruling) => Some(Token::from(&*ruling.token(device))),
            None => self.users.then(|| Token::from(self.user_of(device))),
        }
    }

    /// The token of those who are no devices.
    #[must_use]
    pub fn stranger(&self) -> Option<String> {
        match &self.ruling {
            Some(ruling) => Some(ruling.token(0)),
            None => self.users.then(|| "owner".into()),
        }
    }

    /// The strategy of the devices.
    #[must_use]
    pub fn strategy(&self) -> ConflictStrategy {
        match self.strategy {
            Strategy::Lww => ConflictStrategy::LastWriteWins,
            Strategy::Server => ConflictStrategy::ServerWins,
            Strategy::Client => ConflictStrategy::ClientWins,
            Strategy::Sum => ConflictStrategy::custom(FieldWise::sum_numbers()),
            Strategy::Append => ConflictStrategy::custom(append_logs),
            Strategy::Failing => ConflictStrategy::custom(FailingResolver),
        }
    }

    /// The world in which the plan is played.
    #[must_use]
    pub fn world(&self, rights: &Arc<Rights>) -> WorldConfig {
        let client = |device: usize| {
            let mut config = ClientConfig::default();
            config.user = self.user_of(device).into();
            config.token = self.token_of(device);
            config.collections = collections();
            config.conflict_strategy = self.strategy();
            config.window = self.window;
            config.websocket = self.reaches[device] != Reach::Poll;
            config.http = self.reaches[device] != Reach::Socket;
            config.sync_interval = Duration::from_secs(match self.reaches[device] {
                Reach::Socket => 300,
                Reach::Both | Reach::Poll => self.poll_seconds as u64,
            });
            config.request_timeout = Duration::from_secs(self.call_seconds as u64);
            config.keep_for =
                (self.keep_seconds > 0).then(|| Duration::from_secs(self.keep_seconds as u64));
            config.on_server_loss = self.on_loss[device];
            if let Some(scoping) = &self.scoping {
                scoping.configure(device, &mut config);
            }
            config
        };
        let mut config = WorldConfig::of(0, &collections());
        config.clients = (0..self.devices).map(client).collect();
        config.limits.page.records = self.page;
        config.limits.subscriptions = self.subscriptions;
        self.caps.limit(&mut config.limits.input);
        (config.ring.collection_bytes, config.ring.documents) = (self.ring, self.partial);
        config.ring.plain_whole = self.ring.is_multiple_of(2);
        config.capacities = self.capacities.to_vec();
        config.carried = self.thin.map(|thin| thin.carried);
        config.clocks = self.clocks.to_vec();
        config.shared = self.shared;
        config.policy = match &self.ruling {
            Some(ruling) => Arc::new(ruling.rulebook.rules()),
            None => rights.clone(),
        };
        config.scopes = self.scoping.map(|_| Scoping::keys()).unwrap_or_default();
        if self.rate_limit > 0 {
            let per_second = u32::try_from(self.rate_limit).unwrap_or(5);
            let rate = Rate { per_second, burst: 2 * per_second };
            (config.limits.rate, config.limits.user_rate) = (Some(rate), Some(rate));
        }
        config.limits.idle_timeout = Duration::from_secs(60);
        config
    }
}

impl Caps {
    fn limit(&self, limits: &mut Limits) {
        for (limit, cap) in [
            (&mut limits.collection_records, self.records),
            (&mut limits.collection_bytes, self.bytes),
            (&mut limits.collections, self.collections),
            (&mut limits.user_clients, self.clients),
        ] {
            *limit = cap.unwrap_or(*limit);
        }
    }
}

/// The rights in a run: guests may be kept from writing, from a collection and a scope, and from seeing
/// records with a field `hidden`.
#[derive(Debug, Default)]
pub struct Rights {
    /// True if guests may not write.
    pub guests_read_only: AtomicBool,
    /// True if guests may not read `notes`, nor one of the rooms.
    pub guests_barred: AtomicBool,
    /// True if guests see no hidden records.
    pub partial: bool,
}

fn is_guest(user: Option<&UserId>) -> bool {
    user.is_some_and(|user| user.as_str() == "guest")
}

impl Policy for Rights {
    fn read(&self, user: Option<&UserId>, collection: &Collection) -> Access {
        let barred = collection.as_str() == "notes" && self.guests_barred.load(Ordering::Relaxed);
        if barred && is_guest(user) {
            return Access::None;
        }
        if self.partial && is_guest(user) { Access::Some } else { Access::All }
    }

    fn access_to_scope(
        &self,
        by: &Asker<'_>,
        collection: &Collection,
        parts: &[(String, String)],
    ) -> Access {
        let barred = self.guests_barred.load(Ordering::Relaxed) && is_guest(by.user);
        match parts {
            [(part, value)] if barred && part == "room" && value == BARRED_ROOM => Access::None,
            _ => self.access(by, collection),
        }
    }

    fn read_record(
        &self,
        user: Option<&UserId>,
        _: &Collection,
        _: &RecordId,
        document: &Document,
    ) -> bool {
        !(is_guest(user) && document.text("hidden").is_some())
    }

    fn write(
        &self,
        user: Option<&UserId>,
        _: &Collection,
        _: &RecordId,
        _: Option<&Document>,
        change: &Change,
    ) -> Result<(), String> {
        if is_guest(user) && self.guests_read_only.load(Ordering::Relaxed) {
            return Err("guests may not write now".into());
        }
        if change.delta.set.text("forbidden").is_some() {
            return Err("nobody may write this field".into());
        }
        Ok(())
    }
}

/// A resolver of an app's that finds no answer to every third conflict or so.
struct FailingResolver;

impl Resolver for FailingResolver {
    fn resolve(&self, conflict: &Conflict<'_>) -> Option<Document> {
        append_logs(conflict)
    }

    fn try_resolve(&self, conflict: &Conflict<'_>) -> Result<Option<Document>, ResolverFailure> {
        let states = [conflict.local, conflict.remote]
            .map(|state| state.map(|it| it.to_string().into_bytes()));
        let hash = states.iter().flatten().fold(0, |hash, text| fold_into(hash, text));
        if hash % 3 == 0 {
            return Err(ResolverFailure { reason: "no answer is found".into() });
        }
        Ok(self.resolve(conflict))
    }
}

/// A resolver for lists that everyone appends to: the server's list, and behind it what was
/// appended here. Everything else is decided by the later write.
fn append_logs(conflict: &Conflict<'_>) -> Option<Document> {
    let merged = conflict.merge(conflict.local_is_later())?;
    let list = |state: Option<&Document>| -> Vec<String> {
        tokens_in(state.and_then(|state| state.text("log")).unwrap_or("[]"))
    };
    let (base, local) = (list(conflict.base), list(conflict.local));
    let mut log = match conflict.remote {
        Some(remote) => list(Some(remote)),
        None => base.clone(),
    };
    log.extend(local.into_iter().filter(|token| !base.contains(token)));
    if log.is_empty() {
        return Some(merged);
    }
    let fields: Vec<_> = merged
        .iter()
        .filter(|(name, _)| *name != "log")
        .map(|(name, text)| format!("\"{name}\":{text}"))
        .chain([format!("\"log\":[{}]", log.join(","))])
        .collect();
    Document::parse(&format!("{{{}}}", fields.join(",")), &Limits::default()).ok()
}

/// The texts of the numbers in a flat list.
#[must_use]
pub fn tokens_in(list: &str) -> Vec<String> {
    let inner = list.trim_start_matches('[').trim_end_matches(']');
    inner.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}
