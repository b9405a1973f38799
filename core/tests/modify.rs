//! Changing a record by what it is, in one step.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod lone_replica;

use synclayer_core::testing::{Checked, InspectReplica, SimulatedDisk};
use synclayer_core::{ConflictStrategy, Document, FieldWise, Misuse, Write, Written};

use lone_replica::{LoneReplica, ack, change, config, doc, id, todos, with};

impl LoneReplica {
    fn modify(
        &mut self,
        at: &str,
        change: impl FnOnce(Option<&Document>) -> Result<Option<Document>, Misuse> + Send + 'static,
    ) -> Result<Written, Misuse> {
        self.replica.write(
            self.now,
            Write::Modify(todos(), id(at), Box::new(change)),
            &mut self.actions,
        )
    }

    fn add(&mut self, at: &str, by: i64) -> Written {
        self.modify(at, move |seen| Ok(Some(with_n(seen, n(seen) + by)))).unwrap()
    }
}

fn n(seen: Option<&Document>) -> i64 {
    seen.and_then(|seen| seen.text("n")?.parse().ok()).unwrap_or(0)
}

fn with_n(seen: Option<&Document>, n: i64) -> Document {
    let others = seen.into_iter().flat_map(Document::iter).filter(|(name, _)| *name != "n");
    let others: Vec<_> = others.map(|(name, text)| format!("\"{name}\":{text}")).collect();
    doc(&format!(
        "{{{}}}",
        others.into_iter().chain([format!("\"n\":{n}")]).collect::<Vec<_>>().join(",")
    ))
}

#[test]
fn it_sees_the_pending_writes_and_writes_what_differs() {
    let mut lone = LoneReplica::live();
    lone.add("a", 1);
    assert!(lone.sent()[0].contains(r#""type":"update""#), "only what differs");
    lone.add("a", 1);
    assert_eq!(lone.shows("a").unwrap(), r#"{"n":3,"t":"x"}"#);
    let sent = lone.sent();
    assert!(sent[0].contains(r#""data":{"n":3}"#) && !sent[0].contains("\"t\""), "{sent:?}");
    // what somebody else wrote meanwhile waits beneath them, and a third is made on top
    lone.hear(&change("update", "a", r#"{"t":"y"}"#, 6, "2026-01-01T00:00:00Z"));
    lone.hear(&ack(1, "a", 7)).hear(&ack(2, "a", 8));
    lone.add("a", 4);
    assert_eq!(lone.shows("a").unwrap(), r#"{"n":7,"t":"y"}"#);
}

#[test]
fn it_makes_removes_and_leaves_records() {
    let mut lone = LoneReplica::live();
    lone.add("new", 5);
    assert_eq!(lone.shows("new").unwrap(), r#"{"n":5}"#);
    let same = lone.modify("new", |seen| Ok(seen.cloned())).unwrap();
    assert_eq!(same.write, None, "nothing to write");
    lone.modify("new", |seen| Ok(seen.filter(|_| false).cloned())).unwrap();
    assert_eq!(lone.shows("new"), None);
    assert_eq!(lone.modify("none", |_| Ok(None)).unwrap().write, None);
}

#[test]
fn where_it_fails_nothing_has_changed() {
    let mut lone = LoneReplica::live_with(with(config(), |it| it.limits.document_bytes = 20));
    let digest = |lone: &LoneReplica| (lone.replica.digest(), lone.replica.store().last());
    let before = digest(&lone);
    let failed = || Misuse::ModifyFailed { message: "a bug".into() };
    assert_eq!(lone.modify("a", move |_| Err(failed())), Err(failed()));
    assert_eq!(failed().to_string(), "the record was not changed: a bug");
    let large = lone.modify("a", |_| Ok(Some(doc(&format!(r#"{{"t":"{}"}}"#, "x".repeat(50))))));
    assert!(matches!(large, Err(Misuse::Document(_))), "{large:?}");
    assert_eq!(digest(&lone), before);
    assert_eq!(lone.shows("a").unwrap(), r#"{"n":1,"t":"x"}"#);
}

#[test]
fn increments_of_two_devices_add_up() {
    let conflict_strategy = ConflictStrategy::custom(FieldWise::sum_numbers());
    let mut lone =
        LoneReplica::live_with(with(config(), |it| it.conflict_strategy = conflict_strategy));
    lone.cut();
    lone.add("a", 2);
    lone.add("a", 3);
    lone.pass(2_000);
    lone.answer_dial();
    lone.welcome(0, "");
    lone.hear(r#"{"type":"subscribed","collection":"todos","metadata":{"head":6,"mode":"delta"}}"#)
        .hear(&change("update", "a", r#"{"n":11}"#, 6, "2026-01-01T00:00:00Z"));
    assert_eq!(lone.shows("a").unwrap(), r#"{"n":16,"t":"x"}"#, "1 + 10 there + 5 here");
}
