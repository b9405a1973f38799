//! The chat on a terminal.

use std::error::Error;
use std::thread;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use ratatui::layout::Constraint::{Length, Min};
use ratatui::layout::Layout;
use ratatui::style::{Color, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph};
use ratatui::{DefaultTerminal, Frame};
use tokio::select;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::app::{self, App, Tick, View};

/// Runs the chat on the terminal, which is as before when this returns.
pub(crate) async fn run(app: App) -> Result<(), Box<dyn Error>> {
    let terminal = ratatui::try_init()?;
    let ended = talk(app, terminal).await;
    ratatui::restore();
    ended
}

async fn talk(mut app: App, mut terminal: DefaultTerminal) -> Result<(), Box<dyn Error>> {
    let mut keys = keys();
    let mut input = String::new();
    loop {
        terminal.draw(|frame| draw(frame, &app.view(), &input))?;
        select! {
            key = keys.recv() => {
                let Some(key) = key else { return Ok(()) };
                if let Some(line) = typed(key, &mut input) && !app.enter(&line).await {
                    return Ok(());
                }
            }
            news = app.next() => match news {
                Some(news) => app.take(news).await?,
                None => return Ok(()),
            },
        }
    }
}

/// The terminal's events, from a thread of their own: reading one blocks.
fn keys() -> UnboundedReceiver<Event> {
    let (sender, keys) = unbounded_channel();
    thread::spawn(move || while event::read().is_ok_and(|event| sender.send(event).is_ok()) {});
    keys
}

/// Takes a key into the input. Returns the line that it completes or stands for.
fn typed(event: Event, input: &mut String) -> Option<String> {
    let key = event.as_key_press_event()?;
    match key.code {
        KeyCode::Char('c') if key.modifiers == KeyModifiers::CONTROL => {
            return Some("/quit".into());
        }
        KeyCode::PageUp => return Some("/older".into()),
        KeyCode::PageDown => return Some("/newer".into()),
        KeyCode::Enter => return Some(std::mem::take(input)),
        KeyCode::Backspace => drop(input.pop()),
        KeyCode::Char(char) => input.push(char),
        _ => {}
    }
    None
}

fn draw(frame: &mut Frame, view: &View, input: &str) {
    let areas = Layout::vertical([Length(1), Min(3), Length(1), Length(3)]);
    let [head, messages, notice, entry] = areas.areas(frame.area());

    let state = if view.online { "online".green() } else { "offline".red() };
    let page = if view.page == 0 { String::new() } else { format!("  {} back", view.page) };
    let more = if view.complete { "" } else { "  …" };
    let room = format!(" {} in {}{page}{more}  ", view.user, view.room).bold();
    frame.render_widget(Line::from(vec![room, state]), head);

    // the newest messages stay at the bottom
    let hidden = view.lines.len().saturating_sub(messages.height.into());
    let lines: Vec<Line> = view.lines[hidden..].iter().map(message).collect();
    frame.render_widget(Paragraph::new(lines), messages);

    frame.render_widget(Line::from(view.notice).yellow(), notice);
    frame.render_widget(Paragraph::new(input).block(Block::bordered()), entry);
    frame.set_cursor_position((entry.x + 1 + Span::raw(input).width() as u16, entry.y + 1));
}

fn message(line: &app::Line) -> Line<'_> {
    let (sign, color) = match line.tick {
        Tick::Waiting => ("… ", Color::DarkGray),
        Tick::Sent => ("✓ ", Color::Green),
        Tick::Refused => ("✗ ", Color::Red),
    };
    let minutes = line.at / 60_000 % (24 * 60);
    Line::from(vec![
        sign.fg(color),
        format!("{:02}:{:02} ", minutes / 60, minutes % 60).dim(),
        format!("{}: ", line.author).bold(),
        line.text.as_str().into(),
    ])
}
