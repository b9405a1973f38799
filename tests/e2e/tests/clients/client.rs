//! The interface that the suite needs of a client, and both clients behind it.

use std::any::Any;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;
use synclayer_tokio::{
    Document, Event, Fate, Metrics, PendingWrite, Record, SavedAll, SignOut, Status, SyncConfig,
    SyncError, Transaction, WriteId,
};

use crate::callback::{Calls, WAIT};
use crate::support::{TIMEOUT, TODOS, runtime};

/// The change of a record.
pub type Modify = Box<dyn FnOnce(Option<&Document>) -> Option<Value> + Send>;
/// Changes a record by what it is.
pub type Modifier = Box<dyn Fn(&str, Modify) -> Result<(), SyncError> + Send>;

/// The making of a transaction.
pub type Body = Box<dyn FnOnce(&mut Transaction<'_, '_>) -> Result<(), SyncError> + Send>;

/// Waits for what becomes of a write.
pub type Confirmed = Box<dyn Fn() -> Result<Fate, SyncError>>;

/// A client and its collection `todos`.
pub trait Client: Sized + Send {
    /// Opens it and listens to its events, and only then connects it, as far as the configuration
    /// says so: what is told in between would be lost.
    fn open(config: SyncConfig) -> Self;
    fn save(&self, id: &str, document: &Value);
    fn update(&self, id: &str, fields: &Value);
    fn delete(&self, id: &str);
    fn modifier(&self) -> Modifier;
    fn saved(&self, id: &str, document: &Value) -> Confirmed;
    /// Makes the only rejected write again.
    fn retried(&self) -> Confirmed;
    fn transacted(&self, body: Body) -> Result<Confirmed, SyncError>;
    fn saved_all(&self, documents: Vec<Value>) -> SavedAll;
    fn deleted_all(&self, ids: Vec<String>);
    fn pending(&self) -> Vec<PendingWrite>;
    fn records(&self) -> Vec<Record>;
    fn status(&self) -> Status;
    fn metrics(&self) -> Metrics;
    fn set_token(&self, token: &str);
    fn set_online(&self, online: bool);
    fn sync_now(&self);
    fn connect(&self);
    fn rejected(&self) -> usize;
    /// Returns the result of `synced`, or `None` if it takes longer than a test waits.
    fn outcome(&self) -> Option<Result<(), SyncError>>;
    /// Leaves the collection.
    fn unsubscribe(&self);
    /// Two clones of a handle of another collection, which was read once.
    fn handles(&self, collection: &str) -> [Box<dyn Any>; 2];
    /// The next event, unless none comes in time.
    fn event(&mut self, patience: Duration) -> Option<Event>;
    fn close(self);
    fn sign_out(&self, how: SignOut) -> Result<(), SyncError>;
    /// Every call that waits for an answer, to be made from inside a callback.
    fn calls(&self) -> Calls;

    fn is_synced(&self) -> bool {
        matches!(self.outcome(), Some(Ok(())))
    }

    fn synced(&self) {
        assert!(self.is_synced(), "not in sync: {:?}", self.status());
    }

    /// Takes events until one is as wanted; those before it come along.
    fn told(&mut self, what: &str, mut wanted: impl FnMut(&Event) -> bool) -> Vec<Event> {
        let until = Instant::now() + TIMEOUT;
        let mut seen = Vec::new();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Some(event) = self.event(left) else { panic!("nobody told {what}: {seen:#?}") };
            let found = wanted(&event);
            seen.push(event);
            if found {
                return seen;
            }
        }
    }

    /// Returns the records that the app sees, as JSON.
    fn shown(&self) -> BTreeMap<String, Value> {
        let json = |record: &Record| serde_json::from_str(&record.document.to_string()).unwrap();
        self.records().iter().map(|record| (record.id.to_string(), json(record))).collect()
    }
}

/// The client for tokio programs.
pub struct Tokio {
    sync: synclayer_tokio::SyncLayer,
    todos: synclayer_tokio::Collection,
    events: synclayer_tokio::Events,
}

