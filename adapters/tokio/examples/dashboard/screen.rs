//! The dashboard on a terminal.

use std::error::Error;
use std::thread;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Stylize as _};
use ratatui::symbols::Marker;
use ratatui::text::Line;
use ratatui::widgets::{Axis, Block, Chart, Dataset, GraphType, Row, Table};
use ratatui::{DefaultTerminal, Frame};
use tokio::select;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::app::{App, Device, View};

/// The most points of a line on the chart: more than a terminal can show.
const POINTS: usize = 500;
const COLORS: [Color; 6] =
    [Color::Green, Color::Cyan, Color::Yellow, Color::Magenta, Color::Blue, Color::Red];

/// Runs the dashboard on the terminal, which is as before when this returns.
pub(crate) async fn run(app: App) -> Result<(), Box<dyn Error>> {
    let terminal = ratatui::try_init()?;
    let ended = show(app, terminal).await;
    ratatui::restore();
    ended
}

async fn show(mut app: App, mut terminal: DefaultTerminal) -> Result<(), Box<dyn Error>> {
    let mut keys = keys();
    loop {
        terminal.draw(|frame| draw(frame, &app))?;
        select! {
            key = keys.recv() => match key.as_ref().and_then(Event::as_key_press_event) {
                Some(key) if key.code == KeyCode::Char('o') => {
                    app.set_online(!app.is_online()).await?;
                }
                Some(key) if key.code == KeyCode::Char('q') => return Ok(()),
                Some(key) if key.modifiers == KeyModifiers::CONTROL => return Ok(()),
                Some(_) => {}
                None if key.is_none() => return Ok(()),
                None => {}
            },
            news = app.next() => match news {
                Some(news) => app.take(news)?,
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

fn draw(frame: &mut Frame, app: &App) {
    let view = app.view();
    let rows = u16::try_from(view.devices.len()).unwrap_or(u16::MAX);
    let areas = Layout::vertical([
        Constraint::Length(1),
        Constraint::Fill(2),
        Constraint::Max(rows.saturating_add(3)),
    ]);
    let [head, chart, table] = areas.areas(frame.area());

    let state = if view.online { "online".green() } else { "offline".red() };
    let waiting = format!("{} writes wait  ", view.waiting);
    let count = format!(" {} readings of {:.1} minutes  ", view.readings, view.minutes);
    frame.render_widget(Line::from(vec![count.bold(), waiting.into(), state]), head);
    draw_chart(frame, app, &view, chart);

    let heads = ["device", "readings", "last", "lowest", "highest", "average"];
    let devices = view.devices.iter().enumerate().map(row);
    let table_of = Table::new(devices, [Constraint::Fill(1); 6]).header(Row::new(heads).bold());
    frame.render_widget(table_of.block(Block::bordered()), table);
}

fn row((at, device): (usize, &Device)) -> Row<'_> {
    let values = [device.last, device.lowest, device.highest, device.average];
    let values = values.map(|value| format!("{value:.2}"));
    let cells = [device.name.clone(), device.readings.to_string()].into_iter().chain(values);
    Row::new(cells).fg(COLORS[at % COLORS.len()])
}

fn draw_chart(frame: &mut Frame, app: &App, view: &View, area: ratatui::layout::Rect) {
    let Some((from, to)) = app.window() else { return };
    let minutes = |at: u64| (at as f64 - to as f64) / 60_000.0;
    let lines: Vec<Vec<(f64, f64)>> = app
        .series()
        .map(|(_, series)| {
            let every = series.len().div_ceil(POINTS).max(1);
            series.iter().step_by(every).map(|(at, value)| (minutes(*at), *value)).collect()
        })
        .collect();
    let data = lines.iter().enumerate().map(|(at, line)| {
        let data = Dataset::default().marker(Marker::Braille).graph_type(GraphType::Line);
        data.style(COLORS[at % COLORS.len()]).data(line)
    });
    let lowest = view.devices.iter().map(|device| device.lowest).fold(f64::INFINITY, f64::min);
    let highest = view.devices.iter().map(|device| device.highest).fold(f64::MIN, f64::max);
    let labels = |from: f64, to: f64, unit: &str| [from, to].map(|at| format!("{at:.1}{unit}"));
    let x = Axis::default().bounds([minutes(from), 0.0]).labels(labels(minutes(from), 0.0, " min"));
    let y = Axis::default().bounds([lowest, highest]).labels(labels(lowest, highest, "°"));
    let chart = Chart::new(data.collect()).x_axis(x).y_axis(y).block(Block::bordered());
    frame.render_widget(chart, area);
}
