//! A plain (level-1) server, as somebody might have written it in an afternoon: WebSocket and REST,
//! clumsy in ways that can be chosen. It knows nothing of level 2, and shares no rule with the
//! core: only its words.

use std::collections::{BTreeMap, BTreeSet};

use synclayer_core::protocol::{
    ClientMessage, ErrorMessage, Incoming, ServerChange, ServerMessage, SyncRecord, decode_client,
};
use synclayer_core::{
    Change, Collection, ConnId, Document, ErrorCode, Level, Limits, RecordId, Timestamp, WriteKind,
};

/// The ways in which a server is clumsy. By default it does all that level 1 knows of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ways {
    /// It says when a record was last changed.
    pub stamps: bool,
    /// It counts a record's changes.
    pub versions: bool,
    /// It refuses a `PATCH` on an old version, with the current record.
    pub conflicts: bool,
    /// It knows `since`.
    pub since: bool,
    /// It knows `limit` and `offset`.
    pub pages: bool,
    /// It answers pings in JSON.
    pub pong: bool,
    /// It confirms subscriptions.
    pub subscribed: bool,
    /// It sends a writer's changes back to the writer.
    pub echoes: bool,
    /// It sends a whole collection when asked.
    pub whole: bool,
    /// It stores a null where a field is removed.
    pub keeps_nulls: bool,
    /// It passes the writer's time on with a change, and not its own.
    pub writers_time: bool,
    /// The status of its answer to a call that it does not know.
    pub unknown: u16,
}

impl Default for Ways {
    fn default() -> Self {
        Self {
            stamps: true,
            versions: true,
            conflicts: true,
            since: true,
            pages: true,
            pong: true,
            subscribed: true,
            echoes: false,
            whole: true,
            keeps_nulls: false,
            writers_time: false,
            unknown: 404,
        }
    }
}

impl Ways {
    /// Some ways, by the bits of a number.
    #[must_use]
    pub fn of_bits(bits: u64) -> Self {
        let bit = |i: u32| bits >> i & 1 == 1;
        Self {
            stamps: bit(0),
            versions: bit(1),
            conflicts: bit(2) && bit(1),
            since: bit(3),
            pages: bit(4),
            pong: bit(5),
            subscribed: bit(6),
            echoes: bit(7),
            whole: bit(8),
            keeps_nulls: bit(9),
            writers_time: bit(10),
            unknown: [404, 500, 403, 502][usize::from(bit(11)) + 2 * usize::from(bit(12))],
        }
    }
}

#[derive(Clone, Debug)]
struct Stored {
    document: Document,
    version: u64,
    /// The version of each field's last change.
    fields: BTreeMap<String, u64>,
    at: Timestamp,
}

/// A message to a connection.
pub type Sent = (ConnId, Vec<u8>);

/// The server: its records and its connections.
#[derive(Clone, Debug)]
pub struct PlainServer {
    /// The ways in which it is clumsy.
    pub ways: Ways,
    records: BTreeMap<(Collection, RecordId), Stored>,
    connections: BTreeMap<ConnId, BTreeSet<Collection>>,
    /// Every state that a record had, where it is wanted: what was applied, in order.
    pub applied: Vec<(RecordId, Option<Document>)>,
}

impl PlainServer {
    /// A server without records.
    #[must_use]
    pub fn new(ways: Ways) -> Self {
        let (records, connections) = (BTreeMap::new(), BTreeMap::new());
        Self { ways, records, connections, applied: Vec::new() }
    }

    /// The records of a collection.
    #[must_use]
    pub fn contents(&self, collection: &Collection) -> BTreeMap<RecordId, Document> {
        let of = self.records.iter().filter(|((of, _), _)| of == collection);
        of.map(|((_, id), stored)| (id.clone(), stored.document.clone())).collect()
    }

    /// A connection comes up.
    pub fn open(&mut self, conn: ConnId) {
        self.connections.insert(conn, BTreeSet::new());
    }

