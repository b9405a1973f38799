//! **Convergence:** replicas, level-1 readers and the server's own indexes agree.

use std::collections::BTreeMap;

use synclayer_core::{Collection, CollectionStatus, Document, NamedScope, RecordId, ScopeStanding};

use crate::world::{Device, World, is_held, lies_in, without_nulls};

/// **Convergence:** when writes stop and the network heals, every replica holds the server's state,
/// and its checksum proves it.
///
/// # Errors
/// Names what differs.
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
            let (mut may_see, partial) = may_see(world, user, collection, &server);
            let status = device.replica.status();
            let status = &status.collections[collection];
            may_see.retain(|_, record| is_held(status, record));
            if held != may_see {
                return Err(format!(
                    "device {index} holds {held:?} of {collection}, the server {may_see:?}"
                ));
            }
            scopes_are_loaded(device, collection, status)
                .map_err(|what| format!("device {index}: {what}"))?;
            let same = |count, checksum| (status.count, status.checksum) == (count, checksum);
            if head.is_some_and(|head| !same(head.count, head.checksum))
                && may_see == server
                && status.scopes.is_none()
                && !partial
            {
                return Err(format!("device {index} has another checksum"));
            }
        }
    }
    Ok(())
}

/// All that its app uses is loaded, and nothing else is on its way.
fn scopes_are_loaded(
    device: &Device,
    collection: &Collection,
    status: &CollectionStatus,
) -> Result<(), String> {
    use ScopeStanding::{Loaded, Refused};
    let Some(set) = &status.scopes else { return Ok(()) };
    let lacks = |scope: &&NamedScope| set.get(*scope) != Some(&Loaded);
    if let Some(lacking) = device.used_scopes(collection).find(lacks) {
        return Err(format!("{lacking} of {collection} is used, and not loaded: {set:?}"));
    }
    if set.values().any(|standing| !matches!(standing, Loaded | Refused)) {
        return Err(format!("of {collection} there are {set:?} at rest"));
    }
    Ok(())
}

fn user_id(token: Option<&str>) -> Option<synclayer_core::UserId> {
    synclayer_core::UserId::new(token?.split('#').next()?).ok()
}

fn is_partial(world: &World, token: Option<&str>, collection: &Collection) -> bool {
    use synclayer_core::Access;
    world.config().policy.read(user_id(token).as_ref(), collection) == Access::Some
}

/// The records of a collection that one may see, and `true` if that may be a part.
fn may_see(
    world: &World,
    token: Option<&str>,
    collection: &Collection,
    all: &BTreeMap<RecordId, Document>,
) -> (BTreeMap<RecordId, Document>, bool) {
    if let Some((shown, everything)) = token.and_then(|token| world.shown_to(token, collection)) {
        return (shown, !everything);
    }
    let (policy, user) = (&world.config().policy, user_id(token));
    let partial = is_partial(world, token, collection);
    let sees = |id: &RecordId, document: &Document| {
        !partial || policy.read_record(user.as_ref(), collection, id, document)
    };
    let seen = all.iter().filter(|(id, document)| sees(id, document));
    (seen.map(|(id, document)| (id.clone(), document.clone())).collect(), partial)
}

/// A level-1 program that got everything once and wrote nothing holds what the server holds.
///
/// # Errors
/// Names what differs.
pub fn plain_readers_follow(world: &World) -> Result<(), String> {
    for (index, plain) in world.plains.iter().enumerate() {
        if plain.has_written || plain.was_refused || !world.is_plain_connected(index) {
            continue;
        }
        for collection in &plain.mirrored {
            let asks = world.rulebook().is_some_and(|rules| rules.asks_for_members(collection));
            // of a `sync` at level 1 nobody follows at which records its rights have looked
            if asks {
                continue;
            }
            let all = world.server_records(collection);
            let (mut server, _) = may_see(world, plain.user.as_deref(), collection, &all);
            if let Some((_, scope)) = &plain.filter {
                server.retain(|_, record| lies_in(scope, record));
            }
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

/// The server's indexes, counts and checksums agree with its records, which are what was committed.
///
/// # Errors
/// Names what differs.
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
