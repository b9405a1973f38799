//! The output: text for people, or JSON for programs.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

use serde::Serialize;
use synclayer_tokio::{Document, Record};

use crate::failure::{Code, Failure};
use crate::shown::{Shown, ShownLines};

/// The output of a command.
#[derive(Clone, Copy)]
pub(crate) struct Printer {
    pub(crate) json: bool,
    /// The standard output is a terminal.
    pub(crate) terminal: bool,
}

impl Printer {
    /// Prints a line in one of its two forms.
    pub(crate) fn line(self, human: impl Display, json: &impl Serialize) -> Result<(), Failure> {
        if self.json { Self::json(json) } else { Self::text(human) }
    }

    /// Prints a record: for people on a terminal, else as a line of JSON.
    pub(crate) fn record(self, record: &Record) -> Result<(), Failure> {
        if self.is_for_programs() {
            return Self::json(&RecordJson::from(record));
        }
        Self::laid_out("", record)
    }

    /// Prints a record for people, behind a word about it.
    pub(crate) fn laid_out(word: &str, record: &Record) -> Result<(), Failure> {
        let mark = if record.pending { "  (waits for the server)" } else { "" };
        let id = Shown(&record.id);
        let document = pretty(&record.document.to_string());
        printed(writeln!(io::stdout(), "{word}{id}{mark}\n{}", ShownLines(document)))
    }

    /// Returns true if records are printed as lines of JSON.
    pub(crate) fn is_for_programs(self) -> bool {
        self.json || !self.terminal
    }

    /// Prints several lines for people, or one for programs.
    pub(crate) fn lines(
        self,
        human: impl IntoIterator<Item = impl Display>,
        json: &impl Serialize,
    ) -> Result<(), Failure> {
        if self.json { Self::json(json) } else { human.into_iter().try_for_each(Self::text) }
    }

    /// Prints a line for people.
    pub(crate) fn text(text: impl Display) -> Result<(), Failure> {
        printed(writeln!(io::stdout(), "{}", Shown(text)))
    }

    /// Prints a line for programs.
    pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
        let line = serde_json::to_string(value).map_err(Failure::plain)?;
        let mut out = io::stdout().lock();
        printed(writeln!(out, "{}", Shown(line)).and_then(|()| out.flush()))
    }

    /// Tells people something that isn't the command's result.
    pub(crate) fn note(self, text: impl Display) {
        let mut err = io::stderr();
        // nobody may be there to read it
        let _ = if self.json {
            writeln!(err, "{}", Shown(serde_json::json!({ "note": text.to_string() })))
        } else {
            writeln!(err, "{}", Shown(text))
        };
    }

    /// Says why the command has failed.
    pub(crate) fn failure(self, failure: &Failure) {
        let Some(message) = &failure.message else { return };
        let mut err = io::stderr();
        let code = failure.code.name();
        // nobody may be there to read it
        let _ = if self.json {
            let text = [Some(message), failure.hint.as_ref()].into_iter().flatten();
            let text = text.map(String::as_str).collect::<Vec<_>>().join("\n");
            writeln!(err, "{}", Shown(serde_json::json!({ "error": text, "code": code })))
        } else {
            let hint = failure.hint.iter().map(|hint| writeln!(io::stderr(), "{}", Shown(hint)));
            writeln!(err, "error: {}", Shown(message)).and_then(|()| hint.collect())
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

/// A JSON text with a line for each value, and each number to the letter.
fn pretty(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let (mut depth, mut quoted, mut escaped) = (0, false, false);
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    let mut letters = json.chars().peekable();
    while let Some(letter) = letters.next() {
        if quoted {
            out.push(letter);
            quoted = letter != '"' || escaped;
            escaped = letter == '\\' && !escaped;
            continue;
        }
        match letter {
            '{' | '[' => {
                while letters.next_if(|next| next.is_whitespace()).is_some() {}
                out.push(letter);
                if let Some(end) = letters.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth -= 1;
                line(&mut out, depth);
                out.push(letter);
            }
            ',' => {
                out.push(',');
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            _ if letter.is_whitespace() => {}
            _ => {
                quoted = letter == '"';
                out.push(letter);
            }
        }
    }
    out
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_printed_with_a_line_for_each_value() {
        let json = r#"{"a":[1.50,{ }, [ ]],"b":{"c" :"x{,\"\\"},"d":9007199254740993}"#;
        let lines = [
            "{",
            "  \"a\": [",
            "    1.50,",
            "    {},",
            "    []",
            "  ],",
            "  \"b\": {",
            "    \"c\": \"x{,\\\"\\\\\"",
            "  },",
            "  \"d\": 9007199254740993",
            "}",
        ];
        assert_eq!(pretty(json), lines.join("\n"));
        assert_eq!(pretty("{}"), "{}");
    }
}
