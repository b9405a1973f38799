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
//!
//! A program that waits for several of them, and for its user, gives each a thread that sends what comes into one
//! channel. The threads end when the client is closed:
//!
//! ```
//! use std::io::{BufRead as _, BufReader, stdin};
//! use std::sync::mpsc::{Sender, channel};
//! use std::thread;
//!
//! use synclayer_blocking::{Status, SyncError, SyncLayer, Update};
//!
//! enum News {
//!     Seats(Update),
//!     Status(Status),
//!     Line(String),
//! }
//!
//! fn forward<T: 'static>(
//!     all: impl Iterator<Item = T> + Send + 'static,
//!     news: fn(T) -> News,
//!     sender: &Sender<News>,
//! ) {
//!     let sender = sender.clone();
//!     thread::spawn(move || all.for_each(|one| drop(sender.send(news(one)))));
//! }
//!
//! fn run(sync: &SyncLayer) -> Result<(), SyncError> {
//!     let (sender, news) = channel();
//!     forward(sync.collection("seats")?.watch(), News::Seats, &sender);
//!     forward(sync.watch_status(), News::Status, &sender);
//!     let lines = BufReader::new(stdin()).lines().map_while(Result::ok);
//!     forward(lines, News::Line, &sender);
//!     for news in news {
//!         match news {
//!             News::Seats(update) => println!("{} seats", update.snapshot.len()),
//!             News::Status(status) => println!("{:?}", status.connection),
//!             News::Line(line) if line == "quit" => break,
//!             News::Line(line) => println!("no command {line}"),
//!         }
//!     }
//!     sync.close();
//!     Ok(())
//! }
//! ```
