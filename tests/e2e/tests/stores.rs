//! Stores that earlier versions wrote open for ever, with everything in them.
//! `tests/data/stores/README.md` says how they were made.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../examples/stores/contents.rs"]
#[allow(dead_code, unreachable_pub)]
mod contents;
#[path = "../examples/stores/pack.rs"]
#[allow(dead_code, unreachable_pub)]
mod pack;

use std::fs;
use std::path::{Path, PathBuf};

use contents::{START, config};
use synclayer_core::rules::verify;
use synclayer_core::testing::Checked;
use synclayer_core::{
    Action, Collection, CollectionStatus, Command, ConnId, Identity, Input, NetAction, Replica,
    SessionInput, UserId, Write,
};
use synclayer_fjall::{
    ClientOptions, Durability, FjallClientStore, FjallServerStore, ServerOptions,
};
use synclayer_sim::host::Host;
use tempfile::TempDir;

/// The directories of the versions whose stores are kept.
fn versions() -> Vec<PathBuf> {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/stores");
    let entries = fs::read_dir(kept).unwrap().map(|entry| entry.unwrap().path());
    let mut versions: Vec<_> = entries.filter(|path| path.is_dir()).collect();
    versions.sort();
    assert!(!versions.is_empty(), "the stores are missing");
    versions
}

fn unpacked(version: &Path, name: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let packed = fs::read(version.join(name)).unwrap();
    pack::unpack(&packed, &dir.path().join("store")).unwrap();
    dir
}

fn same(version: &Path, name: &str, found: &str) {
    let expected = fs::read_to_string(version.join(name)).unwrap();
    for (line, (expected, found)) in expected.lines().zip(found.lines()).enumerate() {
        assert_eq!(expected, found, "line {} of {}/{name}", line + 1, version.display());
    }
    assert_eq!(expected, found, "{}/{name}", version.display());
}

#[test]
fn a_clients_store_of_an_earlier_version_opens_with_everything_in_it() {
    for version in versions() {
        for durability in [Durability::Buffered, Durability::Synced] {
            let dir = unpacked(&version, "client.pack");
            let open = || {
                let options = ClientOptions::new().durability(durability);
                FjallClientStore::open(dir.path().join("store"), options)
            };
            // what the first opening writes must leave it all there for the next
            for _ in 0..2 {
                same(&version, "client.txt", &contents::of_client(&open));
            }
        }
    }
}

#[test]
fn a_servers_store_of_an_earlier_version_opens_with_everything_in_it() {
    for version in versions() {
        let dir = unpacked(&version, "server.pack");
        for _ in 0..2 {
            let path = dir.path().join("store");
            let store = FjallServerStore::open(path, ServerOptions::default()).unwrap();
            same(&version, "server.txt", &contents::of_server(&contents::rows_of(&store)));
        }
    }
}

/// The replicas go on where they were: what waited is sent, and both ends hold the same.
#[test]
fn an_earlier_version_s_replicas_go_on_with_its_server() {
    for version in versions() {
        let (client, server) =
            (unpacked(&version, "client.pack"), unpacked(&version, "server.pack"));
        let path = server.path().join("store");
        let store = FjallServerStore::open(path, ServerOptions::default()).unwrap();
        let mut host = contents::serve(contents::rows_of(&store));
        let path = client.path().join("store");
        for (conn, user) in [(1, "ann"), (2, "bob"), (3, "ann")] {
            go_on(&path, user, ConnId(conn), &mut host);
        }
        if has(&path, "gina") {
            go_on(&path, "gina", ConnId(4), &mut host);
            // her clock was three days behind in all runs
            let found = contents::of_server(&host.rows);
            for (id, at) in [
                ("slow-0", "2026-09-21T15:31:10.278Z"),
                ("slow-1", "2026-09-21T15:31:10.278Z"),
                ("slow-2", "2026-09-21T15:31:10.278Z"),
                ("slow-3", "2026-09-21T15:34:10.278Z"),
            ] {
                let is_it = |line: &&str| line.contains(&format!(" {id}: version"));
                let line = found.lines().find(is_it).expect(id);
                assert!(line.contains(&format!(" at {at}: ")), "{id} was made at {at}: {line}");
            }
        }
        assert_eq!(verify(&host.rows).unwrap().faults, [""; 0]);
    }
}