    /// Returns true if a connection is up.
    #[must_use]
    pub fn knows(&self, conn: ConnId) -> bool {
        self.connections.contains_key(&conn)
    }

    /// A connection is gone.
    pub fn close(&mut self, conn: ConnId) {
        self.connections.remove(&conn);
    }

    /// A frame comes: what goes out.
    pub fn hear(&mut self, conn: ConnId, frame: &[u8], now: Timestamp) -> Vec<Sent> {
        let mut out = Vec::new();
        if !self.connections.contains_key(&conn) {
            return out;
        }
        let message = match decode_client(frame, &Limits::default()) {
            Ok(Incoming::One(message)) => message,
            Ok(Incoming::Batch(_)) => {
                let error = ErrorMessage::new(ErrorCode::InvalidMessage, "what is a batch?");
                tell(&mut out, conn, &ServerMessage::Error(error));
                return out;
            }
            Err(error) => {
                tell(&mut out, conn, &ServerMessage::Error(error.into()));
                return out;
            }
        };
        match message {
            ClientMessage::Ping { .. } if self.ways.pong => {
                let timestamp = Some(now);
                tell(&mut out, conn, &ServerMessage::Pong { timestamp, welcome: None });
            }
            ClientMessage::Ping { .. } | ClientMessage::Auth { .. } => {}
            ClientMessage::Subscribe { collection, .. } => {
                if let Some(subscribed) = self.connections.get_mut(&conn) {
                    subscribed.insert(collection.clone());
                }
                if self.ways.subscribed {
                    let (record_count, head, mode, partial) = (None, None, None, false);
                    let told = ServerMessage::Subscribed {
                        collection,
                        record_count,
                        head,
                        mode,
                        partial,
                        rights: None,
                        set: None,
                        refused: Vec::new(),
                    };
                    tell(&mut out, conn, &told);
                }
            }
            ClientMessage::Unsubscribe { collection } => {
                if let Some(subscribed) = self.connections.get_mut(&conn) {
                    subscribed.remove(&collection);
                }
            }
            ClientMessage::Sync { collection, .. } if self.ways.whole => {
                let records = self.whole(&collection);
                tell(&mut out, conn, &ServerMessage::Sync { collection, records, range: None });
            }
            ClientMessage::Unit(_) => {
                let error = ErrorMessage::new(ErrorCode::InvalidMessage, "what is a batch?");
                tell(&mut out, conn, &ServerMessage::Error(error));
            }
            ClientMessage::Sync { .. } => {
                let error = ErrorMessage::new(ErrorCode::InvalidMessage, "what is a sync?");
                tell(&mut out, conn, &ServerMessage::Error(error));
            }
            ClientMessage::Write(write) => {
                let at = write.timestamp.unwrap_or(now);
                let (collection, id) = (write.collection, write.record_id);
                let known = self.apply(&collection, &id, &write.change, now);
                let shown = if self.ways.writers_time { at } else { now };
                if known {
                    self.publish(&mut out, Some(conn), &collection, &id, &write.change, shown);
                } else {
                    let mut error = ErrorMessage::new(ErrorCode::RecordNotFound, "no such record");
                    (error.collection, error.record_id) = (Some(collection), Some(id));
                    tell(&mut out, conn, &ServerMessage::Error(error));
                }
            }
        }
        out
    }

    fn whole(&self, collection: &Collection) -> Vec<SyncRecord> {
        let of = self.records.iter().filter(|((of, _), _)| of == collection);
        let record = |((_, id), stored): (&(Collection, RecordId), &Stored)| SyncRecord {
            id: id.clone(),
            document: stored.document.clone(),
            version: self.ways.versions.then_some(stored.version),
            updated_at: self.ways.stamps.then_some(stored.at),
            seq: None,
            at: Vec::new(),
        };
        of.map(record).collect()
    }

