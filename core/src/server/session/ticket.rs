//! Tickets: questions that go out as move-only values and come back as inputs.

use super::interface::SessionInput;
use crate::protocol::message::Token;
use crate::protocol::name::ConnId;
use crate::rules::page::{ReadAnswer, ReadRequest};
use crate::rules::policy::User;
use crate::rules::transaction::{TransactError, Transaction, TransactionAnswer};
use crate::store::StoreError;

/// A question of a session, to be answered once: a [`Token`] to be checked, a [`Transaction`] to be
/// decided and committed, or a [`ReadRequest`].
#[derive(PartialEq, Eq, Debug)]
#[must_use = "the session waits for its answer"]
pub struct Ticket<Q> {
    pub(super) conn: ConnId,
    pub(super) generation: u64,
    pub(super) question: Q,
}

/// The answer to a [`Ticket`], to be handed in to its session.
#[derive(PartialEq, Eq, Debug)]
pub struct TicketAnswer<A> {
    pub(super) conn: ConnId,
    pub(super) generation: u64,
    pub(super) answer: A,
}

impl<Q> Ticket<Q> {
    /// The connection whose session asks.
    #[must_use]
    pub(crate) fn conn(&self) -> ConnId {
        self.conn
    }

    /// The question.
    #[must_use]
    pub fn question(&self) -> &Q {
        &self.question
    }

    /// A second ticket for the same question, for a server that is cloned.
    pub(crate) fn twin(&self) -> Self
    where
        Q: Clone,
    {
        Self { question: self.question.clone(), ..*self }
    }

    fn report<A>(self, answer: A) -> TicketAnswer<A> {
        TicketAnswer { conn: self.conn, generation: self.generation, answer }
    }
}

impl Ticket<Token> {
    /// Answers with the user of the token; with `None` if it is wrong or has expired.
    #[must_use]
    pub fn answer(self, user: Option<User>) -> SessionInput<'static> {
        SessionInput::Authenticated(self.report(user))
    }
}

impl Ticket<Transaction> {
    /// Answers with the outcome, once it is durable, or with the error.
    #[must_use]
    pub fn answer(
        self,
        outcome: Result<TransactionAnswer, TransactError>,
    ) -> SessionInput<'static> {
        SessionInput::Transacted(self.report(outcome))
    }
}

impl Ticket<ReadRequest> {
    /// Answers with the data, or the error of the store.
    #[must_use]
    pub fn answer(self, found: Result<ReadAnswer, StoreError>) -> SessionInput<'static> {
        SessionInput::Read(self.report(found))
    }
}

impl<A: Clone> TicketAnswer<A> {
    fn twin(&self) -> Self {
        Self { answer: self.answer.clone(), ..*self }
    }
}

impl SessionInput<'_> {
    /// The same input once more, for a server that is cloned.
    pub(crate) fn twin(&self) -> Self {
        match self {
            Self::Frame(frame) => Self::Frame(frame),
            Self::Ping => Self::Ping,
            Self::Authenticated(report) => Self::Authenticated(report.twin()),
            Self::Identified(user) => Self::Identified(user.clone()),
            Self::AuthExpired => Self::AuthExpired,
            Self::RightsChanged => Self::RightsChanged,
            Self::Transacted(report) => Self::Transacted(report.twin()),
            Self::Read(report) => Self::Read(report.twin()),
            Self::Pump { room } => Self::Pump { room: *room },
            Self::Timeout => Self::Timeout,
            Self::Shutdown => Self::Shutdown,
            Self::Closed => Self::Closed,
        }
    }
}
