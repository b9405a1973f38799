//! A server that lacks what is held here, and a server with another database: what is kept until
//! somebody has decided, and how the decision is carried out.
//!
//! When nothing that was learnt of a collection says any more what the server has, all its rows are
//! *held* ([`Loss`]): they stay on show, their writes have base 0, and what the server shows in its
//! snapshot is held no longer. At the end of the snapshot the rows that are left are missing at the
//! server. Whether they go or are offered to it is decided by the configuration or the app.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;

use super::edit::Edit;
use super::event::{Event, EventKind, Transport};
use super::interface::{OnServerLoss, SyncFailure, SyncFailureReason};
use super::link::LinkState;
use super::machine::Client;
use super::records::set_server;
use super::server_time::seen;
use super::stream::{Phase, Stream};
use crate::protocol::message::{ErrorCode, Welcome};
use crate::protocol::name::{Collection, DatabaseId, MutationNumber, RecordId, Seq, SessionNumber};
use crate::protocol::write::Change;
use crate::rules::forgotten::Forgotten;
use crate::rules::row::{Entry, Loss, LossDecision, Pending, Place, Row};
use crate::store::{Scan, StoreError};

/// No more records than this may be missing at the server without the app being asked, and
const FEW_MISSING: u64 = 10;
/// no more than one of so many.
const MISSING_OF: u64 = 10;
/// The most writes that wait in the outbox while held records are offered: the next ones follow as
/// the server takes them.
const OFFERED_AT_ONCE: usize = 256;

impl Stream {
    /// How many records the server lacks, while the app is to say what to do about them.
    pub(super) fn asks(&self) -> Option<u64> {
        self.row.loss.filter(|loss| loss.asks()).and_then(|loss| loss.missing)
    }

    /// Whether held records are on their way to the server.
    pub(super) fn is_offering(&self) -> bool {
        let offered = |decision| decision == Some(LossDecision::Offer);
        let due = |loss: &Loss| loss.missing.is_some() && offered(loss.decision);
        self.row.loss.is_some_and(|loss| due(&loss) && !loss.is_plain())
    }

