//! The command `config`: it checks a server's configuration file, or prints one.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use clap::Parser;
use serde_json::json;

use crate::args::{Cli, CliCommand, ConfigAction, ConfigArgs};
use crate::config_file::{ConfigFile, printed, with_file};
use crate::failure::{Code, Failure};
use crate::output::Printer;
use crate::reload::Reloadable;

pub(crate) async fn config(args: ConfigArgs, out: Printer) -> Result<(), Failure> {
    match args.action {
        ConfigAction::Check { file } => check(&file, out).await,
        ConfigAction::Print => {
            let text = printed();
            if out.json {
                return out.line(format_args!(""), &json!({ "config": text }));
            }
            for line in text.lines() {
                out.line(format_args!("{line}"), &json!(line))?;
            }
            Ok(())
        }
    }
}

async fn check(file: &Path, out: Printer) -> Result<(), Failure> {
    let usage = |why: String| Failure::new(Code::Usage, why);
    let mut arguments = ["synclayer", "serve", "--config"].map(OsString::from).to_vec();
    arguments.push(file.into());
    let (mut arguments, config_file) = with_file(arguments)?;
    let names_data =
        arguments.iter().any(|one| one.to_str().is_some_and(|it| it.starts_with("--data=")));
    if !names_data {
        arguments.push("--data=.".into());
    }
    let cli = Cli::try_parse_from(arguments).map_err(|error| usage(error.to_string()))?;
    let keys = config_file.as_ref().map_or(0, ConfigFile::keys);
    if let CliCommand::Serve(mut args) = cli.command {
        args.config_file = config_file.map(Arc::new);
        Reloadable::read(&args).await?;
    }
    out.line(format_args!("{} can be used", file.display()), &json!({ "keys": keys }))
}
