//! A server in one value, step by step; and as a clone.

mod rights;
mod scopes;

use alloc::string::String;
use alloc::vec;
use core::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::protocol::name::{DatabaseId, Epoch};
use crate::protocol::time::Timestamp;
use crate::rules::policy::{AllowAll, User};
use crate::rules::transaction::SweepPlace;
use crate::rules::transaction::tests::todos;
use crate::store::MemoryRows;
use crate::store::StoreErrorKind;

/// A server with rows in memory, all of whose actions are kept as text.
#[derive(Clone)]
struct Host {
    hub: Hub,
    rows: MemoryRows,
    now: Now,
    said: Vec<String>,
    /// The user of every token.
    user: User,
}

impl Host {
    fn new() -> Self {
        let rate = Some(Rate { per_second: 1, burst: 2 });
        let limits = ServerLimits { user_rate: rate, ..ServerLimits::default() };
        let config = HubConfig { limits, ..HubConfig::default() };
        let hub = Hub::new(config, Arc::new(AllowAll), [(todos(), Seq(0))]);
        let now = Now { mono: Mono(1_000), wall: Timestamp(1_000_000) };
        let begin = Transaction::BeginEpoch {
            epoch: Epoch::new("e1").unwrap(),
            database: DatabaseId::new("d1").unwrap(),
        };
        let mut rows = MemoryRows::default();
        rows.apply(begin.decide(&rows, hub.context(now)).unwrap().batch);
        Self { hub, rows, now, said: Vec::new(), user: UserId::new("u").unwrap().into() }
    }

    /// Does something, and keeps what the hub then wants.
    fn act<T>(&mut self, call: impl FnOnce(&mut Hub, Now, &mut Vec<HubAction>) -> T) -> T {
        let mut out = Vec::new();
        let answer = call(&mut self.hub, self.now, &mut out);
        for action in out {
            self.said.push(if let HubAction::Reply { call, reply } = &action {
                let body = String::from_utf8_lossy(&reply.body);
                format!("Reply {{ call: {call:?}, status: {}, body: {body} }}", reply.status)
            } else {
                format!("{action:?}")
            });
            if let HubAction::Authenticate(ticket) = action {
                self.hub.authenticated(ticket, Some(self.user.clone()));
            }
        }
        self.hub.check().unwrap();
        answer
    }

    fn handle(&mut self, input: HubInput<'_>) {
        self.act(|hub, now, out| hub.handle(now, input, out));
    }

    fn frame(&mut self, conn: u64, frame: &str) {
        let input = SessionInput::Frame(frame.as_bytes());
        self.handle(HubInput::Session { conn: ConnId(conn), input });
    }

