//! Permissions and rate limits of users.

use core::time::Duration;

use alloc::collections::BTreeSet;

use crate::protocol::document::Document;
use crate::protocol::name::{Collection, RecordId, UserId};
use crate::protocol::time::{Mono, Timestamp};
use crate::protocol::write::Change;

/// A user's read access to a collection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Access {
    /// Every record.
    All,
    /// The records that [`Policy::read_record`] permits. Such a stream is *partial*: it carries
    /// whole records, withheld ones as a `delete` without content, and no checksum.
    Some,
    /// The records that [`Policy::shows`] permits, which looks at other records as well. Such a stream is
    /// partial too, and each of its changes is read from the store.
    Related,
    /// No record.
    None,
}

impl Access {
    /// Returns `true` if each record has to be permitted by the policy.
    pub(crate) fn is_partial(self) -> bool {
        matches!(self, Self::Some | Self::Related)
    }
}

/// A user with the claims of their token.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct User {
    /// The user.
    pub id: UserId,
    /// The claims; `None` if the token has none.
    pub claims: Option<Document>,
}

impl From<UserId> for User {
    fn from(id: UserId) -> Self {
        Self { id, claims: None }
    }
}

/// The one who asks for something.
#[derive(Clone, Copy)]
pub struct Asker<'a> {
    /// The user; `None` if the server knows no users.
    pub user: Option<&'a UserId>,
    /// The claims of the user's token; `None` if it has none.
    pub claims: Option<&'a Document>,
    /// The other records, as of the same view of the store; `None` where none can be looked at.
    pub records: Option<&'a dyn Records>,
}

impl<'a> Asker<'a> {
    pub(crate) fn new(user: Option<&'a User>, records: Option<&'a dyn Records>) -> Self {
        let claims = user.and_then(|user| user.claims.as_ref());
        Self { user: user.map(|user| &user.id), claims, records }
    }
}

/// The records of a server, for a policy that asks for more than the record at hand.
pub trait Records {
    /// Returns `true` if there is this record.
    fn exists(&self, collection: &Collection, id: &RecordId) -> bool;
}

/// A change of a record that is judged before it is made.
#[derive(Clone, Copy, Debug)]
pub struct ProposedWrite<'a> {
    /// The collection.
    pub collection: &'a Collection,
    /// The record.
    pub id: &'a RecordId,
    /// Its present state.
    pub before: Option<&'a Document>,
    /// The change.
    pub change: &'a Change,
    /// The present time by the server's clock.
    pub now: Timestamp,
}

/// The server's permissions. By default every method permits everything.
///
/// They are called inside transactions and streams: they must not panic, and must be fast
/// and deterministic. `user` is `None` if the server knows no users.
///
/// A policy under which users see their own notes alone, and change nobody else's:
///
/// ```
/// use synclayer_core::{Access, Change, Collection, Document, Policy, RecordId, UserId};
///
/// struct OwnNotes;
///
/// /// Returns `true` if the document's field `owner` names this user.
/// fn is_own(user: Option<&UserId>, document: &Document) -> bool {
///     let owner = document.get::<String>("owner").ok().flatten();
///     owner.as_deref() == user.map(|user| &**user)
/// }
///
/// impl Policy for OwnNotes {
///     fn read(&self, user: Option<&UserId>, collection: &Collection) -> Access {
///         match (user, &**collection) {
///             (Some(_), "notes") => Access::Some,
///             (None, "notes") => Access::None,
///             (_, _) => Access::All,
///         }
///     }
///
///     fn read_record(
///         &self,
///         user: Option<&UserId>,
///         _: &Collection,
///         _: &RecordId,
///         document: &Document,
///     ) -> bool {
///         is_own(user, document)
///     }
///
///     fn write(
///         &self,
///         user: Option<&UserId>,
///         collection: &Collection,
///         _: &RecordId,
///         before: Option<&Document>,
///         change: &Change,
///     ) -> Result<(), String> {
///         let after = change.apply(before);
///         let theirs = [before, after.as_ref()].into_iter().flatten().all(|note| is_own(user, note));
///         if &**collection == "notes" && !theirs {
///             return Err("this note belongs to somebody else".into());
///         }
///         Ok(())
///     }
/// }
/// ```
pub trait Policy: Send + Sync {
    /// A user's read access to a collection.
    fn read(&self, user: Option<&UserId>, collection: &Collection) -> Access {
        let _ = (user, collection);
        Access::All
    }

