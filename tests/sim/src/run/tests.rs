//! Runs whose course is written down.

use synclayer_core::{EventKind, OnServerLoss, StoreError, StoreErrorKind};

use super::Run;
use crate::draw::{Draw, bytes_of};
use crate::guarantees::{Ledger, server_rows};
use crate::plan::{Plan, Rates, Reach, collections};
use crate::world::{CommitFate, Move, Place, World, document, record};
use crate::writes::AppWrite;

fn place(id: &str) -> Place {
    (collections().swap_remove(0), record(id))
}

/// Writes to thirty records.
fn write_many(run: &mut Run) -> Result<(), String> {
    (0..30).try_for_each(|n| run.write(0, &place(&format!("k{n}")), AppWrite::Hot))
}

/// The same, and lets the server take them.
fn fill(run: &mut Run) -> Result<(), String> {
    write_many(run)?;
    run.drive(10_000, |_, _| true)
}

/// A damaged store was repaired with rows of a backup that was made after another backup had come
/// back.
#[test]
fn a_damaged_store_holds_no_row_of_another_branch() -> Result<(), String> {
    for seed in 0..8 {
        let mut run = Run::new(&[]);
        fill(&mut run)?;
        let early = run.world.backup();
        fill(&mut run)?;
        run.backup = Some(run.world.backup());
        run.world.restore_server(early);
        run.repair_server(&mut Draw::new(&bytes_of(seed)))?;
        server_rows(&run.world)?;
    }
    Ok(())
}

/// The disk of a device failed when everything healed, because its connection ended by that.
#[test]
fn a_watcher_begins_anew_after_a_disk_fails_at_the_end() -> Result<(), String> {
    let mut run = Run::new(&[]);
    fill(&mut run)?;
    run.write(1, &place("a"), AppWrite::Hot)?;
    run.drive(100, |world, one| world.transactions() == 0 && one != Move::Commit)?;
    // a hello that fails is said again by HTTP, which takes a commit
    run.world.devices[0].config.http = true;
    let (_, durable) = run.world.commits(0);
    run.restart(0, durable);
    for collection in run.world.to_take(0) {
        run.ledger.take(&mut run.world, 0, &collection)?;
    }
    run.drive(1, |_, one| one == Move::Connect(0))?;
    run.world.commit(1, CommitFate::LostUnsaid);
    run.world.fail_disk(0, 1, StoreError::new(StoreErrorKind::Other, "the disk has had enough"));
    run.converge()?;
    assert_eq!(run.world.devices[0].lives, 2, "the disk fails");
    Ok(())
}

/// A rejection took back what its own device had written, after another's loss had excused the write
/// from being there.
#[test]
fn a_rejected_insert_is_no_loss_that_has_to_be_decided() -> Result<(), String> {
    let mut run = Run::new(&[]);
    run.drive(10_000, |_, _| true)?;
    run.backup = Some(run.world.backup());
    run.write(1, &place("b"), AppWrite::Hot)?;
    run.drive(10_000, |world, one| world.device_of(one) != Some(0))?;
    run.restore_server()?;
    run.world.devices[0].config.on_server_loss = Some(OnServerLoss::Ask);
    run.write(0, &place("b"), AppWrite::Hot)?;
    run.write(0, &place("b"), AppWrite::Forbidden)?;
    for collection in run.world.to_take(0) {
        run.ledger.take(&mut run.world, 0, &collection)?;
    }
    run.ledger.forget(|_, write| write.place == place("b"));
    run.converge()?;
    assert!(run.world.saw(0, |kind| matches!(kind, EventKind::OperationFailed { .. })));
    Ok(())
}

/// A strategy decided about a write in front of a transaction, which need not be there any more, and
/// another write behind the transaction was shown.
#[test]
fn what_was_decided_counts_for_a_write_that_need_not_be_there() -> Result<(), String> {
    let mut run = Run::new(&[]);
    run.plan.units = 1;
    run.ledger = Ledger::new(&run.plan);
    run.write(0, &place("a"), AppWrite::Hot)?;
    run.drive(10_000, |_, _| true)?;
    let others = |world: &World, one| world.device_of(one) != Some(0);
    run.write(1, &place("a"), AppWrite::Hot)?;
    run.drive(10_000, others)?;
    run.world.pass(10);
    run.write(0, &place("a"), AppWrite::Hot)?;
    let members = vec![(place("a"), document(r#"{"flag":1}"#))];
    let made = run.world.transact(0, members, None, false);
    made.map_err(|error| error.to_string())?;
    run.write(0, &place("a"), AppWrite::Hot)?;
    write_many(&mut run)?;
    run.ledger.forget(|_, write| write.device == 0);
    run.converge()?;
    let decided = |kind: &EventKind| matches!(kind, EventKind::ConflictResolved { .. });
    assert!(run.world.saw(0, decided));
    Ok(())
}

/// An older copy of a device brought back what a crash had taken from it since, and a strategy decided
/// about that.
#[test]
fn what_was_decided_counts_for_a_write_that_a_copy_brought_back() -> Result<(), String> {
    let mut run = Run::of(Plan { units: 1, shared: 0, ..Plan::of(&[]) });
    run.write(0, &place("a"), AppWrite::Hot)?;
    run.drive(10_000, |_, _| true)?;
    run.write(1, &place("a"), AppWrite::Hot)?;
    run.drive(10_000, |world, one| world.device_of(one) != Some(0))?;
    run.world.pass(10);
    let (_, durable) = run.world.commits(0);
    run.write(0, &place("a"), AppWrite::Hot)?;
    let members = vec![(place("a"), document(r#"{"flag":1}"#))];
    let made = run.world.transact(0, members, None, false);
    made.map_err(|error| error.to_string())?;
    run.write(0, &place("a"), AppWrite::Hot)?;
    run.copy_device(0);
    run.restart(0, durable);
    run.restore_device(false);
    run.converge()?;
    let decided = |kind: &EventKind| matches!(kind, EventKind::ConflictResolved { .. });
    assert!(run.world.saw(0, decided));
    Ok(())
}

/// A WebSocket came up in the group in which a call was made: the call went out all the same, and nobody
/// listened to its answer.
#[test]
fn the_answer_to_a_call_that_its_own_group_gave_up_is_late() -> Result<(), String> {
    let (shared, reaches) = (1, [Reach::Both; 4]);
    let mut run = Run::of(Plan { shared, reaches, rates: Rates::default(), ..Plan::of(&[]) });
    run.drive(10_000, |_, _| true)?;
    run.world.cut(run.connection(0).expect("it is connected"));
    let is_reply = |one| matches!(one, Move::Reply(_));
    while !run.world.moves().into_iter().any(is_reply) {
        run.drive(10_000, |_, one| one != Move::Connect(0) && !is_reply(one))?;
        run.world.pass(1_000);
    }
    run.drive(10, |_, one| one == Move::EndGroup(0))?;
    run.drive(1, |_, one| is_reply(one))?;
    run.drive(1, |_, one| one == Move::Connect(0))?;
    run.converge()?;
    assert!(run.world.counts.contains_key("late answer"));
    Ok(())
}
