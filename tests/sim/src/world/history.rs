//! The server's commits, change by change, with which every replica's states are compared.

use std::collections::BTreeMap;

use synclayer_core::rules::Published;
use synclayer_core::{
    ClientId, Collection, Document, Epoch, MutationNumber, RecordId, Seq, Timestamp, WriteKind,
};

use super::link::Owner;

/// A record of a collection.
pub type Place = (Collection, RecordId);

/// One committed change with the states around it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Committed {
    /// The record.
    pub place: Place,
    /// Its seq.
    pub seq: Seq,
    /// The kind of the write.
    pub kind: WriteKind,
    /// When it was made, as the server tells it.
    pub timestamp: Option<Timestamp>,
    /// The fields of it that were written at another time.
    pub at: Vec<(Box<str>, Timestamp)>,
    /// The record before it.
    pub before: Option<Document>,
    /// The record after it.
    pub after: Option<Document>,
    /// The device of the write, if it is one of the world's.
    pub owner: Option<Owner>,
    /// The client that numbered the write, and its number; `None` at level 1.
    pub numbered: Option<(ClientId, MutationNumber)>,
    /// `true` if a write of this client with this number, or a larger one, was applied before.
    pub repeated: bool,
    /// The device that wrote the contested field last before it, whosever value it put there.
    pub before_by: Option<Owner>,
}

/// The states that the records of one history have been in, each with the seq of its change.
#[derive(Clone, Debug, Default)]
pub struct History {
    states: BTreeMap<Place, Vec<(Seq, Option<Document>)>>,
    /// The number of each client's last applied write.
    numbers: BTreeMap<ClientId, MutationNumber>,
    /// The devices that wrote the contested fields of the records last.
    writers: BTreeMap<Place, Owner>,
}

impl History {
    /// A record as it is now.
    #[must_use]
    pub fn now(&self, place: &Place) -> Option<&Document> {
        self.states.get(place)?.last()?.1.as_ref()
    }

    /// A record as it was when its collection's head was at a seq.
    #[must_use]
    pub fn at(&self, place: &Place, seq: Seq) -> Option<&Document> {
        let states = self.states.get(place)?;
        let count = states.partition_point(|(at, _)| *at <= seq);
        states.get(count.checked_sub(1)?)?.1.as_ref()
    }

    /// Returns `true` if a record was in a state when its collection's head was at a seq, or later.
    #[must_use]
    pub fn was_since(&self, place: &Place, seq: Seq, state: &Document) -> bool {
        let later = self.states.get(place).into_iter().flatten().filter(|(at, _)| *at > seq);
        self.at(place, seq) == Some(state)
            || later.into_iter().any(|(_, s)| s.as_ref() == Some(state))
    }

    /// Returns the states of a record since its collection's head was at a seq, that one excluded.
    pub fn states_since(&self, place: &Place, seq: Seq) -> impl Iterator<Item = Option<&Document>> {
        let states = self.states.get(place).into_iter().flatten();
        states.filter(move |(at, _)| *at > seq).map(|(_, state)| state.as_ref())
    }

    /// Returns the states to which the records of a collection changed behind one seq, up to another.
    pub fn changes_between(
        &self,
        collection: &Collection,
        [from, to]: [Seq; 2],
    ) -> impl Iterator<Item = (&Place, Option<&Document>)> {
        let of = self.states.iter().filter(move |(place, _)| place.0 == *collection);
        of.flat_map(move |(place, states)| {
            let between = states.iter().filter(move |(at, _)| from < *at && *at <= to);
            between.map(move |(_, state)| (place, state.as_ref()))
        })
    }

    /// The records of a collection as they were at a seq.
    #[must_use]
    pub fn all_at(&self, collection: &Collection, seq: Seq) -> BTreeMap<&RecordId, &Document> {
        let of = self.states.keys().filter(|place| place.0 == *collection);
        of.filter_map(|place| Some((&place.1, self.at(place, seq)?))).collect()
    }

