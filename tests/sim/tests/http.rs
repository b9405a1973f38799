//! Replicas that poll, that follow, and that change between the two: the transport must not be able
//! to change the outcome. A write is followed through every step of its life, and random walks run
//! among faults, as many as `SYNCLAYER_SEEDS` says (100 by default), from `SYNCLAYER_FIRST_SEED` on.
#![allow(clippy::wildcard_enum_match_arm)]

use std::collections::BTreeSet;

use fastrand::Rng;
use synclayer_core::{ClientConfig, Document, EventKind, Transport};
use synclayer_sim::guarantees::convergence;
use synclayer_sim::world::{CallId, CommitFate, Move, Way, World, WorldConfig, record, todos};

const RECORDS: [&str; 3] = ["a", "b", "c"];

/// A device that polls, one that has both transports, one that follows.
fn world(seed: u64, ring: usize) -> World {
    let mut base = ClientConfig::default();
    base.collections = vec![todos()];
    let mut both = base.clone();
    both.http = true;
    let mut polling = both.clone();
    polling.websocket = false;
    let mut config = WorldConfig::of(0, &[todos()]);
    config.seed = seed;
    config.clients = vec![polling, both, base];
    config.ring.collection_bytes = ring;
    World::new(config)
}

fn update(world: &mut World, device: usize, id: &str, field: &str) -> bool {
    let json = format!("{{\"{field}\":1}}");
    world.update(device, &todos(), &record(id), &json, &[]).is_ok()
}

/// Everything heals and comes to rest.
fn converge(world: &mut World) -> Result<(), String> {
    world.heal();
    world.converge(&mut |_| Ok(()))?;
    convergence(world)
}

fn synced(world: &World) -> usize {
    let is_synced = |kind: &EventKind| matches!(kind, EventKind::OperationSynced { .. });
    let events = world.devices.iter().flat_map(|device| &device.events);
    events.filter(|event| is_synced(&event.kind)).count()
}

// --- a write's life ---

/// A device with both transports writes; after so many steps it changes over to the other one.
/// Says whether the write's life was longer than that.
fn switch_after(steps: usize, to_socket: bool, told: bool) -> bool {
    let mut world = world(7, 4_000);
    world.save(1, &todos(), &record("a"), "{}").expect("room");
    converge(&mut world).expect("a calm world");
    if to_socket {
        world.devices[1].sockets = Way::Refused(None);
        cut(&mut world, 1);
        converge_without_socket(&mut world);
    }
    let (before, own) = (world.committed.len(), synced(&world));
    assert!(update(&mut world, 1, "a", "mine"));
    for _ in 0..steps {
        let moves = world.moves();
        let own = |one: &&Move| !matches!(one, Move::Connect(_));
        let Some(one) = moves.iter().find(own) else { return false };
        world.make(*one);
    }
    if to_socket {
        world.devices[1].sockets = Way::Open;
        if !told {
            world.open_calls().into_iter().for_each(|call| world.stall_call(call));
        }
        world.dial(1);
    } else {
        world.devices[1].sockets = Way::Stalled;
        if told {
            cut(&mut world, 1);
        } else {
            world.connections_of(1).into_iter().for_each(|conn| world.silence(conn));
        }
        converge_without_socket(&mut world);
    }
    converge(&mut world).unwrap_or_else(|broken| panic!("{steps}, {to_socket}, {told}: {broken}"));
    let what = format!("after {steps} steps, to_socket {to_socket}, told {told}");
    assert_eq!(world.committed.len() - before, 1, "{what}: one change");
    assert_eq!(synced(&world) - own, 1, "{what}: one event");
    let field = |d: Document| d.text("mine").map(str::to_owned);
    let seen = |device| world.view(device, &todos(), &record("a")).and_then(field);
    assert!((0..3).all(|device| seen(device).as_deref() == Some("1")), "{what}");
    true
}

