//! Everything that a store holds, as text: what the generator writes beside a pack, and what the
//! test finds in the store again.
//!
//! It is read through the engine's public face, so that it stays the same when rows are laid out
//! in another way.

use std::convert::Infallible;
use std::fmt::Write;

use bytes::Bytes;
use serde_json::Value;
use synclayer_core::rules::{
    Content, HelloAnswer, Next, PageChange, PageLimits, Position, Reader, SalvagedWrites, database,
    salvage, verify,
};
use synclayer_core::testing::{Checked, InspectReplica};
use synclayer_core::{
    AllowAll, Batch, Change, ClientConfig, ClientId, ClientStore, Collection, Context, Cursor,
    Delta, Epoch, Limits, MemoryRows, Mono, Now, ReadAnswer, ReadRequest, Replica, RingLimits,
    Rows, Scan, Seq, ServerLimits, ServerStore, SessionNumber, StoreError, Timestamp, Transaction,
    TransactionAnswer, UserId,
};
use synclayer_fjall::{FjallClientStore, FjallServerStore};
use synclayer_sim::host::Host;

/// Cursors of each epoch of the server's store, which had four.
const CURSORS: [(&str, u64); 5] = [("e0", 64), ("e1", 40), ("e1", 130), ("e2", 41), ("e3", 41)];
/// The collections of both stores.
const COLLECTIONS: [&str; 4] = ["boards", "notes", "rules", "todos"];
/// When the stores were made, and are read again.
pub const START: Now = Now { mono: Mono(1_000_000), wall: Timestamp(1_790_000_000_000) };

/// The address that a plain server was met at.
pub const PLAIN: &str = "https://plain.example/api";

/// Returns the configuration of a user's replica.
pub fn config(user: &str) -> ClientConfig {
    let mut config = ClientConfig::default();
    config.user = user.into();
    config
}

/// Everything in a client's store, which is opened for each user.
pub fn of_client(open: &dyn Fn() -> Result<FjallClientStore, StoreError>) -> String {
    let mut text = String::new();
    let users = users(&open().expect("the store opens"));
    for user in users {
        let store = open().expect("the store opens");
        let (mut actions, seed) = (Vec::new(), 77);
        let replica = Replica::open(config(&user), seed, START, store, &mut actions)
            .expect("the replica opens");
        replica.check().expect("its invariants hold");
        of_user(&replica, &user, &mut text);
    }
    text
}

/// The users of a client's store.
pub fn users(store: &FjallClientStore) -> Vec<String> {
    salvaged(store.rows()).into_iter().map(|of| of.user).collect()
}

fn of_user(replica: &Replica<FjallClientStore>, user: &str, out: &mut String) {
    let status = replica.status();
    line(out, &format!("user {user}: client {}", status.client_id));
    let (pending, rejected) = (status.pending_writes, status.rejected_writes);
    let parked = replica.deferred();
    line(out, &format!("  {pending} pending, {rejected} rejected, {parked} parked"));
    // what the first version did not know is named where there is some
    if status.clock_offset_ms != 0 {
        line(out, &format!("  the server's clock is ahead by {} ms", status.clock_offset_ms));
    }
    if let Some(other) = &status.other_database {
        line(out, &format!("  the server has another database: {other}"));
    }
    for name in COLLECTIONS {
        let name = Collection::new(name).expect("a name");
        if let Some(collection) = status.collections.get(&name) {
            let cursor = collection.cursor.as_ref();
            let cursor = cursor.map(|cursor| format!("{} {}", cursor.epoch, cursor.seq));
            let (count, checksum) = (collection.count, collection.checksum);
            line(out, &format!("  {name}: cursor {cursor:?}, {count} with {checksum}"));
            if let Some(missing) = collection.missing {
                line(out, &format!("  {name}: the server lacks {missing}"));
            }
        }
        for record in replica.get_all(&name).expect("the store can be read") {
            let (id, version, at) = (&record.id, record.version, record.updated_at);
            let pending = if record.pending { ", pending" } else { "" };
            let document = sorted(&record.document.to_string());
            line(out, &format!("    {id}: version {version} at {at}{pending}: {document}"));
        }
    }
    let mut salvaged = salvaged(replica.store().rows()).into_iter();
    for write in salvaged.find(|of| of.user == user).expect("the user has an outbox").writes {
        let (what, at) = (change(&write.change), write.written_at);
        line(out, &format!("  unsent {}/{} at {at}: {what}", write.collection, write.record_id));
        if !write.at.is_empty() {
            line(out, &format!("    of it {:?}", times(&write.at)));
        }
    }
    for write in replica.rejected().expect("the store can be read") {
        let (what, at) = (change(&write.change), write.written_at);
        let place = format!("{} {}/{}", write.write, write.collection, write.record_id);
        let (code, message) = (write.code.as_str(), &write.message);
        line(out, &format!("  rejected {place} at {at}: {what}: {code}: {message}"));
    }
}

fn times(of: &[(Box<str>, Timestamp)]) -> Vec<String> {
    of.iter().map(|(name, at)| format!("{name} {at}")).collect()
}

fn change(change: &Change) -> String {
    let Delta { set, unset } = &change.delta;
    format!("{:?} {} without {unset:?}", change.kind, sorted(&set.to_string()))
}

fn salvaged(rows: &dyn Rows) -> Vec<SalvagedWrites> {
    let Ok(found) = salvage(|prefix| Ok::<_, Infallible>(rows_with(rows, prefix)));
    found
}

