//! The offline check of the rows of scopes against the records.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::Report;
use crate::protocol::name::{Collection, RecordId};
use crate::rules::record::left::MAX_LEFT;
use crate::rules::record::scopes::{
    Declarable, Declared, HEAD, LEAVE, MEMBER, ScopeHead, changed_key, scope_key,
};
use crate::rules::record::{Head, RecordRow};
use crate::rules::scope::{ScopeKey, ScopeValue};
use crate::store::{Rows, Scan, StoreError};

/// The rows of a collection's scopes as the records say they are.
pub(super) struct ScopesFound<'a> {
    rows: &'a dyn Rows,
    collection: &'a Collection,
    declared: Declared,
    heads: BTreeMap<(u32, ScopeValue), ScopeHead>,
    /// The number of members and leaves of each key.
    entries: BTreeMap<u32, u64>,
}

impl<'a> ScopesFound<'a> {
    pub(super) fn begin(
        rows: &'a dyn Rows,
        collection: &'a Collection,
        head: Head,
        report: &mut Report,
    ) -> Result<Self, StoreError> {
        let declared = Declared::load(rows, collection)?.unwrap_or_default();
        report.declared(collection, head, &declared);
        Ok(Self { rows, collection, declared, heads: BTreeMap::new(), entries: BTreeMap::new() })
    }

    /// Compares the rows of a record's scopes.
    pub(super) fn record(
        &mut self,
        id: &RecordId,
        record: &RecordRow,
        report: &mut Report,
    ) -> Result<(), StoreError> {
        let collection = self.collection;
        let mut fault = |fault: String| report.fault(format!("{collection}/{id}: {fault}"));
        let is_there = |key: Vec<u8>| Ok(self.rows.get(&key)?.as_deref() == Some(id.as_bytes()));
        if record.left.len() > MAX_LEFT || !record.left.is_sorted_by_key(|leave| leave.seq) {
            fault("the scopes that it has left are out of order".into());
        }
        for declared in &self.declared.keys {
            let (number, scopes) = (declared.number, declared.scopes_of(record));
            for value in &scopes {
                let seq = record.last.seq;
                if !is_there(changed_key(collection, number, MEMBER, value, seq))? {
                    fault(format!("it is missing in a scope of {}", declared.key));
                }
                let head = self.heads.entry((number, value.clone())).or_default();
                head.count += 1;
                if let Some(document) = &record.document {
                    head.checksum.add(id, seq, document);
                }
            }
            let left = record.left.iter().filter(|leave| leave.number == number);
            let mut entries = scopes.len() as u64;
            for leave in left {
                entries += 1;
                if !is_there(changed_key(collection, number, LEAVE, &leave.value, leave.seq))? {
                    fault(format!("that it left a scope of {} is not stored there", declared.key));
                }
                if scopes.contains(&leave.value) || leave.seq > record.last.seq {
                    fault(format!("it can't have left a scope of {} as it says", declared.key));
                }
            }
            *self.entries.entry(number).or_default() += entries;
        }
        Ok(())
    }

    /// Compares the scopes' heads, and the number of their rows.
    pub(super) fn end(mut self, head: Head, report: &mut Report) -> Result<(), StoreError> {
        let collection = self.collection;
        for declared in &self.declared.keys {
            let number = declared.number;
            let heads_from = scope_key(collection, number, HEAD, &[]);
            let (from, to) = ScopeKey::range(collection, number);
            let mut entries = 0;
            self.rows.scan(&from, &to, &mut |key, row| {
                let Some(value) = key.strip_prefix(&*heads_from) else {
                    entries += 1;
                    return Ok(Scan::Next);
                };
                let stored = ScopeHead::from_row(row)?;
                let found = self.heads.remove(&(number, value.to_vec())).unwrap_or_default();
                let same = (stored.count, stored.checksum) == (found.count, found.checksum);
                if !same || stored.horizon > head.seq {
                    let key = &declared.key;
                    report.fault(format!(
                        "{collection}: a scope of {key} has {} records with checksum {}, its head \
                         says {} with {}, and a horizon of {}",
                        found.count, found.checksum, stored.count, stored.checksum, stored.horizon
                    ));
                }
                Ok(Scan::Next)
            })?;
            let expected = self.entries.get(&number).copied().unwrap_or_default();
            if entries != expected {
                report.fault(format!(
                    "{collection}: {entries} entries in scopes of {}, the records make {expected}",
                    declared.key
                ));
            }
        }
        if !self.heads.is_empty() {
            report.fault(format!("{collection}: {} scopes have no head", self.heads.len()));
        }
        Ok(())
    }
}
