//! Time until others see a write.

use std::time::Instant;

use serde_json::json;
use synclayer_fjall::Durability;

use crate::report::Report;
use crate::world::{Result, Sizes, client, document, id, percentiles, serve, until};

const ROUNDS: usize = 1_000;

/// The time from a call on A, with a durable store, until B's watcher has it: through B's durable
/// store, the server and its store. One write at a time, each alone.
pub(crate) async fn measure(_: &Sizes, report: &mut Report) -> Result<()> {
    for durability in [Durability::Synced, Durability::Buffered] {
        let dir = tempfile::tempdir()?;
        let (server, _) = serve(&dir.path().join("server"), durability).await?;
        let a = client(&dir.path().join("a"), server.local_addr()).await?;
        let b = client(&dir.path().join("b"), server.local_addr()).await?;
        let (todos, mut watch) = (a.collection("todos")?, b.collection("todos")?.watch());
        let mut times = (Vec::new(), Vec::new());
        for n in 0..ROUNDS {
            let id = id(n);
            let begun = Instant::now();
            todos.save_with_id(&id, &document(n)).await?;
            until(&mut watch, |update| update.snapshot.get(&id).is_some()).await?;
            times.0.push(begun.elapsed());
            let begun = Instant::now();
            todos.update(&id, &json!({ "done": true })).await?;
            let done = |update: &synclayer_tokio::Update| {
                let record = update.snapshot.get(&id);
                record.is_some_and(|record| record.document.text("done") == Some("true"))
            };
            until(&mut watch, done).await?;
            times.1.push(begun.elapsed());
        }
        for (write, times) in [("insert", times.0), ("update", times.1)] {
            let (median, p99) = percentiles(times);
            let work = format!("from an {write} on A to B's watch, server {durability:?}");
            report.row(work, median.as_secs_f64() * 1e3, "ms of time");
            report.note(format!("99 % within {p99:.1?}"));
        }
        a.close().await;
        b.close().await;
        server.shutdown().await;
    }
    Ok(())
}
