//! Users sign out of a directory.

use serde_json::json;

use crate::support::{HomeDir, Server};

#[test]
fn what_a_user_leaves_waits_for_their_return() {
    let home = HomeDir::new();
    let a = home.shell("a", "http://localhost");
    a.offline(&["save", "todos", r#"{"n":1}"#, "--id", "x", "--user", "ann"]).ends_with(3);
    let told = a.offline(&["sign-out", "--user", "ann"]).ends_with(0).json();
    let expected =
        json!({"done": "signed-out", "user": "ann", "wiped": false, "waiting": 1, "rejected": 0});
    assert_eq!(told, expected);
    let mine = a.offline(&["get", "todos", "x", "--user", "ann"]).ends_with(0).json();
    assert_eq!((&mine["data"], &mine["pending"]), (&json!({"n": 1}), &json!(true)));
}

#[test]
fn a_wipe_removes_what_the_server_has_and_names_what_it_has_not() {
    let home = HomeDir::new();
    let server = Server::start(&home.dir("server"));
    let a = home.shell("a", &server.url);
    for user in ["ann", "bob"] {
        a.offline(&["save", "todos", r#"{"n":1}"#, "--id", user, "--user", user]).ends_with(3);
    }
    let refused = a.offline(&["sign-out", "--wipe", "--user", "ann"]).ends_with(3);
    assert!(refused.stderr.contains("todos/ann"), "{refused:?}");
    assert!(!refused.stderr.contains("todos/bob"), "{refused:?}");
    assert!(refused.stderr.contains("--unsent"), "{refused:?}");
    a.offline(&["get", "todos", "ann", "--user", "ann"]).ends_with(0);

    // where the server can be reached, what waits goes there first
    let told = a.online(&["sign-out", "--wipe", "--user", "ann"]).ends_with(0).json();
    assert_eq!((&told["wiped"], &told["waiting"]), (&json!(true), &json!(0)));
    a.offline(&["get", "todos", "ann", "--user", "ann"]).ends_with(4);
    assert_eq!(a.offline(&["list", "todos", "--user", "bob"]).ends_with(0).json()["id"], "bob");
    a.online(&["get", "todos", "ann", "--user", "ann"]).ends_with(0);

    // and what does not, only with a word more
    a.offline(&["save", "todos", "{}", "--id", "y", "--user", "ann"]).ends_with(3);
    a.offline(&["sign-out", "--unsent", "--user", "ann"]).ends_with(2);
    let told = a.offline(&["sign-out", "--wipe", "--unsent", "--user", "ann"]).ends_with(0).json();
    assert_eq!(told["waiting"], 1);
    assert_eq!(a.offline(&["list", "todos", "--user", "ann"]).ends_with(0).stdout, "");
    a.online(&["get", "todos", "ann", "--user", "ann"]).ends_with(0);
    a.online(&["get", "todos", "y", "--user", "ann"]).ends_with(4);
}
