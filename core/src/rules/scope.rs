//! Scope keys: the fields by which a collection is divided into scopes, and the scopes of a document.
//!
//! Both ends compute them from the document alone, so a reader that holds a record knows the record's
//! scopes.

mod name;

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use bytes::Bytes;

pub use self::name::NamedScope;
use super::query::{QueryError, encoded};
use crate::protocol::document::Document;
use crate::protocol::json::{self, Broken};
use crate::protocol::message::ServerChange;
use crate::protocol::name::Seq;

/// The maximal number of scope keys of a collection.
pub(crate) const MAX_KEYS: usize = 8;
/// The maximal number of scopes of one key that a record can be in.
pub(crate) const MAX_SCOPES: usize = 64;
/// The maximal length of a scope's encoded value, in bytes.
const MAX_VALUE: usize = 256;
/// The maximal length of a key's text, in bytes.
const MAX_TEXT: usize = 512;
/// The end of a part that stands for each element of an array.
const EACH: &str = "[]";

/// A scope key of a collection: a top-level field, each element of an array, or several fields together.
///
/// The records that have the same value there are one scope. The order of several fields means nothing.
/// Its text is the field's name, the name with `[]` behind it, or several names with `+` between them.
///
/// ```
/// use synclayer_core::{QueryError, ScopeKey};
///
/// let key: ScopeKey = "project+status".parse()?;
/// assert_eq!(key.to_string(), "project+status");
/// assert!("members[]".parse::<ScopeKey>().is_ok());
/// assert!("project+members[]".parse::<ScopeKey>().is_err());
/// # Ok::<(), QueryError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScopeKey {
    /// The fields, ordered: a single one if `each`.
    fields: Vec<Box<str>>,
    /// `true` if each element of the field's array is a value.
    each: bool,
}

/// The value of a scope: what equals it by value has the same bytes.
pub(crate) type ScopeValue = Vec<u8>;

/// A scope: the records that have one value of a scope key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope {
    /// The text of the key, [`BEHIND_KEY`], and the value.
    id: Bytes,
}

/// The set of scopes that a reader follows.
pub(crate) type ScopeSet = Arc<BTreeSet<Scope>>;

/// A byte that no text contains.
const BEHIND_KEY: u8 = 0xff;

impl Scope {
    pub(crate) fn new(key: &ScopeKey, value: &[u8]) -> Self {
        let mut id = key.to_string().into_bytes();
        id.push(BEHIND_KEY);
        id.extend_from_slice(value);
        Self { id: id.into() }
    }

    /// The scope with these values of the parts of its key, each a JSON text.
    ///
    /// # Errors
    /// When this can't be a key, or no record can have the value.
    pub(crate) fn of(parts: &[(String, String)]) -> Result<Self, QueryError> {
        let key = ScopeKey::of(parts.iter().map(|(name, _)| name.as_str()))?;
        let of_part = |part: String| parts.iter().find(|(name, _)| *name == part);
        let values = key.parts().filter_map(|part| Some(of_part(part)?.1.as_str()));
        match key.value(values) {
            Some(value) => Ok(Self::new(&key, &value)),
            None => Err(QueryError::new(format!(
                "no record can be in such a scope of {key}: a value is a text, a number, a boolean \
                 or null, of up to {MAX_VALUE} bytes"
            ))),
        }
    }

    /// The text of the key, and the value.
    pub(crate) fn parts(&self) -> (&[u8], &[u8]) {
        let end = self.id.iter().position(|byte| *byte == BEHIND_KEY).unwrap_or(self.id.len());
        (&self.id[..end], self.id.get(end + 1..).unwrap_or_default())
    }

    /// The number of bytes that it takes.
    pub(crate) fn size(&self) -> usize {
        self.id.len()
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, value) = self.parts();
        write!(f, "{}={value:02x?}", String::from_utf8_lossy(key))
    }
}

/// The scopes of a record around a change of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ScopeChange {
    /// The scopes in which it was.
    pub(crate) before: Vec<Scope>,
    /// The scopes in which it is.
    pub(crate) after: Vec<Scope>,
    /// The seq that the record had; `None` if there was none.
    pub(crate) prev: Option<Seq>,
    /// The whole record, where it enters a scope by an update.
    pub(crate) entering: Option<ServerChange>,
}

