//! Units on the wire.

use super::*;
use crate::protocol::message::FailedMember;
use crate::protocol::unit::{Expectation, Member, Unit};
use alloc::vec;

const WRITE: &str =
    r#"{"type":"delete","collection":"todos","recordId":"1","metadata":{"mutation":7,"base":3}}"#;
const EXPECT: &str =
    r#"{"type":"expect","collection":"seats","recordId":"a","metadata":{"mutation":8,"base":4}}"#;
const ABSENT: &str = r#"{"type":"expect","collection":"seats","recordId":"b","metadata":{"mutation":9,"absent":true}}"#;

fn frame_of(members: &[&str]) -> String {
    let members = members.join(",");
    format!(r#"{{"type":"batch","metadata":{{"atomic":true}},"messages":[{members}]}}"#)
}

fn unit() -> Unit {
    let delete = Mutation {
        collection: todos(),
        record_id: id("1"),
        change: Change::delete(),
        timestamp: None,
        at: Vec::new(),
        number: Some(MutationNumber(7)),
        base: Some(Seq(3)),
    };
    let expect = |record: &str, number, base| {
        Member::Expect(Expectation {
            collection: Collection::new("seats").unwrap(),
            record_id: id(record),
            number: MutationNumber(number),
            base,
        })
    };
    Unit {
        members: vec![Member::Write(delete), expect("a", 8, Some(Seq(4))), expect("b", 9, None)],
    }
}

#[test]
fn a_unit_is_one_atomic_batch() {
    let message = ClientMessage::Unit(unit());
    let frame = frame_of(&[WRITE, EXPECT, ABSENT]);
    assert_eq!(said(&message), frame);
    assert_eq!(client(&frame), Ok(message));
    // what is not atomic is a batch as before, and a server's frames are no units
    let plain = frame.replace("true", "false");
    assert!(matches!(decode_client(plain.as_bytes(), &Limits::default()), Ok(Incoming::Batch(_))));
    assert!(matches!(decode_server(frame.as_bytes(), &Limits::default()), Ok(Incoming::Batch(_))));
    let error = client(EXPECT).unwrap_err();
    assert!(error.message.contains("an `expect` is part of a transaction"), "{error}");
}

/// One flaw fails the whole, under the number of the first member, and names the member.
#[test]
fn a_unit_fails_as_a_whole_under_its_first_number() {
    let last = |number: u64, rest: &str| {
        format!(
            r#"{{"type":"delete","collection":"todos","metadata":{{"mutation":{number}}}{rest}}}"#
        )
    };
    let second = last(8, r#","recordId":"1""#);
    let far = last(9, r#","recordId":"2""#);
    let unread = last(8, r#","recordId":"2""#).replace("delete", "insert");
    let unnumbered = unread.replace(r#""mutation":8"#, "");
    let nameless = last(8, "");
    for (member, code, names, text) in [
        (&second, ErrorCode::InvalidMessage, true, "writes or expects todos/1 twice"),
        (&far, ErrorCode::InvalidMessage, true, "rise by one: 8"),
        (&unread, ErrorCode::InvalidMessage, true, "`data` is missing"),
        (&unnumbered, ErrorCode::InvalidMessage, true, "`data` is missing"),
        (&nameless, ErrorCode::InvalidMessage, false, "`recordId` is missing"),
        (&r#"{"type":"ping"}"#.into(), ErrorCode::InvalidMessage, false, "can't be part"),
        (&frame_of(&[]), ErrorCode::InvalidMessage, false, "can't hold another one"),
    ] {
        let error = ErrorMessage::from(client(&frame_of(&[WRITE, member])).unwrap_err());
        assert_eq!((&error.code, error.mutation), (&code, Some(MutationNumber(7))), "{member}");
        assert!(error.message.contains(text), "{member}: {}", error.message);
        assert_eq!(error.failed.len(), usize::from(names), "{member}");
        assert!(error.collection.is_none() || !names);
    }
    let error = client(&frame_of(&[r#"{"type":"ping"}"#, WRITE])).unwrap_err();
    assert_eq!(error.mutation, Some(MutationNumber(6)));
    assert_eq!(client(&frame_of(&[])).unwrap_err().mutation, None);

    let many = |count: u64| {
        let member = |n: u64| last(n, &format!(r#","recordId":"r{n}""#));
        frame_of(
            &(1..=count).map(member).collect::<Vec<_>>().iter().map(|m| &**m).collect::<Vec<_>>(),
        )
    };
    assert!(client(&many(256)).is_ok());
    let error = client(&many(257)).unwrap_err();
    assert_eq!((error.code, error.mutation), (ErrorCode::PayloadTooLarge, Some(MutationNumber(1))));
}

#[test]
fn an_expectation_has_one_of_base_and_absence() {
    for wrong in [r#""base":4,"absent":true"#, r#""absent":false"#] {
        let member = EXPECT.replace(r#""base":4"#, wrong);
        let error = client(&frame_of(&[WRITE, &member])).unwrap_err();
        assert_eq!(
            (error.mutation, error.member),
            (Some(MutationNumber(7)), Some(MutationNumber(8)))
        );
    }
}

/// Neither number nor base is part of it, and it is unlike that of any write.
#[test]
fn an_expectation_has_a_digest_of_its_own() {
    let digest = |member: &Member| member.digest().to_string();
    let members = unit().members;
    assert_eq!(digest(&members[1]), EXPECTED);
    let Member::Expect(expectation) = &members[1] else { panic!() };
    let other = Expectation { number: MutationNumber(1), base: None, ..expectation.clone() };
    assert_eq!(other.digest().to_string(), EXPECTED);
    let delete = Mutation {
        collection: expectation.collection.clone(),
        record_id: expectation.record_id.clone(),
        change: Change::delete(),
        timestamp: None,
        at: Vec::new(),
        number: None,
        base: None,
    };
    assert_ne!(delete.digest().to_string(), EXPECTED);
}

/// XXH3 of 03, text("seats"), text("a"), i64(0).
const EXPECTED: &str = "f6991a99b6260a62";

#[test]
fn a_units_error_lists_the_members_that_failed() {
    let failed = |number, current| FailedMember {
        mutation: MutationNumber(number),
        code: ErrorCode::Conflict,
        collection: todos(),
        record_id: id("1"),
        current,
    };
    let gone = ServerChange { change: Change::delete(), at: Vec::new(), ..change() };
    let whole = ServerChange { change: Change::insert(document("{\"done\":1}")), ..change() };
    at_level_2([(
        ServerMessage::Error(ErrorMessage {
            mutation: Some(MutationNumber(7)),
            failed: vec![failed(8, Some(whole)), failed(9, Some(gone)), failed(10, None)],
            ..ErrorMessage::new(ErrorCode::Conflict, "changed")
        }),
        concat!(
            r#"{"type":"error","error":"changed","code":"CONFLICT","metadata":{"mutation":7,"failed":["#,
            r#"{"mutation":8,"code":"CONFLICT","collection":"todos","recordId":"1","seq":131,"record":{"data":{"done":1},"version":2,"updatedAt":"2026-11-22T17:00:00.000Z","userId":"u1","at":{"done":"1970-01-01T00:00:00.000Z"}}},"#,
            r#"{"mutation":9,"code":"CONFLICT","collection":"todos","recordId":"1","seq":131,"record":null,"version":2,"updatedAt":"2026-11-22T17:00:00.000Z","userId":"u1"},"#,
            r#"{"mutation":10,"code":"CONFLICT","collection":"todos","recordId":"1"}]}}"#,
        ),
    )]);
}
