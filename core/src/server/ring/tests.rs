use super::*;
use alloc::vec;

use crate::rules::transaction::tests::{Store, insert, unset, update};

fn published(collection: &str, seq: u64) -> Published {
    let mut store = Store::new();
    store.plain(insert("{\"a\":1}"));
    let mut published = store.published.remove(0);
    published.collection = Collection::new(collection).unwrap();
    published.seq = Seq(seq);
    published
}

impl Rings {
    fn publish_one(&mut self, published: &Published) {
        self.publish_all(core::slice::from_ref(published));
    }
}

fn seqs(rings: &Rings, collection: &str) -> Vec<u64> {
    let collection = Collection::new(collection).unwrap();
    let Some(ring) = rings.get(&collection) else { return Vec::new() };
    (0..100).filter(|seq| ring.entry(Seq(*seq)).is_some()).collect()
}

#[test]
fn a_ring_keeps_the_newest_and_the_head() {
    let mut rings = Rings::default();
    rings.publish_one(&published("a", 1));
    let size = rings.bytes();
    let limits = RingLimits { collection_bytes: 3 * size, ..RingLimits::default() };
    let mut rings = Rings::new(limits);
    for seq in [1, 2, 3, 5, 4, 6] {
        rings.publish_one(&published("a", seq));
        rings.check().unwrap();
    }
    assert_eq!(seqs(&rings, "a"), [3, 5, 6]);
    let a = Collection::new("a").unwrap();
    assert_eq!(rings.head(&a), Seq(6));
    rings.note_head(&a, Seq(9));
    rings.note_head(&a, Seq(8));
    assert_eq!(rings.head(&a), Seq(9));
    rings.publish_one(&published("a", 9));
    assert_eq!(seqs(&rings, "a"), [3, 5, 6]);
    assert_eq!(rings.head(&Collection::new("b").unwrap()), Seq(0));
}

#[test]
fn a_ring_knows_what_it_has_forgotten_of_units() {
    let unit = |parts: &[(&str, u64)]| -> Vec<_> {
        let part = |(place, (collection, seq)): (usize, &(&str, u64))| Published {
            joined: place > 0,
            ..published(collection, *seq)
        };
        parts.iter().enumerate().map(part).collect()
    };
    let mut rings = Rings::default();
    rings.publish_one(&published("a", 1));
    let limits = RingLimits { collection_bytes: 2 * rings.bytes(), ..RingLimits::default() };
    let mut rings = Rings::new(limits);
    let a = Collection::new("a").unwrap();
    let up_to =
        |rings: &Rings| [0, 1, 2, 3, 4, 5].map(|at| rings.get(&a).unwrap().spanning_up_to(Seq(at)));
    rings.publish_all(&unit(&[("a", 1), ("b", 1)]));
    assert_eq!(up_to(&rings)[..2], [Some(0), Some(1)]);
    rings.publish_one(&published("a", 2));
    rings.publish_all(&unit(&[("a", 3), ("a", 4), ("b", 2)]));
    assert_eq!(up_to(&rings), [None, Some(1), Some(1), Some(4), Some(4), Some(4)]);
    rings.publish_one(&published("a", 5));
    assert_eq!(up_to(&rings), [None, None, None, Some(4), Some(4), Some(4)]);
}

#[test]
fn together_the_rings_are_bounded_and_the_quietest_goes_first() {
    let mut rings = Rings::default();
    rings.publish_one(&published("a", 1));
    let limits = RingLimits { total_bytes: 3 * rings.bytes(), ..RingLimits::default() };
    let mut rings = Rings::new(limits);
    for (collection, seq) in [("a", 1), ("b", 1), ("a", 2), ("c", 1), ("c", 2)] {
        rings.publish_one(&published(collection, seq));
        rings.check().unwrap();
    }
    assert_eq!(["a", "b", "c"].map(|c| seqs(&rings, c)), [vec![], vec![], vec![1, 2]]);
    assert_eq!(rings.head(&Collection::new("a").unwrap()), Seq(2));
    rings.publish_one(&published("a", 3));
    assert_eq!(seqs(&rings, "a"), [3]);
}

