//! What users may do, and how often.

use core::time::Duration;

use crate::words::document::Document;
use crate::words::name::{Collection, RecordId, UserId};
use crate::words::time::Mono;
use crate::words::write::Change;

/// How much of a collection a user may read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Access {
    /// Every record.
    All,
    /// The records that [`Policy::read_record`] lets through. Such a stream is *partial*: it
    /// carries whole records, hidden ones as a `delete` without content, and no checksum.
    Some,
    /// Nothing.
    None,
}

/// The server's permissions. The default of every method is yes.
///
/// The methods are called inside transactions and streams: they must be total, quick and
/// deterministic. `user` is `None` where the server knows no users.
pub trait Policy: Send + Sync {
    /// How much of a collection a user may read.
    fn read(&self, user: Option<&UserId>, collection: &Collection) -> Access {
        let _ = (user, collection);
        Access::All
    }

    /// Whether a user may read a record of a collection whose access is [`Access::Some`].
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

    /// Whether a user may make a change of a record, which is `before` now.
    ///
    /// # Errors
    /// Why not, for people; it goes to the writer.
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
}

/// Everyone may do everything.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AllowAll;

impl Policy for AllowAll {}

/// How often something may be done.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Rate {
    /// How often in a second, in the long run. 0 allows the burst and nothing after it.
    pub per_second: u32,
    /// How often at once, after a rest.
    pub burst: u32,
}

/// What is left of a [`Rate`]: a token bucket in whole thousandths of a token.
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
    /// How long to wait until there is one; nothing is taken. [`Duration::MAX`] if there never is.
    pub fn take(&mut self, now: Mono) -> Result<(), Duration> {
        self.fill(now);
        if let Some(left) = self.thousandths.checked_sub(1000) {
            self.thousandths = left;
            return Ok(());
        }
        if self.rate.per_second == 0 || self.rate.burst == 0 {
            return Err(Duration::MAX);
        }
        // one token a second is one thousandth a millisecond
        let missing = 1000 - self.thousandths;
        Err(Duration::from_millis(missing.div_ceil(u64::from(self.rate.per_second))))
    }

    /// Whether the bucket is full, so that forgetting it changes nothing.
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
