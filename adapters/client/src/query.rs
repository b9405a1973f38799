//! Queries as both faces build them: conditions, their combinations, and the calls.

use std::ops::Bound;

use serde::Serialize;
use synclayer_core::{
    Delta, Document, Explanation, FieldPath, Misuse, NamedScope, Predicate, Query, QueryError,
    RecordId,
};
// the macro names them
pub use synclayer_core::{Direction, Record};

use crate::collection::{CollectionHandle, WatchHandle};
use crate::error::SyncError;
use crate::listen::QuerySlot;
use crate::pending::Pending;
use crate::saved::Saved;

/// The number of writes that are made before the first of them is waited for.
const AT_ONCE: usize = 256;

/// A condition on a field, to be named by `where_` or [`field`].
#[derive(Clone, Debug)]
#[must_use = "a condition does nothing by itself"]
pub struct Condition {
    operator: &'static str,
    /// The value, or the reason why it is none.
    json: Result<String, String>,
}

impl Condition {
    fn new<T: Serialize + ?Sized>(operator: &'static str, value: &T) -> Self {
        Self { operator, json: serde_json::to_string(value).map_err(|error| error.to_string()) }
    }
}

/// Defines the functions that make conditions.
macro_rules! conditions {
    ($($(#[$doc:meta])* $name:ident = $operator:literal;)+) => {
        $($(#[$doc])*
        pub fn $name<T: Serialize>(value: T) -> Condition {
            Condition::new($operator, &value)
        })+
    };
}

conditions! {
    /// Met by a field that equals the value. Numbers are equal exactly: `1` is `1.0`, and
    /// 9,007,199,254,740,993 is not 9,007,199,254,740,992.
    is_equal_to = "isEqualTo";
    /// Met where [`is_equal_to`] is not, also where the field is missing.
    is_not_equal_to = "isNotEqualTo";
    /// Met by a field that is of the value's kind and below it.
    is_less_than = "isLessThan";
    /// Met by a field that is of the value's kind and not above it.
    is_less_than_or_equal_to = "isLessThanOrEqualTo";
    /// Met by a field that is of the value's kind and above it.
    is_greater_than = "isGreaterThan";
    /// Met by a field that is of the value's kind and not below it.
    is_greater_than_or_equal_to = "isGreaterThanOrEqualTo";
    /// Met by a text that begins with this one.
    starts_with = "startsWith";
    /// Met by a text that ends with this one.
    ends_with = "endsWith";
    /// Met by a text that this one is in.
    contains = "contains";
    /// Met by an array that has this element.
    array_contains = "arrayContains";
    /// Met by an array that has one of these elements.
    array_contains_any = "arrayContainsAny";
    /// Met by a field that equals one of these values.
    where_in = "whereIn";
    /// Met where [`where_in`] is not, also where the field is missing.
    where_not_in = "whereNotIn";
}

/// Met by a field that is null. A missing field is not null: see [`exists`].
pub fn is_null() -> Condition {
    Condition::new("isNull", &true)
}

/// Met where [`is_null`] is not, also where the field is missing.
pub fn is_not_null() -> Condition {
    Condition::new("isNotNull", &true)
}

/// Met by a field that exists, null included.
pub fn exists() -> Condition {
    Condition::new("exists", &true)
}

/// Met where the field is missing.
pub fn does_not_exist() -> Condition {
    Condition::new("exists", &false)
}

/// A condition on records: of one field, or a combination.
///
/// ```
/// use synclayer_client::query::{any_of, field, is_equal_to, is_greater_than, not};
///
/// let filter =
///     any_of([field("priority", is_greater_than(1)), not(field("done", is_equal_to(true)))]);
/// # let _ = filter;
/// ```
#[derive(Clone, Debug)]
#[must_use = "a filter does nothing by itself"]
pub struct Filter(Result<Predicate, QueryError>);

/// The filter that takes the records whose field meets the condition. The field may lie inside
/// objects: `address.city`; a name that holds a dot is quoted: `"zip.code"`.
pub fn field(field: &str, condition: Condition) -> Filter {
    Filter(field.parse().and_then(|path: FieldPath| {
        let json = condition.json.map_err(|error| QueryError {
            message: format!("the value for {field:?} can't be written as JSON: {error}"),
        })?;
        Predicate::field(path, condition.operator, &json)
    }))
}

/// The filter that takes the records which all of these take.
pub fn all_of(filters: impl IntoIterator<Item = Filter>) -> Filter {
    Filter(predicates(filters).and_then(Predicate::all))
}

/// The filter that takes the records which one of these takes.
pub fn any_of(filters: impl IntoIterator<Item = Filter>) -> Filter {
    Filter(predicates(filters).and_then(Predicate::any))
}

/// The filter that takes the records which this one does not take.
pub fn not(filter: Filter) -> Filter {
    Filter(filter.0.and_then(Predicate::negated))
}

fn predicates(filters: impl IntoIterator<Item = Filter>) -> Result<Vec<Predicate>, QueryError> {
    filters.into_iter().map(|filter| filter.0).collect()
}

impl From<Predicate> for Filter {
    fn from(predicate: Predicate) -> Self {
        Self(Ok(predicate))
    }
}

impl From<Result<Predicate, QueryError>> for Filter {
    fn from(predicate: Result<Predicate, QueryError>) -> Self {
        Self(predicate)
    }
}

/// A query of a collection: built by and by, and then carried out. What is wrong with a part of it
/// is the error of the call that carries it out.
///
/// The faces document the calls: see [`query_methods!`](crate::query_methods).
#[derive(Clone, Debug)]
#[must_use = "a query does nothing until it is carried out"]
pub struct QueryHandle {
    collection: CollectionHandle,
    filters: Vec<Filter>,
    order: Vec<(Result<FieldPath, QueryError>, Direction)>,
    limit: Option<usize>,
    offset: usize,
    start: Bound<Record>,
    end: Bound<Record>,
    scope: Option<NamedScope>,
}

impl QueryHandle {
    /// The query of all records.
    pub fn new(collection: &CollectionHandle) -> Self {
        Self {
            collection: collection.clone(),
            filters: Vec::new(),
            order: Vec::new(),
            limit: None,
            offset: 0,
            start: Bound::Unbounded,
            end: Bound::Unbounded,
            scope: None,
        }
    }

    /// The query of all records of a scope.
    pub fn of_scope(collection: &CollectionHandle, scope: &NamedScope) -> Self {
        let query = Self::new(collection).filter(scope.condition());
        Self { scope: Some(scope.clone()), ..query }
    }

    /// Takes only the records that the filter takes, too.
    pub fn filter(mut self, filter: impl Into<Filter>) -> Self {
        self.filters.push(filter.into());
        self
    }

    /// Sorts by one more field.
    pub fn order_by(mut self, field: &str, direction: Direction) -> Self {
        self.order.push((field.parse(), direction));
        self
    }

    /// Sets the maximal number of records.
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Sets the number of records to leave out.
    pub fn offset(mut self, offset: usize) -> Self {
        self.offset = offset;
        self
    }

    /// Sets the place where the result begins.
    pub fn start(mut self, start: Bound<&Record>) -> Self {
        self.start = start.cloned();
        self
    }

    /// Sets the place where the result ends.
    pub fn end(mut self, end: Bound<&Record>) -> Self {
        self.end = end.cloned();
        self
    }

    /// Reads the records.
    pub fn get(self) -> Pending<Vec<Record>> {
        let collection = self.collection.clone();
        match self.build() {
            Ok(query) => collection.query(query),
            Err(error) => Pending::refused(error),
        }
    }

    /// Reads the first record.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn first(self) -> Result<Option<Record>, SyncError> {
        let limit = self.limit.unwrap_or(1).min(1);
        Ok(self.limit(limit).get().await?.pop())
    }

    /// Watches the result.
    ///
    /// # Errors
    /// When the query can't be carried out.
    pub fn watch(self) -> Result<WatchHandle<QuerySlot>, SyncError> {
        let collection = self.collection.clone();
        let scope = self.scope.clone();
        Ok(collection.watch_query(scope, self.build()?))
    }

    /// Counts the records.
    pub fn count(self) -> Pending<usize> {
        let collection = self.collection.clone();
        match self.build() {
            Ok(query) => collection.count(query),
            Err(error) => Pending::refused(error),
        }
    }

    /// Carries the query out, and says how.
    pub fn explain(self) -> Pending<Explanation> {
        let collection = self.collection.clone();
        match self.build() {
            Ok(query) => collection.explain(query),
            Err(error) => Pending::refused(error),
        }
    }

    /// Deletes the records, each by a write of its own.
    ///
    /// # Errors
    /// As [`get`](Self::get), and as a write.
    pub async fn delete(self) -> Result<Vec<Saved>, SyncError> {
        self.change(|_| None).await
    }

    /// Sets some fields of the records, each by a write of its own.
    ///
    /// # Errors
    /// As [`get`](Self::get), and as a write.
    pub async fn update<T: Serialize + ?Sized>(self, fields: &T) -> Result<Vec<Saved>, SyncError> {
        let delta = Delta::new(self.collection.document(fields)?, Vec::new());
        self.change(move |document| Some(delta.apply(document))).await
    }

    /// Writes what becomes of each record that still meets the condition by then.
    async fn change(
        self,
        change: impl Fn(&Document) -> Option<Document> + Clone + Send + 'static,
    ) -> Result<Vec<Saved>, SyncError> {
        let collection = self.collection.clone();
        let query = self.build()?;
        let predicate = query.predicate.clone();
        let found = collection.query(query).await?;
        let ids: Vec<RecordId> = found.into_iter().map(|record| record.id).collect();
        let mut saved = Vec::with_capacity(ids.len());
        for ids in ids.chunks(AT_ONCE) {
            let made: Vec<_> = ids
                .iter()
                .map(|id| {
                    let (predicate, change) = (predicate.clone(), change.clone());
                    collection.modify(id, move |document| {
                        let document = document?;
                        let meets = predicate.matches(document);
                        if meets { change(document) } else { Some(document.clone()) }
                    })
                })
                .collect();
            for write in made {
                saved.push(write.await?);
            }
        }
        Ok(saved)
    }

    fn build(self) -> Result<Query, SyncError> {
        self.checked().map_err(|error| SyncError::Misuse(Misuse::Query(error)))
    }

    fn checked(self) -> Result<Query, QueryError> {
        let mut query = Query::default();
        let mut predicates = predicates(self.filters)?;
        query.predicate = match predicates.len() {
            1 => predicates.remove(0),
            _ => Predicate::all(predicates)?,
        };
        let order = self.order.into_iter().map(|(path, direction)| Ok((path?, direction)));
        query.order = order.collect::<Result<_, QueryError>>()?;
        query.limit = self.limit;
        query.offset = self.offset;
        let cursor = |record: Record| query.cursor(&record.id, &record.document);
        (query.start, query.end) = (self.start.map(cursor), self.end.map(cursor));
        query.check()?;
        Ok(query)
    }
}

/// The methods of a face's query that only add to it, and how they are documented. The face's type
/// has a [`QueryHandle`] as its only field.
#[macro_export]
macro_rules! query_methods {
    () => {
        /// Takes only the records whose field meets the condition. May be called several times: a
        /// record has to meet all of them.
        ///
        /// The field may lie inside objects: `address.city`; a name that holds a dot is quoted:
        /// `"zip.code"`.
        pub fn where_(self, field: &str, condition: $crate::query::Condition) -> Self {
            self.filter($crate::query::field(field, condition))
        }

        /// Takes only the records that the filter takes: for conditions that are joined otherwise
        /// than by *and*, see [`any_of`](crate::query::any_of) and [`not`](crate::query::not).
        pub fn filter(self, filter: impl Into<$crate::query::Filter>) -> Self {
            Self(self.0.filter(filter))
        }

        /// Sorts by a field, and among records that are equal in it by the next field that is
        /// given, and at last by the id. At most 32 fields may be given.
        ///
        /// A missing field comes before null, and null before `false`, `true`, numbers, texts (by
        /// the bytes of UTF-8), arrays and objects.
        pub fn order_by(self, field: &str, direction: $crate::query::Direction) -> Self {
            Self(self.0.order_by(field, direction))
        }

        /// Takes at most this many records.
        pub fn limit(self, limit: usize) -> Self {
            Self(self.0.limit(limit))
        }

        /// Leaves out this many records at the beginning. Where others write meanwhile,
        /// [`start_after`](Self::start_after) pages without gaps and doubles.
        pub fn offset(self, offset: usize) -> Self {
            Self(self.0.offset(offset))
        }

        /// Begins with this record, or at the place where it was.
        pub fn start_at(self, record: &$crate::query::Record) -> Self {
            Self(self.0.start(std::ops::Bound::Included(record)))
        }

        /// Begins behind this record, or behind the place where it was: with the last record of a
        /// page it gives the next one.
        pub fn start_after(self, record: &$crate::query::Record) -> Self {
            Self(self.0.start(std::ops::Bound::Excluded(record)))
        }

        /// Ends with this record, or at the place where it was.
        pub fn end_at(self, record: &$crate::query::Record) -> Self {
            Self(self.0.end(std::ops::Bound::Included(record)))
        }

        /// Ends before this record, or before the place where it was.
        pub fn end_before(self, record: &$crate::query::Record) -> Self {
            Self(self.0.end(std::ops::Bound::Excluded(record)))
        }
    };
}
