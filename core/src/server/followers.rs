//! The connections that are woken when a collection moves, or scopes of it.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::protocol::name::{Collection, ConnId};
use crate::rules::scope::{Scope, ScopeSet};
use crate::rules::transaction::Published;
use crate::server::checks::ensure;

/// The connections that follow each collection. An `H` wakes a connection.
///
/// ```
/// use synclayer_core::{Collection, ConnId, Followers, Interest};
///
/// let todos = Collection::new("todos")?;
/// let mut followers = Followers::default();
/// followers.follow(Interest::from(todos.clone()), ConnId(1), "one");
/// followers.follow(Interest::from(todos.clone()), ConnId(2), "two");
/// followers.leave(ConnId(1));
/// let moved = [todos].into_iter().collect();
/// followers.wake(&moved, |conn, handle| assert_eq!((conn, *handle), (ConnId(2), "two")));
/// # Ok::<(), synclayer_core::NameError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Followers<H> {
    collections: BTreeMap<Collection, Following<H>>,
    interests: BTreeMap<ConnId, BTreeMap<Collection, Option<ScopeSet>>>,
}

/// The connections that follow one collection.
#[derive(Clone, Debug)]
struct Following<H> {
    whole: BTreeMap<ConnId, H>,
    scoped: BTreeMap<Scope, BTreeMap<ConnId, H>>,
}

/// The changes that a connection follows: those of a collection, or of some scopes of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interest {
    pub(crate) collection: Collection,
    /// `None` for the whole collection.
    pub(crate) scopes: Option<ScopeSet>,
}

impl From<Collection> for Interest {
    fn from(collection: Collection) -> Self {
        Self { collection, scopes: None }
    }
}

impl fmt::Display for Interest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.collection)?;
        self.scopes
            .iter()
            .flat_map(|scopes| scopes.iter())
            .try_for_each(|scope| write!(f, " {scope:?}"))
    }
}

/// The collections that have moved, and the scopes in which they did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Moved {
    /// `None` where nobody knows in which scopes.
    collections: BTreeMap<Collection, Option<BTreeSet<Scope>>>,
}

impl Moved {
    pub(crate) fn is_empty(&self) -> bool {
        self.collections.is_empty()
    }

    /// Notes a change.
    pub(crate) fn note(&mut self, change: &Published) {
        let scopes = match self.collections.get_mut(&change.collection) {
            Some(scopes) => scopes,
            None => {
                self.collections.entry(change.collection.clone()).or_insert(Some(BTreeSet::new()))
            }
        };
        if let (Some(scopes), Some(of_record)) = (scopes, &change.scopes) {
            scopes.extend(of_record.all().cloned());
        }
    }
}

/// The collections.
impl<'a> IntoIterator for &'a Moved {
    type Item = &'a Collection;
    type IntoIter = alloc::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.collections.keys().collect::<Vec<_>>().into_iter()
    }
}

/// Collections in any of whose scopes something may have changed.
impl FromIterator<Collection> for Moved {
    fn from_iter<I: IntoIterator<Item = Collection>>(collections: I) -> Self {
        Self { collections: collections.into_iter().map(|collection| (collection, None)).collect() }
    }
}

impl<H> Default for Followers<H> {
    fn default() -> Self {
        Self { collections: BTreeMap::new(), interests: BTreeMap::new() }
    }
}

impl<H> Default for Following<H> {
    fn default() -> Self {
        Self { whole: BTreeMap::new(), scoped: BTreeMap::new() }
    }
}

impl<H: Clone> Followers<H> {
    /// Wakes a connection whenever something changes that it is interested in, from now on. What it
    /// followed of the collection before takes no effect any more.
    pub fn follow(&mut self, interest: Interest, conn: ConnId, handle: H) {
        let Interest { collection, scopes } = interest;
        self.unfollow(&collection, conn);
        let following = self.collections.entry(collection.clone()).or_default();
        match &scopes {
            None => drop(following.whole.insert(conn, handle)),
            Some(scopes) => {
                for scope in scopes.iter() {
                    let handles = following.scoped.entry(scope.clone()).or_default();
                    handles.insert(conn, handle.clone());
                }
            }
        }
        self.interests.entry(conn).or_default().insert(collection, scopes);
    }
}

impl<H> Followers<H> {
    /// Wakes a connection no longer when this collection moves.
    pub fn unfollow(&mut self, collection: &Collection, conn: ConnId) {
        let Some(interests) = self.interests.get_mut(&conn) else { return };
        if let Some(scopes) = interests.remove(collection) {
            drop_handles(&mut self.collections, collection, scopes, conn);
        }
        if interests.is_empty() {
            self.interests.remove(&conn);
        }
    }

    /// Forgets a connection that has ended.
    pub fn leave(&mut self, conn: ConnId) {
        for (collection, scopes) in self.interests.remove(&conn).unwrap_or_default() {
            drop_handles(&mut self.collections, &collection, scopes, conn);
        }
    }

