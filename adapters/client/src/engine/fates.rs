//! The writes whose fate somebody may wait for.

use std::collections::BTreeMap;

use synclayer_core::{Action, Fate, FateId, Written};

use super::Replica;
use crate::error::SyncError;
use crate::saved::KnownFate;
use crate::set_once::Setter;

/// The number of writes that are followed before those that nobody waits for any more are looked
/// for.
const FEW: usize = 1024;

/// The writes that are followed, by the replica's id of each. Most apps drop what a write returns at
/// once, so those are forgotten now and then: at most twice as many are kept as are waited for.
#[derive(Default)]
pub(super) struct FollowedFates {
    setters: BTreeMap<FateId, Setter<KnownFate>>,
    /// Known fates, to be told after the watchers have been shown what led to them.
    known: Vec<(Setter<KnownFate>, Fate)>,
    /// The number of writes at which the abandoned ones are looked for next.
    look_at: usize,
}

impl FollowedFates {
    /// The number of writes that are followed.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.setters.len()
    }

    /// Follows a write that was made just now. To be called before its actions are done, which may
    /// tell its fate already.
    pub(super) fn follow(
        &mut self,
        replica: &mut Replica,
        written: Written,
        setter: Setter<KnownFate>,
        actions: &mut Vec<Action>,
    ) {
        self.forget_abandoned(replica);
        let id = replica.follow(written, actions);
        self.setters.insert(id, setter);
    }

    /// Forgets the writes whose fate nobody waits for, if there may be many of them.
    fn forget_abandoned(&mut self, replica: &mut Replica) {
        if self.setters.len() < FEW.max(self.look_at) {
            return;
        }
        self.setters.retain(|id, setter| {
            let stays = !setter.is_abandoned();
            if !stays {
                replica.unfollow(*id);
            }
            stays
        });
        self.look_at = 2 * self.setters.len();
    }

    /// Takes the fate of a write.
    pub(super) fn settle(&mut self, id: FateId, fate: Fate) {
        self.known.extend(self.setters.remove(&id).map(|setter| (setter, fate)));
    }

    /// Publishes the fates that are known.
    pub(super) fn publish(&mut self) {
        self.known.drain(..).for_each(|(setter, fate)| setter.set(Ok(fate)));
    }

    /// Tells all who wait that nothing more will be known.
    pub(super) fn end(&mut self, error: &SyncError) {
        self.publish();
        for (_, setter) in std::mem::take(&mut self.setters) {
            setter.set(Err(error.clone()));
        }
    }
}
