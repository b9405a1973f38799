//! The guarantees, each as a check of what a run has shown.
//!
//! Writes carry tokens, numbers that are used once, so that a loss, a double or a reordering shows
//! where overwriting would hide it:
//!
//! * a field `t17` of its own: no strategy may lose it;
//! * an element of the list `log`: the strategy that appends keeps each once, in its author's
//!   order;
//! * the pair `[16,17]` in the contested field `hot`: its own token, and the one that its author
//!   saw there. What a write overwrites must be what its author saw, or a strategy has decided.
//!
//! A [`Ledger`] is kept as the run goes: [`Ledger::observe`] after every move,
//! [`Ledger::audit`] when everything has come to rest.
#![allow(clippy::wildcard_enum_match_arm, reason = "only a few of the many events matter here")]

use std::collections::{BTreeMap, BTreeSet};

use synclayer_core::client::event::{Event, EventKind};
use synclayer_core::client::fate::{Fate, FateId};
use synclayer_core::client::interface::OnServerLoss;
use synclayer_core::protocol::document::Document;
use synclayer_core::protocol::limits::Limits;
use synclayer_core::protocol::message::ClientMessage;
use synclayer_core::protocol::name::{ClientId, Collection, CommitNumber, RecordId, WriteId};
use synclayer_core::protocol::wire::{Incoming, decode_client};
use synclayer_core::protocol::write::WriteKind;
use synclayer_core::rules::row::Rejected;
use synclayer_core::rules::view::RecordChange;

use crate::invariants::{Findings, Invariant};
use crate::plan::{Plan, Strategy, collections, tokens_in};
use crate::times::{Times, fields_keep_their_times, points_of, the_later_write_won};
use crate::world::{Committed, Device, Owner, Place, World, without_nulls};

/// Nobody of ours: the author of what comes by level 1.
pub const STRANGER: usize = usize::MAX;

/// One write of an app.
#[derive(Clone, Debug)]
pub struct Write {
    /// The device whose app made it, or [`STRANGER`].
    pub device: usize,
    /// The record.
    pub place: Place,
    /// Its place in the outbox, or that of the write that it joined.
    pub position: Option<WriteId>,
    /// The commit of the device's present life that holds it; 0 for one of an earlier life.
    pub commit: CommitNumber,
    /// `true` if it sets a field of its own.
    pub unique: bool,
    /// `true` if it appends to the list.
    pub appends: bool,
    /// The value of the contested field that its author saw.
    pub saw: u64,
    /// `true` if its author saw no record.
    pub inserts: bool,
    /// The amount that it adds to a sum.
    pub adds: i64,
    /// `true` if it sets a field that nobody may write.
    pub forbidden: bool,
    /// `true` if its device has lost it before it was durable.
    pub lost: bool,
    /// `true` if it may be missing because an older state came back.
    pub forgotten: bool,
    /// `true` if its device has been wiped since.
    pub wiped: bool,
    /// `true` if the server has refused it.
    pub rejected: bool,
    /// `true` if its app has repeated it after the refusal.
    pub retried: bool,
    /// `true` if the server has applied it.
    pub applied: bool,
    /// By which its app waits for what becomes of it, in the device's present life.
    pub fate: Option<FateId>,
    /// The fate that was reported to its app.
    pub told: Option<Fate>,
}

/// All writes and their fates.
pub struct Ledger {
    plan: Plan,
    writes: Vec<Write>,
    /// The number of events of each device that were read.
    seen: Vec<usize>,
    /// Values of the contested field that a strategy has decided, by the device it runs on.
    decided: BTreeSet<(usize, u64)>,
    /// Records whose deletion a strategy has decided.
    decided_deletes: BTreeSet<(usize, Place)>,
    /// The values of the contested field that authors of deletions saw.
    deletions: BTreeMap<(usize, Place), BTreeSet<u64>>,
    /// The last place of each client's outbox that was applied.
    last_place: BTreeMap<ClientId, WriteId>,
    /// The updates that watchers were shown.
    shown: BTreeMap<(usize, Collection), BTreeMap<RecordId, Document>>,
    /// `true` if an older state came back or was forgotten, so that not every write must survive.
    loose: bool,
    /// When what was written.
    pub(crate) times: Times,
    /// The breaches that were found.
    pub findings: Findings,
    /// Of which device another is a copy.
    originals: BTreeMap<usize, usize>,
    /// The facts that a crash may undo.
    merges: Vec<Merge>,
}

/// A strategy has merged a write with others into one.
struct Merge {
    device: usize,
    /// The commit of the device's present life that holds the outcome.
    commit: CommitNumber,
    /// The write's index.
    write: usize,
    was_at: Option<WriteId>,
}

