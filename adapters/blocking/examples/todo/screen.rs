//! The lists on a terminal.

use std::error::Error;
use std::sync::mpsc::{Receiver, Sender};
use std::{iter, mem};

use ratatui::crossterm::event::{self, KeyCode, KeyModifiers};
use ratatui::layout::Constraint::{Length, Min};
use ratatui::layout::Layout;
use ratatui::style::Stylize as _;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph};
use ratatui::{DefaultTerminal, Frame};

use crate::app::{self, App, News, View};
use crate::forward;

/// Runs the app on the terminal, which is as before when this returns.
pub(crate) fn run(
    app: App,
    sender: &Sender<News>,
    news: &Receiver<News>,
) -> Result<(), Box<dyn Error>> {
    let terminal = ratatui::try_init()?;
    forward(iter::from_fn(|| event::read().ok()), News::Terminal, sender);
    let ended = show(app, terminal, news);
    ratatui::restore();
    ended
}

fn show(
    mut app: App,
    mut terminal: DefaultTerminal,
    news: &Receiver<News>,
) -> Result<(), Box<dyn Error>> {
    let mut input = String::new();
    loop {
        terminal.draw(|frame| draw(frame, &app.view(), &input))?;
        if typed(news.recv()?, &mut input).is_some_and(|news| !app.take(news)) {
            return Ok(());
        }
    }
}

/// Takes a key into the input. Returns the line that it completes or stands for, and all other news.
fn typed(news: News, input: &mut String) -> Option<News> {
    let News::Terminal(event) = news else { return Some(news) };
    let key = event.as_key_press_event()?;
    match (key.modifiers, key.code) {
        (KeyModifiers::CONTROL, KeyCode::Char('c')) => return Some(News::Line("/quit".into())),
        (KeyModifiers::CONTROL, KeyCode::Char('z')) => return Some(News::Line("/undo".into())),
        (_, KeyCode::Enter) => return Some(News::Line(mem::take(input))),
        (_, KeyCode::Backspace) => drop(input.pop()),
        (_, KeyCode::Char(char)) => input.push(char),
        _ => {}
    }
    None
}

fn draw(frame: &mut Frame, view: &View, input: &str) {
    let areas = Layout::vertical([Length(1), Min(3), Length(1), Length(3)]);
    let [head, body, notice, entry] = areas.areas(frame.area());
    let [side, list] = Layout::horizontal([Length(24), Min(20)]).areas(body);

    let state = if view.online { "online".green() } else { "offline".red() };
    frame.render_widget(Line::from(vec![format!(" {}  ", view.user).bold(), state]), head);

    let lists = view.lists.iter().map(|title| {
        let line = Line::from(*title);
        if Some(*title) == view.open { line.bold() } else { line }
    });
    let lists: Vec<Line> = lists.collect();
    frame.render_widget(Paragraph::new(lists).block(Block::bordered().title("Lists")), side);

    let items: Vec<Line> = view.items.iter().enumerate().map(item).collect();
    let title = format!("{} ({})", view.open.unwrap_or("no list is open"), view.members.join(", "));
    frame.render_widget(Paragraph::new(items).block(Block::bordered().title(title)), list);

    frame.render_widget(Line::from(view.notice).yellow(), notice);
    frame.render_widget(Paragraph::new(input).block(Block::bordered()), entry);
    frame.set_cursor_position((entry.x + 1 + Span::raw(input).width() as u16, entry.y + 1));
}

fn item<'a>((at, line): (usize, &app::Line<'a>)) -> Line<'a> {
    let item = line.item;
    let done = if item.done { "[x] " } else { "[ ] " };
    let waits = if line.waiting { " …".dim() } else { "".into() };
    let text = if item.done { item.text.as_str().crossed_out() } else { item.text.as_str().into() };
    let mut spans = vec![format!("{:2} {done}", at + 1).into(), text, waits];
    if let Some(theirs) = &item.theirs {
        spans.push(format!("  or: {theirs}? /mine {0}, /theirs {0}", at + 1).red());
    }
    Line::from(spans)
}
