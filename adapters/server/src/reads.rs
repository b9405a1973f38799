//! The reads of the store, scheduled fairly.
//!
//! A read has a turn for as long as it runs. One that takes longer than a slice hands its turn on and
//! waits for another, on its thread and with its view of the rows. Pages of catch-ups have turns of
//! their own, and so have scans that begin, unless their principal has some under way already. Of the
//! others, those that have read the least come first, and principals alternate: so a short read waits
//! for no long one, and nobody's reads are slowed down by how many another sends.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use synclayer_core::{Policy, ReadAnswer, ReadRequest, Rows, StoreError, StoreErrorKind, Visit};
use tokio::sync::oneshot;

use crate::budget::Account;
use crate::fairness::{FairQueue, Principal};

/// The time for which a read runs before others have their turn.
const SLICE: Duration = Duration::from_micros(500);
/// The time after which a scan comes behind those that have taken less.
const LONG: Duration = Duration::from_millis(50);
/// The number of rows between two looks at the clock.
const ROWS: u32 = 32;
/// The number of scans that wait on a thread for another turn. Further ones give up what they have
/// read in their first turn, and begin again when others have ended.
const SCANS: usize = 64;
/// The number of scans of a principal that begin at once. Further ones wait among those under way.
const BEGINNING: usize = 2;
/// One turn of so many goes to the scans that have taken the longest, so that they end too.
const LONG_SHARE: usize = 4;

/// Scans that have not begun.
const FRESH: usize = 0;
/// Scans that have taken little.
const SHORT: usize = 1;
const LONGER: usize = 2;
/// Scans that begin again.
const SET_BACK: usize = 3;

/// The turns of all reads.
pub(crate) struct Reads {
    state: Mutex<State>,
}

struct State {
    pages: Turns,
    fresh: Turns,
    scans: Turns,
    /// The pages that wait.
    waiting_pages: FairQueue<oneshot::Sender<Slot>>,
    /// The scans that wait, by their level.
    waiting_scans: [FairQueue<oneshot::Sender<Slot>>; 4],
    /// The number of scans that wait on a thread.
    paused: usize,
    /// The number of scans of each principal, from when they were asked for.
    scans_of: HashMap<Principal, usize>,
    granted: usize,
}

struct Turns {
    taken: usize,
    most: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// A read that is bounded by its request.
    Page,
    /// The first turn of a read that looks at any number of records.
    Fresh,
    /// Its later turns.
    Scan,
}

/// The place of a read that runs.
struct Slot {
    /// `None` where nobody is there any more who could have it.
    reads: Option<Arc<Reads>>,
    kind: Kind,
}

/// A scan that counts as one of its principal's.
struct Counted {
    reads: Arc<Reads>,
    principal: Principal,
}

/// A read, from its first turn to its last.
pub(crate) struct Turn {
    /// `None` only while it waits.
    slot: Option<Slot>,
    reads: Arc<Reads>,
    principal: Principal,
    /// `None` for a page.
    _counted: Option<Counted>,
    begun: Instant,
    /// The time that it has taken in earlier turns.
    taken: Duration,
    /// It is set back if it does not end in this turn and there are many that wait on their threads.
    is_trial: bool,
}

/// The reason why a read has ended early.
#[derive(Clone, Debug)]
pub(crate) enum ReadError {
    Store(StoreError),
    /// It took longer than reads may.
    TooLong,
    /// There is no memory for its answer.
    Busy,
    /// It has to begin again.
    SetBack,
}

/// The bounds of one read.
#[derive(Clone)]
pub(crate) struct Bounds {
    /// The longest time that it may run; the time for which it waits does not count.
    pub(crate) time_limit: Duration,
    /// Set when nobody waits for the answer any more.
    pub(crate) cancelled: Arc<AtomicBool>,
    /// `true` if it ends where its answer finds no room in the memory budget.
    pub(crate) may_end: bool,
}

