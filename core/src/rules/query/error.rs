//! The error of a query.

use alloc::format;
use alloc::string::String;
use core::fmt::Display;

/// The error of a query that can't be used: a text that says what is wrong, and where in the query.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct QueryError {
    /// The text, for people.
    pub message: String,
}

impl QueryError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }

    /// An error at a place in the JSON form, like `and[1].not`; empty for the outermost condition.
    pub(super) fn at(place: &str, problem: impl Display) -> Self {
        let place = if place.is_empty() { "the condition" } else { place };
        Self::new(format!("{place}: {problem}"))
    }
}
