//! The command that plays the transcripts.

use std::process::ExitCode;

use synclayer_sim::data;
use synclayer_sim::transcript::{first_difference, play_all};

use super::Outcome;

/// Compares the committed transcripts with what is said now; with `--write` it replaces them.
pub(crate) fn transcript(arguments: impl Iterator<Item = String>) -> Outcome {
    let options: Vec<_> = arguments.collect();
    let writes = match options.as_slice() {
        [] => false,
        [option] if option == "--write" => true,
        _ => return Err("usage: synclayer-sim transcript [--write]".into()),
    };
    let folder = data::path("transcripts");
    let mut differs = false;
    for played in play_all()? {
        let file = folder.join(played.name);
        if writes {
            std::fs::write(&file, &played.text).map_err(|e| format!("{}: {e}", played.name))?;
        }
        let committed = std::fs::read_to_string(&file).unwrap_or_default();
        match first_difference(&committed, &played.text) {
            None => println!("ok   {}", played.name),
            Some((line, was, is)) => {
                differs = true;
                println!("FAIL {} line {line}\n  was  {was}\n  now  {is}", played.name);
            }
        }
    }
    Ok(if differs { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
