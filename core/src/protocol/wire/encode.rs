//! Encoding of messages: compact JSON, with the fields always in the same order.

pub(super) mod http;
mod scopes;
pub(super) mod unit;

use core::fmt::{self, Write};

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::super::delta::Delta;
use super::super::document::{Document, write_json_string};
use super::super::hash::RightsTag;
use super::super::message::{
    Ack, ClientMessage, Cursor, DeleteReason, ErrorMessage, Hello, Level, Mode, Mutation,
    PageRange, Resume, ServerChange, ServerMessage, SyncRecord, Welcome,
};
use super::super::name::{Collection, RecordId, Seq};
use super::super::time::Timestamp;
use super::super::unit::Member;
use super::super::write::{Change, WriteKind};

impl ClientMessage {
    /// Appends the message as a frame's text.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Auth { token } => message(out, "auth", |m| {
                m.object("data", |data| data.text("token", token.reveal()));
            }),
            Self::Subscribe {
                collection,
                cursor,
                resume,
                rights,
                page_bytes,
                filter,
                set,
                scopes,
            } => {
                message(out, "subscribe", |m| {
                    m.text("collection", collection);
                    m.object_unless_empty("metadata", |metadata| {
                        metadata.cursor(cursor.as_ref(), resume.as_ref());
                        metadata.rights(*rights);
                        metadata.optional("pageBytes", page_bytes.map(|bytes| bytes as u64));
                        metadata.filter(filter);
                        metadata.set(*set, scopes);
                    });
                });
            }
            Self::Unsubscribe { collection } => about(out, "unsubscribe", collection),
            Self::Sync { collection, filter } => message(out, "sync", |m| {
                m.text("collection", collection);
                m.object_unless_empty("metadata", |metadata| metadata.filter(filter));
            }),
            Self::Write(mutation) => mutation.encode(out),
            Self::Unit(unit) => {
                let encoded = |member: &Member| {
                    let mut message = Vec::new();
                    member.encode(&mut message);
                    message
                };
                unit::encode_unit(unit.members.iter().map(encoded), out);
            }
            Self::Ping { hello } => message(out, "ping", |m| {
                if let Some(Hello { client_id, session }) = hello {
                    m.object("metadata", |metadata| {
                        metadata.number("protocol", 2);
                        metadata.text("clientId", client_id);
                        metadata.number("session", session.0);
                    });
                }
            }),
        }
    }
}

impl Mutation {
    fn encode(&self, out: &mut Vec<u8>) {
        let Change { kind, delta } = &self.change;
        // without a number it is a plain write, in which a removed field is a null
        let level = if self.number.is_some() { Level::Resumable } else { Level::Plain };
        message(out, kind.as_str(), |m| {
            m.text("collection", &self.collection);
            m.text("recordId", &self.record_id);
            m.data(*kind, delta, level);
            m.time("timestamp", self.timestamp);
            m.object_unless_empty("metadata", |metadata| {
                metadata.optional("mutation", self.number.map(|number| number.0));
                metadata.optional("base", self.base.map(|base| base.0));
                metadata.unset(delta, level);
                if level == Level::Resumable {
                    metadata.at(&self.at);
                }
            });
        });
    }
}

