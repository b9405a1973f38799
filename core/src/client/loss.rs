//! A server that lacks records which are held here: they are kept until the app has decided, and then
//! adopted or offered.
//!
//! When nothing that was learnt of a collection says any more what the server has, all its rows are
//! *held* ([`Loss`]): they stay on show, their writes have base 0, and what the server shows in its
//! snapshot is held no longer. At the end of the snapshot the rows that are left are missing at the
//! server. Whether they go or are offered to it is decided by the configuration or the app.

use super::config::OnServerLoss;
use super::edit::Edit;
use super::event::EventKind;
use super::interface::{SyncFailure, SyncFailureReason};
use super::machine::Client;
use super::offer::OFFERED_AT_ONCE;
use super::stream::Stream;
use crate::protocol::name::{Collection, RecordId};
use crate::rules::row::{Loss, LossDecision};
use crate::store::StoreError;

/// No more records than this may be missing at the server without the app being asked, and
const FEW_MISSING: u64 = 10;
/// no more than one of so many.
const MISSING_OF: u64 = 10;

impl Stream {
    /// Returns the number of records that the server lacks, while the app is to decide about them.
    pub(super) fn asks(&self) -> Option<u64> {
        self.row.loss.filter(|loss| loss.asks()).and_then(|loss| loss.missing)
    }

    /// Returns `true` if held records are on their way to the server.
    pub(super) fn is_offering(&self) -> bool {
        let offered = |decision| decision == Some(LossDecision::Offer);
        let due = |loss: &Loss| loss.missing.is_some() && offered(loss.decision);
        self.row.loss.is_some_and(|loss| due(&loss) && !loss.is_plain())
    }

    /// Returns the reason why the collection is not in step although the server serves it.
    pub(super) fn shortfall(&self, collection: &Collection) -> Option<SyncFailure> {
        let missing = self.asks()?;
        Some(SyncFailure::new(collection, SyncFailureReason::RecordsMissing { missing }))
    }
}

impl Client {
    /// Decides what happens to records that are held here and missing at the server, and to those of
    /// another database.
    pub(super) fn decide_losses(
        &mut self,
        edit: &mut Edit<'_>,
        decision: LossDecision,
    ) -> Result<(), StoreError> {
        edit.flush = true;
        if let Some(found) = self.identity.other_database.take() {
            self.move_to(edit, found, decision)?;
        }
        for collection in self.streams.names_of(|stream| stream.row.loss.is_some()) {
            self.decide_on(edit, &collection, decision)?;
        }
        self.try_at_once(edit, self.config.enable_auto_sync);
        Ok(())
    }

    /// Everything that the server has of a collection was shown: what is still held is missing
    /// there. Says whether nothing is left to do about it.
    pub(super) fn take_stock(
        &mut self,
        edit: &mut Edit<'_>,
        collection: &Collection,
    ) -> Result<bool, StoreError> {
        let Some(records) = self.records(collection) else { return Ok(true) };
        let Some(mut loss) = records.stream.row.loss else { return Ok(true) };
        if loss.missing.is_none() {
            let missing = records.count_held(edit)?;
            if missing == 0 {
                records.stream.row.loss = None;
                records.save(edit);
                return Ok(true);
            }
            let of = missing + records.stream.row.figures.count;
            let usual = || usual_decision(records.on_server_loss, missing, of);
            loss.decision = loss.decision.or_else(usual);
            loss.missing = Some(missing);
            records.stream.row.loss = Some(loss);
            let decision = shown(loss.decision);
            let collection = collection.clone();
            edit.remote_event(EventKind::RecordsMissing { collection, missing, of, decision });
        }
        self.short = true;
        let done = self.carry_out_loss(edit, collection)?;
        self.save_stream(edit, collection);
        Ok(done)
    }

    /// A plain server was found to lack these records, of so many that are held. Many at once are
    /// no deletions, until somebody says so. Says whether nothing is left to do at the next
    /// reconcile.
    pub(super) fn take_gone(
        &mut self,
        edit: &mut Edit<'_>,
        collection: &Collection,
        gone: &[RecordId],
        held: u64,
    ) -> Result<bool, StoreError> {
        let missing = gone.len() as u64;
        let Some(stream) = self.streams.get(collection) else { return Ok(true) };
        let before = stream.row.loss;
        let asked = before.and_then(|loss| loss.decision);
        let few = !is_much(missing, held);
        let decision = match (asked, self.config.on_server_loss) {
            (Some(decision), _) => Some(decision),
            (None, Some(OnServerLoss::Adopt)) => Some(LossDecision::Adopt),
            (None, _) if few => Some(LossDecision::Adopt),
            (None, Some(OnServerLoss::Offer)) => Some(LossDecision::Offer),
            (None, Some(OnServerLoss::Ask) | None) => None,
        };
        let told = before.is_some_and(|loss| loss.missing == Some(missing));
        if !told && !few {
            let (collection, of, decision) = (collection.clone(), held, shown(decision));
            edit.remote_event(EventKind::RecordsMissing { collection, missing, of, decision });
        }
        let done = match decision {
            Some(LossDecision::Adopt) => {
                for id in gone {
                    self.learn_gone(edit, collection, id)?;
                }
                true
            }
            Some(LossDecision::Offer) => {
                let room = OFFERED_AT_ONCE.saturating_sub(self.outbox.len());
                let Some(mut records) = self.records(collection) else { return Ok(true) };
                for id in gone.iter().take(room) {
                    records.offer_stored(edit, id)?;
                }
                gone.len() <= room
            }
            None => false,
        };
        let loss = Loss { since: Loss::PLAIN, missing: Some(missing), decision };
        let loss = Some(loss).filter(|_| !done);
        let Some(stream) = self.streams.get_mut(collection) else { return Ok(true) };
        stream.row.loss = loss;
        if loss != before {
            edit.show_status(collection, stream);
        }
        Ok(done || decision.is_none())
    }

