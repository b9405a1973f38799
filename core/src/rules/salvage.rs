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
use crate::store::{Rows, Scan, StoreError};

use super::record::{EpochRow, epoch_key, range_of};
use super::row::{Entry, Keys, OutboxRow, Slot, record_of, write_id_of};

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

/// The prefixes of the keys of the rows that [`owner`] reads.
pub const OWNERS: [&[u8]; 2] = [USERS, b"e"];

/// Determines the kind of a store from its rows: a replica's rows name their users, a server's
/// their epochs.
///
/// # Errors
/// When the store can't be read.
pub fn owner(rows: &dyn Rows) -> Result<Owner, StoreError> {
    let (mut client, mut server) = (false, false);
    let (from, to) = Keys::users();
    rows.scan(&from, &to, &mut |_, slot| {
        client = slot.len() == 4;
        Ok(if client { Scan::Stop } else { Scan::Next })
    })?;
    let (from, to) = range_of(b'e');
    rows.scan(&from, &to, &mut |key, row| {
        server = key.len() == epoch_key(0).len() && EpochRow::from_row(row).is_ok();
        Ok(if server { Scan::Stop } else { Scan::Next })
    })?;
    Ok(match (client, server) {
        (false, false) => Owner::Nobody,
        (true, false) => Owner::Client,
        (false, true) => Owner::Server,
        (true, true) => Owner::Both,
    })
}

/// The prefix of the keys of the rows that [`outboxes`] reads.
pub const USERS: &[u8] = &[0];

/// The users of a store, each with the key prefix of the rows that [`unsent_writes`] reads.
pub fn outboxes(rows: impl IntoIterator<Item = (Bytes, Bytes)>) -> Vec<(String, Vec<u8>)> {
    let outbox = |(key, slot): (Bytes, Bytes)| {
        let user = core::str::from_utf8(key.strip_prefix(USERS)?).ok()?;
        // a user who leaves has asked to keep nothing
        let slot = Slot::decode(&slot).ok().filter(|slot| !slot.leaving)?;
        Some((user.into(), Keys::new(slot.number).outbox()))
    };
    rows.into_iter().filter_map(outbox).collect()
}

/// The writes in the rows of an outbox, in the order in which they were made.
pub fn unsent_writes(rows: impl IntoIterator<Item = (Bytes, Bytes)>) -> Vec<UnsentWrite> {
    let write = |(key, row): (Bytes, Bytes)| match OutboxRow::decode(row).ok()? {
        OutboxRow::Entry(entry) => {
            let Entry { collection, record_id, change, written_at, at, .. } = entry.corrected(0);
            let write = UnsentWrite { collection, record_id, change, written_at, at };
            Some((write_id_of(&key).ok()?, write))
        }
        OutboxRow::Acked(_) => None,
    };
    let mut writes: Vec<_> = rows.into_iter().filter_map(write).collect();
    writes.sort_by_key(|(position, _)| *position);
    writes.into_iter().map(|(_, write)| write).collect()
}

/// The key prefix of the rows that assign the entries of an outbox to their records.
#[must_use]
pub fn index_of(outbox: &[u8]) -> Vec<u8> {
    beside(outbox, b'p')
}

/// The key prefix of the rejected writes, which have left the outbox.
#[must_use]
pub fn rejected_of(outbox: &[u8]) -> Vec<u8> {
    beside(outbox, b'r')
}

fn beside(outbox: &[u8], tag: u8) -> Vec<u8> {
    let mut key = outbox.to_vec();
    if let Some(last) = key.last_mut() {
        *last = tag;
    }
    key
}

/// The unreadable writes of an outbox.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MissingWrites {
    /// The unreadable writes whose record is known.
    pub records: Vec<(Collection, RecordId)>,
    /// The number of empty positions from the first to the last write. A write that was settled out
    /// of order leaves an empty position too, so this indicates a loss only if one is already
    /// known.
    pub places: u64,
}

