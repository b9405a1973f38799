//! The order, predicates and selections against oracles that are written apart from them.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::ops::Bound;

use proptest::prelude::*;

use super::*;
use crate::protocol::document::Document;
use crate::protocol::limits::Limits;
use crate::protocol::name::RecordId;
use crate::store::Scan;

mod index;

/// A JSON value, as the oracles see it.
#[derive(Clone, Debug)]
enum Json {
    Null,
    Bool(bool),
    /// Digits, and the power of ten that they are multiplied by.
    Number {
        negative: bool,
        digits: String,
        exponent: i32,
    },
    Text(String),
    Array(Vec<Self>),
    Object(BTreeMap<String, Self>),
}

impl Json {
    fn kind(&self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Bool(_) => 1,
            Self::Number { .. } => 2,
            Self::Text(_) => 3,
            Self::Array(_) => 4,
            Self::Object(_) => 5,
        }
    }

    /// The number as a whole multiple of 10⁻⁸⁰, by its decimal digits without leading zeros.
    fn scaled(digits: &str, exponent: i32) -> String {
        let zeros = usize::try_from(exponent + 80).unwrap();
        format!("{digits}{}", "0".repeat(zeros)).trim_start_matches('0').to_string()
    }

    /// One of the texts of this value; `style` chooses.
    fn text(&self, style: u8) -> String {
        let space = if style & 1 == 0 { "" } else { " " };
        match self {
            Self::Null => "null".into(),
            Self::Bool(of) => of.to_string(),
            Self::Number { negative, digits, exponent } => {
                number(*negative, digits, *exponent, style)
            }
            Self::Text(text) if style & 2 == 0 => serde_json::to_string(text).unwrap(),
            Self::Text(text) => {
                let units = text.encode_utf16().map(|unit| format!("\\u{unit:04x}"));
                format!("\"{}\"", units.collect::<String>())
            }
            Self::Array(of) => {
                let texts: Vec<_> = of.iter().map(|value| value.text(style >> 1)).collect();
                format!("[{space}{}{space}]", texts.join(&format!("{space},")))
            }
            Self::Object(of) => {
                let mut texts: Vec<_> = of
                    .iter()
                    .map(|(name, value)| {
                        let name = serde_json::to_string(name).unwrap();
                        format!("{name}{space}:{}", value.text(style >> 1))
                    })
                    .collect();
                if style & 4 != 0 {
                    texts.reverse();
                }
                format!("{{{}}}", texts.join(","))
            }
        }
    }
}

fn number(negative: bool, digits: &str, exponent: i32, style: u8) -> String {
    let sign = if negative { "-" } else { "" };
    let plain = digits.trim_start_matches('0');
    let plain = if plain.is_empty() { "0" } else { plain };
    match style % 4 {
        0 => format!("{sign}{plain}e{exponent}"),
        1 => format!("{sign}0.{digits}E{:+}", exponent + i32::try_from(digits.len()).unwrap()),
        2 => format!("{sign}{plain}.000e{exponent}"),
        _ if plain == "0" => format!("{sign}0"),
        _ if exponent >= 0 => {
            format!("{sign}{plain}{}", "0".repeat(exponent.unsigned_abs() as usize))
        }
        _ => format!("{sign}{plain}00e{}", exponent - 2),
    }
}

fn compare(one: &Json, other: &Json) -> Ordering {
    match (one, other) {
        (Json::Bool(one), Json::Bool(other)) => one.cmp(other),
        (Json::Text(one), Json::Text(other)) => one.as_bytes().cmp(other.as_bytes()),
        (
            Json::Number { negative: minus, digits, exponent },
            Json::Number { negative: other_minus, digits: other_digits, exponent: other_exponent },
        ) => {
            let one = Json::scaled(digits, *exponent);
            let other = Json::scaled(other_digits, *other_exponent);
            let sizes = one.len().cmp(&other.len()).then(one.cmp(&other));
            match (*minus && !one.is_empty(), *other_minus && !other.is_empty()) {
                (false, false) => sizes,
                (true, true) => sizes.reverse(),
                (true, false) => Ordering::Less,
                (false, true) => Ordering::Greater,
            }
        }
        (Json::Array(one), Json::Array(other)) => {
            let pairs = one.iter().zip(other).map(|(one, other)| compare(one, other));
            pairs.fold(Ordering::Equal, Ordering::then).then(one.len().cmp(&other.len()))
        }
        (Json::Object(one), Json::Object(other)) => {
            let pairs = one.iter().zip(other).map(|((name, one), (other_name, other))| {
                name.as_bytes().cmp(other_name.as_bytes()).then(compare(one, other))
            });
            pairs.fold(Ordering::Equal, Ordering::then).then(one.len().cmp(&other.len()))
        }
        (one, other) => one.kind().cmp(&other.kind()),
    }
}

