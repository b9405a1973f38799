//! **Bounded** memory, also at rest.

use crate::world::World;
use synclayer_core::Limits;
use synclayer_core::testing::Checked;

/// **Bounded:** memory per connection and per replica has a configured cap.
///
/// # Errors
/// When something is larger than its cap.
pub fn bounded(world: &World) -> Result<(), String> {
    let config = world.config();
    // beside them there are memberships
    let collections = config.collections.len() + usize::from(world.rulebook().is_some());
    let of_each = collections * config.ring.collection_bytes;
    if world.ring_bytes() > config.ring.total_bytes.min(of_each) {
        return Err("the rings hold more than they may".into());
    }
    for (index, device) in world.devices.iter().enumerate() {
        let known = device.replica.status().collections;
        if let Some(foreign) = known.keys().find(|name| !config.collections.contains(name)) {
            return Err(format!("device {index} keeps {foreign}, which its app never used"));
        }
    }
    for (conn, session) in world.sessions() {
        let status = session.status();
        // one frame may bring as many messages as a batch holds
        if status.queued + status.held > config.limits.queued + 4_096 {
            return Err(format!("{conn} has too much waiting"));
        }
    }
    Ok(())
}

/// **Bounded:** the server keeps no more than its caps allow, but for tombstones, since no deletion is
/// refused. What a damaged store had lost may come back, and a cap does not reach backwards.
///
/// # Errors
/// When something is above its cap.
pub fn caps_hold(world: &World) -> Result<(), String> {
    let (limits, default) = (&world.config().limits.input, Limits::default());
    if *limits == default || world.was_repaired() {
        return Ok(());
    }
    let report = world.verify();
    let collections = report.collections.len() as u64;
    if collections > limits.collections {
        return Err(format!("the server has {collections} collections of {}", limits.collections));
    }
    for (collection, head) in &report.collections {
        if head.count > limits.collection_records {
            let most = limits.collection_records;
            return Err(format!("{collection} has {} records of {most}", head.count));
        }
        let slack = 64 * report.tombstones;
        if head.bytes > limits.collection_bytes.saturating_add(slack) {
            let most = limits.collection_bytes;
            return Err(format!("{collection} has {} bytes of {most}", head.bytes));
        }
    }
    if world.most_clients() > limits.user_clients {
        return Err(format!("a user has {} clients", world.most_clients()));
    }
    Ok(())
}

/// Memory returns to its baseline: at rest, everything that waited is gone.
///
/// # Errors
/// Names what is left.
pub fn baseline(world: &World) -> Result<(), String> {
    for (index, device) in world.devices.iter().enumerate() {
        device.replica.check_at_rest().map_err(|left| format!("device {index}: {left}"))?;
    }
    if world.transactions() + world.reads() > 0 {
        return Err("the server's store has work to do, and nobody does it".into());
    }
    for (conn, session) in world.sessions().filter(|(conn, _)| !world.is_dead(*conn)) {
        session.check_at_rest().map_err(|left| format!("{conn}: {left}"))?;
    }
    Ok(())
}
