//! Transactions at the client: several writes with one fate.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod lone_replica;

use std::sync::{Arc, Mutex};

use synclayer_core::testing::{Checked, InspectReplica, SimulatedDisk};
use synclayer_core::{
    Conflict, ConflictStrategy, Delta, Document, Event, EventKind, Misuse, Resolver,
    TransactionDraft, Write, Written,
};

use lone_replica::{LoneReplica, ack, change, config, doc, id, synced, todos, with};

type Made = Result<Written, Misuse>;

impl LoneReplica {
    fn transact(
        &mut self,
        body: impl FnOnce(&mut TransactionDraft<'_>) -> Result<(), Misuse> + Send + 'static,
    ) -> Made {
        let made =
            self.replica.write(self.now, Write::Transaction(Box::new(body)), &mut self.actions);
        self.replica.check().unwrap();
        made
    }

    /// A transaction that saves records, each with a number.
    fn save_both(&mut self, records: [(&'static str, u64); 2]) -> Written {
        let made = self.transact(move |draft| {
            records.iter().try_for_each(|(at, n)| {
                draft.save(&todos(), &id(at), doc(&format!(r#"{{"n":{n},"t":"x"}}"#)))
            })
        });
        made.unwrap()
    }

    /// Goes online again; the server has record `a` as it was.
    fn come_back(&mut self) {
        self.redial();
        self.catch_up(&[], &[("a", 5, r#"{"n":1,"t":"x"}"#)], 5);
    }

    fn redial(&mut self) {
        self.pass(2_000);
        self.answer_dial();
        self.welcome(0, "");
    }

    /// The server tells of changes, and then has these records.
    fn catch_up(&mut self, changes: &[String], records: &[(&str, u64, &str)], head: u64) {
        self.hear(&format!(
            r#"{{"type":"subscribed","collection":"todos","metadata":{{"head":{head},"mode":"delta"}}}}"#
        ));
        for change in changes {
            self.hear(change);
        }
        self.hear(&synced("e1", head, records));
    }

    /// The rejected writes: record, reason, and the transaction.
    fn rejections(&self) -> Vec<(String, String, bool)> {
        let all = self.replica.rejected().unwrap();
        let line = |it: &synclayer_core::Rejected| {
            (it.record_id.to_string(), it.code.to_string(), it.transaction.is_some())
        };
        all.iter().map(line).collect()
    }

    /// The records of each transaction that was rejected.
    fn failed_transactions(&mut self) -> Vec<String> {
        self.sent();
        let records = |event: &Event| match &event.kind {
            EventKind::TransactionFailed { records, .. } => {
                let ids: Vec<_> = records.iter().map(|(_, id)| id.as_str()).collect();
                Some(ids.join(" "))
            }
            _ => None,
        };
        self.events.iter().filter_map(records).collect()
    }

    /// The records and numbers of the writes that were sent.
    fn writes(&mut self) -> Vec<String> {
        let is_write = |line: &String| line.contains(r#""mutation":"#);
        self.sent().into_iter().filter(is_write).collect()
    }
}

const SERVER_N7: &str = r#"{"n":7}"#;

fn remote_change_of_a() -> String {
    change("update", "a", SERVER_N7, 6, "2026-11-01T00:00:00Z")
}

const A_AT_6: &[(&str, u64, &str)] = &[("a", 6, r#"{"n":7,"t":"x"}"#)];

fn server_wins() -> LoneReplica {
    LoneReplica::live_with(with(config(), |it| it.conflict_strategy = ConflictStrategy::ServerWins))
}

#[test]
fn inside_it_reads_what_it_has_written_and_two_writes_of_a_record_are_one() {
    let mut lone = LoneReplica::live();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&seen);
    let made = lone.transact(move |draft| {
        let look = |draft: &TransactionDraft<'_>| {
            let shown = draft.get(&todos(), &id("a")).unwrap();
            told.lock().unwrap().push(shown.map(|it| it.to_string()));
        };
        look(draft);
        draft.update(&todos(), &id("a"), &Delta::new(doc(r#"{"n":2}"#), vec![]))?;
        look(draft);
        draft.delete(&todos(), &id("a"))?;
        look(draft);
        draft.save(&todos(), &id("a"), doc(r#"{"n":3,"t":"x"}"#))?;
        draft.save(&todos(), &id("b"), doc(r#"{"n":4}"#))
    });
    assert_eq!(made.unwrap().transaction, made_first(&lone));
    let shown = seen.lock().unwrap().clone();
    let texts: Vec<_> = shown.iter().map(|it| it.as_deref()).collect();
    assert_eq!(texts, [Some(r#"{"n":1,"t":"x"}"#), Some(r#"{"n":2,"t":"x"}"#), None]);
    let sent = lone.writes();
    assert_eq!(sent.len(), 2, "{sent:?}");
    assert!(sent[0].contains(r#""type":"update""#) && sent[0].contains(r#"{"n":3}"#), "{sent:?}");
    assert_eq!(lone.shows("b").unwrap(), r#"{"n":4}"#);
}

/// The transaction that the events name.
fn made_first(lone: &LoneReplica) -> Option<synclayer_core::WriteId> {
    let named = |action: &synclayer_core::Action| match action {
        synclayer_core::Action::Event(event) => match &event.kind {
            EventKind::OperationQueued { transaction, .. } => *transaction,
            _ => None,
        },
        _ => None,
    };
    lone.actions.iter().find_map(named)
}

#[test]
fn a_transaction_is_one_commit_and_one_that_fails_is_none() {
    let mut lone = LoneReplica::live();
    let before = lone.replica.store().last();
    lone.save_both([("b", 1), ("c", 2)]);
    let after = lone.replica.store().last();
    assert_eq!(after.0, before.0 + 1);
    let failed = lone.transact(|draft| {
        draft.save(&todos(), &id("d"), doc("{}"))?;
        draft.update(&todos(), &id("none"), &Delta::new(doc("{}"), vec![]))
    });
    assert!(matches!(failed, Err(Misuse::NoSuchRecord { .. })), "{failed:?}");
    let large = lone.transact(|draft| {
        (0..257).try_for_each(|n| draft.save(&todos(), &id(&format!("x{n}")), doc("{}")))
    });
    assert!(matches!(large, Err(Misuse::TransactionTooLarge { members: 257, .. })), "{large:?}");
    let stale = lone.transact(|draft| draft.expect(&todos(), &id("a"), Some(&doc("{}"))));
    assert!(matches!(stale, Err(Misuse::PreconditionFailed { .. })), "{stale:?}");
    assert_eq!((lone.shows("d"), lone.shows("x0")), (None, None));
    let nothing = lone.transact(|_| Ok(())).unwrap();
    assert_eq!((nothing.write, nothing.transaction), (None, None));
}

#[test]
fn nothing_is_squashed_across_the_edge_of_a_transaction() {
    let mut lone = LoneReplica::live();
    lone.cut();
    lone.update("a", r#"{"n":2}"#);
    lone.save_both([("a", 3), ("b", 3)]);
    lone.update("a", r#"{"n":4}"#);
    lone.update("a", r#"{"n":5}"#);
    assert_eq!(lone.replica.status().pending_writes, 4);
    lone.come_back();
    let sent = lone.writes();
    let numbers: Vec<_> = ["2", "3", "3", "5"].map(|n| format!(r#""n":{n}"#)).into();
    assert_eq!(sent.len(), 4, "{sent:?}");
    assert!(sent.iter().zip(&numbers).all(|(sent, n)| sent.contains(n.as_str())), "{sent:?}");
}

#[test]
fn a_member_that_the_strategy_gives_up_takes_the_transaction_with_it() {
    let mut lone = server_wins();
    lone.cut();
    let made = lone.save_both([("b", 2), ("a", 2)]);
    lone.replica.follow(made, &mut lone.actions);
    lone.redial();
    lone.catch_up(&[remote_change_of_a()], A_AT_6, 6);
    let all = [("b", "LOST"), ("a", "LOST")].map(|(at, code)| (at.into(), code.into(), true));
    assert_eq!(lone.rejections(), all);
    assert_eq!(lone.shows("b"), None, "rolled back");
    assert_eq!(lone.shows("a").unwrap(), r#"{"n":7,"t":"x"}"#);
    let sent = lone.sent();
    assert!(!sent.iter().any(|line| line.contains("mutation")), "{sent:?}");
    assert!(sent.iter().any(|line| line.starts_with("FATE 0 Rejected")), "{sent:?}");
    assert_eq!(lone.failed_transactions(), ["a b"]);
    lone.replica.check_at_rest().unwrap();
}

#[test]
fn what_won_goes_on_where_the_transaction_says_so() {
    let mut lone = server_wins();
    lone.cut();
    let made = lone.transact(|draft| {
        draft.keep_what_won();
        draft.save(&todos(), &id("b"), doc(r#"{"n":2}"#))?;
        draft.save(&todos(), &id("a"), doc(r#"{"n":2,"t":"x"}"#))
    });
    lone.replica.follow(made.unwrap(), &mut lone.actions);
    lone.redial();
    lone.catch_up(&[remote_change_of_a()], A_AT_6, 6);
    assert_eq!(lone.rejections(), []);
    assert_eq!(lone.writes().len(), 1);
    lone.hear(&ack(1, "b", 7));
    assert_eq!(lone.sent(), ["FATE 0 Acknowledged"]);
    lone.replica.check_at_rest().unwrap();
}

#[test]
fn nothing_is_left_where_all_was_given_up() {
    let mut lone = server_wins();
    lone.cut();
    let made = lone.transact(|draft| {
        draft.keep_what_won();
        draft.update(&todos(), &id("a"), &Delta::new(doc(r#"{"n":2}"#), vec![]))
    });
    made.unwrap();
    lone.redial();
    lone.catch_up(&[remote_change_of_a()], A_AT_6, 6);
    assert_eq!(lone.failed_transactions(), ["a"]);
    lone.replica.check_at_rest().unwrap();
}

/// A resolver that writes down what it is asked, and takes the local side's `n` plus 100.
struct Telling(Arc<Mutex<Vec<[Option<String>; 3]>>>);

impl Resolver for Telling {
    fn resolve(&self, conflict: &Conflict<'_>) -> Option<Document> {
        let text = |state: Option<&Document>| state.map(ToString::to_string);
        let asked = [conflict.base, conflict.local, conflict.remote].map(text);
        self.0.lock().unwrap().push(asked);
        let n: u64 = conflict.local.unwrap().text("n").unwrap().parse().unwrap();
        Some(doc(&format!(r#"{{"n":{},"t":"x"}}"#, n + 100)))
    }
}

#[test]
fn a_record_is_rebased_transaction_by_transaction() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let strategy = ConflictStrategy::custom(Telling(Arc::clone(&asked)));
    let mut lone = LoneReplica::live_with(with(config(), |it| it.conflict_strategy = strategy));
    lone.cut();
    lone.update("a", r#"{"n":2}"#);
    let update = |draft: &mut TransactionDraft<'_>, n: u64| {
        draft.update(&todos(), &id("a"), &Delta::new(doc(&format!(r#"{{"n":{n}}}"#)), vec![]))
    };
    lone.transact(move |draft| update(draft, 3)).unwrap();
    lone.transact(move |draft| update(draft, 4)).unwrap();
    lone.redial();
    lone.catch_up(&[remote_change_of_a()], A_AT_6, 6);
    let states = |base, local, remote| {
        [base, local, remote].map(|n| Some(format!(r#"{{"n":{n},"t":"x"}}"#)))
    };
    let expected = [states(1, 2, 7), states(2, 3, 102), states(3, 4, 103)];
    assert_eq!(*asked.lock().unwrap(), expected);
    assert_eq!(lone.writes().len(), 3);
    assert_eq!(lone.shows("a").unwrap(), r#"{"n":104,"t":"x"}"#);
}

#[test]
fn an_expectation_that_no_longer_holds_rejects_the_transaction() {
    let mut lone = LoneReplica::live();
    lone.cut();
    let made = lone.transact(|draft| {
        draft.expect_unchanged(&todos(), &id("a"))?;
        draft.save(&todos(), &id("claim"), doc(r#"{"by":"me"}"#))
    });
    lone.replica.follow(made.unwrap(), &mut lone.actions);
    assert!(lone.shows("claim").is_some());
    lone.redial();
    lone.catch_up(&[remote_change_of_a()], A_AT_6, 6);
    let codes: Vec<_> = lone.rejections().into_iter().map(|(at, code, _)| (at, code)).collect();
    let failed = ["a", "claim"].map(|at| (at.into(), "PRECONDITION_FAILED".into()));
    assert_eq!(codes, failed);
    assert_eq!(lone.shows("claim"), None);
    assert!(lone.sent().iter().any(|line| line.contains("PRECONDITION_FAILED")));
    assert_eq!(lone.failed_transactions(), ["a claim"], "what it expected is named, too");
    lone.replica.check_at_rest().unwrap();
}

#[test]
fn an_expectation_that_holds_lets_the_transaction_go() {
    let mut lone = LoneReplica::live();
    lone.cut();
    lone.update("a", r#"{"n":2}"#);
    let made = lone.transact(|draft| {
        draft.expect(&todos(), &id("a"), Some(&doc(r#"{"n":2,"t":"x"}"#)))?;
        draft.expect(&todos(), &id("claim"), None)?;
        draft.save(&todos(), &id("claim"), doc(r#"{"by":"me"}"#))
    });
    lone.replica.follow(made.unwrap(), &mut lone.actions);
    lone.come_back();
    // this server knows no transactions: the expectation waits for what stands before it
    assert_eq!(lone.writes().len(), 1);
    lone.hear(&ack(1, "a", 6));
    assert_eq!(lone.writes().len(), 1);
    lone.hear(&ack(2, "claim", 7));
    assert_eq!(lone.sent(), ["FATE 0 Acknowledged"]);
    lone.replica.check_at_rest().unwrap();
}

fn refused(number: u64, record: &str) -> String {
    format!(
        r#"{{"type":"error","code":"UNAUTHORIZED","error":"no","metadata":{{"mutation":{number},"collection":"todos","recordId":"{record}"}}}}"#
    )
}

#[test]
fn a_rejection_rolls_back_the_transaction_and_what_stands_on_it() {
    let mut lone = LoneReplica::live();
    lone.cut();
    lone.save_both([("r", 1), ("q", 1)]);
    // it updates what the first inserts, so that it can't be without it
    lone.transact(|draft| {
        draft.update(&todos(), &id("r"), &Delta::new(doc(r#"{"m":2}"#), vec![]))?;
        draft.save(&todos(), &id("s"), doc("{}"))
    })
    .unwrap();
    lone.update("a", r#"{"n":2}"#);
    lone.come_back();
    lone.writes();
    lone.hear(&refused(1, "r"));
    let records: Vec<_> = lone.rejections().into_iter().map(|(at, ..)| at).collect();
    assert_eq!(records, ["r", "q", "r", "s"]);
    assert_eq!(["r", "q", "s"].map(|at| lone.shows(at)), [None, None, None]);
    assert_eq!(lone.shows("a").unwrap(), r#"{"n":2,"t":"x"}"#);
    let sent = lone.writes();
    assert!(sent.len() == 1 && sent[0].contains(r#""recordId":"a""#), "{sent:?}");
    assert_eq!(lone.failed_transactions(), ["q r", "r s"]);
}

#[test]
fn what_expected_a_write_falls_with_it() {
    let mut lone = LoneReplica::live();
    lone.cut();
    lone.update("a", r#"{"n":12}"#);
    lone.transact(|draft| {
        draft.expect_unchanged(&todos(), &id("a"))?;
        draft.save(&todos(), &id("claim"), doc("{}"))
    })
    .unwrap();
    lone.come_back();
    lone.writes();
    lone.hear(&refused(1, "a"));
    assert_eq!(lone.writes(), Vec::<String>::new());
    assert_eq!(lone.shows("claim"), None);
    let codes: Vec<_> = lone.rejections().into_iter().map(|(_, code, _)| code).collect();
    assert_eq!(codes, ["UNAUTHORIZED", "PRECONDITION_FAILED", "PRECONDITION_FAILED"]);
    lone.replica.check_at_rest().unwrap();
}

#[test]
fn a_rejected_transaction_is_made_again_whole() {
    let mut lone = server_wins();
    lone.cut();
    lone.save_both([("b", 2), ("a", 2)]);
    lone.redial();
    lone.catch_up(&[remote_change_of_a()], A_AT_6, 6);
    let write = lone.replica.rejected().unwrap()[1].write;
    lone.sent();
    lone.replica.write(lone.now, Write::RetryRejected(write), &mut lone.actions).unwrap();
    lone.replica.check().unwrap();
    assert_eq!(lone.rejections(), []);
    assert_eq!(lone.writes().len(), 2);
    assert_eq!(lone.shows("a").unwrap(), r#"{"n":2,"t":"x"}"#);
    assert_eq!(lone.shows("b").unwrap(), r#"{"n":2,"t":"x"}"#);
}

#[test]
fn a_replica_that_is_opened_anew_knows_its_transactions() {
    let mut lone = server_wins();
    lone.cut();
    lone.save_both([("b", 2), ("a", 2)]);
    let store = lone.replica.store().clone();
    let server_wins = with(config(), |it| it.conflict_strategy = ConflictStrategy::ServerWins);
    let mut lone = LoneReplica::on(server_wins, store);
    lone.replica.check().unwrap();
    lone.dial();
    lone.welcome(0, "");
    lone.catch_up(&[remote_change_of_a()], A_AT_6, 6);
    assert_eq!(lone.rejections().len(), 2);
    assert_eq!(lone.shows("b"), None);
}

#[test]
fn an_expectation_is_no_write_that_waits() {
    let mut lone = LoneReplica::new(config());
    let made = lone.transact(|draft| {
        draft.expect(&todos(), &id("claim"), None)?;
        draft.save(&todos(), &id("seat"), doc("{}"))
    });
    assert!(made.unwrap().transaction.is_some());
    assert_eq!(lone.replica.pending().unwrap().len(), 1);
    assert_eq!(lone.replica.status().pending_writes, 1);
}
