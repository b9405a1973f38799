//! The record of a run: the writes of the apps, what became of each, and what the apps were told.

use std::collections::{BTreeMap, BTreeSet};

use synclayer_core::{
    ClientId, Collection, CommitNumber, Document, Fate, FateId, RecordId, Rejected, WriteId,
};

use crate::guarantees::times::Times;
use crate::invariants::Findings;
use crate::plan::{Plan, Strategy};
use crate::world::{Owner, Place};

/// Nobody of ours: the author of what comes by level 1.
pub const STRANGER: usize = usize::MAX;

/// One write of an app.
#[derive(Clone, Debug)]
pub struct Write {
    /// The device whose app made it, or [`STRANGER`].
    pub device: usize,
    /// The record.
    pub place: Place,
    /// Its place in the outbox, or that of the write that it joined.
    pub position: Option<WriteId>,
    /// The commit of the device's present life that holds it; 0 for one of an earlier life.
    pub commit: CommitNumber,
    /// `true` if it sets a field of its own.
    pub unique: bool,
    /// `true` if it appends to the list.
    pub appends: bool,
    /// The value of the contested field that its author saw.
    pub saw: u64,
    /// `true` if its author saw no record.
    pub inserts: bool,
    /// The amount that it adds to a sum.
    pub adds: i64,
    /// `true` if it sets a field that nobody may write.
    pub forbidden: bool,
    /// `true` if its device has lost it before it was durable.
    pub lost: bool,
    /// `true` if it may be missing because an older state came back.
    pub forgotten: bool,
    /// `true` if its device has been wiped since.
    pub wiped: bool,
    /// `true` if the server has refused it.
    pub rejected: bool,
    /// `true` if its app has repeated it after the refusal.
    pub retried: bool,
    /// `true` if the server has applied it.
    pub applied: bool,
    /// The id by which its app waits for its fate, in the device's present life.
    pub fate: Option<FateId>,
    /// The fate that was reported to its app.
    pub told: Option<Fate>,
}

impl Write {
    /// A write of a device, of which nothing else is known yet.
    #[must_use]
    pub fn new(device: usize, place: Place) -> Self {
        Self {
            device,
            place,
            position: None,
            commit: CommitNumber(0),
            fate: None,
            told: None,
            unique: false,
            appends: false,
            saw: 0,
            inserts: false,
            adds: 0,
            forbidden: false,
            lost: false,
            forgotten: false,
            wiped: false,
            rejected: false,
            retried: false,
            applied: false,
        }
    }
}

/// All writes and their fates.
pub struct Ledger {
    pub(super) plan: Plan,
    pub(super) writes: Vec<Write>,
    /// The number of events of each device that were read.
    pub(super) seen: Vec<usize>,
    /// Values of the contested field that a strategy has decided, by the device it runs on.
    pub(super) decided: BTreeSet<(usize, u64)>,
    /// The collections of which a device offers what the server lacks.
    pub(super) offers: BTreeSet<(usize, Collection)>,
    /// Records whose deletion a strategy has decided.
    pub(super) decided_deletes: BTreeSet<(usize, Place)>,
    /// The values of the contested field with which records were deleted at the server.
    pub(super) deleted: BTreeMap<Place, BTreeSet<u64>>,
    /// The values of the contested field that authors of deletions saw.
    pub(super) deletions: BTreeMap<(usize, Place), BTreeSet<u64>>,
    /// The last place of each client's outbox that was applied.
    pub(super) last_place: BTreeMap<ClientId, WriteId>,
    /// The updates that watchers were shown.
    pub(super) shown: BTreeMap<(usize, Collection), BTreeMap<RecordId, Document>>,
    /// `true` if an older state came back or was forgotten, so that not every write must survive.
    pub(super) loose: bool,
    /// When what was written.
    pub(crate) times: Times,
    /// The transactions of apps.
    pub(super) units: Vec<UnitWrites>,
    /// `true` if a server has said that it takes transactions whole.
    pub(super) atomic: bool,
    /// The breaches that were found.
    pub findings: Findings,
    /// Of which device another is a copy.
    pub(super) originals: BTreeMap<usize, usize>,
    /// The facts that a crash may undo.
    pub(super) merges: Vec<Merge>,
}

