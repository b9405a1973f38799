//! The command that runs scenario files.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use synclayer_sim::scenario::{files_in, rewrite, run};

use super::Outcome;

/// Runs the files and folders that the arguments name; with `--write` it first writes into them
/// what comes out.
pub(crate) fn scenario(arguments: impl Iterator<Item = String>) -> Outcome {
    let (options, paths): (Vec<_>, Vec<_>) = arguments.partition(|a| a.starts_with("--"));
    if paths.is_empty() || options.iter().any(|option| option != "--write") {
        return Err("usage: synclayer-sim scenario [--write] FILE…".into());
    }
    let (mut files, mut failed) = (Vec::<PathBuf>::new(), 0);
    for path in paths.iter().map(Path::new) {
        match path.is_dir() {
            true => files.extend(files_in(path).map_err(|e| format!("{}: {e}", path.display()))?),
            false => files.push(path.into()),
        }
    }
    for file in &files {
        let written = if options.is_empty() { Ok(()) } else { rewrite(file) };
        match written.and_then(|()| run(file)) {
            Ok(steps) => println!("ok   {} ({steps} steps)", file.display()),
            Err(failure) => {
                failed += 1;
                println!("FAIL {failure}");
            }
        }
    }
    println!("{} of {} scenarios hold", files.len() - failed, files.len());
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
