//! Two devices of ours and a backend that knows nothing of us.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::FutureExt as _;
use serde_json::{Value, json};
use synclayer_e2e::peer::Peer;
use synclayer_e2e::wait::TIMEOUT;
use synclayer_tokio::{
    Collection, Guarantees, PlainServers, Snapshot, SyncConfig, SyncLayer, Transports, Watch,
};
use tokio::time::timeout;

use crate::support::{Backend, Kind, http};

against_each! {
    two_devices_converge_over_websocket_alone;
    two_devices_converge_over_http_alone;
    two_devices_converge_while_the_websocket_is_cut;
    a_clumsy_websocket_is_no_obstacle;
    a_clumsy_http_is_no_obstacle;
    what_is_only_relayed_arrives_by_http;
    offline_writes_arrive;
    deletes_are_noticed;
    rows_that_move_are_not_missed;
    nothing_is_applied_twice_with_a_visible_effect;
    both_edit_one_record;
    whatever_they_do_they_converge;
    what_it_guarantees_is_said;
}

/// A running client.
struct Device {
    client: SyncLayer,
    todos: Collection,
}

impl Device {
    async fn open(config: SyncConfig) -> Self {
        let client = SyncLayer::open(config).await.unwrap();
        let todos = client.collection("todos").unwrap();
        Self { client, todos }
    }

    async fn save(&self, id: &str, document: Value) {
        self.todos.save_with_id(id, &document).await.unwrap();
    }

    async fn update(&self, id: &str, fields: Value) {
        self.todos.update(id, &fields).await.unwrap();
    }

    /// Waits until it shows this, and nothing waits to be sent.
    async fn shows(&self, wanted: &Value) {
        let mut watch = self.todos.watch();
        let mut last = None;
        let found = async {
            loop {
                let snapshot = watch.next().await.expect("the watch goes on").snapshot;
                let shown = (contents(&snapshot), snapshot.pending());
                if shown == (wanted.clone(), false) {
                    return;
                }
                last = Some(shown);
            }
        };
        let found = timeout(TIMEOUT, found).await;
        assert!(found.is_ok(), "{wanted} was not shown; the last was {last:?}");
    }
}

fn contents(snapshot: &Snapshot) -> Value {
    let shown = snapshot.iter().map(|record| {
        let document: Value = serde_json::from_str(&record.document.to_string()).unwrap();
        (record.id.as_str().to_owned(), document)
    });
    json!(shown.collect::<BTreeMap<_, _>>())
}

/// Times so short that a test need not wait.
fn config(backend: &Backend) -> SyncConfig {
    SyncConfig::new(format!("http://{}", backend.addr()))
        .collections(["todos"])
        .reconnect_delay(Duration::from_millis(20))
        .sync_interval(Duration::from_millis(300))
        .reconcile_interval(Duration::from_millis(600))
}

fn with(backend: &Backend, transports: Transports) -> SyncConfig {
    config(backend).transports(transports)
}

async fn both(backend: &Backend, config: impl Fn(&Backend) -> SyncConfig) -> (Device, Device) {
    (Device::open(config(backend)).await, Device::open(config(backend)).await)
}

/// Returns the backend's own records, with ids under this name.
async fn stored(backend: &Backend, id_field: &str) -> Value {
    let answer = http(backend, "GET", "/sync/todos", Value::Null).await.json();
    let records = answer.as_array().or_else(|| answer["records"].as_array()).unwrap();
    let of =
        |record: &Value| (record[id_field].as_str().unwrap().to_owned(), record["data"].clone());
    json!(records.iter().map(of).collect::<BTreeMap<_, _>>())
}

/// Waits until the backend has this: a delete that waits to be sent shows nowhere.
async fn holds(backend: &Backend, id_field: &str, wanted: &Value) {
    let arrived = async { while stored(backend, id_field).await != *wanted {} };
    assert!(timeout(TIMEOUT, arrived).await.is_ok(), "{wanted} never arrived");
}

/// A few writes of each that the other sees.
async fn converge(ann: &Device, bob: &Device) {
    ann.save("1", json!({"title": "milk", "done": false})).await;
    ann.save("2", json!({"title": "tea", "done": false})).await;
    let wanted =
        json!({"1": {"title": "milk", "done": false}, "2": {"title": "tea", "done": false}});
    bob.shows(&wanted).await;
    ann.shows(&wanted).await;
    bob.update("1", json!({"done": true})).await;
    bob.save("3", json!({"title": "bread"})).await;
    let wanted = json!({"1": {"title": "milk", "done": true}, "2": {"title": "tea", "done": false},
                        "3": {"title": "bread"}});
    ann.shows(&wanted).await;
    bob.shows(&wanted).await;
    ann.update("1", json!({"title": "oat milk"})).await;
    ann.todos.delete("2").await.unwrap();
    let wanted = json!({"1": {"title": "oat milk", "done": true}, "3": {"title": "bread"}});
    bob.shows(&wanted).await;
    ann.shows(&wanted).await;
}

