//! The catch-up of a set of scopes: the changes of those that are loaded, and between them the loads of
//! the others, a page or several small ones at a time (PROTOCOL 8.26 to 8.29).

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::limits::{Budget, PageLimits};
use super::scope::{Holding, NoScope, ScopeAt, built, undeclared};
use super::{Content, Next, Opened, Page, Position, ReaderView, bytes_of, sync_record};
use crate::protocol::hash::Checksum;
use crate::protocol::message::{Cursor, Mode, Resume};
use crate::protocol::name::Seq;
use crate::protocol::scopes::{LeftRecord, ScopePlace};
use crate::rules::record::RecordRow;
use crate::rules::record::scopes::{Declared, DeclaredKey};
use crate::rules::scope::Scope;
use crate::store::StoreError;

/// The position in a run over a set of scopes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SetPosition {
    /// The seq up to which the reader knows the fields of what is loaded; `None` while nothing is.
    floor: Option<Seq>,
    /// The seq up to which the changes of the loaded scopes were sent.
    after: Seq,
    /// The scopes, in the order of the reader.
    scopes: Vec<(Scope, Place)>,
}

/// The part of a scope that the reader holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Place {
    /// All that left it above this seq was told, or has to be.
    Loaded {
        since: Seq,
    },
    Loading(Load),
    Waiting,
}

/// The place in the load of a scope.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Load {
    /// The head when it began.
    snapshot_seq: Seq,
    /// The seq up to which it was sent.
    after: Option<Seq>,
}

impl SetPosition {
    /// The position of a reader who has everything up to a seq.
    pub(crate) fn behind(seq: Seq, scopes: impl Iterator<Item = Scope>) -> Self {
        let place = Place::Loaded { since: seq };
        let scopes = scopes.map(|scope| (scope, place)).collect();
        Self { floor: Some(seq), after: seq, scopes }
    }

    /// Leaves out scopes. A leave may have been passed over because of them: the changes begin anew.
    fn lose(&mut self, lost: &[Scope]) {
        self.scopes.retain(|(scope, _)| !lost.contains(scope));
        self.after = self.floor.unwrap_or(self.after);
    }

    /// The scopes that are loaded, and those that are loading, by their places in the list.
    fn held(&self) -> impl Iterator<Item = (&Scope, bool)> {
        self.scopes.iter().filter_map(|(scope, place)| match place {
            Place::Loaded { .. } => Some((scope, true)),
            Place::Loading(_) => Some((scope, false)),
            Place::Waiting => None,
        })
    }

    fn is_loaded(&self) -> bool {
        self.scopes.iter().all(|(_, place)| matches!(place, Place::Loaded { .. }))
    }

    /// The next scope to load: one that is loading before those that wait.
    fn next_load(&self) -> Option<(usize, Option<Load>)> {
        let loading = self.scopes.iter().enumerate().find_map(|(at, (_, place))| match place {
            Place::Loading(load) => Some((at, Some(*load))),
            Place::Loaded { .. } | Place::Waiting => None,
        });
        loading.or_else(|| {
            let waits = |(_, place): &(Scope, Place)| *place == Place::Waiting;
            Some((self.scopes.iter().position(waits)?, None))
        })
    }
}

impl Position {
    /// Leaves out scopes of a set.
    pub(crate) fn lose(&mut self, lost: &[Scope]) {
        match self {
            Self::StartOfSet { resume, places, .. } => {
                *resume = None;
                places.retain(|(scope, _)| !lost.contains(scope));
            }
            Self::Set(position) => position.lose(lost),
            Self::ShownBy { start, .. } => start.lose(lost),
            Self::Start { .. } | Self::Now | Self::Delta { .. } | Self::Snapshot { .. } => {}
        }
    }

    /// The beginning of a run over a set for one of whom nothing counts that they hold.
    pub(crate) fn reload(scopes: impl Iterator<Item = Scope>) -> Self {
        // what is loaded without a cursor counts for nothing
        let places = scopes.map(|scope| (scope, ScopePlace::Loaded)).collect();
        Self::StartOfSet { cursor: None, resume: None, places }
    }
}

/// Scopes, and how much of each the reader holds.
type Places = Vec<(Scope, ScopePlace)>;

/// The declared keys of a collection whose scopes a set has.
pub(super) struct SetKeys {
    keys: Vec<(String, DeclaredKey)>,
}

impl SetKeys {
    fn load(view: &ReaderView<'_>) -> Result<Self, StoreError> {
        let declared = Declared::load(view.rows, &view.reader.collection)?.unwrap_or_default();
        let keys = declared.keys.into_iter().map(|key| (key.key.to_string(), key)).collect();
        Ok(Self { keys })
    }

