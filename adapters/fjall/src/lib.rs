//! SyncLayer's durable stores, on the embedded database [fjall](https://docs.rs/fjall):
//! [`FjallClientStore`] for one replica, [`FjallServerStore`] for a server's sessions.
//!
//! ```
//! use synclayer_core::{Batch, ClientStore, CommitNumber};
//! use synclayer_fjall::{ClientOptions, FjallClientStore};
//!
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("notes");
//! let mut store = FjallClientStore::open(&path, ClientOptions::default())?;
//! let mut batch = Batch::default();
//! batch.put(&b"key"[..], &b"value"[..]);
//! store.commit(CommitNumber(1), batch)?;
//! assert_eq!(store.rows().get(b"key")?.as_deref(), Some(&b"value"[..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Files of a store
//!
//! A store owns its directory: `db/` is fjall's, `lock` keeps a second opener out, `watermark` says
//! up to where everything must be there, and `store` is a text that says whose store it is, a
//! client's or a server's, in which format, and of which database. A directory of the other kind or
//! of a later format, one with other files in it, and a file are refused as
//! [`Foreign`](synclayer_core::StoreErrorKind::Foreign), before anything is made
//! there. Stores of before there was that text open, and get it.
//!
//! # Durability
//!
//! [`Durability`] names the two choices: a killed process loses nothing acknowledged in either, and a
//! loss of power nothing that was acknowledged with [`Durability::Synced`]. With
//! [`Durability::Buffered`], a client's default, it may take the last commits, in part and out of
//! order; the store opens with those before the first one that is missing.
//!
//! # Size
//!
//! When a fourth of what the tables hold are removals and no commit comes for a moment, a thread writes
//! the tables anew without what was removed. The second commit after that, or the end of the store, takes
//! the old ones away. Closing the store waits for a writing that is under way. The database's journal, of
//! 64 MB and what is in memory at most, is emptied by what is written later.
//!
//! # Detection of damage
//!
//! The database checks what it reads, but its journal has places where one wrong bit makes it drop
//! acknowledged commits, or replay them in another order, without a word. So every commit also
//! writes a row of a chain, with its number and a hash over it and all commits before it, and the
//! chain must be whole, in order and long enough when a store is opened. Before the database may
//! touch its journals, they are read for places that it would cut off, and its lists of tables are
//! compared with their checksums. What fails a test is
//! refused as [`Damaged`](synclayer_core::StoreErrorKind::Damaged), with a text that
//! says what to do. The end of a journal that a crash cut short holds nothing that was acknowledged as
//! synced; it is dropped. Under the operating system that it was handed to, a buffered commit is only
//! missed without complaint where sectors were never written, as in a copy of a file system in use.
//!
//! A client's store that is closed in good order also notes how its files look then, in the file `closed`.
//! Where they look so at the next opening, nobody but replicas was there, and the rows need not be
//! counted when the server first says what there should be.
//!
//! # Recovery
//!
//! [`FjallClientStore::salvage`] reads a client's unsent writes, which its server does not have, and
//! [`FjallServerStore::repair`] makes a sound store of everything that can be read of a server's.
//! Both read past the damage, and count what is missing as far as it shows.

mod chain;
mod client;
mod clock;
mod disk;
mod failure;
mod journal;
mod kinds;
mod manifest;
mod mark;
mod place;
mod remains;
mod repair;
mod rows;
mod salvage;
mod seal;
mod server;
mod shrink;
mod watermark;

pub use client::{ClientOptions, FjallClientStore};
pub use kinds::{Durability, StoreKind};
pub use repair::Repair;
pub use server::{FjallServerStore, ServerOptions, Stats};