fn converged() -> Value {
    json!({"1": {"title": "oat milk", "done": true}, "3": {"title": "bread"}})
}

async fn two_devices_converge_over_websocket_alone(kind: Kind) {
    let Some(mut backend) = Backend::start(kind, &["--ws-only"]) else { return };
    let (ann, bob) = both(&backend, |b| with(b, Transports::RealtimeOnly)).await;
    converge(&ann, &bob).await;
    // one that comes later is shown the same
    let eve = Device::open(with(&backend, Transports::RealtimeOnly)).await;
    eve.shows(&converged()).await;
    assert_eq!(backend.stats()["requests"], 0);
}

async fn two_devices_converge_over_http_alone(kind: Kind) {
    let Some(mut backend) = Backend::start(kind, &["--http-only"]) else { return };
    let (ann, bob) = both(&backend, |b| with(b, Transports::PollOnly)).await;
    converge(&ann, &bob).await;
    holds(&backend, "recordId", &converged()).await;
    assert_eq!(backend.stats()["connections"], 0);
}

async fn two_devices_converge_while_the_websocket_is_cut(kind: Kind) {
    let Some(mut backend) = Backend::start(kind, &["--cut-every", "3"]) else { return };
    let (ann, bob) = both(&backend, config).await;
    converge(&ann, &bob).await;
    // many at once
    for n in 0..20 {
        let device = if n % 2 == 0 { &ann } else { &bob };
        device.save(&format!("n{n}"), json!({"n": n})).await;
    }
    let mut wanted = converged();
    for n in 0..20 {
        wanted[format!("n{n}")] = json!({"n": n});
    }
    ann.shows(&wanted).await;
    bob.shows(&wanted).await;
    holds(&backend, "recordId", &wanted).await;
    assert!(backend.stats()["cuts"].as_u64().unwrap() > 2);
}

async fn a_clumsy_websocket_is_no_obstacle(kind: Kind) {
    let flags = [
        "--ws-only",
        "--no-pong",
        "--no-subscribed",
        "--no-version",
        "--no-updated-at",
        "--naive-timestamps",
        "--echo",
    ];
    let Some(backend) = Backend::start(kind, &flags) else { return };
    let silent = |backend: &Backend| {
        with(backend, Transports::RealtimeOnly).plain_servers(PlainServers::Silent)
    };
    let (ann, bob) = both(&backend, silent).await;
    converge(&ann, &bob).await;
}

async fn a_clumsy_http_is_no_obstacle(kind: Kind) {
    let flags = [
        "--http-only",
        "--no-version",
        "--naive-timestamps",
        "--id-field",
        "id",
        "--bare-array",
        "--newest-first",
        "--no-409",
    ];
    for more in [None, Some("--no-updated-at")] {
        let flags: Vec<_> = flags.iter().copied().chain(more).collect();
        let Some(backend) = Backend::start(kind, &flags) else { return };
        let (ann, bob) = both(&backend, |b| with(b, Transports::PollOnly)).await;
        converge(&ann, &bob).await;
        holds(&backend, "id", &converged()).await;
    }
}

async fn what_is_only_relayed_arrives_by_http(kind: Kind) {
    let Some(backend) = Backend::start(kind, &["--ws-relay-only"]) else { return };
    // a poll in between would take away what was relayed and is not stored yet
    let seldom = |backend: &Backend| {
        config(backend).sync_interval(Duration::from_secs(300)).reconcile_interval(None)
    };
    let (ann, bob) = both(&backend, seldom).await;
    converge(&ann, &bob).await;
    holds(&backend, "recordId", &converged()).await;
}

async fn offline_writes_arrive(kind: Kind) {
    for (flags, transports) in [
        (&[][..], Transports::Both),
        (&["--http-only"], Transports::PollOnly),
        (&["--ws-only"], Transports::RealtimeOnly),
    ] {
        let Some(backend) = Backend::start(kind, flags) else { return };
        let (ann, bob) = both(&backend, |b| with(b, transports)).await;
        ann.save("1", json!({"n": 0})).await;
        bob.shows(&json!({"1": {"n": 0}})).await;
        ann.shows(&json!({"1": {"n": 0}})).await;
        ann.client.set_online(false).await.unwrap();
        ann.update("1", json!({"n": 1})).await;
        ann.save("2", json!({"offline": true})).await;
        bob.save("3", json!({"meanwhile": true})).await;
        ann.client.set_online(true).await.unwrap();
        let wanted = json!({"1": {"n": 1}, "2": {"offline": true}, "3": {"meanwhile": true}});
        bob.shows(&wanted).await;
        ann.shows(&wanted).await;
    }
}

