//! Tickets: questions that go out as move-only values and come back as inputs.

use super::interface::Input;
use crate::protocol::message::Token;
use crate::protocol::name::{ConnId, UserId};
use crate::rules::page::{ReadAnswer, ReadRequest};
use crate::rules::transaction::{TransactError, Transaction, TransactionAnswer};
use crate::store::StoreError;

macro_rules! report {
    ($(#[$doc:meta])* $name:ident, $result:ty) => {
        $(#[$doc])*
        #[derive(PartialEq, Eq, Debug)]
        pub struct $name {
            pub(super) conn: ConnId,
            pub(super) generation: u64,
            pub(super) result: $result,
        }

        impl $name {
            fn twin(&self) -> Self {
                let result = self.result.clone();
                Self { conn: self.conn, generation: self.generation, result }
            }
        }
    };
}

report! {
    /// The answer to an [`AuthTicket`].
    AuthAnswer, Option<UserId>
}
report! {
    /// The answer to a [`TransactTicket`].
    TransactReport, Result<TransactionAnswer, TransactError>
}
report! {
    /// The answer to a [`ReadTicket`].
    ReadReport, Result<ReadAnswer, StoreError>
}

impl Input<'_> {
    /// The same input once more, for a server that is cloned.
    pub(crate) fn twin(&self) -> Self {
        match self {
            Self::Frame(frame) => Self::Frame(frame),
            Self::Ping => Self::Ping,
            Self::Authenticated(answer) => Self::Authenticated(answer.twin()),
            Self::AuthExpired => Self::AuthExpired,
            Self::Transacted(report) => Self::Transacted(report.twin()),
            Self::Read(report) => Self::Read(report.twin()),
            Self::Pump { room } => Self::Pump { room: *room },
            Self::Timeout => Self::Timeout,
            Self::Shutdown => Self::Shutdown,
            Self::Closed => Self::Closed,
        }
    }
}

/// A token to be checked.
#[derive(PartialEq, Eq, Debug)]
pub struct AuthTicket {
    pub(super) conn: ConnId,
    pub(super) generation: u64,
    pub(super) token: Token,
}

impl AuthTicket {
    /// The connection.
    #[must_use]
    pub fn conn(&self) -> ConnId {
        self.conn
    }

    /// The token.
    #[must_use]
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// Answers with the user of the token; with `None` if it is wrong or has expired.
    #[must_use]
    pub fn answer(self, user: Option<UserId>) -> Input<'static> {
        let Self { conn, generation, .. } = self;
        Input::Authenticated(AuthAnswer { conn, generation, result: user })
    }
}

/// A transaction to be decided and committed.
#[derive(PartialEq, Eq, Debug)]
pub struct TransactTicket {
    pub(super) conn: ConnId,
    pub(super) generation: u64,
    pub(super) transaction: Transaction,
}

impl TransactTicket {
    /// A second ticket for the same question, for a server that is cloned.
    pub(crate) fn twin(&self) -> Self {
        Self { conn: self.conn, generation: self.generation, transaction: self.transaction.clone() }
    }

    /// The connection.
    #[must_use]
    pub fn conn(&self) -> ConnId {
        self.conn
    }

    /// The transaction.
    #[must_use]
    pub fn transaction(&self) -> &Transaction {
        &self.transaction
    }

    /// Answers with the outcome, once it is durable, or with the error.
    #[must_use]
    pub fn answer(self, result: Result<TransactionAnswer, TransactError>) -> Input<'static> {
        let Self { conn, generation, .. } = self;
        Input::Transacted(TransactReport { conn, generation, result })
    }
}

/// Something to be read.
#[derive(PartialEq, Eq, Debug)]
pub struct ReadTicket {
    pub(super) conn: ConnId,
    pub(super) generation: u64,
    pub(super) request: ReadRequest,
}

impl ReadTicket {
    /// A second ticket for the same question, for a server that is cloned.
    pub(crate) fn twin(&self) -> Self {
        Self { conn: self.conn, generation: self.generation, request: self.request.clone() }
    }

    /// The connection.
    #[must_use]
    pub fn conn(&self) -> ConnId {
        self.conn
    }

    /// The data to read.
    #[must_use]
    pub fn request(&self) -> &ReadRequest {
        &self.request
    }

    /// Answers with the data, or the error of the store.
    #[must_use]
    pub fn answer(self, result: Result<ReadAnswer, StoreError>) -> Input<'static> {
        let Self { conn, generation, .. } = self;
        Input::Read(ReadReport { conn, generation, result })
    }
}
