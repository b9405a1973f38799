//! The start of the machine, from the rows that its store holds.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::clock::Clock;
use super::commits::Commits;
use super::config::ClientConfig;
use super::edit::Edit;
use super::fallback::Fallback;
use super::indexes::Indexes;
use super::interface::RequestId;
use super::link::Link;
use super::machine::Client;
use super::outbox::Outbox;
use super::output::{Output, Outputs, StoreAction};
use super::pacing::Pacing;
use super::peer::Peer;
use super::pending::PendingWrites;
use super::portion::Portions;
use super::stream::Stream;
use super::streams::Streams;
use super::synced::Syncs;
use super::units::Units;
use super::wipe::free_slot;
use crate::protocol::name::{Collection, CommitNumber, MutationNumber, SessionNumber, WriteId};
use crate::protocol::random::Random;
use crate::protocol::time::Now;
use crate::rules::clocks::Clocks;
use crate::rules::forgotten::Forgotten;
use crate::rules::row::{
    Identity, Keys, OutboxRow, Owner, Slot, StreamRow, collection_in, collection_of, write_id_of,
};
use crate::store::{Rows, Scan, StoreError};

impl Client {
    /// Wakes a replica up from what its store holds, or begins a new one where it holds nothing of
    /// this user. It stays offline until [`connect`](Self::connect).
    ///
    /// `seed` must be fresh for every opening: ids are drawn from it. `last_commit` is the last
    /// number that the store has seen in this life of it, 0 for one that was just opened.
    ///
    /// # Errors
    /// When the store can't be read or what it holds is damaged.
    pub(crate) fn open(
        config: ClientConfig,
        seed: u128,
        now: Now,
        last_commit: CommitNumber,
        store: &dyn Rows,
        out: &mut Outputs,
    ) -> Result<Self, StoreError> {
        let mut random = Random::new(seed);
        let (keys, new) = keys_of(&config.user, store)?;
        let identity = match store.get(&keys.identity())? {
            Some(row) => Identity::decode(row)?,
            None => new_identity(&mut random)?,
        };
        let outbox = outbox_of(keys, &identity, store)?;
        let mut client = Self {
            streams: streams_of(keys, &config, &outbox, store)?,
            outbox,
            rejected: count(keys.all_rejected(), store)?,
            random,
            keys,
            now,
            identity,
            link: Link::new(),
            short: true,
            at_other_database: false,
            peer: Peer::Unknown,
            pacing: Pacing::new(now.mono),
            portions: Portions::default(),
            slept: false,
            token_due: false,
            token_needed: false,
            failure: None,
            syncs: Syncs::default(),
            clock: Clock::new(now, seed),
            told_of_clock: false,
            ignored_frames: 0,
            fallback: Fallback::default(),
            exchange: None,
            exchanges: 0,
            next_request: RequestId(0),
            progress: 0,
            commits: Commits::after(last_commit),
            indexes: Indexes::default(),
            count_at: None,
            halted: None,
            config,
        };
        let mut edit = Edit::new(store, keys, now.wall);
        client.indexes = Indexes::open(&mut edit, keys, &client.config.indexes, now.mono)?;
        client.recall_attempts(&edit)?;
        edit.drop_index_of_writes()?;
        if new {
            let slot = Slot { number: keys.slot(), leaving: false };
            edit.put(Keys::user(&client.config.user), slot.encode());
            client.put_identity(&mut edit);
            edit.gates = true;
            edit.flush = true;
            let next = client.outbox.end();
            client.finish(edit, next, out)?;
        } else if !edit.is_empty() {
            let number = client.commits.next();
            client.commits.made();
            out.push(Output::Store(StoreAction::Commit { number, batch: edit.into_batch() }));
        }
        Ok(client)
    }
}

/// The keys of a user's rows, and whether the user is new to the store.
fn keys_of(user: &str, store: &dyn Rows) -> Result<(Keys, bool), StoreError> {
    let Some(row) = store.get(&Keys::user(user))? else {
        return Ok((Keys::new(free_slot(store)?), true));
    };
    Ok((Keys::new(Slot::decode(&row)?.number), false))
}

fn new_identity(random: &mut Random) -> Result<Identity, StoreError> {
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
        attempts: None,
    })
}

/// The outbox as the store has it. Everything in it may have been sent.
fn outbox_of(keys: Keys, identity: &Identity, store: &dyn Rows) -> Result<Outbox, StoreError> {
    let (mut len, mut units, mut pending) = (0, Units::default(), PendingWrites::default());
    let (from, to) = keys.entries(WriteId(0));
    store.scan(&from, &to, &mut |key, value| {
        len += 1;
        if let Some(Owner { collection, record_id, unit }) = OutboxRow::owner_of(value)? {
            pending.add(&collection, &record_id, write_id_of(key)?);
            unit.into_iter().for_each(|(unit, expects)| units.add(unit, expects));
        }
        Ok(Scan::Next)
    })?;
    let mut next = identity.next_write;
    for (from, to) in [keys.entries(WriteId(0)), keys.all_rejected()] {
        if let Some((key, _)) = store.last(&from, &to)? {
            next = next.max(write_id_of(&key)?.next());
        }
    }
    Ok(Outbox::found(len, next, pending, units))
}

fn streams_of(
    keys: Keys,
    config: &ClientConfig,
    outbox: &Outbox,
    store: &dyn Rows,
) -> Result<Streams, StoreError> {
    let mut streams = Streams::default();
    let (from, to) = keys.streams();
    store.scan(&from, &to, &mut |key, value| {
        let row = StreamRow::decode(value)?;
        *streams.used(&collection_of(key)?) = Stream::found(row);
        Ok(Scan::Next)
    })?;
    let stored = collections_of(keys, store)?;
    for collection in stored.iter().chain(outbox.collections()) {
        streams.used(collection);
    }
    for collection in &config.collections {
        streams.used(collection).subscribe();
    }
    for (collection, scopes) in &config.scopes {
        scopes.iter().for_each(|scope| streams.used(collection).use_scope(scope.clone()));
    }
    streams.end_step();
    Ok(streams)
}

/// The collections that have records: a look at one key of each.
pub(super) fn collections_of(
    keys: Keys,
    store: &dyn Rows,
) -> Result<BTreeSet<Collection>, StoreError> {
    let mut found = BTreeSet::new();
    loop {
        let mut next = None;
        let (from, to) = keys.records_behind(found.last());
        store.scan(&from, &to, &mut |key, _| {
            next = Some(collection_in(key)?);
            Ok(Scan::Stop)
        })?;
        let Some(next) = next else { return Ok(found) };
        found.insert(next);
    }
}

fn count((from, to): (Vec<u8>, Vec<u8>), store: &dyn Rows) -> Result<usize, StoreError> {
    let mut count = 0;
    store.scan(&from, &to, &mut |_, _| {
        count += 1;
        Ok(Scan::Next)
    })?;
    Ok(count)
}