impl ScopeChange {
    /// All scopes that the change concerns, each once.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Scope> {
        let new = self.after.iter().filter(|scope| !self.before.contains(scope));
        self.before.iter().chain(new)
    }
}

/// A document has too many scopes of one key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TooMany;

impl ScopeKey {
    /// A key of these parts, as they stand on the wire and in URLs.
    pub(crate) fn of<'a>(parts: impl IntoIterator<Item = &'a str>) -> Result<Self, QueryError> {
        let parts: Vec<&str> = parts.into_iter().collect();
        let text = parts.join("+");
        let wrong = |problem: &str| {
            Err(QueryError::new(format!("{text:?} can't be a scope key: {problem}")))
        };
        if text.len() > MAX_TEXT {
            return wrong(&format!("it has more than {MAX_TEXT} bytes"));
        }
        let (fields, each): (Vec<Box<str>>, _) = match parts[..] {
            [part] => {
                let field = part.strip_suffix(EACH);
                (Vec::from([Box::from(field.unwrap_or(part))]), field.is_some())
            }
            _ if parts.iter().any(|part| part.ends_with(EACH)) => {
                return wrong("the elements of an array can't be one of several parts");
            }
            _ => (parts.iter().map(|part| Box::from(*part)).collect(), false),
        };
        if fields.iter().any(|field| field.is_empty()) {
            return wrong("a field has no name");
        }
        if fields.len() > MAX_KEYS {
            return wrong(&format!("it has more than {MAX_KEYS} parts"));
        }
        let ordered: BTreeSet<Box<str>> = fields.iter().cloned().collect();
        if ordered.len() < fields.len() {
            return wrong("a field is there twice");
        }
        Ok(Self { fields: ordered.into_iter().collect(), each })
    }

    /// The parts of the key, as they stand on the wire and in URLs.
    pub(crate) fn parts(&self) -> impl Iterator<Item = String> {
        self.fields.iter().map(|field| format!("{field}{}", if self.each { EACH } else { "" }))
    }

    /// The fields in which the value is.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|field| &**field)
    }

    /// The scope of these values, one JSON text for each part; `None` if no record can be in it.
    pub(crate) fn value<'a>(&self, values: impl Iterator<Item = &'a str>) -> Option<ScopeValue> {
        let mut value = Vec::new();
        let mut count = 0;
        for text in values {
            put(text, &mut value)?;
            count += 1;
        }
        (count == self.fields.len() && value.len() <= MAX_VALUE).then_some(value)
    }

    /// The scopes of this key in which a document is.
    ///
    /// # Errors
    /// When they are more than [`MAX_SCOPES`]: then the document is in none of them.
    pub(crate) fn scopes(&self, document: &Document) -> Result<BTreeSet<ScopeValue>, TooMany> {
        let mut scopes = BTreeSet::new();
        if !self.each {
            let values = self.fields.iter().map_while(|field| document.text(field));
            scopes.extend(self.value(values));
            return Ok(scopes);
        }
        let array = self.fields.first().and_then(|field| document.text(field));
        let Some(array) = array.filter(|text| text.starts_with('[')) else { return Ok(scopes) };
        // the text is JSON: it was checked when the document was read
        let _ = json::elements(array, |element| {
            if scopes.len() <= MAX_SCOPES {
                scopes.extend(self.value([element.text].into_iter()));
            }
            Ok::<(), Broken>(())
        });
        if scopes.len() > MAX_SCOPES { Err(TooMany) } else { Ok(scopes) }
    }
}

/// Appends the encoding of a text, a number, a boolean or null; other values are no scopes.
fn put(text: &str, out: &mut Vec<u8>) -> Option<()> {
    if text.starts_with(['[', '{']) {
        return None;
    }
    out.extend_from_slice(&encoded(text));
    Some(())
}

impl FromStr for ScopeKey {
    type Err = QueryError;

    fn from_str(text: &str) -> Result<Self, QueryError> {
        Self::of(text.split('+'))
    }
}

impl fmt::Display for ScopeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, part) in self.parts().enumerate() {
            write!(f, "{}{part}", if i > 0 { "+" } else { "" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for ScopeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests;
