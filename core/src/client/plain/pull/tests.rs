//! The pager against a model of a clumsy server whose records change while they are read.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::vec::Vec;

use proptest::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

use super::{Glimpse, Habits, Pull, Step};
use crate::protocol::time::{Mono, Timestamp};

#[derive(Clone, Copy, Debug)]
enum Order {
    Id,
    Stamp,
    StampDescending,
    Insertion,
}

/// The ways in which a server is clumsy.
#[derive(Clone, Copy, Debug)]
struct Ways {
    order: Order,
    /// The most rows that it gives, whatever it is asked for.
    cap: Option<usize>,
    limit: bool,
    offset: bool,
    since: bool,
    stamps: bool,
    /// `true` if `since` leaves out rows with this very stamp.
    exclusive: bool,
    /// Its stamps are rounded down to this.
    precision: i64,
    /// The time after its stamp at which a change can be seen.
    lag: i64,
}

#[derive(Clone, Debug)]
struct Row {
    value: u32,
    stamp: i64,
    visible_at: i64,
    place: u64,
}

#[derive(Clone, Debug)]
struct Server {
    ways: Ways,
    now: i64,
    rows: BTreeMap<u8, Row>,
    /// Changes that can't be seen yet: they show what was before.
    drawn: u64,
}

#[derive(Clone, Debug)]
enum Edit {
    Put(u8, u32),
    Delete(u8),
}

impl Server {
    fn edit(&mut self, edit: &Edit) {
        match *edit {
            Edit::Put(id, value) => {
                self.drawn += 1;
                let stamp = self.now - self.now.rem_euclid(self.ways.precision);
                let place = self.rows.get(&id).map_or(self.drawn, |row| row.place);
                let visible_at = self.now + self.ways.lag;
                self.rows.insert(id, Row { value, stamp, visible_at, place });
            }
            Edit::Delete(id) => drop(self.rows.remove(&id)),
        }
    }

    fn answer(&self, since: Option<i64>, limit: usize, offset: usize) -> Vec<(u8, Row)> {
        let mut rows: Vec<_> = self.rows.iter().map(|(id, row)| (*id, row.clone())).collect();
        rows.retain(|(_, row)| row.visible_at <= self.now);
        if let (Some(since), true) = (since, self.ways.since) {
            let exclusive = self.ways.exclusive;
            rows.retain(|(_, row)| row.stamp > since || !exclusive && row.stamp == since);
        }
        rows.sort_by_key(|(id, row)| match self.ways.order {
            Order::Id => (0, u64::from(*id)),
            Order::Stamp => (row.stamp, u64::from(*id)),
            Order::StampDescending => (-row.stamp, u64::from(*id)),
            Order::Insertion => (0, row.place),
        });
        let offset = if self.ways.offset { offset } else { 0 };
        let limit = if self.ways.limit { limit } else { usize::MAX };
        let limit = limit.min(self.ways.cap.unwrap_or(usize::MAX));
        rows.into_iter().skip(offset).take(limit).collect()
    }

    fn glimpse(&self, (id, row): &(u8, Row)) -> Glimpse {
        let whole = format!("{id} {} {}", row.value, if self.ways.stamps { row.stamp } else { 0 });
        let stamp = self.ways.stamps.then_some(Timestamp(row.stamp));
        Glimpse { id: Some(hash(*id)), whole: xxh3_64(whole.as_bytes()), stamp }
    }
}

fn hash(id: u8) -> u64 {
    xxh3_64(&[id])
}

#[derive(Default)]
struct Reader {
    known: BTreeMap<u8, u32>,
    watermark: Option<Timestamp>,
    habits: Habits,
    requests: usize,
}

