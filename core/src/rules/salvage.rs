//! Recovery of the writes that the server may not have from a damaged store's rows.
//!
//! Some rows may be missing, and others may be of an earlier time. So nothing here depends on two
//! rows being consistent, and invalid rows are left out.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use crate::protocol::name::{Collection, RecordId};
use crate::protocol::time::Timestamp;
use crate::protocol::times::FieldTimes;
use crate::protocol::write::Change;

use super::record::{EpochRow, epoch_key};
use super::row::{Entry, Keys, OutboxRow, Row, Slot, record_of, write_id_of};

/// A write from the outbox. The server may have it, if it was sent before.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct UnsentWrite {
    /// The collection.
    pub collection: Collection,
    /// The record.
    pub record_id: RecordId,
    /// The change of the record.
    pub change: Change,
    /// The time at which the app made the write; for a merged write, the time of its last part.
    pub written_at: Timestamp,
    /// The times of the fields that were written at another time, sorted by name.
    pub at: FieldTimes,
}

/// The kind of a store, as far as its rows tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// Unknown: there are no rows, or none that tell.
    Nobody,
    /// A replica's store.
    Client,
    /// A server's store.
    Server,
    /// Both a replica and a server have written to it.
    Both,
}

/// Determines the kind of a store from its rows: a replica's rows name their users, a server's
/// their epochs. `read` returns the rows whose keys begin with a prefix.
///
/// # Errors
/// Those of `read`.
pub fn owner<E>(mut read: impl FnMut(&[u8]) -> Result<Vec<(Bytes, Bytes)>, E>) -> Result<Owner, E> {
    let client = read(USERS)?.iter().any(|(_, slot)| slot.len() == 4);
    let is_epoch = |(key, row): (Bytes, Bytes)| {
        key.len() == epoch_key(0).len() && EpochRow::from_row(row).is_ok()
    };
    let server = read(b"e")?.into_iter().any(is_epoch);
    Ok(match (client, server) {
        (false, false) => Owner::Nobody,
        (true, false) => Owner::Client,
        (false, true) => Owner::Server,
        (true, true) => Owner::Both,
    })
}

/// The writes of a user that a damaged store still holds, and the traces of those that it lost.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SalvagedWrites {
    /// The user; empty if the replica names none.
    pub user: String,
    /// The readable writes, in the order in which they were made.
    pub writes: Vec<UnsentWrite>,
    /// The records of the unreadable writes, as far as they are known.
    pub missing: Vec<(Collection, RecordId)>,
    /// The number of empty positions from the first to the last write. A write that was settled out
    /// of order leaves an empty position too, so this indicates a loss only if one is already
    /// known.
    pub gaps: u64,
}

/// Reads the unsent writes of every user of a damaged store. `read` returns the readable rows whose
/// keys begin with a prefix.
///
/// # Errors
/// Those of `read`.
pub fn salvage<E>(
    mut read: impl FnMut(&[u8]) -> Result<Vec<(Bytes, Bytes)>, E>,
) -> Result<Vec<SalvagedWrites>, E> {
    let mut found = Vec::new();
    for (key, slot) in read(USERS)? {
        if let Some((user, outbox)) = outbox_of(&key, &slot) {
            let rows = read(&outbox)?;
            let (index, rejected) = (read(&beside(&outbox, b'p'))?, read(&beside(&outbox, b'r'))?);
            let (mut missing, gaps) = missing_writes(&rows, &index, &rejected);
            let records = read(&beside(&outbox, b'd'))?;
            missing.extend(records_without(&rows, &missing, records));
            found.push(SalvagedWrites { user, writes: unsent_writes(rows), missing, gaps });
        }
    }
    Ok(found)
}

/// The prefix of the keys of the rows that name the users.
const USERS: &[u8] = &[0];

/// A user, and the key prefix of the user's outbox.
fn outbox_of(key: &[u8], slot: &Bytes) -> Option<(String, Vec<u8>)> {
    let user = core::str::from_utf8(key.strip_prefix(USERS)?).ok()?;
    // a user who leaves has asked to keep nothing
    let slot = Slot::decode(slot).ok().filter(|slot| !slot.leaving)?;
    Some((user.into(), Keys::new(slot.number).outbox()))
}

