//! Guides, each about one thing that a program wants to do.

#[doc = synclayer_client::guide!(queries, "synclayer_tokio", "async fn", ".await")]
pub mod queries {}

#[doc = synclayer_client::guide!(scopes, "synclayer_tokio", "async fn", ".await")]
pub mod scopes {}

#[doc = synclayer_client::guide!(
    transactions, "synclayer_tokio", "async fn", ".await", "claim.confirmed().await?.is_taken()"
)]
pub mod transactions {}

#[doc = include_str!("../guide/troubleshooting.md")]
pub mod troubleshooting {}
