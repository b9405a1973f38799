//! The tokens that `serve` is given. Their mistakes are told without showing a token.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use synclayer_core::UserId;

use crate::failure::unreadable;

/// The size of the largest token file.
const FILE_BYTES: u64 = 16 << 20;

/// A text that is not shown.
#[derive(Clone)]
pub(crate) struct Secret(pub(crate) String);

impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// A user and one of their tokens.
pub(crate) type Entry = (UserId, String);

/// The places where tokens come from.
pub(crate) struct TokenSources {
    given: Vec<Entry>,
    file: Option<PathBuf>,
}

impl TokenSources {
    /// Reads the values of `--token` and `SYNCLAYER_TOKENS`: each holds USER=TOKEN, several with
    /// spaces between them.
    pub(crate) fn new(values: &[Secret], file: Option<PathBuf>) -> Result<Self, String> {
        let mut given = Vec::new();
        for text in values.iter().flat_map(|value| value.0.split_whitespace()) {
            given.push(entry(text).map_err(|why| format!("a --token can't be used: {why}"))?);
        }
        if given.is_empty() && !values.is_empty() {
            return Err("--token or SYNCLAYER_TOKENS is given and empty: write USER=TOKEN, or \
                        leave it out for a server that is open on this machine"
                .to_owned());
        }
        Ok(Self { given, file })
    }

    /// Returns `true` if there is nothing to take tokens from: the server is open.
    pub(crate) fn are_none(&self) -> bool {
        self.given.is_empty() && self.file.is_none()
    }

    pub(crate) fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Returns all tokens anew.
    pub(crate) fn read_again(&self) -> Result<Vec<Entry>, String> {
        self.file.as_deref().map_or(Ok(()), check_again)?;
        self.read()
    }

    /// Returns all tokens, those of the file as they are now.
    pub(crate) fn read(&self) -> Result<Vec<Entry>, String> {
        let mut entries = self.given.clone();
        if let Some(file) = &self.file {
            let shown = file.display();
            let text = read(file)
                .map_err(|error| format!("the token file {}", unreadable(file, &error)))?;
            let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
            for (line, number) in text.lines().map(str::trim).zip(1_u32..) {
                if line.is_empty() || line.starts_with('#') {
                    continue;
                }
                let why =
                    |why| format!("the token file {shown} can't be used: line {number}: {why}");
                entries.push(entry(line).map_err(why)?);
            }
        }
        check_users(&entries)?;
        Ok(entries)
    }
}

/// Refuses what can be read only once, such as the output of a program.
pub(crate) fn check_again(file: &Path) -> Result<(), String> {
    match fs::metadata(file) {
        Ok(found) if !found.is_file() => Err(format!(
            "{} is no regular file, so it can't be read again; start the server anew",
            file.display()
        )),
        // who reads it tells
        Ok(_) | Err(_) => Ok(()),
    }
}

fn read(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(file)?.take(FILE_BYTES + 1).read_to_string(&mut text)?;
    if read as u64 > FILE_BYTES {
        return Err(io::Error::other(format!("it is larger than {FILE_BYTES} bytes")));
    }
    Ok(text)
}

fn entry(text: &str) -> Result<Entry, String> {
    match text.split_once('=') {
        Some((user, token)) if !token.is_empty() => {
            let user = UserId::new(user).map_err(|error| format!("its user: {error}"))?;
            Ok((user, token.to_owned()))
        }
        Some(_) | None => Err("it must be USER=TOKEN".to_owned()),
    }
}

/// Refuses a token that is given to two users, of whom it would let in only one.
fn check_users(entries: &[Entry]) -> Result<(), String> {
    let mut users = BTreeMap::new();
    for (user, token) in entries {
        let first = *users.entry(token).or_insert(user);
        if first != user {
            return Err(format!(
                "{first} and {user} have the same token, so the server could not tell them apart: \
                 give each one of their own"
            ));
        }
    }
    Ok(())
}
