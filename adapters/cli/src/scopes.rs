//! The scope keys of a server's collections, on the command line.

use synclayer_server::{Collection, ScopeKey};

/// A collection with its scope keys, as `COLLECTION=KEY[,KEY…]`.
pub(crate) fn parse(text: &str) -> Result<(Collection, Vec<ScopeKey>), String> {
    let (collection, keys) = text.split_once('=').ok_or("this is not COLLECTION=KEY[,KEY…]")?;
    let collection = Collection::new(collection)
        .map_err(|error| format!("{collection:?} can't be a collection: {error}"))?;
    let keys: Result<Vec<ScopeKey>, _> = keys.split(',').map(str::parse).collect();
    Ok((collection, keys.map_err(|error| error.to_string())?))
}
