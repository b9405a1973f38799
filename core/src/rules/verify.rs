//! The offline check of a server's rows.

mod indexes;
mod scopes;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use self::indexes::IndexesFound;
use self::scopes::ScopesFound;
use super::record::declared::{Built, Declarable, Declaration, Declarations};
use super::record::{
    ClientRow, Head, RecordRow, Stamp, Totals, counted_user, index_key, index_of, name_in,
    range_of, record_id, records_of, size_of_record,
};
use crate::protocol::hash::Checksum;
use crate::protocol::name::{ClientId, Collection, Seq, UserId};
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

/// Reads every row of a server's store. Indexes, scopes and records must agree; counts and checksums are
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
        if found.bytes != head.bytes {
            report.fault(alloc::format!(
                "{collection}: up to {} there are {} bytes, its head says {}",
                head.measured,
                found.bytes,
                head.bytes
            ));
        }
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
    verify_totals(rows, &mut report)?;
    Ok(report)
}

/// Compares the stored totals with the rows. A store that was not opened since has none.
fn verify_totals(rows: &dyn Rows, report: &mut Report) -> Result<(), StoreError> {
    let Some(Totals { collections, counted }) = Totals::stored(rows)? else { return Ok(()) };
    let found = report.collections.len() as u64;
    if found != collections {
        report.fault(alloc::format!("there are {found} collections, {collections} are counted"));
    }
    let mut clients: BTreeMap<Option<UserId>, u64> = BTreeMap::new();
    let (from, to) = range_of(b'u');
    rows.scan(&from, &to, &mut |key, row| {
        if counted.includes(&name_in(key, |name| ClientId::new(name).ok())?) {
            *clients.entry(ClientRow::from_row(row)?.user).or_default() += 1;
        }
        Ok(Scan::Next)
    })?;
    let mut stored = BTreeMap::new();
    let (from, to) = range_of(b'n');
    rows.scan(&from, &to, &mut |key, row| {
        let (user, count) = counted_user(key, row)?;
        stored.insert(user, count);
        Ok(Scan::Next)
    })?;
    if clients != stored {
        report.fault(alloc::format!("the users' clients are {clients:?}, counted are {stored:?}"));
    }
    Ok(())
}

fn verify_collection(
    rows: &dyn Rows,
    collection: &Collection,
    head: Head,
    report: &mut Report,
) -> Result<Head, StoreError> {
    let mut found = Head { count: 0, checksum: Checksum(0), bytes: 0, ..head };
    let (from, to) = records_of(collection);
    let mut scopes = ScopesFound::begin(rows, collection, head, report)?;
    let mut indexes = IndexesFound::begin(rows, collection, head, report)?;
    let mut records = 0u64;
    rows.scan(&from, &to, &mut |key, row| {
        let id = record_id(&key[from.len()..])?;
        let size = size_of_record(&id, &row);
        let record = match RecordRow::from_row(row) {
            Ok(record) => record,
            Err(error) => {
                report.fault(alloc::format!("{collection}/{id}: {error}"));
                return Ok(Scan::Next);
            }
        };
        records += 1;
        if record.last.seq <= head.measured {
            found.bytes += size;
        }
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
        scopes.record(&id, &record, report)?;
        indexes.record(&id, &record, report)?;
        Ok(Scan::Next)
    })?;
    scopes.end(head, report)?;
    indexes.end(report)?;
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
        let has = |name: &str| self.document.as_ref().is_some_and(|d| d.text(name).is_some());
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

    /// Compares what is declared of a collection with its head.
    fn declared<K: Declarable>(
        &mut self,
        collection: &Collection,
        head: Head,
        declared: &Declarations<K>,
    ) {
        if declared.is_in_use() && !K::are_in_use(&head) {
            let name = K::NAME;
            self.fault(alloc::format!("{collection}: its head does not say that it has {name}"));
        }
        for Declaration { key, built, .. } in &declared.keys {
            let (Built::UpTo(seq) | Built::Since(seq)) = *built;
            if seq > head.seq {
                self.fault(alloc::format!("{collection}: the rows of {key} are ahead of it"));
            }
        }
    }
}
