//! Obstacles on the way: portals that answer in the server's place, proxies that take paths for
//! what they are not, and connections that die unnoticed while a device sleeps.

use std::collections::BTreeSet;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::json;
use synclayer_e2e::host::Host;
use synclayer_e2e::proxy::{Passage, Proxy, Request};
use synclayer_e2e::wait::{shown, soon, told};
use synclayer_tokio::{EventKind, Fate, SyncLayer, Transports};

use crate::common::Device;

/// Sets the rule for each request from now on; what there was is cut.
fn change(proxy: &Proxy, rule: impl FnMut(&Request) -> Passage + Send + 'static) {
    proxy.rule_requests(rule);
    proxy.cut();
}

/// Makes paths normal on their way, as nginx does. `old` makes the server say that it has no calls
/// with names in their bodies.
fn normalise(old: bool) -> impl Fn(&Request) -> Passage {
    move |request| {
        let head = request.head.replacen(&request.path, &normal(&request.path), 1);
        Passage::Rewrite(head, if old { without_pull } else { |answer| answer })
    }
}

fn without_pull(mut answer: Vec<u8>) -> Vec<u8> {
    let (offer, other) = (b"\"features\":[\"pull\",", b"\"features\":[\"none\",");
    if let Some(at) = answer.windows(offer.len()).position(|bytes| bytes == offer) {
        answer[at..at + other.len()].copy_from_slice(other);
    }
    answer
}