#[test]
fn level_one_frames_are_kept_while_they_are_asked_for() {
    let a = Collection::new("a").unwrap();
    let (mut rings, mut seq) = (Rings::default(), 0);
    let mut publish = |rings: &mut Rings| {
        seq += 1;
        rings.publish_one(&published("a", seq));
        rings.check().unwrap();
        let entry = rings.get(&a).unwrap().entry(Seq(seq)).unwrap();
        assert_eq!(entry.frame(Level::Plain), to_plain(&entry.frame));
        entry.plain.is_some()
    };
    assert!(!publish(&mut rings));
    assert!(!publish(&mut rings), "a look at a frame alone keeps none");
    rings.get(&a).unwrap().ask_plain();
    assert!((0..PLAIN_KEPT).all(|_| publish(&mut rings)));
    assert!(!publish(&mut rings));
    rings.get(&a).unwrap().ask_plain();
    assert!(publish(&mut rings.clone()) && publish(&mut rings));
}

fn entries(limits: RingLimits, keeps_plain: bool) -> [Entry; 3] {
    let mut store = Store::new();
    store.plain(insert("{\"a\":1}"));
    store.plain(update("{\"b\":2}"));
    store.plain(unset("{}", &["a"]));
    [0, 1, 2].map(|i| Entry::new(&store.published[i], Group::default(), &limits, keeps_plain))
}

#[test]
fn all_that_an_entry_holds_is_counted() {
    let held = |entry: &Entry| entry.size() - size_of::<Entry>();
    for entry in entries(RingLimits::default(), false) {
        assert_eq!(held(&entry), entry.frame(Level::Resumable).len());
    }
    for entry in entries(RingLimits::default(), true) {
        let frames = [Level::Plain, Level::Resumable].map(|level| entry.frame(level).len());
        assert_eq!(held(&entry), frames[0] + frames[1]);
    }
    let [bare, ..] = entries(RingLimits::default(), false);
    let documents = RingLimits { documents: true, ..RingLimits::default() };
    let [with_document, ..] = entries(documents, false);
    let document = with_document.document.as_ref().unwrap().size();
    assert_eq!(held(&with_document), held(&bare) + document);
    assert!(with_document.can_be_judged() && !bare.can_be_judged());
}

#[test]
fn level_one_is_told_no_seq_and_whole_records_if_it_is_to_be() {
    let plain = |limits, keeps_plain| {
        entries(limits, keeps_plain).map(|entry| {
            let frame = entry.frame(Level::Plain);
            String::from_utf8(frame.to_vec()).unwrap().replace(r#","timestamp":"#, "|")
        })
    };
    let holds = |frames: [String; 3], data: [&str; 3]| {
        for (frame, data) in frames.iter().zip(data) {
            assert!(frame.contains(&alloc::format!("\"data\":{data}|")), "{frame}");
            assert!(!frame.contains("\"seq\""), "{frame}");
        }
    };
    for keeps_plain in [false, true] {
        let fields = plain(RingLimits::default(), keeps_plain);
        holds(fields, [r#"{"a":1}"#, r#"{"b":2}"#, r#"{"a":null}"#]);
        let whole = RingLimits { plain_whole: true, ..RingLimits::default() };
        holds(plain(whole, keeps_plain), [r#"{"a":1}"#, r#"{"a":1,"b":2}"#, r#"{"b":2}"#]);
    }
}

#[test]
fn what_is_known_of_quiet_scopes_counts_to_the_limit_of_a_ring() {
    let limits = RingLimits { collection_bytes: 600, ..RingLimits::default() };
    let mut rings = Rings::new(limits);
    for seq in 1..=20 {
        let room = |n: u64| Scope::new(&"room".parse().unwrap(), &n.to_be_bytes());
        let after = (0..seq % 5).map(|n| room(10 * seq + n)).collect();
        let scopes = ScopeChange { before: Vec::new(), after, prev: None, entering: None };
        rings.publish_one(&Published { scopes: Some(scopes.into()), ..published("a", seq) });
        rings.check().unwrap();
    }
}
