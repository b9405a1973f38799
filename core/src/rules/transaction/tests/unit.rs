//! Units: all of one is applied, or nothing.

use super::*;
use crate::protocol::unit::{Expectation, Member, Submission, Unit};

fn named(name: &str) -> Collection {
    Collection::new(name).unwrap()
}

/// A write as a member of a unit, of a record of `todos`.
fn member(number: u64, base: u64, of: &str, change: Change) -> Member {
    Member::Write(write(number, base, of, change))
}

fn expect(number: u64, of: &str, base: Option<u64>) -> Member {
    Member::Expect(Expectation {
        collection: todos(),
        record_id: id(of),
        number: MutationNumber(number),
        base: base.map(Seq),
    })
}

impl Store {
    fn submit(&mut self, writes: Vec<Submission>, policy: &dyn Policy) -> Vec<Outcome> {
        let client = Some((client("w"), SessionNumber(self.session)));
        let (conn, window) = (Some(ConnId(1)), Window::new());
        let run = Run { client, user: None, conn, writes, window };
        let answer = self.commit_with(&Transaction::Writes(run), policy);
        let TransactionAnswer::Writes(outcomes) = answer else { panic!("{answer:?}") };
        outcomes
    }

    fn unit(&mut self, members: Vec<Member>) -> Vec<Outcome> {
        self.submit(vec![Submission::Unit(Unit { members })], &AllowAll)
    }

    fn last(&self) -> u64 {
        ClientRow::load(&self.rows, &client("w")).unwrap().unwrap().last_mutation.0
    }
}

/// Numbers and verdicts, in short.
fn brief(outcomes: &[Outcome]) -> Vec<String> {
    let verdict = |verdict: &Verdict| match verdict {
        Verdict::Applied { seq, .. } => alloc::format!("applied @{seq}"),
        Verdict::Unchanged { .. } => "unchanged".into(),
        Verdict::Conflict { current } => {
            alloc::format!("conflict @{}", current.seq.unwrap_or_default())
        }
        Verdict::Refused { code, .. } => code.to_string(),
        Verdict::Superseded => "superseded".into(),
        Verdict::OutOfOrder { next } => alloc::format!("next is {next}"),
    };
    let number = |outcome: &Outcome| outcome.mutation.map_or(0, |number| number.0);
    outcomes.iter().map(|o| alloc::format!("{} {}", number(o), verdict(&o.verdict))).collect()
}

#[test]
fn a_unit_is_applied_as_a_whole_under_one_number() {
    let mut store = Store::new();
    store.hello("w");
    store.plain_to("seen", insert("{\"a\":1}"));
    store.published.clear();
    let other = Member::Write(Mutation {
        collection: named("other"),
        ..write(2, 0, "x", insert("{\"n\":1}"))
    });
    let members = vec![expect(1, "seen", Some(1)), other, member(3, 0, "y", insert("{\"n\":2}"))];
    let digest = members[2].digest();
    let outcomes = store.unit(members.clone());
    assert_eq!(brief(&outcomes), ["1 unchanged", "2 applied @1", "3 applied @2"]);
    assert!(outcomes.iter().all(|outcome| outcome.unit == Some(MutationNumber(1))));
    let joined: Vec<_> = store.published.iter().map(|change| change.joined).collect();
    assert_eq!(joined, [false, true], "readers see both at once");
    assert_eq!(store.last(), 3);
    let row = ClientRow::load(&store.rows, &client("w")).unwrap().unwrap();
    assert_eq!(row.last_digest, Some(digest), "that of the last member");
    // once more, after a lost ack: acknowledged as a whole, and nothing happens
    let again = store.unit(members.clone());
    assert_eq!(brief(&again), ["1 unchanged", "2 unchanged", "3 unchanged"]);
    assert_eq!((store.last(), store.published.len()), (3, 2));
    // the number never stands inside a unit, so this is nothing that was sent before
    let across = vec![member(3, 0, "y", insert("{}")), member(4, 0, "z", insert("{}"))];
    assert_eq!(brief(&store.unit(across)), ["3 next is 4"]);
    assert_eq!(brief(&store.unit(vec![member(5, 0, "y", insert("{}"))])), ["5 next is 4"]);
    assert_eq!(store.last(), 3);
}