fn cut(world: &mut World, device: usize) {
    world.connections_of(device).into_iter().for_each(|conn| world.cut(conn));
}

/// The device with both transports does what it can without a WebSocket.
fn converge_without_socket(world: &mut World) {
    for _ in 0..400 {
        world.settle(&mut |_| Ok(())).expect("nothing is broken");
        let status = world.devices[1].replica.status();
        if status.pending_writes == 0 && status.transport == Some(Transport::Http) {
            return;
        }
        world.pass(world.until_deadline().unwrap_or(1_000).clamp(1, 30_000));
    }
    panic!("HTTP does not carry it: {:?}", world.devices[1].replica.status());
}

#[test]
fn a_write_survives_a_switch_at_every_step_of_its_life() {
    for to_socket in [true, false] {
        for told in [true, false] {
            let steps = (0..).find(|steps| !switch_after(*steps, to_socket, told));
            println!("to_socket {to_socket}, told {told}: {steps:?} steps");
            assert!(steps.is_some_and(|steps| steps > 6), "{steps:?} steps are no life");
        }
    }
}

// --- walks ---

/// One walk. `crashes`: processes die too.
fn walk(seed: u64, crashes: bool, traced: bool) -> (World, Result<(), String>) {
    let mut rng = Rng::with_seed(seed);
    let mut world = world(seed, rng.usize(200..4000));
    world.trace = traced.then(Vec::new);
    for id in RECORDS {
        world.save(2, &todos(), &record(id), "{}").expect("room");
    }
    let mut fields = BTreeSet::new();
    let mut outcome = converge(&mut world);
    if outcome.is_ok() {
        for step in 0..rng.usize(40..500) {
            move_on(&mut world, &mut rng, step, crashes, &mut fields);
        }
        outcome = converge(&mut world).and_then(|()| judge(&world, crashes, &fields));
    }
    (world, outcome)
}

fn move_on(
    world: &mut World,
    rng: &mut Rng,
    step: usize,
    crashes: bool,
    fields: &mut BTreeSet<String>,
) {
    let device = rng.usize(0..3);
    match rng.u32(0..100) {
        0..15 => {
            // a field of its own for every write: nothing may be lost, nothing conflicts
            let field = format!("f{device}-{step}");
            if update(world, device, RECORDS[rng.usize(0..RECORDS.len())], &field) {
                fields.insert(field);
            }
        }
        15..23 => {
            // the network lets WebSockets pass for a while, and then for a while not
            let way = if (step / 40).is_multiple_of(2) { Way::Refused(None) } else { Way::Open };
            world.devices.iter_mut().for_each(|device| device.sockets = way);
            make_all(world, |one| matches!(one, Move::Connect(_)));
        }
        23..27 => pick(rng, &world.connected()).into_iter().for_each(|conn| world.cut(conn)),
        27..40 => make_one(world, rng, |one| matches!(one, Move::Ask(_))),
        40..44 => trouble(world, rng, |world, call| world.lose_call(call, true)),
        44..46 => trouble(world, rng, |world, call| world.lose_call(call, false)),
        46 => trouble(world, rng, |world, call| world.answer_instead(call, 503, None, true)),
        47..60 => make_one(world, rng, |one| matches!(one, Move::Reply(_))),
        60..64 => make_all(world, |one| matches!(one, Move::Up(_))),
        64..68 => make_all(world, |one| matches!(one, Move::Down(_))),
        68..72 => world.commit(usize::MAX, CommitFate::Done),
        72..75 => make_all(world, |one| matches!(one, Move::Read)),
        75..79 => make_all(world, |one| matches!(one, Move::Answer)),
        79..83 => make_all(world, |one| matches!(one, Move::Pump(_))),
        83..90 => {
            let (last, _) = world.commits(device);
            world.sync_disk(device, last);
        }
        90..94 => world.pass(world.until_deadline().unwrap_or(1_000).clamp(1, 60_000)),
        94..96 => world.sync_now(device),
        96 => world.set_online(device, rng.bool()),
        97 => world.half_open().into_iter().for_each(|conn| world.forget(conn)),
        98 if crashes => {
            let (_, durable) = world.commits(device);
            world.crash_device(device, durable);
        }
        99 if crashes => world.crash_server(),
        _ => {}
    }
}