    /// Why the collection is not in step although the server serves it.
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
        for collection in self.held_collections() {
            self.decide_on(edit, &collection, decision)?;
        }
        self.try_at_once(edit, self.config.enable_auto_sync);
        Ok(())
    }

    // --- another database ---

    /// The server's database, where it is another one than this replica is of.
    pub(super) fn other_than_known(&self, told: Option<&DatabaseId>) -> Option<DatabaseId> {
        let known = self.identity.database.as_ref()?;
        let other = told.filter(|told| *told != known && !planted!(OtherDatabaseTaken));
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
            edit.event(Event::remote(EventKind::DifferentDatabase { known, found }));
        }
        self.at_other_database = true;
        match edit.transport {
            Transport::WebSocket => {
                self.lose_connection(edit, "the server has another database");
                self.back_off(edit, core::time::Duration::ZERO);
            }
            Transport::Http => {
                self.drop_exchange(edit);
                self.out_of_reach(edit);
                self.poll_later(core::time::Duration::ZERO);
                self.fallback.in_doubt = true;
            }
        }
        self.fail_syncs(edit);
    }

    /// Calls of `synced` are not answered by another database.
    pub(super) fn fail_syncs(&mut self, edit: &mut Edit<'_>) {
        let Some(found) = self.identity.other_database.clone() else { return };
        let wanted = self.streams.iter().filter(|(_, stream)| stream.wanted);
        let reason = |collection| {
            let found = found.clone();
            SyncFailure::new(collection, SyncFailureReason::DifferentDatabase { found })
        };
        let outcome = Err(wanted.map(|(collection, _)| reason(collection)).collect());
        self.answer_syncs(edit, &outcome, |_, _| true);
    }

    /// From now on the replica is of another database, which knows nothing of it.
    fn move_to(
        &mut self,
        edit: &mut Edit<'_>,
        found: DatabaseId,
        decision: LossDecision,
    ) -> Result<(), StoreError> {
        self.drop_exchange(edit);
        self.lose_connection(edit, "the app has decided what to do about the server's database");
        self.link.state = LinkState::Off;
        self.outbox.drop_hollow(edit)?;
        let Some(client_id) = self.random.client_id() else { return Ok(()) };
        self.identity.client_id = client_id;
        self.identity.session = SessionNumber(0);
        self.identity.confirmed = MutationNumber(0);
        self.identity.digest = None;
        self.identity.database = Some(found);
        self.epoch = None;
        self.at_other_database = false;
        // nothing was sent to this one
        self.outbox.thaw();
        self.identity.forgotten = Forgotten::default();
        self.settle_parked(edit)?;
        for (collection, stream) in &mut self.streams {
            stream.begin_generation();
            stream.phase = Phase::Idle;
            stream.trusted = false;
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
        while let Some((position, entry)) = self.outbox.first_entry(edit)? {
            let code = ErrorCode::Other("DIFFERENT_DATABASE".into());
            let message = String::from(
                "the write was made for another database than the server's; retry sends it to \
                 this one",
            );
            self.reject(edit, position, &entry, code, message)?;
        }
        Ok(())
    }

    // --- records that the server lacks ---

    /// Everything that the server has of a collection was shown: what is still held is missing
    /// there. Says whether nothing is left to do about it.
    pub(super) fn take_stock(
        &mut self,
        edit: &mut Edit<'_>,
        collection: &Collection,
    ) -> Result<bool, StoreError> {
        let Some(mut loss) = self.stream(collection).row.loss else { return Ok(true) };
        if loss.missing.is_none() {
            let missing = self.count_held(edit, collection)?;
            if missing == 0 {
                self.stream(collection).row.loss = None;
                self.save_stream(edit, collection);
                return Ok(true);
            }
            let of = missing + self.stream(collection).row.count;
            loss.decision = loss.decision.or_else(|| self.on_loss(missing, of));
            loss.missing = Some(missing);
            self.stream(collection).row.loss = Some(loss);
            let decision = shown(loss.decision);
            let kind = EventKind::RecordsMissing { missing, of, decision };
            edit.event(Event::remote(kind).on(collection));
        }
        self.short = true;
        let done = self.carry_out_loss(edit, collection)?;
        self.save_stream(edit, collection);
        Ok(done)
    }

    /// What happens to records that the server lacks, where the app has not said so; `None`: it is
    /// asked.
    fn on_loss(&self, missing: u64, of: u64) -> Option<LossDecision> {
        match self.config.on_server_loss {
            Some(OnServerLoss::Adopt) => Some(LossDecision::Adopt),
            Some(OnServerLoss::Offer) => Some(LossDecision::Offer),
            Some(OnServerLoss::Ask) => None,
            None if is_much(missing, of) && !planted!(LossUnasked) => None,
            None => Some(LossDecision::Adopt),
        }
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
        let before = self.stream(collection).row.loss;
        let asked = before.and_then(|loss| loss.decision);
        let few = !is_much(missing, held) || planted!(LossUnasked);
        let decision = match (asked, self.config.on_server_loss) {
            (Some(decision), _) => Some(decision),
            (None, Some(OnServerLoss::Adopt)) => Some(LossDecision::Adopt),
            (None, _) if few => Some(LossDecision::Adopt),
            (None, Some(OnServerLoss::Offer)) => Some(LossDecision::Offer),
            (None, Some(OnServerLoss::Ask) | None) => None,
        };
        let told = before.is_some_and(|loss| loss.missing == Some(missing));
        if !told && !few {
            let decision = shown(decision);
            let kind = EventKind::RecordsMissing { missing, of: held, decision };
            edit.event(Event::remote(kind).on(collection));
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
                for id in gone.iter().take(room) {
                    self.offer_record(edit, collection, id)?;
                }
                gone.len() <= room
            }
            None => false,
        };
        let loss = Loss { since: Loss::PLAIN, missing: Some(missing), decision };
        let loss = Some(loss).filter(|_| !done);
        self.stream(collection).row.loss = loss;
        if loss != before {
            self.show_status(edit, collection);
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
        let stream = self.stream(collection);
        if let Some(loss) = &mut stream.row.loss {
            loss.decision = Some(decision);
        }
        if decision == LossDecision::Offer {
            self.offer_written(edit, collection)?;
        }
        if self.stream(collection).is_short() && self.carry_out_loss(edit, collection)? {
            self.end_loss(edit, collection);
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
        let stream = self.stream(collection);
        let Some(loss) = stream.row.loss else { return Ok(true) };
        if loss.is_plain() {
            // another reconcile shows what it is about
            if let Some(mark) = &mut stream.row.plain {
                mark.reconciled_at = None;
            }
            match (self.plain.active, self.config.http) {
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
            None => return Ok(false),
            Some(LossDecision::Offer) => {
                stream.passed = None;
                return Ok(false);
            }
            Some(LossDecision::Adopt) => {}
        }
        self.stream(collection).passed = None;
        let done = self.adopt_records(edit, collection)?;
        if done {
            self.stream(collection).row.loss = None;
        }
        self.save_stream(edit, collection);
        Ok(done)
    }

    /// The collections of which records are held without the server having shown them.
    fn held_collections(&self) -> Vec<Collection> {
        let held = self.streams.iter().filter(|(_, stream)| stream.row.loss.is_some());
        held.map(|(collection, _)| collection.clone()).collect()
    }

    /// The records behind `after` that are held without the server having shown them, `limit` at
    /// most.
    pub(super) fn held(
        &self,
        edit: &Edit<'_>,
        collection: &Collection,
        after: Option<&RecordId>,
        limit: usize,
    ) -> Result<Vec<RecordId>, StoreError> {
        let Some(stream) = self.streams.get(collection) else { return Ok(Vec::new()) };
        let mut held = Vec::new();
        edit.rows_behind(collection, after, &mut |id, row| {
            if row.server.is_some() && stream.row.is_held(&row) {
                held.push(id);
            }
            if held.len() < limit { Scan::Next } else { Scan::Stop }
        })?;
        Ok(held)
    }

    /// How many records are held without the server having shown them.
    fn count_held(&self, edit: &Edit<'_>, collection: &Collection) -> Result<u64, StoreError> {
        let Some(stream) = self.streams.get(collection) else { return Ok(0) };
        let mut held = 0;
        edit.each_row(collection, &mut |_, row| {
            held += u64::from(row.server.is_some() && stream.row.is_held(&row));
        })?;
        Ok(held)
    }

    // --- offering ---

    /// Goes on with what was decided about records that the server lacks, and ends it where none is
    /// left.
    pub(super) fn pursue_losses(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        if !self.short {
            return Ok(());
        }
        let over = |stream: &Stream| stream.row.loss.is_some_and(|loss| loss.missing == Some(0));
        let over = self.streams.iter().filter(|(_, stream)| over(stream));
        let over: Vec<_> = over.map(|(collection, _)| collection.clone()).collect();
        for collection in over {
            self.end_loss(edit, &collection);
        }
        self.offer_some(edit)?;
        self.adopt_some(edit)?;
        self.short = self.streams.values().any(Stream::is_short);
        Ok(())
    }

    /// Puts held records into the outbox as inserts, as far as it has room.
    fn offer_some(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        if self.outbox.len() > OFFERED_AT_ONCE / 2 || self.plain.active {
            return Ok(());
        }
        let offering = self.streams.iter().find(|(_, stream)| stream.is_offering());
        let Some(collection) = offering.map(|(collection, _)| collection.clone()) else {
            return Ok(());
        };
        let before = self.stream(&collection).row.clone();
        let mut after = self.stream(&collection).passed.take();
        loop {
            let room = OFFERED_AT_ONCE - self.outbox.len();
            let held = self.held(edit, &collection, after.as_ref(), room)?;
            for id in &held {
                self.offer_record(edit, &collection, id)?;
            }
            if held.len() == room {
                self.stream(&collection).passed = held.last().cloned();
                break;
            }
            // a look from the beginning finds nothing that is left
            if after.take().is_none() {
                if !self.has_frozen(edit, &collection, &held)? {
                    self.end_loss(edit, &collection);
                }
                break;
            }
        }
        // a commit for nothing would be reported durable, and lead here again, without end
        if self.stream(&collection).row != before {
            self.save_stream(edit, &collection);
        }
        Ok(())
    }

    /// Nothing is held any more that the server lacks.
    pub(super) fn end_loss(&mut self, edit: &mut Edit<'_>, collection: &Collection) {
        let stream = self.stream(collection);
        stream.row.loss = None;
        if stream.follows() {
            self.in_step(edit, collection);
        }
        self.save_stream(edit, collection);
        self.show_status(edit, collection);
    }

    /// Whether some of these records could not be offered because their writes may be on their way.
    fn has_frozen(
        &self,
        edit: &Edit<'_>,
        collection: &Collection,
        ids: &[RecordId],
    ) -> Result<bool, StoreError> {
        for id in ids {
            let first = edit.first_of(collection, id)?;
            if first.is_some_and(|first| self.outbox.is_frozen(first)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Offers the held records of a collection that have writes which are not on their way: what
    /// they make of the records goes out, and no conflict with nothing at all.
    fn offer_written(
        &mut self,
        edit: &mut Edit<'_>,
        collection: &Collection,
    ) -> Result<(), StoreError> {
        let mut written = BTreeSet::new();
        edit.places(self.outbox.frozen_until(), &mut |_, place| {
            if let Place::Entry(entry) = place
                && entry.collection == *collection
            {
                written.insert(entry.record_id);
            }
            Ok(Scan::Next)
        })?;
        for id in written {
            self.offer_record(edit, collection, &id)?;
        }
        Ok(())
    }

    /// Whether a record is held that goes to a server which lacks it.
    pub(super) fn is_offered(&self, collection: &Collection, row: &Row) -> bool {
        let Some(stream) = self.streams.get(collection) else { return false };
        let Some(loss) = stream.row.loss.filter(|_| stream.row.is_held(row)) else { return false };
        let by_config = self.config.on_server_loss == Some(OnServerLoss::Offer);
        match loss.decision {
            Some(LossDecision::Offer) => true,
            Some(LossDecision::Adopt) => false,
            None => by_config,
        }
    }

    /// Lets a record that is held, with what was written to it since, be one that was made here.
    pub(super) fn offer_record(
        &mut self,
        edit: &mut Edit<'_>,
        collection: &Collection,
        id: &RecordId,
    ) -> Result<(), StoreError> {
        let Some(before) = edit.row(collection, id)? else { return Ok(()) };
        let held = self.plain.active || self.stream(collection).row.is_held(&before);
        if before.server.is_none() || !held {
            return Ok(());
        }
        let written_at = seen(edit, collection, id, &before)?;
        let entries = edit.entries_of(collection, id)?;
        let first = entries.first().map(|(position, _)| *position);
        if first.is_some_and(|first| self.outbox.is_frozen(first)) {
            return Ok(());
        }
        for (position, entry) in &entries {
            self.outbox.remove(edit, *position, entry);
            (edit.gates, edit.flush) = (true, true);
        }
        let view = before.view().cloned();
        let mut row = Row { pending: None, ..before.clone() };
        set_server(&mut self.stream(collection).row, id, &mut row, None, Seq(0));
        let write = first.filter(|_| view.is_some());
        if entries.len() > usize::from(write.is_some()) {
            let merged = entries.iter().map(|(position, _)| *position).collect();
            let kind = EventKind::OperationsMerged { write, merged };
            edit.event(Event::local(kind).of(collection, id));
        }
        if let Some(view) = view.filter(|_| !planted!(OfferedForgotten)) {
            let change = Change::insert(view.clone());
            let (of, record_id) = (collection.clone(), id.clone());
            let (at, stamped) = (Vec::new(), None);
            let entry = Entry { collection: of, record_id, change, written_at, at, stamped };
            let position = self.outbox.replace(edit, first, entry);
            row.pending = Some(Pending { view: Some(view), written_at, parked: None });
            let kind = EventKind::OperationQueued { write: position };
            edit.event(Event::local(kind).of(collection, id));
        }
        edit.put_row(collection, id, Some(&before), &row);
        Ok(())
    }
}

/// Whether so many of a collection's records are missing that it may be a mistake.
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
