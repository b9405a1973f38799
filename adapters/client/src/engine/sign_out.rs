//! The end of a client whose user signs out: the work at the store, and the reply.

use std::time::Duration;

use synclayer_core::{ClientStore, SignOut, SignedOut, StoreError};

use super::Engine;
use crate::callback;
use crate::error::SyncError;
use crate::pending::Responder;

/// A user who signs out. Nothing else is done any more.
pub(super) struct SigningOut {
    progress: SignOutState,
    /// Given when the client has ended.
    reply: Responder<()>,
    /// Writes that were saved before stay.
    keeps: bool,
}

enum SignOutState {
    /// The store is being cleared; `more` if there is something to do that needn't be waited for.
    Clearing {
        signed_out: SignedOut<Box<dyn ClientStore + Send>>,
        more: bool,
    },
    Over(Result<(), SyncError>),
}

impl SigningOut {
    pub(super) fn timeout(&self) -> Option<Duration> {
        match &self.progress {
            SignOutState::Clearing { more: false, .. } => None,
            SignOutState::Clearing { more: true, .. } | SignOutState::Over(_) => {
                Some(Duration::ZERO)
            }
        }
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.progress, SignOutState::Over(_))
    }

    /// Replies that the client has ended.
    pub(super) fn reply(self) {
        // one that was broken off fails because the client is closed
        if let SignOutState::Over(outcome) = self.progress {
            self.reply.send(outcome);
        }
    }

    /// Does a bounded part of the work. Returns `true` if all of it is done and durable.
    fn go_on(&mut self) -> Result<bool, StoreError> {
        let SignOutState::Clearing { signed_out, more } = &mut self.progress else {
            return Ok(false);
        };
        if *more {
            *more = signed_out.step()?;
        }
        Ok(!*more && signed_out.is_durable()?)
    }
}

impl Engine {
    /// Signs the user out, and replies when that is durable and the client has ended: the
    /// connection is closed, the token forgotten, and the client is of no more use.
    pub(super) fn sign_out(&mut self, how: SignOut, reply: Responder<()>) {
        if self.signing_out.is_some() {
            return reply.send(Err(SyncError::SignedOut));
        }
        // what was saved before is kept, or named as unsent
        self.end_group();
        self.answer();
        let now = self.now();
        let replica = match self.take_replica("the user is signing out") {
            Ok(replica) => replica,
            Err(error) => return reply.send(Err(error.into())),
        };
        let actions = &mut self.actions;
        match callback::run(|| replica.sign_out(now, how, actions)) {
            Ok(signed_out) => {
                let progress = SignOutState::Clearing { signed_out, more: true };
                self.signing_out =
                    Some(SigningOut { progress, reply, keeps: how == SignOut::Keep });
                self.inbox.sign_out();
                self.act();
                self.dismiss_everybody();
            }
            Err(refused) => {
                let (replica, why) = *refused;
                self.replica = Ok(replica);
                self.publish_reads();
                self.act();
                reply.send(Err(why.into()));
            }
        }
    }

    /// Goes on with the sign-out. When it is through, the store is closed.
    pub(super) fn go_on_signing_out(&mut self) {
        let Some(signing_out) = &mut self.signing_out else { return };
        let outcome: Result<(), SyncError> = match callback::run(|| signing_out.go_on()) {
            Ok(false) => return,
            Ok(true) => Ok(()),
            Err(error) => Err(error.into()),
        };
        let saved = match &outcome {
            Ok(()) if signing_out.keeps => Ok(()),
            Ok(()) => Err(SyncError::SignedOut),
            Err(error) => Err(SyncError::clone(error)),
        };
        signing_out.progress = SignOutState::Over(outcome);
        self.calls.answer_writes(&saved);
    }

    /// Ends everything that is shown or told, and tells all who wait why.
    fn dismiss_everybody(&mut self) {
        self.config.token = None;
        self.network.close_all();
        self.requests.forget();
        self.watchers.clear();
        self.listeners.clear();
        self.halted = None;
        self.calls.fail_syncs(&SyncError::SignedOut);
        self.fates.end(&SyncError::SignedOut);
    }
}
