//! Documents: JSON objects whose top-level fields are the unit of change.
//!
//! A document is one immutable, shared buffer. Its fields are sorted by name, and each value is the
//! JSON text that was received. So untouched values are written back verbatim, cloning is O(1), a
//! row of the store is decoded without a copy, and two documents are equal when their bytes are.

use core::fmt;

use alloc::borrow::Cow;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::codec::{put_bytes, put_u64, read_u64};
use super::json;
use super::limits::Limits;
use crate::store::StoreError;

/// An error of reading a text as a document.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// The text is not JSON.
    #[error("the document is not valid JSON: {0}")]
    NotJson(String),
    /// The text is JSON, but no object.
    #[error("the document is not a JSON object; wrap the value in one, like {{\"value\": …}}")]
    NotAnObject,
    /// The text is longer than [`Limits::document_bytes`].
    #[error("the document is {bytes} bytes long, at most {max} are allowed")]
    TooLarge {
        /// The length of the text.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// A value is nested deeper than [`Limits::depth`].
    #[error("the field {field:?} is nested deeper than {max} levels")]
    TooDeep {
        /// The top-level field.
        field: String,
        /// The limit.
        max: usize,
    },
    /// There are more fields than [`Limits::fields`].
    #[error("the document has more than {max} top-level fields")]
    TooManyFields {
        /// The limit.
        max: usize,
    },
    /// A field's name is longer than [`Limits::field_name_bytes`].
    #[error("a field's name is {bytes} bytes long, at most {max} are allowed")]
    NameTooLong {
        /// The length of the name.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// There can't be a field with this path.
    #[error(
        "{0:?} can't be a field: a part of the path is empty or badly quoted, or lies in a value that is \
         no object"
    )]
    NoField(String),
    /// A field's value does not have the shape of the type that it was to be read as.
    #[error("the field {field} has another shape: {message}")]
    Shape {
        /// The field.
        field: String,
        /// The difference.
        message: String,
    },
    /// Two fields have one name.
    #[error("the field {0:?} occurs twice")]
    Duplicate(String),
}

impl From<json::Broken> for DocumentError {
    fn from(broken: json::Broken) -> Self {
        Self::NotJson(broken.to_string())
    }
}

/// A JSON object, with its top-level fields in order of their names.
///
/// ```
/// use synclayer_core::{Document, DocumentError, Limits};
///
/// let limits = Limits::default();
/// let todo = Document::parse(r#"{"title": "milk", "done": false}"#, &limits)?;
/// assert_eq!(todo.text("title"), Some(r#""milk""#), "a value is its JSON text");
/// let names: Vec<_> = todo.iter().map(|(name, _)| name).collect();
/// assert_eq!(names, ["done", "title"]);
///
/// assert_eq!(Document::parse("[1, 2]", &limits), Err(DocumentError::NotAnObject));
/// # Ok::<(), DocumentError>(())
/// ```
///
/// Any type that serde writes as a JSON object can be made a document with [`of`](Self::of), and
/// read from one with [`to`](Self::to).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Document(Bytes);

impl Document {
    /// A document without fields.
    #[must_use]
    pub(crate) fn empty() -> Self {
        Self(Bytes::from_static(&[0]))
    }

    /// Reads a JSON object.
    ///
    /// Top-level names must be unique; the content of a value is kept undecoded, except that its
    /// syntax and depth are checked.
    ///
    /// # Errors
    /// When the text is no JSON object or breaks one of the limits.
    pub fn parse(json: &str, limits: &Limits) -> Result<Self, DocumentError> {
        if json.len() > limits.document_bytes {
            return Err(DocumentError::TooLarge { bytes: json.len(), max: limits.document_bytes });
        }
        if !json.trim_ascii_start().starts_with('{') {
            return Err(match json::check(json) {
                Ok(()) => DocumentError::NotAnObject,
                Err(broken) => broken.into(),
            });
        }
        let mut fields = Vec::new();
        json::members(json, |name, value| add(&mut fields, name, value, limits))?;
        sort(&mut fields)?;
        Ok(Self::of_sorted(&fields))
    }

