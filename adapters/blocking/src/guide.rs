//! Guides, each about one thing that a program wants to do.

#[doc = synclayer_client::guide!(queries, "synclayer_blocking", "fn", "")]
pub mod queries {}

#[doc = synclayer_client::guide!(scopes, "synclayer_blocking", "fn", "")]
pub mod scopes {}

#[doc = synclayer_client::guide!(
    transactions, "synclayer_blocking", "fn", "",
    "match claim.wait_confirmed(std::time::Duration::from_secs(10)) {
        Ok(fate) => fate?.is_taken(),
        Err(_in_vain) => false,
    }"
)]
pub mod transactions {}
