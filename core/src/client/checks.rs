//! Checks of the invariants, for tests.

use alloc::string::String;
use core::hash::{Hash, Hasher};

use super::catchup::count_rows;
use super::edit::Edit;
use super::machine::Client;
use super::stream::Stream;
use crate::store::{Rows, StoreError};

impl Client {
    /// A hash of the whole state, for tests that compare runs.
    #[must_use]
    pub(crate) fn digest(&self) -> u64 {
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        self.identity.hash(&mut hash);
        self.clock.hash(&mut hash);
        self.outbox.hash(&mut hash);
        self.streams.hash(&mut hash);
        self.link.hash(&mut hash);
        self.fallback.hash(&mut hash);
        self.exchange.hash(&mut hash);
        self.random.state().hash(&mut hash);
        (&self.pacing, &self.portions).hash(&mut hash);
        self.at_other_database.hash(&mut hash);
        self.now.mono.hash(&mut hash);
        (&self.commits, self.rejected).hash(&mut hash);
        (&self.peer, &self.syncs, self.short).hash(&mut hash);
        (self.token_due, self.token_needed, &self.indexes).hash(&mut hash);
        hash.finish()
    }

    /// A hash of what the replica holds, whatever is sent and heard: its identity, its writes, its
    /// cursors. For tests.
    #[must_use]
    pub(crate) fn held_digest(&self) -> u64 {
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        (&self.identity, &self.clock, self.rejected).hash(&mut hash);
        let outbox = &self.outbox;
        (outbox.head(), outbox.end(), outbox.len()).hash(&mut hash);
        self.streams.iter().for_each(|(name, stream)| (name, &stream.row).hash(&mut hash));
        hash.finish()
    }

    /// A hash of the places that catch-ups and verdicts move: cursors, positions in catch-ups, and the
    /// writes that wait. For tests.
    #[must_use]
    pub(crate) fn place_digest(&self) -> u64 {
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        (self.identity.confirmed, self.outbox.len(), self.rejected).hash(&mut hash);
        let rows = self.streams.iter().map(|(name, stream)| (name, &stream.row));
        rows.for_each(|(name, row)| {
            (name, &row.cursor, &row.resume, &row.set, row.figures.count).hash(&mut hash)
        });
        hash.finish()
    }

    /// Checks what must always hold between the machine and its store. For tests: it reads the
    /// whole outbox.
    ///
    /// # Errors
    /// Says which invariant is broken.
    pub(crate) fn check(&self, store: &dyn Rows) -> Result<(), String> {
        let edit = Edit::new(store, self.keys, self.now.wall);
        self.outbox.check(&edit)?;
        if self.halted.is_none() {
            self.streams.check()?;
            self.indexes.check(self.keys, &edit)?;
            self.check_counting(&edit)?;
        }
        self.check_kept(store)
    }

    /// Checks that the outbox moves on a live connection: whatever is in it waits for a verdict, for
    /// the store, or for a deadline. For tests: it reads
    /// the first write that was not sent.
    ///
    /// # Errors
    /// Says which write waits for nothing.
    pub(crate) fn check_progress(&self, store: &dyn Rows) -> Result<(), String> {
        let level_2 = self.link.ready_since().is_some() && !self.peer.is_plain();
        let waits_for_store = !self.commits.may_send();
        let waits = self.is_in_flight() || self.outbox_deadlines().iter().any(Option::is_some);
        if self.halted.is_some() || !level_2 || waits_for_store || waits {
            return Ok(());
        }
        let edit = Edit::new(store, self.keys, self.now.wall);
        match self.outbox.first_unsent(&edit).map_err(|error| error.message)? {
            Some(write) if self.outbox.is_durable(write) => {
                Err(alloc::format!("write {write} lies in the outbox, and waits for nothing"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Returns the number of records that have changes of others waiting beside writes whose verdict is due. For
    /// tests.
    ///
    /// # Errors
    /// When the store can't be read.
    pub(crate) fn deferred(&self, store: &dyn Rows) -> Result<usize, StoreError> {
        Ok(Edit::new(store, self.keys, self.now.wall).deferred()?.len())
    }

    /// Checks that the count and the checksum which are kept of a confirmed collection are those of its
    /// rows.
    fn check_figures(&self, store: &dyn Rows) -> Result<(), String> {
        if self.peer.is_plain() {
            return Ok(());
        }
        let edit = Edit::new(store, self.keys, self.now.wall);
        for (collection, stream) in self.streams.iter().filter(|(_, held)| held.is_confirmed()) {
            let counted = count_rows(&edit, collection, &stream.row, None);
            if counted.map_err(|error| error.message)? != stream.held() {
                return Err(alloc::format!("what is kept of {collection} is not what it holds"));
            }
        }
        Ok(())
    }

    /// Checks that what was counted of a collection is what its rows up to that place are.
    fn check_counting(&self, edit: &Edit<'_>) -> Result<(), String> {
        for (collection, stream) in self.streams.iter() {
            let Some(recount) = &stream.row.recount else { continue };
            let counted = count_rows(edit, collection, &stream.row, recount.up_to.as_ref());
            if counted.map_err(|error| error.message)? != recount.figures {
                return Err(alloc::format!("what was counted of {collection} is not what it has"));
            }
        }
        Ok(())
    }

    /// Checks that nothing is left of what was only needed on the way. For tests, when every write
    /// has its verdict and every collection is live: it looks for changes that wait beside a base.
    ///
    /// # Errors
    /// Says what is left.
    pub(crate) fn check_at_rest(&self, store: &dyn Rows) -> Result<(), String> {
        self.outbox.check_at_rest()?;
        self.check_figures(store)?;
        let deferred = self.deferred(store).map_err(|error| error.message)?;
        let left = [
            (deferred > 0, "changes wait beside their base"),
            (!self.syncs.is_empty(), "calls of synced() wait"),
            (self.syncs.has_barrier(), "a barrier is under way"),
            (self.exchange.is_some(), "an exchange is under way"),
            (self.pacing.catch_up_until().is_some(), "writes wait for a catch-up"),
            (self.streams.any(|stream| stream.row.resume.is_some()), "a run was left"),
            (self.streams.any(Stream::is_short), "records are missing at the server"),
        ];
        match left.iter().find(|(is_left, _)| *is_left) {
            Some((_, what)) => Err((*what).into()),
            None => Ok(()),
        }
    }
}