    /// Makes a document of anything that serializes to a JSON object, under the same limits.
    ///
    /// # Errors
    /// As [`parse`](Self::parse); a value that can't be serialized is [`DocumentError::NotJson`].
    pub fn of<T: Serialize + ?Sized>(value: &T, limits: &Limits) -> Result<Self, DocumentError> {
        let json = serde_json::to_string(value)
            .map_err(|error| DocumentError::NotJson(error.to_string()))?;
        Self::parse(&json, limits)
    }

    /// Reads the document into a type of the caller's.
    ///
    /// # Errors
    /// When the document does not have the type's shape.
    pub fn to<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.to_json())
    }

    /// The JSON text of a top-level field's value, as it was written, if there is such a field.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.iter().find(|(field, _)| *field == name).map(|(_, text)| text)
    }

    /// The fields in order of their names, each with its value's JSON text.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields()
    }

    pub(crate) fn fields(&self) -> Fields<'_> {
        let (_, start) = read_u64(&self.0).unwrap_or((0, self.0.len()));
        Fields { rest: &self.0[start..] }
    }

    /// The number of fields.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        read_u64(&self.0).map_or(0, |(count, _)| count as usize)
    }

    /// Returns `true` if there are no fields.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of bytes that the document takes in memory and in a row; about the length of its
    /// JSON text.
    #[must_use]
    pub(crate) fn size(&self) -> usize {
        self.0.len()
    }

    /// Appends the JSON text.
    pub(crate) fn write_json(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        for (i, (name, text)) in self.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            write_json_string(out, name);
            out.push(b':');
            out.extend_from_slice(text.as_bytes());
        }
        out.push(b'}');
    }

    /// The JSON text.
    #[must_use]
    pub(crate) fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.0.len() + 4 * self.len() + 2);
        self.write_json(&mut out);
        out
    }

    /// A document of these fields. Their names must ascend and their texts must be valid JSON.
    pub(crate) fn of_sorted<N: AsRef<str>, T: AsRef<str>>(fields: &[(N, T)]) -> Self {
        let size: usize = fields.iter().map(|(n, t)| n.as_ref().len() + t.as_ref().len() + 6).sum();
        let mut out = Vec::with_capacity(size + 4);
        put_u64(&mut out, fields.len() as u64);
        for (name, text) in fields {
            put_bytes(&mut out, name.as_ref().as_bytes());
            put_bytes(&mut out, text.as_ref().as_bytes());
        }
        Self(out.into())
    }

    /// Copies documents side by side into one buffer, so that they take no more memory than their bytes:
    /// one that was read from a store may keep all of the block alive in which it lies there.
    pub(crate) fn pack<'a>(documents: impl Iterator<Item = &'a mut Self>) {
        let documents: Vec<_> = documents.collect();
        let mut buffer = Vec::with_capacity(documents.iter().map(|document| document.size()).sum());
        documents.iter().for_each(|document| buffer.extend_from_slice(&document.0));
        let mut rest = Bytes::from(buffer);
        for document in documents {
            let size = document.size();
            *document = Self(rest.split_to(size));
        }
    }

    /// The bytes that a row holds.
    pub(crate) fn as_row(&self) -> &[u8] {
        &self.0
    }

    /// Decodes the document of a row. Checks its structure, but not the JSON of its values.
    pub(crate) fn from_row(row: Bytes) -> Result<Self, StoreError> {
        let damaged = || StoreError::damaged("a stored document is damaged");
        let (count, mut at) = read_u64(&row).ok_or_else(damaged)?;
        for _ in 0..count {
            for _ in 0..2 {
                let (len, start) = read_u64(&row[at..]).ok_or_else(damaged)?;
                let end = usize::try_from(len)
                    .ok()
                    .and_then(|len| (at + start).checked_add(len))
                    .filter(|&end| end <= row.len())
                    .ok_or_else(damaged)?;
                core::str::from_utf8(&row[at + start..end]).map_err(|_| damaged())?;
                at = end;
            }
        }
        if at == row.len() { Ok(Self(row)) } else { Err(damaged()) }
    }
}