    fn find(&self, name: &[u8]) -> Option<&DeclaredKey> {
        self.keys.iter().find(|(text, _)| text.as_bytes() == name).map(|(_, key)| key)
    }

    /// Splits scopes into those of declared keys and the others.
    ///
    /// # Errors
    /// When all are others: the reason, of the first.
    fn split(
        &self,
        view: &ReaderView<'_>,
        places: &[(Scope, ScopePlace)],
    ) -> Result<(Places, Vec<Scope>), NoScope> {
        let is_declared = |(scope, _): &&(Scope, ScopePlace)| self.find(scope.parts().0).is_some();
        let (known, others): (Vec<_>, Vec<_>) = places.iter().partition(is_declared);
        match others.first() {
            Some((first, _)) if known.is_empty() => {
                let name = String::from_utf8_lossy(first.parts().0);
                Err(undeclared(&view.reader.collection, &name))
            }
            Some(_) | None => {
                let others = others.into_iter().map(|(scope, _)| scope.clone());
                Ok((known.into_iter().cloned().collect(), others.collect()))
            }
        }
    }

    /// Checks that all scopes can be read.
    fn check(&self, view: &ReaderView<'_>, position: &SetPosition) -> Result<(), NoScope> {
        let collection = &view.reader.collection;
        position.scopes.iter().try_for_each(|(scope, _)| {
            let (name, _) = scope.parts();
            let key = self.find(name);
            let key = key.ok_or_else(|| undeclared(collection, &String::from_utf8_lossy(name)))?;
            built(collection, key)
        })
    }

    fn open<'a>(&self, view: &ReaderView<'a>, scope: &Scope) -> Result<ScopeAt<'a>, StoreError> {
        let (name, value) = scope.parts();
        let key = self.find(name).ok_or_else(|| StoreError::damaged("a scope has no key"))?;
        Ok(ScopeAt::at(view.rows, &view.reader.collection, key.clone(), value))
    }
}