    /// The app has decided about a collection.
    fn decide_on(
        &mut self,
        edit: &mut Edit<'_>,
        collection: &Collection,
        decision: LossDecision,
    ) -> Result<(), StoreError> {
        let Some(mut records) = self.records(collection) else { return Ok(()) };
        if let Some(loss) = &mut records.stream.row.loss {
            loss.decision = Some(decision);
        }
        if decision == LossDecision::Offer {
            records.offer_written(edit)?;
        }
        if records.stream.is_short()
            && self.carry_out_loss(edit, collection)?
            && let Some(mut records) = self.records(collection)
        {
            records.end_loss(edit);
        }
        self.save_stream(edit, collection);
        Ok(())
    }

    /// Does what was decided about the records that the server lacks. Says whether nothing is left
    /// to do.
    fn carry_out_loss(
        &mut self,
        edit: &mut Edit<'_>,
        collection: &Collection,
    ) -> Result<bool, StoreError> {
        let Some(mut records) = self.records(collection) else { return Ok(true) };
        let stream = &mut records.stream;
        let Some(loss) = stream.row.loss else { return Ok(true) };
        if loss.is_plain() {
            // another reconcile shows what it is about
            if let Some(mark) = &mut stream.row.plain {
                mark.reconciled_at = None;
            }
            match (self.peer.is_plain(), self.config.http) {
                (true, true) => self.begin_poll(),
                (true, false) if self.link.ready_since().is_some() => {
                    self.ask_whole(edit, collection);
                }
                // the next connection or poll does
                (true, false) | (false, _) => {}
            }
            return Ok(false);
        }
        match loss.decision {
            None => Ok(false),
            Some(LossDecision::Offer) => {
                stream.pass(None);
                Ok(false)
            }
            Some(LossDecision::Adopt) => {
                stream.pass(None);
                let done = records.adopt(edit)?;
                if done {
                    records.stream.row.loss = None;
                }
                records.save(edit);
                Ok(done)
            }
        }
    }

    /// Goes on with what was decided about records that the server lacks, and ends it where none is
    /// left.
    pub(super) fn pursue_losses(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        if !self.short {
            return Ok(());
        }
        let over = |stream: &Stream| stream.row.loss.is_some_and(|loss| loss.missing == Some(0));
        for collection in self.streams.names_of(over) {
            if let Some(mut records) = self.records(&collection) {
                records.end_loss(edit);
            }
        }
        if self.outbox.len() <= OFFERED_AT_ONCE / 2
            && !self.peer.is_plain()
            && let Some(collection) = self.streams.find(Stream::is_offering)
            && let Some(mut records) = self.records(&collection)
        {
            records.offer_some(edit)?;
        }
        self.adopt_some(edit)?;
        self.short = self.streams.any(Stream::is_short);
        if edit.lost.is_empty() {
            return Ok(());
        }
        // what a transaction kept from being offered is free when that has fallen
        self.reject_lost(edit)?;
        self.pursue_losses(edit)
    }
}

/// Returns the decision about records that the server lacks, if the app has made none for this
/// collection; `None`: it is asked.
fn usual_decision(configured: Option<OnServerLoss>, missing: u64, of: u64) -> Option<LossDecision> {
    match configured {
        Some(OnServerLoss::Adopt) => Some(LossDecision::Adopt),
        Some(OnServerLoss::Offer) => Some(LossDecision::Offer),
        Some(OnServerLoss::Ask) => None,
        None if is_much(missing, of) => None,
        None => Some(LossDecision::Adopt),
    }
}

/// Returns `true` if so many of a collection's records are missing that it may be a mistake.
fn is_much(missing: u64, of: u64) -> bool {
    missing > FEW_MISSING && missing.saturating_mul(MISSING_OF) > of
}

/// A decision as the app is told of it.
fn shown(decision: Option<LossDecision>) -> OnServerLoss {
    match decision {
        Some(LossDecision::Adopt) => OnServerLoss::Adopt,
        Some(LossDecision::Offer) => OnServerLoss::Offer,
        None => OnServerLoss::Ask,
    }
}