async fn deletes_are_noticed(kind: Kind) {
    for (flags, transports) in [
        (&[][..], Transports::Both),
        (&["--http-only"], Transports::PollOnly),
        (&["--ws-only"], Transports::RealtimeOnly),
    ] {
        let Some(backend) = Backend::start(kind, flags) else { return };
        let (ann, bob) = both(&backend, |b| with(b, transports)).await;
        for id in ["1", "2", "3"] {
            ann.save(id, json!({})).await;
        }
        let all = json!({"1": {}, "2": {}, "3": {}});
        bob.shows(&all).await;
        ann.shows(&all).await;
        // one while the other looks, one while it is away
        ann.todos.delete("1").await.unwrap();
        bob.shows(&json!({"2": {}, "3": {}})).await;
        bob.client.set_online(false).await.unwrap();
        ann.todos.delete("2").await.unwrap();
        ann.shows(&json!({"3": {}})).await;
        bob.client.set_online(true).await.unwrap();
        bob.shows(&json!({"3": {}})).await;
    }
}

async fn rows_that_move_are_not_missed(kind: Kind) {
    let flags = ["--http-only", "--newest-first"];
    let Some(backend) = Backend::start(kind, &flags) else { return };
    for n in 0..250 {
        let body = json!({"recordId": format!("{n:03}"), "data": {"n": n}});
        http(&backend, "POST", "/sync/todos", body).await;
    }
    let ann = Device::open(with(&backend, Transports::PollOnly)).await;
    // while it reads, the oldest rows jump to the front
    let mut wanted = serde_json::Map::new();
    for n in 0..250 {
        wanted.insert(format!("{n:03}"), json!({"n": n}));
    }
    for n in 0..50 {
        let path = format!("/sync/todos/{n:03}");
        http(&backend, "PATCH", &path, json!({"delta": {"moved": true}})).await;
        wanted[&format!("{n:03}")] = json!({"n": n, "moved": true});
    }
    ann.shows(&Value::Object(wanted)).await;
}

async fn nothing_is_applied_twice_with_a_visible_effect(kind: Kind) {
    let flags = ["--cut-every", "4", "--echo"];
    let Some(backend) = Backend::start(kind, &flags) else { return };
    let (ann, bob) = both(&backend, config).await;
    ann.save("1", json!({"n": 0})).await;
    bob.shows(&json!({"1": {"n": 0}})).await;
    let mut watches = [ann.todos.watch(), bob.todos.watch()];
    for n in 1..=20 {
        ann.update("1", json!({"n": n})).await;
        if n % 5 == 0 {
            ann.shows(&json!({"1": {"n": n}})).await;
        }
    }
    // the writer never sees its value go back, and neither does the other
    for watch in &mut watches {
        let mut last = 0;
        let rising = async {
            while last < 20 {
                let n = shown_next(watch).await["1"]["n"].as_u64().unwrap();
                assert!(n >= last, "{n} was shown after {last}");
                last = n;
            }
        };
        timeout(TIMEOUT, rising).await.expect("the last value is shown");
    }
    // what is settled stays as it is: to ask for everything again brings no news
    for (device, watch) in [&ann, &bob].into_iter().zip(&mut watches) {
        device.shows(&json!({"1": {"n": 20}})).await;
        timeout(TIMEOUT, device.client.synced()).await.expect("it settles").unwrap();
        while let Some(update) = watch.next().now_or_never().flatten() {
            assert_eq!(contents(&update.snapshot), json!({"1": {"n": 20}}));
        }
    }
}

async fn shown_next(watch: &mut Watch) -> Value {
    contents(&watch.next().await.expect("the watch goes on").snapshot)
}

async fn both_edit_one_record(kind: Kind) {
    for (flags, transports) in
        [(&[][..], Transports::Both), (&["--http-only"], Transports::PollOnly)]
    {
        let Some(backend) = Backend::start(kind, flags) else { return };
        let (ann, bob) = both(&backend, |b| with(b, transports)).await;
        ann.save("1", json!({"a": 0, "b": 0})).await;
        bob.shows(&json!({"1": {"a": 0, "b": 0}})).await;
        ann.shows(&json!({"1": {"a": 0, "b": 0}})).await;
        for device in [&ann, &bob] {
            device.client.set_online(false).await.unwrap();
        }
        ann.update("1", json!({"a": 1})).await;
        bob.update("1", json!({"b": 2})).await;
        for device in [&ann, &bob] {
            device.client.set_online(true).await.unwrap();
        }
        let wanted = json!({"1": {"a": 1, "b": 2}});
        ann.shows(&wanted).await;
        bob.shows(&wanted).await;
        holds(&backend, "recordId", &wanted).await;
    }
}

