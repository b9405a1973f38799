use super::*;
use crate::protocol::limits::Limits;
use alloc::format;
use alloc::string::ToString;
use proptest::prelude::*;

fn id(id: u8) -> RecordId {
    RecordId::new(&id.to_string()).unwrap()
}

fn record(n: u8, value: u8, pending: bool) -> Record {
    Record {
        id: id(n),
        document: Document::parse(&format!("{{\"v\":{value}}}"), &Limits::default()).unwrap(),
        version: u64::from(value),
        updated_at: Timestamp(0),
        pending,
    }
}

/// One step of a view's life, and whether the watcher takes its update after it.
#[derive(Clone, PartialEq, Debug)]
enum Step {
    Record(u8, Option<(u8, bool)>),
    Status(bool, bool),
    Take,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let value = proptest::option::weighted(0.7, (0..2u8, any::<bool>()));
    let step = prop_oneof![
        6 => (0..4u8, value).prop_map(|(n, value)| Step::Record(n, value)),
        1 => any::<(bool, bool)>().prop_map(|(a, b)| Step::Status(a, b)),
        2 => Just(Step::Take),
    ];
    proptest::collection::vec(step, 0..40)
}

fn step(view: &mut View, step: &Step) -> Option<Update> {
    let changes: Vec<_> = match *step {
        Step::Record(n, value) => {
            let record = value.map(|(value, pending)| record(n, value, pending));
            view.apply(&id(n), record).into_iter().collect()
        }
        Step::Status(from_cache, catching_up) => {
            let news = view.set_status(from_cache, catching_up);
            return news.then(|| Update { snapshot: view.snapshot(), changes: Vec::new() });
        }
        Step::Take => return None,
    };
    (!changes.is_empty()).then(|| Update { snapshot: view.snapshot(), changes })
}

/// The older snapshot with the changes of an update applied. Strict: it is an error to add a
/// record twice or to remove a missing one.
fn replay(older: &Snapshot, update: &Update) -> Snapshot {
    let mut view = View { snapshot: older.clone(), only: None };
    for change in &update.changes {
        let before = older.get(change.id()).is_some();
        assert_eq!(before, !matches!(change, RecordChange::Added(_)), "{change:?}");
        view.apply(change.id(), change.record().cloned());
    }
    view.snapshot.status = update.snapshot.status;
    view.snapshot
}

proptest! {
    #[test]
    fn what_a_watcher_takes_leads_from_one_snapshot_to_the_next(steps in steps()) {
        let mut view = View::new([]);
        let (mut slot, mut seen) = (view.first_slot(), Snapshot::default());
        for next in steps.iter().chain([&Step::Take]) {
            if let Some(update) = step(&mut view, next) {
                slot.put(update.snapshot, update.changes);
                prop_assert!(!slot.is_empty());
            }
            if *next == Step::Take
                && let Some(update) = slot.take()
            {
                prop_assert_eq!(&replay(&seen, &update), &update.snapshot);
                prop_assert_eq!(&update.snapshot, &view.snapshot());
                let all = update.snapshot.changes_since(&seen);
                prop_assert!(all.iter().all(|change| update.changes.contains(change)));
                let all = Update { changes: all, ..update.clone() };
                prop_assert_eq!(&replay(&seen, &all), &update.snapshot);
                prop_assert!(update.changes.is_sorted_by(|a, b| a.id() < b.id()));
                seen = update.snapshot;
            }
            prop_assert!(slot.is_empty() || *next != Step::Take);
        }
    }

    #[test]
    fn a_slot_merges_updates_alike_however_they_were_merged_before(
        steps in steps(),
        split: proptest::sample::Index,
    ) {
        let mut view = View::new([]);
        let updates: Vec<_> = steps.iter().filter_map(|s| step(&mut view, s)).collect();
        prop_assume!(!updates.is_empty());
        let merged = |updates: &[Update]| {
            let mut slot = Slot::default();
            updates.iter().cloned().for_each(|u| slot.put(u.snapshot, u.changes));
            slot.take()
        };
        let (left, right) = updates.split_at(split.index(updates.len()));
        let halves: Vec<_> = merged(left).into_iter().chain(merged(right)).collect();
        prop_assert_eq!(merged(&halves), merged(&updates));
    }

    #[test]
    fn a_snapshot_knows_whether_something_is_pending(steps in steps()) {
        let mut view = View::new([]);
        for next in &steps {
            step(&mut view, next);
            let snapshot = view.snapshot();
            prop_assert_eq!(snapshot.pending(), snapshot.iter().any(|r| r.pending));
            prop_assert_eq!(snapshot.len(), snapshot.iter().count());
        }
    }

    #[test]
    fn a_view_of_one_record_shows_that_record(steps in steps()) {
        let (mut all, mut one) = (View::new([]), View::of_record(id(1), None));
        for next in &steps {
            step(&mut all, next);
            step(&mut one, next);
            let (all, one) = (all.snapshot(), one.snapshot());
            prop_assert_eq!(all.get("1"), one.get("1"));
            prop_assert!(one.len() <= 1);
        }
    }
}

