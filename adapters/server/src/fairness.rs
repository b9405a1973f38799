//! Fairness between those who use a server: whom its resources are counted to, and queues in which
//! they take turns.

use std::collections::VecDeque;
use std::net::IpAddr;

use synclayer_core::{ConnId, UserId};

/// A user, or where none is known the address that a peer is counted by. Resources are counted to
/// principals, and each has an equal part of what is scarce.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Principal {
    User(UserId),
    Address(IpAddr),
    /// A WebSocket of a program of this machine.
    Connection(ConnId),
    /// The calls of such programs, and what the server does by itself.
    Local,
}

/// Those who wait, by principal; the principals take turns.
pub(crate) struct FairQueue<T> {
    principals: VecDeque<(Principal, VecDeque<T>)>,
}

impl Principal {
    pub(crate) fn new(user: Option<&UserId>, address: Option<IpAddr>) -> Self {
        match (user, address) {
            (Some(user), _) => Self::User(user.clone()),
            (None, Some(address)) => Self::Address(address),
            (None, None) => Self::Local,
        }
    }

    /// The principal of a WebSocket whose user is not known.
    pub(crate) fn of_connection(conn: ConnId, address: Option<IpAddr>) -> Self {
        address.map_or(Self::Connection(conn), Self::Address)
    }
}

impl<T> FairQueue<T> {
    pub(crate) fn push(&mut self, principal: &Principal, one: T) {
        match self.principals.iter_mut().find(|(found, _)| found == principal) {
            Some((_, waiting)) => waiting.push_back(one),
            None => self.principals.push_back((principal.clone(), VecDeque::from([one]))),
        }
    }

    pub(crate) fn pop(&mut self) -> Option<T> {
        self.pop_if(|_, _| true)
    }

    /// The next one for which this holds; the principals whose first one has to wait are passed over.
    pub(crate) fn pop_if(&mut self, mut may: impl FnMut(&Principal, &T) -> bool) -> Option<T> {
        let next = self.principals.iter().position(|(principal, waiting)| {
            waiting.front().is_some_and(|first| may(principal, first))
        });
        let (principal, mut waiting) = self.principals.remove(next?)?;
        let one = waiting.pop_front();
        if !waiting.is_empty() {
            self.principals.push_back((principal, waiting));
        }
        one
    }

    /// Those who wait, by principal.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Principal, &VecDeque<T>)> {
        self.principals.iter().map(|(principal, waiting)| (principal, waiting))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.principals.is_empty()
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.principals.iter().map(|(_, waiting)| waiting.len()).sum()
    }
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self { principals: VecDeque::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parties_take_turns() {
        let mut queue = FairQueue::default();
        let principal = |n: u8| Principal::Address([192, 0, 2, n].into());
        for (n, one) in [(1, "a1"), (1, "a2"), (1, "a3"), (2, "b1"), (3, "c1")] {
            queue.push(&principal(n), one);
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, ["a1", "b1", "c1", "a2", "a3"]);
        assert_eq!(queue.len(), 0);
    }
}
