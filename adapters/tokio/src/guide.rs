//! Guides, each about one thing that a program wants to do. They hold for `synclayer-blocking` too, where
//! nothing is awaited.
//!
//! * To begin: [`first_steps`], [`conflicts`], [`queries`], [`transactions`], [`scopes`], [`rules`], [`server`].
//! * To understand and to decide: [`flow`], [`best_practices`], [`figures`], [`comparison`], [`migrating`] from
//!   SyncLayer 1.7.
//! * To build on it: [`simulator`], [`embedding`], [`stores`], [`backend`].
//! * When something does not work: [`troubleshooting`].
//!
//! Their texts lie in `adapters/tokio/guide` of the project, where they can be read without this documentation.

/// Pages, each from the file of its name. `links.txt` says for their links where they lead in this
/// documentation: of two definitions of a link the first counts, and those in the files are for readers of the files.
macro_rules! pages {
    ($($name:ident,)+) => { $(
        #[doc = include_str!("../guide/links.txt")]
        #[doc = include_str!(concat!("../guide/", stringify!($name), ".md"))]
        pub mod $name {}
    )+ };
}

pages! {
    first_steps,
    conflicts,
    queries,
    transactions,
    scopes,
    rules,
    server,
    migrating,
    flow,
    best_practices,
    simulator,
    embedding,
    stores,
    backend,
    figures,
    comparison,
    troubleshooting,
}