/// The key prefix of other rows of the same user: `d` for the records, `p` for those by which earlier
/// versions found the writes of a record, `r` for the rejected writes, which have left the outbox.
fn beside(outbox: &[u8], tag: u8) -> Vec<u8> {
    let mut key = outbox.to_vec();
    if let Some(last) = key.last_mut() {
        *last = tag;
    }
    key
}

fn unsent_writes(outbox: Vec<(Bytes, Bytes)>) -> Vec<UnsentWrite> {
    let write = |(key, row): (Bytes, Bytes)| match OutboxRow::decode(row).ok()? {
        OutboxRow::Entry(entry) if entry.expects.is_none() => {
            let Entry { collection, record_id, change, written_at, at, .. } = entry.corrected(0);
            let write = UnsentWrite { collection, record_id, change, written_at, at };
            Some((write_id_of(&key).ok()?, write))
        }
        OutboxRow::Entry(_) | OutboxRow::Acked(_) => None,
    };
    let mut writes: Vec<_> = outbox.into_iter().filter_map(write).collect();
    writes.sort_by_key(|(position, _)| *position);
    writes.into_iter().map(|(_, write)| write).collect()
}

/// The records that have pending writes of which neither one can be read nor one is known to be missing.
fn records_without(
    outbox: &[(Bytes, Bytes)],
    missing: &[(Collection, RecordId)],
    records: Vec<(Bytes, Bytes)>,
) -> Vec<(Collection, RecordId)> {
    let owners = outbox.iter().filter_map(|(_, row)| OutboxRow::owner_of(row.clone()).ok()?);
    let owners = owners.map(|owner| (owner.collection, owner.record_id));
    let known: BTreeSet<_> = owners.chain(missing.iter().cloned()).collect();
    let pending = records.into_iter().filter_map(|(key, row)| {
        Row::decode(row).ok()?.pending?;
        record_of(&key).ok()
    });
    pending.filter(|record| !known.contains(record)).collect()
}

