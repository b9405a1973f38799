//! A write wakes those who follow a scope of its record, and no others.

use super::*;
use crate::rules::scope::ScopeKey;

/// A record in the first room.
const NEW: &str = r#"{"recordId":"r","data":{"room":"a"}}"#;

/// A server whose collection is divided into rooms.
fn host() -> Host {
    let mut host = Host::new();
    let keys = BTreeMap::from([(todos(), Vec::from(["room".parse::<ScopeKey>().unwrap()]))]);
    let decision = Transaction::Declare(keys).decide(&host.rows, host.hub.context(host.now));
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
