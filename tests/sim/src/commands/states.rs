//! The command that visits every state of a small world.

use std::io::IsTerminal;
use std::process::ExitCode;

use synclayer_sim::states::{Scope, Seen, explore};

use super::{Outcome, numbers};

/// Operations, transactions, crashes, cuts, and whether the server is quick: the last without and with
/// transactions is the whole of it.
const SCOPES: [(u8, u8, u8, u8, bool); 14] = [
    (1, 0, 0, 0, false),
    (2, 0, 0, 0, false),
    (1, 0, 0, 1, false),
    (1, 0, 1, 0, false),
    (2, 0, 1, 1, true),
    (3, 0, 0, 0, false),
    (3, 0, 1, 2, true),
    (3, 0, 1, 2, false),
    (1, 1, 0, 0, false),
    (1, 1, 1, 0, true),
    (1, 1, 0, 1, true),
    (1, 1, 1, 1, true),
    (1, 2, 1, 1, true),
    (1, 2, 1, 1, false),
];

/// Visits the states of ever larger worlds, at most so many of each. Without the option,
/// `SYNCLAYER_STATES` says how many, or there are two million.
pub(crate) fn states(arguments: impl Iterator<Item = String>) -> Outcome {
    let options = numbers(arguments, &["--states"])?;
    let named = std::env::var("SYNCLAYER_STATES").ok().and_then(|text| text.parse().ok());
    let most = options.get("--states").copied().or(named).unwrap_or(2_000_000);
    let states = usize::try_from(most).unwrap_or(usize::MAX);
    for (operations, units, crashes, cuts, quick_server) in SCOPES {
        let scope = Scope { operations, units, crashes, cuts, quick_server, states };
        match explore(scope, &show) {
            Ok(seen) => println!("\r{scope} {seen}"),
            Err(broken) => {
                println!("\r{scope} is broken by\n{broken}");
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show(seen: &Seen) {
    if std::io::stderr().is_terminal() {
        eprint!("\r{} states, {} steps", seen.states, seen.steps);
    }
}
