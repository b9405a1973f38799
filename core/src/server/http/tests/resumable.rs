//! Level 2 over HTTP, call by call.

use super::*;

use crate::protocol::unit::Member;
use crate::protocol::wire::http::encode_atomic;

use std::vec;

use crate::protocol::message::{ClientMessage, Cursor, Mode, Mutation, Resume, ServerMessage};
use crate::protocol::name::{Epoch, MutationNumber, Seq, SessionNumber};
use crate::protocol::wire::http::{
    PULL_PATH, PUSH_PATH, PageAnswer, PageFrom, PageQuery, PushAnswer, PushHead, SESSION_PATH,
    encode_pull, encode_push,
};
use crate::protocol::wire::{Incoming, decode_server};
use crate::rules::transaction::tests::{client, id, todos, write};

/// A server and who asks it.
struct Exchange {
    store: Store,
    limits: ServerLimits,
    user: Option<UserId>,
    policy: &'static dyn Policy,
    /// The outcome that is reported of the transaction.
    lost: Option<TransactError>,
    tokens: usize,
}

impl Exchange {
    fn new() -> Self {
        Self {
            store: Store::new(),
            limits: ServerLimits::default(),
            user: None,
            policy: &AllowAll,
            lost: None,
            tokens: usize::MAX,
        }
    }

    fn ask(&mut self, method: &str, target: &str, body: &[u8]) -> Reply {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let request =
            Request { method, path, query, body, user: self.user.clone().map(Into::into) };
        match request.call(&self.limits, self.policy) {
            Call::Immediate(reply) => reply,
            Call::Transact(mut write) => {
                let paid = write.charge(&mut |count| {
                    let left = self.tokens.checked_sub(count as _);
                    self.tokens = left.ok_or(Duration::from_millis(1500))?;
                    Ok(())
                });
                assert_eq!(paid, Ok(()), "a push is judged in any case");
                let answer = self.store.commit_with(write.transaction(), self.policy);
                let outcome = self.lost.clone().map_or(Ok(answer), Err);
                write.reply(self.store.now, &self.limits, self.policy, outcome)
            }
            Call::Read(read) => {
                let answer = read.request().run(&self.store.rows, self.policy);
                read.reply(self.policy, answer)
            }
        }
    }

