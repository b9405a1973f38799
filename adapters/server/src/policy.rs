//! A policy that is replaced while the server runs.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use synclayer_core::{
    Access, Asker, Change, Collection, Document, Policy, ProposedWrite, RecordId, UserId,
};

/// A policy that can be replaced while the server runs. Clones share it.
///
/// ```
/// use std::sync::Arc;
///
/// use synclayer_server::{ReloadablePolicy, Rules, ServerConfig};
///
/// let policy = ReloadablePolicy::new(Arc::new(Rules::new(true)));
/// let config = ServerConfig::new().policy(Arc::new(policy.clone()));
/// // later, and then `recheck_rights` of the server
/// policy.replace(Arc::new(Rules::new(false)));
/// ```
#[derive(Clone)]
pub struct ReloadablePolicy {
    current: Arc<RwLock<Arc<dyn Policy>>>,
}

impl ReloadablePolicy {
    /// Begins with this policy.
    #[must_use]
    pub fn new(policy: Arc<dyn Policy>) -> Self {
        Self { current: Arc::new(RwLock::new(policy)) }
    }

    /// Puts another policy in the place of the one before. Streams go on by the rights that they began
    /// with until [`Embedded::recheck_rights`](crate::Embedded::recheck_rights), but for what is asked
    /// for each record.
    pub fn replace(&self, policy: Arc<dyn Policy>) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = policy;
    }

    fn current(&self) -> Arc<dyn Policy> {
        // it is whole at any time
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

// whatever the trait gets, the policy in force has to be asked
#[warn(clippy::missing_trait_methods)]
impl Policy for ReloadablePolicy {
    fn read(&self, user: Option<&UserId>, collection: &Collection) -> Access {
        self.current().read(user, collection)
    }

    fn read_record(
        &self,
        user: Option<&UserId>,
        collection: &Collection,
        id: &RecordId,
        document: &Document,
    ) -> bool {
        self.current().read_record(user, collection, id, document)
    }

    fn write(
        &self,
        user: Option<&UserId>,
        collection: &Collection,
        id: &RecordId,
        before: Option<&Document>,
        change: &Change,
    ) -> Result<(), String> {
        self.current().write(user, collection, id, before, change)
    }

    fn access(&self, by: &Asker<'_>, collection: &Collection) -> Access {
        self.current().access(by, collection)
    }

    fn access_to_scope(
        &self,
        by: &Asker<'_>,
        collection: &Collection,
        parts: &[(String, String)],
    ) -> Access {
        self.current().access_to_scope(by, collection, parts)
    }

    fn shows(
        &self,
        by: &Asker<'_>,
        collection: &Collection,
        id: &RecordId,
        document: &Document,
    ) -> bool {
        self.current().shows(by, collection, id, document)
    }

    fn stamp(&self, by: &Asker<'_>, collection: &Collection) -> u64 {
        self.current().stamp(by, collection)
    }

    fn looks_at(&self, by: &Asker<'_>, collection: &Collection) -> Option<BTreeSet<Collection>> {
        self.current().looks_at(by, collection)
    }

    fn permits(&self, by: &Asker<'_>, write: &ProposedWrite<'_>) -> Result<(), String> {
        self.current().permits(by, write)
    }
}
