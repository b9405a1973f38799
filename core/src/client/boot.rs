//! What a replica wakes up from.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::outbox::Outbox;
use super::stream::Stream;
use super::streams::Streams;
use super::wipe::free_slot;
use crate::protocol::name::{Collection, MutationNumber, SessionNumber, WriteId};
use crate::protocol::random::Random;
use crate::rules::clocks::Clocks;
use crate::rules::forgotten::Forgotten;
use crate::rules::row::{
    Identity, Keys, Slot, StreamRow, collection_in, collection_of, write_id_of,
};
use crate::store::{Rows, Scan, StoreError};

/// The keys of a user's rows, and whether the user is new to the store.
pub(super) fn keys_of(user: &str, store: &dyn Rows) -> Result<(Keys, bool), StoreError> {
    let Some(row) = store.get(&Keys::user(user))? else {
        return Ok((Keys::new(free_slot(store)?), true));
    };
    Ok((Keys::new(Slot::decode(&row)?.number), false))
}

pub(super) fn new_identity(random: &mut Random) -> Result<Identity, StoreError> {
    let client_id =
        random.client_id().ok_or_else(|| StoreError::damaged("no client id could be drawn"))?;
    Ok(Identity {
        client_id,
        session: SessionNumber(0),
        confirmed: MutationNumber(0),
        digest: None,
        next_write: WriteId(1),
        resumable: Vec::new(),
        database: None,
        other_database: None,
        clocks: Clocks::default(),
        forgotten: Forgotten::default(),
    })
}

/// The outbox as the store has it. Everything in it may have been sent.
pub(super) fn outbox_of(
    keys: Keys,
    identity: &Identity,
    store: &dyn Rows,
) -> Result<Outbox, StoreError> {
    let len = count(keys.entries(WriteId(0)), store)?;
    let mut next = identity.next_write;
    for (from, to) in [keys.entries(WriteId(0)), keys.all_rejected()] {
        if let Some((key, _)) = store.last(&from, &to)? {
            next = next.max(write_id_of(&key)?.next());
        }
    }
    Ok(Outbox::found(len, next))
}

pub(super) fn streams_of(
    keys: Keys,
    wanted: &[Collection],
    store: &dyn Rows,
) -> Result<Streams, StoreError> {
    let mut streams = Streams::default();
    let (from, to) = keys.streams();
    store.scan(&from, &to, &mut |key, value| {
        let row = StreamRow::decode(value)?;
        *streams.used(&collection_of(key)?) = Stream::found(row);
        Ok(Scan::Next)
    })?;
    for collection in collections_of(keys, store)? {
        streams.used(&collection);
    }
    for collection in wanted {
        streams.used(collection).subscribe();
    }
    Ok(streams)
}

/// The collections that have records or waiting writes: a look at one key of each.
pub(super) fn collections_of(
    keys: Keys,
    store: &dyn Rows,
) -> Result<BTreeSet<Collection>, StoreError> {
    let mut found = BTreeSet::new();
    for of in [Keys::records_behind, Keys::pending_behind] {
        let mut last = None;
        loop {
            let mut next = None;
            let (from, to) = of(keys, last.as_ref());
            store.scan(&from, &to, &mut |key, _| {
                next = Some(collection_in(key)?);
                Ok(Scan::Stop)
            })?;
            let Some(next) = next else { break };
            found.insert(next.clone());
            last = Some(next);
        }
    }
    Ok(found)
}

pub(super) fn count((from, to): (Vec<u8>, Vec<u8>), store: &dyn Rows) -> Result<usize, StoreError> {
    let mut count = 0;
    store.scan(&from, &to, &mut |_, _| {
        count += 1;
        Ok(Scan::Next)
    })?;
    Ok(count)
}
