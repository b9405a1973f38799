//! `cargo +nightly fuzz run -s none wire`
#![no_main]

libfuzzer_sys::fuzz_target!(|frame: &[u8]| synclayer_sim::fuzz::wire(frame));
