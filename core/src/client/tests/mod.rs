//! Tests of the machine as a whole.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

#[path = "../../../tests/vectors/table.rs"]
mod table;
mod vectors;

mod scopes;
