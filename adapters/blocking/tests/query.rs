//! Queries of a client that is offline.
#![allow(missing_docs, clippy::unwrap_used)]

use std::time::Duration;

use serde_json::json;
use synclayer_blocking::query::{Descending, is_equal_to};
use synclayer_blocking::{SyncConfig, SyncLayer};

#[test]
fn a_query_finds_counts_updates_and_deletes() {
    let config = SyncConfig::new("http://localhost:8080").connect_at_start(false);
    let sync = SyncLayer::open(config).unwrap();
    let todos = sync.collection("todos").unwrap();
    for n in 0..5 {
        todos.save_with_id(&format!("r{n}"), &json!({"n": n, "even": n % 2 == 0})).unwrap();
    }
    let even = todos.query().where_("even", is_equal_to(true)).order_by("n", Descending);
    let ids = even.clone().get().unwrap().into_iter().map(|record| record.id.to_string());
    assert_eq!(ids.collect::<Vec<_>>(), ["r4", "r2", "r0"]);
    assert_eq!(&*even.clone().first().unwrap().unwrap().id, "r4");
    assert_eq!(even.clone().count(), Ok(3));
    let mut updates = even.clone().limit(2).watch().unwrap();
    assert_eq!(updates.next().unwrap().changes.len(), 2);
    todos.delete("r4").unwrap();
    let update = updates.next_timeout(Duration::from_secs(60)).unwrap().unwrap();
    let ids = update.snapshot.iter().map(|record| record.id.to_string());
    assert_eq!(ids.collect::<Vec<_>>(), ["r2", "r0"]);
    todos.save_with_id("r4", &json!({"n": 4, "even": true})).unwrap();
    assert_eq!(even.clone().limit(2).update(&json!({"even": null})).unwrap().len(), 2);
    assert_eq!(even.delete().unwrap().len(), 1);
    assert_eq!(todos.get_all().unwrap().len(), 4);
}

#[test]
fn an_index_serves_the_queries_that_fit_it() {
    let config = SyncConfig::new("http://localhost:8080").connect_at_start(false);
    let sync = SyncLayer::open(config.index("todos", "done, -priority")).unwrap();
    let todos = sync.collection("todos").unwrap();
    for n in 0..20 {
        let todo = json!({"done": n % 2 == 0, "priority": n});
        todos.save_with_id(&format!("{n:02}"), &todo).unwrap();
    }
    let open = todos.query().where_("done", is_equal_to(false)).order_by("priority", Descending);
    let how = open.clone().limit(3).explain().unwrap();
    assert_eq!(how.index.as_deref(), Some("done,-priority"));
    assert_eq!((how.equal, how.range, how.ordered, how.read, how.returned), (1, false, true, 3, 3));
    let urgent = open.clone().limit(2).get().unwrap();
    assert_eq!(urgent.iter().map(|record| &*record.id).collect::<Vec<_>>(), ["19", "17"]);
    assert_eq!(&*open.clone().first().unwrap().unwrap().id, "19");
    assert_eq!(open.clone().count(), Ok(10));
    assert_eq!(open.clone().limit(4).delete().unwrap().len(), 4);
    let later = open.clone().update(&json!({"done": true})).unwrap();
    assert_eq!((later.len(), open.count()), (6, Ok(0)));
    let wrong = SyncConfig::new("http://localhost:8080").index("todos", "done,");
    let error = SyncLayer::open(wrong).unwrap_err().to_string();
    assert!(error.contains("the index of \"todos\" can't be kept"), "{error}");
}
