//! Guides, each about one thing that a program wants to do.

#[doc = synclayer_client::guide!(queries, "synclayer_blocking", "fn", "")]
pub mod queries {}

#[doc = synclayer_client::guide!(transactions, "synclayer_blocking", "fn", "")]
pub mod transactions {}