/// A document without fields.
impl Default for Document {
    fn default() -> Self {
        Self::empty()
    }
}

/// The JSON text.
impl fmt::Display for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.to_json()))
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Serializes the document as a JSON object; `serde_json` keeps its values verbatim.
impl Serialize for Document {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter().filter_map(|(name, text)| {
            let value: &RawValue = serde_json::from_str(text).ok()?;
            Some((name, value))
        }))
    }
}

/// The fields of a document in order of their names. The default is empty.
#[derive(Clone, Default)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn text(&mut self) -> Option<&'a str> {
        let (len, start) = read_u64(self.rest)?;
        let end = start.checked_add(usize::try_from(len).ok()?)?;
        let text = self.rest.get(start..end)?;
        self.rest = &self.rest[end..];
        core::str::from_utf8(text).ok()
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        Some((self.text()?, self.text()?))
    }
}

/// A text as a JSON string, with quotes and escapes.
pub(crate) fn json_string(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len() + 2);
    write_json_string(&mut out, text);
    // it stays UTF-8: whole characters are copied, and ASCII put between them
    String::from_utf8(out).unwrap_or_default()
}

/// Appends a text as a JSON string, with quotes and escapes.
pub(crate) fn write_json_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut from = 0;
    for (i, byte) in text.bytes().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0..=0x1f => b"",
            _ => continue,
        };
        out.extend_from_slice(&text.as_bytes()[from..i]);
        if escape.is_empty() {
            let hex = b"0123456789abcdef";
            out.extend_from_slice(b"\\u00");
            out.push(hex[usize::from(byte >> 4)]);
            out.push(hex[usize::from(byte & 15)]);
        } else {
            out.extend_from_slice(escape);
        }
        from = i + 1;
    }
    out.extend_from_slice(&text.as_bytes()[from..]);
    out.push(b'"');
}

/// Adds a field, unless it breaks a limit.
fn add<'a>(
    fields: &mut Vec<(Cow<'a, str>, &'a str)>,
    name: Cow<'a, str>,
    value: json::Value<'a>,
    limits: &Limits,
) -> Result<(), DocumentError> {
    if name.len() > limits.field_name_bytes {
        let max = limits.field_name_bytes;
        return Err(DocumentError::NameTooLong { bytes: name.len(), max });
    }
    if fields.len() == limits.fields {
        return Err(DocumentError::TooManyFields { max: limits.fields });
    }
    if value.depth >= limits.depth {
        return Err(DocumentError::TooDeep { field: name.into(), max: limits.depth });
    }
    fields.push((name, value.text));
    Ok(())
}

