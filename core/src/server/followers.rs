//! The connections that are woken when a collection moves.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use crate::protocol::name::{Collection, ConnId};
use crate::server::checks::ensure;

/// The connections that follow each collection. An `H` wakes a connection.
///
/// ```
/// use synclayer_core::{Collection, ConnId, Followers};
///
/// let todos = Collection::new("todos")?;
/// let mut followers = Followers::default();
/// followers.follow(todos.clone(), ConnId(1), "one");
/// followers.follow(todos.clone(), ConnId(2), "two");
/// followers.leave(ConnId(1));
/// followers.wake([&todos], |conn, handle| assert_eq!((conn, *handle), (ConnId(2), "two")));
/// # Ok::<(), synclayer_core::NameError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Followers<H> {
    handles: BTreeMap<Collection, BTreeMap<ConnId, H>>,
    collections: BTreeMap<ConnId, BTreeSet<Collection>>,
}

impl<H> Default for Followers<H> {
    fn default() -> Self {
        Self { handles: BTreeMap::new(), collections: BTreeMap::new() }
    }
}

impl<H> Followers<H> {
    /// Wakes a connection whenever a collection moves, from now on.
    pub fn follow(&mut self, collection: Collection, conn: ConnId, handle: H) {
        self.collections.entry(conn).or_default().insert(collection.clone());
        self.handles.entry(collection).or_default().insert(conn, handle);
    }

    /// Wakes a connection no longer when this collection moves.
    pub fn unfollow(&mut self, collection: &Collection, conn: ConnId) {
        if let Some(collections) = self.collections.get_mut(&conn) {
            collections.remove(collection);
            if collections.is_empty() {
                self.collections.remove(&conn);
            }
        }
        self.drop_handle(collection, conn);
    }

    /// Forgets a connection that has ended.
    pub fn leave(&mut self, conn: ConnId) {
        for collection in self.collections.remove(&conn).unwrap_or_default() {
            self.drop_handle(&collection, conn);
        }
    }

    /// Calls `wake` for the followers of these collections; for a connection that follows several
    /// of them, once for each.
    pub fn wake<'a>(
        &self,
        moved: impl IntoIterator<Item = &'a Collection>,
        mut wake: impl FnMut(ConnId, &H),
    ) {
        let followers = moved.into_iter().filter_map(|collection| self.handles.get(collection));
        followers.flatten().for_each(|(conn, handle)| wake(*conn, handle));
    }

    /// Checks the bookkeeping, and that only connections follow that are `alive`.
    pub(crate) fn check(&self, alive: impl Fn(ConnId) -> bool) -> Result<(), String> {
        let pairs = |(conn, of): (&ConnId, &BTreeSet<Collection>)| {
            of.iter().map(|collection| (collection.clone(), *conn)).collect::<Vec<_>>()
        };
        let mut followed: Vec<_> = self.collections.iter().flat_map(pairs).collect();
        followed.sort();
        let handles = self.handles.iter();
        let handles = handles.flat_map(|(of, by)| by.keys().map(move |conn| (of, conn)));
        ensure(handles.eq(followed.iter().map(|(of, conn)| (of, conn))), "followers, both ways")?;
        ensure(followed.iter().all(|(_, conn)| alive(*conn)), "only the living follow")?;
        Ok(())
    }

    fn drop_handle(&mut self, collection: &Collection, conn: ConnId) {
        if let Some(handles) = self.handles.get_mut(collection) {
            handles.remove(&conn);
            if handles.is_empty() {
                self.handles.remove(collection);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn woken(followers: &Followers<()>, moved: &[&str]) -> Vec<u64> {
        let moved: Vec<_> = moved.iter().map(|name| Collection::new(name).unwrap()).collect();
        let mut woken = Vec::new();
        followers.wake(&moved, |conn, ()| woken.push(conn.0));
        woken
    }

    #[test]
    fn followers_are_woken_until_they_leave() {
        let [a, b] = ["a", "b"].map(|name| Collection::new(name).unwrap());
        let mut followers = Followers::default();
        followers.follow(a.clone(), ConnId(2), ());
        followers.follow(a.clone(), ConnId(1), ());
        followers.follow(b.clone(), ConnId(2), ());
        assert_eq!(woken(&followers, &["a", "c"]), [1, 2]);
        assert_eq!(woken(&followers, &["a", "b"]), [1, 2, 2]);
        followers.unfollow(&a, ConnId(2));
        assert_eq!(woken(&followers, &["a", "b"]), [1, 2]);
        followers.leave(ConnId(2));
        followers.leave(ConnId(2));
        followers.unfollow(&a, ConnId(1));
        assert!(followers.handles.is_empty() && followers.collections.is_empty());
    }
}