fn pick<T: Copy>(rng: &mut Rng, from: &[T]) -> Option<T> {
    from.get(rng.usize(0..from.len().max(1))).copied()
}

fn make_one(world: &mut World, rng: &mut Rng, which: fn(&Move) -> bool) {
    let moves: Vec<_> = world.moves().into_iter().filter(which).collect();
    pick(rng, &moves).into_iter().for_each(|one| world.make(one));
}

/// Each of these moves that can be made now, once.
fn make_all(world: &mut World, which: fn(&Move) -> bool) {
    world.moves().into_iter().filter(which).for_each(|one| world.make(one));
}

fn trouble(world: &mut World, rng: &mut Rng, how: fn(&mut World, CallId)) {
    let call = pick(rng, &world.open_calls());
    call.into_iter().for_each(|call| how(world, call));
}

/// Checks the guarantees of a walk in which every write has a field of its own.
fn judge(world: &World, crashes: bool, fields: &BTreeSet<String>) -> Result<(), String> {
    let records = world.server_records(&todos());
    let held: BTreeSet<_> = RECORDS
        .iter()
        .filter_map(|id| records.get(&record(id)))
        .flat_map(|document| document.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>())
        .collect();
    for event in world.devices.iter().flat_map(|device| &device.events) {
        match event.kind {
            EventKind::ConflictDetected { .. } => {
                return Err("a conflict where nothing overlaps".into());
            }
            EventKind::ChecksumMismatch { .. } => return Err("a checksum differed".into()),
            EventKind::ReplicaCopied { .. } => return Err("a replica felt copied".into()),
            EventKind::ServerLostChanges { .. } => return Err("the server lost changes".into()),
            _ => {}
        }
    }
    if let Some((invariant, broken)) = world.broken.iter().next() {
        return Err(format!("{invariant}: {broken}"));
    }
    if world.committed.iter().any(|change| change.repeated) {
        return Err("a write was applied twice".into());
    }
    if crashes {
        // what was not durable may be gone
        return if held.is_subset(fields) { Ok(()) } else { Err("fields out of nowhere".into()) };
    }
    if held != *fields {
        return Err(format!("written {fields:?}, held {held:?}"));
    }
    let (synced, applied) = (synced(world), world.committed.len());
    if applied != synced {
        return Err(format!("{synced} writes were taken, {applied} were applied"));
    }
    Ok(())
}

#[test]
fn switching_transports_keeps_the_guarantees() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("SYNCLAYER_FIRST_SEED").unwrap_or(0);
    let seeds = number("SYNCLAYER_SEEDS").unwrap_or(100);
    let (mut by_http, mut by_socket, mut calls) = (0, 0, 0);
    for seed in first..first + seeds {
        for crashes in [false, true] {
            let (world, outcome) = walk(seed, crashes, false);
            if let Err(broken) = outcome {
                let trace = walk(seed, crashes, true).0.trace.unwrap_or_default().join("\n");
                panic!("{trace}\nseed {seed}, crashes {crashes}: {broken}");
            }
            calls += world.counts.get("HTTP call").copied().unwrap_or(0);
            for event in &world.devices[1].events {
                if matches!(event.kind, EventKind::OperationSynced { .. }) {
                    match event.transport {
                        Some(Transport::Http) => by_http += 1,
                        _ => by_socket += 1,
                    }
                }
            }
        }
    }
    println!("{calls} calls; of one device {by_http} writes by HTTP, {by_socket} by WebSocket");
    assert!(by_http > seeds && by_socket > seeds, "{by_http} by HTTP, {by_socket} by WebSocket");
}