/// The unreadable writes of an outbox, by its rows and the rows under [`index_of`] and
/// [`rejected_of`].
pub fn missing_writes(
    outbox: impl IntoIterator<Item = (Bytes, Bytes)>,
    index: impl IntoIterator<Item = (Bytes, Bytes)>,
    rejected: impl IntoIterator<Item = (Bytes, Bytes)>,
) -> MissingWrites {
    let position = |(key, _): (Bytes, Bytes)| write_id_of(&key).ok();
    let there = outbox.into_iter().filter(|(_, row)| OutboxRow::decode(row.clone()).is_ok());
    let there: BTreeSet<_> = there.filter_map(position).collect();
    let settled: BTreeSet<_> = rejected.into_iter().filter_map(position).collect();
    let mut missing = BTreeMap::new();
    for (key, _) in index {
        let (Ok(position), Some(end)) = (write_id_of(&key), key.len().checked_sub(9)) else {
            continue;
        };
        if let Ok(record) = record_of(&key[..end])
            && !there.contains(&position)
        {
            missing.insert(position, record);
        }
    }
    let known = || there.iter().chain(missing.keys());
    let places = match (known().min(), known().max()) {
        (Some(first), Some(last)) => {
            let settled =
                settled.range(first..=last).filter(|place| !there.contains(place)).count();
            (last.0 - first.0 + 1).saturating_sub((there.len() + settled) as u64)
        }
        (None, _) | (_, None) => 0,
    };
    MissingWrites { records: missing.into_values().collect(), places }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::protocol::document::Document;
    use crate::protocol::hash::Digest;
    use crate::protocol::limits::Limits;
    use crate::protocol::name::WriteId;

    fn entry(id: &str) -> Entry {
        let document = Document::parse(r#"{"n":9007199254740993}"#, &Limits::default()).unwrap();
        Entry {
            collection: Collection::new("todos").unwrap(),
            record_id: RecordId::new(id).unwrap(),
            change: Change::insert(document),
            written_at: Timestamp(7),
            at: vec![("n".into(), Timestamp(5))],
            stamped: None,
        }
    }

    #[test]
    fn users_have_outboxes_of_their_own() {
        let rows = [
            (Bytes::from(Keys::user("ann")), Bytes::from(1u32.to_be_bytes().to_vec())),
            (Bytes::from(Keys::user("bob")), Bytes::from_static(b"torn")),
            (Bytes::from(Keys::user("eve")), Bytes::from_static(b"x")),
            (Bytes::from_static(b"\x01else"), Bytes::from(2u32.to_be_bytes().to_vec())),
        ];
        let found = outboxes(rows);
        let torn = u32::from_be_bytes(*b"torn");
        assert_eq!(
            found,
            [("ann".into(), Keys::new(1).outbox()), ("bob".into(), Keys::new(torn).outbox()),]
        );
        assert!(Keys::new(1).entry(WriteId(3)).starts_with(&found[0].1));
    }

    #[test]
    fn what_is_missing_in_an_outbox_is_counted_and_named_where_it_can_be() {
        let keys = Keys::new(3);
        let entry = |position, id: &str| {
            let key = Bytes::from(keys.entry(WriteId(position)));
            (key, Bytes::from(OutboxRow::Entry(entry(id)).encode()))
        };
        let todos = Collection::new("todos").unwrap();
        let index = |position, id: &str| {
            (Bytes::from(keys.pending(&todos, id, WriteId(position))), Bytes::new())
        };
        let rejected = (Bytes::from(keys.rejected(WriteId(4))), Bytes::from_static(b"any"));
        let outbox = keys.outbox();
        assert!(index(1, "a").0.starts_with(&index_of(&outbox)));
        assert!(rejected.0.starts_with(&rejected_of(&outbox)));
        // 1, 2, 5 and 6 are there; 3 is only known by its record, 4 was refused, 7 by the index
        let missing = missing_writes(
            [entry(1, "a"), entry(2, "b"), entry(5, "a"), entry(6, "c")],
            [index(1, "a"), index(2, "b"), index(5, "a"), index(6, "c"), index(7, "d")],
            [rejected],
        );
        let of = |id: &str| (todos.clone(), RecordId::new(id).unwrap());
        assert_eq!(missing, MissingWrites { records: vec![of("d")], places: 2 });
        assert_eq!(missing_writes([], [], []), MissingWrites::default());
    }

    #[test]
    fn what_can_be_read_of_an_outbox_comes_in_its_order() {
        let keys = Keys::new(0);
        let acked = OutboxRow::Acked(Digest(3));
        let row = |position, value: Vec<u8>| {
            (Bytes::from(keys.entry(WriteId(position))), Bytes::from(value))
        };
        let mut torn = OutboxRow::Entry(entry("torn")).encode();
        torn.pop();
        let rows = vec![
            row(300, OutboxRow::Entry(entry("b")).encode()),
            row(2, acked.encode()),
            row(4, torn),
            row(5, OutboxRow::Entry(entry("a")).encode()),
            (Bytes::from_static(b"o"), Bytes::from(OutboxRow::Entry(entry("c")).encode())),
        ];
        let writes = unsent_writes(rows);
        let ids: Vec<&str> = writes.iter().map(|write| write.record_id.as_str()).collect();
        assert_eq!(ids, ["a", "b"]);
        assert_eq!(writes[0].change, entry("a").change);
        assert_eq!(writes[0].written_at, Timestamp(7));
        assert_eq!(writes[0].at, [("n".into(), Timestamp(5))]);
    }
}
