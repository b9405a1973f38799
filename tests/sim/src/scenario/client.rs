//! The client of a scenario: a file plays its app, its network, its server and its disk.

mod moves;
mod setup;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use synclayer_core::testing::{Checked, InspectReplica, SimulatedDisk};
use synclayer_core::{
    Action, Command, CommitNumber, ConnId, Delta, Disconnect, Document, EventKind, HttpAnswer,
    HttpTicket, Input, MemoryClientStore, Misuse, Mono, NetAction, Now, Replica, StoreError,
    StoreErrorKind, Timestamp, Token, TransactionDraft, WatchId, Write, WriteId, Written,
};

use super::format::{Step, merge, read};
use super::store::{Asked, Holds, NamedStore};
use super::words::{Words, collection, document, place};
use super::{Stage, render, tagged};
use moves::{ClientMove, How, Member};
use setup::{Durability, ReplicaSetup};

/// Where every scenario begins: 2026-01-01T00:00:00Z.
pub(super) const START: Now = Now { mono: Mono(1_000_000), wall: Timestamp(1_767_225_600_000) };

/// A member of a transaction, ready to be made.
type Part = Box<dyn FnOnce(&mut TransactionDraft<'_>) -> Result<(), Misuse> + Send>;

/// A transaction of these members.
fn transaction(writes: Vec<Member>, keep_what_won: bool) -> Result<Write, String> {
    let part = |member| -> Result<Part, String> {
        Ok(match member {
            Member::Save { at, data } => {
                let ((collection, id), data) = (place(&at)?, document(&data.to_string())?);
                Box::new(move |draft| draft.save(&collection, &id, data))
            }
            Member::Update { at, set, unset } => {
                let (collection, id) = place(&at)?;
                let set = if set.is_null() { json!({}) } else { set };
                let unset = unset.into_iter().map(Into::into).collect();
                let delta = Delta::new(document(&set.to_string())?, unset);
                Box::new(move |draft| draft.update(&collection, &id, &delta))
            }
            Member::Delete(at) => {
                let (collection, id) = place(&at)?;
                Box::new(move |draft| draft.delete(&collection, &id))
            }
            Member::Expect(at) => {
                let (collection, id) = place(&at)?;
                Box::new(move |draft| draft.expect_unchanged(&collection, &id))
            }
        })
    };
    let parts: Vec<_> = writes.into_iter().map(part).collect::<Result<_, _>>()?;
    Ok(Write::Transaction(Box::new(move |draft| {
        if keep_what_won {
            draft.keep_what_won();
        }
        parts.into_iter().try_for_each(|part| part(draft))
    })))
}

/// The client of a scenario.
pub(crate) struct ClientSide {
    /// `None` only while the replica starts again.
    replica: Option<Replica<NamedStore>>,
    config: Value,
    setup: ReplicaSetup,
    now: Now,
    conn: ConnId,
    words: Words,
    lives: u128,
    requests: BTreeMap<u64, HttpTicket>,
    actions: Vec<Action>,
    out: Vec<Value>,
}

impl ClientSide {
    pub(crate) fn new(config: &Value) -> Result<Self, String> {
        let config = if config.is_null() { json!({}) } else { config.clone() };
        let setup: ReplicaSetup = read(&config)?;
        let store = match setup.durable {
            Durability::AtOnce => MemoryClientStore::default(),
            Durability::WhenTold => MemoryClientStore::when_told(),
        };
        let mut client = Self {
            replica: None,
            config,
            setup,
            now: START,
            conn: ConnId(0),
            words: Words::default(),
            lives: 0,
            requests: BTreeMap::new(),
            actions: Vec::new(),
            out: Vec::new(),
        };
        client.open(NamedStore::new(store))?;
        // what a new store is given is part of no step
        client.actions.clear();
        client.out.clear();
        client.replica()?.store_mut().asked.clear();
        Ok(client)
    }

    fn open(&mut self, store: NamedStore) -> Result<(), String> {
        self.lives += 1;
        let config = self.setup.config()?;
        let replica = Replica::open(config, self.lives, self.now, store, &mut self.actions)
            .map_err(|error| format!("the replica does not open: {error}"))?;
        self.conn = ConnId(0);
        self.replica = Some(replica);
        Ok(())
    }

    fn replica(&mut self) -> Result<&mut Replica<NamedStore>, String> {
        self.replica.as_mut().ok_or_else(|| "the replica did not open".into())
    }

    fn make(&mut self, step: &Step, made: ClientMove) -> Result<(), String> {
        let now = self.now;
        let conn = step.conn.map_or(self.conn, ConnId);
        let words = &self.words;
        let replica = self.replica.as_mut().ok_or("the replica did not open")?;
        replica.store_mut().by_app = made.is_call();
        let actions = &mut self.actions;
        let mut result = None;
        match made {
            ClientMove::Connect => replica.command(now, Command::Connect, actions),
            ClientMove::Disconnect => replica.command(now, Command::Disconnect, actions),
            ClientMove::Save { at, data } => {
                let (collection, id) = place(&at)?;
                let data = document(&data.to_string())?;
                let written = replica.write(now, Write::Save(collection, id, data), actions);
                result = Some(render::written(written));
            }
            ClientMove::Update { at, set, unset } => {
                let (collection, id) = place(&at)?;
                let set = if set.is_null() { json!({}) } else { set };
                let unset = unset.into_iter().map(Into::into).collect();
                let delta = Delta::new(document(&set.to_string())?, unset);
                let written = replica.write(now, Write::Update(collection, id, delta), actions);
                result = Some(render::written(written));
            }
            ClientMove::Delete { at } => {
                let (collection, id) = place(&at)?;
                let written = replica.write(now, Write::Delete(collection, id), actions);
                result = Some(render::written(written));
            }
            ClientMove::Modify { at, add } => {
                let (collection, id) = place(&at)?;
                let written = replica.write(
                    now,
                    Write::Modify(collection, id, Box::new(move |seen| Ok(Some(sums(seen, &add))))),
                    actions,
                );
                result = Some(render::written(written));
            }
            ClientMove::Transact { writes, keep_what_won } => {
                let written = replica.write(now, transaction(writes, keep_what_won)?, actions);
                result = Some(render::written(written));
            }
            ClientMove::Retry(write) => {
                let written = replica.write(now, Write::RetryRejected(WriteId(write)), actions);
                result = Some(render::written(written));
            }
            ClientMove::Discard(write) => {
                let written = replica.write(now, Write::DiscardRejected(WriteId(write)), actions);
                result = Some(render::written(written));
            }
            ClientMove::RejectStalled(write) => {
                let written = replica.write(now, Write::RejectStalled(WriteId(write)), actions);
                result = Some(render::written(written));
            }
            ClientMove::Adopt => {
                result = Some(render::written(replica.write(now, Write::Adopt, actions)))
            }
            ClientMove::Offer => {
                result = Some(render::written(replica.write(now, Write::Offer, actions)))
            }
            ClientMove::Follow(write) => {
                let write = Some(WriteId(write));
                let written =
                    Written { commit: CommitNumber(0), write, shares: write, transaction: None };
                result = Some(json!(replica.follow(written, actions).0));
            }
            ClientMove::FollowTransaction(first) => {
                let (write, transaction) = (None, Some(WriteId(first)));
                let written =
                    Written { commit: CommitNumber(0), write, shares: write, transaction };
                result = Some(json!(replica.follow(written, actions).0));
            }
            ClientMove::Use(name) => {
                replica.command(now, Command::Subscribe(collection(&name)?), actions)
            }
            ClientMove::Release(name) => {
                replica.command(now, Command::Release(collection(&name)?), actions)
            }
            ClientMove::Leave(name) => {
                replica.command(now, Command::Unsubscribe(collection(&name)?), actions)
            }
            ClientMove::UseScope(named) => {
                let (collection, scope) = named.read()?;
                replica.command(now, Command::UseScope(collection, scope), actions);
            }
            ClientMove::ReleaseScope(named) => {
                let (collection, scope) = named.read()?;
                replica.command(now, Command::ReleaseScope(collection, scope), actions);
            }
            ClientMove::KeepScope(named) => {
                let (collection, scope) = named.read()?;
                replica.command(now, Command::KeepScope(collection, scope, named.kept), actions);
            }
            ClientMove::Synced => result = Some(json!(replica.synced(now, actions).0)),
            ClientMove::SetToken(token) => {
                replica.command(now, Command::SetToken(Token::from(&*token)), actions)
            }
            ClientMove::Watch(what) => {
                let watch = match what.contains('/') {
                    true => {
                        let (collection, id) = place(&what)?;
                        replica.watch_record(&collection, &id, actions)
                    }
                    false => replica.watch(&collection(&what)?, actions),
                };
                result = Some(json!(watch.map_err(|error| error.message)?.0));
            }
            ClientMove::Unwatch(watch) => replica.unwatch(WatchId(watch)),
            ClientMove::Get(at) => {
                let (collection, id) = place(&at)?;
                let record = replica.get(&collection, &id).map_err(|error| error.message)?;
                result = Some(record.as_ref().map_or(Value::Null, render::record));
            }
            ClientMove::GetAll(name) => {
                let records = replica.get_all(&collection(&name)?);
                result = Some(render::records(&records.map_err(|error| error.message)?));
            }
            ClientMove::Rejected => {
                let rejected = replica.rejected().map_err(|error| error.message)?;
                result = Some(render::rejected(&rejected));
            }
            ClientMove::Status => result = Some(render::status(&replica.status())),
            ClientMove::Up => replica.handle(now, Input::Connected { conn }, actions),
            ClientMove::Heard => replica.handle(now, Input::Heard { conn }, actions),
            ClientMove::Progress => replica.handle(now, Input::Progress { conn }, actions),
            ClientMove::RequestProgress => {
                let latest = self.requests.values().next_back().ok_or("there is no request")?;
                let request = latest.id;
                replica.handle(now, Input::RequestProgress { request }, actions);
            }
            ClientMove::Hear(frames) => {
                for frame in words.frames(&frames)? {
                    let frame = frame.as_bytes();
                    replica.handle(now, Input::Frame { conn, frame }, actions);
                }
            }
            ClientMove::HearText(text) => {
                let frame = text.as_bytes();
                replica.handle(now, Input::Frame { conn, frame }, actions);
            }
            ClientMove::Lost(reason) => {
                let why = Disconnect::Lost(reason.into());
                replica.handle(now, Input::Disconnected { conn, why }, actions);
            }
            ClientMove::Refused { status, retry_after_ms, body } => {
                let retry_after = retry_after_ms.map(Duration::from_millis);
                let body = words.resolve(&body)?.to_string().into_bytes();
                let why = Disconnect::Refused { status, retry_after, body };
                replica.handle(now, Input::Disconnected { conn, why }, actions);
            }
            ClientMove::SyncNow => replica.command(now, Command::SyncNow, actions),
            ClientMove::SetOnline(online) => {
                replica.command(now, Command::SetOnline(online), actions)
            }
            ClientMove::Answer(answer) => {
                let latest = self.requests.keys().next_back().copied();
                let ticket = answer.request.or(latest).and_then(|id| self.requests.remove(&id));
                let ticket = ticket.ok_or("there is no such request")?;
                let body = words.resolve(&answer.body)?;
                let answer = match answer.status {
                    None => HttpAnswer::Failed(answer.failed.into()),
                    Some(status) => HttpAnswer::Answered {
                        status,
                        retry_after: answer.retry_after_ms.map(Duration::from_millis),
                        body: body.to_string().into_bytes(),
                    },
                };
                replica.handle(now, ticket.answer(answer), actions);
            }
            ClientMove::Tick(millis) => return self.tick(millis),
            ClientMove::Clock(millis) => self.now.wall.0 += millis,
            ClientMove::Fail(holds) => replica.store_mut().fails_at = Some(holds),
            ClientMove::FailStore => {
                let error = StoreError::new(StoreErrorKind::Other, "the disk has failed");
                replica.store_mut().inner().fail(error);
                replica.poll_store(now, actions);
            }
            ClientMove::Durable(up_to) => {
                replica.store_mut().inner().make_durable(CommitNumber(up_to));
                replica.poll_store(now, actions);
            }
            ClientMove::AllDurable => {
                let last = replica.store_mut().inner().last();
                replica.store_mut().inner().make_durable(last);
                replica.poll_store(now, actions);
            }
            ClientMove::Restart { back_to, config } => return self.restart(back_to, &config),
            ClientMove::SignOut { how, back_to, config } => {
                return self.sign_out(how, back_to, &config);
            }
        }
        self.out.extend(result.map(|result| json!({"result": result})));
        self.look()
    }

    /// Lets time pass, and everything that is due with it happen at its moment.
    fn tick(&mut self, millis: u64) -> Result<(), String> {
        let end = self.now.mono.0 + millis;
        for _ in 0..1_000 {
            let due = self.replica()?.deadline().filter(|(at, _)| at.0 <= end);
            let Some((at, timer)) = due else {
                self.pass_to(end);
                return Ok(());
            };
            self.pass_to(at.0.max(self.now.mono.0));
            self.out.push(tagged("timer", render::timer(timer)));
            let now = self.now;
            let Some(replica) = &mut self.replica else { continue };
            replica.store_mut().by_app = false;
            replica.handle(now, Input::Timeout, &mut self.actions);
            self.look()?;
        }
        Err("the replica's deadlines never end".into())
    }

    fn pass_to(&mut self, mono: u64) {
        let millis = mono.saturating_sub(self.now.mono.0);
        self.now.mono.0 += millis;
        self.now.wall.0 += i64::try_from(millis).unwrap_or(0);
    }

    fn sign_out(&mut self, how: How, back_to: Option<u64>, config: &Value) -> Result<(), String> {
        let replica = self.replica.take().ok_or("the replica did not open")?;
        let mut signed_out = match replica.sign_out(self.now, how.into(), &mut self.actions) {
            Ok(signed_out) => signed_out,
            Err(refused) => {
                let (replica, why) = *refused;
                self.replica = Some(replica);
                self.out.push(json!({"result": render::written(Err(why))}));
                return self.look();
            }
        };
        while signed_out.step().map_err(|error| error.message)? {}
        self.config = merge(&self.config, config);
        self.setup = read(&self.config)?;
        self.requests.clear();
        self.open(signed_out.store().clone().reopen(back_to))?;
        self.look()
    }

    fn restart(&mut self, back_to: Option<u64>, config: &Value) -> Result<(), String> {
        let replica = self.replica.take().ok_or("the replica did not open")?;
        self.config = merge(&self.config, config);
        self.setup = read(&self.config)?;
        self.actions.clear();
        self.requests.clear();
        self.open(replica.store().clone().reopen(back_to))?;
        self.look()
    }

    /// Puts down everything that the replica has done.
    fn look(&mut self) -> Result<(), String> {
        let replica = self.replica.as_mut().ok_or("the replica did not open")?;
        // a machine whose store has failed knows of a batch that the store does not
        if replica.status().halted.is_none() {
            replica.check().map_err(|broken| format!("an invariant is broken: {broken}"))?;
        }
        self.words.note_client(&replica.status().client_id);
        let asked = std::mem::take(&mut replica.store_mut().asked);
        if self.setup.show_commits {
            self.out.extend(asked.into_iter().map(|asked| match asked {
                Asked::Commit(number, holds) => {
                    let holds: Vec<_> = holds.into_iter().map(Holds::name).collect();
                    json!({"commit": number.0, "holds": holds})
                }
                Asked::Flush(up_to) => json!({"flush": up_to.0}),
            }));
        }
        let mut watchers = Vec::new();
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::Net(action) => self.note_net(action),
                // how far a catch-up has come is for people alone
                Action::Event(event) if matches!(event.kind, EventKind::SyncProgress { .. }) => {}
                Action::Event(event) => self.out.push(render::event(&event)),
                Action::Synced { id, outcome } => self.out.push(render::synced(id, &outcome)),
                Action::Fate { id, fate } => self.out.push(render::fate(id, &fate)),
                Action::Durable(up_to) => {
                    if self.setup.durable == Durability::WhenTold {
                        self.out.push(tagged("durable", up_to.0));
                    }
                }
                Action::Halted(error) => self.out.push(tagged("halted", error.message)),
                Action::Watch(watch) => watchers.push(watch),
            }
        }
        for watch in watchers {
            if let Some(update) = self.replica()?.take(watch) {
                self.out.push(render::update(watch.0, &update));
            }
        }
        Ok(())
    }

    fn note_net(&mut self, action: NetAction) {
        let shown = match action {
            NetAction::Connect { conn, token } => {
                self.conn = conn;
                match token {
                    Some(token) => json!({"connect": conn.0, "token": token.reveal()}),
                    None => json!({"connect": conn.0}),
                }
            }
            NetAction::Send { conn, frame } => {
                self.words.note_frame(&frame);
                match conn == self.conn {
                    true => json!({"send": render::frame(&frame)}),
                    false => json!({"conn": conn.0, "send": render::frame(&frame)}),
                }
            }
            NetAction::Ping { conn } => json!({"ping": conn.0}),
            NetAction::Close { conn } => json!({"close": conn.0}),
            NetAction::Request(ticket) => {
                let shown = render::request(ticket.id.0, &ticket.request);
                for write in shown["body"]["mutations"].as_array().into_iter().flatten() {
                    self.words.note_frame(write.to_string().as_bytes());
                }
                self.requests.insert(ticket.id.0, ticket);
                shown
            }
        };
        self.out.push(shown);
    }
}

impl Stage for ClientSide {
    fn step(&mut self, step: &Step) -> Result<Vec<Value>, String> {
        let made: ClientMove = read(&step.input)?;
        self.make(step, made)?;
        let out = std::mem::take(&mut self.out);
        Ok(out.into_iter().map(|value| self.words.name(value)).collect())
    }

    fn unfinished(&self) -> Option<String> {
        let planned = self.replica.as_ref()?.store().fails_at?;
        Some(format!("no batch came that holds a {}, which was to fail", planned.name()))
    }
}

/// A record with these numbers added to its fields.
fn sums(seen: Option<&Document>, add: &BTreeMap<String, i64>) -> Document {
    let number = |name: &str| seen.and_then(|seen| seen.text(name)?.parse::<i64>().ok());
    let others = seen.into_iter().flat_map(Document::iter);
    let others = others.filter(|(name, _)| !add.contains_key(*name));
    let others = others.map(|(name, text)| format!("\"{name}\":{text}"));
    let sums =
        add.iter().map(|(name, by)| format!("\"{name}\":{}", number(name).unwrap_or(0) + by));
    let fields: Vec<_> = others.chain(sums).collect();
    crate::world::document(&format!("{{{}}}", fields.join(",")))
}
