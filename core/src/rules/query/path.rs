//! The way to a field, into objects too.

use core::fmt;
use core::str::FromStr;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::error::QueryError;
use crate::protocol::document::{Document, json_string};
use crate::protocol::json::{self, Broken};

/// The maximal length of a path, in bytes.
const MAX_BYTES: usize = 1024;

/// A field of a document, or one inside its objects: `priority`, `address.city`. A name that
/// is empty or holds a dot or a quote is written as a JSON string: `"a.b".c`.
///
/// ```
/// use synclayer_core::{FieldPath, QueryError};
///
/// let path: FieldPath = r#"address."zip.code""#.parse()?;
/// assert_eq!(path.to_string(), r#"address."zip.code""#);
/// assert!("address..city".parse::<FieldPath>().is_err());
/// # Ok::<(), QueryError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldPath {
    names: Vec<String>,
}

impl FieldPath {
    /// The names on the way, the top-level one first.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// The JSON text of the field's value in a document; `None` if the field is missing.
    pub(super) fn find<'a>(&self, document: &'a Document) -> Option<&'a str> {
        let (first, inside) = self.names.split_first()?;
        inside.iter().try_fold(document.text(first)?, |text, name| member(text, name))
    }
}

/// The text of an object's member. Of several with one name the last counts.
pub(crate) fn member<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut found = None;
    // what is no object has no members
    let _ = json::pairs(text, |key, value| {
        if *json::string_bytes(key) == *name.as_bytes() {
            found = Some(value.text);
        }
        Ok::<(), Broken>(())
    });
    found
}

impl FromStr for FieldPath {
    type Err = QueryError;

    fn from_str(text: &str) -> Result<Self, QueryError> {
        let wrong =
            |problem: &str| QueryError::new(format!("{text:?} is no path of a field: {problem}"));
        if text.len() > MAX_BYTES {
            let problem =
                format!("a field's path has at most {MAX_BYTES} bytes, not {}", text.len());
            return Err(QueryError::new(problem));
        }
        let mut names = Vec::new();
        let mut rest = text;
        loop {
            let end = if rest.starts_with('"') { quoted_end(rest) } else { rest.find('.') };
            let (name, behind) = rest.split_at(end.unwrap_or(rest.len()));
            names.push(if name.starts_with('"') {
                serde_json::from_str(name)
                    .map_err(|_| wrong("a name in quotes has to be a JSON string"))?
            } else if name.is_empty() {
                return Err(wrong("a name is empty; write \"\" if that is the field's name"));
            } else if name.contains('"') {
                return Err(wrong("a name that holds a quote is written as a JSON string"));
            } else {
                String::from(name)
            });
            if behind.is_empty() {
                return Ok(Self { names });
            }
            rest = behind.strip_prefix('.').ok_or_else(|| wrong("a dot is missing"))?;
        }
    }
}

/// The place behind the string in quotes that a text begins with.
fn quoted_end(text: &str) -> Option<usize> {
    let mut escaped = false;
    let end = text.bytes().skip(1).position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    end.map(|at| at + 2)
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, name) in self.names.iter().enumerate() {
            if i > 0 {
                f.write_str(".")?;
            }
            if name.is_empty() || name.contains(['.', '"']) {
                f.write_str(&json_string(name))?;
            } else {
                f.write_str(name)?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
