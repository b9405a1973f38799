//! The offline check of a server's rows.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use super::{
    Head, RecordRow, Stamp, index_key, index_of, name_in, range_of, record_id, records_of,
};
use crate::protocol::hash::Checksum;
use crate::protocol::name::{Collection, Seq};
use crate::store::{Rows, Scan, StoreError};

/// The report of an offline check of a server's rows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// The collections with their heads, in which checksum and count are recomputed.
    pub collections: BTreeMap<Collection, Head>,
    /// The number of tombstones of records.
    pub tombstones: u64,
    /// The problems found, for people; empty if there are none. At most 100 are listed.
    pub faults: Vec<String>,
}

/// Reads every row of a server's store. Index and records must agree; count and checksum are
/// recomputed from the records.
///
/// # Errors
/// When the store can't be read. Problems of the rows are in the report.
pub fn verify(rows: &dyn Rows) -> Result<Report, StoreError> {
    let mut report = Report::default();
    let (from, to) = range_of(b'c');
    let mut stored = BTreeMap::new();
    rows.scan(&from, &to, &mut |key, row| {
        stored.insert(name_in(key, |name| Collection::new(name).ok())?, Head::from_row(row)?);
        Ok(Scan::Next)
    })?;
    for (collection, head) in stored {
        let found = verify_collection(rows, &collection, head, &mut report)?;
        if (found.count, found.checksum) != (head.count, head.checksum) {
            report.fault(alloc::format!(
                "{collection}: {} records with checksum {} are stored, its head says {} with {}",
                found.count,
                found.checksum,
                head.count,
                head.checksum
            ));
        }
        report.collections.insert(collection, found);
    }
    Ok(report)
}

fn verify_collection(
    rows: &dyn Rows,
    collection: &Collection,
    head: Head,
    report: &mut Report,
) -> Result<Head, StoreError> {
    let mut found = Head { count: 0, checksum: Checksum(0), ..head };
    let (from, to) = records_of(collection);
    let mut records = 0u64;
    rows.scan(&from, &to, &mut |key, row| {
        let id = record_id(&key[from.len()..])?;
        let record = match RecordRow::from_row(row) {
            Ok(record) => record,
            Err(error) => {
                report.fault(alloc::format!("{collection}/{id}: {error}"));
                return Ok(Scan::Next);
            }
        };
        records += 1;
        match &record.document {
            Some(document) => {
                found.count += 1;
                found.checksum.add(&id, record.last.seq, document);
            }
            None => report.tombstones += 1,
        }
        let indexed = rows.get(&index_key(collection, record.last.seq))?;
        if indexed.as_deref() != Some(id.as_bytes()) {
            let seq = record.last.seq;
            report.fault(alloc::format!("{collection}/{id}: seq {seq} is not in the change index"));
        }
        for fault in record.faults(head) {
            report.fault(alloc::format!("{collection}/{id}: {fault}"));
        }
        Ok(Scan::Next)
    })?;
    let (from, to) = index_of(collection);
    let mut indexed = 0u64;
    rows.scan(&from, &to, &mut |_, _| {
        indexed += 1;
        Ok(Scan::Next)
    })?;
    if indexed != records {
        report.fault(alloc::format!(
            "{collection}: {indexed} entries in the change index, {records} records"
        ));
    }
    Ok(found)
}

impl RecordRow {
    /// The impossible property of a record in a collection with this head, if there is one.
    pub(crate) fn faults(&self, head: Head) -> Vec<&'static str> {
        let mut faults = Vec::new();
        let stamps = || self.fields.iter().chain(&self.removed).map(|(_, stamp)| stamp);
        if self.last.seq > head.seq || self.last.seq == Seq(0) {
            faults.push("its seq is not one of the collection's");
        }
        if self.whole.seq > self.last.seq || stamps().any(|stamp| stamp.seq > self.last.seq) {
            faults.push("a part of it changed after the whole");
        }
        if stamps().any(|stamp| stamp.seq < self.whole.seq) {
            faults.push("a field of it changed before it was inserted");
        }
        let sorted = |names: &[(Box<str>, Stamp)]| names.is_sorted_by(|(a, _), (b, _)| a < b);
        if !sorted(&self.fields) || !sorted(&self.removed) {
            faults.push("its fields are out of order");
        }
        let has = |name: &str| self.document.as_ref().is_some_and(|d| d.get(name).is_some());
        if self.fields.iter().any(|(name, _)| !has(name))
            || self.removed.iter().any(|(name, _)| has(name))
        {
            faults.push("its fields and their stamps disagree");
        }
        faults
    }
}

impl Report {
    pub(super) fn fault(&mut self, fault: String) {
        if self.faults.len() < 100 {
            self.faults.push(fault);
        }
    }
}
