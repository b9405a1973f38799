//! Plain (level-1) servers: no acknowledgements, no cursors, no tombstones.
//!
//! | file | story |
//! | --- | --- |
//! | `socket` | how one is recognised, and what goes over its WebSocket |
//! | `work` | what goes by HTTP: pulls, then pushes |
//! | `candidate` | how one is recognised by HTTP, and what is no server at all |
//! | `push` | a write by HTTP |
//! | `weigh` | what the answer to one says, and what has to be read again first |
//! | `pull` | reading a collection whose rows move while it is read |
//! | `records` | what its words make of a record, and say of own writes |
//! | `echo` | own writes that it sends back |

mod candidate;
mod echo;
mod pull;
mod push;
mod records;
mod socket;
mod weigh;
mod work;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use core::time::Duration;

use self::candidate::Candidate;
use self::echo::Echoes;
use self::pull::{Habits, Pull};
use self::weigh::Doubt;
use self::work::Work;
use super::edit::Edit;
use super::interface::{PlainServers, RequestId};
use super::machine::Client;
use crate::rules::row::PlainMark;
use crate::words::name::{Collection, Position};
use crate::words::store::StoreError;
use crate::words::time::Mono;

/// How long a write takes to arrive by WebSocket, at most: what is read by HTTP later than this
/// after the send shows it.
const ARRIVAL: Duration = Duration::from_secs(1);
/// How long confirming waits for further writes.
const LONGEST_GATHERING: Duration = Duration::from_secs(5);
/// The most records that are noted as learnt while a collection is read.
const MAX_TOUCHED: usize = 65_536;
/// How soon something is read again that changed while it was read.
const READ_AGAIN: Duration = Duration::from_secs(5);
/// How often in a row HTTP may fail before writes that may have been sent are sent again by
/// WebSocket.
const HTTP_FAILURES: u32 = 3;

/// What there is to a plain server beside what all servers have.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Plain {
    /// Whether the server is taken for a plain one: on this connection, or by HTTP since the last.
    pub(super) active: bool,
    /// What does not know the hello by HTTP, and has not shown yet to be a plain server.
    pub(super) candidate: Option<Candidate>,
    /// Whether it has answered a call of the plain protocol well, by HTTP and since the start.
    proven: bool,
    /// Whether the last work could not read a collection now.
    missed: bool,
    /// A write whose answer is believed only after its collection was read again.
    doubt: Option<Doubt>,
    /// Whether it answers pings in JSON.
    json_pong: bool,
    /// Whether it was asked whether its WebSocket lives while it did not answer the hello, and
    /// whether it did.
    probed: bool,
    probe_answered: bool,
    /// What was sent on this connection and is not confirmed, with the time.
    sent: VecDeque<(Position, Mono)>,
    /// WebSocket pings without an answer that were to prove that what went before has arrived.
    proof: Option<Proof>,
    echoes: Echoes,
    /// What is under way by HTTP.
    work: Option<Work>,
    /// When it is to be found out by HTTP what has become of what was sent.
    confirm_at: Option<Mono>,
    /// Until when nothing is sent, because the server's state of what may have been sent before is
    /// awaited.
    settling_until: Option<Mono>,
    /// How many works in a row have failed.
    failures: u32,
}

/// A ping that proves by its pong that the server has read what was sent before it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Proof {
    /// What was sent before lies in front of this position.
    until: Position,
    at: Mono,
}

/// What is remembered of a collection at a plain server.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct PlainStream {
    habits: Habits,
    /// The reading under way, which may take more than one try.
    pull: Option<Pull>,
    pull_began: Mono,
    /// Hashes of the ids of records whose state was learnt on another way, and when: what was asked
    /// for before may show an older state.
    touched: BTreeMap<u64, Mono>,
    /// When more records were learnt than are noted: since then every record counts as learnt on
    /// another way.
    overflowed: Option<Mono>,
    /// When the whole collection was asked for by WebSocket.
    asked_whole: Option<Mono>,
    /// Whether something was left out that another reading shows.
    incomplete: bool,
    /// Whether it was told of this pull that rows can't be read.
    complained: bool,
}

impl PlainStream {
    fn touch(&mut self, id: u64, now: Mono) {
        if self.pull.is_none() && self.asked_whole.is_none() {
            return;
        }
        if self.touched.len() >= MAX_TOUCHED && !self.touched.contains_key(&id) {
            self.touched.clear();
            self.overflowed = Some(now);
        }
        self.touched.insert(id, now);
    }

    fn is_touched(&self, id: u64, since: Mono) -> bool {
        let touched = self.touched.get(&id).is_some_and(|at| *at >= since);
        touched || self.overflowed.is_some_and(|at| at >= since)
    }

    /// Whether the whole collection was asked for by WebSocket and has not come.
    pub(super) fn is_awaited(&self) -> bool {
        self.asked_whole.is_some()
    }

    /// Nothing is being read any more.
    fn rest(&mut self) {
        if self.pull.is_none() && self.asked_whole.is_none() {
            self.touched.clear();
            self.overflowed = None;
        }
    }
}

impl Plain {
    /// A write is no longer in the outbox.
    pub(super) fn forget(&mut self, position: Position) {
        self.sent.retain(|(sent, _)| *sent != position);
    }

    /// The connection is gone.
    pub(super) fn lose_connection(&mut self) {
        self.sent.clear();
        self.proof = None;
        self.echoes.clear();
        self.confirm_at = None;
        self.settling_until = None;
        (self.json_pong, self.probed, self.probe_answered) = (false, false, false);
    }
}

