//! The server as its own program uses it.

#![allow(missing_docs, clippy::unwrap_used, reason = "these are tests")]

mod common;

use std::sync::Arc;

use common::{PATIENCE, Peer, http, open, serve};
use serde_json::json;
use synclayer_server::{
    Access, Change, Collection, Document, ErrorCode, Limits, LocalChanges, LocalError, LocalWatch,
    LocalWrite, Policy, Predicate, Query, RecordId, ReloadablePolicy, Right, Rules, ServerConfig,
    User, UserId,
};
use tokio::time::timeout;

/// Lets nobody do anything.
struct Nothing;

impl Policy for Nothing {
    fn read(&self, _: Option<&UserId>, _: &Collection) -> Access {
        Access::None
    }

    fn write(
        &self,
        _: Option<&UserId>,
        _: &Collection,
        _: &RecordId,
        _: Option<&Document>,
        _: &Change,
    ) -> Result<(), String> {
        Err("nobody may".to_owned())
    }
}

async fn told(watch: &mut LocalWatch) -> LocalChanges {
    timeout(PATIENCE, watch.next()).await.expect("news in time").unwrap()
}

fn texts(changes: &LocalChanges) -> Vec<(&str, Option<String>)> {
    let text = |document: &Document| document.to_string();
    changes.changes.iter().map(|it| (it.id.as_str(), it.document.as_ref().map(text))).collect()
}

fn rules(read: &str) -> Arc<Rules> {
    let notes = Collection::new("notes").unwrap();
    let mut rules = Rules::new(false);
    rules.set(notes.clone(), Right::Read, read).unwrap();
    rules.set(notes, Right::Write, "data.owner == user").unwrap();
    Arc::new(rules)
}

const OWN: &str = "data.owner == user";

