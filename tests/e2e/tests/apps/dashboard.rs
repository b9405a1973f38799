//! The dashboard.

use serde_json::Value;

use crate::support::{Process, Server};

/// A day of ten devices in some seconds, of which the last six hours are kept.
const DAY: [&str; 10] =
    ["--devices", "10", "--rate", "400", "--speed", "24000", "--keep", "360", "--hours", "24"];

fn dashboard(server: &Server, arguments: &[&str]) -> Process {
    let own = ["--script", "--server", &server.url];
    Process::start(env!("CARGO_BIN_EXE_dashboard"), &[&own[..], arguments].concat())
}

fn settled(view: &Value) -> bool {
    view["complete"] == true && view["waiting"] == 0
}

#[test]
fn a_day_passes_and_the_devices_are_offline_in_the_middle() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(&home.path().join("server"), &["--durability", "buffered"]);
    let mut shown = dashboard(&server, &[]);
    let mut devices = dashboard(&server, &DAY);
    shown.shows(|view| view["readings"].as_u64() > Some(100));

    devices.enter("/offline");
    devices.shows(|view| view["online"] == false && view["waiting"].as_u64() > Some(100));
    // the window is full, and what leaves it goes, also without a network
    devices.shows(|view| view["minutes"].as_f64() >= Some(360.0));
    devices.enter("/online");

    // a step is ten minutes: the window of six hours has 37 readings of each device, and both show them
    let full = |view: &Value| settled(view) && view["readings"] == 370;
    let end = devices.shows(|view| full(view) && view["reporting"] == false);
    assert_eq!(end["minutes"], 360.0);
    let ends = shown.shows(|view| full(view) && view["devices"] == end["devices"]);
    assert_eq!(ends["devices"].as_array().unwrap().len(), 10);
    devices.quit();
    shown.quit();
}
