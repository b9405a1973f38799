//! The costs of scopes at the server: who is woken, what a write costs more, and what a part is that is read
//! alone.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use synclayer_fjall::{Durability, FjallServerStore};
use synclayer_server::{Collection, LocalWrite, Server, ServerConfig};
use tokio::task::JoinSet;

use crate::peer::Peer;
use crate::process::{Process, arg};
use crate::report::Report;
use crate::usage::{bytes_of, resident};
use crate::world::{Result, Sizes, document, id, serve_with};

/// The members of a room, and the rooms of a member.
const MEMBERS: usize = 10;
/// Writes that go out to the members of rooms.
const CHANGES: usize = 300;
/// The scopes of the largest set.
const SET: usize = 256;
/// The records of each of its scopes.
const EACH: usize = 10;
/// Peers of which each does the same.
const PEERS: usize = 20;
/// The writes of a transaction by which rooms are filled.
const FILLED: usize = 256;

pub(crate) async fn measure(sizes: &Sizes, report: &mut Report) -> Result<()> {
    woken(report).await?;
    written(sizes, report)?;
    quiet(sizes, report).await?;
    joined(report).await?;
    many(sizes, report)
}

/// A server whose collections are divided, with records in rooms: as many rooms as each part says, with as
/// many records.
pub(crate) async fn serve(dir: &Path, parts: &[&str]) -> Result<(Server, Arc<FjallServerStore>)> {
    let config = ServerConfig::new()
        .scopes(Collection::new("messages")?, ["room".parse()?])
        .scopes(Collection::new("todos")?, ["done".parse()?]);
    let (server, store) = serve_with(config, dir, Durability::Synced).await?;
    let local = server.embedded().local();
    let (mut writes, mut n) = (Vec::new(), 0);
    for (part, text) in parts.iter().enumerate() {
        let (rooms, each) = text.split_once('x').ok_or("a part is ROOMSxEACH")?;
        let (rooms, each): (usize, usize) = (rooms.parse()?, each.parse()?);
        for record in 0..rooms * each {
            let message = message(&room(part, record % rooms), n);
            writes.push(LocalWrite::save("messages", &id(n), &message)?);
            n += 1;
            if writes.len() == FILLED {
                local.transaction(writes.drain(..)).await?;
            }
        }
    }
    local.transaction(writes).await?;
    Ok((server, store))
}

fn room(part: usize, n: usize) -> String {
    format!("{part}-{n}")
}

fn message(room: &str, n: usize) -> Value {
    let mut message = document(n);
    message["room"] = room.into();
    message
}

fn rooms_server(dir: &Path, parts: &[&str]) -> Result<(Process, String)> {
    let mut server = Process::start("rooms", &[&[arg(dir)?][..], parts].concat())?;
    let address = server.line()?;
    Ok((server, address))
}

/// A write wakes the members of its room, however many rooms there are.
async fn woken(report: &mut Report) -> Result<()> {
    let mut costs = Vec::new();
    for rooms in [1, 1_000] {
        let dir = tempfile::tempdir()?;
        let (mut server, address) = rooms_server(dir.path(), &[])?;
        let mut readers = JoinSet::new();
        for n in 0..rooms.max(MEMBERS) {
            let mut peer = Peer::connect(&address, &format!("member-{n}")).await?;
            let of_one = (0..MEMBERS.min(rooms)).map(|k| room(0, (n + k) % rooms));
            peer.join(&of_one.collect::<Vec<_>>(), None).await?;
            let expected = (0..CHANGES)
                .filter(|change| (0..MEMBERS.min(rooms)).any(|k| (n + k) % rooms == change % rooms))
                .count();
            readers.spawn(async move {
                for _ in 0..expected {
                    peer.expect("insert").await?;
                }
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>((expected, peer))
            });
        }
        let mut writer = Peer::connect(&address, "writer").await?;
        let before = server.used()?;
        for n in 0..CHANGES {
            writer.save("messages", &id(n), &message(&room(0, n % rooms), n)).await?;
            writer.expect_all().await?;
        }
        let (mut told, mut peers) = (0, Vec::new());
        while let Some(reader) = readers.join_next().await {
            let (count, peer) = reader??;
            told += count;
            peers.push(peer);
        }
        costs.push((server.used()?.cpu - before.cpu) / CHANGES as f64);
        if told != CHANGES * MEMBERS {
            return Err(format!("{told} frames for {CHANGES} writes").into());
        }
    }
    report.row("a write into one of 1000 rooms with 10 members each, server", costs[1], "µs");
    report.limit(costs[0], "one room with 10 members");
    Ok(())
}

