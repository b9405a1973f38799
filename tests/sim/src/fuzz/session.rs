//! A server's sessions and its HTTP calls, fed with whatever comes.

use std::collections::BTreeMap;
use std::time::Duration;

use synclayer_core::protocol::{Incoming, ServerMessage, decode_server};
use synclayer_core::testing::{Checked, InspectHub};
use synclayer_core::{
    Collection, ConnId, Document, Identity, Limits, MemoryRows, Now, Rate, Request, RingLimits,
    ScopeKey, ServerLimits, Session, SessionInput, StoreError, StoreErrorKind, TransactError,
    Transaction, UserId,
};

use super::client::now;
use super::policy::policy;
use super::script::Script;
use crate::host::Host;

const STEPS: usize = 400;

/// Lets clients and callers say what the bytes say, and checks the sessions after every step.
///
/// # Panics
/// When an invariant is broken, or what is answered makes no sense.
pub fn session(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let bench = SessionBench::new(&mut script);
    bench.run(script);
}

/// Lets clients and callers say what the bytes say about scopes, too, and checks the sessions after every step,
/// that the rows of scopes follow from the records, and that what is withheld is in no frame.
///
/// # Panics
/// When an invariant is broken, or what is answered makes no sense.
pub fn scopes(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let mut bench = SessionBench::new(&mut script);
    bench.divide();
    bench.run(script);
}

/// The keys by which collections are divided, of each kind that there is.
const KEYS: [(&str, &[&str]); 2] = [("todos", &["a", "b[]", "a+n"]), ("notes", &["a"])];

struct SessionBench {
    now: Now,
    host: Host,
    conn: ConnId,
    /// The connection that each of two clients has; no number comes twice.
    conns: [ConnId; 2],
    next_number: u64,
    session: u64,
    backup: Option<MemoryRows>,
    /// The collections are divided into scopes.
    is_divided: bool,
    /// Records with a field `t` are withheld from everyone.
    withholds: bool,
}

impl SessionBench {
    fn new(script: &mut Script<'_>) -> Self {
        let choice = script.byte();
        let mut limits = ServerLimits::default();
        limits.queued = 1 + usize::from(choice & 15) * 4;
        limits.run = 1 + usize::from(choice >> 4);
        (limits.window, limits.subscriptions) = (4, 2);
        limits.page.records = 1 + script.below(3);
        let rights = script.byte();
        if rights & 8 != 0 {
            limits.rate = Some(Rate { per_second: 5, burst: 8 });
        }
        let documents = rights & 4 != 0;
        let mut rings = RingLimits::default();
        (rings.collection_bytes, rings.documents) = (400, documents);
        let mut host = Host::new(limits, rings, now());
        host.set_policy(policy(rights));
        Self {
            now: now(),
            host,
            conn: ConnId(1),
            conns: [ConnId(1), ConnId(2)],
            next_number: 1,
            session: 1,
            backup: None,
            is_divided: false,
            withholds: rights & 3 == 3,
        }
    }

    fn run(mut self, mut script: Script<'_>) {
        for _ in 0..STEPS {
            if script.is_over() {
                break;
            }
            self.step(&mut script);
        }
        // a server that is left alone comes to rest, and its books are in order
        self.host.settle(self.now);
        self.hear();
        let report = synclayer_core::rules::verify(&self.host.rows).expect("sound rows");
        assert!(report.faults.is_empty(), "{:?}", report.faults);
    }

