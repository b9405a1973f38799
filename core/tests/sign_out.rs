//! Users sign out of a device, and come back.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, clippy::result_large_err)]

mod lone_replica;

use std::collections::BTreeMap;

use synclayer_core::testing::{InspectReplica, SimulatedDisk};
use synclayer_core::{
    Action, CommitNumber, MemoryClientStore, Misuse, Replica, SignOut, SignedOut, Write,
};

use lone_replica::{LoneReplica, config, doc, id, todos, with};

fn of(user: &str, store: MemoryClientStore) -> LoneReplica {
    LoneReplica::on(with(config(), |it| it.user = user.into()), store)
}

impl LoneReplica {
    fn sign_out(self, how: SignOut) -> Result<SignedOut<MemoryClientStore>, (Self, Misuse)> {
        let Self { replica, now, conn, dialled, mut actions, tickets, lines, events } = self;
        match replica.sign_out(now, how, &mut actions) {
            Ok(signed_out) => Ok(signed_out),
            Err(refused) => {
                let (replica, why) = *refused;
                let lone = Self { replica, now, conn, dialled, actions, tickets, lines, events };
                Err((lone, why))
            }
        }
    }

    /// Signs out, and does everything that there is to do.
    fn signed_out(self, how: SignOut) -> MemoryClientStore {
        let mut signed_out = self.sign_out(how).unwrap_or_else(|(_, why)| panic!("{why}"));
        while signed_out.step().unwrap() {}
        assert!(signed_out.is_durable().unwrap());
        signed_out.store().clone().reopen()
    }

    fn rows(&self) -> usize {
        self.replica.store().memory_rows().iter().count()
    }
}

/// Everything that a user has at a device.
fn held(lone: &LoneReplica) -> (BTreeMap<String, String>, usize, usize) {
    let records = lone.replica.get_all(&todos()).unwrap();
    let records = records.iter().map(|record| (record.id.to_string(), record.document.to_string()));
    let status = lone.replica.status();
    (records.collect(), status.pending_writes, status.rejected_writes)
}

