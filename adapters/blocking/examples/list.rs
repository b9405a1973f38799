//! A replica of a list of todos that stays in sync with a server, on threads.

use serde_json::json;
use synclayer_blocking::{SyncConfig, SyncLayer};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let sync = SyncLayer::open(SyncConfig::new("http://localhost:8080").collections(["todos"]))?;

    let todos = sync.collection("todos")?;
    let id = todos.save(&json!({ "text": "Buy milk", "done": false }))?;
    todos.update(&id, &json!({ "done": true }))?;

    for update in todos.watch() {
        for todo in update.snapshot.iter() {
            println!("{}: {}", todo.id, todo.document);
        }
    }
    Ok(())
}
