//! A chat on the terminal. Each room is a scope: a device holds the rooms that were opened on it, and no
//! others. What is written without a network waits, and goes out later; what the rules refuse is shown
//! with the reason, and can be sent again or dropped.
//!
//! ```sh
//! synclayer serve --config adapters/tokio/examples/chat/server.toml --data /tmp/chat-server \
//!     --token ann=ANN --token bob=BOB
//! cargo run -p synclayer-tokio --example chat -- --user ann --token ANN --data /tmp/chat-ann
//! ```
#![allow(clippy::wildcard_enum_match_arm, reason = "an app looks at what it shows")]

mod app;
mod screen;
mod script;

use std::error::Error;
use std::path::PathBuf;

use app::App;
use clap::Parser;
use synclayer_fjall::{ClientOptions, FjallClientStore};
use synclayer_tokio::{Store, SyncConfig, SyncLayer};

/// A chat that works offline.
///
/// A line is a message. Commands: /room NAME, /older and /newer (also PageUp and PageDown), /retry and
/// /discard for refused messages, /offline, /online, /quit.
#[derive(Parser)]
struct Args {
    /// The server.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    server: String,
    /// The name under which you write.
    #[arg(long)]
    user: String,
    /// The token by which the server knows you.
    #[arg(long)]
    token: Option<String>,
    /// The directory in which the messages are kept; without it they are gone when the chat ends.
    #[arg(long)]
    data: Option<PathBuf>,
    /// The room to begin with.
    #[arg(long, default_value = "lobby")]
    room: String,
    /// Takes lines from the standard input, and prints each new view as a line of JSON.
    #[arg(long)]
    script: bool,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    // an index by which the newest messages of a room are found without reading all of them
    let mut config = SyncConfig::new(args.server).user(&*args.user).index("messages", "room,at");
    if let Some(token) = args.token {
        config = config.auth_token(token);
    }
    if let Some(data) = args.data {
        config = config.store(Store::opened_by(move |on_durable| {
            let options = ClientOptions::new().on_durable(on_durable);
            Ok(Box::new(FjallClientStore::open(&data, options)?))
        }));
    }
    let sync = SyncLayer::open(config).await?;
    let app = App::open(sync.clone(), args.user, args.room).await?;
    let ended = if args.script { script::run(app).await } else { screen::run(app).await };
    sync.close().await;
    ended
}
