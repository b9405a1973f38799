//! One field of a message: found, not yet read.

use core::fmt;

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::super::super::document::{Document, DocumentError};
use super::super::super::limits::Limits;
use super::super::super::message::ErrorCode;
use super::super::super::name::NameError;
use super::super::super::time::Timestamp;
use super::super::WireError;

/// What is wrong with a message, before it is known what the message is about.
pub(in super::super) struct Fault {
    code: ErrorCode,
    message: String,
}

impl Fault {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { code: ErrorCode::InvalidMessage, message: message.into() }
    }

    pub(super) fn too_large(message: impl Into<String>) -> Self {
        Self { code: ErrorCode::PayloadTooLarge, message: message.into() }
    }

    pub(super) fn missing(name: &str) -> Self {
        Self::new(format!("`{name}` is missing"))
    }

    /// The error of a message of which nothing else could be read.
    pub(super) fn about_nothing(self) -> WireError {
        WireError {
            code: self.code,
            message: self.message,
            mutation: None,
            collection: None,
            record_id: None,
        }
    }
}

/// The value, or the fault that it is missing.
pub(super) fn required<T>(value: Option<T>, name: &str) -> Result<T, Fault> {
    value.ok_or_else(|| Fault::missing(name))
}

/// A field's JSON text; a field that is absent or null is empty.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(transparent)]
pub(super) struct Field<'a>(#[serde(borrow)] Option<&'a RawValue>);

impl<'a> Field<'a> {
    pub(super) fn is_some(self) -> bool {
        self.0.is_some()
    }

    pub(super) fn is_true(self) -> bool {
        self.json() == "true"
    }

    /// This field, or the other where this one is empty.
    pub(super) fn or(self, other: Self) -> Self {
        Self(self.0.or(other.0))
    }

    /// The JSON text as it came.
    pub(super) fn json(self) -> &'a str {
        self.0.map_or("null", RawValue::get)
    }

    pub(super) fn text(self, name: &str) -> Result<Option<Cow<'a, str>>, Fault> {
        let Some(json) = self.0.map(RawValue::get) else { return Ok(None) };
        let plain = json.strip_prefix('"').and_then(|json| json.strip_suffix('"'));
        match plain {
            Some(text) if !text.contains('\\') => Ok(Some(Cow::Borrowed(text))),
            // escapes may still be wrong: half of a surrogate pair is no text
            _ => serde_json::from_str(json)
                .map(|text: String| Some(Cow::Owned(text)))
                .map_err(|_| Fault::new(format!("`{name}` is not a text"))),
        }
    }

    /// An integer below 2⁵³, so that every peer can hold it.
    pub(super) fn number(self, name: &str) -> Result<Option<u64>, Fault> {
        let Some(json) = self.0.map(RawValue::get) else { return Ok(None) };
        match json.parse() {
            Ok(number) if number < 1 << 53 => Ok(Some(number)),
            Ok(_) | Err(_) => {
                Err(Fault::new(format!("`{name}` is not an integer from 0 to 2^53-1")))
            }
        }
    }

    pub(super) fn timestamp(self, name: &str) -> Result<Option<Timestamp>, Fault> {
        self.parsed(name, Timestamp::parse)
    }

    /// A text of a certain form.
    pub(super) fn parsed<T>(
        self,
        name: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Fault> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let value = parse(&text);
        value.map(Some).ok_or_else(|| Fault::new(format!("`{name}` does not have its form")))
    }

    pub(super) fn name<N>(
        self,
        name: &str,
        make: impl FnOnce(&str) -> Result<N, NameError>,
    ) -> Result<Option<N>, Fault> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        make(&text)
            .map(Some)
            .map_err(|error| Fault::new(format!("`{name}` can't be used: {error}")))
    }

    pub(super) fn document(self, name: &str, limits: &Limits) -> Result<Option<Document>, Fault> {
        let Some(json) = self.0.map(RawValue::get) else { return Ok(None) };
        Document::parse(json, limits).map(Some).map_err(|error| {
            let text = format!("`{name}`: {error}");
            match error {
                DocumentError::TooLarge { .. } => Fault::too_large(text),
                DocumentError::NotJson(_)
                | DocumentError::NotAnObject
                | DocumentError::TooDeep { .. }
                | DocumentError::TooManyFields { .. }
                | DocumentError::NameTooLong { .. }
                | DocumentError::Duplicate(_) => Fault::new(text),
            }
        })
    }

    pub(super) fn object<T: Deserialize<'a>>(self, name: &str) -> Result<Option<T>, Fault> {
        let Some(json) = self.0.map(RawValue::get) else { return Ok(None) };
        object(json, &format!("`{name}`")).map(Some)
    }

    /// The elements of a list that is not longer than `max`.
    pub(super) fn list(self, name: &str, max: usize) -> Result<Option<Vec<Self>>, Fault> {
        let Some(json) = self.0.map(RawValue::get) else { return Ok(None) };
        let list = List { max }.deserialize(&mut serde_json::Deserializer::from_str(json));
        list.map(Some).map_err(|_| match max {
            usize::MAX => Fault::new(format!("`{name}` is not a list")),
            _ => Fault::new(format!("`{name}` is not a list of at most {max} elements")),
        })
    }
}

/// Finds the fields of an object. (A derived type alone would take an array as well.)
pub(super) fn object<'a, T: Deserialize<'a>>(json: &'a str, name: &str) -> Result<T, Fault> {
    if !json.trim_ascii_start().starts_with('{') {
        return Err(Fault::new(format!("{name} is not a JSON object")));
    }
    serde_json::from_str(json).map_err(|error| {
        // the text may hold a secret, but serde's error only says where it went wrong
        Fault::new(format!("{name} is not a valid JSON object: {error}"))
    })
}

struct List {
    max: usize,
}

impl<'de> DeserializeSeed<'de> for List {
    type Value = Vec<Field<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for List {
    type Value = Vec<Field<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = seq.next_element()? {
            if list.len() == self.max {
                return Err(A::Error::custom("the list is too long"));
            }
            list.push(element);
        }
        Ok(list)
    }
}
