//! Calls of `synced`, and whether their answers are true; collections that the server refuses.
#![allow(clippy::wildcard_enum_match_arm, reason = "only a few of the many events matter here")]

use synclayer_core::{
    Collection, CollectionStatus, Command, Document, ErrorCode, Event, EventKind, Seq, SyncId,
    SyncOutcome,
};

use super::{Device, World, is_held};
use crate::invariants::Invariant;

impl Device {
    /// `true` if the server has refused it a collection that it has not received since.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        !self.refused.is_empty()
    }
}

impl World {
    /// The app of a device asks to be told when everything that it uses is in step.
    pub fn ask_synced(&mut self, device: usize) -> SyncId {
        let mut heads = self.heads();
        let used = self.devices[device].replica.status().collections;
        heads.retain(|(collection, _)| used.get(collection).is_some_and(|of| of.in_use));
        let id = self.with(device, |replica, now, actions| replica.synced(now, actions));
        self.devices[device].waiting_syncs.insert(id, heads);
        id
    }

    /// Nothing of a device's app uses a collection any more.
    pub fn release(&mut self, device: usize, collection: &Collection) {
        self.count("released collection");
        self.note(|| format!("device {device} uses {collection} no longer"));
        self.vouches_no_more(device, collection);
        self.with(device, |replica, now, actions| {
            replica.command(now, Command::Release(collection.clone()), actions)
        });
    }

    /// A collection is used no longer, or whole instead of by scopes: no call of `synced` says anything
    /// about it, whoever uses it again before the call is answered. To be noted before the app asks: an
    /// answer that is due may share its commit.
    pub(super) fn vouches_no_more(&mut self, device: usize, collection: &Collection) {
        for heads in self.devices[device].waiting_syncs.values_mut() {
            heads.retain(|(known, _)| known != collection);
        }
    }

    /// A call of `synced` was answered.
    pub(super) fn synced(&mut self, device: usize, id: SyncId, outcome: SyncOutcome) {
        let heads = self.devices[device].waiting_syncs.remove(&id);
        match &outcome {
            Ok(()) => {
                self.count("synced with what is in step");
                let behind = heads.and_then(|heads| self.is_behind(device, &heads));
                if let Some(what) = behind {
                    self.fail(Invariant::Convergence, what);
                }
            }
            Err(failures) if failures.is_empty() => {
                let what = format!("a call of synced of device {device} fails for nothing");
                self.fail(Invariant::Contract, what);
            }
            Err(_) => self.count("synced names what is not in step"),
        }
        self.devices[device].synced.push((id, outcome));
    }

    /// The server's changes that a device lacks in the collections that it uses.
    fn is_behind(&self, device: usize, heads: &[(Collection, u64)]) -> Option<String> {
        let status = self.devices[device].replica.status();
        for (collection, head) in heads {
            let Some(known) = status.collections.get(collection).filter(|of| of.in_use) else {
                continue;
            };
            let reached = known.cursor.as_ref().map(|cursor| cursor.seq.0);
            if reached.is_none() && known.catching_up && self.config.shared > 0 {
                // a snapshot has begun since, in the commit of the answer
                continue;
            }
            let is_behind = match reached {
                Some(reached) if known.scopes.is_some() => {
                    self.has_news(collection, known, [reached, *head])
                }
                reached => reached.is_none_or(|reached| reached < *head),
            };
            if is_behind {
                return Some(format!(
                    "synced of device {device} is Ok, and it knows {collection} up to {reached:?} \
                     of {head}"
                ));
            }
        }
        None
    }

    /// Returns `true` if what is held of a collection has changed behind one seq, up to another.
    fn has_news(
        &self,
        collection: &Collection,
        known: &CollectionStatus,
        [from, to]: [u64; 2],
    ) -> bool {
        let history = self.store.histories.present();
        let is_in = |record: &Document| is_held(known, record);
        history.changes_between(collection, [Seq(from), Seq(to)]).any(|(place, state)| {
            state.is_some_and(is_in) || history.at(place, Seq(from)).is_some_and(is_in)
        })
    }

    /// The server has lost changes: nobody need hold them.
    pub(super) fn expect_less(&mut self) {
        let now = self.heads();
        for device in &mut self.devices {
            for heads in device.waiting_syncs.values_mut() {
                for (collection, head) in heads {
                    // not all collections are waited for
                    let now = now.iter().find(|(known, _)| known == collection);
                    *head = now.map_or(0, |(_, now)| *now).min(*head);
                }
            }
        }
    }

    /// Notes whether a collection is refused to a device, or granted after all.
    pub(super) fn note_refusal(&mut self, device: usize, event: &Event) {
        let Some(collection) = event.kind.collection() else { return };
        let refused = &mut self.devices[device].refused;
        match &event.kind {
            EventKind::SyncFailed {
                code: ErrorCode::Unauthorized | ErrorCode::InvalidMessage,
                ..
            } => {
                refused.insert(collection.clone());
                self.count("refused subscription");
            }
            EventKind::SyncCompleted { .. } if refused.remove(collection) => {
                self.count("refused subscription granted later");
            }
            _ => {}
        }
    }

    /// From now on a connection may subscribe so many collections.
    pub fn allow_subscriptions(&mut self, subscriptions: usize) {
        self.note(|| format!("{subscriptions} subscriptions are allowed"));
        self.config.limits.subscriptions = subscriptions;
        self.shut_server_down();
    }

    /// From now on a user may have any number of client ids.
    pub fn allow_clients(&mut self) {
        self.note(|| "any number of client ids is allowed".into());
        self.config.limits.input.user_clients = u64::MAX;
        self.shut_server_down();
    }
}
