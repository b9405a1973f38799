//! The rights by which a reader is shown a collection (PROTOCOL 8.35).

use alloc::collections::BTreeSet;

use xxhash_rust::xxh3::Xxh3;

use super::scope::NoScope;
use super::{Page, PageLimits, Position, ReaderView};
use crate::protocol::hash::RightsTag;
use crate::protocol::name::Collection;
use crate::protocol::scopes::ScopePlace;
use crate::rules::policy::{Access, Asker};
use crate::rules::record::Head;
use crate::store::StoreError;

impl ReaderView<'_> {
    /// The first page of a reader who was shown by these rights what they hold.
    pub(super) fn first_by(
        &self,
        rights: Option<RightsTag>,
        followed: bool,
        start: &Position,
        limits: PageLimits,
    ) -> Result<Result<Page, NoScope>, StoreError> {
        if self.counts(rights, followed, start)? {
            let page = self.any_page(start, limits)?;
            return Ok(page.map(|page| page.opened_with(|opened| opened.rights = rights)));
        }
        let is_known = if let Position::Start { cursor: Some(cursor), .. } = start {
            self.vouches_for(cursor)?
        } else {
            false
        };
        let page = self.any_page(&start.forgotten(), limits)?;
        let others = is_known.then_some(rights);
        Ok(page.map(|page| page.opened_with(|opened| opened.others = others)))
    }

    /// The tag of the rights of now; `None` where everything is seen, which is proved by count and
    /// checksum, and where the policy has no number for them.
    pub(super) fn rights(&self) -> Result<Option<RightsTag>, StoreError> {
        if !self.reader.access.is_partial() {
            return Ok(None);
        }
        // the policy may be another one by now: then whoever has asked begins again
        let rules = self.reader.stamp;
        let related = self.looks_at().map(|all| self.state_of(&all)).transpose()?;
        Ok((rules != 0 || related.is_some()).then_some(RightsTag { rules, related }))
    }

    /// Returns `true` if it counts what was shown by these rights.
    fn counts(
        &self,
        rights: Option<RightsTag>,
        followed: bool,
        start: &Position,
    ) -> Result<bool, StoreError> {
        let now = self.rights()?;
        if self.reader.access != Access::Related {
            return Ok(rights == now);
        }
        if rights.map(|tag| tag.rules) != now.map(|tag| tag.rules) {
            return Ok(false);
        }
        // by HTTP nobody follows anything: of a run that never goes on to its end, nobody would learn more
        if followed || (self.is_pull && start.is_under_way()) {
            return Ok(true);
        }
        let all = self.looks_at().filter(|_| rights == now);
        // nobody knows at which of the records they have looked
        Ok(all.map(|all| self.looks.note_all(all)).is_some())
    }

    /// The collections at whose records the rights look, if they look at any and those are known.
    fn looks_at(&self) -> Option<BTreeSet<Collection>> {
        let by = Asker::new(self.reader.user.as_ref(), None);
        let is_related = self.reader.access == Access::Related;
        is_related.then(|| self.policy.looks_at(&by, &self.reader.collection))?
    }

    /// A number for the state of collections: another one once any of their records has changed.
    fn state_of(&self, collections: &BTreeSet<Collection>) -> Result<u64, StoreError> {
        let mut hasher = Xxh3::new();
        hasher.update(self.epoch()?.as_bytes());
        for collection in collections {
            // no name has a zero in it
            hasher.update(collection.as_bytes());
            hasher.update(&[0]);
            hasher.update(&Head::load(self.rows, collection)?.seq.0.to_be_bytes());
        }
        Ok(hasher.digest())
    }
}

impl Position {
    /// Returns `true` if a run has begun that is not at its end, or the load of a scope is due.
    fn is_under_way(&self) -> bool {
        if let Self::StartOfSet { resume, places, .. } = self {
            let is_due = |(_, place): &(_, ScopePlace)| *place != ScopePlace::Loaded;
            return resume.is_some() || places.iter().any(is_due);
        }
        matches!(self, Self::Start { resume: Some(_), .. })
    }

    /// The same beginning for one who holds nothing that counts.
    fn forgotten(&self) -> Self {
        if let Self::StartOfSet { places, .. } = self {
            return Self::reload(places.iter().map(|(scope, _)| scope.clone()));
        }
        Self::Start { cursor: None, resume: None }
    }
}
