//! Collections as files of JSON lines.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::{HomeDir, Server};

#[test]
fn what_is_exported_is_imported_and_again_changes_nothing() {
    let home = HomeDir::new();
    let server = Server::start(&home.dir("server"));
    let (a, b) = (home.shell("a", &server.url), home.shell("b", &server.url));
    let lines: String = (0..250)
        .map(|n| {
            format!("{}\n", json!({"id": format!("r{n:03}"), "data": {"n": n, "even": n % 2 == 0}}))
        })
        .collect();
    let file = home.dir("records.jsonl");
    let path = file.to_str().unwrap();
    fs::write(&file, format!("{lines}\n")).unwrap();

    let made = a.online(&["import", "records", path]).ends_with(0).json();
    assert_eq!(
        (&made["count"], &made["unchanged"], &made["waiting"]),
        (&json!(250), &json!(0), &json!(0))
    );
    // elsewhere too, where nothing is held yet
    for shell in [&a, &b] {
        let again = shell.online(&["import", "records", path]).ends_with(0).json();
        assert_eq!((&again["count"], &again["unchanged"]), (&json!(250), &json!(250)));
        let status = shell.online(&["status"]).ends_with(0).json();
        assert_eq!(status["metrics"]["operationsQueued"], 0);
        assert_eq!(status["collections"]["records"]["seq"], 250);
    }
    let exported = b.online(&["export", "records"]).ends_with(0);
    assert_eq!(
        exported.lines(),
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
    );
    let even = b.online(&["export", "records", "--where", "even=true"]).ends_with(0);
    assert_eq!(even.lines().len(), 125);

    // as the other commands print it, through a pipe
    let mut listed = a.online(&["list", "records", "--limit", "101"]).ends_with(0).stdout;
    listed = listed.replace("\"n\":100", "\"n\":-100");
    let mut piped = b.command(&["import", "records", "-", "--server", &server.url]);
    let mut piped = piped.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    piped.stdin.take().unwrap().write_all(listed.as_bytes()).unwrap();
    let ended = piped.wait_with_output().unwrap();
    let told: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!((&told["count"], &told["unchanged"]), (&json!(101), &json!(100)), "{told}");
    assert_eq!(a.data("records", "r100"), json!({"n": -100, "even": true}));
}

#[test]
fn bare_records_have_their_id_in_a_field() {
    let home = HomeDir::new();
    let a = home.shell("a", "http://192.0.2.1:1");
    let file = home.dir("bare.jsonl");
    let lines = "{\"key\":1,\"n\":1.50}\n{\"key\":\"b\",\"n\":2}\n";
    fs::write(&file, lines).unwrap();
    let path = file.to_str().unwrap();
    let made = a.offline(&["import", "bare", path, "--id-field", "key"]).ends_with(3).json();
    assert_eq!((&made["count"], &made["waiting"]), (&json!(2), &json!(2)));
    let bare = a.offline(&["export", "bare", "--id-field", "key"]).ends_with(0);
    assert_eq!(bare.stdout, lines);
    let named = a.offline(&["export", "bare", "--id-field", "name"]).ends_with(0);
    assert_eq!(named.lines()[1], json!({"key": "b", "n": 2, "name": "b"}));
    let lost = a.offline(&["export", "bare", "--id-field", "n"]).ends_with(1);
    assert!(lost.stdout.is_empty() && lost.stderr.contains("is not its id"), "{lost:?}");
}

#[test]
fn an_import_names_the_line_that_it_can_not_use_and_what_was_saved() {
    let home = HomeDir::new();
    let a = home.shell("a", "http://192.0.2.1:1");
    let file = home.dir("records.jsonl");
    let path = file.to_str().unwrap();
    let line = |n: usize| format!("{{\"id\":\"{n}\",\"data\":{{}}}}\n");
    let mut lines: Vec<_> = (1..=250).map(line).collect();
    lines[170] = "{\"id\":\"171\",\"data\":[]}\n".to_owned();
    fs::write(&file, lines.concat()).unwrap();
    let ended = a.offline(&["import", "t", path]).ends_with(2);
    for told in ["line 171", "a record has named fields", "lines 1 to 100 were imported", "Mend"] {
        assert!(ended.stderr.contains(told), "{told}: {ended:?}");
    }
    assert_eq!((&ended.json()["count"], &ended.json()["waiting"]), (&json!(100), &json!(100)));
    assert_eq!(a.offline(&["count", "t"]).ends_with(0).json()["count"], 100);
    lines[170] = line(171);
    fs::write(&file, lines.concat()).unwrap();
    let again = a.offline(&["import", "t", path]).ends_with(3).json();
    assert_eq!((&again["count"], &again["unchanged"]), (&json!(250), &json!(100)));
    fs::write(&file, "no\n").unwrap();
    let ended = a.offline(&["import", "t", path]).ends_with(2);
    assert!(ended.stderr.contains("line 1") && ended.stderr.contains("nothing was imported"));
    let ended = a.offline(&["import", "t", "/does/not/exist"]).ends_with(2);
    assert!(ended.stderr.contains("check the path"), "{ended:?}");
}
