//! Servers, clients and records to measure with.

use std::error::Error;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use synclayer_fjall::{
    ClientOptions, Durability, FjallClientStore, FjallServerStore, ServerOptions,
};
use synclayer_server::{Server, ServerConfig};
use synclayer_tokio::{Collection, Store, SyncConfig, SyncError, SyncLayer, Update, Watch};

pub(crate) type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// Saves under way at a time if writes are made in groups.
pub(crate) const GROUP: usize = 500;

/// The sizes of what is measured.
pub(crate) struct Sizes {
    pub(crate) records: usize,
    pub(crate) held: usize,
    pub(crate) subscribers: usize,
    pub(crate) idle: usize,
}

impl Sizes {
    pub(crate) fn from_environment() -> Result<Self> {
        let size = |name: &str, default| match std::env::var(name) {
            Ok(size) => size.parse().map_err(|_| format!("{name}={size} is no number")),
            Err(_) => Ok(default),
        };
        let sizes = Self {
            records: size("BENCH_RECORDS", 20_000)?,
            held: size("BENCH_HELD", 100_000)?,
            subscribers: size("BENCH_SUBSCRIBERS", 100)?,
            idle: size("BENCH_IDLE", 500)?,
        };
        if sizes.records < GROUP || sizes.held < sizes.records * 2 {
            return Err("BENCH_RECORDS is at least 500, and at most half of BENCH_HELD".into());
        }
        Ok(sizes)
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { records, held, subscribers, idle } = self;
        write!(
            f,
            "`BENCH_RECORDS={records} BENCH_HELD={held} BENCH_SUBSCRIBERS={subscribers} \
             BENCH_IDLE={idle}`; records of 200 bytes; µs and ms are CPU time where nothing else is said."
        )
    }
}

/// A server on a free port, with its store in `dir`.
pub(crate) async fn serve(
    dir: &Path,
    durability: Durability,
) -> Result<(Server, Arc<FjallServerStore>)> {
    serve_with(ServerConfig::default(), dir, durability).await
}

/// The same with a configuration.
pub(crate) async fn serve_with(
    config: ServerConfig,
    dir: &Path,
    durability: Durability,
) -> Result<(Server, Arc<FjallServerStore>)> {
    let options = ServerOptions::new().durability(durability);
    let store = Arc::new(FjallServerStore::open(dir, options)?);
    let server = Server::bind(config, store.clone()).await?;
    Ok((server, store))
}

/// A client with a buffered store in `dir`.
pub(crate) fn config(dir: &Path, server: impl fmt::Display) -> SyncConfig {
    let dir = dir.to_owned();
    SyncConfig::new(format!("http://{server}")).collections(["todos"]).store(store(dir))
}

/// A buffered store in `dir`.
pub(crate) fn store(dir: PathBuf) -> Store {
    Store::opened_by(move |on_durable| {
        let options = ClientOptions::new().on_durable(on_durable);
        Ok(Box::new(FjallClientStore::open(&dir, options)?))
    })
}

/// A client that has caught up.
pub(crate) async fn client(dir: &Path, server: impl fmt::Display) -> Result<SyncLayer> {
    let sync = SyncLayer::open(config(dir, server)).await?;
    sync.synced().await?;
    Ok(sync)
}

/// A client that stays offline.
pub(crate) async fn offline_client(dir: &Path) -> Result<SyncLayer> {
    Ok(SyncLayer::open(offline(dir)).await?)
}

/// The configuration of a client that stays offline.
pub(crate) fn offline(dir: &Path) -> SyncConfig {
    config(dir, "127.0.0.1:1").connect_at_start(false)
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
pub(crate) async fn save_all(todos: &Collection, records: Range<usize>) -> Result<()> {
    in_groups(records, |n| async move { todos.save_with_id(&id(n), &document(n)).await.map(drop) })
        .await
}

/// Makes calls, many at a time.
pub(crate) async fn in_groups<F>(calls: Range<usize>, call: impl Fn(usize) -> F) -> Result<()>
where
    F: Future<Output = std::result::Result<(), SyncError>>,
{
    for first in calls.clone().step_by(GROUP) {
        let group = first..calls.end.min(first + GROUP);
        futures_util::future::try_join_all(group.map(&call)).await?;
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
