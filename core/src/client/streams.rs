//! The streams of all collections that matter: those that the app has used, or has unsettled writes
//! or stored rows of. A server's word about any other leaves no trace but a count.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::hash::{Hash, Hasher};
use core::time::Duration;

use super::stream::Stream;
use crate::protocol::name::Collection;
use crate::protocol::time::Mono;

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Streams {
    streams: BTreeMap<Collection, Stream>,
    sorted: Sorted,
}

/// The streams with something to be done about them, so that a step need not look at all. It says
/// nothing that the streams do not say.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Sorted {
    /// The streams that may have changed since they were sorted; all of them, if there are any,
    /// where this is `None`.
    changed: Option<BTreeSet<Collection>>,
    /// Those whose subscription may be due to begin or to end.
    due: BTreeSet<Collection>,
    /// Those that are asked for again at a time.
    retried: BTreeSet<Collection>,
    /// Those that are kept in sync although the app has not subscribed them, or were so.
    lingering: BTreeSet<Collection>,
    /// Those whose set of scopes may have to be brought in line with what the app uses.
    unadjusted: BTreeSet<Collection>,
    /// Those whose status the app was not shown.
    unshown: BTreeSet<Collection>,
    /// Those whose rows were not counted since the start.
    uncounted: BTreeSet<Collection>,
}

impl Hash for Sorted {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl Sorted {
    fn sort(&mut self, name: &Collection, stream: &Stream) {
        let sets = [
            (&mut self.due, stream.may_be_due()),
            (&mut self.retried, stream.retry_at().is_some()),
            (&mut self.lingering, stream.lingers()),
            (&mut self.unadjusted, stream.is_set_due()),
            (&mut self.unshown, stream.is_unshown()),
            (&mut self.uncounted, stream.is_unverified()),
        ];
        for (set, belongs) in sets {
            match belongs {
                true if !set.contains(name) => drop(set.insert(name.clone())),
                true => {}
                false => drop(set.remove(name)),
            }
        }
    }
}

impl Streams {
    /// Returns the stream of a collection that the app uses or has stored rows of, and makes one if
    /// there is none. Nothing else makes one.
    pub(super) fn used(&mut self, collection: &Collection) -> &mut Stream {
        self.note_change(collection);
        self.streams.entry(collection.clone()).or_default()
    }

    fn note_change(&mut self, collection: &Collection) {
        if let Some(changed) = &mut self.sorted.changed
            && !changed.contains(collection)
        {
            changed.insert(collection.clone());
        }
    }

    /// Sorts the streams that have changed.
    fn sort(&mut self) {
        match self.sorted.changed.replace(BTreeSet::new()) {
            None => self.streams.iter().for_each(|(name, it)| self.sorted.sort(name, it)),
            Some(changed) => {
                for name in changed {
                    if let Some(stream) = self.streams.get(&name) {
                        self.sorted.sort(&name, stream);
                    }
                }
            }
        }
    }

    /// Returns the names of the streams whose subscription may be due to begin or to end.
    pub(super) fn due(&mut self) -> Vec<Collection> {
        self.sort();
        self.sorted.due.iter().cloned().collect()
    }

    /// Returns the names of the streams that are kept in sync although the app has not subscribed
    /// them, or were so.
    pub(super) fn lingering(&self) -> Vec<Collection> {
        self.now_in(&self.sorted.lingering, Stream::lingers)
    }

    /// Returns the names of the streams whose set of scopes may have to be brought in line with what the
    /// app uses.
    pub(super) fn unadjusted(&self) -> Vec<Collection> {
        self.now_in(&self.sorted.unadjusted, Stream::is_set_due)
    }

    /// Returns the names of the streams of a set, of which those belong in it that `belongs` is true of.
    /// It sorts nothing: that is done once at the end of a step.
    fn now_in(
        &self,
        sorted: &BTreeSet<Collection>,
        belongs: impl Fn(&Stream) -> bool,
    ) -> Vec<Collection> {
        let belongs = |name: &Collection| self.get(name).is_some_and(&belongs);
        let Some(changed) = &self.sorted.changed else {
            return self.streams.keys().filter(|name| belongs(name)).cloned().collect();
        };
        if sorted.is_empty() && !changed.iter().any(belongs) {
            return Vec::new();
        }
        sorted.union(changed).filter(|name| belongs(name)).cloned().collect()
    }

