//! A real nginx on the way to the server.

use std::fs;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use synclayer_e2e::host::Host;
use synclayer_e2e::wait::{TIMEOUT, shown, soon, told};
use synclayer_tokio::{EventKind, Fate, Transports};
use tempfile::TempDir;

use crate::common::Device;
use crate::way::{AWKWARD, holds_everywhere, save_everywhere};

/// A running nginx. It ends with the value.
struct Nginx {
    child: Child,
    address: SocketAddr,
    _home: TempDir,
}

impl Nginx {
    /// Starts one in front of a server; `None` where the test has to be skipped. `root` is what
    /// stands behind the server's address in `proxy_pass`: with a path, nginx makes paths normal.
    fn start(host: &Host, root: &str, idle_timeout: &str) -> Option<Self> {
        if Command::new("nginx").arg("-v").stderr(Stdio::null()).status().is_err() {
            // not `eprintln!`, whose output a test that passes does not show
            let _ = io::stderr().write_all(b"SKIPPED: there is no nginx (`.ci/run` installs it)\n");
            return None;
        }
        let end = Instant::now() + TIMEOUT;
        loop {
            // somebody else may take the port before nginx does
            let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let started = Self::start_at(free, host.address(), root, idle_timeout);
            if started.is_some() {
                return started;
            }
            assert!(Instant::now() < end, "nginx does not start");
        }
    }

    fn start_at(
        address: SocketAddr,
        server: SocketAddr,
        root: &str,
        idle_timeout: &str,
    ) -> Option<Self> {
        let home = tempfile::tempdir().unwrap();
        let config = format!(
            "daemon off; master_process off; pid nginx.pid; error_log error.log;
             events {{}}
             http {{
                 access_log off;
                 client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
                 uwsgi_temp_path uwsgi; scgi_temp_path scgi;
                 map $http_upgrade $connection_upgrade {{ default upgrade; '' close; }}
                 server {{
                     listen {address};
                     location / {{
                         proxy_pass http://{server}{root};
                         proxy_http_version 1.1;
                         proxy_set_header Upgrade $http_upgrade;
                         proxy_set_header Connection $connection_upgrade;
                         proxy_read_timeout {idle_timeout};
                     }}
                 }}
             }}"
        );
        fs::write(home.path().join("nginx.conf"), config).unwrap();
        let mut child = Command::new("nginx")
            .arg("-p")
            .arg(home.path())
            .args(["-c", "nginx.conf", "-e", "error.log"])
            .spawn()
            .unwrap();
        while child.try_wait().unwrap().is_none() {
            if TcpStream::connect(address).is_ok() {
                return Some(Self { child, address, _home: home });
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
        None
    }

    /// A device whose way leads through it.
    async fn device(&self, host: &Host, transports: Transports) -> Device {
        Device::with(host, |config| {
            config.base_url = format!("http://{}", self.address);
            config.transports = transports;
            config.collections.extend(AWKWARD.map(String::from));
        })
        .await
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_name_travels_through_nginx() {
    for root in ["", "/"] {
        let host = Host::start().await;
        let Some(nginx) = Nginx::start(&host, root, "60s") else { return };
        let polling = nginx.device(&host, Transports::PollOnly).await;
        let live = nginx.device(&host, Transports::RealtimeOnly).await;
        save_everywhere(&polling, "by-http").await;
        polling.synced().await;
        live.synced().await;
        holds_everywhere(&live, &["by-http"]).await;
        save_everywhere(&live, "by-socket").await;
        live.synced().await;
        polling.synced().await;
        holds_everywhere(&polling, &["by-http", "by-socket"]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_where_nginx_cuts_idle_connections() {
    let host = Host::start().await;
    let Some(nginx) = Nginx::start(&host, "", "1s") else { return };
    let mut idle = nginx.device(&host, Transports::RealtimeOnly).await;
    let other = Device::new(&host).await;
    for round in 0..2 {
        idle.synced().await;
        told(&mut idle.events, |kind| matches!(kind, EventKind::RealtimeDisconnected { .. })).await;
        let (to, from) = (format!("to-{round}"), format!("from-{round}"));
        other.todos.save_with_id(&to, &json!({})).await.unwrap();
        let saved = idle.todos.save_with_id(&from, &json!({})).await.unwrap();
        assert_eq!(soon("its acknowledgement", saved.confirmed()).await, Ok(Fate::Acknowledged));
        for (device, id) in [(&idle, &to), (&other, &from)] {
            let mut watch = device.todos.watch();
            shown(&mut watch, |update| update.snapshot.iter().any(|r| *r.id == **id)).await;
        }
    }
}
