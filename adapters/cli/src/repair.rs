//! The repair of a damaged store. For a replica: save the waiting writes, move the store aside, begin
//! anew. For a server: replace it by a sound one with everything that can be read.

mod again;
mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use synclayer_core::WriteKind;
use synclayer_core::rules::salvage;
use synclayer_fjall::{FjallClientStore, StoreKind};

use crate::args::{RepairArgs, ReplicaArgs};
use crate::failure::{Code, Failure};
use crate::output::Printer;
use crate::replica::{Meeting, OpenReplica, on_replica};

/// The file of the writes that were saved out of a damaged store.
const FILE: &str = "unsent.jsonl";

/// A line of the file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct UnsentWrite {
    user: String,
    operation: Operation,
    collection: String,
    id: String,
    data: Box<RawValue>,
    #[serde(default)]
    unset: Vec<Box<str>>,
    /// The time when it was made; of one that was joined from several, of the last.
    written_at: String,
    /// The fields that were written at another time.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    at: BTreeMap<Box<str>, String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Operation {
    Insert,
    Update,
    Delete,
}

pub(crate) async fn repair(args: RepairArgs, out: Printer) -> Result<(), Failure> {
    if args.unsent.is_none() && is_servers(&args.replica.data, args.force)? {
        return server::repair(&args.replica.data, args.force, out);
    }
    let file = match args.unsent {
        Some(file) => file,
        None => {
            if !args.force && is_sound(&args.replica).await? {
                let text = "the store opens without complaint; --force repairs it all the same";
                return out.line(text, &json!({ "done": "nothing" }));
            }
            set_aside(&args.replica.data, out)?
        }
    };
    make_again(&args.replica, &file, out).await
}

/// Returns true if there is a server's store to repair.
fn is_servers(data: &Path, force: bool) -> Result<bool, Failure> {
    if !data.exists() {
        return Err(Failure::plain(format_args!("there is no {}", data.display())));
    }
    match StoreKind::of(data)? {
        Some(kind) => Ok(kind == StoreKind::Server),
        None if force => Ok(false),
        None => Err(Failure::plain(format_args!(
            "it can't be told whether {} is a replica's store or a server's, or it is both; \
             nothing was changed: --force repairs it as a replica's, and keeps it all beside the \
             new one",
            data.display()
        ))),
    }
}

async fn is_sound(args: &ReplicaArgs) -> Result<bool, Failure> {
    match OpenReplica::open(args).await {
        Ok(replica) => {
            replica.close().await;
            Ok(true)
        }
        Err(failure) if failure.code == Code::Damaged => Ok(false),
        Err(failure) => Err(failure),
    }
}

/// Saves the unsent writes and moves the store aside. Says where the writes are.
fn set_aside(data: &Path, out: Printer) -> Result<PathBuf, Failure> {
    let saved = read_unsent(data).or_else(|failure| match failure.code {
        Code::Damaged => {
            out.note("nothing can be read of the writes that waited for the server");
            Ok(Salvaged::default())
        }
        Code::Failed
        | Code::Usage
        | Code::Foreign
        | Code::Waiting
        | Code::Missing
        | Code::Refused
        | Code::InUse
        | Code::Undecided
        | Code::NotInSync
        | Code::GivenUp => Err(failure),
    })?;
    write_lines(&data.join(FILE), &saved.unsent)?;
    let aside = FjallClientStore::move_aside(data)?;
    let (count, shown) = (saved.unsent.len(), aside.display());
    let Salvaged { lost_commits, lost_writes, lost_records, .. } = saved;
    let json = json!({
        "done": "moved",
        "to": shown.to_string(),
        "unsent": count,
        "lost": { "commits": lost_commits, "writes": lost_writes, "records": lost_records },
    });
    out.line(format_args!("moved the store to {shown}, {count} unsent writes saved"), &json)?;
    if lost_commits > 0 || lost_writes > 0 {
        out.note(format_args!(
            "{lost_commits} of the store's commits can't be read; {lost_writes} unsent writes are \
             lost with them, as far as can be told{}",
            named(&lost_records)
        ));
    }
    Ok(aside.join(FILE))
}

fn named(records: &[String]) -> String {
    if records.is_empty() { String::new() } else { format!(": of {}", records.join(", ")) }
}

/// The contents that were read from a damaged store.
#[derive(Default)]
struct Salvaged {
    unsent: Vec<UnsentWrite>,
    /// Commits of which nothing can be read.
    lost_commits: u64,
    /// UnsentWrite writes that are missing, as far as can be told.
    lost_writes: u64,
    /// The records of those of them that are known.
    lost_records: Vec<String>,
}

