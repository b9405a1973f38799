//! `cargo +nightly fuzz run -s none scenario`
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| synclayer_sim::fuzz::scenario(bytes));
