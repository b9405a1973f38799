//! **All or none** of a transaction.

use std::collections::BTreeMap;

use crate::guarantees::is_permanent;
use crate::guarantees::ledger::{Ledger, UnitWrites, Write};
use crate::world::World;

/// The transactions that are looked at, from the latest on.
const LATEST: usize = 8;

/// **All or none:** the server has all writes of a transaction or none of them, and so has whoever
/// reads: those whose records are never deleted, where every collection is live.
///
/// # Errors
/// Names the transaction of which there is half.
pub fn all_or_none(ledger: &Ledger, world: &World) -> Result<(), String> {
    if ledger.loose || !ledger.atomic {
        return Ok(());
    }
    let latest = ledger.units.iter().rev().take(LATEST);
    for unit in latest.filter(|unit| !unit.keeps_won) {
        half_at_the_server(ledger, unit)?;
        for device in 0..world.devices.len() {
            half_shown(ledger, world, device, unit)?;
        }
    }
    Ok(())
}

/// **All or none**, in what a device holds, also after a crash: its outbox has all writes of a
/// transaction that the server has not judged, or none of them; and their records know of them.
///
/// # Errors
/// Names the transaction of which the device holds half.
pub(super) fn held_whole(ledger: &Ledger, world: &World, device: usize) -> Result<(), String> {
    let this = &world.devices[device];
    if ledger.loose || !ledger.atomic || ledger.units.is_empty() || this.has_halted() {
        return Ok(());
    }
    let mut held = BTreeMap::new();
    for write in this.replica.pending().map_err(|error| error.message)? {
        let record = this.replica.get(&write.collection, &write.record_id);
        let record = record.map_err(|error| error.message)?;
        if write.transaction.is_some() && !record.is_none_or(|record| record.pending) {
            return Err(format!(
                "device {device} holds {write:?}, of which its record knows nothing"
            ));
        }
        held.insert((write.collection, write.record_id, write.write), write.transaction);
    }
    for unit in ledger.units.iter().rev().take(LATEST).filter(|unit| !unit.keeps_won) {
        let own = |token: &u64| ledger.write(*token).filter(|write| write.device == device);
        let writes: Vec<_> = unit.tokens.iter().filter_map(own).collect();
        let is_held = |write: &&&Write| {
            let (collection, id) = write.place.clone();
            // a crash has freed the places of what it took
            write.position.filter(|_| !write.lost).is_some_and(|position| {
                held.get(&(collection, id, position)).is_some_and(Option::is_some)
            })
        };
        let count = writes.iter().filter(is_held).count();
        if count > 0 && count < unit.tokens.len() {
            return Err(format!("device {device} holds half of the writes {:?}", unit.tokens));
        }
    }
    Ok(())
}

fn half_at_the_server(ledger: &Ledger, unit: &UnitWrites) -> Result<(), String> {
    let writes: Vec<_> = unit.tokens.iter().filter_map(|token| ledger.write(*token)).collect();
    let told = |write: &&Write| write.lost || write.forgotten || write.wiped;
    let applied = writes.iter().filter(|write| write.applied).count();
    if applied > 0 && applied < writes.len() && !writes.iter().any(told) {
        return Err(format!("the server has half of the writes {:?}", unit.tokens));
    }
    Ok(())
}

fn half_shown(
    ledger: &Ledger,
    world: &World,
    device: usize,
    unit: &UnitWrites,
) -> Result<(), String> {
    let this = &world.devices[device];
    if this.has_halted() || ledger.is_partial() {
        return Ok(());
    }
    let status = this.replica.status();
    let mut shown = Vec::new();
    for token in &unit.tokens {
        let Some(write) = ledger.write(*token) else { return Ok(()) };
        let (collection, id) = &write.place;
        let is_live = status.collections.get(collection).is_some_and(|it| it.live);
        // half of them may lie outside of what is held
        let in_part = this.may_hold_scopes(collection);
        if write.device == device || !is_live || !is_permanent(id) || in_part {
            return Ok(());
        }
        let record = this.replica.get(collection, id).map_err(|error| error.message)?;
        // beneath an own write that is on its way nothing moves
        if record.as_ref().is_some_and(|record| record.pending) {
            return Ok(());
        }
        let field = format!("t{token}");
        // an author who sees it no longer may put another record in its place
        let present = world.histories().present().now(&write.place);
        let is_there = present.is_some_and(|record| record.text(&field).is_some());
        if ledger.goes_out_of_sight() && write.applied && !is_there {
            return Ok(());
        }
        shown.push(record.is_some_and(|record| record.document.text(&field).is_some()));
    }
    if shown.contains(&true) && shown.contains(&false) {
        return Err(format!("device {device} shows half of the writes {:?}", unit.tokens));
    }
    Ok(())
}
