//! The process that is attacked.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use synclayer_e2e::attack::{LARGE, WIDE};
use tempfile::TempDir;

use crate::Result;
use crate::healthy::Socket;

pub(crate) const ANN: &str = "token-of-ann";
pub(crate) const MALLORY: &str = "token-of-mallory";

/// The records of the large collection, and of the one with wide records.
const RECORDS: usize = 20_000;
const WIDE_RECORDS: usize = 14;

/// A process that ends with its owner.
pub(crate) struct Killed(pub(crate) Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // it may have ended
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

pub(crate) struct Server {
    process: Killed,
    pub(crate) address: SocketAddr,
    _data: TempDir,
}

impl Server {
    pub(crate) fn start(program: &str) -> Result<Self> {
        let data = tempfile::tempdir()?;
        let mut child = Command::new("sh")
            .args(["-c", "ulimit -n 1024; exec \"$@\"", "sh", program])
            .args(["serve", "--json", "--listen", "127.0.0.1:0", "--data"])
            .arg(data.path())
            .args(["--token", &format!("ann={ANN}"), "--token", &format!("mallory={MALLORY}")])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let process = Killed(child);
        let line: Value = serde_json::from_str(&line)?;
        let address = line["listening"].as_str().ok_or("no address")?.parse()?;
        Ok(Self { process, address, _data: data })
    }

    /// Writes what the attacks ask for.
    pub(crate) async fn fill(&self) -> Result<()> {
        let mut socket = Socket::connect(self.address, MALLORY).await?;
        let text = "x".repeat(1_000);
        for n in 0..RECORDS {
            socket.write("insert", LARGE, n, json!({"n": n, "text": text})).await?;
            if n % 500 == 0 {
                socket.settle().await?;
            }
        }
        let text = "x".repeat(1_000_000);
        for n in 0..WIDE_RECORDS {
            socket.write("insert", WIDE, n, json!({"text": text})).await?;
            socket.settle().await?;
        }
        socket.settle().await
    }

    /// The bytes that are in memory.
    pub(crate) fn memory(&self) -> Result<u64> {
        self.status("VmRSS:")
    }

    /// The most bytes that were in memory since [`forget_peak`](Self::forget_peak).
    pub(crate) fn peak(&self) -> Result<u64> {
        self.status("VmHWM:")
    }

    pub(crate) fn forget_peak(&self) -> Result<()> {
        Ok(std::fs::write(format!("/proc/{}/clear_refs", self.process.0.id()), "5")?)
    }

    fn status(&self, name: &str) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.0.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.split_whitespace().next()).ok_or("no such figure")?;
        Ok(kib.parse::<u64>()? << 10)
    }
}

pub(crate) fn mib(bytes: u64) -> u64 {
    bytes >> 20
}