    /// Returns `true` if a user may read a record of a collection whose access is [`Access::Some`].
    fn read_record(
        &self,
        user: Option<&UserId>,
        collection: &Collection,
        id: &RecordId,
        document: &Document,
    ) -> bool {
        let _ = (user, collection, id, document);
        true
    }

    /// Permits or refuses a user's change of a record, whose present state is `before`.
    ///
    /// # Errors
    /// The reason for people; it is sent to the writer.
    fn write(
        &self,
        user: Option<&UserId>,
        collection: &Collection,
        id: &RecordId,
        before: Option<&Document>,
        change: &Change,
    ) -> Result<(), alloc::string::String> {
        let _ = (user, collection, id, before, change);
        Ok(())
    }

    /// As [`read`](Self::read), by whatever is known of the one who asks. The server calls this method
    /// and the next two, which by default ask those above: implement these for rights that depend on a
    /// token's claims or on other records.
    fn access(&self, by: &Asker<'_>, collection: &Collection) -> Access {
        self.read(by.user, collection)
    }

    /// As [`access`](Self::access), to one scope of the collection: the records that have these JSON texts
    /// in these fields, or in an array if `[]` stands behind the field's name. By default it is that to
    /// the collection. It must not be wider than [`shows`](Self::shows) is for each of these records.
    fn access_to_scope(
        &self,
        by: &Asker<'_>,
        collection: &Collection,
        parts: &[(alloc::string::String, alloc::string::String)],
    ) -> Access {
        let _ = parts;
        self.access(by, collection)
    }

    /// As [`read_record`](Self::read_record), by whatever is known of the one who asks. `by.records` is
    /// `None` if the collection's access is [`Access::Some`].
    fn shows(
        &self,
        by: &Asker<'_>,
        collection: &Collection,
        id: &RecordId,
        document: &Document,
    ) -> bool {
        self.read_record(by.user, collection, id, document)
    }

    /// A number for what a reader may see of a collection, which differs where the rights do: by other
    /// claims of the token, or by other rules. A stream whose number changes while it lives begins again
    /// with a snapshot, and so does each whose number is another one without the claims. Default 0, for
    /// rights that depend on the user and the record alone.
    fn stamp(&self, by: &Asker<'_>, collection: &Collection) -> u64 {
        let _ = (by, collection);
        0
    }

    /// The collections at whose records [`shows`](Self::shows) may look, where the access is
    /// [`Access::Related`]. While nothing changes in them, a user who comes back goes on from where they
    /// were; `None`, the default, if they are not known: then everything is sent anew.
    fn looks_at(&self, by: &Asker<'_>, collection: &Collection) -> Option<BTreeSet<Collection>> {
        let _ = (by, collection);
        None
    }

    /// As [`write`](Self::write), by whatever is known of the one who asks.
    ///
    /// # Errors
    /// The reason for people; it is sent to the writer.
    fn permits(
        &self,
        by: &Asker<'_>,
        write: &ProposedWrite<'_>,
    ) -> Result<(), alloc::string::String> {
        self.write(by.user, write.collection, write.id, write.before, write.change)
    }
}

/// A policy that permits everything to everyone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AllowAll;

impl Policy for AllowAll {}

/// A rate limit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Rate {
    /// The long-term rate per second. 0 allows the burst and nothing after it.
    pub per_second: u32,
    /// The number of calls at once, after a pause.
    pub burst: u32,
}

