//! Exact action vectors: one input to a machine in one state, and every action that comes of it.
//!
//! `client.txt` and `server.txt` are the tables: `state` lines, `>` inputs, and beneath each the
//! actions in their order. Each input meets a machine of its own, which was brought into that
//! state afresh. With `SYNCLAYER_WRITE=1` the actions are written into the tables; the diff is the
//! review.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod client;
mod server;

use std::path::Path;

/// The actions of a machine for an input in a state.
type Step = fn(state: &str, input: &str) -> Vec<String>;

#[test]
fn the_client_does_exactly_this() {
    check("client.txt", client::step);
}

#[test]
fn the_server_s_session_does_exactly_this() {
    check("server.txt", server::step);
}

fn check(table: &str, step: Step) {
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
fn replayed(table: &str, step: Step) -> String {
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
fn split(text: &str) -> (&str, &str) {
    text.split_once(' ').unwrap_or((text, ""))
}

#[test]
fn a_wrong_action_is_noticed() {
    let table = "state off\n> connect\n    connect 7\n";
    assert_ne!(replayed(table, client::step), table);
    let table = "state off\n> connect\n    connect 1\n";
    assert_eq!(replayed(table, client::step), table);
}
