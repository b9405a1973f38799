//! Several writes with one fate.

use std::collections::BTreeSet;

use serde_json::json;
use synclayer_tokio::{Fate, Misuse, SyncError};

use crate::client::Client;
use crate::support::{Host, TODOS, config, until};

pub fn a_transaction_is_made_at_once_and_reaches_the_others<C: Client>() {
    let host = Host::start();
    let (a_way, b_way) = (host.proxy(), host.proxy());
    let (a, b) = (C::open(config(&a_way)), C::open(config(&b_way)));
    let confirmed = a.transacted(Box::new(|t| {
        t.save_with_id(TODOS, "x", &json!({"n": 1}))?;
        assert_eq!(t.get(TODOS, "x")?.unwrap().to_string(), r#"{"n":1}"#);
        t.update(TODOS, "x", &json!({"m": 2}))?;
        t.save_with_id(TODOS, "y", &json!({"n": 3}))?;
        t.delete(TODOS, "none")
    }));
    let both = json!({"x": {"m": 2, "n": 1}, "y": {"n": 3}});
    assert_eq!(json!(a.shown()), both);
    assert_eq!(confirmed.unwrap()(), Ok(Fate::Acknowledged));
    b.synced();
    assert_eq!(json!(b.shown()), both);
    let nothing = a.transacted(Box::new(|_| Ok(()))).unwrap();
    assert_eq!(nothing(), Ok(Fate::Unchanged));
    a.close();
}

pub fn a_transaction_that_can_not_be_made_changes_nothing<C: Client>() {
    let host = Host::start();
    let way = host.proxy();
    let a = C::open(config(&way));
    let missing = a.transacted(Box::new(|t| {
        t.save_with_id(TODOS, "x", &json!({}))?;
        t.update(TODOS, "none", &json!({"n": 1}))
    }));
    assert!(matches!(missing, Err(SyncError::Misuse(Misuse::NoSuchRecord { .. }))));
    let panicked = a.transacted(Box::new(|t| {
        t.save_with_id(TODOS, "x", &json!({}))?;
        panic!("a bug of the app")
    }));
    let Err(SyncError::Misuse(Misuse::TransactionFailed { message })) = panicked else {
        panic!("it was made");
    };
    assert!(message.contains("a bug of the app"), "{message}");
    let large = a.transacted(Box::new(|t| {
        (0..257).try_for_each(|n| t.save_with_id(TODOS, &n.to_string(), &json!({})))
    }));
    assert!(matches!(large, Err(SyncError::Misuse(Misuse::TransactionTooLarge { .. }))));
    assert!(a.shown().is_empty());
    a.save("x", &json!({"n": 1}));
    a.close();
}

pub fn a_claim_made_off_line_fails_where_somebody_was_faster<C: Client>() {
    let host = Host::start();
    let (a_way, b_way) = (host.proxy(), host.proxy());
    let (a, b) = (C::open(config(&a_way)), C::open(config(&b_way)));
    a.save("seat", &json!({}));
    a.synced();
    until("the seat is on b", || b.shown().contains_key("seat"));
    let claim = |client: &C, who: &'static str| {
        client.transacted(Box::new(move |t| {
            t.expect_unchanged(TODOS, "seat")?;
            t.update(TODOS, "seat", &json!({ "by": who }))?;
            t.save_with_id(TODOS, who, &json!({"seat": 1}))
        }))
    };
    a.set_online(false);
    let late = claim(&a, "ann").unwrap();
    assert_eq!(json!(a.shown()), json!({"ann": {"seat": 1}, "seat": {"by": "ann"}}));
    assert_eq!(a.pending().len(), 2);
    assert_eq!(claim(&b, "bob").unwrap()(), Ok(Fate::Acknowledged));
    a.set_online(true);
    let fate = late();
    let Ok(Fate::Rejected { code, .. }) = &fate else { panic!("{fate:?}") };
    assert_eq!(code.as_str(), "PRECONDITION_FAILED");
    a.synced();
    assert_eq!(json!(a.shown()), json!({"bob": {"seat": 1}, "seat": {"by": "bob"}}));
    assert!(a.pending().is_empty());
    a.close();
}

pub fn many_records_are_written_in_few_transactions<C: Client>() {
    let host = Host::start();
    let (a_way, b_way) = (host.proxy(), host.proxy());
    let a = C::open(config(&a_way).connect_at_start(false));
    let saved = a.saved_all((0..1_000).map(|n| json!({ "n": n })).collect());
    assert_eq!((saved.ids.len(), saved.transactions.len()), (1_000, 4));
    let pending = a.pending();
    let units: BTreeSet<_> = pending.iter().map(|write| write.transaction.unwrap()).collect();
    assert_eq!((pending.len(), units.len()), (1_000, 4));
    a.connect();
    a.synced();
    let b = C::open(config(&b_way));
    b.synced();
    assert_eq!(b.shown().len(), 1_000);
    let ids: Vec<_> = saved.ids.iter().skip(500).map(ToString::to_string).collect();
    b.deleted_all(ids);
    b.synced();
    a.synced();
    assert_eq!(a.shown().len(), 500);
    a.close();
}