/// The state of a [`Rate`]: a token bucket in thousandths of a token.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Bucket {
    rate: Rate,
    thousandths: u64,
    filled_at: Mono,
}

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub fn new(rate: Rate, now: Mono) -> Self {
        Self { rate, thousandths: u64::from(rate.burst) * 1000, filled_at: now }
    }

    /// Takes one token.
    ///
    /// # Errors
    /// The time until a token is available; none is taken. [`Duration::MAX`] if there never is one.
    pub fn take(&mut self, now: Mono) -> Result<(), Duration> {
        self.take_many(now, 1)
    }

    /// Takes several tokens at once; as many as a full bucket holds, if they are more.
    ///
    /// # Errors
    /// As [`take`](Self::take): the time until they are available; none is taken.
    pub fn take_many(&mut self, now: Mono, count: usize) -> Result<(), Duration> {
        self.fill(now);
        let count = u32::try_from(count).unwrap_or(u32::MAX).min(self.rate.burst.max(1));
        let wanted = u64::from(count) * 1000;
        if let Some(left) = self.thousandths.checked_sub(wanted) {
            self.thousandths = left;
            return Ok(());
        }
        if self.rate.per_second == 0 || self.rate.burst == 0 {
            return Err(Duration::MAX);
        }
        // one token a second is one thousandth a millisecond
        let missing = wanted - self.thousandths;
        Err(Duration::from_millis(missing.div_ceil(u64::from(self.rate.per_second))))
    }

    /// Returns `true` if the bucket is full. Dropping it then changes nothing.
    #[must_use]
    pub fn is_full(&self, now: Mono) -> bool {
        let mut later = *self;
        later.fill(now);
        later.thousandths == u64::from(self.rate.burst) * 1000
    }

    fn fill(&mut self, now: Mono) {
        let millis = now.0.saturating_sub(self.filled_at.0);
        let more = millis.saturating_mul(u64::from(self.rate.per_second));
        let most = u64::from(self.rate.burst) * 1000;
        self.thousandths = self.thousandths.saturating_add(more).min(most);
        self.filled_at = self.filled_at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_that_says_nothing_allows_everything() {
        struct Silent;
        impl Policy for Silent {}
        let (collection, id) = (Collection::new("c").unwrap(), RecordId::new("r").unwrap());
        let document = Document::empty();
        assert_eq!(Silent.read(None, &collection), Access::All);
        assert!(Silent.read_record(None, &collection, &id, &document));
        let change = Change::delete();
        assert_eq!(Silent.write(None, &collection, &id, Some(&document), &change), Ok(()));
    }

    #[test]
    fn a_bucket_allows_the_burst_and_then_the_rate() {
        let mut bucket = Bucket::new(Rate { per_second: 3, burst: 2 }, Mono(1000));
        assert_eq!(bucket.take(Mono(1000)), Ok(()));
        assert!(!bucket.is_full(Mono(1000)));
        assert_eq!(bucket.take(Mono(1000)), Ok(()));
        assert_eq!(bucket.take(Mono(1000)), Err(Duration::from_millis(334)));
        assert_eq!(bucket.take(Mono(1333)), Err(Duration::from_millis(1)));
        assert_eq!(bucket.take(Mono(1334)), Ok(()));
        assert!(bucket.is_full(Mono(9000)));
        // several at once, and never more than it holds
        assert_eq!(bucket.take_many(Mono(9000), 2), Ok(()));
        assert_eq!(bucket.take_many(Mono(9000), 9), Err(Duration::from_millis(667)));
        assert_eq!(bucket.take_many(Mono(9667), 9), Ok(()));
        // a clock that goes back fills nothing
        let mut back = Bucket::new(Rate { per_second: 1, burst: 1 }, Mono(5000));
        assert_eq!(back.take(Mono(5000)), Ok(()));
        assert!(back.take(Mono(0)).is_err());
        assert!(back.take(Mono(5999)).is_err());
        assert_eq!(back.take(Mono(6000)), Ok(()));
    }

    #[test]
    fn a_rate_of_nothing_never_allows_more() {
        let mut bucket = Bucket::new(Rate { per_second: 0, burst: 1 }, Mono(0));
        assert_eq!(bucket.take(Mono(0)), Ok(()));
        assert_eq!(bucket.take(Mono(u64::MAX)), Err(Duration::MAX));
    }
}
