//! Obstacles on the way: portals that answer in the server's place, proxies that take paths for
//! what they are not, and connections that die unnoticed while a device sleeps.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use synclayer_core::protocol::percent;
use synclayer_tokio::{EventKind, Fate, SyncLayer, Transports};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::common::{Device, Host, soon, told, until};

/// The behaviour of a way towards connections.
#[derive(Clone, Copy, Debug)]
enum Mode {
    /// They lead to the server.
    Pass,
    /// They are answered here, with this status and body.
    Answer(&'static str, &'static str),
    /// Requests lead to the server, each with a connection of its own and with its path made normal,
    /// as nginx does. `old` makes the server say that it has no calls with names in their bodies.
    Normalise { old: bool },
}

/// A way to the server that carries bytes, whatever they are.
struct Way {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    /// Counts how often the connections that there are were cut.
    cuts: watch::Sender<u64>,
    /// Counts how often they were forgotten: nothing gets through any more, and nobody is told.
    deaths: watch::Sender<u64>,
}

impl Way {
    async fn to(server: SocketAddr) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let way = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            mode: watch::channel(Mode::Pass).0,
            cuts: watch::channel(0).0,
            deaths: watch::channel(0).0,
        });
        let shared = Arc::clone(&way);
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                tokio::spawn(Arc::clone(&shared).carry(client, server));
            }
        });
        way
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on; what there was is cut.
    fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    async fn carry(self: Arc<Self>, mut client: TcpStream, server: SocketAddr) {
        let (mut cut, mut death) = (self.cuts.subscribe(), self.deaths.subscribe());
        let mode = *self.mode.borrow();
        if let Mode::Answer(status, body) = mode {
            let mut asked = [0; 4096];
            let _ = client.read(&mut asked).await;
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
            let _ = client.write_all(answer.as_bytes()).await;
            return;
        }
        let Ok(mut upstream) = TcpStream::connect(server).await else { return };
        if let Mode::Normalise { old } = mode {
            tokio::select! {
                _ = normalise(&mut client, &mut upstream, old) => {}
                _ = cut.changed() => {}
            }
            return;
        }
        tokio::select! {
            _ = copy_bidirectional(&mut client, &mut upstream) => return,
            _ = cut.changed() => return,
            _ = death.changed() => {}
        }
        // both ends stay open until the connection is cut
        let _ = cut.changed().await;
    }
}

/// Carries one request and its answer.
async fn normalise(
    client: &mut TcpStream,
    upstream: &mut TcpStream,
    old: bool,
) -> std::io::Result<()> {
    let mut asked = Vec::new();
    let end = loop {
        if client.read_buf(&mut asked).await? == 0 {
            return Ok(());
        }
        if let Some(end) = asked.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break end;
        }
    };
    let head = str::from_utf8(&asked[..end]).expect("a head is text");
    let mut lines = head.split("\r\n");
    let request: Vec<_> = lines.next().unwrap().split(' ').collect();
    let [method, target, version] = request[..] else { panic!("not a request: {head}") };
    let mut passed = format!("{method} {} {version}\r\nConnection: close\r\n", normal(target));
    for line in lines.filter(|line| !line.to_ascii_lowercase().starts_with("connection:")) {
        passed.push_str(&format!("{line}\r\n"));
    }
    passed.push_str("\r\n");
    upstream.write_all(passed.as_bytes()).await?;
    upstream.write_all(&asked[end + 4..]).await?;
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = upstream.split();
    let mut answer = Vec::new();
    tokio::select! {
        read = from_server.read_to_end(&mut answer) => read?,
        // the rest of the request; the end of it is not the end of the connection
        _ = async {
            let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
            std::future::pending::<()>().await
        } => unreachable!(),
    };
    let (offer, other) = (b"\"features\":[\"pull\"]", b"\"features\":[\"none\"]");
    if let Some(at) = answer.windows(offer.len()).position(|bytes| bytes == offer)
        && old
    {
        answer[at..at + other.len()].copy_from_slice(other);
    }
    to_client.write_all(&answer).await
}

/// The target of a request as nginx passes it on: decoded, with steps taken and slashes merged, and
/// encoded again.
fn normal(target: &str) -> String {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let path = percent::decode(path, false).expect("a path is text");
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
        percent::encode(segment, &mut out);
    }
    if out.is_empty() || path.ends_with(['/', '.']) {
        out.push('/');
    }
    if query.is_empty() { out } else { format!("{out}?{query}") }
}

async fn device(host: &Host, way: &Way, transports: Transports) -> Device {
    Device::with(host, |config| {
        config.base_url = way.url();
        config.transports = transports;
        config.probe_timeout = Duration::from_millis(500);
    })
    .await
}

