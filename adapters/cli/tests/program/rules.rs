//! Files of rules: checked, tested, explained, and kept by a server.

use std::fs;

use serde_json::json;

use crate::support::{HomeDir, Process, Server, run};

const RULES: &str = r#"
[collections.notes]
read = 'user in data.members'
create = 'new.owner == user'
update = '''
user in data.members &&
  !("owner" in changed)'''
delete = 'data.owner == user'

[[tests]]
name = "a member"
user = "bob"
collection = "notes"
data = { owner = "ann", members = ["ann", "bob"] }
new = { owner = "ann", members = ["bob"] }
can = ["read", "update"]
cannot = ["create", "delete"]
"#;

#[test]
fn the_rules_of_a_configuration_are_tested_and_explained_too() {
    let home = HomeDir::new();
    let file = home.dir("server.toml");
    let file = file.to_str().unwrap();
    let scopes = "[collections.notes]\nscopes = ['owner']";
    let rules = RULES.replace("[collections.notes]", scopes);
    fs::write(file, format!("max_record = '1M'\n{rules}")).unwrap();
    run(["config", "check", file]).ends_with(0);
    let tested = run(["rules", "test", file, "--json"]).ends_with(0).json();
    assert_eq!(tested, json!({ "passed": 4, "failed": 0 }));
    let explain = ["rules", "explain", file, "notes", "delete", "--user", "ann", "--json"];
    let data = ["--data", r#"{"owner":"ann"}"#];
    let explained = run(explain.iter().chain(&data)).ends_with(0).json();
    assert_eq!(explained["granted"], json!(true));
    let refused = run(["rules", "check", file]).ends_with(2);
    assert!(refused.stderr.contains("there is no key `max_record` in a file"), "{refused:?}");
}

#[test]
fn a_file_of_rules_is_checked_tested_and_explained() {
    let home = HomeDir::new();
    let file = home.dir("rules.toml");
    let file = file.to_str().unwrap();
    fs::write(file, RULES).unwrap();
    let checked = run(["rules", "check", file, "--json"]).ends_with(0).json();
    assert_eq!(checked, json!({ "rules": { "notes": 4 }, "tests": 1 }));
    let tested = run(["rules", "test", file, "--json"]).ends_with(0).json();
    assert_eq!(tested, json!({ "passed": 4, "failed": 0 }));

    let explain = ["rules", "explain", file, "notes", "update", "--user", "eve", "--json"];
    let data = ["--data", r#"{"members":["ann"]}"#];
    let explained = run(explain).ends_with(0).json();
    assert_eq!(explained["granted"], json!(null));
    let explained = run(explain.iter().chain(&data)).ends_with(0).json();
    assert_eq!((&explained["granted"], &explained["rule"]), (&json!(false), &json!("update")));
    assert_eq!(explained["conditions"][0], json!(["user in data.members", "false"]));

    fs::write(file, RULES.replace("can = [\"read\"", "can = [\"delete\"")).unwrap();
    let failed = run(["rules", "test", file]).ends_with(1);
    assert!(
        failed.stdout.contains("a member: it should be that the user can delete"),
        "{failed:?}"
    );
    assert!(failed.stdout.contains("data.owner == user: false"), "{failed:?}");

    fs::write(file, RULES.replace("changed)'''", "change)'''")).unwrap();
    let wrong = run(["rules", "check", file]).ends_with(2);
    assert!(wrong.stderr.contains("line 7, column 16: `update` of notes"), "{wrong:?}");
    let server = home.dir("server");
    let serve = ["serve", "--data", server.to_str().unwrap(), "--rules", file];
    assert!(run(serve).ends_with(2).stderr.contains("line 7"));
}

#[test]
fn a_server_keeps_the_rules_of_its_file() {
    let home = HomeDir::new();
    let file = home.dir("rules.toml");
    fs::write(&file, RULES).unwrap();
    let tokens = ["--token", "ann=a", "--token", "bob=b", "--token", "eve=e"];
    let rules = ["--rules", file.to_str().unwrap()];
    let more = [&tokens[..], &rules[..]].concat();
    let server = Server::start_with(&home.dir("server"), "127.0.0.1:0", &more);
    let [ann, bob, eve] = ["ann", "bob", "eve"].map(|name| home.shell(name, &server.url));
    let note = r#"{"owner":"ann","members":["ann","bob"]}"#;
    ann.online(&["save", "notes", note, "--id", "n", "--token", "a"]).ends_with(0);
    let theirs = eve.online(&["save", "notes", note, "--id", "m", "--token", "e"]).ends_with(5);
    assert!(theirs.stdout.contains("the rule `create` of notes"), "{theirs:?}");
    let listed = |ended: crate::support::Ended| ended.ends_with(0).lines().len();
    assert_eq!(listed(bob.online(&["list", "notes", "--token", "b"])), 1);
    assert_eq!(listed(eve.online(&["list", "notes", "--token", "e"])), 0);
    bob.online(&["update", "notes", "n", r#"{"text":"hi"}"#, "--token", "b"]).ends_with(0);
    bob.online(&["delete", "notes", "n", "--token", "b"]).ends_with(5);
    let other = ann.online(&["save", "other", "{}", "--token", "a"]).ends_with(5);
    assert!(other.stdout.contains("no rule of other permits a create"), "{other:?}");
}

#[test]
fn a_watch_names_the_records_of_what_is_refused() {
    let home = HomeDir::new();
    let (rules, writes) = (home.dir("rules.toml"), home.dir("writes"));
    fs::write(&rules, RULES).unwrap();
    let rules = ["--token", "eve=e", "--rules", rules.to_str().unwrap()];
    let server = Server::start_with(&home.dir("server"), "127.0.0.1:0", &rules);
    let eve = home.shell("eve", &server.url);
    let note = r#"{"owner":"ann","members":["ann"]}"#;
    eve.offline(&["save", "notes", note, "--id", "m"]).ends_with(3);
    let line =
        |id| format!(r#"{{"type":"insert","collection":"notes","recordId":"{id}","data":{note}}}"#);
    fs::write(&writes, ["p", "q", "r", "s"].map(line).join("\n")).unwrap();
    eve.offline(&["transaction", writes.to_str().unwrap()]).ends_with(3);
    let watch = ["watch", "notes", "--token", "e", "--server", &server.url];
    let watching = Process::start(&mut eve.command(&watch));
    watching.tells("refused a waiting write to notes/m (UNAUTHORIZED)");
    watching.tells(
        "the waiting transaction of notes/p, notes/q, notes/r and 1 more was rejected (UNAUTHORIZED)",
    );
}

#[test]
fn sighup_takes_over_the_rules_of_the_file() {
    let home = HomeDir::new();
    let file = home.dir("rules.toml");
    fs::write(&file, RULES).unwrap();
    let rules = ["--token", "ann=a", "--token", "bob=b", "--rules", file.to_str().unwrap()];
    let server = Server::start_with(&home.dir("server"), "127.0.0.1:0", &rules);
    let [ann, bob] = ["ann", "bob"].map(|name| home.shell(name, &server.url));
    let note = r#"{"owner":"ann","members":["ann","bob"]}"#;
    ann.online(&["save", "notes", note, "--id", "n", "--token", "a"]).ends_with(0);
    let watch = ["watch", "notes", "--token", "b", "--server", &server.url];
    let watching = Process::start(&mut bob.command(&watch));
    watching.tells("in sync");

    // a file that can't be used changes nothing
    fs::write(&file, "[collections.notes]\nread = 'usr'").unwrap();
    server.process.signal("HUP");
    server.process.tells("the rules stay as they were");
    fs::write(&file, RULES.replace("read = 'user in data.members'", "read = 'data.owner == user'"))
        .unwrap();
    server.process.signal("HUP");
    server.process.tells("took over the rules");
    // what bob may not see any more goes, while he is connected
    while watching.line()["change"] != "removed" {}
}
