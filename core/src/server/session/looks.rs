//! The records that the rights of streams look at: when one of them comes or goes, the rights are others.

use core::mem;

use alloc::vec::Vec;

use super::subscription::Subscription;
use super::{InputContext, Session, SessionAction};
use crate::protocol::hash::RightsTag;
use crate::protocol::name::Collection;
use crate::rules::page::ReadAnswer;
use crate::rules::scope::ScopeSet;
use crate::server::followers::Interest;
use crate::server::looks::Looks;
use crate::server::ring::Rings;
use crate::store::StoreError;

impl Session {
    /// Returns `true` if a stream has to begin again.
    pub(super) fn looks_have_moved(&self, rings: &Rings) -> bool {
        self.subscriptions.values().any(|it| it.is_related() && it.looks.have_moved(rings))
    }

    /// Lets the streams begin again whose rights may be others by what was published. It comes before
    /// anything else is sent.
    pub(super) fn follow_looks(&mut self, cx: &mut InputContext<'_, '_>) {
        let rings = cx.env.rings;
        if self.verdicts.are_outdated(rings) {
            self.hide_verdicts(cx);
        }
        if self.subscriptions.values().all(|it| it.looks.are_none()) || !self.is_serving() {
            return;
        }
        let all = self.subscriptions.iter();
        let all = all.filter(|(_, it)| it.is_related() && it.looks.have_moved(rings));
        let all: Vec<_> = all.map(|(collection, _)| collection.clone()).collect();
        self.subscriptions.values_mut().for_each(|it| it.looks.pass(rings.published()));
        if !all.is_empty() {
            self.hide_verdicts(cx);
        }
        all.iter().for_each(|collection| self.begin_again(collection, cx));
    }

    /// Takes in what the rights of a stream have looked at in a page of it.
    pub(super) fn note_looks(
        &mut self,
        answer: &mut Result<ReadAnswer, StoreError>,
        cx: &mut InputContext<'_, '_>,
    ) {
        let (Some(read), Ok(ReadAnswer::Page(page))) = (&self.pending_read, answer) else { return };
        let Some(subscription) = self.subscriptions.get_mut(&read.collection) else { return };
        let looked = mem::take(&mut page.looked);
        let looks = &mut subscription.looks;
        let new = looked.collections().filter(|collection| !looks.cover(collection));
        let new: Vec<_> = new.cloned().collect();
        looks.add(*looked, read.published);
        new.iter().for_each(|collection| self.follow_collection(collection, cx));
    }

    /// Follows what the streams, and their rights, need of a collection.
    pub(super) fn follow_collection(&self, collection: &Collection, cx: &mut InputContext<'_, '_>) {
        let scopes = self.subscriptions.get(collection).map(|it| it.scopes.clone());
        cx.out.push(match scopes {
            None if !self.looks_at(collection) => SessionAction::Unfollow(collection.clone()),
            scopes => SessionAction::Follow(self.interest(collection, scopes.flatten())),
        });
    }

    /// The interest of one who subscribes these scopes of a collection.
    pub(super) fn interest(&self, collection: &Collection, scopes: Option<ScopeSet>) -> Interest {
        let scopes = scopes.filter(|_| !self.looks_at(collection));
        Interest { collection: collection.clone(), scopes }
    }

    /// Returns `true` if the stream of a collection is live, and was shown by these rights: it follows every
    /// record at which they have looked.
    pub(super) fn has_followed(&self, collection: &Collection, rights: Option<RightsTag>) -> bool {
        let shown_by = |it: &Subscription| it.live_at().is_some() && it.rights == rights;
        rights.is_some() && self.subscriptions.get(collection).is_some_and(shown_by)
    }

    fn looks_at(&self, collection: &Collection) -> bool {
        self.subscriptions.values().any(|it| it.looks.cover(collection))
    }

    /// A stream has ended: what only its rights have looked at is followed no longer.
    pub(super) fn forget_looks(&self, looks: &Looks, cx: &mut InputContext<'_, '_>) {
        looks.collections().for_each(|collection| self.follow_collection(collection, cx));
    }
}
