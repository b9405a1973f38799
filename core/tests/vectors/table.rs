//! The tables of exact action vectors: `state` lines, `>` inputs, and beneath each the actions in
//! their order. Each input meets a machine of its own, which was brought into that state afresh.
//! With `SYNCLAYER_WRITE=1` the actions are written into the tables; the diff is the review.

use std::format;
use std::path::Path;
use std::string::String;
use std::vec::Vec;

/// The actions of a machine in a state upon an input.
type Step = fn(state: &str, input: &str) -> Vec<String>;

pub(crate) fn check(table: &str, step: Step) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(table);
    let committed = std::fs::read_to_string(&path).unwrap();
    let actual = replayed(&committed, step);
    if std::env::var_os("SYNCLAYER_WRITE").is_some() {
        std::fs::write(&path, actual).unwrap();
        return;
    }
    let (mut state, mut input) = ("", "");
    for (number, (was, is)) in committed.lines().zip(actual.lines()).enumerate() {
        state = was.strip_prefix("state ").unwrap_or(state);
        input = was.strip_prefix("> ").unwrap_or(input);
        assert_eq!(was, is, "{table} line {}, in state {state}, input {input}", number + 1);
    }
    assert_eq!(committed.lines().count(), actual.lines().count(), "in state {state}, {input}");
}

/// The table with its inputs, and the actions that come of them now.
pub(crate) fn replayed(table: &str, step: Step) -> String {
    let (mut state, mut out) = ("", String::new());
    for line in table.lines().filter(|line| !line.starts_with("    ")) {
        out.push_str(line);
        out.push('\n');
        if let Some(header) = line.strip_prefix("state ") {
            state = header.split(':').next().unwrap_or(header);
        }
        if let Some(input) = line.strip_prefix("> ") {
            for action in step(state, input) {
                out.push_str(&format!("    {action}\n"));
            }
        }
    }
    out
}

/// The first word of a text, and the rest of it.
pub(crate) fn split(text: &str) -> (&str, &str) {
    text.split_once(' ').unwrap_or((text, ""))
}
