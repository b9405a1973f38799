//! The guarantees, each as a check of what a run has shown.
//!
//! Writes carry tokens, numbers that are used once, so that a loss, a double or a reordering shows
//! where overwriting would hide it:
//!
//! * a field `t17` of its own: no strategy may lose it;
//! * an element of the list `log`: the strategy that appends keeps each once, in its author's
//!   order;
//! * the pair `[16,17]` in the contested field `hot`: its own token, and the one that its author
//!   saw there. What a write overwrites must be what its author saw, or a strategy has decided.
//!
//! A [`Ledger`] is kept as the run goes: [`Ledger::observe`] after every move,
//! [`Ledger::audit`] when everything has come to rest.
#![allow(clippy::wildcard_enum_match_arm, reason = "only a few of the many events matter here")]

mod bounds;
mod convergence;
mod deletes;
mod durability;
mod exactly_once;
mod false_alarms;
mod fates;
mod ledger;
mod observe;
mod order;
mod rights;
pub mod times;
mod units;
mod updates;
mod watchers;

use std::collections::BTreeSet;

use synclayer_core::{Document, RecordId};

use crate::invariants::Invariant;
use crate::plan::{collections, tokens_in};
use crate::world::{Committed, World};

pub use bounds::{baseline, bounded, caps_hold};
pub use convergence::{convergence, plain_readers_follow, server_rows};
pub use deletes::{deletes_stay_deleted, losses_are_decided, nothing_is_resurrected};
pub use durability::{
    durable_before_applied, durable_before_sent, gives_up_what_was_refused, nothing_is_lost,
};
pub use exactly_once::{exactly_once, nothing_is_doubled};
pub use false_alarms::{nothing_impossible, nothing_was_mended};
pub use fates::{fate_is_true, fates_are_told};
pub use ledger::{Known, Ledger, STRANGER, Write};
pub use order::in_order;
pub use rights::holds_what_is_shown;
pub use units::all_or_none;
pub use updates::no_lost_update;
pub use watchers::{
    read_your_writes, watchers_are_told_so, watchers_end_at_the_truth, watchers_show_what_is_held,
    watchers_show_what_was,
};

use order::appended_in_order;
use times::the_later_write_won;

impl Ledger {
    /// Checks everything that must hold at the end; and what must hold when the world has come to
    /// rest, if it has.
    ///
    /// # Errors
    /// Which guarantee is broken, and how.
    pub fn audit(&mut self, world: &mut World, at_rest: bool) -> Result<(), String> {
        self.keep(Invariant::ServerRows, server_rows(world))?;
        self.keep(Invariant::Convergence, convergence(world))?;
        self.keep(Invariant::PlainReaders, plain_readers_follow(world))?;
        for device in 0..world.devices.len() {
            for collection in collections() {
                if world.to_take(device).contains(&collection) {
                    self.take(world, device, &collection)?;
                }
            }
            self.keep(Invariant::ReadYourWrites, read_your_writes(self, world, device))?;
        }
        self.keep(Invariant::Watchers, watchers_end_at_the_truth(self, world))?;
        let fates = if at_rest { fates_are_told(self) } else { Ok(()) };
        self.keep(Invariant::TrueFates, fates)?;
        let confirmed = if at_rest { watchers_are_told_so(world) } else { Ok(()) };
        self.keep(Invariant::Watchers, confirmed)?;
        self.keep(Invariant::NothingLost, nothing_is_lost(self, world))?;
        let won = if at_rest { the_later_write_won(self, world) } else { Ok(()) };
        self.keep(Invariant::Times, won)?;
        self.keep(Invariant::ExactlyOnce, nothing_is_doubled(self, world))?;
        self.keep(Invariant::Order, appended_in_order(self, world))?;
        self.keep(Invariant::NothingMended, nothing_was_mended(self, world))?;
        self.keep(Invariant::NothingImpossible, nothing_impossible(self, world))?;
        self.keep(Invariant::Bounded, bounded(world))?;
        (0..world.devices.len()).for_each(|device| world.unwatch_all(device));
        let baseline = if at_rest { baseline(world) } else { Ok(()) };
        self.keep(Invariant::Baseline, baseline)
    }
}

/// Returns `true` if nobody ever deletes a record.
#[must_use]
pub fn is_permanent(id: &RecordId) -> bool {
    !id.as_str().starts_with('x')
}

/// The content of the contested field: the value that its author saw there, and its own token.
#[must_use]
pub fn hot(record: Option<&Document>) -> (u64, u64) {
    let text = record.and_then(|record| record.text("hot")).unwrap_or("[0,0]");
    let tokens: Vec<u64> = tokens_in(text).iter().filter_map(|n| n.parse().ok()).collect();
    match tokens[..] {
        [saw, own] => (saw, own),
        _ => (0, 0),
    }
}

/// The tokens that are in a record after a change, and were not before it.
fn new_tokens(committed: &Committed) -> Vec<u64> {
    let before = tokens(committed.before.as_ref());
    tokens(committed.after.as_ref()).into_iter().filter(|token| !before.contains(token)).collect()
}

pub(crate) fn tokens(record: Option<&Document>) -> BTreeSet<u64> {
    let mut all = BTreeSet::new();
    for (name, text) in record.into_iter().flat_map(Document::iter) {
        match name {
            "hot" => all.extend([hot(record).1]),
            "log" => all.extend(tokens_in(text).iter().filter_map(|n| n.parse::<u64>().ok())),
            _ => all.extend(name.strip_prefix('t').and_then(|n| n.parse::<u64>().ok())),
        }
    }
    all.remove(&0);
    all
}