    /// Says whether there was a record for an update or a delete.
    fn apply(
        &mut self,
        collection: &Collection,
        id: &RecordId,
        change: &Change,
        now: Timestamp,
    ) -> bool {
        let key = (collection.clone(), id.clone());
        let old = self.records.get(&key);
        let version = old.map_or(0, |old| old.version) + 1;
        let mut fields = old.map(|old| old.fields.clone()).unwrap_or_default();
        let set = change.delta.set.iter().map(|(name, _)| name);
        let touched = set.chain(change.delta.unset.iter().map(|name| &**name));
        fields.extend(touched.map(|name| (String::from(name), version)));
        let document = match change.kind {
            WriteKind::Insert => change.delta.set.clone(),
            WriteKind::Update => match old {
                Some(old) => self.merge(&old.document, change),
                None => return false,
            },
            WriteKind::Delete => {
                let known = self.records.remove(&key).is_some();
                self.applied.push((id.clone(), None));
                return known;
            }
        };
        self.applied.push((id.clone(), Some(document.clone())));
        self.records.insert(key, Stored { document, version, fields, at: now });
        true
    }

    fn merge(&self, old: &Document, change: &Change) -> Document {
        let mut fields: BTreeMap<_, _> = old.iter().collect();
        let unset = change.delta.unset.iter().map(|name| (&**name, "null"));
        for (name, text) in change.delta.set.iter().chain(unset) {
            if text == "null" && !self.ways.keeps_nulls {
                fields.remove(name);
            } else {
                fields.insert(name, text);
            }
        }
        object(fields.iter().map(|(name, text)| (*name, *text)))
    }

    fn publish(
        &self,
        out: &mut Vec<Sent>,
        writer: Option<ConnId>,
        collection: &Collection,
        id: &RecordId,
        change: &Change,
        at: Timestamp,
    ) {
        let stored = self.records.get(&(collection.clone(), id.clone()));
        let version = stored.filter(|_| self.ways.versions).map(|stored| stored.version);
        let (collection, record_id) = (collection.clone(), id.clone());
        let change = ServerChange {
            change: change.clone(),
            seq: None,
            version,
            timestamp: Some(at),
            at: Vec::new(),
            user_id: None,
        };
        let message =
            ServerMessage::Change { collection, record_id, change, reason: None, prev: None };
        let ServerMessage::Change { collection, .. } = &message else { return };
        for (conn, subscribed) in &self.connections {
            let own = writer == Some(*conn);
            if subscribed.contains(collection) && (!own || self.ways.echoes) {
                tell(out, *conn, &message);
            }
        }
    }

