mod converge;
mod grounds;
mod resumable;
mod scopes;

use alloc::vec;

use super::*;

use crate::protocol::document::Document;
use crate::protocol::limits::Limits;
use crate::protocol::write::Change;
use crate::rules::policy::AllowAll;
use crate::rules::transaction::tests::{Store, insert, unset, update};
use crate::store::StoreErrorKind;

struct Nobody;

impl Policy for Nobody {
    fn read(&self, _: Option<&UserId>, _: &Collection) -> Access {
        Access::None
    }
    fn write(
        &self,
        _: Option<&UserId>,
        _: &Collection,
        _: &RecordId,
        _: Option<&Document>,
        _: &Change,
    ) -> Result<(), String> {
        Err("read only".into())
    }
}

fn ask_with(
    store: &mut Store,
    policy: &dyn Policy,
    limits: &ServerLimits,
    method: &str,
    target: &str,
    body: &str,
) -> Reply {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let request = Request { method, path, query, body: body.as_bytes(), user: None };
    match request.call(limits, policy) {
        Call::Immediate(reply) => reply,
        Call::Transact(write) => {
            let answer = store.commit_with(write.transaction(), policy);
            write.reply(store.now, limits, policy, Ok(answer))
        }
        Call::Read(read) => {
            let answer = read.request().run(&store.rows, policy);
            read.reply(policy, answer)
        }
    }
}

fn ask(store: &mut Store, method: &str, target: &str, body: &str) -> (u16, String) {
    let reply = ask_with(store, &AllowAll, &ServerLimits::default(), method, target, body);
    if reply.status != 204 {
        assert!(reply.headers.contains(&("content-type", "application/json".into())));
        let json: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(json.get("error").is_some(), reply.status >= 400);
        assert_eq!(json.get("code").is_some(), reply.status >= 400);
    }
    (reply.status, String::from_utf8(reply.body).unwrap())
}

/// The ids that a query finds.
fn found(store: &mut Store, query: &str) -> Vec<String> {
    let (status, body) = ask(store, "GET", &format!("/sync/todos?{query}"), "");
    assert_eq!(status, 200, "{body}");
    let json: serde_json::Value = serde_json::from_str(&body).unwrap();
    let records = json["records"].as_array().unwrap();
    records.iter().map(|record| record["recordId"].as_str().unwrap().into()).collect()
}

const AT: &str = "1970-01-01T00:16:40.000Z";

