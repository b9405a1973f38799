//! **Deletes stay deleted**, and **losses are decided**.

use synclayer_core::{Collection, OnServerLoss, RecordId, WriteKind};

use crate::guarantees::ledger::{Ledger, Write};
use crate::guarantees::{hot, is_permanent};
use crate::world::{Committed, World};

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
        || ledger.offers.contains(&(device, committed.place.0.clone()))
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
    // what leaves the scopes goes without having been lost
    if world.devices[device].may_hold_scopes(collection) {
        return Ok(());
    }
    let config = &world.devices[device].config;
    let asks = config.on_server_loss == Some(OnServerLoss::Ask) && !world.sees_in_part(device);
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