impl Reader {
    /// One pull, with edits between its pages. Says why it failed.
    fn pull(
        &mut self,
        server: &mut Server,
        reconcile: bool,
        edits: &mut dyn Iterator<Item = Vec<Edit>>,
    ) -> Result<(), &'static str> {
        let mono = |server: &Server| Mono(u64::try_from(server.now).unwrap());
        let began = mono(server);
        let mut pull = match reconcile {
            true => Pull::reconcile(self.watermark, began),
            false => Pull::changes(self.watermark, began),
        };
        loop {
            self.requests += 1;
            let (since, offset) = pull.ask();
            server.now += 7;
            let rows = server.answer(since.map(|since| since.0), self.habits.limit, offset);
            let glimpses: Vec<_> = rows.iter().map(|row| server.glimpse(row)).collect();
            server.now += 7;
            for edit in edits.next().unwrap_or_default() {
                server.edit(&edit);
                server.now += 1;
            }
            self.known.extend(rows.into_iter().map(|(id, row)| (id, row.value)));
            match pull.page(&glimpses, mono(server), &mut self.habits) {
                Step::More => {}
                Step::Failed(why) => return Err(why),
                Step::Done(outcome) => {
                    self.watermark = outcome.watermark;
                    if let Some(existing) = outcome.existing {
                        self.known.retain(|id, _| existing.binary_search(&hash(*id)).is_ok());
                    }
                    return Ok(());
                }
            }
        }
    }
}

fn ways() -> impl Strategy<Value = Ways> {
    let order = prop_oneof![
        Just(Order::Id),
        Just(Order::Stamp),
        Just(Order::StampDescending),
        Just(Order::Insertion)
    ];
    let yes = || prop::bool::weighted(0.8);
    let cap = proptest::option::weighted(0.4, 10usize..20);
    let precision = prop_oneof![Just(1i64), Just(1000)];
    (order, cap, yes(), yes(), (yes(), yes(), yes()), precision, prop_oneof![Just(0i64), Just(900)])
        .prop_map(|(order, cap, limit, offset, (since, stamps, exclusive), precision, lag)| {
            // without offset, a cap hides what is behind it from everybody
            let cap = cap.filter(|_| offset);
            Ways { order, cap, limit, offset, since, stamps, exclusive, precision, lag }
        })
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let edit = prop_oneof![
        4 => (0u8..80, 0u32..5).prop_map(|(id, value)| Edit::Put(id, value)),
        1 => (0u8..80).prop_map(Edit::Delete),
    ];
    proptest::collection::vec(edit, 0..4)
}

fn server(ways: Ways, size: u8) -> Server {
    let mut server = Server { ways, now: 1_000_000, rows: BTreeMap::new(), drawn: 0 };
    for id in 0..size {
        server.edit(&Edit::Put((u16::from(id) * 37 % 80) as u8, u32::from(id)));
        server.now += 3;
    }
    server.now += 60_000;
    server
}

fn contents(server: &Server) -> BTreeMap<u8, u32> {
    server.rows.iter().map(|(id, row)| (*id, row.value)).collect()
}

proptest! {
    /// The invariant: when edits stop, the next pull knows every record as it is, and the next
    /// reconcile knows every delete.
    #[test]
    fn nothing_is_missed(
        ways in ways(),
        size in 0u8..80,
        limit in 16usize..40,
        script in proptest::collection::vec((any::<bool>(), proptest::collection::vec(edits(), 0..12)), 1..6),
    ) {
        let mut server = server(ways, size);
        let habits = Habits { limit, ..Habits::default() };
        let mut reader = Reader { habits, ..Reader::default() };
        for (reconcile, edits) in script {
            let alive_before: BTreeSet<u8> = server.rows.keys().copied().collect();
            let known_before: BTreeSet<u8> = reader.known.keys().copied().collect();
            let mut deleted = BTreeSet::new();
            let mut edits = edits.into_iter().inspect(|edits| {
                deleted.extend(edits.iter().filter_map(|edit| match edit {
                    Edit::Delete(id) => Some(*id),
                    Edit::Put(..) => None,
                }));
            });
            let _ = reader.pull(&mut server, reconcile, &mut edits);
            drop(edits);
            // no record is taken for gone that was there all the time; one whose change can't be
            // seen yet is not there for anybody
            if ways.lag == 0 && ways.stamps && ways.since {
                for id in known_before.intersection(&alive_before) {
                    let gone = deleted.contains(id) || reader.known.contains_key(id);
                    prop_assert!(gone, "{} is there", id);
                }
            }
            server.now += 20_000;
        }
        server.now += 2_000;
        let quiet = || core::iter::empty();
        prop_assert_eq!(reader.pull(&mut server, false, &mut quiet()), Ok(()));
        for (id, value) in contents(&server) {
            prop_assert_eq!(reader.known.get(&id), Some(&value), "record {}", id);
        }
        prop_assert_eq!(reader.pull(&mut server, true, &mut quiet()), Ok(()));
        prop_assert_eq!(&reader.known, &contents(&server));
    }

    /// Reading a collection that rests costs about as many requests as it has pages.
    #[test]
    fn a_resting_collection_is_read_once(ways in ways(), size in 0u8..80) {
        let mut server = server(ways, size);
        let habits = Habits { limit: 20, ..Habits::default() };
        let mut reader = Reader { habits, ..Reader::default() };
        reader.pull(&mut server, false, &mut core::iter::empty()).unwrap();
        prop_assert_eq!(&reader.known, &contents(&server));
        let page = ways.cap.unwrap_or(20).min(20);
        prop_assert!(reader.requests <= 4 + server.rows.len() / (page - 1), "{}", reader.requests);
    }
}

