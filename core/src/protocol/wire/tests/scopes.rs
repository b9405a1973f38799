//! The forms of scopes on the wire.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::super::super::limits::Limits;
use super::super::super::message::{
    ClientMessage, Cursor, DeleteReason, Level, Mode, ServerChange, ServerMessage, SyncRecord,
};
use super::super::super::name::{Collection, Epoch, RecordId, Seq};
use super::super::super::scopes::{
    AskedScope, LeftRecord, LoadPlace, MAX_SET, ScopeName, ScopePage, ScopePlace,
};
use super::super::super::write::Change;
use super::super::super::{delta::Delta, document::Document, hash::Checksum, hash::RightsTag};
use super::super::http::{PageFrom, PageQuery, decode_pull, encode_pull};
use super::super::{Incoming, decode_client, decode_server};
use super::{client, said, sent};

fn collection() -> Collection {
    Collection::new("messages").unwrap()
}

fn epoch() -> Epoch {
    Epoch::new("a91b").unwrap()
}

fn name(parts: &[(&str, &str)]) -> ScopeName {
    let part = |(name, value): &(&str, &str)| (String::from(*name), String::from(*value));
    ScopeName { parts: parts.iter().map(part).collect() }
}

fn room() -> ScopeName {
    name(&[("room", r#""42""#)])
}

fn asked() -> Vec<AskedScope> {
    let place = LoadPlace { epoch: epoch(), snapshot_seq: Seq(120), after: Seq(88) };
    Vec::from([
        AskedScope { name: room(), place: ScopePlace::Loaded },
        AskedScope { name: name(&[("members[]", "7")]), place: ScopePlace::Waiting },
        AskedScope {
            name: name(&[("project", r#""p""#), ("status", "null")]),
            place: ScopePlace::Loading(place),
        },
    ])
}

const SCOPES: &str = r#"[{"by":["room"],"is":["42"]},{"by":["members[]"],"is":[7],"new":true},{"by":["project","status"],"is":["p",null],"resume":{"epoch":"a91b","snapshotSeq":120,"after":88}}]"#;

#[test]
fn a_subscribe_names_its_set() {
    let cursor = Cursor { epoch: epoch(), seq: Seq(120) };
    let message = ClientMessage::Subscribe {
        collection: collection(),
        cursor: Some(cursor.clone()),
        resume: None,
        rights: None,
        page_bytes: None,
        filter: Vec::new(),
        set: Some(3),
        scopes: asked(),
    };
    let text = format!(
        r#"{{"type":"subscribe","collection":"messages","metadata":{{"cursor":{{"epoch":"a91b","seq":120}},"set":3,"scopes":{SCOPES}}}}}"#
    );
    assert_eq!(said(&message), text);
    assert_eq!(client(&text).unwrap(), message);
    let from = PageFrom {
        cursor: Some(cursor),
        rights: Some(RightsTag { rules: 7, related: None }),
        set: Some(3),
        scopes: asked(),
        ..PageFrom::default()
    };
    let query = PageQuery { from, ..PageQuery::default() };
    let mut body = Vec::new();
    encode_pull(&collection(), &query, &mut body);
    let text = format!(
        r#"{{"collection":"messages","cursor":{{"epoch":"a91b","seq":120}},"rights":"0000000000000007","set":3,"scopes":{SCOPES}}}"#
    );
    assert_eq!(String::from_utf8(body.clone()).unwrap(), text);
    assert_eq!(decode_pull(&body, &Limits::default()), Ok((collection(), query)));
}

#[test]
fn the_answers_name_the_set() {
    let record_id = RecordId::new("9").unwrap();
    let document = Document::parse(r#"{"room":7}"#, &Limits::default()).unwrap();
    let record = SyncRecord {
        id: record_id.clone(),
        document: document.clone(),
        version: Some(1),
        updated_at: None,
        seq: Some(Seq(99)),
        at: Vec::new(),
    };
    both_ways([
        (
            ServerMessage::Subscribed {
                collection: collection(),
                record_count: Some(42),
                head: Some(Seq(131)),
                mode: Some(Mode::Delta),
                partial: false,
                rights: None,
                set: Some(3),
                refused: Vec::from([room()]),
            },
            r#"{"type":"subscribed","collection":"messages","metadata":{"recordCount":42,"head":131,"mode":"delta","set":3,"refused":[{"by":["room"],"is":["42"]}]}}"#,
        ),
        (
            ServerMessage::Load(ScopePage {
                collection: collection(),
                set: 3,
                scope: room(),
                records: Vec::from([record]),
                left: Vec::from([LeftRecord { id: record_id.clone(), seq: Seq(125) }]),
                after: Some(Seq(88)),
                up_to: Some(Seq(125)),
                snapshot_seq: Seq(120),
            }),
            r#"{"type":"sync","collection":"messages","data":{"records":[{"id":"9","data":{"room":7},"version":1,"seq":99}],"left":[{"id":"9","seq":125}]},"metadata":{"set":3,"scope":{"by":["room"],"is":["42"]},"after":88,"upTo":125,"snapshotSeq":120}}"#,
        ),
    ]);
}

#[test]
fn changes_tell_what_they_are_to_a_set() {
    let document = Document::parse(r#"{"room":7}"#, &Limits::default()).unwrap();
    let record_id = RecordId::new("9").unwrap();
    let change = |change| ServerChange {
        change,
        seq: Some(Seq(131)),
        version: Some(2),
        timestamp: None,
        at: Vec::new(),
        user_id: None,
    };
    both_ways([
        (
            ServerMessage::Change {
                collection: collection(),
                record_id: record_id.clone(),
                change: change(Change::delete()),
                reason: Some(DeleteReason::Scope),
                prev: None,
            },
            r#"{"type":"delete","collection":"messages","recordId":"9","metadata":{"seq":131,"version":2,"reason":"scope"}}"#,
        ),
        (
            ServerMessage::Change {
                collection: collection(),
                record_id,
                change: change(Change::update(Delta::new(document, Vec::new()))),
                reason: None,
                prev: Some(Seq(99)),
            },
            r#"{"type":"update","collection":"messages","recordId":"9","data":{"room":7},"metadata":{"seq":131,"version":2,"prev":99}}"#,
        ),
        (
            ServerMessage::Synced {
                collection: collection(),
                cursor: Cursor { epoch: epoch(), seq: Seq(131) },
                count: 42,
                checksum: Some(Checksum(1)),
                set: Some(3),
            },
            r#"{"type":"synced","collection":"messages","metadata":{"epoch":"a91b","seq":131,"count":42,"checksum":"0000000000000001","set":3}}"#,
        ),
        (
            ServerMessage::Unsubscribed { collection: collection(), scopes: Vec::from([room()]) },
            r#"{"type":"unsubscribed","collection":"messages","metadata":{"scopes":[{"by":["room"],"is":["42"]}]}}"#,
        ),
    ]);
}

fn both_ways<const N: usize>(forms: [(ServerMessage, &str); N]) {
    for (message, text) in forms {
        assert_eq!(sent(&message, Level::Resumable), text);
        let read = decode_server(text.as_bytes(), &Limits::default());
        assert_eq!(read, Ok(Incoming::One(message)));
    }
}

#[test]
fn a_set_that_makes_no_sense_is_refused() {
    let subscribe = |metadata: &str| {
        let text = format!(r#"{{"type":"subscribe","collection":"a","metadata":{{{metadata}}}}}"#);
        decode_client(text.as_bytes(), &Limits::default()).map(|_| ())
    };
    let one = r#"{"by":["a"],"is":[1]}"#;
    assert_eq!(subscribe(&format!(r#""set":1,"scopes":[{one}]"#)), Ok(()));
    let many = |count| [one].repeat(count).join(",");
    assert_eq!(subscribe(&format!(r#""set":1,"scopes":[{}]"#, many(MAX_SET))), Ok(()));
    let long = "a".repeat(2047);
    for wrong in [
        format!(r#""scopes":[{one}]"#),
        format!(r#""set":1,"scopes":[{}]"#, many(MAX_SET + 1)),
        r#""set":1,"scopes":[]"#.into(),
        r#""set":-1"#.into(),
        r#""set":1,"scopes":{}"#.into(),
        r#""set":1,"scopes":[{"by":["a"]}]"#.into(),
        r#""set":1,"scopes":[{"by":[],"is":[]}]"#.into(),
        r#""set":1,"scopes":[{"by":["a"],"is":[1,2]}]"#.into(),
        r#""set":1,"scopes":[{"by":[null],"is":[1]}]"#.into(),
        r#""set":1,"scopes":[{"by":["a"],"is":[1],"resume":{"epoch":"e","after":1}}]"#.into(),
        r#""set":1,"scopes":[{"by":["a"],"is":[1],"new":true,"resume":{"epoch":"e","snapshotSeq":1,"after":1}}]"#.into(),
        format!(r#""set":1,"scopes":[{{"by":["a"],"is":["{long}"]}}]"#),
        r#""set":1,"scopes":[{"by":["a","b","c","d","e","f","g","h","i"],"is":[1,2,3,4,5,6,7,8,9]}]"#.into(),
    ] {
        let error = subscribe(&wrong).unwrap_err();
        assert_eq!(error.collection.as_deref(), Some("a"), "{wrong}");
    }
}
