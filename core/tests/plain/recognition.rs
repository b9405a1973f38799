//! Recognition of a plain server.

use synclayer_core::testing::InspectReplica;
use synclayer_core::{
    Command, ConnectionState, EventKind, Guarantees, Level, PlainServers, Transport,
};

use crate::lone_replica::{LoneReplica, todos, with};
use crate::support::{
    PONG, SYNC, connect, http_only, live, pending, pong_frame, socket_only, whole,
};

#[test]
fn a_pong_without_a_protocol_is_of_a_plain_server() {
    let mut lone = connect(socket_only());
    assert_eq!(lone.sent(), [SYNC], "the present contents are asked for");
    let status = lone.replica.status();
    assert_eq!(status.level, Some(Level::Plain));
    assert_eq!(status.guarantees, Some(Guarantees::default()));
    assert_eq!(status.transport, Some(Transport::WebSocket));
    assert!(status.collections[&todos()].live, "without a confirmation of the subscription");
    assert!(lone.saw(|kind| matches!(kind, EventKind::RealtimeConnected)));
    lone.hear(&whole(&[("a", "{}")]));
    assert_eq!(lone.standing(), (false, false));
}

#[test]
fn what_only_a_plain_server_says_before_its_pong_shows_it() {
    for word in [
        r#"{"type":"subscribed","collection":"todos","metadata":{"recordCount":1}}"#,
        r#"{"type":"sync","collection":"todos","data":{"records":[{"id":"a","data":{"n":1}}]}}"#,
        r#"{"type":"insert","collection":"todos","recordId":"a","data":{"n":1}}"#,
    ] {
        let mut lone = LoneReplica::new(socket_only());
        lone.dial();
        lone.hear(word);
        assert_eq!(lone.replica.status().level, Some(Level::Plain), "{word}");
        let shows = lone.shows("a");
        assert_eq!(shows.is_some(), !word.contains("subscribed"), "nothing of it is lost: {word}");
    }
}

#[test]
fn silence_shows_no_plain_server() {
    // one of level 2 that is slow answers a WebSocket ping too
    for answers in [true, false] {
        let mut lone = LoneReplica::new(socket_only());
        lone.dial();
        lone.sent();
        lone.pass(7_500);
        assert_eq!(lone.sent(), ["PING"]);
        if answers {
            pong_frame(&mut lone);
        }
        lone.pass(7_500);
        assert_eq!(lone.replica.status().level, None);
        assert_eq!(lone.sent(), ["CLOSE"]);
    }
}

#[test]
fn a_server_known_to_be_silent_needs_no_proof() {
    let mut lone = LoneReplica::new(with(socket_only(), |it| it.plain = PlainServers::Silent));
    lone.dial();
    lone.pass(15_000);
    assert_eq!(lone.replica.status().level, Some(Level::Plain));
}

#[test]
fn an_address_that_offered_level_2_is_not_believed_to_offer_less() {
    let mut lone = LoneReplica::live();
    lone.cut();
    lone.sent();
    lone.make_durable();
    let store = lone.replica.store().clone();
    for (config, accepted) in [
        (socket_only(), false),
        (with(socket_only(), |it| it.plain = PlainServers::Never), false),
        (with(socket_only(), |it| it.plain = PlainServers::Silent), false),
        (with(socket_only(), |it| it.plain = PlainServers::AllowDowngrade), true),
        (with(socket_only(), |it| it.address = "elsewhere".into()), true),
    ] {
        let mut lone = LoneReplica::on(config.clone(), store.clone());
        lone.dial();
        lone.hear(PONG);
        assert_eq!(lone.replica.status().level.is_some(), accepted, "{config:?}");
        assert_eq!(lone.sent().contains(&"CLOSE".into()), !accepted);
    }
    let mut lone = LoneReplica::on(http_only(), store);
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    lone.answer(404, "{}");
    assert_eq!(lone.replica.status().transport, None);
    assert!(lone.sent().iter().all(|line| !line.starts_with("GET")));
}

#[test]
fn a_late_welcome_ends_the_plain_connection_and_is_remembered() {
    let mut lone = live();
    lone.welcome(0, "");
    assert_eq!(lone.sent(), ["CLOSE"]);
    lone.pass(1_000);
    lone.answer_dial();
    lone.hear(PONG);
    assert_eq!(lone.replica.status().level, None, "it has level 2");
}

#[test]
fn what_is_required_is_not_given_up() {
    let required = Guarantees { exactly_once: true, ..Guarantees::default() };
    for config in [socket_only(), http_only()] {
        let mut lone = LoneReplica::new(with(config.clone(), |it| it.required = required));
        lone.save("w", "{}");
        if config.websocket {
            lone.dial();
            lone.hear(PONG);
        } else {
            lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
            lone.answer(404, "{}").answer(200, "[]");
        }
        let sent = lone.sent();
        assert!(sent.iter().all(|line| !line.contains("insert") && !line.contains("recordId")));
        let missing = EventKind::GuaranteesMissing { offered: Guarantees::default(), required };
        assert!(lone.saw(|kind| *kind == missing));
        assert_eq!(lone.replica.status().connection, ConnectionState::Error);
        assert_eq!(pending(&lone), 1, "nothing is lost");
    }
}

#[test]
fn after_level_1_a_level_2_server_is_asked_for_everything() {
    let mut lone = live();
    lone.cut();
    lone.sent();
    lone.pass(1_000);
    lone.answer_dial();
    let sent = lone.sent();
    assert_eq!(sent[1], r#"{"type":"subscribe","collection":"todos"}"#, "no cursor vouches");
    lone.welcome(0, "");
    assert_eq!(lone.replica.status().level, Some(Level::Resumable));
}

// --- the WebSocket ---
