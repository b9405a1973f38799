//! The use of a scope by a handle or a watch.

use std::sync::Arc;

use synclayer_core::{Collection, NamedScope};

use crate::command::{EngineCommand, Inbox};

/// A use of a scope by a handle or a watch, until it is dropped.
pub(crate) struct ScopeHold {
    inbox: Inbox,
    collection: Collection,
    scope: NamedScope,
}

impl ScopeHold {
    pub(crate) fn new(inbox: &Inbox, collection: &Collection, scope: &NamedScope) -> Arc<Self> {
        let (collection, scope) = (collection.clone(), scope.clone());
        inbox.put(EngineCommand::HoldScope(collection.clone(), scope.clone()));
        Arc::new(Self { inbox: inbox.clone(), collection, scope })
    }
}

impl Drop for ScopeHold {
    fn drop(&mut self) {
        let (collection, scope) = (self.collection.clone(), self.scope.clone());
        self.inbox.put(EngineCommand::ReleaseScope(collection, scope));
    }
}
