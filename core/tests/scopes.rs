//! Collections that are held by scopes, as an app sees them.
#![allow(clippy::unwrap_used)]

mod lone_replica;

use synclayer_core::{ClientConfig, Command, NamedScope, Query, WatchId};

use lone_replica::{LoneReplica, doc, id, synced, todos};

const PONG: &str = r#"{"type":"pong","metadata":{"protocol":2,"epoch":"e1","features":["scopes"],"lastMutation":0}}"#;

fn room(json: &str) -> NamedScope {
    NamedScope::new([("room", json)]).unwrap()
}

/// Watches a query of a room, or of all that is held.
fn watch(lone: &mut LoneReplica, of: Option<&str>) -> WatchId {
    let (scope, mut query) = (of.map(room), Query::default());
    if let Some(scope) = &scope {
        query.predicate = scope.condition().unwrap();
    }
    lone.replica.watch_query(&todos(), scope, query, &mut lone.actions).unwrap()
}

/// A replica that uses these scopes and has asked for them, and the number of the set.
fn asking(rooms: &[&str]) -> (LoneReplica, u64) {
    let mut lone = LoneReplica::new(ClientConfig::default());
    for json in rooms {
        let used = Command::UseScope(todos(), room(json));
        lone.replica.command(lone.now, used, &mut lone.actions);
    }
    lone.dial();
    lone.hear(PONG);
    let asked = lone.sent().pop().unwrap();
    let (_, number) = asked.rsplit_once(r#""set":"#).expect("it asks for a set");
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    (lone, digits.parse().unwrap())
}

fn subscribed(set: u64, refused: &str) -> String {
    format!(
        r#"{{"type":"subscribed","collection":"todos","metadata":{{"head":5,"mode":"snapshot","set":{set},"refused":[{refused}]}}}}"#
    )
}

fn loaded(set: u64, room: &str, records: &str) -> String {
    format!(
        r#"{{"type":"sync","collection":"todos","data":{{"records":[{records}]}},"metadata":{{"set":{set},"scope":{{"by":["room"],"is":[{room}]}},"snapshotSeq":5}}}}"#
    )
}

fn synced_set(set: u64, records: &[(&str, u64, &str)]) -> String {
    synced("e1", 5, records).replace(r#""metadata":{"#, &format!(r#""metadata":{{"set":{set},"#))
}

/// The completeness of a watched query, if that or its result is news.
fn told(lone: &mut LoneReplica, watch: WatchId) -> Option<bool> {
    lone.replica.take_query(watch).map(|update| update.snapshot.is_complete())
}

#[test]
fn a_query_of_a_refused_scope_is_never_complete() {
    let (mut lone, set) = asking(&["1", "2"]);
    let watches = [Some("1"), Some("2"), None, Some("3")].map(|of| watch(&mut lone, of));
    let [granted, refused, all, unused] = watches;
    for query in [granted, refused, all, unused] {
        assert_eq!(told(&mut lone, query), Some(false), "nothing is known yet");
    }
    lone.hear(&subscribed(set, r#"{"by":["room"],"is":[2]}"#))
        .hear(&loaded(set, "1", ""))
        .hear(&synced_set(set, &[]));
    assert_eq!(told(&mut lone, granted), Some(true));
    assert_eq!(told(&mut lone, refused), None, "its records are not here");
    assert_eq!(told(&mut lone, all), Some(true), "all that is held is here");
    assert_eq!(told(&mut lone, unused), None, "nobody has asked for it");
}

#[test]
fn a_query_of_a_scope_is_complete_while_the_whole_collection_is() {
    let mut lone = LoneReplica::live();
    let watch = watch(&mut lone, Some("1"));
    assert_eq!(told(&mut lone, watch), Some(true));
}

#[test]
fn a_query_is_incomplete_while_its_scope_is_loaded_beside_a_live_one() {
    let (mut lone, set) = asking(&["1"]);
    lone.hear(&subscribed(set, "")).hear(&loaded(set, "1", "")).hear(&synced_set(set, &[]));
    let watch = watch(&mut lone, Some("2"));
    assert_eq!(told(&mut lone, watch), Some(false));
    let used = Command::UseScope(todos(), room("2"));
    lone.replica.command(lone.now, used, &mut lone.actions);
    let (_, set) = (lone.sent(), set + 2);
    let record =
        r#"{"id":"b","data":{"room":2},"seq":3,"version":1,"updatedAt":"2026-01-01T00:00:00Z"}"#;
    lone.hear(&subscribed(set, "").replace("snapshot", "delta")).hear(&loaded(set, "2", record));
    assert_eq!(told(&mut lone, watch), Some(false), "the sums are not compared yet");
    lone.hear(&synced_set(set, &[("b", 3, r#"{"room":2}"#)]));
    assert_eq!(told(&mut lone, watch), Some(true));
    assert_eq!(
        lone.replica.get(&todos(), &id("b")).unwrap().unwrap().document,
        doc(r#"{"room":2}"#)
    );
}
