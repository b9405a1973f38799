//! Changing a record by what it is, with a program that reads it and prints what takes its place.

use std::ffi::OsString;
use std::io::{ErrorKind, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use synclayer_tokio::{Document, Limits, Saved};
use tokio::task::spawn_blocking;

use crate::args::ModifyArgs;
use crate::deliver::{Done, deliver_after};
use crate::failure::{Code, Failure};
use crate::output::Printer;
use crate::part::Part;
use crate::replica::on_replica;
use crate::umask;
use crate::write::missing_unless_met;

/// Attempts to run the program, if the record changes meanwhile.
const TRIES: u32 = 10;

pub(crate) async fn modify(args: ModifyArgs, out: Printer) -> Result<(), Failure> {
    let ModifyArgs { collection: name, id, program, scope, replica } = args;
    let program = Arc::new(Program::new(program));
    on_replica(&replica, async |replica| {
        let part = Part::of(replica, &name, &scope)?;
        // what others made of the record by now is what the program is to see
        let before = missing_unless_met(replica, (&name, &part), &id, out).await?;
        for _ in 0..TRIES {
            let seen = part.get(&id).await?.map(|record| record.document);
            let seen = seen.ok_or_else(|| Failure::no_record(&name, &id))?;
            let made = program.run(seen.clone()).await?;
            if let Some(saved) = replaced(&part, &id, seen, made).await? {
                let done = Done { done: "modified", collection: &name, saved };
                return deliver_after(before, replica, done, out).await;
            }
        }
        Err(Failure::plain(format_args!(
            "{name}/{id} changed {TRIES} times while {program} ran; nothing was changed by it. Try \
             again when less is written to the record, or with a faster program"
        )))
    })
    .await
}

/// Puts a document in the place of another; `None` where the record is a third one by now.
async fn replaced(
    part: &Part,
    id: &str,
    seen: Document,
    made: Document,
) -> Result<Option<Saved>, Failure> {
    let fits = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&fits);
    let change = move |now: Option<&Document>| {
        if now != Some(&seen) {
            return now.cloned();
        }
        told.store(true, Ordering::Relaxed);
        Some(made)
    };
    let saved = part.modify(id, change).await?;
    Ok(Some(saved).filter(|_| fits.load(Ordering::Relaxed)))
}

/// A program with its arguments.
struct Program(Vec<OsString>);

impl Program {
    fn new(line: Vec<OsString>) -> Self {
        Self(line)
    }

    /// Runs the program on a document, and takes what it prints.
    async fn run(self: &Arc<Self>, document: Document) -> Result<Document, Failure> {
        let program = Arc::clone(self);
        spawn_blocking(move || program.run_here(&document)).await.map_err(Failure::plain)?
    }

    fn run_here(&self, document: &Document) -> Result<Document, Failure> {
        let child = self.start()?;
        let printed = self.feed(child, document)?;
        let refuse = |why: &dyn std::fmt::Display| {
            Failure::plain(format_args!(
                "what {self} printed can't take the record's place: {why}; nothing was changed"
            ))
        };
        let text = String::from_utf8(printed).map_err(|error| refuse(&error))?;
        if text.trim().is_empty() {
            return Err(refuse(&"it is empty, where a JSON object was expected"));
        }
        Document::parse(&text, &Limits::default()).map_err(|error| refuse(&error))
    }

    fn start(&self) -> Result<Child, Failure> {
        let [program, arguments @ ..] = &self.0[..] else {
            return Err(Failure::new(Code::Usage, "no program was given"));
        };
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        umask::for_others(|| command.spawn()).map_err(|error| {
            Failure::new(Code::Usage, format!("{self} can't be run: {error}; nothing was changed"))
        })
    }

    /// Gives the program the document, and waits for its end and for what it prints.
    fn feed(&self, mut child: Child, document: &Document) -> Result<Vec<u8>, Failure> {
        let line = format!("{document}\n");
        let stdin = child.stdin.take();
        // beside the reading of what it prints, or each could wait for the other
        let feeding =
            thread::spawn(move || stdin.map_or(Ok(()), |mut to| to.write_all(line.as_bytes())));
        let ended = child.wait_with_output()?;
        let fed = feeding.join().map_err(|_| Failure::plain("the record could not be written"))?;
        // a program need not read what it is given
        fed.or_else(
            |error| if error.kind() == ErrorKind::BrokenPipe { Ok(()) } else { Err(error) },
        )?;
        if !ended.status.success() {
            let status = ended.status;
            return Err(Failure::plain(format_args!(
                "{self} failed ({status}); nothing was changed"
            )));
        }
        Ok(ended.stdout)
    }
}

impl std::fmt::Display for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.first().map(|program| program.to_string_lossy()).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use synclayer_tokio::{SyncConfig, SyncLayer};

    use super::*;

    fn document(json: &str) -> Document {
        Document::parse(json, &Limits::default()).unwrap()
    }

    #[tokio::test]
    async fn a_record_that_changed_meanwhile_is_not_replaced() {
        let config = SyncConfig::new("http://localhost").connect_at_start(false);
        let sync = SyncLayer::open(config).await.unwrap();
        let todos = sync.collection("todos").unwrap();
        let part = Part::Whole(todos.clone());
        todos.save_with_id("x", &document(r#"{"n":1}"#)).await.unwrap();
        let (old, made) = (document(r#"{"n":0}"#), document(r#"{"n":7}"#));
        let n =
            async || todos.get("x").await.unwrap().unwrap().document.text("n").unwrap().to_owned();
        assert!(replaced(&part, "x", old.clone(), made.clone()).await.unwrap().is_none());
        assert_eq!(n().await, "1");
        assert!(replaced(&part, "gone", old, made.clone()).await.unwrap().is_none());
        assert!(todos.get("gone").await.unwrap().is_none());
        let saved = replaced(&part, "x", document(r#"{"n":1}"#), made).await.unwrap();
        assert_eq!(&*saved.unwrap().id, "x");
        assert_eq!(n().await, "7");
        sync.close().await;
    }
}