impl Ledger {
    /// An empty one.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        Self {
            plan: plan.clone(),
            writes: Vec::new(),
            seen: Vec::new(),
            decided: BTreeSet::new(),
            decided_deletes: BTreeSet::new(),
            deletions: BTreeMap::new(),
            last_place: BTreeMap::new(),
            shown: BTreeMap::new(),
            loose: false,
            times: Times::default(),
            findings: Findings::default(),
            originals: BTreeMap::new(),
            merges: Vec::new(),
        }
    }

    /// The token of the next write.
    #[must_use]
    pub fn next_token(&self) -> u64 {
        self.writes.len() as u64 + 1
    }

    /// Writes down a write; its token is the one that was next.
    pub fn enter(&mut self, write: Write) {
        self.writes.push(write);
    }

    /// Writes down that an app deletes a record in whose contested field it sees this.
    pub fn enter_deletion(&mut self, device: usize, place: &Place, saw: u64) {
        self.deletions.entry((device, place.clone())).or_default().insert(saw);
    }

    /// The writes so far.
    #[must_use]
    pub fn writes(&self) -> &[Write] {
        &self.writes
    }

    /// The app makes a rejected write again, as `position`, knowing what it does.
    pub fn retried(&mut self, device: usize, old: WriteId, position: Option<WriteId>) {
        for (index, write) in self.writes.iter_mut().enumerate() {
            if write.is_at(device, old) && write.rejected {
                (write.rejected, write.position) = (false, position);
                write.retried = true;
                self.times.made_again(index as u64 + 1);
                self.decided.insert((device, index as u64 + 1));
            }
        }
    }

    /// A device crashed and has lost what came after a commit.
    pub fn crashed(&mut self, device: usize, back_to: CommitNumber) {
        for merge in self.merges.iter().rev().filter(|merge| merge.device == device) {
            if merge.commit > back_to {
                self.writes[merge.write].position = merge.was_at;
            }
        }
        self.merges.retain(|merge| merge.device != device);
        for write in self.writes.iter_mut().filter(|write| write.device == device) {
            write.lost |= write.commit > back_to;
            write.commit = CommitNumber(0);
            write.fate = None;
        }
        self.shown.retain(|(of, _), _| *of != device);
    }

    /// These are the writes that a device still knows to be rejected after a crash.
    pub fn still_refused(&mut self, device: usize, refused: &[Rejected]) {
        for write in self.writes.iter_mut().filter(|w| w.device == device && !w.wiped) {
            write.rejected &= refused.iter().any(|one| write.position == Some(one.write));
        }
    }

    /// Everything was wiped that a device held: what it had not sent is gone, and what was sent
    /// comes back from the server only. Its outbox begins anew.
    pub fn wiped(&mut self, device: usize) {
        for write in self.writes.iter_mut().filter(|write| write.device == device) {
            write.forgotten |= !write.applied && !write.rejected;
            write.position = None;
            write.wiped = true;
        }
        self.merges.retain(|merge| merge.device != device);
    }

    /// Returns `true` if the app of a device waits for the fate of a write.
    #[must_use]
    pub fn waits_for_a_fate(&self, device: usize) -> bool {
        let waits = |write: &Write| write.fate.is_some() && write.told.is_none();
        self.writes.iter().any(|write| write.device == device && waits(write))
    }

    /// **True fates:** a crash takes nothing back that an app was told of its writes. To be called
    /// after [`still_refused`](Self::still_refused).
    ///
    /// # Errors
    /// Of which write it does.
    pub fn fates_last(&self, device: usize) -> Result<(), String> {
        for (index, write) in self.writes.iter().enumerate().filter(|(_, w)| w.device == device) {
            let refused = matches!(write.told, Some(Fate::Rejected { .. }));
            let excused = write.retried || write.forgotten || write.wiped || self.loose;
            if refused && !write.rejected && !excused {
                let token = index + 1;
                return Err(format!("write {token} was told to be rejected, and a crash undid it"));
            }
        }
        Ok(())
    }

    /// Something older came back: what these writes did need not be remembered.
    pub fn forget(&mut self, mut which: impl FnMut(u64, &Write) -> bool) {
        self.loose = true;
        for (index, write) in self.writes.iter_mut().enumerate() {
            write.forgotten |= which(index as u64 + 1, write);
        }
    }

    /// A copy of a device runs beside it, and has written all that the device had written by then.
    pub fn copied(&mut self, copy: usize, original: usize) {
        self.loose = true;
        self.originals.insert(copy, original);
    }

    /// A device was started from another state: its watchers begin anew.
    pub fn restarted(&mut self, device: usize) {
        self.merges.retain(|merge| merge.device != device);
        self.shown.retain(|(of, _), _| *of != device);
        for write in self.writes.iter_mut().filter(|write| write.device == device) {
            write.commit = CommitNumber(0);
            write.fate = None;
        }
    }

    /// Keeps what a look has found.
    ///
    /// # Errors
    /// That, unless the run goes on.
    pub fn keep(&mut self, of: Invariant, looked: Result<(), String>) -> Result<(), String> {
        self.findings.keep(of, looked)
    }

    /// Takes in what happened since the last call.
    ///
    /// # Errors
    /// Which guarantee is broken, and how.
    pub fn observe(&mut self, world: &mut World) -> Result<(), String> {
        self.seen.resize(world.devices.len(), 0);
        for device in 0..world.devices.len() {
            let given_up = gives_up_what_was_refused(&world.devices[device], self.seen[device]);
            self.keep(Invariant::NothingLost, given_up)?;
            for event in &world.devices[device].events[self.seen[device]..] {
                let rejected = world.rejected_by_the_server(device, event);
                self.findings.keep(Invariant::NothingLost, rejected)?;
            }
            self.observe_events(world, device);
            for (frame, durable) in std::mem::take(&mut world.devices[device].sent) {
                let sent = durable_before_sent(self, device, &frame, durable);
                self.keep(Invariant::DurableBeforeShown, sent)?;
            }
        }
        self.loose |= world.counts.contains_key("client forgotten");
        for committed in std::mem::take(&mut world.committed) {
            if let Some(Owner::Device(device)) = committed.owner {
                points_of(self, &committed).into_iter().for_each(|point| world.count(point));
                let in_time = fields_keep_their_times(self, world, &committed, device);
                self.keep(Invariant::Times, in_time)?;
                let resurrected = nothing_is_resurrected(self, world, &committed, device);
                self.keep(Invariant::DeletesStayDeleted, resurrected)?;
            }
            self.observe_commit(&committed)?;
        }
        for device in 0..world.devices.len() {
            for (id, fate) in std::mem::take(&mut world.devices[device].fates) {
                self.observe_fate(world, device, id, fate)?;
            }
        }
        Ok(())
    }

    fn observe_fate(
        &mut self,
        world: &mut World,
        device: usize,
        id: FateId,
        fate: Fate,
    ) -> Result<(), String> {
        let own = |write: &Write| write.device == device && write.fate == Some(id);
        let Some(index) = self.writes.iter().rposition(own) else { return Ok(()) };
        let told_before = self.writes[index].told.replace(fate.clone());
        let write = &self.writes[index];
        world.count(match fate {
            Fate::Acknowledged => "fate: acknowledged",
            Fate::Rejected { .. } => "fate: rejected",
            Fate::GivenUp => "fate: given up",
            _ => "fate: another",
        });
        let together = |other: &Write| {
            other.device == device && other.position == write.position && other.place == write.place
        };
        if write.position.is_some()
            && self.writes.iter().filter(|other| together(other)).count() > 1
        {
            world.count("fate of a joined write");
        }
        if self.merges.iter().any(|merge| merge.write == index) {
            world.count("fate of a merged write");
        }
        let token = index + 1;
        let looked = match told_before {
            Some(before) => Err(format!("write {token} was told {before:?}, then {fate:?}")),
            None => fate_is_true(self, index, &fate),
        };
        self.keep(Invariant::TrueFates, looked)
    }

    fn observe_events(&mut self, world: &World, device: usize) {
        let events = &world.devices[device].events;
        for event in &events[self.seen[device]..] {
            let place = || Some((event.collection.clone()?, event.record_id.clone()?));
            match &event.kind {
                EventKind::OperationFailed { write, with, .. } => {
                    for position in with.iter().chain([write]) {
                        let at = |write: &&mut Write| write.is_at(device, *position);
                        self.writes.iter_mut().filter(at).for_each(|write| write.rejected = true);
                    }
                }
                EventKind::ConflictResolved { write, merged } => {
                    let Some(place) = place() else { continue };
                    self.observe_decision(world, device, &place, *write, merged);
                }
                EventKind::OperationsMerged { write, merged } => {
                    let Some(place) = place() else { continue };
                    self.observe_merge(world, device, &place, *write, merged);
                }
                _ => {}
            }
        }
        self.seen[device] = events.len();
    }

    fn observe_decision(
        &mut self,
        world: &World,
        device: usize,
        place: &Place,
        write: Option<WriteId>,
        merged: &[WriteId],
    ) {
        match world.view(device, &place.0, &place.1) {
            Some(view) => drop(self.decided.insert((device, hot(Some(&view)).1))),
            None => {
                self.decided_deletes.insert((device, place.clone()));
                self.give_up_forgotten(world, device, place, merged);
            }
        }
        self.observe_merge(world, device, place, write, merged);
    }

    /// A strategy gives up writes to a record that is gone. Where a server may have forgotten what it
    /// had taken, that holds for records too that nobody deletes: they need not be there.
    fn give_up_forgotten(
        &mut self,
        world: &World,
        device: usize,
        place: &Place,
        merged: &[WriteId],
    ) {
        let copied = |event: &Event| matches!(event.kind, EventKind::ReplicaCopied { .. });
        let forgotten = world.counts.contains_key("client known anew");
        if !forgotten && !world.devices[device].events.iter().any(copied) {
            return;
        }
        for write in self.writes.iter_mut().filter(|write| write.place == *place) {
            let given_up = merged.iter().any(|old| write.is_at(device, *old));
            write.forgotten |= given_up && !write.applied;
        }
    }

    /// Writes of a device to a record have become one, or none.
    fn observe_merge(
        &mut self,
        world: &World,
        device: usize,
        place: &Place,
        write: Option<WriteId>,
        merged: &[WriteId],
    ) {
        let (commit, _) = world.commits(device);
        for (index, entry) in self.writes.iter_mut().enumerate() {
            if entry.place == *place && merged.iter().any(|old| entry.is_at(device, *old)) {
                self.merges.push(Merge { device, commit, write: index, was_at: entry.position });
                entry.position = write;
            }
        }
    }

    fn observe_commit(&mut self, committed: &Committed) -> Result<(), String> {
        let Some((client, _)) = &committed.numbered else {
            self.mark_applied(committed);
            return Ok(());
        };
        let Some(Owner::Device(device)) = committed.owner else {
            self.mark_applied(committed);
            return Ok(());
        };
        self.keep(Invariant::ExactlyOnce, exactly_once(self, committed, device))?;
        self.keep(Invariant::DurableBeforeShown, durable_before_applied(self, committed))?;
        let in_order = in_order(self, committed, device, client);
        self.keep(Invariant::Order, in_order)?;
        self.keep(Invariant::TrueFates, self.fates_hold(committed, device))?;
        self.keep(Invariant::NoLostUpdate, no_lost_update(self, committed, device))?;
        self.keep(Invariant::DeletesStayDeleted, deletes_stay_deleted(self, committed, device))?;
        self.mark_applied(committed);
        Ok(())
    }

    fn fates_hold(&self, committed: &Committed, device: usize) -> Result<(), String> {
        for token in new_tokens(committed) {
            let Some(write) = self.write(token).filter(|write| self.counts(write, device)) else {
                continue;
            };
            // a list is written whole, with what others of its author's had put into it
            let own = write.unique || hot(committed.after.as_ref()).1 == token;
            if own && write.told == Some(Fate::GivenUp) {
                return Err(format!("write {token} was told to be given up, and took effect"));
            }
        }
        Ok(())
    }

    fn mark_applied(&mut self, committed: &Committed) {
        for token in new_tokens(committed) {
            if let Some(write) = self.writes.get_mut(token as usize - 1) {
                write.applied = true;
            }
        }
    }

    /// Returns `true` if an older state came back or was forgotten, so that not every write must
    /// survive.
    pub(crate) fn is_loose(&self) -> bool {
        self.loose
    }

    /// The strategy of the devices.
    pub(crate) fn strategy(&self) -> Strategy {
        self.plan.strategy
    }

    /// Returns `true` if guests see only some records.
    pub(crate) fn is_partial(&self) -> bool {
        self.plan.partial
    }

    /// Returns `true` if everything that was appended must be there.
    fn is_strict(&self) -> bool {
        self.plan.strategy == Strategy::Append && !self.loose
    }

    /// Returns `true` if a device's write can be checked for its position and its fate.
    fn counts(&self, write: &Write, device: usize) -> bool {
        let known = write.device == device && write.position.is_some();
        known && !write.applied && !write.forgotten && !self.loose
    }

    fn write(&self, token: u64) -> Option<&Write> {
        self.writes.get(usize::try_from(token).ok()?.checked_sub(1)?)
    }

    /// Returns `true` if an author that wrote `token` into the contested field had seen `found`
    /// there.
    fn had_seen(&self, device: usize, token: u64, found: u64) -> bool {
        self.write(token).is_some_and(|write| self.goes_back_to(device, write.saw, found))
    }

    /// Returns `true` if an author that saw `token` in the contested field knew of `found`: it is
    /// the same, or `token` and everything between the two is its author's own.
    fn goes_back_to(&self, device: usize, token: u64, found: u64) -> bool {
        let mut at = token;
        while at != found {
            let Some(write) = self.write(at) else { return false };
            let own = self.is_own(device, write.device);
            // What a strategy had decided was refused, and what was written on top of it stays. Of
            // a write that a copy took over, it is not known here whether the copy's was refused.
            let decided = self.decided.contains(&(device, at))
                || own && self.decided.contains(&(write.device, at));
            if decided && (write.rejected || write.device != device) {
                return true;
            }
            if !own {
                return false;
            }
            at = write.saw;
        }
        true
    }

    /// Returns `true` if `author`'s writes may be the device's own, because it is the same device
    /// or a copy of it.
    fn is_own(&self, device: usize, author: usize) -> bool {
        let mut it = Some(&device);
        while let Some(device) = it.filter(|device| **device != author) {
            it = self.originals.get(device);
        }
        it.is_some()
    }

    /// Returns `true` if an author that deleted a record had seen `found` in it.
    fn had_deleted(&self, device: usize, place: &Place, found: u64) -> bool {
        let seen = self.deletions.get(&(device, place.clone()));
        seen.is_some_and(|seen| seen.iter().any(|saw| self.goes_back_to(device, *saw, found)))
    }

    /// Returns `true` if `token` was written into a record that its author knew to be missing.
    fn goes_back_to_insert(&self, device: usize, token: u64) -> bool {
        let mut at = token;
        while let Some(write) = self.write(at).filter(|write| write.device == device) {
            if write.inserts {
                return true;
            }
            at = write.saw;
        }
        false
    }

    /// An app takes what a watcher has to show.
    ///
    /// # Errors
    /// When it is not what the rules allow.
    pub fn take(
        &mut self,
        world: &mut World,
        device: usize,
        collection: &Collection,
    ) -> Result<(), String> {
        let taken = self.take_what_fits(world, device, collection);
        self.keep(Invariant::Watchers, taken)
    }

    fn take_what_fits(
        &mut self,
        world: &mut World,
        device: usize,
        collection: &Collection,
    ) -> Result<(), String> {
        let Some(update) = world.take(device, collection) else {
            return Err(format!("device {device} was told of an update that is not there"));
        };
        let removed: Vec<_> = update.changes.iter().filter_map(removed).collect();
        let gone = losses_are_decided(self, world, device, collection, &removed);
        self.keep(Invariant::LossDecided, gone)?;
        let shown = self.shown.entry((device, collection.clone())).or_default();
        for change in &update.changes {
            let held = shown.contains_key(change.id());
            let fits = match change {
                RecordChange::Added(record) => {
                    shown.insert(record.id.clone(), record.document.clone());
                    !held
                }
                RecordChange::Modified(record) => {
                    shown.insert(record.id.clone(), record.document.clone());
                    held
                }
                RecordChange::Removed(id) => shown.remove(id).is_some(),
            };
            if !fits {
                return Err(format!("a watcher of device {device} was told {change:?}"));
            }
        }
        let now: BTreeMap<_, _> =
            update.snapshot.iter().map(|r| (r.id.clone(), r.document.clone())).collect();
        if now != *shown {
            return Err(format!("a watcher of device {device} is shown {now:?}, told {shown:?}"));
        }
        watchers_show_what_was(world, device, collection)
    }
}

