//! Plain servers that have lost their records.

use synclayer_core::{ClientConfig, Command, EventKind, OnServerLoss, Write};

use crate::lone_replica::{LoneReplica, todos, with};
use crate::support::{SYNC, TAKEN, connect, http_only, pending, rows, socket_only, whole};

/// Returns the number of records that the app is asked about, if it is asked.
fn missing(lone: &LoneReplica) -> Option<u64> {
    lone.replica.status().collections[&todos()].missing
}

fn many() -> Vec<String> {
    (0..12).map(|n| format!("r{n:02}")).collect()
}

/// The server holds nothing.
fn answer_all(lone: &mut LoneReplica) {
    for _ in 0..10 {
        lone.sent();
        if !lone.tickets.is_empty() {
            lone.answer(200, "[]");
        }
    }
}

/// A client that polls a plain server which has lost its twelve records by the next reconcile.
fn emptied(config: ClientConfig) -> LoneReplica {
    let decision = config.on_server_loss.unwrap_or(OnServerLoss::Ask);
    let mut lone = LoneReplica::new(config);
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    lone.sent();
    lone.answer(404, r#"{"error":"no such collection"}"#);
    lone.sent();
    let ids = many();
    let all: Vec<_> = ids.iter().map(|id| (&**id, r#"{"n":1}"#, 30, 4)).collect();
    lone.answer(200, &rows(&all));
    lone.sent();
    let told = EventKind::RecordsMissing { collection: todos(), missing: 12, of: 12, decision };
    // up to the next reconcile, which comes after an hour
    for _ in 0..40 {
        if lone.saw(|kind| *kind == told) {
            break;
        }
        let at = lone.replica.deadline().unwrap().0;
        lone.pass(at.since(lone.now.mono).as_millis() as u64);
        answer_all(&mut lone);
    }
    lone.sent();
    lone
}

#[test]
fn an_emptied_plain_server_is_not_followed_before_the_app_has_said_so() {
    let mut lone = emptied(http_only());
    assert_eq!(missing(&lone), Some(12));
    assert!(many().iter().all(|id| lone.shows(id).is_some()), "all is kept");
    lone.replica.synced(lone.now, &mut lone.actions);
    lone.sent();
    answer_all(&mut lone);
    assert!(many().iter().all(|id| lone.shows(id).is_some()), "also by the next poll");
    lone.replica.write(lone.now, Write::Adopt, &mut lone.actions).unwrap();
    answer_all(&mut lone);
    assert!(many().iter().all(|id| lone.shows(id).is_none()));
    assert_eq!(missing(&lone), None);
}

#[test]
fn what_an_emptied_plain_server_lacks_is_offered_to_it() {
    let mut lone = emptied(http_only());
    lone.replica.write(lone.now, Write::Offer, &mut lone.actions).unwrap();
    let mut posted = 0;
    for _ in 0..40 {
        for sent in lone.sent() {
            posted += usize::from(sent.starts_with("POST /sync/todos {\"recordId\":\"r"));
        }
        if lone.tickets.is_empty() {
            break;
        }
        lone.answer(200, if posted == 0 { "[]" } else { TAKEN });
    }
    assert_eq!(posted, 12);
    assert_eq!((missing(&lone), pending(&lone)), (None, 0));
    assert!(many().iter().all(|id| lone.shows(id).is_some()));
}

#[test]
fn an_emptied_plain_server_is_followed_where_it_was_said_so_before() {
    let adopt = Some(OnServerLoss::Adopt);
    let lone = emptied(with(http_only(), |it| it.on_server_loss = adopt));
    assert!(many().iter().all(|id| lone.shows(id).is_none()));
    assert_eq!(missing(&lone), None);
}

#[test]
fn an_emptied_plain_server_is_asked_about_over_a_websocket_alone() {
    let mut lone = connect(socket_only());
    let ids = many();
    let all: Vec<_> = ids.iter().map(|id| (&**id, r#"{"n":1}"#)).collect();
    lone.sent();
    lone.hear(&whole(&all));
    lone.hear(&whole(&[("new", "{}")]));
    assert_eq!(missing(&lone), Some(12));
    assert!(many().iter().all(|id| lone.shows(id).is_some()), "all is kept");
    lone.sent();
    lone.replica.write(lone.now, Write::Adopt, &mut lone.actions).unwrap();
    assert_eq!(lone.sent(), [SYNC], "another look shows what it is about");
    lone.hear(&whole(&[("new", "{}")]));
    assert!(many().iter().all(|id| lone.shows(id).is_none()));
    assert_eq!(missing(&lone), None);
}
