//! Random walks of replicas that poll, that follow, and that change between the two, among faults:
//! the transport must not be able to change the outcome. As many as `SYNCLAYER_SEEDS` says (100 by
//! default), from `SYNCLAYER_FIRST_SEED` on.
#![allow(clippy::wildcard_enum_match_arm)]

use std::collections::BTreeSet;

use fastrand::Rng;
use synclayer_core::client::event::{EventKind, Transport};
use synclayer_core::client::interface::ClientConfig;
use synclayer_core::server::ring::RingLimits;
use synclayer_core::server::session::SessionConfig;
use synclayer_sim::stage::{World, WorldConfig, record, todos};

const RECORDS: [&str; 3] = ["a", "b", "c"];

/// A device that polls, one that has both transports, one that follows.
fn world(seed: u64, rng: &mut Rng) -> World {
    let base = ClientConfig { collections: vec![todos()], ..ClientConfig::default() };
    let both = ClientConfig { http: true, ..base.clone() };
    let polling = ClientConfig { websocket: false, ..both.clone() };
    let clients = vec![polling, both, base];
    let ring = RingLimits { collection_bytes: rng.usize(200..4000), ..RingLimits::default() };
    World::new(WorldConfig { seed, clients, session: SessionConfig::default(), ring })
}

/// One walk. `crashes`: processes die too.
fn walk(seed: u64, crashes: bool, traced: bool) -> (World, Result<(), String>) {
    let mut rng = Rng::with_seed(seed);
    let mut world = world(seed, &mut rng);
    world.trace = traced.then(Vec::new);
    for id in RECORDS {
        world.save(2, id, "{}").expect("room");
    }
    let mut fields = BTreeSet::new();
    let mut outcome = world.converge_by_any();
    if outcome.is_ok() {
        for step in 0..rng.usize(40..500) {
            move_on(&mut world, &mut rng, step, crashes, &mut fields);
        }
        outcome = world.converge_by_any().and_then(|()| judge(&world, crashes, &fields));
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
    let pick = |rng: &mut Rng, from: Vec<_>| from.get(rng.usize(0..from.len().max(1))).copied();
    match rng.u32(0..100) {
        0..15 => {
            // a field of its own for every write: nothing may be lost, nothing conflicts
            let field = format!("f{device}-{step}");
            let id = RECORDS[rng.usize(0..RECORDS.len())];
            if world.update(device, id, &format!("{{\"{field}\":1}}")).is_ok() {
                fields.insert(field);
            }
        }
        15..23 => {
            for device in world.dialling() {
                // the network lets WebSockets pass for a while, and then for a while not
                if (step / 40).is_multiple_of(2) {
                    world.refuse(device)
                } else {
                    world.connect(device)
                }
            }
        }
        23..27 => {
            let conns = world.connected();
            if let Some(conn) = conns.get(rng.usize(0..conns.len().max(1))) {
                world.cut(*conn);
            }
        }
        27..40 => pick(rng, world.requesting()).map_or((), |d| world.serve(d, false)),
        40..44 => pick(rng, world.requesting()).map_or((), |d| world.serve(d, true)),
        44..47 => pick(rng, world.requesting()).map_or((), |d| world.lose_request(d)),
        47..60 => pick(rng, world.replied()).map_or((), |d| world.deliver_reply(d)),
        60..64 => world.upward().into_iter().for_each(|conn| world.deliver_up(conn)),
        64..68 => world.downward().into_iter().for_each(|conn| world.deliver_down(conn)),
        68..72 => world.commit(usize::MAX),
        72..75 => {
            while world.reads() > 0 {
                world.read(0);
            }
        }
        75..79 => {
            while world.answers() > 0 {
                world.answer(0);
            }
        }
        79..83 => world.pumpable().into_iter().for_each(|conn| world.pump(conn, 1 << 12)),
        83..90 => {
            let (last, _) = world.commits(device);
            world.sync_disk(device, last);
        }
        90..94 => {
            let until = world.next_deadline().unwrap_or(1_000);
            world.pass(until.clamp(1, 60_000));
        }
        94..96 => world.sync_now(device),
        96 => world.set_online(device, rng.bool()),
        97 => {
            let half = world.half_open();
            half.into_iter().for_each(|conn| world.forget(conn));
        }
        98 if crashes => {
            let (_, durable) = world.commits(device);
            world.crash_device(device, durable);
        }
        99 if crashes => world.crash_server(),
        _ => {}
    }
}

/// What the guarantees say of a walk in which every write has a field of its own.
fn judge(world: &World, crashes: bool, fields: &BTreeSet<String>) -> Result<(), String> {
    world.compare()?;
    let records = world.server_records();
    let held: BTreeSet<_> = RECORDS
        .iter()
        .filter_map(|id| records.get(&record(id)))
        .flat_map(|document| document.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>())
        .collect();
    let (mut synced, mut conflicts) = (0, 0);
    for device in &world.devices {
        for event in &device.events {
            match event.kind {
                EventKind::OperationSynced { .. } => synced += 1,
                EventKind::ConflictDetected => conflicts += 1,
                EventKind::ChecksumMismatch => return Err("a checksum differed".into()),
                EventKind::ReplicaCopied { .. } => return Err("a replica felt copied".into()),
                EventKind::ServerLostChanges => return Err("the server lost changes".into()),
                _ => {}
            }
        }
    }
    if conflicts > 0 {
        return Err(format!("{conflicts} conflicts where nothing overlaps"));
    }
    if crashes {
        // what was not durable may be gone
        return if held.is_subset(fields) { Ok(()) } else { Err("fields out of nowhere".into()) };
    }
    if held != *fields {
        return Err(format!("written {fields:?}, held {held:?}"));
    }
    let versions: u64 = world.versions().values().sum();
    if versions != synced {
        return Err(format!("{synced} writes were taken, {versions} were applied"));
    }
    Ok(())
}

#[test]
fn switching_transports_keeps_the_guarantees() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("SYNCLAYER_FIRST_SEED").unwrap_or(0);
    let seeds = number("SYNCLAYER_SEEDS").unwrap_or(100);
    let (mut by_http, mut by_socket, mut requests) = (0, 0, 0);
    for seed in first..first + seeds {
        for crashes in [false, true] {
            let (world, outcome) = walk(seed, crashes, false);
            if let Err(broken) = outcome {
                let trace = walk(seed, crashes, true).0.trace.unwrap_or_default().join("\n");
                panic!("{trace}\nseed {seed}, crashes {crashes}: {broken}");
            }
            requests += world.counts.get("requests").copied().unwrap_or(0);
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
    println!(
        "{requests} requests; of one device {by_http} writes by HTTP, {by_socket} by WebSocket"
    );
    assert!(by_http > seeds && by_socket > seeds, "{by_http} by HTTP, {by_socket} by WebSocket");
}
