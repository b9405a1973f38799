//! Real programs on the way to the server, as operators put them there.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use synclayer_e2e::host::Host;
use synclayer_e2e::skip::skipped;
use synclayer_e2e::wait::{TIMEOUT, shown, soon, told};
use synclayer_tokio::{EventKind, Fate, Transports};
use tempfile::TempDir;

use crate::common::Device;
use crate::way::{AWKWARD, holds_everywhere, save_everywhere};

/// The name of a program's configuration, in the directory in which it runs.
pub const CONFIG: &str = "middlebox.conf";

/// A running program on the way. It ends with the value.
pub struct Middlebox {
    program: &'static str,
    args: &'static [&'static str],
    child: Child,
    address: SocketAddr,
    home: TempDir,
}

impl Middlebox {
    /// Starts a program that listens at the address for which it is configured; `None` where the test
    /// has to be skipped.
    pub fn start(
        program: &'static str,
        args: &'static [&'static str],
        config: impl Fn(SocketAddr) -> String,
    ) -> Option<Self> {
        let mut version = Command::new(program);
        if version.arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            skipped(&format!("there is no {program} (`.ci/run` installs it)"));
            return None;
        }
        let end = Instant::now() + TIMEOUT;
        loop {
            // somebody else may take the port before the program does
            let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let home = tempfile::tempdir().unwrap();
            fs::write(home.path().join(CONFIG), config(address)).unwrap();
            if let Some(child) = run(program, args, address, &home) {
                return Some(Self { program, args, child, address, home });
            }
            assert!(Instant::now() < end, "{program} does not start");
        }
    }

    /// Ends the program with all its connections, and starts it again, configured otherwise.
    pub fn restart(&mut self, config: impl Fn(SocketAddr) -> String) {
        end(&mut self.child);
        fs::write(self.home.path().join(CONFIG), config(self.address)).unwrap();
        let again = run(self.program, self.args, self.address, &self.home);
        self.child = again.expect("it starts again where it was");
    }

    /// A device whose way leads through it.
    pub async fn device(&self, host: &Host, transports: Transports) -> Device {
        Device::with(host, |config| {
            config.base_url = format!("http://{}", self.address);
            config.transports = transports;
            config.collections.extend(AWKWARD.map(String::from));
        })
        .await
    }
}

impl Drop for Middlebox {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Runs a program until it listens; `None` if it ends before.
fn run(program: &str, args: &[&str], address: SocketAddr, home: &TempDir) -> Option<Child> {
    let mut child = Command::new(program).args(args).current_dir(home.path()).spawn().unwrap();
    while child.try_wait().unwrap().is_none() {
        if TcpStream::connect(address).is_ok() {
            return Some(child);
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    None
}

fn end(child: &mut Child) {
    // it may have ended
    let _ = child.kill();
    let _ = child.wait();
}

/// Names that a path carries badly arrive as they are, by each transport.
pub async fn any_name_travels(middlebox: &Middlebox, host: &Host) {
    let polling = middlebox.device(host, Transports::PollOnly).await;
    let live = middlebox.device(host, Transports::RealtimeOnly).await;
    save_everywhere(&polling, "by-http").await;
    polling.synced().await;
    live.synced().await;
    holds_everywhere(&live, &["by-http"]).await;
    save_everywhere(&live, "by-socket").await;
    live.synced().await;
    polling.synced().await;
    holds_everywhere(&polling, &["by-http", "by-socket"]).await;
}

/// Writes from both sides arrive where idle connections are cut.
pub async fn nothing_is_lost_where_idle_connections_are_cut(middlebox: &Middlebox, host: &Host) {
    let mut idle = middlebox.device(host, Transports::RealtimeOnly).await;
    let other = Device::new(host).await;
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
