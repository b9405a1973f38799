//! Who the connection belongs to.

use super::{Action, AuthAnswer, AuthTicket, Identity, Session, Turn};
use crate::protocol::message::{ErrorCode, ServerMessage, Token};
use crate::protocol::name::UserId;
use crate::protocol::time::Mono;

/// What is known of the connection's user.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Auth {
    state: State,
    user: Option<UserId>,
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
        self.user.as_ref()
    }

    pub(super) fn is_in(&self) -> bool {
        matches!(self.state, State::Open | State::In)
    }

    /// Whether requests are to be refused, rather than kept until a token was checked.
    pub(super) fn refuses(&self) -> bool {
        matches!(self.state, State::Needed(_)) && self.checking.is_none()
    }

    pub(super) fn deadline(&self) -> Option<Mono> {
        match self.state {
            State::Needed(at) | State::Expired(at) => Some(at),
            State::Open | State::In => None,
        }
    }
}

impl Session {
    pub(super) fn auth(&mut self, token: Token, turn: &mut Turn<'_, '_>) {
        if self.auth.state == State::Open {
            self.say(&ServerMessage::Authenticated { user_id: None }, turn);
            return;
        }
        let (conn, generation) = (self.conn, self.next_generation());
        self.auth.checking = Some(generation);
        turn.out.push(Action::Authenticate(AuthTicket { conn, generation, token }));
    }

    pub(super) fn authenticated(&mut self, answer: AuthAnswer, turn: &mut Turn<'_, '_>) {
        let expected = self.auth.checking == Some(answer.generation) && self.conn == answer.conn;
        if !expected || self.closed {
            self.counters.late_answers += 1;
            return;
        }
        self.auth.checking = None;
        match answer.result {
            Some(user) if self.auth.user.as_ref().is_none_or(|known| *known == user) => {
                self.auth.state = State::In;
                self.auth.user = Some(user.clone());
                self.say(&ServerMessage::Authenticated { user_id: Some(user) }, turn);
                self.advance(turn);
            }
            Some(_) => {
                let message = "the token belongs to another user: open another connection";
                self.error(ErrorCode::AuthFailed, message, turn);
                self.close(1008, "the token belongs to another user", turn);
            }
            None => {
                if matches!(self.auth.state, State::Needed(_)) {
                    self.queue.clear();
                }
                self.error(ErrorCode::AuthFailed, "the token is wrong or has expired", turn);
                self.count_bad(turn);
            }
        }
    }

    /// Nothing is served any more, and nothing forgotten, until a fresh token comes.
    pub(super) fn auth_expired(&mut self, turn: &mut Turn<'_, '_>) {
        if self.closed || self.auth.state != State::In {
            return;
        }
        self.auth.state = State::Expired(self.mono + self.config.auth_patience);
        self.error(ErrorCode::AuthExpired, "the token has expired: send a fresh one", turn);
    }
}
