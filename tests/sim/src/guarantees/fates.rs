//! **True fates** of writes.

use synclayer_core::Fate;

use crate::guarantees::is_permanent;
use crate::guarantees::ledger::{Ledger, Write};

/// **True fates:** who is told that the server has a write, finds it there; who is told that it was
/// refused or given up, does not.
///
/// # Errors
/// When it isn't so.
pub fn fate_is_true(ledger: &Ledger, index: usize, fate: &Fate) -> Result<(), String> {
    let (token, write) = (index + 1, &ledger.writes[index]);
    if write.lost || write.forgotten || ledger.loose {
        return Ok(());
    }
    // a record that is deleted may have taken what was written to it before along
    let shows = write.unique && is_permanent(&write.place.1);
    match fate {
        Fate::Acknowledged if shows && !write.applied => {
            Err(format!("write {token} was told to be acknowledged, and the server never had it"))
        }
        Fate::Rejected { .. } if !write.rejected => {
            Err(format!("write {token} was told to be rejected, and isn't"))
        }
        Fate::Rejected { .. } if shows && write.applied => {
            Err(format!("write {token} was told to be rejected, and took effect"))
        }
        // a field that nobody else writes is never in conflict
        Fate::GivenUp if shows && !write.applied => {
            Err(format!("write {token} was given up without a conflict"))
        }
        Fate::Acknowledged | Fate::Rejected { .. } | Fate::GivenUp => Ok(()),
        _ => Err(format!("write {token} was told {fate:?} by a server of level 2")),
    }
}

/// **True fates**, at rest: every app was told of every write that it waits for.
///
/// # Errors
/// Names the write that nobody was told of.
pub fn fates_are_told(ledger: &Ledger) -> Result<(), String> {
    let waits = |write: &Write| write.fate.is_some() && write.told.is_none();
    match ledger.writes.iter().position(waits) {
        Some(index) => Err(format!("nobody told what became of write {}", index + 1)),
        None => Ok(()),
    }
}
