//! Two replicas at a plain server that is clumsy in every way, over a network that cuts every few
//! messages.

use fastrand::Rng;
use synclayer_core::{ClientConfig, ConflictStrategy, EventKind, PlainServers, RecordId};
use synclayer_sim::plain_server::Ways;
use synclayer_sim::plain_world::{Faults, PlainWorld};
use synclayer_sim::world::{Middlebox, record, todos};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Transports {
    Socket,
    Http,
    Both,
}

fn config(transports: Transports, strategy: &ConflictStrategy) -> ClientConfig {
    let mut config = ClientConfig::default();
    config.collections = vec![todos()];
    config.conflict_strategy = strategy.clone();
    config.websocket = transports != Transports::Http;
    config.http = transports != Transports::Socket;
    // some of them say nothing that shows what they are, and here nothing else can show it
    config.plain = match transports {
        Transports::Socket => PlainServers::Silent,
        Transports::Http | Transports::Both => PlainServers::Detect,
    };
    config
}

fn strategies() -> [ConflictStrategy; 3] {
    [ConflictStrategy::LastWriteWins, ConflictStrategy::ServerWins, ConflictStrategy::ClientWins]
}

fn world(seed: u64, transports: Transports) -> PlainWorld {
    let mut ways = Ways::of_bits(Rng::with_seed(seed ^ 0x7ea5).u64(..));
    // a socket alone, cut, needs some way to learn what it has missed
    ways.whole |= transports == Transports::Socket;
    let strategy = &strategies()[(seed % 3) as usize];
    let clients = vec![config(transports, strategy), config(transports, strategy)];
    let mut world = PlainWorld::new(seed, ways, Faults { cut: 6, lose: 5 }, clients);
    if std::env::var_os("PLAIN_TRACE").is_some() {
        world.trace = Some(Vec::new());
    }
    world
}

/// Longer frames than 125 bytes, whose heads are longer, are not among those of an idle hour.
#[test]
fn an_idle_hour_of_a_socket_costs_little() {
    for pong in [true, false] {
        let ways = Ways { pong, ..Ways::default() };
        let client = config(Transports::Socket, &ConflictStrategy::LastWriteWins);
        let mut world = PlainWorld::new(1, ways, Faults { cut: 0, lose: 0 }, vec![client]);
        world.save(0, "a", "{}");
        world.run(120_000);
        let before = world.bytes;
        world.run(3_600_000);
        let hour = world.bytes - before;
        println!("an idle hour: {hour} bytes");
        assert!((300..=5_000).contains(&hour), "{hour} bytes");
        assert!(!world.saw(0, |kind| matches!(kind, EventKind::RealtimeDisconnected { .. })));
    }
}

fn fail(world: &mut PlainWorld, seed: u64, why: &str) -> ! {
    for line in world.trace.take().unwrap_or_default() {
        eprintln!("{line}");
    }
    panic!("seed {seed}, {:?}: {why}", world.server.ways);
}

/// Which seeds are walked: `PLAIN_SEEDS=7..8` walks one.
fn seeds(count: u64) -> std::ops::Range<u64> {
    let told = std::env::var("PLAIN_SEEDS").ok();
    let told = told.as_deref().and_then(|range| range.split_once(".."));
    let told = told.and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    told.unwrap_or(0..count)
}

