//! The output: text for people, or JSON for programs.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

use serde::Serialize;
use synclayer_tokio::{Document, Record};

use crate::failure::{Code, Failure};

/// The output of a command.
#[derive(Clone, Copy)]
pub(crate) struct Printer {
    pub(crate) json: bool,
}

impl Printer {
    /// Prints a line in one of its two forms.
    pub(crate) fn line(self, human: impl Display, json: &impl Serialize) -> Result<(), Failure> {
        if self.json { Self::json(json) } else { Self::text(human) }
    }

    /// Prints a line for people.
    pub(crate) fn text(text: impl Display) -> Result<(), Failure> {
        printed(writeln!(io::stdout(), "{text}"))
    }

    /// Prints a line for programs.
    pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
        let mut line = serde_json::to_vec(value).map_err(Failure::plain)?;
        line.push(b'\n');
        let mut out = io::stdout().lock();
        printed(out.write_all(&line).and_then(|()| out.flush()))
    }

    /// Tells people something that isn't the command's result.
    pub(crate) fn note(self, text: impl Display) {
        let mut err = io::stderr();
        // nobody may be there to read it
        let _ = if self.json {
            writeln!(err, "{}", serde_json::json!({ "note": text.to_string() }))
        } else {
            writeln!(err, "{text}")
        };
    }

    /// Says why the command has failed.
    pub(crate) fn failure(self, failure: &Failure) {
        let Some(message) = &failure.message else { return };
        let mut err = io::stderr();
        let code = failure.code.name();
        // nobody may be there to read it
        let _ = if self.json {
            let json = serde_json::json!({ "error": message, "code": code });
            writeln!(err, "{json}")
        } else {
            writeln!(err, "error: {message}")
        };
    }
}

/// Maps a failure to print. A reader that has gone away gets no message.
fn printed(result: io::Result<()>) -> Result<(), Failure> {
    result.map_err(|error| {
        if error.kind() == ErrorKind::BrokenPipe {
            return Failure::said(Code::Failed);
        }
        Failure::plain(error)
    })
}

/// A record as programs see it.
#[derive(Serialize)]
pub(crate) struct RecordJson<'a> {
    pub(crate) id: &'a str,
    data: &'a Document,
    version: u64,
    #[serde(rename = "updatedAt")]
    updated_at: String,
    /// True while the server does not have all of it.
    pending: bool,
}

impl<'a> From<&'a Record> for RecordJson<'a> {
    fn from(record: &'a Record) -> Self {
        Self {
            id: &record.id,
            data: &record.document,
            version: record.version,
            updated_at: record.updated_at.to_string(),
            pending: record.pending,
        }
    }
}
