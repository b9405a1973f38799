//! Queries: one language of predicates and one order, for clients and servers alike.
//!
//! | file | holds |
//! | --- | --- |
//! | `definition` | a query: its condition, its order, its cursors |
//! | `value`, `number` | values as bytes whose order is the order of the values |
//! | `path` | the way to a field |
//! | `operator`, `predicate`, `form` | conditions, and their form in JSON |
//! | `selection` | a query at work over records |
//! | `live`, `ranked` | a query that is watched, and the places of its records |

mod definition;
mod error;
mod form;
mod live;
mod number;
mod operator;
mod path;
mod predicate;
mod ranked;
mod selection;
#[cfg(test)]
mod tests;
mod value;

pub(crate) use self::definition::parse_order;
pub use self::definition::{Direction, Query, QueryCursor};
pub use self::error::QueryError;
pub(crate) use self::live::LiveQuery;
pub use self::live::{QueryChange, QuerySnapshot, QueryUpdate};
pub use self::path::FieldPath;
pub use self::predicate::Predicate;
pub(crate) use self::selection::Selection;
