use super::*;
use crate::protocol::document::Document;
use crate::rules::policy::Access;
use crate::rules::transaction::tests::{insert, unset, update};

#[test]
fn a_delta_is_the_changed_fields_of_the_changed_records() {
    let mut world = World::new();
    world.elsewhere("a", insert("{\"x\":1,\"y\":1,\"z\":1}"));
    world.elsewhere("b", insert("{\"x\":1}"));
    world.elsewhere("c", insert("{\"x\":1}"));
    world.elsewhere("d", insert("{\"x\":1}"));
    world.elsewhere("a", update("{\"x\":2}"));
    world.elsewhere("b", Change::delete());
    world.elsewhere("a", unset("{}", &["y"]));
    world.elsewhere("d", insert("{\"x\":2}"));
    world.connect_resumable(1);
    world.subscribe(1, Some(("e1", 4)));
    world.settle();
    assert_eq!(
        world.took(1),
        [
            "subscribed delta count 3 head 8",
            "delete b @6",
            "update a {\"x\":2} -y @7",
            "insert d {\"x\":2} @8",
            "synced e1 8 count 3",
        ]
    );
    world.elsewhere("c", update("{\"x\":2}"));
    world.settle();
    assert_eq!(world.took(1), ["update c {\"x\":2} @9"]);
}

#[test]
fn a_resumed_delta_moves_its_place_and_not_its_floor() {
    let mut world = World::new();
    world.elsewhere("a", insert("{\"x\":1,\"y\":1}"));
    world.elsewhere("a", update("{\"x\":2}"));
    world.elsewhere("b", insert("{}"));
    world.elsewhere("a", update("{\"y\":2}"));
    world.connect_resumable(1);
    world.say(
        1,
        r#"{"type":"subscribe","collection":"todos","metadata":{"cursor":{"epoch":"e1","seq":1,"resume":{"epoch":"e1","seq":3}}}}"#,
    );
    world.settle();
    assert_eq!(
        world.took(1),
        ["subscribed delta count 2 head 4", "update a {\"x\":2,\"y\":2} @4", "synced e1 4 count 2"]
    );
}

