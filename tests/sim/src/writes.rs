//! Writes of apps and level-1 programs in a run.

mod unit;

use synclayer_core::Document;

use crate::draw::Draw;
use crate::guarantees::{STRANGER, Write, is_permanent};
use crate::invariants::Invariant;
use crate::plan::{Plan, collections};
use crate::ruling;
use crate::run::Run;
use crate::scoping::{POPULAR_FIELDS, Scoping};
use crate::world::{Place, document, record};

/// An app's write to a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AppWrite {
    /// Sets a field of its own.
    Unique,
    /// Overwrites the contested field.
    Hot,
    /// Both.
    Both,
    /// Appends to the list.
    Append,
    /// Sets or removes a field.
    Flag,
    /// Saves the whole record with another contested field.
    Save,
    /// Removes it.
    Delete,
    /// Hides it from guests, or shows it.
    Hide,
    /// Writes what nobody may write.
    Forbidden,
    /// Moves it between scopes, or into other hands.
    Move,
    /// Moves it into the scope that most records are in.
    Join,
}

const KINDS: [AppWrite; 12] = [
    AppWrite::Hot,
    AppWrite::Unique,
    AppWrite::Append,
    AppWrite::Both,
    AppWrite::Hot,
    AppWrite::Flag,
    AppWrite::Delete,
    AppWrite::Append,
    AppWrite::Save,
    AppWrite::Delete,
    AppWrite::Hide,
    AppWrite::Forbidden,
];

impl Run {
    /// A record: few of them are hot, many are cold; those that begin with `x` may be deleted.
    pub(crate) fn place(&self, draw: &mut Draw<'_>) -> Place {
        let collection = collections().swap_remove(usize::from(!draw.one_in(4)));
        let id = match draw.below(8) {
            0..=2 => "a".into(),
            3 => "b".into(),
            4 | 5 => "x".into(),
            6 => "xy".into(),
            _ => format!("k{}", draw.below(30)),
        };
        (collection, record(&id))
    }

    pub(crate) fn write_anywhere(&mut self, draw: &mut Draw<'_>) -> Result<(), String> {
        let (device, place) = (self.device(draw), self.place(draw));
        if draw.one_in(self.plan.units) {
            return self.write_unit(draw, device, place);
        }
        let burst = if draw.one_in(12) { draw.within(2, 12) } else { 1 };
        for _ in 0..burst {
            let kind = KINDS[draw.below(KINDS.len())];
            let can_move = self.plan.scoping.is_some() || self.plan.ruling.is_some();
            let moves = can_move && draw.one_in(3);
            let kind = if moves { AppWrite::Move } else { kind };
            let forbids =
                kind == AppWrite::Forbidden && (!draw.one_in(4) || self.plan.ruling.is_some());
            self.write(device, &place, if forbids { AppWrite::Hot } else { kind })?;
        }
        Ok(())
    }

