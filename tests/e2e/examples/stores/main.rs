//! Makes the stores in `tests/data/stores`, which every later version must open: a client's and a
//! server's, with everything in them that a store can hold.
//!
//! The bytes there are of the version that they were made with, and are never made again: a later
//! version would write what it reads itself. This program says how they were made, and makes those
//! of a version to come:
//!
//! ```sh
//! cargo run -p synclayer-e2e --example stores -- tests/data/stores/vNEXT
//! ```
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

#[allow(dead_code)] // the test serves what it finds
mod contents;
mod later;
#[allow(dead_code)] // the test unpacks
mod pack;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use contents::{PLAIN, START, config};
use serde_json::Value;
use synclayer_core::testing::{Checked, InspectHub, InspectReplica};
use synclayer_core::{
    Action, Batch, Change, ClientConfig, ClientStore, Collection, Command, ConnId, Delta,
    Disconnect, Document, HttpAnswer, Identity, Input, Limits, MemoryClientStore, MemoryRows,
    NetAction, Now, Policy, RecordId, Replica, RingLimits, ServerLimits, ServerStore, SessionInput,
    UserId, Write,
};
use synclayer_fjall::{ClientOptions, FjallClientStore, FjallServerStore, ServerOptions};
use synclayer_sim::host::Host;

/// So little that part of the rows lies in tables, and part in the journal.
const MEMTABLE_BYTES: u64 = 24 << 10;

fn main() -> Result<(), Box<dyn Error>> {
    let target = PathBuf::from(std::env::args().nth(1).ok_or("usage: stores DIRECTORY")?);
    let scratch = tempfile::tempdir()?;
    let (client, server) = (scratch.path().join("client"), scratch.path().join("server"));
    Town::build(&client, &server).live();
    fs::create_dir_all(&target)?;
    fs::write(target.join("client.pack"), pack::pack(&client)?)?;
    fs::write(target.join("server.pack"), pack::pack(&server)?)?;
    let open = || FjallClientStore::open(&client, ClientOptions::default());
    fs::write(target.join("client.txt"), contents::of_client(&open))?;
    let store = FjallServerStore::open(&server, ServerOptions::default())?;
    fs::write(target.join("server.txt"), contents::of_server(&contents::rows_of(&store)))?;
    Ok(())
}

/// A server, the replicas of one store in turn, and somebody else.
struct Town {
    now: Now,
    host: Host,
    store: FjallServerStore,
    /// Rows of the server's store by now.
    stored: MemoryRows,
    client: PathBuf,
    dora: Device<MemoryClientStore>,
    next_seed: u128,
}

/// A replica and its connection.
struct Device<S> {
    replica: Replica<S>,
    user: String,
    /// Its connection, as the server calls it.
    conn: ConnId,
    /// As the replica calls it.
    local: ConnId,
    sent: Vec<String>,
    actions: Vec<Action>,
}

/// Nobody but the server's people writes rules.
struct Rules;

impl Policy for Rules {
    fn write(
        &self,
        _user: Option<&UserId>,
        collection: &Collection,
        _id: &RecordId,
        _before: Option<&Document>,
        _change: &Change,
    ) -> Result<(), String> {
        if **collection == *"rules" { Err("rules are made elsewhere".into()) } else { Ok(()) }
    }
}

impl Town {
    fn build(client: &Path, server: &Path) -> Self {
        let mut limits = ServerLimits::default();
        limits.page.records = 25;
        let mut host = Host::new(limits, RingLimits::default(), START);
        host.set_policy(Arc::new(Rules));
        let options = ServerOptions::new().memtable_bytes(MEMTABLE_BYTES);
        let store = FjallServerStore::open(server, options).unwrap();
        let dora = Device::open(MemoryClientStore::default(), config_of("dora"), 9, START);
        let (stored, client) = (MemoryRows::default(), client.to_owned());
        Self { now: START, host, store, stored, client, dora, next_seed: 1 }
    }

