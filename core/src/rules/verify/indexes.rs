//! The offline check of the rows of indexes against the records.

use alloc::collections::BTreeMap;
use alloc::format;

use super::Report;
use crate::protocol::name::{Collection, RecordId};
use crate::rules::query::Index;
use crate::rules::record::declared::Declarable;
use crate::rules::record::indexes::DeclaredIndexes;
use crate::rules::record::{Head, RecordRow};
use crate::store::{Rows, Scan, StoreError};

/// The rows of a collection's indexes as the records say they are.
pub(super) struct IndexesFound<'a> {
    rows: &'a dyn Rows,
    collection: &'a Collection,
    declared: DeclaredIndexes,
    /// The number of rows of each index.
    entries: BTreeMap<u32, u64>,
}

impl<'a> IndexesFound<'a> {
    pub(super) fn begin(
        rows: &'a dyn Rows,
        collection: &'a Collection,
        head: Head,
        report: &mut Report,
    ) -> Result<Self, StoreError> {
        let declared = DeclaredIndexes::load(rows, collection)?.unwrap_or_default();
        report.declared(collection, head, &declared);
        Ok(Self { rows, collection, declared, entries: BTreeMap::new() })
    }

    /// Compares the rows of a record.
    pub(super) fn record(
        &mut self,
        id: &RecordId,
        record: &RecordRow,
        report: &mut Report,
    ) -> Result<(), StoreError> {
        let collection = self.collection;
        for index in &self.declared.keys {
            let Some((key, value)) = index.entry(collection, id, record) else { continue };
            if self.rows.get(&key)?.as_deref() != Some(&value[..]) {
                let index = &index.key;
                report.fault(format!("{collection}/{id}: it is missing in the index {index}"));
            }
            *self.entries.entry(index.number).or_default() += 1;
        }
        Ok(())
    }

    /// Compares the number of their rows.
    pub(super) fn end(self, report: &mut Report) -> Result<(), StoreError> {
        let collection = self.collection;
        for index in &self.declared.keys {
            let (from, to) = Index::range(collection, index.number);
            let mut entries = 0;
            self.rows.scan(&from, &to, &mut |_, _| {
                entries += 1;
                Ok(Scan::Next)
            })?;
            let expected = self.entries.get(&index.number).copied().unwrap_or_default();
            if entries != expected {
                report.fault(format!(
                    "{collection}: {entries} entries in the index {}, the records make {expected}",
                    index.key
                ));
            }
        }
        Ok(())
    }
}
