//! The server, by the level of the protocol that it speaks, and all that is known of such a one.

use alloc::boxed::Box;

use super::plain::{Candidate, Plain, Work};
use crate::protocol::message::{Features, Level, Welcome};
use crate::protocol::name::{Epoch, WriteId};

/// The server, as far as it is known.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Peer {
    /// It has not shown its level, or what it has shown counts no longer.
    Unknown,
    /// It speaks level 2, as of the last hello.
    Resumable(Resumable),
    /// It does not know the hello by HTTP: it is found out whether it is a plain server.
    Candidate(Box<Candidate>),
    /// It is taken for one of level 1: on this connection, or by HTTP since the last.
    Plain(Box<Plain>),
}

/// A server of level 2.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Resumable {
    epoch: Epoch,
    /// The optional parts that it has.
    features: Features,
}

impl Peer {
    /// The server has answered a hello.
    pub(super) fn of(welcome: Welcome) -> Self {
        Self::Resumable(Resumable { epoch: welcome.epoch, features: welcome.features })
    }

    pub(super) fn is_plain(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    pub(super) fn is_candidate(&self) -> bool {
        matches!(self, Self::Candidate(_))
    }

    /// Returns its level; where it is unknown, the one that is tried first.
    pub(super) fn level(&self) -> Level {
        if self.is_plain() { Level::Plain } else { Level::Resumable }
    }

    pub(super) fn epoch(&self) -> Option<&Epoch> {
        match self {
            Self::Resumable(Resumable { epoch, .. }) => Some(epoch),
            Self::Unknown | Self::Candidate(_) | Self::Plain(_) => None,
        }
    }

    /// Returns `true` if it takes pulls whose collection is in the body.
    pub(super) fn takes_pulls(&self) -> bool {
        match self {
            Self::Resumable(Resumable { features, .. }) => features.pull,
            Self::Unknown | Self::Candidate(_) | Self::Plain(_) => false,
        }
    }

    /// Returns `true` if it takes transactions whole.
    pub(super) fn takes_units(&self) -> bool {
        match self {
            Self::Resumable(Resumable { features, .. }) => features.atomic,
            Self::Unknown | Self::Candidate(_) | Self::Plain(_) => false,
        }
    }

    /// Returns `true` if it serves scopes of a collection.
    pub(super) fn takes_scopes(&self) -> bool {
        match self {
            Self::Resumable(Resumable { features, .. }) => features.scopes,
            Self::Unknown | Self::Candidate(_) | Self::Plain(_) => false,
        }
    }

    pub(super) fn plain(&self) -> Option<&Plain> {
        match self {
            Self::Plain(plain) => Some(plain),
            Self::Unknown | Self::Resumable(_) | Self::Candidate(_) => None,
        }
    }

    pub(super) fn plain_mut(&mut self) -> Option<&mut Plain> {
        match self {
            Self::Plain(plain) => Some(plain),
            Self::Unknown | Self::Resumable(_) | Self::Candidate(_) => None,
        }
    }

    pub(super) fn candidate_mut(&mut self) -> Option<&mut Candidate> {
        match self {
            Self::Candidate(candidate) => Some(candidate),
            Self::Unknown | Self::Resumable(_) | Self::Plain(_) => None,
        }
    }

    /// The requests of level 1 that are under way.
    pub(super) fn work(&self) -> Option<&Work> {
        match self {
            Self::Candidate(candidate) => Some(&candidate.work),
            Self::Plain(plain) => plain.work.as_ref(),
            Self::Unknown | Self::Resumable(_) => None,
        }
    }

    pub(super) fn work_mut(&mut self) -> Option<&mut Work> {
        match self {
            Self::Candidate(candidate) => Some(&mut candidate.work),
            Self::Plain(plain) => plain.work.as_mut(),
            Self::Unknown | Self::Resumable(_) => None,
        }
    }

    /// Requests of level 1 go on at once. Returns `true` if they were paused.
    pub(super) fn resume_work(&mut self) -> bool {
        self.work_mut().is_some_and(|work| work.throttle.resume())
    }

    /// Returns what is known of a server of level 2, which is known no longer.
    pub(super) fn take_resumable(&mut self) -> Option<Resumable> {
        match core::mem::replace(self, Self::Unknown) {
            Self::Resumable(resumable) => Some(resumable),
            Self::Candidate(candidate) => candidate.before,
            Self::Unknown | Self::Plain(_) => None,
        }
    }

    /// It is found to be a plain one. Requests that are under way go on.
    pub(super) fn become_plain(&mut self) {
        *self = match core::mem::replace(self, Self::Unknown) {
            Self::Plain(plain) => Self::Plain(plain),
            Self::Candidate(candidate) => Self::Plain(Box::new(Plain::doing(candidate.work))),
            Self::Unknown | Self::Resumable(_) => Self::Plain(Box::default()),
        };
    }

    /// No request of level 1 is under way any more. What was a candidate for a plain server is again
    /// what it was before.
    pub(super) fn drop_work(&mut self) {
        match self {
            Self::Plain(plain) => plain.work = None,
            Self::Candidate(_) => {
                *self = self.take_resumable().map_or(Self::Unknown, Self::Resumable)
            }
            Self::Unknown | Self::Resumable(_) => {}
        }
    }

    /// A write is no longer in the outbox.
    pub(super) fn forget_write(&mut self, write: WriteId) {
        if let Some(plain) = self.plain_mut() {
            plain.forget(write);
        }
    }

    /// It may lack the call for pulls that it had. What it guarantees, only a hello takes back.
    pub(super) fn doubt_pulls(&mut self) {
        if let Self::Resumable(Resumable { features, .. }) = self {
            features.pull = false;
        }
    }

    /// It is no plain server, or not the same.
    pub(super) fn forget_plain(&mut self) {
        self.drop_work();
        if self.is_plain() {
            *self = Self::Unknown;
        }
    }

    /// Its epoch counts no longer.
    pub(super) fn forget_epoch(&mut self) {
        if let Self::Resumable(_) = self {
            *self = Self::Unknown;
        }
    }
}
