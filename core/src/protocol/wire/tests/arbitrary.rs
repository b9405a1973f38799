//! Arbitrary messages of both directions.

use core::fmt::Debug;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use proptest::option::of as optional;
use proptest::prelude::*;
use proptest::sample::select;

use super::super::super::delta::Delta;
use super::super::super::document::tests::documents;
use super::super::super::hash::{Checksum, Digest, RightsTag};
use super::super::super::message::{
    Ack, ClientMessage, Cursor, DeleteReason, ErrorCode, ErrorMessage, FailedMember, Features,
    Hello, Mode, Mutation, PageRange, Resume, ServerChange, ServerMessage, SyncRecord, Token,
    Welcome,
};
use super::super::super::name::{
    ClientId, Collection, DatabaseId, Epoch, MutationNumber, RecordId, Seq, SessionNumber, UserId,
};
use super::super::super::scopes::{
    AskedScope, LeftRecord, LoadPlace, ScopeName, ScopePage, ScopePlace,
};
use super::super::super::time::Timestamp;
use super::super::super::times::FieldTimes;
use super::super::super::unit::{Expectation, Member, Unit};
use super::super::super::write::{Change, WriteKind};

fn names<N: Debug>(make: fn(&str) -> Option<N>) -> impl Strategy<Value = N> {
    prop_oneof![Just("a".to_string()), "[a-z0-9-]{36}", "[^\\pC]{1,12}"]
        .prop_filter_map("a name", move |text| make(&text))
}

fn collections() -> impl Strategy<Value = Collection> {
    names(|text| Collection::new(text).ok())
}

fn ids() -> impl Strategy<Value = RecordId> {
    names(|text| RecordId::new(text).ok())
}

fn users() -> impl Strategy<Value = Option<UserId>> {
    optional(names(|text| UserId::new(text).ok()))
}

pub(in super::super) fn databases() -> impl Strategy<Value = Option<DatabaseId>> {
    optional(names(|text| DatabaseId::new(text).ok()))
}

pub(in super::super) fn epochs() -> impl Strategy<Value = Epoch> {
    names(|text| Epoch::new(text).ok())
}

fn numbers() -> impl Strategy<Value = u64> {
    prop_oneof![0..10u64, 0..1u64 << 53, Just((1 << 53) - 1)]
}

fn times() -> impl Strategy<Value = Timestamp> {
    (0..=Timestamp::MAX.0).prop_map(Timestamp)
}

fn field_times() -> impl Strategy<Value = FieldTimes> {
    let times = proptest::collection::btree_map("\\PC{1,3}", times(), 0..3);
    times.prop_map(|times| times.into_iter().map(|(name, time)| (name.into(), time)).collect())
}

fn unset_names() -> impl Strategy<Value = Vec<Box<str>>> {
    proptest::collection::vec(prop_oneof!["[a-e]", "\\PC{1,4}"].prop_map(Into::into), 0..3)
}

fn changes() -> impl Strategy<Value = Change> {
    prop_oneof![
        documents().prop_map(Change::insert),
        (documents(), unset_names())
            .prop_map(|(set, unset)| Change::update(Delta::new(set, unset))),
        Just(Change::delete()),
    ]
}

fn server_changes() -> impl Strategy<Value = ServerChange> {
    (changes(), numbers(), optional(numbers()), optional(times()), field_times(), users()).prop_map(
        |(change, seq, version, timestamp, at, user_id)| ServerChange {
            change,
            seq: Some(Seq(seq)),
            version,
            timestamp,
            at,
            user_id,
        },
    )
}

pub(in super::super) fn cursors() -> impl Strategy<Value = Cursor> {
    (epochs(), numbers()).prop_map(|(epoch, seq)| Cursor { epoch, seq: Seq(seq) })
}

pub(in super::super) fn resumes() -> impl Strategy<Value = Resume> {
    prop_oneof![
        (epochs(), numbers()).prop_map(|(epoch, seq)| Resume::Delta { epoch, seq: Seq(seq) }),
        (epochs(), numbers(), ids()).prop_map(|(epoch, seq, after)| Resume::Snapshot {
            epoch,
            snapshot_seq: Seq(seq),
            after
        }),
    ]
}

pub(in super::super) fn client_ids() -> impl Strategy<Value = ClientId> {
    names(|text| ClientId::new(text).ok())
}