impl Write {
    /// Returns `true` if it is at this position of a device's outbox.
    fn is_at(&self, device: usize, position: WriteId) -> bool {
        self.device == device && self.position == Some(position) && !self.lost && !self.forgotten
    }
}

// --- checked as the run goes ---

/// **Exactly once:** each write takes effect once or is reported as rejected, under any loss,
/// duplication, delay, crash or reconnect. Here: no number of a client is applied twice, and no
/// write that was reported as rejected is applied.
///
/// # Errors
/// When one is.
pub fn exactly_once(ledger: &Ledger, committed: &Committed, device: usize) -> Result<(), String> {
    if committed.repeated {
        return Err(format!("{:?} was applied again", committed.numbered));
    }
    for token in new_tokens(committed) {
        let counts = |write: &&Write| ledger.counts(write, device) && write.unique;
        if ledger.write(token).filter(counts).is_some_and(|write| write.rejected) {
            return Err(format!("write {token} was rejected, and took effect"));
        }
    }
    Ok(())
}

/// **Durable before shown:** nothing leaves a client before its outbox is durable; so nothing that
/// a client has lost in a crash can reach the server.
///
/// # Errors
/// When it does.
pub fn durable_before_applied(ledger: &Ledger, committed: &Committed) -> Result<(), String> {
    for token in new_tokens(committed) {
        if ledger.write(token).is_some_and(|write| write.lost) && !ledger.loose {
            return Err(format!("write {token} was lost, and came"));
        }
    }
    Ok(())
}