/// Anything, in any order, now and then without a network.
async fn whatever_they_do_they_converge(kind: Kind) {
    for (seed, flags, transports) in [
        (1, &["--cut-every", "5"][..], Transports::Both),
        (2, &["--cut-every", "7", "--echo", "--no-version"], Transports::Both),
        (3, &["--ws-relay-only", "--naive-timestamps"], Transports::Both),
        (4, &["--http-only", "--newest-first", "--no-updated-at"], Transports::PollOnly),
        (5, &["--http-only", "--id-field", "id", "--no-409"], Transports::PollOnly),
    ] {
        let Some(backend) = Backend::start(kind, flags) else { return };
        let (ann, bob) = both(&backend, |b| with(b, transports)).await;
        let mut random = fastrand::Rng::with_seed(seed);
        for n in 0..80 {
            let device = if random.bool() { &ann } else { &bob };
            act(device, n, &mut random, &backend).await;
        }
        for device in [&ann, &bob] {
            device.client.set_online(true).await.unwrap();
        }
        let id_field = if flags.contains(&"id") { "id" } else { "recordId" };
        let (mut at_ann, mut at_bob) = (ann.todos.watch(), bob.todos.watch());
        let (mut last_of_ann, mut last_of_bob) = (None, None);
        let settled = async {
            loop {
                look(&mut at_ann, &mut last_of_ann);
                look(&mut at_bob, &mut last_of_bob);
                let held = without_nulls(stored(&backend, id_field).await);
                if [&last_of_ann, &last_of_bob].iter().all(|last| last.as_ref() == Some(&held)) {
                    return;
                }
            }
        };
        let settled = timeout(TIMEOUT, settled).await;
        let held = stored(&backend, id_field).await;
        assert!(
            settled.is_ok(),
            "seed {seed}: they did not converge on {held}, but show\n{last_of_ann:?}\n{last_of_bob:?}"
        );
    }
}

/// Does something on a device.
async fn act(device: &Device, n: usize, random: &mut fastrand::Rng, backend: &Backend) {
    let id = format!("r{}", random.u8(0..5));
    let field = ["x", "y", "z"][random.usize(0..3)];
    match random.u8(0..12) {
        0..3 => device.save(&id, json!({field: n})).await,
        // these may find no such record
        3..7 => drop(device.todos.update(&id, &json!({field: n})).await),
        7 => drop(device.todos.delete(&id).await),
        8 => device.client.set_online(random.bool()).await.unwrap(),
        9 => drop(device.client.sync_now().await),
        // the network has its turn
        _ => drop(http(backend, "GET", "/sync/other", Value::Null).await),
    }
}

/// Takes what a watch has now; nothing, while a write waits.
fn look(watch: &mut Watch, last: &mut Option<Value>) {
    while let Some(update) = watch.next().now_or_never().flatten() {
        let settled = !update.snapshot.pending();
        *last = settled.then(|| without_nulls(contents(&update.snapshot)));
    }
}

/// Level 1 can't tell a removed field from one that is null.
fn without_nulls(mut records: Value) -> Value {
    for record in records.as_object_mut().unwrap().values_mut() {
        record.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    }
    records
}

async fn what_it_guarantees_is_said(kind: Kind) {
    let Some(mut backend) = Backend::start(kind, &[]) else { return };
    let ann = Device::open(config(&backend)).await;
    ann.save("1", json!({})).await;
    ann.shows(&json!({"1": {}})).await;
    let status = ann.client.status().await.unwrap();
    assert_eq!(status.guarantees, Some(Guarantees::default()));
    // who requires more gets none
    let required = Guarantees { resume: true, ..Guarantees::default() };
    let strict = Device::open(config(&backend).required_guarantees(required));
    let strict = strict.await;
    let mut events = strict.client.events();
    strict.save("2", json!({})).await;
    let told = async {
        use synclayer_tokio::EventKind;
        while !matches!(events.next().await.unwrap().kind, EventKind::GuaranteesMissing { .. }) {}
    };
    timeout(TIMEOUT, told).await.expect("it is told");
    assert_eq!(stored(&backend, "recordId").await, json!({"1": {}}));
    assert_eq!(strict.todos.get_all().await.unwrap().len(), 1);
    // raw peers see the writes of ours as those of anybody
    let mut peer = Peer::connect(&backend.url("")).await;
    peer.send(json!({"type": "subscribe", "collection": "todos"})).await;
    peer.expect("subscribed").await;
    ann.update("1", json!({"x": 1})).await;
    assert_eq!(peer.expect("update").await["data"], json!({"x": 1}));
    assert!(backend.stats()["writes"].as_u64().unwrap() >= 2);
}
