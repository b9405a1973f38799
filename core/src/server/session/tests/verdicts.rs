use super::*;
use crate::rules::transaction::Transaction;
use crate::rules::transaction::tests::{insert, update};

/// A subscriber on an empty collection that is live.
fn live(world: &mut World, conn: u64) {
    world.connect_resumable(conn);
    world.subscribe(conn, None);
    world.settle();
    assert!(world.took(conn).last().unwrap().starts_with("synced"));
}

#[test]
fn the_pong_waits_for_the_disk_and_goes_before_any_subscribed() {
    let mut world = World::new();
    world.connect(1, Identity::Open);
    world.hello(1, 7);
    world.subscribe(1, None);
    world.pump(1);
    assert_eq!(world.took(1), Vec::<String>::new());
    let answers = world.commit();
    world.pump(1);
    assert_eq!(world.took(1), Vec::<String>::new());
    for (conn, answer) in answers {
        world.input(conn, answer);
    }
    world.settle();
    assert_eq!(
        world.took(1),
        [
            "pong e1 last 0",
            "subscribed snapshot count 0 head 0",
            "sync *..* at 0:",
            "synced e1 0 count 0"
        ]
    );
    let status = world.session(1).status();
    assert_eq!(status.level, Some(Level::Resumable));
    assert_eq!((status.subscriptions, status.live), (1, 1));
}

