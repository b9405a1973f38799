//! Rights that change while their streams are open.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::subscription::Progress;
use super::{InputContext, Session};
use crate::protocol::message::{ErrorCode, Level};
use crate::protocol::name::Collection;
use crate::rules::page::Position;
use crate::rules::policy::Access;

/// The part of a collection that a user may see.
pub(super) struct Sight {
    pub(super) access: Access,
    /// The policy's number for it; 0 if it is the whole collection, or nothing.
    pub(super) stamp: u64,
}

impl Session {
    /// Asks the policy for the part of a collection that the user may see.
    pub(super) fn sight(&self, collection: &Collection, cx: &InputContext<'_, '_>) -> Sight {
        let (policy, asker) = (cx.env.policy, self.asker());
        let access = policy.access(&asker, collection);
        let stamp = if access.is_partial() { policy.stamp(&asker, collection) } else { 0 };
        Sight { access, stamp }
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
        let collections: Vec<_> = self.subscriptions.keys().cloned().collect();
        for collection in collections {
            if self.closed {
                return;
            }
            let sight = self.sight(&collection, cx);
            self.show_only(&collection, sight, cx);
        }
        // it is read again, by the rights of now
        if let Some(read) = self.pending_read.as_mut().filter(|read| read.whole && !read.stale) {
            read.stale = true;
            let again = (read.collection.clone(), read.scopes.clone());
            self.wanted.push_front(again);
        }
    }

    fn show_only(&mut self, collection: &Collection, sight: Sight, cx: &mut InputContext<'_, '_>) {
        let Sight { access, stamp } = sight;
        if access == Access::None {
            self.unsubscribe(collection, cx);
            let message = "this user may not read the collection any more";
            return self.refuse(collection, ErrorCode::Unauthorized, message, cx);
        }
        let Some(subscription) = self.subscriptions.get_mut(collection) else { return };
        let related = access == Access::Related;
        if (subscription.partial, subscription.related, subscription.stamp)
            == (access.is_partial(), related, stamp)
        {
            return;
        }
        if self.level() == Level::Plain {
            // level 1 has no words for it: whoever subscribes anew starts afresh
            return self.close(1013, "the rights of this user have changed", cx);
        }
        let Some(subscription) = self.subscriptions.get_mut(collection) else { return };
        (subscription.partial, subscription.related) = (access.is_partial(), related);
        subscription.stamp = stamp;
        subscription.again |= subscription.live_at().is_some();
        let start = Position::Start { cursor: None, resume: None };
        subscription.progress = Progress::CatchingUp(Box::new(start));
        self.drop_read(collection);
        self.release(cx);
    }
}