    /// Returns `true` if `later` is this history with perhaps more states at its end.
    pub(super) fn leads_to(&self, later: &Self) -> bool {
        let goes_on = |(place, states): (&Place, &Vec<_>)| {
            later.states.get(place).is_some_and(|all| all.starts_with(states))
        };
        self.states.iter().all(goes_on)
    }

    /// Goes on from earlier states of a collection's records, each of which was in its state when
    /// the head was at a seq; one without a seq is not there any more.
    pub(super) fn cut(&mut self, collection: &Collection, at: impl Fn(&RecordId) -> Option<Seq>) {
        for (place, states) in &mut self.states {
            if place.0 == *collection {
                let last = at(&place.1);
                states.retain(|(seq, _)| last.is_some_and(|last| *seq <= last));
            }
        }
    }

    /// The last number of a client that was applied; 0 where there is none.
    #[must_use]
    pub fn last_number(&self, client: &ClientId) -> MutationNumber {
        self.numbers.get(client).copied().unwrap_or_default()
    }

    /// The server says which number was a client's last: a smaller one after it has forgotten the
    /// client. Says whether that is so.
    pub(super) fn forget_number(&mut self, client: &ClientId, last: MutationNumber) -> bool {
        let forgotten = last < self.last_number(client);
        if forgotten {
            self.numbers.insert(client.clone(), last);
        }
        forgotten
    }

    pub(super) fn push(
        &mut self,
        change: &Published,
        numbered: Option<(ClientId, MutationNumber)>,
        owner: Option<Owner>,
    ) -> Committed {
        let place = (change.collection.clone(), change.record_id.clone());
        let before = self.now(&place).cloned();
        let after = change.change.change.apply(before.as_ref());
        self.states.entry(place.clone()).or_default().push((change.seq, after.clone()));
        let repeated =
            numbered.as_ref().is_some_and(|(id, number)| *number <= self.last_number(id));
        if let Some((client, number)) = &numbered {
            self.numbers.insert(client.clone(), *number);
        }
        let (seq, kind) = (change.seq, change.change.change.kind);
        let (timestamp, at) = (change.change.timestamp, change.change.at.clone());
        let before_by = self.writers.get(&place).copied();
        let contested = |record: &Option<Document>| record.as_ref()?.text("hot").map(str::to_owned);
        let has_written = kind != WriteKind::Update || contested(&before) != contested(&after);
        match owner {
            Some(owner) if has_written => drop(self.writers.insert(place.clone(), owner)),
            None if has_written => drop(self.writers.remove(&place)),
            Some(_) | None => {}
        }
        Committed {
            place,
            seq,
            kind,
            timestamp,
            at,
            before,
            after,
            owner,
            numbered,
            repeated,
            before_by,
        }
    }
}

/// All histories, by the epochs that belong to them: a server that starts from a backup begins
/// another one.
#[derive(Clone, Debug, Default)]
pub struct Histories {
    of_epoch: BTreeMap<Epoch, usize>,
    all: Vec<History>,
}

impl Histories {
    /// An epoch begins, in the history that it goes on with.
    pub(super) fn begin(&mut self, epoch: Epoch, restored: Option<History>) {
        if self.all.is_empty() || restored.is_some() {
            self.all.push(restored.unwrap_or_default());
        }
        self.of_epoch.insert(epoch, self.all.len() - 1);
    }

    /// The present one.
    ///
    /// # Panics
    /// Before the first epoch.
    #[must_use]
    pub fn present(&self) -> &History {
        self.all.last().expect("an epoch has begun")
    }

    pub(super) fn present_mut(&mut self) -> &mut History {
        self.all.last_mut().expect("an epoch has begun")
    }

    /// Returns `true` if a record has ever been in one of them.
    #[must_use]
    pub fn know(&self, place: &Place) -> bool {
        self.all.iter().any(|history| history.states.contains_key(place))
    }

    /// The one that an epoch belongs to.
    #[must_use]
    pub fn of(&self, epoch: &Epoch) -> Option<&History> {
        self.all.get(*self.of_epoch.get(epoch)?)
    }
}
