//! Indexes: the fields of records as bytes that are in the order of their values, and the choice of the
//! index that a query is carried out by.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Bound;
use core::str::FromStr;

use super::definition::{Direction, Query, QueryCursor, parse_order, put_directed};
use super::error::QueryError;
use super::path::FieldPath;
use super::predicate::Test;
use super::value::{self, successor};
use crate::protocol::document::Document;
use crate::protocol::name::RecordId;

/// The maximal number of fields of an index.
const MAX_FIELDS: usize = 8;
/// The maximal length of an index's text, in bytes.
const MAX_TEXT: usize = 512;

/// The length at which an index cuts the encoded fields of a record, in bytes, so that they fit into the
/// key of a row with the record's id behind them.
///
/// Where fields were cut, records may be equal in the index and not in their values. So every record that
/// an index finds is compared with the query, and those that are equal in what was left of them are sorted
/// by their values before they count as in order.
pub(crate) const MAX_KEY: usize = 512;

/// An index of a collection: the fields by which it finds and sorts records, the first one first.
///
/// Its text is that of an order: fields with commas between them, in which `-` before a field puts its
/// largest value first.
///
/// ```
/// use synclayer_core::{Index, QueryError};
///
/// let index: Index = "done, -priority, owner.name".parse()?;
/// assert_eq!(index.to_string(), "done,-priority,owner.name");
/// assert!("done,,priority".parse::<Index>().is_err());
/// # Ok::<(), QueryError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Index {
    fields: Vec<(FieldPath, Direction)>,
}

impl Index {
    /// The fields of a document, as an index keeps them: at most [`MAX_KEY`] bytes.
    pub(crate) fn key(&self, document: &Document) -> Vec<u8> {
        let mut key = Vec::new();
        for (path, direction) in &self.fields {
            put_directed(*direction, &mut key, |key| value::put(path.find(document), key));
        }
        key.truncate(MAX_KEY);
        key
    }

    /// The row, with this beginning of its key, that says that an index has a record: its fields and its
    /// id, and the length of the fields.
    pub(crate) fn entry(
        &self,
        mut key: Vec<u8>,
        id: &RecordId,
        document: &Document,
    ) -> (Vec<u8>, Vec<u8>) {
        let fields = self.key(document);
        key.extend_from_slice(&fields);
        key.extend_from_slice(id.as_bytes());
        // they are cut at less
        let len = fields.len() as u16;
        (key, len.to_be_bytes().to_vec())
    }
}

impl FromStr for Index {
    type Err = QueryError;

    fn from_str(text: &str) -> Result<Self, QueryError> {
        let wrong = |problem| {
            Err(QueryError::new(format!("{text:?} can't be the fields of an index: {problem}")))
        };
        if text.len() > MAX_TEXT {
            return wrong(format!("they have more than {MAX_TEXT} bytes"));
        }
        let fields = parse_order(text)?;
        if fields.len() > MAX_FIELDS {
            return wrong(format!("there are {}, at most {MAX_FIELDS} are allowed", fields.len()));
        }
        let is_double = |(at, (path, _)): (usize, &(FieldPath, Direction))| {
            fields.iter().take(at).any(|(other, _)| other == path)
        };
        if fields.iter().enumerate().any(is_double) {
            return wrong(String::from("one is there twice"));
        }
        Ok(Self { fields })
    }
}

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (path, direction)) in self.fields.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let minus = if *direction == Direction::Descending { "-" } else { "" };
            write!(f, "{comma}{minus}{path}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The way through an index on which records come in the order of the query.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    Forward,
    /// From the last fields to the first; records that are equal in them by their ids, as ever.
    Backward,
}

/// The part of an index that a query is carried out by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Plan {
    /// The number of the index's fields, from the first one on, that have to equal a value.
    pub(super) equal: usize,
    /// `true` if the next field has to lie in a range.
    pub(super) range: bool,
    /// The way in which records come in the query's order, if there is one.
    pub(super) way: Option<Way>,
    /// All that the query returns is at or behind this in the index,
    pub(super) from: Vec<u8>,
    /// and before this.
    pub(super) to: Vec<u8>,
}