#[test]
fn one_member_that_fails_fails_the_unit() {
    let mut store = Store::new();
    store.hello("w");
    store.plain_to("taken", insert("{\"a\":1}"));
    store.plain_to("taken", update("{\"a\":2}"));
    store.plain_to("gone", insert("{\"a\":1}"));
    store.plain_to("gone", Change::delete());
    let (rows, published) = (store.rows.clone(), store.published.len());
    let members = vec![
        member(1, 0, "free", insert("{\"a\":1}")),
        member(2, 1, "taken", update("{\"a\":3}")),
        member(3, 0, "also", insert("{\"a\":1}")),
        expect(4, "gone", Some(3)),
        expect(5, "taken", None),
    ];
    let outcomes = store.unit(members);
    assert_eq!(brief(&outcomes), ["2 conflict @2", "4 conflict @4", "5 conflict @2"]);
    assert_eq!((store.last(), store.published.len()), (0, published));
    let heads = |rows: &MemoryRows| Head::load(rows, &todos()).unwrap();
    assert_eq!(heads(&store.rows), heads(&rows), "nothing of it is there");
    assert_eq!(store.record("free"), None);
    // what is pipelined behind it is ignored until its number comes again
    let unit = |number, base, of: &str| {
        Submission::Unit(Unit { members: vec![member(number, base, of, update("{\"a\":9}"))] })
    };
    let single = |number, of: &str| write(number, 0, of, insert("{\"n\":1}")).into();
    let run = vec![unit(1, 1, "taken"), unit(2, 2, "taken"), single(3, "x"), single(1, "y")];
    let outcomes = store.submit(run, &AllowAll);
    assert_eq!(brief(&outcomes), ["1 conflict @2", "1 applied @5"]);
}

#[test]
fn a_forbidden_or_too_large_member_fails_the_unit() {
    struct NoSecrets;
    impl Policy for NoSecrets {
        fn read_record(
            &self,
            _: Option<&UserId>,
            _: &Collection,
            id: &RecordId,
            _: &Document,
        ) -> bool {
            id.as_str() != "secret"
        }
        fn read(&self, _: Option<&UserId>, _: &Collection) -> Access {
            Access::Some
        }
        fn write(
            &self,
            _: Option<&UserId>,
            _: &Collection,
            id: &RecordId,
            _: Option<&Document>,
            _: &Change,
        ) -> Result<(), String> {
            if id.as_str() == "fixed" { Err("it is fixed".into()) } else { Ok(()) }
        }
    }
    let mut store = Store::new();
    store.hello("w");
    store.plain_to("secret", insert("{\"a\":1}"));
    let first = || member(1, 0, "a", insert("{}"));
    for (second, code) in [
        (member(2, 0, "fixed", insert("{}")), "2 UNAUTHORIZED"),
        (expect(2, "secret", Some(1)), "2 UNAUTHORIZED"),
        (expect(2, "secret", None), "2 UNAUTHORIZED"),
    ] {
        let unit = Submission::Unit(Unit { members: vec![first(), second] });
        assert_eq!(brief(&store.submit(vec![unit], &NoSecrets)), [code]);
        assert_eq!((store.last(), store.record("a")), (0, None));
    }
    // members count together: the second is one record too many
    store.limits.collection_records = 2;
    let members = vec![first(), member(2, 0, "b", insert("{}"))];
    assert_eq!(brief(&store.unit(members)), ["2 PAYLOAD_TOO_LARGE"]);
    assert_eq!((store.last(), store.record("a")), (0, None));
}

#[test]
fn an_expectation_is_about_the_state_before_the_unit() {
    let mut store = Store::new();
    store.hello("w");
    // whatever the order of the members
    let members = vec![member(1, 0, "seat", insert("{\"by\":\"ann\"}")), expect(2, "seat", None)];
    assert_eq!(brief(&store.unit(members)), ["1 applied @1", "2 unchanged"]);
    let members =
        vec![member(3, 1, "seat", update("{\"by\":\"bob\"}")), expect(4, "seat", Some(1))];
    assert_eq!(brief(&store.unit(members)), ["3 applied @2", "4 unchanged"]);
    // own earlier writes on this connection are no change
    let own = Submission::Unit(Unit {
        members: vec![member(6, 2, "other", insert("{}")), expect(7, "seat", Some(2))],
    });
    let run = vec![write(5, 2, "seat", update("{\"by\":\"me\"}")).into(), own];
    let outcomes = store.submit(run, &AllowAll);
    assert_eq!(brief(&outcomes), ["5 applied @3", "6 applied @4", "7 unchanged"]);
    // any field that others changed is one
    store.plain_to("seat", update("{\"note\":1}"));
    let members = vec![expect(8, "seat", Some(4)), member(9, 4, "z", insert("{}"))];
    assert_eq!(brief(&store.unit(members)), ["8 conflict @5"]);
    // a record that was never there, or is gone, can't be expected; its absence can
    let members = vec![expect(8, "never", Some(0)), member(9, 0, "z", insert("{}"))];
    assert_eq!(brief(&store.unit(members)), ["8 conflict @0"]);
    store.plain_to("seat", Change::delete());
    let members = vec![expect(8, "seat", Some(6)), member(9, 0, "z", insert("{}"))];
    assert_eq!(brief(&store.unit(members)), ["8 conflict @6"]);
    let members = vec![expect(8, "seat", None), member(9, 0, "z", insert("{}"))];
    assert_eq!(brief(&store.unit(members)), ["8 unchanged", "9 applied @7"]);
}
