//! JSON as people write it: short things on one line, what a thing is before what it holds.

use serde_json::{Map, Value};

/// The width of a line.
const WIDTH: usize = 118;

/// The fields that come first, in this order; the others follow by name.
const FIRST: [&str; 33] = [
    "title",
    "about",
    "kind",
    "after",
    "config",
    "steps",
    "note",
    "conn",
    "in",
    "out",
    "result",
    "send",
    "event",
    "watch",
    "at",
    "id",
    "type",
    "code",
    "collection",
    "recordId",
    "data",
    "timestamp",
    "error",
    "metadata",
    "protocol",
    "epoch",
    "seq",
    "version",
    "updatedAt",
    "records",
    "changes",
    "holds",
    "mutation",
];

/// On one line.
pub(crate) fn inline(value: &Value) -> String {
    let mut out = String::new();
    put_inline(value, &mut out);
    out
}

/// On as many lines as it takes, with a line feed at the end.
pub(super) fn pretty(value: &Value) -> String {
    let mut out = String::new();
    put(value, 0, 0, &mut out);
    out.push('\n');
    out
}

fn put(value: &Value, indent: usize, used: usize, out: &mut String) {
    let short = inline(value);
    let is_file = indent == 0;
    if !is_file && used + short.chars().count() <= WIDTH {
        out.push_str(&short);
        return;
    }
    let inner = indent + 2;
    let begin_line = |out: &mut String, first: bool| {
        out.push_str(if first { "\n" } else { ",\n" });
        out.push_str(&" ".repeat(inner));
    };
    let end_line = |out: &mut String| {
        out.push('\n');
        out.push_str(&" ".repeat(indent));
    };
    match value {
        Value::Array(items) if !items.is_empty() => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                begin_line(out, i == 0);
                put(item, inner, inner + 1, out);
            }
            end_line(out);
            out.push(']');
        }
        Value::Object(fields) if !fields.is_empty() => {
            out.push('{');
            for (i, (name, value)) in sorted(fields).into_iter().enumerate() {
                begin_line(out, i == 0);
                let label = format!("{}: ", Value::from(name.as_str()));
                out.push_str(&label);
                put(value, inner, inner + label.chars().count() + 1, out);
            }
            end_line(out);
            out.push('}');
        }
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => out.push_str(&short),
    }
}

fn put_inline(value: &Value, out: &mut String) {
    match value {
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i == 0 { "" } else { ", " });
                put_inline(item, out);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            out.push('{');
            for (i, (name, value)) in sorted(fields).into_iter().enumerate() {
                out.push_str(if i == 0 { "" } else { ", " });
                out.push_str(&format!("{}: ", Value::from(name.as_str())));
                put_inline(value, out);
            }
            out.push('}');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            out.push_str(&value.to_string());
        }
    }
}

fn sorted(fields: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let rank = |name: &str| FIRST.iter().position(|first| *first == name).unwrap_or(FIRST.len());
    let mut sorted: Vec<_> = fields.iter().collect();
    sorted.sort_by_key(|(name, _)| (rank(name), *name));
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_printed_reads_back() {
        let long = "x".repeat(90);
        let value = json!({"steps": [{"out": [], "in": {"data": long, "at": 1}}], "title": "t"});
        let text = pretty(&value);
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
        assert_eq!(serde_json::from_str::<Value>(&inline(&value)).unwrap(), value);
        assert!(text.starts_with("{\n  \"title\": \"t\",\n  \"steps\": [\n"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
    }
}
