//! The scope keys and the indexes of a server's collections, on the command line.

use synclayer_server::{Collection, Index, QueryError, ScopeKey};

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
