//! The demo for newcomers: a server and two replicas, over real sockets and real stores.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use synclayer_core::rules::{Next, PageLimits, Position, Reader};
use synclayer_core::{
    AllowAll, Checksum, ClientStore, Collection as Name, ReadAnswer, ReadRequest, ServerStore,
};
use synclayer_fjall::{ClientOptions, FjallClientStore, FjallServerStore, ServerOptions};
use synclayer_server::{Server, ServerConfig};
use synclayer_tokio::{
    Collection, EventKind, Events, Record, Snapshot, Store, SyncConfig, SyncLayer, Watch,
};
use tokio::time::{sleep, timeout};

use crate::failure::Failure;
use crate::output::Printer;

/// The time limit of each step.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Writes that are timed.
const WRITES: usize = 100;
const COLLECTION: &str = "todos";

pub(crate) async fn demo(out: Printer) -> Result<(), Failure> {
    let dir = tempfile::Builder::new().prefix("synclayer-demo").tempdir()?;
    let store =
        Arc::new(FjallServerStore::open(dir.path().join("server"), ServerOptions::default())?);
    let server = Server::bind(ServerConfig::default(), store.clone()).await?;
    let url = format!("http://{}", server.local_addr());
    let begin = format!("A server at {url} and two replicas, A and B, with a store each.");
    out.lines([begin.as_str(), ""], &json!({ "server": url }))?;

    let begun = Instant::now();
    let mut a = Device::open(&url, &dir.path().join("a")).await?;
    let mut b = Device::open(&url, &dir.path().join("b")).await?;
    a.synced().await?;
    b.synced().await?;
    let stage = Stage { out };
    stage.show("A and B open their stores and connect", begun.elapsed())?;
    let todo = live(&stage, &a, &mut b).await?;
    conflict(&stage, &mut a, &mut b, &todo).await?;
    removal(&stage, &a, &mut b, &todo).await?;
    convergence(&stage, &a, &b, &store).await?;

    a.sync.close().await;
    b.sync.close().await;
    server.shutdown().await;
    let end = ["", "That was all of it: your programs can do the same."];
    out.lines(end, &json!({ "done": true }))
}

