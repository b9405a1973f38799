//! The program `synclayer`: a sync server, a client for the shell, and a demo of both.
#![allow(rustdoc::bare_urls)] // the texts of the command line are for terminals

mod args;
mod demo;
mod failure;
mod modify;
mod output;
mod read;
mod rejected;
mod repair;
mod replica;
mod serve;
mod signal;
mod watch;
mod write;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tokio::runtime::Runtime;

use args::{Cli, Command, RejectedAction};
use failure::{Code, Failure};
use output::Output;

fn main() -> ExitCode {
    let Cli { json, command } = Cli::parse();
    let out = Output { json };
    let replica = replica_of(&command);
    let ended = Runtime::new()
        .map_err(Failure::from)
        .and_then(|runtime| runtime.block_on(run(command, out)))
        .map_err(|failure| hinted(failure, replica));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            out.failure(&failure);
            ExitCode::from(failure.code as u8)
        }
    }
}

async fn run(command: Command, out: Output) -> Result<(), Failure> {
    match command {
        Command::Demo => demo::demo(out).await,
        Command::Serve(args) => serve::serve(args, out).await,
        Command::Save(args) => write::save(args, out).await,
        Command::Update(args) => write::update(args, out).await,
        Command::Modify(args) => modify::modify(args, out).await,
        Command::Delete(args) => write::delete(args, out).await,
        Command::Get(args) => read::get(args, out).await,
        Command::List(args) => read::list(args, out).await,
        Command::Watch(args) => watch::watch(args, out).await,
        Command::Status(args) => read::status(args, out).await,
        Command::Rejected(args) => rejected::rejected(args.action, out).await,
        Command::Repair(args) => repair::repair(args, out).await,
    }
}

/// The directory of the replica that a command is about.
fn replica_of(command: &Command) -> Option<PathBuf> {
    let args = match command {
        Command::Demo | Command::Serve(_) => return None,
        Command::Save(args) => &args.replica,
        Command::Update(args) => &args.replica,
        Command::Modify(args) => &args.replica,
        Command::Delete(args) | Command::Get(args) => &args.replica,
        Command::List(args) | Command::Watch(args) => &args.replica,
        Command::Status(args)
        | Command::Rejected(args::RejectedArgs { action: RejectedAction::List(args) }) => args,
        Command::Rejected(args::RejectedArgs {
            action: RejectedAction::Retry(args) | RejectedAction::Discard(args),
        }) => &args.replica,
        Command::Repair(args) => &args.replica,
    };
    Some(args.data.clone())
}

/// Adds to a damaged replica's failure what this program can do about it.
fn hinted(failure: Failure, replica: Option<PathBuf>) -> Failure {
    match replica {
        Some(data) if failure.code == Code::Damaged => {
            let data = data.display();
            let hint = format!("{failure}\nAll of that does: synclayer repair --data {data}");
            Failure::new(Code::Damaged, hint)
        }
        Some(_) | None => failure,
    }
}
