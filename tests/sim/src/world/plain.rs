//! Level-1 programs on a WebSocket: a reader that keeps what it is told, and a writer.

use std::collections::{BTreeMap, BTreeSet};

use synclayer_core::protocol::{Incoming, ServerMessage, decode_server};
use synclayer_core::{
    Change, Collection, ConnId, Document, HubInput, Identity, Limits, NamedScope, WriteKind,
};

use crate::invariants::Invariant;

use super::World;
use super::history::Place;
use super::link::{Link, Owner};
use super::rights::user_with_claims;

/// A level-1 program.
#[derive(Debug)]
pub struct Plain {
    /// The contents of the collections, as it was told.
    pub held: BTreeMap<Place, Document>,
    /// The collections that it got whole once, on its present connection.
    pub mirrored: BTreeSet<Collection>,
    /// `true` if it has written on its present connection: it is not told about its own changes.
    pub has_written: bool,
    /// `true` if it was refused something on its present connection.
    pub was_refused: bool,
    /// Its connection.
    conn: Option<ConnId>,
    /// The token of its user.
    pub user: Option<String>,
    /// `true` if it puts what an update pushes in the place of the record.
    replaces: bool,
    /// The scope to which it narrows what it reads, and the filter that says so.
    pub filter: Option<(&'static str, NamedScope)>,
}

impl World {
    /// Adds a level-1 program. Returns its index.
    pub fn add_plain(&mut self, user: Option<&str>) -> usize {
        self.add(user, None)
    }

    /// Adds a level-1 program that reads one scope of each collection. Returns its index.
    pub fn add_plain_with(
        &mut self,
        user: Option<&str>,
        filter: (&'static str, NamedScope),
    ) -> usize {
        self.add(user, Some(filter))
    }

    fn add(&mut self, user: Option<&str>, filter: Option<(&'static str, NamedScope)>) -> usize {
        self.plains.push(Plain {
            held: BTreeMap::new(),
            mirrored: BTreeSet::new(),
            has_written: false,
            was_refused: false,
            conn: None,
            user: user.map(str::to_owned),
            replaces: self.config.ring.plain_whole,
            filter,
        });
        self.plains.len() - 1
    }

    /// Returns `true` if a level-1 program has a connection that both ends believe in.
    #[must_use]
    pub fn is_plain_connected(&self, plain: usize) -> bool {
        let link = self.plains[plain].conn.and_then(|conn| self.links.get(&conn));
        link.is_some_and(|link| link.device_end && link.server_end && !link.silent)
    }

    /// A level-1 program connects, subscribes, and asks for everything.
    pub fn connect_plain(&mut self, plain: usize) {
        if self.is_plain_connected(plain) {
            return;
        }
        self.count("plain connect");
        let token = self.plains[plain].user.clone();
        let identity =
            token.as_deref().map_or(Identity::Open, |it| Identity::Known(user_with_claims(it)));
        let conn = self.new_conn();
        self.bears(conn, token.as_deref());
        self.links.insert(conn, Link::new(Owner::Plain(plain), ConnId(0), 4096, usize::MAX));
        self.serve_input(HubInput::Accepted { conn, identity });
        let this = &mut self.plains[plain];
        this.conn = Some(conn);
        (this.has_written, this.was_refused) = (false, false);
        this.held.clear();
        this.mirrored.clear();
        let filter = this.filter.as_ref().map(|(filter, _)| format!(r#","filter":{filter}"#));
        let filter = filter.unwrap_or_default();
        for collection in self.config.collections.clone() {
            for kind in ["subscribe", "sync"] {
                let frame = format!(r#"{{"type":"{kind}","collection":"{collection}"{filter}}}"#);
                self.say_plain(plain, frame);
            }
        }
    }

    /// A level-1 program writes: `kind` is `insert`, `update` or `delete`.
    pub fn write_plain(&mut self, plain: usize, kind: &str, place: &Place, data: &str) {
        self.count("plain write");
        let (collection, id) = place;
        self.plains[plain].has_written = true;
        let data = if data.is_empty() { String::new() } else { format!(r#","data":{data}"#) };
        self.say_plain(
            plain,
            format!(r#"{{"type":"{kind}","collection":"{collection}","recordId":"{id}"{data}}}"#),
        );
    }

    fn say_plain(&mut self, plain: usize, frame: String) {
        self.note(|| format!("plain {plain} says {frame}"));
        let Some(conn) = self.plains[plain].conn else { return };
        if let Some(link) = self.links.get_mut(&conn)
            && link.device_end
            && !link.silent
        {
            link.up.push_back(frame.into());
        }
    }

    pub(super) fn hear_plain(&mut self, plain: usize, conn: ConnId, frame: &[u8]) {
        if self.plains[plain].conn != Some(conn) {
            return;
        }
        match decode_server(frame, &Limits::default()) {
            Ok(Incoming::One(message)) => {
                if self.plains[plain].takes_whole(&message) {
                    self.count("whole record in an update");
                }
                self.plains[plain].take(message);
            }
            Ok(Incoming::Batch(_)) => {
                self.fail(Invariant::Contract, "a level-1 program was sent a batch".into());
            }
            Err(error) => {
                let what = format!("a level-1 program can't read a frame: {}", error.message);
                self.fail(Invariant::Contract, what);
            }
        }
    }
}

impl Plain {
    /// Returns `true` if a message replaces a record that it holds by what an update pushes.
    fn takes_whole(&self, message: &ServerMessage) -> bool {
        let ServerMessage::Change { collection, record_id, change, .. } = message else {
            return false;
        };
        self.replaces
            && change.change.kind == WriteKind::Update
            && self.held.contains_key(&(collection.clone(), record_id.clone()))
    }

    fn take(&mut self, message: ServerMessage) {
        match message {
            ServerMessage::Change { collection, record_id, change, .. } => {
                if self.mirrored.contains(&collection) {
                    self.apply((collection, record_id), &change.change);
                }
            }
            ServerMessage::Sync { collection, records, .. } => {
                self.held.retain(|place, _| place.0 != collection);
                for record in records {
                    self.held.insert((collection.clone(), record.id), record.document);
                }
                self.mirrored.insert(collection);
            }
            ServerMessage::Error(_) => self.was_refused = true,
            ServerMessage::Authenticated { .. }
            | ServerMessage::Subscribed { .. }
            | ServerMessage::Unsubscribed { .. }
            | ServerMessage::Load(_)
            | ServerMessage::Synced { .. }
            | ServerMessage::Ack(_)
            | ServerMessage::Pong { .. }
            | ServerMessage::Unknown { .. } => {}
        }
    }

    fn apply(&mut self, place: Place, change: &Change) {
        let held = self.held.remove(&place);
        let known = held.is_some() || change.kind != WriteKind::Update;
        // an update of what it does not hold was made before it got everything
        let after = match change.kind {
            WriteKind::Update if self.replaces => Some(change.delta.set.clone()),
            WriteKind::Insert | WriteKind::Update | WriteKind::Delete => {
                change.apply(held.as_ref())
            }
        };
        if let Some(document) = after.filter(|_| known) {
            self.held.insert(place, document);
        }
    }
}

/// A document as level 1 shows it, which has no word for a field that was removed but null.
#[must_use]
pub fn without_nulls(document: &Document) -> Vec<(String, String)> {
    let fields = document.iter().filter(|(_, text)| *text != "null");
    fields.map(|(name, text)| (name.to_owned(), text.to_owned())).collect()
}
