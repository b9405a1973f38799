//! A server's sessions and its HTTP calls, fed with whatever comes.

use synclayer_core::rules::transaction::TransactError;
use synclayer_core::server::http::Request;
use synclayer_core::server::ring::RingLimits;
use synclayer_core::server::session::{Identity, Input, SessionConfig};
use synclayer_core::words::limits::Limits;
use synclayer_core::words::message::ServerMessage;
use synclayer_core::words::name::{ConnId, UserId};
use synclayer_core::words::store::{StoreError, StoreErrorKind};
use synclayer_core::words::time::Now;
use synclayer_core::words::wire::{Incoming, decode_server};

use super::client::now;
use super::script::Script;
use crate::hub::{Hub, Told};

const STEPS: usize = 400;

/// Lets clients and callers say what the bytes say, and checks the sessions after every step.
///
/// # Panics
/// When an invariant is broken, or what is answered makes no sense.
pub fn session(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let mut bench = Bench::new(&mut script);
    for _ in 0..STEPS {
        if script.is_over() {
            break;
        }
        bench.step(&mut script);
    }
    // a server that is left alone comes to rest, and its books are in order
    bench.hub.settle(bench.now);
    bench.hear();
    let report = synclayer_core::rules::record::verify(&bench.hub.rows).expect("sound rows");
    assert!(report.faults.is_empty(), "{:?}", report.faults);
}

struct Bench {
    now: Now,
    hub: Hub,
    conn: ConnId,
    /// The connection that each of two clients has; no number comes twice.
    conns: [ConnId; 2],
    next_number: u64,
    session: u64,
}

impl Bench {
    fn new(script: &mut Script<'_>) -> Self {
        let choice = script.byte();
        let mut config = SessionConfig {
            queued: 1 + usize::from(choice & 15) * 4,
            run: 1 + usize::from(choice >> 4),
            window: 4,
            subscriptions: 2,
            ..SessionConfig::default()
        };
        config.page.records = 1 + script.below(3);
        let ring = RingLimits { collection_bytes: 400, ..RingLimits::default() };
        Self {
            now: now(),
            hub: Hub::new(config, ring, now()),
            conn: ConnId(1),
            conns: [ConnId(1), ConnId(2)],
            next_number: 1,
            session: 1,
        }
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let who = usize::from(script.chance(4));
        self.conn = self.conns[who];
        match script.below(16) {
            0 => self.connect(who, script),
            1..7 => self.say(script),
            7 => self.hub.commit(self.now),
            8 => self.hub.read(),
            9 => self.hub.answer(script.below(self.hub.answers.len()), self.now),
            10 => self.fail(script),
            11 => self.hub.pump(self.conn, script.number().min(1 << 16) as usize * 8, self.now),
            12 => self.pass(script),
            13 => self.ask(script),
            14 => self.end(script),
            _ => self.hub.settle(self.now),
        }
        self.hear();
    }

    fn connect(&mut self, who: usize, script: &mut Script<'_>) {
        let identity = match script.below(4) {
            0 => Identity::Unknown,
            1 => Identity::Known(UserId::new("u").expect("a user")),
            _ => Identity::Open,
        };
        // the answers for the connection before come late, or for nobody
        if script.chance(2) {
            self.hub.drop_line(self.conn, self.now);
        }
        self.conn = ConnId(1 + self.conns[0].0.max(self.conns[1].0));
        self.conns[who] = self.conn;
        self.hub.accept(self.conn, identity, self.now);
        self.session += 1;
        if script.chance(2) {
            self.frame(&self.hello(who));
        }
    }

    fn hello(&self, who: usize) -> String {
        let (client, session) = (who, self.session);
        format!(
            r#"{{"type":"ping","metadata":{{"protocol":2,"clientId":"c{client}","session":{session}}}}}"#
        )
    }

    /// A frame of a client: one that makes sense, mostly; or something like it.
    fn say(&mut self, script: &mut Script<'_>) {
        let line = self.hub.lines.get(&self.conn);
        if !line.is_some_and(|line| line.session.wants_frames()) {
            return;
        }
        let frame = match script.below(16) {
            0 => script.bytes().to_vec(),
            1 => format!(
                r#"{{"type":"batch","messages":[{},{}]}}"#,
                self.message(script),
                self.message(script)
            )
            .into_bytes(),
            2 | 3 => {
                let message = self.message(script);
                script.mutated(message.as_bytes())
            }
            _ => self.message(script).into_bytes(),
        };
        self.hub.tell(self.conn, Input::Frame(&frame), self.now);
    }

    fn frame(&mut self, text: &str) {
        self.hub.tell(self.conn, Input::Frame(text.as_bytes()), self.now);
    }

