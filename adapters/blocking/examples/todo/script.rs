//! The lists without a terminal: lines in, views out.

use std::error::Error;
use std::io::stdin;
use std::iter;
use std::sync::mpsc::{Receiver, Sender};

use crate::app::{App, News};
use crate::forward;

/// Carries out the lines of the standard input, and prints each new view as a line of JSON.
pub(crate) fn run(
    mut app: App,
    sender: &Sender<News>,
    news: &Receiver<News>,
) -> Result<(), Box<dyn Error>> {
    let lines = iter::from_fn(|| stdin().lines().next()?.ok()).chain(["/quit".to_owned()]);
    forward(lines, News::Line, sender);
    let mut printed = String::new();
    loop {
        let view = serde_json::to_string(&app.view())?;
        if view != printed {
            println!("{view}");
            printed = view;
        }
        if !app.take(news.recv()?) {
            return Ok(());
        }
    }
}
