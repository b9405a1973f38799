//! Decoding of messages.

mod cursor;
mod error;
mod field;
pub(super) mod http;
mod scopes;
pub(super) mod unit;

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use self::cursor::CursorFields;
use self::field::{Fault, Field, Fields, fields, required};
use super::super::delta::Delta;
use super::super::document::Document;
use super::super::hash::{Checksum, Digest, RightsTag};
use super::super::limits::Limits;
use super::super::message::{
    Ack, ClientMessage, Cursor, DeleteReason, Features, Hello, Mutation, PageRange, ServerChange,
    ServerMessage, SyncRecord, Token, Welcome,
};
use super::super::name::{
    ClientId, Collection, DatabaseId, Epoch, MutationNumber, RecordId, Seq, SessionNumber, UserId,
};
use super::super::time::Timestamp;
use super::super::times::FieldTimes;
use super::super::write::{Change, WriteKind};
use super::{Incoming, WireError};

const CLIENT_TYPES: &str =
    "auth, subscribe, unsubscribe, insert, update, delete, sync, ping, batch";

/// The protocol number of level 2.
const RESUMABLE: u64 = 2;

/// Decodes a frame; `one` decodes each message, and `atomic` a batch that is one.
pub(super) fn frame<M>(
    frame: &[u8],
    limits: &Limits,
    one: fn(&Envelope<'_>, &Limits) -> Result<M, Fault>,
    atomic: fn(&Envelope<'_>, &Limits) -> Option<Result<M, WireError>>,
) -> Result<Incoming<M>, WireError> {
    if frame.len() > limits.frame_bytes {
        let (bytes, max) = (frame.len(), limits.frame_bytes);
        let text = format!("the message is {bytes} bytes long, at most {max} are allowed");
        return Err(Fault::too_large(text).about_nothing());
    }
    let text = core::str::from_utf8(frame)
        .map_err(|_| Fault::new("the message is not valid UTF-8").about_nothing())?;
    let envelope = Envelope::read(text)?;
    if envelope.kind != "batch" {
        return envelope.open(limits, one).map(Incoming::One);
    }
    if let Some(message) = atomic(&envelope, limits) {
        return message.map(Incoming::One);
    }
    let messages = envelope
        .fields
        .messages
        .list("messages", limits.batch_messages)
        .and_then(|messages| required(messages, "messages"))
        .map_err(|fault| envelope.error(fault))?;
    let read = |message: Field<'_>| Envelope::read(message.json())?.open(limits, one);
    Ok(Incoming::Batch(messages.into_iter().map(read).collect()))
}

/// Decodes a message from a client.
pub(super) fn client(m: &Envelope<'_>, limits: &Limits) -> Result<ClientMessage, Fault> {
    Ok(match &*m.kind {
        "auth" => ClientMessage::Auth { token: m.token()? },
        "subscribe" => m.subscribe()?,
        "unsubscribe" => ClientMessage::Unsubscribe { collection: m.collection()? },
        "sync" => ClientMessage::Sync { collection: m.collection()?, filter: m.filter()? },
        "insert" => ClientMessage::Write(m.mutation(WriteKind::Insert, limits)?),
        "update" => ClientMessage::Write(m.mutation(WriteKind::Update, limits)?),
        "delete" => ClientMessage::Write(m.mutation(WriteKind::Delete, limits)?),
        "ping" => ClientMessage::Ping { hello: m.hello()? },
        "expect" => {
            let text = "an `expect` is part of a transaction: a `batch` with `metadata.atomic`";
            return Err(Fault::new(text));
        }
        other => {
            let text =
                format!("there is no type {:?}; a client sends {CLIENT_TYPES}", short(other));
            return Err(Fault::new(text));
        }
    })
}

/// Decodes a message from a server.
pub(super) fn server(m: &Envelope<'_>, limits: &Limits) -> Result<ServerMessage, Fault> {
    Ok(match &*m.kind {
        "insert" => m.change(WriteKind::Insert, limits)?,
        "update" => m.change(WriteKind::Update, limits)?,
        "delete" => m.change(WriteKind::Delete, limits)?,
        "ack" => ServerMessage::Ack(m.ack(limits)?),
        "error" => ServerMessage::Error(m.error_message(limits)?),
        "sync" => m.sync(limits)?,
        "synced" => m.synced()?,
        "subscribed" => m.subscribed()?,
        "unsubscribed" => ServerMessage::Unsubscribed {
            collection: m.collection()?,
            scopes: scopes::names(m.metadata.scopes, "metadata.scopes")?,
        },
        "authenticated" => ServerMessage::Authenticated { user_id: m.user_id().unwrap_or(None) },
        "pong" => m.pong()?,
        other => ServerMessage::Unknown { kind: short(other).into() },
    })
}

/// An unknown type, cut to a printable length.
fn short(kind: &str) -> &str {
    kind.char_indices().nth(64).map_or(kind, |(end, _)| &kind[..end])
}

fields! {
    /// The fields of a message of any type.
    struct Message {
        kind: "type",
        collection: "collection",
        record_id: "recordId",
        data: "data",
        timestamp: "timestamp",
        metadata: "metadata",
        error: "error",
        code: "code",
        token: "token",
        filter: "filter",
        messages: "messages",
    }
}

/// The maximal number of fields in a filter.
const MAX_FILTER: usize = 16;
/// The maximal number of features in a pong.
const MAX_FEATURES: usize = 256;

fields! {
    /// The fields of the `metadata` of any type.
    struct Metadata {
        absent: "absent",
        after: "after",
        at: "at",
        atomic: "atomic",
        base: "base",
        checksum: "checksum",
        client_id: "clientId",
        collection: "collection",
        count: "count",
        cursor: "cursor",
        page_bytes: "pageBytes",
        database: "database",
        epoch: "epoch",
        failed: "failed",
        features: "features",
        filter: "filter",
        first_session: "firstSession",
        from: "from",
        head: "head",
        kind: "kind",
        last_digest: "lastDigest",
        last_mutation: "lastMutation",
        max_batch_bytes: "maxBatchBytes",
        mode: "mode",
        mutation: "mutation",
        partial: "partial",
        prev: "prev",
        protocol: "protocol",
        reason: "reason",
        record: "record",
        record_count: "recordCount",
        record_id: "recordId",
        record_seq: "recordSeq",
        refused: "refused",
        retry_after_ms: "retryAfterMs",
        rights: "rights",
        scope: "scope",
        scopes: "scopes",
        seq: "seq",
        session: "session",
        set: "set",
        snapshot_seq: "snapshotSeq",
        token: "token",
        unset: "unset",
        up_to: "upTo",
        updated_at: "updatedAt",
        user_id: "userId",
        version: "version",
    }
}

fields! {
    /// The fields of a record in a `sync`, and of the current state in a `CONFLICT`.
    struct Record {
        id: "id",
        record_id: "recordId",
        data: "data",
        version: "version",
        updated_at: "updatedAt",
        at: "at",
        user_id: "userId",
        seq: "seq",
    }
}

fields! {
    /// The fields of other objects in `data`.
    struct Data {
        left: "left",
        records: "records",
        token: "token",
    }
}

/// A message whose fields have been located but not yet decoded.
pub(super) struct Envelope<'a> {
    kind: Cow<'a, str>,
    fields: Message<'a>,
    metadata: Metadata<'a>,
}

impl<'a> Envelope<'a> {
    fn read(json: &'a str) -> Result<Self, WireError> {
        let fields: Message<'_> = field::object(json).map_err(Fault::about_nothing)?;
        let metadata = fields.metadata.object("metadata");
        let kind = fields.kind.text("type").and_then(|kind| required(kind, "type"));
        let mut envelope = Self { kind: Cow::Borrowed("?"), fields, metadata: Metadata::default() };
        match (metadata, kind) {
            (Ok(metadata), Ok(kind)) => {
                envelope.metadata = metadata.unwrap_or_default();
                envelope.kind = kind;
                Ok(envelope)
            }
            (Ok(metadata), Err(fault)) => {
                envelope.metadata = metadata.unwrap_or_default();
                Err(envelope.error(fault))
            }
            (Err(fault), _) => Err(envelope.error(fault)),
        }
    }

    fn open<M>(
        &self,
        limits: &Limits,
        one: fn(&Self, &Limits) -> Result<M, Fault>,
    ) -> Result<M, WireError> {
        if self.kind == "batch" {
            return Err(self.error(Fault::new("a `batch` can't hold another one")));
        }
        one(self, limits).map_err(|fault| self.error(fault))
    }

    /// The fault, with all readable parts of its subject.
    fn error(&self, fault: Fault) -> WireError {
        WireError {
            mutation: self.number().unwrap_or(None),
            collection: self.any_collection().unwrap_or(None),
            record_id: self.any_record_id().unwrap_or(None),
            ..fault.about_nothing()
        }
    }

    fn collection(&self) -> Result<Collection, Fault> {
        let name = self.fields.collection.name("collection", Collection::new)?;
        required(name, "collection")
    }

    fn record_id(&self) -> Result<RecordId, Fault> {
        required(self.fields.record_id.name("recordId", RecordId::new)?, "recordId")
    }

    /// The collection, which may also be in the metadata.
    fn any_collection(&self) -> Result<Option<Collection>, Fault> {
        let field = self.fields.collection.or(self.metadata.collection);
        field.name("collection", Collection::new)
    }

    /// The record, which may also be in the metadata.
    fn any_record_id(&self) -> Result<Option<RecordId>, Fault> {
        self.fields.record_id.or(self.metadata.record_id).name("recordId", RecordId::new)
    }

    fn number(&self) -> Result<Option<MutationNumber>, Fault> {
        Ok(self.metadata.mutation.number("metadata.mutation")?.map(MutationNumber))
    }

    fn user_id(&self) -> Result<Option<UserId>, Fault> {
        self.metadata.user_id.name("metadata.userId", UserId::new)
    }

    fn seq(&self) -> Result<Option<Seq>, Fault> {
        Ok(self.metadata.seq.number("metadata.seq")?.map(Seq))
    }

    /// The server's time. An unreadable one counts as absent, so that the rest of the message is
    /// not lost.
    fn timestamp(&self) -> Option<Timestamp> {
        self.fields.timestamp.timestamp("timestamp").unwrap_or(None)
    }

    fn token(&self) -> Result<Token, Fault> {
        let in_data = match self.fields.data.object::<Data<'_>>("data") {
            Ok(Some(data)) => data.token,
            Ok(None) | Err(_) => Field::default(),
        };
        let field = in_data.or(self.fields.token).or(self.metadata.token);
        Ok(Token::from(&*required(field.text("data.token")?, "data.token")?))
    }

    fn subscribe(&self) -> Result<ClientMessage, Fault> {
        let place = self.metadata.cursor.object("metadata.cursor")?;
        let place: CursorFields<'_> = place.unwrap_or_default();
        Ok(ClientMessage::Subscribe {
            collection: self.collection()?,
            cursor: place.cursor()?,
            resume: place.resume()?,
            rights: self.rights()?,
            page_bytes: self.metadata.page_bytes.size("metadata.pageBytes")?,
            filter: self.filter()?,
            set: self.set()?,
            scopes: scopes::asked(self.metadata.scopes, "metadata.scopes", self.set()?)?,
        })
    }

    fn rights(&self) -> Result<Option<RightsTag>, Fault> {
        self.metadata.rights.parsed("metadata.rights", RightsTag::parse)
    }

    fn set(&self) -> Result<Option<u64>, Fault> {
        self.metadata.set.number("metadata.set")
    }

    /// The parts of a scope key with their values, from where they may stand.
    fn filter(&self) -> Result<Vec<(String, String)>, Fault> {
        let filter = self.fields.filter.or(self.metadata.filter);
        let parts = filter.texts("filter", MAX_FILTER)?.unwrap_or_default();
        if parts.is_empty() && filter.is_some() {
            return Err(Fault::new(
                "`filter` is empty: it names the field of a scope and its value",
            ));
        }
        Ok(parts)
    }

    fn mutation(&self, kind: WriteKind, limits: &Limits) -> Result<Mutation, Fault> {
        let number = self.number()?;
        Ok(Mutation {
            collection: self.collection()?,
            record_id: self.record_id()?,
            change: self.written(kind, limits)?,
            timestamp: self.fields.timestamp.timestamp("timestamp")?,
            at: at(self.metadata.at, number.is_some(), limits)?,
            number,
            base: self.metadata.base.number("metadata.base")?.map(Seq),
        })
    }

    fn hello(&self) -> Result<Option<Hello>, Fault> {
        let m = &self.metadata;
        // metadata of another kind in a plain ping is ignored
        if m.protocol.number("metadata.protocol").unwrap_or(None).unwrap_or(0) < RESUMABLE {
            return Ok(None);
        }
        let client_id = m.client_id.name("metadata.clientId", ClientId::new)?;
        let session = m.session.number("metadata.session")?.map(SessionNumber);
        Ok(Some(Hello {
            client_id: required(client_id, "metadata.clientId")?,
            session: required(session, "metadata.session")?,
        }))
    }

    /// The change of the record by `data` and `unset`.
    fn written(&self, kind: WriteKind, limits: &Limits) -> Result<Change, Fault> {
        let data = |unset: &[Box<str>]| match self.fields.data.document("data", limits)? {
            None if unset.is_empty() => Err(Fault::missing("data")),
            None => Ok(Document::empty()),
            Some(document) => Ok(document),
        };
        Ok(match kind {
            WriteKind::Insert => Change::insert(data(&[])?),
            WriteKind::Update => {
                let unset = self.unset(limits)?;
                Change::update(Delta::new(data(&unset)?, unset))
            }
            WriteKind::Delete => Change::delete(),
        })
    }

    fn unset(&self, limits: &Limits) -> Result<Vec<Box<str>>, Fault> {
        let names = self.metadata.unset.list("metadata.unset", limits.fields)?;
        let name = |field: Field<'_>| {
            let name = required(field.text("metadata.unset")?, "metadata.unset")?;
            if name.len() > limits.field_name_bytes {
                return Err(Fault::new("`metadata.unset` holds a name above the limit"));
            }
            Ok(name.into())
        };
        names.unwrap_or_default().into_iter().map(name).collect()
    }

    fn change(&self, kind: WriteKind, limits: &Limits) -> Result<ServerMessage, Fault> {
        let seq = self.seq()?;
        let version = self.metadata.version.number("metadata.version");
        Ok(ServerMessage::Change {
            collection: self.collection()?,
            record_id: self.record_id()?,
            change: ServerChange {
                change: self.written(kind, limits)?,
                seq,
                version: beside_the_point(seq, version)?,
                timestamp: self.timestamp(),
                at: at(self.metadata.at, seq.is_some(), limits)?,
                user_id: beside_the_point(seq, self.user_id())?,
            },
            reason: self.reason().filter(|_| kind == WriteKind::Delete),
            prev: beside_the_point(seq, self.metadata.prev.number("metadata.prev"))?.map(Seq),
        })
    }

    fn reason(&self) -> Option<DeleteReason> {
        DeleteReason::parse(&self.metadata.reason.text("reason").ok()??)
    }

    fn ack(&self, limits: &Limits) -> Result<Ack, Fault> {
        let version = self.metadata.version.number("metadata.version")?;
        Ok(Ack {
            collection: self.collection()?,
            record_id: self.record_id()?,
            mutation: required(self.number()?, "metadata.mutation")?,
            seq: self.seq()?,
            version,
            echo: self.echo(version, limits)?,
            timestamp: self.timestamp(),
        })
    }

    /// The state of the record in an ack out of place.
    fn echo(&self, version: Option<u64>, limits: &Limits) -> Result<Option<ServerChange>, Fault> {
        let kind = match self.metadata.kind.text("metadata.kind")?.as_deref() {
            None => return Ok(None),
            Some("insert") => WriteKind::Insert,
            Some("update") => WriteKind::Update,
            Some("delete") => WriteKind::Delete,
            Some(_) => return Err(Fault::new("`metadata.kind` is no kind of write")),
        };
        let seq = self.metadata.record_seq.number("metadata.recordSeq")?.map(Seq);
        Ok(Some(ServerChange {
            change: self.written(kind, limits)?,
            seq,
            version,
            timestamp: self.metadata.updated_at.timestamp("metadata.updatedAt")?,
            at: at(self.metadata.at, seq.is_some(), limits)?,
            user_id: self.user_id()?,
        }))
    }

    fn sync(&self, limits: &Limits) -> Result<ServerMessage, Fault> {
        let data = required(self.fields.data.object::<Data<'_>>("data")?, "data")?;
        let records = required(data.records.list("data.records", usize::MAX)?, "data.records")?;
        let m = &self.metadata;
        if m.scope.is_some() {
            return self.load(records, data.left, limits).map(ServerMessage::Load);
        }
        let range = match m.snapshot_seq.number("metadata.snapshotSeq")? {
            None => None,
            Some(seq) => Some(PageRange {
                after: m.after.name("metadata.after", RecordId::new)?,
                up_to: m.up_to.name("metadata.upTo", RecordId::new)?,
                snapshot_seq: Seq(seq),
            }),
        };
        Ok(ServerMessage::Sync {
            collection: self.collection()?,
            records: sync_records(records, limits)?,
            range,
        })
    }

    fn synced(&self) -> Result<ServerMessage, Fault> {
        let m = &self.metadata;
        let epoch = m.epoch.name("metadata.epoch", Epoch::new)?;
        let checksum = m.checksum.parsed("metadata.checksum", Checksum::parse)?;
        Ok(ServerMessage::Synced {
            collection: self.collection()?,
            cursor: Cursor {
                epoch: required(epoch, "metadata.epoch")?,
                seq: required(self.seq()?, "metadata.seq")?,
            },
            count: m.count.number("metadata.count")?.unwrap_or_default(),
            checksum,
            set: self.set()?,
        })
    }

    fn subscribed(&self) -> Result<ServerMessage, Fault> {
        let m = &self.metadata;
        let head = m.head.number("metadata.head")?.map(Seq);
        let record_count = m.record_count.number("metadata.recordCount");
        Ok(ServerMessage::Subscribed {
            collection: self.collection()?,
            record_count: beside_the_point(head, record_count)?,
            head,
            mode: cursor::mode(m.mode)?,
            partial: m.partial.is_true(),
            rights: self.rights()?,
            set: self.set()?,
            refused: scopes::names(m.refused, "metadata.refused")?,
        })
    }

    fn pong(&self) -> Result<ServerMessage, Fault> {
        let welcome = match self.metadata.protocol.number("metadata.protocol")? {
            None => None,
            Some(RESUMABLE) => Some(self.welcome()?),
            Some(other) => {
                let text = format!("the server speaks protocol {other}, this client {RESUMABLE}");
                return Err(Fault::new(text));
            }
        };
        Ok(ServerMessage::Pong { timestamp: self.timestamp(), welcome })
    }

    fn welcome(&self) -> Result<Welcome, Fault> {
        let m = &self.metadata;
        let epoch = m.epoch.name("metadata.epoch", Epoch::new)?;
        let last_mutation = m.last_mutation.number("metadata.lastMutation")?;
        Ok(Welcome {
            database: m.database.name("metadata.database", DatabaseId::new)?,
            epoch: required(epoch, "metadata.epoch")?,
            last_mutation: MutationNumber(required(last_mutation, "metadata.lastMutation")?),
            last_digest: m.last_digest.parsed("metadata.lastDigest", Digest::parse)?,
            first_session: m.first_session.number("metadata.firstSession")?.map(SessionNumber),
            user_id: self.user_id()?,
            max_batch_bytes: m.max_batch_bytes.number("metadata.maxBatchBytes")?.unwrap_or(0),
            features: self.features()?,
        })
    }

    fn features(&self) -> Result<Features, Fault> {
        const NAME: &str = "metadata.features";
        let mut features = Features::default();
        for name in self.metadata.features.list(NAME, MAX_FEATURES)?.unwrap_or_default() {
            features.note(&required(name.text(NAME)?, NAME)?);
        }
        Ok(features)
    }
}