/// A write on A appears on B.
async fn live(stage: &Stage, a: &Device, b: &mut Device) -> Result<String, Failure> {
    let begun = Instant::now();
    let todo = a.todos.save(&json!({ "text": "Buy milk", "done": false })).await?;
    b.until("A's record", |todos| todos.get(&todo).is_some()).await?;
    stage.show("A saves a todo, B shows it", begun.elapsed())?;

    let mut times = Vec::with_capacity(WRITES);
    for count in 1..=WRITES {
        let begun = Instant::now();
        a.todos.update(&todo, &json!({ "count": count })).await?;
        let wanted = count.to_string();
        b.until("A's edit", |todos| field(todos, &todo, "count") == Some(&wanted)).await?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    stage
        .show(&format!("A edits it {WRITES} times, median until B shows it"), times[WRITES / 2])?;
    Ok(todo.to_string())
}

/// Shows edits on both sides while B is cut off, and its return.
async fn conflict(
    stage: &Stage,
    a: &mut Device,
    b: &mut Device,
    todo: &str,
) -> Result<(), Failure> {
    b.sync.disconnect().await?;
    let begun = Instant::now();
    a.todos.update(todo, &json!({ "text": "Buy oat milk", "due": "today" })).await?;
    // so that B's edit is the later one on any clock
    sleep(Duration::from_millis(5)).await;
    b.todos.update(todo, &json!({ "text": "Buy soy milk", "done": true })).await?;
    stage.show("B is cut off: both edit the text, A the date, B the tick", begun.elapsed())?;

    let begun = Instant::now();
    b.sync.connect().await?;
    b.conflict().await?;
    let wanted = |todos: &Snapshot| {
        field(todos, todo, "text") == Some("\"Buy soy milk\"")
            && field(todos, todo, "due") == Some("\"today\"")
            && field(todos, todo, "done") == Some("true")
            && !todos.pending()
    };
    b.until("the resolved conflict on B", wanted).await?;
    a.until("the resolved conflict on A", wanted).await?;
    stage.show("B is back: the conflict is resolved on both", begun.elapsed())?;
    let record = b.todos.get(todo).await?;
    let document = record.map(|record: Record| record.document);
    let document = document.ok_or_else(|| Failure::plain("the record is gone"))?;
    stage.remark(&format!("the later text wins, the other edits stay: {document}"))
}

/// A deletes the record.
async fn removal(stage: &Stage, a: &Device, b: &mut Device, todo: &str) -> Result<(), Failure> {
    a.todos.save(&json!({ "text": "Stay" })).await?;
    let begun = Instant::now();
    a.todos.delete(todo).await?;
    b.until("the delete", |todos| todos.get(todo).is_none() && todos.len() == 1).await?;
    stage.show("A deletes it, and it is gone on B", begun.elapsed())
}

/// Checks that all three hold the same.
async fn convergence(
    stage: &Stage,
    a: &Device,
    b: &Device,
    store: &FjallServerStore,
) -> Result<(), Failure> {
    let begun = Instant::now();
    a.synced().await?;
    b.synced().await?;
    let sums = [a.checksum().await?, b.checksum().await?, checksum(store)?];
    let [on_a, on_b, on_server] = sums;
    if on_a != on_b || on_a != on_server {
        let message = format!("the checksums differ: A {on_a}, B {on_b}, server {on_server}");
        return Err(Failure::plain(message));
    }
    stage.show("A, B and the server hold the same", begun.elapsed())?;
    stage.remark(&format!("checksum A {on_a}, B {on_b}, server {on_server}"))
}

/// A replica of the two.
struct Device {
    sync: SyncLayer,
    todos: Collection,
    watch: Watch,
    events: Events,
}

impl Device {
    async fn open(url: &str, dir: &Path) -> Result<Self, Failure> {
        let dir = dir.to_owned();
        let store = Store::opened_by(move |on_durable| {
            let options = ClientOptions::new().on_durable(on_durable);
            let store = FjallClientStore::open(&dir, options)?;
            Ok(Box::new(store) as Box<dyn ClientStore + Send>)
        });
        let config =
            SyncConfig::new(url.to_owned()).collections([COLLECTION.to_owned()]).store(store);
        let sync = SyncLayer::open(config).await?;
        let todos = sync.collection(COLLECTION)?;
        Ok(Self { watch: todos.watch(), events: sync.events(), todos, sync })
    }

    /// Waits until the watch shows what is wanted.
    async fn until(
        &mut self,
        what: &str,
        wanted: impl Fn(&Snapshot) -> bool,
    ) -> Result<(), Failure> {
        let found = async {
            while let Some(update) = self.watch.next().await {
                if wanted(&update.snapshot) {
                    return true;
                }
            }
            false
        };
        in_time(what, found).await
    }

    /// Waits until a conflict has been resolved here.
    async fn conflict(&mut self) -> Result<(), Failure> {
        let resolved = async {
            while let Some(event) = self.events.next().await {
                if matches!(event.kind, EventKind::ConflictResolved { .. }) {
                    return true;
                }
            }
            false
        };
        in_time("a conflict", resolved).await
    }

    async fn synced(&self) -> Result<(), Failure> {
        in_time("a sync", async { self.sync.synced().await.is_ok() }).await
    }

    async fn checksum(&self) -> Result<Checksum, Failure> {
        let status = self.sync.status().await?;
        let todos = status.collections.get(COLLECTION);
        todos.map(|todos| todos.checksum).ok_or_else(|| Failure::plain("the collection is gone"))
    }
}

async fn in_time(what: &str, happens: impl Future<Output = bool>) -> Result<(), Failure> {
    match timeout(TIMEOUT, happens).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::plain(format_args!("{what} did not come: a replica has ended"))),
        Err(_) => Err(Failure::plain(format_args!("{what} did not come in {TIMEOUT:?}"))),
    }
}

fn field<'a>(todos: &'a Snapshot, todo: &str, name: &str) -> Option<&'a str> {
    todos.get(todo)?.document.text(name)
}

/// The checksum of what the server holds.
fn checksum(store: &FjallServerStore) -> Result<Checksum, Failure> {
    let collection = Name::new(COLLECTION).map_err(Failure::plain)?;
    let request = ReadRequest::CatchUp {
        reader: Reader::from(collection),
        position: Position::Now,
        limits: PageLimits::default(),
    };
    let mut found = None;
    store.read(&mut |rows| {
        if let ReadAnswer::Page(page) = request.run(rows, &AllowAll)?
            && let Next::Done { checksum, .. } = page.next
        {
            found = checksum;
        }
        Ok(())
    })?;
    found.ok_or_else(|| Failure::plain("the server has no checksum"))
}

/// The place where the demo shows what happens.
struct Stage {
    out: Printer,
}

impl Stage {
    fn show(&self, what: &str, took: Duration) -> Result<(), Failure> {
        let ms = took.as_secs_f64() * 1000.0;
        let json = json!({ "step": what, "ms": (ms * 1000.0).round() / 1000.0 });
        self.out.line(format_args!("  {what:<58}{ms:>9.2} ms"), &json)
    }

    fn remark(&self, what: &str) -> Result<(), Failure> {
        self.out.line(format_args!("    {what}"), &json!({ "remark": what }))
    }
}
