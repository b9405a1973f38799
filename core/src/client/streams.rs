//! The streams of all collections that matter: those that the app has used, or has unsettled writes
//! or stored rows of. A server's word about any other leaves no trace but a count.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::stream::Stream;
use crate::protocol::name::Collection;

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Streams {
    streams: BTreeMap<Collection, Stream>,
}

impl Streams {
    /// Returns the stream of a collection that the app uses or has stored rows of, and makes one if
    /// there is none. Nothing else makes one.
    pub(super) fn used(&mut self, collection: &Collection) -> &mut Stream {
        self.streams.entry(collection.clone()).or_default()
    }

    pub(super) fn contains(&self, collection: &Collection) -> bool {
        self.streams.contains_key(collection)
    }

    pub(super) fn get(&self, collection: &Collection) -> Option<&Stream> {
        self.streams.get(collection)
    }

    pub(super) fn get_mut(&mut self, collection: &Collection) -> Option<&mut Stream> {
        self.streams.get_mut(collection)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Collection, &Stream)> {
        self.streams.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&Collection, &mut Stream)> {
        self.streams.iter_mut()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Stream> {
        self.streams.values()
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.streams.values_mut()
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
