//! Every way in which a small world can go: two replicas, one server, one record, a few operations,
//! transactions of it and a second record, a crash and a few cuts, in every order.
//!
//! [`explore`] visits each state once and checks the guarantees wherever everything has come to
//! rest, which is at least at the end of every path. What is one step here and more in the world,
//! and why nothing is missed by that:
//!
//! * Time stands still, and a replica reconnects without delay. Deadlines guard against peers that
//!   say nothing, which no peer here does; that a write waits for a catch-up is no matter of time.
//! * A connection that is asked for comes up in the same step: nobody else sees the time between.
//! * A disk makes durable all that it has, or nothing; but a crash leaves any prefix.
//! * The server commits all that waits. One of two alone is what comes of the second arriving
//!   later, and arriving is a step of its own.
//! * A connection that its replica has lost is gone from the server as soon as nothing of it is
//!   under way there: nothing that it could still do shows anywhere.
//! * A socket always has room. One that is full is one whose frames are delivered later.
//!
//! Two states are one when all that their futures depend on hashes to the same 64 bits. With ten
//! million states a chance of one in 300,000 remains that two which differ were taken for one.

mod device;
mod units;
mod world;

use std::collections::HashSet;
use std::fmt;

pub use world::{SmallMove, SmallWorld};

/// The limits of a small world.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scope {
    /// Writes of the apps; beside transactions, of the other client's app.
    pub operations: u8,
    /// Transactions of one client's app: each changes the record and a second one.
    pub units: u8,
    /// Crashes of a replica or the server.
    pub crashes: u8,
    /// Cuts of a connection.
    pub cuts: u8,
    /// True if the server does all that it can in the step in which a frame reaches it. Then every
    /// order of apps, disks and the network is left.
    pub quick_server: bool,
    /// Limit of states to visit.
    pub states: usize,
}

/// Counts of the visited states.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Seen {
    /// States, each visited once.
    pub states: usize,
    /// Steps between them.
    pub steps: usize,
    /// States at rest, in each of which every guarantee was checked.
    pub at_rest: usize,
    /// The longest path.
    pub depth: usize,
    /// True if the scope's bound on states was met before the end.
    pub cut_short: bool,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operations, units, crashes, cuts, quick_server, .. } = self;
        let server = if *quick_server { "quick" } else { "slow" };
        write!(f, "operations={operations}")?;
        if *units > 0 {
            write!(f, " units={units}")?;
        }
        write!(f, " crashes={crashes} cuts={cuts} server={server}")
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { states, steps, at_rest, depth, cut_short } = self;
        let all = if *cut_short { "some" } else { "all" };
        write!(f, "states={states} steps={steps} at_rest={at_rest} depth={depth} visited={all}")
    }
}

/// A guarantee that does not hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Broken {
    /// The failure.
    pub what: String,
    /// The moves that led there.
    pub path: Vec<SmallMove>,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.iter().try_for_each(|step| writeln!(f, "  {step:?}"))?;
        f.write_str(&self.what)
    }
}

/// Visits every state within a scope.
///
/// # Errors
/// With the first guarantee that is broken, and what led there.
pub fn explore(scope: Scope, progress: &dyn Fn(&Seen)) -> Result<Seen, Broken> {
    let start = SmallWorld::new(scope);
    let mut known = HashSet::from([start.digest()]);
    let mut seen = Seen { states: 1, ..Seen::default() };
    // depth first: what is not finished fits into memory
    let mut open = vec![(start, Vec::new())];
    while let Some((world, path)) = open.pop() {
        let broken = |what: String, path: &Vec<SmallMove>| Broken { what, path: path.clone() };
        if world.is_at_rest() {
            seen.at_rest += 1;
            world.check().map_err(|what| broken(what, &path))?;
        }
        for step in world.moves() {
            let mut next = world.clone();
            let mut longer = path.clone();
            longer.push(step);
            next.make(step).map_err(|what| broken(what, &longer))?;
            seen.steps += 1;
            if known.insert(next.digest()) {
                seen.states += 1;
                seen.depth = seen.depth.max(longer.len());
                if seen.states.is_multiple_of(10_000) {
                    progress(&seen);
                }
                if seen.states >= scope.states {
                    seen.cut_short = true;
                    return Ok(seen);
                }
                open.push((next, longer));
            }
        }
    }
    Ok(seen)
}

/// Goes one way, to look at it again.
///
/// # Errors
/// As [`explore`].
pub fn follow(scope: Scope, path: &[SmallMove]) -> Result<SmallWorld, Broken> {
    let mut world = SmallWorld::new(scope);
    for (i, step) in path.iter().enumerate() {
        let broken = |what| Broken { what, path: path[..=i].to_vec() };
        world.make(*step).map_err(broken)?;
    }
    Ok(world)
}