fn numbers() -> impl Strategy<Value = Json> {
    let digits =
        prop_oneof![3 => "[0-2]{1,2}", 1 => "[0-9]{1,25}", 1 => Just("9007199254740993".into())];
    let exponent = prop_oneof![4 => -3..3_i32, 1 => -50..50_i32];
    (any::<bool>(), digits, exponent).prop_map(|(negative, digits, exponent)| Json::Number {
        negative,
        digits,
        exponent,
    })
}

fn texts() -> impl Strategy<Value = String> {
    prop_oneof![3 => "[ab\u{0}]{0,3}", 1 => "[\u{0}\u{1}é€\u{10000}\u{ff}\"\\\\]{0,3}"]
}

fn values() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        1 => Just(Json::Null),
        1 => any::<bool>().prop_map(Json::Bool),
        4 => numbers(),
        3 => texts().prop_map(Json::Text),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Json::Array),
            proptest::collection::btree_map("[ab.]{0,2}", inner, 0..3).prop_map(Json::Object),
        ]
    })
}

/// A condition, as the oracle sees it.
#[derive(Clone, Debug)]
enum Condition {
    And(Vec<Self>),
    Or(Vec<Self>),
    Not(Box<Self>),
    Field(Vec<String>, &'static str, Json),
}

const NAMES: [&str; 16] = [
    "isEqualTo",
    "isNotEqualTo",
    "isLessThan",
    "isLessThanOrEqualTo",
    "isGreaterThan",
    "isGreaterThanOrEqualTo",
    "startsWith",
    "endsWith",
    "contains",
    "arrayContains",
    "arrayContainsAny",
    "whereIn",
    "whereNotIn",
    "isNull",
    "isNotNull",
    "exists",
];

fn conditions() -> impl Strategy<Value = Condition> {
    let path = proptest::collection::vec("[ab.]{1,2}", 1..3);
    let leaf = (path, 0..NAMES.len(), values(), texts(), proptest::collection::vec(values(), 0..3))
        .prop_map(|(path, name, value, text, list)| {
            let value = match NAMES[name] {
                "startsWith" | "endsWith" | "contains" => Json::Text(text),
                "arrayContainsAny" | "whereIn" | "whereNotIn" => Json::Array(list),
                "isNull" | "isNotNull" | "exists" => Json::Bool(text.is_empty()),
                _ => value,
            };
            Condition::Field(path, NAMES[name], value)
        });
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Condition::And),
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Condition::Or),
            inner.prop_map(|of| Condition::Not(Box::new(of))),
        ]
    })
}

impl Condition {
    fn holds(&self, document: &BTreeMap<String, Json>) -> bool {
        match self {
            Self::And(all) => all.iter().all(|of| of.holds(document)),
            Self::Or(all) => all.iter().any(|of| of.holds(document)),
            Self::Not(of) => !of.holds(document),
            Self::Field(path, operator, wanted) => {
                let mut found = document.get(&path[0]);
                for name in &path[1..] {
                    found = match found {
                        Some(Json::Object(of)) => of.get(name),
                        _ => None,
                    };
                }
                test(found, operator, wanted)
            }
        }
    }

    fn json(&self, style: u8) -> String {
        let list = |all: &[Self]| {
            let texts: Vec<_> = all.iter().map(|of| of.json(style)).collect();
            format!("[{}]", texts.join(", "))
        };
        match self {
            Self::And(all) => format!("{{\"and\": {}}}", list(all)),
            Self::Or(all) => format!("{{\"or\": {}}}", list(all)),
            Self::Not(of) => format!("{{\"not\": {}}}", of.json(style)),
            Self::Field(path, operator, value) => {
                let path: Vec<_> = path
                    .iter()
                    .map(|name| match name.contains('.') || style & 1 == 1 {
                        true => format!("\"{name}\""),
                        false => name.clone(),
                    })
                    .collect();
                let path = serde_json::to_string(&path.join(".")).unwrap();
                format!("{{\"field\": {path}, \"{operator}\": {}}}", value.text(style))
            }
        }
    }
}