fn read_unsent(data: &Path) -> Result<Salvaged, Failure> {
    let lost_commits = FjallClientStore::lost_commits(data)?;
    let mut saved = Salvaged { lost_commits, ..Salvaged::default() };
    let Salvaged { unsent, lost_writes, lost_records, .. } = &mut saved;
    for of_user in salvage(|prefix| FjallClientStore::salvage(data, prefix))? {
        let names = of_user.missing.iter().map(|(collection, id)| format!("{collection}/{id}"));
        lost_records.extend(names);
        // a place is empty for a good reason too, where no commit is missing
        *lost_writes += of_user.gaps.min(lost_commits).max(of_user.missing.len() as u64);
        for write in of_user.writes {
            let document = write.change.delta.set.to_string();
            unsent.push(UnsentWrite {
                user: of_user.user.clone(),
                operation: match write.change.kind {
                    WriteKind::Insert => Operation::Insert,
                    WriteKind::Update => Operation::Update,
                    WriteKind::Delete => Operation::Delete,
                },
                collection: write.collection.to_string(),
                id: write.record_id.to_string(),
                data: RawValue::from_string(document).map_err(Failure::plain)?,
                unset: write.change.delta.unset,
                written_at: write.written_at.to_string(),
                at: write.at.into_iter().map(|(name, at)| (name, at.to_string())).collect(),
            });
        }
    }
    Ok(saved)
}

/// Makes the writes in a file again, and leaves those in it that can't be made yet.
async fn make_again(args: &ReplicaArgs, file: &Path, out: Printer) -> Result<(), Failure> {
    let unsent = read_lines(file)?;
    let mine = unsent.iter().filter(|write| write.user == args.user);
    let names: BTreeSet<_> = mine.map(|write| write.collection.clone()).collect();
    let mut in_sync = false;
    on_replica(args, async |replica| {
        in_sync = meet(replica, &names, out).await?.apart.is_none();
        Ok(())
    })
    .await?;
    let left = again::make_all(args, unsent, in_sync).await?;
    write_lines(file, &left)?;
    on_replica(args, async |replica| {
        let apart = meet(replica, &names, out).await?.apart;
        let waiting = replica.status().await?.pending_writes;
        report(file, &left, waiting, apart, out)
    })
    .await
}

async fn meet(
    replica: &mut OpenReplica,
    names: &BTreeSet<String>,
    out: Printer,
) -> Result<Meeting, Failure> {
    for name in names {
        replica.collection(name)?.subscribe().await?;
    }
    replica.meet(out).await
}

fn report(
    file: &Path,
    left: &[UnsentWrite],
    waiting: usize,
    apart: Option<String>,
    out: Printer,
) -> Result<(), Failure> {
    let json = json!({
        "done": "repaired",
        "waiting": waiting,
        "left": left.len(),
        "file": file.display().to_string(),
        "apart": apart,
    });
    let text = match &apart {
        None => "the replica is in sync again".to_owned(),
        Some(why) => format!("the replica is ready, and {waiting} writes wait: {why}"),
    };
    out.line(text, &json)?;
    if !left.is_empty() {
        let (count, file) = (left.len(), file.display());
        out.note(format_args!(
            "{count} writes need records that aren't here, or belong to another --user; they stay \
             in {file}. To make them: synclayer repair --unsent {file} --data DIR --server URL"
        ));
    }
    let done = left.is_empty() && waiting == 0;
    if done { Ok(()) } else { Err(Failure::said(Code::Waiting)) }
}

fn read_lines(file: &Path) -> Result<Vec<UnsentWrite>, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::plain(format_args!("{} can't be read: {error}", file.display()))
    };
    let reader = BufReader::new(File::open(file).map_err(|error| failed(&error))?);
    let line = |line: std::io::Result<String>| {
        let line = line.map_err(|error| failed(&error))?;
        serde_json::from_str(&line).map_err(|error| failed(&error))
    };
    reader.lines().map(line).collect()
}

/// Writes the file anew, so that at any moment either the old lines or the new ones are there.
fn write_lines(file: &Path, lines: &[UnsentWrite]) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::plain(format_args!("{} can't be written: {error}", file.display()))
    };
    let fresh = file.with_extension("new");
    let mut writer = BufWriter::new(File::create(&fresh).map_err(failed)?);
    for line in lines {
        let line = serde_json::to_string(line).map_err(Failure::plain)?;
        writeln!(writer, "{line}").map_err(failed)?;
    }
    let written = writer.into_inner().map_err(|error| failed(error.into_error()))?;
    written.sync_all().map_err(failed)?;
    fs::rename(&fresh, file).map_err(failed)
}