#[test]
fn a_snapshot_comes_in_pages_and_goes_on_where_it_stopped() {
    let mut world = World::new();
    world.limits.page.records = 2;
    for id in ["a", "b", "c", "d", "e"] {
        world.elsewhere(id, insert("{}"));
    }
    world.elsewhere("c", Change::delete());
    world.connect_resumable(1);
    world.subscribe(1, None);
    world.pump(1);
    world.read_and_answer();
    assert_eq!(
        world.took(1),
        ["subscribed snapshot count 4 head 6", "sync *..b at 6: a {}@1 b {}@2"]
    );
    // a change behind the page comes with the changes since
    world.elsewhere("a", update("{\"n\":1}"));
    world.input(1, SessionInput::Closed);
    world.connect(2, Identity::Open);
    world.say(2, r#"{"type":"ping","metadata":{"protocol":2,"clientId":"c1","session":2}}"#);
    world.say(
        2,
        r#"{"type":"subscribe","collection":"todos","metadata":{"cursor":{"resume":{"epoch":"e1","snapshotSeq":6,"after":"b"}}}}"#,
    );
    world.settle();
    assert_eq!(
        world.took(2),
        [
            "pong e1 last 0",
            "subscribed snapshot count 4 head 7",
            "sync b..* at 6: d {}@4 e {}@5",
            "update a {\"n\":1} @7",
            "synced e1 7 count 4",
        ]
    );
}

#[test]
fn a_cursor_of_a_lost_tail_gets_a_snapshot_and_nobody_else_does() {
    let mut world = World::new();
    world.elsewhere("a", insert("{}"));
    let backup = world.store.rows.clone();
    world.elsewhere("b", insert("{}"));
    world.elsewhere("c", insert("{}"));
    // the backup is restored and opened
    world.store.rows = backup;
    world.store.begin("e2");
    world.rings = Rings::default();
    for id in ["x", "y", "z"] {
        world.elsewhere(id, insert("{}"));
    }
    let mode = |world: &mut World, conn: u64, epoch: &str, seq: u64| {
        world.connect_resumable(conn);
        world.subscribe(conn, Some((epoch, seq)));
        world.settle();
        let took = world.took(conn);
        took[0].split(' ').nth(1).unwrap().to_string()
    };
    assert_eq!(mode(&mut world, 1, "e1", 1), "delta");
    // beyond the end of its epoch
    assert_eq!(mode(&mut world, 2, "e1", 2), "snapshot");
    assert_eq!(mode(&mut world, 3, "e2", 4), "delta");
    // beyond the head
    assert_eq!(mode(&mut world, 4, "e2", 5), "snapshot");
    assert_eq!(mode(&mut world, 5, "forged", 1), "snapshot");
    world.elsewhere("w", insert("{}"));
    world.settle();
    for conn in 1..=5 {
        assert_eq!(world.took(conn), ["insert w {} @5"]);
    }
}

#[test]
fn a_resume_of_a_lost_tail_begins_a_snapshot() {
    let mut world = World::new();
    for id in ["a", "b"] {
        world.elsewhere(id, insert("{}"));
    }
    world.connect_resumable(1);
    let subscribe = |cursor: &str| {
        format!(r#"{{"type":"subscribe","collection":"todos","metadata":{{"cursor":{cursor}}}}}"#)
    };
    let forged = r#"{"epoch":"e1","seq":1,"resume":{"epoch":"gone","seq":2}}"#;
    world.say(1, &subscribe(forged));
    world.settle();
    let anew = "sync *..* at 2: a {}@1 b {}@2";
    assert_eq!(world.took(1), ["subscribed snapshot count 2 head 2", anew, "synced e1 2 count 2"]);
    let forged = r#"{"resume":{"epoch":"gone","snapshotSeq":2,"after":"a"}}"#;
    world.say(1, &subscribe(forged));
    world.settle();
    assert_eq!(world.took(1)[1], anew);
}

#[test]
fn a_cursor_below_the_horizon_gets_a_snapshot_at_every_page() {
    let mut world = World::new();
    world.limits.page.records = 1;
    world.elsewhere("a", insert("{}"));
    world.elsewhere("b", insert("{}"));
    world.elsewhere("gone", insert("{}"));
    world.elsewhere("gone", Change::delete());
    world.elsewhere("c", insert("{}"));
    world.connect_resumable(1);
    world.subscribe(1, Some(("e1", 0)));
    world.pump(1);
    world.read_and_answer();
    assert_eq!(world.took(1), ["subscribed delta count 3 head 5", "insert a {} @1"]);
    // between two pages the tombstone goes
    world.later(1_000_000);
    world.store.sweep(1000);
    world.pump(1);
    world.read_and_answer();
    assert_eq!(world.took(1), ["subscribed snapshot count 3 head 5", "sync *..a at 5: a {}@1"]);
    // in a snapshot it is compared with where the snapshot began
    world.elsewhere("b", Change::delete());
    world.later(1_000_000);
    world.store.sweep(1000);
    world.settle();
    assert_eq!(
        world.took(1),
        [
            "subscribed snapshot count 2 head 6",
            "sync *..a at 6: a {}@1",
            "sync a..* at 6: c {}@5",
            "synced e1 6 count 2",
        ]
    );
    // at the horizon is not below it
    world.connect_resumable(2);
    world.subscribe(2, Some(("e1", 6)));
    world.connect_resumable(3);
    world.subscribe(3, Some(("e1", 5)));
    world.settle();
    assert_eq!(world.took(2)[0], "subscribed delta count 2 head 6");
    assert_eq!(world.took(3)[0], "subscribed snapshot count 2 head 6");
}

#[test]
fn a_session_that_falls_behind_says_so_before_the_acks_that_this_frees() {
    let mut world = World::new();
    world.connect_resumable(1);
    world.subscribe(1, None);
    world.settle();
    world.took(1);
    world.elsewhere("x", insert("{}"));
    world.write(1, 1, "insert r", "{\"a\":1}", 0);
    world.commit_and_answer();
    world.write(1, 2, "delete x", "{}", 0);
    world.commit_and_answer();
    assert_eq!(world.took(1), Vec::<String>::new());
    world.lose_rings();
    world.pump(1);
    assert_eq!(
        world.took(1),
        [
            "subscribed delta count ? head 2",
            "ack 1 echo insert r {\"a\":1} @2",
            "error CONFLICT 2 insert x {} @1",
        ]
    );
    world.settle();
    assert_eq!(world.took(1), ["insert x {} @1", "insert r {\"a\":1} @2", "synced e1 2 count 2"]);
    assert_eq!(world.session(1).status().counters.fell_behind, 1);
    world.elsewhere("y", insert("{}"));
    world.settle();
    assert_eq!(world.took(1), ["insert y {} @3"]);
}

#[test]
fn a_ring_with_gaps_sends_to_the_store() {
    let mut world = World::new();
    world.connect_resumable(1);
    world.subscribe(1, None);
    world.settle();
    world.took(1);
    // another server made the first change: only its head is known here
    world.store.plain_to("a", insert("{}"));
    world.rings.note_head(&todos(), crate::protocol::name::Seq(1));
    world.elsewhere("b", insert("{}"));
    world.settle();
    assert_eq!(
        world.took(1),
        [
            "subscribed delta count ? head 2",
            "insert a {} @1",
            "insert b {} @2",
            "synced e1 2 count 2",
        ]
    );
}

#[test]
fn a_small_ring_forgets_the_oldest() {
    let mut world = World::new();
    world.rings = Rings::new(RingLimits { collection_bytes: 1000, ..RingLimits::default() });
    world.connect_resumable(1);
    world.subscribe(1, None);
    world.settle();
    world.took(1);
    for n in 0..20 {
        world.elsewhere(&format!("r{n:02}"), insert("{}"));
    }
    assert!(world.rings.bytes() <= 1000);
    world.settle();
    let took = world.took(1);
    assert_eq!(took[0], "subscribed delta count ? head 20");
    assert_eq!(took.last().unwrap(), "synced e1 20 count 20");
    assert_eq!(took.len(), 22);
}

#[test]
fn room_is_a_budget() {
    let mut world = World::new();
    world.connect_resumable(1);
    world.subscribe(1, None);
    world.settle();
    world.took(1);
    for n in 0..5 {
        world.elsewhere(&format!("r{n}"), insert("{}"));
    }
    world.input(1, SessionInput::Pump { room: 0 });
    assert_eq!(world.took(1).len(), 0);
    world.input(1, SessionInput::Pump { room: 200 });
    assert_eq!(world.took(1).len(), 2);
    assert!(world.session(1).wants_pump(&world.rings));
    world.input(1, SessionInput::Pump { room: 1 << 20 });
    assert_eq!(world.took(1).len(), 3);
    assert!(!world.session(1).wants_pump(&world.rings));
}

#[test]
fn a_live_collection_can_be_verified() {
    let mut world = World::new();
    world.connect_resumable(1);
    world.subscribe(1, None);
    world.settle();
    world.elsewhere("a", insert("{}"));
    world.settle();
    world.took(1);
    world.subscribe(1, Some(("e1", 1)));
    world.settle();
    assert_eq!(world.took(1), ["subscribed delta count 1 head 1", "synced e1 1 count 1"]);
    assert_eq!(world.conns[&1].follows.len(), 1);
    world.elsewhere("b", insert("{}"));
    world.settle();
    assert_eq!(world.took(1), ["insert b {} @2"]);
}

#[test]
fn a_page_for_an_ended_subscription_is_of_no_use() {
    let mut world = World::new();
    world.elsewhere("a", insert("{}"));
    world.connect_resumable(1);
    world.subscribe(1, None);
    world.pump(1);
    world.say(1, r#"{"type":"unsubscribe","collection":"todos"}"#);
    world.read_and_answer();
    assert_eq!(world.took(1), ["unsubscribed"]);
    world.subscribe(1, None);
    world.pump(1);
    world.subscribe(1, Some(("e1", 1)));
    world.settle();
    assert_eq!(world.took(1), ["subscribed delta count 1 head 1", "synced e1 1 count 1"]);
}

#[test]
fn a_read_that_fails_ends_the_subscription() {
    let mut world = World::new();
    world.connect_resumable(1);
    world.subscribe(1, None);
    world.pump(1);
    let ticket = world.conns.get_mut(&1).unwrap().reads.remove(0);
    world.input(1, ticket.answer(Err(store_error())));
    assert_eq!(world.took(1), ["error SERVER_ERROR in todos"]);
    assert_eq!(world.session(1).status().subscriptions, 0);
    assert_eq!(world.conns[&1].follows, []);
}

#[test]
fn filters_and_too_many_subscriptions_are_refused_by_collection() {
    let mut world = World::new();
    world.limits.subscriptions = 1;
    world.connect_resumable(1);
    world.say(1, r#"{"type":"subscribe","collection":"todos","metadata":{"filter":{"a":1}}}"#);
    world.subscribe(1, None);
    world.say(1, r#"{"type":"subscribe","collection":"other"}"#);
    world.subscribe(1, None);
    world.settle();
    let took = world.took(1);
    assert_eq!(took[0], "error INVALID_MESSAGE in todos");
    assert_eq!(took[1], "error INVALID_MESSAGE in other");
    assert_eq!(world.session(1).status().live, 1);
}

/// Nobody reads `closed`, and of the rest only what is not secret.
struct Guarded;

impl Policy for Guarded {
    fn read(&self, _: Option<&UserId>, collection: &Collection) -> Access {
        if collection.as_str() == "closed" { Access::None } else { Access::Some }
    }
    fn read_record(
        &self,
        _: Option<&UserId>,
        _: &Collection,
        _: &RecordId,
        document: &Document,
    ) -> bool {
        document.text("secret").is_none()
    }
}

#[test]
fn hidden_records_are_deletes_without_content() {
    let mut world = World::new();
    world.policy = Box::new(Guarded);
    world.rings = Rings::new(RingLimits { documents: true, ..RingLimits::default() });
    world.elsewhere("a", insert("{\"n\":1}"));
    world.elsewhere("b", insert("{\"secret\":1}"));
    world.elsewhere("c", insert("{\"n\":1,\"m\":1}"));
    world.connect_resumable(1);
    world.say(1, r#"{"type":"subscribe","collection":"closed"}"#);
    world.subscribe(1, None);
    world.settle();
    assert_eq!(
        world.took(1),
        [
            "error UNAUTHORIZED in closed",
            "subscribed snapshot count ? head 3 partial",
            "sync *..* at 3: a {\"n\":1}@1 c {\"m\":1,\"n\":1}@3",
            "synced e1 3 count 0 no checksum",
        ]
    );
    world.elsewhere("a", update("{\"secret\":1}"));
    world.elsewhere("b", unset("{\"n\":1}", &["secret"]));
    world.elsewhere("c", update("{\"n\":2}"));
    world.elsewhere("c", Change::delete());
    world.settle();
    let expected = [
        "delete a @4 filtered",
        "insert b {\"n\":1} @5",
        "insert c {\"m\":1,\"n\":2} @6",
        "delete c @7",
    ];
    assert_eq!(world.took(1), expected);
    world.connect_resumable(2);
    world.subscribe(2, Some(("e1", 3)));
    world.settle();
    assert_eq!(
        world.took(2),
        [
            "subscribed delta count ? head 7 partial",
            "delete a @4 filtered",
            "insert b {\"n\":1} @5",
            "delete c @7",
            "synced e1 7 count 0 no checksum",
        ]
    );
}

#[test]
fn a_verdict_that_waits_shows_nothing_by_earlier_rights() {
    for told in ["rights", "nothing"] {
        let mut world = World::new();
        world.elsewhere("a", insert("{\"n\":1}"));
        world.connect_resumable(1);
        world.subscribe(1, None);
        world.settle();
        world.took(1);
        // the conflict waits until the stream has shown the change
        world.elsewhere("a", update("{\"n\":2,\"secret\":1}"));
        world.write(1, 1, "update a", r#"{"n":3}"#, 1);
        world.commit_and_answer();
        assert_eq!(world.took(1), Vec::<String>::new());
        if told == "rights" {
            world.policy = Box::new(Guarded);
            world.input(1, SessionInput::RightsChanged);
            assert_eq!(world.conns[&1].closed, Some(1013));
            assert!(!world.took_raw(1).concat().contains("secret"));
        } else {
            world.settle();
            assert!(world.took_raw(1).concat().contains("CONFLICT"));
        }
    }
}

#[test]
fn a_verdict_by_earlier_rights_shows_nothing_when_it_comes() {
    let mut world = World::new();
    world.elsewhere("a", insert("{\"n\":1,\"secret\":1}"));
    world.elsewhere("a", update("{\"n\":2}"));
    world.connect_resumable(1);
    world.write(1, 1, "update a", r#"{"n":3}"#, 1);
    let decided = world.commit();
    world.policy = Box::new(Guarded);
    world.input(1, SessionInput::RightsChanged);
    for (conn, answer) in decided {
        world.input(conn, answer);
    }
    assert_eq!(world.took(1), ["error SERVER_ERROR 1"]);
    // and it is judged again by those of now
    world.write(1, 1, "update a", r#"{"n":3}"#, 1);
    world.settle();
    assert_eq!(world.took(1), ["error UNAUTHORIZED 1"]);
}

#[test]
fn a_ring_without_documents_sends_partial_readers_to_the_store() {
    let mut world = World::new();
    world.policy = Box::new(Guarded);
    world.connect_resumable(1);
    world.subscribe(1, None);
    world.settle();
    world.took(1);
    world.elsewhere("a", insert("{\"secret\":1}"));
    world.settle();
    assert_eq!(
        world.took(1),
        [
            "subscribed delta count ? head 1 partial",
            "delete a @1 filtered",
            "synced e1 1 count 0 no checksum",
        ]
    );
}

#[test]
fn a_busy_stream_does_not_starve_those_that_catch_up() {
    let mut world = World::new();
    world.connect_resumable(1);
    world.subscribe(1, None);
    world.settle();
    world.say(1, r#"{"type":"subscribe","collection":"a"}"#);
    world.say(1, r#"{"type":"subscribe","collection":"b"}"#);
    let mut read = Vec::new();
    for n in 0..10 {
        world.elsewhere(&format!("r{n}"), insert("{}"));
        world.input(1, SessionInput::Pump { room: 1 });
        let reads = &world.conns[&1].reads;
        read.extend(reads.iter().map(|ticket| ticket.question().reader().collection.to_string()));
        world.read_and_answer();
    }
    read.sort();
    assert_eq!(read, ["a", "b"]);
}

// Level 1, by its text alone.

fn plain(world: &mut World, conn: u64) {
    world.connect(conn, Identity::Known(UserId::new(&format!("u{conn}")).unwrap().into()));
}

#[test]
fn level_one_gets_the_changes_of_others() {
    let mut world = World::new();
    world.elsewhere("old", insert("{\"a\":1}"));
    plain(&mut world, 1);
    plain(&mut world, 2);
    for conn in [1, 2] {
        world.subscribe(conn, None);
    }
    world.settle();
    let subscribed = r#"{"type":"subscribed","collection":"todos","metadata":{"recordCount":1}}"#;
    assert_eq!(world.took_raw(1), [subscribed]);
    assert_eq!(world.took_raw(2), [subscribed]);
    for frame in [
        r#"{"type":"insert","collection":"todos","recordId":"r","data":{"a":1,"b":null},"timestamp":"1970-01-01T00:00:01"}"#,
        r#"{"type":"update","collection":"todos","recordId":"r","data":{"a":2}}"#,
        r#"{"type":"delete","collection":"todos","recordId":"r"}"#,
    ] {
        world.say(1, frame);
    }
    world.settle();
    assert_eq!(world.took_raw(1), Vec::<String>::new());
    let frames = world.took_raw(2);
    let expected = [
        (r#""type":"insert""#, r#""data":{"a":1,"b":null}"#, "01.000Z", r#""version":1"#),
        (r#""type":"update""#, r#""data":{"a":2}"#, "1970-01-01T00:16:40.000Z", r#""version":2"#),
        (r#""type":"delete""#, r#""recordId":"r""#, "1970-01-01T00:16:40.000Z", r#""version":3"#),
    ];
    assert_eq!(frames.len(), 3);
    for (frame, (kind, data, at, version)) in frames.iter().zip(expected) {
        for part in [kind, data, at, version, r#""userId":"u1""#] {
            assert!(frame.contains(part), "{part} in {frame}");
        }
    }
}

#[test]
fn a_removed_field_is_a_null_to_level_one() {
    let mut world = World::new();
    world.elsewhere("r", insert("{\"a\":1,\"b\":1}"));
    plain(&mut world, 1);
    world.subscribe(1, None);
    world.settle();
    world.took(1);
    world.elsewhere("r", unset("{\"b\":2}", &["a"]));
    world.settle();
    let frames = world.took_raw(1);
    assert!(
        frames[0].contains(r#""data":{"b":2,"a":null}"#)
            || frames[0].contains(r#""data":{"a":null,"b":2}"#),
        "{frames:?}"
    );
    assert!(!frames[0].contains("unset"), "{frames:?}");
}

#[test]
fn level_one_hears_of_failures_and_pings() {
    let mut world = World::new();
    plain(&mut world, 1);
    world.say(1, r#"{"type":"update","collection":"todos","recordId":"r","data":{}}"#);
    world.say(1, r#"{"type":"ping"}"#);
    world.say(1, r#"{"type":"unsubscribe","collection":"todos"}"#);
    world.settle();
    let frames = world.took_raw(1);
    assert!(frames[0].contains("RECORD_NOT_FOUND"), "{frames:?}");
    assert!(frames[0].contains(r#""recordId":"r""#), "{frames:?}");
    assert_eq!(frames[1], r#"{"type":"pong","timestamp":"1970-01-01T00:16:40.000Z"}"#);
    assert_eq!(frames[2], r#"{"type":"unsubscribed","collection":"todos"}"#);
}

#[test]
fn level_one_may_ask_for_a_whole_collection() {
    let mut world = World::new();
    world.elsewhere("b", insert("{\"n\":2}"));
    world.elsewhere("a", insert("{\"n\":1}"));
    world.elsewhere("c", insert("{}"));
    world.elsewhere("c", Change::delete());
    plain(&mut world, 1);
    world.say(1, r#"{"type":"sync","collection":"todos"}"#);
    world.settle();
    let at = r#""updatedAt":"1970-01-01T00:16:40.000Z""#;
    assert_eq!(
        world.took_raw(1),
        [format!(
            r#"{{"type":"sync","collection":"todos","data":{{"records":[{{"id":"a","data":{{"n":1}},"version":1,{at}}},{{"id":"b","data":{{"n":2}},"version":1,{at}}}]}}}}"#
        )]
    );
    world.limits.sync_bytes = 150;
    plain(&mut world, 2);
    world.say(2, r#"{"type":"sync","collection":"todos"}"#);
    world.settle();
    assert_eq!(world.took(2), ["error PAYLOAD_TOO_LARGE in todos"]);
    world.connect_resumable(3);
    world.say(3, r#"{"type":"sync","collection":"todos"}"#);
    assert_eq!(world.took(3), ["error INVALID_MESSAGE in todos"]);
}

#[test]
fn level_one_that_falls_behind_gets_the_state() {
    let mut world = World::new();
    plain(&mut world, 1);
    world.subscribe(1, None);
    world.settle();
    world.took(1);
    world.elsewhere("a", insert("{\"n\":1}"));
    world.elsewhere("a", update("{\"n\":2}"));
    world.lose_rings();
    world.settle();
    let frames = world.took_raw(1);
    assert_eq!(frames.len(), 1);
    assert!(frames[0].contains(r#""data":{"n":2}"#), "{frames:?}");
    // where the tombstones are gone, it has to start afresh
    world.elsewhere("a", Change::delete());
    world.lose_rings();
    world.later(1_000_000);
    world.store.sweep(1000);
    world.settle();
    assert_eq!(world.closed(1), Some(1013));
}

#[test]
fn plain_writes_at_level_two_come_back_as_changes() {
    let mut world = World::new();
    world.connect_resumable(1);
    world.subscribe(1, None);
    world.settle();
    world.took(1);
    world.say(1, r#"{"type":"insert","collection":"todos","recordId":"r","data":{}}"#);
    world.settle();
    assert_eq!(world.took(1), ["insert r {} @1"]);
}
