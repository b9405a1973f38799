//! **Order** of the writes of one author.

use std::collections::{BTreeMap, BTreeSet};

use synclayer_core::{ClientId, WriteId};

use crate::guarantees::ledger::{Ledger, STRANGER, Write};
use crate::guarantees::{is_permanent, new_tokens};
use crate::plan::{Strategy, tokens_in};
use crate::world::{Committed, World};

/// **Order:** a client's writes are applied in its order (merged writes take the place of the first
/// of them).
///
/// # Errors
/// When a write comes before an earlier one.
pub fn in_order(
    ledger: &mut Ledger,
    committed: &Committed,
    device: usize,
    client: &ClientId,
) -> Result<(), String> {
    let tokens = new_tokens(committed);
    for token in &tokens {
        let Some(write) = ledger.write(*token) else { continue };
        let Some(position) = write.position else { continue };
        if !ledger.counts(write, device) || write.rejected {
            continue;
        }
        // a list is written whole: a later write behind a transaction brings what a strategy had given
        // up in front of it
        let brings = |later: &Write| {
            later.appends && later.device == device && later.position > write.position
        };
        if write.appends && tokens.iter().filter_map(|token| ledger.write(*token)).any(brings) {
            continue;
        }
        let last = ledger.last_place.entry(client.clone()).or_insert(position);
        if position < *last {
            return Err(format!("write {token} of place {position} came after {last}"));
        }
        *last = position;
    }
    Ok(())
}

/// **Order**, of writes that became one: it takes the place of the first of them.
///
/// # Errors
/// When it has another place. Those between would overtake it.
pub(super) fn in_the_first_place(write: Option<WriteId>, merged: &[WriteId]) -> Result<(), String> {
    match (write, merged.iter().min()) {
        (Some(write), Some(first)) if write != *first => {
            Err(format!("{merged:?} became one write at {write:?}"))
        }
        (Some(_) | None, _) => Ok(()),
    }
}

/// **Order**, of what one author appended to one list.
pub(super) fn appended_in_order(ledger: &Ledger, world: &World) -> Result<(), String> {
    if ledger.plan.strategy != Strategy::Append || ledger.loose {
        return Ok(());
    }
    let places: BTreeSet<_> = ledger.writes.iter().map(|write| &write.place).collect();
    for place in places.into_iter().filter(|place| is_permanent(&place.1)) {
        let Some(record) = world.histories().present().now(place) else { continue };
        let mut last = BTreeMap::new();
        for token in tokens_in(record.text("log").unwrap_or("[]")) {
            let Ok(token) = token.parse::<u64>() else { continue };
            let Some(write) = ledger.write(token) else { continue };
            if write.device != STRANGER && last.insert(write.device, token) > Some(token) {
                return Err(format!("{record} in {place:?} is not in its authors' order"));
            }
        }
    }
    Ok(())
}
