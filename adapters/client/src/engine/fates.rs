//! The writes whose fate somebody may wait for.

use std::collections::BTreeMap;

use synclayer_core::client::fate::{Fate, FateId};
use synclayer_core::client::interface::Written;

use super::{Engine, Network};
use crate::error::SyncError;
use crate::fate::{FateReceiver, FateSender, fate};

/// How many writes are followed before it is looked which of them nobody waits for any more.
const FEW: usize = 1024;

/// Those who wait, by the replica's id of them. Most apps drop what a write returns at once, so
/// that those are forgotten now and then: at most as many are kept as are waited for, and as many
/// again.
#[derive(Default)]
pub(super) struct Followed {
    senders: BTreeMap<FateId, FateSender>,
    /// Fates that are known, to be told when the watchers have been shown what led to them.
    met: Vec<(FateSender, Fate)>,
    /// How many there are when it is looked next.
    look_at: usize,
}

impl Followed {
    /// How many writes are followed.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.senders.len()
    }

    /// A write has met its fate.
    pub(super) fn met(&mut self, id: FateId, fate: Fate) {
        self.met.extend(self.senders.remove(&id).map(|sender| (sender, fate)));
    }

    /// Tells the fates that are known.
    pub(super) fn tell(&mut self) {
        self.met.drain(..).for_each(|(sender, fate)| sender.tell(Ok(fate)));
    }

    /// Tells all who wait that nothing more will be known.
    pub(super) fn end(&mut self, error: &SyncError) {
        self.tell();
        for (_, sender) in std::mem::take(&mut self.senders) {
            sender.tell(Err(error.clone()));
        }
    }
}

impl<N: Network> Engine<N> {
    /// Follows a write that was made just now.
    pub(super) fn follow(&mut self, written: Written) -> FateReceiver {
        self.forget_fates();
        let (sender, receiver) = fate();
        if let Ok(replica) = &mut self.replica {
            // before the effects are looked at, which may tell of it already
            let id = replica.follow(written, &mut self.effects);
            self.fates.senders.insert(id, sender);
            self.act();
        }
        receiver
    }

    /// Forgets the writes whose fate nobody waits for, if there may be many of them.
    fn forget_fates(&mut self) {
        let Followed { senders, look_at, .. } = &mut self.fates;
        if senders.len() < FEW.max(*look_at) {
            return;
        }
        senders.retain(|id, sender| {
            let stays = !sender.is_abandoned();
            if !stays && let Ok(replica) = &mut self.replica {
                replica.unfollow(*id);
            }
            stays
        });
        *look_at = 2 * senders.len();
    }
}
