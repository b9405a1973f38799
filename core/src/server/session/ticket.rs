//! Tickets: questions that go out as move-only values and come back as inputs.

use super::Input;
use crate::rules::page::{ReadAnswer, ReadRequest};
use crate::rules::transaction::{Answer, TransactError, Transaction};
use crate::words::message::Token;
use crate::words::name::{ConnId, UserId};
use crate::words::store::StoreError;

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
            /// The connection whose session it is for.
            #[must_use]
            pub fn conn(&self) -> ConnId {
                self.conn
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
    TransactReport, Result<Answer, TransactError>
}
report! {
    /// The answer to a [`ReadTicket`].
    ReadReport, Result<ReadAnswer, StoreError>
}

/// A token to be checked.
#[derive(PartialEq, Eq, Debug)]
pub struct AuthTicket {
    pub(super) conn: ConnId,
    pub(super) generation: u64,
    pub(super) token: Token,
}

impl AuthTicket {
    /// A second ticket for the same question. For tests that go on from one state in several ways.
    #[doc(hidden)]
    #[must_use]
    pub fn twin(&self) -> Self {
        Self { conn: self.conn, generation: self.generation, token: self.token.clone() }
    }

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

    /// Whose token it is; `None` where it is wrong or has expired.
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
    /// A second ticket for the same question. For tests that go on from one state in several ways.
    #[doc(hidden)]
    #[must_use]
    pub fn twin(&self) -> Self {
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

    /// The answer, once it is durable; or why there is none.
    #[must_use]
    pub fn answer(self, result: Result<Answer, TransactError>) -> Input<'static> {
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
    /// A second ticket for the same question. For tests that go on from one state in several ways.
    #[doc(hidden)]
    #[must_use]
    pub fn twin(&self) -> Self {
        Self { conn: self.conn, generation: self.generation, request: self.request.clone() }
    }

    /// The connection.
    #[must_use]
    pub fn conn(&self) -> ConnId {
        self.conn
    }

    /// What to read.
    #[must_use]
    pub fn request(&self) -> &ReadRequest {
        &self.request
    }

    /// What was read.
    #[must_use]
    pub fn answer(self, result: Result<ReadAnswer, StoreError>) -> Input<'static> {
        let Self { conn, generation, .. } = self;
        Input::Read(ReadReport { conn, generation, result })
    }
}
