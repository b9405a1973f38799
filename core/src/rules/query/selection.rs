//! A query at work: takes records one by one, and keeps those that it returns.

use alloc::collections::BinaryHeap;
use alloc::vec::Vec;
use core::cmp::Ordering;

use super::definition::Query;
use crate::protocol::document::Document;
use crate::protocol::name::RecordId;
use crate::store::Scan;

/// The records that a query has found so far. With a limit it keeps no more than offset and limit
/// together, however many are offered.
pub(crate) struct Selection<'q, T> {
    query: &'q Query,
    /// The largest key on top.
    found: BinaryHeap<Found<T>>,
    kept: usize,
    /// The size of the keys and documents that were found, and are kept.
    bytes: usize,
}

struct Found<T> {
    key: Vec<u8>,
    bytes: usize,
    item: T,
}

impl<'q, T> Selection<'q, T> {
    pub(crate) fn new(query: &'q Query) -> Self {
        let kept = query.limit.map_or(usize::MAX, |limit| limit.saturating_add(query.offset));
        Self { query, found: BinaryHeap::new(), kept, bytes: 0 }
    }

    /// Takes in a record, unless `item` makes nothing of it. They have to come in the order of their
    /// ids. Returns [`Scan::Stop`] if no later one can be among the result.
    pub(crate) fn offer(
        &mut self,
        id: &RecordId,
        document: &Document,
        item: impl FnOnce() -> Option<T>,
    ) -> Scan {
        if self.is_full() && self.query.order.is_empty() {
            return Scan::Stop;
        }
        if let Some(key) = self.query.key_if_found(id, document) {
            self.keep(key, document, item);
        }
        Scan::Next
    }

    /// Takes in a record that the query finds at this place, unless `item` makes nothing of it.
    pub(crate) fn keep(
        &mut self,
        key: Vec<u8>,
        document: &Document,
        item: impl FnOnce() -> Option<T>,
    ) {
        let is_full = self.is_full();
        if is_full && self.found.peek().is_none_or(|largest| key > largest.key) {
            return;
        }
        let Some(item) = item() else { return };
        if is_full && let Some(largest) = self.found.pop() {
            self.bytes -= largest.bytes;
        }
        let bytes = key.len() + document.size();
        self.bytes += bytes;
        self.found.push(Found { key, bytes, item });
    }

    /// The query.
    pub(crate) fn query(&self) -> &'q Query {
        self.query
    }

    /// Returns `true` if it has as many records as the query can return, those of its offset included.
    pub(crate) fn is_full(&self) -> bool {
        self.found.len() >= self.kept
    }

    /// The size of what is kept, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The result, in the query's order.
    pub(crate) fn finish(self) -> Vec<T> {
        let found = self.found.into_sorted_vec();
        found.into_iter().skip(self.query.offset).map(|found| found.item).collect()
    }
}

impl<T> PartialEq for Found<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl<T> Eq for Found<T> {}

impl<T> PartialOrd for Found<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Found<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key)
    }
}
