//! A user signs out of a device: the replica ends, and what the store holds of the user stays for
//! their return, or goes.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use crate::client::interface::{Command, Misuse};
use crate::client::replica::{Action, Replica};
use crate::client::wipe;
use crate::protocol::name::CommitNumber;
use crate::protocol::time::Now;
use crate::store::{ClientStore, StoreError};

/// The fate of a user's data at this device when they sign out.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SignOut {
    /// It stays, with the writes that wait for the server, until the user comes back.
    Keep,
    /// It goes. Refused while there are writes that the server does not have, the rejected ones
    /// included, which would be lost.
    Wipe,
    /// It goes, and so do writes that the server does not have.
    WipeUnsent,
}

/// A store whose user has signed out, with what is still to be done about it.
///
/// Call [`step`](Self::step) until it says that there is no more to do, and then wait until the
/// store [is durable](Self::is_durable). A wipe that was begun and is interrupted is finished when
/// the store is opened next, by whichever user.
pub struct SignedOut<S> {
    store: S,
    last: CommitNumber,
    /// The user whose wipe was not begun yet.
    to_wipe: Option<String>,
    wipes: bool,
}

impl<S: ClientStore> Replica<S> {
    /// Ends the replica: it disconnects, and forgets its token. The effects say which connection
    /// is to be closed; there are no others to come.
    ///
    /// # Errors
    /// The replica, as it was, with the reason: there are writes that `SignOut::Wipe` would lose,
    /// or the store has failed.
    pub fn sign_out(
        mut self,
        now: Now,
        how: SignOut,
        out: &mut Vec<Action>,
    ) -> Result<SignedOut<S>, Box<(Self, Misuse)>> {
        self.end_group(now, out);
        if let Err(refused) = self.may_sign_out(how) {
            return Err(Box::new((self, refused)));
        }
        self.command(now, Command::Disconnect, out);
        if let Some(error) = self.halted() {
            let failed = Misuse::Store(error.clone());
            return Err(Box::new((self, failed)));
        }
        let user = self.client().user().into();
        let last = self.client().last_commit();
        let wipes = how != SignOut::Keep;
        let to_wipe = wipes.then_some(user);
        Ok(SignedOut { store: self.into_store(), last, to_wipe, wipes })
    }

    fn may_sign_out(&self, how: SignOut) -> Result<(), Misuse> {
        if let Some(error) = self.halted() {
            return Err(Misuse::Store(error.clone()));
        }
        if how != SignOut::Wipe {
            return Ok(());
        }
        let unsent = self.unsent()?;
        if unsent.is_empty() { Ok(()) } else { Err(Misuse::Unsent(unsent)) }
    }
}

impl<S: ClientStore> SignedOut<S> {
    /// Does a bounded part of what there is to do. Says whether there may be more.
    ///
    /// # Errors
    /// When the store fails.
    pub fn step(&mut self) -> Result<bool, StoreError> {
        let batch = match self.to_wipe.take() {
            Some(user) => wipe::begin(&user, self.store.rows())?,
            None if self.wipes => wipe::next(self.store.rows())?,
            None => None,
        };
        let more = batch.is_some();
        if let Some(batch) = batch {
            self.last = self.last.next();
            self.store.commit(self.last, batch)?;
        }
        self.store.flush(self.last)?;
        Ok(more)
    }

    /// Returns `true` if everything that was done is durable.
    ///
    /// # Errors
    /// When the store fails.
    pub fn is_durable(&mut self) -> Result<bool, StoreError> {
        Ok(self.store.durable()? >= self.last)
    }

    /// The store, to look at.
    #[must_use]
    pub fn store(&self) -> &S {
        &self.store
    }
}

/// Finishes the wipes that were begun in a store. Returns the last commit, where there was one.
pub(crate) fn finish_wipes<S: ClientStore>(
    store: &mut S,
    mut last: CommitNumber,
) -> Result<CommitNumber, StoreError> {
    let before = last;
    while let Some(batch) = wipe::next(store.rows())? {
        last = last.next();
        store.commit(last, batch)?;
    }
    if last > before {
        store.flush(last)?;
    }
    Ok(last)
}