    /// The app of a device writes, if there is anything that it can do of this kind.
    pub(crate) fn write(
        &mut self,
        device: usize,
        place: &Place,
        kind: AppWrite,
    ) -> Result<(), String> {
        if self.world.devices[device].has_halted() {
            return Ok(());
        }
        let n = self.ledger.next_token();
        let (collection, id) = place;
        let view = self.world.view(device, collection, id);
        let saw = self.hot_seen(device, place);
        let deletes = self.plan.deletes && !is_permanent(id);
        let mut write = Write { saw, ..Write::new(device, place.clone()) };
        let user = self.world.devices[device].config.user.clone();
        let world = &mut self.world;
        let Some(view) = view else {
            // where sums are counted, records are made by one device alone
            if self.plan.strategy == crate::plan::Strategy::Sum && device != 0 {
                return Ok(());
            }
            (write.inserts, write.unique, write.saw) = (true, true, 0);
            let pad = self
                .plan
                .thin
                .map_or_else(String::new, |thin| format!(r#","pad":"{}""#, "x".repeat(thin.pad)));
            let (fields, _) = moving(&self.plan, n, &user, true);
            let comma = if fields.is_empty() { "" } else { "," };
            let json = format!(r#"{{"hot":[0,{n}],"t{n}":{n}{pad}{comma}{fields}}}"#);
            let made = world.save(device, collection, id, &json);
            return self.enter(write, made);
        };
        let update = |world: &mut crate::world::World, json: String, unset: &[&str]| {
            world.update(device, collection, id, &json, unset)
        };
        // half of what is made of what was there is made in one step with reading it
        let in_one_step = n % 2 == 1;
        let made = if self.plan.strategy == crate::plan::Strategy::Sum {
            let sum = |seen: &Document| -> i64 {
                seen.text("sum").and_then(|text| text.parse().ok()).unwrap_or(0)
            };
            write.adds = 1 << (n % 40);
            if in_one_step {
                let adds = write.adds;
                world.modify(device, collection, id, move |seen| {
                    seen.map(|seen| with(seen, "sum", &(sum(seen) + adds).to_string()))
                })
            } else {
                update(world, format!(r#"{{"sum":{}}}"#, sum(&view) + write.adds), &[])
            }
        } else {
            match kind {
                AppWrite::Delete if deletes => {
                    self.ledger.enter_deletion(device, place, saw);
                    world.delete(device, collection, id)
                }
                AppWrite::Unique => {
                    write.unique = true;
                    update(world, format!(r#"{{"t{n}":{n}}}"#), &[])
                }
                AppWrite::Both => {
                    write.unique = true;
                    update(world, format!(r#"{{"hot":[{saw},{n}],"t{n}":{n}}}"#), &[])
                }
                AppWrite::Append if in_one_step => {
                    write.appends = true;
                    world.modify(device, collection, id, move |seen| {
                        let seen = seen?;
                        let mut log = crate::plan::tokens_in(seen.text("log").unwrap_or("[]"));
                        log.push(n.to_string());
                        Some(with(seen, "log", &format!("[{}]", log.join(","))))
                    })
                }
                AppWrite::Append => {
                    write.appends = true;
                    let mut log = crate::plan::tokens_in(view.text("log").unwrap_or("[]"));
                    log.push(n.to_string());
                    update(world, format!(r#"{{"log":[{}]}}"#, log.join(",")), &[])
                }
                AppWrite::Move => {
                    let (fields, unset) = moving(&self.plan, n, &user, false);
                    let fields = if fields.is_empty() { "\"room\":1".into() } else { fields };
                    write.unique = true;
                    update(world, format!(r#"{{{fields},"t{n}":{n}}}"#), &unset)
                }
                AppWrite::Join => {
                    write.unique = true;
                    update(world, format!(r#"{{{POPULAR_FIELDS},"t{n}":{n}}}"#), &[])
                }
                AppWrite::Flag if view.text("flag").is_some() => {
                    update(world, "{}".into(), &["flag"])
                }
                AppWrite::Flag => update(world, format!(r#"{{"flag":{n}}}"#), &[]),
                AppWrite::Save => {
                    let fields = view.iter().filter(|(name, _)| *name != "hot");
                    let fields = fields.map(|(name, text)| format!("\"{name}\":{text}"));
                    let all: Vec<_> = fields.chain([format!("\"hot\":[{saw},{n}]")]).collect();
                    world.save(device, collection, id, &format!("{{{}}}", all.join(",")))
                }
                // they see what others hide
                AppWrite::Hide if user == "guest" => {
                    update(world, format!(r#"{{"hot":[{saw},{n}]}}"#), &[])
                }
                AppWrite::Hide if self.plan.partial && view.text("hidden").is_some() => {
                    update(world, "{}".into(), &["hidden"])
                }
                AppWrite::Hide if self.plan.partial => {
                    update(world, r#"{"hidden":true}"#.into(), &[])
                }
                AppWrite::Forbidden => {
                    world.count("forbidden");
                    (write.forbidden, write.unique) = (true, true);
                    update(world, format!(r#"{{"forbidden":1,"t{n}":{n}}}"#), &[])
                }
                AppWrite::Hot | AppWrite::Delete | AppWrite::Hide => {
                    update(world, format!(r#"{{"hot":[{saw},{n}]}}"#), &[])
                }
            }
        };
        self.enter(write, made)
    }

    fn enter(
        &mut self,
        write: Write,
        made: Result<synclayer_core::Written, synclayer_core::Misuse>,
    ) -> Result<(), String> {
        let (device, place) = (write.device, write.place.clone());
        let (unique, n) = (write.unique, self.ledger.next_token());
        let made = match made {
            Ok(made) => made,
            Err(error) if self.world.devices[device].has_halted() => {
                self.world.note(|| format!("not saved: {error}"));
                return Ok(());
            }
            Err(error) => {
                let refused = Err(format!("a sound write is refused: {error}"));
                return self.ledger.keep(Invariant::Contract, refused);
            }
        };
        self.world.await_commit(device, made.commit);
        if made.write.is_none() {
            return Ok(());
        }
        let before = self.ledger.writes().iter().rfind(|write| write.device == device);
        if before.is_some_and(|before| before.position == made.write) {
            self.world.count("joined write");
        }
        let fate = Some(self.world.follow(device, made));
        self.ledger.enter(Write { position: made.write, commit: made.commit, fate, ..write });
        self.ledger.times.made(n, &self.world, device, &place);
        let view = self.world.view(device, &place.0, &place.1);
        let field = format!("t{n}");
        // a group that fails undoes what was made in it
        let undone = self.world.devices[device].has_halted();
        if unique && !undone && view.is_none_or(|view| view.text(&field).is_none()) {
            let unseen = Err(format!("device {device} does not see {field}"));
            return self.ledger.keep(Invariant::ReadYourWrites, unseen);
        }
        Ok(())
    }

    /// Writes down what somebody writes who is none of our replicas.
    fn enter_stranger(&mut self, place: &Place) -> u64 {
        let n = self.ledger.next_token();
        self.ledger.enter(Write::new(STRANGER, place.clone()));
        n
    }

    /// A level-1 program does something.
    pub(crate) fn plain(&mut self, draw: &mut Draw<'_>) {
        let plain = draw.below(self.world.plains.len());
        if !self.world.is_plain_connected(plain) {
            return self.world.connect_plain(plain);
        }
        // the others only read
        if plain != 1 {
            return;
        }
        let place = self.place(draw);
        let n = self.enter_stranger(&place);
        let hot = format!(r#"{{"hot":[0,{n}]}}"#);
        match draw.below(4) {
            1 if !is_permanent(&place.1) => self.world.write_plain(plain, "insert", &place, &hot),
            2 if self.plan.deletes && !is_permanent(&place.1) => {
                self.world.write_plain(plain, "delete", &place, "");
            }
            _ => self.world.write_plain(plain, "update", &place, &hot),
        }
    }

    /// Somebody calls the HTTP API.
    pub(crate) fn rest(&mut self, draw: &mut Draw<'_>) {
        let place = self.place(draw);
        let n = self.enter_stranger(&place);
        let (collection, id) = &place;
        let user = self.plan.stranger();
        let user = user.as_deref();
        let one = format!("/sync/{collection}/{id}");
        let changeable = !is_permanent(id);
        match draw.below(6) {
            1 if changeable => {
                let body = format!(r#"{{"recordId":"{id}","data":{{"hot":[0,{n}]}}}}"#);
                self.world.rest(user, "POST", &format!("/sync/{collection}"), &body);
            }
            2 if changeable && self.plan.deletes => self.world.rest(user, "DELETE", &one, ""),
            3 if self.plan.scoping.is_some() => {
                let target = format!("/sync/{collection}?scope[room]=1&limit=5");
                self.world.rest(user, "GET", &target, "");
            }
            3 => self.world.rest(user, "GET", &format!("/sync/{collection}?limit=5"), ""),
            4 => {
                let body = format!(r#"{{"delta":{{"hot":[0,{n}]}},"baseVersion":{}}}"#, n % 9);
                self.world.rest(user, "PATCH", &one, &body);
            }
            _ => {
                let body = format!(r#"{{"delta":{{"hot":[0,{n}]}}}}"#);
                self.world.rest(user, "PATCH", &one, &body);
            }
        }
    }
}

/// Fields that put a record into other scopes and hands, and those to be removed.
fn moving(plan: &Plan, n: u64, author: &str, is_new: bool) -> (String, Vec<&'static str>) {
    let (mut fields, mut unset) = (Vec::new(), Vec::new());
    if plan.scoping.is_some() {
        let (set, removed) = Scoping::fields(n);
        fields.extend(Some(set).filter(|set| !set.is_empty()));
        unset = removed;
    }
    if plan.ruling.is_some() {
        fields.push(ruling::fields(n, author, is_new));
    }
    (fields.join(","), unset)
}

/// A record with another value of a field.
fn with(seen: &Document, name: &str, text: &str) -> Document {
    let others = seen.iter().filter(|(other, _)| *other != name).chain([(name, text)]);
    let fields: Vec<_> = others.map(|(name, text)| format!("\"{name}\":{text}")).collect();
    document(&format!("{{{}}}", fields.join(",")))
}
