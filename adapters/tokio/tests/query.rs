//! Queries of a client that is offline.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeMap;

use serde_json::json;
use synclayer_core::MemoryClientStore;
use synclayer_core::testing::SimulatedDisk;
use synclayer_tokio::query::{
    Ascending, Descending, any_of, array_contains, does_not_exist, field, is_equal_to,
    is_greater_than, is_greater_than_or_equal_to, is_null, not, where_in,
};
use synclayer_tokio::{
    Collection, Misuse, Query, QueryChange, QueryUpdate, Record, Store, StoreError, StoreErrorKind,
    SyncConfig, SyncError, SyncLayer, Typed,
};

async fn todos() -> Collection {
    let config = SyncConfig::new("http://localhost:8080").connect_at_start(false);
    let sync = SyncLayer::open(config).await.unwrap();
    let todos = sync.collection("todos").unwrap();
    for (id, todo) in [
        ("a", json!({"done": false, "priority": 1, "owner": {"name": "ann"}})),
        ("b", json!({"done": true, "priority": 2, "tags": ["x", "y"]})),
        ("c", json!({"done": false, "priority": 2, "owner": {"name": "bob"}})),
        ("d", json!({"done": false, "priority": null})),
        ("e", json!({"done": false})),
    ] {
        todos.save_with_id(id, &todo).await.unwrap();
    }
    todos
}

fn ids(records: &[Record]) -> String {
    records.iter().map(|record| record.id.as_str()).collect()
}

#[tokio::test]
async fn a_query_finds_sorts_and_cuts() {
    let todos = todos().await;
    let open = todos.query().where_("done", is_equal_to(false));
    assert_eq!(ids(&open.clone().get().await.unwrap()), "acde");
    let urgent = open.clone().order_by("priority", Descending);
    assert_eq!(ids(&urgent.clone().get().await.unwrap()), "cade");
    assert_eq!(ids(&urgent.clone().limit(2).get().await.unwrap()), "ca");
    assert_eq!(ids(&urgent.clone().limit(2).offset(1).get().await.unwrap()), "ad");
    assert_eq!(&*urgent.first().await.unwrap().unwrap().id, "c");
    assert_eq!(todos.query().count().await, Ok(5));
    assert_eq!(open.clone().limit(3).count().await, Ok(3));
    assert_eq!(open.offset(3).count().await, Ok(1));
    assert_eq!(todos.query().where_("n", is_equal_to(1)).first().await, Ok(None));
    for (filter, expected) in [
        (field("owner.name", where_in(["ann", "eve"])), "a"),
        (field("tags", array_contains("y")), "b"),
        (field("priority", is_null()), "d"),
        (field("priority", does_not_exist()), "e"),
        (not(field("priority", is_greater_than(1))), "ade"),
        (any_of([field("done", is_equal_to(true)), field("priority", is_equal_to(1.0))]), "ab"),
    ] {
        assert_eq!(ids(&todos.query().filter(filter).get().await.unwrap()), expected);
    }
}

#[tokio::test]
async fn pages_have_no_gap_and_no_double_while_others_write() {
    let todos = todos().await;
    let pages = todos.query().order_by("priority", Ascending).limit(2);
    let first = pages.clone().get().await.unwrap();
    assert_eq!(ids(&first), "ed");
    todos.save_with_id("f", &json!({"priority": null})).await.unwrap();
    todos.delete("d").await.unwrap();
    let second = pages.clone().start_after(first.last().unwrap()).get().await.unwrap();
    assert_eq!(ids(&second), "fa");
    // a partial last page
    let last = todos.query().start_after(second.last().unwrap());
    assert_eq!(ids(&last.order_by("priority", Ascending).limit(5).get().await.unwrap()), "bc");
    let bounds = pages.limit(9).start_at(&second[0]).end_before(&second[1]);
    assert_eq!(ids(&bounds.get().await.unwrap()), "f");
}