    /// A connection that has said hello and follows the collection.
    fn connect(&mut self, conn: u64) {
        self.handle(HubInput::Accepted { conn: ConnId(conn), identity: Identity::Open });
        self.frame(
            conn,
            &format!(
                r#"{{"type":"ping","metadata":{{"protocol":2,"clientId":"c{conn}","session":1}}}}"#
            ),
        );
        self.frame(conn, r#"{"type":"subscribe","collection":"todos"}"#);
        self.settle();
    }

    fn write(&mut self, conn: u64, number: u64) {
        self.frame(
            conn,
            &format!(
                r#"{{"type":"insert","collection":"todos","recordId":"r{number}","data":{{"a":{number}}},"metadata":{{"mutation":{number},"base":0}}}}"#
            ),
        );
    }

    fn call(&mut self, call: u64, method: &str, path: &str, body: &str) {
        let body = body.as_bytes();
        let request = Request { method, path, query: "", body, user: None };
        self.handle(HubInput::Call { call: CallId(call), request });
    }

    fn commit(&mut self, ends_well: bool) {
        let Some(mut batch) = self.hub.next_batch(usize::MAX) else { return };
        let ended = if ends_well {
            let rows = batch.decide(&self.rows, self.hub.context(self.now));
            self.rows.apply(rows);
            Ok(())
        } else {
            let error = StoreError::new(StoreErrorKind::Other, "the disk is on fire");
            Err(TransactError::Failed(error))
        };
        self.act(|hub, now, out| hub.settle(now, batch, ended, out));
    }

    fn read(&mut self) {
        let Some(read) = self.hub.take_read(0) else { return };
        let found = self.hub.run_read(&read, &self.rows);
        self.act(|hub, _, out| hub.finish_read(read, found, out));
    }

    fn answer(&mut self) -> bool {
        self.act(|hub, now, out| hub.answer(now, 0, out)).is_some()
    }

    fn room(&mut self, conn: u64, room: usize) {
        self.handle(HubInput::Room { conn: ConnId(conn), room });
    }

    fn settle(&mut self) {
        for _ in 0..8 {
            self.commit(true);
            self.read();
            while self.answer() {}
            let conns: Vec<_> = self.hub.sessions().map(|(conn, _)| conn).collect();
            conns.iter().for_each(|conn| self.room(conn.0, 1 << 16));
        }
    }

    /// The actions since the last time that contain a text.
    fn took(&mut self, text: &str) -> Vec<String> {
        let said = core::mem::take(&mut self.said);
        said.into_iter().filter(|line| line.contains(text)).collect()
    }
}

#[test]
fn a_write_wakes_its_followers_and_then_answers() {
    let mut host = Host::new();
    host.connect(1);
    host.connect(2);
    host.said.clear();
    host.write(1, 1);
    assert_eq!(host.took("Commit"), ["Commit"]);
    host.commit(true);
    assert_eq!(host.took(""), ["Wake(ConnId(1))", "Wake(ConnId(2))"]);
    assert!(host.hub.wants_room(ConnId(2)));
    assert!(!host.hub.wants_room(ConnId(1)), "its own change waits for its verdict");
    assert_eq!(host.hub.waiting_answers().collect::<Vec<_>>(), [ConnId(1)]);
    host.answer();
    host.room(1, 1 << 16);
    host.room(2, 1 << 16);
    let sent = host.took("Send");
    assert!(sent[0].contains("\\\"ack\\\""), "{sent:?}");
    assert!(sent[1].contains("\\\"insert\\\""), "{sent:?}");
    assert_eq!(host.hub.committer().health().commits, 3);
}

#[test]
fn a_commit_that_fails_is_answered_and_wakes_nobody() {
    let mut host = Host::new();
    host.connect(1);
    host.call(7, "POST", "/sync/todos", r#"{"recordId":"x","data":{}}"#);
    host.write(1, 1);
    host.said.clear();
    host.commit(false);
    let said = host.took("");
    assert!(said.len() == 1 && said[0].contains("call: CallId(7)") && said[0].contains("503"));
    assert!(host.hub.committer().health().failure.is_some());
    host.answer();
    assert!(host.took("Send")[0].contains("SERVER_ERROR"));
}

#[test]
fn calls_are_answered_with_what_they_wrote_and_read() {
    let mut host = Host::new();
    host.call(1, "POST", "/sync/todos", r#"{"recordId":"x","data":{"a":1}}"#);
    host.commit(true);
    assert!(host.took("Reply")[0].contains("status: 200"));
    host.call(2, "GET", "/sync/todos", "");
    assert_eq!(host.hub.waiting_reads(), 1);
    host.read();
    assert!(host.took("Reply")[0].contains("status: 200"));
    host.call(3, "GET", "/nowhere", "");
    assert!(host.took("Reply")[0].contains("status: 404"));
    let user = UserId::new("u").unwrap();
    let admitted = [0; 3].map(|_| host.hub.admit(host.now, Some(&user)).is_ok());
    assert_eq!(admitted, [true, true, false]);
}

#[test]
fn a_sweep_goes_on_by_itself_to_its_end() {
    let mut host = Host::new();
    host.connect(1);
    (1..=6).for_each(|number| host.write(1, number));
    host.settle();
    host.said.clear();
    let sweep = Sweep { retention: Duration::ZERO, from: SweepPlace::Start, budget: 2 };
    host.handle(HubInput::Sweep(sweep));
    while host.hub.committer().waiting().len() > 0 {
        host.commit(true);
    }
    let steps = host.took("Swept");
    assert!(steps.len() > 1 && steps.last().unwrap().contains("next: None"), "{steps:?}");
}

#[test]
fn the_end_of_a_connection_leaves_nothing_behind() {
    let mut host = Host::new();
    host.connect(1);
    host.write(1, 1);
    host.now.mono = host.hub.deadline().unwrap().0;
    host.handle(HubInput::Timeout);
    assert!(host.took("Close")[0].contains("1001"));
    assert_eq!(host.hub.deadline(), None);
    host.handle(HubInput::Session { conn: ConnId(1), input: SessionInput::Closed });
    // what it had sent is committed all the same, and its answer is nobody's
    host.settle();
    assert_eq!(host.hub.rings().head(&todos()), Seq(1));
    assert_eq!(host.took("Send"), vec![""; 0]);
    assert_eq!(host.hub.sessions().count() + host.hub.waiting_answers().len(), 0);
}

fn step(host: &mut Host, (what, which): (u8, u64)) {
    let conn = 1 + which % 2;
    match what {
        0 => host.write(conn, 1 + which / 2),
        1 => host.commit(true),
        2 => host.commit(which > 3),
        3 => host.read(),
        4 => drop(host.answer()),
        5 => host.room(conn, 1 << (which * 2)),
        6 => host.frame(conn, r#"{"type":"sync","collection":"todos"}"#),
        7 => host.frame(conn, r#"{"type":"ping"}"#),
        8 => host.call(which, "GET", "/sync/todos", ""),
        _ => host.frame(conn, r#"{"type":"unsubscribe","collection":"todos"}"#),
    }
}

proptest! {
    /// Wherever a server is cloned, both go on alike, whatever was under way.
    #[test]
    fn a_clone_goes_on_as_its_original(
        before in prop::collection::vec((0_u8..10, 0_u64..8), 0..20),
        after in prop::collection::vec((0_u8..10, 0_u64..8), 0..20),
    ) {
        let mut host = Host::new();
        host.connect(1);
        host.connect(2);
        before.into_iter().for_each(|one| step(&mut host, one));
        let mut clone = host.clone();
        prop_assert_eq!(host.hub.digest(), clone.hub.digest());
        for one in after {
            step(&mut host, one);
            step(&mut clone, one);
            prop_assert_eq!(host.hub.digest(), clone.hub.digest());
        }
        host.settle();
        clone.settle();
        prop_assert_eq!(host.said, clone.said);
        prop_assert_eq!(host.hub.digest(), clone.hub.digest());
    }
}
