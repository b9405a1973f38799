//! What stands on the way: portals that answer in the server's place, and connections that die
//! unnoticed while a device sleeps.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use synclayer_tokio::{EventKind, SyncLayer, Transports};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::common::{Device, Host, soon, told, until};

/// What a way does with connections.
#[derive(Clone, Copy, Debug)]
enum Mode {
    /// They lead to the server.
    Pass,
    /// They are answered here, with this status and body.
    Answer(&'static str, &'static str),
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
        tokio::select! {
            _ = copy_bidirectional(&mut client, &mut upstream) => return,
            _ = cut.changed() => return,
            _ = death.changed() => {}
        }
        // both ends stay open until the connection is cut
        let _ = cut.changed().await;
    }
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
