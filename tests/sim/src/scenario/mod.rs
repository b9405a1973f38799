//! Scenarios as data: what goes into a replica or into the server's sessions, step by step, and
//! exactly what comes out, as JSON files.
//!
//! The format is described in `tests/data/scenarios/README.md`, where the files lie too. A file is run
//! with `cargo run -p synclayer-sim -- scenario FILE…`, and by a test of this crate.
//!
//! | file | story |
//! | --- | --- |
//! | `format` | what a file holds |
//! | `client` | a replica on a store in memory, moved by a file |
//! | `store` | that store: it knows its batches by name, and fails at the one it was told |
//! | `render` | what a replica does, as JSON |
//! | `server` | sessions on rows in memory, moved by a file |
//! | `words` | what a file may say instead of a literal: ids, digests, checksums |
//! | `compare` | the first difference |
//! | `print` | JSON as people write it |

pub(crate) mod client;
mod compare;
pub(crate) mod format;
pub(crate) mod print;
pub(crate) mod render;
pub(crate) mod server;
mod store;
mod words;

use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use compare::Difference;
use format::{End, Scenario, Step};

/// The failure of a scenario: its place, and the first difference.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScenarioFailure {
    /// The file.
    pub file: PathBuf,
    /// The step, counted from 1; 0 where the file itself is wrong.
    pub step: usize,
    /// The difference, for people: several lines.
    pub what: String,
}

impl fmt::Display for ScenarioFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.step {
            0 => write!(f, "{}: {}", self.file.display(), self.what),
            step => write!(f, "{}: step {step}: {}", self.file.display(), self.what),
        }
    }
}

impl std::error::Error for ScenarioFailure {}

/// Something that a scenario moves.
pub(crate) trait Stage {
    /// Takes one step. Gives what came out of it, in order.
    fn step(&mut self, step: &Step) -> Result<Vec<Value>, String>;

    /// Returns the work left undone at the end, if that is a mistake.
    fn unfinished(&self) -> Option<String>;
}

/// Runs a file, after the files that it continues. Gives the number of its own steps.
///
/// # Errors
/// When the file can't be read, or something else came out than it says.
pub fn run(file: &Path) -> Result<usize, ScenarioFailure> {
    let scenario = Scenario::read(file).map_err(|what| fault(file, 0, what))?;
    run_read(file, &scenario)
}

/// As [`run`], of a text that stands in the place of the file's.
///
/// # Errors
/// As there.
pub fn run_text(file: &Path, text: &str) -> Result<usize, ScenarioFailure> {
    let scenario = Scenario::parse(text).map_err(|what| fault(file, 0, what))?;
    run_read(file, &scenario)
}

fn run_read(file: &Path, scenario: &Scenario) -> Result<usize, ScenarioFailure> {
    let mut stage = None;
    play(file, scenario, &scenario.config, &mut stage, &mut |step, number, out| {
        match Difference::first(&step.out, &out) {
            None => Ok(()),
            Some(difference) => Err(format!(
                "{}another outcome\n  in        {}\n{difference}",
                step.note.as_ref().map(|note| format!("“{note}”: ")).unwrap_or_default(),
                print::inline(&step.input),
            )),
        }
        .map_err(|what| (number, what))
    })?;
    match stage.and_then(|stage| stage.unfinished()) {
        None => Ok(scenario.steps.len()),
        Some(what) => Err(fault(file, scenario.steps.len(), what)),
    }
}

/// Writes into a file what comes out of its steps now, and before it into those that it continues.
///
/// # Errors
/// When the file can't be read or written, or a step can't be taken.
pub fn rewrite(file: &Path) -> Result<(), ScenarioFailure> {
    let (text, scenario) = Scenario::read_text(file).map_err(|what| fault(file, 0, what))?;
    let mut whole: Value =
        serde_json::from_str(&text).map_err(|error| fault(file, 0, error.to_string()))?;
    if let Some(name) = &scenario.after {
        rewrite(&beside(file, name))?;
    }
    let mut stage = None;
    let mut steps = whole["steps"].as_array_mut().map(std::mem::take).unwrap_or_default();
    play(file, &scenario, &scenario.config, &mut stage, &mut |_, number, out| {
        if let Some(step) = steps.get_mut(number - 1) {
            step["out"] = Value::Array(out);
        }
        Ok(())
    })?;
    whole["steps"] = Value::Array(steps);
    std::fs::write(file, print::pretty(&whole))
        .map_err(|error| fault(file, 0, format!("can't be written: {error}")))
}

type Visit<'a> = dyn FnMut(&Step, usize, Vec<Value>) -> Result<(), (usize, String)> + 'a;

/// Plays a file on a stage, which the first file of its chain sets up.
fn play(
    file: &Path,
    scenario: &Scenario,
    config: &Value,
    stage: &mut Option<Box<dyn Stage>>,
    visit: &mut Visit<'_>,
) -> Result<(), ScenarioFailure> {
    match &scenario.after {
        Some(name) => {
            let earlier = beside(file, name);
            let before = Scenario::read(&earlier).map_err(|what| fault(&earlier, 0, what))?;
            // another setup may well bring another outcome
            let compares = scenario.config.is_null();
            let config = format::merge(&before.config, config);
            play(&earlier, &before, &config, stage, &mut |step, number, out| {
                let difference = Difference::first(&step.out, &out).filter(|_| compares);
                difference.map_or(Ok(()), |what| Err((number, format!("another outcome\n{what}"))))
            })?;
        }
        None => {
            let set: Result<Box<dyn Stage>, String> = match scenario.kind {
                End::Client => client::ClientSide::new(config).map(|client| Box::new(client) as _),
                End::Server => server::ServerSide::new(config).map(|server| Box::new(server) as _),
            };
            *stage = Some(set.map_err(|what| fault(file, 0, what))?);
        }
    }
    let Some(stage) = stage else { return Ok(()) };
    for (index, step) in scenario.steps.iter().enumerate() {
        let number = index + 1;
        let out = stage.step(step).map_err(|what| {
            let what = format!("{what}\n  in        {}", print::inline(&step.input));
            fault(file, number, what)
        })?;
        visit(step, number, out).map_err(|(number, what)| fault(file, number, what))?;
    }
    Ok(())
}

/// The file of this name in the folder of another.
fn beside(file: &Path, name: &str) -> PathBuf {
    file.with_file_name(format!("{name}.json"))
}

fn fault(file: &Path, step: usize, what: String) -> ScenarioFailure {
    ScenarioFailure { file: file.to_path_buf(), step, what }
}

/// The scenario files in a folder and the folders in it, in the order of their names.
///
/// # Errors
/// When a folder can't be read.
pub fn files_in(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    files_with(folder, "json")
}

/// The same for files of another kind.
pub(crate) fn files_with(folder: &Path, ending: &str) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(files_with(&path, ending)?);
        } else if path.extension().is_some_and(|end| end == ending) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// `{name: value}`.
fn tagged(name: &str, value: impl Into<Value>) -> Value {
    json!({ name: value.into() })
}