impl Client {
    /// Whether a write that may have been sent can be given up by hand: nothing waits for it.
    pub(super) fn plain_may_drop(&self, write: Position) -> bool {
        let asked = self.plain.work.as_ref().is_some_and(|work| work.asked.is_some());
        self.plain.active && !asked && self.plain.sent.iter().all(|(sent, _)| *sent != write)
    }

    /// Why a server that shows to be a plain one is not accepted as such.
    fn refuses_plain(&self) -> Option<&'static str> {
        match self.config.plain {
            PlainServers::AllowDowngrade => None,
            PlainServers::Never => Some("plain servers are not accepted (PlainServers::Never)"),
            PlainServers::Detect | PlainServers::Silent => {
                self.identity.resumable.contains(&self.address()).then_some(
                    "it offered level 2 before (PlainServers::AllowDowngrade accepts less)",
                )
            }
        }
    }

    fn address(&self) -> u64 {
        records::hash_of(&self.config.address)
    }

    /// This address offers level 2, and is not believed to offer less from now on.
    pub(super) fn remember_resumable(&mut self) {
        let address = self.address();
        let is_known = self.identity.resumable.contains(&address);
        if !is_known && !planted!(DowngradeTaken) {
            self.identity.resumable.push(address);
        }
    }

    /// From now on the server is a plain one: nothing that it says has a seq.
    fn become_plain(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        if self.plain.active {
            return Ok(());
        }
        self.plain.active = true;
        self.epoch = None;
        self.outbox.drop_hollow(edit)?;
        self.outbox.advance_head(edit)?;
        let address = self.address();
        for (collection, stream) in &mut self.streams {
            stream.forget_seqs();
            stream.trusted = true;
            // what was held is found by reconciling, and counted again at a server of level 2
            stream.row.loss = None;
            stream.unverified = true;
            if stream.row.plain.is_none_or(|mark| mark.address != address) {
                stream.row.plain = Some(PlainMark { address, ..PlainMark::default() });
            }
            edit.put_stream(collection, &stream.row);
        }
        Ok(())
    }

    /// The mark of a collection at this server.
    fn mark(&self, collection: &Collection) -> PlainMark {
        let address = self.address();
        let mark = self.streams.get(collection).and_then(|stream| stream.row.plain);
        let own = mark.filter(|mark| mark.address == address);
        own.unwrap_or(PlainMark { address, ..PlainMark::default() })
    }

    /// When something is due at a plain server.
    pub(super) fn plain_deadline(&self) -> Option<Mono> {
        if !self.plain.active {
            return None;
        }
        let ready = self.link.ready_since();
        let idle = !self.config.http || self.plain.work.is_none() && self.may_poll();
        let unproven = self.plain.proof.map(|proof| proof.at + self.config.ping_timeout);
        [
            ready.and(self.plain.confirm_at).filter(|_| idle),
            ready.and(self.plain.settling_until),
            ready.and(unproven),
            ready.and(self.plain.echoes.deadline()),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does what is due.
    pub(super) fn plain_due(&mut self, edit: &mut Edit<'_>) -> Result<(), StoreError> {
        let now = self.now.mono;
        let is_due = |at: Option<Mono>| at.is_some_and(|at| at <= now);
        if is_due(self.plain.settling_until) {
            self.plain.settling_until = None;
        }
        if is_due(self.plain.proof.map(|proof| proof.at + self.config.ping_timeout)) {
            // the connection lives, so what went out on it has long arrived
            self.proved(edit)?;
        }
        for ((collection, id), news) in self.plain.echoes.release(now) {
            self.take_plain_change(edit, &collection, &id, &news)?;
        }
        if is_due(self.plain.confirm_at) && self.plain.work.is_none() {
            self.plain.confirm_at = None;
            if !self.config.http {
                self.ask_incomplete(edit);
                return Ok(());
            }
            let frozen = self.outbox.frozen_records(edit)?;
            let mut due: BTreeSet<_> =
                frozen.into_iter().map(|(collection, _)| collection).collect();
            let again = self.streams.iter().filter(|(_, stream)| stream.plain.incomplete);
            due.extend(again.map(|(collection, _)| collection.clone()));
            // what `synced` waits for could not be read the last time
            let again = core::mem::take(&mut self.plain.missed) && !self.syncs.is_empty();
            if again { self.begin_poll() } else { self.begin_work(due) }
        }
        Ok(())
    }
}

/// A request that is out.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Asked<W> {
    request: RequestId,
    at: Mono,
    /// Until when it has to be answered, because its connection may have died unnoticed.
    hurry: Option<Mono>,
    what: W,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_can_not_make_the_notes_of_a_reading_grow_without_end() {
        let mut stream = PlainStream { asked_whole: Some(Mono(1)), ..PlainStream::default() };
        for id in 0..3 * MAX_TOUCHED as u64 {
            stream.touch(id, Mono(2));
            assert!(stream.touched.len() <= MAX_TOUCHED);
        }
        // what is no longer noted counts as touched all the same
        assert!(stream.is_touched(0, Mono(2)) && stream.is_touched(u64::MAX, Mono(1)));
        assert!(!stream.is_touched(0, Mono(3)));
        stream.asked_whole = None;
        stream.rest();
        assert!(!stream.is_touched(0, Mono(0)));
    }
}
