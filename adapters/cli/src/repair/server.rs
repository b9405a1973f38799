//! The repair of a server's database.

use std::path::Path;

use serde_json::json;
use synclayer_core::rules::verify;
use synclayer_core::{ServerStore, StoreError, StoreErrorKind};
use synclayer_fjall::{FjallServerStore, Repair, ServerOptions};

use crate::failure::Failure;
use crate::output::Printer;

/// Puts a sound store in the place of a damaged one.
pub(super) fn repair(data: &Path, force: bool, out: Printer) -> Result<(), Failure> {
    if !force && is_sound(data)? {
        let text = "the database is whole; --force repairs it all the same";
        return out.line(text, &json!({ "done": "nothing" }));
    }
    report(&FjallServerStore::repair(data)?, out)
}

/// Returns true if a database opens and is consistent.
fn is_sound(data: &Path) -> Result<bool, StoreError> {
    let mut whole = false;
    let checked = FjallServerStore::open(data, ServerOptions::default()).and_then(|store| {
        store.read(&mut |rows| {
            whole = verify(rows)?.faults.is_empty();
            Ok(())
        })
    });
    match checked {
        Ok(()) => Ok(whole),
        Err(error) if error.kind == StoreErrorKind::Damaged => Ok(false),
        Err(error) => Err(error),
    }
}

fn report(repair: &Repair, out: Printer) -> Result<(), Failure> {
    let Repair { aside, kept, lost, lost_commits, database, .. } = repair;
    let aside = aside.display();
    let json = json!({
        "done": "repaired",
        "to": aside.to_string(),
        "records": kept.records,
        "tombstones": kept.tombstones,
        "clients": kept.clients,
        "lost": {
            "commits": lost_commits,
            "records": lost.records,
            "outdated": lost.outdated,
            "clients": lost.clients,
        },
        "database": database.as_deref(),
    });
    let saved = format!(
        "moved the store to {aside}; {} records, {} tombstones and {} clients are in a new one",
        kept.records, kept.tombstones, kept.clients
    );
    out.line(saved, &json)?;
    out.note(format_args!(
        "lost, as far as can be told: {lost_commits} commits, {} records, the last changes of {} \
         records, {} clients; replicas that connect find out what they hold beyond the new store",
        lost.records, lost.outdated, lost.clients
    ));
    if database.is_none() {
        out.note(
            "the database's identity is lost: replicas that knew it will take this for another one",
        );
    }
    Ok(())
}
