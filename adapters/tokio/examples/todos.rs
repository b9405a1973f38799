//! A replica of a list of todos that stays in sync with a server.

use serde_json::json;
use synclayer_tokio::{SyncConfig, SyncLayer};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let sync =
        SyncLayer::open(SyncConfig::new("http://localhost:8080").collections(["todos"])).await?;

    let todos = sync.collection("todos")?;
    let milk = todos.save(&json!({ "text": "Buy milk", "done": false })).await?;
    todos.update(&milk.id, &json!({ "done": true })).await?;

    let mut updates = todos.watch();
    while let Some(update) = updates.next().await {
        for todo in update.snapshot.iter() {
            println!("{}: {}", todo.id, todo.document);
        }
    }
    Ok(())
}
