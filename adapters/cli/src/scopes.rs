//! Scopes and indexes on the command line: the keys by which a server divides its collections, its
//! indexes, and the scopes that a client command is about.

use serde::Deserialize;
use serde_json::value::RawValue;
use synclayer_core::NamedScope;
use synclayer_server::{Collection, Index, QueryError, ScopeKey};

const FORMS: &str =
    "this is not KEY=TEXT, as in room=42, or KEY:=JSON, as in room:=42 for the number";

/// A collection with its scope keys, as `COLLECTION=KEY[,KEY…]`.
pub(crate) fn parse(text: &str) -> Result<(Collection, Vec<ScopeKey>), String> {
    let (collection, keys) = divide(text, "COLLECTION=KEY[,KEY…]")?;
    let keys: Result<Vec<ScopeKey>, _> = keys.split(',').map(str::parse).collect();
    Ok((collection, keys.map_err(|error| error.to_string())?))
}

/// A collection with one of its indexes, as `COLLECTION=FIELD[,FIELD…]`.
pub(crate) fn index(text: &str) -> Result<(Collection, Index), String> {
    let (collection, fields) = divide(text, "COLLECTION=FIELD[,FIELD…]")?;
    Ok((collection, fields.parse().map_err(|error: QueryError| error.to_string())?))
}

fn divide<'t>(text: &'t str, form: &str) -> Result<(Collection, &'t str), String> {
    let (collection, rest) = text.split_once('=').ok_or_else(|| format!("this is not {form}"))?;
    let name = Collection::new(collection)
        .map_err(|error| format!("{collection:?} can't be a collection: {error}"))?;
    Ok((name, rest))
}

/// A scope: the parts of its key with their values.
#[derive(Clone, Debug)]
pub(crate) struct ScopeArg {
    pub(crate) parts: Vec<(String, Box<RawValue>)>,
    pub(crate) named: NamedScope,
}

/// Reads a scope as `room=42` (the text), `room:=42` (the number), or `project=p+open:=true` of a key of
/// several fields.
pub(crate) fn scope(text: &str) -> Result<ScopeArg, String> {
    let (mut parts, mut rest) = (Vec::new(), text);
    loop {
        let (part, value, next) = part_of(rest)?;
        parts.push((part.to_owned(), value));
        match next {
            Some(next) => rest = next,
            None => break,
        }
    }
    let named = NamedScope::new(parts.iter().map(|(part, json)| (part.as_str(), json.get())));
    Ok(ScopeArg { named: named.map_err(|error| error.to_string())?, parts })
}

/// A collection with a scope of it, as `COLLECTION=KEY=VALUE`.
pub(crate) fn named(text: &str) -> Result<(Collection, ScopeArg), String> {
    let (collection, rest) = divide(text, "COLLECTION=KEY=VALUE, as in messages=room=42")?;
    Ok((collection, scope(rest)?))
}

/// The first part of a scope, its value, and the text behind it.
fn part_of(text: &str) -> Result<(&str, Box<RawValue>, Option<&str>), String> {
    let (part, value) = text.split_once('=').ok_or(FORMS)?;
    let Some(part) = part.strip_suffix(':') else {
        let (value, next) =
            value.split_once('+').map_or((value, None), |(value, next)| (value, Some(next)));
        let json = serde_json::value::to_raw_value(value).map_err(|error| error.to_string())?;
        return Ok((part, json, next));
    };
    let value = value.trim();
    if value.is_empty() {
        return Err(FORMS.into());
    }
    let json = Box::<RawValue>::deserialize(&mut serde_json::Deserializer::from_str(value))
        .map_err(|error| format!("{value:?} is no JSON: {error}"))?;
    match &value[json.get().len()..] {
        "" => Ok((part, json, None)),
        next => match next.strip_prefix('+') {
            Some(next) => Ok((part, json, Some(next))),
            None => Err(format!("{next:?} stands behind the value: the next part begins with +")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read() {
        for (text, name) in [
            ("room=42", r#"room="42""#),
            ("room:=42", "room=42"),
            ("room:=\"a+b\"", r#"room="a+b""#),
            ("members[]=ann", r#"members[]="ann""#),
            ("owner=a=b", r#"owner="a=b""#),
            ("room=", r#"room="""#),
            ("project=p1+status:=1", r#"project="p1"+status=1"#),
            ("open:=true+room=42", r#"open=true+room="42""#),
            ("n:=9007199254740993", "n=9007199254740993"),
        ] {
            assert_eq!(scope(text).unwrap().named.to_string(), name, "{text}");
        }
    }

    #[test]
    fn an_error_says_what_is_wrong() {
        for (text, problem) in [
            ("room", "KEY=TEXT"),
            ("room:=", "KEY=TEXT"),
            ("room:=x", "is no JSON"),
            ("room:=1 2", "stands behind the value"),
            ("room:=[1]", "room"),
            ("a=1+", "KEY=TEXT"),
            ("=1", ""),
            ("a=1+a=2", ""),
        ] {
            let error = scope(text).unwrap_err();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }
}
