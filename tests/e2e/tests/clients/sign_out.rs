//! Users of one device sign out and come back.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use synclayer_tokio::{Misuse, SignOut, SyncError};

use crate::client::Client;
use crate::support::{Host, Passage, Proxy, TIMEOUT, config, on_disk, until};

fn of<C: Client>(user: &str, home: &Path, way: &Proxy) -> C {
    C::open(config(way).user(user).auth_token("good").store(on_disk(home)))
}

pub fn what_a_user_leaves_waits_for_their_return<C: Client>() {
    let (host, home) = (Host::start(), tempfile::tempdir().unwrap());
    let way = host.proxy();
    let mut ann = of::<C>("ann", home.path(), &way);
    ann.save("a", &json!({"n": 1}));
    ann.synced();
    ann.set_online(false);
    let waits = ann.saved("a", &json!({"n": 2}));
    ann.sign_out(SignOut::Keep).unwrap();
    assert_eq!(waits(), Err(SyncError::SignedOut));
    for (call, ended) in ann.calls()() {
        assert_eq!(ended, Err(SyncError::SignedOut), "{call}");
    }
    assert_eq!(ann.sign_out(SignOut::Wipe), Err(SyncError::SignedOut));
    let end = std::time::Instant::now() + TIMEOUT;
    while ann.event(Duration::from_secs(1)).is_some() {
        assert!(std::time::Instant::now() < end, "its events do not end");
    }

    // the store is free at once
    let bob = of::<C>("bob", home.path(), &way);
    bob.set_online(false);
    assert_eq!((bob.shown().get("a"), bob.status().pending_writes), (None, 0));
    bob.close();
    let ann = of::<C>("ann", home.path(), &way);
    assert_eq!(ann.shown()["a"], json!({"n": 2}));
    ann.synced();
    assert_eq!(ann.status().pending_writes, 0);
    ann.close();
}

pub fn a_wipe_takes_everything_of_the_user_and_nothing_of_others<C: Client>() {
    let (host, home) = (Host::start(), tempfile::tempdir().unwrap());
    let way = host.proxy();
    let bob = of::<C>("bob", home.path(), &way);
    bob.set_online(false);
    bob.save("b", &json!({"by": "bob"}));
    bob.close();

    let ann = of::<C>("ann", home.path(), &way);
    ann.set_online(false);
    for n in 0..2_500 {
        ann.save(&format!("r{n}"), &json!({"by": "ann"}));
    }
    let refused = ann.sign_out(SignOut::Wipe).unwrap_err();
    let SyncError::Misuse(Misuse::Unsent(unsent)) = &refused else { panic!("{refused:?}") };
    assert_eq!((unsent.waiting, unsent.rejected, unsent.records.len()), (2_500, 0, 100));
    assert!(refused.to_string().contains("todos/r0"), "{refused}");
    assert_eq!(ann.shown().len(), 2_500, "it goes on");
    ann.set_online(true);
    ann.synced();
    let client = ann.status().client_id;
    ann.sign_out(SignOut::Wipe).unwrap();

    way.rule_requests(|_| Passage::Stall);
    let ann = of::<C>("ann", home.path(), &way);
    assert_eq!((ann.shown().len(), ann.status().pending_writes), (0, 0));
    assert_ne!(ann.status().client_id, client);
    ann.save("x", &json!({}));
    ann.sign_out(SignOut::WipeUnsent).unwrap();
    let bob = of::<C>("bob", home.path(), &way);
    assert_eq!((json!(bob.shown()), bob.status().pending_writes), (json!({"b": {"by": "bob"}}), 1));
    bob.close();
    way.free();
    let ann = of::<C>("ann", home.path(), &way);
    until("everything comes back from the server", || ann.shown().len() == 2_500);
    assert!(!ann.shown().contains_key("x"));
    ann.close();
}