pub(in super::super) fn numbered_writes() -> impl Strategy<Value = Mutation> {
    let when = (optional(times()), field_times());
    (collections(), ids(), changes(), when, numbers(), optional(numbers())).prop_map(
        |(collection, record_id, change, (timestamp, at), number, base)| Mutation {
            collection,
            record_id,
            change,
            timestamp,
            at,
            number: Some(MutationNumber(number)),
            base: base.map(Seq),
        },
    )
}

/// Units whose members are about records of their own.
pub(in super::super) fn units() -> impl Strategy<Value = Unit> {
    let member = (numbered_writes(), any::<bool>()).prop_map(|(write, expects)| {
        if !expects {
            return Member::Write(write);
        }
        Member::Expect(Expectation {
            collection: write.collection,
            record_id: write.record_id,
            number: MutationNumber(0),
            base: write.base,
        })
    });
    let first = prop_oneof![1..10u64, Just((1 << 53) - 9)];
    (proptest::collection::vec(member, 1..8), first).prop_filter_map(
        "a unit",
        |(members, first)| {
            let mut unit = Unit { members };
            for (member, number) in unit.members.iter_mut().zip(first..) {
                match member {
                    Member::Write(mutation) => mutation.number = Some(MutationNumber(number)),
                    Member::Expect(expectation) => expectation.number = MutationNumber(number),
                }
            }
            unit.check().is_ok().then_some(unit)
        },
    )
}

fn filters() -> impl Strategy<Value = Vec<(String, String)>> {
    let values = prop_oneof![Just("42"), Just("\"a\""), Just("true"), Just("[1]")];
    prop::collection::vec((".{0,9}", values.prop_map(String::from)), 0..3)
}

fn scope_names() -> impl Strategy<Value = ScopeName> {
    let value =
        prop_oneof![Just("42"), Just("\"a\""), Just("null"), Just("1.0"), Just("\"\\u0000\"")];
    let part = ("\\PC{0,9}", value.prop_map(String::from));
    prop::collection::vec(part, 1..4).prop_map(|parts| ScopeName { parts })
}

fn asked_scopes() -> impl Strategy<Value = AskedScope> {
    let place = (epochs(), numbers(), numbers()).prop_map(|(epoch, snapshot_seq, after)| {
        let (snapshot_seq, after) = (Seq(snapshot_seq), Seq(after));
        ScopePlace::Loading(LoadPlace { epoch, snapshot_seq, after })
    });
    let place = prop_oneof![Just(ScopePlace::Loaded), Just(ScopePlace::Waiting), place];
    (scope_names(), place).prop_map(|(name, place)| AskedScope { name, place })
}

/// The number of a set, and its scopes.
pub(in super::super) fn sets() -> impl Strategy<Value = (Option<u64>, Vec<AskedScope>)> {
    let scopes = prop::collection::vec(asked_scopes(), 1..4);
    prop_oneof![
        Just((None, Vec::new())),
        numbers().prop_map(|set| (Some(set), Vec::new())),
        (numbers(), scopes).prop_map(|(set, scopes)| (Some(set), scopes)),
    ]
}

pub(super) fn client_messages() -> impl Strategy<Value = ClientMessage> {
    let hello = (client_ids(), numbers())
        .prop_map(|(id, session)| Hello { client_id: id, session: SessionNumber(session) });
    prop_oneof![
        ".*".prop_map(|token| ClientMessage::Auth { token: Token::from(&*token) }),
        (
            collections(),
            optional(cursors()),
            (optional(resumes()), optional(rights_tags())),
            optional(0_usize..1 << 40),
            filters(),
            sets(),
        )
            .prop_map(
                |(collection, cursor, (resume, rights), page_bytes, filter, (set, scopes))| {
                    ClientMessage::Subscribe {
                        collection,
                        cursor,
                        resume,
                        rights,
                        page_bytes,
                        filter,
                        set,
                        scopes,
                    }
                }
            ),
        collections().prop_map(|collection| ClientMessage::Unsubscribe { collection }),
        (collections(), filters())
            .prop_map(|(collection, filter)| ClientMessage::Sync { collection, filter }),
        numbered_writes().prop_map(ClientMessage::Write),
        units().prop_map(ClientMessage::Unit),
        optional(hello).prop_map(|hello| ClientMessage::Ping { hello }),
    ]
}

