//! Durability comes from the store alone, and an embedder learns that the machine has stopped.
#![allow(missing_docs, clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod lone_replica;

use lone_replica::{LoneReplica, config, doc, id, todos};
use synclayer_core::testing::{Checked, InspectReplica, SimulatedDisk};
use synclayer_core::{
    Action, Batch, ClientStore, Command, CommitNumber, EventKind, MemoryClientStore, Scan,
    StoreError, StoreErrorKind, Write,
};

/// A replica in sync whose store makes nothing durable by itself any more.
fn live() -> LoneReplica {
    let mut lone = LoneReplica::on(config(), MemoryClientStore::when_told());
    lone.make_durable();
    lone.dial();
    lone.make_durable();
    for frame in [
        r#"{"type":"pong","metadata":{"protocol":2,"epoch":"e1","lastMutation":0}}"#,
        r#"{"type":"subscribed","collection":"todos","metadata":{"head":0,"mode":"snapshot"}}"#,
        r#"{"type":"sync","collection":"todos","data":{"records":[]},"metadata":{"snapshotSeq":0}}"#,
        r#"{"type":"synced","collection":"todos","metadata":{"epoch":"e1","seq":0,"count":0,"checksum":"0000000000000000"}}"#,
    ] {
        lone.hear(frame);
    }
    lone.make_durable();
    lone.sent();
    lone
}

fn save(lone: &mut LoneReplica) {
    let document = doc(r#"{"a":1}"#);
    lone.replica
        .write(lone.now, Write::Save(todos(), id("1"), document), &mut lone.actions)
        .unwrap();
}

#[test]
fn a_write_goes_out_once_the_store_says_that_it_is_durable() {
    let mut lone = live();
    save(&mut lone);
    let (before, last) = (lone.replica.durable(), lone.replica.store().last());
    lone.replica.poll_store(lone.now, &mut lone.actions);
    assert_eq!(lone.replica.durable(), before);
    assert!(lone.sent().is_empty(), "the write is not durable");
    lone.replica.store_mut().make_durable(last);
    lone.replica.poll_store(lone.now, &mut lone.actions);
    assert_eq!(lone.replica.durable(), last);
    assert_eq!(lone.sent().len(), 1);
}

#[test]
fn calls_in_a_group_are_one_commit_and_their_actions_wait_for_it() {
    let mut lone = live();
    let before = lone.replica.store().last();
    lone.replica.begin_group();
    save(&mut lone);
    lone.hear(
        r#"{"type":"insert","collection":"todos","recordId":"2","data":{"b":2},"timestamp":"2026-01-01T00:00:00Z","metadata":{"seq":1,"version":1}}"#,
    );
    assert!(lone.replica.get(&todos(), &id("2")).unwrap().is_some());
    let written = lone.replica.write(lone.now, Write::Delete(todos(), id("2")), &mut lone.actions);
    assert_eq!(lone.actions, []);
    assert_eq!(lone.replica.store().last(), before);
    assert_eq!(lone.replica.get(&todos(), &id("1")).unwrap().map(|it| it.pending), Some(true));
    assert_eq!(lone.replica.get(&todos(), &id("2")), Ok(None));
    lone.replica.end_group(lone.now, &mut lone.actions);
    assert_eq!(lone.replica.store().last(), before.next());
    assert_eq!(written.unwrap().commit, before.next());
    assert!(!lone.actions.is_empty());
    assert!(lone.sent().is_empty(), "the writes are not durable");
    lone.make_durable();
    assert_eq!(lone.sent().len(), 2);
}

#[test]
fn a_group_whose_commit_fails_has_not_happened() {
    let mut lone = live();
    let error = StoreError::new(StoreErrorKind::Full, "full");
    lone.replica.store_mut().fail_commit(1, error.clone());
    lone.replica.begin_group();
    save(&mut lone);
    lone.replica.end_group(lone.now, &mut lone.actions);
    let queued = |action: &Action| matches!(action, Action::Event(event) if matches!(event.kind, EventKind::OperationQueued { .. }));
    assert!(!lone.actions.iter().any(queued), "{:?}", lone.actions);
    assert_eq!(lone.actions.last(), Some(&Action::Halted(error)));
    assert_eq!(lone.replica.get(&todos(), &id("1")), Ok(None));
}

#[test]
fn a_group_of_many_bytes_is_committed_before_its_end() {
    let mut lone = live();
    let before = lone.replica.store().last();
    lone.replica.begin_group();
    for n in 0..40 {
        let document = doc(&format!(r#"{{"text":"{}"}}"#, "x".repeat(50_000)));
        let write = Write::Save(todos(), id(&n.to_string()), document);
        lone.replica.write(lone.now, write, &mut lone.actions).unwrap();
    }
    assert!(lone.replica.store().last() > before);
    lone.replica.end_group(lone.now, &mut lone.actions);
    let commits = lone.replica.store().last().0 - before.0;
    assert!((3..=10).contains(&commits), "{commits}");
}

#[test]
fn a_halt_is_told_as_one_with_its_reason() {
    let mut lone = live();
    let error = StoreError::new(StoreErrorKind::Full, "full");
    lone.replica.store_mut().fail(error.clone());
    lone.replica.poll_store(lone.now, &mut lone.actions);
    let is_halt = |action: &&Action| matches!(action, Action::Halted(_));
    assert_eq!(lone.actions.iter().filter(is_halt).count(), 1);
    assert_eq!(lone.actions.last(), Some(&Action::Halted(error.clone())), "nothing follows it");
    assert_eq!(lone.replica.status().halted, Some(error.clone()));
    lone.actions.clear();
    // later failures say nothing new
    lone.replica.poll_store(lone.now, &mut lone.actions);
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    assert_eq!(lone.actions, []);
}

/// Stores of earlier versions have a row that names its record for each write in the outbox.
#[test]
fn a_store_of_an_earlier_version_loses_its_index_of_writes_and_nothing_else() {
    let mut lone = live();
    save(&mut lone);
    lone.make_durable();
    let mut store = lone.replica.store().clone().reopen();
    let rows = |store: &MemoryClientStore| {
        let mut rows = Vec::new();
        let mut look = |key: &[u8], value| {
            rows.push((key.to_vec(), value));
            Ok(Scan::Next)
        };
        store.rows().scan(b"", &[0xff; 8], &mut look).unwrap();
        rows
    };
    let before = rows(&store);
    let record = before.iter().find(|(key, _)| key.ends_with(b"todos\x001")).unwrap();
    let mut index = record.0.clone();
    index[5] = b'p';
    index.extend([0, 0, 0, 0, 0, 0, 0, 0, 1]);
    let mut batch = Batch::default();
    batch.put(index, &b""[..]);
    store.commit(CommitNumber(store.last().0 + 1), batch).unwrap();
    store.make_durable(store.last());
    assert_eq!(rows(&store).len(), before.len() + 1);
    let mut lone = LoneReplica::on(config(), store.reopen());
    lone.make_durable();
    assert_eq!(rows(lone.replica.store()), before);
    assert_eq!(lone.replica.pending().unwrap().len(), 1);
    lone.replica.check().unwrap();
}
