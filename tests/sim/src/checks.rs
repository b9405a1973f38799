//! Everything besides the sweep that looks for bugs, as functions: what the tests run, and what
//! the core's deliberate breaks are tried on.

use crate::{adoption, contract, data, directed, scenario, transcript};

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
    let mut all = schedules();
    all.append(&mut scenarios());
    all.push(Check { name: "transcript/all".into(), run: Box::new(transcripts) });
    all.push(Check {
        name: "contract/reports beyond the last commit".into(),
        run: Box::new(contract::reports_beyond_the_last_commit),
    });
    all.push(Check {
        name: "contract/an adoption in bounded steps".into(),
        run: Box::new(adoption::is_bounded_and_outlives_crashes),
    });
    all
}

fn schedules() -> Vec<Check> {
    let check = |(name, run): &(&str, directed::Schedule)| Check {
        name: format!("schedule/{name}"),
        run: Box::new(*run),
    };
    directed::SCHEDULES.iter().map(check).collect()
}

/// The committed transcripts are what is said today.
fn transcripts() -> Result<(), String> {
    let folder = data::path("transcripts");
    for one in transcript::play_all()? {
        let file = folder.join(one.name);
        let committed = std::fs::read_to_string(&file).map_err(|error| error.to_string())?;
        if let Some((line, _, is)) = transcript::first_difference(&committed, &one.text) {
            return Err(format!("{} line {line}: {is}", one.name));
        }
    }
    Ok(())
}

fn scenarios() -> Vec<Check> {
    let folder = data::path("scenarios");
    let files = scenario::files_in(&folder).expect("the scenarios are where they belong");
    let check = |file: std::path::PathBuf| {
        let name = file.strip_prefix(&folder).unwrap_or(&file).display().to_string();
        let run = move || scenario::run(&file).map(drop).map_err(|failure| failure.what);
        Check { name: format!("scenario/{name}"), run: Box::new(run) }
    };
    files.into_iter().map(check).collect()
}
