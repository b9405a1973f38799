//! The program `synclayer`: a sync server, a client for the shell, and a demo of both.
#![allow(rustdoc::bare_urls)] // the texts of the command line are for terminals

mod args;
mod config;
mod config_file;
mod decide;
mod deliver;
mod demo;
mod failure;
mod filter;
mod jwt;
mod limits;
mod lines;
mod modify;
mod output;
mod part;
mod reach;
mod read;
mod reject;
mod rejected;
mod reload;
mod repair;
mod replica;
mod rules;
mod rules_file;
mod scopes;
mod serve;
mod shown;
mod sign_out;
mod signal;
mod tokens;
mod transaction;
mod umask;
mod watch;
mod write;

use std::env;
use std::io::{self, IsTerminal, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use clap::error::{ContextKind, ErrorKind};
use synclayer_fjall::StoreKind;
use tokio::runtime::Runtime;
use tracing_subscriber::filter::LevelFilter;

use args::{Cli, CliCommand, RejectedAction};
use decide::LossDecision;
use failure::{Code, Failure};
use output::Printer;
use shown::{LogWriter, ShownLines};

/// Gives memory back to the system some seconds after it was freed. The one of the system's library
/// keeps it in pieces, and after a burst a server would stay large for ever.
#[cfg(unix)]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    umask::make_private();
    let (arguments, config_file) = match config_file::with_file(env::args_os().collect()) {
        Ok(read) => read,
        Err(failure) => {
            Printer { json: false, terminal: false }.failure(&failure);
            return ExitCode::from(failure.code as u8);
        }
    };
    let Cli { json, verbose, mut command } = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            // nobody may be there to read it
            let _ =
                write!(io::stderr(), "{}{}", ShownLines(error.render()), place_of_options(&error));
            return ExitCode::from(Code::Usage as u8);
        }
        Err(help) => help.exit(),
    };
    if let CliCommand::Serve(args) = &mut command {
        args.config_file = config_file.map(Arc::new);
    }
    log(&command, verbose);
    let out = Printer { json, terminal: io::stdout().is_terminal() };
    let store = store_of(&command);
    let repairs = matches!(command, CliCommand::Repair(_));
    let ended = Runtime::new()
        .map_err(Failure::from)
        .and_then(|runtime| runtime.block_on(run(command, out)))
        .map_err(|failure| hinted(failure, store, repairs));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            out.failure(&failure);
            ExitCode::from(failure.code as u8)
        }
    }
}

/// Says where the options of a command stand, if one stands before the command.
fn place_of_options(error: &clap::Error) -> &'static str {
    let names_command = error.get(ContextKind::SuggestedSubcommand).is_some()
        || error.get(ContextKind::Suggested).is_some();
    if error.kind() == ErrorKind::UnknownArgument && names_command {
        "\nThe options of a command stand behind its name: synclayer save --data DIR …\n"
    } else {
        ""
    }
}

/// Lets the libraries write their log to the standard error: a server's always, the clients' if asked.
fn log(command: &CliCommand, verbose: u8) {
    let level = match (command, verbose) {
        (CliCommand::Serve(_), 0) => LevelFilter::INFO,
        (_, 0) => return,
        (_, 1) => LevelFilter::DEBUG,
        (_, _) => LevelFilter::TRACE,
    };
    tracing_subscriber::fmt()
        .with_writer(|| LogWriter)
        .with_ansi(false)
        .with_max_level(level)
        .init();
}

