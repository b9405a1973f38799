use core::sync::atomic::{AtomicU32, Ordering};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::protocol::delta::Delta;
use crate::rules::conflict::{Conflict, ConflictStrategy, ResolverFailure};
use crate::rules::merge::FieldWise;

fn parse(json: &str) -> Document {
    Document::parse(json, &Limits::default()).unwrap()
}

/// The laws that are broken.
fn broken(laws: &Laws, resolver: &dyn Resolver) -> Vec<Law> {
    let (mut laws, mut all) = (laws.clone(), Vec::new());
    while let Err(broken) = laws.check(resolver) {
        all.push(broken.law);
        laws = laws.without(broken.law);
    }
    all
}

#[test]
fn the_strategies_keep_every_law() {
    for strategy in [ConflictStrategy::ServerWins, ConflictStrategy::ClientWins] {
        assert_eq!(Laws::default().check(&strategy), Ok(()), "{strategy:?}");
    }
    assert_eq!(Laws::default().symmetric().check(&ConflictStrategy::LastWriteWins), Ok(()));
}

#[test]
fn every_ready_made_resolver_keeps_the_laws() {
    let laws = Laws::default().cases(100);
    let counts = laws.clone().without(Law::KeepsAgreed);
    assert_eq!(counts.clone().symmetric().check(&FieldWise::sum_numbers()), Ok(()));
    let deep_sums = FieldWise::deep_merge().or_else(FieldWise::sum_numbers());
    assert_eq!(counts.check(&deep_sums), Ok(()));
    for rule in [
        FieldWise::merge_arrays(),
        FieldWise::max_value(),
        FieldWise::keep_local().only(["a"]),
        FieldWise::keep_remote().only(["b"]).or_else(ConflictStrategy::ClientWins),
        FieldWise::deep_merge().or_else(FieldWise::merge_arrays()),
    ] {
        assert_eq!(laws.check(&rule), Ok(()), "{rule:?}");
    }
    let symmetric = laws.symmetric();
    assert_eq!(symmetric.check(&FieldWise::field_last_write_wins()), Ok(()));
    assert_eq!(symmetric.check(&FieldWise::deep_merge()), Ok(()));
}

#[test]
fn a_panic_that_is_caught_is_no_answer() {
    let resolver = |conflict: &Conflict<'_>| {
        Some(conflict.local.cloned().expect("a resolver that forgot deletes"))
    };
    let laws = Laws::default().catching(|ask| catch_unwind(AssertUnwindSafe(ask)).is_err());
    let found = laws.check(&resolver).unwrap_err();
    assert_eq!(found.law, Law::Total);
    assert_eq!(
        found.to_string(),
        "every conflict is answered: it panics\n  base    no record\n  \
         local   no record, written at 0\n  remote  no record, written at 0\n  result  none"
    );
}

#[test]
fn a_resolver_that_remembers_is_not_deterministic() {
    let asked = AtomicU32::new(0);
    let resolver = |conflict: &Conflict<'_>| {
        conflict.merge(asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(2))
    };
    let found = Laws::default().check(&resolver).unwrap_err();
    assert_eq!(found.law, Law::Deterministic);
    let by_last_question = AtomicU32::new(0);
    let resolver = |conflict: &Conflict<'_>| {
        let fields = conflict.local.map_or(0, |local| local.len() as u32);
        let before = by_last_question.swap(fields, Ordering::Relaxed);
        conflict.merge(before > 1)
    };
    assert_eq!(Laws::default().check(&resolver).unwrap_err().law, Law::Deterministic);
}

#[test]
fn an_edit_is_not_to_become_a_delete() {
    let resolver = |conflict: &Conflict<'_>| {
        let contested = conflict.fields().any(|field| field.is_contested());
        if contested { None } else { conflict.merge(false) }
    };
    let found = Laws::default().check(&resolver).unwrap_err();
    assert_eq!(found.law, Law::KeepsRecord);
    assert_eq!(found.result, Some(None));
    let (local, remote) = (found.case.local.unwrap(), found.case.remote.unwrap());
    assert_eq!((found.case.base, local.len(), remote.len()), (None, 1, 1), "a small example");
}

#[test]
fn what_both_sides_deleted_is_not_to_come_back() {
    let resolver = |conflict: &Conflict<'_>| match (conflict.local, conflict.remote) {
        (None, None) => Some(Document::empty()),
        (Some(_), _) | (_, Some(_)) => conflict.merge(conflict.remote.is_none()),
    };
    assert_eq!(broken(&Laws::default(), &resolver), [Law::StaysDeleted]);
}

