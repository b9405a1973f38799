//! Plain servers that are found by HTTP, and what is none.

use synclayer_core::{Command, EventKind, Guarantees, HttpAnswer, Level, Transport};

use crate::lone_replica::{LoneReplica, with};
use crate::support::{QUERY, TAKEN, http_only, pending};

#[test]
fn a_server_that_knows_no_hello_is_a_plain_one() {
    for (status, body, hellos) in [
        (404, "<html>Cannot POST /sync/session</html>", 1),
        (405, "", 1),
        (422, r#"{"detail":[]}"#, 1),
        (501, "", 1),
        // these a portal may say too, and a server of level 2 where the hello broke off
        (400, r#"{"error":"recordId is missing"}"#, 3),
        (201, r#"{"recordId":"x","version":1}"#, 3),
        (200, "OK", 3),
    ] {
        let mut lone = LoneReplica::new(http_only());
        lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
        for _ in 0..hellos {
            let before = lone.replica.status();
            assert_eq!((before.level, before.transport), (None, None), "it may be anything");
            lone.answer(status, body);
            assert_eq!(lone.sent().last().unwrap(), QUERY, "{status} {body}");
            lone.answer(200, "[]");
        }
        let status = lone.replica.status();
        assert_eq!((status.level, status.transport), (Some(Level::Plain), Some(Transport::Http)));
        assert_eq!(status.guarantees, Some(Guarantees::default()));
    }
}

#[test]
fn what_only_a_plain_server_says_shows_it_at_once() {
    for page in [r#"{"records":[]}"#, r#"[{"id":"a","data":{}}]"#] {
        let mut lone = LoneReplica::new(http_only());
        lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
        lone.answer(400, "{}").answer(200, page);
        assert_eq!(lone.replica.status().level, Some(Level::Plain), "{page}");
    }
}

#[test]
fn an_empty_list_behind_a_broken_hello_shows_no_plain_server() {
    let mut lone = LoneReplica::new(http_only());
    lone.save("w", "{}");
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    lone.sent();
    for _ in 0..2 {
        lone.answer(400, r#"{"code":"INVALID_MESSAGE","error":"the body broke off"}"#);
        lone.answer(200, "[]");
        let sent = lone.sent();
        let hellos = sent.iter().filter(|line| line.contains("/sync/session"));
        assert_eq!(hellos.count(), 1, "it says hello again at once: {sent:?}");
    }
    lone.answer(200, r#"{"type":"pong","metadata":{"protocol":2,"epoch":"e1","lastMutation":0}}"#);
    assert_eq!(lone.replica.status().level, Some(Level::Resumable));
    assert_eq!(pending(&lone), 1);
}

/// Something that does not know the hello, and answers everything else likewise.
fn nowhere(address: &str) -> LoneReplica {
    let mut lone = LoneReplica::new(with(http_only(), |it| it.address = address.into()));
    for record in ["b", "c", "d"] {
        lone.save(record, "{}");
    }
    lone.replica.synced(lone.now, &mut lone.actions);
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    lone
}

fn no_server(lone: &LoneReplica) -> Option<&str> {
    lone.events.iter().find_map(|event| match &event.kind {
        EventKind::NoServer { message } => Some(message.as_str()),
        _ => None,
    })
}

fn until_it_asks(lone: &mut LoneReplica) -> Vec<String> {
    loop {
        let sent = lone.sent();
        if !sent.is_empty() {
            return sent;
        }
        let at = lone.replica.deadline().expect("it goes on").0;
        lone.pass(at.since(lone.now.mono).as_millis() as u64);
    }
}

#[test]
fn a_wrong_path_is_no_plain_server() {
    for (status, body) in [
        (404, r#"{"error":"there is nothing here","code":"INVALID_MESSAGE"}"#),
        (404, "<html>404</html>"),
        (405, ""),
        (403, r#"{"message":"no route matched"}"#),
        (200, "<html>log in</html>"),
        (200, r#"{"status":"login"}"#),
        (204, ""),
    ] {
        let mut lone = nowhere("http://host:80/api");
        let hello = if status == 403 { 404 } else { status };
        lone.answer(hello, body);
        assert_eq!(lone.sent().last().unwrap(), QUERY);
        lone.answer(status, body);
        assert!(lone.sent().is_empty(), "{status} {body}: nothing is sent to it");
        let message = no_server(&lone).unwrap();
        assert!(message.starts_with("no SyncLayer server at http://host:80/api: "), "{message}");
        let now = lone.replica.status();
        assert_eq!((now.pending_writes, now.rejected_writes, now.transport), (3, 0, None));
        // as soon as the address is right
        assert!(until_it_asks(&mut lone)[0].starts_with("POST /sync/session"));
        lone.answer(404, "").answer(200, "[]");
        for _ in 0..3 {
            assert!(lone.sent().last().unwrap().starts_with("POST /sync/todos "));
            lone.answer(200, TAKEN);
        }
        assert_eq!(pending(&lone), 0);
    }
}

#[test]
fn a_replica_without_collections_finds_no_server_either() {
    let mut lone = LoneReplica::new(with(http_only(), |it| it.collections = vec![]));
    lone.replica.synced(lone.now, &mut lone.actions);
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    lone.answer(404, "{}");
    assert!(lone.sent().iter().all(|line| !line.starts_with("SYNCED")));
    assert!(no_server(&lone).is_some());
}

#[test]
fn one_collection_that_is_read_shows_a_plain_server() {
    let notes = synclayer_core::Collection::new("notes").unwrap();
    let mut config = http_only();
    config.collections.push(notes);
    let mut lone = LoneReplica::new(config);
    lone.replica.synced(lone.now, &mut lone.actions);
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    lone.answer(404, "{}").answer(404, r#"{"error":"what are notes?"}"#);
    assert_eq!(lone.sent().last().unwrap(), QUERY);
    lone.answer(200, "[]");
    assert_eq!(lone.replica.status().level, Some(Level::Plain));
    let sent = lone.sent();
    assert!(sent[0].starts_with("SYNCED 0: the server refuses notes"), "{sent:?}");
}

/// A polling replica of `..`, `notes` and `todos`, whose first page is asked for.
fn three_collections() -> LoneReplica {
    let name = |name| synclayer_core::Collection::new(name).unwrap();
    let mut config = http_only();
    config.collections = ["..", "notes", "todos"].map(name).to_vec();
    let mut lone = LoneReplica::new(config);
    lone.replica.command(lone.now, Command::Connect, &mut lone.actions);
    lone.answer(404, "");
    for _ in 0..3 {
        lone.answer(200, "[]");
    }
    lone.sent();
    lone.save("b", "{}");
    lone.replica.synced(lone.now, &mut lone.actions);
    assert_eq!(lone.sent(), ["GET /sync/%2E%2E?limit=500"]);
    lone
}

#[test]
fn whatever_is_answered_for_one_collection_the_others_go_on() {
    for (status, body) in [
        (404, "<html>not found</html>"),
        (405, ""),
        (500, "{}"),
        (502, "<html>bad gateway</html>"),
        (200, "<html>home</html>"),
    ] {
        let mut lone = three_collections();
        lone.answer(status, body);
        assert_eq!(lone.sent(), ["GET /sync/notes?limit=500"], "{status} {body}");
        lone.answer(200, "[]").answer(200, "[]");
        let sent = lone.sent();
        assert!(sent.last().unwrap().starts_with("POST /sync/todos "), "{status} {body}: {sent:?}");
        lone.answer(200, TAKEN);
        let sent = lone.sent();
        assert!(sent.iter().all(|line| !line.starts_with("SYNCED")), "{status} {body}: {sent:?}");
        let told = lone.events.iter().any(|event| {
            event.kind.collection().is_some_and(|of| &**of == "..")
                && matches!(&event.kind, EventKind::SyncFailed { message, .. }
                    if message.contains("a proxy may take it for a step"))
        });
        assert!(told, "{status} {body}");
        assert!(until_it_asks(&mut lone)[0].starts_with("GET /sync/%2E%2E"), "it is tried again");
    }
}

#[test]
fn where_nothing_can_be_read_nothing_is_pushed() {
    let mut lone = three_collections();
    for _ in 0..3 {
        lone.answer(502, "<html>bad gateway</html>");
    }
    assert!(lone.sent().iter().all(|line| line.starts_with("GET")));
    assert_eq!((pending(&lone), lone.replica.status().transport), (1, None));
}

#[test]
fn a_read_that_is_never_answered_does_not_hold_the_others_up() {
    let mut lone = three_collections();
    for _ in 0..40 {
        match lone.tickets.front().map(|ticket| ticket.request.path.clone()) {
            None => {
                let at = lone.replica.deadline().unwrap().0;
                lone.pass(at.since(lone.now.mono).as_millis() as u64);
            }
            Some(path) if path.starts_with("/sync/%2E%2E") => {
                lone.resolve(HttpAnswer::Failed("too large".into()));
            }
            Some(_) if lone.tickets[0].request.body.is_none() => drop(lone.answer(200, "[]")),
            Some(_) => drop(lone.answer(200, TAKEN)),
        }
        lone.sent();
        if pending(&lone) == 0 {
            return;
        }
    }
    panic!("the write has not gone out");
}

#[test]
fn a_level_2_server_behind_a_gateway_is_no_plain_one() {
    let mut lone = nowhere("");
    lone.answer(404, r#"{"message":"no route matched"}"#);
    lone.answer(200, r#"{"records":[],"protocol":2}"#);
    assert!(lone.sent().iter().all(|line| !line.contains("recordId")), "nothing is sent plainly");
    assert_eq!(lone.replica.status().level, None);
    assert!(until_it_asks(&mut lone)[0].starts_with("POST /sync/session"), "it says hello again");
}
