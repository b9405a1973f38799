//! Records as values of the app's types.

use serde::de::DeserializeOwned;
use synclayer_core::{Document, QueryChange, QueryUpdate, Record};

use crate::error::SyncError;

/// A record with its document as a value of the app's type.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Typed<T> {
    /// The document as a value.
    pub value: T,
    /// The record that it was read from.
    pub record: Record,
}

impl<T: DeserializeOwned> Typed<T> {
    /// Reads a record's document as a value.
    ///
    /// # Errors
    /// [`SyncError::Shape`] when the document does not have the type's shape.
    pub fn read(collection: &str, record: Record) -> Result<Self, SyncError> {
        let json = record.document.to_string();
        match serde_json::from_str(&json) {
            Ok(value) => Ok(Self { value, record }),
            Err(error) => Err(SyncError::Shape {
                collection: collection.to_owned(),
                field: field_at(&record.document, &json, &error),
                id: record.id,
                message: error.to_string(),
            }),
        }
    }

    /// Reads the documents of several records.
    ///
    /// # Errors
    /// As [`read`](Self::read), for the first that has another shape.
    pub fn read_all(collection: &str, records: Vec<Record>) -> Result<Vec<Self>, SyncError> {
        records.into_iter().map(|record| Self::read(collection, record)).collect()
    }
}

/// An update of a query that is watched, with the documents as values of the app's type.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct TypedUpdate<T> {
    /// The result now, in the query's order.
    pub values: Vec<Typed<T>>,
    /// The changes since the update before, with their places.
    pub changes: Vec<QueryChange>,
    /// `true` if the server has confirmed that nothing is missing; see
    /// [`QuerySnapshot::is_complete`](synclayer_core::QuerySnapshot::is_complete).
    pub is_complete: bool,
}

impl<T: DeserializeOwned> TypedUpdate<T> {
    /// Reads the documents of an update.
    ///
    /// # Errors
    /// As [`Typed::read`], for the first that has another shape.
    pub fn read(collection: &str, update: QueryUpdate) -> Result<Self, SyncError> {
        let QueryUpdate { snapshot, changes } = update;
        let values = Typed::read_all(collection, snapshot.iter().cloned().collect())?;
        Ok(Self { values, changes, is_complete: snapshot.is_complete() })
    }
}

/// The top-level field in whose value an error lies; `None` if it is about the document as a whole,
/// as of a field that is missing.
fn field_at(document: &Document, json: &str, error: &serde_json::Error) -> Option<String> {
    let lines = json.split_inclusive('\n').take(error.line().saturating_sub(1));
    let at = lines.map(str::len).sum::<usize>() + error.column();
    // as it is written: the fields in their order, with `{` or a comma before each
    let mut start = 1;
    for (name, text) in document.iter() {
        let value = start + serde_json::to_string(name).ok()?.len() + 1;
        let end = value + text.len();
        if (value..=end).contains(&at) {
            return Some(name.to_owned());
        }
        start = end + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use synclayer_core::{Limits, RecordId, Timestamp};

    use super::*;

    fn read<T: DeserializeOwned>(json: &str) -> Result<T, (Option<String>, String)> {
        let record = Record {
            id: RecordId::new("r").unwrap(),
            document: Document::parse(json, &Limits::default()).unwrap(),
            version: 1,
            updated_at: Timestamp(0),
            pending: false,
        };
        Typed::read("todos", record).map(|typed| typed.value).map_err(|error| {
            let SyncError::Shape { field, message, .. } = error else { panic!("{error:?}") };
            (field, message)
        })
    }

    #[test]
    fn an_error_names_the_field() {
        type Numbers = BTreeMap<String, u8>;
        assert_eq!(read::<Numbers>(r#"{"a": 1}"#).unwrap()["a"], 1);
        for (json, field) in [
            (r#"{"a": "x", "b": 1}"#, "a"),
            (r#"{"a": 1, "b": 256, "c": 2}"#, "b"),
            (r#"{"a": 1, "b\"\n": [1], "c": 2}"#, "b\"\n"),
            ("{\"a\": 1, \"b\": [\n1,\n2], \"c\": 2}", "b"),
        ] {
            let (found, message) = read::<Numbers>(json).unwrap_err();
            assert_eq!(found.as_deref(), Some(field), "{json}: {message}");
        }
        type Nested = BTreeMap<String, BTreeMap<String, bool>>;
        assert_eq!(
            read::<Nested>(r#"{"a": {"b": true}, "c": {"d": 1}}"#).unwrap_err().0.unwrap(),
            "c"
        );
    }
}
