//! `synclayer rules`: a file of rules, checked, tested and explained.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use synclayer_core::{Collection, Document, Limits, RecordId, Right, UserId};

use crate::failure::{Code, Failure};
use crate::output::Printer;
use crate::rules_file::{RulesFile, RulesIn, What, Who};

#[derive(Args, Debug)]
pub(crate) struct RulesArgs {
    #[command(subcommand)]
    action: RulesAction,
}

#[derive(Subcommand, Debug)]
enum RulesAction {
    /// Read a file of rules, and tell what is wrong with it
    Check(FileArgs),
    /// Run the tests that stand in a file of rules, or in a server's configuration
    Test(FileArgs),
    /// Tell how a right is judged, condition by condition
    Explain(ExplainArgs),
}

#[derive(Args, Debug)]
struct FileArgs {
    /// The file
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(Args, Debug)]
struct ExplainArgs {
    /// The file of rules, or a server's configuration
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The collection
    #[arg(value_name = "COLLECTION", value_parser = name::<Collection>)]
    collection: Collection,
    /// The right that is asked for
    #[arg(value_enum, value_name = "RIGHT")]
    right: RightArg,
    /// The user; without one it is a server that knows no users
    #[arg(long, value_name = "NAME", value_parser = name::<UserId>)]
    user: Option<UserId>,
    /// The claims of the user's token, a JSON object
    #[arg(long, value_name = "JSON", value_parser = document)]
    claims: Option<Document>,
    /// The record's id
    #[arg(long, value_name = "ID", default_value = "1", value_parser = name::<RecordId>)]
    id: RecordId,
    /// The record before, a JSON object; without it nothing is known of the record
    #[arg(long, value_name = "JSON", value_parser = document)]
    data: Option<Document>,
    /// The record after a write, a JSON object
    #[arg(long, value_name = "JSON", value_parser = document)]
    new: Option<Document>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
enum RightArg {
    Read,
    Create,
    Update,
    Delete,
}

fn name<T: for<'a> TryFrom<&'a str, Error = synclayer_core::NameError>>(
    text: &str,
) -> Result<T, String> {
    T::try_from(text).map_err(|error| error.to_string())
}

fn document(text: &str) -> Result<Document, String> {
    Document::parse(text, &Limits::default()).map_err(|error| error.to_string())
}

pub(crate) fn rules(args: RulesArgs, out: Printer) -> Result<(), Failure> {
    match args.action {
        RulesAction::Check(args) => check(&read(&args.file, RulesIn::Rules)?, out),
        RulesAction::Test(args) => test(&read(&args.file, RulesIn::Configuration)?, out),
        RulesAction::Explain(args) => explain(args, out),
    }
}

fn read(file: &std::path::Path, within: RulesIn) -> Result<RulesFile, Failure> {
    RulesFile::read(file, within).map_err(|why| Failure::new(Code::Usage, why))
}

fn check(file: &RulesFile, out: Printer) -> Result<(), Failure> {
    let rules: usize = file.counts.values().sum();
    let (collections, tests) = (file.counts.len(), file.cases.len());
    let human =
        format!("the rules can be used: {rules} of {collections} collections, {tests} tests");
    out.line(human, &json!({ "rules": file.counts, "tests": tests }))
}

fn test(file: &RulesFile, out: Printer) -> Result<(), Failure> {
    let (mut passed, mut failed) = (0, 0);
    for case in &file.cases {
        let wanted = case.can.iter().map(|right| (*right, true));
        for (right, can) in wanted.chain(case.cannot.iter().map(|right| (*right, false))) {
            let judgement = file.rules.judge(&case.what.case(&case.who, right));
            // what depends on something that the test does not say is not granted
            if judgement.granted.unwrap_or(false) == can {
                passed += 1;
                continue;
            }
            failed += 1;
            let (should, does) = if can { ("can", "is refused") } else { ("can't", "is granted") };
            let head = format!(
                "{}: it should be that the user {should} {right}, and it {does}",
                case.name
            );
            let lines = judgement.conditions.iter().map(|(part, is)| format!("    {part}: {is}"));
            let lines: Vec<_> = std::iter::once(head).chain(lines).collect();
            let conditions = &judgement.conditions;
            let json = json!({ "test": case.name, "right": right.as_str(), "granted": !can, "conditions": conditions });
            out.lines(lines, &json)?;
        }
    }
    out.line(
        format!("{passed} passed, {failed} failed"),
        &json!({ "passed": passed, "failed": failed }),
    )?;
    if failed > 0 { Err(Failure::said(Code::Failed)) } else { Ok(()) }
}

fn explain(args: ExplainArgs, out: Printer) -> Result<(), Failure> {
    let file = read(&args.file, RulesIn::Configuration)?;
    let right = match args.right {
        RightArg::Read => Right::Read,
        RightArg::Create => Right::Create,
        RightArg::Update => Right::Update,
        RightArg::Delete => Right::Delete,
    };
    let who = Who { user: args.user, claims: args.claims };
    let ExplainArgs { collection, id, data, new, .. } = args;
    let what = What { collection, id, data, new, records: None };
    let judgement = file.rules.judge(&what.case(&who, right));
    let outcome = match judgement.granted {
        Some(true) => "granted",
        Some(false) => "refused",
        None => "it depends",
    };
    let collection = &what.collection;
    let by = match judgement.rule {
        Some(rule) => format!("the rule `{rule}` of {collection}"),
        None => format!("the default, since {collection} has no rule for it"),
    };
    let head = format!("{right}: {outcome}, by {by}");
    let lines = judgement.conditions.iter().map(|(part, is)| format!("  {part}: {is}"));
    let json = json!({
        "right": right.as_str(),
        "granted": judgement.granted,
        "rule": judgement.rule.map(Right::as_str),
        "conditions": judgement.conditions,
    });
    out.lines(std::iter::once(head).chain(lines).collect::<Vec<_>>(), &json)
}