impl Plan {
    /// The way to carry a query out by one of these indexes, with its place among them: the longest
    /// prefix of fields that equal a value, then a range of the next one, then the order. `None` if it is
    /// better to read all records.
    pub(crate) fn choose<'i>(
        query: &Query,
        indexes: impl Iterator<Item = &'i Index>,
    ) -> Option<(usize, Self)> {
        let tests = query.predicate.conjuncts();
        let plans = indexes.map(|index| Self::of(query, &tests, index)).enumerate();
        let useful = plans.filter(|(_, plan)| plan.rank(query) > (0, false, false));
        useful.reduce(|best, plan| {
            let is_better = plan.1.rank(query) > best.1.rank(query);
            if is_better { plan } else { best }
        })
    }

    /// Returns `true` if records come in the query's order.
    pub(crate) fn is_ordered(&self) -> bool {
        self.way.is_some()
    }

    /// Returns `true` if it leaves out records that the query does not find.
    pub(super) fn finds(&self) -> bool {
        self.equal > 0 || self.range
    }

    /// To be sorted is worth something only where few of the records are wanted.
    pub(super) fn rank(&self, query: &Query) -> (usize, bool, bool) {
        (self.equal, self.range, self.way.is_some() && query.limit.is_some())
    }

    fn of(query: &Query, tests: &[(&FieldPath, &Test)], index: &Index) -> Self {
        let fixed = |path: &FieldPath| {
            tests.iter().filter(|(of, _)| *of == path).find_map(|(_, test)| test.only_value())
        };
        let mut from = Vec::new();
        let mut equal = 0;
        for (path, direction) in &index.fields {
            let Some(value) = fixed(path) else { break };
            put_directed(*direction, &mut from, |key| key.extend_from_slice(value));
            equal += 1;
        }
        let prefix = from.clone();
        let mut to = successor(from.clone());
        let rest = &index.fields[equal..];
        let ranges = rest.first().and_then(|(path, direction)| {
            let of_it = tests.iter().filter(|(of, _)| *of == path);
            let range = of_it
                .filter_map(|(_, test)| test.range())
                .reduce(|one, other| (one.0.max(other.0), one.1.min(other.1)))?;
            Some(match direction {
                Direction::Ascending => range,
                Direction::Descending => turned(range),
            })
        });
        let range = ranges.is_some();
        if let Some((low, high)) = ranges {
            from.extend_from_slice(&low);
            to = prefix.clone();
            to.extend_from_slice(&high);
        }
        let way = way(query, rest, &fixed);
        let mut plan = Self { equal, range, way, from: cut(from), to: cut_end(to) };
        let (same, order) = same_in_all(query, &fixed);
        let is_same = |((one, _), (other, _)): (&(FieldPath, _), &(FieldPath, _))| one == other;
        let goes_first = order.len() <= rest.len() && order.iter().zip(rest).all(is_same);
        if let (Some(way), true) = (way, goes_first) {
            let with_ids = order.len() == rest.len();
            plan.keep_between_cursors(query, way, with_ids, &prefix, &same);
        }
        plan
    }

    /// Leaves out what lies before the query's start and behind its end. Behind `same`, with which the
    /// places of all records that are found begin, its order is that of the fields behind the prefix, and
    /// of the ids at once behind these if they say so.
    fn keep_between_cursors(
        &mut self,
        query: &Query,
        way: Way,
        with_ids: bool,
        prefix: &[u8],
        same: &[u8],
    ) {
        let place = |bound: &Bound<QueryCursor>| match bound {
            Bound::Unbounded => None,
            Bound::Included(cursor) | Bound::Excluded(cursor) => {
                let (fields, id) = cursor.key.split_at(cursor.id_at);
                let fields = fields.strip_prefix(same)?;
                let mut place = prefix.to_vec();
                match way {
                    Way::Forward => {
                        place.extend_from_slice(fields);
                        place.extend_from_slice(if with_ids { id } else { &[] });
                    }
                    Way::Backward => put_directed(Direction::Descending, &mut place, |place| {
                        place.extend_from_slice(fields);
                    }),
                }
                Some(place)
            }
        };
        let (first, last) = match way {
            Way::Forward => (place(&query.start), place(&query.end)),
            Way::Backward => (place(&query.end), place(&query.start)),
        };
        if let Some(first) = first {
            self.from = cut(first).max(core::mem::take(&mut self.from));
        }
        if let Some(last) = last {
            self.to = successor(cut(last)).min(core::mem::take(&mut self.to));
        }
    }
}

/// The first fields of a query's order that equal a value, as they stand in the places of all records that
/// are found, and the fields behind them.
fn same_in_all<'q, 't>(
    query: &'q Query,
    fixed: &impl Fn(&FieldPath) -> Option<&'t [u8]>,
) -> (Vec<u8>, &'q [(FieldPath, Direction)]) {
    let (mut same, mut order) = (Vec::new(), &query.order[..]);
    while let Some(((path, direction), rest)) = order.split_first() {
        let Some(value) = fixed(path) else { break };
        put_directed(*direction, &mut same, |same| same.extend_from_slice(value));
        order = rest;
    }
    (same, order)
}

/// The way in which the fields of an index that follow the equal ones give the query's order. Fields
/// that equal a value do not count: they are the same in all records that are found.
fn way<'t>(
    query: &Query,
    rest: &[(FieldPath, Direction)],
    fixed: &impl Fn(&FieldPath) -> Option<&'t [u8]>,
) -> Option<Way> {
    let wanted: Vec<_> = query.order.iter().filter(|(path, _)| fixed(path).is_none()).collect();
    let given: Vec<_> = rest.iter().filter(|(path, _)| fixed(path).is_none()).collect();
    let reversed = |direction: Direction| match direction {
        Direction::Ascending => Direction::Descending,
        Direction::Descending => Direction::Ascending,
    };
    let is_reverse = |(one, other): (&&(FieldPath, Direction), &&(FieldPath, Direction))| {
        one.0 == other.0 && one.1 == reversed(other.1)
    };
    if wanted == given {
        Some(Way::Forward)
    } else if wanted.len() == given.len() && wanted.iter().zip(&given).all(is_reverse) {
        Some(Way::Backward)
    } else {
        None
    }
}

/// The range of the complements of what lies in a range.
fn turned((from, to): (Vec<u8>, Vec<u8>)) -> (Vec<u8>, Vec<u8>) {
    let turn = |mut bytes: Vec<u8>| {
        value::complement(&mut bytes);
        successor(bytes)
    };
    (turn(to), turn(from))
}

/// The beginning of a range, as cut keys have it.
fn cut(mut from: Vec<u8>) -> Vec<u8> {
    from.truncate(MAX_KEY);
    from
}

/// The end of a range, as cut keys have it.
fn cut_end(to: Vec<u8>) -> Vec<u8> {
    if to.len() > MAX_KEY { successor(cut(to)) } else { to }
}
