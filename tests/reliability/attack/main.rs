//! Attacks on a real server with a healthy client beside them: `cargo run --release -p
//! synclayer-e2e --example attack -- PROGRAM [SECONDS [NAME…]]`, with the path of a program `synclayer`.
//!
//! The server may open 1,024 descriptors. Each attack comes from a process of its own, which is this
//! program again, and which runs only where a processor is idle: a real one is on another machine.
#![allow(missing_docs)]

mod healthy;
mod server;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use synclayer_e2e::attack::{Aim, Attack};

use crate::healthy::{Healthy, Latencies};
use crate::server::{Server, mib};

pub(crate) type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// The argument of a process that attacks.
const ROLE: &str = "--attacker";
/// The time within which the server's memory has to be back at its old value.
const CALM: Duration = Duration::from_secs(60);
/// The factor below which the latencies of a healthy client have to stay.
const FACTOR: f64 = 5.0;
/// Latencies below it are good, in milliseconds: one wait for a processor takes as long.
const FLOOR: f64 = 5.0;
/// The bytes that a store's changes take in memory until they are a file, at most: a flood of writes
/// leaves it as full as it likes, and is worked off for longer than it lasts.
const STORE: u64 = 64 << 20;
/// The server's memory budget, in MiB.
const BUDGET: u64 = 256;

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match &args[..] {
        [role, name, server, token] if role == ROLE => attack(name, server, token).await,
        [program, rest @ ..] => {
            let seconds = rest.first().map_or(Ok(20), |seconds| seconds.parse())?;
            let wanted = rest.get(1..).unwrap_or_default();
            measure(program, Duration::from_secs(seconds), wanted).await
        }
        [] => Err("the path of the program is missing".into()),
    }
}

async fn attack(name: &str, server: &str, token: &str) -> Result<()> {
    let attack = Attack::ALL.into_iter().find(|attack| attack.name() == name).ok_or("no such")?;
    rlimit::increase_nofile_limit(u64::MAX)?;
    let connections = attack.connections();
    let aim = Aim { server: server.parse()?, token: token.to_owned(), connections };
    attack.run(&aim).await;
    Ok(())
}

async fn measure(program: &str, time: Duration, wanted: &[String]) -> Result<()> {
    println!(
        "| attack | writes, p99 in ms: quiet, attacked | reads, p99 in ms: quiet, attacked | \
         failed | memory in MiB: before, peak, a minute later |"
    );
    println!("| --- | --- | --- | --- | --- |");
    let mut broken = Vec::new();
    for attack in Attack::ALL {
        if !wanted.is_empty() && !wanted.iter().any(|name| name == attack.name()) {
            continue;
        }
        let row = Row::measure(program, attack, time).await?;
        row.print(attack);
        if !row.is_good() {
            broken.push(attack.name());
        }
    }
    if broken.is_empty() { Ok(()) } else { Err(format!("not as it must be: {broken:?}").into()) }
}

struct Row {
    quiet: Latencies,
    attacked: Latencies,
    before: u64,
    peak: u64,
    /// The most bytes that are as good as `before`.
    calm: u64,
    after: u64,
}

impl Row {
    async fn measure(program: &str, attack: Attack, time: Duration) -> Result<Self> {
        let server = Server::start(program)?;
        server.fill().await?;
        let mut healthy = Healthy::connect(server.address).await?;
        healthy.measure(Duration::from_secs(2)).await;
        let quiet = healthy.measure(time / 2).await;
        let before = server.memory()?;
        server.forget_peak()?;
        let attacker = Command::new("chrt")
            .args(["--idle", "0"])
            .arg(std::env::current_exe()?)
            .args([ROLE, attack.name(), &server.address.to_string(), server::MALLORY])
            .stdout(Stdio::null())
            .spawn()?;
        let mut attacker = server::Killed(attacker);
        // it has begun when its first connections are there
        healthy.measure(Duration::from_secs(2)).await;
        let attacked = healthy.measure(time).await;
        let peak = server.peak()?;
        if attacker.0.try_wait()?.is_some() {
            return Err(format!("{} has ended by itself", attack.name()).into());
        }
        drop(attacker);
        let calm = before + before / 4 + if attack == Attack::Writes { STORE } else { 16 << 20 };
        let end = Instant::now() + CALM;
        let mut after = server.memory()?;
        while after > calm && Instant::now() < end {
            healthy.measure(Duration::from_secs(1)).await;
            after = server.memory()?;
        }
        Ok(Self { quiet, attacked, before, peak, calm, after })
    }

    fn print(&self, attack: Attack) {
        let Self { quiet, attacked, before, peak, after, .. } = self;
        println!(
            "| {} | {:.1}, {:.1} | {:.1}, {:.1} | {} of {} | {}, {}, {} |",
            attack.name(),
            quiet.writes(),
            attacked.writes(),
            quiet.reads(),
            attacked.reads(),
            attacked.failed,
            attacked.count(),
            mib(*before),
            mib(*peak),
            mib(*after),
        );
    }

    fn is_good(&self) -> bool {
        let Self { quiet, attacked, before, peak, calm, after } = self;
        let is_below = |attacked: f64, quiet: f64| attacked < FLOOR.max(FACTOR * quiet);
        is_below(attacked.writes(), quiet.writes())
            && is_below(attacked.reads(), quiet.reads())
            && attacked.failed == 0
            && mib(peak.saturating_sub(*before)) < BUDGET
            && after <= calm
    }
}
