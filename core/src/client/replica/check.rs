//! The invariants of a replica, for tests.

use alloc::string::String;

use super::Replica;
use crate::checked::Checked;
use crate::store::ClientStore;

impl<S: ClientStore> Checked for Replica<S> {
    fn digest(&self) -> u64 {
        self.client.digest()
    }

    fn check(&self) -> Result<(), String> {
        // they show what is committed
        let rows = self.store.rows();
        self.queries.check(|collection, query| {
            let read = self.client.query_all(collection, query, rows);
            read.map(|(records, _)| records).map_err(|error| error.message)
        })?;
        self.client.check(&self.rows())
    }

    fn check_progress(&self) -> Result<(), String> {
        self.client.check_progress(&self.rows())
    }

    fn check_at_rest(&self) -> Result<(), String> {
        if !self.watchers.is_empty() || !self.views.is_empty() || !self.queries.is_empty() {
            return Err("a view is kept that nobody watches".into());
        }
        if !self.actions.is_empty() {
            return Err("actions were not carried out".into());
        }
        if !self.fates.is_empty() {
            return Err("the fate of a write is still waited for".into());
        }
        self.client.check_at_rest(&self.rows())
    }
}