async fn run(command: CliCommand, out: Printer) -> Result<(), Failure> {
    match command {
        CliCommand::Demo => demo::demo(out).await,
        CliCommand::Serve(args) => serve::serve(*args, out).await,
        CliCommand::Save(args) => write::save(args, out).await,
        CliCommand::Update(args) => write::update(args, out).await,
        CliCommand::Modify(args) => modify::modify(args, out).await,
        CliCommand::Transaction(args) => transaction::transaction(args, out).await,
        CliCommand::Import(args) => lines::import(args, out).await,
        CliCommand::Export(args) => lines::export(args, out).await,
        CliCommand::Delete(args) => write::delete(args, out).await,
        CliCommand::Get(args) => read::get(args, out).await,
        CliCommand::List(args) => read::list(args, out).await,
        CliCommand::Count(args) => read::count(args, out).await,
        CliCommand::Watch(args) => watch::watch(args, out).await,
        CliCommand::Status(args) => read::status(args, out).await,
        CliCommand::SignOut(args) => sign_out::sign_out(args, out).await,
        CliCommand::Rejected(args) => rejected::rejected(args.action, out).await,
        CliCommand::Reject(args) => reject::reject(args, out).await,
        CliCommand::Adopt(args) => decide::decide(args, LossDecision::Adopt, out).await,
        CliCommand::Offer(args) => decide::decide(args, LossDecision::Offer, out).await,
        CliCommand::Repair(args) => repair::repair(args, out).await,
        CliCommand::Rules(args) => rules::rules(args, out),
        CliCommand::Config(args) => config::config(args, out).await,
        CliCommand::Token(args) => jwt::token(args, out),
    }
}

/// The store that a command is about.
fn store_of(command: &CliCommand) -> Option<(StoreKind, PathBuf)> {
    let args = match command {
        CliCommand::Demo | CliCommand::Rules(_) | CliCommand::Config(_) | CliCommand::Token(_) => {
            return None;
        }
        CliCommand::Serve(args) => return Some((StoreKind::Server, args.data.clone())),
        CliCommand::Save(args) => &args.replica,
        CliCommand::Update(args) => &args.replica,
        CliCommand::Modify(args) => &args.replica,
        CliCommand::SignOut(args) => &args.replica,
        CliCommand::Transaction(args) => &args.replica,
        CliCommand::Import(args) => &args.replica,
        CliCommand::Export(args) => &args.replica,
        CliCommand::Delete(args) => &args.replica,
        CliCommand::Get(args) => &args.replica,
        CliCommand::List(args) | CliCommand::Watch(args) => &args.replica,
        CliCommand::Count(args) => &args.replica,
        CliCommand::Status(args)
        | CliCommand::Adopt(args)
        | CliCommand::Offer(args)
        | CliCommand::Rejected(args::RejectedArgs { action: RejectedAction::List(args) }) => args,
        CliCommand::Rejected(args::RejectedArgs {
            action: RejectedAction::Retry(args) | RejectedAction::Discard(args),
        })
        | CliCommand::Reject(args) => &args.replica,
        CliCommand::Repair(args) => &args.replica,
    };
    Some((StoreKind::Client, args.data.clone()))
}

/// Says in the place of what a program would do about a store what this one can do.
fn hinted(failure: Failure, store: Option<(StoreKind, PathBuf)>, repairs: bool) -> Failure {
    let (Some((kind, data)), Some(message)) = (store, &failure.message) else { return failure };
    let data = data.display();
    match failure.code {
        Code::Damaged => {
            let kinds = [StoreKind::Client, StoreKind::Server];
            let what = kinds.iter().find_map(|kind| message.strip_suffix(kind.remedy()));
            let what = what.unwrap_or(message);
            let what = what.trim_end_matches([';', ' ']);
            if repairs {
                let hint = "Nothing of it can be saved: move it aside, and restore a backup";
                return Failure::new(failure.code, what).hint(hint);
            }
            let hint = match kind {
                StoreKind::Client => "To save its unsent writes and put a sound one in its place",
                StoreKind::Server => "To put a sound one with all that can be read in its place",
            };
            let hint = format!("{hint}: synclayer repair --data {data}");
            Failure::new(failure.code, what).hint(hint)
        }
        Code::Foreign => {
            let variable = match kind {
                StoreKind::Client => "SYNCLAYER_DATA",
                StoreKind::Server => "SYNCLAYER_SERVER_DATA",
            };
            let text = format!("{message} (with --data, or as {variable} in the environment)");
            Failure::new(failure.code, text)
        }
        Code::Failed
        | Code::Usage
        | Code::Waiting
        | Code::Missing
        | Code::Refused
        | Code::InUse
        | Code::Undecided
        | Code::NotInSync
        | Code::GivenUp => failure,
    }
}
