//! Plain (level-1) servers: no acknowledgements, no cursors, no tombstones.
//!
//! | file | story |
//! | --- | --- |
//! | `turn` | how a server becomes one, and what is due at one |
//! | `socket` | how one is recognised, and what goes over its WebSocket |
//! | `work` | what goes by HTTP: pulls, then pushes |
//! | `page` | what a page says, and what follows where there is none |
//! | `candidate` | how one is recognised by HTTP, and what is no server at all |
//! | `push` | a write by HTTP |
//! | `weigh` | what the answer to one says, and what has to be read again first |
//! | `pull` | reading a collection whose rows move while it is read |
//! | `records` | what its words make of a record, and say of own writes |
//! | `echo` | own writes that it sends back |

mod candidate;
mod echo;
mod page;
mod pull;
mod push;
mod records;
mod socket;
mod turn;
mod weigh;
mod work;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use core::time::Duration;

use self::echo::Echoes;
use self::pull::{Habits, Pull};
use super::config::ClientConfig;
use super::interface::{RequestId, SyncId};
use super::peer::Resumable;
use super::throttle::Throttle;
use crate::protocol::name::{Collection, WriteId};
use crate::protocol::time::Mono;

/// The longest time that a write takes to arrive by WebSocket: an answer by HTTP that was asked for
/// later than this after the send shows the write.
const ARRIVAL: Duration = Duration::from_secs(1);
/// The longest time for which confirming waits for further writes.
const LONGEST_GATHERING: Duration = Duration::from_secs(5);
/// The most records that are noted as learnt while a collection is read.
const MAX_TOUCHED: usize = 65_536;
/// The time until a collection is read again that changed while it was read.
const READ_AGAIN: Duration = Duration::from_secs(5);
/// The number of failures of HTTP in a row after which writes that may have been sent are sent again
/// by WebSocket.
const HTTP_FAILURES: u32 = 3;

/// The knowledge of a plain server, and what is under way at it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Plain {
    /// `true` if it has answered a call of the plain protocol well, by HTTP and since the start.
    proven: bool,
    /// `true` if the last work could not read a collection now.
    missed: bool,
    /// A write whose answer is believed only after its collection was read again.
    doubt: Option<Doubt>,
    /// `true` if it answers pings in JSON.
    json_pong: bool,
    /// The writes that were sent on this connection and are not confirmed, with the time.
    sent: VecDeque<(WriteId, Mono)>,
    /// WebSocket pings without an answer that were to prove that what went before has arrived.
    proof: Option<Proof>,
    echoes: Echoes,
    /// The work under way by HTTP.
    pub(super) work: Option<Work>,
    /// When it is to be found out by HTTP what has become of what was sent.
    confirm_at: Option<Mono>,
    /// Until when nothing is sent, because the server's state of what may have been sent before is
    /// awaited.
    settling_until: Option<Mono>,
    /// The number of works in a row that have failed.
    failures: u32,
}

/// A ping that proves by its pong that the server has read what was sent before it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Proof {
    /// The writes that were sent before lie in front of this id.
    until: WriteId,
    at: Mono,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum What {
    Page(Collection),
    Push(WriteId),
}

/// Pulls of some collections, then pushes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Work {
    /// The collections that are still to be pulled.
    due: BTreeSet<Collection>,
    asked: Option<Asked<What>>,
    /// `true` if it covers every collection.
    whole: bool,
    /// `true` if the pulls are done.
    pushing: bool,
    /// `true` if pulls were asked for to find out whether the answer to a push can be believed.
    looks: bool,
    /// The collections of which it was found out what they hold, and what is gone.
    reconciled: BTreeSet<Collection>,
    /// Writes that were sent by WebSocket and have not arrived.
    missing: BTreeSet<WriteId>,
    /// The next call of `synced` when the work began. The end of the work answers the calls before it.
    syncs: SyncId,
    /// `true` if a collection could not be pulled.
    troubled: bool,
    /// `true` if a page was read.
    read: bool,
    /// The collections that could not be read now, because of the server or of something on the way:
    /// nothing is decided about its writes.
    missed: BTreeSet<Collection>,
    /// `true` if something was read.
    changed: bool,
    pub(super) throttle: Throttle,
}

