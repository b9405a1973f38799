//! Durability comes from the store alone, and an embedder learns that the machine has stopped.
#![allow(missing_docs, clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod desk;

use desk::{Desk, config, doc, id, todos};
use synclayer_core::client::interface::Input;
use synclayer_core::memory::MemoryClientStore;
use synclayer_core::replica::Effect;
use synclayer_core::words::name::CommitNumber;
use synclayer_core::words::store::{StoreError, StoreErrorKind};

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
    desk.replica.save(desk.now, &todos(), &id("1"), &document, &mut desk.effects).unwrap();
}

#[test]
#[cfg_attr(debug_assertions, should_panic(expected = "says that commit 999 is durable"))]
fn a_caller_can_not_make_durable_what_the_store_has_not() {
    let mut desk = live();
    save(&mut desk);
    let before = desk.replica.durable();
    let input = Input::Durable { up_to: CommitNumber(999) };
    desk.replica.handle(desk.now, input, &mut desk.effects);
    assert_eq!(desk.replica.durable(), before);
    assert!(desk.sent().is_empty(), "the write is not durable");
    desk.make_durable();
    assert_eq!(desk.sent().len(), 1);
}

#[test]
fn a_caller_may_report_what_the_store_has_made_durable() {
    let mut desk = live();
    save(&mut desk);
    let last = desk.replica.store().last();
    desk.replica.store_mut().make_durable(last);
    desk.replica.handle(desk.now, Input::Durable { up_to: last }, &mut desk.effects);
    assert_eq!(desk.replica.durable(), last);
    assert_eq!(desk.sent().len(), 1);
}

#[test]
fn a_halt_is_told_as_one_with_its_reason() {
    let mut desk = live();
    let error = StoreError::new(StoreErrorKind::Full, "full");
    desk.replica.store_mut().fail(error.clone());
    desk.replica.poll_store(desk.now, &mut desk.effects);
    let is_halt = |effect: &&Effect| matches!(effect, Effect::Halted(_));
    assert_eq!(desk.effects.iter().filter(is_halt).count(), 1);
    assert_eq!(desk.effects.last(), Some(&Effect::Halted(error.clone())), "nothing follows it");
    assert_eq!(desk.replica.status().halted, Some(error.clone()));
    desk.effects.clear();
    // later failures say nothing new
    desk.replica.handle(desk.now, Input::StoreFailed { error }, &mut desk.effects);
    desk.replica.connect(desk.now, &mut desk.effects);
    assert_eq!(desk.effects, []);
}