fn rows_with(rows: &dyn Rows, prefix: &[u8]) -> Vec<(Bytes, Bytes)> {
    let mut end = prefix.to_vec();
    *end.last_mut().expect("a prefix") += 1;
    let mut found = Vec::new();
    let visit = &mut |key: &[u8], value| {
        found.push((Bytes::copy_from_slice(key), value));
        Ok(Scan::Next)
    };
    rows.scan(prefix, &end, visit).expect("the store can be read");
    found
}

/// All rows of a server's store.
pub fn rows_of(store: &FjallServerStore) -> MemoryRows {
    let mut all = Batch::default();
    let read = &mut |rows: &dyn Rows| {
        rows.scan(&[], &[0xff; 8], &mut |key, value| {
            all.put(key.to_vec(), value);
            Ok(Scan::Next)
        })
    };
    store.read(read).expect("the store can be read");
    let mut rows = MemoryRows::default();
    rows.apply(all);
    rows
}

/// A server that begins a new epoch on these rows.
pub fn serve(rows: MemoryRows) -> Host {
    let mut host = Host::new(ServerLimits::default(), RingLimits::default(), START);
    // the epochs of the history have numbers up to nine
    for _ in 0..10 {
        host.crash(START);
    }
    host.restart(rows, START).expect("the rows are sound");
    host
}

/// Everything in a server's rows.
pub fn of_server(rows: &MemoryRows) -> String {
    let mut text = String::new();
    let report = verify(rows).expect("the rows can be read");
    if let Some(database) = database(rows).expect("the rows can be read") {
        line(&mut text, &format!("database {database}"));
    }
    line(&mut text, &format!("faults {:?}, {} tombstones", report.faults, report.tombstones));
    for (name, head) in &report.collections {
        let (seq, count, checksum) = (head.seq, head.count, head.checksum);
        let (horizon, at) = (head.horizon, head.committed_at);
        let of = format!("head {seq}, {count} with {checksum}, horizon {horizon}, at {at}");
        line(&mut text, &format!("{name}: {of}"));
    }
    for name in COLLECTIONS {
        line(&mut text, &format!("{name}, whole"));
        catch_up(rows, name, None, &mut text);
        for (epoch, seq) in CURSORS {
            line(&mut text, &format!("{name} behind {epoch} {seq}"));
            let epoch = Epoch::new(epoch).expect("a name");
            catch_up(rows, name, Some(Cursor { epoch, seq: Seq(seq) }), &mut text);
        }
    }
    let clients = rows_with(rows, b"u").into_iter();
    for client in clients.map(|(key, _)| String::from_utf8_lossy(&key[1..]).into_owned()) {
        let hello =
            ["ann", "bob", "dora", "gina"].into_iter().find_map(|user| hello(rows, &client, user));
        line(&mut text, &format!("client {client} of {}", hello.expect("a known user")));
    }
    text
}

/// Returns the changes of a whole catch-up.
fn catch_up(rows: &MemoryRows, collection: &str, cursor: Option<Cursor>, out: &mut String) {
    let collection = Collection::new(collection).expect("a name");
    let mut position = Position::Start { cursor, resume: None };
    loop {
        let reader = Reader::from(collection.clone());
        let request = ReadRequest::CatchUp { reader, position, limits: PageLimits::default() };
        let Ok(ReadAnswer::Page(page)) = request.run(rows, &AllowAll) else {
            panic!("no page of {collection}");
        };
        if let Some(opened) = page.opened {
            line(out, &format!("  head {}, mode {:?}", opened.head, opened.mode));
        }
        match page.content {
            Content::Snapshot { records, .. } | Content::Load { records, .. } => {
                for record in records {
                    let (id, document) = (&record.id, sorted(&record.document.to_string()));
                    let (seq, version) = (record.seq.unwrap_or_default(), record.version);
                    let at = record.updated_at.unwrap_or_default();
                    line(out, &format!("  {seq} {id}: version {version:?} at {at}: {document}"));
                }
            }
            Content::Loads(_) => panic!("no set of scopes is read"),
            Content::Changes(changes) => {
                for PageChange { record_id, change: of, reason: _ } in changes {
                    let (seq, version) = (of.seq.unwrap_or_default(), of.version.unwrap_or(0));
                    let at = of.timestamp.unwrap_or_default();
                    let times = times(&of.at);
                    let (user, what) = (of.user_id.as_deref(), change(&of.change));
                    let by = format!("version {version} at {at} by {user:?}, times {times:?}");
                    line(out, &format!("  {seq} {record_id}: {by}: {what}"));
                }
            }
        }
        match page.next {
            Next::More(next) => position = next,
            Next::Done { cursor, count, checksum } => {
                line(out, &format!("  synced {}, {count} with {checksum:?}", cursor.seq));
                return;
            }
        }
    }
}

/// Returns the last number applied of a client, if it is this user's.
fn hello(rows: &MemoryRows, client: &str, user: &str) -> Option<String> {
    let transaction = Transaction::Hello {
        client: ClientId::new(client).expect("a name"),
        user: UserId::new(user).ok(),
        session: SessionNumber(1000),
    };
    let limits = Limits::default();
    let context = Context { policy: &AllowAll, limits: &limits, now: START.wall };
    let answer = transaction.decide(rows, context).expect("the rows are sound").answer;
    let TransactionAnswer::Hello(HelloAnswer::Open { last_mutation, last_digest, .. }) = answer
    else {
        return None;
    };
    Some(format!("{user}: write {last_mutation} with {last_digest:?}"))
}

/// A document with its fields in order: their order means nothing.
fn sorted(document: &str) -> Value {
    serde_json::from_str(document).expect("a document")
}

fn line(out: &mut String, text: &str) {
    writeln!(out, "{text}").expect("a text takes everything");
}
