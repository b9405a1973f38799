use super::*;
use crate::{Document, Limits, Right, Rules, User};

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

impl World {
    /// Answers the token that waits to be checked.
    fn token_is_of(&mut self, conn: u64, name: Option<&str>) {
        let ticket = self.conns.get_mut(&conn).unwrap().tokens.remove(0);
        self.input(conn, ticket.answer(name.map(|name| user(name).into())));
    }
}

const AUTH: &str = r#"{"type":"auth","data":{"token":"t"}}"#;

#[test]
fn nothing_works_before_authentication() {
    let mut world = World::new();
    world.connect(1, Identity::Unknown);
    world.subscribe(1, None);
    world.write(1, 1, "insert r", "{}", 0);
    world.say(1, r#"{"type":"ping"}"#);
    world.hello(1, 1);
    world.settle();
    assert_eq!(world.took(1), ["error AUTH_FAILED"; 4]);
    assert!(world.store.record("r").is_none());
    // what comes while the token is checked waits for it
    world.say(1, AUTH);
    world.hello(1, 1);
    world.subscribe(1, None);
    world.settle();
    assert_eq!(world.took(1), Vec::<String>::new());
    world.token_is_of(1, Some("ann"));
    world.settle();
    assert_eq!(
        world.took(1),
        [
            "authenticated Some(\"ann\")",
            "pong e1 last 0",
            "subscribed snapshot count 0 head 0",
            "sync *..* at 0:",
            "synced e1 0 count 0",
        ]
    );
    assert_eq!(world.session(1).status().user, Some(&user("ann")));
}

#[test]
fn a_wrong_token_drops_what_came_behind_it() {
    let mut world = World::new();
    world.connect(1, Identity::Unknown);
    world.say(1, AUTH);
    world.subscribe(1, None);
    world.token_is_of(1, None);
    world.say(1, AUTH);
    world.token_is_of(1, Some("ann"));
    world.settle();
    assert_eq!(world.took(1), ["error AUTH_FAILED", "authenticated Some(\"ann\")"]);
    assert_eq!(world.session(1).status().subscriptions, 0);
}

#[test]
fn whoever_does_not_say_who_they_are_is_shown_out() {
    let mut world = World::new();
    world.connect(1, Identity::Unknown);
    assert_eq!(world.session(1).deadline(), Some((Mono(11_000), SessionTimer::Auth)));
    world.later(9_999);
    world.input(1, SessionInput::Timeout);
    assert_eq!(world.closed(1), None);
    world.later(1);
    world.input(1, SessionInput::Timeout);
    assert_eq!(world.closed(1), Some(1008));
    assert_eq!(world.session(1).deadline(), None);
}

#[test]
fn an_open_server_takes_any_token() {
    let mut world = World::new();
    world.connect(1, Identity::Open);
    world.say(1, AUTH);
    assert_eq!(world.took(1), ["authenticated None"]);
}

#[test]
fn a_fresh_token_goes_on_where_the_expired_one_stopped() {
    let mut world = World::new();
    world.connect(1, Identity::Known(user("ann").into()));
    world.hello(1, 1);
    world.subscribe(1, None);
    world.settle();
    world.took(1);
    world.input(1, SessionInput::AuthExpired);
    world.write(1, 1, "insert r", "{}", 0);
    world.elsewhere("s", crate::rules::transaction::tests::insert("{}"));
    world.settle();
    assert_eq!(world.took(1), ["error AUTH_EXPIRED"]);
    assert!(world.store.record("r").is_none());
    world.say(1, AUTH);
    world.token_is_of(1, Some("ann"));
    world.settle();
    assert_eq!(world.took(1), ["authenticated Some(\"ann\")", "insert s {} @1", "ack 1 @2"]);
    world.say(1, AUTH);
    world.token_is_of(1, Some("eve"));
    assert_eq!(world.took(1), ["error AUTH_FAILED"]);
    assert_eq!(world.closed(1), Some(1008));
}

#[test]
fn an_answer_that_comes_after_the_token_has_expired_waits_for_a_fresh_one() {
    let mut world = World::new();
    world.elsewhere("s", crate::rules::transaction::tests::insert("{}"));
    world.connect(1, Identity::Known(user("ann").into()));
    world.hello(1, 1);
    world.settle();
    world.took(1);
    world.subscribe(1, None);
    world.write(1, 1, "update s", r#"{"n":1}"#, 0);
    let (pages, verdicts) = (world.read(), world.commit());
    world.input(1, SessionInput::AuthExpired);
    for (conn, answer) in pages.into_iter().chain(verdicts) {
        world.input(conn, answer);
    }
    world.settle();
    assert_eq!(world.took(1), ["error AUTH_EXPIRED"]);
    world.say(1, AUTH);
    world.token_is_of(1, Some("ann"));
    world.settle();
    let told = world.took(1);
    assert_eq!(told.first().map(|first| &**first), Some("authenticated Some(\"ann\")"), "{told:?}");
    assert!(told.iter().any(|frame| frame.starts_with("sync")), "{told:?}");
}

#[test]
fn a_whole_collection_is_read_again_when_what_its_rights_looked_at_has_gone() {
    use crate::rules::transaction::tests::insert;

    let mut rules = Rules::new(false);
    rules.set(todos(), Right::Read, r#"exists("todos", "m:" + user)"#).unwrap();
    rules.set(todos(), Right::Write, "true").unwrap();
    let mut world = World::new();
    world.elsewhere("m:ann", insert("{}"));
    world.elsewhere("a", insert("{\"secret\":1}"));
    world.policy = Box::new(rules);
    world.connect(1, Identity::Known(user("ann").into()));
    world.say(1, r#"{"type":"sync","collection":"todos"}"#);
    world.pump(1);
    let pages = world.read();
    assert!(!pages.is_empty());
    world.elsewhere("m:ann", crate::protocol::write::Change::delete());
    for (conn, answer) in pages {
        world.input(conn, answer);
    }
    world.settle();
    let told = world.took_raw(1).concat();
    assert!(told.contains("sync") && !told.contains("secret"), "{told}");
}

#[test]
fn other_claims_of_the_same_token_change_what_is_shown() {
    let claimed = |claims| User {
        claims: Some(Document::parse(claims, &Limits::default()).unwrap()),
        ..User::from(user("ann"))
    };
    let mut rules = Rules::new(false);
    rules.set(todos(), Right::Read, "claims.role == \"admin\"").unwrap();
    rules.set(todos(), Right::Write, "true").unwrap();
    let mut world = World::new();
    world.policy = Box::new(rules);
    world.connect(1, Identity::Known(claimed(r#"{"role":"admin"}"#)));
    world.hello(1, 1);
    world.subscribe(1, None);
    world.settle();
    world.took(1);
    world.input(1, SessionInput::Identified(claimed(r#"{"role":"admin"}"#)));
    world.settle();
    assert!(world.took(1).is_empty(), "nothing has changed");
    world.input(1, SessionInput::Identified(claimed(r#"{"role":"guest"}"#)));
    world.elsewhere("s", crate::rules::transaction::tests::insert("{}"));
    world.settle();
    assert_eq!(world.took(1), ["error UNAUTHORIZED in todos"]);
    // nobody is let in again by that
    world.input(1, SessionInput::AuthExpired);
    world.input(1, SessionInput::Identified(claimed(r#"{"role":"admin"}"#)));
    world.subscribe(1, None);
    world.settle();
    assert_eq!(world.took(1), ["error AUTH_EXPIRED"]);
}

#[test]
fn an_expired_token_is_not_waited_for_for_ever() {
    let mut world = World::new();
    world.connect(1, Identity::Known(user("ann").into()));
    world.input(1, SessionInput::AuthExpired);
    world.later(10_000);
    world.input(1, SessionInput::Timeout);
    assert_eq!(world.closed(1), Some(1008));
}

#[test]
fn silence_ends_the_connection_and_any_sign_of_life_prolongs_it() {
    let mut world = World::new();
    world.connect(1, Identity::Open);
    world.later(50_000);
    world.say(1, r#"{"type":"ping"}"#);
    world.later(50_000);
    world.input(1, SessionInput::Ping);
    assert_eq!(world.session(1).deadline(), Some((Mono(161_000), SessionTimer::Silence)));
    world.later(59_999);
    world.input(1, SessionInput::Timeout);
    assert_eq!(world.closed(1), None);
    world.later(1);
    world.input(1, SessionInput::Timeout);
    assert_eq!(world.closed(1), Some(1001));
}

#[test]
fn bad_frames_are_answered_and_many_in_a_row_end_it() {
    let mut world = World::new();
    world.limits.bad_frames = 3;
    world.connect(1, Identity::Open);
    for frame in ["", "{", r#"{"type":"ping"}"#, "[]", r#"{"type":"nonsense"}"#] {
        world.say(1, frame);
        assert_eq!(world.closed(1), None);
    }
    let bad = "error INVALID_MESSAGE";
    assert_eq!(world.took(1), [bad, bad, "pong", bad, bad]);
    world.say(1, "nonsense");
    assert_eq!(world.closed(1), Some(1008));
    world.say(1, r#"{"type":"ping"}"#);
    assert_eq!(world.took(1), [bad]);
}

#[test]
fn messages_behind_the_end_of_a_connection_are_ignored() {
    let mut world = World::new();
    world.limits.bad_frames = 2;
    world.connect_resumable(1);
    world.say(1, r#"{"type":"batch","messages":[{},{},{},{"type":"ping"}]}"#);
    assert_eq!(world.closed(1), Some(1008));
    assert_eq!(world.took(1), ["error INVALID_MESSAGE"; 2]);
}

#[test]
fn a_frame_above_the_limit_ends_it() {
    let mut world = World::new();
    world.limits.input.frame_bytes = 20;
    world.connect(1, Identity::Open);
    world.say(1, r#"{"type":"ping","a":1}"#);
    assert_eq!(world.took(1), ["error PAYLOAD_TOO_LARGE"]);
    assert_eq!(world.closed(1), Some(1009));
}

#[test]
fn a_shutdown_says_that_the_server_goes_away() {
    let mut world = World::new();
    world.connect_resumable(1);
    world.write(1, 1, "insert r", "{}", 0);
    let answers = world.commit();
    world.input(1, SessionInput::Shutdown);
    assert_eq!(world.closed(1), Some(1001));
    // the answer comes too late for anyone
    for (conn, answer) in answers {
        world.input(conn, answer);
    }
    assert_eq!(world.session(1).status().counters.late_answers, 1);
    assert_eq!(world.took(1), Vec::<String>::new());
}

#[test]
fn answers_of_others_are_counted_and_dropped() {
    let mut world = World::new();
    world.connect_resumable(1);
    world.connect_resumable(2);
    world.write(1, 1, "insert r", "{}", 0);
    world.write(2, 1, "insert s", "{}", 0);
    let answers = world.commit();
    for (conn, answer) in answers {
        world.input(3 - conn, answer);
    }
    for conn in [1, 2] {
        assert_eq!(world.session(conn).status().counters.late_answers, 1);
        assert_eq!(world.took(conn), Vec::<String>::new());
    }
}

#[test]
fn too_many_messages_are_slowed_down_and_a_write_keeps_its_number() {
    let mut world = World::new();
    world.limits.rate = Some(Rate { per_second: 10, burst: 2 });
    world.connect_resumable(1);
    world.write(1, 1, "insert a", "{}", 0);
    world.write(1, 2, "insert b", "{}", 0);
    world.write(1, 3, "insert c", "{}", 0);
    world.write(1, 4, "insert d", "{}", 0);
    world.subscribe(1, None);
    world.settle();
    let took = world.took_raw(1);
    let refused = took.iter().find(|frame| frame.contains("\"mutation\":3")).unwrap();
    assert!(refused.contains("\"retryAfterMs\":100"), "{refused}");
    let took: Vec<_> = took.iter().map(|frame| brief(frame)).collect();
    assert_eq!(
        took,
        [
            "error RATE_LIMIT_EXCEEDED in todos",
            "ack 1 echo insert a {} @1",
            "ack 2 echo insert b {} @2",
            "error RATE_LIMIT_EXCEEDED 3",
        ]
    );
    world.later(200);
    world.write(1, 3, "insert c", "{}", 0);
    world.write(1, 4, "insert d", "{}", 0);
    world.settle();
    assert_eq!(world.took(1), ["ack 3 echo insert c {} @3", "ack 4 echo insert d {} @4"]);
}

#[test]
fn a_session_is_deterministic_and_small() {
    let run = || {
        let mut world = World::new();
        world.connect_resumable(1);
        world.subscribe(1, None);
        world.write(1, 1, "insert a", "{}", 0);
        world.settle();
        world.session(1).digest()
    };
    assert_eq!(run(), run());
    assert!(size_of::<Session>() < 800, "{}", size_of::<Session>());
}

#[test]
fn of_two_tokens_the_later_counts() {
    let mut world = World::new();
    world.connect(1, Identity::Unknown);
    world.say(1, AUTH);
    world.say(1, AUTH);
    world.token_is_of(1, Some("ann"));
    assert_eq!(world.took(1), Vec::<String>::new());
    world.token_is_of(1, Some("eve"));
    assert_eq!(world.took(1), ["authenticated Some(\"eve\")"]);
    assert_eq!(world.session(1).status().counters.late_answers, 1);
}
