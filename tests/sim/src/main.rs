//! The simulator's command line.

mod commands;

use std::process::ExitCode;

const USAGE: &str = "usage: synclayer-sim COMMAND

  sweep [--seeds N] [--first S] [--jobs J]   run many seeds
  replay SEED|FILE                           show everything that happens in a run
  golden [--write]                           compare the digests of 100 runs with tests/data/golden.txt
  states [--states N]                        visit every state of a small world, N per scope
  scenario [--write] FILE…                   run scenario files, or write what comes out of them
  transcript [--write]                       compare the transcripts in tests/data/transcripts, or write them";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next();
    let outcome = match command.as_deref() {
        Some("sweep") => commands::sweep(arguments),
        Some("replay") => commands::replay(arguments),
        Some("golden") => commands::golden(arguments),
        Some("states") => commands::states(arguments),
        Some("scenario") => commands::scenario(arguments),
        Some("transcript") => commands::transcript(arguments),
        Some(_) | None => Err(USAGE.into()),
    };
    match outcome {
        Ok(code) => code,
        Err(usage) => {
            eprintln!("{usage}");
            ExitCode::from(2)
        }
    }
}
