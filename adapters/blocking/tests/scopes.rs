//! Scopes of a collection, as an app uses them.
#![allow(missing_docs)]

use serde_json::{Value, json};
use synclayer_blocking::query::is_equal_to;
use synclayer_blocking::{Record, ScopeStanding, SyncConfig, SyncLayer};

fn offline() -> SyncConfig {
    SyncConfig::new("http://localhost:1").connect_at_start(false)
}

fn ids(records: &[Record]) -> Vec<&str> {
    records.iter().map(|record| &*record.id).collect()
}

#[test]
fn a_scope_shows_its_records_alone_and_uses_no_more() -> Result<(), Box<dyn std::error::Error>> {
    let sync = SyncLayer::open(offline())?;
    let room = sync.collection("messages")?.scope("room", 42)?;
    let ann = sync.collection("messages")?.scope("members[]", "ann")?;
    let both =
        sync.collection("messages")?.scope_of([("room", json!(42)), ("open", json!(true))])?;
    room.save_with_id("a", &json!({"room": 42, "open": true, "members": ["ann", "bob"]}))?;
    room.save_with_id("b", &json!({"room": "42", "members": ["bob"]}))?;
    room.save_with_id("c", &json!({"room": 42.0, "open": false, "members": ["ann"]}))?;

    assert_eq!(ids(&room.get_all()?), ["a", "c"]);
    assert_eq!(ids(&ann.get_all()?), ["a", "c"]);
    assert_eq!(ids(&both.get_all()?), ["a"]);
    assert_eq!(ids(&room.query().where_("open", is_equal_to(false)).get()?), ["c"]);
    assert!(room.get("a")?.is_some() && room.get("b")?.is_none());
    assert_eq!(sync.collection("messages")?.held().get_all()?.len(), 3);

    room.update("c", &json!({"room": 7}))?;
    assert_eq!(ids(&room.get_all()?), ["a"]);

    let status = sync.status()?;
    let scopes = status.collections["messages"].scopes.clone().expect("it is held by scopes");
    let names: Vec<_> = scopes.keys().map(ToString::to_string).collect();
    assert_eq!(names, ["members[]=\"ann\"", "open=true+room=42", "room=42"]);
    assert!(scopes.values().all(|standing| *standing == ScopeStanding::Waiting));
    Ok(())
}

#[test]
fn a_watch_of_a_scope_shows_what_enters_and_leaves() -> Result<(), Box<dyn std::error::Error>> {
    let sync = SyncLayer::open(offline())?;
    let room = sync.collection("messages")?.scope("room", "42")?;
    let mut updates = room.query().watch()?;
    drop(room);
    let messages = sync.collection("messages")?.held();
    assert!(updates.next().expect("the client is open").snapshot.is_empty());
    messages.save_with_id("a", &json!({"room": "42"}))?;
    assert_eq!(updates.next().expect("the client is open").snapshot.len(), 1);
    messages.update("a", &json!({"room": "7"}))?;
    assert!(updates.next().expect("the client is open").snapshot.is_empty());
    Ok(())
}

#[test]
fn the_configuration_names_scopes_of_all_kinds() -> Result<(), Box<dyn std::error::Error>> {
    let config = offline()
        .scope("lists", "members[]", "ann")
        .scope_of("tasks", [("project", json!("p1")), ("status", json!(1))]);
    let sync = SyncLayer::open(config)?;
    let status = sync.status()?;
    let scopes = |of: &str| -> Vec<String> {
        let scopes = status.collections[of].scopes.clone().expect("it is held by scopes");
        scopes.keys().map(ToString::to_string).collect()
    };
    assert_eq!(scopes("lists"), ["members[]=\"ann\""]);
    assert_eq!(scopes("tasks"), ["project=\"p1\"+status=1"]);
    Ok(())
}

#[test]
fn what_can_be_no_scope_is_an_error() -> Result<(), Box<dyn std::error::Error>> {
    let sync = SyncLayer::open(offline())?;
    let messages = sync.collection("messages")?;
    assert!(messages.scope("room", Value::Array(Vec::new())).is_err());
    assert!(messages.scope_of([("room", 1), ("members[]", 2)]).is_err());
    assert!(SyncLayer::open(offline().scope("messages", "", 1)).is_err());
    Ok(())
}