impl Client for Tokio {
    fn open(config: SyncConfig) -> Self {
        let connects = config.connect_at_start;
        let config = config.connect_at_start(false);
        let sync = runtime().block_on(synclayer_tokio::SyncLayer::open(config)).unwrap();
        let (events, todos) = (sync.events(), sync.collection(TODOS).unwrap());
        let client = Self { sync, todos, events };
        if connects {
            client.connect();
        }
        client
    }

    fn save(&self, id: &str, document: &Value) {
        runtime().block_on(self.todos.save_with_id(id, document)).unwrap();
    }

    fn update(&self, id: &str, fields: &Value) {
        runtime().block_on(self.todos.update(id, fields)).unwrap();
    }

    fn delete(&self, id: &str) {
        runtime().block_on(self.todos.delete(id)).unwrap();
    }

    fn modifier(&self) -> Modifier {
        let todos = self.todos.clone();
        Box::new(move |id, change| runtime().block_on(todos.modify(id, change)).map(drop))
    }

    fn saved(&self, id: &str, document: &Value) -> Confirmed {
        let saved = runtime().block_on(self.todos.save_with_id(id, document)).unwrap();
        assert_eq!(&**saved, id, "it stands for the id");
        confirmed(saved)
    }

    fn retried(&self) -> Confirmed {
        let rejected = self.sync.rejected();
        let retried = async { rejected.retry(rejected.list().await.unwrap()[0].write).await };
        confirmed(runtime().block_on(retried).unwrap())
    }

    fn transacted(&self, body: Body) -> Result<Confirmed, SyncError> {
        let made = runtime().block_on(self.sync.transaction(body))?;
        Ok(Box::new(move || {
            let confirmed = async { tokio::time::timeout(TIMEOUT, made.confirmed()).await };
            runtime().block_on(confirmed).unwrap()
        }))
    }

    fn saved_all(&self, documents: Vec<Value>) -> SavedAll {
        runtime().block_on(self.todos.save_all(documents)).unwrap()
    }

    fn deleted_all(&self, ids: Vec<String>) {
        runtime().block_on(self.todos.delete_all(ids)).unwrap();
    }

    fn metrics(&self) -> Metrics {
        runtime().block_on(self.sync.metrics()).unwrap()
    }

    fn pending(&self) -> Vec<PendingWrite> {
        runtime().block_on(self.sync.pending()).unwrap()
    }

    fn records(&self) -> Vec<Record> {
        runtime().block_on(self.todos.get_all()).unwrap()
    }

    fn status(&self) -> Status {
        runtime().block_on(self.sync.status()).unwrap()
    }

    fn set_token(&self, token: &str) {
        runtime().block_on(self.sync.set_token(token)).unwrap();
    }

    fn set_online(&self, online: bool) {
        runtime().block_on(self.sync.set_online(online)).unwrap();
    }

    fn sync_now(&self) {
        runtime().block_on(self.sync.sync_now()).unwrap();
    }

    fn connect(&self) {
        runtime().block_on(self.sync.connect()).unwrap();
    }

    fn rejected(&self) -> usize {
        runtime().block_on(self.sync.rejected().list()).unwrap().len()
    }

    fn unsubscribe(&self) {
        runtime().block_on(self.todos.unsubscribe()).unwrap();
    }

    fn handles(&self, collection: &str) -> [Box<dyn Any>; 2] {
        let handle = self.sync.collection(collection).unwrap();
        runtime().block_on(handle.get("x")).unwrap();
        [Box::new(handle.clone()), Box::new(handle)]
    }

    fn outcome(&self) -> Option<Result<(), SyncError>> {
        let synced = async { tokio::time::timeout(TIMEOUT, self.sync.synced()).await };
        runtime().block_on(synced).ok()
    }

    fn event(&mut self, patience: Duration) -> Option<Event> {
        let next = async { tokio::time::timeout(patience, self.events.next()).await };
        runtime().block_on(next).ok().flatten()
    }

    fn close(self) {
        runtime().block_on(self.sync.close());
    }