impl ServerMessage {
    /// Appends the message as a frame's text.
    ///
    /// At level 1 it carries none of level 2's metadata, and the removed fields of an `update` are
    /// nulls in its `data`. `synced` and `ack` exist at level 2 only, and are written the same.
    pub fn encode(&self, level: Level, out: &mut Vec<u8>) {
        match self {
            Self::Authenticated { user_id } => message(out, "authenticated", |m| {
                m.object_unless_empty("metadata", |metadata| {
                    metadata.optional_text("userId", user_id.as_deref());
                });
            }),
            Self::Subscribed {
                collection,
                record_count,
                head,
                mode,
                partial,
                rights,
                set,
                refused,
            } => {
                message(out, "subscribed", |m| {
                    m.text("collection", collection);
                    m.object_unless_empty("metadata", |metadata| {
                        metadata.optional("recordCount", *record_count);
                        if level == Level::Resumable {
                            metadata.optional("head", head.map(|head| head.0));
                            metadata.optional_text("mode", mode.map(mode_text));
                            metadata.flag("partial", *partial);
                            metadata.rights(*rights);
                            metadata.optional("set", *set);
                            metadata.scope_names("refused", refused);
                        }
                    });
                });
            }
            Self::Unsubscribed { collection, scopes } => message(out, "unsubscribed", |m| {
                m.text("collection", collection);
                m.object_unless_empty("metadata", |m| m.scope_names("scopes", scopes));
            }),
            Self::Change { collection, record_id, change, reason, prev } => {
                encode_change(collection, record_id, change, *reason, *prev, level, out);
            }
            Self::Sync { collection, records, range } => {
                encode_sync(collection, records, range.as_ref(), level, out);
            }
            Self::Load(page) => scopes::load(page, level, out),
            Self::Synced { collection, cursor, count, checksum, set } => {
                message(out, "synced", |m| {
                    m.text("collection", collection);
                    m.object("metadata", |metadata| {
                        metadata.place(cursor);
                        let is_told = *count > 0 || checksum.is_some();
                        metadata.optional("count", is_told.then_some(*count));
                        metadata.optional_shown("checksum", checksum.as_ref());
                        metadata.optional("set", *set);
                    });
                });
            }
            Self::Ack(ack) => ack.encode(out),
            Self::Error(error) => error.encode(level, out),
            Self::Pong { timestamp, welcome } => message(out, "pong", |m| {
                m.time("timestamp", *timestamp);
                if let (Some(welcome), Level::Resumable) = (welcome, level) {
                    m.object("metadata", |metadata| metadata.welcome(welcome));
                }
            }),
            Self::Unknown { kind } => message(out, kind, |_| {}),
        }
    }
}

/// Appends a server's `insert`, `update` or `delete`, as [`ServerMessage::encode`] does, without
/// building a message.
pub(crate) fn encode_change(
    collection: &Collection,
    record_id: &RecordId,
    change: &ServerChange,
    reason: Option<DeleteReason>,
    prev: Option<Seq>,
    level: Level,
    out: &mut Vec<u8>,
) {
    let Change { kind, delta } = &change.change;
    message(out, kind.as_str(), |m| {
        m.text("collection", collection);
        m.text("recordId", record_id);
        m.data(*kind, delta, level);
        m.time("timestamp", change.timestamp);
        m.object_unless_empty("metadata", |metadata| {
            if level == Level::Resumable {
                metadata.optional("seq", change.seq.map(|seq| seq.0));
            }
            metadata.optional("version", change.version);
            metadata.optional_text("userId", change.user_id.as_deref());
            metadata.unset(delta, level);
            if level == Level::Resumable {
                metadata.at(&change.at);
                metadata.optional_text("reason", reason.map(DeleteReason::as_str));
                metadata.optional("prev", prev.map(|prev| prev.0));
            }
        });
    });
}

fn encode_sync(
    collection: &Collection,
    records: &[SyncRecord],
    range: Option<&PageRange>,
    level: Level,
    out: &mut Vec<u8>,
) {
    message(out, "sync", |m| {
        m.text("collection", collection);
        m.object("data", |data| {
            list(data.key("records"), records, |out, record| {
                object(out, |fields| fields.sync_record(record, level));
            });
        });
        if let (Some(range), Level::Resumable) = (range, level) {
            m.object("metadata", |metadata| {
                metadata.optional_text("after", range.after.as_deref());
                metadata.optional_text("upTo", range.up_to.as_deref());
                metadata.number("snapshotSeq", range.snapshot_seq.0);
            });
        }
    });
}

impl Ack {
    fn encode(&self, out: &mut Vec<u8>) {
        let echo = self.echo.as_ref();
        message(out, "ack", |m| {
            m.text("collection", &self.collection);
            m.text("recordId", &self.record_id);
            if let Some(ServerChange { change: Change { kind, delta }, .. }) = echo {
                m.data(*kind, delta, Level::Resumable);
            }
            m.time("timestamp", self.timestamp);
            m.object("metadata", |metadata| {
                metadata.number("mutation", self.mutation.0);
                metadata.optional("seq", self.seq.map(|seq| seq.0));
                metadata.optional("version", self.version.or(echo.and_then(|echo| echo.version)));
                if let Some(echo) = echo {
                    metadata.echo(echo);
                }
            });
        });
    }
}

impl ErrorMessage {
    fn encode(&self, level: Level, out: &mut Vec<u8>) {
        message(out, "error", |m| {
            m.text("error", &self.message);
            m.text("code", self.code.as_str());
            match level {
                Level::Plain => m.subject(self),
                Level::Resumable => m.object_unless_empty("metadata", |metadata| {
                    metadata.optional("mutation", self.mutation.map(|number| number.0));
                    metadata.subject(self);
                    metadata.optional("retryAfterMs", self.retry_after_ms);
                    if let Some(current) = &self.current {
                        metadata.current(current);
                    }
                    metadata.failed(&self.failed);
                }),
            }
        });
    }
}

