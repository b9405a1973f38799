//! Rights as expressions: who may do what, in a small subset of CEL.
//!
//! | file | holds |
//! | --- | --- |
//! | `token`, `parse` | the text of an expression, taken apart and checked |
//! | `syntax` | expressions as trees, and back as text |
//! | `value` | values, borrowed from documents and claims |
//! | `evaluate` | the value of an expression, as far as it is known |
//! | `definition` | the rules of all collections, which are a [`Policy`](super::policy::Policy) |
//!
//! An expression has no loops and no variables of its own: each of its at most 256 parts is evaluated
//! at most once, in a time that is bounded by the size of what it looks at.

mod definition;
mod evaluate;
mod parse;
mod syntax;
#[cfg(test)]
mod tests;
mod token;
mod value;

pub use self::definition::{Judgement, Right, RuleCase, Rules};
pub use self::parse::RuleError;
