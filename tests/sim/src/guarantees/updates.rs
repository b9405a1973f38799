//! **No lost update.**

use crate::guarantees::hot;
use crate::guarantees::ledger::Ledger;
use crate::world::Committed;

/// **No lost update:** a field changed by someone else since the writer last saw its record is
/// never overwritten without the writer's conflict strategy deciding it.
///
/// # Errors
/// When it is.
pub fn no_lost_update(ledger: &Ledger, committed: &Committed, device: usize) -> Result<(), String> {
    let (found, after) = (hot(committed.before.as_ref()).1, hot(committed.after.as_ref()).1);
    let is_new = committed.before.is_none() || found == after;
    if is_new || ledger.wrote_out_of_sight(device, found, committed.before_by) {
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
