//! The words of an expression.

use alloc::format;
use alloc::string::String;

use super::parse::RuleError;
use crate::protocol::json;

/// A word of an expression.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Token {
    Name(String),
    Number(String),
    Text(String),
    /// An operator, a bracket, a comma or a dot.
    Sign(&'static str),
    End,
}

/// Longer ones first, so that `<=` is not taken for `<`.
const SIGNS: [&str; 18] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "!", "(", ")", "[", "]", ".", ",", "+", "-", "?",
];

/// The words of a text, one after the other.
pub(super) struct Tokens<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// The whole text.
    pub(super) fn text(&self) -> &'a str {
        self.text
    }

    /// Takes the next word. Returns it with its place in the text.
    pub(super) fn next(&mut self) -> Result<(usize, Token), RuleError> {
        let rest = self.text[self.at..].trim_ascii_start();
        let start = self.text.len() - rest.len();
        self.at = start;
        let Some(first) = rest.chars().next() else { return Ok((start, Token::End)) };
        let token = if first.is_ascii_alphabetic() || first == '_' {
            Token::Name(self.take(|byte| byte.is_ascii_alphanumeric() || byte == b'_').into())
        } else if first.is_ascii_digit() {
            let number = self.number();
            json::check(number).map_err(|_| {
                let message = format!("{number} is no number: write one like 5, 0.5 or 5e3");
                RuleError::new(self.text, start, message)
            })?;
            Token::Number(number.into())
        } else if first == '"' || first == '\'' {
            Token::Text(self.quoted(first)?)
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            self.at += sign.len();
            Token::Sign(sign)
        } else {
            let message = format!("{first:?} can't stand here");
            return Err(RuleError::new(self.text, start, message));
        };
        Ok((start, token))
    }

    fn take(&mut self, fits: impl Fn(u8) -> bool) -> &'a str {
        let rest = &self.text[self.at..];
        let end = rest.bytes().position(|byte| !fits(byte)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn number(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let digits =
            |text: &str| text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let mut end = digits(rest);
        if rest[end..].starts_with('.') && digits(&rest[end + 1..]) > 0 {
            end += 1 + digits(&rest[end + 1..]);
        }
        if rest[end..].starts_with(['e', 'E']) {
            let signed = usize::from(rest[end + 1..].starts_with(['+', '-']));
            end += 1 + signed + digits(&rest[end + 1 + signed..]);
        }
        self.at += end;
        &rest[..end]
    }

    /// A text in quotes of one kind, with the escapes of JSON and for both kinds of quotes.
    fn quoted(&mut self, quote: char) -> Result<String, RuleError> {
        let start = self.at;
        let wrong = |at: usize, message: &str| Err(RuleError::new(self.text, at, message));
        let mut found = String::new();
        let mut letters =
            self.text[start + 1..].char_indices().map(|(at, it)| (start + 1 + at, it));
        while let Some((at, letter)) = letters.next() {
            match letter {
                _ if letter == quote => {
                    self.at = at + 1;
                    return Ok(found);
                }
                '\n' => break,
                '\\' => match letters.next().map(|(_, escape)| escape) {
                    Some(escape @ ('"' | '\'' | '\\' | '/')) => found.push(escape),
                    Some('n') => found.push('\n'),
                    Some('r') => found.push('\r'),
                    Some('t') => found.push('\t'),
                    Some('u') => {
                        let digits = letters.by_ref().take(4).map(|(_, digit)| digit.to_digit(16));
                        let code = digits.collect::<Option<alloc::vec::Vec<u32>>>();
                        let code = code.filter(|code| code.len() == 4);
                        let code = code.map(|code| code.iter().fold(0, |sum, it| sum << 4 | it));
                        match code.and_then(char::from_u32) {
                            Some(letter) => found.push(letter),
                            None => {
                                return wrong(
                                    at,
                                    "\\u needs the four digits of a letter, like \\u00e4",
                                );
                            }
                        }
                    }
                    Some(_) | None => {
                        return wrong(
                            at,
                            "the escapes are \\\" \\' \\\\ \\/ \\n \\r \\t and \\u00e4",
                        );
                    }
                },
                _ => found.push(letter),
            }
        }
        wrong(start, "the text that begins here has no end: a quote is missing")
    }
}
