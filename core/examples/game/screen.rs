//! The game on a terminal, and without one.

use std::error::Error;
use std::io::stdin;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, KeyCode};
use ratatui::style::{Color, Stylize as _};
use ratatui::symbols::Marker;
use ratatui::text::Line;
use ratatui::widgets::Block;
use ratatui::widgets::canvas::{Canvas, Context};
use ratatui::{DefaultTerminal, Frame};
use serde::Serialize;

use crate::game::{FIELD, Game};

const FRAME: Duration = Duration::from_nanos(1_000_000_000 / 60);

/// Everything that is shown.
#[derive(PartialEq, Serialize)]
struct View {
    online: bool,
    /// Each player with their position and their coins.
    players: Vec<(String, i32, i32, usize)>,
    coins: usize,
    notice: String,
}

/// Plays on the terminal, which is as before when this returns.
pub(crate) fn run(game: &mut Game, end: Option<Duration>) -> Result<(), Box<dyn Error>> {
    let terminal = ratatui::try_init()?;
    let ended = play(game, terminal, end);
    ratatui::restore();
    ended
}

fn play(
    game: &mut Game,
    mut terminal: DefaultTerminal,
    end: Option<Duration>,
) -> Result<(), Box<dyn Error>> {
    frames(game, end, |game, is_new| {
        while event::poll(Duration::ZERO)? {
            match event::read()?.as_key_press_event().map(|key| key.code) {
                Some(KeyCode::Left) => game.turn(-1.0, 0.0),
                Some(KeyCode::Right) => game.turn(1.0, 0.0),
                Some(KeyCode::Up) => game.turn(0.0, -1.0),
                Some(KeyCode::Down) => game.turn(0.0, 1.0),
                Some(KeyCode::Char(' ')) => game.go(None),
                Some(KeyCode::Char('c')) => game.strew(9)?,
                Some(KeyCode::Char('o')) => game.set_online(!game.online),
                Some(KeyCode::Char('q') | KeyCode::Esc) => return Ok(false),
                Some(_) | None => {}
            }
        }
        if is_new {
            terminal.draw(|frame| draw(frame, game))?;
        }
        Ok(true)
    })
}

/// Carries out the lines of the standard input, and prints each new view as a line of JSON.
pub(crate) fn script(game: &mut Game, end: Option<Duration>) -> Result<(), Box<dyn Error>> {
    let lines = lines();
    let mut printed = None;
    frames(game, end, |game, _| {
        for line in lines.try_iter() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["/go", x, y] => game.go(Some((x.parse()?, y.parse()?))),
                ["/coins", count] => game.strew(count.parse()?)?,
                ["/offline"] => game.set_online(false),
                ["/online"] => game.set_online(true),
                ["/quit"] => return Ok(false),
                _ => eprintln!("no command {line}: see --help"),
            }
        }
        let view = view(game);
        if printed.as_ref() != Some(&view) {
            println!("{}", serde_json::to_string(&view)?);
            printed = Some(view);
        }
        Ok(true)
    })
}

/// The loop: a frame 60 times a second, and news as soon as they come. `show` is told whether there is
/// something new, and says whether the game goes on.
fn frames(
    game: &mut Game,
    end: Option<Duration>,
    mut show: impl FnMut(&mut Game, bool) -> Result<bool, Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    let mut next = started;
    while end.is_none_or(|end| started.elapsed() < end) {
        let mut is_new = game.wait(next)?;
        if Instant::now() >= next {
            game.step()?;
            // a frame that was missed is not made up for
            next = (next + FRAME).max(Instant::now());
            is_new = true;
        }
        if !show(game, is_new)? {
            break;
        }
    }
    Ok(())
}

fn view(game: &Game) -> View {
    let player = |(name, player, coins): (&str, &crate::game::Player, usize)| {
        (name.to_owned(), player.x.round() as i32, player.y.round() as i32, coins)
    };
    View {
        online: game.online,
        players: game.players().map(player).collect(),
        coins: game.coins().count(),
        notice: game.notice.clone(),
    }
}

fn draw(frame: &mut Frame, game: &Game) {
    let state = if game.online { "online".green() } else { "offline".red() };
    let scores = game.players().map(|(name, _, coins)| format!("{name} {coins}"));
    let scores = scores.collect::<Vec<_>>().join("  ");
    let title = Line::from(vec![format!(" {scores}  ").bold(), state, " ".into()]);
    let field = Canvas::default()
        .block(Block::bordered().title(title).title_bottom(game.notice.as_str()))
        .marker(Marker::Dot)
        .x_bounds([0.0, f64::from(FIELD.0)])
        .y_bounds([0.0, f64::from(FIELD.1)])
        .paint(|canvas| paint(canvas, game));
    frame.render_widget(field, frame.area());
}

fn paint(canvas: &mut Context, game: &Game) {
    let place = |x: f32, y: f32| (f64::from(x), f64::from(FIELD.1 - 1.0 - y));
    for coin in game.coins() {
        let (x, y) = place(coin.x, coin.y);
        canvas.print(x, y, "o".fg(Color::Yellow));
    }
    for (name, player, _) in game.players() {
        let (x, y) = place(player.x, player.y);
        canvas.print(x, y, format!("@{name}").fg(Color::Cyan));
    }
}

/// The lines of the standard input, from a thread of their own: reading them blocks.
fn lines() -> Receiver<String> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        let lines = stdin().lines().map_while(Result::ok).chain(["/quit".to_owned()]);
        lines.take_while(|line| sender.send(line.clone()).is_ok()).for_each(drop);
    });
    lines
}
