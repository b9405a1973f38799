//! A list of todos on as many devices as there are directories: the program of the guide's first steps.

use serde_json::json;
use synclayer_fjall::{ClientOptions, FjallClientStore};
use synclayer_tokio::query::{Ascending, is_equal_to};
use synclayer_tokio::{Store, SyncConfig, SyncLayer};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let directory = args.next().ok_or("usage: todos DIRECTORY [TEXT]")?;

    // what this device holds lies in a directory, also while it has no network
    let store = Store::opened_by(move |on_durable| {
        let options = ClientOptions::new().on_durable(on_durable);
        Ok(Box::new(FjallClientStore::open(&directory, options)?))
    });
    let server = std::env::var("SYNCLAYER_SERVER").unwrap_or("http://localhost:8080".to_owned());
    let sync = SyncLayer::open(SyncConfig::new(server).store(store)).await?;

    let todos = sync.collection("todos")?;
    if let Some(text) = args.next() {
        todos.save(&json!({ "text": text, "done": false })).await?;
    }

    // the open todos, sorted, now and after every change
    let open = todos.query().where_("done", is_equal_to(false)).order_by("text", Ascending);
    let mut updates = open.watch()?;
    while let Some(update) = updates.next().await {
        println!("{} open:", update.snapshot.len());
        for todo in update.snapshot.iter() {
            println!("  {} {}", todo.id, todo.document);
        }
    }
    Ok(())
}
