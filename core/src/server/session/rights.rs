//! Rights that change while their streams are open.

use core::mem;

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::subscription::Progress;
use super::{InputContext, Session, SessionAction};
use crate::protocol::message::{ErrorCode, Level, ServerMessage};
use crate::protocol::name::Collection;
use crate::protocol::scopes::ScopeName;
use crate::rules::page::Position;
use crate::rules::policy::Access;
use crate::rules::scope::Scope;
use crate::server::sets::{Filter, NamedSet};
use crate::server::sight::Sight;

impl Session {
    /// The user's access to a collection, or to the scope of it that a filter names.
    pub(super) fn access(
        &self,
        collection: &Collection,
        filter: Option<&Filter>,
        cx: &InputContext<'_, '_>,
    ) -> Access {
        let (policy, asker) = (cx.env.policy, self.asker());
        match filter {
            Some(filter) => filter.access(policy, &asker, collection),
            None => policy.access(&asker, collection),
        }
    }

    /// The part of a collection that a user with this access may see.
    pub(super) fn sight(
        &self,
        access: Access,
        collection: &Collection,
        cx: &InputContext<'_, '_>,
    ) -> Sight {
        Sight::new(access, cx.env.policy, &self.asker(), collection)
    }

    /// Asks the policy for the part of a set that the user may see. Scopes of which that is nothing end.
    fn sight_of_set(
        &mut self,
        collection: &Collection,
        set: &NamedSet,
        cx: &mut InputContext<'_, '_>,
    ) -> Sight {
        let (access, lost) = set.access(cx.env.policy, &self.asker(), collection);
        if access != Access::None && !lost.is_empty() {
            self.lose_scopes(collection, &lost, cx);
        }
        self.sight(access, collection, cx)
    }

    fn lose_scopes(
        &mut self,
        collection: &Collection,
        lost: &[Scope],
        cx: &mut InputContext<'_, '_>,
    ) {
        let scopes = self.refuse_scopes(collection, lost, cx);
        self.drop_read(collection);
        let collection = collection.clone();
        self.send_message(&ServerMessage::Unsubscribed { collection, scopes }, cx);
    }

    /// Leaves scopes out of a set, and returns their names.
    pub(super) fn refuse_scopes(
        &mut self,
        collection: &Collection,
        refused: &[Scope],
        cx: &mut InputContext<'_, '_>,
    ) -> Vec<ScopeName> {
        let Some(subscription) = self.subscriptions.get_mut(collection) else { return Vec::new() };
        let Some(set) = &mut subscription.set else { return Vec::new() };
        let names = set.refuse(refused);
        let scopes = Some(set.scopes());
        subscription.scopes = scopes.clone();
        if let Progress::CatchingUp(position) = &mut subscription.progress {
            position.lose(refused);
        }
        cx.out.push(SessionAction::Follow(self.interest(collection, scopes)));
        names
    }

    pub(super) fn rights_changed(&mut self, cx: &mut InputContext<'_, '_>) {
        // whoever has to show a fresh token first is asked about then
        if self.is_serving() {
            self.recheck_rights(cx);
            self.lift_barriers(cx);
            self.advance(cx);
        }
    }

    /// Asks again for every stream if its user may still see what it shows. One of whom that is not so
    /// ends, and one that shows other records now begins again.
    pub(super) fn recheck_rights(&mut self, cx: &mut InputContext<'_, '_>) {
        self.hide_verdicts(cx);
        let collections: Vec<_> = self.subscriptions.keys().cloned().collect();
        for collection in collections {
            if self.closed {
                return;
            }
            let Some(subscription) = self.subscriptions.get(&collection) else { continue };
            let set = subscription.set.clone().filter(|set| !set.names.is_empty());
            let sight = if let Some(set) = set {
                self.sight_of_set(&collection, &set, cx)
            } else {
                let access = self.access(&collection, subscription.filter.as_ref(), cx);
                self.sight(access, &collection, cx)
            };
            self.show_only(&collection, sight, cx);
        }
        // it is read again, by the rights of now
        if let Some(read) = self.pending_read.as_mut().filter(|read| read.whole && !read.stale) {
            read.stale = true;
            let again = (read.collection.clone(), read.filter.clone());
            self.wanted.push_front(again);
        }
    }

    /// Lets no verdict that waits, or is being decided, show what was judged by the rights from before. On the
    /// next connection a write that failed is judged by those of now.
    pub(super) fn hide_verdicts(&mut self, cx: &mut InputContext<'_, '_>) {
        if let Some(pending) = &mut self.pending_transaction {
            pending.outdated = true;
        }
        if self.verdicts.hide_records() {
            self.close(1013, "the rights of this user have changed", cx);
        }
    }

    fn show_only(&mut self, collection: &Collection, sight: Sight, cx: &mut InputContext<'_, '_>) {
        if sight.access == Access::None {
            let message = "this user may not read the collection any more";
            return self.end_with(collection, ErrorCode::Unauthorized, message, cx);
        }
        let Some(subscription) = self.subscriptions.get_mut(collection) else { return };
        if subscription.sight == sight {
            return;
        }
        subscription.sight = sight;
        self.begin_again(collection, cx);
    }

    /// Lets a stream begin again with a snapshot, by the rights of now.
    pub(super) fn begin_again(&mut self, collection: &Collection, cx: &mut InputContext<'_, '_>) {
        if self.level() == Level::Plain {
            // level 1 has no words for it: whoever subscribes anew starts afresh
            return self.close(1013, "the rights of this user have changed", cx);
        }
        let Some(subscription) = self.subscriptions.get_mut(collection) else { return };
        subscription.again |= subscription.live_at().is_some();
        // by the new run it is known at which records they look
        let looks = mem::take(&mut subscription.looks);
        let start = match &subscription.set {
            Some(set) if !set.names.is_empty() => set.reload(),
            Some(_) | None => Position::Start { cursor: None, resume: None },
        };
        subscription.progress = Progress::CatchingUp(Box::new(start));
        self.drop_read(collection);
        self.forget_looks(&looks, cx);
        self.release(cx);
    }
}
