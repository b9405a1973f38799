//! The chat.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::{Process, Server, project};

const CONFIG: &str = "adapters/tokio/examples/chat/server.toml";

fn chat(server: &Server, user: &str, home: &Path) -> Process {
    let data = home.join(user);
    let data = data.to_str().unwrap();
    let arguments = ["--script", "--server", &server.url, "--user", user, "--token", user];
    Process::start(env!("CARGO_BIN_EXE_chat"), &[&arguments[..], &["--data", data]].concat())
}

fn server(home: &Path) -> Server {
    let config = project(CONFIG);
    let tokens = ["--token", "ann=ann", "--token", "bob=bob"];
    let arguments = ["--config", config.to_str().unwrap(), "--durability", "buffered"];
    Server::start(&home.join("server"), &[&arguments[..], &tokens].concat())
}

/// The last lines of a view, each as its tick and its text.
fn last(view: &Value, count: usize) -> Vec<(&str, &str)> {
    let lines = view["lines"].as_array().unwrap();
    let shown = lines[lines.len().saturating_sub(count)..].iter();
    shown.map(|line| (line["tick"].as_str().unwrap(), line["text"].as_str().unwrap())).collect()
}

#[test]
fn two_talk_and_one_is_offline_in_the_middle() {
    let home = tempfile::tempdir().unwrap();
    let server = server(home.path());
    let mut ann = chat(&server, "ann", home.path());
    let mut bob = chat(&server, "bob", home.path());
    ann.enter("Hello");
    ann.shows(|view| last(view, 1) == [("sent", "Hello")]);
    bob.shows(|view| last(view, 1) == [("sent", "Hello")] && view["complete"] == true);

    ann.enter("/offline");
    ann.shows(|view| view["online"] == false);
    ann.enter("Written in a tunnel");
    ann.shows(|view| last(view, 1) == [("waiting", "Written in a tunnel")]);
    ann.kill();
    bob.enter("Are you there?");
    bob.shows(|view| last(view, 1) == [("sent", "Are you there?")]);

    let mut ann = chat(&server, "ann", home.path());
    let both = [("sent", "Written in a tunnel"), ("sent", "Are you there?")];
    ann.shows(|view| last(view, 2) == both);
    bob.shows(|view| last(view, 2) == both);
    ann.quit();
    bob.quit();
}

#[test]
fn a_refused_message_says_why_and_can_be_dropped() {
    let home = tempfile::tempdir().unwrap();
    let server = server(home.path());
    let mut bob = chat(&server, "bob", home.path());
    bob.enter("/room news");
    bob.enter("I am no editor");
    let view = bob.shows(|view| view["lines"][0]["tick"] == "refused");
    let text = view["lines"][0]["text"].as_str().unwrap();
    assert!(text.starts_with("I am no editor (") && text.contains("rule"), "{text}");
    bob.enter("/retry");
    bob.shows(|view| view["lines"].as_array().unwrap().is_empty());
    bob.shows(|view| view["lines"][0]["tick"] == "refused");
    bob.enter("/discard");
    bob.shows(|view| view["lines"].as_array().unwrap().is_empty());
    bob.enter("/room lobby");
    bob.enter("But I may write here");
    bob.shows(|view| last(view, 1) == [("sent", "But I may write here")]);
}

#[test]
fn a_page_is_read_by_the_index_and_older_ones_follow() {
    let home = tempfile::tempdir().unwrap();
    let server = server(home.path());
    let mut ann = chat(&server, "ann", home.path());
    for number in 0..120 {
        ann.enter(&format!("Message {number}"));
    }
    ann.shows(|view| last(view, 1) == [("sent", "Message 119")]);
    let mut bob = chat(&server, "bob", home.path());
    let count = |view: &Value| view["lines"].as_array().unwrap().len();
    bob.shows(|view| view["complete"] == true && last(view, 1) == [("sent", "Message 119")]);
    bob.enter("/explain");
    let notice = bob.shows(|view| view["notice"] != "");
    assert_eq!(notice["notice"], "50 read for 50, by room,at");
    bob.enter("/older");
    bob.shows(|view| last(view, 1) == [("sent", "Message 69")] && count(view) == 50);
    bob.enter("/older");
    bob.shows(|view| last(view, 1) == [("sent", "Message 19")] && count(view) == 20);
    bob.enter("/newer");
    bob.shows(|view| last(view, 1) == [("sent", "Message 69")] && count(view) == 50);
    // one's own message is shown where it stands: among the newest
    bob.enter("And one more");
    bob.shows(|view| view["page"] == 0 && last(view, 1) == [("sent", "And one more")]);
}

#[test]
fn the_rules_pass_their_own_cases() {
    let test = ["rules", "test", &project(CONFIG).to_string_lossy()].map(str::to_owned);
    let ended = Command::new(env!("CARGO_BIN_EXE_program")).args(test).output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
}