fn mode_text(mode: Mode) -> &'static str {
    match mode {
        Mode::Delta => "delta",
        Mode::Snapshot => "snapshot",
    }
}

/// A message with only a collection.
fn about(out: &mut Vec<u8>, kind: &str, collection: &Collection) {
    message(out, kind, |m| m.text("collection", collection));
}

fn message(out: &mut Vec<u8>, kind: &str, fill: impl FnOnce(&mut Object<'_>)) {
    object(out, |m| {
        m.text("type", kind);
        fill(m);
    });
}

fn object(out: &mut Vec<u8>, fill: impl FnOnce(&mut Object<'_>)) {
    out.push(b'{');
    fill(&mut Object { out, empty: true });
    out.push(b'}');
}

fn list<T>(
    out: &mut Vec<u8>,
    elements: impl IntoIterator<Item = T>,
    mut put: impl FnMut(&mut Vec<u8>, T),
) {
    out.push(b'[');
    for (i, element) in elements.into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        put(out, element);
    }
    out.push(b']');
}

/// An object in progress.
struct Object<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

/// The parts of messages.
impl Object<'_> {
    /// The content of an insert or an update. A delete has none.
    fn data(&mut self, kind: WriteKind, delta: &Delta, level: Level) {
        match (kind, level) {
            (WriteKind::Delete, _) => {}
            (WriteKind::Update, Level::Plain) if !delta.unset.is_empty() => {
                self.object("data", |data| {
                    for (name, json) in delta.fields() {
                        data.json_key(name).extend_from_slice(json.unwrap_or("null").as_bytes());
                    }
                });
            }
            (WriteKind::Insert | WriteKind::Update, _) => self.document("data", &delta.set),
        }
    }

    fn unset(&mut self, delta: &Delta, level: Level) {
        if level == Level::Resumable && !delta.unset.is_empty() {
            list(self.key("unset"), &delta.unset, |out, name| write_json_string(out, name));
        }
    }

    fn at(&mut self, at: &[(Box<str>, Timestamp)]) {
        if !at.is_empty() {
            self.object("at", |object| {
                for (name, time) in at {
                    shown(object.json_key(name), time);
                }
            });
        }
    }

    fn filter(&mut self, filter: &[(String, String)]) {
        if !filter.is_empty() {
            self.object("filter", |object| {
                for (name, value) in filter {
                    object.json_key(name).extend_from_slice(value.as_bytes());
                }
            });
        }
    }

    fn cursor(&mut self, cursor: Option<&Cursor>, resume: Option<&Resume>) {
        if cursor.is_none() && resume.is_none() {
            return;
        }
        self.object("cursor", |object| object.cursor_fields(cursor, resume));
    }

    fn rights(&mut self, rights: Option<RightsTag>) {
        self.optional_text("rights", rights.map(|rights| rights.to_string()).as_deref());
    }

    fn cursor_fields(&mut self, cursor: Option<&Cursor>, resume: Option<&Resume>) {
        if let Some(cursor) = cursor {
            self.place(cursor);
        }
        if let Some(resume) = resume {
            self.object("resume", |object| object.resume(resume));
        }
    }

    fn place(&mut self, Cursor { epoch, seq }: &Cursor) {
        self.text("epoch", epoch);
        self.number("seq", seq.0);
    }

    fn resume(&mut self, resume: &Resume) {
        match resume {
            Resume::Delta { epoch, seq } => {
                self.text("epoch", epoch);
                self.number("seq", seq.0);
            }
            Resume::Snapshot { epoch, snapshot_seq, after } => {
                self.text("epoch", epoch);
                self.number("snapshotSeq", snapshot_seq.0);
                self.text("after", after);
            }
        }
    }

    fn welcome(&mut self, welcome: &Welcome) {
        self.number("protocol", 2);
        self.optional_text("database", welcome.database.as_deref());
        self.text("epoch", &welcome.epoch);
        self.number("lastMutation", welcome.last_mutation.0);
        self.optional_shown("lastDigest", welcome.last_digest.as_ref());
        self.optional("firstSession", welcome.first_session.map(|session| session.0));
        self.optional_text("userId", welcome.user_id.as_deref());
        self.number("maxBatchBytes", welcome.max_batch_bytes);
        let mut features = welcome.features.names().peekable();
        if features.peek().is_some() {
            list(self.key("features"), features, write_json_string);
        }
    }

    fn sync_record(&mut self, record: &SyncRecord, level: Level) {
        self.text("id", &record.id);
        self.document("data", &record.document);
        self.optional("version", record.version);
        self.time("updatedAt", record.updated_at);
        if level == Level::Resumable {
            self.optional("seq", record.seq.map(|seq| seq.0));
            self.at(&record.at);
        }
    }

    /// The state of the record in an ack out of place. The version is the ack's own.
    fn echo(&mut self, echo: &ServerChange) {
        self.text("kind", echo.change.kind.as_str());
        self.optional("recordSeq", echo.seq.map(|seq| seq.0));
        self.unset(&echo.change.delta, Level::Resumable);
        self.time("updatedAt", echo.timestamp);
        self.at(&echo.at);
        self.optional_text("userId", echo.user_id.as_deref());
    }

    /// The subject of an error.
    fn subject(&mut self, error: &ErrorMessage) {
        self.optional_text("collection", error.collection.as_deref());
        self.optional_text("recordId", error.record_id.as_deref());
    }

    /// The record's state in a `CONFLICT`. If the record is missing, the deletion's time and author
    /// are beside the null.
    fn current(&mut self, current: &ServerChange) {
        self.number("seq", current.seq.unwrap_or_default().0);
        if current.change.kind == WriteKind::Delete {
            self.key("record").extend_from_slice(b"null");
            self.last_change(current);
        } else {
            self.object("record", |record| {
                record.document("data", &current.change.delta.set);
                record.last_change(current);
                record.at(&current.at);
            });
        }
    }

    fn last_change(&mut self, change: &ServerChange) {
        self.optional("version", change.version);
        self.time("updatedAt", change.timestamp);
        self.optional_text("userId", change.user_id.as_deref());
    }
}