#[test]
fn a_snapshot_does_not_change() {
    let mut view = View::new([record(1, 0, false), record(2, 0, true)]);
    let before = view.snapshot();
    assert!(before.from_cache() && before.pending() && !before.catching_up());
    assert!(!before.is_complete());
    assert!(before.len() == 2 && !before.is_empty() && View::new([]).snapshot().is_empty());
    assert_eq!(view.first_slot().take().unwrap().changes.len(), 2);
    let change = view.apply(&id(2), Some(record(2, 1, false)));
    assert_eq!(change, Some(RecordChange::Modified(record(2, 1, false))));
    assert_eq!(view.apply(&id(2), Some(record(2, 1, false))), None, "nothing changed");
    assert_eq!(view.apply(&id(3), None), None, "nothing to remove");
    assert!(view.set_status(false, true));
    assert!(!view.set_status(false, true));
    assert_eq!(before.get("2"), Some(&record(2, 0, true)));
    let shown = format!("{before:?}");
    assert!(shown.contains("len: 2") && !shown.contains("\"v\""), "counts alone: {shown}");
    let after = view.snapshot();
    assert!(!after.from_cache() && !after.pending() && after.catching_up());
    assert!(!after.is_complete());
    let mut other = View::new([record(1, 0, false), record(2, 1, false)]);
    assert_ne!(after, other.snapshot(), "of another status");
    other.set_status(false, true);
    assert_eq!(after, other.snapshot());
    other.apply(&id(2), Some(record(2, 2, false)));
    assert_ne!(after, other.snapshot(), "of another content");
    assert_eq!(other.snapshot().changes_since(&after).len(), 1);
    other.set_status(false, false);
    assert!(other.snapshot().is_complete());
}

#[test]
fn a_new_version_or_time_alone_is_no_change() {
    let mut view = View::new([record(1, 0, true)]);
    let before = view.snapshot();
    let newer = Record { version: 7, updated_at: Timestamp(9), ..record(1, 0, true) };
    assert_eq!(view.apply(&id(1), Some(newer.clone())), None);
    assert_eq!(view.get("1"), Some(&newer), "the snapshot has it all the same");
    assert_eq!(view.snapshot().changes_since(&before), []);
    let settled = Record { pending: false, ..newer };
    let told = view.apply(&id(1), Some(settled.clone()));
    assert_eq!(told, Some(RecordChange::Modified(settled)), "no longer pending");
}

#[test]
fn a_change_leaves_the_other_records_where_they_are() {
    let mut view = View::new((0..100).map(|n| record(n, 0, false)));
    let before = view.snapshot();
    view.apply(&id(50), Some(record(50, 1, false)));
    let after = view.snapshot();
    let moved = before.iter().zip(after.iter()).filter(|(a, b)| !core::ptr::eq(*a, *b));
    assert_eq!(moved.count(), 1);
}
