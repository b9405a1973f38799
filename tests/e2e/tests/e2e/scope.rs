//! Devices that hold a part of a collection.

use serde_json::json;
use synclayer_core::Collection;
use synclayer_e2e::host::Host;
use synclayer_server::ServerConfig;
use synclayer_tokio::{ScopeStanding, Transports};

use crate::common::{Device, TODOS};

async fn host() -> Host {
    let todos = Collection::new(TODOS).unwrap();
    Host::with(ServerConfig::new().scopes(todos, ["room".parse().unwrap()])).await
}

async fn ids(scope: &synclayer_tokio::Scope) -> Vec<String> {
    scope.get_all().await.unwrap().iter().map(|record| record.id.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_holds_its_rooms_and_nothing_else() {
    let host = host().await;
    for transports in [Transports::RealtimeOnly, Transports::PollOnly] {
        let writer = Device::new(&host).await;
        for n in 0..40 {
            let room = if n % 2 == 0 { "even" } else { "odd" };
            writer.todos.save_with_id(&format!("r{n:02}"), &json!({"room": room})).await.unwrap();
        }
        writer.synced().await;
        let reader = Device::with(&host, |config| {
            config.collections.clear();
            config.transports = transports;
        })
        .await;
        let even = reader.todos.scope("room", "even").unwrap();
        reader.synced().await;
        assert_eq!(ids(&even).await.len(), 20);
        assert_eq!(reader.todos.held().get_all().await.unwrap().len(), 20);

        // one moves in, one moves out, one goes, one changes
        writer.todos.update("r01", &json!({"room": "even"})).await.unwrap();
        writer.todos.update("r02", &json!({"room": "odd"})).await.unwrap();
        writer.todos.delete("r04").await.unwrap();
        writer.todos.update("r06", &json!({"n": 6})).await.unwrap();
        writer.synced().await;
        reader.synced().await;
        let held = ids(&even).await;
        assert_eq!(held.len(), 19);
        assert!(held.contains(&"r01".into()) && !held.contains(&"r02".into()));
        let changed = even.get("r06").await.unwrap().unwrap();
        assert_eq!(changed.document.text("n"), Some("6"));

        // its own writes, one of which leaves
        even.save_with_id("own", &json!({"room": "even", "n": 1})).await.unwrap();
        even.update("r08", &json!({"room": "odd"})).await.unwrap();
        reader.synced().await;
        let odd = reader.todos.scope("room", "odd").unwrap();
        reader.synced().await;
        assert_eq!(ids(&odd).await.len(), 21);
        assert_eq!(reader.todos.held().get_all().await.unwrap().len(), 40);
        let status = reader.sync.status().await.unwrap();
        let todos = &status.collections[&Collection::new(TODOS).unwrap()];
        assert_eq!((todos.count, status.pending_writes), (40, 0));
        let scopes = todos.scopes.as_ref().unwrap();
        assert!(scopes.values().all(|standing| *standing == ScopeStanding::Loaded));

        for record in writer.todos.get_all().await.unwrap() {
            writer.todos.delete(&record.id).await.unwrap();
        }
        writer.synced().await;
        reader.synced().await;
        assert_eq!(reader.todos.held().get_all().await.unwrap().len(), 0);
    }
}
