//! Events of a world, taken into the ledger as the run goes.

use synclayer_core::{Event, EventKind, Fate, FateId, OnServerLoss, WriteId, WriteKind};

use crate::guarantees::deletes::{deletes_stay_deleted, nothing_is_resurrected};
use crate::guarantees::durability::{
    durable_before_applied, durable_before_sent, gives_up_what_was_refused,
};
use crate::guarantees::exactly_once::exactly_once;
use crate::guarantees::fates::fate_is_true;
use crate::guarantees::ledger::{Ledger, Merge, Write};
use crate::guarantees::order::{in_order, in_the_first_place};
use crate::guarantees::times::{fields_keep_their_times, points_of};
use crate::guarantees::units::{all_or_none, held_whole};
use crate::guarantees::updates::no_lost_update;
use crate::guarantees::{hot, new_tokens, tokens};
use crate::invariants::Invariant;
use crate::world::{Committed, Device, Owner, Place, World};

impl Ledger {
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
            self.observe_events(world, device)?;
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
        if !self.atomic && !self.units.is_empty() {
            let takes_units = |device: &Device| {
                device.replica.status().guarantees.is_some_and(|offered| offered.atomic)
            };
            self.atomic = world.devices.iter().any(takes_units);
        }
        self.keep(Invariant::AllOrNone, all_or_none(self, world))?;
        for device in 0..world.devices.len() {
            self.keep(Invariant::AllOrNone, held_whole(self, world, device))?;
        }
        for device in 0..world.devices.len() {
            for (id, fate) in std::mem::take(&mut world.devices[device].fates) {
                self.observe_fate(world, device, id, fate)?;
            }
        }
        Ok(())
    }

    pub(super) fn observe_fate(
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

    pub(super) fn observe_events(&mut self, world: &World, device: usize) -> Result<(), String> {
        let events = &world.devices[device].events;
        for event in &events[self.seen[device]..] {
            match &event.kind {
                EventKind::OperationFailed { write, with, .. } => {
                    for position in with.iter().chain([write]) {
                        // also of a write that need not be there any more
                        let at = |write: &&mut Write| {
                            let here = write.device == device && write.position == Some(*position);
                            here && !write.lost
                        };
                        self.writes.iter_mut().filter(at).for_each(|write| write.rejected = true);
                    }
                }
                EventKind::RecordsMissing { collection, decision: OnServerLoss::Offer, .. } => {
                    self.offers.insert((device, collection.clone()));
                }
                EventKind::ConflictResolved { collection, record_id, write, merged, .. } => {
                    let place = (collection.clone(), record_id.clone());
                    self.observe_decision(world, device, &place, *write, merged);
                    self.keep(Invariant::Order, in_the_first_place(*write, merged))?;
                }
                EventKind::OperationsMerged { collection, record_id, write, merged } => {
                    let place = (collection.clone(), record_id.clone());
                    self.observe_merge(world, device, &place, *write, merged);
                    self.keep(Invariant::Order, in_the_first_place(*write, merged))?;
                }
                _ => {}
            }
        }
        self.seen[device] = events.len();
        Ok(())
    }

    pub(super) fn observe_decision(
        &mut self,
        world: &World,
        device: usize,
        place: &Place,
        write: Option<WriteId>,
        merged: &[WriteId],
    ) {
        // behind the writes that were decided there may be others, which are shown: in front of and behind
        // transactions, and where the app has written in the same group
        if self.plan.units > 0 || world.config().shared > 0 {
            let own = |write: &Write| merged.iter().any(|old| write.is_at(device, *old));
            let decided = self.writes.iter().zip(1..).filter(|(write, _)| own(write));
            // also what such a part had left as it was
            let of = |(write, token): (&Write, u64)| [(device, token), (device, write.saw)];
            self.decided.extend(decided.flat_map(of));
            // and what was there before a deletion, if such a part was kept against it
            let back = self.deleted.get(place).into_iter().flatten().map(|token| (device, *token));
            self.decided.extend(back);
            if self.deletions.contains_key(&(device, place.clone())) {
                self.decided_deletes.insert((device, place.clone()));
            }
        }
        let view = world.view(device, &place.0, &place.1);
        let seen = view.map(|view| hot(Some(&view)).1);
        match self.before_the_group_went_on(world, device, merged, seen) {
            Some(outcome) => drop(self.decided.insert((device, outcome))),
            None => {
                self.decided_deletes.insert((device, place.clone()));
                self.give_up_forgotten(world, device, place, merged);
            }
        }
        self.observe_merge(world, device, place, write, merged);
    }

    /// The value of the contested field that a strategy has decided on, or `None` where it has
    /// decided that there is no record, when `seen` is shown: events are told at the end of a group,
    /// and the app may have written in it since.
    fn before_the_group_went_on(
        &self,
        world: &World,
        device: usize,
        merged: &[WriteId],
        mut seen: Option<u64>,
    ) -> Option<u64> {
        let (last, _) = world.commits(device);
        let decided = merged.iter().max().copied();
        // ids of writes rise; what was offered stands on older ones too
        let since = |write: &&Write| {
            let is_new = write.commit.0 + 4 > last.0 && world.config().shared > 0;
            is_new && write.device == device && write.position > decided
        };
        while let Some(write) = seen.and_then(|seen| self.write(seen)).filter(since) {
            seen = (!write.inserts).then_some(write.saw);
        }
        seen
    }

    /// A strategy gives up writes to a record that is gone. Where a server may have forgotten what it
    /// had taken, that holds for records too that nobody deletes: they need not be there.
    pub(super) fn give_up_forgotten(
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
    pub(super) fn observe_merge(
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

    pub(super) fn observe_commit(&mut self, committed: &Committed) -> Result<(), String> {
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
        self.replace_own(committed, device);
        self.mark_applied(committed);
        Ok(())
    }

    /// A device has made a record anew that had gone out of its sight: what it had written there itself is
    /// replaced, as it was told to.
    fn replace_own(&mut self, committed: &Committed, device: usize) {
        if !self.goes_out_of_sight() || committed.kind != WriteKind::Insert {
            return;
        }
        let after = tokens(committed.after.as_ref());
        let lost = tokens(committed.before.as_ref()).into_iter().filter(|it| !after.contains(it));
        for token in lost.collect::<Vec<_>>() {
            if self.write(token).is_some_and(|write| self.is_own(device, write.device)) {
                self.writes[token as usize - 1].forgotten = true;
            }
        }
    }

    pub(super) fn fates_hold(&self, committed: &Committed, device: usize) -> Result<(), String> {
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

    pub(super) fn mark_applied(&mut self, committed: &Committed) {
        if let (Some(before), None) = (&committed.before, &committed.after) {
            let values = self.deleted.entry(committed.place.clone()).or_default();
            values.insert(hot(Some(before)).1);
        }
        for token in new_tokens(committed) {
            if let Some(write) = self.writes.get_mut(token as usize - 1) {
                write.applied = true;
            }
        }
    }
}
