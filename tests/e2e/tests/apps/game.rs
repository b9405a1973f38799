//! The game.

use serde_json::Value;

use crate::support::{Process, Server};

fn game(server: &Server, name: &str, arguments: &[&str]) -> Process {
    let address = server.url.strip_prefix("http://").unwrap();
    let own = [name, "--script", "--server", address];
    Process::start(env!("CARGO_BIN_EXE_game"), &[&own[..], arguments].concat())
}

fn server(home: &tempfile::TempDir) -> Server {
    Server::start(&home.path().join("server"), &["--durability", "buffered"])
}

/// A player's place and their coins, as a device shows them.
fn player(view: &Value, name: &str) -> Option<(i64, i64, u64)> {
    let players = view["players"].as_array().unwrap();
    let player = players.iter().find(|player| player[0] == name)?;
    Some((player[1].as_i64()?, player[2].as_i64()?, player[3].as_u64()?))
}

fn score(view: &Value, name: &str) -> u64 {
    player(view, name).map_or(0, |(_, _, coins)| coins)
}

#[test]
fn players_see_each_other_move_and_one_who_joins_late_sees_all() {
    let home = tempfile::tempdir().unwrap();
    let server = server(&home);
    let (mut ann, mut bob) = (game(&server, "ann", &[]), game(&server, "bob", &[]));
    ann.enter("/go 3 4");
    bob.shows(|view| player(view, "ann").is_some_and(|(x, y, _)| (x, y) == (3, 4)));
    ann.enter("/go 6 8");
    bob.shows(|view| player(view, "ann").is_some_and(|(x, y, _)| (x, y) == (6, 8)));
    let mut late = game(&server, "cid", &[]);
    late.shows(|view| {
        player(view, "bob").is_some() && player(view, "ann").is_some_and(|p| (p.0, p.1) == (6, 8))
    });
    bob.quit();
    late.shows(|view| player(view, "bob").is_none());
}

#[test]
fn of_two_who_pick_up_one_coin_one_gets_it() {
    let home = tempfile::tempdir().unwrap();
    let server = server(&home);
    let (mut ann, mut bob) = (game(&server, "ann", &[]), game(&server, "bob", &["--coins", "1"]));
    for device in [&mut ann, &mut bob] {
        device.enter("/go 25 10");
        device.shows(|view| view["coins"] == 1);
    }
    for name in ["ann", "bob"] {
        ann.shows(|view| player(view, name).is_some_and(|(x, y, _)| (x, y) == (25, 10)));
    }
    // both run at once; whoever is told that somebody was faster has none
    ann.enter("/go 35 10");
    bob.enter("/go 35 10");
    let settled = |view: &Value| {
        let there = |name| player(view, name).is_some_and(|(x, y, _)| (x, y) == (35, 10));
        there("ann") && there("bob") && score(view, "ann") + score(view, "bob") == 1
    };
    let of_bob = bob.shows(settled);
    let winner = if score(&of_bob, "ann") == 1 { "ann" } else { "bob" };
    ann.shows(|view| settled(view) && score(view, winner) == 1);
}

#[test]
fn a_coin_picked_up_offline_goes_to_who_was_faster() {
    let home = tempfile::tempdir().unwrap();
    let server = server(&home);
    let (mut ann, mut bob) = (game(&server, "ann", &[]), game(&server, "bob", &["--coins", "1"]));
    ann.shows(|view| view["coins"] == 1);
    ann.enter("/offline");
    ann.shows(|view| view["online"] == false);
    bob.enter("/go 30 10");
    bob.shows(|view| score(view, "bob") == 1);
    // later by the clock: if that decided, the coin would go over to her
    ann.enter("/go 30 10");
    ann.shows(|view| score(view, "ann") == 1);
    ann.enter("/online");
    ann.shows(|view| score(view, "ann") == 0 && score(view, "bob") == 1);
    ann.shows(|view| view["notice"] == "somebody was faster");
    bob.shows(|view| player(view, "ann").is_some_and(|(x, y, _)| (x, y) == (30, 10)));
}