/// A write changes the rows of its scopes too.
fn written(sizes: &Sizes, report: &mut Report) -> Result<()> {
    let mut costs = Vec::new();
    for is_scoped in [false, true] {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("server");
        let (mut server, address) =
            if is_scoped { rooms_server(&path, &[])? } else { Process::server(&path)? };
        let records = sizes.records.to_string();
        let client = dir.path().join("client");
        let writer = Process::start("writer", &[arg(&client)?, &address, "0", &records])?;
        let told = writer.measure(Some(&mut server))?;
        costs.push(told.number("server")? / sizes.records as f64);
    }
    report.row("upload into a collection with a scope key, server", costs[1], "µs");
    report.limit(costs[0], "without one");
    Ok(())
}

/// A quiet room of a collection in which everything else has changed since.
async fn quiet(sizes: &Sizes, report: &mut Report) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let busy = format!("1x{}", sizes.held);
    let (mut server, address) = rooms_server(dir.path(), &["1x10", &busy])?;
    let mut peers = Vec::new();
    for n in 0..PEERS {
        peers.push(Peer::connect(&address, &format!("quiet-{n}")).await?);
    }
    let (before, begun) = (server.used()?, Instant::now());
    let mut bytes = 0;
    for peer in &mut peers {
        bytes += peer.join(&[room(0, 0)], Some(10)).await?;
    }
    let time = begun.elapsed() / PEERS as u32;
    let cpu = (server.used()?.cpu - before.cpu) / PEERS as f64;
    let work = format!("catch-up of a quiet room, {} changes elsewhere, server", sizes.held);
    report.row(work, cpu, "µs");
    report.note(format!("{} B each; {time:.0?} of time", bytes / PEERS));
    Ok(())
}

/// The largest set of scopes is subscribed at once.
async fn joined(report: &mut Report) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut server, address) = rooms_server(dir.path(), &[&format!("{SET}x{EACH}")])?;
    let mut peers = Vec::new();
    for n in 0..PEERS {
        peers.push(Peer::connect(&address, &format!("joining-{n}")).await?);
    }
    let rooms: Vec<_> = (0..SET).map(|n| room(0, n)).collect();
    let before = server.used()?;
    let mut bytes = 0;
    for peer in &mut peers {
        bytes += peer.join(&rooms, None).await?;
    }
    let cpu = (server.used()?.cpu - before.cpu) / PEERS as f64;
    report.row("256 scopes of 10 records are subscribed, server", cpu / 1e3, "ms");
    report.note(format!("{} B down, each record {} B", bytes / PEERS, bytes / PEERS / SET / EACH));
    Ok(())
}

/// Many rooms in one store.
fn many(sizes: &Sizes, report: &mut Report) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let rooms = sizes.held / EACH;
    let filled = rooms_server(dir.path(), &[&format!("{rooms}x{EACH}")])?;
    drop(filled);
    let begun = Instant::now();
    let (server, _) = rooms_server(dir.path(), &[])?;
    let time = begun.elapsed();
    let work = format!("start of a server with {rooms} rooms of {EACH} records");
    report.row(work, time.as_secs_f64() * 1e3, "ms of time");
    let store = bytes_of(dir.path())? as f64 / sizes.held as f64;
    report.row("the same, memory", resident(server.id())? as f64 / (1 << 20) as f64, "MiB");
    report.note(format!("the store takes {store:.0} B a record"));
    Ok(())
}

/// The subscription of rooms: new ones, or such that were held up to this seq of the epoch.
pub(crate) fn subscription(rooms: &[String], held: Option<(&str, u64)>) -> Value {
    let scope = |room: &String| match held {
        Some(_) => json!({"by": ["room"], "is": [room]}),
        None => json!({"by": ["room"], "is": [room], "new": true}),
    };
    let scopes: Vec<_> = rooms.iter().map(scope).collect();
    let mut metadata = json!({"scopes": scopes, "set": 1});
    if let Some((epoch, seq)) = held {
        metadata["cursor"] = json!({"epoch": epoch, "seq": seq});
    }
    json!({"type": "subscribe", "collection": "messages", "metadata": metadata})
}
