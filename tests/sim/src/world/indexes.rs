//! The indexes of devices: each life of a device declares some of them, so that they are built, kept and
//! removed in the middle of everything. [`Checked`](synclayer_core::testing::Checked) compares them with
//! the records after every call.

use synclayer_core::{ClientConfig, Index};

use super::World;
use crate::draw::fold;

/// The indexes that a life may declare: those of the queries that are watched, and others.
const INDEXES: [&str; 4] = ["-hot,flag", "flag", "hot,-flag", "log,t1"];

impl World {
    /// The configuration with the indexes that a device declares in one of its lives. A third of the
    /// lives declare none. They are drawn apart from everything else: what goes over the wire does not
    /// depend on them.
    pub(super) fn with_indexes(
        &self,
        config: &ClientConfig,
        device: usize,
        lives: u64,
    ) -> ClientConfig {
        let mut config = config.clone();
        let drawn = fold(format!("{} {device} {lives}", self.config.seed).as_bytes()) >> 17;
        config.index_rows = 1 + drawn as usize % 5;
        if drawn.is_multiple_of(3) {
            return config;
        }
        let by_scopes = config.scopes.keys();
        for collection in config.collections.iter().chain(by_scopes).cloned().collect::<Vec<_>>() {
            let declared = INDEXES.iter().enumerate().filter(|(at, _)| drawn >> (8 + at) & 1 == 1);
            let declared = declared.map(|(_, text)| text.parse::<Index>().expect("an index"));
            config.indexes.insert(collection, declared.collect());
        }
        config
    }
}
