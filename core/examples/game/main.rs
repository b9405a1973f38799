//! A game for many players, in a program with a loop of its own: the bare core, `mio` for the socket, and
//! 60 frames a second. The replica and its socket are those of the example `client`. A player is a record
//! whose position is updated 20 times a second; a coin goes to whoever picks it up first, by a transaction
//! that expects it to lie there still.
//!
//! ```sh
//! synclayer serve --data /tmp/game-server --durability buffered
//! cargo run -p synclayer-core --example game -- ann --coins 9
//! cargo run -p synclayer-core --example game -- bob
//! ```

#[path = "../client.rs"]
#[allow(unreachable_pub, reason = "it is an example of its own")]
mod client;
mod game;
mod screen;

use std::error::Error;
use std::net::ToSocketAddrs as _;
use std::time::Duration;

use clap::Parser;
use game::Game;

/// A game for many players: who picks up most coins?
///
/// Keys: the arrows walk, space stops, c strews coins, o goes offline and online, q quits. With --script:
/// /go X Y, /coins N, /offline, /online, /quit.
#[derive(Parser)]
struct Args {
    /// Your name, which nobody else has.
    name: String,
    /// The server.
    #[arg(long, default_value = "127.0.0.1:8080")]
    server: String,
    /// Strews some coins at the start.
    #[arg(long, default_value_t = 0)]
    coins: u32,
    /// Walks by itself.
    #[arg(long)]
    bot: bool,
    /// Ends after some seconds, and prints how long the others' positions took to get here.
    #[arg(long)]
    seconds: Option<u64>,
    /// Takes lines from the standard input, and prints each new view as a line of JSON.
    #[arg(long)]
    script: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let server = args.server.to_socket_addrs()?.next().ok_or("there is no such host")?;
    let mut game = Game::open(server, args.name, args.bot)?;
    game.strew(args.coins)?;
    let end = args.seconds.map(Duration::from_secs);
    if args.script {
        screen::script(&mut game, end)?
    } else {
        screen::run(&mut game, end)?
    }
    let times = game.leave()?;
    if end.is_some() {
        println!("{}", serde_json::to_string(&times)?);
    }
    Ok(())
}
