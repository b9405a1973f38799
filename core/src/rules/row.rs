//! A replica's rows and their encoding.
//!
//! | key | value |
//! | --- | --- |
//! | `0x00` user | `Slot`: the user's slot |
//! | `0x01` slot `i` | `Identity` |
//! | `0x01` slot `c` collection | `StreamRow` |
//! | `0x01` slot `d` collection `0x00` record | `Row` |
//! | `0x01` slot `k` collection `0x00` record | empty: the record has a deferred change |
//! | `0x01` slot `n` number | `IndexRow`: an index |
//! | `0x01` slot `o` id | `OutboxRow`: the outbox |
//! | `0x01` slot `p` collection `0x00` record `0x00` id | empty, of earlier versions: which writes a record has |
//! | `0x01` slot `r` id | `Rejected` |
//! | `0x01` slot `x` number fields record | the length of the fields, two bytes: which records an index has |
//!
//! Names hold no control characters, so `0x00` ends one. Slots, ids of writes, numbers of indexes (four
//! bytes) and lengths are big endian.

mod counted;
mod entry;
mod figures;
mod identity;
mod index;
mod keys;
mod parts;
mod record;
mod set;
mod stream;

pub use entry::Rejected;
pub(crate) use entry::{Entry, OutboxRow, Owner, Seen, Unit};
pub(crate) use figures::{Figures, Recount};
pub(crate) use identity::{Attempts, Identity};
pub(crate) use index::{IndexRow, IndexState};
pub(crate) use keys::{
    Keys, Slot, collection_in, collection_of, index_number_of, record_id_of, record_of, write_id_of,
};
pub(crate) use record::{Deferred, Pending, Row};
pub(crate) use set::HeldSet;
pub(crate) use stream::{Loss, LossDecision, PlainMark, StreamRow};

#[cfg(test)]
mod tests;
