//! Held records that go, because what the server has was adopted: a bounded number in each step.
//!
//! The decision and the number of records that are left lie in the collection's row, so that a
//! process that begins anew goes on with it. Each step asks for its commit to be durable, and the
//! report of that leads to the next one.

use super::edit::Edit;
use super::machine::Client;
use super::records::Records;
use super::stream::Stream;
use crate::rules::row::LossDecision;
use crate::store::StoreError;

/// The most held records that go in one step.
const ADOPTED_AT_ONCE: usize = 256;

impl Stream {
    /// Returns `true` if held records are on their way out.
    fn is_adopting(&self) -> bool {
        let adopted = |decision| decision == Some(LossDecision::Adopt);
        let due = self.row.loss.filter(|loss| loss.missing.is_some() && adopted(loss.decision));
        due.is_some_and(|loss| !loss.is_plain())
    }
}

impl Client {
    /// Goes on with the removal of held records, and ends it where none is left.
    pub(super) fn adopt_some(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        while edit.adopted < ADOPTED_AT_ONCE {
            let Some(collection) = self.streams.find(Stream::is_adopting) else { break };
            let Some(mut records) = self.records(&collection) else { break };
            if records.adopt(edit)? {
                records.end_loss(edit);
            } else {
                records.save(edit);
            }
        }
        Ok(())
    }
}

impl Records<'_> {
    /// Removes held records of a collection, as many as this step still may. Returns `true` if none
    /// is left.
    pub(super) fn adopt(&mut self, edit: &mut Edit<'_>) -> Result<bool, StoreError> {
        let seq = self.stream.reached();
        let mut after = self.stream.take_passed();
        loop {
            let room = ADOPTED_AT_ONCE.saturating_sub(edit.adopted);
            if room == 0 {
                self.stream.pass(after);
                edit.flush = true;
                return Ok(false);
            }
            let held = self.held(edit, after.as_ref(), room)?;
            edit.adopted += held.len();
            for id in &held {
                if let Some(before) = edit.row(self.collection, id)? {
                    self.take_absence(edit, id, before, seq)?;
                }
            }
            after = match (held.len() == room, after) {
                (true, _) => held.last().cloned(),
                // a look from the beginning finds nothing that is left
                (false, Some(_)) => None,
                (false, None) => return Ok(true),
            };
        }
    }
}
