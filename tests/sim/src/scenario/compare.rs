//! The first difference between what a step was to bring and what it brought.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use super::print;

/// The first difference.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Difference {
    /// Which of the things that came out, counted from 0.
    index: usize,
    /// Where in it, as a JSON pointer.
    path: String,
    expected: Option<Value>,
    actual: Option<Value>,
    /// Both as a whole.
    whole: (Option<Value>, Option<Value>),
}

impl Difference {
    pub(super) fn first(expected: &[Value], actual: &[Value]) -> Option<Self> {
        (0..expected.len().max(actual.len())).find_map(|index| {
            let whole = (expected.get(index).cloned(), actual.get(index).cloned());
            let (path, expected, actual) = match (expected.get(index), actual.get(index)) {
                (Some(one), Some(other)) => within(one, other, "")?,
                (one, other) => (String::new(), one.cloned(), other.cloned()),
            };
            Some(Self { index, path, expected, actual, whole })
        })
    }
}

type Differing = (String, Option<Value>, Option<Value>);

/// Where two values differ first.
fn within(expected: &Value, actual: &Value, path: &str) -> Option<Differing> {
    if expected == actual {
        return None;
    }
    match (expected, actual) {
        (Value::Object(one), Value::Object(other)) => {
            let names: BTreeSet<_> = one.keys().chain(other.keys()).collect();
            names
                .into_iter()
                .find_map(|name| deeper(one.get(name), other.get(name), format!("{path}/{name}")))
        }
        (Value::Array(one), Value::Array(other)) => (0..one.len().max(other.len()))
            .find_map(|i| deeper(one.get(i), other.get(i), format!("{path}/{i}"))),
        (_, _) => Some((path.into(), Some(expected.clone()), Some(actual.clone()))),
    }
}

fn deeper(expected: Option<&Value>, actual: Option<&Value>, path: String) -> Option<Differing> {
    match (expected, actual) {
        (Some(one), Some(other)) => within(one, other, &path),
        (one, other) => Some((path, one.cloned(), other.cloned())),
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<Value>| value.as_ref().map_or("nothing".into(), print::inline);
        if !self.path.is_empty() {
            writeln!(f, "  at        out[{}]{}", self.index, self.path)?;
            writeln!(f, "  expected  {}", shown(&self.expected))?;
            writeln!(f, "  came      {}", shown(&self.actual))?;
            writeln!(f, "  in whole:")?;
        } else {
            writeln!(f, "  at        out[{}]", self.index)?;
        }
        writeln!(f, "  expected  {}", shown(&self.whole.0))?;
        write!(f, "  came      {}", shown(&self.whole.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_first_difference_is_named_with_its_place() {
        let expected =
            [json!({"a": 1}), json!({"send": {"type": "ping", "metadata": {"base": 5}}})];
        let actual = [json!({"a": 1}), json!({"send": {"type": "ping", "metadata": {"base": 6}}})];
        let text = Difference::first(&expected, &actual).unwrap().to_string();
        assert!(text.starts_with("  at        out[1]/send/metadata/base\n"), "{text}");
        assert!(text.contains("expected  5\n  came      6\n"), "{text}");
    }

    #[test]
    fn what_is_missing_and_what_is_too_much_differ() {
        let one = [json!(1)];
        assert_eq!(Difference::first(&one, &one), None);
        let missing = Difference::first(&one, &[]).unwrap().to_string();
        assert!(missing.ends_with("expected  1\n  came      nothing"), "{missing}");
        let surplus = Difference::first(&[], &one).unwrap().to_string();
        assert!(surplus.ends_with("expected  nothing\n  came      1"), "{surplus}");
        assert!(Difference::first(&[json!([1])], &[json!([1, 2])]).is_some());
        assert!(Difference::first(&[json!({"a": null})], &[json!({})]).is_some());
    }
}
