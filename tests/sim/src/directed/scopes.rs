//! Sets of scopes: loads around a restored server, and scopes that there are not.

use std::collections::BTreeMap;

use synclayer_core::{ClientConfig, EventKind, NamedScope};

use crate::guarantees::convergence;
use crate::world::{CommitFate, Move, World, WorldConfig, todos};

/// A load has passed over a record, because that was changed meanwhile. Then the server loses the change
/// and goes on, in another epoch, from a time at which the record had not been changed.
///
/// # Errors
/// When the load goes on behind the record, which it never shows.
pub(super) fn a_load_begins_anew_in_another_epoch() -> Result<(), String> {
    let scope = NamedScope::new([("room", "1")]).map_err(|error| error.to_string())?;
    let mut world = World::new(config(&scope)?);
    for id in ["a", "b", "c"] {
        let body = format!(r#"{{"recordId":"{id}","data":{{"room":1}}}}"#);
        world.rest(None, "POST", "/sync/todos", &body);
        world.commit(1, CommitFate::Done);
    }
    let backup = world.backup();
    load(&mut world, 1)?;
    // the load has passed the first one, and finds the second one behind the third
    world.rest(None, "PATCH", "/sync/todos/b", r#"{"delta":{"n":1}}"#);
    world.commit(1, CommitFate::Done);
    load(&mut world, 2)?;
    for conn in world.connections_of(0) {
        world.cut(conn);
    }
    world.restore_server(backup);
    world.converge(&mut |_| Ok(()))?;
    convergence(&world)?;
    let mended = |kind: &EventKind| matches!(kind, EventKind::ChecksumMismatch { .. });
    match world.saw(0, mended) {
        true => Err("convergence: a load went on in another epoch".into()),
        false => Ok(()),
    }
}

/// An app uses a scope of a key that the server has not declared, so that the server can't serve the set,
/// and then no longer.
///
/// # Errors
/// When the set is never served again.
pub(super) fn an_undeclared_scope_goes_with_its_use() -> Result<(), String> {
    let scope = |field| NamedScope::new([(field, "1")]).map_err(|error| error.to_string());
    for websocket in [true, false] {
        let mut config = config(&scope("room")?)?;
        config.clients[0].websocket = websocket;
        config.clients[0].http = !websocket;
        use_and_release(World::new(config), &scope("owner")?)?;
    }
    Ok(())
}

fn use_and_release(mut world: World, undeclared: &NamedScope) -> Result<(), String> {
    world.use_scope(0, &todos(), undeclared, true);
    world.settle(&mut |_| Ok(()))?;
    let refused = |kind: &EventKind| matches!(kind, EventKind::SyncFailed { .. });
    if !world.saw(0, refused) {
        return Err("the server serves a scope that it has not declared".into());
    }
    world.use_scope(0, &todos(), undeclared, false);
    world.converge(&mut |_| Ok(()))?;
    convergence(&world)
}

/// A page has room for one change, and the first that it comes to is told by a later one: by HTTP the next
/// page begins behind what was told.
///
/// # Errors
/// When the device is told nothing, again and again.
pub(super) fn each_page_of_a_set_brings_it_further() -> Result<(), String> {
    let scope = |room| NamedScope::new([("room", room)]).map_err(|error| error.to_string());
    let mut config = config(&scope("1")?)?;
    let client = &mut config.clients[0];
    client.scopes = BTreeMap::from([(todos(), vec![scope("1")?, scope("2")?])]);
    (client.websocket, client.http) = (false, true);
    let mut world = World::new(config);
    let commit = |world: &mut World, method, path, body| {
        world.rest(None, method, path, body);
        world.commit(1, CommitFate::Done);
    };
    commit(&mut world, "POST", "/sync/todos", r#"{"recordId":"a","data":{"room":1}}"#);
    world.converge(&mut |_| Ok(()))?;
    for delta in [r#"{"delta":{"room":2}}"#, r#"{"delta":{"n":1}}"#] {
        commit(&mut world, "PATCH", "/sync/todos/a", delta);
    }
    world.converge(&mut |_| Ok(()))?;
    convergence(&world)
}

/// One device that holds a scope, at a server whose pages have one record.
fn config(scope: &NamedScope) -> Result<WorldConfig, String> {
    let mut config = WorldConfig::of(0, &[todos()]);
    let mut client = ClientConfig::default();
    client.scopes = BTreeMap::from([(todos(), vec![scope.clone()])]);
    config.clients = vec![client];
    config.limits.page.records = 1;
    let key = "room".parse().map_err(|error| format!("{error}"))?;
    config.scopes = BTreeMap::from([(todos(), vec![key])]);
    Ok(config)
}

/// Lets the device load so many records, and the server read no page more than that takes.
fn load(world: &mut World, records: usize) -> Result<(), String> {
    for _ in 0..1_000 {
        let held = world.devices[0].replica.get_all(&todos()).map_err(|error| error.message)?;
        if held.len() >= records {
            return Ok(());
        }
        let moves = world.moves();
        let next = moves.iter().find(|one| **one != Move::Read).or(moves.first());
        let next = next.ok_or("the device asks for nothing more")?;
        world.make(*next);
    }
    Err("the load does not get on".into())
}
