//! The records, and what becomes of an item that two have changed.

use serde::{Deserialize, Serialize};
use synclayer_blocking::{Conflict, Document, RecordId};

/// A list, in the collection `lists`.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct List {
    pub(crate) title: String,
    pub(crate) members: Vec<String>,
}

/// An item, in the collection `items`.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Item {
    /// Its list.
    pub(crate) list: RecordId,
    pub(crate) text: String,
    pub(crate) done: bool,
    /// The items of a list are in the order of their places. One that moves gets a place between two
    /// others, so that no other has to be written.
    pub(crate) place: f64,
    /// The text that somebody else has given it at the same time, until somebody chooses.
    pub(crate) theirs: Option<String>,
}

/// The conflict strategy: the later change of a field wins, except that of two texts both are kept, and
/// that a change wins over a deletion.
pub(crate) fn keep_both(conflict: &Conflict<'_>) -> Option<Document> {
    let (Some(local), Some(remote)) = (conflict.local, conflict.remote) else {
        return conflict.merge(conflict.local.is_some());
    };
    let mut merged = conflict.merge(conflict.local_is_later())?;
    let text = |document: &Document| document.get::<String>("text").ok().flatten();
    let (base, mine, theirs) = (conflict.base.and_then(text), text(local), text(remote));
    if mine != theirs && mine != base && theirs != base {
        merged.set("text", &mine).ok()?;
        merged.set("theirs", &theirs).ok()?;
    }
    Some(merged)
}
