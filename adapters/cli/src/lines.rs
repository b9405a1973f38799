//! Collections as files of JSON lines: a record each.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use indicatif::{ProgressBar, ProgressStyle};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use synclayer_tokio::{
    Confirmed, Document, Limits, Record, RecordId, SavedTransaction, SyncError, SyncLayer,
    Transaction,
};

use crate::args::{ExportArgs, ImportArgs};
use crate::deliver::{DoneAll, deliver_all};
use crate::failure::{Code, Failure, advice, unreadable};
use crate::output::Printer;
use crate::part::Part;
use crate::read::{filtered, refresh};
use crate::replica::on_replica;

/// The most records of a transaction.
const RECORDS: usize = 100;
/// The size of a transaction's lines from which on it is full: far less than the server takes.
const BYTES: usize = 1 << 20;
/// The most transactions that are being saved at a time.
const AT_A_TIME: usize = 8;

/// A record as `export`, `list` and `get` print it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Line<'a> {
    id: String,
    #[serde(borrow)]
    data: &'a RawValue,
    /// Tells nothing that could be saved, and so do those below.
    #[serde(default, rename = "version")]
    _version: IgnoredAny,
    #[serde(default, rename = "updatedAt")]
    _updated_at: IgnoredAny,
    #[serde(default, rename = "pending")]
    _pending: IgnoredAny,
}

/// A record as `export` prints it.
#[derive(Serialize)]
struct ExportedLine<'a> {
    id: &'a str,
    data: &'a Document,
}

pub(crate) async fn export(args: ExportArgs, out: Printer) -> Result<(), Failure> {
    on_replica(&args.replica, async |replica| {
        let part = Part::of(replica, &args.collection, &args.scope)?;
        part.subscribe().await?;
        let meeting = refresh(replica, &args.collection, out).await?;
        for record in filtered(part.query(), &args.filter).get().await? {
            match &args.id_field {
                None => Printer::json(&ExportedLine { id: &record.id, data: &record.document })?,
                Some(field) => Printer::json(&with_id(record, field)?)?,
            }
        }
        meeting.end()
    })
    .await
}

/// The document of a record with its id in a field.
fn with_id(Record { id, mut document, .. }: Record, field: &str) -> Result<Document, Failure> {
    let found: Option<Box<RawValue>> =
        document.get(field).map_err(|error| Failure::new(Code::Usage, error.to_string()))?;
    match found {
        None => document.set(field, id.as_str()).map_err(Failure::plain)?,
        Some(found) if id_of(&found).is_some_and(|found| found == *id) => {}
        Some(_) => {
            return Err(Failure::plain(format_args!(
                "the field {field} of the record {id} is not its id, and would be lost: the records from \
                 this one on were not printed; name another field, or export without --id-field"
            )));
        }
    }
    Ok(document)
}

/// An id as the JSON of a field's value has it.
fn id_of(value: &RawValue) -> Option<String> {
    let text = value.get();
    let is_number = text.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    if is_number { Some(text.to_owned()) } else { serde_json::from_str(text).ok() }
}

pub(crate) async fn import(args: ImportArgs, out: Printer) -> Result<(), Failure> {
    let mut source = Source::open(&args.file, out)?;
    on_replica(&args.replica, async |replica| {
        let held = Part::of(replica, &args.collection, &args.scope)?;
        held.subscribe().await?;
        // what the server has already is not sent to it again
        let before = replica.meet(out).await?;
        let mut import = Import::new(&replica.sync, &args.collection);
        let ended = import.run(&mut source, args.id_field.as_deref()).await;
        let Import { count, unchanged, fates, .. } = import;
        let met = if before.apart.is_none() { replica.meet(out).await? } else { before };
        let unchanged = Some(unchanged);
        let done = DoneAll { done: "imported", collection: &args.collection, count, unchanged };
        let delivered = deliver_all(&met, done, fates, out).await;
        // until then it is used
        drop(held);
        ended.and(delivered)
    })
    .await
}

/// The lines of a file, or of the standard input.
struct Source {
    lines: Box<dyn BufRead>,
    /// The number of lines that were read.
    read: usize,
    bar: ProgressBar,
}