/// **Nothing acknowledged is lost:** only what the server has refused is given up, and with an
/// insert or a delete the later writes to its record, which have nothing to stand on. `seen` says
/// how many events of the device were looked at before.
///
/// # Errors
/// What was given up with an update.
pub fn gives_up_what_was_refused(device: &Device, seen: usize) -> Result<(), String> {
    for event in &device.events[seen..] {
        let EventKind::OperationFailed { write, with, .. } = &event.kind else { continue };
        if with.is_empty() {
            continue;
        }
        let rejected = device.replica.rejected().map_err(|error| error.message)?;
        let refused = rejected.iter().find(|one| one.write == *write);
        if refused.is_some_and(|one| one.change.kind == WriteKind::Update) {
            return Err(format!("{with:?} were given up with update {write}"));
        }
    }
    Ok(())
}

/// **Durable before shown:** no write leaves a client before it is durable there.
///
/// # Errors
/// Which write has.
pub fn durable_before_sent(
    ledger: &Ledger,
    device: usize,
    frame: &[u8],
    durable: CommitNumber,
) -> Result<(), String> {
    let Ok(Incoming::One(ClientMessage::Write(sent))) = decode_client(frame, &Limits::default())
    else {
        return Ok(());
    };
    for token in tokens(Some(&sent.change.delta.set)) {
        let own = ledger.write(token).filter(|write| write.device == device && !write.lost);
        if own.is_some_and(|write| write.commit > durable) {
            return Err(format!("device {device} sent write {token} before it was durable"));
        }
    }
    Ok(())
}

/// **Order:** a client's writes are applied in its order (merged writes take the place of the first
/// of them).
///
/// # Errors
/// When a write comes before an earlier one.
pub fn in_order(
    ledger: &mut Ledger,
    committed: &Committed,
    device: usize,
    client: &ClientId,
) -> Result<(), String> {
    for token in new_tokens(committed) {
        let Some(write) = ledger.write(token) else { continue };
        let Some(position) = write.position else { continue };
        if !ledger.counts(write, device) || write.rejected {
            continue;
        }
        let last = ledger.last_place.entry(client.clone()).or_insert(position);
        if position < *last {
            return Err(format!("write {token} of place {position} came after {last}"));
        }
        *last = position;
    }
    Ok(())
}

/// **No lost update:** a field changed by someone else since the writer last saw its record is
/// never overwritten without the writer's conflict strategy deciding it.
///
/// # Errors
/// When it is.
pub fn no_lost_update(ledger: &Ledger, committed: &Committed, device: usize) -> Result<(), String> {
    let (found, after) = (hot(committed.before.as_ref()).1, hot(committed.after.as_ref()).1);
    if committed.before.is_none() || found == after {
        return Ok(());
    }
    let place = &committed.place;
    if committed.after.is_none() {
        let knew = ledger.had_deleted(device, place, found);
        let decided = ledger.decided_deletes.contains(&(device, place.clone()));
        if knew || decided || ledger.loose {
            return Ok(());
        }
        return Err(format!("{place:?} was deleted, {found} in it was unseen"));
    }
    let decided = ledger.decided.contains(&(device, after));
    // a deletion and an insertion behind it may have become one write
    let replaced = ledger.goes_back_to_insert(device, after)
        && (ledger.had_deleted(device, place, found)
            || ledger.decided_deletes.contains(&(device, place.clone())));
    if replaced {
        return Ok(());
    }
    // what a copy sends was written by the device that it is a copy of
    let author = ledger.write(after).map_or(device, |write| write.device);
    if decided || ledger.had_seen(author, after, found) || (ledger.loose && author != device) {
        return Ok(());
    }
    Err(format!("{after} overwrites {found} in {place:?}, which was unseen"))
}

