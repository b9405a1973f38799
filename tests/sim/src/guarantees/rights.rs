//! **Rights are followed** by what a replica holds.

use std::collections::BTreeMap;

use synclayer_core::Collection;

use crate::plan::collections;
use crate::world::{World, is_held};

/// **Rights are followed:** a replica that has heard all that the server says holds what its user may read of
/// a live collection by the rights of now, and nothing else.
///
/// # Errors
/// Names what differs.
pub fn holds_what_is_shown(world: &mut World, device: usize) -> Result<(), String> {
    if world.rulebook().is_none() || !world.has_heard_all(device) {
        return Ok(());
    }
    for collection in collections() {
        holds_of(world, device, &collection)?;
    }
    Ok(())
}

fn holds_of(world: &mut World, device: usize, collection: &Collection) -> Result<(), String> {
    let this = &world.devices[device];
    let status = this.replica.status();
    let token = this.config.token.as_ref().map(|token| token.reveal().to_owned());
    let (Some(of), Some(token)) = (status.collections.get(collection), token) else {
        return Ok(());
    };
    if !of.live || status.pending_writes > 0 {
        return Ok(());
    }
    if world.bars(&token, collection) {
        return Err(format!("device {device} follows {collection}, from which it is barred"));
    }
    let Some((mut shown, all)) = world.shown_to(&token, collection) else { return Ok(()) };
    shown.retain(|_, record| is_held(of, record));
    let held = this.replica.get_all(collection).map_err(|error| error.message)?;
    let held: BTreeMap<_, _> =
        held.into_iter().map(|record| (record.id, record.document)).collect();
    if shown != held {
        return Err(format!(
            "device {device} with {token} holds {held:?} of {collection}, and is shown {shown:?}"
        ));
    }
    world.count(if all { "holds everything by its rights" } else { "holds a part by its rights" });
    Ok(())
}
