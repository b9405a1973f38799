//! What a change and an acknowledgement may cost: reads and writes of the stores, and syncs of the
//! disk, counted.
#![allow(missing_docs, clippy::unwrap_used)]

use std::sync::{Arc, Barrier};
use std::thread;

use synclayer_core::memory::MemoryClientStore;
use synclayer_core::rules::policy::AllowAll;
use synclayer_core::rules::view::RecordChange;
use synclayer_core::words::store::{Batch, ServerStore};
use synclayer_fjall::{FjallServerStore, ServerOptions, Stats};
use synclayer_sim::counted::{Counted, Counts};
use synclayer_sim::desk::Desk;

type Watched = Desk<Counted<MemoryClientStore>>;

/// What one change asks of the store while this many records are watched.
fn cost(records: usize, change: impl Fn(&mut Watched)) -> Counts {
    let mut desk = Desk::online(Counted::new(MemoryClientStore::new()));
    let watch = desk.watch();
    for n in 0..records {
        desk.remote("insert", &format!("r{n}"), r#"{"n":1,"text":"Buy milk"}"#);
    }
    assert_eq!(desk.take(watch).unwrap().snapshot.len(), records);
    desk.replica.store().take();
    change(&mut desk);
    let counts = desk.replica.store().take();
    let update = desk.take(watch).unwrap();
    assert!(matches!(&update.changes[..], [RecordChange::Modified(record)] if &*record.id == "r7"));
    assert_eq!(update.snapshot.len(), records);
    assert_eq!(desk.replica.store().take(), Counts::default(), "what is shown was not read");
    counts
}

#[test]
fn a_change_reads_only_its_record_however_many_are_watched() {
    let remote = |desk: &mut Watched| desk.remote("update", "r7", r#"{"n":2}"#);
    let local = |desk: &mut Watched| desk.update("r7", r#"{"n":2}"#).unwrap();
    let of_remote = cost(10, remote);
    assert_eq!((of_remote.gets, of_remote.scans), (1, 0), "{of_remote:?}");
    assert_eq!((of_remote.commits, of_remote.ops), (1, 2), "the row and the cursor: {of_remote:?}");
    assert_eq!(cost(20_000, remote), of_remote);
    let of_local = cost(10, local);
    assert_eq!(of_local.commits, 1, "{of_local:?}");
    assert!(of_local.gets + of_local.scanned <= 5, "{of_local:?}");
    assert_eq!(cost(20_000, local), of_local);
}

#[test]
fn a_write_that_waits_costs_no_look_at_the_others() {
    let mut desk = Desk::offline(Counted::new(MemoryClientStore::new()));
    for n in 0..1_000 {
        desk.save(&format!("r{n}"), r#"{"n":1}"#).unwrap();
    }
    desk.replica.store().take();
    desk.save("another", r#"{"n":1}"#).unwrap();
    let counts = desk.replica.store().take();
    assert_eq!((counts.gets, counts.scanned, counts.commits), (1, 0, 1), "{counts:?}");
}