impl Source {
    fn open(file: &str, out: Printer) -> Result<Self, Failure> {
        let (lines, bytes): (Box<dyn BufRead>, _) = if file == "-" {
            (Box::new(BufReader::new(io::stdin())), None)
        } else {
            let usable = |opened: io::Result<File>| {
                let file = opened?;
                let bytes = file.metadata()?.len();
                Ok((file, bytes))
            };
            let (opened, bytes) = usable(File::open(file)).map_err(|error: io::Error| {
                Failure::new(Code::Usage, unreadable(file.as_ref(), &error))
            })?;
            (Box::new(BufReader::new(opened)), Some(bytes))
        };
        Ok(Self { lines, read: 0, bar: bar(bytes, out) })
    }

    /// The next line that is not empty, with its number; `None` at the end.
    fn next(&mut self) -> Result<Option<(usize, String)>, String> {
        loop {
            let mut line = String::new();
            let bytes = self
                .lines
                .read_line(&mut line)
                .map_err(|error| format!("line {} can't be read: {error}", self.read + 1))?;
            if bytes == 0 {
                return Ok(None);
            }
            self.read += 1;
            self.bar.inc(bytes as u64);
            if !line.trim().is_empty() {
                return Ok(Some((self.read, line)));
            }
        }
    }
}