impl Reads {
    pub(crate) fn new(pages: usize) -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self::with(pages, cores / 2)
    }

    fn with(pages: usize, scans: usize) -> Self {
        let turns = |most: usize| Turns { taken: 0, most: most.max(1) };
        Self {
            state: Mutex::new(State {
                pages: turns(pages),
                fresh: turns(scans),
                scans: turns(scans),
                waiting_pages: FairQueue::default(),
                waiting_scans: Default::default(),
                paused: 0,
                scans_of: HashMap::new(),
                granted: 0,
            }),
        }
    }

    /// Waits for the first turn of a read, or of one that begins again.
    pub(crate) async fn turn(
        self: &Arc<Self>,
        principal: Principal,
        request: &ReadRequest,
        is_set_back: bool,
    ) -> Turn {
        let is_page = matches!(request, ReadRequest::CatchUp { .. } | ReadRequest::Pull { .. });
        let (mut kind, mut level, mut counted) = (Kind::Page, FRESH, None);
        if !is_page {
            let (own, is_first) = self.count(&principal);
            counted = Some(own);
            (kind, level) = match (is_set_back, is_first) {
                (true, _) => (Kind::Scan, SET_BACK),
                (false, false) => (Kind::Scan, SHORT),
                (false, true) => (Kind::Fresh, FRESH),
            };
        }
        // it is dropped nowhere without an answer
        let slot = self.wait(&principal, kind, level).await.ok();
        Turn {
            slot,
            reads: Arc::clone(self),
            principal,
            _counted: counted,
            begun: Instant::now(),
            taken: Duration::ZERO,
            is_trial: !is_page && !is_set_back,
        }
    }

    /// Counts a scan of a principal. Says if it is among those that begin at once.
    fn count(self: &Arc<Self>, principal: &Principal) -> (Counted, bool) {
        let mut state = self.state();
        let scans = state.scans_of.entry(principal.clone()).or_default();
        *scans += 1;
        // programs of this machine can't be told apart
        let is_first = *scans <= BEGINNING || *principal == Principal::Local;
        (Counted { reads: Arc::clone(self), principal: principal.clone() }, is_first)
    }

    /// Queues somebody who wants a turn.
    fn wait(
        self: &Arc<Self>,
        principal: &Principal,
        kind: Kind,
        level: usize,
    ) -> oneshot::Receiver<Slot> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state();
        let queue = match kind {
            Kind::Page => &mut state.waiting_pages,
            Kind::Fresh | Kind::Scan => &mut state.waiting_scans[level],
        };
        queue.push(principal, sender);
        self.grant(state);
        receiver
    }

    fn release(self: &Arc<Self>, kind: Kind) {
        let mut state = self.state();
        state.turns(kind).taken -= 1;
        self.grant(state);
    }

    /// Gives the turns that are free to those who wait.
    fn grant(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        while let Some((kind, sender)) = state.next() {
            let slot = Slot { reads: Some(Arc::clone(self)), kind };
            state.turns(kind).taken += 1;
            if let Err(mut slot) = sender.send(slot) {
                // it would give its turn back under the lock
                slot.reads = None;
                state.turns(kind).taken -= 1;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The next one who gets a turn, if one is free.
    fn next(&mut self) -> Option<(Kind, oneshot::Sender<Slot>)> {
        if self.pages.is_free()
            && let Some(sender) = self.waiting_pages.pop()
        {
            return Some((Kind::Page, sender));
        }
        if self.fresh.is_free()
            && let Some(sender) = self.waiting_scans[FRESH].pop()
        {
            return Some((Kind::Fresh, sender));
        }
        if !self.scans.is_free() {
            return None;
        }
        let is_full = self.is_full();
        let is_for_long = self.granted % LONG_SHARE == LONG_SHARE - 1;
        let levels = match is_for_long {
            false => [SHORT, LONGER, SET_BACK],
            true => [SET_BACK, LONGER, SHORT],
        };
        let mut levels = levels.into_iter().filter(|level| *level != SET_BACK || !is_full);
        let sender = levels.find_map(|level| self.waiting_scans[level].pop())?;
        self.granted = self.granted.wrapping_add(1);
        Some((Kind::Scan, sender))
    }

    fn is_full(&self) -> bool {
        self.paused >= SCANS
    }

    fn turns(&mut self, kind: Kind) -> &mut Turns {
        match kind {
            Kind::Page => &mut self.pages,
            Kind::Fresh => &mut self.fresh,
            Kind::Scan => &mut self.scans,
        }
    }
}

impl Turns {
    fn is_free(&self) -> bool {
        self.taken < self.most
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut state = self.reads.state();
        if let Some(scans) = state.scans_of.get_mut(&self.principal) {
            *scans -= 1;
            if *scans == 0 {
                state.scans_of.remove(&self.principal);
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(reads) = self.reads.take() {
            reads.release(self.kind);
        }
    }
}

impl Turn {
    /// Hands the turn on, and waits for another on this thread.
    fn pause(&mut self) {
        self.taken += self.begun.elapsed();
        let level = if self.taken < LONG { SHORT } else { LONGER };
        self.is_trial = false;
        drop(self.slot.take());
        // a page that takes so long is a scan
        let next = self.reads.wait(&self.principal, Kind::Scan, level);
        self.reads.state().paused += 1;
        self.slot = next.blocking_recv().ok();
        self.reads.state().paused -= 1;
        self.begun = Instant::now();
    }
}

/// Runs a read on a thread that may block, from its first turn on. What it has visited counts as
/// held by its account.
pub(crate) fn run(
    request: &ReadRequest,
    rows: &dyn Rows,
    policy: &dyn Policy,
    turn: Turn,
    bounds: &Bounds,
    account: &mut Account,
) -> Result<ReadAnswer, ReadError> {
    let most = most_bytes(request);
    let pace = Pace { turn, bounds, account, most, bytes: 0, rows: 0, ended: None };
    let paced = Paced { rows, pace: RefCell::new(pace) };
    let answer = request.run(&paced, policy);
    let mut pace = paced.pace.into_inner();
    // one that took no longer than its first turn was not asked yet
    if answer.is_ok() && pace.has_no_room() {
        pace.end(ReadError::Busy);
    }
    match pace.ended {
        Some(error) => Err(error),
        None => answer.map_err(ReadError::Store),
    }
}

/// The size of the largest answer to a request, in bytes.
fn most_bytes(request: &ReadRequest) -> usize {
    match request {
        ReadRequest::CatchUp { limits, .. } | ReadRequest::Pull { limits, .. } => limits.bytes,
        ReadRequest::Whole { bytes, .. } | ReadRequest::Query { bytes, .. } => *bytes,
    }
}

/// The progress of a read.
struct Pace<'a> {
    turn: Turn,
    bounds: &'a Bounds,
    account: &'a mut Account,
    /// The bytes that its answer has at most.
    most: usize,
    /// The bytes that it has visited.
    bytes: usize,
    rows: u32,
    ended: Option<ReadError>,
}

impl Pace<'_> {
    /// Takes note of a row, before it is visited.
    fn visit(&mut self, bytes: usize) -> Result<(), StoreError> {
        self.bytes = self.bytes.saturating_add(bytes);
        self.rows = self.rows.wrapping_add(1);
        if !self.rows.is_multiple_of(ROWS) || self.turn.begun.elapsed() < SLICE {
            return Ok(());
        }
        if self.has_no_room() {
            return Err(self.end(ReadError::Busy));
        }
        if self.turn.is_trial && self.turn.reads.state().is_full() {
            return Err(self.end(ReadError::SetBack));
        }
        self.turn.pause();
        let is_cancelled = self.bounds.cancelled.load(Ordering::Relaxed);
        if is_cancelled || self.turn.taken > self.bounds.time_limit {
            return Err(self.end(ReadError::TooLong));
        }
        Ok(())
    }

    /// Counts what it holds. Returns `true` if that is too much.
    fn has_no_room(&mut self) -> bool {
        self.account.set(self.bytes.min(self.most));
        self.bounds.may_end && self.account.is_refused()
    }

    fn end(&mut self, error: ReadError) -> StoreError {
        self.ended = Some(error);
        StoreError::new(StoreErrorKind::Other, "the read was ended")
    }
}

/// Rows whose visitor has to take turns.
struct Paced<'a> {
    rows: &'a dyn Rows,
    pace: RefCell<Pace<'a>>,
}

impl Rows for Paced<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.rows.get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.rows.scan(from, to, &mut |key, value| {
            self.pace.borrow_mut().visit(key.len() + value.len())?;
            visit(key, value)
        })
    }

    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        self.rows.last(from, to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(n: u8) -> Principal {
        Principal::Address([192, 0, 2, n].into())
    }

    fn granted(waiting: &mut [oneshot::Receiver<Slot>]) -> Vec<usize> {
        let slots = waiting.iter_mut().map(|receiver| receiver.try_recv().ok());
        // each gives its turn back
        let slots: Vec<_> = slots.enumerate().collect();
        slots.iter().filter(|(_, slot)| slot.is_some()).map(|(n, _)| *n).collect()
    }

    #[test]
    fn parties_take_turns_and_short_scans_come_first() {
        let reads = Arc::new(Reads::with(1, 1));
        let held = reads.wait(&principal(1), Kind::Scan, SHORT);
        let ask = |(n, level)| reads.wait(&principal(n), Kind::Scan, level);
        let mut waiting: Vec<_> =
            [(1, LONGER), (1, LONGER), (1, SHORT), (1, SHORT), (2, SHORT), (3, LONGER)]
                .map(ask)
                .into_iter()
                .collect();
        assert!(granted(&mut waiting).is_empty());
        drop(held);
        let mut order = Vec::new();
        while order.len() < 6 {
            let next = granted(&mut waiting);
            assert_eq!(next.len(), 1, "one at a time, behind {order:?}");
            order.extend(next);
        }
        // the fourth turn is for one that has taken long
        assert_eq!(order, [2, 4, 0, 3, 5, 1]);
        assert_eq!(reads.state().scans.taken, 0);
    }

    #[test]
    fn who_has_scans_under_way_begins_no_more_before_others() {
        let reads = Arc::new(Reads::with(1, 1));
        let mut scans: Vec<_> = (0..BEGINNING).map(|_| reads.count(&principal(1))).collect();
        assert!(scans.iter().all(|(_, is_first)| *is_first));
        assert!(!reads.count(&principal(1)).1 && reads.count(&principal(2)).1);
        scans.pop();
        assert!(reads.count(&principal(1)).1, "one has ended");
        drop(scans);
        assert!(reads.state().scans_of.is_empty());
    }

    #[test]
    fn who_goes_away_takes_no_turn_along() {
        let reads = Arc::new(Reads::with(1, 1));
        for kind in [Kind::Page, Kind::Fresh] {
            let held = reads.wait(&principal(1), kind, FRESH);
            drop(reads.wait(&principal(1), kind, FRESH));
            let mut last = reads.wait(&principal(2), kind, FRESH);
            drop(held);
            assert!(last.try_recv().is_ok(), "{kind:?}");
        }
        let state = reads.state();
        assert_eq!((state.pages.taken, state.fresh.taken, state.waiting_pages.len()), (0, 0, 0));
    }

    #[test]
    fn what_begins_waits_for_no_scan_and_what_was_set_back_for_room() {
        let reads = Arc::new(Reads::with(1, 1));
        let scan = reads.wait(&principal(1), Kind::Scan, SHORT);
        for kind in [Kind::Page, Kind::Fresh] {
            assert!(reads.wait(&principal(2), kind, FRESH).try_recv().is_ok());
        }
        let ask = |level| reads.wait(&principal(1), Kind::Scan, level);
        reads.state().paused = SCANS;
        let mut set_back = [ask(SET_BACK)];
        drop(scan);
        assert!(granted(&mut set_back).is_empty());
        reads.state().paused = 0;
        // whoever gives up lets others look
        drop(ask(LONGER));
        assert_eq!(granted(&mut set_back), [0]);
    }
}