fn welcomes() -> impl Strategy<Value = Welcome> {
    let features = any::<(bool, bool, bool)>().prop_map(|(pull, atomic, scopes)| Features {
        pull,
        atomic,
        scopes,
    });
    let more = (numbers(), features, optional(numbers()));
    (databases(), epochs(), numbers(), optional(any::<u64>()), users(), more).prop_map(
        |(
            database,
            epoch,
            last_mutation,
            last_digest,
            user_id,
            (max_batch_bytes, features, first),
        )| {
            Welcome {
                features,
                database,
                epoch,
                last_mutation: MutationNumber(last_mutation),
                last_digest: last_digest.map(Digest),
                first_session: first.map(SessionNumber),
                user_id,
                max_batch_bytes,
            }
        },
    )
}

fn sync_records() -> impl Strategy<Value = Vec<SyncRecord>> {
    let seq = optional((numbers(), field_times()));
    let record = (ids(), documents(), optional(numbers()), optional(times()), seq).prop_map(
        |(id, document, version, updated_at, seq)| SyncRecord {
            id,
            document,
            version,
            updated_at,
            seq: seq.as_ref().map(|(seq, _)| Seq(*seq)),
            at: seq.map_or_else(Vec::new, |(_, at)| at),
        },
    );
    proptest::collection::vec(record, 0..4)
}

fn load_messages() -> impl Strategy<Value = ServerMessage> {
    let left = (ids(), numbers()).prop_map(|(id, seq)| LeftRecord { id, seq: Seq(seq) });
    let content = (sync_records(), prop::collection::vec(left, 0..3));
    let range = (optional(numbers()), optional(numbers()), numbers());
    (collections(), numbers(), scope_names(), content, range).prop_map(
        |(collection, set, scope, (records, left), (after, up_to, snapshot_seq))| {
            ServerMessage::Load(ScopePage {
                collection,
                set,
                scope,
                records,
                left,
                after: after.map(Seq),
                up_to: up_to.map(Seq),
                snapshot_seq: Seq(snapshot_seq),
            })
        },
    )
}

fn sync_messages() -> impl Strategy<Value = ServerMessage> {
    let range = (optional(ids()), optional(ids()), numbers())
        .prop_map(|(after, up_to, seq)| PageRange { after, up_to, snapshot_seq: Seq(seq) });
    (collections(), sync_records(), optional(range))
        .prop_map(|(collection, records, range)| ServerMessage::Sync { collection, records, range })
}

fn acks() -> impl Strategy<Value = Ack> {
    let subject = (collections(), ids(), numbers());
    let echo = optional(server_changes());
    (subject, optional(numbers()), optional(numbers()), echo, optional(times())).prop_map(
        |((collection, record_id, mutation), seq, version, echo, timestamp)| Ack {
            collection,
            record_id,
            mutation: MutationNumber(mutation),
            seq: seq.map(Seq),
            version,
            // both are the version that the record has, so the wire carries one
            echo: echo.map(|echo| ServerChange { version, ..echo }),
            timestamp,
        },
    )
}

/// The states of records in a `CONFLICT`.
fn states() -> impl Strategy<Value = Option<ServerChange>> {
    optional(server_changes().prop_filter_map("a state", |change| match change.change.kind {
        WriteKind::Insert => Some(change),
        WriteKind::Update => None,
        WriteKind::Delete => Some(ServerChange { at: Vec::new(), ..change }),
    }))
}

fn codes() -> impl Strategy<Value = ErrorCode> {
    let code = prop_oneof![Just("CONFLICT"), Just("SERVER_ERROR"), Just("ODD")];
    code.prop_map(ErrorCode::parse)
}

fn failed_members() -> impl Strategy<Value = Vec<FailedMember>> {
    let member = (numbers(), codes(), collections(), ids(), states()).prop_map(
        |(mutation, code, collection, record_id, current)| FailedMember {
            mutation: MutationNumber(mutation),
            code,
            collection,
            record_id,
            current,
        },
    );
    proptest::collection::vec(member, 0..4)
}

fn error_messages() -> impl Strategy<Value = ErrorMessage> {
    let subject = (optional(numbers()), optional(collections()), optional(ids()));
    let more = (states(), failed_members());
    (codes(), ".*", optional(numbers()), subject, more).prop_map(
        |(code, message, retry_after_ms, (mutation, collection, record_id), more)| {
            let (current, failed) = more;
            ErrorMessage {
                code,
                message,
                retry_after_ms,
                mutation: mutation.map(MutationNumber),
                collection,
                record_id,
                current,
                failed,
            }
        },
    )
}

pub(in super::super) fn rights_tags() -> impl Strategy<Value = RightsTag> {
    (any::<u64>(), proptest::option::of(any::<u64>()))
        .prop_map(|(rules, related)| RightsTag { rules, related })
}

