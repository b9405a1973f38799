use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value as Json, json};

use super::evaluate::{Fixed, Given, Outcome, Scene, judge};
use super::parse::parse;
use super::syntax::{Comparison, Name, Node, TextTest};
use super::*;
use crate::protocol::document::Document;
use crate::protocol::limits::Limits;
use crate::protocol::name::{Collection, RecordId, UserId};
use crate::protocol::time::Timestamp;
use crate::protocol::write::Change;
use crate::rules::policy::{Access, Asker, Policy, ProposedWrite, Records};

/// The records that `exists` finds.
struct Known(&'static [(&'static str, &'static str)]);

impl Records for Known {
    fn exists(&self, collection: &Collection, id: &RecordId) -> bool {
        self.0.iter().any(|(c, r)| *c == &**collection && *r == &**id)
    }
}

const MEMBERSHIPS: Known = Known(&[("memberships", "42:ann"), ("memberships", "7:bob")]);

fn document(value: &Json) -> Document {
    Document::parse(&value.to_string(), &Limits::default()).unwrap()
}

fn collection(name: &str) -> Collection {
    Collection::new(name).unwrap()
}

/// The outcome of an expression about this record.
fn outcome(text: &str, data: &Json) -> Outcome {
    let node = parse(text, &Name::ALL).unwrap();
    with_scene(Some(data), |scene| judge(&node, scene))
}

/// Calls with everything known, or without the record.
fn with_scene<T>(data: Option<&Json>, call: impl FnOnce(&Scene<'_>) -> T) -> T {
    with_fixed(data, &[], call)
}

/// The same, where this much is known of a record that is not.
fn with_fixed<T>(
    data: Option<&Json>,
    fixed: &[Fixed<'_>],
    call: impl FnOnce(&Scene<'_>) -> T,
) -> T {
    let user = UserId::new("ann").unwrap();
    let claims = document(&json!({ "rooms": ["42", "7"], "role": "member", "level": 5 }));
    let records = data.map(|_| &MEMBERSHIPS as &dyn Records);
    let by = Asker { user: Some(&user), claims: Some(&claims), records };
    let data = data.map(document);
    let new = document(&json!({ "author": "ann", "room": "42" }));
    let known = |of| if data.is_some() { of } else { Given::Unknown };
    call(&Scene {
        by: &by,
        collection: "messages",
        id: if data.is_some() { Given::Is("m1") } else { Given::Unknown },
        data: data.as_ref().map_or(Given::Unknown, Given::Is),
        fixed,
        new: known(Given::Is(&new)),
        changed: if data.is_some() { Given::Is(&["room"]) } else { Given::Unknown },
        now: Given::Is(1000),
    })
}

#[test]
fn an_expression_is_read_and_evaluated() {
    let data = json!({
        "room": "42", "author": "ann", "n": 5, "big": 9007199254740993_u64, "none": null, "yes": true,
        "members": ["ann", "bob", 3], "in": { "a.b": { "c": [10, { "d": "deep" }] } },
    });
    for text in [
        "data.room in claims.rooms",
        "data.author == user && !(\"author\" in changed) && new.room in claims.rooms",
        "data.author == user || claims.role == \"admin\"",
        "user in data.members",
        "exists(\"memberships\", data.room + \":\" + user)",
        "!exists('memberships', data.room + ':' + user + 'x')",
        "has(data.room) && !has(data.nothing)",
        "size(data.members) == 3 && data.members.size() > 2 && size(\"h\u{e4}\") == 2",
        "data.room.startsWith(\"4\") && data.room.endsWith('2') && 'abc'.contains('b')",
        "data[\"in\"][\"a.b\"].c[1].d == \"deep\"",
        "data.big == 9007199254740993 && data.big != 9007199254740992 && data.n == 5.0",
        "data.n < 10 && data.n <= 5 && data.n > -1 && data.n >= 5 && -3 < 2e1",
        "\"a\" < \"b\" && data.none == null && data.yes",
        "data.n in [1, 5.0, \"x\"] && !(\"5\" in [5])",
        "[1, [2, \"a\"]] == [1.0, [2, 'a']]",
        "\"room\" in data && id == \"m1\" && collection == 'messages' && now == 1000",
        "'it\\'s \\u00e4\\n\\\\' == \"it's \u{e4}\\n\\\\\"",
        "1 != \"1\"",
    ] {
        assert_eq!(outcome(text, &data), Outcome::Granted, "{text}");
    }
}

#[test]
fn a_failure_refuses_and_is_absorbed_by_what_decides() {
    let data = json!({ "n": 5, "text": "a" });
    for text in [
        "data.missing == 1",
        "!(data.missing == 1)",
        "data.n < data.text",
        "!(data.n < data.text)",
        "data.n",
        "!data.n",
        "data.n.a == 1",
        "has(data.n.a)",
        "size(data.n) == 1",
        "data.n in data.n",
        "data.n.startsWith(\"5\")",
        "data.text + data.n == \"a5\"",
        "claims.rooms[9] == \"\"",
        "exists(\"memberships\", \"\")",
        "exists(\"memberships\", data.n)",
        "true && data.missing",
        "data.missing || false",
        "data.missing == 1 || data.n",
    ] {
        assert!(matches!(outcome(text, &data), Outcome::Refused(Some(_))), "{text}");
    }
    for text in ["data.missing == 1 || true", "true || data.n", "!(data.missing == 1 && false)"] {
        assert_eq!(outcome(text, &data), Outcome::Granted, "{text}");
    }
    assert_eq!(outcome("data.missing == 1 && false", &data), Outcome::Refused(None));
}

#[test]
fn what_is_wrong_with_an_expression_is_said_with_its_place() {
    let names = &[Name::User, Name::Claims, Name::Data];
    for (text, said) in [
        ("data.room = 1", "line 1, column 11: '=' can't stand here"),
        ("data.room ==\n  usr", "line 2, column 3: there is no \"usr\""),
        ("now > 5", "line 1, column 1: now has no value in a rule about reading"),
        ("new.a == 1", "line 1, column 1: new has no value in this rule"),
        ("has(data)", "line 1, column 4: has() asks for a field, like has(data.room)"),
        ("size()", "line 1, column 5: there are 0 arguments, not 1"),
        ("exists(data.a, user)", "line 1, column 7: the collection is a text in quotes"),
        ("exists('a', exists('b', user))", "line 1, column 7: exists() can't stand inside"),
        ("user.matches('a')", "line 1, column 6: there is no .matches()"),
        ("1 < 2 < 3", "line 1, column 7: put brackets around"),
        ("(user == 'a'", "line 1, column 13: \")\" should stand here"),
        ("user == 'a", "line 1, column 9: the text that begins here has no end"),
        ("'\\x'", "line 1, column 2: the escapes are"),
        ("user == ", "line 1, column 9: the expression ends too early"),
        ("user 'a'", "line 1, column 6: the expression should end here"),
        ("true ? 1 : 2", "line 1, column 6: there is no `? :` here"),
        ("user == 01", "line 1, column 9: 01 is no number"),
        ("-user", "line 1, column 6: behind a minus"),
    ] {
        let wrong = parse(text, names).unwrap_err().to_string();
        assert!(wrong.starts_with(said), "{text}: {wrong}");
    }
}

#[test]
fn an_expression_has_bounds() {
    let error = |text: &str| parse(text, &Name::ALL).unwrap_err().message;
    assert!(error(&format!("\"{}\"", "a".repeat(4096))).contains("at most 4096"));
    assert!(error(&format!("true{}", " && true".repeat(300))).contains("more than 256 parts"));
    for deep in [
        format!("{}true{}", "(".repeat(33), ")".repeat(33)),
        format!("{}true", "!".repeat(33)),
        format!("{}{}", "[".repeat(34), "]".repeat(34)),
        format!("data{}", ".a".repeat(33)),
    ] {
        assert!(error(&deep).contains("deeper than 32"), "{deep}");
    }
    // so deep is fine, and evaluated on a small stack
    let deep = format!("{}data.a{}", "(true && ".repeat(31), ")".repeat(31));
    assert_eq!(outcome(&deep, &json!({ "a": true })), Outcome::Granted);
}

#[test]
fn rules_are_a_policy() {
    let (messages, id) = (collection("messages"), RecordId::new("1").unwrap());
    let mut rules = Rules::new(false);
    for (right, text) in [
        (Right::Read, "data.room in claims.rooms"),
        (Right::Create, "new.author == user && new.room in claims.rooms"),
        (Right::Update, "data.author == user && !(\"author\" in changed)"),
        (Right::Write, "data.author == user || claims.role == \"admin\""),
    ] {
        rules.set(messages.clone(), right, text).unwrap();
    }
    let claims = document(&json!({ "rooms": ["42"], "role": "member" }));
    let (ann, eve) = (UserId::new("ann").unwrap(), UserId::new("eve").unwrap());
    let by = |user| Asker { user: Some(user), claims: Some(&claims), records: None };
    let nobody = Asker { user: None, claims: None, records: None };
    assert_eq!(rules.access(&by(&ann), &messages), Access::Some);
    assert_eq!(rules.access(&nobody, &messages), Access::None, "there are no claims to look in");
    assert_eq!(rules.access(&by(&ann), &collection("other")), Access::None);
    assert_eq!(Rules::new(true).access(&nobody, &messages), Access::All);
    let message = document(&json!({ "room": "42", "author": "ann" }));
    assert!(rules.shows(&by(&eve), &messages, &id, &message));
    assert!(!rules.shows(&by(&eve), &messages, &id, &document(&json!({ "room": "7" }))));

    let permits = |user, before: Option<&Document>, change: &Change| {
        let now = Timestamp(0);
        let write = ProposedWrite { collection: &messages, id: &id, before, change, now };
        rules.permits(&by(user), &write)
    };
    let insert = Change::insert(message.clone());
    assert_eq!(permits(&ann, None, &insert), Ok(()));
    assert_eq!(
        permits(&eve, None, &insert),
        Err("the rule `create` of messages does not permit this create".into())
    );
    // an insert of what is there changes it
    assert_eq!(permits(&ann, Some(&message), &insert), Ok(()));
    assert!(permits(&eve, Some(&message), &insert).is_err());
    let given_away = Change::insert(document(&json!({ "room": "42", "author": "eve" })));
    assert!(permits(&ann, Some(&message), &given_away).is_err());
    assert_eq!(
        permits(&eve, Some(&message), &Change::delete()),
        Err("the rule `write` of messages does not permit this delete".into())
    );
    assert_eq!(permits(&ann, Some(&message), &Change::delete()), Ok(()));
    // a deletion of what is not there changes nothing
    assert_eq!(permits(&eve, None, &Change::delete()), Ok(()));
}

#[test]
fn write_is_about_the_new_record_where_there_was_none() {
    let (notes, id) = (collection("notes"), RecordId::new("1").unwrap());
    let mut rules = Rules::new(false);
    rules.set(notes.clone(), Right::Write, "user in data.members").unwrap();
    let ann = UserId::new("ann").unwrap();
    let by = Asker { user: Some(&ann), claims: None, records: None };
    for (members, granted) in [(json!(["ann"]), true), (json!(["bob"]), false)] {
        let note = document(&json!({ "members": members }));
        let change = Change::insert(note.clone());
        let write = |before, change| {
            let write =
                ProposedWrite { collection: &notes, id: &id, before, change, now: Timestamp(0) };
            rules.permits(&by, &write).is_ok()
        };
        assert_eq!(write(None, &change), granted);
        assert_eq!(write(Some(&note), &Change::delete()), granted);
    }
    assert!(rules.set(notes, Right::Write, "new.a == 1").is_err());
}

#[test]
fn a_rule_that_looks_at_others_is_never_served_from_the_ring() {
    let messages = collection("messages");
    let mut rules = Rules::new(false);
    let ann = UserId::new("ann").unwrap();
    let by = Asker { user: Some(&ann), claims: None, records: Some(&MEMBERSHIPS) };
    for (text, access) in [
        ("exists('memberships', '42:' + user)", Access::Related),
        ("exists('memberships', data.room + ':' + user)", Access::Related),
        ("user == 'ann' || exists('memberships', 'x')", Access::All),
        ("user == 'eve' && exists('memberships', 'x')", Access::None),
        ("data.a == 1", Access::Some),
    ] {
        rules.set(messages.clone(), Right::Read, text).unwrap();
        assert_eq!(rules.access(&by, &messages), access, "{text}");
    }
}

#[test]
fn a_scope_is_granted_by_what_its_key_fixes() {
    let (messages, ann) = (collection("messages"), UserId::new("ann").unwrap());
    let claims = document(&json!({ "rooms": ["42"], "role": "member", "list": ["a", "b"] }));
    let by = Asker { user: Some(&ann), claims: Some(&claims), records: Some(&MEMBERSHIPS) };
    let access = |text: &str, parts: &[(&str, &str)]| {
        let mut rules = Rules::new(false);
        rules.set(messages.clone(), Right::Read, text).unwrap();
        let parts = parts.iter().map(|(part, json)| ((*part).into(), (*json).into()));
        rules.access_to_scope(&by, &messages, &parts.collect::<Vec<_>>())
    };
    let (room, other) = ([("room", r#""42""#)], [("room", r#""43""#)]);
    for text in ["data.room in claims.rooms", r#"data["room"] == "42""#] {
        assert_eq!(access(text, &room), Access::All, "{text}");
        assert_eq!(access(text, &other), Access::None, "{text}");
        assert_eq!(access(text, &[("author", r#""ann""#)]), Access::Some, "{text}");
    }
    // another spelling is the same value, and another kind is not
    assert_eq!(access("data.room == \"42\"", &[("room", r#""\u00342""#)]), Access::All);
    assert_eq!(access("data.room == \"42\"", &[("room", "42")]), Access::None);
    assert_eq!(access("claims.list[data.n] == 'b'", &[("n", "1")]), Access::All);
    assert_eq!(access("claims.list[data.n] == 'b'", &[("n", "10e-1")]), Access::All);
    // an array has the element, and perhaps others
    let (own, bobs) = ([("members[]", r#""ann""#)], [("members[]", r#""bob""#)]);
    for text in ["user in data.members", "user in data['members']", "has(data.members)"] {
        assert_eq!(access(text, &own), Access::All, "{text}");
    }
    assert_eq!(access("user in data.members", &bobs), Access::Some);
    assert_eq!(access("!(user in data.members)", &bobs), Access::Some);
    assert_eq!(access("data.members == [user]", &own), Access::Some);
    assert_eq!(access("data['members[]'] == user", &own), Access::Some);
    // several parts
    let both = [("status", r#""open""#), ("project", "7")];
    assert_eq!(access("data.project == 7 && data.status == 'open'", &both), Access::All);
    assert_eq!(access("data.project == 7 && data.owner == user", &both), Access::Some);
    assert_eq!(access("data.project == 8 && data.owner == user", &both), Access::None);
    assert_eq!(access("'project' in data && !has(data.project.x)", &both), Access::None);
    // what can be no scope fixes nothing, and other records are looked at for each change
    assert_eq!(access("data.room == '42'", &[("room", r#"["42"]"#)]), Access::Some);
    let related = "exists('memberships', data.room + ':' + user)";
    assert_eq!(access(related, &room), Access::Related);
    assert_eq!(access(&format!("data.room == '42' || {related}"), &room), Access::All);
    assert_eq!(access(&format!("data.room != '42' && {related}"), &room), Access::None);
}

// --- properties ---

/// The scopes of a record by one of these keys, each with its values spelled anew.
fn scopes_of(data: &Json) -> Vec<Vec<(String, String)>> {
    let spelled = |value: &Json| match value {
        Json::String(text) => {
            let codes = text.encode_utf16().map(|code| format!("\\u{code:04x}"));
            format!("\"{}\"", codes.collect::<String>())
        }
        Json::Number(number) => format!(" {number}0e-1"),
        Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => value.to_string(),
    };
    let is_key = |value: &&Json| !value.is_array() && !value.is_object();
    let mut found = Vec::new();
    for (name, value) in data.as_object().unwrap() {
        if is_key(&value) {
            found.push(vec![(name.clone(), spelled(value))]);
        }
        for element in value.as_array().into_iter().flatten() {
            found.push(vec![(format!("{name}[]"), spelled(element))]);
        }
    }
    let scalars: Vec<_> = found.iter().filter(|scope| !scope[0].0.ends_with("[]")).collect();
    let tuple = scalars.into_iter().flatten().cloned().collect::<Vec<_>>();
    found.push(tuple);
    found
}

fn names() -> impl Strategy<Value = Node> {
    select(&Name::ALL[..]).prop_map(Node::Name)
}

fn field_name() -> impl Strategy<Value = Box<str>> {
    select(&["room", "author", "rooms", "n", "nested", "missing"][..]).prop_map(Into::into)
}

fn leaf() -> impl Strategy<Value = Node> {
    let text = select(&["", "ann", "42", "a\"b\\\u{e4}", "42:ann", "room"][..]);
    let number = select(&["0", "5", "-5", "7"][..]);
    prop_oneof![
        2 => names(),
        1 => Just(Node::Null),
        1 => any::<bool>().prop_map(Node::Bool),
        2 => text.prop_map(|text| Node::Text(text.into())),
        2 => number.prop_map(|number| Node::Number(number.into())),
        4 => (select(&[Name::Data, Name::New, Name::Claims][..]), field_name())
            .prop_map(|(name, field)| Node::Field(Box::new(Node::Name(name)), field)),
    ]
}

fn node() -> impl Strategy<Value = Node> {
    leaf().prop_recursive(4, 24, 3, |inner| {
        let pair = (inner.clone(), inner.clone()).prop_map(Box::new);
        let several = proptest::collection::vec(inner.clone(), 2..4);
        let boxed = inner.clone().prop_map(Box::new);
        prop_oneof![
            3 => (select(&Comparison::ALL[..]), pair.clone()).prop_map(|(it, pair)| Node::Compare(it, pair)),
            3 => several.clone().prop_map(Node::All),
            3 => several.clone().prop_map(Node::Any),
            2 => boxed.clone().prop_map(Node::Not),
            2 => pair.clone().prop_map(Node::In),
            1 => several.clone().prop_map(Node::Join),
            1 => proptest::collection::vec(inner.clone(), 0..3).prop_map(Node::List),
            1 => (boxed.clone(), field_name()).prop_map(|(inner, name)| Node::Has(inner, name)),
            1 => (boxed.clone(), field_name()).prop_map(|(inner, name)| Node::Field(inner, name)),
            1 => boxed.clone().prop_map(Node::Size),
            1 => pair.clone().prop_map(Node::Item),
            1 => (select(&TextTest::ALL[..]), pair).prop_map(|(it, pair)| Node::Test(it, pair)),
            1 => boxed.prop_filter("one hop", |id| !id.any(&mut |it| matches!(it, Node::Exists(..))))
                .prop_map(|id| Node::Exists(collection("memberships"), id)),
        ]
    })
    .prop_filter("one hop", |node| {
        !node.any(&mut |part| {
            let Node::Exists(_, id) = part else { return false };
            id.any(&mut |it| matches!(it, Node::Exists(..)))
        })
    })
}

fn data() -> impl Strategy<Value = Json> {
    let value = prop_oneof![
        Just(json!("42")),
        Just(json!("ann")),
        Just(json!(5)),
        Just(json!(null)),
        Just(json!(true)),
        Just(json!(["42", "ann", 5])),
        Just(json!({ "room": "42", "n": { "n": 1 } })),
    ];
    proptest::collection::btree_map(select(&["room", "author", "n", "nested"][..]), value, 0..4)
        .prop_map(|map| json!(map))
}

/// The same expression, evaluated by the `cel` crate; `None` if it fails.
fn by_cel(text: &str, data: &Json) -> Option<bool> {
    let program = cel::Program::compile(text).expect("CEL reads it");
    let mut context = cel::Context::default();
    let mut set = |name: &str, value: Json| {
        context.add_variable(name, value).expect("a value");
    };
    set("user", json!("ann"));
    set("claims", json!({ "rooms": ["42", "7"], "role": "member", "level": 5 }));
    set("data", data.clone());
    set("new", json!({ "author": "ann", "room": "42" }));
    set("changed", json!(["room"]));
    set("id", json!("m1"));
    set("collection", json!("messages"));
    set("now", json!(1000));
    let added =
        context.add_function("exists", |of: std::sync::Arc<String>, id: std::sync::Arc<String>| {
            let id = RecordId::new(&id);
            id.map(|id| MEMBERSHIPS.exists(&collection(&of), &id))
                .map_err(|_| cel::ExecutionError::function_error("exists", "no id"))
        });
    assert!(added.is_ok());
    match program.execute(&context) {
        Ok(cel::Value::Bool(is)) => Some(is),
        Ok(_) | Err(_) => None,
    }
}

proptest! {
    #[test]
    fn what_is_printed_is_read_again(node in node()) {
        let text = node.to_string();
        let read = parse(&text, &Name::ALL);
        prop_assert_eq!(read.as_ref(), Ok(&node), "{}", text);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in ".{0,60}", words in proptest::collection::vec(
        select(&["data", ".", "room", "(", ")", "[", "]", "&&", "||", "!", "'a'", "1", "-", "in", "has",
                 "exists", "==", ",", "size", "\\", "\"", "e", " "][..]), 0..20)) {
        let _ = parse(&text, &Name::ALL);
        if let Ok(node) = parse(&words.concat(), &Name::ALL) {
            prop_assert_eq!(parse(&node.to_string(), &Name::ALL), Ok(node));
        }
    }

    #[test]
    fn less_knowledge_never_grants_or_refuses_more(node in node(), data in data()) {
        let partial = with_scene(None, |scene| judge(&node, scene));
        let full = with_scene(Some(&data), |scene| judge(&node, scene));
        prop_assert!(full != Outcome::Depends, "everything is known");
        match partial {
            Outcome::Granted => prop_assert_eq!(full, Outcome::Granted, "{}", node),
            Outcome::Refused(_) => prop_assert_ne!(full, Outcome::Granted, "{}", node),
            Outcome::Depends => {}
        }
    }

    #[test]
    fn a_scope_is_granted_or_refused_only_if_each_of_its_records_is(
        nodes in proptest::collection::vec(node(), 8), data in data(),
    ) {
        for (node, parts) in nodes.iter().flat_map(|node| scopes_of(&data).into_iter().map(move |it| (node, it))) {
            let fixed: Vec<_> = parts.iter().map(|(part, json)| Fixed::new(part, json)).collect();
            let scope = with_fixed(None, &fixed, |scene| judge(node, scene));
            let record = with_scene(Some(&data), |scene| judge(node, scene));
            match scope {
                Outcome::Granted => prop_assert_eq!(record, Outcome::Granted, "{} in {:?}", node, parts),
                Outcome::Refused(_) => prop_assert_ne!(record, Outcome::Granted, "{} in {:?}", node, parts),
                Outcome::Depends => {}
            }
        }
    }

    #[test]
    fn cel_says_the_same(node in node(), data in data()) {
        let text = node.to_string();
        let ours = with_scene(Some(&data), |scene| judge(&node, scene));
        let ours = match ours {
            Outcome::Granted => Some(true),
            Outcome::Refused(None) => Some(false),
            Outcome::Refused(Some(_)) | Outcome::Depends => None,
        };
        prop_assert_eq!(ours, by_cel(&text, &data), "{} with {}", text, data);
    }
}
