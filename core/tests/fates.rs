//! The fate of a write, told once to those who follow it.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod desk;

use synclayer_core::{ClientConfig, ConflictStrategy, EventKind, Level, Write, Written};

use desk::{Desk, ack, change, config, doc, id, todos};

impl Desk {
    /// Saves a record, and follows that.
    fn saved(&mut self, at: &str, json: &str) -> Written {
        let saved = self.replica.write(
            self.now,
            Write::Save(todos(), id(at), doc(json)),
            &mut self.effects,
        );
        let saved = saved.unwrap();
        self.replica.follow(saved, &mut self.effects);
        saved
    }

    fn fates(&mut self) -> Vec<String> {
        self.sent().into_iter().filter(|line| line.starts_with("FATE")).collect()
    }
}

#[test]
fn a_write_that_joins_another_shares_its_fate() {
    let mut desk = Desk::live();
    desk.cut();
    let first = desk.saved("b", r#"{"n":1}"#);
    let second = desk.saved("b", r#"{"n":2}"#);
    assert_eq!(first.write, second.write, "they are one");
    desk.pass(2_000);
    desk.answer_dial();
    desk.welcome(0, "");
    desk.hear(r#"{"type":"subscribed","collection":"todos","metadata":{"head":5,"mode":"delta"}}"#)
        .hear(&desk::synced("e1", 5, &[("a", 5, r#"{"n":1,"t":"x"}"#)]));
    assert!(desk.fates().is_empty());
    desk.hear(&ack(1, "b", 6));
    assert_eq!(desk.fates(), ["FATE 0 Acknowledged", "FATE 1 Acknowledged"]);
    desk.replica.check_at_rest().unwrap();
}

#[test]
fn a_write_that_changes_nothing_shares_the_fate_of_what_waits() {
    let mut desk = Desk::live();
    let nothing = desk.saved("a", r#"{"n":1,"t":"x"}"#);
    assert_eq!((nothing.write, nothing.shares), (None, None));
    assert_eq!(desk.fates(), ["FATE 0 Unchanged"], "the server has shown it like this");
    let first = desk.saved("a", r#"{"n":2,"t":"x"}"#);
    let second = desk.saved("a", r#"{"n":3,"t":"x"}"#);
    let again = desk.saved("a", r#"{"n":3,"t":"x"}"#);
    assert_ne!(first.write, second.write, "the first is on its way");
    assert_eq!((again.write, again.shares), (None, second.write));
    desk.hear(&ack(1, "a", 6));
    assert_eq!(desk.fates(), ["FATE 1 Acknowledged"]);
    desk.hear(r#"{"type":"error","code":"UNAUTHORIZED","error":"no","metadata":{"mutation":2,"collection":"todos","recordId":"a"}}"#);
    let refused = r#"Rejected { code: Unauthorized, message: "no" }"#;
    assert_eq!(desk.fates(), [format!("FATE 2 {refused}"), format!("FATE 3 {refused}")]);
}

#[test]
fn a_write_that_a_pong_confirms_is_acknowledged() {
    let mut desk = Desk::live();
    desk.saved("b", r#"{"n":1}"#);
    let digest = Desk::digest_of(&desk.sent()[0]);
    desk.cut();
    desk.pass(2_000);
    desk.answer_dial();
    desk.welcome(1, &digest);
    assert_eq!(desk.fates(), ["FATE 0 Acknowledged"]);
}

#[test]
fn what_is_not_followed_is_not_kept() {
    let strategy = ConflictStrategy::ServerWins;
    let mut desk = Desk::live_with(ClientConfig { conflict_strategy: strategy, ..config() });
    let saved = desk.replica.write(
        desk.now,
        Write::Save(todos(), id("a"), doc(r#"{"n":2,"t":"x"}"#)),
        &mut desk.effects,
    );
    let follower = desk.replica.follow(saved.unwrap(), &mut desk.effects);
    desk.replica.unfollow(follower);
    desk.sent();
    desk.hear(&change("update", "a", r#"{"n":9}"#, 6, "2026-01-01T00:00:00Z"));
    desk.hear(r#"{"type":"error","code":"CONFLICT","error":"changed","metadata":{"mutation":1,"collection":"todos","recordId":"a","seq":6,"record":{"data":{"n":9,"t":"x"},"version":6,"updatedAt":"2026-01-01T00:00:00Z"}}}"#);
    assert!(desk.fates().is_empty());
    desk.replica.check_at_rest().unwrap();
}

#[test]
fn events_say_whether_a_write_is_acknowledged() {
    let mut desk = Desk::live();
    desk.saved("b", r#"{"n":1}"#);
    desk.hear(&ack(1, "b", 6));
    desk.sent();
    let level = desk.events.iter().find_map(|event| match event.kind {
        EventKind::OperationSynced { level, .. } => Some(level),
        _ => None,
    });
    assert_eq!(level, Some(Level::Resumable));
}
