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
use crate::rules::query::{Query, Selection};
use crate::rules::record::RecordRow;
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

    /// The records that a query with conditions and an order returns.
    fn select(
        &self,
        http: &HttpQuery,
        query: &Query,
        scope: Option<&ScopeAt<'_>>,
        bytes: usize,
    ) -> Result<Option<Vec<FoundRecord>>, StoreError> {
        let mut selection = Selection::new(query);
        let first = query.first_id();
        self.records_in(scope, first.as_ref(), bytes, &mut |id, record| {
            let Some(document) = &record.document else { return Ok(Scan::Next) };
            let is_late = http.since.is_none_or(|since| record.committed_at >= since);
            if !is_late || !http.matches(document) {
                return Ok(Scan::Next);
            }
            let scan = selection.offer(id, document, || {
                let shows = self.shows(id, record);
                shows.then(|| FoundRecord::new(id, record, document.clone()))
            });
            Ok(if selection.bytes() > bytes { Scan::Stop } else { scan })
        })?;
        Ok((selection.bytes() <= bytes).then(|| selection.finish()))
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