    fn hello(&mut self, id: &str, session: u64) -> Reply {
        let body = format!(r#"{{"clientId":"{id}","session":{session}}}"#);
        self.ask("POST", SESSION_PATH, body.as_bytes())
    }

    fn push_in(&mut self, head: &PushHead, mutations: Vec<Mutation>) -> Reply {
        let frame = |mutation| {
            let mut frame = Vec::new();
            ClientMessage::Write(mutation).encode(&mut frame);
            frame
        };
        let mut body = Vec::new();
        encode_push(head, mutations.into_iter().map(frame), &mut body);
        self.ask("POST", PUSH_PATH, &body)
    }

    /// Pushes in the session 1 of client a.
    fn push(&mut self, mutations: Vec<Mutation>) -> (u64, Vec<ServerMessage>) {
        let reply = self.push_in(&head("a", 1, "e1"), mutations);
        assert_eq!(reply.status, 200, "{}", shown(&reply));
        let answer = PushAnswer::decode(&reply.body, &Limits::default()).unwrap();
        (answer.last_mutation.0, answer.verdicts)
    }

    fn page(&mut self, query: &PageQuery) -> PageAnswer {
        let reply = self.ask("GET", &query.target(&todos()), b"");
        assert_eq!(reply.status, 200, "{}", shown(&reply));
        PageAnswer::decode(&reply.body, &Limits::default()).unwrap()
    }
}

fn shown(reply: &Reply) -> String {
    String::from_utf8(reply.body.clone()).unwrap()
}

fn told(reply: &Reply) -> (u16, String) {
    let json: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    (reply.status, json["code"].as_str().unwrap_or_default().into())
}

fn head(id: &str, session: u64, epoch: &str) -> PushHead {
    let epoch = Epoch::new(epoch).unwrap();
    PushHead { client_id: client(id), session: SessionNumber(session), epoch }
}

fn user(name: &str) -> Option<UserId> {
    Some(UserId::new(name).unwrap())
}

/// The numbers and codes of verdicts.
fn brief(verdicts: &[ServerMessage]) -> Vec<(u64, String)> {
    let brief = |verdict: &ServerMessage| {
        if let ServerMessage::Ack(ack) = verdict {
            assert_eq!(ack.seq, None, "no ack stands in a stream");
            return (ack.mutation.0, "ack".into());
        }
        let ServerMessage::Error(error) = verdict else { panic!("{verdict:?}") };
        (error.mutation.unwrap().0, error.code.to_string())
    };
    verdicts.iter().map(brief).collect()
}

fn acks(numbers: impl IntoIterator<Item = u64>) -> Vec<(u64, String)> {
    numbers.into_iter().map(|number| (number, "ack".into())).collect()
}

#[test]
fn a_page_is_asked_for_in_a_body_or_in_a_path() {
    let exchange = &mut Exchange::new();
    for name in ["todos", "a/b", ".", "..", "pull", "ä ?#%2F"] {
        let collection = Collection::new(name).unwrap();
        let post = format!(r#"{{"recordId":"r","data":{{"in":{}}}}}"#, serde_json::json!(name));
        let mut path = String::from("/sync/");
        percent::encode_segment(&collection, &mut path);
        let expected = if name == "pull" { 400 } else { 200 };
        assert_eq!(exchange.ask("POST", &path, post.as_bytes()).status, expected, "{name}");
        let query = PageQuery { client_id: Some(client("c")), ..PageQuery::default() };
        let mut body = Vec::new();
        encode_pull(&collection, &query, &mut body);
        let by_body = exchange.ask("POST", PULL_PATH, &body);
        let by_path = exchange.ask("GET", &query.target(&collection), b"");
        assert_eq!((by_body.status, shown(&by_body)), (200, shown(&by_path)), "{name}");
        let held = shown(&by_body).contains(r#""id":"r""#);
        assert_eq!(held, name != "pull", "{}", shown(&by_body));
    }
    for body in ["{}", "", r#"{"collection":""}"#, r#"{"collection":"a","cursor":{"epoch":"e"}}"#] {
        let told = told(&exchange.ask("POST", PULL_PATH, body.as_bytes()));
        assert_eq!(told, (400, "INVALID_MESSAGE".into()), "{body}");
    }
}

#[test]
fn names_of_calls_are_reserved() {
    let exchange = &mut Exchange::new();
    let post = br#"{"recordId":"r","data":{}}"#;
    assert_eq!(exchange.ask("POST", "/sync/transaction", post).status, 400);
    // what is not posted there is about a collection of that name
    assert_eq!(exchange.ask("GET", "/sync/transaction", b"").status, 200);
    assert_eq!(exchange.ask("GET", "/sync/pull", b"").status, 200);
    assert_eq!(exchange.ask("DELETE", "/sync/pull/r", b"").status, 204);
}

#[test]
fn a_hello_is_answered_like_on_a_socket() {
    let exchange = &mut Exchange::new();
    exchange.user = user("u1");
    let reply = exchange.hello("a", 41);
    assert_eq!(
        (reply.status, shown(&reply).as_str()),
        (
            200,
            r#"{"type":"pong","timestamp":"1970-01-01T00:16:40.000Z","metadata":{"protocol":2,"database":"d-e1","epoch":"e1","lastMutation":0,"firstSession":41,"userId":"u1","maxBatchBytes":262144,"features":["pull","atomic","scopes"]}}"#
        )
    );
    let pong = decode_server(&reply.body, &Limits::default()).unwrap();
    assert!(matches!(pong, Incoming::One(ServerMessage::Pong { welcome: Some(_), .. })));
    assert_eq!(told(&exchange.hello("a", 41)), (409, "SESSION_SUPERSEDED".into()));
    assert_eq!(told(&exchange.hello("a", 40)), (409, "SESSION_SUPERSEDED".into()));
    assert_eq!(exchange.hello("a", 42).status, 200);
    exchange.user = user("u2");
    assert_eq!(told(&exchange.hello("a", 43)), (403, "UNAUTHORIZED".into()));
    assert_eq!(told(&exchange.ask("POST", SESSION_PATH, b"{}")), (400, "INVALID_MESSAGE".into()));
    // what is not posted there is about a collection of that name
    assert_eq!(exchange.ask("GET", SESSION_PATH, b"").status, 200);
}

#[test]
fn acks_say_what_the_record_looks_like() {
    let exchange = &mut Exchange::new();
    exchange.hello("a", 1);
    exchange.store.plain_to("r", insert(r#"{"x":1,"y":1}"#));
    exchange.store.plain_to("r", update(r#"{"y":2}"#));
    let reply = exchange.push_in(
        &head("a", 1, "e1"),
        vec![write(1, 1, "r", update(r#"{"x":2}"#)), write(2, 0, "new", insert("{}"))],
    );
    assert_eq!(
        shown(&reply),
        concat!(
            r#"{"type":"batch","metadata":{"lastMutation":2},"messages":["#,
            r#"{"type":"ack","collection":"todos","recordId":"r","data":{"x":2,"y":2},"timestamp":"1970-01-01T00:16:40.000Z","metadata":{"mutation":1,"version":3,"kind":"update","recordSeq":3,"updatedAt":"1970-01-01T00:16:40.000Z"}},"#,
            r#"{"type":"ack","collection":"todos","recordId":"new","data":{},"timestamp":"1970-01-01T00:16:40.000Z","metadata":{"mutation":2,"version":1,"kind":"insert","recordSeq":4,"updatedAt":"1970-01-01T00:16:40.000Z"}}]}"#
        )
    );
    // the changes are published, of nobody's connection
    assert!(exchange.store.published[2..].iter().all(|change| change.origin.is_none()));
}

#[test]
fn a_push_that_comes_again_does_nothing() {
    let exchange = &mut Exchange::new();
    exchange.hello("a", 1);
    let writes = || vec![write(1, 0, "r", insert("{}")), write(2, 0, "r", update(r#"{"x":1}"#))];
    assert_eq!(exchange.push(writes()).0, 2);
    let published = exchange.store.published.len();
    let mut more = writes();
    more.push(write(3, 0, "s", insert("{}")));
    let (last, verdicts) = exchange.push(more);
    assert_eq!((last, brief(&verdicts)), (3, acks(1..=3)));
    assert!(matches!(&verdicts[0], ServerMessage::Ack(ack) if ack.echo.is_none()));
    assert_eq!(exchange.store.published.len(), published + 1);
    assert_eq!(exchange.push(vec![]), (3, vec![]));
    // the hello of a client whose answer was lost tells the same
    assert!(shown(&exchange.hello("a", 2)).contains(r#""lastMutation":3"#));
}

#[test]
fn a_run_stops_behind_its_first_error() {
    let exchange = &mut Exchange::new();
    exchange.hello("a", 1);
    exchange.store.plain_to("r", insert("{}"));
    let writes = vec![
        write(1, 0, "s", insert("{}")),
        write(2, 0, "r", insert(r#"{"x":1}"#)),
        write(3, 0, "t", insert("{}")),
    ];
    let (last, verdicts) = exchange.push(writes);
    assert_eq!(last, 1);
    assert_eq!(brief(&verdicts), [(1, "ack".into()), (2, "CONFLICT".into())]);
    let ServerMessage::Error(error) = &verdicts[1] else { panic!() };
    assert_eq!(error.current.as_ref().unwrap().seq, Some(Seq(1)));
    assert_eq!(exchange.store.json("t"), None);
    let (last, verdicts) =
        exchange.push(vec![write(2, 1, "r", insert(r#"{"x":1}"#)), write(3, 0, "t", insert("{}"))]);
    assert_eq!((last, brief(&verdicts)), (3, acks(2..=3)));
}

#[test]
fn a_write_that_makes_no_sense_is_refused_in_its_place() {
    let exchange = &mut Exchange::new();
    exchange.hello("a", 1);
    exchange.limits.input.document_bytes = 20;
    let large = insert(r#"{"x":"01234567890123456789"}"#);
    let writes = || {
        vec![
            write(1, 0, "r", insert("{}")),
            write(2, 0, "s", large.clone()),
            write(3, 0, "t", insert("{}")),
        ]
    };
    let (last, verdicts) = exchange.push(writes());
    assert_eq!(last, 1);
    assert_eq!(brief(&verdicts), [(1, "ack".into()), (2, "PAYLOAD_TOO_LARGE".into())]);
    assert_eq!(exchange.store.json("t"), None);
    // behind another error it is not the first
    let mut first = writes();
    first[0] = write(2, 9, "r", update(r#"{"x":1}"#));
    first[1].number = Some(MutationNumber(3));
    first.truncate(2);
    let (last, verdicts) = exchange.push(first);
    assert_eq!((last, brief(&verdicts)), (1, vec![(2, "CONFLICT".into())]));
    // of one that was applied long ago nothing is said
    exchange.limits.input.document_bytes = 100;
    exchange.push(vec![write(2, 0, "s", large.clone())]);
    exchange.limits.input.document_bytes = 20;
    let (last, verdicts) = exchange.push(vec![write(2, 0, "s", large)]);
    assert_eq!((last, verdicts), (2, vec![]));
}

#[test]
fn what_is_no_push_is_refused_whole() {
    let exchange = &mut Exchange::new();
    exchange.hello("a", 1);
    let before = exchange.store.rows.iter().count();
    let gap = vec![write(1, 0, "r", insert("{}")), write(3, 0, "s", insert("{}"))];
    let twice = vec![write(1, 0, "r", insert("{}")), write(1, 0, "s", insert("{}"))];
    let plain = vec![Mutation { number: None, ..write(1, 0, "r", insert("{}")) }];
    for mutations in [gap, twice, plain] {
        let reply = exchange.push_in(&head("a", 1, "e1"), mutations);
        assert_eq!(told(&reply), (400, "INVALID_MESSAGE".into()));
    }
    let late = vec![write(2, 0, "r", insert("{}"))];
    assert_eq!(told(&exchange.push_in(&head("a", 1, "e1"), late)), (409, "OUT_OF_ORDER".into()));
    assert_eq!(told(&exchange.ask("POST", PUSH_PATH, b"[]")), (400, "INVALID_MESSAGE".into()));
    exchange.limits.input.frame_bytes = 10;
    let one = vec![write(1, 0, "r", insert("{}"))];
    assert_eq!(
        told(&exchange.push_in(&head("a", 1, "e1"), one)),
        (413, "PAYLOAD_TOO_LARGE".into())
    );
    assert_eq!(exchange.store.rows.iter().count(), before);
}

#[test]
fn a_session_that_does_not_hold_pushes_nothing() {
    let exchange = &mut Exchange::new();
    exchange.user = user("u1");
    exchange.hello("a", 1);
    exchange.hello("a", 2);
    let one = || vec![write(1, 0, "r", insert("{}"))];
    let superseded = (409, "SESSION_SUPERSEDED".to_string());
    assert_eq!(told(&exchange.push_in(&head("a", 1, "e1"), one())), superseded);
    assert_eq!(told(&exchange.push_in(&head("a", 1, "e1"), vec![])), superseded);
    assert_eq!(told(&exchange.push_in(&head("a", 3, "e1"), one())), superseded);
    assert_eq!(told(&exchange.push_in(&head("unknown", 1, "e1"), one())), superseded);
    // who knows another user's numbers can't write in that one's name
    exchange.user = user("u2");
    assert_eq!(told(&exchange.push_in(&head("a", 2, "e1"), one())), superseded);
    // a server that was opened anew may have lost what the writes stand on
    exchange.user = user("u1");
    exchange.store.begin("e2");
    let reply = exchange.push_in(&head("a", 2, "e1"), one());
    assert_eq!(told(&reply), (503, "SERVER_ERROR".into()));
    assert_eq!(exchange.store.json("r"), None);
    assert_eq!(exchange.push_in(&head("a", 2, "e2"), one()).status, 200);
}

#[test]
fn of_a_lost_answer_there_is_no_verdict() {
    let exchange = &mut Exchange::new();
    exchange.hello("a", 1);
    let error = StoreError::new(StoreErrorKind::Other, "fire");
    for (lost, status) in
        [(TransactError::Unknown(error.clone()), 500), (TransactError::Failed(error), 503)]
    {
        exchange.lost = Some(lost);
        let reply = exchange.push_in(&head("a", 1, "e1"), vec![write(1, 0, "r", insert("{}"))]);
        assert_eq!(told(&reply), (status, "SERVER_ERROR".into()));
        assert!(!shown(&reply).contains("mutation"));
        assert_eq!(told(&exchange.hello("a", 9)).0, status);
        exchange.store = Store::new();
        exchange.store.hello("a");
    }
}

#[test]
fn who_pushes_too_much_is_told_where_to_go_on() {
    let exchange = &mut Exchange::new();
    exchange.hello("a", 1);
    exchange.tokens = 1;
    let writes = (1..=4).map(|n| write(n, 0, &format!("r{n}"), insert("{}")));
    let (last, verdicts) = exchange.push(writes.collect());
    assert_eq!(last, 2);
    let wanted = [(1, "ack".into()), (2, "ack".into()), (3, "RATE_LIMIT_EXCEEDED".into())];
    assert_eq!(brief(&verdicts), wanted);
    let ServerMessage::Error(error) = &verdicts[2] else { panic!() };
    assert_eq!((error.retry_after_ms, error.record_id.clone()), (Some(1500), Some(id("r3"))));
    assert_eq!(exchange.store.json("r3"), None);
}

#[test]
fn an_answer_is_bounded() {
    let exchange = &mut Exchange::new();
    exchange.hello("a", 1);
    exchange.limits.answer_bytes = 700;
    let writes = (1..=4).map(|n| write(n, 0, &format!("r{n}"), insert("{}")));
    let (last, verdicts) = exchange.push(writes.collect());
    assert_eq!((last, brief(&verdicts)), (4, acks(1..=3)));
}

#[test]
fn a_page_tells_what_was_read_with_it() {
    let exchange = &mut Exchange::new();
    exchange.user = user("u1");
    exchange.hello("a", 1);
    exchange.push(vec![write(1, 0, "r", insert(r#"{"x":1}"#))]);
    let query = PageQuery { client_id: Some(client("a")), ..PageQuery::default() };
    let reply = exchange.ask("GET", &query.target(&todos()), b"");
    let checksum = exchange.store.head().checksum;
    assert_eq!(
        shown(&reply),
        format!(
            concat!(
                r#"{{"type":"batch","metadata":{{"database":"d-e1","epoch":"e1","from":{{}},"lastMutation":1}},"messages":["#,
                r#"{{"type":"subscribed","collection":"todos","metadata":{{"recordCount":1,"head":1,"mode":"snapshot"}}}},"#,
                r#"{{"type":"sync","collection":"todos","data":{{"records":[{{"id":"r","data":{{"x":1}},"version":1,"updatedAt":"1970-01-01T00:16:40.000Z","seq":1}}]}},"metadata":{{"snapshotSeq":1}}}},"#,
                r#"{{"type":"synced","collection":"todos","metadata":{{"epoch":"e1","seq":1,"count":1,"checksum":"{}"}}}}]}}"#
            ),
            checksum
        )
    );
    // another user's client is none of anybody's business, and an unknown one is unknown
    exchange.user = user("u2");
    assert_eq!(exchange.page(&query).last_mutation, None);
    exchange.user = user("u1");
    let other = PageQuery { client_id: Some(client("b")), ..PageQuery::default() };
    assert_eq!(exchange.page(&other).last_mutation, None);
    assert_eq!(exchange.page(&PageQuery::default()).last_mutation, None);
}

fn cursor(epoch: &str, seq: u64) -> Option<Cursor> {
    Some(Cursor { epoch: Epoch::new(epoch).unwrap(), seq: Seq(seq) })
}

fn mode(page: &PageAnswer) -> Mode {
    let Some(ServerMessage::Subscribed { mode: Some(mode), .. }) = page.messages.first() else {
        panic!("{page:?}")
    };
    *mode
}

#[test]
fn a_resume_moves_the_place_and_nothing_else() {
    let exchange = &mut Exchange::new();
    for (of, change) in [
        ("a", insert(r#"{"x":1}"#)),
        ("b", insert(r#"{"x":1,"y":1}"#)),
        ("a", update(r#"{"x":2}"#)),
        ("b", update(r#"{"x":2}"#)),
    ] {
        exchange.store.plain_to(of, change);
    }
    exchange.store.plain_to("b", update(r#"{"y":2}"#));
    let epoch = Epoch::new("e1").unwrap();
    let resume = Some(Resume::Delta { epoch: epoch.clone(), seq: Seq(4) });
    let from = PageFrom { cursor: cursor("e1", 2), resume, ..PageFrom::default() };
    let page = exchange.page(&PageQuery { from: from.clone(), ..PageQuery::default() });
    assert_eq!(page.from, from);
    let [_, ServerMessage::Change { change, .. }, ServerMessage::Synced { .. }] =
        &page.messages[..]
    else {
        panic!("{page:?}")
    };
    // every field above the cursor, not above the resume
    assert_eq!(change.change, update(r#"{"x":2,"y":2}"#));

    // a page is of so many records at most
    let query = PageQuery { limit: Some(1), ..PageQuery::default() };
    let page = exchange.page(&query);
    let [_, ServerMessage::Sync { range: Some(range), .. }] = &page.messages[..] else {
        panic!("{page:?}")
    };
    let resume = Resume::Snapshot {
        epoch,
        snapshot_seq: range.snapshot_seq,
        after: range.up_to.clone().unwrap(),
    };
    let query = PageQuery {
        from: PageFrom { cursor: None, resume: Some(resume), ..PageFrom::default() },
        limit: Some(1),
        ..PageQuery::default()
    };
    let page = exchange.page(&query);
    let [_, ServerMessage::Sync { range: Some(next), .. }, _] = &page.messages[..] else {
        panic!("{page:?}")
    };
    assert_eq!(next.after, range.up_to);
    exchange.limits.page.records = 1;
    let page = exchange.page(&PageQuery { limit: Some(1000), ..PageQuery::default() });
    assert_eq!(page.messages.len(), 2);
}

#[test]
fn a_cursor_that_does_not_hold_gets_a_snapshot() {
    let exchange = &mut Exchange::new();
    exchange.store.plain_to("r", insert("{}"));
    exchange.store.plain_to("r", Change::delete());
    exchange.store.plain_to("s", insert("{}"));
    let ask = |exchange: &mut Exchange, epoch, seq| {
        let from = PageFrom { cursor: cursor(epoch, seq), resume: None, ..PageFrom::default() };
        let page = exchange.page(&PageQuery { from: from.clone(), ..PageQuery::default() });
        assert_eq!(page.from, from);
        mode(&page)
    };
    assert_eq!(ask(exchange, "e1", 1), Mode::Delta);
    assert_eq!(ask(exchange, "unknown", 1), Mode::Snapshot);
    assert_eq!(ask(exchange, "e1", 4), Mode::Snapshot);
    exchange.store.now = Timestamp(exchange.store.now.0 + 10_000);
    exchange.store.plain_to("t", insert("{}"));
    exchange.store.sweep_tombstones(1000);
    // the horizon has passed the cursor, in the middle of its run too
    assert_eq!(ask(exchange, "e1", 1), Mode::Snapshot);
    let epoch = Epoch::new("e1").unwrap();
    for (cursor, resume) in [
        (cursor("e1", 1), Resume::Delta { epoch: epoch.clone(), seq: Seq(3) }),
        (None, Resume::Snapshot { epoch, snapshot_seq: Seq(1), after: id("r") }),
    ] {
        let from = PageFrom { cursor, resume: Some(resume), ..PageFrom::default() };
        let page = exchange.page(&PageQuery { from, ..PageQuery::default() });
        assert_eq!(mode(&page), Mode::Snapshot);
        let ServerMessage::Sync { range: Some(range), .. } = &page.messages[1] else { panic!() };
        assert_eq!(range.after, None);
    }
}

/// Shows the records that say so.
struct Public;

impl Policy for Public {
    fn read(&self, _: Option<&UserId>, collection: &Collection) -> Access {
        if collection.as_str() == "secret" { Access::None } else { Access::Some }
    }
    fn read_record(
        &self,
        _: Option<&UserId>,
        _: &Collection,
        _: &RecordId,
        document: &Document,
    ) -> bool {
        document.text("public").is_some()
    }
}

#[test]
fn a_page_shows_what_may_be_read() {
    let exchange = &mut Exchange::new();
    exchange.store.plain_to("r", insert(r#"{"public":1}"#));
    exchange.store.plain_to("s", insert(r#"{"secret":1}"#));
    exchange.policy = &Public;
    for from in [
        PageFrom::default(),
        PageFrom { cursor: cursor("e1", 0), resume: None, ..PageFrom::default() },
    ] {
        let reply =
            exchange.ask("GET", &PageQuery { from, ..PageQuery::default() }.target(&todos()), b"");
        assert!(shown(&reply).contains(r#""partial":true"#), "{}", shown(&reply));
        for hidden in ["secret", "checksum", "count", "recordCount"] {
            assert!(!shown(&reply).contains(hidden), "{}", shown(&reply));
        }
    }
    assert_eq!(
        told(&exchange.ask("GET", "/sync/secret?epoch=", b"")),
        (403, "UNAUTHORIZED".into())
    );
    // and so do the verdicts
    exchange.hello("a", 1);
    let (_, verdicts) = exchange.push(vec![write(1, 0, "s", insert("{}"))]);
    assert_eq!(brief(&verdicts), [(1, "UNAUTHORIZED".into())]);
}

#[test]
fn a_unit_is_pushed_as_one_element() {
    let mut exchange = Exchange::new();
    exchange.hello("a", 1);
    let head = head("a", 1, "e1");
    let member = |number: u64, of: &str, base: u64| {
        let mut message = Vec::new();
        Member::Write(write(number, base, of, insert("{\"n\":1}"))).encode(&mut message);
        message
    };
    let unit = |members: Vec<Vec<u8>>| {
        let mut element = Vec::new();
        encode_atomic(members, &mut element);
        element
    };
    let push = |exchange: &mut Exchange, elements: Vec<Vec<u8>>| {
        let mut body = Vec::new();
        encode_push(&head, elements, &mut body);
        let reply = exchange.ask("POST", PUSH_PATH, &body);
        assert_eq!(reply.status, 200, "{}", shown(&reply));
        let answer = PushAnswer::decode(&reply.body, &Limits::default()).unwrap();
        let brief = |verdict: &ServerMessage| {
            if let ServerMessage::Ack(ack) = verdict {
                return format!("ack {}", ack.mutation);
            }
            let ServerMessage::Error(error) = verdict else { panic!("{verdict:?}") };
            let failed = error.failed.iter().map(|member| member.mutation.to_string());
            let failed: Vec<_> = failed.collect();
            format!("{} {} {failed:?}", error.code, error.mutation.unwrap())
        };
        (answer.last_mutation.0, answer.verdicts.iter().map(brief).collect::<Vec<_>>())
    };
    let first = vec![member(1, "x", 0), unit(vec![member(2, "y", 0), member(3, "z", 0)])];
    let (last, verdicts) = push(&mut exchange, first);
    assert_eq!((last, &verdicts.join(", ")[..]), (3, "ack 1, ack 2, ack 3"));

    exchange.store.plain_to("y", update("{\"n\":2}"));
    let second = vec![
        member(4, "w", 0),
        unit(vec![member(5, "v", 0), member(6, "y", 2)]),
        member(7, "u", 0),
    ];
    let (last, verdicts) = push(&mut exchange, second);
    assert_eq!((last, &verdicts.join(", ")[..]), (4, "ack 4, CONFLICT 5 [\"6\"]"));
    assert_eq!(exchange.store.record("v"), None);

    // a member that can't be read, and one that is too fast
    let unread = unit(vec![member(5, "v", 0), b"{\"type\":\"insert\"}".to_vec()]);
    let (last, verdicts) = push(&mut exchange, vec![unread]);
    assert_eq!((last, &verdicts.join(", ")[..]), (4, "INVALID_MESSAGE 5 []"));
    exchange.tokens = 1;
    let unit = unit(vec![member(5, "v", 0), member(6, "q", 0), member(7, "p", 0)]);
    let (last, verdicts) = push(&mut exchange, vec![unit.clone()]);
    assert_eq!((last, &verdicts.join(", ")[..]), (4, "RATE_LIMIT_EXCEEDED 5 []"));
    exchange.tokens = 2;
    let (last, verdicts) = push(&mut exchange, vec![unit]);
    assert_eq!((last, &verdicts.join(", ")[..]), (7, "ack 5, ack 6, ack 7"));
}

/// An answer that would be too large ends before or behind a unit.
#[test]
fn no_answer_parts_the_acks_of_a_unit() {
    let mut exchange = Exchange::new();
    exchange.limits.answer_bytes = 400;
    exchange.hello("a", 1);
    let member = |number: u64| {
        let mut message = Vec::new();
        let of = format!("r{number}");
        Member::Write(write(number, 0, &of, insert("{\"n\":1}"))).encode(&mut message);
        message
    };
    let mut element = Vec::new();
    encode_atomic((1..=5).map(member), &mut element);
    let mut body = Vec::new();
    encode_push(&head("a", 1, "e1"), [element, member(6)], &mut body);
    let reply = exchange.ask("POST", PUSH_PATH, &body);
    let answer = PushAnswer::decode(&reply.body, &Limits::default()).unwrap();
    assert_eq!((answer.last_mutation.0, answer.verdicts.len()), (6, 5));
}
