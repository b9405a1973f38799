use super::*;

#[test]
fn tombstones_older_than_the_retention_raise_the_horizon() {
    let mut store = Store::new();
    store.plain_to("gone", insert("{}"));
    store.plain_to("kept", insert("{\"a\":1,\"b\":1}"));
    store.plain_to("gone", Change::delete());
    store.plain_to("kept", unset("{}", &["a"]));
    store.now = Timestamp(2_000_000);
    store.plain_to("late", insert("{}"));
    store.plain_to("late", Change::delete());
    assert_eq!(store.head().horizon, Seq(0));
    assert_eq!(store.sweep(500_000), 2);
    assert_eq!(store.head().horizon, Seq(4));
    assert_eq!(store.record("gone"), None);
    assert_eq!(store.record("kept").unwrap().removed.len(), 0);
    assert!(store.record("late").is_some());
    assert_eq!(store.sweep(500_000), 0);
    store.now = Timestamp(3_000_000);
    assert_eq!(store.sweep(500_000), 1);
    assert_eq!(store.head().horizon, Seq(6));
    assert_eq!(store.head().count, 1);
}

#[test]
fn a_base_below_the_horizon_conflicts_where_the_record_changed_since() {
    let mut store = Store::new();
    store.plain_to("r", insert("{\"a\":1,\"b\":1}"));
    store.plain_to("s", insert("{\"a\":1}"));
    store.plain_to("r", unset("{}", &["b"]));
    store.now = Timestamp(9_000_000);
    store.sweep(1);
    assert_eq!(store.head().horizon, Seq(3));
    store.hello("w");
    // the tombstone of `b` is gone, so nobody can tell what was changed after 2
    let outcomes = store.run("w", vec![write(1, 2, "r", update("{\"b\":2}"))]);
    assert_eq!(briefs(&outcomes), ["conflict 3 {\"a\":1}"]);
    // this record has not changed since
    let outcomes = store.run("w", vec![write(1, 2, "s", update("{\"a\":2}"))]);
    assert_eq!(briefs(&outcomes), ["seq 4 v2"]);
    // one that is gone without a trace may have been deleted up to the horizon
    let outcomes = store.run("w", vec![write(2, 1, "t", insert("{}"))]);
    assert_eq!(briefs(&outcomes), ["conflict 3 null"]);
    let outcomes = store.run("w", vec![write(2, 3, "t", insert("{}"))]);
    assert_eq!(briefs(&outcomes), ["seq 5 v1"]);
    let outcomes = store.run("w", vec![write(3, 3, "r", update("{\"b\":2}"))]);
    assert_eq!(briefs(&outcomes), ["seq 6 v3"]);
    // at the horizon all is known again: it was another field
    store.plain_to("r", update("{\"a\":7}"));
    let outcomes = store.run("w", vec![write(4, 3, "r", update("{\"c\":2}"))]);
    assert_eq!(briefs(&outcomes), ["seq 8 v5"]);
}

#[test]
fn who_knows_nothing_of_a_record_may_insert_it_below_the_horizon() {
    let mut store = Store::new();
    store.plain_to("gone", insert("{}"));
    store.plain_to("gone", Change::delete());
    store.now = Timestamp(9_000_000);
    store.sweep(1);
    assert_eq!(store.head().horizon, Seq(2));
    store.hello("w");
    let outcomes = store.run("w", vec![write(1, 1, "new", insert("{}"))]);
    assert_eq!(briefs(&outcomes), ["conflict 2 null"]);
    let outcomes = store.run("w", vec![write(1, 0, "new", insert("{}"))]);
    assert_eq!(briefs(&outcomes), ["seq 3 v1"]);
}

#[test]
fn silent_clients_and_past_epochs_expire() {
    let mut store = Store::new();
    store.hello("old");
    store.plain(insert("{\"a\":1}"));
    store.begin("e2");
    store.now = Timestamp(2_000_000);
    store.plain(insert("{\"a\":2}"));
    store.begin("e3");
    store.hello("new");
    let current = |store: &Store| EpochRow::current(&store.rows).unwrap().unwrap().1.id;
    let number =
        |store: &Store, id: &str| EpochRow::number(&store.rows, &Epoch::new(id).unwrap()).unwrap();
    assert_eq!(store.sweep(1_000_000), 0, "as old as the retention is not older");
    // e1 ended when e2 began, which is too long ago; e2 ended just now
    assert_eq!(store.sweep(500_000), 2);
    assert_eq!(current(&store).as_str(), "e3");
    assert_eq!(number(&store, "e1"), None);
    assert_eq!(number(&store, "e2"), Some(2));
    assert_eq!(ClientRow::load(&store.rows, &client("old")).unwrap(), None);
    assert!(ClientRow::load(&store.rows, &client("new")).unwrap().is_some());
    assert_eq!(EpochRow::began_at(&store.rows, &todos(), 3).unwrap(), Seq(2));
    store.now = Timestamp(9_000_000);
    store.begin("e4");
    store.now = Timestamp(19_000_000);
    store.sweep(1000);
    assert_eq!(EpochRow::began_at(&store.rows, &todos(), 4).unwrap(), Seq(2));
    assert_eq!(number(&store, "e3"), None);
    assert_eq!(number(&store, "e4"), Some(4));
}

