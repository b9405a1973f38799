//! The user that a connection belongs to.

use super::interface::Identity;
use crate::protocol::name::UserId;
use crate::protocol::time::Mono;
use crate::rules::policy::User;

/// The user of a connection, as far as it has proved one.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Auth {
    state: State,
    user: Option<User>,
    /// The ticket that is under way.
    checking: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum State {
    /// The server knows no users.
    Open,
    In,
    /// No token yet, until the deadline.
    Needed(Mono),
    /// The token has expired; a fresh one is awaited until the deadline.
    Expired(Mono),
}

impl Auth {
    pub(super) fn new(identity: Identity, deadline: Mono) -> Self {
        let (state, user) = match identity {
            Identity::Open => (State::Open, None),
            Identity::Known(user) => (State::In, Some(user)),
            Identity::Unknown => (State::Needed(deadline), None),
        };
        Self { state, user, checking: None }
    }

    pub(super) fn user(&self) -> Option<&UserId> {
        self.user.as_ref().map(|user| &user.id)
    }

    /// The user with the claims of the token.
    pub(super) fn identified(&self) -> Option<&User> {
        self.user.as_ref()
    }

    pub(super) fn is_in(&self) -> bool {
        matches!(self.state, State::Open | State::In)
    }

    /// Returns `true` if requests are refused, rather than kept until a token was checked.
    pub(super) fn refuses(&self) -> bool {
        self.is_needed() && self.checking.is_none()
    }

    pub(super) fn deadline(&self) -> Option<Mono> {
        match self.state {
            State::Needed(at) | State::Expired(at) => Some(at),
            State::Open | State::In => None,
        }
    }

    /// Returns `true` if the server knows no users.
    pub(super) fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Notes that a token is being checked, by the ticket of this number.
    pub(super) fn begin_check(&mut self, generation: u64) {
        self.checking = Some(generation);
    }

    /// Returns `true` if the answer to this ticket is awaited, and awaits it no longer.
    pub(super) fn end_check(&mut self, generation: u64) -> bool {
        self.checking.take_if(|checking| *checking == generation).is_some()
    }

    /// Lets the user of a token in, unless the connection belongs to another one.
    pub(super) fn admit(&mut self, user: &User) -> bool {
        if self.user().is_some_and(|known| *known != user.id) {
            return false;
        }
        self.state = State::In;
        self.user = Some(user.clone());
        true
    }

    /// Takes over the claims that the user has now. Returns `true` if they are others than before.
    pub(super) fn take_claims(&mut self, user: User) -> bool {
        let is_known = self.state == State::In && self.user() == Some(&user.id);
        let is_new = is_known && self.user.as_ref() != Some(&user);
        if is_new {
            self.user = Some(user);
        }
        is_new
    }

    /// Ends the validity of the token; a fresh one is awaited until the deadline. Returns `false`
    /// if there is nothing to end.
    pub(super) fn expire(&mut self, deadline: Mono) -> bool {
        if self.state != State::In {
            return false;
        }
        self.state = State::Expired(deadline);
        true
    }

    /// Returns `true` if no token was good yet.
    pub(super) fn is_needed(&self) -> bool {
        matches!(self.state, State::Needed(_))
    }
}
