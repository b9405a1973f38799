//! Collections that are held by scopes: what is asked for, what is taken out, and the rows that lie in it.
//!
//! A row's server state lies in a scope of the set of which something was loaded, or there is none: the
//! cursor vouches for what is held, and for nothing else (PROTOCOL 9.50).

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::edit::Edit;
use super::event::EventKind;
use super::machine::Client;
use super::rebase::forget_gone_fields;
use super::records::Records;
use super::step::StepError;
use super::stream::{Phase, Stream, StreamError};
use crate::protocol::message::{ErrorCode, Resume};
use crate::protocol::name::{Collection, RecordId};
use crate::protocol::scopes::{LoadPlace, ScopeName, ScopePage, ScopePlace};
use crate::rules::row::{Deferred, HeldSet, Row};
use crate::rules::scope::NamedScope;
use crate::store::StoreError;

/// A server that holds collections whole.
const WHOLE_ONLY: &str = "the server can't serve scopes of a collection: nothing of it is read; update the \
                          server, or use the collection without a scope, which reads all of it";

impl Client {
    /// The app uses a scope, from now on or still.
    pub(super) fn use_scope(&mut self, collection: &Collection, scope: NamedScope) {
        let welcomed = self.link.ready_since().is_some();
        let is_new = !self.streams.contains(collection);
        let stream = self.streams.used(collection);
        if is_new && welcomed {
            // there is no cursor of it that a server which has answered could call invalid
            stream.trust();
        }
        stream.use_scope(scope);
    }

    /// Brings the sets of scopes in line with what the app uses.
    pub(super) fn adjust_sets(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        for collection in self.streams.unadjusted() {
            if let Some(mut records) = self.records(&collection) {
                records.adjust_set(edit)?;
            }
        }
        Ok(())
    }

    /// The server has refused scopes, or ended their subscription.
    pub(super) fn scopes_refused(
        &mut self,
        edit: &mut Edit<'_>,
        collection: &Collection,
        refused: &[ScopeName],
    ) -> Result<(), StepError> {
        let named = Some(refused).filter(|refused| !refused.is_empty());
        let Some((refused, mut records)) = named.zip(self.records(collection)) else {
            return Ok(());
        };
        // those that were taken out already are named again in each answer
        let scopes = refused.iter().filter_map(|name| NamedScope::of(name).ok());
        let scopes: Vec<_> = scopes.filter(|scope| records.has_scope(scope)).collect();
        if scopes.is_empty() {
            return Ok(());
        }
        let row = &records.stream.row;
        let (generation, resumed) = (row.generation, row.resume.is_some());
        records.take_out(edit, &scopes)?;
        // what a run has passed over because of a scope, only a run from the cursor tells
        let begins_anew = resumed || records.stream.row.generation != generation;
        let code = ErrorCode::Unauthorized;
        for scope in &scopes {
            records.stream.refuse_scope(scope.clone());
            let message = format!(
                "the server refuses the scope {scope}: this user may not read it, or the server has \
                         no such scope key; its records are gone here"
            );
            let (collection, code) = (collection.clone(), code.clone());
            edit.remote_event(EventKind::SyncFailed { collection, code, message });
        }
        if !records.stream.refuse_if_empty() && begins_anew {
            records.stream.set_changed();
        }
        records.save(edit);
        records.show_status(edit);
        Ok(())
    }

    /// The server has ended the subscription of scopes.
    pub(super) fn scopes_ended(
        &mut self,
        edit: &mut Edit<'_>,
        collection: &Collection,
        scopes: &[ScopeName],
    ) -> Result<(), StepError> {
        let phase = self.streams.get(collection).map(Stream::phase);
        if matches!(phase, Some(Phase::CatchingUp | Phase::Live)) {
            return self.scopes_refused(edit, collection, scopes);
        }
        edit.ignore();
        Ok(())
    }

    /// Refuses the collections that are held by scopes, if the server has none.
    pub(super) fn refuse_sets(&mut self, edit: &mut Edit<'_>) {
        let is_known = self.peer.epoch().is_some() || self.peer.is_plain();
        if !is_known || self.peer.takes_scopes() {
            return;
        }
        let is_due = |stream: &Stream| stream.is_scoped() && stream.is_subscribe_due(true);
        let due = self.streams.due();
        let due = due.iter().filter(|name| self.streams.get(name).is_some_and(is_due));
        for collection in due.cloned().collect::<Vec<_>>() {
            self.refuse_set(edit, &collection);
        }
    }

    /// The same in an exchange by HTTP.
    pub(super) fn refuse_pulled_sets(&mut self, edit: &mut Edit<'_>, exchange: u64) {
        if self.peer.takes_scopes() {
            return;
        }
        let is_due = |stream: &Stream| stream.is_scoped() && stream.is_pull_due(exchange);
        for collection in self.streams.names_of(is_due) {
            self.refuse_set(edit, &collection);
            if let Some(stream) = self.streams.get_mut(&collection) {
                stream.pulled_in(exchange);
            }
        }
    }

