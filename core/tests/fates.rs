//! The fate of a write, told once to those who follow it.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod lone_replica;

use synclayer_core::testing::Checked;
use synclayer_core::{ConflictStrategy, EventKind, Level, Write, Written};

use lone_replica::{LoneReplica, ack, change, config, doc, id, todos, with};

impl LoneReplica {
    /// Saves a record, and follows that.
    fn saved(&mut self, at: &str, json: &str) -> Written {
        let saved = self.replica.write(
            self.now,
            Write::Save(todos(), id(at), doc(json)),
            &mut self.actions,
        );
        let saved = saved.unwrap();
        self.replica.follow(saved, &mut self.actions);
        saved
    }

    fn fates(&mut self) -> Vec<String> {
        self.sent().into_iter().filter(|line| line.starts_with("FATE")).collect()
    }
}

#[test]
fn a_write_that_joins_another_shares_its_fate() {
    let mut lone = LoneReplica::live();
    lone.cut();
    let first = lone.saved("b", r#"{"n":1}"#);
    let second = lone.saved("b", r#"{"n":2}"#);
    assert_eq!(first.write, second.write, "they are one");
    lone.pass(2_000);
    lone.answer_dial();
    lone.welcome(0, "");
    lone.hear(r#"{"type":"subscribed","collection":"todos","metadata":{"head":5,"mode":"delta"}}"#)
        .hear(&lone_replica::synced("e1", 5, &[("a", 5, r#"{"n":1,"t":"x"}"#)]));
    assert!(lone.fates().is_empty());
    lone.hear(&ack(1, "b", 6));
    assert_eq!(lone.fates(), ["FATE 0 Acknowledged", "FATE 1 Acknowledged"]);
    lone.replica.check_at_rest().unwrap();
}

#[test]
fn a_write_that_changes_nothing_shares_the_fate_of_what_waits() {
    let mut lone = LoneReplica::live();
    let nothing = lone.saved("a", r#"{"n":1,"t":"x"}"#);
    assert_eq!((nothing.write, nothing.shares), (None, None));
    assert_eq!(lone.fates(), ["FATE 0 Unchanged"], "the server has shown it like this");
    let first = lone.saved("a", r#"{"n":2,"t":"x"}"#);
    let second = lone.saved("a", r#"{"n":3,"t":"x"}"#);
    let again = lone.saved("a", r#"{"n":3,"t":"x"}"#);
    assert_ne!(first.write, second.write, "the first is on its way");
    assert_eq!((again.write, again.shares), (None, second.write));
    lone.hear(&ack(1, "a", 6));
    assert_eq!(lone.fates(), ["FATE 1 Acknowledged"]);
    lone.hear(r#"{"type":"error","code":"UNAUTHORIZED","error":"no","metadata":{"mutation":2,"collection":"todos","recordId":"a"}}"#);
    let refused = r#"Rejected { code: Unauthorized, message: "no" }"#;
    assert_eq!(lone.fates(), [format!("FATE 2 {refused}"), format!("FATE 3 {refused}")]);
}

#[test]
fn a_write_that_a_pong_confirms_is_acknowledged() {
    let mut lone = LoneReplica::live();
    lone.saved("b", r#"{"n":1}"#);
    let digest = LoneReplica::digest_of(&lone.sent()[0]);
    lone.cut();
    lone.pass(2_000);
    lone.answer_dial();
    lone.welcome(1, &digest);
    assert_eq!(lone.fates(), ["FATE 0 Acknowledged"]);
}

#[test]
fn what_is_not_followed_is_not_kept() {
    let strategy = ConflictStrategy::ServerWins;
    let mut lone = LoneReplica::live_with(with(config(), |it| it.conflict_strategy = strategy));
    let saved = lone.replica.write(
        lone.now,
        Write::Save(todos(), id("a"), doc(r#"{"n":2,"t":"x"}"#)),
        &mut lone.actions,
    );
    let follower = lone.replica.follow(saved.unwrap(), &mut lone.actions);
    lone.replica.unfollow(follower);
    lone.sent();
    lone.hear(&change("update", "a", r#"{"n":9}"#, 6, "2026-01-01T00:00:00Z"));
    lone.hear(r#"{"type":"error","code":"CONFLICT","error":"changed","metadata":{"mutation":1,"collection":"todos","recordId":"a","seq":6,"record":{"data":{"n":9,"t":"x"},"version":6,"updatedAt":"2026-01-01T00:00:00Z"}}}"#);
    assert!(lone.fates().is_empty());
    lone.replica.check_at_rest().unwrap();
}

#[test]
fn events_say_whether_a_write_is_acknowledged() {
    let mut lone = LoneReplica::live();
    lone.saved("b", r#"{"n":1}"#);
    lone.hear(&ack(1, "b", 6));
    lone.sent();
    let level = lone.events.iter().find_map(|event| match event.kind {
        EventKind::OperationSynced { level, .. } => Some(level),
        _ => None,
    });
    assert_eq!(level, Some(Level::Resumable));
}