impl ReaderView<'_> {
    /// The first page of a run over a set.
    pub(super) fn first_of_set(
        &self,
        cursor: Option<&Cursor>,
        resume: Option<&Resume>,
        places: &[(Scope, ScopePlace)],
        limits: PageLimits,
    ) -> Result<Result<Page, NoScope>, StoreError> {
        let keys = SetKeys::load(self)?;
        let (places, refused) = match keys.split(self, places) {
            Ok(split) => split,
            Err(reason) => return Ok(Err(reason)),
        };
        let fresh = self.fresh_set(places.iter().map(|(scope, _)| scope));
        if let Err(reason) = keys.check(self, &fresh) {
            return Ok(Err(reason));
        }
        let goes_on = match self.start_of_set(cursor, resume, &places)? {
            Some(position) if self.is_kept(&keys, &position)? => Some(position),
            Some(_) | None => None,
        };
        let mode = if goes_on.is_some() { Mode::Delta } else { Mode::Snapshot };
        let position = goes_on.unwrap_or(fresh);
        let opened = Opened { refused, ..self.opened_set(&keys, &position, mode)? };
        let opened = Some(opened.into());
        let (content, next) = self.step_of_set(&keys, position, limits)?;
        Ok(Ok(Page { opened, content, next, looked: Box::default() }))
    }

    /// The next page of a run over a set.
    pub(super) fn page_of_set(
        &self,
        position: &SetPosition,
        limits: PageLimits,
    ) -> Result<Result<Page, NoScope>, StoreError> {
        let keys = SetKeys::load(self)?;
        if let Err(reason) = keys.check(self, position) {
            return Ok(Err(reason));
        }
        let (mut position, mut opened) = (position.clone(), None);
        if !self.is_kept(&keys, &position)? {
            position = self.fresh_set(position.scopes.iter().map(|(scope, _)| scope));
            opened = Some(self.opened_set(&keys, &position, Mode::Snapshot)?.into());
        }
        let (content, next) = self.step_of_set(&keys, position, limits)?;
        Ok(Ok(Page { opened, content, next, looked: Box::default() }))
    }

    fn fresh_set<'s>(&self, scopes: impl Iterator<Item = &'s Scope>) -> SetPosition {
        let scopes = scopes.map(|scope| (scope.clone(), Place::Waiting)).collect();
        SetPosition { floor: None, after: self.head.seq, scopes }
    }

    /// The position at which a run begins for a reader with this cursor and these places; `None` if
    /// nothing of it counts.
    fn start_of_set(
        &self,
        cursor: Option<&Cursor>,
        resume: Option<&Resume>,
        places: &[(Scope, ScopePlace)],
    ) -> Result<Option<SetPosition>, StoreError> {
        if let Some(cursor) = cursor
            && !self.vouches_for(cursor)?
        {
            return Ok(None);
        }
        let floor = cursor.map(|cursor| cursor.seq);
        let mut after = floor.unwrap_or(self.head.seq);
        match (resume, floor) {
            (None, _) => {}
            (Some(Resume::Delta { epoch, seq }), Some(_)) => {
                if self.is_current(epoch, *seq)? {
                    after = after.max(*seq);
                } else if !self.vouches_for(&Cursor { epoch: epoch.clone(), seq: *seq })? {
                    return Ok(None);
                }
            }
            (Some(_), _) => return Ok(None),
        }
        let mut scopes = Vec::with_capacity(places.len());
        for (scope, place) in places {
            let place = match (place, floor) {
                (ScopePlace::Waiting, _) => Place::Waiting,
                (ScopePlace::Loaded, Some(since)) => Place::Loaded { since },
                (ScopePlace::Loaded, None) => return Ok(None),
                (ScopePlace::Loading(load), _) => {
                    let (snapshot_seq, after) = (load.snapshot_seq, load.after);
                    if !self.is_current(&load.epoch, snapshot_seq.max(after))? {
                        return Ok(None);
                    }
                    Place::Loading(Load { snapshot_seq, after: Some(after) })
                }
            };
            scopes.push((scope.clone(), place));
        }
        Ok(Some(SetPosition { floor, after, scopes }))
    }

    /// Returns `true` if nothing is forgotten that the reader of held scopes has yet to learn.
    fn is_kept(&self, keys: &SetKeys, position: &SetPosition) -> Result<bool, StoreError> {
        let has_news = self.head.seq > position.after;
        for (scope, place) in &position.scopes {
            let since = match place {
                Place::Loaded { .. } if !has_news => continue,
                Place::Loaded { since } => *since,
                Place::Loading(load) => load.snapshot_seq,
                Place::Waiting => continue,
            };
            if keys.open(self, scope)?.horizon()? > since {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The step from a position in this view: changes of what is loaded; else loads.
    fn step_of_set(
        &self,
        keys: &SetKeys,
        mut position: SetPosition,
        limits: PageLimits,
    ) -> Result<(Content, Next), StoreError> {
        if self.head.seq > position.after && position.floor.is_some() {
            let (mut changes, mut done) = (Vec::new(), false);
            // a page that tells nothing would bring one no further who goes on from what it was told
            while changes.is_empty() && !done {
                let last;
                (changes, last, done) = self.changes_of_set(keys, &position, limits)?;
                position.after = if done { self.head.seq } else { last };
            }
            if !changes.is_empty() || !done {
                let next = match done {
                    true => self.after_set(keys, position)?,
                    false => Next::More(Position::Set(position.into())),
                };
                return Ok((Content::Changes(changes), next));
            }
        }
        let mut loads = self.loads_of_set(keys, &mut position, limits)?;
        let content = match loads.len() {
            0 => Content::Changes(Vec::new()),
            1 => loads.remove(0),
            _ => Content::Loads(loads),
        };
        Ok((content, self.after_set(keys, position)?))
    }

    fn after_set(&self, keys: &SetKeys, position: SetPosition) -> Result<Next, StoreError> {
        if position.is_loaded() {
            self.done_with_set(keys, &position)
        } else {
            Ok(Next::More(Position::Set(position.into())))
        }
    }

    /// A page of a load, or as many whole loads as make up half a page: a set of small scopes would
    /// otherwise take a read for each.
    fn loads_of_set(
        &self,
        keys: &SetKeys,
        position: &mut SetPosition,
        limits: PageLimits,
    ) -> Result<Vec<Content>, StoreError> {
        let (mut loads, mut rest) = (Vec::new(), limits);
        while let Some((at, load)) = position.next_load() {
            let load = load.unwrap_or(Load { snapshot_seq: self.head.seq, after: None });
            let (content, up_to, left) = self.load(keys, position, at, load, rest)?;
            loads.push(content);
            rest = left;
            position.scopes[at].1 = match up_to {
                Some(after) => Place::Loading(Load { after: Some(after), ..load }),
                None => Place::Loaded { since: load.snapshot_seq },
            };
            if up_to.is_none() && position.floor.is_none() {
                position.floor = Some(load.snapshot_seq);
                position.after = self.head.seq;
            }
            if self.is_pull || up_to.is_some() || !limits.is_roomy(rest) {
                break;
            }
        }
        Ok(loads)
    }

    fn changes_of_set(
        &self,
        keys: &SetKeys,
        position: &SetPosition,
        limits: PageLimits,
    ) -> Result<(Vec<super::PageChange>, Seq, bool), StoreError> {
        let mut holding = Holding::default();
        let mut loaded = Vec::new();
        for (scope, is_loaded) in position.held() {
            let at = keys.open(self, scope)?;
            holding.add(&at, is_loaded);
            if is_loaded {
                loaded.push(at);
            }
        }
        let floor = position.floor.unwrap_or_default();
        self.changes_in(&loaded, &holding, floor, position.after, limits)
    }

    /// A page of the load of a scope, its end, `None` for the last, and what is left of the limits.
    fn load(
        &self,
        keys: &SetKeys,
        position: &SetPosition,
        at: usize,
        load: Load,
        limits: PageLimits,
    ) -> Result<(Content, Option<Seq>, PageLimits), StoreError> {
        let scope = &position.scopes[at].0;
        let here = keys.open(self, scope)?;
        let mut others = None;
        let after = load.after.unwrap_or_default();
        let room = limits.records.max(1);
        let mut noted = BTreeMap::new();
        here.note_changes([after, after.max(load.snapshot_seq)], room + 1, &mut noted)?;
        let mut budget = Budget::new(limits);
        let (mut records, mut left) = (Vec::new(), Vec::new());
        let (mut last, mut done) = (after, noted.len() <= room);
        for (seq, id) in noted {
            let record = RecordRow::load(self.rows, &self.reader.collection, &id)?
                .ok_or_else(|| StoreError::damaged("a scope names a missing record"))?;
            let member = record.document.as_ref().filter(|_| here.has(&record));
            match member.filter(|_| self.shows(&id, &record)) {
                Some(document) => {
                    let record = sync_record(&id, &record, document);
                    if !budget.takes(id.len() + document.size() + bytes_of(&record.at)) {
                        done = false;
                        break;
                    }
                    records.push(record);
                }
                // it may have been shown, and has left or is withheld by now
                None if seq > load.snapshot_seq => {
                    if member.is_none()
                        && self.is_in_others(&mut others, keys, position, at, &record)?
                    {
                        last = seq;
                        continue;
                    }
                    if !budget.takes(id.len()) {
                        done = false;
                        break;
                    }
                    left.push(LeftRecord { id, seq });
                }
                None => {}
            }
            last = seq;
        }
        let up_to = (!done).then_some(last);
        let (scope, snapshot_seq) = (scope.clone(), load.snapshot_seq);
        let content =
            Content::Load { scope, records, left, after: load.after, up_to, snapshot_seq };
        Ok((content, up_to, budget.rest()))
    }

    /// Returns `true` if a record is in another scope that is held.
    fn is_in_others(
        &self,
        others: &mut Option<Holding>,
        keys: &SetKeys,
        position: &SetPosition,
        at: usize,
        record: &RecordRow,
    ) -> Result<bool, StoreError> {
        if others.is_none() {
            let mut found = Holding::default();
            let this = &position.scopes[at].0;
            for (other, is_loaded) in position.held().filter(|(other, _)| *other != this) {
                found.add(&keys.open(self, other)?, is_loaded);
            }
            *others = Some(found);
        }
        Ok(others.as_ref().is_some_and(|others| others.place_of(record).is_some()))
    }

    fn opened_set(
        &self,
        keys: &SetKeys,
        position: &SetPosition,
        mode: Mode,
    ) -> Result<Opened, StoreError> {
        let (count, _) = self.sums(keys, position)?;
        Ok(Opened { count, ..self.opened(mode)? })
    }

    /// The count and the checksum, summed over the scopes of a set.
    fn sums(&self, keys: &SetKeys, position: &SetPosition) -> Result<(u64, Checksum), StoreError> {
        let (mut count, mut checksum) = (0, Checksum::default());
        for (scope, _) in &position.scopes {
            let head = keys.open(self, scope)?.head()?;
            count += head.count;
            checksum.0 = checksum.0.wrapping_add(head.checksum.0);
        }
        Ok((count, checksum))
    }

    fn done_with_set(&self, keys: &SetKeys, position: &SetPosition) -> Result<Next, StoreError> {
        let (count, checksum) = self.sums(keys, position)?;
        self.done_with(count, checksum)
    }
}