    /// Divides the collections into scopes.
    fn divide(&mut self) {
        self.is_divided = true;
        let key = |key: &&str| key.parse::<ScopeKey>().expect("a scope key");
        let keys: BTreeMap<_, Vec<_>> = KEYS
            .into_iter()
            .map(|(name, keys)| {
                (Collection::new(name).expect("a name"), keys.iter().map(key).collect())
            })
            .collect();
        let declare = Transaction::DeclareScopes(keys);
        let decision = declare.decide(&self.host.rows, self.host.hub.context(self.now));
        self.host.rows.apply(decision.expect("sound rows").batch);
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let who = usize::from(script.chance(4));
        self.conn = self.conns[who];
        match script.step(16) {
            0 => self.connect(who, script),
            1..7 => self.say(script),
            7 => self.host.commit(self.now),
            8 => self.host.read(),
            9 => {
                let waiting = self.host.hub.waiting_answers().len();
                self.host.answer(script.below(waiting), self.now);
            }
            10 => self.fail(script),
            11 => self.host.pump(self.conn, script.number().min(1 << 16) as usize * 8, self.now),
            12 => self.pass(script),
            13 => self.ask(script),
            14 => self.end(script),
            16 | 17 => {
                let retention = Duration::from_millis(script.number().min(100_000));
                self.host.sweep(retention, 1 + script.below(8), self.now);
            }
            18 => self.backup = Some(self.host.rows.clone()),
            19 => {
                if let Some(rows) = self.backup.clone() {
                    self.host.restart(rows, self.now).expect("sound rows");
                }
            }
            20 => {
                let jump = i64::from(script.byte()) * 1_000 - 50_000;
                self.now.wall.0 = self.now.wall.0.saturating_add(jump);
            }
            21..26 => self.exchange(script),
            _ => self.host.settle(self.now),
        }
        self.host.hub.check().expect("its invariants hold");
        self.hear();
    }

