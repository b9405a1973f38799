//! The server states of records: each is set together with the count and the checksum of its
//! collection, so that they stay in step.

use super::figures::Figures;
use super::{Row, StreamRow};
use crate::protocol::document::Document;
use crate::protocol::name::{RecordId, Seq};

impl StreamRow {
    /// Adds a stored record to figures, if it is one that the server has shown.
    pub(crate) fn add_to(&self, figures: &mut Figures, id: &RecordId, row: &Row) {
        if let Some(document) = row.server.as_ref().filter(|_| !self.is_held(row)) {
            figures.add(id, row.seq, document, self.counts(document));
        }
    }

    /// Changes the figures that a record is in: those of all, and those of a counting that has passed it.
    fn each_figures(&mut self, id: &RecordId, change: impl Fn(&mut Figures)) {
        change(&mut self.figures);
        if let Some(recount) = &mut self.recount
            && recount.up_to.as_ref().is_some_and(|up_to| id <= up_to)
        {
            change(&mut recount.figures);
        }
    }

    /// Returns the seq at which a record's state was learnt, 0 if that was in an earlier generation.
    pub(crate) fn learnt(&self, row: Option<&Row>) -> Seq {
        row.filter(|row| row.generation == self.generation).map_or(Seq(0), |row| row.seq)
    }

    /// The number of times that a document counts: once in a whole collection, and once in each scope of
    /// the set.
    pub(crate) fn counts(&self, document: &Document) -> u64 {
        self.set.as_ref().map_or(1, |set| set.count(document))
    }

    /// Returns `true` if a record's server state lies in what is held, or there is none: in a scope of which
    /// something was loaded, or, until a reload has shown it, in any scope of the set. A state that no server
    /// has shown yet, of a write that a hello has confirmed, waits for the load of its scope.
    pub(crate) fn has_place_for(&self, row: &Row) -> bool {
        let (Some(set), Some(document)) = (&self.set, &row.server) else { return true };
        set.holds(document) || self.is_held(row) && set.count(document) > 0
    }

    /// Sets a record's server state as it was learnt now.
    pub(crate) fn set_server(
        &mut self,
        id: &RecordId,
        row: &mut Row,
        server: Option<Document>,
        seq: Seq,
    ) {
        self.set_server_of(id, row, server, (seq, self.generation));
    }

    /// Sets a server state that was not learnt now: it is known up to `seq`, as of the generation in
    /// which the record was learnt last.
    pub(crate) fn set_unlearnt(
        &mut self,
        id: &RecordId,
        row: &mut Row,
        server: Option<Document>,
        seq: Seq,
    ) {
        self.set_server_of(id, row, server, (seq, row.generation));
    }

    /// Takes a record's server state out of sight, as it has been since `seq`: of the state beneath
    /// its pending writes, only the deferred one is known.
    pub(crate) fn withhold(&mut self, id: &RecordId, row: &mut Row, seq: Seq) {
        let outdated = row.generation != self.generation;
        self.set_server(id, row, None, seq);
        if let Some(deferred) = row.deferred_mut() {
            deferred.withheld = true;
            if outdated {
                deferred.seq = Seq(0);
            }
        }
    }

    /// Sets a server state that is known up to a seq of a generation. A held record that the server
    /// has not shown is not counted.
    fn set_server_of(
        &mut self,
        id: &RecordId,
        row: &mut Row,
        server: Option<Document>,
        (seq, generation): (Seq, u64),
    ) {
        if let Some(old) = &row.server {
            if self.is_held(row) {
                self.miss(-1);
            } else {
                let times = self.counts(old);
                self.each_figures(id, |figures| figures.remove(id, row.seq, old, times));
            }
        }
        row.server = server;
        row.seq = seq;
        row.generation = generation;
        if let Some(deferred) = row.deferred_mut() {
            deferred.withheld = false;
        }
        if let Some(new) = &row.server {
            if self.is_held(row) {
                self.miss(1);
            } else {
                let times = self.counts(new);
                self.each_figures(id, |figures| figures.add(id, row.seq, new, times));
            }
        }
    }
}
