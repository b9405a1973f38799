//! A replica whose server is made of literal frames: what a change costs is the replica's alone.

use synclayer_core::{
    Action, ClientConfig, ClientStore, Collection, Command, ConnId, Delta, Document, Input, Limits,
    Misuse, Mono, NetAction, Now, RecordId, Replica, Timestamp, Update, WatchId, Write,
};

const NOW: Now = Now { mono: Mono(1_000), wall: Timestamp(1_790_000_000_000) };

/// A replica that follows the collection `todos`.
pub struct LoneReplica<S> {
    /// The replica.
    pub replica: Replica<S>,
    todos: Collection,
    conn: ConnId,
    seq: u64,
    actions: Vec<Action>,
}

impl<S: ClientStore> LoneReplica<S> {
    /// A replica that stays offline.
    ///
    /// # Panics
    /// When the store fails; here and below.
    pub fn offline(store: S) -> Self {
        let todos = Collection::new("todos").expect("a name");
        let mut config = ClientConfig::default();
        config.collections = vec![todos.clone()];
        let mut actions = Vec::new();
        let replica = Replica::open(config, 7, NOW, store, &mut actions).expect("a store");
        Self { replica, todos, conn: ConnId(0), seq: 0, actions }
    }

    /// A replica that has caught up with an empty collection.
    pub fn online(store: S) -> Self {
        let mut lone = Self::offline(store);
        lone.replica.command(NOW, Command::Connect, &mut lone.actions);
        for action in lone.actions.drain(..) {
            if let Action::Net(NetAction::Connect { conn, .. }) = action {
                lone.conn = conn;
            }
        }
        lone.replica.handle(NOW, Input::Connected { conn: lone.conn }, &mut lone.actions);
        for frame in [
            r#"{"type":"pong","metadata":{"protocol":2,"epoch":"e1","lastMutation":0}}"#,
            r#"{"type":"subscribed","collection":"todos","metadata":{"head":0,"mode":"snapshot"}}"#,
            r#"{"type":"sync","collection":"todos","data":{"records":[]},"metadata":{"snapshotSeq":0}}"#,
            r#"{"type":"synced","collection":"todos","metadata":{"epoch":"e1","seq":0,"count":0,"checksum":"0000000000000000"}}"#,
        ] {
            lone.hear(frame);
        }
        assert!(lone.replica.status().collections[&lone.todos].live);
        lone
    }

    /// The server says something.
    pub fn hear(&mut self, frame: &str) {
        let input = Input::Frame { conn: self.conn, frame: frame.as_bytes() };
        self.replica.handle(NOW, input, &mut self.actions);
        self.actions.clear();
    }

    /// Somebody else inserts or updates a record.
    pub fn remote(&mut self, kind: &str, id: &str, data: &str) {
        self.seq += 1;
        let seq = self.seq;
        self.hear(&format!(
            r#"{{"type":"{kind}","collection":"todos","recordId":"{id}","data":{data},"timestamp":"2026-01-01T00:00:00Z","metadata":{{"seq":{seq},"version":{seq},"userId":"u2"}}}}"#
        ));
    }

    /// The server takes a write, as the next change of the collection.
    pub fn acked(&mut self, mutation: u64, id: &str) {
        self.seq += 1;
        let seq = self.seq;
        self.hear(&format!(
            r#"{{"type":"ack","collection":"todos","recordId":"{id}","metadata":{{"mutation":{mutation},"seq":{seq},"version":1}}}}"#
        ));
    }

    /// The app saves a record.
    ///
    /// # Errors
    /// When the write is refused.
    pub fn save(&mut self, id: &str, data: &str) -> Result<(), Misuse> {
        let (id, document) = (RecordId::new(id).expect("an id"), document(data));
        self.replica.write(
            NOW,
            Write::Save(self.todos.clone(), id, document),
            &mut self.actions,
        )?;
        self.actions.clear();
        Ok(())
    }

    /// The app changes fields of a record.
    ///
    /// # Errors
    /// When the write is refused.
    pub fn update(&mut self, id: &str, data: &str) -> Result<(), Misuse> {
        let (id, delta) = (RecordId::new(id).expect("an id"), Delta::new(document(data), vec![]));
        self.replica.write(NOW, Write::Update(self.todos.clone(), id, delta), &mut self.actions)?;
        self.actions.clear();
        Ok(())
    }

    /// The app watches the collection.
    pub fn watch(&mut self) -> WatchId {
        let watch = self.replica.watch(&self.todos, &mut self.actions).expect("a store");
        self.actions.clear();
        watch
    }

    /// Takes the update that a watcher has not seen.
    pub fn take(&mut self, watch: WatchId) -> Option<Update> {
        self.replica.take(watch)
    }
}

fn document(json: &str) -> Document {
    Document::parse(json, &Limits::default()).expect("a document")
}