    /// The server can't serve a part of a collection.
    pub(super) fn refuse_set(&mut self, edit: &mut Edit<'_>, collection: &Collection) {
        let Some(records) = self.records(collection) else { return };
        let code = ErrorCode::Other("SCOPES_NOT_SUPPORTED".into());
        if records.stream.vouch() {
            records.save(edit);
        }
        records.stream.refuse(StreamError::new(&code, WHOLE_ONLY), None);
        records.show_status(edit);
        let (collection, message) = (collection.clone(), WHOLE_ONLY.into());
        edit.remote_event(EventKind::SyncFailed { collection, code, message });
    }
}

impl Client {
    /// Checks that no row has a server state that lies in no scope of the set.
    pub(super) fn check_scopes(&self, edit: &Edit<'_>) -> Result<(), String> {
        for (collection, stream) in self.streams.iter().filter(|(_, stream)| stream.is_scoped()) {
            let mut outside = None;
            let read = edit.each_row(collection, &mut |id, row| {
                if !stream.row.has_place_for(&row) {
                    outside = Some(id.clone());
                }
            });
            read.map_err(|error| error.message)?;
            if let Some(id) = outside {
                return Err(format!("{collection}/{id} lies in no scope that is held"));
            }
        }
        Ok(())
    }
}

impl Records<'_> {
    fn has_scope(&self, scope: &NamedScope) -> bool {
        self.stream.row.set.as_ref().is_some_and(|set| set.contains(scope))
    }

    /// Brings the set in line with what the app uses.
    fn adjust_set(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        let before = self.stream.row.set.clone();
        let stream = &mut self.stream;
        if stream.is_subscribed() {
            if stream.is_scoped() {
                self.become_whole(edit)?;
            }
        } else if stream.is_scoped() {
            self.add_missing(edit)?;
        } else if stream.uses_scopes() && stream.holds_nothing() {
            stream.row.set = Some(HeldSet::default());
            self.add_missing(edit)?;
        } else if stream.uses_scopes() {
            // it was held whole: the rows outside the scopes go when it was unused for long enough
            stream.want(false);
        }
        self.stream.set_is_right();
        if self.stream.row.set != before {
            self.save(edit);
        }
        Ok(())
    }

    /// Adds the scopes that the app uses, as far as they fit; for them, scopes go that nothing uses.
    fn add_missing(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        let superfluous = self.stream.superfluous_scopes();
        self.take_out(edit, &superfluous)?;
        let missing: Vec<_> = self.stream.missing_scopes().cloned().collect();
        let Some(set) = &mut self.stream.row.set else { return Ok(()) };
        let mut refused = Vec::new();
        let is_new = !missing.is_empty() || !superfluous.is_empty();
        for scope in missing {
            if set.is_full() {
                refused.push(scope);
            } else {
                set.add(scope, ScopePlace::Waiting);
            }
        }
        for scope in refused {
            let collection = self.collection.clone();
            let message = format!("the scope {scope} is one too many: release others first");
            let code = ErrorCode::PayloadTooLarge;
            edit.event(EventKind::SyncFailed { collection, code, message });
            self.stream.refuse_scope(scope);
        }
        if is_new {
            self.stream.set_changed();
        }
        Ok(())
    }

    /// Takes scopes out that nothing has used for long enough, and asks for those that are left.
    pub(super) fn take_out_idle(
        &mut self,
        edit: &mut Edit<'_>,
        scopes: &[NamedScope],
    ) -> Result<(), StoreError> {
        self.take_out(edit, scopes)?;
        // an empty set is left, as a collection is
        if self.stream.is_wanted() {
            self.stream.set_changed();
        }
        self.save(edit);
        self.show_status(edit);
        Ok(())
    }

    /// Takes scopes out of the set, with the rows that nothing else holds.
    fn take_out(&mut self, edit: &mut Edit<'_>, scopes: &[NamedScope]) -> Result<(), StoreError> {
        let row = &mut self.stream.row;
        let Some(set) = row.set.as_mut().filter(|_| !scopes.is_empty()) else { return Ok(()) };
        let removed: Vec<_> = scopes.iter().filter_map(|scope| set.remove(scope)).collect();
        let lacks_cursor = !set.has_loaded();
        let was_loading = |place: &ScopePlace| matches!(place, ScopePlace::Loading(_));
        // rows are held at newer states than the cursor tells of
        row.behind |= row.resume.is_some() || removed.iter().any(was_loading);
        row.resume = None;
        if lacks_cursor && row.cursor.is_some() {
            self.stream.begin_generation();
        }
        self.fit_all(edit)?;
        self.stream.set_is_right();
        Ok(())
    }

    /// The collection, which was held whole, is held by the scopes that the app uses from now on.
    pub(super) fn become_scoped(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        let row = &mut self.stream.row;
        let is_snapshot = matches!(row.resume, Some(Resume::Snapshot { .. }));
        row.behind |= row.resume.is_some();
        row.resume = None;
        if row.cursor.is_none() || is_snapshot {
            self.stream.begin_generation();
        }
        let is_known = self.stream.row.cursor.is_some();
        let place = if is_known { ScopePlace::Loaded } else { ScopePlace::Waiting };
        let mut set = HeldSet::default();
        for scope in self.stream.used_scopes() {
            if !set.is_full() {
                set.add(scope.clone(), place.clone());
            }
        }
        self.stream.row.set = Some(set);
        self.fit_all(edit)?;
        self.stream.set_is_right();
        self.stream.set_changed();
        self.save(edit);
        self.show_status(edit);
        Ok(())
    }

    /// The collection, which was held by scopes, is held whole from now on: by a snapshot.
    fn become_whole(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        self.stream.row.set = None;
        self.stream.ask_whole();
        self.recount(edit)?;
        self.show_status(edit);
        Ok(())
    }

    /// Lets the rows go that lie in no scope of the set.
    fn fit_all(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        let mut outside = Vec::new();
        let stream = &self.stream.row;
        edit.each_row(self.collection, &mut |id, row| {
            if !stream.has_place_for(&row) {
                outside.push(id.clone());
            }
        })?;
        for id in outside {
            let Some(before) = edit.row(self.collection, &id)? else { continue };
            let mut row = before.clone();
            self.fit(&id, &mut row);
            edit.put_row(self.collection, &id, Some(&before), &row);
        }
        self.recount(edit)
    }

    /// Takes a record out of sight whose server state lies in no scope that is held: pending writes keep
    /// the state that they were made on, with its own seq as their base; without such the row goes.
    pub(super) fn fit(&mut self, id: &RecordId, row: &mut Row) {
        if self.stream.row.has_place_for(row) {
            return;
        }
        let seq = self.stream.row.learnt(Some(row));
        if let Some(pending) = &mut row.pending
            && pending.deferred.is_none()
        {
            pending.deferred = Some(Deferred::new(row.server.clone(), seq, Vec::new()));
        }
        self.stream.row.withhold(id, row, seq);
        forget_gone_fields(row);
    }

    /// A page of the load of a scope has come.
    pub(super) fn loaded(
        &mut self,
        edit: &mut Edit<'_>,
        page: &ScopePage,
    ) -> Result<(), StepError> {
        if self.stream.phase() != Phase::CatchingUp || !self.stream.answers(Some(page.set)) {
            edit.ignore();
            return Ok(());
        }
        if page.records.iter().any(|record| record.seq.is_none()) {
            return Err(StepError::peer("a scope's page has a record without a seq"));
        }
        let Some(epoch) = self.peer.epoch().cloned() else { return Ok(()) };
        let scope = self.continue_load(page)?;
        let load = LoadPlace {
            epoch: epoch.clone(),
            snapshot_seq: page.snapshot_seq,
            after: page.up_to.unwrap_or_default(),
        };
        // the scope holds rows from now on, of a later view than the cursor
        self.set_place(&scope, ScopePlace::Loading(load));
        self.stream.row.behind = true;
        self.learn_records(edit, &page.records)?;
        for left in &page.left {
            let before = edit.row(self.collection, &left.id)?;
            self.lose_sight(edit, &left.id, before, left.seq)?;
        }
        if page.up_to.is_none() {
            self.set_place(&scope, ScopePlace::Loaded);
            self.stream.begin_cursor(epoch, page.snapshot_seq);
        }
        self.page_received(edit, &page.records);
        Ok(())
    }

    /// Returns the scope of a page that goes on where its load stands, or begins it.
    fn continue_load(&self, page: &ScopePage) -> Result<NamedScope, StepError> {
        let scope = NamedScope::of(&page.scope).ok();
        let set = self.stream.row.set.as_ref();
        let place = scope.as_ref().zip(set).and_then(|(scope, set)| set.place(scope));
        let follows = match (place, page.after) {
            (Some(ScopePlace::Waiting), None) => true,
            (Some(ScopePlace::Loading(load)), Some(after)) => {
                load.after == after && load.snapshot_seq == page.snapshot_seq
            }
            (Some(ScopePlace::Waiting | ScopePlace::Loading(_) | ScopePlace::Loaded) | None, _) => {
                false
            }
        };
        let scope = scope.filter(|_| follows);
        scope.ok_or_else(|| StepError::peer("a scope's page does not follow the one before"))
    }

    fn set_place(&mut self, scope: &NamedScope, place: ScopePlace) {
        if let Some(set) = &mut self.stream.row.set {
            set.set_place(scope, place);
        }
    }
}
