//! Random walks through a [`World`]: what devices do and what goes wrong is
//! drawn from a seed, then everything heals and must converge.

use std::collections::BTreeMap;

use synclayer_core::client::event::EventKind;
use synclayer_core::client::interface::ClientConfig;
use synclayer_core::memory::{MemoryClientStore, MemoryRows};
use synclayer_core::rules::conflict::ConflictStrategy;
use synclayer_core::rules::merge::FieldWise;
use synclayer_core::server::ring::RingLimits;
use synclayer_core::server::session::SessionConfig;
use synclayer_core::words::document::Document;
use synclayer_core::words::name::{CommitNumber, RecordId};

use crate::world::{World, WorldConfig, todos};

/// What a walk is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed of all choices.
    pub seed: u64,
    /// How many replicas there are.
    pub devices: usize,
    /// How many moves are made before everything heals.
    pub moves: usize,
    /// Whether records are deleted.
    pub deletes: bool,
    /// Whether older states come back: a backup of the server, an older directory of a device, or
    /// a copy of one that runs beside it.
    pub restores: bool,
    /// Who wins conflicts.
    pub strategy: Strategy,
}

/// The strategies that a walk can use.
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
}

impl Plan {
    /// The plan that a seed stands for.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut draw = fastrand::Rng::with_seed(seed ^ 0x5eed);
        let all = [Strategy::Lww, Strategy::Server, Strategy::Client, Strategy::Sum];
        let strategy = all[draw.usize(..all.len())];
        let deletes = strategy != Strategy::Sum && draw.bool();
        let restores = strategy != Strategy::Sum && !deletes && draw.bool();
        let (devices, moves) = (draw.usize(2..=3), draw.usize(60..500));
        Self { seed, devices, moves, deletes, restores, strategy }
    }
}

/// Walks through a plan.
///
/// # Errors
/// Says which guarantee is broken.
pub fn walk(plan: &Plan) -> Result<World, String> {
    let mut walk = Walk::new(plan);
    walk.go()?;
    Ok(walk.world)
}

/// Walks through a plan again, and shows everything that happened.
#[must_use]
pub fn trace(plan: &Plan) -> Vec<String> {
    let mut walk = Walk::new(plan);
    walk.world.trace = Some(Vec::new());
    let outcome = walk.go();
    let mut lines = walk.world.trace.unwrap_or_default();
    lines.push(format!("{outcome:?}"));
    lines
}

/// A write that must take effect once, unless its device forgot it before it was durable.
struct Written {
    device: usize,
    number: u64,
    commit: CommitNumber,
    /// A field of its own and its value, or what is added to a sum.
    token: Option<(String, String)>,
    add: i64,
}

struct Walk {
    draw: fastrand::Rng,
    world: World,
    plan: Plan,
    /// How likely each fault is, in parts of a thousand moves.
    cut: u32,
    crash: u32,
    /// What was written, with the commit of the device's present life that holds it.
    written: Vec<Written>,
    writes: u64,
    /// The device that seldom gets a turn.
    lazy: usize,
    /// An older state of the server.
    backup: Option<MemoryRows>,
    /// An older directory of a device, and how much had been written when it was made.
    copy: Option<(usize, MemoryClientStore, u64)>,
}

impl Walk {
    fn new(plan: &Plan) -> Self {
        let mut draw = fastrand::Rng::with_seed(plan.seed);
        let strategy = match plan.strategy {
            Strategy::Lww => ConflictStrategy::LastWriteWins,
            Strategy::Server => ConflictStrategy::ServerWins,
            Strategy::Client => ConflictStrategy::ClientWins,
            Strategy::Sum => ConflictStrategy::custom(FieldWise::sum_numbers()),
        };
        let client = ClientConfig {
            collections: vec![todos()],
            conflict_strategy: strategy,
            window: draw.usize(1..6),
            ..ClientConfig::default()
        };
        let mut session = SessionConfig::default();
        session.page.records = draw.usize(1..4);
        let ring = RingLimits { collection_bytes: draw.usize(200..4000), ..RingLimits::default() };
        let clients = vec![client; plan.devices];
        let world = World::new(WorldConfig { seed: plan.seed, clients, session, ring });
        let (cut, crash) = (draw.u32(0..40), draw.u32(0..20));
        let lazy = draw.usize(..plan.devices + 1);
        let (plan, written) = (plan.clone(), Vec::new());
        let (backup, copy) = (None, None);
        Self { draw, world, plan, cut, crash, written, writes: 0, lazy, backup, copy }
    }

