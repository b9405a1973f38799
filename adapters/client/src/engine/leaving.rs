//! The end of a client whose user signs out: what is to be done about the store, and who is told.

use std::time::{Duration, Instant};

use synclayer_core::client::sign_out::{SignOut, SignedOut};
use synclayer_core::store::{ClientStore, StoreError, StoreErrorKind};

use super::{Answer, Engine, Failure, Network};
use crate::callback;
use crate::error::SyncError;

/// A user who signs out. Nothing else is done any more.
pub(super) struct Leaving {
    /// What is left to be done, until it is done or has failed.
    signed_out: Option<SignedOut<Box<dyn ClientStore + Send>>>,
    /// Whether there is something to do that needn't be waited for.
    more: bool,
    answer: Option<Answer>,
    /// Whether what was saved before stays.
    keeps: bool,
}

impl Leaving {
    pub(super) fn patience(&self) -> Option<Duration> {
        (self.more || self.is_over()).then_some(Duration::ZERO)
    }

    pub(super) fn is_over(&self) -> bool {
        self.signed_out.is_none()
    }

    /// Does a bounded part of it. Says whether all of it is done and durable.
    fn go_on(&mut self) -> Result<bool, StoreError> {
        let Some(signed_out) = &mut self.signed_out else { return Ok(false) };
        if self.more {
            self.more = signed_out.step()?;
        }
        Ok(!self.more && signed_out.is_durable()?)
    }
}

impl<N: Network> Engine<N> {
    /// Signs the user out, and answers when that is durable: the connection is closed, the token
    /// forgotten, and the client is of no more use.
    pub fn sign_out(&mut self, how: SignOut, answer: Answer) {
        if self.leaving.is_some() {
            return answer(Err(SyncError::SignedOut));
        }
        // what was saved before is kept, or named as unsent
        self.answer();
        let now = self.now();
        let error = StoreError::new(StoreErrorKind::Other, "the user is signing out");
        let failed = Failure { error, retry_at: Instant::now(), delay: Duration::ZERO };
        let replica = match std::mem::replace(&mut self.replica, Err(failed)) {
            Ok(replica) => replica,
            Err(failure) => {
                let error = failure.error.clone();
                self.replica = Err(failure);
                return answer(Err(error.into()));
            }
        };
        let effects = &mut self.effects;
        match callback::run(|| replica.sign_out(now, how, effects)) {
            Ok(signed_out) => {
                let signed_out = Some(signed_out);
                let keeps = how == SignOut::Keep;
                let answer = Some(answer);
                self.leaving = Some(Leaving { signed_out, more: true, answer, keeps });
                self.inbox.sign_out();
                self.act();
                self.dismiss_everybody();
            }
            Err(refused) => {
                let (replica, why) = *refused;
                self.replica = Ok(replica);
                self.act();
                answer(Err(why.into()));
            }
        }
    }

    /// Goes on with the sign-out, and answers when it is through.
    pub(super) fn depart(&mut self) {
        let Some(leaving) = &mut self.leaving else { return };
        let ended: Result<(), SyncError> = match callback::run(|| leaving.go_on()) {
            Ok(false) => return,
            Ok(true) => Ok(()),
            Err(error) => Err(error.into()),
        };
        // the store is closed before anybody is told that it can be opened by the next user
        leaving.signed_out = None;
        let saved: Result<(), SyncError> = match &ended {
            Ok(()) if leaving.keeps => Ok(()),
            Ok(()) => Err(SyncError::SignedOut),
            Err(error) => Err(SyncError::clone(error)),
        };
        self.saves.drain(..).for_each(|(_, answer)| answer(saved.clone()));
        if let Some(answer) = leaving.answer.take() {
            answer(ended);
        }
    }

    /// Nobody is shown or told anything any more, and whoever waits learns why.
    fn dismiss_everybody(&mut self) {
        self.config.token = None;
        self.network.close_all();
        self.calls.forget();
        self.news.clear();
        self.watchers.clear();
        self.waiting.clear();
        self.listeners.clear();
        self.halted = None;
        let syncs = std::mem::take(&mut self.syncs).into_values();
        for answer in syncs.chain(self.done.drain(..).map(|(answer, _)| answer)) {
            answer(Err(SyncError::SignedOut));
        }
        self.fates.end(&SyncError::SignedOut);
    }
}
