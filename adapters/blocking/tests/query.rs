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
