//! `cargo +nightly fuzz run -s none scopes`
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| synclayer_sim::fuzz::scopes(bytes));
