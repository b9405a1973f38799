//! **Read your writes**, and what watchers are shown.

use std::collections::{BTreeMap, BTreeSet};

use synclayer_core::{Collection, CollectionStatus, RecordChange, RecordId};

use crate::guarantees::deletes::losses_are_decided;
use crate::guarantees::ledger::Ledger;
use crate::invariants::Invariant;
use crate::world::{World, is_held};

impl Ledger {
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

    pub(super) fn take_what_fits(
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
        watchers_show_what_was(world, device, collection)?;
        watchers_show_what_is_held(world, device, collection)
    }
}

/// **Read your writes:** a local read after a local write sees it, always; and what was written and
/// not rejected stays in sight, before and after the server has taken it.
///
/// # Errors
/// When it isn't there.
pub fn read_your_writes(ledger: &Ledger, world: &World, device: usize) -> Result<(), String> {
    if ledger.loose || world.sees_in_part(device) {
        return Ok(());
    }
    // what its calls have led to is told at the end of the group
    if world.devices[device].shared > 0 {
        return Ok(());
    }
    let (committed, _) = world.commits(device);
    let halted = world.devices[device].has_halted();
    for (index, write) in ledger.writes.iter().enumerate().rev().take(60) {
        // a group that fails undoes what was made in it
        if halted && write.commit > committed {
            continue;
        }
        if write.device != device || write.wiped || !write.unique || !write.must_survive() {
            continue;
        }
        // taken by the server, it may lie outside of the scopes that are held
        if write.applied && world.devices[device].may_hold_scopes(&write.place.0) {
            continue;
        }
        let view = world.view(device, &write.place.0, &write.place.1);
        let field = format!("t{}", index + 1);
        if view.as_ref().and_then(|view| view.text(&field)).is_none() {
            return Err(format!("device {device} has lost sight of {field}"));
        }
    }
    Ok(())
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
    let is_partial = world.sees_in_part(device);
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

/// All of that is there which is said to be in step: each record that lay in what is held when the server's head
/// was where the collection's cursor is, but for what has left it since, or waits to; and nothing else is
/// shown, but what waits.
///
/// # Errors
/// Names the record that is missing, or shown although it lies outside.
pub fn watchers_show_what_is_held(
    world: &World,
    device: usize,
    collection: &Collection,
) -> Result<(), String> {
    let this = &world.devices[device];
    let status = this.replica.status();
    if status.halted.is_some() || world.sees_in_part(device) || this.shared > 0 {
        return Ok(());
    }
    let in_step = |of: &&CollectionStatus| of.live || !of.from_cache && !of.catching_up;
    let Some(status) = status.collections.get(collection).filter(in_step) else { return Ok(()) };
    let Some(cursor) = &status.cursor else { return Ok(()) };
    let Some(history) = world.histories().of(&cursor.epoch) else { return Ok(()) };
    let shown = this.replica.get_all(collection).map_err(|error| error.message)?;
    if let Some(outside) =
        shown.iter().find(|record| !record.pending && !is_held(status, &record.document))
    {
        let held = status.scopes.as_ref();
        return Err(format!("device {device} shows {outside:?}, which lies outside of {held:?}"));
    }
    let shown: BTreeSet<_> = shown.into_iter().map(|record| record.id).collect();
    let waiting = this.replica.pending().map_err(|error| error.message)?;
    // a record that a transaction expects may be the one that is on its way
    let expects = waiting.iter().any(|it| it.transaction.is_some());
    for (id, document) in history.all_at(collection, cursor.seq) {
        let place = (collection.clone(), id.clone());
        let is_there = shown.contains(id) || !is_held(status, document);
        let waits =
            expects || waiting.iter().any(|it| it.collection == *collection && it.record_id == *id);
        let has_left = history
            .states_since(&place, cursor.seq)
            .any(|state| state.is_none_or(|state| !is_held(status, state)));
        if !is_there && !waits && !has_left {
            return Err(format!("device {device} lacks {id} of {collection} at {cursor:?}"));
        }
    }
    Ok(())
}

pub(super) fn removed(change: &RecordChange) -> Option<&RecordId> {
    match change {
        RecordChange::Removed(id) => Some(id),
        RecordChange::Added(_) | RecordChange::Modified(_) => None,
    }
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
/// Names the device whose watcher does not.
pub fn watchers_are_told_so(world: &World) -> Result<(), String> {
    for (index, device) in world.devices.iter().enumerate() {
        let status = device.replica.status();
        for collection in &world.config().collections {
            let is_confirmed = |of: &CollectionStatus| !of.from_cache && !of.catching_up;
            if !status.collections.get(collection).is_some_and(is_confirmed) {
                return Err(format!("device {index} shows {collection} as not confirmed"));
            }
        }
    }
    Ok(())
}
