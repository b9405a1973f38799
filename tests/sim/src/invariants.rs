//! Invariants, by name: the guarantees, and those on which they stand. Each has one function, or a
//! few, that look whether it does; here is what they found.

use std::collections::BTreeMap;
use std::fmt;

macro_rules! invariants {
    ($($(#[doc = $doc:literal])+ $name:ident = $says:literal,)+) => {
        /// Something that must always hold.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Invariant {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Invariant {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// Returns its name.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $says,)+
                }
            }
        }
    };
}

invariants! {
    /// Those who wait for the fate of a write are told once, and truly.
    TrueFates = "true fates",
    /// A write that the app was told is saved is in the client's store, and a write that the
    /// server acknowledged is in the server's, whatever crashes after.
    NothingLost = "nothing acknowledged is lost",
    /// Another database is followed, and what a server has lost goes, only where the app or its
    /// configuration has said so.
    LossDecided = "losses are decided",
    /// All writes of a transaction take effect, or none of them; and who follows their collections is shown
    /// all or none.
    AllOrNone = "all or none",
    /// Each write takes effect once or is reported as rejected, under any loss, duplication,
    /// delay, crash or reconnect.
    ExactlyOnce = "exactly once",
    /// A client's writes are applied in its order (merged writes take the place of the first of
    /// them).
    Order = "order",
    /// When writes stop and the network heals, everything comes to rest, every replica holds the
    /// server's state, and its checksum proves it.
    Convergence = "convergence",
    /// A field changed by someone else since the writer last saw its record is never overwritten
    /// without the writer's conflict strategy deciding it.
    NoLostUpdate = "no lost update",
    /// Each field has the time at which it was written, by a clock that is right as far as a server
    /// has told its own; and of two who wrote a field, the later one wins, where that is the strategy.
    Times = "times",
    /// A deleted record stays deleted unless a strategy resurrects it knowingly.
    DeletesStayDeleted = "deletes stay deleted",
    /// A local read after a local write sees it, always.
    ReadYourWrites = "read your writes",
    /// Memory per connection and per replica has a configured cap.
    Bounded = "bounded",
    /// The same inputs in the same order give the same bytes out.
    Deterministic = "deterministic",
    /// Nothing leaves a client before its outbox is durable.
    DurableBeforeShown = "durable before shown",
    /// Of a client's sessions only the newest writes.
    Fencing = "fencing",
    /// `watch` only ever shows states that the rules allow, in order, and ends at the final state.
    Watchers = "watchers",
    /// A non-empty outbox on a live connection always has something in flight or a deadline; and where
    /// links break behind enough for a page or a write, connections bring something new.
    Progress = "progress",
    /// At rest, everything that was only needed on the way is gone.
    Baseline = "baseline",
    /// No counter of events that sound peers can't cause is raised.
    NothingImpossible = "nothing impossible",
    /// Nothing was mended that should not have been broken: no replica took the server for one
    /// that lost changes, itself for a copy, or its records for wrong, where nothing was restored.
    NothingMended = "nothing is mended",
    /// The server's indexes, counts and checksums agree with its records, which are what was
    /// committed.
    ServerRows = "the server's rows",
    /// A level-1 program that got everything once and wrote nothing holds what the server holds.
    PlainReaders = "level-1 readers follow",
    /// No byte that the server hands to a connection or answers by HTTP shows what its user may not read by
    /// the rights of that moment.
    NothingForbidden = "nothing forbidden is shown",
    /// Writes are judged by the rules; and a replica that has heard all that the server says holds what its
    /// user may read by the rights of now, and nothing else.
    RightsFollowed = "rights are followed",
    /// The machines keep their contract with who drives them, and what they say of themselves.
    Contract = "the machines' contract",
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The findings of a run: each invariant that does not hold, with its first sign.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Findings {
    found: BTreeMap<Invariant, String>,
    /// True if a run goes on after the first.
    thorough: bool,
}

impl Findings {
    /// Nothing was found yet. A `thorough` run goes on after the first finding, so that one
    /// invariant does not hide the others.
    #[must_use]
    pub fn new(thorough: bool) -> Self {
        Self { found: BTreeMap::new(), thorough }
    }

    /// Keeps what a look has found.
    ///
    /// # Errors
    /// The finding, where the run ends at that.
    pub fn keep(&mut self, of: Invariant, looked: Result<(), String>) -> Result<(), String> {
        let Err(what) = looked else { return Ok(()) };
        let text = format!("{of}: {what}");
        self.found.entry(of).or_insert(what);
        if self.thorough { Ok(()) } else { Err(text) }
    }

    /// Returns the findings.
    #[must_use]
    pub fn all(&self) -> &BTreeMap<Invariant, String> {
        &self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(findings: &mut Findings) -> Result<(), String> {
        findings.keep(Invariant::Order, Ok(()))?;
        findings.keep(Invariant::Order, Err("first".into()))?;
        findings.keep(Invariant::Order, Err("second".into()))?;
        findings.keep(Invariant::Bounded, Err("too much".into()))
    }

    #[test]
    fn a_run_ends_at_the_first_finding_unless_it_is_thorough() {
        let mut findings = Findings::new(false);
        assert_eq!(look(&mut findings), Err("order: first".into()));
        assert_eq!(findings.all().len(), 1);
        let mut findings = Findings::new(true);
        assert_eq!(look(&mut findings), Ok(()));
        let found: Vec<_> = findings.all().iter().map(|(of, what)| (*of, &**what)).collect();
        assert_eq!(found, [(Invariant::Order, "first"), (Invariant::Bounded, "too much")]);
    }
}