    fn sign_out(&self, how: SignOut) -> Result<(), SyncError> {
        runtime().block_on(self.sync.sign_out(how))
    }

    fn calls(&self) -> Calls {
        let (sync, todos) = (self.sync.clone(), self.todos.clone());
        Box::new(move || {
            let (mut watch, mut events) = (todos.watch(), sync.events());
            let (fields, write) = (serde_json::json!({"v": 1}), WriteId(1));
            runtime().block_on(async {
                assert!(watch.next().await.is_none(), "nothing is shown meanwhile");
                assert!(events.next().await.is_none(), "nothing is told meanwhile");
                vec![
                    ("save", todos.save(&fields).await.map(drop)),
                    ("save_with_id", todos.save_with_id("y", &fields).await.map(drop)),
                    ("update", todos.update("x", &fields).await.map(drop)),
                    ("modify", todos.modify("x", |_| None::<Value>).await.map(drop)),
                    ("delete", todos.delete("x").await.map(drop)),
                    ("delete_all", todos.delete_all(["x"]).await.map(drop)),
                    ("transaction", sync.transaction(|_| Ok(())).await.map(drop)),
                    ("pending", sync.pending().await.map(drop)),
                    ("metrics", sync.metrics().await.map(drop)),
                    ("get", todos.get("x").await.map(drop)),
                    ("get_all", todos.get_all().await.map(drop)),
                    ("subscribe", todos.subscribe().await),
                    ("status", sync.status().await.map(drop)),
                    ("connect", sync.connect().await),
                    ("disconnect", sync.disconnect().await),
                    ("set_online", sync.set_online(false).await),
                    ("sync_now", sync.sync_now().await),
                    ("set_token", sync.set_token("secret").await),
                    ("synced", sync.synced().await),
                    ("rejected", sync.rejected().list().await.map(drop)),
                    ("retry", sync.rejected().retry(write).await.map(drop)),
                    ("sign_out", sync.sign_out(SignOut::Keep).await),
                ]
            })
        })
    }
}

fn confirmed(saved: synclayer_tokio::Saved) -> Confirmed {
    Box::new(move || {
        let confirmed = async { tokio::time::timeout(TIMEOUT, saved.confirmed()).await };
        runtime().block_on(confirmed).unwrap()
    })
}

/// The client for programs with threads.
pub struct Blocking {
    sync: synclayer_blocking::SyncLayer,
    todos: synclayer_blocking::Collection,
    events: synclayer_blocking::Events,
}

impl Client for Blocking {
    fn open(config: SyncConfig) -> Self {
        let connects = config.connect_at_start;
        let config = config.connect_at_start(false);
        let sync = synclayer_blocking::SyncLayer::open(config).unwrap();
        let (events, todos) = (sync.events(), sync.collection(TODOS).unwrap());
        let client = Self { sync, todos, events };
        if connects {
            client.connect();
        }
        client
    }

    fn save(&self, id: &str, document: &Value) {
        self.todos.save_with_id(id, document).unwrap();
    }

    fn update(&self, id: &str, fields: &Value) {
        self.todos.update(id, fields).unwrap();
    }

    fn delete(&self, id: &str) {
        self.todos.delete(id).unwrap();
    }

    fn modifier(&self) -> Modifier {
        let todos = self.todos.clone();
        Box::new(move |id, change| todos.modify(id, change).map(drop))
    }

    fn saved(&self, id: &str, document: &Value) -> Confirmed {
        let saved = self.todos.save_with_id(id, document).unwrap();
        assert_eq!(&**saved, id, "it stands for the id");
        Box::new(move || saved.wait_confirmed(TIMEOUT).unwrap())
    }

    fn retried(&self) -> Confirmed {
        let rejected = self.sync.rejected();
        let retried = rejected.retry(rejected.list().unwrap()[0].write).unwrap();
        Box::new(move || retried.wait_confirmed(TIMEOUT).unwrap())
    }

