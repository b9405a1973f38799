//! The one who reads, and what they may read.

use crate::protocol::name::Collection;
use crate::rules::policy::{Access, User};
use crate::rules::scope::ScopeSet;

/// A user who reads a collection.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Reader {
    /// The collection.
    pub collection: Collection,
    /// The user.
    pub user: Option<User>,
    /// The access to the records.
    pub access: Access,
    /// The policy's number for it, when it was asked about the access; 0 if that is not partial.
    pub(crate) stamp: u64,
    /// `true` if each change has to be told as the whole record.
    pub whole: bool,
    /// The scopes of which it is told; `None` for the whole collection.
    pub(crate) scopes: Option<ScopeSet>,
}

/// A reader of a whole collection who may read all of it.
impl From<Collection> for Reader {
    fn from(collection: Collection) -> Self {
        Self { collection, user: None, access: Access::All, stamp: 0, whole: false, scopes: None }
    }
}
