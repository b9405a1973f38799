use alloc::collections::BTreeMap;
use core::time::Duration;

use super::*;
use crate::rules::scope::ScopeKey;
use crate::rules::transaction::tests::todos;
use crate::rules::transaction::{Sweep, SweepPlace};

fn declare(store: &mut Store, keys: &[&str]) {
    let keys: Vec<ScopeKey> = keys.iter().map(|key| key.parse().unwrap()).collect();
    store.commit(&Transaction::DeclareScopes(BTreeMap::from([(todos(), keys)])));
}

fn put(store: &mut Store, id: &str, json: &str) {
    store.plain_to(id, insert(json));
}

#[test]
fn a_scope_is_read_by_its_key() {
    let store = &mut Store::new();
    declare(store, &["room", "members[]", "project+status"]);
    put(store, "3", r#"{"room":"42","project":"p","status":1}"#);
    put(store, "1", r#"{"room":"42","members":["ann","bob"]}"#);
    put(store, "2", r#"{"room":42,"members":["bob"]}"#);
    put(store, "4", r#"{"room":"42","n":4}"#);
    store.plain_to("4", Change::delete());
    assert_eq!(found(store, "scope[room]=42"), ["1", "3"], "in the order of their ids");
    assert_eq!(found(store, "scope[room]:=42.0"), ["2"], "a number by its value");
    assert_eq!(found(store, "scope%5Bmembers%5B%5D%5D=bob"), ["1", "2"]);
    assert_eq!(found(store, "scope[status]:=1&scope[project]=p"), ["3"]);
    for nobody in ["scope[room]=none", "scope[room]:=[42]", "scope[room]:=null"] {
        assert!(found(store, nobody).is_empty(), "{nobody}");
    }
    // with the other parameters
    assert_eq!(found(store, "scope[room]=42&limit=1&offset=1"), ["3"]);
    assert_eq!(found(store, "scope[room]=42&since=1970-01-01T00:00:00Z"), ["3", "1"]);
    assert_eq!(found(store, "scope[room]=42&where[project]=p"), ["3"]);
    assert_eq!(found(store, "scope[room]=42&orderBy=-project"), ["3", "1"]);
    let (_, page) = ask(store, "GET", "/sync/todos?scope[room]=42&orderBy=project&limit=1", "");
    assert!(page.contains("\"next\":"), "{page}");
}

#[test]
fn what_is_no_scope_key_is_refused() {
    let store = &mut Store::new();
    declare(store, &["room", "project+status"]);
    put(store, "1", "{}");
    for query in
        ["scope[text]=1", "scope[project]=1", "scope[room]=1&scope[room]=2", "scope[members[]]=1"]
    {
        let (status, body) = ask(store, "GET", &format!("/sync/todos?{query}"), "");
        assert_eq!(status, 400, "{query}: {body}");
        assert!(body.contains("has no scope key"), "{body}");
    }
    let (status, body) = ask(store, "GET", "/sync/todos?scope[room]:=x", "");
    assert_eq!((status, body.contains("not JSON")), (400, true), "{body}");
    let tiny = ServerLimits { answer_bytes: 10, ..ServerLimits::default() };
    for query in ["scope[room]=1", "scope[room]=1&orderBy=n"] {
        put(store, "2", r#"{"room":"1"}"#);
        let target = format!("/sync/todos?{query}");
        assert_eq!(ask_with(store, &AllowAll, &tiny, "GET", &target, "").status, 413);
    }
}

#[test]
fn scopes_that_are_being_built_are_answered_later() {
    let store = &mut Store::new();
    for id in ["1", "2", "3"] {
        put(store, id, r#"{"room":"42"}"#);
    }
    declare(store, &["room"]);
    let mut from = Some(SweepPlace::Start);
    let mut refused = 0;
    while let Some(place) = from.take() {
        let reply = ask_with(
            store,
            &AllowAll,
            &ServerLimits::default(),
            "GET",
            "/sync/todos?scope[room]=42",
            "",
        );
        if reply.status == 503 {
            refused += 1;
            assert!(reply.headers.contains(&("retry-after", "1".into())));
            let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
            assert_eq!(
                (&body["code"], &body["retryAfterMs"], &body["collection"]),
                (&"SERVER_ERROR".into(), &1000.into(), &"todos".into())
            );
            // writes meanwhile
            store.plain_to(
                &format!("{}", refused % 3 + 1),
                update(&format!(r#"{{"n":{refused}}}"#)),
            );
        } else {
            assert_eq!(reply.status, 200);
        }
        let sweep = Sweep { retention: Duration::MAX, from: place, budget: 2 };
        let answer = store.commit(&Transaction::Sweep(sweep));
        let TransactionAnswer::Swept(swept) = answer else { panic!("{answer:?}") };
        from = swept.next;
        assert!(refused < 100, "it is never built");
    }
    assert!(refused > 1, "{refused}");
    assert_eq!(found(store, "scope[room]=42"), ["1", "2", "3"]);
}

#[test]
fn a_policy_holds_within_a_scope() {
    struct Own;
    impl Policy for Own {
        fn read(&self, _: Option<&UserId>, _: &Collection) -> Access {
            Access::Some
        }
        fn read_record(
            &self,
            _: Option<&UserId>,
            _: &Collection,
            id: &RecordId,
            _: &Document,
        ) -> bool {
            &**id == "1"
        }
    }
    let store = &mut Store::new();
    declare(store, &["room"]);
    put(store, "1", r#"{"room":"42"}"#);
    put(store, "2", r#"{"room":"42","secret":1}"#);
    for query in ["scope[room]=42", "scope[room]=42&orderBy=secret"] {
        let target = format!("/sync/todos?{query}");
        let reply = ask_with(store, &Own, &ServerLimits::default(), "GET", &target, "");
        let body = String::from_utf8(reply.body).unwrap();
        assert!(body.contains("\"1\"") && !body.contains("secret"), "{body}");
    }
}

/// Its rights look at other records.
struct Looking;

impl Policy for Looking {
    fn read(&self, _: Option<&UserId>, _: &Collection) -> Access {
        Access::Related
    }

    fn stamp(&self, _: &Asker<'_>, _: &Collection) -> u64 {
        7
    }
}

/// Pulls a set of two scopes until it is in step, at most ten times. Returns what was pulled, briefly.
fn pull_all(store: &mut Store) -> Vec<String> {
    let scope = |name: &str, place: &str| format!(r#"{{"by":["room"],"is":["{name}"]{place}}}"#);
    let (mut from, mut told) = (String::new(), Vec::new());
    let mut places = [",\"new\":true", ",\"new\":true"];
    for _ in 0..10 {
        let scopes = [("1", places[0]), ("2", places[1])].map(|(name, place)| scope(name, place));
        let body = format!(
            r#"{{"collection":"todos","set":1,"limit":1,"scopes":[{}]{from}}}"#,
            scopes.join(",")
        );
        let limits = ServerLimits::default();
        let reply = ask_with(store, &Looking, &limits, "POST", PULL_PATH, &body);
        let page: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        for message in page["messages"].as_array().unwrap() {
            let scope = message["metadata"]["scope"]["is"][0].as_str().unwrap_or_default();
            let mode = message["metadata"]["mode"].as_str().unwrap_or_default();
            told.push(format!("{} {scope}{mode}", message["type"].as_str().unwrap()));
            match scope {
                "1" => places[0] = "",
                "2" => places[1] = "",
                _ => {}
            }
        }
        if told.last().is_some_and(|last| last.starts_with("synced")) {
            return told;
        }
        from = r#","cursor":{"epoch":"e1","seq":2},"rights":"0000000000000007""#.into();
    }
    told
}

#[test]
fn a_set_that_is_pulled_is_loaded_whatever_its_rights_look_at() {
    let store = &mut Store::new();
    declare(store, &["room"]);
    put(store, "a", r#"{"room":"1"}"#);
    put(store, "b", r#"{"room":"2"}"#);
    let first = ["subscribed snapshot", "sync 1", "subscribed delta", "sync 2", "synced "];
    assert_eq!(pull_all(store), first);
}
