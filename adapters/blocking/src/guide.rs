//! The guides are those of `synclayer-tokio`, whose calls have the same names and meanings:
//! [`synclayer_tokio::guide`](https://docs.rs/synclayer-tokio/latest/synclayer_tokio/guide/), or
//! `adapters/tokio/guide` of the project.
//!
//! Here nothing is awaited, watches and events are iterators, and what waits for the server takes a time-out:
//!
//! ```
//! use std::time::Duration;
//!
//! use serde_json::json;
//! use synclayer_blocking::{SyncError, SyncLayer};
//!
//! fn claim(sync: &SyncLayer, seat: &'static str) -> Result<bool, SyncError> {
//!     let claim = sync.transaction(move |t| {
//!         t.expect_unchanged("seats", seat)?;
//!         t.update("seats", seat, &json!({ "by": "ann" }))?;
//!         t.save("tickets", &json!({ "seat": seat }))?;
//!         Ok(())
//!     })?;
//!     println!("it shows here at once; the server has not spoken yet");
//!     match claim.wait_confirmed(Duration::from_secs(10)) {
//!         Ok(fate) => Ok(fate?.is_taken()),
//!         Err(_in_vain) => Ok(false), // no word yet; `claim` could be waited for again
//!     }
//! }
//!
//! fn show(sync: &SyncLayer) -> Result<(), SyncError> {
//!     for update in sync.collection("seats")?.watch() {
//!         println!("{} seats", update.snapshot.len());
//!     }
//!     Ok(())
//! }
//! ```
