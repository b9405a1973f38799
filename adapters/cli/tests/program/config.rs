//! The configuration file of a server.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::{HomeDir, Process, Server, command, run};

const RULES: &str = r#"
[collections.notes]
scopes = ["owner"]
read = 'data.owner == user'
write = 'data.owner == user'
"#;

#[test]
fn a_server_takes_its_configuration_from_a_file() {
    let home = HomeDir::new();
    let [file, tokens] = ["server.toml", "tokens"].map(|name| home.dir(name));
    fs::write(&tokens, "ann=a\nbob=b\n").unwrap();
    let keys = format!(
        "listen = '127.0.0.1:1'\nmax_record = 200\nretention = '1d'\n[tokens]\nfile = {:?}\n",
        tokens.to_str().unwrap()
    );
    fs::write(&file, format!("{keys}{RULES}")).unwrap();
    run(["config", "check", file.to_str().unwrap()]).ends_with(0);
    let config = ["--config", file.to_str().unwrap()];
    // a flag takes the place of its key: with a key of another port nothing would be found
    let server = Server::start_with(&home.dir("server"), "127.0.0.1:0", &config);
    let [ann, bob] = ["ann", "bob"].map(|name| home.shell(name, &server.url));
    let note = r#"{"owner":"ann"}"#;
    ann.online(&["save", "notes", note, "--id", "n", "--token", "a"]).ends_with(0);
    bob.online(&["save", "notes", note, "--id", "m", "--token", "b"]).ends_with(5);
    let large = format!(r#"{{"owner":"ann","text":"{}"}}"#, "x".repeat(300));
    ann.online(&["save", "notes", &large, "--token", "a"]).ends_with(5);

    let watch = ["watch", "notes", "--token", "a", "--server", &server.url];
    let watching = Process::start(&mut ann.command(&watch));
    watching.tells("in sync");
    // rules are taken over, and of the rest the log says that it waits for a restart
    let other = RULES.replace("read = 'data.owner == user'", "read = 'data.owner == \"nobody\"'");
    fs::write(&file, format!("{}{other}", keys.replace("200", "300"))).unwrap();
    server.process.signal("HUP");
    server.process.tells("takes effect with a restart option=\"max-record\"");
    server.process.tells("took over the rules");
    while watching.line()["change"] != "removed" {}
}

#[test]
fn a_configuration_that_can_t_be_used_is_told_before_anything_runs() {
    let home = HomeDir::new();
    let file = home.dir("server.toml");
    let file = file.to_str().unwrap();
    for (text, said) in [
        ("listn = '127.0.0.1:0'", "there is no key `listn`"),
        ("listen = 'nowhere'", "--listen"),
        ("listen = ", "line 1"),
        ("[collections.a]\nread = 'usr'", "line 2, column 9"),
        ("rules = 'none.toml'", "none.toml"),
    ] {
        fs::write(file, text).unwrap();
        let data = home.dir("server");
        let serve = ["serve", "--config", file, "--data", data.to_str().unwrap()];
        for arguments in [&["config", "check", file][..], &serve[..]] {
            let ended = run(arguments).ends_with(2);
            assert!(ended.stderr.contains(said), "{text}: {ended:?}");
        }
    }
    let printed = run(["config", "print"]).ends_with(0);
    fs::write(file, &printed.stdout).unwrap();
    run(["config", "check", file]).ends_with(0);
    assert!(printed.stdout.contains("\n# retention = "), "{printed:?}");
}

/// A pipe has its content once: read again it would be an empty file, without rules.
#[test]
fn a_configuration_is_read_once() {
    let text = "listen = '127.0.0.1:0'\n[collections.a]\nread = 'true'\nscopes = ['b']\n";
    let check = |text: &str| {
        let mut command = command();
        let mut process = command
            .args(["config", "check", "/dev/stdin", "--json"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        process.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        process.wait_with_output().unwrap()
    };
    let checked = check(text);
    let told: Value = serde_json::from_slice(&checked.stdout).unwrap();
    assert_eq!((checked.status.code(), &told["keys"]), (Some(0), &json!(3)), "{checked:?}");
    let wrong = check(&text.replace("true", "usr"));
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("line 3"), "{wrong:?}");
}

/// The file that the guide shows is one that a server takes.
#[test]
fn the_configuration_in_the_guide_can_be_used() {
    let guide = include_str!("../../../tokio/guide/server.md");
    let shown = guide.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let home = HomeDir::new();
    for (name, content) in [("secret", "an example of thirty-two bytes.."), ("revoked", "")] {
        fs::write(home.dir(name), content).unwrap();
    }
    let directory = home.dir("server.toml").parent().unwrap().to_str().unwrap().to_owned();
    fs::write(home.dir("server.toml"), shown.replace("/etc/synclayer", &directory)).unwrap();
    run(["config", "check", home.dir("server.toml").to_str().unwrap()]).ends_with(0);
}
