//! Directories that hold something else than what a command needs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Ended, HomeDir, Process, Server, command, finish, run, skipped};

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

/// All that is below a directory, and the bits of its mode that are not its owner's.
fn of_others(path: &Path) -> Vec<(PathBuf, u32)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        found.push((entry.path(), metadata.permissions().mode() & 0o077));
        if metadata.is_dir() {
            found.extend(of_others(&entry.path()));
        }
    }
    found
}

#[test]
fn all_files_are_their_owners_alone() {
    let home = HomeDir::new();
    let script = |text: String| {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("umask 022; exec {text}")]);
        shell
    };
    let program = env!("CARGO_BIN_EXE_synclayer");
    let (data, server) = (home.dir("data"), home.dir("server"));
    let (data, server) = (data.display(), server.display());
    let serve = format!("{program} serve --json --listen 127.0.0.1:0 --data {server}");
    let mut serve = Process::start(&mut script(serve));
    let url = serve.line()["url"].as_str().unwrap().to_owned();
    let on = format!("--data {data} --server {url}");
    finish(&mut script(format!("{program} save todos '{{}}' --id x {on}"))).ends_with(0);
    // but a program that is run makes its own as ever
    let made = home.dir("made");
    let modify = format!("'tee {}'", made.display());
    finish(&mut script(format!("{program} modify todos x {on} -- sh -c {modify}"))).ends_with(0);
    assert_eq!(fs::metadata(made).unwrap().permissions().mode() & 0o777, 0o644);
    assert!(serve.terminate().success());
    for store in ["data", "server"] {
        let found = of_others(&home.dir(store));
        assert!(found.len() > 5, "{found:?}");
        let open: Vec<_> = found.iter().filter(|(_, mode)| *mode != 0).collect();
        assert!(open.is_empty(), "{open:?}");
    }
}

/// The program as a user without rights: as nobody, if the tests are root's. `None` where that can't
/// be done.
fn unprivileged() -> Option<Command> {
    let as_user = || {
        let program = env!("CARGO_BIN_EXE_synclayer");
        if !rustix::process::geteuid().is_root() {
            return Command::new(program);
        }
        let mut nobody = Command::new("setpriv");
        nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program);
        nobody
    };
    let runs = as_user().arg("--version").output().is_ok_and(|ended| ended.status.success());
    runs.then(as_user)
}

#[test]
fn a_directory_that_may_not_be_used_names_the_user_and_the_owner() {
    let home = HomeDir::new();
    let (closed, own) = (home.dir("closed"), home.dir("own"));
    let list = |data: &Path| {
        let mut list = unprivileged()?;
        list.args(["list", "todos", "--data"]).arg(data);
        Some(finish(&mut list).ends_with(1).stderr)
    };
    home.shell("own", "http://localhost").offline(&["save", "todos", "{}"]).ends_with(3);
    let me = rustix::process::geteuid();
    fs::create_dir(&closed).unwrap();
    for path in [home.dir(""), own.clone()] {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o500)).unwrap();
    let entries: Vec<_> = if me.is_root() { vec![own] } else { Vec::new() };
    for data in [vec![closed.clone(), closed.join("new")], entries].concat() {
        let Some(told) = list(&data) else {
            return skipped("there is no setpriv to run as another user");
        };
        let path = if data.ends_with("new") { &closed } else { &data };
        let owner = format!("may not use {}, which is user {}'s", path.display(), me.as_raw());
        for words in [owner.as_str(), "chown -R", "has the mode"] {
            assert!(told.contains(words), "{words}: {told}");
        }
    }
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn a_directory_that_others_may_write_to_is_told() {
    let home = HomeDir::new();
    let data = home.dir("data");
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o777)).unwrap();
    let a = home.shell("data", "http://127.0.0.1:1");
    let told = a.offline(&["list", "todos"]).ends_with(1).stderr;
    assert!(told.contains(&format!("chmod -R go-w {}", data.display())), "{told}");
}