    /// Ends a step: the deadlines that follow are those of the streams as they are now. Returns the
    /// collections whose status is another one than at the end of the step before.
    pub(super) fn end_step(&mut self) -> BTreeSet<Collection> {
        self.sort();
        let unshown = core::mem::take(&mut self.sorted.unshown);
        for name in &unshown {
            if let Some(stream) = self.streams.get_mut(name) {
                stream.show();
            }
        }
        unshown
    }

    /// The time at which the next collection is asked for again.
    pub(super) fn retry_at(&self) -> Option<Mono> {
        self.those(&self.sorted.retried).filter_map(Stream::retry_at).min()
    }

    /// The time at which the next collection or scope has been unused for long enough.
    pub(super) fn unused_until(
        &self,
        keep_for: Option<Duration>,
        keep_scopes_for: Duration,
    ) -> Option<Mono> {
        let until = |stream: &Stream| match stream.is_scoped() {
            true => stream.idle_scope_until(keep_scopes_for),
            false => stream.unused_until(stream.keep_for(keep_for, keep_scopes_for)?),
        };
        self.those(&self.sorted.lingering).filter_map(until).min()
    }

    fn those(&self, names: &BTreeSet<Collection>) -> impl Iterator<Item = &Stream> {
        names.iter().filter_map(|name| self.streams.get(name))
    }

    /// Checks that the streams are sorted as they are.
    ///
    /// # Errors
    /// Says that they are not.
    pub(super) fn check(&self) -> Result<(), String> {
        let mut all = Self { streams: self.streams.clone(), sorted: Sorted::default() };
        all.sort();
        if all == *self { Ok(()) } else { Err("the streams are not sorted as they are".into()) }
    }

    pub(super) fn contains(&self, collection: &Collection) -> bool {
        self.streams.contains_key(collection)
    }

    pub(super) fn get(&self, collection: &Collection) -> Option<&Stream> {
        self.streams.get(collection)
    }

    pub(super) fn get_mut(&mut self, collection: &Collection) -> Option<&mut Stream> {
        self.note_change(collection);
        self.streams.get_mut(collection)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Collection, &Stream)> {
        self.streams.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&Collection, &mut Stream)> {
        self.sorted.changed = None;
        self.streams.iter_mut()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Stream> {
        self.streams.values()
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.sorted.changed = None;
        self.streams.values_mut()
    }

    /// The store vouches for the rows.
    pub(super) fn trust_rows(&mut self) {
        self.values_mut().for_each(Stream::trust_rows);
        self.sort();
    }

    /// Returns the name of the first collection whose rows are being counted.
    pub(super) fn first_counting(&self) -> Option<Collection> {
        let uncounted = self.sorted.uncounted.iter();
        let mut counting = uncounted.filter(|of| self.get(of).is_some_and(Stream::is_counting));
        counting.next().cloned()
    }

    /// Returns `true` if all rows were counted, and no stream has changed since they were sorted.
    pub(super) fn are_counted(&self) -> bool {
        let is_sorted = self.sorted.changed.as_ref().is_some_and(BTreeSet::is_empty);
        is_sorted && self.sorted.uncounted.is_empty()
    }

    /// Returns the collections that the app uses, with their streams.
    pub(super) fn wanted(&self) -> impl Iterator<Item = (&Collection, &Stream)> {
        self.iter().filter(|(_, stream)| stream.is_wanted())
    }

    /// Returns the names of all collections.
    pub(super) fn names(&self) -> Vec<Collection> {
        self.streams.keys().cloned().collect()
    }

    /// Returns the names of the collections whose streams `which` is true of.
    pub(super) fn names_of(&self, which: impl Fn(&Stream) -> bool) -> Vec<Collection> {
        self.iter().filter(|(_, it)| which(it)).map(|(name, _)| name.clone()).collect()
    }

    /// Returns the name of the first collection whose stream `which` is true of.
    pub(super) fn find(&self, which: impl Fn(&Stream) -> bool) -> Option<Collection> {
        self.iter().find(|(_, it)| which(it)).map(|(name, _)| name.clone())
    }

    /// Returns `true` if `which` is true of a stream.
    pub(super) fn any(&self, which: impl Fn(&Stream) -> bool) -> bool {
        self.streams.values().any(which)
    }
}
