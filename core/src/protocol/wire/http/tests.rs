use super::*;

use alloc::vec;

use proptest::prelude::*;

use super::super::super::message::ErrorCode;
use super::super::super::unit::Member;
use super::super::tests::arbitrary::{
    client_ids, cursors, databases, epochs, numbered_writes, resumes, rights_tags, server_messages,
    sets, units,
};

fn text(fill: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    fill(&mut out);
    String::from_utf8(out).unwrap()
}

fn client(id: &str) -> ClientId {
    ClientId::new(id).unwrap()
}

fn epoch(id: &str) -> Epoch {
    Epoch::new(id).unwrap()
}

/// The parameters of a target, decoded, as a server finds them.
fn parameters(target: &str) -> Vec<(String, String)> {
    let (_, query) = target.split_once('?').unwrap();
    let decoded = |text: &str| percent::decode(text, true).unwrap();
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap();
        (decoded(name), decoded(value))
    };
    query.split('&').map(pair).collect()
}

fn parsed(parameters: &[(String, String)]) -> Result<Option<PageQuery>, String> {
    PageQuery::parse(parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())))
}

#[test]
fn what_is_said_over_http_looks_like_this() {
    let hello = Hello { client_id: client("c1"), session: SessionNumber(41) };
    assert_eq!(text(|out| encode_session(&hello, out)), r#"{"clientId":"c1","session":41}"#);
    let head = PushHead { client_id: client("c1"), session: SessionNumber(41), epoch: epoch("e1") };
    let writes = [r#"{"type":"delete"}"#, "{}"];
    assert_eq!(
        text(|out| encode_push(&head, writes, out)),
        r#"{"clientId":"c1","session":41,"epoch":"e1","mutations":[{"type":"delete"},{}]}"#
    );
    let answer = PushAnswer { last_mutation: MutationNumber(17), verdicts: vec![] };
    assert_eq!(
        text(|out| answer.encode(out)),
        r#"{"type":"batch","metadata":{"lastMutation":17},"messages":[]}"#
    );
    let cursor = Cursor { epoch: epoch("e1"), seq: Seq(7) };
    let resume = Resume::Delta { epoch: epoch("e2"), seq: Seq(9) };
    let from = PageFrom { cursor: Some(cursor), resume: Some(resume), ..PageFrom::default() };
    let page = PageAnswer {
        database: None,
        epoch: epoch("e2"),
        from: from.clone(),
        last_mutation: Some(MutationNumber(17)),
        messages: vec![],
    };
    assert_eq!(
        text(|out| page.encode(out)),
        r#"{"type":"batch","metadata":{"epoch":"e2","from":{"epoch":"e1","seq":7,"resume":{"epoch":"e2","seq":9}},"lastMutation":17},"messages":[]}"#
    );
    let page = PageAnswer { database: Some(DatabaseId::new("d1").unwrap()), ..page };
    assert_eq!(
        text(|out| page.encode(out)),
        r#"{"type":"batch","metadata":{"database":"d1","epoch":"e2","from":{"epoch":"e1","seq":7,"resume":{"epoch":"e2","seq":9}},"lastMutation":17},"messages":[]}"#
    );
    let todos = Collection::new("to/dos").unwrap();
    let query =
        PageQuery { from, limit: Some(5), page_bytes: Some(4096), client_id: Some(client("c 1")) };
    assert_eq!(
        query.target(&todos),
        "/sync/to%2Fdos?epoch=e1&seq=7&resume=delta%3Ae2%3A9&limit=5&pageBytes=4096&clientId=c%201"
    );
    assert_eq!(PageQuery::default().target(&todos), "/sync/to%2Fdos?epoch=");
}

#[test]
fn queries_of_level_1_are_told_apart() {
    assert_eq!(PageQuery::parse([("since", "x"), ("limit", "3")]), Ok(None));
    assert_eq!(PageQuery::parse([("epoch", ""), ("seq", "")]), Ok(Some(PageQuery::default())));
    for bad in [
        [("epoch", "e"), ("seq", "")],
        [("epoch", ""), ("seq", "1")],
        [("epoch", "e"), ("seq", "-1")],
        [("epoch", "e"), ("seq", "9007199254740992")],
        [("epoch", ""), ("limit", "many")],
        [("epoch", ""), ("resume", "delta")],
        [("epoch", ""), ("resume", "delta:e")],
        [("epoch", ""), ("resume", "delta:e:x")],
        [("epoch", ""), ("resume", "delta::1")],
        [("epoch", ""), ("resume", "snapshot:e:1")],
        [("epoch", ""), ("resume", "snapshot:e:1:")],
        [("epoch", ""), ("resume", "other:e:1")],
        [("epoch", ""), ("clientId", "\n")],
    ] {
        assert!(PageQuery::parse(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn a_write_that_makes_no_sense_is_told_by_itself() {
    let body = br#"{"clientId":"c","session":1,"epoch":"e","mutations":[
        {"type":"delete","collection":"t","recordId":"r","metadata":{"mutation":1}},
        {"type":"insert","collection":"t","recordId":"r","metadata":{"mutation":2}},
        {"type":"delete","collection":"t","recordId":"r"},
        {"type":"ping"}, 1]}"#;
    let push = decode_push(body, &Limits::default()).unwrap();
    let errors: Vec<_> = push.mutations.iter().map(|m| m.as_ref().err()).collect();
    assert!(errors[0].is_none());
    assert_eq!(errors[1].unwrap().mutation, Some(MutationNumber(2)));
    for error in &errors[2..] {
        assert_eq!(error.unwrap().mutation, None);
    }
    let body = br#"{"clientId":"c","session":1,"epoch":"e","mutations":[
        {"atomic":[{"type":"delete","collection":"t","recordId":"r","metadata":{"mutation":1}},
                   {"type":"insert","collection":"t","recordId":"s","metadata":{"mutation":2}}]},
        {"atomic":7}]}"#;
    let push = decode_push(body, &Limits::default()).unwrap();
    let error = push.mutations[0].as_ref().unwrap_err();
    assert_eq!((error.mutation, error.member), (Some(MutationNumber(1)), Some(MutationNumber(2))));
    assert_eq!(push.mutations[1].as_ref().unwrap_err().mutation, None);
    for bad in [
        "",
        "[]",
        "{}",
        r#"{"clientId":"c","session":1,"epoch":"e"}"#,
        r#"{"clientId":"c","session":1,"mutations":[]}"#,
        r#"{"clientId":"c","epoch":"e","mutations":[]}"#,
        r#"{"clientId":"","session":1,"epoch":"e","mutations":[]}"#,
    ] {
        assert!(decode_push(bad.as_bytes(), &Limits::default()).is_err(), "{bad}");
    }
    let small = Limits { frame_bytes: 10, ..Limits::default() };
    let error = decode_push(body, &small).unwrap_err();
    assert_eq!(error.code, ErrorCode::PayloadTooLarge);
}

#[test]
fn a_refusal_is_told_from_a_foreign_page() {
    let limits = &Limits::default();
    let body = br#"{"error":"slow down","code":"RATE_LIMIT_EXCEEDED","retryAfterMs":1500}"#;
    let error = refusal(body, limits).unwrap();
    assert_eq!(error.code, ErrorCode::RateLimitExceeded);
    assert_eq!((error.message.as_str(), error.retry_after_ms), ("slow down", Some(1500)));
    for foreign in [&b"<html>"[..], b"", b"{}", b"\xff", br#"{"error":"not found"}"#] {
        assert_eq!(refusal(foreign, limits), None);
    }
}

fn froms() -> impl Strategy<Value = PageFrom> {
    let rights = prop::option::of(rights_tags());
    (prop::option::of(cursors()), prop::option::of(resumes()), rights, sets()).prop_map(
        |(cursor, resume, rights, (set, scopes))| PageFrom { cursor, resume, rights, set, scopes },
    )
}

proptest! {
    #[test]
    fn queries_come_back(
        from in froms(),
        limit in prop::option::of(0_usize..2000),
        page_bytes in prop::option::of(0_usize..1 << 40),
        client_id in prop::option::of(client_ids()),
    ) {
        let query = PageQuery { from, limit, page_bytes, client_id };
        let target = query.target(&Collection::new("todos").unwrap());
        let from = PageFrom { set: None, scopes: Vec::new(), ..query.from.clone() };
        prop_assert_eq!(parsed(&parameters(&target)), Ok(Some(PageQuery { from, ..query.clone() })));
        let collection = Collection::new("a/../b ä").unwrap();
        let body = text(|out| encode_pull(&collection, &query, out));
        let read = decode_pull(body.as_bytes(), &Limits::default());
        prop_assert_eq!(read, Ok((collection, query)));
    }

    #[test]
    fn bodies_come_back(
        from in froms(),
        database in databases(),
        epoch in epochs(),
        client_id in client_ids(),
        last in prop::option::of(0_u64..1 << 53),
        messages in prop::collection::vec(server_messages(), 0..4),
        writes in prop::collection::vec(
            prop_oneof![
                numbered_writes().prop_map(Submission::One),
                units().prop_map(Submission::Unit),
            ],
            0..4,
        ),
    ) {
        let limits = &Limits::default();
        let session = SessionNumber(last.unwrap_or(1));
        let hello = Hello { client_id: client_id.clone(), session };
        let body = text(|out| encode_session(&hello, out));
        prop_assert_eq!(decode_session(body.as_bytes(), limits), Ok(hello));

        let last_mutation = last.map(MutationNumber);
        let page = PageAnswer {
            database,
            epoch: epoch.clone(),
            from,
            last_mutation,
            messages: messages.clone(),
        };
        let body = text(|out| page.encode(out));
        prop_assert_eq!(PageAnswer::decode(body.as_bytes(), limits), Ok(page));

        let answer = PushAnswer { last_mutation: last_mutation.unwrap_or_default(), verdicts: messages };
        let body = text(|out| answer.encode(out));
        prop_assert_eq!(PushAnswer::decode(body.as_bytes(), limits), Ok(answer));

        let head = PushHead { client_id, session, epoch };
        let frames: Vec<_> = writes.iter().map(|write| match write {
            Submission::One(write) => {
                text(|out| super::super::ClientMessage::Write(write.clone()).encode(out))
            }
            Submission::Unit(unit) => {
                let member = |member: &Member| text(|out| member.encode(out));
                text(|out| encode_atomic(unit.members.iter().map(member), out))
            }
        }).collect();
        let body = text(|out| encode_push(&head, &frames, out));
        let mutations = writes.into_iter().map(Ok).collect();
        prop_assert_eq!(decode_push(body.as_bytes(), limits), Ok(Push { head, mutations }));
    }

    #[test]
    fn nothing_that_is_read_panics(body in ".{0,200}") {
        let limits = &Limits::default();
        let _ = decode_session(body.as_bytes(), limits);
        let _ = decode_push(body.as_bytes(), limits);
        let _ = PushAnswer::decode(body.as_bytes(), limits);
        let _ = PageAnswer::decode(body.as_bytes(), limits);
        let _ = refusal(body.as_bytes(), limits);
        let _ = PageQuery::parse([("epoch", ""), ("resume", body.as_str())]);
    }
}
