//! Transactions on their way to a server that takes them whole.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod lone_replica;

use synclayer_core::testing::Checked;
use synclayer_core::{EventKind, Misuse, TransactionDraft, Write, Written};

use lone_replica::{LoneReplica, change, config, doc, http_only, id, synced, todos, with};

const PONG: &str = r#""protocol":2,"epoch":"e1","features":["atomic"]"#;

impl LoneReplica {
    /// Online at a server that takes transactions; one record, `a` at seq 5.
    fn live_atomic() -> Self {
        Self::atomic_with(config())
    }

    fn atomic_with(config: synclayer_core::ClientConfig) -> Self {
        let mut lone = Self::new(config);
        lone.dial();
        lone.pong(0, "");
        lone.hear(r#"{"type":"subscribed","collection":"todos","metadata":{"head":5,"mode":"snapshot"}}"#)
            .hear(r#"{"type":"sync","collection":"todos","data":{"records":[{"id":"a","data":{"n":1},"version":3,"updatedAt":"2026-01-01T00:00:00Z","seq":5}]},"metadata":{"snapshotSeq":5}}"#)
            .hear(&synced("e1", 5, &[("a", 5, r#"{"n":1}"#)]));
        lone.sent();
        assert!(lone.replica.status().guarantees.unwrap().atomic);
        lone
    }

    fn pong(&mut self, last: u64, more: &str) {
        self.hear(&format!(
            r#"{{"type":"pong","metadata":{{{PONG},"lastMutation":{last}{more}}}}}"#
        ));
    }

    fn transact(
        &mut self,
        body: impl FnOnce(&mut TransactionDraft<'_>) -> Result<(), Misuse> + Send + 'static,
    ) -> Written {
        let made =
            self.replica.write(self.now, Write::Transaction(Box::new(body)), &mut self.actions);
        self.replica.check().unwrap();
        made.unwrap()
    }

    /// A claim: it expects record `a`, and saves two others.
    fn claim(&mut self) -> Written {
        self.transact(|draft| {
            draft.expect_unchanged(&todos(), &id("a"))?;
            draft.save(&todos(), &id("b"), doc("{}"))?;
            draft.save(&todos(), &id("c"), doc("{}"))
        })
    }

    /// The numbered messages that were sent, each with the records that it is about.
    fn numbered(&mut self) -> Vec<String> {
        self.sent().into_iter().filter(|line| line.contains(r#""mutation":"#)).collect()
    }
}

fn ack(number: u64, record: &str, seq: Option<u64>) -> String {
    let seq = seq.map_or(String::new(), |seq| format!(r#","seq":{seq},"version":1"#));
    format!(
        r#"{{"type":"ack","collection":"todos","recordId":"{record}","metadata":{{"mutation":{number}{seq}}}}}"#
    )
}

fn batch(messages: &[String]) -> String {
    format!(r#"{{"type":"batch","messages":[{}]}}"#, messages.join(","))
}

fn acks_of_the_claim() -> String {
    batch(&[ack(1, "a", None), ack(2, "b", Some(6)), ack(3, "c", Some(7))])
}

#[test]
fn a_transaction_goes_out_in_one_frame_and_is_acknowledged_whole() {
    let mut lone = LoneReplica::live_atomic();
    let made = lone.claim();
    lone.replica.follow(made, &mut lone.actions);
    let sent = lone.numbered();
    assert_eq!(sent.len(), 1, "{sent:?}");
    let head = r#"{"type":"batch","metadata":{"atomic":true},"messages":["#;
    assert!(sent[0].starts_with(head), "{}", sent[0]);
    let expects = r#"{"type":"expect","collection":"todos","recordId":"a","metadata":{"mutation":1,"base":5}}"#;
    assert!(sent[0].contains(expects), "{}", sent[0]);
    lone.hear(&acks_of_the_claim());
    assert_eq!(lone.sent(), ["FATE 0 Acknowledged"]);
    assert!(lone.saw(|event| matches!(event, EventKind::TransactionSynced { .. })));
    lone.replica.check_at_rest().unwrap();
}

#[test]
fn acks_that_come_apart_end_the_connection() {
    for apart in [
        ack(1, "a", None),
        batch(&[ack(1, "a", None), ack(2, "b", Some(6))]),
        batch(&[ack(2, "b", Some(6)), ack(3, "c", Some(7))]),
    ] {
        let mut lone = LoneReplica::live_atomic();
        lone.claim();
        lone.sent();
        lone.hear(&apart);
        assert_eq!(lone.sent(), ["CLOSE"], "{apart}");
        assert_eq!(lone.replica.status().pending_writes, 2, "nothing of it is confirmed");
    }
}

#[test]
fn alone_it_passes_the_window_and_nothing_beside_it() {
    let mut lone = LoneReplica::atomic_with(with(config(), |config| config.window = 2));
    lone.save("d", "{}");
    lone.claim();
    lone.save("e", "{}");
    assert_eq!(lone.numbered().len(), 1, "the transaction does not fit beside the first");
    lone.hear(&ack(1, "d", Some(6)));
    let sent = lone.numbered();
    assert!(sent.len() == 1 && sent[0].contains("atomic"), "{sent:?}");
    lone.hear(&batch(&[ack(2, "a", None), ack(3, "b", Some(7)), ack(4, "c", Some(8))]));
    let sent = lone.numbered();
    assert!(sent.len() == 1 && sent[0].contains(r#""recordId":"e""#), "{sent:?}");
}

#[test]
fn all_its_collections_have_to_be_ready() {
    let mut lone = LoneReplica::live_atomic();
    let notes = synclayer_core::Collection::new("notes").unwrap();
    let subscribe = synclayer_core::Command::Subscribe(notes.clone());
    lone.replica.command(lone.now, subscribe, &mut lone.actions);
    lone.transact(move |draft| {
        draft.save(&todos(), &id("b"), doc("{}"))?;
        draft.save(&notes, &id("n"), doc("{}"))
    });
    assert_eq!(lone.numbered(), Vec::<String>::new());
    let empty = synced("e1", 0, &[]).replace("todos", "notes");
    lone.hear(r#"{"type":"subscribed","collection":"notes","metadata":{"head":0,"mode":"snapshot"}}"#)
        .hear(r#"{"type":"sync","collection":"notes","data":{"records":[]},"metadata":{"snapshotSeq":0}}"#)
        .hear(&empty);
    assert_eq!(lone.numbered().len(), 1);
}

fn conflict(number: u64, failed: &str) -> String {
    format!(
        r#"{{"type":"error","code":"CONFLICT","error":"changed","metadata":{{"mutation":{number},"failed":[{failed}]}}}}"#
    )
}

const A_IS_7: &str = r#"{"mutation":1,"code":"CONFLICT","collection":"todos","recordId":"a","seq":6,"record":{"data":{"n":7},"version":4}}"#;

#[test]
fn a_conflict_of_an_expectation_is_decided_by_value() {
    let mut lone = LoneReplica::live_atomic();
    lone.claim();
    lone.sent();
    // somebody has changed it back meanwhile
    lone.hear(&conflict(1, &A_IS_7.replace(r#""n":7"#, r#""n":1"#)));
    let sent = lone.numbered();
    assert!(sent.len() == 1 && sent[0].contains(r#"{"mutation":1,"base":6}"#), "{sent:?}");
    lone.hear(&conflict(1, &A_IS_7.replace(r#""seq":6"#, r#""seq":7"#)));
    assert_eq!(lone.numbered(), Vec::<String>::new());
    let codes: Vec<_> =
        lone.replica.rejected().unwrap().iter().map(|it| it.code.to_string()).collect();
    assert_eq!(codes, ["PRECONDITION_FAILED"; 3]);
    assert_eq!((lone.shows("b"), lone.shows("c")), (None, None));
}

#[test]
fn all_records_that_a_conflict_lists_are_settled() {
    let mut lone = LoneReplica::live_atomic();
    lone.update("a", r#"{"m":1}"#);
    lone.hear(&ack(1, "a", Some(6)));
    lone.transact(|draft| {
        draft.save(&todos(), &id("a"), doc(r#"{"n":2,"m":2}"#))?;
        draft.save(&todos(), &id("b"), doc(r#"{"n":2}"#))
    });
    lone.sent();
    let listed = r#"{"mutation":2,"code":"CONFLICT","collection":"todos","recordId":"a","seq":7,"record":{"data":{"m":1,"n":1,"k":7},"version":4}},{"mutation":3,"code":"CONFLICT","collection":"todos","recordId":"b","seq":8,"record":{"data":{"k":8},"version":4}}"#;
    lone.hear(&conflict(2, listed));
    let sent = lone.numbered();
    assert_eq!(sent.len(), 1, "{sent:?}");
    for part in [r#""mutation":2,"base":7"#, r#""mutation":3,"base":8"#] {
        assert!(sent[0].contains(part), "{part} in {}", sent[0]);
    }
    assert_eq!(lone.shows("a").unwrap(), r#"{"k":7,"m":2,"n":2}"#);
}

#[test]
fn a_code_that_rejects_rejects_it_whole() {
    let mut lone = LoneReplica::live_atomic();
    let made = lone.claim();
    lone.replica.follow(made, &mut lone.actions);
    lone.save("d", "{}");
    lone.sent();
    lone.hear(r#"{"type":"error","code":"UNAUTHORIZED","error":"no","metadata":{"mutation":1,"failed":[{"mutation":3,"code":"UNAUTHORIZED","collection":"todos","recordId":"c"}]}}"#);
    assert_eq!(lone.replica.rejected().unwrap().len(), 3);
    assert_eq!((lone.shows("b"), lone.shows("c")), (None, None));
    let sent = lone.sent();
    assert!(sent.iter().any(|line| line.starts_with("FATE 0 Rejected")), "{sent:?}");
    assert!(sent.iter().any(|line| line.contains(r#""mutation":1"#)), "the next has its number");
}

#[test]
fn an_error_inside_a_transaction_ends_the_connection() {
    let mut lone = LoneReplica::live_atomic();
    lone.claim();
    lone.sent();
    lone.hear(&conflict(2, A_IS_7));
    assert_eq!(lone.sent(), ["CLOSE"]);
}

#[test]
fn the_next_hello_confirms_it_whole() {
    let mut lone = LoneReplica::live_atomic();
    let made = lone.claim();
    lone.replica.follow(made, &mut lone.actions);
    let sent = lone.numbered();
    let last = last_digest(&sent[0]);
    lone.cut();
    lone.pass(2_000);
    lone.answer_dial();
    lone.pong(3, &format!(r#","lastDigest":"{last}""#));
    assert!(lone.sent().contains(&"FATE 0 Acknowledged".into()));
    assert_eq!(lone.replica.status().pending_writes, 0);
}

/// The digest of the last member of a transaction.
fn last_digest(frame: &str) -> String {
    use synclayer_core::protocol::{ClientMessage, Incoming, decode_client};
    let decoded = decode_client(frame.as_bytes(), &synclayer_core::Limits::default());
    let Ok(Incoming::One(ClientMessage::Unit(unit))) = decoded else { panic!("{decoded:?}") };
    unit.members.last().unwrap().digest().to_string()
}

#[test]
fn a_lost_ack_does_not_refuse_a_claim_for_good() {
    let mut lone = LoneReplica::live_atomic();
    lone.update("a", r#"{"n":2}"#);
    lone.claim();
    let sent = lone.numbered();
    let digest = LoneReplica::digest_of(&sent[0]);
    lone.cut();
    lone.pass(2_000);
    lone.answer_dial();
    // the update was applied, and its ack lost
    lone.pong(1, &format!(r#","lastDigest":"{digest}""#));
    lone.hear(r#"{"type":"subscribed","collection":"todos","metadata":{"head":6,"mode":"delta"}}"#)
        .hear(&change("update", "a", r#"{"n":2}"#, 6, "2026-11-01T00:00:00Z"))
        .hear(&synced("e1", 6, &[("a", 6, r#"{"n":2}"#)]));
    let sent = lone.numbered();
    assert!(sent.len() == 1 && sent[0].contains(r#""mutation":2,"base":6"#), "{sent:?}");
    assert_eq!(lone.replica.rejected().unwrap(), []);
}

#[test]
fn by_http_it_is_one_element_of_a_push() {
    let mut lone = LoneReplica::new(http_only());
    lone.replica.command(lone.now, synclayer_core::Command::Connect, &mut lone.actions);
    lone.transact(|draft| {
        draft.save(&todos(), &id("b"), doc("{}"))?;
        draft.save(&todos(), &id("c"), doc("{}"))
    });
    lone.answer(200, &format!(r#"{{"type":"pong","metadata":{{{PONG},"lastMutation":0}}}}"#));
    lone.answer(200, &format!(r#"{{"type":"batch","metadata":{{"epoch":"e1","from":{{}},"lastMutation":0}},"messages":[{{"type":"subscribed","collection":"todos","metadata":{{"head":0,"mode":"snapshot"}}}},{{"type":"sync","collection":"todos","data":{{"records":[]}},"metadata":{{"snapshotSeq":0}}}},{}]}}"#, synced("e1", 0, &[])));
    let sent = lone.sent();
    let push = sent.iter().find(|line| line.contains("/sync/push")).expect("it pushes");
    assert!(push.contains(r#""mutations":[{"atomic":[{"type":"insert""#), "{push}");
    let acks = [ack(1, "b", None), ack(2, "c", None)].join(",");
    lone.answer(
        200,
        &format!(r#"{{"type":"batch","metadata":{{"lastMutation":2}},"messages":[{acks}]}}"#),
    );
    assert_eq!(lone.replica.status().pending_writes, 0);
}