    /// Calls `wake` for those who follow what has moved; for a connection that follows several of the
    /// collections or scopes, once for each.
    pub fn wake(&self, moved: &Moved, mut wake: impl FnMut(ConnId, &H)) {
        for (collection, scopes) in &moved.collections {
            let Some(following) = self.collections.get(collection) else { continue };
            following.whole.iter().for_each(|(conn, handle)| wake(*conn, handle));
            let handles = match scopes {
                None => Vec::from_iter(following.scoped.values()),
                Some(scopes) => {
                    scopes.iter().filter_map(|scope| following.scoped.get(scope)).collect()
                }
            };
            handles.into_iter().flatten().for_each(|(conn, handle)| wake(*conn, handle));
        }
    }

    /// Checks the bookkeeping, and that only connections follow that are `alive`.
    pub(crate) fn check(&self, alive: impl Fn(ConnId) -> bool) -> Result<(), String> {
        let mut followed = BTreeSet::new();
        for (conn, interests) in &self.interests {
            for (collection, scopes) in interests {
                let scopes = match scopes {
                    None => Vec::from([None]),
                    Some(scopes) => scopes.iter().map(Some).collect(),
                };
                followed.extend(scopes.into_iter().map(|scope| (collection, scope, *conn)));
            }
        }
        let mut handles = BTreeSet::new();
        for (collection, following) in &self.collections {
            handles.extend(following.whole.keys().map(|conn| (collection, None, *conn)));
            for (scope, by) in &following.scoped {
                handles.extend(by.keys().map(|conn| (collection, Some(scope), *conn)));
            }
        }
        ensure(handles == followed, "followers, both ways")?;
        ensure(self.interests.keys().all(|conn| alive(*conn)), "only the living follow")
    }
}

fn drop_handles<H>(
    collections: &mut BTreeMap<Collection, Following<H>>,
    collection: &Collection,
    scopes: Option<ScopeSet>,
    conn: ConnId,
) {
    let Some(following) = collections.get_mut(collection) else { return };
    match scopes {
        None => drop(following.whole.remove(&conn)),
        Some(scopes) => {
            for scope in scopes.iter() {
                if let Some(handles) = following.scoped.get_mut(scope) {
                    handles.remove(&conn);
                    if handles.is_empty() {
                        following.scoped.remove(scope);
                    }
                }
            }
        }
    }
    if following.whole.is_empty() && following.scoped.is_empty() {
        collections.remove(collection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::sync::Arc;

    fn woken(followers: &Followers<()>, moved: &Moved) -> Vec<u64> {
        let mut woken = Vec::new();
        followers.wake(moved, |conn, ()| woken.push(conn.0));
        woken
    }

    fn all(moved: &[&str]) -> Moved {
        moved.iter().map(|name| Collection::new(name).unwrap()).collect()
    }

    #[test]
    fn followers_are_woken_until_they_leave() {
        let [a, b] = ["a", "b"].map(|name| Collection::new(name).unwrap());
        let mut followers = Followers::default();
        followers.follow(a.clone().into(), ConnId(2), ());
        followers.follow(a.clone().into(), ConnId(1), ());
        followers.follow(b.clone().into(), ConnId(2), ());
        assert_eq!(woken(&followers, &all(&["a", "c"])), [1, 2]);
        assert_eq!(woken(&followers, &all(&["a", "b"])), [1, 2, 2]);
        followers.unfollow(&a, ConnId(2));
        assert_eq!(woken(&followers, &all(&["a", "b"])), [1, 2]);
        followers.leave(ConnId(2));
        followers.leave(ConnId(2));
        followers.unfollow(&a, ConnId(1));
        assert!(followers.collections.is_empty() && followers.interests.is_empty());
    }

    #[test]
    fn a_change_in_a_scope_wakes_those_who_follow_it_and_the_whole() {
        let a = Collection::new("a").unwrap();
        let room = |n: u8| Scope::of(&[("room".into(), n.to_string())]).unwrap();
        let set = |rooms: &[u8]| -> Option<ScopeSet> {
            Some(Arc::new(rooms.iter().map(|n| room(*n)).collect()))
        };
        let of = |rooms: &[u8]| Interest { collection: a.clone(), scopes: set(rooms) };
        let mut followers = Followers::default();
        followers.follow(of(&[1, 2]), ConnId(12), ());
        followers.follow(of(&[3]), ConnId(3), ());
        followers.follow(a.clone().into(), ConnId(9), ());
        let moved = |rooms: &[u8]| Moved {
            collections: [(a.clone(), set(rooms).map(|set| (*set).clone()))].into(),
        };
        assert_eq!(woken(&followers, &moved(&[2])), [9, 12]);
        assert_eq!(woken(&followers, &moved(&[3, 7])), [9, 3]);
        assert_eq!(woken(&followers, &moved(&[])), [9]);
        assert_eq!(woken(&followers, &all(&["a"])), [9, 12, 12, 3]);
        followers.follow(of(&[3]), ConnId(12), ());
        followers.check(|_| true).unwrap();
        assert_eq!(woken(&followers, &moved(&[1, 2, 3])), [9, 3, 12]);
        [3, 9, 12].into_iter().for_each(|conn| followers.leave(ConnId(conn)));
        assert!(followers.collections.is_empty() && followers.interests.is_empty());
    }
}
