//! Rate at which writes are saved.

use std::time::Instant;

use synclayer_core::{
    ClientConfig, ClientStore, Collection, Document, Limits, MemoryClientStore, Mono, Now,
    RecordId, Replica, Timestamp, Write,
};
use synclayer_fjall::{ClientOptions, FjallClientStore};

use crate::world::{Result, document, id, offline_client, save_all};

const SINGLE: usize = 20_000;
const GROUPED: usize = 100_000;

/// New records of 200 bytes, offline, on a buffered store: through the tokio client, one awaited
/// after the other and many at a time; and through the core alone, on that store and in memory.
pub(crate) async fn writes() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let sync = offline_client(&dir.path().join("single")).await?;
    let todos = sync.collection("todos")?;
    let begun = Instant::now();
    for n in 0..SINGLE {
        todos.save_with_id(&id(n), &document(n)).await?;
    }
    report("client, one after the other", SINGLE, begun);
    sync.close().await;

    let sync = offline_client(&dir.path().join("grouped")).await?;
    let begun = Instant::now();
    save_all(&sync.collection("todos")?, GROUPED).await?;
    report("client, 500 at a time", GROUPED, begun);
    sync.close().await;

    let store = FjallClientStore::open(dir.path().join("core"), ClientOptions::default())?;
    of_core("core on the same store", store)?;
    of_core("core in memory", MemoryClientStore::default())
}

fn of_core(name: &str, store: impl ClientStore) -> Result<()> {
    let now = Now { mono: Mono(0), wall: Timestamp(0) };
    let mut actions = Vec::new();
    let mut replica = Replica::open(ClientConfig::default(), 1, now, store, &mut actions)?;
    let todos = Collection::new("todos")?;
    let limits = Limits::default();
    let begun = Instant::now();
    for n in 0..GROUPED {
        let record = Document::of(&document(n), &limits)?;
        replica.write(
            now,
            Write::Save(todos.clone(), RecordId::new(&id(n))?, record),
            &mut actions,
        )?;
        actions.clear();
    }
    report(name, GROUPED, begun);
    Ok(())
}

fn report(name: &str, writes: usize, begun: Instant) {
    let rate = writes as f64 / begun.elapsed().as_secs_f64();
    println!("{name:>30} {rate:>10.0} writes/s {:>8.1} µs each", 1e6 / rate);
}
