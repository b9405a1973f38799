//! Shared todo lists on the terminal, in a program with threads. A list is a record with members, a scope
//! of each member's; its items are a scope of the list. Everything works offline. Where two have changed
//! the text of an item, a resolver keeps both, and the user chooses.
//!
//! ```sh
//! synclayer serve --scope lists=members[] --scope items=list --data /tmp/todo-server
//! cargo run -p synclayer-blocking --example todo -- --user ann --data /tmp/todo-ann
//! ```

mod app;
mod data;
mod screen;
mod script;

use std::error::Error;
use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use app::{App, News};
use clap::Parser;
use synclayer_blocking::query::Ascending;
use synclayer_blocking::{ConflictStrategy, Store, SyncConfig, SyncLayer};
use synclayer_fjall::{ClientOptions, FjallClientStore};

/// Shared todo lists that work offline.
///
/// A line is a new item of the list that is open. Commands: /new TITLE, /open TITLE, /share NAME,
/// /done N, /edit N TEXT, /up N, /down N, /delete N, /mine N and /theirs N for an item that two have
/// changed, /undo, /offline, /online, /quit.
#[derive(Parser)]
struct Args {
    /// The server.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    server: String,
    /// The name by which others share their lists with you.
    #[arg(long)]
    user: String,
    /// The directory in which the lists are kept; without it they are gone when the program ends.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Takes lines from the standard input, and prints each new view as a line of JSON.
    #[arg(long)]
    script: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let mut config = SyncConfig::new(args.server)
        .user(&*args.user)
        .scope("lists", "members[]", &args.user)
        .conflict_strategy(ConflictStrategy::custom(data::keep_both));
    if let Some(data) = args.data {
        config = config.store(Store::opened_by(move |on_durable| {
            let options = ClientOptions::new().on_durable(on_durable);
            Ok(Box::new(FjallClientStore::open(&data, options)?))
        }));
    }
    let sync = SyncLayer::open(config)?;
    let ended = run(&sync, args.user, args.script);
    sync.close();
    ended
}

/// Runs the app. What it waits for comes through one channel.
fn run(sync: &SyncLayer, user: String, script: bool) -> Result<(), Box<dyn Error>> {
    let (sender, news) = channel();
    let app = App::open(sync, user)?;
    let lists = app.lists.watch(|query| query.order_by("title", Ascending))?;
    forward(lists, News::Lists, &sender);
    let items = app.items.held().watch(|query| query.order_by("place", Ascending))?;
    forward(items, News::Items, &sender);
    forward(sync.events().map(|event| event.kind), News::Event, &sender);
    forward(sync.watch_status(), News::Status, &sender);
    if script { script::run(app, &sender, &news) } else { screen::run(app, &sender, &news) }
}

/// Takes everything that comes into the channel, on a thread of its own. Watches and events end when the
/// client is closed.
fn forward<T: 'static>(
    all: impl Iterator<Item = T> + Send + 'static,
    news: fn(T) -> News,
    sender: &Sender<News>,
) {
    let sender = sender.clone();
    thread::spawn(move || all.for_each(|one| drop(sender.send(news(one)))));
}