pub(in super::super) fn server_messages() -> impl Strategy<Value = ServerMessage> {
    let mode = prop_oneof![Just(None), Just(Some(Mode::Delta)), Just(Some(Mode::Snapshot))];
    let reason = select(&[None, Some(DeleteReason::Filter), Some(DeleteReason::Scope)][..]);
    let set = || (optional(numbers()), prop::collection::vec(scope_names(), 0..3));
    prop_oneof![
        users().prop_map(|user_id| ServerMessage::Authenticated { user_id }),
        (
            collections(),
            (
                optional(numbers()),
                optional(numbers()),
                mode,
                any::<bool>(),
                optional(rights_tags())
            ),
            set()
        )
            .prop_map(
                |(collection, (record_count, head, mode, partial, rights), (set, refused))| {
                    let head = head.map(Seq);
                    ServerMessage::Subscribed {
                        collection,
                        record_count,
                        head,
                        mode,
                        partial,
                        rights,
                        set,
                        refused,
                    }
                }
            ),
        (collections(), set()).prop_map(|(collection, (_, scopes))| ServerMessage::Unsubscribed {
            collection,
            scopes
        }),
        (collections(), ids(), server_changes(), reason, optional(numbers())).prop_map(
            |(collection, record_id, change, reason, prev)| {
                let reason = reason.filter(|_| change.change == Change::delete());
                let prev = prev.map(Seq);
                ServerMessage::Change { collection, record_id, change, reason, prev }
            }
        ),
        prop_oneof![sync_messages(), load_messages()],
        (collections(), cursors(), numbers(), optional(any::<u64>()), optional(numbers()))
            .prop_map(|(collection, cursor, count, checksum, set)| {
                let checksum = checksum.map(Checksum);
                ServerMessage::Synced { collection, cursor, count, checksum, set }
            }),
        acks().prop_map(ServerMessage::Ack),
        error_messages().prop_map(ServerMessage::Error),
        (optional(times()), optional(welcomes()))
            .prop_map(|(timestamp, welcome)| ServerMessage::Pong { timestamp, welcome }),
        "[a-z]{0,8}x".prop_map(|kind| ServerMessage::Unknown { kind }),
    ]
}

/// Text that looks like a frame, with any JSON in the places of its fields.
pub(super) fn near_frames() -> impl Strategy<Value = String> {
    let kind = select(
        &[
            "insert",
            "update",
            "ack",
            "error",
            "sync",
            "ping",
            "subscribe",
            "synced",
            "pong",
            "subscribed",
            "unsubscribed",
            "batch",
            "auth",
        ][..],
    );
    let value = select(
        &[
            "1",
            "-1",
            "1e99",
            "null",
            "\"a\"",
            "\"\"",
            "[]",
            "{}",
            "[[]]",
            "{\"seq\":1,\"epoch\":\"a\"}",
            "\"\\ud800\"",
            "{\"records\":[{\"id\":\"a\",\"data\":{}},1]}",
            "[{\"type\":\"ping\"},2]",
            "[{\"by\":[\"a\"],\"is\":[1],\"new\":true}]",
            "{\"by\":[\"a\"],\"is\":[1,2]}",
            "{\"records\":[],\"left\":[{\"id\":\"a\",\"seq\":1}]}",
        ][..],
    );
    let name = select(
        &[
            "collection",
            "recordId",
            "data",
            "messages",
            "timestamp",
            "error",
            "code",
            "mutation",
            "seq",
            "protocol",
            "cursor",
            "unset",
            "at",
            "record",
            "kind",
            "snapshotSeq",
            "epoch",
            "set",
            "scope",
            "scopes",
            "refused",
            "prev",
        ][..],
    );
    let fields = || proptest::collection::btree_map(name.clone(), value.clone(), 0..8);
    (kind, fields(), fields()).prop_map(|(kind, fields, metadata)| {
        let join = |fields: alloc::collections::BTreeMap<&str, &str>| {
            let fields = fields.iter().map(|(name, value)| format!("\"{name}\":{value}"));
            fields.collect::<Vec<_>>().join(",")
        };
        let metadata = format!("{{{}}}", join(metadata));
        format!(
            "{{\"type\":\"{kind}\",\"metadata\":{metadata},\"x\":0{}{}}}",
            if fields.is_empty() { "" } else { "," },
            join(fields)
        )
    })
}
