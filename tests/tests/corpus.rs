//! The fuzz targets on their committed corpora, so that what the fuzzer once found stays fixed.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

#[test]
fn wire() {
    replay("wire", synclayer_sim::fuzz::wire);
}

fn replay(target: &str, body: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut inputs = 0;
    for entry in fs::read_dir(&corpus).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        body(&fs::read(path).unwrap());
        inputs += 1;
    }
    assert!(inputs > 0, "{} is empty", corpus.display());
}