#[tokio::test]
async fn what_matches_is_updated_and_deleted() {
    let todos = todos().await;
    let urgent = todos.query().where_("priority", is_greater_than_or_equal_to(2));
    let saved = urgent.clone().update(&json!({"priority": 0, "seen": true})).await.unwrap();
    assert_eq!(saved.iter().map(|saved| saved.id.as_str()).collect::<String>(), "bc");
    let seen = todos.query().where_("seen", is_equal_to(true));
    assert_eq!(seen.clone().count().await, Ok(2));
    assert_eq!(urgent.count().await, Ok(0));
    let c = todos.get("c").await.unwrap().unwrap();
    assert_eq!(c.document.text("owner"), Some(r#"{"name":"bob"}"#), "the rest stays");
    assert_eq!(seen.clone().order_by("done", Descending).limit(1).delete().await.unwrap().len(), 1);
    assert_eq!(ids(&todos.get_all().await.unwrap()), "acde");
    assert_eq!(seen.delete().await.unwrap().len(), 1);
    assert_eq!(todos.query().count().await, Ok(3));
}

#[tokio::test]
async fn what_is_wrong_with_a_query_is_its_calls_error() {
    let todos = todos().await;
    for (query, message) in [
        (todos.query().where_("a..b", is_null()), "\"a..b\" is no path of a field"),
        (todos.query().order_by("", Ascending), "\"\" is no path of a field"),
        (todos.query().filter(not(field("\"a", is_null()))), "has to be a JSON string"),
        (
            todos.query().where_("a", is_equal_to(BTreeMap::from([((), 1)]))),
            "the value for \"a\" can't be written as JSON: key must be a string",
        ),
        (todos.query().where_("a", where_in(vec![0; 2000])), "the list has more than 1000 values"),
    ] {
        let error = query.clone().count().await.unwrap_err();
        assert!(matches!(&error, SyncError::Misuse(Misuse::Query(_))), "{error:?}");
        assert!(error.to_string().contains(message), "{error}");
        assert_eq!(query.clone().get().await, Err(error.clone()));
        assert_eq!(query.delete().await.map(drop), Err(error));
    }
}

/// The changes of an update, in short: `-` and the place for what left, `+` for what entered.
fn told(update: &QueryUpdate) -> String {
    let changes = update.changes.iter().map(|change| match change {
        QueryChange::Left { at, id } => format!("-{at}{id}"),
        QueryChange::Entered { at, record } => format!("+{at}{}", record.id),
        QueryChange::Modified { from, to, record } => format!("{from}>{to}{}", record.id),
    });
    changes.collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn a_watched_query_tells_places() {
    let todos = todos().await;
    let urgent = todos.query().order_by("priority", Descending).limit(3);
    let mut updates = urgent.clone().watch().unwrap();
    let first = updates.next().await.unwrap();
    assert_eq!(told(&first), "+0b +1c +2a");
    assert!(!first.snapshot.is_complete(), "it is offline");
    todos.update("a", &json!({"priority": 9})).await.unwrap();
    assert_eq!(told(&updates.next().await.unwrap()), "2>0a");
    todos.delete("b").await.unwrap();
    assert_eq!(told(&updates.next().await.unwrap()), "-1b +2d");
    // nobody reads: the updates are merged, and tell the way from what was seen last
    todos.save_with_id("x", &json!({"priority": 10})).await.unwrap();
    todos.save_with_id("y", &json!({"priority": 11})).await.unwrap();
    todos.delete("x").await.unwrap();
    let merged = updates.next().await.unwrap();
    assert_eq!(told(&merged), "-2d +0y");
    let ids: String = merged.snapshot.iter().map(|record| record.id.as_str()).collect();
    assert_eq!(ids, "yac");
    assert!(urgent.order_by("a..b", Ascending).watch().is_err());
}

#[tokio::test]
async fn a_watched_query_goes_on_when_its_store_was_opened_anew() {
    let opened = std::sync::atomic::AtomicU64::new(0);
    let store = Store::opened_by(move |_| {
        let mut store = MemoryClientStore::default();
        if opened.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0 {
            // it fails at the second write, and is empty when it is opened again
            let full = StoreError::new(StoreErrorKind::Full, "there is no space left");
            store.fail_commit(3, full);
        }
        Ok(Box::new(store))
    });
    let config = SyncConfig::new("http://localhost:8080").connect_at_start(false).store(store);
    let sync = SyncLayer::open(config).await.unwrap();
    let todos = sync.collection("todos").unwrap();
    let mut updates = todos.query().order_by("n", Ascending).watch().unwrap();
    assert!(updates.next().await.unwrap().snapshot.is_empty());
    todos.save_with_id("a", &json!({"n": 1})).await.unwrap();
    assert_eq!(told(&updates.next().await.unwrap()), "+0a");
    assert!(todos.save_with_id("b", &json!({"n": 2})).await.is_err());
    assert_eq!(told(&updates.next().await.unwrap()), "-0a", "what the new store has");
}

#[tokio::test]
async fn a_document_of_another_shape_is_an_error_that_names_it() {
    type Flags = BTreeMap<String, bool>;
    let config = SyncConfig::new("http://localhost:8080").connect_at_start(false);
    let sync = SyncLayer::open(config).await.unwrap();
    let flags = sync.collection_of::<Flags>("flags").unwrap();
    let [on, off] = [true, false].map(|on| Flags::from([("on".to_owned(), on)]));
    flags.save_with_id("a", &on).await.unwrap();
    flags.save_with_id("b", &off).await.unwrap();
    assert_eq!(flags.get("a").await.unwrap().unwrap().value, on);
    let found = flags.find(|query| query.where_("on", is_equal_to(false))).await.unwrap();
    assert_eq!(found.iter().map(|found| found.record.id.as_str()).collect::<Vec<_>>(), ["b"]);
    let mut updates = flags.watch(|query| query.where_("on", is_equal_to(false))).unwrap();
    let update = updates.next().await.unwrap().unwrap();
    let values: Vec<_> = update.values.iter().map(|typed| &typed.value).collect();
    assert_eq!((values, update.changes.len(), update.is_complete), (vec![&off], 1, false));
    flags.untyped().update("b", &json!({"since": "May"})).await.unwrap();
    assert!(matches!(updates.next().await, Some(Err(SyncError::Shape { .. }))));
    let error = flags.get_all().await.unwrap_err();
    let SyncError::Shape { id, field, .. } = &error else { panic!("{error:?}") };
    assert_eq!((id.as_str(), field.as_deref()), ("b", Some("since")));
    let text = "flags/b can't be read as the type, for its field \"since\": invalid type";
    assert!(error.to_string().starts_with(text), "{error}");
    assert_eq!(flags.untyped().get_all().await.unwrap().len(), 2, "it is shown all the same");
    assert_eq!(flags.get("none").await, Ok(None));
}

#[tokio::test]
async fn a_scope_has_a_type_too() {
    type Notes = BTreeMap<String, String>;
    let config = SyncConfig::new("http://localhost:8080").connect_at_start(false);
    let sync = SyncLayer::open(config).await.unwrap();
    let notes = sync.collection_of::<Notes>("notes").unwrap();
    let ann = notes.scope("owner", "ann").unwrap();
    let note = |owner: &str| Notes::from([("owner".to_owned(), owner.to_owned())]);
    ann.save_with_id("a", &note("ann")).await.unwrap();
    ann.save_with_id("b", &note("bob")).await.unwrap();
    assert_eq!(ann.get("a").await.unwrap().unwrap().value, note("ann"));
    assert_eq!(ann.get("b").await, Ok(None), "it is in another scope");
    let owners = |found: &[Typed<Notes>]| -> Vec<_> {
        found.iter().map(|found| found.value["owner"].clone()).collect()
    };
    assert_eq!(owners(&ann.get_all().await.unwrap()), ["ann"]);
    assert_eq!(owners(&notes.held().get_all().await.unwrap()), ["ann", "bob"]);
    let descending = |query: Query| query.order_by("owner", Descending);
    assert_eq!(owners(&notes.held().find(descending).await.unwrap()), ["bob", "ann"]);
    let mut updates = ann.watch(descending).unwrap();
    assert_eq!(owners(&updates.next().await.unwrap().unwrap().values), ["ann"]);
    ann.untyped().update("a", &json!({"owner": 1})).await.unwrap();
    assert!(updates.next().await.unwrap().unwrap().values.is_empty());
    ann.untyped().update("a", &json!({"owner": "ann", "n": 1})).await.unwrap();
    assert!(matches!(updates.next().await, Some(Err(SyncError::Shape { .. }))));
}

#[tokio::test]
async fn an_index_serves_the_queries_that_fit_it() {
    let config = SyncConfig::new("http://localhost:8080").connect_at_start(false);
    let sync = SyncLayer::open(config.index("todos", "done, -priority")).await.unwrap();
    let todos = sync.collection("todos").unwrap();
    for n in 0..20 {
        let todo = json!({"done": n % 2 == 0, "priority": n});
        todos.save_with_id(&format!("{n:02}"), &todo).await.unwrap();
    }
    let open = todos.query().where_("done", is_equal_to(false)).order_by("priority", Descending);
    let how = open.clone().limit(3).explain().await.unwrap();
    assert_eq!(how.index.as_deref(), Some("done,-priority"));
    assert_eq!((how.equal, how.range, how.ordered, how.read, how.returned), (1, false, true, 3, 3));
    let urgent = open.clone().limit(2).get().await.unwrap();
    assert_eq!(urgent.iter().map(|record| &*record.id).collect::<Vec<_>>(), ["19", "17"]);
    assert_eq!(&*open.clone().first().await.unwrap().unwrap().id, "19");
    assert_eq!(open.clone().count().await, Ok(10));
    assert_eq!(open.clone().limit(4).delete().await.unwrap().len(), 4);
    let later = open.clone().update(&json!({"done": true})).await.unwrap();
    assert_eq!((later.len(), open.count().await), (6, Ok(0)));
    let wrong = SyncConfig::new("http://localhost:8080").index("todos", "done,");
    let error = SyncLayer::open(wrong).await.unwrap_err().to_string();
    assert!(error.contains("the index of \"todos\" can't be kept"), "{error}");
}
