//! Rights that change between a call and its reply.

use std::boxed::Box;

use super::*;
use crate::protocol::name::{ClientId, SessionNumber};
use crate::rules::transaction::tests::client;

/// Lets a call come while everything may be seen, and its reply leave when nothing may.
fn outrun(method: &str, target: &str, body: &str, then: &dyn Policy) -> (u16, String) {
    let (store, limits) = (&mut Store::new(), ServerLimits::default());
    store.plain_to("a", insert("{\"n\":1,\"secret\":1}"));
    store.plain_to("a", update("{\"n\":2}"));
    let session = SessionNumber(1);
    store.commit(&Transaction::Hello { client: client("c"), user: None, session });
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let request = Request { method, path, query, body: body.as_bytes(), user: None };
    let reply = match request.call(&limits, &AllowAll) {
        Call::Immediate(reply) => reply,
        Call::Transact(write) => {
            let answer = store.commit_with(write.transaction(), &AllowAll);
            write.reply(store.now, &limits, then, Ok(answer))
        }
        Call::Read(read) => {
            let found = read.request().run(&store.rows, &AllowAll);
            read.reply(then, found)
        }
    };
    (reply.status, String::from_utf8(reply.body).unwrap())
}

#[test]
fn a_reply_shows_nothing_by_earlier_rights() {
    let push = |base: u64| {
        format!(
            r#"{{"clientId":"{}","session":1,"epoch":"e1","mutations":[{{"type":"update","collection":"todos","recordId":"a","data":{{"n":3}},"metadata":{{"mutation":1,"base":{base}}}}}]}}"#,
            ClientId::clone(&client("c"))
        )
    };
    let patch = r#"{"delta":{"n":3},"baseVersion":1}"#;
    let calls: [(&str, &str, Box<str>, u16, u16); 6] = [
        ("GET", "/sync/todos", "".into(), 200, 503),
        ("GET", "/sync/todos/a", "".into(), 200, 503),
        ("GET", "/sync/todos?epoch=", "".into(), 200, 503),
        ("POST", PULL_PATH, r#"{"collection":"todos"}"#.into(), 200, 503),
        ("PATCH", "/sync/todos/a", patch.into(), 409, 500),
        ("POST", PUSH_PATH, push(1).into(), 200, 200),
    ];
    for (method, target, body, same, other) in calls {
        let (status, shown) = outrun(method, target, &body, &AllowAll);
        assert_eq!((status, shown.contains("secret")), (same, true), "{target}: {shown}");
        let (status, shown) = outrun(method, target, &body, &Nobody);
        assert_eq!((status, shown.contains("secret")), (other, false), "{target}: {shown}");
        assert!(shown.contains("\"code\":\"SERVER_ERROR\""), "{target}: {shown}");
        assert!(shown.contains("the rights of this user have changed"), "{target}: {shown}");
    }
    // what was applied counts, and its ack tells nothing of the record
    let (status, shown) = outrun("POST", PUSH_PATH, &push(0).replace(",\"base\":0", ""), &Nobody);
    assert_eq!((status, shown.contains("\"type\":\"ack\"")), (200, true), "{shown}");
    assert!(!shown.contains("\"data\"") && !shown.contains("recordSeq"), "{shown}");
}