fn server_of(host: &Host) -> SocketAddr {
    host.target.get().expect("the server runs")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_portal_on_the_way_is_outlived() {
    let html = "<html>log in</html>";
    for (status, body) in [
        ("403 Forbidden", html),
        ("401 Unauthorized", html),
        ("404 Not Found", r#"{"message":"no route matched"}"#),
        ("200 OK", html),
        ("413 Payload Too Large", html),
    ] {
        for transports in [Transports::RealtimeOnly, Transports::PollOnly, Transports::Both] {
            let host = Host::start().await;
            let way = Way::to(server_of(&host)).await;
            let mut device = device(&host, &way, transports).await;
            device.todos.save_with_id("before", &json!({"n": 1})).await.unwrap();
            device.synced().await;
            way.set(Mode::Answer(status, body));
            device.todos.save_with_id("meanwhile", &json!({"n": 2})).await.unwrap();
            device.todos.delete("before").await.unwrap();
            let refuses = status.starts_with("401") || status.starts_with("403");
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
            way.set(Mode::Pass);
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
    let way = Way::to(server_of(&host)).await;
    let device = device(&host, &way, Transports::RealtimeOnly).await;
    let other = Device::new(&host).await;
    device.synced().await;
    for call in ["set_online", "sync_now"] {
        way.deaths.send_modify(|deaths| *deaths += 1);
        other.todos.save_with_id(call, &json!({})).await.unwrap();
        other.synced().await;
        let sync: &SyncLayer = &device.sync;
        match call {
            "set_online" => sync.set_online(true).await.unwrap(),
            _ => sync.sync_now().await.unwrap(),
        }
        // well before a ping would have been sent, let alone missed
        let mut watch = device.todos.watch();
        let seen = until(&mut watch, |update| update.snapshot.iter().any(|r| &*r.id == call));
        soon("that the record is there", seen).await;
    }
}

/// Names that a path can't carry through a proxy that makes paths normal. The last would lead to
/// another collection of them.
const AWKWARD: [&str; 6] = ["a/b", "a//b", ".", "..", "50%2F", "x/../todos"];

async fn poller(host: &Host, way: &Way) -> Device {
    Device::with(host, |config| {
        config.base_url = way.url();
        config.transports = Transports::PollOnly;
        config.collections.extend(AWKWARD.map(String::from));
    })
    .await
}

/// Saves a record in each collection.
async fn save_everywhere(device: &Device, id: &str) {
    for name in AWKWARD.into_iter().chain(["todos"]) {
        let collection = device.sync.collection(name).unwrap();
        collection.save_with_id(id, &json!({ "of": name })).await.unwrap();
    }
}

/// In each collection are these records, and they are its own.
async fn holds_everywhere(device: &Device, ids: &[&str]) {
    for name in AWKWARD.into_iter().chain(["todos"]) {
        let records = device.sync.collection(name).unwrap().get_all().await.unwrap();
        let found: Vec<_> = records.iter().map(|record| record.id.as_str()).collect();
        assert_eq!(found, ids, "{name}");
        let of = json!(name).to_string();
        assert!(records.iter().all(|record| record.document.get("of") == Some(&*of)), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_travels_through_a_proxy_that_makes_paths_normal() {
    let host = Host::start().await;
    let way = Way::to(server_of(&host)).await;
    way.set(Mode::Normalise { old: false });
    let (a, b) = (poller(&host, &way).await, poller(&host, &way).await);
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
    let way = Way::to(server_of(&host)).await;
    way.set(Mode::Normalise { old: false });
    let a = poller(&host, &way).await;
    save_everywhere(&a, "of-a").await;
    a.synced().await;
    way.set(Mode::Normalise { old: true });
    let mut b = poller(&host, &way).await;
    let sync = b.sync.clone();
    let synced = tokio::spawn(async move { sync.synced().await });
    // "50%2F" gets through, once encoded
    let lost: BTreeSet<_> = AWKWARD.into_iter().filter(|name| *name != "50%2F").collect();
    let mut failed = BTreeSet::new();
    soon("that each is asked for in vain", async {
        while failed.len() < lost.len() {
            let event = b.events.next().await.unwrap();
            if let EventKind::SyncFailed { .. } = event.kind {
                failed.extend(event.collection.map(|name| name.to_string()));
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
    way.set(Mode::Normalise { old: false });
    soon("being synced", synced).await.unwrap().unwrap();
    b.todos.delete("of-b").await.unwrap();
    holds_everywhere(&b, &["of-a"]).await;
}