#[test]
fn a_beginning_is_written_only_where_the_head_moved() {
    let mut store = Store::new();
    store.plain(insert("{\"a\":1}"));
    store.begin("e2");
    store.begin("e3");
    store.plain(insert("{\"a\":2}"));
    store.begin("e4");
    let began = |number| EpochRow::began_at(&store.rows, &todos(), number).unwrap().0;
    assert_eq!([1, 2, 3, 4, 5].map(began), [0, 1, 1, 2, 2]);
    assert_eq!(beginnings(&store), 2);
}

fn beginnings(store: &Store) -> usize {
    let (from, to) = record::range_of(b'g');
    let mut count = 0;
    store
        .rows
        .scan(&from, &to, &mut |_, _| {
            count += 1;
            Ok(crate::store::Scan::Next)
        })
        .unwrap();
    count
}

#[test]
fn the_beginnings_that_a_kept_epoch_asks_for_are_kept() {
    let mut store = Store::new();
    for (n, epoch) in ["e2", "e3", "e4", "e5"].into_iter().enumerate() {
        store.plain(insert(&alloc::format!("{{\"a\":{n}}}")));
        store.begin(epoch);
        store.now = Timestamp(store.now.0 + 1000);
    }
    assert_eq!(beginnings(&store), 4);
    // e3 ended when e4 began, 2,000 before
    assert_eq!(store.sweep(2_000), 2, "e1 and e2");
    let began = |number| EpochRow::began_at(&store.rows, &todos(), number).unwrap().0;
    assert_eq!([3, 4, 5].map(began), [2, 3, 4]);
    assert_eq!(beginnings(&store), 3);
}

#[test]
fn a_sweep_looks_at_no_more_rows_than_its_budget() {
    let mut store = Store::new();
    for name in ["a", "b", "c", "d", "e"] {
        store.plain_to(name, insert("{}"));
        store.plain_to(name, Change::delete());
    }
    for name in ["u", "v", "w"] {
        store.hello(name);
    }
    store.now = Timestamp(9_000_000);
    let mut step = |from| {
        let sweep = Sweep { retention: Duration::from_secs(1), from, budget: 2 };
        let TransactionAnswer::Swept(swept) = store.commit(&Transaction::Sweep(sweep)) else {
            panic!()
        };
        (swept.removed, swept.next)
    };
    // finding the collection is a look too
    let in_todos = SweepPlace::Collection(todos());
    assert_eq!(step(SweepPlace::Start), (1, Some(in_todos.clone())));
    assert_eq!(step(in_todos.clone()), (2, Some(in_todos.clone())));
    assert_eq!(step(in_todos), (2, Some(SweepPlace::AfterCollection(todos()))));
    assert_eq!(step(SweepPlace::Clients), (2, Some(SweepPlace::AfterClient(client("v")))));
    assert_eq!(step(SweepPlace::AfterClient(client("v"))), (1, None));
}

#[test]
fn a_hello_tells_since_when_the_client_is_remembered() {
    let mut store = Store::new();
    let first = |store: &mut Store, session| {
        let answer = store.commit(&hello("c", session));
        let TransactionAnswer::Hello(HelloAnswer::Open { first_session, .. }) = answer else {
            panic!("{answer:?}")
        };
        first_session.unwrap().0
    };
    assert_eq!(first(&mut store, 3), 3);
    assert_eq!(first(&mut store, 4), 3);
    store.run_in("c", SessionNumber(4), vec![write(1, 0, "r", insert("{}"))], Window::new());
    assert_eq!(first(&mut store, 5), 3, "a write keeps it");
    store.now = Timestamp(9_000_000);
    store.sweep(1);
    assert_eq!(first(&mut store, 9), 9, "it was forgotten");
    // a row of before this was kept
    let old = ClientRow::load(&store.rows, &client("c")).unwrap().unwrap();
    let mut batch = Batch::default();
    batch.put(record::client_key(&client("c")), ClientRow { first_session: None, ..old }.to_row());
    store.rows.apply(batch);
    assert_eq!(first(&mut store, 12), 9, "it is at least as old as its session");
    assert_eq!(first(&mut store, 13), 9);
}
