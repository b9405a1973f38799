//! Everything besides the sweep that looks for bugs, as functions: what the tests run, and what
//! the core's deliberate breaks are tried on.

use std::path::Path;

use crate::scenario;

/// One look.
pub struct Check {
    /// Its kind and its name, with a slash between.
    pub name: String,
    /// Looks.
    pub run: Box<dyn Fn() -> Result<(), String>>,
}

/// All of them.
///
/// # Panics
/// When the scenario files can't be found.
#[must_use]
pub fn all() -> Vec<Check> {
    scenarios()
}

fn scenarios() -> Vec<Check> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let files = scenario::files_in(&folder).expect("the scenarios are where they belong");
    let check = |file: std::path::PathBuf| {
        let name = file.strip_prefix(&folder).unwrap_or(&file).display().to_string();
        let run = move || scenario::run(&file).map(drop).map_err(|failure| failure.what);
        Check { name: format!("scenario/{name}"), run: Box::new(run) }
    };
    files.into_iter().map(check).collect()
}
