//! Durability comes from the store alone, and an embedder learns that the machine has stopped.
#![allow(missing_docs, clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod desk;

use desk::{Desk, config, doc, id, todos};
use synclayer_core::{Action, Command, MemoryClientStore, StoreError, StoreErrorKind, Write};

/// A replica in sync whose store makes nothing durable by itself any more.
fn live() -> Desk {
    let mut desk = Desk::on(config(), MemoryClientStore::when_told());
    desk.make_durable();
    desk.dial();
    desk.make_durable();
    for frame in [
        r#"{"type":"pong","metadata":{"protocol":2,"epoch":"e1","lastMutation":0}}"#,
        r#"{"type":"subscribed","collection":"todos","metadata":{"head":0,"mode":"snapshot"}}"#,
        r#"{"type":"sync","collection":"todos","data":{"records":[]},"metadata":{"snapshotSeq":0}}"#,
        r#"{"type":"synced","collection":"todos","metadata":{"epoch":"e1","seq":0,"count":0,"checksum":"0000000000000000"}}"#,
    ] {
        desk.hear(frame);
    }
    desk.make_durable();
    desk.sent();
    desk
}

fn save(desk: &mut Desk) {
    let document = doc(r#"{"a":1}"#);
    desk.replica
        .write(desk.now, Write::Save(todos(), id("1"), document), &mut desk.effects)
        .unwrap();
}

#[test]
fn a_write_goes_out_once_the_store_says_that_it_is_durable() {
    let mut desk = live();
    save(&mut desk);
    let (before, last) = (desk.replica.durable(), desk.replica.store().last());
    desk.replica.poll_store(desk.now, &mut desk.effects);
    assert_eq!(desk.replica.durable(), before);
    assert!(desk.sent().is_empty(), "the write is not durable");
    desk.replica.store_mut().make_durable(last);
    desk.replica.poll_store(desk.now, &mut desk.effects);
    assert_eq!(desk.replica.durable(), last);
    assert_eq!(desk.sent().len(), 1);
}

#[test]
fn a_halt_is_told_as_one_with_its_reason() {
    let mut desk = live();
    let error = StoreError::new(StoreErrorKind::Full, "full");
    desk.replica.store_mut().fail(error.clone());
    desk.replica.poll_store(desk.now, &mut desk.effects);
    let is_halt = |effect: &&Action| matches!(effect, Action::Halted(_));
    assert_eq!(desk.effects.iter().filter(is_halt).count(), 1);
    assert_eq!(desk.effects.last(), Some(&Action::Halted(error.clone())), "nothing follows it");
    assert_eq!(desk.replica.status().halted, Some(error.clone()));
    desk.effects.clear();
    // later failures say nothing new
    desk.replica.poll_store(desk.now, &mut desk.effects);
    desk.replica.command(desk.now, Command::Connect, &mut desk.effects);
    assert_eq!(desk.effects, []);
}