#[tokio::test(flavor = "multi_thread")]
async fn the_program_acts_as_a_user_under_the_rules() {
    let server = serve(ServerConfig::new().policy(rules(OWN))).await;
    let program = server.embedded().local();
    let ann = program.as_user(UserId::new("ann").unwrap());
    let mut all = program.watch("notes").await.unwrap();
    let mut anns = ann.watch("notes").await.unwrap();
    program.save("notes", "b", &json!({"owner": "bob", "text": "canary"})).await.unwrap();
    let made = ann.save("notes", "a", &json!({"owner": "ann"})).await.unwrap();
    assert_eq!(made.version, Some(1));
    let (documents, told) = (told(&mut all).await, told(&mut anns).await);
    assert_eq!(documents.changes[1].user.as_deref(), Some("ann"));
    let document = Some(r#"{"owner":"ann"}"#.to_owned());
    // that there was something else is no secret, but its content is
    assert_eq!(texts(&told), [("b", None), ("a", document)]);
    assert_eq!((told.anew, told.cursor), (false, None));

    assert_eq!(ann.get("notes", "b").await.unwrap(), None);
    assert_eq!(ann.query("notes", Query::default()).await.unwrap().len(), 1);
    for (id, owner) in [("b", "ann"), ("c", "bob")] {
        let refused = ann.save("notes", id, &json!({ "owner": owner })).await;
        let Err(LocalError::Failed(failed)) = refused else { panic!("{refused:?}") };
        assert_eq!(failed[0].code, ErrorCode::Unauthorized, "{id} of {owner}");
    }
    let refused = ann.query("other", Query::default()).await;
    assert!(matches!(refused, Err(LocalError::Refused(_))), "{refused:?}");
    assert!(matches!(ann.watch("other").await, Err(LocalError::Refused(_))));
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Action {
    Create,
    Update,
    Delete,
    MoveIn,
    MoveOut,
}

const ACTIONS: [Action; 5] =
    [Action::Create, Action::Update, Action::Delete, Action::MoveIn, Action::MoveOut];

/// The owner, a member, another, and two by the claims of their tokens: one who may do everything, and one
/// who may change what they may not read.
const WHO: [&str; 5] = ["ann", "bob", "eve", "root", "will"];

fn may_read(who: &str) -> bool {
    ["ann", "bob", "root"].contains(&who)
}

fn may(who: &str, action: Action) -> bool {
    match action {
        Action::Create => true,
        Action::Update | Action::MoveIn | Action::MoveOut => may_read(who) || who == "will",
        Action::Delete => ["ann", "root"].contains(&who),
    }
}

fn write(who: &str, action: Action) -> LocalWrite {
    let update = |fields| LocalWrite::update("notes", "r", &fields).unwrap();
    match action {
        Action::Create => {
            LocalWrite::save("notes", "n", &json!({"owner": who, "members": [who]})).unwrap()
        }
        Action::Update => update(json!({"more": 1})),
        Action::Delete => LocalWrite::delete("notes", "r").unwrap(),
        Action::MoveIn => update(json!({"members": ["ann", "bob", "eve"]})),
        Action::MoveOut => update(json!({"members": ["ann"]})),
    }
}

/// Every right of everyone, as the server's program reads, writes and watches for them.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_as_a_user_is_what_ten_lines_say() {
    let notes = Collection::new("notes").unwrap();
    let mut rules = Rules::new(false);
    let update = "(user in data.members || claims.role in [\"admin\", \"writer\"]) && !(\"owner\" in changed)";
    for (right, text) in [
        (Right::Read, "user in data.members || claims.role == \"admin\""),
        (Right::Create, "new.owner == user"),
        (Right::Update, update),
        (Right::Delete, "data.owner == user || claims.role == \"admin\""),
    ] {
        rules.set(notes.clone(), right, text).unwrap();
    }
    let claims = [("root", r#"{"role":"admin"}"#), ("will", r#"{"role":"writer"}"#)];
    let user = |name: &str| {
        let mut user = User::from(UserId::new(name).unwrap());
        let claims = claims.iter().find(|(of, _)| *of == name);
        user.claims = claims.map(|(_, json)| Document::parse(json, &Limits::default()).unwrap());
        user
    };
    let rules = Arc::new(rules);
    for (who, action) in WHO.into_iter().flat_map(|who| ACTIONS.map(|action| (who, action))) {
        let case = format!("{who} {action:?}");
        let server = serve(ServerConfig::new().policy(Arc::<Rules>::clone(&rules))).await;
        let program = server.embedded().local();
        let record = json!({"owner": "ann", "members": ["ann", "bob"], "text": "canary"});
        program.save("notes", "r", &record).await.unwrap();
        let local = program.as_user(user(who));
        let mut all = program.watch("notes").await.unwrap();
        let mut watches = Vec::new();
        for name in WHO {
            watches.push((name, program.as_user(user(name)).watch("notes").await.unwrap()));
        }
        let done = local.transaction([write(who, action)]).await;
        assert_eq!(done.is_ok(), may(who, action), "{case}: {done:?}");
        let Ok(_) = done else {
            let Err(LocalError::Failed(failed)) = done else { panic!("{case}: {done:?}") };
            assert_eq!(failed[0].code, ErrorCode::Unauthorized, "{case}");
            let read = program.query("notes", Query::default()).await.unwrap();
            assert_eq!((read.len(), read[0].version), (1, 1), "{case}");
            continue;
        };
        assert_eq!(told(&mut all).await.changes.len(), 1, "{case}");
        for (name, mut watch) in watches {
            let shown = match (name, action) {
                ("root", Action::Create) => true,
                (_, Action::Create) => name == who,
                (_, Action::Delete) => false,
                ("eve", Action::MoveIn) => true,
                ("bob", Action::MoveOut) => false,
                (_, _) => may_read(name),
            };
            let told = told(&mut watch).await;
            assert_eq!(told.changes[0].document.is_some(), shown, "{case} to {name}: {told:?}");
            let read = program.as_user(user(name)).query("notes", Query::default()).await.unwrap();
            assert_eq!(
                read.iter().any(|it| it.id == told.changes[0].id),
                shown,
                "{case} to {name}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_as_a_user_goes_by_the_rights_of_the_moment() {
    let policy = ReloadablePolicy::new(rules(OWN));
    let server = serve(ServerConfig::new().policy(Arc::new(policy.clone()))).await;
    let program = server.embedded().local();
    for owner in ["ann", "bob"] {
        program.save("notes", owner, &json!({ "owner": owner })).await.unwrap();
    }
    let ann = program.as_user(UserId::new("ann").unwrap());
    let mut watch = ann.watch("notes").await.unwrap();
    let ids = |told: &LocalChanges| -> Vec<String> {
        told.changes.iter().map(|it| it.id.to_string()).collect()
    };
    let replace = |read: &str| {
        policy.replace(rules(read));
        server.embedded().recheck_rights();
    };
    // an idle one hears of it too
    let (first, ()) = tokio::join!(told(&mut watch), async {
        tokio::task::yield_now().await;
        replace("true");
    });
    assert_eq!((ids(&first), first.anew), (vec!["ann".into(), "bob".into()], true));
    let cursor = first.cursor.clone();
    assert!(cursor.is_some());

    replace("false");
    assert!(matches!(watch.next().await, Err(LocalError::Refused(_))));
    program.save("notes", "new", &json!({"owner": "bob"})).await.unwrap();
    assert!(matches!(watch.next().await, Err(LocalError::Refused(_))));
    replace("data.owner == \"bob\"");
    let bobs = told(&mut watch).await;
    assert_eq!((ids(&bobs), bobs.anew), (vec!["bob".into(), "new".into()], true));
    // nor does a cursor of other rights show what has changed since alone
    let mut later = ann.watch_from("notes", cursor).await.unwrap();
    let later = told(&mut later).await;
    assert_eq!((ids(&later), later.anew), (vec!["bob".into(), "new".into()], true));

    replace("exists(\"members\", user)");
    assert!(matches!(watch.next().await, Err(LocalError::Refused(_))));
    program.save("members", "ann", &json!({})).await.unwrap();
    assert_eq!(ann.query("notes", Query::default()).await.unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_reads_and_writes_past_all_rules() {
    let server = serve(ServerConfig::new().policy(Arc::new(Nothing))).await;
    let local = server.embedded().local();
    assert_eq!(http(&server, "GET", "/sync/todos/1", &[], "").await.status, 403);

    let made = local.save("todos", "1", &json!({"n": 1, "done": false})).await.unwrap();
    assert_eq!((made.id.as_str(), made.version), ("1", Some(1)));
    let made = local.update("todos", "1", &json!({"n": 2})).await.unwrap();
    assert_eq!(made.version, Some(2));
    let read = local.get("todos", "1").await.unwrap().unwrap();
    assert_eq!((&*read.document.to_string(), read.version), (r#"{"done":false,"n":2}"#, 2));
    assert_eq!(local.get("todos", "2").await.unwrap(), None);
    for n in 2..10 {
        local.save("todos", &n.to_string(), &json!({"n": n, "done": true})).await.unwrap();
    }
    let mut query = Query::default();
    query.predicate = Predicate::parse(r#"{"field":"n","isGreaterThan":2}"#).unwrap();
    query.limit = Some(3);
    let found = local.query("todos", query).await.unwrap();
    let ids: Vec<_> = found.iter().map(|record| record.id.as_str()).collect();
    assert_eq!(ids, ["3", "4", "5"]);
    local.delete("todos", "3").await.unwrap();
    assert_eq!(local.get("todos", "3").await.unwrap(), None);
    assert!(matches!(local.get("", "3").await, Err(LocalError::Name(_))));
    // the policy is still the others'
    assert_eq!(http(&server, "GET", "/sync/todos/1", &[], "").await.status, 403);

    server.shutdown().await;
    assert_eq!(local.get("todos", "1").await, Err(LocalError::Ended));
    assert_eq!(local.delete("todos", "1").await, Err(LocalError::Ended));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_the_program_is_made_whole_or_not_and_reaches_the_clients() {
    let server = open().await;
    let local = server.embedded().local();
    local.save("accounts", "ann", &json!({"sum": 10})).await.unwrap();
    let mut peer = Peer::connect(&server, "", &[]).await;
    peer.subscribe("accounts").await;

    let transfer = |version| {
        [
            LocalWrite::update("accounts", "ann", &json!({"sum": 7})).unwrap().at_version(version),
            LocalWrite::save("accounts", "bob", &json!({"sum": 3})).unwrap(),
            LocalWrite::delete("accounts", "nobody").unwrap(),
        ]
    };
    let seen = local.get("accounts", "ann").await.unwrap().unwrap().version;
    local.update("accounts", "ann", &json!({"sum": 20})).await.unwrap();
    assert_eq!(peer.expect("update").await["data"]["sum"], 20);
    let Err(LocalError::Failed(failed)) = local.transaction(transfer(seen)).await else {
        panic!("it was made");
    };
    assert_eq!((failed.len(), failed[0].index, failed[0].code.as_str()), (1, 0, "CONFLICT"));
    assert_eq!(local.get("accounts", "bob").await.unwrap(), None);
    let missing = [LocalWrite::update("accounts", "none", &json!({})).unwrap()];
    let failed = local.transaction(missing).await.unwrap_err();
    assert!(failed.to_string().starts_with("nothing was written: "), "{failed}");

    let made = local.transaction(transfer(seen + 1)).await.unwrap();
    let versions: Vec<_> = made.iter().map(|made| made.version).collect();
    assert_eq!(versions, [Some(3), Some(1), None]);
    assert_eq!(peer.expect("update").await["data"]["sum"], 7);
    assert_eq!(peer.expect("insert").await["recordId"], "bob");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_is_told_what_is_committed_by_whomever() {
    let server = open().await;
    let local = server.embedded().local();
    local.save("todos", "old", &json!({"n": 0})).await.unwrap();
    let mut news = local.watch("todos").await.unwrap();
    let mut elsewhere = local.watch("notes").await.unwrap();

    local.save("todos", "1", &json!({"n": 1})).await.unwrap();
    let changes = told(&mut news).await;
    assert_eq!(texts(&changes), [("1", Some(r#"{"n":1}"#.to_owned()))]);
    assert_eq!((changes.anew, changes.changes[0].version), (false, Some(1)));
    let cursor = changes.cursor.unwrap();
    let body = r#"{"delta":{"m":2}}"#;
    assert_eq!(http(&server, "PATCH", "/sync/todos/1", &[], body).await.status, 200);
    // the whole record
    assert_eq!(texts(&told(&mut news).await), [("1", Some(r#"{"m":2,"n":1}"#.to_owned()))]);
    local.delete("todos", "old").await.unwrap();
    assert_eq!(texts(&told(&mut news).await), [("old", None)]);

    // one that comes later goes on where it was, and one that knows nothing gets everything
    let mut later = local.watch_from("todos", Some(cursor)).await.unwrap();
    let both = told(&mut later).await;
    assert_eq!(texts(&both), [("1", Some(r#"{"m":2,"n":1}"#.to_owned())), ("old", None)]);
    let mut all = local.watch_from("todos", None).await.unwrap();
    let all = told(&mut all).await;
    assert!(all.anew && all.cursor.is_some());
    assert_eq!(texts(&all), [("1", Some(r#"{"m":2,"n":1}"#.to_owned()))]);

    // writes that nobody has read are told as one
    for n in 0..3 {
        local.save("notes", "a", &json!({ "n": n })).await.unwrap();
    }
    assert_eq!(texts(&told(&mut elsewhere).await), [("a", Some(r#"{"n":2}"#.to_owned()))]);
    server.shutdown().await;
    assert_eq!(timeout(PATIENCE, elsewhere.next()).await.unwrap(), Err(LocalError::Ended));
}
