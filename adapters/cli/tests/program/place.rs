//! Directories that hold something else than what a command needs.

use std::fs;
use std::path::Path;

use crate::support::{Ended, HomeDir, Server, command, finish, run};

fn serve(data: &Path) -> Ended {
    let args = ["serve", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()];
    run(args)
}

#[track_caller]
fn says(ended: Ended, words: &[&str]) {
    let ended = ended.ends_with(10);
    for word in words {
        assert!(ended.stderr.contains(word), "{ended:?}");
    }
}

#[test]
fn a_server_and_a_replica_refuse_each_others_directory() {
    let home = HomeDir::new();
    let mut server = Server::start(&home.dir("server"));
    let a = home.shell("a", &server.url);
    a.online(&["save", "todos", r#"{"n":1}"#, "--id", "x"]).ends_with(0);
    assert!(server.process.terminate().success());

    says(
        serve(&a.data),
        &["the store of a client", "nothing was changed", "SYNCLAYER_SERVER_DATA"],
    );
    let at_server = home.shell("server", &server.url);
    for args in [&["status"][..], &["list", "todos"], &["save", "todos", "{}"], &["watch", "todos"]]
    {
        let ended = at_server.offline(args);
        says(ended, &["the store of a server", "nothing was changed", "SYNCLAYER_DATA"]);
    }
    // both go on as if nothing had happened
    let server = Server::start(&home.dir("server"));
    let b = home.shell("b", &server.url);
    assert_eq!(b.data("todos", "x"), serde_json::json!({"n": 1}));
    assert_eq!(a.offline(&["list", "todos"]).ends_with(0).lines().len(), 1);
}

#[test]
fn other_files_and_a_file_are_no_place_for_data() {
    let home = HomeDir::new();
    let (work, file) = (home.dir("work"), home.dir("file"));
    fs::create_dir(&work).unwrap();
    fs::write(work.join("report.txt"), "mine").unwrap();
    fs::write(&file, "mine").unwrap();
    for (name, word) in [("work", "report.txt"), ("file", "is a file")] {
        let a = home.shell(name, "http://localhost");
        for args in [&["status"][..], &["save", "todos", "{}"], &["repair"], &["repair", "--force"]]
        {
            says(a.offline(args), &[word, "nothing was changed"]);
        }
        says(serve(&home.dir(name)), &[word, "nothing was changed"]);
    }
    let left: Vec<_> =
        fs::read_dir(&work).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["report.txt"], "something was made among another's files");
}

/// In one shell, a variable that is meant for the replica must not start a server on it.
#[test]
fn a_server_has_a_variable_of_its_own() {
    let home = HomeDir::new();
    let ended = finish(command().arg("serve").env("SYNCLAYER_DATA", home.dir("a")));
    assert!(ended.ends_with(2).stderr.contains("--data"));
    assert!(!home.dir("a").exists());
    let mut status = command();
    status.arg("status").env("SYNCLAYER_SERVER_DATA", home.dir("b"));
    assert!(finish(&mut status).ends_with(2).stderr.contains("--data"));
    let mut serve = command();
    serve.args(["serve", "--listen", "0.0.0.0:0"]).env("SYNCLAYER_SERVER_DATA", home.dir("b"));
    assert!(finish(&mut serve).ends_with(2).stderr.contains("loopback"));
}