    fn go(&mut self) -> Result<(), String> {
        for _ in 0..self.plan.moves {
            self.step();
        }
        self.world.converge()?;
        self.audit()
    }

    fn step(&mut self) {
        let roll = self.draw.u32(..1000);
        if self.plan.restores && self.draw.u32(..60) == 0 {
            self.restore();
        } else if roll < self.cut {
            self.cut();
        } else if roll < self.cut + self.crash {
            self.crash();
        } else if roll < self.cut + self.crash + 150 {
            self.write();
        } else if roll < self.cut + self.crash + 200 {
            let millis = self.world.next_deadline().unwrap_or(10).min(3_000);
            self.world.pass(self.draw.u64(..=millis + 1));
        } else {
            self.advance();
        }
    }

    fn write(&mut self) {
        let device = self.device();
        let id = ["a", "b", "c"][self.draw.usize(..3)];
        self.writes += 1;
        let n = self.writes;
        let shown = self.world.devices[device]
            .replica
            .get(&todos(), &crate::world::record(id))
            .expect("the store is sound");
        let (mut token, mut add) = (None, 0);
        let written = match (&shown, self.draw.u32(..10)) {
            (Some(_), 0 | 1) if self.plan.deletes => self.world.delete(device, id),
            (Some(record), _) if self.plan.strategy == Strategy::Sum => {
                let before: i64 =
                    record.document.get("sum").and_then(|text| text.parse().ok()).unwrap_or(0);
                add = 1 << (n % 40);
                self.world.update(device, id, &format!(r#"{{"sum":{}}}"#, before + add))
            }
            (Some(_), 2..=5) => {
                token = Some((format!("t{n}"), n.to_string()));
                self.world.update(device, id, &format!(r#"{{"t{n}":{n}}}"#))
            }
            (Some(_), _) => self.world.update(device, id, &format!(r#"{{"hot":{n}}}"#)),
            // where sums are counted, records are made by one device alone
            (None, _) if self.plan.strategy == Strategy::Sum && device != 0 => Ok(()),
            (None, _) => self.world.save(device, id, r#"{"hot":0}"#),
        };
        written.expect("a sound write is taken");
        let commit = self.world.commits(device).0;
        self.written.push(Written { device, number: n, commit, token, add });
    }

    fn device(&mut self) -> usize {
        self.draw.usize(..self.plan.devices)
    }

    fn cut(&mut self) {
        let half_open = self.world.half_open();
        if !half_open.is_empty() && self.draw.bool() {
            let conn = half_open[self.draw.usize(..half_open.len())];
            self.world.forget(conn);
            return;
        }
        let connected = self.world.connected();
        if !connected.is_empty() {
            self.world.cut(connected[self.draw.usize(..connected.len())]);
        }
    }

    fn crash(&mut self) {
        if self.draw.u32(..4) == 0 {
            self.world.crash_server();
            return;
        }
        let device = self.device();
        let (last, durable) = self.world.commits(device);
        let back_to = CommitNumber(self.draw.u64(durable.0..=last.0));
        self.world.crash_device(device, back_to);
        self.written.retain(|write| write.device != device || write.commit <= back_to);
        for write in self.written.iter_mut().filter(|write| write.device == device) {
            write.commit = CommitNumber(0);
        }
    }

    /// Makes a copy of something, or lets one come back.
    fn restore(&mut self) {
        match self.draw.u32(..5) {
            0 => self.backup = Some(self.world.backup()),
            1 => {
                let device = self.device();
                let store = self.world.devices[device].replica.store().clone().reopen();
                self.copy = Some((device, store, self.writes));
            }
            2 => self.restore_server(),
            _ => self.restore_device(),
        }
    }

    /// What the server had taken since the backup is lost; what it had not will still come.
    fn restore_server(&mut self) {
        let Some(backup) = self.backup.clone() else { return };
        let before = self.world.server_records();
        self.world.restart_server(backup);
        let after = self.world.server_records();
        let holds = |records: &BTreeMap<RecordId, Document>, write: &Written| {
            let token = write.token.as_ref();
            token.is_some_and(|(field, value)| {
                records.values().any(|record| record.get(field) == Some(value))
            })
        };
        self.written.retain(|write| holds(&after, write) || !holds(&before, write));
    }

    /// What the device had written since its copy is lost, unless the server has it. The copy
    /// comes back in its place, or runs beside it.
    fn restore_device(&mut self) {
        let Some((device, store, writes)) = self.copy.clone() else { return };
        if self.world.devices.len() == self.plan.devices && self.draw.bool() {
            let config = self.world.devices[device].config.clone();
            self.world.add_device(config, store);
            return;
        }
        self.world.restart_device(device, store);
        let records = self.world.server_records();
        self.written.retain(|write| {
            let taken = write.token.as_ref().is_some_and(|(field, value)| {
                records.values().any(|record| record.get(field) == Some(value))
            });
            write.device != device || write.number <= writes || taken
        });
        for write in self.written.iter_mut().filter(|write| write.device == device) {
            write.commit = CommitNumber(0);
        }
    }

    /// One thing that goes its way.
    fn advance(&mut self) {
        let device = self.device();
        if device == self.lazy && self.draw.u32(..8) != 0 {
            return;
        }
        match self.draw.u32(..9) {
            0 => {
                let dialling = self.world.dialling();
                if let Some(device) = pick(&mut self.draw, &dialling) {
                    self.world.connect(device);
                }
            }
            1 => {
                let (last, durable) = self.world.commits(device);
                let up_to = CommitNumber(self.draw.u64(durable.0..=last.0));
                self.world.sync_disk(device, up_to);
            }
            2 | 3 => {
                let conns = self.world.upward();
                if let Some(conn) = pick(&mut self.draw, &conns) {
                    self.world.deliver_up(conn);
                }
            }
            4 if self.world.transactions() > 0 => {
                let count = self.draw.usize(1..=self.world.transactions());
                self.world.commit(count);
            }
            5 if self.world.reads() > 0 => {
                let index = self.draw.usize(..self.world.reads());
                self.world.read(index);
            }
            6 if self.world.answers() > 0 => {
                let index = self.draw.usize(..self.world.answers());
                self.world.answer(index);
            }
            7 => {
                let conns = self.world.pumpable();
                if let Some(conn) = pick(&mut self.draw, &conns) {
                    let room = self.draw.usize(1..600);
                    self.world.pump(conn, room);
                }
            }
            _ => {
                let conns = self.world.downward();
                if let Some(conn) = pick(&mut self.draw, &conns) {
                    self.world.deliver_down(conn);
                }
            }
        }
    }

    /// Every write took effect once, where nothing may have decided against it; and nothing was
    /// mended that should not have been broken.
    fn audit(&self) -> Result<(), String> {
        let devices = self.world.devices.iter().enumerate().filter(|_| !self.plan.restores);
        for (i, device) in devices {
            let broken = device.events.iter().find(|event| {
                let mended = matches!(
                    event.kind,
                    EventKind::ChecksumMismatch
                        | EventKind::ServerLostChanges
                        | EventKind::ReplicaCopied { .. }
                        | EventKind::OperationFailed { .. }
                );
                mended || matches!(event.kind, EventKind::Error { .. })
            });
            if let Some(event) = broken {
                return Err(format!("device {i}: {event:?}"));
            }
        }
        let records = self.world.server_records();
        if self.plan.strategy == Strategy::Sum {
            let field = |name: &str| {
                let values = records.values().filter_map(|record| record.get(name));
                values.filter_map(|text| text.parse::<i64>().ok()).sum::<i64>()
            };
            let found = field("sum");
            let written: i64 = self.written.iter().map(|write| write.add).sum();
            if found != written {
                return Err(format!("the sums are {found:b}, written were {written:b}"));
            }
        } else if !self.plan.deletes
            && (!self.plan.restores || self.plan.strategy == Strategy::Client)
        {
            for (field, value) in self.written.iter().filter_map(|write| write.token.as_ref()) {
                let found = records.values().filter(|record| record.get(field) == Some(value));
                if found.count() != 1 {
                    return Err(format!("the write of {field} is lost"));
                }
            }
        }
        Ok(())
    }
}

fn pick<T: Copy>(draw: &mut fastrand::Rng, from: &[T]) -> Option<T> {
    (!from.is_empty()).then(|| from[draw.usize(..from.len())])
}
