//! A device whose clock is far off.

use std::process::Command;

use crate::support::{HomeDir, Server, command, finish, skipped};

#[test]
fn a_clock_that_is_far_off_is_told_at_the_place_where_one_looks() {
    if Command::new("faketime").arg("--version").output().is_err() {
        return skipped("there is no faketime (`.ci/run` installs it)");
    }
    let home = HomeDir::new();
    let server = Server::start(&home.dir("server"));
    let on = |shift: &str, args: &[&str]| {
        let mut shifted = Command::new("faketime");
        shifted.args(["-f", shift]).arg(command().get_program()).args(args);
        shifted.args(["--server", &server.url, "--data"]).arg(home.dir("replica"));
        finish(&mut shifted).ends_with(0)
    };
    let ahead = "this device's clock is 365 days ahead of the server's: set it";
    let saved = on("+365d", &["save", "notes", "{}"]);
    assert!(saved.stderr.contains(ahead), "{saved:?}");
    let list = on("+365d", &["list", "notes"]);
    assert!(list.stderr.contains(ahead), "{list:?}");
    let behind = "clock     this device's clock is 3 hours behind the server's: set it";
    let status = on("-3h", &["status"]);
    assert!(status.stdout.contains(behind), "{status:?}");
    let status = on("-3h", &["status", "--json"]).json();
    assert_eq!(status["clockIsOff"], true, "{status}");
    let status = on("+20s", &["status"]);
    assert!(!status.stdout.contains("clock"), "{status:?}");
}