#[test]
fn what_one_side_changed_is_not_to_get_lost() {
    let newer_whole = |conflict: &Conflict<'_>| {
        let newer = if conflict.local_is_later() { conflict.local } else { conflict.remote };
        newer.cloned()
    };
    let found = Laws::default().check(&newer_whole).unwrap_err();
    assert_eq!(
        found.to_string(),
        "a change that only one side made is kept: the field \"c\" was changed here alone, to 0\n  \
         base    no record\n  local   {\"c\":0}, written at 0\n  remote  {}, written at 0\n  \
         result  {}"
    );
}

#[test]
fn a_field_is_invented_only_where_that_is_declared() {
    let resolver = |conflict: &Conflict<'_>| {
        let merged = conflict.merge(false)?;
        conflict.local.and(conflict.remote)?;
        Some(Delta::new(parse(r#"{"merged":true}"#), Vec::new()).apply(&merged))
    };
    let found = Laws::default().check(&resolver).unwrap_err();
    assert_eq!(found.law, Law::KeepsOneSided);
    assert_eq!(found.why, "the field \"merged\" was in neither state");
    assert_eq!(Laws::default().computes(["merged"]).check(&resolver), Ok(()));
}

#[test]
fn what_both_sides_agree_on_is_not_to_change() {
    let laws = Laws::default().field("n", ["0", "1", "2"]);
    assert_eq!(broken(&laws, &FieldWise::sum_numbers()), [Law::KeepsAgreed]);
    let found = laws.check(&FieldWise::sum_numbers()).unwrap_err();
    assert_eq!(found.why, "the field \"n\" was changed by both sides, to 1");
    assert_eq!(found.result, Some(Some(parse(r#"{"n":2}"#))));
}

#[test]
fn a_decision_is_not_to_grow_when_it_is_made_again() {
    let revision = |document: &Document| {
        document.text("rev").and_then(|text| text.parse::<u64>().ok()).unwrap_or(0)
    };
    let resolver = move |conflict: &Conflict<'_>| {
        let (local, remote) = (conflict.local?, conflict.remote?);
        let rev = 1 + revision(local).max(revision(remote));
        let rev = Delta::new(parse(&alloc::format!("{{\"rev\":{rev}}}")), Vec::new());
        Some(rev.apply(&conflict.merge(false)?))
    };
    let laws = Laws::default().field("rev", ["1", "2"]).field("title", []).computes(["rev"]);
    assert_eq!(broken(&laws, &resolver), [Law::Idempotent]);
    let found = laws.check(&resolver).unwrap_err();
    assert_eq!(found.why, "with the result as the local state, it then said {\"rev\":2}");
}

#[test]
fn symmetry_is_checked_where_it_is_claimed() {
    let laws = Laws::default().symmetric();
    assert_eq!(broken(&laws, &ConflictStrategy::ServerWins), [Law::Symmetric]);
    let found = laws.check(&ConflictStrategy::ServerWins).unwrap_err();
    assert!(found.case.local_at != found.case.remote_at, "{found}");
    assert!(found.why.starts_with("whoever has the two states the other way round"), "{found}");
}

#[test]
fn cases_are_drawn_from_the_seed() {
    let laws = Laws::default().cases(1);
    let seen = |laws: &Laws| {
        let seen = std::sync::Mutex::new(Vec::new());
        let look = |conflict: &Conflict<'_>| {
            seen.lock().unwrap().push(alloc::format!("{conflict:?}"));
            conflict.merge(false)
        };
        laws.check(&look).unwrap();
        seen.into_inner().unwrap()
    };
    assert_eq!(seen(&laws), seen(&laws));
    assert_ne!(seen(&laws), seen(&laws.clone().seed(2)));
    assert_eq!(seen(&laws.clone().cases(0)), [""; 0]);
}

#[test]
#[should_panic(expected = "no value in JSON")]
fn values_are_json() {
    let _ = Laws::default().field("a", ["1,\"b\":2"]);
}

#[test]
fn a_resolver_that_fails_is_not_total() {
    struct Fails;
    impl Resolver for Fails {
        fn resolve(&self, conflict: &Conflict<'_>) -> Option<Document> {
            conflict.merge_later()
        }
        fn try_resolve(&self, _: &Conflict<'_>) -> Result<Option<Document>, ResolverFailure> {
            Err(ResolverFailure { reason: "no idea".into() })
        }
    }
    let broken = Laws::default().check(&Fails).unwrap_err();
    assert_eq!((broken.law, &*broken.why), (Law::Total, "it fails: no idea"));
}