#[test]
fn a_record_is_posted_patched_shown_and_deleted() {
    let store = &mut Store::new();
    let body = r#"{"recordId":"r/1 ä","data":{"a":9007199254740993,"b":null},"timestamp":"2020-01-01T00:00:00"}"#;
    let answer =
        |version| format!(r#"{{"recordId":"r/1 ä","version":{version},"updatedAt":"{AT}"}}"#);
    assert_eq!(ask(store, "POST", "/sync/todos", body), (200, answer(1)));
    let path = "/sync/todos/r%2F1%20%c3%A4";
    assert_eq!(
        ask(store, "PATCH", path, r#"{"delta":{"c":"x"},"baseVersion":1}"#),
        (200, answer(2))
    );
    let record = format!(
        r#"{{"recordId":"r/1 ä","data":{{"a":9007199254740993,"b":null,"c":"x"}},"updatedAt":"{AT}","version":2}}"#
    );
    assert_eq!(
        ask(store, "GET", "/sync/todos", ""),
        (200, format!(r#"{{"records":[{record}],"protocol":2}}"#))
    );
    // one of its fields changed after version 1
    assert_eq!(
        ask(store, "PATCH", path, r#"{"delta":{"c":"y"},"baseVersion":1}"#),
        (
            409,
            format!(
                r#"{{"error":"a field of the delta was changed after `baseVersion`","code":"CONFLICT","record":{record}}}"#
            )
        )
    );
    assert_eq!(ask(store, "PATCH", path, r#"{"delta":{"b":1},"baseVersion":1}"#).0, 200);
    assert_eq!(ask(store, "DELETE", path, ""), (204, String::new()));
    assert_eq!(ask(store, "DELETE", path, ""), (204, String::new()));
    assert_eq!(ask(store, "PATCH", path, r#"{"delta":{}}"#).0, 404);
    assert_eq!(
        ask(store, "GET", "/sync/todos", ""),
        (200, r#"{"records":[],"protocol":2}"#.into())
    );
    assert_eq!(store.published.len(), 4);
}

#[test]
fn what_is_wrong_is_said() {
    let store = &mut Store::new();
    let cases = [
        ("GET", "/", "", 404),
        ("GET", "/sync", "", 404),
        ("GET", "/sync/a/b/c", "", 404),
        ("GET", "/sync/", "", 400),
        ("GET", "/sync/%zz", "", 400),
        ("GET", "/sync/%ff", "", 400),
        ("GET", "/sync/a%00b", "", 400),
        ("GET", "/sync/todos/x", "", 404),
        ("PUT", "/sync/todos/x", "", 405),
        ("PUT", "/sync/todos", "", 405),
        ("GET", "/sync/todos?since=yesterday", "", 400),
        ("GET", "/sync/todos?limit=many", "", 400),
        ("GET", "/sync/todos?offset=-1", "", 400),
        ("GET", "/sync/todos?fields=%", "", 400),
        ("GET", "/sync/todos?epoch=e1", "", 400),
        ("GET", "/sync/todos?epoch=&resume=x", "", 400),
        ("POST", "/sync/session", r#"{"recordId":"r","data":{}}"#, 400),
        ("POST", "/sync/push", r#"{"recordId":"r","data":{}}"#, 400),
        ("PATCH", "/sync/session", "", 405),
        ("POST", "/sync/todos", "", 400),
        ("POST", "/sync/todos", "{}", 400),
        ("POST", "/sync/todos", r#"{"recordId":"r","data":[]}"#, 400),
        ("POST", "/sync/todos", r#"{"recordId":"","data":{}}"#, 400),
        ("POST", "/sync/todos", r#"{"recordId":"r","data":{"a":1,"a":2}}"#, 400),
        ("POST", "/sync/todos", r#"{"recordId":"r","data":{},"timestamp":"soon"}"#, 400),
        ("PATCH", "/sync/todos/r", r#"{"delta":{},"baseVersion":-1}"#, 400),
    ];
    for (method, target, body, status) in cases {
        assert_eq!(ask(store, method, target, body).0, status, "{method} {target} {body}");
    }
    let limits = ServerLimits {
        input: Limits { document_bytes: 10, frame_bytes: 60, ..Limits::default() },
        ..ServerLimits::default()
    };
    for data in [r#"{"a":"12345678"}"#, r#"{"a":"12345678901234567890123456789012345678"}"#] {
        let body = format!(r#"{{"recordId":"r","data":{data}}}"#);
        let reply = ask_with(store, &AllowAll, &limits, "POST", "/sync/todos", &body);
        assert_eq!(reply.status, 413);
    }
    assert_eq!(store.rows.iter().count(), Store::new().rows.iter().count());
    let body = r#"{"recordId":"r","data":{}}"#;
    for (frame_bytes, status) in [(body.len() - 1, 413), (body.len(), 200)] {
        let input = Limits { frame_bytes, ..Limits::default() };
        let limits = ServerLimits { input, ..ServerLimits::default() };
        let reply = ask_with(store, &AllowAll, &limits, "POST", "/sync/todos", body);
        assert_eq!(reply.status, status, "at most {frame_bytes} bytes");
    }
}

#[test]
fn queries_select_project_and_page() {
    let store = &mut Store::new();
    for (id, json) in [
        ("c", r#"{"done":true,"n":1,"s":"1"}"#),
        ("a", r#"{"done":false,"n":2,"s":"x y"}"#),
        ("b", r#"{"done":true,"n":2}"#),
        ("d", r#"{"done":true}"#),
    ] {
        store.plain_to(id, insert(json));
    }
    store.plain_to("d", Change::delete());
    assert_eq!(found(store, ""), ["a", "b", "c"]);
    assert_eq!(found(store, "where[done]=true"), ["b", "c"]);
    assert_eq!(found(store, "where%5Bdone%5D=true&where[n]=2"), ["b"]);
    assert_eq!(found(store, "where[s]=1"), ["c"]);
    assert_eq!(found(store, "where[s]=x+y&unknown=1"), ["a"]);
    assert_eq!(found(store, "where[none]=1"), Vec::<String>::new());
    assert_eq!(found(store, "limit=2"), ["a", "b"]);
    assert_eq!(found(store, "limit=2&offset=1"), ["b", "c"]);
    assert_eq!(found(store, "limit=0"), Vec::<String>::new());
    assert_eq!(found(store, "offset=3"), Vec::<String>::new());
    let data = |store: &mut Store, query: &str| {
        let (_, body) = ask(store, "GET", &format!("/sync/todos?limit=1&{query}"), "");
        let json: serde_json::Value = serde_json::from_str(&body).unwrap();
        json["records"][0]["data"].to_string()
    };
    assert_eq!(data(store, "fields=n,s,none"), r#"{"n":2,"s":"x y"}"#);
    assert_eq!(data(store, "excludeFields=n&excludeFields=s"), r#"{"done":false}"#);
    let limits = ServerLimits { answer_bytes: 250, ..ServerLimits::default() };
    let reply = ask_with(store, &AllowAll, &limits, "GET", "/sync/todos", "");
    assert_eq!(reply.status, 413);
    let reply = ask_with(store, &AllowAll, &limits, "GET", "/sync/todos?limit=1", "");
    assert_eq!(reply.status, 200);
}

#[test]
fn queries_by_condition_and_order_page_by_their_next() {
    let store = &mut Store::new();
    for (id, json) in [
        ("a", r#"{"done":false,"priority":1,"t":"x"}"#),
        ("b", r#"{"done":true,"priority":3}"#),
        ("c", r#"{"done":false,"priority":2.0}"#),
        ("d", r#"{"done":false,"priority":2}"#),
        ("e", r#"{"done":false}"#),
    ] {
        store.plain_to(id, insert(json));
    }
    let condition = |json: &str| {
        let mut text = String::from("where=");
        percent::encode(json, &mut text);
        text
    };
    let open = condition(r#"{"field":"done","isEqualTo":false}"#);
    assert_eq!(found(store, &open), ["a", "c", "d", "e"]);
    assert_eq!(found(store, &format!("{open}&orderBy=-priority")), ["c", "d", "a", "e"]);
    assert_eq!(found(store, &format!("{open}&orderBy=-priority&limit=1")), ["c"]);
    assert_eq!(found(store, &format!("{open}&orderBy=-priority&limit=2&offset=1")), ["d", "a"]);
    assert_eq!(found(store, "orderBy=t,-priority"), ["b", "c", "d", "e", "a"]);
    assert_eq!(
        found(store, &format!("{open}&where[priority]=2")),
        ["d"],
        "plain ones compare texts"
    );
    let urgent = condition(
        r#"{"and":[{"field":"priority",">=":2},{"not":{"field":"done","isEqualTo":true}}]}"#,
    );
    assert_eq!(found(store, &urgent), ["c", "d"]);

    let page = |store: &mut Store, query: &str| {
        let (status, body) = ask(store, "GET", &format!("/sync/todos?{query}"), "");
        assert_eq!(status, 200, "{body}");
        let json: serde_json::Value = serde_json::from_str(&body).unwrap();
        let ids = json["records"].as_array().unwrap().iter();
        let ids: String = ids.map(|record| record["recordId"].as_str().unwrap()).collect();
        (ids, json["next"].as_str().map(String::from), json["records"][0]["data"].to_string())
    };
    let query = format!("{open}&orderBy=-priority&limit=2&fields=t");
    let (ids, next, data) = page(store, &query);
    assert_eq!((&*ids, &*data), ("cd", "{}"), "the order's fields need not be asked for");
    // while others write: the last one goes, and one comes in before it
    store.plain_to("d", Change::delete());
    store.plain_to("f", insert(r#"{"done":false,"priority":9}"#));
    let (ids, none, _) = page(store, &format!("{query}&after={}", next.unwrap()));
    assert_eq!((&*ids, none), ("ae", None));
    let (ids, next, _) = page(store, "where=%7B%22and%22:[]%7D&limit=3");
    assert_eq!(ids, "abc");
    let rest = format!("limit=3&after={}", next.unwrap());
    assert_eq!(page(store, &rest).0, "ef", "without an order, in that of the ids");
    assert_eq!(page(store, &format!("{open}&limit=0")).0, "");
}

#[test]
fn what_is_wrong_with_a_query_is_said() {
    let store = &mut Store::new();
    store.plain_to("a", insert("{}"));
    for (query, message) in [
        ("where=%7B%7D", "`where`: the condition: it names no field"),
        ("orderBy=a..b", "`orderBy`: \\\"a..b\\\" is no path of a field"),
        ("orderBy=a&after=00", "`after`: \\\"00\\\" is no cursor: it is too short"),
        ("orderBy=a&after=0000000061", "of a query with another order"),
        ("orderBy=a&order=b", "there is no parameter `order`"),
        ("limt=3&orderBy=a", "there is no parameter `limt`"),
    ] {
        let (status, body) = ask(store, "GET", &format!("/sync/todos?{query}"), "");
        assert!(status == 400 && body.contains(message), "{query}: {status} {body}");
    }
    let (status, _) = ask(store, "GET", "/sync/todos?limt=3", "");
    assert_eq!(status, 200, "as before");
    let many = vec!["a"; 33].join(",");
    let (status, body) = ask(store, "GET", &format!("/sync/todos?orderBy={many}"), "");
    assert!(status == 400 && body.contains("at most 32"), "{status} {body}");
}

#[test]
fn a_sorted_answer_is_as_large_as_others_may_be() {
    let store = &mut Store::new();
    for n in 0..20 {
        store.plain_to(&format!("r{n:02}"), insert(&format!("{{\"n\":{n}}}")));
    }
    let limits = ServerLimits { answer_bytes: 100, ..ServerLimits::default() };
    let mut ask = |query: &str| {
        let target = format!("/sync/todos?{query}");
        ask_with(store, &AllowAll, &limits, "GET", &target, "").status
    };
    assert_eq!(ask("orderBy=-n"), 413);
    assert_eq!(ask("orderBy=-n&limit=2"), 200, "no more is kept, however many are looked at");
    assert_eq!(ask("orderBy=-n&limit=1&offset=15"), 413);
}

#[test]
fn since_misses_nothing() {
    let store = &mut Store::new();
    for (second, id) in [(1000, "a"), (1001, "b"), (1001, "c"), (1003, "d"), (1002, "e")] {
        store.now = Timestamp(second * 1000);
        store.plain_to(id, insert("{}"));
    }
    // in the order of the changes; times of the server never go back
    assert_eq!(found(store, "since=1970-01-01T00:00:00Z"), ["a", "b", "c", "d", "e"]);
    assert_eq!(found(store, "since=1970-01-01T00:16:41Z"), ["b", "c", "d", "e"]);
    assert_eq!(found(store, "since=1970-01-01T00:16:41.001Z"), ["d", "e"]);
    assert_eq!(found(store, "since=1970-01-01T00:16:43Z"), ["d", "e"]);
    assert_eq!(found(store, "since=1970-01-01T02:16:43%2B02:00"), ["d", "e"]);
    assert_eq!(found(store, "since=1970-01-01T02:16:43+02:00"), ["d", "e"]);
    assert_eq!(found(store, "since=1970-01-01T00:16:44Z"), Vec::<String>::new());
    store.now = Timestamp(1_005_000);
    store.plain_to("a", update("{\"n\":1}"));
    store.plain_to("b", Change::delete());
    assert_eq!(found(store, "since=1970-01-01T00:16:41Z"), ["c", "d", "e", "a"]);
    assert_eq!(found(store, "since=1970-01-01T00:16:41Z&limit=1&offset=1"), ["d"]);
}

#[test]
fn who_may_not_is_told_so() {
    let store = &mut Store::new();
    store.plain_to("r", insert("{}"));
    let limits = ServerLimits::default();
    for (method, target, body) in [
        ("GET", "/sync/todos", ""),
        ("GET", "/sync/todos/r", ""),
        ("POST", "/sync/todos", r#"{"recordId":"r","data":{}}"#),
        ("PATCH", "/sync/todos/r", r#"{"delta":{},"baseVersion":0}"#),
        ("PATCH", "/sync/todos/none", r#"{"delta":{}}"#),
        ("DELETE", "/sync/todos/r", ""),
    ] {
        let reply = ask_with(store, &Nobody, &limits, method, target, body);
        assert_eq!(reply.status, 403, "{method} {target}");
        let body = String::from_utf8(reply.body).unwrap();
        assert!(body.contains("UNAUTHORIZED"), "{body}");
    }
    let reply = Reply::error(ErrorCode::AuthFailed, "no token");
    assert_eq!(reply.status, 401);
    assert!(reply.headers.contains(&("www-authenticate", "Bearer".into())));
    let reply = Reply::slow_down(Duration::from_millis(1500));
    assert_eq!(reply.status, 429);
    assert!(reply.headers.contains(&("retry-after", "2".into())));
    let body = String::from_utf8(Reply::slow_down(Duration::MAX).body).unwrap();
    assert!(body.contains("9007199254740991"), "what every reader takes: {body}");
}

#[test]
fn a_failed_database_is_told_apart_from_a_lost_answer() {
    let write = || {
        let request =
            Request { method: "DELETE", path: "/sync/a/b", query: "", body: b"", user: None };
        match request.call(&ServerLimits::default(), &AllowAll) {
            Call::Transact(write) => write,
            Call::Immediate(_) | Call::Read(_) => panic!(),
        }
    };
    let error = || StoreError::new(StoreErrorKind::Other, "fire");
    let (now, limits) = (Timestamp(0), ServerLimits::default());
    assert_eq!(
        write().reply(now, &limits, &AllowAll, Err(TransactError::Failed(error()))).status,
        503
    );
    assert_eq!(
        write().reply(now, &limits, &AllowAll, Err(TransactError::Unknown(error()))).status,
        500
    );
}

/// An app of SyncLayer 1.7 queues a PATCH, with the version that it knew, beside each live update.
#[test]
fn a_patch_that_would_change_nothing_is_no_conflict() {
    let store = &mut Store::new();
    store.plain_to("r", insert("{\"a\":1}"));
    store.plain_to("r", update("{\"a\":2,\"b\":[1.0]}"));
    let mut patch = |delta: &str, base: u64| {
        let body = format!("{{\"delta\":{delta},\"baseVersion\":{base}}}");
        ask(store, "PATCH", "/sync/todos/r", &body).0
    };
    assert_eq!(patch("{\"a\":2,\"b\":[1.0]}", 1), 200);
    assert_eq!(patch("{\"a\":2}", 9), 200);
    // by value, however another's JSON is written, and a field that is null is none at level 1
    assert_eq!(patch("{\"b\":[ 1 ],\"a\":2.0e0,\"gone\":null}", 1), 200);
    assert_eq!(patch("{\"b\":[1.5]}", 1), 409);
    assert_eq!(patch("{\"a\":3}", 1), 409);
    assert_eq!(patch("{\"a\":2,\"c\":1}", 1), 409);
    assert_eq!(store.published.len(), 2);
}

#[test]
fn one_record_is_read_by_its_path() {
    let store = &mut Store::new();
    store.plain_to("r", insert("{\"a\":1,\"b\":2}"));
    store.plain_to("gone", insert("{}"));
    store.plain_to("gone", Change::delete());
    let record = |data: &str| {
        (200, format!(r#"{{"recordId":"r","data":{data},"updatedAt":"{AT}","version":1}}"#))
    };
    assert_eq!(ask(store, "GET", "/sync/todos/r", ""), record("{\"a\":1,\"b\":2}"));
    assert_eq!(ask(store, "GET", "/sync/todos/r?fields=a&epoch=x", ""), record("{\"a\":1}"));
    for target in ["/sync/todos/none", "/sync/todos/gone", "/sync/none/r"] {
        let (status, body) = ask(store, "GET", target, "");
        assert_eq!(status, 404, "{target}");
        assert!(body.contains("RECORD_NOT_FOUND"), "{body}");
    }
    let limits = ServerLimits { answer_bytes: 4, ..ServerLimits::default() };
    let reply = ask_with(store, &AllowAll, &limits, "GET", "/sync/todos/r", "");
    assert_eq!(reply.status, 413);
}

/// A record that is withheld is answered like one that is not there.
#[test]
fn one_record_is_read_by_those_who_may() {
    struct Withheld;
    impl Policy for Withheld {
        fn read(&self, _: Option<&UserId>, _: &Collection) -> Access {
            Access::Some
        }
        fn read_record(
            &self,
            _: Option<&UserId>,
            _: &Collection,
            _: &RecordId,
            document: &Document,
        ) -> bool {
            document.text("open").is_some()
        }
    }
    let store = &mut Store::new();
    store.plain_to("r", insert("{\"open\":1}"));
    store.plain_to("s", insert("{}"));
    let limits = ServerLimits::default();
    let mut status = |target: &str| ask_with(store, &Withheld, &limits, "GET", target, "").status;
    assert_eq!(status("/sync/todos/r"), 200);
    assert_eq!(status("/sync/todos/s"), 404);
}

#[test]
fn removed_fields_are_not_shown() {
    let store = &mut Store::new();
    store.plain_to("r", insert("{\"a\":1,\"b\":1}"));
    store.plain_to("r", unset("{}", &["a"]));
    let (_, body) = ask(store, "GET", "/sync/todos", "");
    assert!(body.contains(r#""data":{"b":1}"#), "{body}");
}

proptest::proptest! {
    #[test]
    fn no_request_panics(method in "GET|POST|PATCH|DELETE", path in "(/sync)?[/%a-f0-9]{0,12}", query in "[a-z%=&\\[\\]]{0,20}", body in ".{0,30}") {
        let request = Request { method: &method, path: &path, query: &query, body: body.as_bytes(), user: None };
        let _ = request.call(&ServerLimits::default(), &AllowAll);
    }
}

#[test]
fn a_transaction_of_level_1_is_all_or_nothing() {
    let mut store = Store::new();
    store.plain_to("1", insert("{\"a\":1}"));
    let published = store.published.len();
    let mut ask = |body: &str| ask(&mut store, "POST", "/sync/transaction", body);
    let taken = r#"{"writes":[
        {"type":"update","collection":"todos","recordId":"1","data":{"a":2},"baseVersion":1},
        {"type":"insert","collection":"notes","recordId":"n","data":{"b":1}},
        {"type":"delete","collection":"todos","recordId":"never"},
        {"type":"update","collection":"notes","recordId":"n","data":{"b":2}}]}"#;
    let (status, body) = ask(taken);
    assert_eq!(status, 200, "{body}");
    let json: serde_json::Value = serde_json::from_str(&body).unwrap();
    let versions: Vec<_> =
        json["results"].as_array().unwrap().iter().map(|r| &r["version"]).collect();
    assert_eq!(serde_json::to_string(&versions).unwrap(), "[2,1,null,2]");
    assert_eq!(json["results"][1]["collection"], "notes");
    assert!(json["results"][2]["updatedAt"].is_string());

    for (body, status, failed) in [
        (
            r#"{"writes":[{"type":"insert","collection":"todos","recordId":"2","data":{}},
                {"type":"update","collection":"todos","recordId":"1","data":{"a":3},"baseVersion":1},
                {"type":"update","collection":"todos","recordId":"never","data":{}}]}"#,
            409,
            r#"[{"index":1,"code":"CONFLICT"},{"index":2,"code":"RECORD_NOT_FOUND"}]"#,
        ),
        (
            r#"{"writes":[{"type":"update","collection":"todos","recordId":"never","data":{}}]}"#,
            404,
            r#"[{"index":0,"code":"RECORD_NOT_FOUND"}]"#,
        ),
        (
            r#"{"writes":[{"type":"delete","collection":"todos","recordId":"1"},
                {"type":"upsert","collection":"todos","recordId":"2","data":{}}]}"#,
            400,
            r#"[{"index":1,"code":"INVALID_MESSAGE"}]"#,
        ),
        (
            r#"{"writes":[{"type":"insert","collection":"todos","recordId":"2"}]}"#,
            400,
            r#"[{"index":0,"code":"INVALID_MESSAGE"}]"#,
        ),
    ] {
        let (told, answer) = ask(body);
        assert_eq!(told, status, "{answer}");
        assert!(answer.ends_with(&alloc::format!(r#","failed":{failed}}}"#)), "{answer}");
    }
    for body in ["{}", r#"{"writes":[]}"#, r#"{"writes":7}"#, "x"] {
        assert_eq!(ask(body).0, 400, "{body}");
    }
    let many: Vec<_> = (0..257)
        .map(|n| alloc::format!(r#"{{"type":"delete","collection":"todos","recordId":"{n}"}}"#))
        .collect();
    assert_eq!(ask(&alloc::format!(r#"{{"writes":[{}]}}"#, many.join(","))).0, 413);

    // three changes, published as one unit
    let joined: Vec<_> = store.published[published..].iter().map(|change| change.joined).collect();
    assert_eq!(joined, [false, true, true]);
    assert_eq!(store.record("2"), None);
}