/// The records of the unreadable writes of an outbox, and the number of empty positions in it.
fn missing_writes(
    outbox: &[(Bytes, Bytes)],
    index: &[(Bytes, Bytes)],
    rejected: &[(Bytes, Bytes)],
) -> (Vec<(Collection, RecordId)>, u64) {
    let position = |(key, _): &(Bytes, Bytes)| write_id_of(key).ok();
    let there = outbox.iter().filter(|(_, row)| OutboxRow::decode(row.clone()).is_ok());
    let there: BTreeSet<_> = there.filter_map(position).collect();
    let settled: BTreeSet<_> = rejected.iter().filter_map(position).collect();
    let mut missing = BTreeMap::new();
    for (key, _) in index {
        let (Ok(position), Some(end)) = (write_id_of(key), key.len().checked_sub(9)) else {
            continue;
        };
        if let Ok(record) = record_of(&key[..end])
            && !there.contains(&position)
        {
            missing.insert(position, record);
        }
    }
    let known = || there.iter().chain(missing.keys());
    let gaps = match (known().min(), known().max()) {
        (Some(first), Some(last)) => {
            let settled =
                settled.range(first..=last).filter(|place| !there.contains(place)).count();
            (last.0 - first.0 + 1).saturating_sub((there.len() + settled) as u64)
        }
        (None, _) | (_, None) => 0,
    };
    (missing.into_values().collect(), gaps)
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::protocol::document::Document;
    use crate::protocol::hash::Digest;
    use crate::protocol::limits::Limits;
    use crate::protocol::name::WriteId;
    use crate::rules::row::Pending;
    use crate::store::StoreError;

    fn entry(id: &str) -> Entry {
        let document = Document::parse(r#"{"n":9007199254740993}"#, &Limits::default()).unwrap();
        let (collection, id) = (Collection::new("todos").unwrap(), RecordId::new(id).unwrap());
        let at = vec![("n".into(), Timestamp(5))];
        Entry { at, ..Entry::new(collection, id, Change::insert(document), Timestamp(7)) }
    }

    type Stored = (Bytes, Bytes);

    fn user(name: &str, slot: Vec<u8>) -> Stored {
        (Bytes::from(Keys::user(name)), Bytes::from(slot))
    }

    fn row(key: Vec<u8>, value: Vec<u8>) -> Stored {
        (Bytes::from(key), Bytes::from(value))
    }

    fn salvaged(rows: &[Stored]) -> Vec<SalvagedWrites> {
        let read = |prefix: &[u8]| {
            let rows = rows.iter().filter(|(key, _)| key.starts_with(prefix));
            Ok::<_, StoreError>(rows.cloned().collect())
        };
        salvage(read).unwrap()
    }

    #[test]
    fn users_have_outboxes_of_their_own() {
        let torn = u32::from_be_bytes(*b"torn");
        let entry = |number, id| {
            row(Keys::new(number).entry(WriteId(3)), OutboxRow::Entry(entry(id)).encode())
        };
        let found = salvaged(&[
            user("ann", 1u32.to_be_bytes().to_vec()),
            user("bob", b"torn".to_vec()),
            user("eve", b"x".to_vec()),
            row(b"\x01else".to_vec(), 2u32.to_be_bytes().to_vec()),
            entry(1, "of-ann"),
            entry(torn, "of-bob"),
        ]);
        let ids = |of: &SalvagedWrites| of.writes[0].record_id.clone();
        let found: Vec<_> = found.iter().map(|of| (&*of.user, ids(of))).collect();
        let id = |text: &str| RecordId::new(text).unwrap();
        assert_eq!(found, [("ann", id("of-ann")), ("bob", id("of-bob"))]);
    }

    #[test]
    fn what_is_missing_in_an_outbox_is_counted_and_named_where_it_can_be() {
        let keys = Keys::new(3);
        let entry = |position, id: &str| {
            row(keys.entry(WriteId(position)), OutboxRow::Entry(entry(id)).encode())
        };
        let todos = Collection::new("todos").unwrap();
        let index = |position, id: &str| row(keys.pending(&todos, id, WriteId(position)), vec![]);
        let ann = user("ann", 3u32.to_be_bytes().to_vec());
        let record = |id: &str, waits: bool| {
            let pending = Pending { view: None, written_at: Timestamp(7), deferred: None };
            let of = Row { pending: waits.then_some(pending), ..Row::default() };
            row(keys.row(&todos, id), of.encode())
        };
        // 1, 2, 5 and 6 are there; 3 is only known by its record, 4 was refused, 7 by the index of earlier
        // versions, and "e" has a write of which nothing is left
        let found = salvaged(&[
            ann.clone(),
            entry(1, "a"),
            entry(2, "b"),
            entry(5, "a"),
            entry(6, "c"),
            index(1, "a"),
            index(2, "b"),
            index(5, "a"),
            index(6, "c"),
            index(7, "d"),
            record("a", true),
            record("b", true),
            record("e", true),
            record("f", false),
            row(keys.rejected(WriteId(4)), b"any".to_vec()),
        ]);
        let of = |id: &str| (todos.clone(), RecordId::new(id).unwrap());
        assert_eq!((&found[0].missing, found[0].gaps), (&vec![of("d"), of("e")], 2));
        let nothing = SalvagedWrites { user: "ann".into(), ..SalvagedWrites::default() };
        assert_eq!(salvaged(&[ann]), [nothing]);
    }

    #[test]
    fn what_can_be_read_of_an_outbox_comes_in_its_order() {
        let keys = Keys::new(0);
        let acked = OutboxRow::Acked(Digest(3));
        let write = |position, value: Vec<u8>| row(keys.entry(WriteId(position)), value);
        let mut torn = OutboxRow::Entry(entry("torn")).encode();
        torn.pop();
        let mut short = keys.outbox();
        short.push(b'o');
        let found = salvaged(&[
            user("", 0u32.to_be_bytes().to_vec()),
            write(300, OutboxRow::Entry(entry("b")).encode()),
            write(2, acked.encode()),
            write(4, torn),
            write(5, OutboxRow::Entry(entry("a")).encode()),
            row(short, OutboxRow::Entry(entry("c")).encode()),
        ]);
        let writes = &found[0].writes;
        let ids: Vec<&str> = writes.iter().map(|write| write.record_id.as_str()).collect();
        assert_eq!(ids, ["a", "b"]);
        assert_eq!(writes[0].change, entry("a").change);
        assert_eq!(writes[0].written_at, Timestamp(7));
        assert_eq!(writes[0].at, [("n".into(), Timestamp(5))]);
    }
}
