//! The server, by the level of the protocol that it speaks.

use crate::protocol::message::{Features, Level, Welcome};
use crate::protocol::name::Epoch;

/// The server, as far as it is known.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Peer {
    /// It has not shown its level, or what it has shown counts no longer.
    Unknown,
    /// It speaks level 2, as of the last hello.
    Resumable {
        epoch: Epoch,
        /// The optional parts that it has.
        features: Features,
    },
    /// It is taken for one of level 1: on this connection, or by HTTP since the last.
    Plain,
}

impl Peer {
    /// The server has answered a hello.
    pub(super) fn of(welcome: Welcome) -> Self {
        Self::Resumable { epoch: welcome.epoch, features: welcome.features }
    }

    pub(super) fn is_plain(&self) -> bool {
        matches!(self, Self::Plain)
    }

    /// Returns its level; where it is unknown, the one that is tried first.
    pub(super) fn level(&self) -> Level {
        if self.is_plain() { Level::Plain } else { Level::Resumable }
    }

    pub(super) fn epoch(&self) -> Option<&Epoch> {
        match self {
            Self::Resumable { epoch, .. } => Some(epoch),
            Self::Unknown | Self::Plain => None,
        }
    }

    /// Returns `true` if it takes pulls whose collection is in the body.
    pub(super) fn takes_pulls(&self) -> bool {
        match self {
            Self::Resumable { features, .. } => features.pull,
            Self::Unknown | Self::Plain => false,
        }
    }

    /// It may lack the optional parts that it had.
    pub(super) fn doubt_features(&mut self) {
        if let Self::Resumable { features, .. } = self {
            *features = Features::default();
        }
    }

    /// It is no plain server, or not the same.
    pub(super) fn forget_plain(&mut self) {
        if self.is_plain() {
            *self = Self::Unknown;
        }
    }

    /// Its epoch counts no longer.
    pub(super) fn forget_epoch(&mut self) {
        if let Self::Resumable { .. } = self {
            *self = Self::Unknown;
        }
    }
}