fn test(found: Option<&Json>, operator: &str, wanted: &Json) -> bool {
    let is = |one: &Json, other: &Json| compare(one, other).is_eq();
    let list = |of: &Json| if let Json::Array(of) = of { of.clone() } else { Vec::new() };
    let in_text = |holds: fn(&str, &str) -> bool| match (found, wanted) {
        (Some(Json::Text(text)), Json::Text(part)) => holds(text, part),
        _ => false,
    };
    let like = found.filter(|found| found.kind() == wanted.kind());
    let elements = found.map_or_else(Vec::new, list);
    let flag = |holds: bool| matches!(wanted, Json::Bool(of) if *of == holds);
    match operator {
        "isEqualTo" => found.is_some_and(|found| is(found, wanted)),
        "isNotEqualTo" => !found.is_some_and(|found| is(found, wanted)),
        "isLessThan" => like.is_some_and(|found| compare(found, wanted).is_lt()),
        "isLessThanOrEqualTo" => like.is_some_and(|found| compare(found, wanted).is_le()),
        "isGreaterThan" => like.is_some_and(|found| compare(found, wanted).is_gt()),
        "isGreaterThanOrEqualTo" => like.is_some_and(|found| compare(found, wanted).is_ge()),
        "startsWith" => in_text(|text, part| text.starts_with(part)),
        "endsWith" => in_text(|text, part| text.ends_with(part)),
        "contains" => in_text(|text, part| text.contains(part)),
        "arrayContains" => elements.iter().any(|element| is(element, wanted)),
        "arrayContainsAny" => {
            elements.iter().any(|element| list(wanted).iter().any(|value| is(element, value)))
        }
        "whereIn" => list(wanted).iter().any(|value| found.is_some_and(|found| is(found, value))),
        "whereNotIn" => {
            !list(wanted).iter().any(|value| found.is_some_and(|found| is(found, value)))
        }
        "isNull" => flag(matches!(found, Some(Json::Null))),
        "isNotNull" => flag(!matches!(found, Some(Json::Null))),
        "exists" => flag(found.is_some()),
        other => panic!("{other}"),
    }
}

fn objects() -> impl Strategy<Value = BTreeMap<String, Json>> {
    proptest::collection::btree_map("[ab.]{1,2}", values(), 0..5)
}

/// A query of records, as the oracle sees it.
struct Case {
    records: Vec<BTreeMap<String, Json>>,
    condition: Option<Condition>,
    order: Vec<(String, bool)>,
    limit: Option<usize>,
    offset: usize,
    bounds: (u8, u8, u8),
}

impl Case {
    /// The query, the documents of the records, and the places of those that it returns.
    fn window(&self) -> (Query, Vec<Document>, Vec<usize>) {
        let Self { records, condition, order, limit, offset, bounds } = self;
        let mut query = Query { limit: *limit, offset: *offset, ..Query::default() };
        if let Some(condition) = &condition {
            query.predicate = Predicate::parse(&condition.json(0)).unwrap();
        }
        for (name, descending) in order {
            let direction = if *descending { Direction::Descending } else { Direction::Ascending };
            query.order.push((name.parse().unwrap(), direction));
        }
        let documents: Vec<_> =
            records.iter().map(|of| document(&Json::Object(of.clone()).text(bounds.2))).collect();
        let place = |one: usize, other: usize| {
            let by_field = order.iter().map(|(name, descending)| {
                let compared = match (records[one].get(name), records[other].get(name)) {
                    (Some(one), Some(other)) => compare(one, other),
                    (one, other) => one.is_some().cmp(&other.is_some()),
                };
                if *descending { compared.reverse() } else { compared }
            });
            by_field.fold(Ordering::Equal, Ordering::then).then(one.cmp(&other))
        };
        let mut expected: Vec<_> = (0..records.len()).collect();
        expected.retain(|i| condition.as_ref().is_none_or(|of| of.holds(&records[*i])));
        expected.sort_by(|one, other| place(*one, *other));
        let sorted = query.clone();
        let bound = |at: usize, kind: u8| {
            let cursor = sorted.cursor(&id(at), &documents[at]);
            if kind == 1 { Bound::Included(cursor) } else { Bound::Excluded(cursor) }
        };
        let (start, end) = (usize::from(bounds.0 / 3), usize::from(bounds.1 / 3));
        let (from, to) = (bounds.0 % 3, bounds.1 % 3);
        if from > 0 && start < records.len() {
            query.start = bound(start, from);
            expected.retain(|i| place(*i, start).is_gt() || from == 1 && *i == start);
        }
        if to > 0 && end < records.len() {
            query.end = bound(end, to);
            expected.retain(|i| place(*i, end).is_lt() || to == 1 && *i == end);
        }
        let most = limit.unwrap_or(usize::MAX);
        let expected = expected.into_iter().skip(*offset).take(most).collect();
        (query, documents, expected)
    }
}