    fn transacted(&self, body: Body) -> Result<Confirmed, SyncError> {
        let made = self.sync.transaction(body)?;
        Ok(Box::new(move || made.wait_confirmed(TIMEOUT).unwrap()))
    }

    fn saved_all(&self, documents: Vec<Value>) -> SavedAll {
        self.todos.save_all(documents).unwrap()
    }

    fn deleted_all(&self, ids: Vec<String>) {
        self.todos.delete_all(ids).unwrap();
    }

    fn metrics(&self) -> Metrics {
        self.sync.metrics().unwrap()
    }

    fn pending(&self) -> Vec<PendingWrite> {
        self.sync.pending().unwrap()
    }

    fn records(&self) -> Vec<Record> {
        self.todos.get_all().unwrap()
    }

    fn status(&self) -> Status {
        self.sync.status().unwrap()
    }

    fn set_token(&self, token: &str) {
        self.sync.set_token(token).unwrap();
    }

    fn set_online(&self, online: bool) {
        self.sync.set_online(online).unwrap();
    }

    fn sync_now(&self) {
        self.sync.sync_now().unwrap();
    }

    fn connect(&self) {
        self.sync.connect().unwrap();
    }

    fn rejected(&self) -> usize {
        self.sync.rejected().list().unwrap().len()
    }

    fn unsubscribe(&self) {
        self.todos.unsubscribe().unwrap();
    }

    fn handles(&self, collection: &str) -> [Box<dyn Any>; 2] {
        let handle = self.sync.collection(collection).unwrap();
        handle.get("x").unwrap();
        [Box::new(handle.clone()), Box::new(handle)]
    }

    fn outcome(&self) -> Option<Result<(), SyncError>> {
        self.sync.synced_timeout(TIMEOUT).ok()
    }

    fn event(&mut self, patience: Duration) -> Option<Event> {
        self.events.next_timeout(patience).ok().flatten()
    }

    fn close(self) {
        self.sync.close();
    }

    fn sign_out(&self, how: SignOut) -> Result<(), SyncError> {
        self.sync.sign_out(how)
    }

    fn calls(&self) -> Calls {
        let (sync, todos) = (self.sync.clone(), self.todos.clone());
        Box::new(move || {
            let (mut watch, mut events) = (todos.watch(), sync.events());
            let (fields, write) = (serde_json::json!({"v": 1}), WriteId(1));
            assert!(watch.next().is_none(), "nothing is shown meanwhile");
            assert!(events.next().is_none(), "nothing is told meanwhile");
            assert!(!matches!(watch.next_timeout(WAIT), Ok(Some(_))));
            assert!(!matches!(events.next_timeout(WAIT), Ok(Some(_))));
            let synced = |synced: Result<Result<(), SyncError>, _>| synced.unwrap_or(Ok(()));
            vec![
                ("save", todos.save(&fields).map(drop)),
                ("save_with_id", todos.save_with_id("y", &fields).map(drop)),
                ("update", todos.update("x", &fields).map(drop)),
                ("modify", todos.modify("x", |_| None::<Value>).map(drop)),
                ("delete", todos.delete("x").map(drop)),
                ("delete_all", todos.delete_all(["x"]).map(drop)),
                ("transaction", sync.transaction(|_| Ok(())).map(drop)),
                ("pending", sync.pending().map(drop)),
                ("metrics", sync.metrics().map(drop)),
                ("get", todos.get("x").map(drop)),
                ("get_all", todos.get_all().map(drop)),
                ("subscribe", todos.subscribe()),
                ("status", sync.status().map(drop)),
                ("connect", sync.connect()),
                ("disconnect", sync.disconnect()),
                ("set_online", sync.set_online(false)),
                ("sync_now", sync.sync_now()),
                ("set_token", sync.set_token("secret")),
                ("synced", sync.synced()),
                ("synced_timeout", synced(sync.synced_timeout(WAIT))),
                ("rejected", sync.rejected().list().map(drop)),
                ("retry", sync.rejected().retry(write).map(drop)),
                ("sign_out", sync.sign_out(SignOut::Keep)),
            ]
        })
    }
}
