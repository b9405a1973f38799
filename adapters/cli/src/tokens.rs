//! The tables of tokens that `serve` is given. Their mistakes are told without showing a token.

use std::collections::BTreeMap;

use synclayer_core::UserId;

use crate::args::Secret;

/// A user and one of their tokens.
pub(crate) type Entry = (UserId, String);

/// Reads the values of `--token` and `SYNCLAYER_TOKENS`: each holds USER=TOKEN, several with spaces
/// between them.
pub(crate) fn of_options(values: &[Secret]) -> Result<Vec<Entry>, String> {
    let mut entries = Vec::new();
    for text in values.iter().flat_map(|value| value.0.split_whitespace()) {
        entries.push(entry(text).map_err(|why| format!("a --token can't be used: {why}"))?);
    }
    if entries.is_empty() {
        return Err(
            "--token or SYNCLAYER_TOKENS is given and empty: write USER=TOKEN, or leave it \
                    out for a server that is open on this machine"
                .to_owned(),
        );
    }
    check_users(&entries)?;
    Ok(entries)
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
