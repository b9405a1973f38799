//! The rules: what happens to records, without anything that moves.

pub mod conflict;
pub mod merge;
pub mod row;
pub mod view;
