//! Durability comes from the store alone, and an embedder learns that the machine has stopped.
#![allow(missing_docs, clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod lone_replica;

use lone_replica::{LoneReplica, config, doc, id, todos};
use synclayer_core::testing::{InspectReplica, SimulatedDisk};
use synclayer_core::{Action, Command, MemoryClientStore, StoreError, StoreErrorKind, Write};

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
