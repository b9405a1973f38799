//! The dashboard without a terminal: lines in, views out.

use std::error::Error;
use std::io::stdin;
use std::thread;

use tokio::select;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::app::App;

/// Carries out the lines of the standard input, and prints each new view as a line of JSON.
pub(crate) async fn run(mut app: App) -> Result<(), Box<dyn Error>> {
    let mut lines = lines();
    let mut printed = None;
    loop {
        let view = app.view();
        if printed.as_ref() != Some(&view) {
            println!("{}", serde_json::to_string(&view)?);
            printed = Some(view);
        }
        select! {
            line = lines.recv() => match line.as_deref() {
                Some("/offline") => app.set_online(false).await?,
                Some("/online") => app.set_online(true).await?,
                Some("/quit") | None => return Ok(()),
                Some(line) => eprintln!("no command {line}: see --help"),
            },
            news = app.next() => match news {
                Some(news) => app.take(news)?,
                None => return Ok(()),
            },
        }
    }
}

/// The lines of the standard input, by a thread: a read of it would keep the runtime from ending.
fn lines() -> UnboundedReceiver<String> {
    let (sender, lines) = unbounded_channel();
    thread::spawn(move || {
        let lines = stdin().lines().map_while(Result::ok);
        lines.take_while(|line| sender.send(line.clone()).is_ok()).for_each(drop);
    });
    lines
}