/// Returns true if a user is in a client's store.
fn has(path: &Path, user: &str) -> bool {
    let store = FjallClientStore::open(path, ClientOptions::default()).unwrap();
    contents::users(&store).iter().any(|name| name == user)
}

/// A decision that was due when the store was closed can still be made.
#[test]
fn what_an_earlier_version_left_undecided_can_be_decided() {
    let mut decided = 0;
    for version in versions() {
        let dir = unpacked(&version, "client.pack");
        let path = dir.path().join("store");
        for user in ["eve", "fred"].into_iter().filter(|user| has(&path, user)) {
            let store = FjallClientStore::open(&path, ClientOptions::default()).unwrap();
            let (mut actions, seed) = (Vec::new(), 99);
            let mut replica =
                Replica::open(config(user), seed, START, store, &mut actions).unwrap();
            let undecided = |replica: &Replica<_>| {
                let status = replica.status();
                let lacks = |of: &CollectionStatus| of.missing.is_some();
                status.other_database.is_some() || status.collections.values().any(lacks)
            };
            assert!(undecided(&replica), "{user}");
            replica.write(START, Write::Adopt, &mut actions).unwrap();
            assert!(!undecided(&replica), "{user}");
            replica.check().unwrap();
            decided += 1;
        }
    }
    assert_eq!(decided, 2 * versions().iter().filter(|v| !v.ends_with("v1")).count());
}

fn go_on(path: &Path, user: &str, at_server: ConnId, host: &mut Host) {
    let collections = ["boards", "notes", "todos"].map(|name| Collection::new(name).unwrap());
    let mut config = config(user);
    config.collections = collections.to_vec();
    let store = FjallClientStore::open(path, ClientOptions::default()).unwrap();
    // a day after the stores were closed: a server takes no times that are to come
    let (mut now, mut actions) = (START, Vec::new());
    now.wall = now.wall.plus(24 * 60 * 60 * 1000);
    let mut replica = Replica::open(config, 99, now, store, &mut actions).unwrap();
    let rejected = replica.status().rejected_writes;
    replica.command(now, Command::Connect, &mut actions);
    host.accept(at_server, Identity::Known(UserId::new(user).unwrap().into()), now);
    let mut local = ConnId(0);
    for _ in 0..100 {
        now.mono.0 += 100;
        now.wall.0 += 100;
        for action in std::mem::take(&mut actions) {
            match action {
                Action::Net(NetAction::Connect { conn, .. }) => {
                    local = conn;
                    replica.handle(now, Input::Connected { conn }, &mut actions);
                }
                Action::Net(NetAction::Send { frame, .. }) => {
                    host.tell(at_server, SessionInput::Frame(&frame), now);
                }
                Action::Net(action) => panic!("{action:?}"),
                Action::Halted(error) => panic!("{error}"),
                Action::Event(_)
                | Action::Synced { .. }
                | Action::Fate { .. }
                | Action::Durable(_)
                | Action::Watch(_) => {}
            }
        }
        host.settle(now);
        let down: Vec<_> = host.down.get_mut(&at_server).unwrap().drain(..).collect();
        for frame in down {
            let input = Input::Frame { conn: local, frame: &frame };
            replica.handle(now, input, &mut actions);
        }
        if replica.deadline().is_some_and(|(at, _)| at <= now.mono) {
            replica.handle(now, Input::Timeout, &mut actions);
        }
    }
    let status = replica.status();
    assert_eq!(
        (status.pending_writes, status.rejected_writes),
        (0, rejected),
        "{user}: {status:?}"
    );
    replica.check().unwrap();
    let report = verify(&host.rows).unwrap();
    for name in collections {
        let (held, head) = (&status.collections[&name], &report.collections[&name]);
        assert!(held.live, "{user}: {name}");
        assert_eq!((held.count, held.checksum), (head.count, head.checksum), "{user}: {name}");
        assert_eq!(replica.get_all(&name).unwrap().len() as u64, head.count, "{user}: {name}");
    }
    host.drop_line(at_server, now);
    host.settle(now);
}