fn plain_ways() -> Ways {
    Ways {
        order: Order::Stamp,
        cap: None,
        limit: true,
        offset: true,
        since: true,
        stamps: true,
        exclusive: false,
        precision: 1,
        lag: 0,
    }
}

#[test]
fn an_idle_poll_is_one_request() {
    let mut server = server(plain_ways(), 70);
    let mut reader = Reader::default();
    reader.pull(&mut server, false, &mut core::iter::empty()).unwrap();
    reader.requests = 0;
    server.now += 60_000;
    server.edit(&Edit::Put(1, 99));
    server.now += 60_000;
    for _ in 0..10 {
        reader.pull(&mut server, false, &mut core::iter::empty()).unwrap();
    }
    assert_eq!((reader.requests, reader.known[&1]), (11, 99), "the first sees the overlap whole");
}

#[test]
fn a_server_that_hides_what_is_behind_a_cap_is_found_out() {
    let orders = [Order::Stamp, Order::Id, Order::Insertion];
    let limits = [(20, 20), (40, 20), (500, 25)];
    for (order, (limit, cap)) in orders.iter().flat_map(|order| limits.map(|of| (*order, of))) {
        let ways = Ways { order, cap: Some(cap), offset: false, ..plain_ways() };
        let mut server = server(ways, 60);
        let habits = Habits { limit, ..Habits::default() };
        let mut reader = Reader { habits, ..Reader::default() };
        reader.known.extend(contents(&server));
        let failed = reader.pull(&mut server, true, &mut core::iter::empty());
        assert!(failed.unwrap_err().contains("knows no offset"), "{ways:?} {limit}");
        assert_eq!(reader.known, contents(&server), "nothing is taken for gone");
    }
}

#[test]
fn an_answer_without_offset_that_is_as_long_as_the_limit_is_no_cut() {
    for order in [Order::Stamp, Order::Id, Order::Insertion, Order::StampDescending] {
        for limit in [false, true] {
            let ways = Ways { order, limit, offset: false, ..plain_ways() };
            let mut server = server(ways, 20);
            let habits = Habits { limit: 20, ..Habits::default() };
            let mut reader = Reader { habits, ..Reader::default() };
            let pulled = reader.pull(&mut server, true, &mut core::iter::empty());
            assert_eq!(pulled, Ok(()), "{ways:?}");
            assert_eq!(reader.known, contents(&server));
        }
    }
}

#[test]
fn a_record_that_comes_during_the_look_behind_is_no_cut() {
    let ways = Ways { offset: false, ..plain_ways() };
    let mut server = server(ways, 30);
    let habits = Habits { limit: 20, ..Habits::default() };
    let mut reader = Reader { habits, ..Reader::default() };
    let mut edits = (30..70u8).map(|id| Vec::from([Edit::Put(id, 1)])).take(6);
    assert_eq!(reader.pull(&mut server, false, &mut edits), Ok(()));
    assert_eq!(reader.known, contents(&server));
}

#[test]
fn a_restless_server_is_given_up_in_time() {
    let mut server = server(plain_ways(), 70);
    let habits = Habits { limit: 16, ..Habits::default() };
    let mut reader = Reader { habits, ..Reader::default() };
    let all = (0..80).map(|id| Edit::Put(id, 5)).collect::<Vec<_>>();
    let _: Result<(), _> = reader.pull(&mut server, true, &mut core::iter::repeat(all));
    assert!(reader.requests < 60, "{} requests", reader.requests);
}
