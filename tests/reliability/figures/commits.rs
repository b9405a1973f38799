//! Syncs of the disk for acknowledgements.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use synclayer_fjall::Durability;

use crate::memory::Peer;
use crate::world::{Result, percentiles, serve};

const EACH: usize = 100;

/// Writers that wait for the acknowledgement of each write before they make the next one, and
/// beside it what a bare sync of a file takes.
pub(crate) async fn commits() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (median, p99) = percentiles(bare_syncs(dir.path())?);
    println!("a bare write and fdatasync: median {median:.1?}, p99 {p99:.1?}");
    println!("{:>8} {:>8} {:>8} {:>12} {:>12}", "writers", "acks", "syncs", "median", "p99");
    for writers in [1, 2, 10, 50] {
        let (server, store) =
            serve(&dir.path().join(writers.to_string()), Durability::Synced).await?;
        let address = server.local_addr().to_string();
        let mut peers = Vec::new();
        for n in 0..writers {
            peers.push(Peer::connect(&address, &format!("writer-{n}")).await?);
        }
        let syncs = store.stats().syncs;
        let all = peers.into_iter().enumerate().map(|(n, peer)| tokio::spawn(write(peer, n)));
        let mut times = Vec::new();
        for written in futures_util::future::try_join_all(all).await? {
            times.extend(written?);
        }
        let (acks, syncs) = (times.len(), store.stats().syncs - syncs);
        let (median, p99) = percentiles(times);
        println!("{writers:>8} {acks:>8} {syncs:>8} {median:>12.1?} {p99:>12.1?}");
        server.shutdown().await;
    }
    Ok(())
}

async fn write(mut peer: Peer, writer: usize) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for number in 1..=EACH {
        let begun = Instant::now();
        peer.say(&json!({"type": "insert", "collection": "todos",
            "recordId": format!("{writer}-{number}"), "data": {"n": number},
            "metadata": {"mutation": number, "base": 0}}))
            .await?;
        peer.expect("ack").await?;
        times.push(begun.elapsed());
    }
    Ok(times)
}

fn bare_syncs(dir: &Path) -> Result<Vec<Duration>> {
    let mut file = File::create(dir.join("file"))?;
    let mut times = Vec::new();
    for _ in 0..EACH {
        let begun = Instant::now();
        file.write_all(&[7; 300])?;
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    Ok(times)
}