/// **Deletes stay deleted** unless a strategy resurrects the record knowingly.
///
/// # Errors
/// When a record comes back by a write of someone who believed that it was there.
pub fn deletes_stay_deleted(
    ledger: &Ledger,
    committed: &Committed,
    device: usize,
) -> Result<(), String> {
    let (None, Some(after)) = (&committed.before, &committed.after) else { return Ok(()) };
    let token = hot(Some(after)).1;
    let knowing = ledger.decided.contains(&(device, token))
        || ledger.goes_back_to_insert(device, token)
        || ledger.loose;
    if committed.kind != WriteKind::Insert || !knowing {
        return Err(format!("{:?} came back by {token}", committed.place));
    }
    Ok(())
}

/// **No resurrection:** an insert that was applied before does not bring its record back, unless a
/// strategy or the app has decided so. This holds where the server has forgotten the writer, too.
///
/// # Errors
/// Which write does.
pub fn nothing_is_resurrected(
    ledger: &Ledger,
    world: &World,
    committed: &Committed,
    device: usize,
) -> Result<(), String> {
    let (None, Some(after)) = (&committed.before, &committed.after) else { return Ok(()) };
    let token = hot(Some(after)).1;
    let Some(write) = ledger.write(token).filter(|write| write.device == device) else {
        return Ok(());
    };
    let happened = |what: &&str| world.counts.contains_key(*what);
    let undone = [
        "server restored",
        "server repaired",
        "another database",
        "replica cloned",
        "replica restored",
    ];
    let undone = undone.iter().any(happened);
    let app = &world.devices[device];
    let offered = app.decided || app.config.on_server_loss == Some(OnServerLoss::Offer);
    let decided = offered || ledger.decided.contains(&(device, token));
    if undone || decided || !write.applied || write.forgotten {
        return Ok(());
    }
    Err(format!("{:?} was brought back by {token}, which had been applied before", committed.place))
}

/// `watch` only shows states that the rules allow: while a collection is live, a record without
/// pending writes is as it was at the server when its head was where the collection's cursor is, or
/// after that.
///
/// # Errors
/// When it isn't.
pub fn watchers_show_what_was(
    world: &World,
    device: usize,
    collection: &Collection,
) -> Result<(), String> {
    let replica = &world.devices[device].replica;
    let status = replica.status();
    // what a failed store holds is no longer what is shown
    if status.halted.is_some() {
        return Ok(());
    }
    let Some(status) = status.collections.get(collection).filter(|status| status.live) else {
        return Ok(());
    };
    let Some(cursor) = &status.cursor else { return Ok(()) };
    let Some(history) = world.histories().of(&cursor.epoch) else { return Ok(()) };
    let is_partial = world.devices[device].config.user == "guest";
    for record in replica.get_all(collection).map_err(|error| error.message)? {
        let place = (collection.clone(), record.id.clone());
        // an ack out of its place may have told of what the stream has yet to show
        let was = history.was_since(&place, cursor.seq, &record.document);
        if !record.pending && !was && !is_partial {
            let then = history.at(&place, cursor.seq);
            return Err(format!(
                "device {device} shows {} as {} at seq {}, where it was {then:?}",
                record.id, record.document, cursor.seq
            ));
        }
    }
    Ok(())
}

fn removed(change: &RecordChange) -> Option<&RecordId> {
    match change {
        RecordChange::Removed(id) => Some(id),
        RecordChange::Added(_) | RecordChange::Modified(_) => None,
    }
}

/// **Losses are decided:** a record that nobody deletes goes from a device whose app wants to be
/// asked only after that has decided.
///
/// # Errors
/// Which record has gone.
pub fn losses_are_decided(
    ledger: &Ledger,
    world: &World,
    device: usize,
    collection: &Collection,
    removed: &[&RecordId],
) -> Result<(), String> {
    let config = &world.devices[device].config;
    let asks = config.on_server_loss == Some(OnServerLoss::Ask) && config.user != "guest";
    if !asks || world.devices[device].decided || ledger.originals.contains_key(&device) {
        return Ok(());
    }
    for id in removed.iter().filter(|id| is_permanent(id)) {
        let place = (collection.clone(), (**id).clone());
        let own = |write: &&Write| write.device == device && write.place == place;
        let undone = ledger.writes.iter().filter(own).any(|write| write.rejected || write.lost);
        let decided = ledger.decided_deletes.contains(&(device, place.clone()));
        if world.histories().know(&place) && !undone && !decided {
            return Err(format!("{place:?} has gone from device {device}, which was not asked"));
        }
    }
    Ok(())
}

/// **Read your writes:** a local read after a local write sees it, always; and what was written and
/// not rejected stays in sight, before and after the server has taken it.
///
/// # Errors
/// When it isn't there.
pub fn read_your_writes(ledger: &Ledger, world: &World, device: usize) -> Result<(), String> {
    if ledger.loose || world.devices[device].config.user == "guest" {
        return Ok(());
    }
    for (index, write) in ledger.writes.iter().enumerate().rev().take(60) {
        if write.device != device || write.wiped || !write.unique || !write.must_survive() {
            continue;
        }
        let view = world.view(device, &write.place.0, &write.place.1);
        let field = format!("t{}", index + 1);
        if view.as_ref().and_then(|view| view.get(&field)).is_none() {
            return Err(format!("device {device} has lost sight of {field}"));
        }
    }
    Ok(())
}

/// **Bounded:** memory per connection and per replica has a configured cap.
///
/// # Errors
/// When something is larger than its cap.
pub fn bounded(world: &World) -> Result<(), String> {
    let config = world.config();
    let of_each = config.collections.len() * config.ring.collection_bytes;
    if world.ring_bytes() > config.ring.total_bytes.min(of_each) {
        return Err("the rings hold more than they may".into());
    }
    for (index, device) in world.devices.iter().enumerate() {
        let known = device.replica.status().collections;
        if let Some(foreign) = known.keys().find(|name| !config.collections.contains(name)) {
            return Err(format!("device {index} keeps {foreign}, which its app never used"));
        }
    }
    for session in world.sessions() {
        let status = session.status();
        // one frame may bring as many messages as a batch holds
        if status.queued + status.held > config.session.queued + 4_096 {
            return Err(format!("{} has too much waiting", session.conn()));
        }
    }
    Ok(())
}

