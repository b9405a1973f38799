//! Servers, clients and records to measure with.

use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use synclayer_fjall::{
    ClientOptions, Durability, FjallClientStore, FjallServerStore, ServerOptions,
};
use synclayer_server::{Server, ServerConfig};
use synclayer_tokio::{Collection, Store, SyncConfig, SyncLayer, Update, Watch};

pub(crate) type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// Saves under way at a time if writes are made in groups.
pub(crate) const GROUP: usize = 500;

/// A server on a free port, with its store in `dir`.
pub(crate) async fn serve(
    dir: &Path,
    durability: Durability,
) -> Result<(Server, Arc<FjallServerStore>)> {
    let options = ServerOptions::new().durability(durability);
    let store = Arc::new(FjallServerStore::open(dir, options)?);
    let server = Server::bind(ServerConfig::default(), store.clone()).await?;
    Ok((server, store))
}

/// A client with a buffered store in `dir`.
pub(crate) fn config(dir: &Path, server: SocketAddr) -> SyncConfig {
    let dir = dir.to_owned();
    let store = Store::opened_by(move |on_durable| {
        let options = ClientOptions::new().on_durable(on_durable);
        Ok(Box::new(FjallClientStore::open(&dir, options)?))
    });
    SyncConfig::new(format!("http://{server}")).collections(["todos"]).store(store)
}

/// A client that has caught up.
pub(crate) async fn client(dir: &Path, server: SocketAddr) -> Result<SyncLayer> {
    let sync = SyncLayer::open(config(dir, server)).await?;
    sync.synced().await?;
    Ok(sync)
}

/// A client that stays offline.
pub(crate) async fn offline_client(dir: &Path) -> Result<SyncLayer> {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
    let config = config(dir, nowhere).connect_at_start(false);
    Ok(SyncLayer::open(config).await?)
}

/// A record of 200 bytes that do not compress to nothing.
pub(crate) fn document(n: usize) -> Value {
    const EMPTY: usize = r#"{"done":false,"n":123456,"text":""}"#.len();
    let mut rng = fastrand::Rng::with_seed(n as u64);
    let text: String = std::iter::repeat_with(|| rng.alphanumeric()).take(200 - EMPTY).collect();
    json!({ "done": false, "n": 100_000 + n, "text": text })
}

/// An id in no order.
pub(crate) fn id(n: usize) -> String {
    format!("{:016x}-{n:08}-0123456789", (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Saves records, many at a time.
pub(crate) async fn save_all(todos: &Collection, records: usize) -> Result<()> {
    for first in (0..records).step_by(GROUP) {
        let saves = (first..records.min(first + GROUP))
            .map(|n| async move { todos.save_with_id(&id(n), &document(n)).await });
        futures_util::future::try_join_all(saves).await?;
    }
    Ok(())
}

/// Takes updates until one is as wanted.
pub(crate) async fn until(
    watch: &mut Watch,
    mut wanted: impl FnMut(&Update) -> bool,
) -> Result<Update> {
    loop {
        let update = watch.next().await.ok_or("the client has ended")?;
        if wanted(&update) {
            return Ok(update);
        }
    }
}

/// The median and the 99th percentile.
pub(crate) fn percentiles(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}
