//! **Exactly once**, and nothing else than what was written.

use std::collections::BTreeMap;

use synclayer_core::Document;

use crate::guarantees::ledger::{Ledger, STRANGER, Write};
use crate::guarantees::{is_permanent, new_tokens};
use crate::plan::{Strategy, tokens_in};
use crate::world::{Committed, Place, World};

/// **Exactly once:** each write takes effect once or is reported as rejected, under any loss,
/// duplication, delay, crash or reconnect. Here: no number of a client is applied twice, and no
/// write that was reported as rejected is applied.
///
/// # Errors
/// When one is.
pub fn exactly_once(ledger: &Ledger, committed: &Committed, device: usize) -> Result<(), String> {
    if committed.repeated {
        return Err(format!("{:?} was applied again", committed.numbered));
    }
    for token in new_tokens(committed) {
        let counts = |write: &&Write| ledger.counts(write, device) && write.unique;
        if ledger.write(token).filter(counts).is_some_and(|write| write.rejected) {
            return Err(format!("write {token} was rejected, and took effect"));
        }
    }
    Ok(())
}

/// **Exactly once**, at rest: what was appended is there once, sums are what was added, and what
/// was reported as rejected is not there.
///
/// # Errors
/// Which write took effect twice, or although it was rejected.
pub fn nothing_is_doubled(ledger: &Ledger, world: &World) -> Result<(), String> {
    let present = world.histories().present();
    let mut sums = BTreeMap::<&Place, i64>::new();
    for (index, write) in ledger.writes.iter().enumerate() {
        let token = index + 1;
        let record = present.now(&write.place);
        let field = format!("t{token}");
        let there = record.and_then(|record| record.text(&field)).is_some();
        if write.unique && write.rejected && there && !ledger.loose {
            return Err(format!("{field} was rejected, and is there"));
        }
        // a later write to the list, made on top of a rejected one, may have brought it
        let times = times_in_log(record, token);
        let listed = write.appends && !write.lost && write.device != STRANGER;
        if listed && is_permanent(&write.place.1) && ledger.is_strict() && times > 1 {
            return Err(format!("{token} is {times} times in {:?}", write.place));
        }
        if !write.lost && !write.rejected {
            *sums.entry(&write.place).or_default() += write.adds;
        }
    }
    let refused = ledger.writes.iter().any(|write| write.rejected);
    // what was added on top of a refused sum stays, with the sum
    if ledger.plan.strategy == Strategy::Sum && !ledger.loose && !refused {
        for (place, sum) in sums {
            let found = present.now(place).and_then(|record| record.text("sum")?.parse().ok());
            if found.unwrap_or(0) != sum {
                return Err(format!("{place:?} adds up to {found:?}, not {sum}"));
            }
        }
    }
    Ok(())
}

pub(super) fn times_in_log(record: Option<&Document>, token: usize) -> usize {
    let list = record.and_then(|record| record.text("log")).unwrap_or("[]");
    tokens_in(list).iter().filter(|n| **n == token.to_string()).count()
}