// --- checked at rest ---

impl Ledger {
    /// Checks everything that must hold at the end; and what must hold when the world has come to
    /// rest, if it has.
    ///
    /// # Errors
    /// Which guarantee is broken, and how.
    pub fn audit(&mut self, world: &mut World, at_rest: bool) -> Result<(), String> {
        self.keep(Invariant::ServerRows, server_rows(world))?;
        self.keep(Invariant::Convergence, convergence(world))?;
        self.keep(Invariant::PlainReaders, plain_readers_follow(world))?;
        for device in 0..world.devices.len() {
            for collection in collections() {
                if world.to_take(device).contains(&collection) {
                    self.take(world, device, &collection)?;
                }
            }
            self.keep(Invariant::ReadYourWrites, read_your_writes(self, world, device))?;
        }
        self.keep(Invariant::Watchers, watchers_end_at_the_truth(self, world))?;
        let fates = if at_rest { fates_are_told(self) } else { Ok(()) };
        self.keep(Invariant::TrueFates, fates)?;
        let confirmed = if at_rest { watchers_are_told_so(world) } else { Ok(()) };
        self.keep(Invariant::Watchers, confirmed)?;
        self.keep(Invariant::NothingLost, nothing_is_lost(self, world))?;
        let won = if at_rest { the_later_write_won(self, world) } else { Ok(()) };
        self.keep(Invariant::Times, won)?;
        self.keep(Invariant::ExactlyOnce, nothing_is_doubled(self, world))?;
        self.keep(Invariant::Order, appended_in_order(self, world))?;
        self.keep(Invariant::NothingMended, nothing_was_mended(self, world))?;
        self.keep(Invariant::NothingImpossible, nothing_impossible(self, world))?;
        self.keep(Invariant::Bounded, bounded(world))?;
        (0..world.devices.len()).for_each(|device| world.unwatch_all(device));
        let baseline = if at_rest { baseline(world) } else { Ok(()) };
        self.keep(Invariant::Baseline, baseline)
    }
}

/// The server's indexes, counts and checksums agree with its records, which are what was committed.
///
/// # Errors
/// What differs.
pub fn server_rows(world: &World) -> Result<(), String> {
    let report = world.verify();
    if !report.faults.is_empty() {
        return Err(format!("{:?}", report.faults));
    }
    for collection in &world.config().collections {
        let seq = report.collections.get(collection).map_or_else(Default::default, |h| h.seq);
        let was = world.histories().present().all_at(collection, seq);
        let records = world.server_records(collection);
        let is: BTreeMap<_, _> = records.iter().collect();
        if was != is {
            return Err(format!(
                "the server's {collection} is not what was committed: {is:?}, not {was:?}"
            ));
        }
    }
    Ok(())
}

/// **Convergence:** when writes stop and the network heals, every replica holds the server's state,
/// and its checksum proves it.
///
/// # Errors
/// What differs.
pub fn convergence(world: &World) -> Result<(), String> {
    let report = world.verify();
    for collection in &world.config().collections {
        let server = world.server_records(collection);
        let head = report.collections.get(collection);
        for (index, device) in world.devices.iter().enumerate() {
            let records = device.replica.get_all(collection).map_err(|error| error.message)?;
            let held: BTreeMap<_, _> =
                records.into_iter().map(|record| (record.id, record.document)).collect();
            let user = device.config.token.as_ref().map(|token| token.reveal());
            let may_see = may_see(world, user, collection, &server);
            if held != may_see {
                return Err(format!(
                    "device {index} holds {held:?} of {collection}, the server {may_see:?}"
                ));
            }
            let status = &device.replica.status().collections[collection];
            let same = |count, checksum| (status.count, status.checksum) == (count, checksum);
            if head.is_some_and(|head| !same(head.count, head.checksum))
                && may_see == server
                && !is_partial(world, user, collection)
            {
                return Err(format!("device {index} has another checksum"));
            }
        }
    }
    Ok(())
}

fn user_id(token: Option<&str>) -> Option<synclayer_core::protocol::name::UserId> {
    synclayer_core::protocol::name::UserId::new(token?.split('#').next()?).ok()
}

fn is_partial(world: &World, token: Option<&str>, collection: &Collection) -> bool {
    use synclayer_core::rules::policy::Access;
    world.config().policy.read(user_id(token).as_ref(), collection) == Access::Some
}

fn may_see(
    world: &World,
    token: Option<&str>,
    collection: &Collection,
    all: &BTreeMap<RecordId, Document>,
) -> BTreeMap<RecordId, Document> {
    let (policy, user) = (&world.config().policy, user_id(token));
    let partial = is_partial(world, token, collection);
    let sees = |id: &RecordId, document: &Document| {
        !partial || policy.read_record(user.as_ref(), collection, id, document)
    };
    let seen = all.iter().filter(|(id, document)| sees(id, document));
    seen.map(|(id, document)| (id.clone(), document.clone())).collect()
}

/// A level-1 program that got everything once and wrote nothing holds what the server holds.
///
/// # Errors
/// What differs.
pub fn plain_readers_follow(world: &World) -> Result<(), String> {
    for (index, plain) in world.plains.iter().enumerate() {
        if plain.has_written || plain.was_refused || !world.is_plain_connected(index) {
            continue;
        }
        for collection in &plain.mirrored {
            let server = world.server_records(collection);
            let of = plain.held.iter().filter(|(place, _)| place.0 == *collection);
            let held: Vec<_> = of.map(|(place, d)| (&place.1, without_nulls(d))).collect();
            let there: Vec<_> = server.iter().map(|(id, d)| (id, without_nulls(d))).collect();
            if held != there {
                let wrong = held.iter().filter(|record| !there.contains(record));
                let missing = there.iter().filter(|record| !held.contains(record));
                return Err(format!(
                    "plain {index} holds {:?} of {collection}, the server {:?}",
                    wrong.collect::<Vec<_>>(),
                    missing.collect::<Vec<_>>()
                ));
            }
        }
    }
    Ok(())
}

/// `watch` ends at the final state.
///
/// # Errors
/// When it doesn't.
pub fn watchers_end_at_the_truth(ledger: &Ledger, world: &World) -> Result<(), String> {
    for ((device, collection), shown) in &ledger.shown {
        let held = world.devices[*device].replica.get_all(collection);
        let held = held.map_err(|error| error.message)?;
        let held: BTreeMap<_, _> =
            held.into_iter().map(|record| (record.id, record.document)).collect();
        if held != *shown {
            return Err(format!("device {device} holds {held:?}, and shows {shown:?}"));
        }
    }
    Ok(())
}

