//! Scopes by their names: the parts of a key with their values, as apps and messages write them.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::fmt;
use core::hash::{Hash, Hasher};

use super::{Scope, ScopeKey};
use crate::protocol::document::json_string;
use crate::protocol::json;
use crate::protocol::scopes::ScopeName;
use crate::rules::query::{Predicate, QueryError};

/// A scope by its name: the parts of its key, and their values.
///
/// Names of one scope are equal, however their values are written: `1` is `1.0`, and not `"1"`.
#[derive(Clone)]
pub struct NamedScope {
    key: ScopeKey,
    /// The JSON texts of the values, in the order of the key's parts.
    values: Vec<Box<str>>,
    scope: Scope,
}

impl NamedScope {
    /// The name of the scope with these values, each the JSON text of a text, a number, a boolean or null:
    /// `[("room", "\"42\"")]`.
    ///
    /// # Errors
    /// When the parts can't be a key, or no record can have the values.
    pub fn new<'a>(
        parts: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, QueryError> {
        let parts: Vec<(String, String)> =
            parts.into_iter().map(|(part, json)| (part.into(), json.into())).collect();
        if let Some((part, json)) = parts.iter().find(|(_, json)| json::check(json).is_err()) {
            return Err(QueryError::new(format!("the value of {part:?} is no JSON: {json}")));
        }
        let scope = Scope::of(&parts)?;
        let key = ScopeKey::of(parts.iter().map(|(name, _)| name.as_str()))?;
        let of_part = |part: String| parts.iter().find(|(name, _)| *name == part);
        let values = key.parts().filter_map(|part| Some(of_part(part)?.1.trim().into())).collect();
        Ok(Self { key, values, scope })
    }

    /// The scope that a message names.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub(crate) fn of(name: &ScopeName) -> Result<Self, QueryError> {
        Self::new(name.parts.iter().map(|(part, json)| (part.as_str(), json.as_str())))
    }

    /// Its name in messages.
    pub(crate) fn name(&self) -> ScopeName {
        ScopeName { parts: self.parts().map(|(part, json)| (part, json.into())).collect() }
    }

    /// Its key.
    pub(crate) fn key(&self) -> &ScopeKey {
        &self.key
    }

    /// The parts of the key, each with the JSON text of its value.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (String, &str)> {
        self.key.parts().zip(self.values.iter().map(|json| &**json))
    }

    /// The scope itself.
    pub(crate) fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The condition that the records of the scope meet.
    ///
    /// # Errors
    /// When a field of the key can't be named in a query.
    pub fn condition(&self) -> Result<Predicate, QueryError> {
        let conditions = self.parts().map(|(part, json)| {
            let (field, operator) = match part.strip_suffix("[]") {
                Some(field) => (field, "arrayContains"),
                None => (part.as_str(), "isEqualTo"),
            };
            Predicate::field(json_string(field).parse()?, operator, json)
        });
        Predicate::all(conditions.collect::<Result<Vec<_>, _>>()?)
    }
}

impl PartialEq for NamedScope {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for NamedScope {}

impl PartialOrd for NamedScope {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for NamedScope {
    fn cmp(&self, other: &Self) -> Ordering {
        self.scope.cmp(&other.scope)
    }
}

impl Hash for NamedScope {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.scope.hash(state);
    }
}

/// `room="42"`, and `project="x"+status=1` of several fields.
impl fmt::Display for NamedScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (part, json)) in self.parts().enumerate() {
            write!(f, "{}{part}={json}", if i > 0 { "+" } else { "" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for NamedScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
