//! Every right of everyone by every way: the server does what ten lines say.

use super::*;
use crate::protocol::document::Document;
use crate::protocol::limits::Limits;
use crate::rules::rights::{Right, Rules};
use crate::server::ring::RingLimits;

/// The content that only readers may see.
const CANARY: &str = "canary-7f3a";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Who {
    Owner,
    Member,
    Other,
    /// One who may do everything to what is there, by the claims of their token.
    Admin,
    /// One who may change what they may not read.
    Writer,
    Anonymous,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Action {
    Create,
    Update,
    Delete,
    MoveIn,
    MoveOut,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Plain,
    Resumable,
    /// At level 2, by one who has seen an older state.
    Conflict,
    Push,
    Rest,
    Transaction,
}

const WHO: [Who; 6] =
    [Who::Owner, Who::Member, Who::Other, Who::Admin, Who::Writer, Who::Anonymous];
const ACTIONS: [Action; 5] =
    [Action::Create, Action::Update, Action::Delete, Action::MoveIn, Action::MoveOut];
const WAYS: [Way; 6] =
    [Way::Plain, Way::Resumable, Way::Conflict, Way::Push, Way::Rest, Way::Transaction];

fn may_read(who: Who) -> bool {
    matches!(who, Who::Owner | Who::Member | Who::Admin)
}

fn may(who: Who, action: Action) -> bool {
    match action {
        Action::Create => who != Who::Anonymous,
        Action::Update | Action::MoveIn | Action::MoveOut => may_read(who) || who == Who::Writer,
        Action::Delete => matches!(who, Who::Owner | Who::Admin),
    }
}

fn rules() -> Rules {
    let mut rules = Rules::new(false);
    for (right, text) in [
        (Right::Read, "user in data.members || claims.role == \"admin\""),
        (Right::Create, "user != null && new.owner == user"),
        (
            Right::Update,
            "(user in data.members || claims.role in [\"admin\", \"writer\"]) && !(\"owner\" in changed)",
        ),
        (Right::Delete, "data.owner == user || claims.role == \"admin\""),
    ] {
        rules.set(todos(), right, text).unwrap();
    }
    rules
}

impl Who {
    fn name(self) -> &'static str {
        match self {
            Self::Owner => "ann",
            Self::Member => "bob",
            Self::Other => "eve",
            Self::Admin => "root",
            Self::Writer => "will",
            Self::Anonymous => "",
        }
    }

    fn user(self) -> Option<User> {
        let id = UserId::new(self.name()).ok()?;
        let claims = match self {
            Self::Admin => Some(r#"{"role":"admin"}"#),
            Self::Writer => Some(r#"{"role":"writer"}"#),
            Self::Other => Some(r#"{"role":"none"}"#),
            Self::Owner | Self::Member | Self::Anonymous => None,
        };
        let claims = claims.map(|json| Document::parse(json, &Limits::default()).unwrap());
        Some(User { id, claims })
    }

    fn identity(self) -> Identity {
        self.user().map_or(Identity::Open, Identity::Known)
    }
}

impl Action {
    /// The kind, the record and the data of the write.
    fn write(self, who: Who) -> (&'static str, &'static str, Option<String>) {
        let name = who.name();
        match self {
            Self::Create => {
                ("insert", "n", Some(format!(r#"{{"owner":"{name}","members":["{name}"]}}"#)))
            }
            Self::Update => ("update", "r", Some(r#"{"more":1}"#.into())),
            Self::Delete => ("delete", "r", None),
            Self::MoveIn => ("update", "r", Some(r#"{"members":["ann","bob","eve"]}"#.into())),
            Self::MoveOut => ("update", "r", Some(r#"{"members":["ann"]}"#.into())),
        }
    }

    fn message(self, who: Who, metadata: &str) -> String {
        let (kind, record, data) = self.write(who);
        let data = data.map_or(String::new(), |data| format!(r#","data":{data}"#));
        format!(r#"{{"type":"{kind}","collection":"todos","recordId":"{record}"{data}{metadata}}}"#)
    }
}

const HELLO: &str = r#"{"type":"ping","metadata":{"protocol":2,"clientId":"CLIENT","session":1}}"#;

impl Host {
    /// A server with the rules, and a record of ann and bob that was changed once.
    fn with_rules(rules: Rules) -> Self {
        let mut host = Self::new();
        let rings = RingLimits { documents: true, ..RingLimits::default() };
        let config = HubConfig { rings, ..HubConfig::default() };
        host.hub = Hub::new(config, Arc::new(AllowAll), [(todos(), Seq(0))]);
        let record = format!(r#"{{"owner":"ann","members":["ann","bob"],"text":"{CANARY}"}}"#);
        host.ask(
            Who::Owner,
            "POST",
            "/sync/todos",
            &format!(r#"{{"recordId":"r","data":{record}}}"#),
        );
        let text = format!(r#"{{"delta":{{"text":"{CANARY}!","more":0}}}}"#);
        host.ask(Who::Owner, "PATCH", "/sync/todos/r", &text);
        for id in ["r:ann", "r:bob"] {
            let body = format!(r#"{{"recordId":"{id}","data":{{}}}}"#);
            host.ask(Who::Owner, "POST", "/sync/members", &body);
        }
        host.hub.set_policy(Arc::new(rules));
        host.said.clear();
        host
    }

    fn open(&mut self, conn: u64, who: Who, hello: bool) {
        self.handle(HubInput::Accepted { conn: ConnId(conn), identity: who.identity() });
        if hello {
            self.frame(conn, &HELLO.replace("CLIENT", &format!("c{conn}")));
        }
        self.settle();
    }

    /// A call, with what was replied.
    fn ask(&mut self, who: Who, method: &str, target: &str, body: &str) -> String {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let request = Request { method, path, query, body: body.as_bytes(), user: who.user() };
        self.handle(HubInput::Call { call: CallId(7), request });
        self.settle();
        let replied = self.said.iter().rev().find(|line| line.contains("call: CallId(7)"));
        replied.cloned().unwrap_or_default()
    }

    /// All that was sent to a connection.
    fn sent(&self, conn: u64) -> String {
        let to = format!("Send {{ conn: ConnId({conn})");
        self.said.iter().filter(|line| line.contains(&to)).cloned().collect()
    }

    /// Does something by some way. Returns what was said to the one who did it.
    fn perform(&mut self, who: Who, way: Way, action: Action) -> String {
        let numbered =
            |base| action.message(who, &format!(r#","metadata":{{"mutation":1,"base":{base}}}"#));
        let plain = action.message(who, "");
        match way {
            Way::Plain => {
                self.open(1, who, false);
                self.frame(1, &plain);
            }
            Way::Resumable | Way::Conflict => {
                self.open(1, who, true);
                self.frame(1, &numbered(if way == Way::Resumable { 2 } else { 1 }));
            }
            Way::Push => {
                self.ask(who, "POST", "/sync/session", r#"{"clientId":"p","session":1}"#);
                let body = format!(
                    r#"{{"clientId":"p","session":1,"epoch":"e1","mutations":[{}]}}"#,
                    numbered(2)
                );
                return self.ask(who, "POST", "/sync/push", &body);
            }
            Way::Rest => {
                let (kind, record, data) = action.write(who);
                let (data, path) = (data.unwrap_or_default(), format!("/sync/todos/{record}"));
                return match kind {
                    "insert" => {
                        let body = format!(r#"{{"recordId":"{record}","data":{data}}}"#);
                        self.ask(who, "POST", "/sync/todos", &body)
                    }
                    "update" => self.ask(who, "PATCH", &path, &format!(r#"{{"delta":{data}}}"#)),
                    _ => self.ask(who, "DELETE", &path, ""),
                };
            }
            Way::Transaction => {
                let body = format!(r#"{{"writes":[{plain}]}}"#);
                return self.ask(who, "POST", "/sync/transaction", &body);
            }
        }
        self.settle();
        self.sent(1)
    }
}

#[test]
fn a_write_is_applied_if_its_rule_permits_it_and_shows_nothing_else() {
    let mut applied_ones = 0;
    for (who, way) in WHO.into_iter().flat_map(|who| WAYS.map(|way| (who, way))) {
        for action in ACTIONS {
            let case = format!("{who:?} {way:?} {action:?}");
            let mut host = Host::with_rules(rules());
            for (conn, watcher) in [(8, Who::Other), (9, Who::Member)] {
                host.open(conn, watcher, true);
                host.frame(conn, r#"{"type":"subscribe","collection":"todos"}"#);
                host.settle();
            }
            assert!(host.sent(9).contains(CANARY) && !host.sent(8).contains(CANARY), "{case}");
            host.said.clear();
            let said = host.perform(who, way, action);
            let conflicts =
                way == Way::Conflict && matches!(action, Action::Update | Action::Delete);
            // whoever follows the collection hears of every change, if not what it is
            let applied = host.sent(9).contains("todos");
            assert_eq!(applied, may(who, action) && !conflicts, "{case}: {said}");
            assert_eq!(
                said.contains("UNAUTHORIZED"),
                !may(who, action) || (conflicts && !may_read(who)),
                "{case}: {said}"
            );
            assert!(may_read(who) || !said.contains(CANARY), "{case}: {said}");
            assert_eq!(
                conflicts && may(who, action) && may_read(who),
                said.contains("CONFLICT"),
                "{case}: {said}"
            );
            // who comes in sees it, and nobody else; who goes out sees it no more
            let comes_in = applied && action == Action::MoveIn;
            assert_eq!(host.sent(8).contains(CANARY), comes_in, "{case}: {}", host.sent(8));
            let goes_out = applied && action == Action::MoveOut && who != Who::Member;
            assert!(!goes_out || host.sent(9).contains("filter"), "{case}: {}", host.sent(9));
            applied_ones += usize::from(applied);
        }
    }
    assert!(applied_ones > 60, "{applied_ones}");
}

#[test]
fn a_record_is_shown_by_every_way_to_its_readers_only() {
    let mut related = rules();
    let text = "exists(\"members\", id + \":\" + user) || claims.role == \"admin\"";
    related.set(todos(), Right::Read, text).unwrap();
    for (who, rules) in WHO.into_iter().flat_map(|who| [(who, rules()), (who, related.clone())]) {
        let mut host = Host::with_rules(rules);
        let asked = [
            host.ask(who, "GET", "/sync/todos", ""),
            host.ask(who, "GET", "/sync/todos/r", ""),
            host.ask(who, "GET", "/sync/todos?epoch=", ""),
            host.ask(who, "POST", "/sync/pull", r#"{"collection":"todos"}"#),
        ];
        host.open(1, who, false);
        host.frame(1, r#"{"type":"sync","collection":"todos"}"#);
        host.open(2, who, true);
        host.frame(2, r#"{"type":"subscribe","collection":"todos"}"#);
        host.settle();
        let seen = asked.into_iter().chain([host.sent(1), host.sent(2)]);
        for (way, said) in seen.enumerate() {
            assert!(!said.is_empty(), "{who:?} {way}");
            assert_eq!(said.contains(CANARY), may_read(who), "{who:?} {way}: {said}");
        }
        // a change of what is shown, and of what is not
        host.said.clear();
        host.ask(Who::Owner, "PATCH", "/sync/todos/r", r#"{"delta":{"more":7}}"#);
        let said = host.sent(2);
        assert!(said.contains("todos"), "{who:?}");
        assert_eq!(said.contains("more"), may_read(who), "{who:?}: {said}");
    }
}

#[test]
fn nothing_is_done_or_shown_by_a_token_that_has_expired() {
    for (way, action) in WAYS[..3].iter().flat_map(|way| ACTIONS.map(|action| (*way, action))) {
        let (case, who) = (format!("{way:?} {action:?}"), Who::Owner);
        let mut host = Host::with_rules(rules());
        host.open(9, Who::Member, true);
        host.frame(9, r#"{"type":"subscribe","collection":"todos"}"#);
        host.open(1, who, way != Way::Plain);
        host.frame(1, r#"{"type":"subscribe","collection":"todos"}"#);
        host.settle();
        let input = SessionInput::AuthExpired;
        host.handle(HubInput::Session { conn: ConnId(1), input });
        host.settle();
        assert!(host.sent(1).contains("AUTH_EXPIRED"), "{case}");
        host.said.clear();
        // by others, and by themselves
        host.ask(Who::Member, "PATCH", "/sync/todos/r", r#"{"delta":{"late":1}}"#);
        let base = if way == Way::Conflict { 1 } else { 3 };
        let numbered = format!(r#","metadata":{{"mutation":1,"base":{base}}}"#);
        let metadata = if way == Way::Plain { "" } else { &numbered };
        host.frame(1, &action.message(who, metadata));
        host.frame(1, r#"{"type":"sync","collection":"todos"}"#);
        host.settle();
        assert!(!host.sent(1).contains("todos"), "{case}: {}", host.sent(1));
        assert_eq!(host.sent(9).matches("todos").count(), 1, "{case}: {}", host.sent(9));

        host.said.clear();
        host.user = who.user().unwrap();
        host.frame(1, r#"{"type":"auth","token":"t"}"#);
        host.settle();
        assert!(host.sent(1).contains("authenticated"), "{case}: {}", host.sent(1));
        assert!(host.sent(1).contains("late"), "{case}: {}", host.sent(1));
        let conflicts = way == Way::Conflict && matches!(action, Action::Update | Action::Delete);
        assert_eq!(host.sent(9).contains("todos"), !conflicts, "{case}: {}", host.sent(9));
    }
}

#[test]
fn a_stream_begins_again_when_a_fresh_token_shows_other_records() {
    let mut host = Host::with_rules(rules());
    host.open(1, Who::Other, true);
    host.frame(1, r#"{"type":"subscribe","collection":"todos"}"#);
    host.settle();
    assert!(!host.sent(1).contains(CANARY), "{}", host.sent(1));

    // as before but for its end: nobody is told
    let become_role = |host: &mut Host, role: &str| {
        host.said.clear();
        let claims = format!(r#"{{"role":"{role}","exp":7}}"#);
        let claims = Document::parse(&claims, &Limits::default()).unwrap();
        host.user = User { id: UserId::new("eve").unwrap(), claims: Some(claims) };
        host.frame(1, r#"{"type":"auth","token":"t"}"#);
        host.settle();
    };
    become_role(&mut host, "none");
    assert!(host.sent(1).contains("authenticated"), "{}", host.sent(1));
    assert!(!host.sent(1).contains("subscribed"), "{}", host.sent(1));

    become_role(&mut host, "admin");
    let said = host.sent(1);
    assert!(
        said.contains("snapshot") && said.contains(CANARY) && said.contains("synced"),
        "{said}"
    );
    become_role(&mut host, "writer");
    let said = host.sent(1);
    assert!(said.contains("snapshot") && !said.contains(CANARY), "{said}");
    host.said.clear();
    host.ask(Who::Owner, "PATCH", "/sync/todos/r", r#"{"delta":{"more":7}}"#);
    assert!(host.sent(1).contains("filter"), "{}", host.sent(1));
}

#[test]
fn a_stream_begins_again_when_other_rules_show_other_records() {
    let mut host = Host::with_rules(rules());
    host.open(1, Who::Member, true);
    host.open(2, Who::Owner, true);
    for conn in [1, 2] {
        host.frame(conn, r#"{"type":"subscribe","collection":"todos"}"#);
    }
    host.settle();
    let change_read_rule = |host: &mut Host, rule: &str| {
        let mut other = rules();
        other.set(todos(), Right::Read, rule).unwrap();
        host.said.clear();
        host.hub.set_policy(Arc::new(other));
        for conn in [1, 2] {
            let input = SessionInput::RightsChanged;
            host.handle(HubInput::Session { conn: ConnId(conn), input });
        }
        host.settle();
        (host.sent(1), host.sent(2))
    };
    let (member, owner) = change_read_rule(&mut host, "data.owner == user");
    assert!(member.contains("snapshot") && !member.contains(CANARY), "{member}");
    assert!(owner.contains("snapshot") && owner.contains(CANARY), "{owner}");
    // to the whole collection, with its count and checksum
    let (member, _) = change_read_rule(&mut host, "user != null");
    assert!(member.contains("checksum") && member.contains(CANARY), "{member}");
    // the same again tells nobody
    let (member, owner) = change_read_rule(&mut host, "user != null");
    assert!(member.is_empty() && owner.is_empty(), "{member} {owner}");
    let (member, owner) = change_read_rule(&mut host, "user == \"ann\"");
    assert!(member.contains("may not read the collection any more"), "{member}");
    assert!(owner.is_empty(), "{owner}");
}

#[test]
fn a_stream_ends_when_a_fresh_token_shows_nothing() {
    let mut gone = rules();
    gone.set(todos(), Right::Read, "claims.role == \"admin\"").unwrap();
    for hello in [true, false] {
        let mut host = Host::with_rules(gone.clone());
        host.open(1, Who::Admin, hello);
        host.frame(1, r#"{"type":"subscribe","collection":"todos"}"#);
        host.settle();
        assert!(host.sent(1).contains("subscribed"), "{}", host.sent(1));
        host.user = UserId::new("root").unwrap().into();
        host.said.clear();
        host.frame(1, r#"{"type":"auth","token":"t"}"#);
        host.settle();
        assert!(host.sent(1).contains("may not read the collection any more"), "{}", host.sent(1));
        host.said.clear();
        host.ask(Who::Admin, "PATCH", "/sync/todos/r", r#"{"delta":{"more":7}}"#);
        assert!(host.sent(1).is_empty(), "{}", host.sent(1));
    }
}

#[test]
fn what_a_reader_missed_by_other_claims_comes_with_the_next_stream() {
    let mut host = Host::with_rules(rules());
    let subscribe =
        r#"{"type":"subscribe","collection":"todos","metadata":{"cursor":{"epoch":"e1","seq":2}}}"#;
    // up to the record's last change, which was seen by rights of which nothing is known
    host.open(1, Who::Member, true);
    host.frame(1, subscribe);
    host.settle();
    assert!(host.sent(1).contains("snapshot"), "{}", host.sent(1));
    // and by such that are known
    for (conn, rules, by_same) in [
        (2, rules(), true),
        (3, rules_to_read("user in data.members"), false),
        (4, rules_to_read("user != null"), false),
    ] {
        let tag = tag_in(&host.sent(1));
        host.hub.set_policy(Arc::new(rules));
        host.open(conn, Who::Member, true);
        let rights = format!(r#""metadata":{{"rights":"{tag}","#);
        host.frame(conn, &subscribe.replace(r#""metadata":{"#, &rights));
        host.settle();
        let said = host.sent(conn);
        assert_eq!(!said.contains("snapshot"), by_same, "{said}");
        assert_eq!(said.contains(CANARY), !by_same, "{said}");
        // and so by HTTP
        let pull = format!(
            r#"{{"collection":"todos","cursor":{{"epoch":"e1","seq":2}},"rights":"{tag}"}}"#
        );
        let get = format!("/sync/todos?epoch=e1&seq=2&rights={tag}");
        for said in [
            host.ask(Who::Member, "POST", "/sync/pull", &pull),
            host.ask(Who::Member, "GET", &get, ""),
        ] {
            assert!(said.contains(if by_same { "delta" } else { "snapshot" }), "{said}");
            assert_eq!(said.contains(CANARY), !by_same, "{said}");
        }
    }
}

#[test]
fn a_run_by_other_rights_does_not_go_on() {
    let mut host = Host::with_rules(rules());
    host.open(1, Who::Member, true);
    host.frame(1, r#"{"type":"subscribe","collection":"todos"}"#);
    host.settle();
    let tag = tag_in(&host.sent(1));
    // everything up to `r` is said to be received
    let resume = r#"{"epoch":"e1","snapshotSeq":2,"after":"r"}"#;
    let subscribe = format!(
        r#"{{"type":"subscribe","collection":"todos","metadata":{{"rights":"{tag}","cursor":{{"resume":{resume}}}}}}}"#
    );
    for (conn, rule, goes_on) in [
        (2, "user in data.members || claims.role == \"admin\"", true),
        (3, "data.owner != 1", false),
    ] {
        host.hub.set_policy(Arc::new(rules_to_read(rule)));
        host.open(conn, Who::Member, true);
        host.frame(conn, &subscribe);
        host.settle();
        let said = host.sent(conn);
        assert_eq!(said.contains(CANARY), !goes_on, "{said}");
    }
}

fn rules_to_read(text: &str) -> Rules {
    let mut rules = rules();
    rules.set(todos(), Right::Read, text).unwrap();
    rules
}

/// The tag of the rights in a `subscribed`.
fn tag_in(said: &str) -> String {
    let said = said.replace('\\', "");
    let (_, behind) = said.split_once(r#""rights":""#).unwrap_or_else(|| panic!("no tag: {said}"));
    behind.chars().take_while(char::is_ascii_hexdigit).collect()
}

impl Host {
    /// Hands in a call of the owner.
    fn begin(&mut self, method: &str, path: &str, body: &str) {
        let user = Who::Owner.user();
        let request = Request { method, path, query: "", body: body.as_bytes(), user };
        self.handle(HubInput::Call { call: CallId(8), request });
    }
}

/// A server whose rule shows a record to those of whom there is a membership.
fn host_with_memberships() -> Host {
    let mut rules = rules_to_read("exists(\"members\", id + \":\" + user)");
    rules.set(Collection::new("members").unwrap(), Right::Write, "user != null").unwrap();
    Host::with_rules(rules)
}

#[test]
fn a_stream_follows_the_records_that_its_rights_look_at() {
    let mut host = host_with_memberships();
    host.open(1, Who::Member, true);
    host.open(2, Who::Other, true);
    host.open(3, Who::Member, false);
    for conn in [1, 2, 3] {
        host.frame(conn, r#"{"type":"subscribe","collection":"todos"}"#);
    }
    host.settle();
    assert!(host.sent(1).contains(CANARY) && !host.sent(2).contains(CANARY));
    let mut change = |method: &str, target: &str, body: &str| {
        host.said.clear();
        host.ask(Who::Owner, method, target, body);
        let closes =
            host.said.iter().any(|line| line.contains("Close") && line.contains("ConnId(3)"));
        ([1, 2, 3].map(|conn| host.sent(conn)), closes)
    };
    let nothing = || ([1, 2, 3].map(|_| String::new()), false);
    // the membership of somebody else, and a change of one's own that leaves it
    let of_zoe = change("POST", "/sync/members", r#"{"recordId":"r:zoe","data":{}}"#);
    assert_eq!(of_zoe, nothing());
    assert_eq!(change("PATCH", "/sync/members/r:bob", r#"{"delta":{"n":1}}"#), nothing());
    // what is shown to level 1 is what changes
    let ([_, _, plain], closes) = change("PATCH", "/sync/todos/r", r#"{"delta":{"more":6}}"#);
    assert!(plain.contains("more") && !closes, "{plain}");
    // it ends: the record goes, and level 1 has to ask again
    let ([bob, eve, plain], closes) = change("DELETE", "/sync/members/r:bob", "");
    assert!(bob.contains("snapshot") && bob.contains("synced") && !bob.contains(CANARY), "{bob}");
    assert_eq!((&*eve, &*plain, closes), ("", "", true));
    // one begins
    let ([bob, eve, _], _) = change("POST", "/sync/members", r#"{"recordId":"r:eve","data":{}}"#);
    assert!(eve.contains("snapshot") && eve.contains(CANARY), "{eve}");
    assert_eq!(bob, "");
    // and what comes is shown by it
    let ([bob, eve, _], _) = change("PATCH", "/sync/todos/r", r#"{"delta":{"more":7}}"#);
    assert!(eve.contains("more") && !bob.contains("more") && bob.contains("filter"), "{bob}{eve}");
}

#[test]
fn what_is_not_sent_yet_is_judged_by_the_new_rights() {
    let mut host = host_with_memberships();
    host.open(1, Who::Member, true);
    host.frame(1, r#"{"type":"subscribe","collection":"todos"}"#);
    host.settle();
    host.said.clear();
    // a page of a change is read before the membership ends, and handed in after it
    host.begin("PATCH", "/sync/todos/r", r#"{"delta":{"text":"canary-late"}}"#);
    host.commit(true);
    while host.answer() {}
    host.room(1, 1 << 20);
    let read = host.hub.take_read(0).expect("a page");
    let page = host.hub.run_read(&read, &host.rows);
    host.begin("DELETE", "/sync/members/r:bob", "");
    host.commit(true);
    host.act(|hub, _, out| hub.finish_read(read, page, out));
    host.settle();
    assert!(host.sent(1).contains("snapshot"), "{}", host.sent(1));
    assert!(!host.said.concat().contains("canary-late"), "{:?}", host.said);
}
