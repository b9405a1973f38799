use super::*;

use crate::rules::record::{Counted, Totals, clients_of};

/// The size of a record.
fn size(of: &str, store: &Store) -> u64 {
    RecordRow::load_sized(&store.rows, &todos(), &id(of)).unwrap().1
}

fn refusal(outcome: &Outcome) -> &str {
    let Verdict::Refused { code: ErrorCode::PayloadTooLarge, message } = &outcome.verdict else {
        panic!("{outcome:?}")
    };
    message
}

fn plain_in(store: &mut Store, collection: &str, change: Change) -> Outcome {
    let collection = Collection::new(collection).unwrap();
    let mutation = Mutation { number: None, base: None, collection, ..write(0, 0, "r", change) };
    let writes = vec![mutation.into()];
    let run = Run { client: None, user: None, conn: None, writes, window: Window::new() };
    let TransactionAnswer::Writes(mut outcomes) = store.commit(&Transaction::Writes(run)) else {
        panic!()
    };
    outcomes.remove(0)
}

#[test]
fn a_server_has_at_most_so_many_collections() {
    let mut store = Store::new();
    store.limits.collections = 2;
    for (collection, brief_of) in [("a", "seq 1 v1"), ("b", "seq 1 v1"), ("c", "PAYLOAD_TOO_LARGE")]
    {
        assert_eq!(brief(&plain_in(&mut store, collection, insert("{}"))), brief_of);
    }
    let refused = plain_in(&mut store, "c", insert("{}"));
    assert_eq!(
        refusal(&refused),
        "the server has 2 collections, and may have no more: c can't be one, use one that is there"
    );
    // those that are there take everything, empty or not, and nothing begins one but an insert
    assert_eq!(brief(&plain_in(&mut store, "a", Change::delete())), "seq 2 v2");
    assert_eq!(brief(&plain_in(&mut store, "a", insert("{}"))), "seq 3 v3");
    assert_eq!(brief(&plain_in(&mut store, "c", update("{}"))), "RECORD_NOT_FOUND");
    store.begin("e2");
    assert_eq!(brief(&plain_in(&mut store, "c", insert("{}"))), "PAYLOAD_TOO_LARGE");
    store.limits.collections = 3;
    assert_eq!(brief(&plain_in(&mut store, "c", insert("{}"))), "seq 1 v1");
    assert_eq!(brief(&plain_in(&mut store, "d", insert("{}"))), "PAYLOAD_TOO_LARGE");
}

#[test]
fn the_writes_of_one_transaction_count_together() {
    let mut store = Store::new();
    store.limits.collections = 1;
    let collections = ["a", "b"].map(|name| Collection::new(name).unwrap());
    let mutations = collections
        .map(|collection| Mutation { collection, ..unconditional(0, "r", insert("{}")) });
    let writes = mutations.map(|mutation| Mutation { number: None, ..mutation }.into()).to_vec();
    let run = Run { client: None, user: None, conn: None, writes, window: Window::new() };
    let TransactionAnswer::Writes(outcomes) = store.commit(&Transaction::Writes(run)) else {
        panic!()
    };
    assert_eq!(briefs(&outcomes), ["seq 1 v1", "PAYLOAD_TOO_LARGE"]);
}

#[test]
fn a_collection_has_at_most_so_many_bytes() {
    let mut store = Store::new();
    store.plain_to("r1", insert("{\"text\":\"0123456789\"}"));
    let one = size("r1", &store);
    assert_eq!(store.head().bytes, one);
    store.limits.collection_bytes = 2 * one;
    assert_eq!(brief(&store.plain_to("r2", insert("{\"text\":\"0123456789\"}"))), "seq 2 v1");
    assert_eq!(store.head().bytes, 2 * one);
    // what grows does not fit, what shrinks does, and so does every deletion
    let refused = store.plain_to("r3", insert("{}"));
    let full =
        alloc::format!("todos has {0} of {0} bytes, 21 more don't fit: delete some", 2 * one);
    assert_eq!(refusal(&refused), full);
    assert_eq!(
        brief(&store.plain_to("r1", insert("{\"text\":\"01234567890\"}"))),
        "PAYLOAD_TOO_LARGE"
    );
    assert_eq!(brief(&store.plain_to("r1", insert("{\"text\":\"0\"}"))), "seq 3 v2");
    assert_eq!(brief(&store.plain_to("r2", Change::delete())), "seq 4 v2");
    assert_eq!(brief(&store.plain_to("r3", insert("{}"))), "seq 5 v1");
    assert_eq!(
        store.head().bytes,
        ["r1", "r2", "r3"].map(|of| size(of, &store)).iter().sum::<u64>()
    );
    // a tombstone counts while it is there
    store.now = Timestamp(9_000_000);
    let tombstone = size("r2", &store);
    let before = store.head().bytes;
    assert_eq!(store.sweep(1), 1);
    assert_eq!(store.head().bytes, before - tombstone);
    // a full collection loses nothing
    store.limits.collection_bytes = 0;
    assert_eq!(brief(&store.plain_to("r1", update("{\"text\":\"00\"}"))), "PAYLOAD_TOO_LARGE");
    assert_eq!(store.json("r1").unwrap(), "{\"text\":\"0\"}");
    assert_eq!(brief(&store.plain_to("r1", Change::delete())), "seq 6 v3");
}