    fn message(&mut self, script: &mut Script<'_>) -> String {
        let collection = ["todos", "notes", "x"][script.below(3)];
        let (id, document) = (["a", "b", "c"][script.below(3)], script.document());
        match script.below(12) {
            0 => self.hello(usize::from(script.chance(8))),
            1 => format!(r#"{{"type":"subscribe","collection":"{collection}"}}"#),
            2 => format!(
                r#"{{"type":"subscribe","collection":"{collection}","metadata":{{"cursor":{{"epoch":"e0","seq":{}}}}}}}"#,
                script.number()
            ),
            3 => format!(
                r#"{{"type":"subscribe","collection":"{collection}","metadata":{{"cursor":{{"epoch":"e0","seq":{}}},"resume":{{"epoch":"e0","snapshotSeq":{},"after":"{id}"}}}}}}"#,
                script.number(),
                script.number()
            ),
            4 => format!(r#"{{"type":"unsubscribe","collection":"{collection}"}}"#),
            5 => format!(r#"{{"type":"sync","collection":"{collection}"}}"#),
            6 => r#"{"type":"ping"}"#.to_string(),
            7 if script.chance(2) => r#"{"type":"auth","data":{"token":"u"}}"#.to_string(),
            choice => {
                let kind = ["insert", "update", "delete"][choice % 3];
                let number = match script.below(8) {
                    0 => script.number(),
                    1 => self.next_number.saturating_sub(1),
                    _ => {
                        self.next_number += 1;
                        self.next_number - 1
                    }
                };
                let base = script.number();
                let metadata = match script.below(6) {
                    0 => String::new(),
                    1 => format!(r#","metadata":{{"mutation":{number}}}"#),
                    _ => format!(
                        r#","metadata":{{"mutation":{number},"base":{base},"unset":["t"]}}"#
                    ),
                };
                format!(
                    r#"{{"type":"{kind}","collection":"{collection}","recordId":"{id}","data":{document}{metadata}}}"#
                )
            }
        }
    }

    /// The database fails where an answer was expected.
    fn fail(&mut self, script: &mut Script<'_>) {
        let error = StoreError::new(StoreErrorKind::Other, "broken");
        if let Some(ticket) = self.hub.transactions.pop_front() {
            let failure = if script.chance(2) {
                TransactError::Failed(error)
            } else {
                TransactError::Unknown(error)
            };
            self.hub.answers.push_back(Told::Transacted(ticket, Err(failure)));
        } else if let Some(ticket) = self.hub.reads.pop_front() {
            self.hub.answers.push_back(Told::Read(ticket, Err(error)));
        }
    }

    fn pass(&mut self, script: &mut Script<'_>) {
        self.now.mono.0 += script.number().min(1 << 40) * 1_000;
        self.hub.tell(self.conn, Input::Timeout, self.now);
        let deadline = self.hub.lines.get(&self.conn).and_then(|line| line.session.deadline());
        if let Some((at, timer)) = deadline {
            assert!(at > self.now.mono, "{timer:?} stays due");
        }
    }

    fn end(&mut self, script: &mut Script<'_>) {
        match script.below(5) {
            0 => self.hub.tell(self.conn, Input::Shutdown, self.now),
            1 => self.hub.tell(self.conn, Input::Closed, self.now),
            2 => self.hub.tell(self.conn, Input::AuthExpired, self.now),
            3 => self.hub.crash(self.now),
            _ => self.hub.tell(self.conn, Input::Ping, self.now),
        }
    }

    /// A call by HTTP.
    fn ask(&mut self, script: &mut Script<'_>) {
        let (id, document) = (["a", "b", "%00", ""][script.below(4)], script.document());
        let paths =
            ["/sync/todos", "/sync/todos/", "/sync/session", "/sync/push", "/", "/sync/%ff"];
        let path = format!("{}{id}", paths[script.below(6)]);
        let bodies = [
            format!(r#"{{"recordId":"{id}","data":{document}}}"#),
            format!(r#"{{"delta":{document},"baseVersion":{}}}"#, script.number()),
            format!(r#"{{"clientId":"c1","session":{}}}"#, script.number()),
            format!(
                r#"{{"clientId":"c1","session":1,"mutations":[{{"type":"insert","collection":"todos","recordId":"a","data":{document},"metadata":{{"mutation":1}}}}]}}"#
            ),
        ];
        let body = bodies[script.below(4)].as_bytes();
        let body = if script.chance(3) { script.mutated(body) } else { body.to_vec() };
        let queries = [
            "",
            "limit=2&offset=1",
            "where[a]=1&fields=a,b",
            "epoch=e0&seq=1&limit=2",
            "since=2026-01-01T00:00:00Z",
        ];
        let query = queries[script.below(5)].as_bytes();
        let query = if script.chance(3) { script.mutated(query) } else { query.to_vec() };
        let request = Request {
            method: ["GET", "POST", "PATCH", "DELETE", "PUT"][script.below(5)],
            path: &path,
            query: &String::from_utf8_lossy(&query),
            body: &body,
            user: None,
        };
        let reply = self.hub.ask(&request, self.now);
        assert!((200..600).contains(&reply.status));
        assert!(reply.status != 500 && reply.status != 503, "{request:?}: {reply:?}");
    }

    /// Whatever a server says, a client understands.
    fn hear(&mut self) {
        for line in self.hub.lines.values_mut() {
            for frame in line.down.drain(..) {
                let limits = Limits { frame_bytes: usize::MAX, ..Limits::default() };
                let said = decode_server(&frame, &limits);
                let unknown =
                    |message: &ServerMessage| matches!(message, ServerMessage::Unknown { .. });
                match said {
                    Ok(Incoming::One(message)) if !unknown(&message) => {}
                    Ok(Incoming::Batch(messages)) if messages.iter().all(Result::is_ok) => {}
                    said => panic!("{said:?}: {}", String::from_utf8_lossy(&frame)),
                }
            }
        }
    }
}
