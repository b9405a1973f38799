//! Values, borrowed from the documents and claims that they are found in.

use core::cmp::Ordering;

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::protocol::document::{Document, json_string};
use crate::protocol::json::{self, Broken};
use crate::rules::query::{encoded, member};

/// A value of an expression.
#[derive(Clone, Debug)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    /// The text of a JSON number.
    Number(Cow<'a, str>),
    Text(Cow<'a, str>),
    /// The text of a JSON array.
    Array(&'a str),
    /// The elements of a list.
    List(Vec<Self>),
    /// The text of a JSON object.
    Object(&'a str),
    Document(&'a Document),
}

impl<'a> Value<'a> {
    /// The value with this JSON text; `None` if it is a text that is not Unicode.
    pub(super) fn of(json: &'a str) -> Option<Self> {
        Some(match json.as_bytes().first()? {
            b'n' => Self::Null,
            b't' => Self::Bool(true),
            b'f' => Self::Bool(false),
            b'"' => Self::Text(json::unescape(json)?),
            b'[' => Self::Array(json),
            b'{' => Self::Object(json),
            _ => Self::Number(json.into()),
        })
    }

    /// The JSON text of a field; `Err` if this value has no fields.
    pub(super) fn field(&self, name: &str) -> Result<Option<&'a str>, ()> {
        match self {
            Self::Object(json) => Ok(member(json, name)),
            Self::Document(document) => Ok(document.text(name)),
            Self::Null
            | Self::Bool(_)
            | Self::Number(_)
            | Self::Text(_)
            | Self::Array(_)
            | Self::List(_) => Err(()),
        }
    }

    /// The element at a place of a list, if there is one. The place is the text of a number, and counts by
    /// its value: `1.0` is `1`.
    pub(super) fn element(&self, at: &str) -> Option<Self> {
        match self {
            Self::Array(json) => {
                let elements = elements(json);
                place(at, elements.len()).and_then(|at| Self::of(elements.get(at)?))
            }
            Self::List(elements) => {
                place(at, elements.len()).and_then(|at| elements.get(at).cloned())
            }
            Self::Null
            | Self::Bool(_)
            | Self::Number(_)
            | Self::Text(_)
            | Self::Object(_)
            | Self::Document(_) => None,
        }
    }

    /// Returns `true` if a list has this element, or an object a field of this name; `None` if this
    /// value is neither.
    pub(super) fn holds(&self, wanted: &Value<'_>) -> Option<bool> {
        match self {
            Self::Array(json) => {
                let wanted = wanted.encoded();
                Some(elements(json).iter().any(|element| encoded(element) == wanted))
            }
            Self::List(elements) => Some(elements.iter().any(|element| element.is(wanted))),
            Self::Object(_) | Self::Document(_) => {
                if let Value::Text(name) = wanted {
                    return Some(self.field(name).ok()?.is_some());
                }
                // no name is a number or a boolean
                matches!(wanted, Value::Number(_) | Value::Bool(_)).then_some(false)
            }
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::Text(_) => None,
        }
    }

    /// The number of letters of a text, elements of a list or fields of an object.
    pub(super) fn size(&self) -> Option<usize> {
        match self {
            Self::Text(text) => Some(text.chars().count()),
            Self::Array(json) => Some(elements(json).len()),
            Self::List(elements) => Some(elements.len()),
            Self::Object(json) => {
                let mut names = alloc::collections::BTreeSet::new();
                let _ = json::pairs(json, |name, _| {
                    names.insert(json::string_bytes(name));
                    Ok::<(), Broken>(())
                });
                Some(names.len())
            }
            Self::Document(document) => Some(document.len()),
            Self::Null | Self::Bool(_) | Self::Number(_) => None,
        }
    }

    /// Returns `true` if the values are equal. Values of different kinds are not.
    pub(super) fn is(&self, other: &Value<'_>) -> bool {
        match (self, other) {
            (Self::Text(one), Value::Text(other)) => one == other,
            (_, _) => self.encoded() == other.encoded(),
        }
    }

    /// The order of two numbers, two texts or two booleans; `None` for others.
    pub(super) fn order(&self, other: &Value<'_>) -> Option<Ordering> {
        match (self, other) {
            (Self::Text(one), Value::Text(other)) => Some(one.as_bytes().cmp(other.as_bytes())),
            (Self::Number(one), Value::Number(other)) => Some(encoded(one).cmp(&encoded(other))),
            (Self::Bool(one), Value::Bool(other)) => Some(one.cmp(other)),
            (_, _) => None,
        }
    }

    /// Bytes that are equal for equal values.
    fn encoded(&self) -> Vec<u8> {
        let mut json = String::new();
        self.put_json(&mut json);
        encoded(&json)
    }

    fn put_json(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(is) => out.push_str(if *is { "true" } else { "false" }),
            Self::Number(text) => out.push_str(text),
            Self::Text(text) => out.push_str(&json_string(text)),
            Self::Array(json) | Self::Object(json) => out.push_str(json),
            Self::Document(document) => {
                out.push_str(&alloc::string::ToString::to_string(document));
            }
            Self::List(elements) => {
                out.push('[');
                for (i, element) in elements.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    element.put_json(out);
                }
                out.push(']');
            }
        }
    }
}

/// The place in a list of this length that equals a number.
fn place(number: &str, length: usize) -> Option<usize> {
    number.parse().ok().or_else(|| {
        let wanted = encoded(number);
        (0..length).find(|at| encoded(&format!("{at}")) == wanted)
    })
}

fn elements(json: &str) -> Vec<&str> {
    let mut found = Vec::new();
    // values are checked when they are taken in
    let _ = json::elements(json, |element| {
        found.push(element.text);
        Ok::<(), Broken>(())
    });
    found
}
