use alloc::string::ToString;

use proptest::prelude::*;

use super::*;
use crate::protocol::limits::Limits;

fn key(text: &str) -> ScopeKey {
    text.parse().unwrap()
}

fn document(json: &str) -> Document {
    Document::parse(json, &Limits::default()).unwrap()
}

fn scopes(of: &str, json: &str) -> BTreeSet<ScopeValue> {
    key(of).scopes(&document(json)).unwrap()
}

fn value(of: &str, values: &[&str]) -> ScopeValue {
    key(of).value(values.iter().copied()).unwrap()
}

#[test]
fn a_key_is_a_field_or_elements_or_several_fields() {
    for text in ["room", "members[]", "project+status", "dot.ted", "a+b+c"] {
        assert_eq!(key(text).to_string(), text);
    }
    for text in ["", "[]", "a+", "a+b[]", "a+a", &"x".repeat(600), "1+2+3+4+5+6+7+8+9"] {
        assert!(text.parse::<ScopeKey>().is_err(), "{text}");
    }
}

#[test]
fn scopes_are_equal_by_value() {
    let one = BTreeSet::from([value("room", &["1"])]);
    for text in ["1", "1.0", "10e-1", "100e-2"] {
        assert_eq!(scopes("room", &alloc::format!("{{\"room\":{text}}}")), one, "{text}");
    }
    assert_ne!(scopes("room", r#"{"room":"1"}"#), one);
    assert_eq!(scopes("room", r#"{"room":"\u00e9"}"#), scopes("room", r#"{"room":"é"}"#));
    for text in ["null", "true", "false", "\"\""] {
        assert_eq!(scopes("room", &alloc::format!("{{\"room\":{text}}}")).len(), 1, "{text}");
    }
}

#[test]
fn other_values_are_in_no_scope() {
    let long = alloc::format!(r#"{{"room":"{}"}}"#, "x".repeat(300));
    for json in [r#"{"room":[1]}"#, r#"{"room":{}}"#, "{}", &long] {
        assert!(scopes("room", json).is_empty(), "{json}");
    }
    assert!(scopes("project+status", r#"{"project":"p"}"#).is_empty(), "a part is missing");
    assert_eq!(
        scopes("project+status", r#"{"project":"p","status":null}"#),
        BTreeSet::from([value("project+status", &["\"p\"", "null"])])
    );
    assert!(scopes("members[]", r#"{"members":"ann"}"#).is_empty(), "that is no array");
    assert_eq!(key("a+b").value(["1"].into_iter()), None);
    assert_eq!(key("a").value(["[1]"].into_iter()), None);
}

#[test]
fn each_element_of_an_array_is_a_scope() {
    let found = scopes("members[]", r#"{"members":["ann","bob",["x"],"ann",1,1.0]}"#);
    let expected = ["\"ann\"", "\"bob\"", "1"].map(|text| value("members[]", &[text]));
    assert_eq!(found, BTreeSet::from(expected));
    let many = |count: usize| {
        let members: Vec<_> = (0..count).map(|n| n.to_string()).collect();
        document(&alloc::format!(r#"{{"members":[{}]}}"#, members.join(",")))
    };
    assert_eq!(key("members[]").scopes(&many(64)).unwrap().len(), 64);
    assert_eq!(key("members[]").scopes(&many(65)), Err(TooMany));
}

proptest! {
    /// Rows of two scopes never mix: no value is the beginning of another one.
    #[test]
    fn no_value_begins_another(a in "[a-c\u{0}]{0,3}", b in "[a-c\u{0}]{0,3}", n: i64, m: i64) {
        let text = |text: &str| crate::protocol::document::json_string(text);
        let values = [
            value("k", &[&text(&a)]),
            value("k", &[&text(&b)]),
            value("k", &[&n.to_string()]),
            value("k", &[&m.to_string()]),
            value("k+l", &[&text(&a), &n.to_string()]),
            value("k+l", &[&text(&b), &m.to_string()]),
        ];
        for (i, one) in values[..4].iter().enumerate() {
            for other in values[..4].iter().skip(i + 1).filter(|other| *other != one) {
                prop_assert!(!one.starts_with(other) && !other.starts_with(one));
            }
        }
        let (one, other) = (&values[4], &values[5]);
        prop_assert!(one == other || !one.starts_with(other) && !other.starts_with(one));
    }
}