/// Every watcher shows the server's state in the end, and its app is told so.
///
/// # Errors
/// Who is not.
pub fn watchers_are_told_so(world: &World) -> Result<(), String> {
    for (index, device) in world.devices.iter().enumerate() {
        for collection in &world.config().collections {
            if device.replica.standing(collection) != (false, false) {
                return Err(format!("device {index} shows {collection} as not confirmed"));
            }
        }
    }
    Ok(())
}

impl Write {
    /// Returns `true` if its token must be there at the end.
    fn must_survive(&self) -> bool {
        !self.lost
            && !self.forgotten
            && !self.rejected
            && is_permanent(&self.place.1)
            && self.device != STRANGER
    }
}

/// Returns `true` if nobody ever deletes a record.
#[must_use]
pub fn is_permanent(id: &RecordId) -> bool {
    !id.as_str().starts_with('x')
}

/// **Nothing acknowledged is lost:** every write that its device did not lose in a crash before it
/// was durable, and that was not reported as rejected, has taken effect.
///
/// # Errors
/// Which write has not.
pub fn nothing_is_lost(ledger: &Ledger, world: &World) -> Result<(), String> {
    let present = world.histories().present();
    // a server that has forgotten a replica takes a copy of it for the same one
    let counted = ledger.plan.rates.restore == 0
        || ledger.plan.strategy == Strategy::Client
            && !world.counts.contains_key("client forgotten");
    for (index, write) in ledger.writes.iter().enumerate().filter(|(_, w)| w.must_survive()) {
        let token = index + 1;
        let record = present.now(&write.place);
        let field = format!("t{token}");
        let there = record.and_then(|record| record.get(&field)).is_some();
        if write.unique && counted && !there {
            return Err(format!("{field} of {:?} is gone", write.place));
        }
        if write.appends && ledger.is_strict() && times_in_log(record, token) == 0 {
            return Err(format!("{token} is gone from the list in {:?}", write.place));
        }
    }
    Ok(())
}

/// **Exactly once**, at rest: what was appended is there once, sums are what was added, and what
/// was reported as rejected is not there.
///
/// # Errors
/// Which write took effect twice, or although it was rejected.
pub fn nothing_is_doubled(ledger: &Ledger, world: &World) -> Result<(), String> {
    let present = world.histories().present();
    let mut sums = BTreeMap::<&Place, i64>::new();
    for (index, write) in ledger.writes.iter().enumerate() {
        let token = index + 1;
        let record = present.now(&write.place);
        let field = format!("t{token}");
        let there = record.and_then(|record| record.get(&field)).is_some();
        if write.unique && write.rejected && there && !ledger.loose {
            return Err(format!("{field} was rejected, and is there"));
        }
        // a later write to the list, made on top of a rejected one, may have brought it
        let times = times_in_log(record, token);
        let listed = write.appends && !write.lost && write.device != STRANGER;
        if listed && is_permanent(&write.place.1) && ledger.is_strict() && times > 1 {
            return Err(format!("{token} is {times} times in {:?}", write.place));
        }
        if !write.lost && !write.rejected {
            *sums.entry(&write.place).or_default() += write.adds;
        }
    }
    let refused = ledger.writes.iter().any(|write| write.rejected);
    // what was added on top of a refused sum stays, with the sum
    if ledger.plan.strategy == Strategy::Sum && !ledger.loose && !refused {
        for (place, sum) in sums {
            let found = present.now(place).and_then(|record| record.get("sum")?.parse().ok());
            if found.unwrap_or(0) != sum {
                return Err(format!("{place:?} adds up to {found:?}, not {sum}"));
            }
        }
    }
    Ok(())
}

fn times_in_log(record: Option<&Document>, token: usize) -> usize {
    let list = record.and_then(|record| record.get("log")).unwrap_or("[]");
    tokens_in(list).iter().filter(|n| **n == token.to_string()).count()
}

/// **Order**, of what one author appended to one list.
fn appended_in_order(ledger: &Ledger, world: &World) -> Result<(), String> {
    if ledger.plan.strategy != Strategy::Append || ledger.loose {
        return Ok(());
    }
    let places: BTreeSet<_> = ledger.writes.iter().map(|write| &write.place).collect();
    for place in places.into_iter().filter(|place| is_permanent(&place.1)) {
        let Some(record) = world.histories().present().now(place) else { continue };
        let mut last = BTreeMap::new();
        for token in tokens_in(record.get("log").unwrap_or("[]")) {
            let Ok(token) = token.parse::<u64>() else { continue };
            let Some(write) = ledger.write(token) else { continue };
            if write.device != STRANGER && last.insert(write.device, token) > Some(token) {
                return Err(format!("{record} in {place:?} is not in its authors' order"));
            }
        }
    }
    Ok(())
}