fn document(json: &str) -> Document {
    Document::parse(json, &Limits::default()).unwrap()
}

fn id(of: usize) -> RecordId {
    RecordId::new(&format!("r{of:02}")).unwrap()
}

fn encoded(text: &str) -> Vec<u8> {
    value::encode(text)
}

proptest! {
    #[test]
    fn the_order_of_bytes_is_the_order_of_values(
        one in values(), other in values(), styles: (u8, u8, u8)
    ) {
        let (a, b) = (encoded(&one.text(styles.0)), encoded(&other.text(styles.1)));
        prop_assert_eq!(a.cmp(&b), compare(&one, &other));
        prop_assert_eq!(&a, &encoded(&one.text(styles.2)), "one value, one encoding");
        if a != b {
            prop_assert!(!a.starts_with(&b) && !b.starts_with(&a), "an end in between");
        }
    }

    #[test]
    fn a_document_meets_a_predicate_where_the_oracle_says_so(
        of in objects(), condition in conditions(), style: u8
    ) {
        let predicate = Predicate::parse(&condition.json(style)).unwrap();
        let document = document(&Json::Object(of.clone()).text(style));
        prop_assert_eq!(predicate.matches(&document), condition.holds(&of));
        prop_assert_eq!(&Predicate::parse(&predicate.to_string()).unwrap(), &predicate);
        prop_assert!(predicate.clone().negated().unwrap().matches(&document) != condition.holds(&of));
    }

    #[test]
    fn a_query_returns_the_window_of_the_sorted_matches(
        records in proptest::collection::vec(objects(), 0..12),
        condition in proptest::option::of(conditions()),
        order in proptest::collection::vec(("[ab]", any::<bool>()), 0..3),
        limit in proptest::option::of(0..6_usize),
        offset in 0..4_usize,
        bounds: (u8, u8, u8),
    ) {
        let case = Case { records, condition, order, limit, offset, bounds };
        let (query, documents, expected) = case.window();

        query.check().unwrap();
        let mut selection = Selection::new(&query);
        for (i, document) in documents.iter().enumerate() {
            if selection.offer(&id(i), document, || Some(i)) == Scan::Stop {
                break;
            }
        }
        prop_assert_eq!(selection.finish(), expected);
    }

    #[test]
    fn no_text_makes_a_predicate_or_a_path_panic(
        text in ".*",
        likely in r#"[\[\{]("(and|or|not|field|isEqualTo|whereIn|exists)":?|[\[\]{},:1]|null|"a"){0,12}"#,
    ) {
        let _ = (Predicate::parse(&text), Predicate::parse(&likely), text.parse::<FieldPath>());
    }
}

#[test]
fn numbers_are_exact_however_they_are_written() {
    let rows = [
        "-1e400",
        "-1e99",
        "-9007199254740993",
        "-9007199254740992",
        "-1.5",
        "-1e-400",
        "0",
        "1e-400",
        "0.1",
        "0.10000000000000000001",
        "1",
        "9007199254740992",
        "9007199254740993",
        "1e99",
        "1e400",
        "1e99999999999999999999999",
    ];
    for pair in rows.windows(2) {
        assert!(encoded(pair[0]) < encoded(pair[1]), "{pair:?}");
    }
    for same in [["1", "10e-1"], ["1.0", "1"], ["-0", "0"], ["0e5", "0.000"], ["1e2", "100.0E+0"]] {
        assert_eq!(encoded(same[0]), encoded(same[1]), "{same:?}");
    }
}