/// Writes, deletes, cuts, losses, restarts; then rest. Everything converges, and what nobody else
/// touched has arrived.
fn walk(seed: u64, transports: Transports) -> u64 {
    let mut world = world(seed, transports);
    let mut random = Rng::with_seed(seed);
    let mut own = Vec::new();
    for step in 0..40 {
        let device = random.usize(0..2);
        let id = ["a", "b", "c"][random.usize(0..3)];
        match random.u8(0..12) {
            0..=2 => world.save(device, id, &format!(r#"{{"x":"{device}-{step}","s":{step}}}"#)),
            3..=6 => world.update(device, id, &format!(r#"{{"x":"{device}-{step}"}}"#)),
            7 => world.update(device, id, &format!(r#"{{"o{device}":{step},"s":null}}"#)),
            8 => world.delete(device, id),
            9 => {
                own.push(format!("own-{step}"));
                world.save(device, &format!("own-{step}"), &format!(r#"{{"x":{step}}}"#));
            }
            10 => world.sockets = random.bool(),
            _ => world.restart(device),
        }
        world.run(random.u64(0..4_000));
    }
    world.sockets = true;
    if let Err(why) = world.converge() {
        fail(&mut world, seed, &why);
    }
    let arrived = world.server.contents(&todos());
    for id in own {
        if !arrived.contains_key(&record(&id)) {
            fail(&mut world, seed, &format!("{id} has not arrived"));
        }
    }
    world.slowed
}

/// Edits of one field by both; no device ever shows again an own value that it had replaced.
fn never_back(seed: u64, transports: Transports) {
    let mut world = world(seed, transports);
    let mut random = Rng::with_seed(seed);
    world.save(0, "a", r#"{"x":"first"}"#);
    world.faults = Faults { cut: 0, lose: 0 };
    // the second device sees it at its next poll
    world.run(330_000);
    world.faults = Faults { cut: 6, lose: 5 };
    for step in 0..30 {
        let device = random.usize(0..2);
        world.update(device, "a", &format!(r#"{{"x":"{device}-{step:02}"}}"#));
        world.run(random.u64(0..3_000));
    }
    if let Err(why) = world.converge() {
        fail(&mut world, seed, &why);
    }
    for device in 0..2 {
        let shown = &world.devices[device].shown[&RecordId::new("a").expect("a name")];
        let own = format!("\"{device}-");
        let own: Vec<_> = shown.iter().filter(|value| value.starts_with(&own)).collect();
        if !own.is_sorted() {
            let why = format!("device {device} went back: {shown:?}");
            fail(&mut world, seed, &why);
        }
    }
}

#[test]
fn over_a_socket_alone_everything_converges() {
    seeds(60).for_each(|seed| {
        walk(seed, Transports::Socket);
    });
}

#[test]
fn by_http_alone_everything_converges() {
    let slowed: u64 = seeds(60).map(|seed| walk(seed, Transports::Http)).sum();
    assert!(slowed > 100, "the server has asked for fewer calls: {slowed}");
}

#[test]
fn over_both_everything_converges() {
    seeds(60).for_each(|seed| {
        walk(seed, Transports::Both);
    });
}

#[test]
fn no_own_value_comes_back() {
    for seed in seeds(40) {
        for transports in [Transports::Socket, Transports::Http, Transports::Both] {
            never_back(seed, transports);
        }
    }
}

/// Writes while something on the way answers everything for a while, again and again: no write is
/// rejected or lost, no delete undone, and everybody gets back by themselves.
fn behind_portals(seed: u64, transports: Transports) -> u64 {
    let mut world = world(seed, transports);
    world.faults = Faults { cut: 12, lose: 12 };
    let mut random = Rng::with_seed(seed ^ 0x907a);
    let (mut own, mut gone) = (Vec::new(), Vec::new());
    for step in 0..30 {
        match random.u8(0..10) {
            0..=2 => {
                let id = format!("own-{step}");
                world.save(random.usize(0..2), &id, &format!(r#"{{"x":{step}}}"#));
                own.push((id, step));
            }
            3 | 4 if !own.is_empty() => {
                let (id, value) = own[random.usize(0..own.len())].clone();
                // by one that has it: its own, or one that it was shown
                let device = usize::from(!world.contents(0).contains_key(&record(&id)));
                if world.contents(device).contains_key(&record(&id)) {
                    world.update(device, &id, &format!(r#"{{"more":{value}}}"#));
                }
            }
            5 if !own.is_empty() => {
                let (id, _) = own.swap_remove(random.usize(0..own.len()));
                for device in 0..2 {
                    if world.contents(device).contains_key(&record(&id)) {
                        world.delete(device, &id);
                    }
                }
                gone.push(id);
            }
            6..=8 => world.place_portal(Some(Middlebox::of(random.usize(0..91)))),
            _ => {}
        }
        world.run(random.u64(1_000..8_000));
        if random.bool() {
            world.place_portal(None);
            world.run(random.u64(1_000..4_000));
        }
    }
    world.place_portal(None);
    if let Err(why) = world.converge() {
        fail(&mut world, seed, &why);
    }
    if (0..2).any(|i| world.saw(i, |kind| matches!(kind, EventKind::OperationFailed { .. }))) {
        fail(&mut world, seed, "a write was rejected, and not by the server");
    }
    let arrived = world.server.contents(&todos());
    for (id, value) in own {
        let held = arrived.get(&record(&id)).and_then(|held| held.text("x").map(str::to_owned));
        if held != Some(value.to_string()) {
            fail(&mut world, seed, &format!("{id} has not arrived: {held:?}"));
        }
    }
    if let Some(id) = gone.iter().find(|id| arrived.contains_key(&record(id))) {
        fail(&mut world, seed, &format!("the delete of {id} has not arrived"));
    }
    world.answered_on_the_way
}

#[test]
fn what_is_answered_on_the_way_settles_nothing() {
    for transports in [Transports::Socket, Transports::Http, Transports::Both] {
        let answered: u64 = seeds(40).map(|seed| behind_portals(seed, transports)).sum();
        assert!(answered > 400, "{transports:?}: {answered}");
    }
}

#[test]
fn a_delete_is_noticed_by_those_who_only_poll() {
    let strategy = ConflictStrategy::LastWriteWins;
    let clients = vec![config(Transports::Http, &strategy), config(Transports::Http, &strategy)];
    let faults = Faults { cut: 0, lose: 0 };
    let mut world = PlainWorld::new(1, Ways::default(), faults, clients);
    world.save(0, "a", "{}");
    world.run(600_000);
    assert_eq!(world.contents(1).len(), 1);
    world.delete(0, "a");
    world.run(600_000);
    assert_eq!(world.contents(1).len(), 1, "a poll can't see it");
    world.run(3_600_000);
    assert_eq!(world.contents(1).len(), 0);
}

#[test]
fn two_runs_of_a_seed_are_the_same() {
    let run = || {
        let mut world = world(5, Transports::Both);
        world.trace = Some(Vec::new());
        for step in 0..20 {
            world.save(step % 2, "a", &format!(r#"{{"x":{step}}}"#));
            world.run(700);
        }
        world.trace.unwrap_or_default()
    };
    assert_eq!(run(), run());
}