#[test]
fn what_is_kept_waits_for_the_user_s_return() {
    let mut ann = of("ann", MemoryClientStore::default());
    ann.save("a", r#"{"by":"ann"}"#);
    let (before, client) = (held(&ann), ann.replica.status().client_id);
    let store = ann.signed_out(SignOut::Keep);
    let bob = of("bob", store);
    assert_eq!(held(&bob).0.len(), 0);
    let ann = of("ann", bob.signed_out(SignOut::Keep));
    assert_eq!((held(&ann), ann.replica.status().client_id), (before, client));
}

#[test]
fn a_connection_is_closed_at_the_sign_out() {
    let mut lone = LoneReplica::live();
    let conn = lone.conn;
    lone.sent();
    let mut actions = Vec::new();
    let signed_out = lone.replica.sign_out(lone.now, SignOut::Keep, &mut actions);
    assert!(signed_out.is_ok());
    let closes =
        |action: &Action| format!("{action:?}").contains(&format!("Close {{ conn: {conn:?}"));
    assert!(actions.iter().any(closes), "{actions:?}");
}

#[test]
fn unsent_writes_are_named_and_only_wiped_when_told_to() {
    let mut ann = of("ann", MemoryClientStore::default());
    for n in 0..7 {
        ann.save(&format!("r{n}"), "{}");
    }
    ann.update("r6", r#"{"n":1}"#);
    let before = held(&ann);
    let (ann, why) = ann.sign_out(SignOut::Wipe).map(drop).unwrap_err();
    let Misuse::Unsent(unsent) = &why else { panic!("{why:?}") };
    assert_eq!((unsent.waiting, unsent.rejected, unsent.records.len()), (7, 0, 7));
    let text = why.to_string();
    assert!(text.contains("7 writes that the server does not have"), "{text}");
    assert!(text.contains("todos/r0, todos/r1, todos/r2, todos/r3, todos/r4 …"), "{text}");
    assert_eq!(held(&ann), before, "nothing has happened");

    let ann = of("ann", ann.signed_out(SignOut::WipeUnsent));
    assert_eq!(held(&ann), (BTreeMap::new(), 0, 0));
}

#[test]
fn a_rejected_write_is_unsent_too_and_one_that_is_acknowledged_is_not() {
    let mut lone = LoneReplica::live();
    lone.save("b", "{}");
    lone.save("c", "{}");
    lone.sent();
    lone.hear(&lone_replica::ack(1, "b", 6));
    lone.hear(r#"{"type":"error","code":"UNAUTHORIZED","error":"no","metadata":{"mutation":2,"collection":"todos","recordId":"c"}}"#);
    let (mut lone, why) = lone.sign_out(SignOut::Wipe).map(drop).unwrap_err();
    let Misuse::Unsent(unsent) = why else { panic!("{why:?}") };
    assert_eq!((unsent.waiting, unsent.rejected), (0, 1));
    assert_eq!(unsent.records, [(todos(), id("c"))]);
    let write = lone.replica.rejected().unwrap()[0].write;
    lone.replica.write(lone.now, Write::DiscardRejected(write), &mut lone.actions).unwrap();
    let fresh = LoneReplica::new(config());
    let empty = fresh.rows();
    let back = LoneReplica::on(config(), lone.signed_out(SignOut::Wipe));
    assert_eq!((held(&back), back.rows()), ((BTreeMap::new(), 0, 0), empty));
}

#[test]
fn others_of_the_device_keep_what_is_theirs_whoever_leaves_and_comes() {
    let mut store = MemoryClientStore::default();
    let mut model = BTreeMap::<&str, usize>::new();
    let users = ["ann", "bob", "eve", "", "zoe"];
    let mut random = fastrand::Rng::with_seed(9);
    for round in 0..400 {
        let user = users[random.usize(..users.len())];
        let mut lone = of(user, store);
        let known = model.get(user).copied().unwrap_or(0);
        assert_eq!(held(&lone).0.len(), known, "{user:?} in round {round}");
        for (_, document) in held(&lone).0 {
            assert_eq!(document, format!(r#"{{"by":"{user}"}}"#));
        }
        match random.u8(..3) {
            0 => {
                store = lone.signed_out(SignOut::WipeUnsent);
                model.remove(user);
            }
            _ => {
                lone.save(&format!("r{round}"), &format!(r#"{{"by":"{user}"}}"#));
                store = lone.signed_out(SignOut::Keep);
                model.insert(user, known + 1);
            }
        }
    }
    assert!(model.values().sum::<usize>() > 3);
}

#[test]
fn a_wipe_is_done_in_bounded_batches_and_finished_after_a_crash() {
    const RECORDS: usize = 2_500;
    let mut bob = of("bob", MemoryClientStore::when_told());
    bob.save("b", r#"{"by":"bob"}"#);
    bob.make_durable();
    let mut ann = of("ann", bob.replica.store().clone().reopen());
    let by_ann = doc(r#"{"by":"ann"}"#);
    for n in 0..RECORDS {
        let id = id(&format!("r{n}"));
        ann.replica
            .write(ann.now, Write::Save(todos(), id, by_ann.clone()), &mut Vec::new())
            .unwrap();
    }
    ann.make_durable();
    let whole = ann.replica.store().last();
    let mut signed_out =
        ann.sign_out(SignOut::WipeUnsent).unwrap_or_else(|(_, why)| panic!("{why}"));
    let (mut steps, mut rows) = (0, signed_out.store().memory_rows().iter().count());
    while signed_out.step().unwrap() {
        steps += 1;
        let left = signed_out.store().memory_rows().iter().count();
        assert!(rows - left <= 1_001, "a step removes {} rows", rows - left);
        rows = left;
    }
    assert!(steps >= 3 * RECORDS / 1_000, "{steps} steps");
    assert!(!signed_out.is_durable().unwrap(), "the disk has not said so yet");
    let store = signed_out.store().clone();
    for commit in whole.0..=store.last().0 {
        let crashed = store.clone().crash_to(CommitNumber(commit));
        let begun = commit > whole.0;
        // whoever opens the store next finishes it
        let bob = of("bob", crashed);
        assert_eq!(held(&bob).0.len(), 1);
        let ann = of("ann", bob.replica.store().clone().reopen());
        assert_eq!(held(&ann).0.len(), if begun { 0 } else { RECORDS }, "back to {commit}");
        assert_eq!(held(&of("bob", ann.replica.store().clone().reopen())).0.len(), 1);
    }
}

#[test]
fn who_returns_after_a_wipe_is_another_client() {
    let mut lone = of("ann", MemoryClientStore::default());
    lone.save("a", "{}");
    let client = lone.replica.status().client_id;
    let store = lone.signed_out(SignOut::WipeUnsent);
    let mut ann = config();
    ann.user = "ann".into();
    let ann = Replica::open(ann, 8, lone_replica::START, store, &mut Vec::new()).unwrap();
    assert_ne!(ann.status().client_id, client, "its numbers begin anew");
}
