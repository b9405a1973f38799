//! Those who share what a server has.

use std::net::IpAddr;

use synclayer_core::UserId;

/// A user, or where none is known the address that a peer is counted by. Each party has an equal
/// part of what is scarce.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Party {
    User(UserId),
    Address(IpAddr),
    /// The programs of this machine together.
    Nobody,
}

impl Party {
    pub(crate) fn new(user: Option<&UserId>, address: Option<IpAddr>) -> Self {
        match (user, address) {
            (Some(user), _) => Self::User(user.clone()),
            (None, Some(address)) => Self::Address(address),
            (None, None) => Self::Nobody,
        }
    }
}
