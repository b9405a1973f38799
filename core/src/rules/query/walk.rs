//! The way through an index: the records that a query finds there.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::definition::Query;
use super::index::{Index, MAX_KEY, Plan, Way};
use super::value::successor;
use crate::protocol::name::RecordId;
use crate::rules::view::Record;
use crate::store::{Rows, Scan, StoreError};

/// The minimal and the maximal number of an index's rows that are read at a time.
const ROWS: (usize, usize) = (16, 256);

/// The rows of an index in a store. Each has the encoded fields of a record and its id in its key, and
/// the length of these fields as its value.
#[derive(Clone, Copy)]
pub(crate) struct IndexRows<'a> {
    pub(crate) rows: &'a dyn Rows,
    /// The bytes with which the keys of all rows begin.
    pub(crate) prefix: &'a [u8],
    pub(crate) index: &'a Index,
}

/// Reads a record of the store as of the same commit.
pub(super) type Load<'a> = dyn Fn(&RecordId) -> Result<Option<Record>, StoreError> + 'a;
/// Takes a record and its place in the query's order.
pub(super) type Visit<'a> = dyn FnMut(Vec<u8>, Record) -> Scan + 'a;

/// A query that is carried out by an index.
pub(super) struct Walk<'a> {
    index: IndexRows<'a>,
    plan: &'a Plan,
    query: &'a Query,
    load: &'a Load<'a>,
    /// The number of records that were read.
    read: usize,
}

struct Entry {
    key: Vec<u8>,
    id_at: usize,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        index: IndexRows<'a>,
        plan: &'a Plan,
        query: &'a Query,
        load: &'a Load<'a>,
    ) -> Self {
        Self { index, plan, query, load, read: 0 }
    }

    /// Shows the records that the query finds, until `visit` ends it: in the query's order, if the plan
    /// has a way for that.
    pub(super) fn each(&mut self, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let whole = |key: &[u8]| [self.index.prefix, key].concat();
        let (from, to) = (whole(&self.plan.from), whole(&self.plan.to));
        match self.plan.way {
            Some(Way::Backward) => self.backward(&from, to, visit),
            Some(Way::Forward) | None => self.forward(from, &to, visit).map(|_| ()),
        }
    }

    /// The number of records that were read.
    fn read(&self) -> usize {
        self.read
    }

    fn forward(
        &mut self,
        mut from: Vec<u8>,
        to: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<Scan, StoreError> {
        let rows = self.query.limit.unwrap_or(usize::MAX).clamp(ROWS.0, ROWS.1);
        loop {
            let entries = self.entries(&from, to, rows)?;
            let is_last = entries.len() < rows;
            let mut cut = None;
            for entry in &entries {
                if self.plan.way.is_some() && self.is_cut(entry) {
                    cut = Some(entry);
                    break;
                }
                if let Some((key, record)) = self.found(entry)?
                    && visit(key, record) == Scan::Stop
                {
                    return Ok(Scan::Stop);
                }
            }
            match (cut, entries.last()) {
                (Some(entry), _) => {
                    let fields = &entry.key[..entry.id_at];
                    if self.sorted(fields, visit)? == Scan::Stop {
                        return Ok(Scan::Stop);
                    }
                    from = successor(fields.to_vec());
                }
                (None, Some(last)) if !is_last => {
                    from.clone_from(&last.key);
                    from.push(0);
                }
                (None, _) => return Ok(Scan::Next),
            }
        }
    }

    /// The groups of records with equal fields, the last one first; in each the ids ascend.
    fn backward(
        &mut self,
        from: &[u8],
        mut to: Vec<u8>,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        while let Some((key, value)) = self.index.rows.last(from, &to)? {
            let entry = self.entry(&key, &value)?;
            let fields = &entry.key[..entry.id_at];
            let scan = if self.is_cut(&entry) {
                self.sorted(fields, visit)?
            } else {
                self.forward(fields.to_vec(), &successor(fields.to_vec()), visit)?
            };
            if scan == Scan::Stop {
                return Ok(());
            }
            to.clear();
            to.extend_from_slice(fields);
        }
        Ok(())
    }

    /// The records whose fields were cut to the same ones, by their values.
    fn sorted(&mut self, fields: &[u8], visit: &mut Visit<'_>) -> Result<Scan, StoreError> {
        let mut found = Vec::new();
        for entry in self.entries(fields, &successor(fields.to_vec()), usize::MAX)? {
            found.extend(self.found(&entry)?);
        }
        found.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        for (key, record) in found {
            if visit(key, record) == Scan::Stop {
                return Ok(Scan::Stop);
            }
        }
        Ok(Scan::Next)
    }

    /// The record of an entry and its place, if the query finds it. An entry of other fields than the
    /// record has says nothing.
    fn found(&mut self, entry: &Entry) -> Result<Option<(Vec<u8>, Record)>, StoreError> {
        let id = core::str::from_utf8(&entry.key[entry.id_at..]).ok();
        let id = id.and_then(|id| RecordId::new(id).ok()).ok_or_else(damaged)?;
        let Some(record) = (self.load)(&id)? else { return Ok(None) };
        self.read += 1;
        if *self.fields(entry) != *self.index.index.key(&record.document) {
            return Ok(None);
        }
        Ok(self.query.key_if_found(&id, &record.document).map(|key| (key, record)))
    }

    fn fields<'e>(&self, entry: &'e Entry) -> &'e [u8] {
        &entry.key[self.index.prefix.len()..entry.id_at]
    }

    fn is_cut(&self, entry: &Entry) -> bool {
        self.fields(entry).len() == MAX_KEY
    }

    /// A scan is over before its records are read: not every store lends two reads at a time.
    fn entries(&self, from: &[u8], to: &[u8], most: usize) -> Result<Vec<Entry>, StoreError> {
        let mut entries = Vec::new();
        self.index.rows.scan(from, to, &mut |key, value| {
            entries.push(self.entry(key, &value)?);
            Ok(if entries.len() == most { Scan::Stop } else { Scan::Next })
        })?;
        Ok(entries)
    }

    fn entry(&self, key: &[u8], value: &[u8]) -> Result<Entry, StoreError> {
        let len = value.try_into().map_err(|_| damaged())?;
        let id_at = self.index.prefix.len() + usize::from(u16::from_be_bytes(len));
        if id_at < key.len() { Ok(Entry { key: key.into(), id_at }) } else { Err(damaged()) }
    }
}

