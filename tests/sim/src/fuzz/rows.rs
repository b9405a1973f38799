//! Damaged stores: rows with bytes, keys and order that nobody wrote.

use std::convert::Infallible;

use synclayer_core::rules::{salvage, verify};
use synclayer_core::testing::{Checked, InspectReplica, SimulatedDisk};
use synclayer_core::{
    Batch, ClientConfig, ClientStore, CommitNumber, ConnId, Identity, MemoryClientStore,
    MemoryRows, Replica, SessionInput,
};

use super::client::{ClientBench, collection, now};
use super::script::Script;

/// Lets a replica and its server live for a while, damages their rows, and opens them again.
/// Errors are as they should be; a panic is not.
///
/// # Panics
/// When something that reads rows does.
pub fn rows(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let mut bench = ClientBench::new(&mut Script::new(&[0]));
    let steps = script.below(16);
    let mut story = Script::new(script.bytes());
    for _ in 0..steps {
        bench.step(&mut story);
        if story.chance(2) {
            bench.go_on();
        }
    }
    let server = bench.host.rows.clone();
    let client = bench.replica.store().memory_rows().clone();
    let (server, client) = (damaged(&server, &mut script), damaged(&client, &mut script));
    save(&client);
    open(&client, &mut script);
    serve(bench, server, &mut script);
}

/// Rows of which some are changed, moved, gone or new.
fn damaged(rows: &MemoryRows, script: &mut Script<'_>) -> MemoryRows {
    let mut damaged = rows.clone();
    for _ in 0..script.below(6) {
        let all: Vec<_> = damaged.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        let Some((key, value)) = all.get(script.below(all.len())) else { break };
        let other = &all[script.below(all.len())];
        let mut batch = Batch::default();
        match script.below(6) {
            0 => batch.delete(key.clone()),
            1 => batch.put(script.mutated(key), value.clone()),
            2 => batch.put(key.clone(), other.1.clone()),
            3 => batch.put(key.clone(), script.bytes().to_vec()),
            4 => batch.put(script.bytes().to_vec(), script.bytes().to_vec()),
            _ => batch.put(key.clone(), script.mutated(value)),
        }
        damaged.apply(batch);
    }
    damaged
}

fn save(rows: &MemoryRows) {
    let with = |prefix: &[u8]| {
        let rows = rows.iter().filter(|(key, _)| key.starts_with(prefix));
        Ok::<_, Infallible>(rows.map(|(key, value)| (key.clone(), value.clone())).collect())
    };
    let Ok(saved) = salvage(with);
    assert!(saved.iter().all(|of| of.writes.len() <= rows.iter().count()));
}

/// A replica on damaged rows either says so or goes on.
fn open(rows: &MemoryRows, script: &mut Script<'_>) {
    let mut batch = Batch::default();
    rows.iter().for_each(|(key, value)| batch.put(key.clone(), value.clone()));
    let mut store = MemoryClientStore::default();
    if batch.check_keys().is_err() {
        return;
    }
    store.commit(CommitNumber(1), batch).expect("a sound batch");
    let mut config = ClientConfig::default();
    config.collections = vec![collection(0)];
    let Ok(replica) = Replica::open(config, 9, now(), store, &mut Vec::new()) else { return };
    let _ =
        (replica.rejected(), replica.get_all(&collection(0)), replica.status(), replica.check());
    let mut bench = ClientBench::new(&mut Script::new(&[0]));
    bench.sound = false;
    bench.replica = replica;
    bench.reconnect();
    for _ in 0..8 {
        bench.go_on();
        bench.step(script);
    }
}

/// A server on damaged rows either says so or goes on.
fn serve(mut bench: ClientBench, rows: MemoryRows, script: &mut Script<'_>) {
    bench.sound = false;
    let _ = verify(&rows);
    if bench.host.restart(rows, now()).is_err() {
        return;
    }
    let conn = ConnId(77);
    bench.host.accept(conn, Identity::Open, now());
    for frame in [
        r#"{"type":"ping","metadata":{"protocol":2,"clientId":"c","session":1}}"#,
        r#"{"type":"subscribe","collection":"todos"}"#,
        r#"{"type":"update","collection":"todos","recordId":"a","data":{"a":1},"metadata":{"mutation":1,"base":1}}"#,
        r#"{"type":"delete","collection":"todos","recordId":"b","metadata":{"mutation":1,"base":2}}"#,
        r#"{"type":"sync","collection":"todos"}"#,
    ] {
        bench.host.tell(conn, SessionInput::Frame(frame.as_bytes()), now());
        bench.host.settle(now());
    }
    for _ in 0..4 {
        bench.step(script);
    }
}
