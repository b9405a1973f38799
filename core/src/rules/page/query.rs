//! Queries by HTTP: the conditions, and the records that meet them.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;

use super::scope::ScopeAt;
use super::{Budget, PageLimits, ReadAnswer, ReaderView};
use crate::protocol::document::{Document, json_string};
use crate::protocol::name::{RecordId, Seq};
use crate::protocol::time::Timestamp;
use crate::rules::query::{self, IndexRows, Query, Selection};
use crate::rules::record::RecordRow;
use crate::rules::record::indexes::DeclaredIndexes;
use crate::rules::view::Record;
use crate::store::{Scan, StoreError};

/// A query by HTTP. Without `since` the records come in the order of their ids, otherwise in the
/// order of their changes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HttpQuery {
    /// Only the record with this id; `None` for all.
    pub id: Option<RecordId>,
    /// Only records that the server changed at or after this time. The server's times never go
    /// back, so a reader that asks with the last `updatedAt` that it was shown misses nothing, and
    /// is shown that record again (PROTOCOL 5.6).
    pub since: Option<Timestamp>,
    /// The maximal number of records.
    pub limit: Option<usize>,
    /// The number of matching records to skip.
    pub offset: usize,
    /// The parts of a scope key, each with the JSON text of its value: only records of that scope.
    /// Empty for all records.
    pub scope: Vec<(String, String)>,
    /// Fields with their required values: a JSON text, or the content of a string.
    pub conditions: Vec<(String, String)>,
    /// A query with conditions and an order, in whose order the records come; its limit and offset
    /// take the place of these. The records come with all their fields then.
    pub query: Option<Box<Query>>,
    /// The fields to return; all if empty.
    pub fields: BTreeSet<String>,
    /// The fields to leave out.
    pub exclude_fields: BTreeSet<String>,
}

/// A record that a query found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FoundRecord {
    /// The record's id.
    pub id: RecordId,
    /// The requested fields.
    pub document: Document,
    /// The server's time of its last change.
    pub updated_at: Timestamp,
    /// The record's version: the number of its changes so far.
    pub version: u64,
}