/// The parts of objects. Names of fields are constants without escapes, unless a method says
/// otherwise.
impl Object<'_> {
    /// Writes a field's name; its value must follow.
    fn key(&mut self, name: &str) -> &mut Vec<u8> {
        self.separate();
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    /// As [`key`](Self::key), for any name.
    fn json_key(&mut self, name: &str) -> &mut Vec<u8> {
        self.separate();
        write_json_string(self.out, name);
        self.out.push(b':');
        self.out
    }

    fn separate(&mut self) {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
    }

    fn text(&mut self, name: &str, text: &str) {
        write_json_string(self.key(name), text);
    }

    fn optional_text(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(name, text);
        }
    }

    fn number(&mut self, name: &str, number: u64) {
        let out = self.key(name);
        // formatting can't fail: the sink takes everything
        let _ = write!(Sink(out), "{number}");
    }

    fn optional(&mut self, name: &str, number: Option<u64>) {
        if let Some(number) = number {
            self.number(name, number);
        }
    }

    fn flag(&mut self, name: &str, flag: bool) {
        if flag {
            self.key(name).extend_from_slice(b"true");
        }
    }

    fn time(&mut self, name: &str, time: Option<Timestamp>) {
        self.optional_shown(name, time.as_ref());
    }

    fn optional_shown(&mut self, name: &str, value: Option<&impl fmt::Display>) {
        if let Some(value) = value {
            shown(self.key(name), value);
        }
    }

    fn document(&mut self, name: &str, document: &Document) {
        document.write_json(self.key(name));
    }

    fn object(&mut self, name: &str, fill: impl FnOnce(&mut Object<'_>)) {
        object(self.key(name), fill);
    }

    /// As [`object`](Self::object), but leaves out the field if the object stays empty.
    fn object_unless_empty(&mut self, name: &str, fill: impl FnOnce(&mut Object<'_>)) {
        let (before, was_empty) = (self.out.len(), self.empty);
        let mut inner = Object { out: self.key(name), empty: true };
        inner.out.push(b'{');
        fill(&mut inner);
        if inner.empty {
            self.out.truncate(before);
            self.empty = was_empty;
        } else {
            self.out.push(b'}');
        }
    }
}

/// A text that needs no escapes: a time, a checksum.
fn shown(out: &mut Vec<u8>, value: &impl fmt::Display) {
    // formatting can't fail: the sink takes everything
    let _ = write!(Sink(out), "\"{value}\"");
}

struct Sink<'a>(&'a mut Vec<u8>);

impl Write for Sink<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}