/// Nothing was mended that should not have been broken: no replica took the server for one that
/// lost changes, itself for a copy, or its records for wrong, where nothing was restored.
///
/// # Errors
/// The event that tells of it.
pub fn nothing_was_mended(ledger: &Ledger, world: &World) -> Result<(), String> {
    let restored = ledger.loose || ledger.plan.rates.restore > 0;
    for (index, device) in world.devices.iter().enumerate() {
        for event in &device.events {
            // A replica that was restored is noticed before anything is compared. One that was
            // cloned is not, where the last write of both was the same; and by a conflict a replica
            // may have learnt what a restored server has lost.
            let compared = event.kind == EventKind::ChecksumMismatch;
            let excused = ["replica cloned", "server restored"];
            let excused = excused.iter().any(|cause| world.counts.contains_key(cause));
            if restored && !compared || excused {
                continue;
            }
            let fine = match &event.kind {
                EventKind::ChecksumMismatch
                | EventKind::ServerLostChanges
                | EventKind::ReplicaCopied { .. } => false,
                EventKind::Error { message } => {
                    let explained = [
                        ("a hello failed: ", "failed call"),
                        ("a pull failed: ", "failed call"),
                        ("a push failed: ", "failed call"),
                        ("the server answered", "declined call"),
                        ("a hello was not answered in time", "delayed call"),
                        ("a pull was not answered in time", "delayed call"),
                        ("a push was not answered in time", "delayed call"),
                        // after a jump of the clock what is under way is not waited for as long
                        ("a hello was not answered in time", "clock trouble"),
                        ("a pull was not answered in time", "clock trouble"),
                        ("a push was not answered in time", "clock trouble"),
                        ("a page does not fit what this replica knows", "server restart"),
                        ("the store has failed", "disk failure"),
                        ("the server can't go on from", "sweep"),
                        ("RATE_LIMIT_EXCEEDED", "rate limit"),
                        ("a hello was not answered in time", "slept"),
                        ("a pull was not answered in time", "slept"),
                        ("a push was not answered in time", "slept"),
                        ("a request was not answered in time", "slept"),
                        ("a request was not answered in time", "delayed call"),
                        // while one sleeps, what the others have sent lies on its way
                        ("the server does not answer the subscription", "slept"),
                        ("the answer to", "call answered on the way"),
                        ("the server knows no level 2", "call answered on the way"),
                        ("the server knows no level 2", "body broken off"),
                        ("the server speaks level 2 after all", "call answered on the way"),
                        ("the server speaks level 2 after all", "body broken off"),
                        ("todos", "call answered on the way"),
                        ("notes", "call answered on the way"),
                        ("todos", "declined call"),
                        ("notes", "declined call"),
                        ("a request failed", "failed call"),
                        ("the connection is given up: the server's", "server disk failure"),
                    ];
                    explained.iter().any(|(start, cause)| {
                        let happened = world.counts.get(cause).is_some_and(|times| *times > 0);
                        message.ends_with(": polling by HTTP until it is")
                            || message.starts_with(start)
                                && (happened
                                    || *cause == "rate limit" && ledger.plan.rate_limit > 0)
                    })
                }
                EventKind::OperationFailed { .. } => {
                    world.counts.contains_key("forbidden")
                        || world.counts.contains_key("rights")
                        || ledger.plan.partial
                }
                _ => true,
            };
            if !fine {
                return Err(format!("device {index} tells {event:?}"));
            }
        }
    }
    Ok(())
}

/// No counter of impossible events is non-zero: no replica was told what it did not ask for, and
/// no session got an answer that it did not wait for, or what it does not understand.
///
/// # Errors
/// What was counted.
pub fn nothing_impossible(ledger: &Ledger, world: &World) -> Result<(), String> {
    let restored = ledger.loose || ledger.plan.rates.restore > 0;
    // what still comes of a subscription that has ended is not listened to
    let calm = ledger.plan.rates.subscription == 0 && !world.counts.contains_key("sweep");
    let gave_up = |event: &Event| match &event.kind {
        EventKind::Error { message } => message.starts_with("the server does not answer the subs"),
        _ => false,
    };
    for (index, device) in world.devices.iter().enumerate().filter(|_| calm && !restored) {
        // nor to the late answer to a subscription that was given up
        if device.unexplained_frames() > 0 && !device.events.iter().any(gave_up) {
            return Err(format!("device {index} ignored {} frames", device.unexplained_frames()));
        }
    }
    match world.counts.get("out of order") {
        Some(times) if !restored => Err(format!("{times} writes came out of order")),
        Some(_) | None => Ok(()),
    }
}

/// **True fates:** who is told that the server has a write, finds it there; who is told that it was
/// refused or given up, does not.
///
/// # Errors
/// When it isn't so.
pub fn fate_is_true(ledger: &Ledger, index: usize, fate: &Fate) -> Result<(), String> {
    let (token, write) = (index + 1, &ledger.writes[index]);
    if write.lost || write.forgotten || ledger.loose {
        return Ok(());
    }
    // a record that is deleted may have taken what was written to it before along
    let shows = write.unique && is_permanent(&write.place.1);
    match fate {
        Fate::Acknowledged if shows && !write.applied => {
            Err(format!("write {token} was told to be acknowledged, and the server never had it"))
        }
        Fate::Rejected { .. } if !write.rejected => {
            Err(format!("write {token} was told to be rejected, and isn't"))
        }
        Fate::Rejected { .. } if shows && write.applied => {
            Err(format!("write {token} was told to be rejected, and took effect"))
        }
        // a field that nobody else writes is never in conflict
        Fate::GivenUp if shows && !write.applied => {
            Err(format!("write {token} was given up without a conflict"))
        }
        Fate::Acknowledged | Fate::Rejected { .. } | Fate::GivenUp => Ok(()),
        _ => Err(format!("write {token} was told {fate:?} by a server of level 2")),
    }
}

/// **True fates**, at rest: every app was told of every write that it waits for.
///
/// # Errors
/// Who was not.
pub fn fates_are_told(ledger: &Ledger) -> Result<(), String> {
    let waits = |write: &Write| write.fate.is_some() && write.told.is_none();
    match ledger.writes.iter().position(waits) {
        Some(index) => Err(format!("nobody told what became of write {}", index + 1)),
        None => Ok(()),
    }
}

/// Memory returns to its baseline: at rest, everything that waited is gone.
///
/// # Errors
/// What is left.
pub fn baseline(world: &World) -> Result<(), String> {
    for (index, device) in world.devices.iter().enumerate() {
        device.replica.check_at_rest().map_err(|left| format!("device {index}: {left}"))?;
    }
    if world.transactions() + world.reads() > 0 {
        return Err("the server's store has work to do, and nobody does it".into());
    }
    for session in world.sessions().filter(|session| !world.is_dead(session.conn())) {
        session.check_at_rest().map_err(|left| format!("{}: {left}", session.conn()))?;
    }
    Ok(())
}

/// The content of the contested field: the value that its author saw there, and its own token.
#[must_use]
pub fn hot(record: Option<&Document>) -> (u64, u64) {
    let text = record.and_then(|record| record.get("hot")).unwrap_or("[0,0]");
    let tokens: Vec<u64> = tokens_in(text).iter().filter_map(|n| n.parse().ok()).collect();
    match tokens[..] {
        [saw, own] => (saw, own),
        _ => (0, 0),
    }
}

/// The tokens that are in a record after a change, and were not before it.
fn new_tokens(committed: &Committed) -> Vec<u64> {
    let before = tokens(committed.before.as_ref());
    tokens(committed.after.as_ref()).into_iter().filter(|token| !before.contains(token)).collect()
}

fn tokens(record: Option<&Document>) -> BTreeSet<u64> {
    let mut all = BTreeSet::new();
    for (name, text) in record.into_iter().flat_map(Document::iter) {
        match name {
            "hot" => all.extend([hot(record).1]),
            "log" => all.extend(tokens_in(text).iter().filter_map(|n| n.parse::<u64>().ok())),
            _ => all.extend(name.strip_prefix('t').and_then(|n| n.parse::<u64>().ok())),
        }
    }
    all.remove(&0);
    all
}