fn sort(fields: &mut [(Cow<'_, str>, &str)]) -> Result<(), DocumentError> {
    // documents from other peers are already sorted
    if !fields.is_sorted_by(|(one, _), (next, _)| one < next) {
        fields.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    }
    match fields.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => Err(DocumentError::Duplicate(pair[0].0.as_ref().into())),
        None => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use alloc::format;
    use proptest::prelude::*;

    /// A small document with few field names, so that two documents often have fields in common.
    pub(crate) fn documents() -> impl Strategy<Value = Document> {
        let text = prop_oneof![Just("0"), Just("1"), Just("null"), Just("[1,2]"), Just("\"x\"")];
        proptest::collection::btree_map("[a-e]", text, 0..5)
            .prop_map(|fields| Document::of_sorted(&fields.into_iter().collect::<Vec<_>>()))
    }

    fn parse(json: &str) -> Result<Document, DocumentError> {
        Document::parse(json, &Limits::default())
    }

    #[test]
    fn values_come_back_as_they_were_written() {
        for value in [
            "9007199254740993",
            "0.1",
            "1e400",
            "12345678901234567890123",
            "null",
            "\"\u{1F600}\\u00e9\"",
            "[1, {\"a\" :2}]",
            "-0",
        ] {
            let document = parse(&format!("{{\"v\": {value} }}")).unwrap();
            assert_eq!(document.text("v"), Some(value));
            assert_eq!(document.to_string(), format!("{{\"v\":{value}}}"));
            let row = Document::from_row(Bytes::copy_from_slice(document.as_row())).unwrap();
            assert_eq!(row, document);
        }
    }

    #[test]
    fn each_limit_has_its_own_error() {
        let limits = Limits {
            document_bytes: 40,
            depth: 3,
            fields: 2,
            field_name_bytes: 4,
            ..Limits::default()
        };
        let error = |json: &str| Document::parse(json, &limits).unwrap_err();
        assert_eq!(error("[1]"), DocumentError::NotAnObject);
        assert!(matches!(error("{\"a\":1,}"), DocumentError::NotJson(_)));
        assert!(matches!(error("{\"a\":1} x"), DocumentError::NotJson(_)));
        assert!(matches!(error("{\"a\":01}"), DocumentError::NotJson(_)));
        assert_eq!(error(&" ".repeat(41)), DocumentError::TooLarge { bytes: 41, max: 40 });
        assert_eq!(error("{\"a\":[[[1]]]}"), DocumentError::TooDeep { field: "a".into(), max: 3 });
        assert!(Document::parse("{\"a\":[[1]],\"b\":\"[[[[\\\"[\"}", &limits).is_ok());
        assert_eq!(error("{\"a\":1,\"b\":1,\"c\":1}"), DocumentError::TooManyFields { max: 2 });
        assert_eq!(error("{\"abcde\":1}"), DocumentError::NameTooLong { bytes: 5, max: 4 });
        assert_eq!(error("{\"a\":1,\"\\u0061\":2}"), DocumentError::Duplicate("a".into()));
    }

    #[test]
    fn names_are_escaped_when_written() {
        let document = parse("{\"a\\\"\\u0001\\n\": 1}").unwrap();
        assert_eq!(document.to_string(), "{\"a\\\"\\u0001\\n\":1}");
    }

    #[test]
    fn serializes_to_the_letter_and_reads_into_types() {
        let document = parse("{\"n\": 9007199254740993, \"a\": [1]}").unwrap();
        let json = serde_json::to_string(&document).unwrap();
        assert_eq!(json, "{\"a\":[1],\"n\":9007199254740993}");
        let map: BTreeMap<String, serde_json::Value> = document.to().unwrap();
        assert_eq!(Document::of(&map, &Limits::default()).unwrap().to_string(), json);
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in ".*") {
            let _ = parse(&text);
        }

        #[test]
        fn arbitrary_rows_never_panic(row: Vec<u8>) {
            if let Ok(document) = Document::from_row(row.into()) {
                let _ = document.to_json();
                prop_assert_eq!(document.iter().count(), document.len());
            }
        }

        #[test]
        fn what_is_written_is_read(document in documents()) {
            prop_assert_eq!(parse(&document.to_string()).unwrap(), document);
        }
    }

    #[test]
    fn packed_documents_lie_side_by_side_and_are_the_same() {
        let texts = ["{}", r#"{"a":1}"#, r#"{"a":"x","b":null}"#];
        let read = |text| Document::parse(text, &Limits::default()).unwrap();
        let before: Vec<_> = texts.into_iter().map(read).collect();
        let mut packed = before.clone();
        Document::pack(packed.iter_mut());
        assert_eq!(packed, before);
        for pair in packed.windows(2) {
            assert_eq!(pair[0].as_row().as_ptr_range().end, pair[1].as_row().as_ptr());
        }
    }
}
