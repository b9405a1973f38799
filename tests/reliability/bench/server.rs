//! The costs of the server alone: fan-out, many writers, idle connections.

use std::time::Instant;

use crate::bare;
use crate::peer::Peer;
use crate::process::Process;
use crate::report::Report;
use crate::usage::resident;
use crate::world::{Result, Sizes, percentiles};

/// Changes that go out to every subscriber.
const CHANGES: usize = 300;
/// Writes that each of many writers makes.
const EACH: usize = 100;

pub(crate) async fn measure(sizes: &Sizes, report: &mut Report) -> Result<()> {
    fan_out(sizes, report)?;
    writers(report).await?;
    idle(sizes, report).await
}

/// A change goes out to every subscriber.
fn fan_out(sizes: &Sizes, report: &mut Report) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut server, address) = Process::server(dir.path())?;
    let (subscribers, changes) = (sizes.subscribers.to_string(), CHANGES.to_string());
    let crowd = Process::start("crowd", &[&address, &subscribers, &changes])?;
    let told = crowd.measure(Some(&mut server))?;
    let frames = (sizes.subscribers * CHANGES) as f64;
    report.row("a change to each subscriber, server", told.number("server")? / frames, "µs");
    let bytes = told.number("bytes")?;
    report.limit(bare::fan_out(sizes.subscribers, CHANGES, bytes as usize)?, "write(2) alone");
    report.row("the same, bytes", bytes, "B a frame");
    Ok(())
}

/// Writers that wait for the acknowledgement of each write before they make the next one.
async fn writers(report: &mut Report) -> Result<()> {
    let dir = tempfile::tempdir()?;
    for writers in [1, 50] {
        let path = dir.path().join(writers.to_string());
        let (mut server, address) = Process::server(&path)?;
        let mut peers = Vec::new();
        for n in 0..writers {
            peers.push(Peer::connect(&address, &format!("writer-{n}")).await?);
        }
        let before = server.used()?;
        let write = |(writer, mut peer): (usize, Peer)| {
            tokio::spawn(async move {
                let mut times = Vec::new();
                for n in 0..EACH {
                    let begun = Instant::now();
                    peer.insert("todos", writer * EACH + n).await?;
                    peer.expect_all().await?;
                    times.push(begun.elapsed());
                }
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(times)
            })
        };
        let all: Vec<_> = peers.into_iter().enumerate().map(write).collect();
        let mut times = Vec::new();
        for written in all {
            times.extend(written.await??);
        }
        let after = server.used()?;
        let acks = times.len() as f64;
        let (median, p99) = percentiles(times);
        let work = format!("{writers} writers, each waits for its ack, server");
        report.row(work, (after.cpu - before.cpu) / acks, "µs");
        report.note(format!(
            "{acks:.0} acks, {:.0} syncs; ack median {median:.1?}, 99 % {p99:.1?}",
            after.syncs - before.syncs
        ));
    }
    Ok(())
}

/// Clients that have connected, said their hello and subscribed to a collection.
async fn idle(sizes: &Sizes, report: &mut Report) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (server, address) = Process::server(dir.path())?;
    // what the first ones cost is paid once
    let mut peers = Vec::new();
    let mut before = 0;
    for n in 0..sizes.idle + 50 {
        if n == 50 {
            before = resident(server.id())?;
        }
        let mut peer = Peer::connect(&address, &format!("client-{n}")).await?;
        peer.follow("todos").await?;
        peers.push(peer);
    }
    let after = resident(server.id())?;
    let each = after.saturating_sub(before) as f64 / sizes.idle as f64;
    report.row("an idle connection, server's memory", each / 1024.0, "KiB");
    Ok(())
}
