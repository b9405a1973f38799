//! Queries: one language of predicates and one order, for clients and servers alike.
//!
//! | file | holds |
//! | --- | --- |
//! | `definition` | a query: its condition, its order, its cursors |
//! | `value`, `number` | values as bytes whose order is the order of the values |
//! | `path`, `access` | the way to a field, and documents read and changed by it |
//! | `operator`, `predicate`, `form` | conditions, and their form in JSON |
//! | `selection` | a query at work over records |
//! | `index`, `walk`, `branches` | indexes: their keys, the choice of one or of one for each alternative, and the way through it |
//! | `live`, `ranked` | a query that is watched, and the places of its records |

mod access;
mod branches;
mod definition;
mod error;
mod form;
mod index;
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
mod walk;

pub(crate) use self::branches::{Branch, walk};
pub(crate) use self::definition::parse_order;
pub use self::definition::{Direction, Query, QueryCursor};
pub use self::error::QueryError;
pub use self::index::Index;
pub(crate) use self::index::Plan;
pub(crate) use self::live::LiveQuery;
pub use self::live::{QueryChange, QuerySnapshot, QueryUpdate};
pub use self::path::FieldPath;
pub(crate) use self::path::member;
pub use self::predicate::Predicate;
pub(crate) use self::selection::Selection;
pub(crate) use self::value::encode as encoded;
pub use self::walk::Explanation;
pub(crate) use self::walk::IndexRows;
