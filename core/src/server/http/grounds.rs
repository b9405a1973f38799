//! The rights by which a call was taken in.

use alloc::vec::Vec;

use crate::protocol::name::Collection;
use crate::protocol::unit::{Member, Submission};
use crate::rules::policy::{Asker, Policy, User};
use crate::rules::transaction::Transaction;
use crate::server::sight::Sight;

/// The part of each collection that the user of a call might see when it came. Where it is another one when
/// the reply is due, the reply shows nothing that was found by these rights (PROTOCOL 8.36).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Grounds {
    user: Option<User>,
    sights: Vec<(Collection, Sight)>,
}

impl Grounds {
    pub(super) fn new<'c>(
        collections: impl IntoIterator<Item = &'c Collection>,
        user: Option<&User>,
        policy: &dyn Policy,
    ) -> Self {
        let mut grounds = Self { user: user.cloned(), sights: Vec::new() };
        for collection in collections {
            if grounds.sights.iter().all(|(other, _)| other != collection) {
                let sight = grounds.sight(collection, policy);
                grounds.sights.push((collection.clone(), sight));
            }
        }
        grounds
    }

    /// Those of a transaction whose reply may show the records that it writes.
    pub(super) fn of_writes(
        transaction: &Transaction,
        user: Option<&User>,
        policy: &dyn Policy,
    ) -> Self {
        match transaction {
            Transaction::Push(push) => {
                Self::new(push.writes.iter().flat_map(collections_of), user, policy)
            }
            Transaction::Plain(write) => Self::new([&write.collection], user, policy),
            // their replies show no record
            Transaction::PlainUnit(_)
            | Transaction::Hello { .. }
            | Transaction::Writes(_)
            | Transaction::Sweep(_)
            | Transaction::BeginEpoch { .. }
            | Transaction::DeclareScopes(_)
            | Transaction::DeclareIndexes(_) => Self::default(),
        }
    }

    /// Returns `true` if the user may see the same as then.
    pub(super) fn hold(&self, policy: &dyn Policy) -> bool {
        self.sights.iter().all(|(collection, then)| self.sight(collection, policy) == *then)
    }

    fn sight(&self, collection: &Collection, policy: &dyn Policy) -> Sight {
        let by = Asker::new(self.user.as_ref(), None);
        Sight::new(policy.access(&by, collection), policy, &by, collection)
    }
}

/// The collections of what is submitted together.
fn collections_of(submission: &Submission) -> Vec<&Collection> {
    match submission {
        Submission::One(write) => Vec::from([&write.collection]),
        Submission::Unit(unit) => unit.members.iter().map(Member::collection).collect(),
    }
}
