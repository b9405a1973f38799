//! A write wakes those who follow a scope of its record, and no others.

use super::*;
use crate::protocol::document::Document;
use crate::protocol::limits::Limits;
use crate::rules::rights::{Right, Rules};
use crate::rules::scope::ScopeKey;

/// A record in the first room.
const NEW: &str = r#"{"recordId":"r","data":{"room":"a"}}"#;

/// A server whose collection is divided into rooms.
fn host() -> Host {
    let mut host = Host::new();
    let keys = BTreeMap::from([(todos(), Vec::from(["room".parse::<ScopeKey>().unwrap()]))]);
    let decision = Transaction::DeclareScopes(keys).decide(&host.rows, host.hub.context(host.now));
    host.rows.apply(decision.unwrap().batch);
    host
}

/// A level-1 connection that follows one room.
fn follow(host: &mut Host, conn: u64, room: &str) {
    host.handle(HubInput::Accepted { conn: ConnId(conn), identity: Identity::Open });
    let filter = format!(r#"{{"room":"{room}"}}"#);
    host.frame(conn, &format!(r#"{{"type":"subscribe","collection":"todos","filter":{filter}}}"#));
    host.settle();
}

/// The connections that a write wakes.
fn woken(host: &mut Host, call: u64, method: &str, path: &str, body: &str) -> Vec<String> {
    host.said.clear();
    host.call(call, method, path, body);
    host.commit(true);
    host.said.iter().filter(|said| said.starts_with("Wake")).cloned().collect()
}

#[test]
fn a_write_wakes_the_followers_of_its_record_s_scopes_only() {
    let host = &mut host();
    host.connect(99);
    for conn in 0..30 {
        follow(host, conn, ["a", "b", "c"][conn as usize % 3]);
    }
    let in_rooms = |rooms: &[u64]| {
        let mut conns = vec![99];
        rooms.iter().for_each(|room| conns.extend((0..30).filter(|conn| conn % 3 == *room)));
        conns.into_iter().map(|conn| format!("Wake(ConnId({conn}))")).collect::<Vec<_>>()
    };
    let path = "/sync/todos/r";
    let insert = woken(host, 1, "POST", "/sync/todos", NEW);
    assert_eq!(insert, in_rooms(&[0]));
    assert_eq!(woken(host, 2, "PATCH", path, r#"{"delta":{"n":1}}"#), in_rooms(&[0]));
    assert_eq!(woken(host, 3, "PATCH", path, r#"{"delta":{"room":"b"}}"#), in_rooms(&[0, 1]));
    assert_eq!(woken(host, 4, "PATCH", path, r#"{"delta":{"room":"none"}}"#), in_rooms(&[1]));
    assert_eq!(woken(host, 5, "PATCH", path, r#"{"delta":{"n":2}}"#), in_rooms(&[]));
    assert_eq!(woken(host, 6, "DELETE", path, ""), in_rooms(&[]));
    host.handle(HubInput::Session { conn: ConnId(0), input: SessionInput::Closed });
    let left: Vec<_> = in_rooms(&[0]).into_iter().filter(|wake| !wake.contains("(0)")).collect();
    assert_eq!(woken(host, 7, "POST", "/sync/todos", NEW), left);
}

/// One of many users, with a token for a room.
fn reader_of(room: &str, number: u64) -> User {
    let claims = Document::parse(&format!(r#"{{"rooms":["{room}"]}}"#), &Limits::default());
    User { id: UserId::new(&format!("u{number}")).unwrap(), claims: Some(claims.unwrap()) }
}

/// A server with a record in the rooms `a` and `b`, whose rule shows the rooms of the token.
fn host_with_rule() -> Host {
    let mut host = host();
    for (call, room) in (1..).zip(["a", "b"]) {
        let body =
            format!(r#"{{"recordId":"{room}","data":{{"room":"{room}","text":"in-{room}"}}}}"#);
        host.call(call, "POST", "/sync/todos", &body);
        host.commit(true);
    }
    let mut rules = Rules::new(false);
    rules.set(todos(), Right::Read, "data.room in claims.rooms").unwrap();
    rules.set(todos(), Right::Write, "true").unwrap();
    host.hub.set_policy(Arc::new(rules));
    host
}

/// All that a frame gets from a new connection with a token for room `a`.
fn said_to_reader(host: &mut Host, conn: u64, hello: bool, frame: &str) -> String {
    host.handle(HubInput::Accepted {
        conn: ConnId(conn),
        identity: Identity::Known(reader_of("a", conn)),
    });
    if hello {
        let hello = r#"{"type":"ping","metadata":{"protocol":2,"clientId":"CLIENT","session":1}}"#;
        host.frame(conn, &hello.replace("CLIENT", &format!("c{conn}")));
    }
    host.frame(conn, frame);
    host.settle();
    said_to(host, conn)
}

fn said_to(host: &Host, conn: u64) -> String {
    let to = format!("Send {{ conn: ConnId({conn})");
    host.said.iter().filter(|line| line.contains(&to)).cloned().collect()
}

#[test]
fn a_scope_is_granted_and_refused_by_the_rule_alone() {
    let host = &mut host_with_rule();
    let by_name = |room: &str| format!(r#""collection":"todos","filter":{{"room":"{room}"}}"#);
    let in_set = |rooms: &[&str]| {
        let scopes: Vec<_> = rooms
            .iter()
            .map(|room| format!(r#"{{"by":["room"],"is":["{room}"],"new":true}}"#))
            .collect();
        format!(r#""set":1,"scopes":[{}]"#, scopes.join(","))
    };
    let subscribe =
        |set: &str| format!(r#"{{"type":"subscribe","collection":"todos","metadata":{{{set}}}}}"#);
    // at level 2, with the sums that a whole view has
    let said = said_to_reader(host, 1, true, &subscribe(&in_set(&["a"])));
    assert!(said.contains("in-a") && said.contains("checksum"), "{said}");
    assert!(!said.contains("partial"), "{said}");
    let said = said_to_reader(host, 2, true, &subscribe(&in_set(&["b"])));
    assert!(said.contains("UNAUTHORIZED") && !said.contains("subscribed"), "{said}");
    let said = said_to_reader(host, 3, true, &subscribe(&in_set(&["b", "a"])));
    assert!(said.contains("in-a") && said.contains("checksum"), "{said}");
    let refused = r#""refused":[{"by":["room"],"is":["b"]}]"#;
    assert!(said.replace('\\', "").contains(refused) && !said.contains("in-b"), "{said}");
    // at level 1
    for kind in ["subscribe", "sync"] {
        let frame = |room| format!(r#"{{"type":"{kind}",{}}}"#, by_name(room));
        let conn = if kind == "sync" { 10 } else { 20 };
        let said = said_to_reader(host, conn, false, &frame("a"));
        assert!(!said.contains("UNAUTHORIZED"), "{said}");
        assert_eq!(said.contains("in-a"), kind == "sync", "{said}");
        let said = said_to_reader(host, conn + 1, false, &frame("b"));
        assert!(said.contains("UNAUTHORIZED"), "{said}");
    }
    // by HTTP
    let mut number = 100;
    let mut ask = |method: &str, target: &str, body: &str| {
        host.said.clear();
        number += 1;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let user = Some(reader_of("a", number));
        let request = Request { method, path, query, body: body.as_bytes(), user };
        host.handle(HubInput::Call { call: CallId(9), request });
        host.settle();
        host.said.concat()
    };
    let said = ask("GET", "/sync/todos?scope[room]=a", "");
    assert!(said.contains("in-a"), "{said}");
    let said = ask("GET", "/sync/todos?scope[room]=b", "");
    assert!(said.contains("UNAUTHORIZED"), "{said}");
    let pull = |room: &str| format!(r#"{{"collection":"todos",{}}}"#, in_set(&[room]));
    let said = ask("POST", "/sync/pull", &pull("a"));
    assert!(said.contains("in-a") && !said.contains("partial"), "{said}");
    let said = ask("POST", "/sync/pull", &pull("b"));
    assert!(said.contains("UNAUTHORIZED"), "{said}");
    // a fresh token that names another room ends the filter, and the set
    host.said.clear();
    for conn in [1, 20] {
        host.user = reader_of("b", conn);
        host.frame(conn, r#"{"type":"auth","token":"t"}"#);
        host.settle();
        let said = said_to(host, conn);
        assert!(said.contains("may not read the collection any more"), "{conn}: {said}");
    }
    // what comes now is for others
    host.said.clear();
    host.call(3, "PATCH", "/sync/todos/a", r#"{"delta":{"n":1}}"#);
    host.commit(true);
    host.settle();
    assert!([1, 20].iter().all(|conn| said_to(host, *conn).is_empty()), "{:?}", host.said);
    assert!(said_to(host, 3).contains("update"), "{:?}", host.said);
}