fn damaged() -> StoreError {
    StoreError::damaged("a row of an index names no record")
}

/// The way in which a query was carried out.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Explanation {
    /// The fields of the index that was used; `None` where all records were read.
    pub index: Option<String>,
    /// The number of its fields, from the first one on, that had to equal a value.
    pub equal: usize,
    /// `true` if the next field had to lie in a range.
    pub range: bool,
    /// `true` if the records were read in the query's order, so that a limit ended the reading.
    pub ordered: bool,
    /// The number of records that were read.
    pub read: usize,
    /// The number of records that the query returns.
    pub returned: usize,
    /// The number of parts in which it was carried out by indexes: one for each alternative of an `or` or
    /// of a list of values, or only one.
    pub parts: usize,
}

impl Explanation {
    /// A query of which this is one more part, carried out by an index.
    pub(super) fn add(&mut self, walk: &Walk<'_>) {
        let Plan { equal, range, way, .. } = *walk.plan;
        let is_first = self.parts == 0;
        self.parts += 1;
        self.equal = if is_first { equal } else { self.equal.min(equal) };
        self.range |= range;
        self.ordered = way.is_some() && (is_first || self.ordered);
        self.read += walk.read();
        self.index.get_or_insert_with(|| alloc::format!("{}", walk.index.index));
    }
}

/// One line for people.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, equal, range, ordered, read, returned, parts } = self;
        match index {
            None => f.write_str("every record of the collection")?,
            Some(index) => write!(f, "the index {index}")?,
        }
        if *equal > 0 {
            write!(f, ", {equal} of its fields equal to values")?;
        }
        if *range {
            f.write_str(", one in a range")?;
        }
        if *ordered {
            f.write_str(", in its order")?;
        }
        if *parts > 1 {
            write!(f, ", in {parts} parts")?;
        }
        write!(f, ": {read} records read, {returned} returned")
    }
}