#[test]
fn half_a_surrogate_pair_is_a_text_like_others() {
    let (low, high) = (encoded(r#""\ud800""#), encoded(r#""\ud801""#));
    assert!(encoded("\"\u{d7ff}\"") < low && low < high && high < encoded("\"\u{e000}\""));
    assert_eq!(encoded(r#""a\ud83d\ude00\ud800""#), encoded("\"\u{61}\u{1f600}\\ud800\""));
    assert_eq!(encoded(r#""\ud800\"""#), encoded(r#""\ud800\u0022""#));
    let halves = Predicate::parse(r#"{"field": "a", "startsWith": "\ud800"}"#).unwrap();
    assert!(halves.matches(&document(r#"{"a": "\ud800x"}"#)));
    assert!(!halves.matches(&document(r#"{"a": "\ud801x"}"#)));
}

#[test]
fn values_that_are_nested_deeply_are_compared_without_looking_into_them() {
    let deep = |inner: &str| format!("{}{inner}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(encoded(&deep("1")), encoded(&deep("1")));
    assert!(encoded(&deep("1")) < encoded(&deep("2")));
}

/// Null is a value, and no field is not null.
#[test]
fn null_against_missing() {
    let meets =
        |condition: &str, json: &str| Predicate::parse(condition).unwrap().matches(&document(json));
    let [null, missing] = [r#"{"a": null}"#, "{}"];
    for (condition, of_null, of_missing) in [
        (r#"{"field": "a", "isNull": true}"#, true, false),
        (r#"{"field": "a", "isNotNull": true}"#, false, true),
        (r#"{"field": "a", "exists": true}"#, true, false),
        (r#"{"field": "a", "exists": false}"#, false, true),
        (r#"{"field": "a", "isEqualTo": null}"#, true, false),
        (r#"{"field": "a", "isNotEqualTo": null}"#, false, true),
        (r#"{"field": "a", "isLessThanOrEqualTo": null}"#, true, false),
        (r#"{"field": "a", "isLessThan": 5}"#, false, false),
        (r#"{"field": "a", "whereIn": [null, 1]}"#, true, false),
        (r#"{"field": "a.b", "exists": true}"#, false, false),
    ] {
        assert_eq!(
            (meets(condition, null), meets(condition, missing)),
            (of_null, of_missing),
            "{condition}"
        );
    }
    let mut query =
        Query { order: vec![("a".parse().unwrap(), Direction::Ascending)], ..Query::default() };
    let cursor = |query: &Query, json| query.cursor(&id(1), &document(json)).key;
    assert!(cursor(&query, missing) < cursor(&query, null));
    query.order[0].1 = Direction::Descending;
    assert!(cursor(&query, null) < cursor(&query, missing));
}

#[test]
fn an_error_says_what_is_wrong_and_where() {
    let error = |json: &str| Predicate::parse(json).unwrap_err().to_string();
    for (json, expected) in [
        ("", "the condition: it is not JSON: expected a value at byte 0"),
        ("[]", "the condition: it has to be an object"),
        ("{}", "the condition: it names no field"),
        (r#"{"field": "a"}"#, "the condition: it has no operator for the field a"),
        (
            r#"{"field": "a", "equals": 1}"#,
            "the condition: there is no operator \"equals\"; there are isEqualTo,",
        ),
        (
            r#"{"or": [{"field": "a", "isNull": 1}]}"#,
            "or[0]: \"isNull\" takes true or false, and not 1",
        ),
        (
            r#"{"and": [{"field": "a..b", "<": 1}]}"#,
            "and[0]: \"a..b\" is no path of a field: a name is empty",
        ),
        (
            r#"{"not": {"field": "a", "whereIn": 3}}"#,
            "not: \"whereIn\" takes a list of values, like [1, 2], and not 3",
        ),
        (
            r#"{"not": {"field": "a", "startsWith": 3}}"#,
            "not: \"startsWith\" takes a text in quotes, and not 3",
        ),
        (r#"{"and": [], "or": []}"#, "the condition: \"and\" stands alone, and not beside \"or\""),
        (r#"{"and": {}}"#, "and: it has to be a list of conditions"),
        (r#"{"field": "a", "<": 1, "<": 2}"#, "the condition: \"<\" stands there twice"),
    ] {
        assert!(error(json).starts_with(expected), "{json}: {}", error(json));
    }
    let deep = format!("{}{{\"and\": []}}{}", "{\"not\": ".repeat(16), "}".repeat(16));
    assert!(error(&deep).contains("nested more than 16 deep"), "{}", error(&deep));
    let many = vec!["1"; 1001].join(",");
    let many = format!("{{\"field\": \"a\", \"whereIn\": [{many}]}}");
    assert!(error(&many).contains("more than 1000 values"), "{}", error(&many));
    let wide = vec![r#"{"field": "a", "isNull": true}"#; 300].join(",");
    assert!(error(&format!("{{\"and\": [{wide}]}}")).contains("more than 256 conditions"));
    assert!(error(&" ".repeat(70_000)).contains("at most 65536 are allowed"));
    let mut built = Predicate::default();
    while let Ok(larger) = built.clone().negated() {
        built = larger;
    }
    assert_eq!(
        Predicate::parse(&built.to_string()).unwrap(),
        built,
        "what can be built can be read"
    );
}

#[test]
fn several_operators_of_a_field_and_short_forms_are_understood() {
    let between = Predicate::parse(r#"{"field": "n", ">=": 1, "<": 3}"#).unwrap();
    let long = r#"{"and":[{"field":"n","isGreaterThanOrEqualTo":1},{"field":"n","isLessThan":3}]}"#;
    assert_eq!(between.to_string(), long);
    let built = |operator, json| Predicate::field("n".parse().unwrap(), operator, json).unwrap();
    assert_eq!(Predicate::all([built(">=", "1"), built("isLessThan", " 3 ")]).unwrap(), between);
}

#[test]
fn a_cursor_of_another_order_is_refused() {
    let mut query = Query::default();
    query.start = Bound::Included(query.cursor(&id(1), &document("{}")));
    assert_eq!(query.check(), Ok(()));
    query.order.push(("a".parse().unwrap(), Direction::Ascending));
    assert!(query.check().unwrap_err().to_string().contains("another order"));
    query.start = Bound::Unbounded;
    query.order = vec![query.order[0].clone(); 33];
    assert!(query.check().unwrap_err().to_string().contains("at most 32"));
}

/// Whichever of the records with equal keys comes last, a limit cuts by the id.
#[test]
fn order_and_limit_with_ties() {
    let ties = |limit| {
        let order = vec![("n".parse().unwrap(), Direction::Descending)];
        let query = Query { order, limit: Some(limit), ..Query::default() };
        let mut selection = Selection::new(&query);
        for (i, n) in [1, 2, 1, 2, 1].into_iter().enumerate() {
            selection.offer(&id(i), &document(&format!("{{\"n\": {n}}}")), || Some(i));
        }
        selection.finish()
    };
    assert_eq!(ties(1), [1], "a limit of 1 is the beginning of a limit of 2");
    assert_eq!(ties(2), [1, 3]);
    assert_eq!(ties(3), [1, 3, 0]);
    assert_eq!(ties(9), [1, 3, 0, 2, 4]);
    assert!(ties(0).is_empty());
}

#[test]
fn the_text_of_an_order_and_of_a_cursor() {
    let query = |order: &str| Query { order: parse_order(order).unwrap(), ..Query::default() };
    let sorted = query(r#"-priority,owner.name,"a,b""#);
    let names: Vec<_> = sorted.order.iter().map(|(path, way)| (path.to_string(), *way)).collect();
    let (up, down) = (Direction::Ascending, Direction::Descending);
    let wanted = [("priority", down), ("owner.name", up), ("a,b", up)];
    assert_eq!(names, wanted.map(|(name, way)| (name.to_string(), way)));
    for wrong in ["", "-", "a,,b", "a,\"b"] {
        assert!(
            parse_order(wrong).unwrap_err().to_string().contains("is no path of a field"),
            "{wrong}"
        );
    }
    let cursor = sorted.cursor(&id(1), &document(r#"{"priority": 2}"#));
    assert_eq!(sorted.parse_cursor(&cursor.to_string()), Ok(cursor.clone()));
    for (other, text) in [
        (&query("priority"), cursor.to_string().as_str()),
        (&sorted, ""),
        (&sorted, "0g"),
        (&sorted, "é0"),
    ] {
        assert!(other.parse_cursor(text).is_err(), "{text}");
    }
    let mut by_id = query_all_from("r07");
    assert_eq!(by_id.first_id().as_deref(), Some("r07"));
    by_id.order = sorted.order;
    assert_eq!(by_id.first_id(), None);
}

fn query_all_from(id: &str) -> Query {
    let cursor = Query::default().cursor(&RecordId::new(id).unwrap(), &document("{}"));
    Query { start: Bound::Excluded(cursor), ..Query::default() }
}
