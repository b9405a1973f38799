//! The rules: pure functions and row formats for conflicts, transactions, reads and policies.

pub(crate) mod clocks;
pub mod conflict;
pub(crate) mod forgotten;
pub mod merge;
pub mod page;
pub(crate) mod plain;
pub mod policy;
pub mod rebuild;
pub mod record;
pub mod row;
pub mod salvage;
pub mod transaction;
pub mod view;
