//! The files that the proofs compare with: scenarios, transcripts, golden digests. They lie in the
//! repository (`tests/data`) and are no part of the published package.

use std::path::{Path, PathBuf};

/// Path of a file or folder of `tests/data`.
#[must_use]
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../data").join(name)
}