/// A peer that does not know the hello by HTTP, and has not yet proved to be a plain server.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Candidate {
    /// The server of level 2 that it was before it did not know the hello.
    pub(super) before: Option<Resumable>,
    /// The calls of the plain protocol that show what it is.
    pub(super) work: Work,
    /// The answer to the hello.
    hello: String,
    /// The failure that the answer to the hello is, if no call shows a plain server: it does not say
    /// that there is none of level 2.
    failure: Option<HelloFailure>,
    /// `true` if the hello may have been answered so by a server of level 2, for a body that broke off,
    /// or by a portal: an empty list then shows nothing at first.
    is_doubtful: bool,
    /// An empty list has come, which shows no server yet.
    found_empty_list: bool,
    /// A digest of the answer to the hello. What says the same to everything is something on the way.
    said: u64,
    /// The call of the plain protocol that was answered last, and how.
    call: Option<(Collection, String)>,
}

/// A refusal of a hello that a server of level 2 may give too, or something on the way to it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct HelloFailure {
    pub(super) status: u16,
    /// The refusal, for people.
    pub(super) message: String,
}

/// The answer to a write that is not believed yet.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Doubt {
    write: WriteId,
    collection: Collection,
    status: u16,
    /// The number of times in a row that it was answered so.
    times: u32,
    /// `true` if the collection was read since.
    looked: bool,
}

/// The state of a collection at a plain server.
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
    /// `true` if something was left out that another reading shows.
    incomplete: bool,
    /// `true` if it was told of this pull that rows can't be read.
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

    /// Returns `true` if the whole collection was asked for by WebSocket and has not come.
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
    /// A server at which some work is under way.
    pub(super) fn doing(work: Work) -> Self {
        Self { work: Some(work), ..Self::default() }
    }

    /// Returns `true` if a collection is read to find out whether an answer can be believed.
    pub(super) fn looks_at(&self, collection: &Collection) -> bool {
        let doubt = self.doubt.as_ref();
        doubt.is_some_and(|doubt| doubt.collection == *collection && !doubt.looked)
            && self.work.as_ref().is_some_and(|work| work.looks)
    }

    /// A collection was read.
    pub(super) fn looked_at(&mut self, collection: &Collection) {
        if let Some(doubt) = self.doubt.as_mut().filter(|doubt| doubt.collection == *collection) {
            doubt.looked = true;
        }
    }

    /// Returns `true` if writes wait until what was sent is judged, or pushed by HTTP.
    fn is_busy(&self) -> bool {
        let pushing = self.work.as_ref().is_some_and(|work| work.pushing);
        self.settling_until.is_some() || pushing
    }

    /// Returns `true` if a write was sent on this connection and is not confirmed.
    fn has_sent(&self, write: WriteId) -> bool {
        self.sent.iter().any(|(sent, _)| *sent == write)
    }

    /// The time at which what was sent counts as arrived even without a pong.
    fn unproven_until(&self, config: &ClientConfig) -> Option<Mono> {
        self.proof.map(|proof| proof.at + config.ping_timeout)
    }

    /// Confirming begins by this time.
    fn confirm_by(&mut self, at: Mono) {
        self.confirm_at = Some(self.confirm_at.map_or(at, |due| due.min(at)));
    }

    /// A write is no longer in the outbox.
    pub(super) fn forget(&mut self, write: WriteId) {
        self.sent.retain(|(sent, _)| *sent != write);
    }

    /// The connection is gone.
    pub(super) fn lose_connection(&mut self) {
        self.sent.clear();
        self.proof = None;
        self.echoes.clear();
        self.confirm_at = None;
        self.settling_until = None;
        self.json_pong = false;
    }
}

/// A request that is out.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Asked<W> {
    request: RequestId,
    /// The time at which it was asked, or bytes of it or of its answer last moved.
    moved_at: Mono,
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