#[test]
fn a_refused_write_keeps_the_number_and_the_record() {
    let mut store = Store::new();
    store.limits.collection_records = 1;
    store.hello("w");
    let outcomes =
        store.run("w", vec![write(1, 0, "a", insert("{}")), write(2, 0, "b", insert("{}"))]);
    assert_eq!(briefs(&outcomes), ["seq 1 v1", "PAYLOAD_TOO_LARGE"]);
    assert_eq!(store.last_mutation("w"), MutationNumber(1));
    let outcomes = store.run("w", vec![write(2, 1, "a", update("{\"n\":1}"))]);
    assert_eq!(briefs(&outcomes), ["seq 2 v2"]);
}

#[test]
fn a_user_has_at_most_so_many_clients() {
    let mut store = Store::new();
    store.limits.user_clients = 2;
    let of = |user: Option<&str>, id: &str, session| Transaction::Hello {
        client: client(id),
        user: user.map(|user| UserId::new(user).unwrap()),
        session: SessionNumber(session),
    };
    let open = |answer: TransactionAnswer| {
        let TransactionAnswer::Hello(answer) = answer else { panic!("{answer:?}") };
        let is_open = matches!(answer, HelloAnswer::Open { .. });
        assert!(is_open || answer == HelloAnswer::TooMany(2), "{answer:?}");
        is_open
    };
    for user in [Some("u"), None] {
        let name = user.unwrap_or("-");
        let id = |n: u64| alloc::format!("{name}{n}");
        assert!(open(store.commit(&of(user, &id(1), 1))));
        assert!(open(store.commit(&of(user, &id(2), 1))));
        assert!(!open(store.commit(&of(user, &id(3), 1))));
        // those that are known go on
        assert!(open(store.commit(&of(user, &id(1), 2))));
        assert!(!open(store.commit(&of(user, &id(3), 2))));
    }
    // who was silent makes room
    store.now = Timestamp(2_000_000);
    store.commit(&of(Some("u"), "u1", 3));
    assert_eq!(store.sweep(500_000), 3);
    assert!(open(store.commit(&of(Some("u"), "u3", 3))));
    assert!(!open(store.commit(&of(Some("u"), "u4", 1))));
    assert!(open(store.commit(&of(None, "-3", 3))) && open(store.commit(&of(None, "-4", 1))));
}

/// A store as versions wrote it that counted neither bytes nor collections nor clients.
fn earlier(store: &mut Store) {
    let mut batch = Batch::default();
    batch.delete(b"t".to_vec());
    for (tag, end) in [(b"n", b"o"), (b"c", b"d")] {
        store
            .rows
            .scan(tag, end, &mut |key, row| {
                match key[0] {
                    b'n' => batch.delete(key.to_vec()),
                    _ => {
                        let head = Head { bytes: 0, measured: Seq(0), ..Head::from_row(row)? };
                        batch.put(key.to_vec(), head.to_row());
                    }
                }
                Ok(crate::store::Scan::Next)
            })
            .unwrap();
    }
    store.rows.apply(batch);
}

#[test]
fn an_earlier_store_is_counted_in_bounded_steps_while_it_is_in_use() {
    // the sweep goes a row further, and then somebody writes
    let mut met = 0;
    for moment in 0..16 {
        let mut store = Store::new();
        for n in 0..4 {
            store.hello(&alloc::format!("c{n}"));
            store.plain_to(&alloc::format!("r{n}"), insert("{\"text\":\"0123456789\"}"));
        }
        store.plain_to("r1", Change::delete());
        earlier(&mut store);
        store.begin("e2");
        assert_eq!(Totals::load(&store.rows).unwrap().collections, 1);
        let mut from = Some(SweepPlace::Start);
        for step in 0.. {
            if step == moment {
                met += 1;
                for of in ["r0", "r1", "r3", "r9"] {
                    store.plain_to(of, insert("{\"text\":\"1\"}"));
                }
                store.plain_to("r2", Change::delete());
                for id in ["a", "c1", "d"] {
                    store.hello(id);
                }
            }
            let Some(place) = from.take() else { break };
            let sweep = Sweep { retention: Duration::MAX, from: place, budget: 1 };
            // which looks at all rows, with what is counted of them
            let TransactionAnswer::Swept(swept) = store.commit(&Transaction::Sweep(sweep)) else {
                panic!()
            };
            from = swept.next;
            assert!(step < 40, "it ends");
        }
        let head = store.head();
        assert_eq!(head.measured, head.seq);
        let records = ["r0", "r1", "r2", "r3", "r9"];
        assert_eq!(head.bytes, records.map(|of| size(of, &store)).iter().sum::<u64>());
        assert_eq!(Totals::load(&store.rows).unwrap().counted, Counted::All);
        let known = if met > moment { 6 } else { 4 };
        assert_eq!(clients_of(&store.rows, None).unwrap(), known);
    }
    assert!(met > 9, "{met} moments");
}