fn sync_records(fields: Vec<Field<'_>>, limits: &Limits) -> Result<Vec<SyncRecord>, Fault> {
    fields.into_iter().map(|field| sync_record(field, limits)).collect()
}

fn sync_record(field: Field<'_>, limits: &Limits) -> Result<SyncRecord, Fault> {
    const RECORD: &str = "data.records[]";
    let record: Record<'_> = required(field.object(RECORD)?, RECORD)?;
    let id = record.id.or(record.record_id).name("data.records[].id", RecordId::new)?;
    let document = record.data.document("data.records[].data", limits)?;
    let seq = record.seq.number("data.records[].seq")?.map(Seq);
    let updated_at = record.updated_at.timestamp("data.records[].updatedAt");
    Ok(SyncRecord {
        id: required(id, "data.records[].id")?,
        document: required(document, "data.records[].data")?,
        version: beside_the_point(seq, record.version.number("data.records[].version"))?,
        updated_at: beside_the_point(seq, updated_at)?,
        seq,
        at: at(record.at, seq.is_some(), limits)?,
    })
}

/// The times of fields, in order of the names. Level 1 has none.
fn at(field: Field<'_>, resumable: bool, limits: &Limits) -> Result<FieldTimes, Fault> {
    if !resumable {
        return Ok(Vec::new());
    }
    let times = field.document("at", limits)?.unwrap_or_else(Document::empty);
    let time = |(name, json): (&str, &str)| {
        let time = json.strip_prefix('"').and_then(|json| json.strip_suffix('"'));
        let time = time.and_then(Timestamp::parse);
        Ok((name.into(), time.ok_or_else(|| Fault::new("`at` holds no timestamp"))?))
    };
    times.iter().map(time).collect()
}

/// Decodes a field that is not part of the record's content. At level 2 (if there is a seq) it must
/// be valid; from a plain server an invalid one counts as absent, so that the change is not lost
/// (PROTOCOL 2.9).
fn beside_the_point<T>(
    seq: Option<Seq>,
    value: Result<Option<T>, Fault>,
) -> Result<Option<T>, Fault> {
    if seq.is_some() { value } else { Ok(value.unwrap_or(None)) }
}