/// The encoded characters: all but letters, digits and `-._~`.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The target of a request as nginx passes it on: decoded, with steps taken and slashes merged, and
/// encoded again.
fn normal(target: &str) -> String {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let path = percent_decode_str(path).decode_utf8().expect("a path is text");
    let mut segments = Vec::new();
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        match segment {
            "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    let mut out = String::new();
    for segment in segments {
        out.push('/');
        out.extend(utf8_percent_encode(segment, UNRESERVED));
    }
    if out.is_empty() || path.ends_with(['/', '.']) {
        out.push('/');
    }
    if query.is_empty() { out } else { format!("{out}?{query}") }
}

async fn device(host: &Host, transports: Transports) -> Device {
    Device::with(host, |config| {
        config.transports = transports;
        config.probe_timeout = Duration::from_millis(500);
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_portal_on_the_way_is_outlived() {
    let html = "<html>log in</html>";
    for (status, body) in [
        (403, html),
        (401, html),
        (404, r#"{"message":"no route matched"}"#),
        (200, html),
        (413, html),
    ] {
        for transports in [Transports::RealtimeOnly, Transports::PollOnly, Transports::Both] {
            let host = Host::start().await;
            let mut device = device(&host, transports).await;
            device.todos.save_with_id("before", &json!({"n": 1})).await.unwrap();
            device.synced().await;
            change(&device.proxy, move |_| Passage::Answer(status, "", body));
            device.todos.save_with_id("meanwhile", &json!({"n": 2})).await.unwrap();
            device.todos.delete("before").await.unwrap();
            let refuses = matches!(status, 401 | 403);
            told(&mut device.events, |kind| {
                let token = matches!(kind, EventKind::TokenNeeded { by_server: false, .. });
                let lost = matches!(
                    kind,
                    EventKind::Error { .. } | EventKind::RealtimeDisconnected { .. }
                );
                if refuses { token } else { lost }
            })
            .await;
            let now = device.sync.status().await.unwrap();
            assert_eq!(
                (now.pending_writes, now.rejected_writes),
                (2, 0),
                "{status} {transports:?}"
            );
            // by itself
            change(&device.proxy, |_| Passage::Pass);
            device.synced().await;
            let now = device.sync.status().await.unwrap();
            assert_eq!(
                (now.pending_writes, now.rejected_writes),
                (0, 0),
                "{status} {transports:?}"
            );
            assert!(device.todos.get("before").await.unwrap().is_none());
            assert!(device.todos.get("meanwhile").await.unwrap().is_some());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_died_in_its_sleep_is_noticed_when_the_app_wakes_up() {
    let host = Host::start().await;
    let device = device(&host, Transports::RealtimeOnly).await;
    let other = Device::new(&host).await;
    device.synced().await;
    for call in ["set_online", "sync_now"] {
        device.proxy.forget();
        other.todos.save_with_id(call, &json!({})).await.unwrap();
        other.synced().await;
        let sync: &SyncLayer = &device.sync;
        match call {
            "set_online" => sync.set_online(true).await.unwrap(),
            _ => sync.sync_now().await.unwrap(),
        }
        // well before a ping would have been sent, let alone missed
        let mut watch = device.todos.watch();
        let seen = shown(&mut watch, |update| update.snapshot.iter().any(|r| &*r.id == call));
        soon("that the record is there", seen).await;
    }
}

/// Names that a path can't carry through a proxy that makes paths normal. The last would lead to
/// another collection of them.
pub const AWKWARD: [&str; 6] = ["a/b", "a//b", ".", "..", "50%2F", "x/../todos"];

/// One behind a proxy that makes paths normal.
async fn poller(host: &Host, old: bool) -> Device {
    let device = Device::with(host, |config| {
        config.transports = Transports::PollOnly;
        config.collections.extend(AWKWARD.map(String::from));
        config.connect_at_start = false;
    });
    let device = device.await;
    device.proxy.rule_requests(normalise(old));
    device.sync.connect().await.unwrap();
    device
}

/// Saves a record in each collection.
pub async fn save_everywhere(device: &Device, id: &str) {
    for name in AWKWARD.into_iter().chain(["todos"]) {
        let collection = device.sync.collection(name).unwrap();
        collection.save_with_id(id, &json!({ "of": name })).await.unwrap();
    }
}

/// In each collection are these records, and they are its own.
pub async fn holds_everywhere(device: &Device, ids: &[&str]) {
    for name in AWKWARD.into_iter().chain(["todos"]) {
        let records = device.sync.collection(name).unwrap().get_all().await.unwrap();
        let found: Vec<_> = records.iter().map(|record| record.id.as_str()).collect();
        assert_eq!(found, ids, "{name}");
        let of = json!(name).to_string();
        assert!(records.iter().all(|record| record.document.text("of") == Some(&*of)), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_travels_through_a_proxy_that_makes_paths_normal() {
    let host = Host::start().await;
    let (a, b) = (poller(&host, false).await, poller(&host, false).await);
    save_everywhere(&a, "of-a").await;
    a.synced().await;
    b.synced().await;
    holds_everywhere(&b, &["of-a"]).await;
    save_everywhere(&b, "of-b").await;
    b.synced().await;
    a.synced().await;
    holds_everywhere(&a, &["of-a", "of-b"]).await;
}

/// A server that has no calls with names in their bodies can't be asked for them through such a
/// proxy. The other collections go on, and nobody is told that all is in sync.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_proxy_can_not_carry_is_not_called_in_sync() {
    let host = Host::start().await;
    let a = poller(&host, false).await;
    save_everywhere(&a, "of-a").await;
    a.synced().await;
    let mut b = poller(&host, true).await;
    let sync = b.sync.clone();
    let synced = tokio::spawn(async move { sync.synced().await });
    // "50%2F" gets through, once encoded
    let lost: BTreeSet<_> = AWKWARD.into_iter().filter(|name| *name != "50%2F").collect();
    let mut failed = BTreeSet::new();
    soon("that each is asked for in vain", async {
        while failed.len() < lost.len() {
            let event = b.events.next().await.unwrap();
            if let EventKind::SyncFailed { .. } = event.kind {
                failed.extend(event.kind.collection().map(|name| name.to_string()));
            }
        }
    })
    .await;
    assert!(failed.iter().map(String::as_str).eq(lost));
    // nothing else is held up by it
    let saved = b.todos.save_with_id("of-b", &json!({ "of": "todos" })).await.unwrap();
    assert_eq!(soon("its acknowledgement", saved.confirmed()).await, Ok(Fate::Acknowledged));
    assert!(b.todos.get("of-a").await.unwrap().is_some());
    assert!(!synced.is_finished());
    change(&b.proxy, normalise(false));
    soon("being synced", synced).await.unwrap().unwrap();
    b.todos.delete("of-b").await.unwrap();
    holds_everywhere(&b, &["of-a"]).await;
}