impl ReaderView<'_> {
    pub(super) fn query(&self, query: &HttpQuery, bytes: usize) -> Result<ReadAnswer, StoreError> {
        let scope = match ScopeAt::find(self.rows, &self.reader.collection, &query.scope)? {
            Ok(scope) => scope,
            Err((code, message)) => return Ok(ReadAnswer::Refused { code, message }),
        };
        let found = match &query.query {
            Some(chosen) => self.select(query, chosen, scope.as_ref(), bytes)?,
            None => self.find(query, scope.as_ref(), bytes)?,
        };
        Ok(ReadAnswer::Found(found))
    }

    fn find(
        &self,
        query: &HttpQuery,
        scope: Option<&ScopeAt<'_>>,
        bytes: usize,
    ) -> Result<Option<Vec<FoundRecord>>, StoreError> {
        let mut budget = Budget::new(PageLimits { records: usize::MAX, bytes });
        let mut offset = query.offset;
        let mut found = Vec::new();
        let limit = query.limit.unwrap_or(usize::MAX);
        let mut visit = |id: &RecordId, record: &RecordRow| {
            if found.len() >= limit {
                return Ok(Scan::Stop);
            }
            let Some(document) = &record.document else { return Ok(Scan::Next) };
            if !query.matches(document) || !self.shows(id, record) {
                return Ok(Scan::Next);
            }
            if offset > 0 {
                offset -= 1;
                return Ok(Scan::Next);
            }
            let document = query.project(document);
            budget.spend_bytes(id.len() + document.size());
            found.push(FoundRecord::new(id, record, document));
            Ok(if budget.is_spent() { Scan::Stop } else { Scan::Next })
        };
        match (&query.id, query.since) {
            (Some(id), _) => {
                if let Some(record) = RecordRow::load(self.rows, &self.reader.collection, id)? {
                    visit(id, &record)?;
                }
            }
            (None, Some(since)) => {
                let from = self.first_since(since)?;
                match scope {
                    Some(scope) => scope.changed(from, &mut visit)?,
                    None => self.changed(from, &mut |_, id, record| visit(id, record))?,
                }
            }
            (None, None) => self.records_in(scope, None, bytes, &mut visit)?,
        }
        Ok((!budget.is_spent()).then_some(found))
    }

    /// The records that a query with conditions and an order returns; `None` if they are more bytes than
    /// these.
    fn select(
        &self,
        http: &HttpQuery,
        query: &Query,
        scope: Option<&ScopeAt<'_>>,
        bytes: usize,
    ) -> Result<Option<Vec<FoundRecord>>, StoreError> {
        let mut selection = Selection::new(query);
        if let Some(since) = http.since {
            let from = self.first_since(since)?;
            let mut visit = |id: &RecordId, record: &RecordRow| {
                if let Some(document) = self.candidate(http, record)
                    && let Some(key) = query.key_if_found(id, document)
                {
                    selection.keep(key, document, || self.found(id, record));
                }
                Ok(if selection.bytes() > bytes { Scan::Stop } else { Scan::Next })
            };
            match scope {
                Some(scope) => scope.changed(from, &mut visit)?,
                None => self.changed(from, &mut |_, id, record| visit(id, record))?,
            }
        } else if scope.is_some() || !self.select_by_index(http, bytes, &mut selection)? {
            let first = query.first_id();
            self.records_in(scope, first.as_ref(), bytes, &mut |id, record| {
                let Some(document) = self.candidate(http, record) else { return Ok(Scan::Next) };
                let scan = selection.offer(id, document, || self.found(id, record));
                Ok(if selection.bytes() > bytes { Scan::Stop } else { scan })
            })?;
        }
        Ok((selection.bytes() <= bytes).then(|| selection.finish()))
    }

    /// Carries a query out by indexes. Returns `false` if none serves it.
    fn select_by_index(
        &self,
        http: &HttpQuery,
        bytes: usize,
        selection: &mut Selection<'_, FoundRecord>,
    ) -> Result<bool, StoreError> {
        let (collection, query) = (&self.reader.collection, selection.query());
        let indexes = DeclaredIndexes::of(self.rows, collection, Some(&self.head))?;
        let indexes = indexes.unwrap_or_default();
        let Some(branches) = indexes.branches(collection, query) else { return Ok(false) };
        let branches: Vec<_> = branches
            .iter()
            .map(|(prefix, index, branch)| (IndexRows { rows: self.rows, prefix, index }, branch))
            .collect();
        let load = |id: &RecordId| {
            let record = RecordRow::load(self.rows, collection, id)?;
            let record = record.filter(|record| self.candidate(http, record).is_some());
            Ok(record.and_then(|record| self.found(id, &record)).map(Record::from))
        };
        query::walk(query, &branches, &load, &mut |key, record| {
            let document = record.document.clone();
            selection.keep(key, &document, || Some(FoundRecord::from(record)));
            if selection.bytes() > bytes { Scan::Stop } else { Scan::Next }
        })?;
        Ok(true)
    }

    /// The document of a record, if it has one that meets the conditions beside the query.
    fn candidate<'r>(&self, http: &HttpQuery, record: &'r RecordRow) -> Option<&'r Document> {
        record.document.as_ref().filter(|document| http.matches(document))
    }

    /// A record with all its fields, if the reader may see it.
    fn found(&self, id: &RecordId, record: &RecordRow) -> Option<FoundRecord> {
        let document = record.document.as_ref().filter(|_| self.shows(id, record))?;
        Some(FoundRecord::new(id, record, document.clone()))
    }

    /// Visits the records behind an id, or those of a scope, in the order of their ids. It keeps no more
    /// than these bytes of a scope's ids.
    pub(super) fn records_in(
        &self,
        scope: Option<&ScopeAt<'_>>,
        after: Option<&RecordId>,
        bytes: usize,
        visit: &mut dyn FnMut(&RecordId, &RecordRow) -> Result<Scan, StoreError>,
    ) -> Result<(), StoreError> {
        let Some(scope) = scope else { return self.records(after, visit) };
        let Some(ids) = scope.ids(after, bytes)? else {
            // a scope as large as that is most of its collection
            return self.records(after, &mut |id, record| {
                if scope.has(record) { visit(id, record) } else { Ok(Scan::Next) }
            });
        };
        for id in ids {
            if scope.visit(&id, visit)? == Scan::Stop {
                break;
            }
        }
        Ok(())
    }

    /// The first seq whose record was last changed at or after this time. The server's times ascend
    /// with the seqs, so a binary search finds it.
    fn first_since(&self, since: Timestamp) -> Result<Seq, StoreError> {
        let (mut low, mut high) = (1, self.head.seq.0.saturating_add(1));
        while low < high {
            let middle = low + (high - low) / 2;
            let mut late = true;
            self.changed(Seq(middle), &mut |_, _, record| {
                late = record.committed_at >= since;
                Ok(Scan::Stop)
            })?;
            if late {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok(Seq(low))
    }
}

impl FoundRecord {
    fn new(id: &RecordId, record: &RecordRow, document: Document) -> Self {
        let (id, updated_at) = (id.clone(), record.committed_at);
        Self { id, document, updated_at, version: record.last.version }
    }
}

/// A query reads records of both ends as an app sees them.
impl From<FoundRecord> for Record {
    fn from(FoundRecord { id, document, updated_at, version }: FoundRecord) -> Self {
        Self { id, document, version, updated_at, pending: false }
    }
}

impl From<Record> for FoundRecord {
    fn from(Record { id, document, version, updated_at, .. }: Record) -> Self {
        Self { id, document, updated_at, version }
    }
}

impl HttpQuery {
    fn matches(&self, document: &Document) -> bool {
        self.conditions.iter().all(|(field, wanted)| {
            document.text(field).is_some_and(|text| text == wanted || text == json_string(wanted))
        })
    }

    /// The fields of a document that are asked for.
    pub(crate) fn project(&self, document: &Document) -> Document {
        if self.fields.is_empty() && self.exclude_fields.is_empty() {
            return document.clone();
        }
        let wanted = |name: &str| self.fields.is_empty() || self.fields.contains(name);
        let fields: Vec<_> = document
            .iter()
            .filter(|(name, _)| wanted(name) && !self.exclude_fields.contains(*name))
            .collect();
        Document::of_sorted(&fields)
    }
}