    fn live(mut self) {
        self.keep();
        self.first_epoch();
        self.host.crash(self.now);
        self.keep();
        self.second_epoch();
        self.host.crash(self.now);
        self.keep();
        self.third_epoch();
        self.host.crash(self.now);
        self.keep();
        self.plain_server();
        self.wrong_clock();
        self.lost_records("eve", None);
        self.lost_records("hanna", Some(Write::Offer));
        self.other_database("fred", None);
        self.other_database("judy", Some(Write::Adopt));
        self.forgotten_writes();
    }

    /// Much is written, some of it is deleted, and the oldest tombstones go.
    fn first_epoch(&mut self) {
        let mut ann = self.open("ann");
        self.meet(&mut ann, 1);
        self.meet_dora(2);
        for n in 0..90 {
            let text = format!(
                r#"{{"title":"todo {n}","n":{n},"big":9007199254740993{n},"done":false,"tags":["a","b {n}"]}}"#
            );
            ann.save("todos", &format!("t{n:03}"), &text, self.tick());
            if n % 7 == 0 {
                self.settle(&mut ann);
            }
        }
        self.settle(&mut ann);
        for n in 0..60 {
            let text = format!(r#"{{"text":"note {n} \u00fc \"quoted\"","pinned":null}}"#);
            self.dora_saves("notes", &format!("n{n:03}"), &text);
        }
        self.dora_deletes("notes", "n000");
        self.dora_deletes("notes", "n001");
        self.settle(&mut ann);
        self.part(ann, 1);
        self.part_from_dora(2);

        // replicas that have not said hello for so long would be forgotten
        self.now.wall.0 += 3_600_000;
        let mut ann = self.open("ann");
        self.meet(&mut ann, 11);
        self.meet_dora(12);
        self.host.sweep(Duration::from_secs(60), 1000, self.now);
        self.keep();
        for n in [3, 5, 8, 13] {
            ann.delete("todos", &format!("t{n:03}"), self.tick());
            self.dora_deletes("notes", &format!("n{n:03}"));
        }
        self.settle(&mut ann);
        self.part(ann, 11);
        self.part_from_dora(12);
    }

    /// Both change other fields of the same records, and fields are removed.
    fn second_epoch(&mut self) {
        let mut ann = self.open("ann");
        self.meet(&mut ann, 3);
        self.meet_dora(4);
        for n in 20..40 {
            let id = format!("t{n:03}");
            ann.update("todos", &id, r#"{"done":true}"#, &["tags"], self.tick());
            self.settle(&mut ann);
            let set = format!(r#"{{"title":"{n} anew","by":"dora"}}"#);
            self.dora_updates("todos", &id, &set, if n % 2 == 0 { &["n"] } else { &[] });
        }
        self.settle(&mut ann);
        for n in 0..40 {
            self.dora_saves(
                "boards",
                &format!("b{n:02}"),
                &format!(r#"{{"column":{n},"x":{{"y":[{n}]}}}}"#),
            );
        }
        // the app never subscribed to what the server refuses it
        ann.save("rules", "no-1", r#"{"rule":"one"}"#, self.tick());
        ann.save("rules", "no-2", r#"{"rule":"two"}"#, self.tick());
        self.settle(&mut ann);
        ann.delete("rules", "no-3", self.tick());
        self.settle(&mut ann);
        self.part(ann, 3);

        // bob's first catch-up breaks off in the middle of a snapshot
        let mut bob = self.open("bob");
        self.meet_without_settling(&mut bob, 5);
        for _ in 0..200 {
            self.turn(&mut bob);
            if bob.replica.get_all(&name("notes")).unwrap().len() >= 25 {
                break;
            }
        }
        bob.save("notes", "bobs", r#"{"text":"unsent, of another user"}"#, self.tick());
        bob.delete("notes", "n010", self.tick());
        self.part(bob, 5);
        self.part_from_dora(4);
        self.dora_writes_offline();
    }

    /// Writes are under way when the connection goes, one of them with a change of somebody else's
    /// beside it; more are made offline.
    fn third_epoch(&mut self) {
        let mut ann = self.open("ann");
        self.meet(&mut ann, 6);
        self.meet_dora(7);
        self.settle(&mut ann);
        self.dora_updates_unseen("todos", "t050", r#"{"title":"hers","n":-1}"#, &["done"]);
        self.dora_updates_unseen("todos", "t051", r#"{"extra":"beside"}"#, &[]);
        ann.update("todos", "t051", r#"{"done":true}"#, &["big"], self.tick());
        ann.save("boards", "first", r#"{"column":1}"#, self.tick());
        ann.update("todos", "t050", r#"{"title":"his"}"#, &[], self.tick());
        ann.save("todos", "sent", r#"{"title":"sent, without a verdict"}"#, self.tick());
        // they have gone out, and what dora did has come, but no verdict
        self.carry(&mut ann);
        for conn in self.host.pumpable() {
            self.host.pump(conn, 1 << 16, self.now);
        }
        self.carry(&mut ann);
        assert_eq!(ann.replica.deferred(), 2, "both wait beside a write");
        // the ack of the second comes before that of the first
        let number = ann.number_of("first");
        let ack = format!(
            r#"{{"type":"ack","collection":"boards","recordId":"first","timestamp":"2026-09-21T14:13:20.000Z","metadata":{{"seq":41,"version":1,"mutation":{number}}}}}"#
        );
        ann.hear(ack.as_bytes(), self.now);
        let (conn, why) = (ann.local, Disconnect::Lost("cut".into()));
        ann.replica.handle(self.now, Input::Disconnected { conn, why }, &mut ann.actions);
        ann.actions.clear();
        for n in 60..75 {
            let (id, at) = (format!("t{n:03}"), self.tick());
            match n % 4 {
                0 => ann.delete("todos", &id, at),
                1 => ann.update("todos", &id, &format!(r#"{{"offline":{n}}}"#), &["title"], at),
                2 => ann.save("todos", &id, &format!(r#"{{"replaced":{n}}}"#), at),
                _ => ann.save(
                    "todos",
                    &format!("new-{n}"),
                    &format!(r#"{{"made":"offline {n}"}}"#),
                    at,
                ),
            }
        }
        self.joins(&mut ann);
        ann.replica.check().unwrap();
        drop(ann);
        self.host.settle(self.now);
        self.host.drop_line(ConnId(6), self.now);
        self.keep();
        self.part_from_dora(7);
    }

    /// Carl's server is a plain one.
    fn plain_server(&mut self) {
        let store = self.client_store();
        let mut config = config_of("carl");
        config.websocket = false;
        config.http = true;
        config.address = PLAIN.into();
        let mut carl = Device::open(store, config, 44, self.now);
        carl.replica.command(self.now, Command::Connect, &mut carl.actions);
        for _ in 0..100 {
            for action in std::mem::take(&mut carl.actions) {
                let Action::Net(NetAction::Request(ticket)) = action else { continue };
                let request = &ticket.request;
                let (status, body) = match request.method {
                    "POST" => (404, r#"{"error":"no such path","code":"RECORD_NOT_FOUND"}"#),
                    "GET" if request.path.starts_with("/sync/todos") => (
                        200,
                        r#"{"records":[{"recordId":"p1","data":{"title":"plain","n":1},"version":3,"updatedAt":"2026-09-21T14:00:00.000Z"},{"recordId":"p2","data":{"title":"other"},"version":1,"updatedAt":"2026-09-21T13:00:00.000Z"}]}"#,
                    ),
                    _ => (200, r#"{"records":[]}"#),
                };
                let answer = HttpAnswer::Answered { status, retry_after: None, body: body.into() };
                carl.replica.handle(self.now, ticket.answer(answer), &mut carl.actions);
            }
            self.now.mono.0 += 500;
            self.now.wall.0 += 500;
            if carl.replica.deadline().is_some_and(|(at, _)| at <= self.now.mono) {
                carl.replica.handle(self.now, Input::Timeout, &mut carl.actions);
            }
        }
        carl.replica.command(self.now, Command::Disconnect, &mut carl.actions);
        carl.update("todos", "p1", r#"{"n":2}"#, &[], self.tick());
        carl.save("todos", "p3", r#"{"title":"unsent"}"#, self.tick());
        carl.replica.check().unwrap();
    }

    fn client_store(&self) -> FjallClientStore {
        let options = ClientOptions::new().memtable_bytes(MEMTABLE_BYTES);
        FjallClientStore::open(&self.client, options).unwrap()
    }

    fn open(&mut self, user: &str) -> Device<FjallClientStore> {
        self.next_seed += 1;
        Device::open(self.client_store(), config_of(user), self.next_seed, self.now)
    }

    fn tick(&mut self) -> Now {
        self.now.mono.0 += 1;
        self.now.wall.0 += 1;
        self.now
    }

    fn meet(&mut self, device: &mut Device<FjallClientStore>, conn: u64) {
        self.meet_without_settling(device, conn);
        self.settle(device);
    }

    fn meet_without_settling(&mut self, device: &mut Device<FjallClientStore>, conn: u64) {
        device.replica.command(self.now, Command::Connect, &mut device.actions);
        device.come_up(ConnId(conn), &mut self.host, self.now);
    }

    fn meet_dora(&mut self, conn: u64) {
        let now = self.now;
        self.dora.replica.command(now, Command::Connect, &mut self.dora.actions);
        self.dora.come_up(ConnId(conn), &mut self.host, now);
        self.settle_dora();
    }

    fn part(&mut self, mut device: Device<FjallClientStore>, conn: u64) {
        device.replica.command(self.now, Command::Disconnect, &mut device.actions);
        device.replica.check().unwrap();
        self.host.drop_line(ConnId(conn), self.now);
        self.host.settle(self.now);
        self.keep();
    }

    fn part_from_dora(&mut self, conn: u64) {
        self.dora.replica.command(self.now, Command::Disconnect, &mut self.dora.actions);
        self.dora.actions.clear();
        self.host.drop_line(ConnId(conn), self.now);
        self.host.settle(self.now);
        self.keep();
    }

    fn dora_saves(&mut self, collection: &str, id: &str, text: &str) {
        let now = self.tick();
        self.dora.save(collection, id, text, now);
        self.settle_dora();
    }

    fn dora_deletes(&mut self, collection: &str, id: &str) {
        let now = self.tick();
        self.dora.delete(collection, id, now);
        self.settle_dora();
    }

    fn dora_updates(&mut self, collection: &str, id: &str, set: &str, unset: &[&str]) {
        let now = self.tick();
        self.dora.update(collection, id, set, unset, now);
        self.settle_dora();
    }

    /// As [`dora_updates`](Self::dora_updates), and nobody hears of it yet but herself.
    fn dora_updates_unseen(&mut self, collection: &str, id: &str, set: &str, unset: &[&str]) {
        let now = self.tick();
        self.dora.update(collection, id, set, unset, now);
        carry(&mut self.dora, &mut self.host, self.now);
        self.host.commit(self.now);
        let index = self.host.hub.waiting_answers().position(|conn| conn == self.dora.conn);
        if let Some(index) = index {
            self.host.answer(index, self.now);
        }
        self.keep();
    }

    fn settle_dora(&mut self) {
        for _ in 0..6 {
            carry(&mut self.dora, &mut self.host, self.now);
            self.host.settle(self.now);
            self.keep();
        }
    }

    fn settle(&mut self, device: &mut Device<FjallClientStore>) {
        for _ in 0..12 {
            self.carry(device);
            self.host.settle(self.now);
            self.keep();
        }
        self.settle_dora();
    }

    /// One small step of everything, so that a catch-up can be left in its middle.
    fn turn(&mut self, device: &mut Device<FjallClientStore>) {
        self.carry(device);
        self.host.commit(self.now);
        self.host.read();
        if self.host.hub.waiting_answers().len() > 0 {
            self.host.answer(0, self.now);
        }
        for conn in self.host.pumpable() {
            self.host.pump(conn, 1, self.now);
        }
        self.keep();
    }

    fn carry(&mut self, device: &mut Device<FjallClientStore>) {
        carry(device, &mut self.host, self.now);
    }

    /// The server's store follows its rows.
    fn keep(&mut self) {
        let mut batch = Batch::default();
        let new = &self.host.rows;
        for (key, value) in new.iter() {
            let old = self.stored.iter().find(|(old, _)| *old == key);
            if old.is_none_or(|(_, old)| old != value) {
                batch.put(key.clone(), value.clone());
            }
        }
        for (key, _) in self.stored.iter() {
            if !new.iter().any(|(new, _)| new == key) {
                batch.delete(key.clone());
            }
        }
        if !batch.is_empty() {
            self.stored.apply(batch.clone());
            self.store.transact(&mut |_| Ok(batch.clone())).unwrap();
        }
    }
}

impl<S: ClientStore> Device<S> {
    fn open(store: S, config: ClientConfig, seed: u128, now: Now) -> Self {
        let user = config.user.clone();
        let mut actions = Vec::new();
        let replica = Replica::open(config, seed, now, store, &mut actions).unwrap();
        let conn = ConnId(0);
        Self { replica, user, conn, local: conn, sent: Vec::new(), actions }
    }

    /// The connection that was asked for is up, under this id at the server.
    fn come_up(&mut self, at_server: ConnId, host: &mut Host, now: Now) {
        let mut up = None;
        for action in self.actions.drain(..) {
            if let Action::Net(NetAction::Connect { conn, .. }) = action {
                up = Some(conn);
            }
        }
        let conn = up.expect("a connection is wanted");
        (self.conn, self.local) = (at_server, conn);
        host.accept(at_server, Identity::Known(UserId::new(&self.user).unwrap().into()), now);
        self.replica.handle(now, Input::Connected { conn }, &mut self.actions);
    }

    fn hear(&mut self, frame: &[u8], now: Now) {
        self.replica.handle(now, Input::Frame { conn: self.local, frame }, &mut self.actions);
    }

    /// The number under which the last write to a record was sent.
    fn number_of(&self, id: &str) -> u64 {
        let messages = self.sent.iter().flat_map(|frame| {
            let message: Value = serde_json::from_str(frame).unwrap();
            message["messages"].as_array().cloned().unwrap_or_else(|| vec![message])
        });
        let number = |message: Value| message["metadata"]["mutation"].as_u64();
        messages.filter(|message| message["recordId"] == id).filter_map(number).next_back().unwrap()
    }

    fn save(&mut self, collection: &str, id: &str, text: &str, now: Now) {
        let (collection, id, document) = (name(collection), record(id), document(text));
        self.replica.write(now, Write::Save(collection, id, document), &mut self.actions).unwrap();
    }

    fn update(&mut self, collection: &str, id: &str, set: &str, unset: &[&str], now: Now) {
        let unset = unset.iter().map(|name| Box::from(*name)).collect();
        let (collection, id, delta) =
            (name(collection), record(id), Delta::new(document(set), unset));
        self.replica.write(now, Write::Update(collection, id, delta), &mut self.actions).unwrap();
    }

    fn delete(&mut self, collection: &str, id: &str, now: Now) {
        let (collection, id) = (name(collection), record(id));
        self.replica.write(now, Write::Delete(collection, id), &mut self.actions).unwrap();
    }
}

/// Takes everything from one end to the other that is ready.
fn carry<S: ClientStore>(device: &mut Device<S>, host: &mut Host, now: Now) {
    carry_by(device, now, host, now);
}

/// As [`carry`], where the ends have clocks of their own.
fn carry_by<S: ClientStore>(device: &mut Device<S>, by_its: Now, host: &mut Host, now: Now) {
    loop {
        let mut moved = false;
        for action in std::mem::take(&mut device.actions) {
            if let Action::Net(NetAction::Send { frame, .. }) = action {
                moved = true;
                device.sent.push(String::from_utf8(frame.to_vec()).unwrap());
                host.tell(device.conn, SessionInput::Frame(&frame), now);
            }
        }
        let down: Vec<_> = match host.down.get_mut(&device.conn) {
            Some(down) => down.drain(..).collect(),
            None => Vec::new(),
        };
        for frame in down {
            moved = true;
            device.hear(&frame, by_its);
        }
        if !moved {
            return;
        }
    }
}

fn config_of(user: &str) -> ClientConfig {
    let collections = ["boards", "notes", "todos"].map(name).to_vec();
    let mut config = config(user);
    config.collections = collections;
    config
}

fn name(text: &str) -> Collection {
    Collection::new(text).unwrap()
}

fn record(text: &str) -> RecordId {
    RecordId::new(text).unwrap()
}

fn document(text: &str) -> Document {
    Document::parse(text, &Limits::default()).unwrap()
}
