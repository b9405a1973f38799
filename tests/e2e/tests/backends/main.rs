//! Plain backends of other people's making: separate programs, written with other people's
//! libraries (`tests/e2e/backends`), which the client has to get along with.
//!
//! `.ci/run` installs what they need below `target/backends`. Where that is missing the tests say
//! so and skip, unless `SYNCLAYER_REQUIRE_BACKENDS` is set.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

#[macro_use]
mod support;
mod devices;
mod raw;
