//! The building of indexes for records that are here already, and the removal of those that nobody
//! declares any more, a bounded part at a time.
//!
//! Where a record changes, [`Edit::put_row`] changes its entries in the same commit, also in an index that
//! is still being built: so the building only has to come by every record once.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use super::edit::Edit;
use super::event::EventKind;
use super::indexes::{Indexes, KeptIndex, KeptIndexes, Unfinished};
use super::machine::Client;
use crate::protocol::name::{Collection, RecordId};
use crate::protocol::time::Mono;
use crate::rules::query::Index;
use crate::rules::row::{IndexRow, IndexState, Keys, Row, index_number_of};
use crate::store::{Scan, StoreError};

/// The size of the documents that one step of a building reads at most, and one more.
const STEP_BYTES: usize = 1 << 20;
/// The time from one step to the next, which leaves time for everything else.
const PAUSE: Duration = Duration::from_millis(1);

impl Indexes {
    /// The indexes that are declared, as far as the store has them. `edit` takes what is to be noted of
    /// the others.
    pub(super) fn open(
        edit: &mut Edit<'_>,
        keys: Keys,
        declared: &BTreeMap<Collection, Vec<Index>>,
        now: Mono,
    ) -> Result<Self, StoreError> {
        let mut kept = KeptIndexes::new();
        let mut unfinished = BTreeMap::new();
        let mut next = 0;
        for (number, mut row) in edit.indexes()? {
            next = number.saturating_add(1);
            let of = kept.entry(row.collection.clone()).or_default();
            let is_there = of.iter().any(|other: &KeptIndex| other.index == row.index);
            let is_wanted = declared.get(&row.collection).is_some_and(|it| it.contains(&row.index));
            if row.state != IndexState::Leaving && is_wanted && !is_there {
                of.push(KeptIndex { number, index: row.index.clone() });
            } else if row.state != IndexState::Leaving {
                row.state = IndexState::Leaving;
                edit.put(keys.index(number), row.encode());
            }
            if row.state != IndexState::Ready {
                unfinished.insert(number, Unfinished { row, records: 0 });
            }
        }
        for (collection, indexes) in declared {
            let of = kept.entry(collection.clone()).or_default();
            for index in indexes {
                if of.iter().any(|other| other.index == *index) {
                    continue;
                }
                let mut row = IndexRow {
                    collection: collection.clone(),
                    index: index.clone(),
                    state: IndexState::Building(None),
                };
                if edit.is_without_rows(collection)? {
                    row.state = IndexState::Ready;
                }
                edit.put(keys.index(next), row.encode());
                of.push(KeptIndex { number: next, index: index.clone() });
                if row.state != IndexState::Ready {
                    unfinished.insert(next, Unfinished { row, records: 0 });
                }
                next = next.saturating_add(1);
            }
        }
        kept.retain(|_, of| !of.is_empty());
        let kept = (!kept.is_empty()).then(|| Arc::new(kept));
        let due = (!unfinished.is_empty()).then_some(now);
        Ok(Self { kept, unfinished, due })
    }

    /// Checks that every index has the records that are there, as they are seen, and nothing else. One
    /// that is being built may lack those behind the ones that it has come by.
    ///
    /// # Errors
    /// Says what is missing, or too much.
    pub(super) fn check(&self, keys: Keys, edit: &Edit<'_>) -> Result<(), String> {
        let wrong = |error: StoreError| error.message;
        let mut entries = edit.index_entries().map_err(wrong)?;
        for (collection, kept) in self.kept.iter().flat_map(|kept| kept.iter()) {
            for kept in kept {
                let state = self.unfinished.get(&kept.number).map(|of| &of.row.state);
                let mut wrong_record = None;
                let check = &mut |id: &RecordId, row: Row| {
                    let Some(document) = row.view() else { return };
                    let (key, value) = kept.entry(keys, id, document);
                    let is_there = entries.remove(&key).is_some_and(|of| *of == *value);
                    let may_lack = match state {
                        Some(IndexState::Building(up_to)) => {
                            up_to.as_ref().is_none_or(|it| id > it)
                        }
                        Some(IndexState::Ready | IndexState::Leaving) | None => false,
                    };
                    if !is_there && !may_lack {
                        wrong_record.get_or_insert(id.clone());
                    }
                };
                edit.each_row(collection, check).map_err(wrong)?;
                if let Some(id) = wrong_record {
                    return Err(format!("the index {:?} lacks {collection}/{id}", kept.index));
                }
            }
        }
        for key in entries.keys() {
            let number = index_number_of(key).map_err(wrong)?;
            let state = self.unfinished.get(&number).map(|of| &of.row.state);
            if state != Some(&IndexState::Leaving) {
                return Err(format!("an index has an entry of no record: {key:?}"));
            }
        }
        Ok(())
    }
}

impl Client {
    /// The time at which the next step in building and removing indexes is due.
    pub(super) fn index_deadline(&self) -> Option<Mono> {
        self.indexes.due
    }

    /// Builds or removes a part of an index.
    pub(super) fn work_on_indexes(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        if let Some(number) = self.indexes.unfinished.keys().next().copied() {
            self.work_on(edit, number)?;
        }
        let is_done = self.indexes.unfinished.is_empty();
        self.indexes.due = (!is_done).then(|| self.now.mono + PAUSE);
        Ok(())
    }

    fn work_on(&mut self, edit: &mut Edit<'_>, number: u32) -> Result<(), StoreError> {
        let most = self.rows_at_once();
        let Some(Unfinished { row, records }) = self.indexes.unfinished.get_mut(&number) else {
            return Ok(());
        };
        let is_done = match &row.state {
            IndexState::Building(after) => {
                let prefix = self.keys.indexed(number);
                let built = build(edit, &prefix, row, after.as_ref(), most)?;
                *records += built.records;
                row.state =
                    built.last.map_or(IndexState::Ready, |id| IndexState::Building(Some(id)));
                edit.put(self.keys.index(number), row.encode());
                let (collection, index) = (row.collection.clone(), row.index.clone());
                let (records, done) = (*records, row.state == IndexState::Ready);
                edit.event(EventKind::IndexProgress { collection, index, records, done });
                done
            }
            IndexState::Leaving => {
                let is_done = edit.delete_index_entries(number, most)?;
                if is_done {
                    edit.delete(self.keys.index(number));
                }
                is_done
            }
            IndexState::Ready => true,
        };
        if is_done {
            self.indexes.unfinished.remove(&number);
            edit.flush = true;
        }
        Ok(())
    }
}

/// The part of an index that one step has built.
struct Built {
    records: u64,
    /// The last record, if there may be more.
    last: Option<RecordId>,
}

fn build(
    edit: &mut Edit<'_>,
    prefix: &[u8],
    row: &IndexRow,
    after: Option<&RecordId>,
    most: usize,
) -> Result<Built, StoreError> {
    let (mut entries, mut bytes) = (Vec::new(), 0);
    let mut built = Built { records: 0, last: None };
    edit.rows_behind(&row.collection, after, &mut |id, stored| {
        built.records += 1;
        if let Some(document) = stored.view() {
            bytes += document.size();
            entries.push(row.index.entry(prefix.to_vec(), &id, document));
        }
        if built.records < most as u64 && bytes < STEP_BYTES {
            return Scan::Next;
        }
        built.last = Some(id);
        Scan::Stop
    })?;
    entries.into_iter().for_each(|(key, value)| edit.put(key, value));
    Ok(built)
}
