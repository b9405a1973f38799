//! The query itself: its parts, its order, and the places in it.

use alloc::format;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Bound;

use xxhash_rust::xxh3::xxh3_64;

use super::error::QueryError;
use super::path::FieldPath;
use super::predicate::Predicate;
use super::value;
use crate::protocol::document::Document;
use crate::protocol::name::RecordId;

/// The maximal number of fields that records are sorted by.
const MAX_ORDER: usize = 32;

/// A direction of sorting.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Direction {
    /// The smallest value first.
    #[default]
    Ascending,
    /// The largest value first.
    Descending,
}

/// A question to a collection: the condition, the order, and the part of the result that is wanted.
/// The default returns every record, in the order of the ids.
///
/// ```
/// use core::ops::Bound;
/// use synclayer_core::{Direction, Predicate, Query, QueryError};
///
/// let mut query = Query::default();
/// query.predicate = Predicate::parse(r#"{"field": "done", "isEqualTo": false}"#)?;
/// query.order = vec![("priority".parse()?, Direction::Descending)];
/// query.limit = Some(10);
/// # Ok::<(), QueryError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Query {
    /// The condition that records have to meet.
    pub predicate: Predicate,
    /// The fields to sort by, the most important one first; at most 32. A record without a field
    /// comes before those with it. Records that are equal in all of them are sorted by their ids,
    /// ascending.
    pub order: Vec<(FieldPath, Direction)>,
    /// The maximal number of records to return; `None` for all.
    pub limit: Option<usize>,
    /// The number of records to leave out at the beginning.
    pub offset: usize,
    /// The place in the order at which the result begins.
    pub start: Bound<QueryCursor>,
    /// The place in the order at which the result ends.
    pub end: Bound<QueryCursor>,
}

/// A place in a query's order: that of a record, whatever has become of the record since.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueryCursor {
    pub(super) order: Vec<(FieldPath, Direction)>,
    pub(super) key: Vec<u8>,
    /// The length of the key without the record's id.
    pub(super) id_at: usize,
}

impl Default for Query {
    fn default() -> Self {
        Self {
            predicate: Predicate::default(),
            order: Vec::new(),
            limit: None,
            offset: 0,
            start: Bound::Unbounded,
            end: Bound::Unbounded,
        }
    }
}

impl Query {
    /// The place of a record in this query's order.
    #[must_use]
    pub fn cursor(&self, id: &RecordId, document: &Document) -> QueryCursor {
        self.cursor_at(self.key(id, document), id.len())
    }

    /// The place of a key that ends with an id of this length.
    pub(super) fn cursor_at(&self, key: Vec<u8>, id_len: usize) -> QueryCursor {
        QueryCursor { order: self.order.clone(), id_at: key.len() - id_len, key }
    }

    /// Checks that the query can be carried out.
    ///
    /// # Errors
    /// When it sorts by too many fields, or a cursor is of another order.
    pub fn check(&self) -> Result<(), QueryError> {
        if self.order.len() > MAX_ORDER {
            let count = self.order.len();
            let problem =
                format!("the query sorts by {count} fields, at most {MAX_ORDER} are allowed");
            return Err(QueryError::new(problem));
        }
        for bound in [&self.start, &self.end] {
            if let Bound::Included(cursor) | Bound::Excluded(cursor) = bound
                && cursor.order != self.order
            {
                let problem = "the cursor is of a query with another order; make one of this query";
                return Err(QueryError::new(problem));
            }
        }
        Ok(())
    }

