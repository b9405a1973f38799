use super::*;

use proptest::prelude::*;

/// A writer that knows what it has seen, and a model of the record.
#[derive(Clone, Debug)]
enum Step {
    Write { base: u64, change: Change, record: u8 },
    Plain { change: Change, record: u8 },
    Sweep,
    Later,
}

fn changes() -> impl Strategy<Value = Change> {
    let documents = proptest::collection::btree_map("[a-c]", "[0-3]", 0..4).prop_map(|fields| {
        let fields: Vec<_> = fields.into_iter().collect();
        Document::of_sorted(&fields)
    });
    let names = proptest::collection::vec("[a-c]", 0..2);
    (documents, names, 0..6).prop_map(|(set, names, kind)| match kind {
        0 => Change::insert(set),
        1 => Change::delete(),
        _ => Change::update(Delta::new(set, names.into_iter().map(Into::into).collect())),
    })
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..4u64, changes(), 0..2u8)
            .prop_map(|(base, change, record)| Step::Write { base, change, record }),
        3 => (changes(), 0..2u8).prop_map(|(change, record)| Step::Plain { change, record }),
        1 => Just(Step::Sweep),
        1 => Just(Step::Later),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Seqs are dense, index and checksum agree with the records (checked by every commit), and no
    /// write is applied that touches a field changed above its base.
    #[test]
    fn no_update_is_lost(steps in proptest::collection::vec(steps(), 1..25)) {
        let mut store = Store::new();
        store.hello("w");
        // when each field was really changed last, by name; "" is the record as a whole
        let mut changed: BTreeMap<(u8, String), u64> = BTreeMap::new();
        let mut head = 0u64;
        let mut number = 1;
        for step in steps {
            let (change, record, base, outcome) = match step {
                Step::Write { base, change, record } => {
                    let base = head.min(base + head.saturating_sub(3));
                    let name = alloc::format!("r{record}");
                    let outcome = store.run("w", vec![write(number, base, &name, change.clone())]).remove(0);
                    (change, record, Some(base), outcome)
                }
                Step::Plain { change, record } => {
                    let name = alloc::format!("r{record}");
                    (change.clone(), record, None, store.plain_to(&name, change))
                }
                Step::Sweep => {
                    store.hello("w");
                    store.sweep(1000);
                    // what is gone without a trace takes an insert from anyone
                    changed.retain(|(r, _), _| store.record(&alloc::format!("r{r}")).is_some());
                    continue;
                }
                Step::Later => {
                    store.now = Timestamp(store.now.0 + 10_000);
                    continue;
                }
            };
            if outcome.mutation.is_some()
                && matches!(outcome.verdict, Verdict::Applied { .. } | Verdict::Unchanged { .. })
            {
                number += 1;
            }
            prop_assert_eq!(store.last_mutation("w").0, number - 1);
            let Verdict::Applied { seq, echo, .. } = &outcome.verdict else { continue };
            let echo = echo.as_ref().expect("everybody may read everything");
            prop_assert_eq!(seq.0, head + 1);
            head = seq.0;
            // what others are told of; removing what was not there is no change
            let told = &store.published.last().unwrap().change.change;
            let touched: Vec<String> = match told.kind {
                WriteKind::Update => told.delta.fields().map(|(name, _)| name.into()).collect(),
                WriteKind::Insert | WriteKind::Delete => {
                    ["", "a", "b", "c"].map(String::from).to_vec()
                }
            };
            if let Some(base) = base {
                for field in &touched {
                    let at = changed.get(&(record, field.clone())).copied().unwrap_or(0);
                    prop_assert!(at <= base, "{field} changed at {at}, base {base}");
                }
                let whole = changed.get(&(record, String::new())).copied().unwrap_or(0);
                if change.kind == WriteKind::Update && whole <= base {
                    for (name, _) in echo.change.delta.fields() {
                        let at = changed.get(&(record, name.into())).copied().unwrap_or(0);
                        prop_assert!(at > base || change.touches(name));
                    }
                }
            }
            for field in touched {
                changed.insert((record, field), head);
            }
        }
        let seqs: Vec<u64> = store.published.iter().map(|published| published.seq.0).collect();
        prop_assert_eq!(seqs, (1..=head).collect::<Vec<_>>());
        prop_assert_eq!(store.head().seq.0, head);
    }

    #[test]
    fn records_come_back_from_their_rows(changes in proptest::collection::vec(changes(), 1..6), bytes: Vec<u8>) {
        let mut store = Store::new();
        for change in changes {
            store.plain(change);
        }
        if let Some(record) = store.record("r") {
            prop_assert_eq!(RecordRow::from_row(record.to_row().into()).unwrap(), record);
        }
        let _ = RecordRow::from_row(bytes.clone().into());
        let _ = Head::from_row(bytes.clone().into());
        let _ = ClientRow::from_row(bytes.clone().into());
        let _ = EpochRow::from_row(bytes.into());
    }
}
