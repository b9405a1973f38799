//! A server with another database than this replica is of: nothing is taken from it and nothing sent
//! until the app has decided, and then the replica is of that one.

use alloc::string::String;

use super::edit::Edit;
use super::event::{EventKind, Transport};
use super::interface::{SyncFailure, SyncFailureReason};
use super::machine::Client;
use crate::protocol::message::{ErrorCode, Welcome};
use crate::protocol::name::{DatabaseId, MutationNumber, SessionNumber};
use crate::rules::forgotten::Forgotten;
use crate::rules::row::LossDecision;
use crate::store::StoreError;

impl Client {
    /// The server's database, where it is another one than this replica is of.
    pub(super) fn other_than_known(&self, told: Option<&DatabaseId>) -> Option<DatabaseId> {
        let known = self.identity.database.as_ref()?;
        let other = told.filter(|told| *told != known);
        other.cloned()
    }

    /// The server has the database that this replica is of, or the first one that it meets.
    pub(super) fn remember_database(&mut self, welcome: &Welcome) {
        self.at_other_database = false;
        self.identity.other_database = None;
        if let Some(database) = &welcome.database {
            self.identity.database = Some(database.clone());
        }
    }

    /// The server has another database: nothing of it is taken, and nothing sent.
    pub(super) fn meet_other_database(&mut self, edit: &mut Edit<'_>, found: DatabaseId) {
        let Some(known) = self.identity.database.clone() else { return };
        let is_news = self.identity.other_database.as_ref() != Some(&found);
        if is_news {
            self.identity.other_database = Some(found.clone());
            self.put_identity(edit);
            edit.flush = true;
        }
        if is_news || !self.at_other_database {
            edit.remote_event(EventKind::DifferentDatabase { known, found });
        }
        self.at_other_database = true;
        match edit.transport {
            Transport::WebSocket => {
                self.lose_connection(edit, "the server has another database");
                self.back_off(edit);
            }
            Transport::Http => {
                self.drop_exchange(edit);
                self.out_of_reach(edit);
                self.poll_later();
                self.fallback.doubt();
            }
        }
        self.fail_syncs(edit);
    }

    /// Calls of `synced` are not answered by another database.
    pub(super) fn fail_syncs(&mut self, edit: &mut Edit<'_>) {
        let Some(found) = self.identity.other_database.clone() else { return };
        let reason = |collection| {
            let found = found.clone();
            SyncFailure::new(collection, SyncFailureReason::DifferentDatabase { found })
        };
        let outcome =
            Err(self.streams.wanted().map(|(collection, _)| reason(collection)).collect());
        self.syncs.answer(edit, &outcome, |_, _| true);
    }

    /// From now on the replica is of another database, which knows nothing of it.
    pub(super) fn move_to(
        &mut self,
        edit: &mut Edit<'_>,
        found: DatabaseId,
        decision: LossDecision,
    ) -> Result<(), StoreError> {
        self.drop_exchange(edit);
        self.lose_connection(edit, "the app has decided what to do about the server's database");
        self.link.off();
        self.outbox.drop_acked(edit)?;
        let Some(client_id) = self.random.client_id() else { return Ok(()) };
        self.identity.client_id = client_id;
        self.identity.session = SessionNumber(0);
        self.identity.confirmed = MutationNumber(0);
        self.identity.digest = None;
        self.identity.database = Some(found);
        self.peer.forget_epoch();
        self.at_other_database = false;
        // nothing was sent to this one
        self.outbox.thaw();
        self.identity.forgotten = Forgotten::default();
        self.rebase_deferred(edit)?;
        for (collection, stream) in self.streams.iter_mut() {
            stream.start_over();
            stream.distrust();
            edit.put_stream(collection, &stream.row);
        }
        if decision == LossDecision::Adopt {
            self.reject_all(edit)?;
        }
        self.put_identity(edit);
        edit.gates = true;
        Ok(())
    }

    /// Moves every write that waits to the list of rejected ones.
    fn reject_all(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        while let Some((write, entry)) = self.outbox.first_entry(edit)? {
            let code = ErrorCode::Other("DIFFERENT_DATABASE".into());
            let message = String::from(
                "the write was made for another database than the server's; retry sends it to \
                 this one",
            );
            self.reject(edit, write, &entry, code, message)?;
        }
        Ok(())
    }
}