/// A bar that shows how much was read, where the standard error is a terminal.
fn bar(bytes: Option<u64>, out: Printer) -> ProgressBar {
    if out.json {
        return ProgressBar::hidden();
    }
    let (bar, template) = match bytes {
        Some(bytes) => (ProgressBar::new(bytes), "{bar:40} {percent} %, {msg}"),
        None => (ProgressBar::no_length(), "{spinner} {msg}"),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// The records of a transaction, with the lines that they come from.
#[derive(Default)]
struct Batch {
    records: Vec<(RecordId, Document)>,
    bytes: usize,
    first: usize,
    last: usize,
}

impl Batch {
    fn add(&mut self, number: usize, bytes: usize, record: (RecordId, Document)) {
        if self.records.is_empty() {
            self.first = number;
        }
        self.last = number;
        self.bytes += bytes;
        self.records.push(record);
    }

    fn is_full(&self) -> bool {
        self.records.len() == RECORDS || self.bytes >= BYTES
    }
}

/// A transaction that was tried.
struct Tried {
    lines: RangeInclusive<usize>,
    records: usize,
    unchanged: usize,
    saved: Result<SavedTransaction, SyncError>,
}

/// Saves records in a transaction.
async fn save(sync: SyncLayer, collection: String, part: Batch) -> Tried {
    let Batch { records, first, last, .. } = part;
    let (count, unchanged) = (records.len(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&unchanged);
    let body = move |t: &mut Transaction<'_, '_>| {
        t.keep_what_won();
        for (id, document) in &records {
            if t.get(&collection, id)?.as_ref() == Some(document) {
                counted.fetch_add(1, Ordering::Relaxed);
            } else {
                t.save_with_id(&collection, id, document)?;
            }
        }
        Ok(())
    };
    let saved = sync.transaction(body).await;
    let unchanged = unchanged.load(Ordering::Relaxed);
    Tried { lines: first..=last, records: count, unchanged, saved }
}

/// An import under way.
struct Import<'a> {
    sync: &'a SyncLayer,
    collection: &'a str,
    saving: FuturesOrdered<BoxFuture<'static, Tried>>,
    /// The records that were saved, and those among them that were like that already.
    count: usize,
    unchanged: usize,
    /// Their fates at the server, each with the number of records that share it.
    fates: Vec<(usize, Confirmed)>,
    /// The line up to which everything is saved.
    saved_up_to: usize,
}

impl<'a> Import<'a> {
    fn new(sync: &'a SyncLayer, collection: &'a str) -> Self {
        let (saving, fates) = (FuturesOrdered::new(), Vec::new());
        Self { sync, collection, saving, count: 0, unchanged: 0, fates, saved_up_to: 0 }
    }

    /// Saves all lines, or those before the first that can't be.
    async fn run(&mut self, source: &mut Source, id_field: Option<&str>) -> Result<(), Failure> {
        let read = self.save_lines(source, id_field).await;
        let mut settled = Ok(());
        while !self.saving.is_empty() && settled.is_ok() {
            settled = self.settle().await;
        }
        source.bar.finish_and_clear();
        // a transaction that failed is of lines before one that can't be read
        settled.and(read).map_err(|why| {
            let saved = match self.saved_up_to {
                0 => "nothing was imported".to_owned(),
                last => format!("lines 1 to {last} were imported, and none behind them"),
            };
            let hint =
                "Mend that and import everything again: what is there already stays as it is";
            Failure::new(Code::Usage, format!("{why}; {saved}")).hint(hint)
        })
    }

    async fn save_lines(
        &mut self,
        source: &mut Source,
        id_field: Option<&str>,
    ) -> Result<(), String> {
        let mut part = Batch::default();
        while let Some((number, line)) = source.next()? {
            let record = match id_field {
                None => read(&line),
                Some(field) => read_bare(&line, field),
            };
            let record = record.map_err(|why| format!("line {number} can't be used: {why}"))?;
            part.add(number, line.len(), record);
            if part.is_full() {
                self.begin(std::mem::take(&mut part)).await?;
                source.bar.set_message(format!("{} records", self.count));
            }
        }
        if !part.records.is_empty() {
            self.begin(part).await?;
        }
        Ok(())
    }

    /// Begins to save a transaction, when there are not too many under way.
    async fn begin(&mut self, part: Batch) -> Result<(), String> {
        if self.saving.len() == AT_A_TIME {
            self.settle().await?;
        }
        let (sync, collection) = (self.sync.clone(), self.collection.to_owned());
        self.saving.push_back(Box::pin(save(sync, collection, part)));
        Ok(())
    }

    /// Waits for the oldest transaction under way.
    async fn settle(&mut self) -> Result<(), String> {
        let Some(Tried { lines, records, unchanged, saved }) = self.saving.next().await else {
            return Ok(());
        };
        let (first, last) = (lines.start(), lines.end());
        let saved =
            saved.map_err(|why| format!("lines {first} to {last} could not be saved: {why}"))?;
        self.count += records;
        self.unchanged += unchanged;
        self.saved_up_to = *last;
        if saved.transaction.is_some() {
            self.fates.push((records - unchanged, saved.confirmed()));
        }
        Ok(())
    }
}

/// Reads a record that `export` has printed.
fn read(line: &str) -> Result<(RecordId, Document), String> {
    let form = r#"a record is {"id":"…","data":{…}}, and one without them needs --id-field"#;
    let line: Line<'_> = serde_json::from_str(line).map_err(|why| format!("{why}; {form}"))?;
    record(line.id, line.data.get())
}

/// Reads a record that has its id in a field.
fn read_bare(line: &str, field: &str) -> Result<(RecordId, Document), String> {
    let (_, document) = record("-".to_owned(), line)?;
    let id: Option<Box<RawValue>> = document.get(field).map_err(|why| why.to_string())?;
    let id = id.ok_or_else(|| format!("it has no field {field}, which is to be its id"))?;
    let id = id_of(&id)
        .ok_or_else(|| format!("its field {field} is neither a text nor a number: {id}"))?;
    Ok((record_id(id)?, document))
}

fn record(id: String, json: &str) -> Result<(RecordId, Document), String> {
    let document = Document::parse(json, &Limits::default());
    let document = document.map_err(|why| format!("{why}: {}", advice(&why)))?;
    Ok((record_id(id)?, document))
}

fn record_id(id: String) -> Result<RecordId, String> {
    RecordId::new(&id).map_err(|why| format!("{id:?} can't be an id: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_record_or_says_what_is_wrong() {
        let (id, document) = read(r#"{"id":"a","data":{"n":1.50},"version":3}"#).unwrap();
        assert_eq!((id.as_str(), &*document.to_string()), ("a", r#"{"n":1.50}"#));
        for (line, id) in [
            (r#"{"key":"a","n":1}"#, "a"),
            (r#"{"key":9007199254740993}"#, "9007199254740993"),
            (r#"{"key":-1.0}"#, "-1.0"),
        ] {
            let read = read_bare(line, "key").unwrap();
            assert_eq!((read.0.as_str(), &*read.1.to_string()), (id, line));
        }
        for (line, why) in [
            ("", "EOF"),
            (r#"{"id":"a"}"#, "missing field `data`"),
            (r#"{"id":7,"data":{}}"#, "expected a string"),
            (r#"{"id":"","data":{}}"#, "can't be an id"),
            (r#"{"id":"a","data":[]}"#, "a record has named fields"),
            (r#"{"id":"a","data":{},"more":1}"#, "unknown field `more`"),
        ] {
            let told = read(line).unwrap_err();
            assert!(told.contains(why), "{line}: {told}");
        }
        for (line, why) in [
            ("{}", "no field key"),
            (r#"{"key":[1]}"#, "neither a text nor a number: [1]"),
            (r#"{"key":""}"#, "can't be an id"),
            ("[]", "a record has named fields"),
        ] {
            let told = read_bare(line, "key").unwrap_err();
            assert!(told.contains(why), "{line}: {told}");
        }
    }
}
