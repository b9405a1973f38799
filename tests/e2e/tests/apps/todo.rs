//! The shared lists.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Process, Server};

fn todo(server: &Server, user: &str, home: &Path) -> Process {
    let data = home.join(user);
    let arguments = ["--script", "--server", &server.url, "--user", user, "--data"];
    Process::start(
        env!("CARGO_BIN_EXE_todo"),
        &[&arguments[..], &[data.to_str().unwrap()]].concat(),
    )
}

fn server(home: &Path) -> Server {
    let keys = ["--scope", "lists=members[]", "--scope", "items=list"];
    Server::start(&home.join("server"), &[&keys[..], &["--durability", "buffered"]].concat())
}

/// The items of a view: an `x` before those that are done, and an ellipsis behind those that wait.
fn items(view: &Value) -> Vec<String> {
    let item = |item: &Value| {
        let done = if item["done"] == true { "x " } else { "" };
        let waits = if item["waiting"] == true { "…" } else { "" };
        format!("{done}{}{waits}", item["text"].as_str().unwrap())
    };
    view["items"].as_array().unwrap().iter().map(item).collect()
}

/// Two devices with a shared list of three items.
fn with_a_list(server: &Server, home: &Path) -> (Process, Process) {
    let (mut ann, mut bob) = (todo(server, "ann", home), todo(server, "bob", home));
    ann.enter("/new Party");
    for text in ["Milk", "Bread", "Eggs"] {
        ann.enter(text);
    }
    ann.shows(|view| items(view) == ["Milk", "Bread", "Eggs"]);
    ann.enter("/share bob");
    bob.shows(|view| view["lists"] == json!(["Party"]));
    bob.enter("/open Party");
    bob.shows(|view| items(view) == ["Milk", "Bread", "Eggs"]);
    (ann, bob)
}

#[test]
fn two_share_a_list_and_one_is_offline_in_the_middle() {
    let home = tempfile::tempdir().unwrap();
    let server = server(home.path());
    let (mut ann, mut bob) = with_a_list(&server, home.path());

    ann.enter("/offline");
    ann.shows(|view| view["online"] == false);
    ann.enter("/done 1");
    ann.enter("/up 3");
    ann.shows(|view| items(view) == ["x Milk…", "Eggs…", "Bread"]);
    ann.kill();
    bob.enter("Salt");
    bob.enter("/edit 1 Two bottles of milk");
    bob.shows(|view| items(view) == ["Two bottles of milk", "Bread", "Eggs", "Salt"]);

    // what was made on both sides meets: of different fields and items everything stays
    let mut ann = todo(&server, "ann", home.path());
    bob.shows(|view| items(view) == ["x Two bottles of milk", "Eggs", "Bread", "Salt"]);
    ann.enter("/open Party");
    ann.shows(|view| items(view) == ["x Two bottles of milk", "Eggs", "Bread", "Salt"]);
    ann.quit();
    bob.quit();
}

#[test]
fn of_two_texts_both_are_shown_until_somebody_chooses() {
    let home = tempfile::tempdir().unwrap();
    let server = server(home.path());
    let (mut ann, mut bob) = with_a_list(&server, home.path());
    ann.enter("/offline");
    ann.shows(|view| view["online"] == false);
    ann.enter("/edit 2 Rye bread");
    ann.shows(|view| items(view)[1] == "Rye bread…");
    bob.enter("/edit 2 White bread");
    bob.shows(|view| items(view)[1] == "White bread");
    ann.enter("/online");
    for device in [&mut ann, &mut bob] {
        let view = device.shows(|view| view["items"][1]["theirs"] == "White bread");
        assert_eq!(view["items"][1]["text"], "Rye bread");
    }
    bob.enter("/theirs 2");
    for device in [&mut ann, &mut bob] {
        device
            .shows(|view| items(view)[1] == "White bread" && view["items"][1]["theirs"].is_null());
    }
}

#[test]
fn an_undo_takes_back_what_one_did_and_nothing_else() {
    let home = tempfile::tempdir().unwrap();
    let server = server(home.path());
    let (mut ann, mut bob) = with_a_list(&server, home.path());
    ann.enter("/done 2");
    bob.shows(|view| items(view) == ["Milk", "x Bread", "Eggs"]);
    bob.enter("/edit 2 Rye bread");
    ann.shows(|view| items(view) == ["Milk", "x Rye bread", "Eggs"]);
    ann.enter("/undo");
    bob.shows(|view| items(view) == ["Milk", "Rye bread", "Eggs"]);
    ann.enter("/delete 1");
    bob.shows(|view| items(view) == ["Rye bread", "Eggs"]);
    ann.enter("/undo");
    bob.shows(|view| items(view) == ["Milk", "Rye bread", "Eggs"]);
    bob.enter("/down 1");
    ann.shows(|view| items(view) == ["Rye bread", "Milk", "Eggs"]);
    bob.enter("/undo");
    ann.shows(|view| items(view) == ["Milk", "Rye bread", "Eggs"]);
}
