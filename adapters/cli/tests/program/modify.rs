//! Records that are changed by a program that reads them.

use std::fs;

use serde_json::json;

use crate::support::{Ended, HomeDir, Server, Shell, command, finish};

/// Adds one to the field `n`, and leaves the others out.
const ADD_ONE: &str =
    r#"read r; n=$(echo "$r" | sed 's/.*"n":\([0-9]*\).*/\1/'); echo "{\"n\":$((n+1))}""#;

impl Shell {
    fn modify(&self, script: &str) -> Ended {
        self.modify_with(&["--server", &self.server, "--timeout", "30"], script)
    }

    fn modify_with(&self, more: &[&str], script: &str) -> Ended {
        let mut command = self.command(&["modify", "todos", "x"]);
        finish(command.args(more).args(["--", "sh", "-c", script]))
    }
}

#[test]
fn a_program_changes_a_record_by_what_it_is() {
    let home = HomeDir::new();
    let server = Server::start(&home.dir("server"));
    let (a, b) = (home.shell("a", &server.url), home.shell("b", &server.url));
    a.online(&["save", "todos", r#"{"n":1,"t":"x"}"#, "--id", "x"]).ends_with(0);
    // a replica that has not seen the record yet fetches it first
    let modified = b.modify(ADD_ONE).ends_with(0).json();
    assert_eq!((&modified["done"], &modified["state"]), (&json!("modified"), &json!("synced")));
    assert_eq!(a.data("todos", "x"), json!({"n": 2}));
    // and one that has an old state of it counts on from the new one
    a.modify(ADD_ONE).ends_with(0);
    b.modify(ADD_ONE).ends_with(0);
    assert_eq!(a.data("todos", "x"), json!({"n": 4}));
    // one that leaves it as it was is fine too
    a.modify("cat").ends_with(0);
    // without a server the write waits
    a.modify_with(&[], ADD_ONE).ends_with(3);
    assert_eq!(b.data("todos", "x"), json!({"n": 4}));
    assert_eq!(a.data("todos", "x"), json!({"n": 5}));
    assert_eq!(b.data("todos", "x"), json!({"n": 5}));
}

#[test]
fn what_arrives_while_the_program_runs_is_not_lost() {
    let home = HomeDir::new();
    let server = Server::start(&home.dir("server"));
    let (a, b) = (home.shell("a", &server.url), home.shell("b", &server.url));
    a.online(&["save", "todos", r#"{"n":1}"#, "--id", "x"]).ends_with(0);
    let (program, url, data) = (command(), &server.url, b.data.display());
    let program = program.get_program().to_string_lossy();
    let script = format!(
        "{program} update todos x '{{\"m\":1}}' --server {url} --data {data} --timeout 30 >&2; \
         echo >> {runs}; sed 's/\"n\":1/\"n\":2/'",
        runs = home.dir("runs").display()
    );
    a.modify(&script).ends_with(0);
    assert!(!fs::read_to_string(home.dir("runs")).unwrap().is_empty());
    assert_eq!(b.data("todos", "x"), json!({"n": 2, "m": 1}));
    assert_eq!(a.standing("todos"), b.standing("todos"));
}

#[test]
fn where_the_program_fails_nothing_is_changed() {
    let home = HomeDir::new();
    let a = home.shell("a", "http://localhost");
    a.offline(&["save", "todos", r#"{"n":1}"#, "--id", "x"]).ends_with(3);
    for (script, said) in [
        ("echo '{}'; exit 7", "sh failed (exit status: 7)"),
        ("kill -9 $$", "sh failed (signal: 9"),
        ("true", "it is empty"),
        ("echo '[1]'", "can't take the record's place"),
        ("echo '{}'; echo '{}'", "can't take the record's place"),
        ("printf '\\377'", "can't take the record's place"),
    ] {
        let ended = a.modify_with(&[], script).ends_with(1);
        assert!(ended.stderr.contains(said), "{script}: {ended:?}");
        assert!(ended.stderr.contains("nothing was changed"), "{script}: {ended:?}");
    }
    let mut none = a.command(&["modify", "todos", "x"]);
    let none = finish(none.args(["--", "there-is-no-such-program"])).ends_with(2);
    assert!(none.stderr.contains("there-is-no-such-program can't be run"), "{none:?}");
    finish(&mut a.command(&["modify", "todos", "x"])).ends_with(2);
    let missing = finish(a.command(&["modify", "todos", "y"]).args(["--", "cat"])).ends_with(4);
    assert!(missing.stderr.contains("todos") && missing.stderr.contains('y'), "{missing:?}");
    assert_eq!(a.offline(&["get", "todos", "x"]).ends_with(0).json()["data"], json!({"n": 1}));
}
