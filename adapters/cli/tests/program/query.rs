//! Conditions, orders and counts in the shell.

use serde_json::json;

use crate::support::{Ended, HomeDir, Process, Server, finish};

fn ids(ended: Ended) -> Vec<String> {
    let lines = ended.ends_with(0).lines();
    lines.iter().map(|line| line["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn records_are_listed_counted_and_deleted_by_a_condition() {
    let home = HomeDir::new();
    let server = Server::start(&home.dir("server"));
    let (a, b) = (home.shell("a", &server.url), home.shell("b", &server.url));
    for (id, todo) in [
        ("bread", r#"{"done": false, "priority": 1}"#),
        ("cake", r#"{"done": true, "priority": 3}"#),
        ("milk", r#"{"done": false, "priority": 2}"#),
        ("tea", r#"{"done": false}"#),
    ] {
        a.online(&["save", "todos", todo, "--id", id]).ends_with(0);
    }
    // b has nothing yet, and asks the server
    let open = ["list", "todos", "--where", "done=false"];
    assert_eq!(
        ids(b.online(&[&open[..], &["--order-by", "-priority"]].concat())),
        ["milk", "bread", "tea"]
    );
    assert_eq!(ids(b.offline(&[&open[..], &["--limit", "1"]].concat())), ["bread"]);
    let count = b.online(&["count", "todos", "--where", "done=false and priority>=2"]).ends_with(0);
    assert_eq!(count.json(), json!({ "collection": "todos", "count": 1 }));
    assert_eq!(b.offline(&["count", "todos"]).ends_with(0).json()["count"], 4);

    let deleted = b.online(&["delete", "todos", "--where", "priority exists and done=false"]);
    let deleted = deleted.ends_with(0).json();
    assert_eq!((&deleted["done"], &deleted["count"]), (&json!("deleted"), &json!(2)));
    assert_eq!(ids(a.online(&["list", "todos"])), ["cake", "tea"]);
    let waiting = b.offline(&["delete", "todos", "--where", "done=true"]).ends_with(3).json();
    assert_eq!((&waiting["count"], &waiting["waiting"]), (&json!(1), &json!(1)));
    assert_eq!(b.offline(&["delete", "todos", "--where", "no=1"]).ends_with(0).json()["count"], 0);
}

#[test]
fn a_wrong_condition_is_refused_with_2_and_a_column() {
    let home = HomeDir::new();
    let a = home.shell("a", "http://192.0.2.1:1");
    for (args, told) in [
        (&["list", "todos", "--where", "done=false priority>=2"][..], "column 12"),
        (&["count", "todos", "--where", "done"], "column 5"),
        (&["delete", "todos", "--where", "a in 3"], "column 3"),
        (&["list", "todos", "--order-by", "a,,b"], "column 3"),
        (&["delete", "todos"], "<ID>"),
        (&["delete", "todos", "x", "--where", "a=1"], "cannot be used with"),
    ] {
        let ended = a.offline(args).ends_with(2);
        assert!(ended.stderr.contains(told), "{ended:?}");
    }
}

#[test]
fn in_a_pipe_each_record_is_a_line_of_json() {
    let home = HomeDir::new();
    let a = home.shell("a", "http://192.0.2.1:1");
    for id in ["x", "y"] {
        a.offline(&["save", "todos", r#"{"n": {"deep": 1.50}}"#, "--id", id]).ends_with(3);
    }
    for command in [&["list", "todos"][..], &["get", "todos", "y"]] {
        let mut program = crate::support::command();
        let ended = finish(program.args(command).arg("--data").arg(&a.data));
        let lines = ended.ends_with(0).lines();
        assert_eq!(lines.len(), if command[0] == "list" { 2 } else { 1 });
        let last = lines.last().unwrap();
        assert_eq!((&last["id"], &last["data"]["n"]["deep"]), (&json!("y"), &json!(1.5)));
        assert_eq!(last["pending"], true);
    }
}

#[test]
fn a_watched_condition_tells_places() {
    let home = HomeDir::new();
    let server = Server::start(&home.dir("server"));
    let (a, b) = (home.shell("a", &server.url), home.shell("b", &server.url));
    a.online(&["save", "todos", r#"{"n": 1}"#, "--id", "x"]).ends_with(0);
    let watch = ["watch", "todos", "--where", "n exists", "--order-by", "-n", "--limit", "1"];
    let mut command = crate::support::command();
    let watch =
        Process::start(command.args(watch).args(["--server", &b.server, "--data"]).arg(&b.data));
    let told = |change: &str, at: u64, id: &str| {
        let line = watch.line();
        assert_eq!(
            (&line["change"], &line["at"], &line["id"], &line["collection"]),
            (&json!(change), &json!(at), &json!(id), &json!("todos"))
        );
    };
    told("entered", 0, "x");
    a.online(&["save", "todos", r#"{"n": 2}"#, "--id", "y"]).ends_with(0);
    told("left", 0, "x");
    told("entered", 0, "y");
    a.online(&["update", "todos", "y", r#"{"n": 3}"#]).ends_with(0);
    let line = watch.line();
    assert_eq!(
        (&line["change"], &line["from"], &line["to"]),
        (&json!("modified"), &json!(0), &json!(0))
    );
    a.online(&["delete", "todos", "y"]).ends_with(0);
    told("left", 0, "y");
    told("entered", 0, "x");
}
