//! The fuzz targets on their committed corpora, so that what the fuzzer once found stays fixed.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use synclayer_sim::fuzz::TARGETS;

#[test]
fn every_target_has_a_corpus() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let mut found: Vec<_> =
        fs::read_dir(corpora).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    found.sort();
    assert_eq!(found, TARGETS.map(|(name, _)| name));
}

#[test]
fn nothing_that_was_once_found_is_back() {
    for (target, body) in TARGETS {
        replay(target, body);
    }
}

/// Inputs of no particular form: a smoke test of every body on stable.
#[test]
fn random_bytes_find_nothing() {
    for (target, body) in TARGETS {
        for seed in 0..200 {
            let mut draw = fastrand::Rng::with_seed(seed);
            let bytes: Vec<u8> = (0..draw.usize(..600)).map(|_| draw.u8(..)).collect();
            println!("{target}, seed {seed}");
            body(&bytes);
        }
    }
}

fn replay(target: &str, body: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut inputs = 0;
    for entry in fs::read_dir(&corpus).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        body(&fs::read(path).unwrap());
        inputs += 1;
    }
    assert!(inputs > 0, "{} is empty", corpus.display());
}