#[test]
fn a_session_that_is_not_larger_is_superseded() {
    let mut world = World::new();
    world.connect(1, Identity::Open);
    world.hello(1, 5);
    world.settle();
    world.connect(2, Identity::Open);
    world.say(2, r#"{"type":"ping","metadata":{"protocol":2,"clientId":"c1","session":5}}"#);
    world.settle();
    assert_eq!(world.took(2), ["error SESSION_SUPERSEDED"]);
    assert_eq!(world.closed(2), Some(1008));
    // a larger one fences the first connection off at its next write
    world.connect(3, Identity::Open);
    world.say(3, r#"{"type":"ping","metadata":{"protocol":2,"clientId":"c1","session":6}}"#);
    world.settle();
    world.took(1);
    world.write(1, 1, "insert r", "{}", 0);
    world.settle();
    assert_eq!(world.took(1), ["error SESSION_SUPERSEDED"]);
    assert_eq!(world.closed(1), Some(1008));
    assert!(world.store.record("r").is_none());
}

#[test]
fn a_client_of_another_user_is_refused() {
    let mut world = World::new();
    world.connect_resumable(1);
    world.connect(2, Identity::Known(UserId::new("eve").unwrap().into()));
    world.say(2, r#"{"type":"ping","metadata":{"protocol":2,"clientId":"c1","session":9}}"#);
    world.settle();
    assert_eq!(world.took(2), ["error UNAUTHORIZED"]);
    assert_eq!(world.closed(2), Some(1008));
}

#[test]
fn a_hello_comes_first_or_not_at_all() {
    let mut world = World::new();
    world.connect(1, Identity::Open);
    world.subscribe(1, None);
    world.hello(1, 1);
    world.settle();
    assert_eq!(world.took(1), ["error INVALID_MESSAGE", "subscribed plain count 0 head ?"]);
    world.write(1, 1, "insert r", "{}", 0);
    world.settle();
    assert_eq!(world.took(1), ["error INVALID_MESSAGE in todos"]);
    assert!(world.store.record("r").is_none());
}

#[test]
fn without_a_subscription_the_ack_comes_at_once_with_what_changed_above_the_base() {
    let mut world = World::new();
    world.elsewhere("r", insert("{\"a\":1,\"b\":1}"));
    world.elsewhere("r", update("{\"b\":2}"));
    world.connect_resumable(1);
    world.write(1, 1, "update r", "{\"a\":9}", 1);
    world.settle();
    assert_eq!(world.took(1), ["ack 1 echo update r {\"a\":9,\"b\":2} @3"]);
}

#[test]
fn no_verdict_leaves_before_the_commit() {
    let mut world = World::new();
    live(&mut world, 1);
    world.connect_resumable(2);
    world.write(1, 1, "insert r", "{}", 0);
    world.write(2, 1, "insert s", "{}", 0);
    world.pump(1);
    world.pump(2);
    assert_eq!(world.took(1), Vec::<String>::new());
    assert_eq!(world.took(2), Vec::<String>::new());
    world.settle();
    assert_eq!(world.took(1), ["ack 1 @1", "insert s {} @2"]);
    assert_eq!(world.took(2), ["ack 1 echo insert s {} @2"]);
}

#[test]
fn in_a_live_stream_the_ack_takes_the_place_of_the_change() {
    let mut world = World::new();
    live(&mut world, 1);
    world.elsewhere("x", insert("{}"));
    world.write(1, 1, "insert r", "{}", 0);
    world.write(1, 2, "insert s", "{}", 0);
    // one write goes alone, the other waits for its answer
    world.commit_and_answer();
    assert_eq!(world.took(1), Vec::<String>::new());
    world.commit_and_answer();
    world.elsewhere("y", insert("{}"));
    assert_eq!(world.took(1), Vec::<String>::new());
    world.pump(1);
    assert_eq!(world.took(1), ["insert x {} @1", "ack 1 @2", "ack 2 @3", "insert y {} @4"]);
}

#[test]
fn the_stream_waits_for_an_answer_that_is_as_good_as_there() {
    let mut world = World::new();
    live(&mut world, 1);
    world.elsewhere("x", insert("{}"));
    world.write(1, 1, "insert r", "{}", 0);
    let answers = world.commit();
    world.elsewhere("y", insert("{}"));
    // the change is published, its verdict is not known here yet
    world.pump(1);
    assert_eq!(world.took(1), ["insert x {} @1"]);
    assert!(!world.session(1).wants_pump(&world.rings));
    for (conn, answer) in answers {
        world.input(conn, answer);
    }
    assert!(world.session(1).wants_pump(&world.rings));
    world.pump(1);
    assert_eq!(world.took(1), ["ack 1 @2", "insert y {} @3"]);
}

#[test]
fn a_conflict_waits_until_the_stream_has_shown_the_record() {
    let mut world = World::new();
    live(&mut world, 1);
    world.elsewhere("r", insert("{\"a\":1}"));
    world.write(1, 1, "insert r", "{\"a\":2}", 0);
    world.commit_and_answer();
    assert_eq!(world.took(1), Vec::<String>::new());
    world.pump(1);
    assert_eq!(world.took(1), ["insert r {\"a\":1} @1", "error CONFLICT 1 insert r {\"a\":1} @1"]);
}

#[test]
fn an_ack_without_a_seq_waits_likewise() {
    let mut world = World::new();
    live(&mut world, 1);
    world.elsewhere("r", insert("{}"));
    world.elsewhere("r", Change::delete());
    world.write(1, 1, "delete r", "{}", 0);
    world.commit_and_answer();
    assert_eq!(world.took(1), Vec::<String>::new());
    world.pump(1);
    assert_eq!(world.took(1), ["insert r {} @1", "delete r @2", "ack 1"]);
}

#[test]
fn an_error_follows_the_acks_of_all_numbers_below() {
    let mut world = World::new();
    live(&mut world, 1);
    // the first is acknowledged in the stream, the second refused in another collection
    world.write(1, 1, "insert r", "{}", 0);
    world.say(
        1,
        r#"{"type":"update","collection":"other","recordId":"x","data":{},"metadata":{"mutation":2,"base":0}}"#,
    );
    world.commit_and_answer();
    world.commit_and_answer();
    assert_eq!(world.took(1), Vec::<String>::new());
    world.pump(1);
    assert_eq!(world.took(1), ["ack 1 @1", "error CONFLICT 2 delete x @0"]);
}

#[test]
fn acks_of_different_collections_may_overtake() {
    let mut world = World::new();
    live(&mut world, 1);
    world.write(1, 1, "insert r", "{}", 0);
    world.say(
        1,
        r#"{"type":"insert","collection":"other","recordId":"x","data":{},"metadata":{"mutation":2,"base":0}}"#,
    );
    world.commit_and_answer();
    world.commit_and_answer();
    assert_eq!(world.took(1), ["ack 2 echo insert x {} @1"]);
    world.pump(1);
    assert_eq!(world.took(1), ["ack 1 @1"]);
}

#[test]
fn after_an_error_what_was_pipelined_is_ignored_until_the_number_comes_again() {
    let mut world = World::new();
    world.connect_resumable(1);
    world.write(1, 1, "update r", "{}", 0);
    world.write(1, 2, "insert s", "{}", 0);
    world.write(1, 3, "insert t", "{}", 0);
    world.settle();
    assert_eq!(world.took(1), ["error CONFLICT 1 delete r @0"]);
    world.write(1, 4, "insert u", "{}", 0);
    world.write(1, 1, "insert r", "{}", 0);
    world.write(1, 2, "insert s", "{}", 0);
    world.settle();
    assert_eq!(world.took(1), ["ack 1 echo insert r {} @1", "ack 2 echo insert s {} @2"]);
    assert_eq!(world.session(1).status().counters.ignored_writes, 3);
    assert!(world.store.record("u").is_none());
}

/// Found by the fuzzer: both went into one transaction, and "not applied" was said of a number
/// that then was.
#[test]
fn a_number_comes_again_only_after_its_error_was_sent() {
    let mut world = World::new();
    live(&mut world, 1);
    world.elsewhere("r", insert("{\"a\":1}"));
    // 2, its impatient repetition and 3 wait while 1 is decided
    world.write(1, 1, "insert s", "{}", 0);
    world.write(1, 2, "insert r", "{\"a\":2}", 0);
    world.write(1, 2, "insert t", "{}", 0);
    world.write(1, 3, "insert u", "{}", 0);
    world.commit_and_answer();
    world.commit_and_answer();
    // the error of 2 waits for the stream, so the repetition was only pipelined
    world.write(1, 2, "insert v", "{}", 0);
    world.settle();
    assert_eq!(
        world.took(1),
        ["insert r {\"a\":1} @1", "ack 1 @2", "error CONFLICT 2 insert r {\"a\":1} @1"]
    );
    assert_eq!(world.session(1).status().counters.ignored_writes, 3);
    world.write(1, 2, "insert t", "{}", 0);
    world.settle();
    assert_eq!(world.took(1), ["ack 2 @3"]);
    assert!(["u", "v"].iter().all(|id| world.store.record(id).is_none()));
}

#[test]
fn a_number_above_the_next_closes() {
    let mut world = World::new();
    world.connect_resumable(1);
    world.write(1, 1, "insert r", "{}", 0);
    world.write(1, 3, "insert s", "{}", 0);
    world.settle();
    assert_eq!(world.took(1), ["ack 1 echo insert r {} @1", "error OUT_OF_ORDER 3"]);
    assert_eq!(world.closed(1), Some(1008));
    assert!(world.store.record("s").is_none());
}

#[test]
fn a_write_that_can_not_be_read_has_its_place_too() {
    let mut world = World::new();
    live(&mut world, 1);
    world.write(1, 1, "insert r", "{}", 0);
    world.write(1, 2, "insert s", "[]", 0);
    world.write(1, 3, "insert t", "{}", 0);
    world.commit_and_answer();
    assert_eq!(world.took(1), Vec::<String>::new());
    world.settle();
    assert_eq!(world.took(1), ["ack 1 @1", "error INVALID_MESSAGE 2"]);
    world.write(1, 2, "insert t", "{}", 0);
    world.settle();
    assert_eq!(world.took(1), ["ack 2 @2"]);
    // of one that was applied nobody may say that it was not
    world.write(1, 2, "insert t", "[]", 0);
    world.settle();
    assert_eq!(world.took(1), ["error INVALID_MESSAGE in todos"]);
}

#[test]
fn an_unknown_outcome_closes_without_a_verdict() {
    let mut world = World::new();
    world.connect_resumable(1);
    world.write(1, 1, "insert r", "{}", 0);
    let ticket = world.conns.get_mut(&1).unwrap().transactions.remove(0);
    world.input(1, ticket.answer(Err(TransactError::Unknown(store_error()))));
    assert_eq!(world.took(1), Vec::<String>::new());
    assert_eq!(world.closed(1), Some(1011));
}

#[test]
fn a_failure_before_the_commit_is_a_verdict_in_its_place() {
    let mut world = World::new();
    live(&mut world, 1);
    world.write(1, 1, "insert r", "{}", 0);
    world.commit_and_answer();
    world.write(1, 2, "insert s", "{}", 0);
    world.write(1, 3, "insert t", "{}", 0);
    let ticket = world.conns.get_mut(&1).unwrap().transactions.remove(0);
    world.input(1, ticket.answer(Err(TransactError::Failed(store_error()))));
    assert_eq!(world.took(1), Vec::<String>::new());
    world.settle();
    assert_eq!(world.took(1), ["ack 1 @1", "error SERVER_ERROR 2"]);
    world.write(1, 2, "insert s", "{}", 0);
    world.settle();
    assert_eq!(world.took(1), ["ack 2 @2"]);
    // a write that was applied before is not said to have failed
    world.write(1, 2, "insert s", "{}", 0);
    let ticket = world.conns.get_mut(&1).unwrap().transactions.remove(0);
    world.input(1, ticket.answer(Err(TransactError::Failed(store_error()))));
    assert_eq!(world.took(1), Vec::<String>::new());
    assert_eq!(world.closed(1), Some(1011));
}

#[test]
fn pipelined_writes_of_one_field_do_not_conflict_with_each_other() {
    let mut world = World::new();
    world.elsewhere("r", insert("{\"a\":0}"));
    world.connect_resumable(1);
    for number in 1..=4 {
        world.write(1, number, "update r", &format!("{{\"a\":{number}}}"), 1);
    }
    world.settle();
    let took = world.took(1);
    assert_eq!(took.len(), 4);
    assert!(took.iter().all(|line| line.starts_with("ack")), "{took:?}");
    // the window forgets: that costs a conflict, not an update
    world.limits.window = 0;
    world.connect_resumable(2);
    for number in 1..=4 {
        world.write(2, number, "update r", &format!("{{\"a\":{number}0}}"), 5);
        world.settle();
    }
    let took = world.took(2);
    assert!(took[1].starts_with("error CONFLICT 2"), "{took:?}");
    assert_eq!(took.len(), 2);
}

#[test]
fn unsubscribed_follows_the_acks_that_were_due() {
    let mut world = World::new();
    live(&mut world, 1);
    world.write(1, 1, "insert r", "{}", 0);
    world.write(1, 2, "delete none", "{}", 0);
    world.say(1, r#"{"type":"unsubscribe","collection":"todos"}"#);
    world.commit_and_answer();
    world.commit_and_answer();
    assert_eq!(world.took(1), ["ack 1 echo insert r {} @1", "ack 2", "unsubscribed"]);
    assert_eq!(world.conns[&1].follows, []);
}

#[test]
fn a_subscribe_is_served_after_the_verdicts_of_the_writes_before_it() {
    let mut world = World::new();
    live(&mut world, 1);
    world.write(1, 1, "insert r", "{}", 0);
    world.subscribe(1, Some(("e1", 0)));
    world.write(1, 2, "insert s", "{}", 0);
    world.pump(1);
    assert_eq!(world.conns[&1].reads.len(), 0);
    world.settle();
    assert_eq!(
        world.took(1),
        [
            "ack 1 echo insert r {} @1",
            "subscribed delta count 1 head 1",
            "insert r {} @1",
            "synced e1 1 count 1",
            "ack 2 @2",
        ]
    );
}

#[test]
fn pages_and_acks_do_not_cross() {
    let mut world = World::new();
    world.limits.run = 1;
    world.limits.page.records = 1;
    world.elsewhere("a", insert("{}"));
    world.elsewhere("b", insert("{}"));
    world.connect_resumable(1);
    world.subscribe(1, None);
    world.write(1, 1, "update a", "{\"n\":1}", 1);
    world.write(1, 2, "insert c", "{}", 0);
    // the page has its turn, and the writes wait for it
    assert_eq!(world.conns[&1].transactions.len(), 0);
    world.pump(1);
    assert_eq!(world.conns[&1].transactions.len(), 0);
    world.read_and_answer();
    // then the first write, and no page is read while it is under way
    assert_eq!(world.conns[&1].transactions.len(), 1);
    assert!(!world.session(1).wants_pump(&world.rings));
    world.pump(1);
    assert_eq!(world.conns[&1].reads.len(), 0);
    world.commit_and_answer();
    assert_eq!(world.conns[&1].transactions.len(), 0);
    world.settle();
    assert_eq!(
        world.took(1),
        [
            "subscribed snapshot count 2 head 2",
            "sync *..a at 2: a {}@1",
            "ack 1 echo update a {\"n\":1} @3",
            "sync a..* at 2: b {}@2",
            "ack 2 echo insert c {} @4",
            "update a {\"n\":1} @3",
            "insert c {} @4",
            "synced e1 4 count 3",
        ]
    );
}

/// The number of writes of the transaction that the first connection waits for.
fn writes_under_way(world: &World) -> usize {
    let ticket = &world.conns[&1].transactions[0];
    let Transaction::Writes(run) = ticket.question() else { panic!() };
    run.writes.len()
}

#[test]
fn many_writes_share_a_transaction() {
    let mut world = World::new();
    world.limits.run = 3;
    world.connect_resumable(1);
    for number in 1..=6 {
        world.write(1, number, &format!("insert r{number}"), "{}", 0);
    }
    let mut sizes = Vec::new();
    for _ in 0..3 {
        sizes.push(writes_under_way(&world));
        world.commit_and_answer();
    }
    assert_eq!(sizes, [1, 3, 2]);
    assert_eq!(world.took(1).len(), 6);
}

#[test]
fn a_batch_is_no_long_transaction_while_others_write() {
    let mut world = World::new();
    live(&mut world, 1);
    world.run = Some(2);
    let write = |n| {
        format!(
            r#"{{"type":"insert","collection":"todos","recordId":"r{n}","data":{{}},"metadata":{{"mutation":{n},"base":0}}}}"#
        )
    };
    let writes: Vec<_> = (1..=7).map(write).collect();
    world.say(1, &format!(r#"{{"type":"batch","messages":[{}]}}"#, writes.join(",")));
    let mut sizes = Vec::from([writes_under_way(&world)]);
    world.commit_and_answer();
    sizes.push(writes_under_way(&world));
    // nobody else writes any more
    world.run = None;
    world.commit_and_answer();
    sizes.push(writes_under_way(&world));
    assert_eq!(sizes, [2, 2, 3]);
    world.settle();
    let took = world.took(1);
    assert_eq!(took.iter().filter(|frame| frame.starts_with("ack")).count(), 7, "{took:?}");
}

#[test]
fn a_batch_is_its_messages() {
    let mut world = World::new();
    world.connect(1, Identity::Open);
    let batch = r#"{"type":"batch","messages":[
        {"type":"insert","collection":"todos","recordId":"a","data":{},"metadata":{"mutation":1,"base":0}},
        {"type":"insert","collection":"todos","recordId":"b","data":7,"metadata":{"mutation":2,"base":0}},
        {"type":"ping"}]}"#;
    world.say(1, batch);
    world.hello(1, 1);
    world.say(1, batch);
    world.settle();
    assert_eq!(
        world.took(1),
        [
            "error INVALID_MESSAGE",
            "pong e1 last 0",
            "ack 1 echo insert a {} @1",
            "error INVALID_MESSAGE 2",
            "pong",
        ]
    );
}

#[test]
fn a_ping_is_a_barrier() {
    let mut world = World::new();
    live(&mut world, 1);
    world.elsewhere("x", insert("{}"));
    world.write(1, 1, "insert r", "{}", 0);
    world.say(1, r#"{"type":"ping"}"#);
    assert_eq!(world.took(1), Vec::<String>::new());
    world.commit_and_answer();
    assert_eq!(world.took(1), Vec::<String>::new());
    // what is committed after it, it does not wait for
    world.input(1, SessionInput::Pump { room: 1 });
    assert_eq!(world.took(1), ["insert x {} @1"]);
    world.elsewhere("y", insert("{}"));
    world.input(1, SessionInput::Pump { room: 1 });
    assert_eq!(world.took(1), ["ack 1 @2", "pong"]);
    world.settle();
    assert_eq!(world.took(1), ["insert y {} @3"]);
    // nothing to wait for, then a change
    world.say(1, r#"{"type":"ping"}"#);
    assert_eq!(world.took(1), ["pong"]);
    world.elsewhere("z", insert("{}"));
    world.say(1, r#"{"type":"ping"}"#);
    assert_eq!(world.took(1), Vec::<String>::new());
    world.pump(1);
    assert_eq!(world.took(1), ["insert z {} @4", "pong"]);
    // while a collection catches up, its end
    world.subscribe(1, Some(("e1", 4)));
    world.say(1, r#"{"type":"ping"}"#);
    world.settle();
    assert_eq!(world.took(1), ["subscribed delta count 4 head 4", "synced e1 4 count 4", "pong"]);
}

#[test]
fn a_barrier_waits_for_an_error_too() {
    let mut world = World::new();
    live(&mut world, 1);
    world.elsewhere("r", insert("{}"));
    world.write(1, 1, "delete r", "{}", 0);
    world.say(1, r#"{"type":"ping"}"#);
    world.commit_and_answer();
    assert_eq!(world.took(1), Vec::<String>::new());
    world.pump(1);
    assert_eq!(world.took(1), ["insert r {} @1", "error CONFLICT 1 insert r {} @1", "pong"]);
}

#[test]
fn a_barrier_waits_for_verdicts_that_the_ring_knows_nothing_of() {
    let mut world = World::new();
    live(&mut world, 1);
    // another server made the change, and no word of it has come
    world.store.plain_to("r", insert("{}"));
    world.write(1, 1, "insert r", "{\"a\":1}", 0);
    world.say(1, r#"{"type":"ping"}"#);
    world.settle();
    assert_eq!(world.took(1), Vec::<String>::new());
    world.rings.note_head(&todos(), crate::protocol::name::Seq(1));
    world.settle();
    assert_eq!(
        world.took(1),
        [
            "subscribed delta count ? head 1",
            "error CONFLICT 1 insert r {} @1",
            "insert r {} @1",
            "synced e1 1 count 1",
            "pong",
        ]
    );
}

#[test]
fn frames_are_not_wanted_while_too_many_wait() {
    let mut world = World::new();
    live(&mut world, 1);
    world.conns.get_mut(&1).unwrap().session.limits =
        Arc::new(ServerLimits { queued: 4, ..ServerLimits::default() });
    for number in 1..=4 {
        assert!(world.session(1).wants_frames());
        world.write(1, number, &format!("insert r{number}"), "{}", 0);
    }
    assert!(!world.session(1).wants_frames());
    // answered, but not yet in their place
    world.commit_and_answer();
    world.commit_and_answer();
    assert_eq!(world.session(1).status().held, 4);
    assert!(!world.session(1).wants_frames());
    world.pump(1);
    assert_eq!(world.took(1).len(), 4);
    assert!(world.session(1).wants_frames());
}
