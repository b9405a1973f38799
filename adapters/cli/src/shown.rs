//! Texts as they may reach a terminal: what is stored, and what a server says, may hold the codes by
//! which a terminal is told to clear, overwrite or reorder what it shows.

use std::fmt::{self, Display, Write as _};
use std::io::{self, Write};

/// A text in one line, in which `\u001b` and the like stand for control characters. That is an
/// escape of JSON too, so JSON stays what it was.
pub(crate) struct Shown<T>(pub(crate) T);

impl<T: Display> Display for Shown<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping { out: f, keeps_lines: false }, "{}", self.0)
    }
}

/// The same for a text of several lines.
pub(crate) struct ShownLines<T>(pub(crate) T);

impl<T: Display> Display for ShownLines<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping { out: f, keeps_lines: true }, "{}", self.0)
    }
}

struct Escaping<'a, 'b> {
    out: &'a mut fmt::Formatter<'b>,
    keeps_lines: bool,
}

impl fmt::Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.split_inclusive(misleads) {
            let last = piece.chars().next_back().filter(|last| misleads(*last));
            match last {
                Some('\n') if self.keeps_lines => self.out.write_str(piece)?,
                Some(last) => {
                    self.out.write_str(&piece[..piece.len() - last.len_utf8()])?;
                    write!(self.out, "\\u{:04x}", u32::from(last))?;
                }
                None => self.out.write_str(piece)?,
            }
        }
        Ok(())
    }
}

/// Returns `true` for a control character, and for one that turns the direction of what follows.
fn misleads(of: char) -> bool {
    of.is_control() || matches!(of, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Where the log goes: each event, whatever it holds, stays in its line.
pub(crate) struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let (text, end) = match text.strip_suffix('\n') {
            Some(text) => (text, "\n"),
            None => (&*text, ""),
        };
        write!(io::stderr().lock(), "{}{end}", Shown(text))?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_leads_a_terminal_is_left() {
        let text = "a\u{1b}[2J\u{9b}1m\n\u{7f}\u{202e}b \u{fc}\u{200f}\u{1f600}";
        let shown = Shown(text).to_string();
        assert_eq!(shown, "a\\u001b[2J\\u009b1m\\u000a\\u007f\\u202eb \u{fc}\u{200f}\u{1f600}");
        assert_eq!(ShownLines("a\n\tb\n").to_string(), "a\n\\u0009b\n");
        let json = serde_json::json!({ "a": "\u{9b}\u{7f}\u{2066}" });
        let shown: serde_json::Value = serde_json::from_str(&Shown(&json).to_string()).unwrap();
        assert_eq!(shown, json);
    }
}