    fn connect(&mut self, who: usize, script: &mut Script<'_>) {
        let identity = match script.below(4) {
            0 => Identity::Unknown,
            1 => Identity::Known(UserId::new("u").expect("a user").into()),
            _ => Identity::Open,
        };
        // the answers for the connection before come late, or for nobody
        if script.chance(2) {
            self.host.drop_line(self.conn, self.now);
        }
        self.conn = ConnId(1 + self.conns[0].0.max(self.conns[1].0));
        self.conns[who] = self.conn;
        self.host.accept(self.conn, identity, self.now);
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
        if !self.host.hub.session(self.conn).is_some_and(Session::wants_frames) {
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
        self.host.tell(self.conn, SessionInput::Frame(&frame), self.now);
    }

    fn frame(&mut self, text: &str) {
        self.host.tell(self.conn, SessionInput::Frame(text.as_bytes()), self.now);
    }

    fn message(&mut self, script: &mut Script<'_>) -> String {
        let collection = ["todos", "notes", "x"][script.below(3)];
        if self.is_divided && script.chance(2) {
            return self.of_scopes(collection, script);
        }
        let (id, document) = (["a", "b", "c"][script.below(3)], script.document());
        match script.below(12) {
            0 => self.hello(usize::from(script.chance(8))),
            1 => format!(r#"{{"type":"subscribe","collection":"{collection}"}}"#),
            2 => format!(
                r#"{{"type":"subscribe","collection":"{collection}","metadata":{{"cursor":{{"epoch":"{}","seq":{}}}}}}}"#,
                self.host.epoch(),
                script.number()
            ),
            3 => format!(
                r#"{{"type":"subscribe","collection":"{collection}","metadata":{{"cursor":{{"epoch":"e0","seq":{}}},"resume":{{"epoch":"{}","snapshotSeq":{},"after":"{id}"}}}}}}"#,
                script.number(),
                self.host.epoch(),
                script.number()
            ),
            4 => format!(r#"{{"type":"unsubscribe","collection":"{collection}"}}"#),
            5 => format!(r#"{{"type":"sync","collection":"{collection}"}}"#),
            6 => r#"{"type":"ping"}"#.to_string(),
            7 if script.chance(2) => r#"{"type":"auth","data":{"token":"u"}}"#.to_string(),
            choice => self.write(choice, collection, (id, &document), script),
        }
    }

    /// A subscription of scopes, or of one by a filter.
    fn of_scopes(&self, collection: &str, script: &mut Script<'_>) -> String {
        if script.chance(4) {
            let kind = ["subscribe", "sync"][script.below(2)];
            let (key, value) = (["a", "b[]", "n"][script.below(3)], value(script));
            return format!(
                r#"{{"type":"{kind}","collection":"{collection}","filter":{{"{key}":{value}}}}}"#
            );
        }
        let metadata = self.set(script);
        format!(r#"{{"type":"subscribe","collection":"{collection}","metadata":{{{metadata}}}}}"#)
    }

    /// A set of scopes with its number and its cursor, as the fields of an object.
    fn set(&self, script: &mut Script<'_>) -> String {
        let epoch = if script.chance(4) { "e0".to_owned() } else { self.host.epoch().to_string() };
        let scopes: Vec<_> = (0..1 + script.below(4)).map(|_| scope(&epoch, script)).collect();
        let (set, seq) = (script.number(), script.number());
        let cursor = match script.below(3) {
            0 => String::new(),
            1 => format!(r#","cursor":{{"epoch":"{epoch}","seq":{seq}}}"#),
            _ => format!(
                r#","cursor":{{"epoch":"{epoch}","seq":{seq},"resume":{{"epoch":"{epoch}","after":{}}}}}"#,
                script.number()
            ),
        };
        format!(r#""set":{set},"scopes":[{}]{cursor}"#, scopes.join(","))
    }

    fn write(
        &mut self,
        choice: usize,
        collection: &str,
        (id, document): (&str, &Document),
        script: &mut Script<'_>,
    ) -> String {
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
            _ => format!(r#","metadata":{{"mutation":{number},"base":{base},"unset":["t"]}}"#),
        };
        format!(
            r#"{{"type":"{kind}","collection":"{collection}","recordId":"{id}","data":{document}{metadata}}}"#
        )
    }

    /// The database fails where an answer was expected.
    fn fail(&mut self, script: &mut Script<'_>) {
        let error = StoreError::new(StoreErrorKind::Other, "broken");
        if self.host.hub.waiting_transactions().len() > 0 {
            let failure = match script.chance(2) {
                true => TransactError::Failed(error),
                false => TransactError::Unknown(error),
            };
            self.host.fail_commit(failure, self.now);
        } else {
            self.host.fail_read(error);
        }
    }

    fn pass(&mut self, script: &mut Script<'_>) {
        self.now.mono.0 += script.number().min(1 << 40) * 1_000;
        self.host.tell(self.conn, SessionInput::Timeout, self.now);
        let deadline = self.host.hub.session(self.conn).and_then(Session::deadline);
        if let Some((at, timer)) = deadline {
            assert!(at > self.now.mono, "{timer:?} stays due");
        }
    }

    fn end(&mut self, script: &mut Script<'_>) {
        match script.below(5) {
            0 => self.host.tell(self.conn, SessionInput::Shutdown, self.now),
            1 => self.host.tell(self.conn, SessionInput::Closed, self.now),
            2 => self.host.tell(self.conn, SessionInput::AuthExpired, self.now),
            3 => self.host.crash(self.now),
            _ => self.host.tell(self.conn, SessionInput::Ping, self.now),
        }
    }

    /// A call by HTTP.
    fn ask(&mut self, script: &mut Script<'_>) {
        let (id, document) = (["a", "b", "%00", ""][script.below(4)], script.document());
        let paths =
            ["/sync/todos", "/sync/todos/", "/sync/session", "/sync/pull", "/", "/sync/%ff"];
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
        let method = ["GET", "POST", "PATCH", "DELETE", "PUT"][script.below(5)];
        self.call(method, &path, &String::from_utf8_lossy(&query), &body, None);
    }

    /// A call of a client that knows level 2, as one of two users or as nobody.
    fn exchange(&mut self, script: &mut Script<'_>) {
        let user = [None, Some("u"), Some("v")][script.below(3)];
        let user = user.map(|name| UserId::new(name).expect("a user"));
        let epoch = self.host.epoch();
        let (who, session) = (script.below(2), script.number());
        let client = format!(r#""clientId":"c{who}","session":{session},"epoch":"{epoch}""#);
        if self.is_divided && script.chance(2) {
            let set = self.set(script);
            let body = format!(r#"{{"collection":"todos","limit":{},{set}}}"#, script.number());
            return self.call("POST", "/sync/pull", "", body.as_bytes(), user);
        }
        match script.below(3) {
            0 => self.call("POST", "/sync/session", "", format!("{{{client}}}").as_bytes(), user),
            1 => {
                let count = script.below(4);
                let mut write = |choice| {
                    let id = ["a", "b", "c"][script.below(3)];
                    let document = script.document();
                    self.write(choice, "todos", (id, &document), script)
                };
                let writes: Vec<_> = (0..count).map(&mut write).collect();
                let body = format!(r#"{{{client},"mutations":[{}]}}"#, writes.join(","));
                self.call("POST", "/sync/push", "", body.as_bytes(), user);
            }
            _ => {
                let path = ["/sync/todos", "/sync/notes", "/sync/x"][script.below(3)];
                let limit = script.number();
                let query = match script.below(3) {
                    0 => format!("epoch=&limit={limit}"),
                    1 => format!("epoch={epoch}&seq={}&limit={limit}", script.number()),
                    _ => {
                        let (seq, id) = (script.number(), ["a", "b", "c"][script.below(3)]);
                        let resume = match script.below(2) {
                            0 => format!("snapshot:{epoch}:{seq}:{id}"),
                            _ => format!("delta:{epoch}:{seq}"),
                        };
                        format!("epoch={epoch}&seq=1&resume={resume}&limit={limit}&clientId=c0")
                    }
                };
                self.call("GET", path, &query, b"", user);
            }
        }
    }

    fn call(&mut self, method: &str, path: &str, query: &str, body: &[u8], user: Option<UserId>) {
        let request = Request { method, path, query, body, user: user.map(Into::into) };
        let reply = self.host.ask(&request, self.now);
        assert!((200..600).contains(&reply.status));
        assert!(reply.status != 500 && reply.status != 503, "{request:?}: {reply:?}");
    }

    /// A client understands every message of a server, and none of them shows what is withheld.
    fn hear(&mut self) {
        for down in self.host.down.values_mut() {
            for frame in down.drain(..) {
                let has = |text: &[u8]| frame.windows(text.len()).any(|found| found == text);
                // an ack repeats what its own writer has written
                let shows = self.withholds && has(b"\"t\":") && !has(b"\"type\":\"ack\"");
                assert!(!shows, "{}", String::from_utf8_lossy(&frame));
                let mut limits = Limits::default();
                limits.frame_bytes = usize::MAX;
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

/// A scope as a client names it: one that is loaded, one that loads, or a new one; of a key that is declared,
/// or not.
fn scope(epoch: &str, script: &mut Script<'_>) -> String {
    let (first, second) = (value(script), value(script));
    let name = match script.below(4) {
        0 => format!(r#""by":["b[]"],"is":[{first}]"#),
        1 => format!(r#""by":["a","n"],"is":[{first},{second}]"#),
        2 if script.chance(4) => format!(r#""by":["x"],"is":[{first}]"#),
        _ => format!(r#""by":["a"],"is":[{first}]"#),
    };
    match script.below(3) {
        0 => format!("{{{name}}}"),
        1 => format!(r#"{{{name},"new":true}}"#),
        _ => {
            let (seq, after) = (script.number(), script.number());
            format!(
                r#"{{{name},"resume":{{"epoch":"{epoch}","snapshotSeq":{seq},"after":{after}}}}}"#
            )
        }
    }
}

/// A value that records have in the fields of a key, or that none can have.
fn value(script: &mut Script<'_>) -> &'static str {
    ["1", "2", "1.0", "0", "null", r#""1""#, "[]", r#"{"x":1}"#][script.below(8)]
}