    /// Reads a cursor of this query's order from its text.
    pub(crate) fn parse_cursor(&self, text: &str) -> Result<QueryCursor, QueryError> {
        let wrong = |problem| Err(QueryError::new(format!("{text:?} is no cursor: {problem}")));
        let digits: Option<Vec<u8>> =
            text.chars().map(|digit| digit.to_digit(16).map(|digit| digit as u8)).collect();
        let Some((pairs, [])) = digits.as_deref().map(|digits| digits.as_chunks::<2>()) else {
            return wrong("it has to be the `next` of an answer");
        };
        let bytes: Vec<u8> = pairs.iter().map(|[high, low]| high << 4 | low).collect();
        let Some(([hash @ .., id_len], key)) = bytes.split_first_chunk::<5>() else {
            return wrong("it is too short");
        };
        let id_len = usize::from(*id_len) + 1;
        if *hash != order_hash(&self.order) {
            return wrong("it is of a query with another order");
        }
        if id_len > key.len() {
            return wrong("it is too short");
        }
        Ok(self.cursor_at(key.into(), id_len))
    }

    /// The id behind which the result begins, if that is known without reading.
    pub(crate) fn first_id(&self) -> Option<RecordId> {
        match &self.start {
            Bound::Excluded(cursor) if self.order.is_empty() => {
                RecordId::new(core::str::from_utf8(&cursor.key).ok()?).ok()
            }
            Bound::Excluded(_) | Bound::Included(_) | Bound::Unbounded => None,
        }
    }

    /// The place of a record in the order, as bytes.
    fn key(&self, id: &RecordId, document: &Document) -> Vec<u8> {
        let mut key = Vec::new();
        for (path, direction) in &self.order {
            put_directed(*direction, &mut key, |key| value::put(path.find(document), key));
        }
        key.extend_from_slice(id.as_bytes());
        key
    }

    /// Returns `true` if a record meets the condition and lies between the bounds.
    pub(crate) fn finds(&self, id: &RecordId, document: &Document) -> bool {
        match (&self.start, &self.end) {
            (Bound::Unbounded, Bound::Unbounded) => self.predicate.matches(document),
            _ => self.key_if_found(id, document).is_some(),
        }
    }

    /// The place of a record, if it meets the condition and lies between the bounds.
    pub(crate) fn key_if_found(&self, id: &RecordId, document: &Document) -> Option<Vec<u8>> {
        if !self.predicate.matches(document) {
            return None;
        }
        let key = self.key(id, document);
        let begun = match &self.start {
            Bound::Unbounded => true,
            Bound::Included(start) => key >= start.key,
            Bound::Excluded(start) => key > start.key,
        };
        let ended = match &self.end {
            Bound::Unbounded => false,
            Bound::Included(end) => key > end.key,
            Bound::Excluded(end) => key >= end.key,
        };
        (begun && !ended).then_some(key)
    }
}

/// A text that a later query takes as its cursor.
impl fmt::Display for QueryCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hash = order_hash(&self.order);
        // ids have 1 to 256 bytes
        let id_len = (self.key.len() - self.id_at).wrapping_sub(1) as u8;
        hash.iter().chain([&id_len]).chain(&self.key).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Appends encodings, turned round where the direction is descending.
pub(super) fn put_directed(
    direction: Direction,
    out: &mut Vec<u8>,
    put: impl FnOnce(&mut Vec<u8>),
) {
    let start = out.len();
    put(out);
    if direction == Direction::Descending {
        value::complement(&mut out[start..]);
    }
}

/// Tells the orders of cursors apart.
fn order_hash(order: &[(FieldPath, Direction)]) -> [u8; 4] {
    let hash = xxh3_64(format!("{order:?}").as_bytes());
    (hash as u32).to_be_bytes()
}

/// Reads an order: fields with commas between them, in which `-` before a field puts its largest value
/// first.
pub(crate) fn parse_order(text: &str) -> Result<Vec<(FieldPath, Direction)>, QueryError> {
    let (mut quoted, mut escaped) = (false, false);
    let fields = text.split(|letter| {
        quoted ^= letter == '"' && !escaped;
        escaped = letter == '\\' && !escaped;
        letter == ',' && !quoted
    });
    fields
        .map(str::trim)
        .map(|field| match field.strip_prefix('-') {
            Some(field) => Ok((field.parse()?, Direction::Descending)),
            None => Ok((field.parse()?, Direction::Ascending)),
        })
        .collect()
}