    /// A request comes: the status, the body, and what goes out to the connections.
    pub fn request(
        &mut self,
        method: &str,
        target: &str,
        body: &[u8],
        now: Timestamp,
    ) -> (u16, String, Vec<Sent>) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut parts = path.trim_start_matches('/').split('/').skip(1);
        let collection = parts.next().and_then(|name| Collection::new(name).ok());
        let unknown = || (self.ways.unknown, "<h1>what?</h1>".into(), vec![]);
        let Some(collection) = collection else { return unknown() };
        let id = parts.next().and_then(|id| RecordId::new(id).ok());
        let body = std::str::from_utf8(body).unwrap_or_default();
        let body = Document::parse(body, &Limits::default()).unwrap_or_default();
        let field = |name: &str| {
            let text = body.text(name)?;
            Document::parse(text, &Limits::default()).ok()
        };
        match (method, id) {
            ("GET", None) => (200, self.query(&collection, query), vec![]),
            ("POST", None) => {
                let id = body.text("recordId").map(|id| id.trim_matches('"'));
                let id = id.and_then(|id| RecordId::new(id).ok());
                let (Some(id), Some(data)) = (id, field("data")) else {
                    return match self.ways.unknown {
                        404 => (400, r#"{"error":"recordId and data, please"}"#.into(), vec![]),
                        _ => unknown(),
                    };
                };
                self.write(&collection, &id, Change::insert(data), now)
            }
            ("PATCH", Some(id)) => {
                let Some(delta) = field("delta") else {
                    return (400, r#"{"error":"a delta, please"}"#.into(), vec![]);
                };
                let base = body.text("baseVersion").and_then(|version| version.parse().ok());
                if let Some(conflict) = self.conflict(&collection, &id, &delta, base) {
                    return (409, conflict, vec![]);
                }
                let delta = synclayer_core::Delta::new(delta, vec![]);
                self.write(&collection, &id, Change::update(delta), now)
            }
            ("DELETE", Some(id)) => {
                let (_, _, out) = self.write(&collection, &id, Change::delete(), now);
                (204, String::new(), out)
            }
            (_, _) => unknown(),
        }
    }

    fn write(
        &mut self,
        collection: &Collection,
        id: &RecordId,
        change: Change,
        now: Timestamp,
    ) -> (u16, String, Vec<Sent>) {
        if !self.apply(collection, id, &change, now) {
            return (404, r#"{"error":"no such record"}"#.into(), vec![]);
        }
        let mut out = Vec::new();
        self.publish(&mut out, None, collection, id, &change, now);
        let stored = self.records.get(&(collection.clone(), id.clone()));
        let answer = stored.map_or_else(|| "{}".into(), |stored| self.show(id, stored, false));
        (200, answer, out)
    }

    fn conflict(
        &self,
        collection: &Collection,
        id: &RecordId,
        delta: &Document,
        base: Option<u64>,
    ) -> Option<String> {
        let stored = self.records.get(&(collection.clone(), id.clone()))?;
        let base = base.filter(|_| self.ways.conflicts)?;
        let changed = |(name, _): (&str, &str)| stored.fields.get(name).is_some_and(|v| *v > base);
        let conflict = delta.iter().any(changed) || base > stored.version;
        conflict.then(|| format!(r#"{{"record":{}}}"#, self.show(id, stored, true)))
    }

    fn show(&self, id: &RecordId, stored: &Stored, data: bool) -> String {
        let mut text = format!(r#"{{"recordId":"{id}""#);
        if data {
            text += &format!(r#","data":{}"#, stored.document);
        }
        if self.ways.versions {
            text += &format!(r#","version":{}"#, stored.version);
        }
        if self.ways.stamps {
            text += &format!(r#","updatedAt":"{}""#, stored.at);
        }
        text + "}"
    }

    fn query(&self, collection: &Collection, query: &str) -> String {
        let value = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, _)| *key == name).map(|(_, value)| value.replace("%3A", ":"))
        };
        let since = value("since").filter(|_| self.ways.since);
        let since = since.and_then(|since| Timestamp::parse(&since));
        let number = |name| value(name).filter(|_| self.ways.pages)?.parse::<usize>().ok();
        let mut rows: Vec<_> =
            self.records.iter().filter(|((of, _), _)| of == collection).collect();
        rows.retain(|(_, stored)| since.is_none_or(|since| stored.at >= since));
        rows.sort_by_key(|(_, stored)| stored.at);
        let rows: Vec<_> = rows
            .into_iter()
            .skip(number("offset").unwrap_or(0))
            .take(number("limit").unwrap_or(usize::MAX))
            .map(|((_, id), stored)| self.show(id, stored, true))
            .collect();
        format!(r#"{{"records":[{}]}}"#, rows.join(","))
    }
}

fn tell(out: &mut Vec<Sent>, conn: ConnId, message: &ServerMessage) {
    let mut frame = Vec::new();
    message.encode(Level::Plain, &mut frame);
    out.push((conn, frame));
}

fn object<'a>(fields: impl Iterator<Item = (&'a str, &'a str)>) -> Document {
    let fields: Vec<_> = fields.map(|(name, text)| format!("\"{name}\":{text}")).collect();
    let json = format!("{{{}}}", fields.join(","));
    Document::parse(&json, &Limits::default()).unwrap_or_default()
}