/// A transaction of an app.
pub(super) struct UnitWrites {
    /// The tokens of its writes.
    pub(super) tokens: Vec<u64>,
    /// `true` if the others go on where one of them loses.
    pub(super) keeps_won: bool,
}

/// The writes of a device at some time: their places in its outbox, and which of them it had lost.
#[derive(Clone, Debug)]
pub struct Known {
    writes: Vec<Option<(Option<WriteId>, bool)>>,
}

impl Known {
    /// The token of the first write that was made later.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.writes.len() as u64 + 1
    }
}

/// A strategy has merged a write with others into one.
pub(super) struct Merge {
    pub(super) device: usize,
    /// The commit of the device's present life that holds the outcome.
    pub(super) commit: CommitNumber,
    /// The write's index.
    pub(super) write: usize,
    pub(super) was_at: Option<WriteId>,
}

impl Ledger {
    /// An empty one.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        Self {
            plan: plan.clone(),
            writes: Vec::new(),
            seen: Vec::new(),
            decided: BTreeSet::new(),
            offers: BTreeSet::new(),
            decided_deletes: BTreeSet::new(),
            deleted: BTreeMap::new(),
            deletions: BTreeMap::new(),
            last_place: BTreeMap::new(),
            shown: BTreeMap::new(),
            loose: false,
            times: Times::default(),
            units: Vec::new(),
            atomic: false,
            findings: Findings::default(),
            originals: BTreeMap::new(),
            merges: Vec::new(),
        }
    }

    /// The token of the next write.
    #[must_use]
    pub fn next_token(&self) -> u64 {
        self.writes.len() as u64 + 1
    }

    /// Writes down a write; its token is the one that was next.
    pub fn enter(&mut self, write: Write) {
        self.writes.push(write);
    }

    /// Writes down that the last `count` writes are one transaction.
    pub fn enter_unit(&mut self, count: usize, keeps_won: bool) {
        let next = self.next_token();
        let tokens = (next - count as u64..next).collect();
        self.units.push(UnitWrites { tokens, keeps_won });
    }

    /// Returns `true` if a server has said that it takes transactions whole.
    #[must_use]
    pub fn is_atomic(&self) -> bool {
        self.atomic
    }

    /// Writes down that an app deletes a record in whose contested field it sees this.
    pub fn enter_deletion(&mut self, device: usize, place: &Place, saw: u64) {
        self.deletions.entry((device, place.clone())).or_default().insert(saw);
    }

    /// The writes so far.
    #[must_use]
    pub fn writes(&self) -> &[Write] {
        &self.writes
    }

    /// The app makes a rejected write again, as `position`, knowing what it does.
    pub fn retried(&mut self, device: usize, old: WriteId, position: Option<WriteId>) {
        for (index, write) in self.writes.iter_mut().enumerate() {
            if write.is_at(device, old) && write.rejected {
                (write.rejected, write.position) = (false, position);
                write.retried = true;
                self.times.made_again(index as u64 + 1);
                self.decided.insert((device, index as u64 + 1));
            }
        }
    }

    /// A device crashed and has lost what came after a commit.
    pub fn crashed(&mut self, device: usize, back_to: CommitNumber) {
        for merge in self.merges.iter().rev().filter(|merge| merge.device == device) {
            if merge.commit > back_to {
                self.writes[merge.write].position = merge.was_at;
            }
        }
        self.merges.retain(|merge| merge.device != device);
        for write in self.writes.iter_mut().filter(|write| write.device == device) {
            write.lost |= write.commit > back_to;
            write.commit = CommitNumber(0);
            write.fate = None;
        }
        self.shown.retain(|(of, _), _| *of != device);
    }

    /// These are the writes that a device still knows to be rejected after a crash.
    pub fn still_refused(&mut self, device: usize, refused: &[Rejected]) {
        for write in self.writes.iter_mut().filter(|w| w.device == device && !w.wiped) {
            write.rejected &= refused.iter().any(|one| write.position == Some(one.write));
        }
    }

    /// Everything was wiped that a device held: what it had not sent is gone, and what was sent
    /// comes back from the server only. Its outbox begins anew.
    pub fn wiped(&mut self, device: usize) {
        for write in self.writes.iter_mut().filter(|write| write.device == device) {
            write.forgotten |= !write.applied && !write.rejected;
            write.position = None;
            write.wiped = true;
        }
        self.merges.retain(|merge| merge.device != device);
    }

    /// Returns `true` if the app of a device waits for the fate of a write.
    #[must_use]
    pub fn waits_for_a_fate(&self, device: usize) -> bool {
        let waits = |write: &Write| write.fate.is_some() && write.told.is_none();
        self.writes.iter().any(|write| write.device == device && waits(write))
    }

    /// **True fates:** a crash takes nothing back that an app was told of its writes. To be called
    /// after [`still_refused`](Self::still_refused).
    ///
    /// # Errors
    /// Of which write it does.
    pub fn fates_last(&self, device: usize) -> Result<(), String> {
        for (index, write) in self.writes.iter().enumerate().filter(|(_, w)| w.device == device) {
            let refused = matches!(write.told, Some(Fate::Rejected { .. }));
            let excused = write.retried || write.forgotten || write.wiped || self.loose;
            if refused && !write.rejected && !excused {
                let token = index + 1;
                return Err(format!("write {token} was told to be rejected, and a crash undid it"));
            }
        }
        Ok(())
    }

    /// Something older came back: what these writes did need not be remembered.
    pub fn forget(&mut self, mut which: impl FnMut(u64, &Write) -> bool) {
        self.loose = true;
        for (index, write) in self.writes.iter_mut().enumerate() {
            write.forgotten |= which(index as u64 + 1, write);
        }
    }

    /// A copy of a device runs beside it, and has written all that the device had written by then.
    pub fn copied(&mut self, copy: usize, original: usize) {
        self.loose = true;
        self.originals.insert(copy, original);
    }

    /// The writes of a device as it knows them.
    #[must_use]
    pub fn known_of(&self, device: usize) -> Known {
        let of = |write: &Write| (write.device == device).then_some((write.position, write.lost));
        Known { writes: self.writes.iter().map(of).collect() }
    }

    /// A device goes on from an older copy, which may hold what a crash had taken from it since, each
    /// write where it was then.
    pub fn restored(&mut self, device: usize, known: &Known) {
        for (write, then) in self.writes.iter_mut().zip(&known.writes) {
            if let Some(then) = then.filter(|_| write.device == device) {
                (write.position, write.lost) = then;
            }
        }
        self.restarted(device);
    }

    /// A device was started from another state: its watchers begin anew.
    pub fn restarted(&mut self, device: usize) {
        self.merges.retain(|merge| merge.device != device);
        self.shown.retain(|(of, _), _| *of != device);
        for write in self.writes.iter_mut().filter(|write| write.device == device) {
            write.commit = CommitNumber(0);
            write.fate = None;
        }
    }

    /// Returns `true` if an older state came back or was forgotten, so that not every write must
    /// survive.
    pub(crate) fn is_loose(&self) -> bool {
        self.loose
    }

    /// The strategy of the devices.
    pub(crate) fn strategy(&self) -> Strategy {
        self.plan.strategy
    }

    /// Returns `true` if guests see only some records.
    pub(crate) fn is_partial(&self) -> bool {
        self.plan.partial
    }

    /// Returns `true` if everything that was appended must be there.
    pub(super) fn is_strict(&self) -> bool {
        self.plan.strategy == Strategy::Append && !self.loose
    }

    /// Returns `true` if a device's write can be checked for its position and its fate.
    pub(super) fn counts(&self, write: &Write, device: usize) -> bool {
        let known = write.device == device && write.position.is_some();
        known && !write.applied && !write.forgotten && !self.loose
    }

    pub(super) fn write(&self, token: u64) -> Option<&Write> {
        self.writes.get(usize::try_from(token).ok()?.checked_sub(1)?)
    }

    /// Returns `true` if an author that wrote `token` into the contested field had seen `found`
    /// there.
    pub(super) fn had_seen(&self, device: usize, token: u64, found: u64) -> bool {
        self.write(token).is_some_and(|write| self.goes_back_to(device, write.saw, found))
    }

    /// Returns `true` if an author that saw `token` in the contested field knew of `found`: it is
    /// the same, or `token` and everything between the two is its author's own.
    pub(super) fn goes_back_to(&self, device: usize, token: u64, found: u64) -> bool {
        let mut at = token;
        while at != found {
            let Some(write) = self.write(at) else { return false };
            let own = self.is_own(device, write.device);
            // of a write that a copy took over, it is not known here what became of the copy's
            if own && write.device != device {
                return true;
            }
            // what a strategy had decided was refused, and what was written on top of it stays
            let refused = || write.rejected || self.is_beneath_refused(device, at);
            if self.decided.contains(&(device, at)) && refused() {
                return true;
            }
            if !own {
                return false;
            }
            at = write.saw;
        }
        true
    }

    /// Returns `true` if records can go out of the sight of those who have written them.
    pub(super) fn goes_out_of_sight(&self) -> bool {
        self.plan.scoping.is_some() || self.plan.ruling.is_some()
    }

    /// Returns `true` if a value in the contested field is the device's own, or was put there by it, and the
    /// record may have gone out of its sight since.
    pub(super) fn wrote_out_of_sight(&self, device: usize, found: u64, by: Option<Owner>) -> bool {
        let own = |write: &Write| self.is_own(device, write.device);
        let has_put = matches!(by, Some(Owner::Device(other)) if self.is_own(device, other));
        self.goes_out_of_sight() && (has_put || self.write(found).is_some_and(own))
    }

    /// Returns `true` if a strategy had decided about a write of the device that left this value as it
    /// was, and which was refused.
    fn is_beneath_refused(&self, device: usize, token: u64) -> bool {
        let mut later = self.writes.iter().zip(1..).filter(|(write, _)| write.device == device);
        later.any(|(write, of)| {
            write.saw == token && write.rejected && self.decided.contains(&(device, of))
        })
    }

    /// Returns `true` if `author`'s writes may be the device's own, because it is the same device
    /// or a copy of it.
    pub(super) fn is_own(&self, device: usize, author: usize) -> bool {
        let mut it = Some(&device);
        while let Some(device) = it.filter(|device| **device != author) {
            it = self.originals.get(device);
        }
        it.is_some()
    }

    /// Returns `true` if an author that deleted a record had seen `found` in it.
    pub(super) fn had_deleted(&self, device: usize, place: &Place, found: u64) -> bool {
        let seen = self.deletions.get(&(device, place.clone()));
        seen.is_some_and(|seen| seen.iter().any(|saw| self.goes_back_to(device, *saw, found)))
    }

    /// Returns `true` if `token` was written into a record that its author knew to be missing.
    pub(super) fn goes_back_to_insert(&self, device: usize, token: u64) -> bool {
        let mut at = token;
        while let Some(write) = self.write(at).filter(|write| write.device == device) {
            if write.inserts {
                return true;
            }
            at = write.saw;
        }
        false
    }
}

impl Write {
    /// Returns `true` if it is at this position of a device's outbox, or was, where it need not be
    /// there any more: what a strategy decides about it, it decides all the same.
    pub(super) fn is_at(&self, device: usize, position: WriteId) -> bool {
        self.device == device && self.position == Some(position) && !self.lost
    }
}
