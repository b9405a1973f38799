use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use bytes::Bytes;
use proptest::option::of as optional;
use proptest::prelude::*;

use super::*;
use crate::protocol::delta::Delta;
use crate::protocol::document::tests::documents;
use crate::protocol::hash::{Checksum, Digest, RightsTag};
use crate::protocol::message::{Cursor, ErrorCode, Resume};
use crate::protocol::name::{
    ClientId, Collection, DatabaseId, Epoch, MutationNumber, RecordId, Seq, SessionNumber, WriteId,
};
use crate::protocol::scopes::{LoadPlace, ScopePlace};
use crate::protocol::time::Timestamp;
use crate::protocol::times::FieldTimes;
use crate::protocol::write::Change;
use crate::rules::clocks::{Clocks, Correction, Stamped};
use crate::rules::forgotten::Forgotten;
use crate::rules::scope::NamedScope;
use crate::rules::transaction::tests::{doc, id, insert, todos, update};
use crate::store::StoreError;

/// Those of some records.
const SEVEN: Figures = Figures { count: 7, checksum: Checksum(0) };

fn collections() -> impl Strategy<Value = Collection> {
    "[a-c]{1,2}".prop_map(|name| Collection::new(&name).unwrap())
}

fn ids() -> impl Strategy<Value = RecordId> {
    prop_oneof!["[a-c]{1,2}", "[^\\pC]{1,9}"]
        .prop_filter_map("an id", |name| RecordId::new(&name).ok())
}

fn epochs() -> impl Strategy<Value = Epoch> {
    "[a-z]{1,4}".prop_map(|id| Epoch::new(&id).unwrap())
}

fn times() -> impl Strategy<Value = Timestamp> {
    any::<i64>().prop_map(Timestamp)
}

fn changes() -> impl Strategy<Value = Change> {
    let unset = proptest::collection::vec("[a-e]", 0..3);
    prop_oneof![
        documents().prop_map(Change::insert),
        (documents(), unset).prop_map(|(set, unset)| {
            Change::update(Delta::new(set, unset.into_iter().map(Into::into).collect()))
        }),
        Just(Change::delete()),
    ]
}

fn entries() -> impl Strategy<Value = Entry> {
    let stamped = (any::<u64>(), any::<bool>(), times())
        .prop_map(|(run, guessed, floor)| Stamped { run, guessed, floor });
    let unit = (any::<u64>(), any::<u64>(), any::<bool>()).prop_map(|(first, end, keeps_won)| {
        Unit { first: WriteId(first), end: WriteId(end), keeps_won }
    });
    let expects = optional(documents()).prop_map(|state| Seen::of(state.as_ref()));
    let parts = (field_times(), optional(stamped), optional(unit), optional(expects));
    (collections(), ids(), changes(), times(), parts).prop_map(
        |(collection, record_id, change, written_at, (at, stamped, unit, expects))| Entry {
            at,
            stamped,
            unit,
            expects,
            ..Entry::new(collection, record_id, change, written_at)
        },
    )
}

fn field_times() -> impl Strategy<Value = FieldTimes> {
    proptest::collection::btree_map("[a-e]", times(), 0..3)
        .prop_map(|at| at.into_iter().map(|(name, at)| (name.into_boxed_str(), at)).collect())
}

fn rows() -> impl Strategy<Value = Row> {
    let deferred = (optional(documents()), any::<u64>(), field_times(), any::<[bool; 2]>())
        .prop_map(|(base, seq, at, [withheld, undated])| Deferred {
            base,
            seq: Seq(seq),
            at,
            undated,
            withheld,
        });
    let pending = (optional(documents()), times(), optional(deferred))
        .prop_map(|(view, written_at, deferred)| Pending { view, written_at, deferred });
    let numbers = (any::<u64>(), any::<u64>(), any::<u64>());
    (optional(documents()), numbers, times(), optional(pending)).prop_map(
        |(server, (seq, generation, version), updated_at, pending)| Row {
            server,
            seq: Seq(seq),
            generation,
            version,
            updated_at,
            pending,
        },
    )
}

fn streams() -> impl Strategy<Value = StreamRow> {
    let cursor = (epochs(), any::<u64>()).prop_map(|(epoch, seq)| Cursor { epoch, seq: Seq(seq) });
    let resume = prop_oneof![
        (epochs(), any::<u64>()).prop_map(|(epoch, seq)| Resume::Delta { epoch, seq: Seq(seq) }),
        (epochs(), any::<u64>(), ids()).prop_map(|(epoch, seq, after)| Resume::Snapshot {
            epoch,
            snapshot_seq: Seq(seq),
            after
        }),
    ];
    let plain = (any::<u64>(), optional(times()), optional(times())).prop_map(
        |(address, watermark, reconciled_at)| PlainMark { address, watermark, reconciled_at },
    );
    let numbers = (any::<u64>(), any::<u64>(), any::<u64>());
    let behind = any::<bool>();
    let kept = proptest::collection::btree_set(scopes(), 0..3);
    let rights = optional(
        (any::<u64>(), optional(any::<u64>()))
            .prop_map(|(rules, related)| RightsTag { rules, related }),
    );
    let above = prop_oneof![Just(0), any::<u64>()];
    let parts = (losses(), above, optional(sets()), kept, rights, optional(epochs()));
    (optional(cursor), optional(resume), behind, numbers, optional(plain), parts).prop_map(
        |(
            cursor,
            resume,
            behind,
            (generation, count, checksum),
            plain,
            (loss, above, set, kept, rights, history),
        )| StreamRow {
            cursor,
            resume,
            history,
            rights,
            behind,
            generation,
            figures: Figures { count, checksum: Checksum(checksum) },
            recount: None,
            plain,
            loss,
            forgotten_above: Seq(above),
            set,
            kept,
        },
    )
}

fn scopes() -> impl Strategy<Value = NamedScope> {
    let keys = proptest::collection::btree_set("[a-z]{1,3}", 1..3);
    (keys, any::<i32>(), any::<bool>()).prop_map(|(keys, number, each)| {
        let each = if each && keys.len() == 1 { "[]" } else { "" };
        let parts: Vec<_> = keys.iter().map(|key| format!("{key}{each}")).collect();
        let value = number.to_string();
        NamedScope::new(parts.iter().map(|part| (part.as_str(), value.as_str()))).unwrap()
    })
}

fn sets() -> impl Strategy<Value = HeldSet> {
    let load = (epochs(), any::<u64>(), any::<u64>()).prop_map(|(epoch, began, after)| {
        ScopePlace::Loading(LoadPlace { epoch, snapshot_seq: Seq(began), after: Seq(after) })
    });
    let place = prop_oneof![Just(ScopePlace::Loaded), Just(ScopePlace::Waiting), load];
    let held = proptest::collection::vec((scopes(), place), 0..4);
    (held, any::<bool>()).prop_map(|(held, uncounted)| {
        let mut set = HeldSet::default();
        held.into_iter().for_each(|(scope, place)| set.add(scope, place));
        set.uncounted = uncounted;
        set
    })
}

fn losses() -> impl Strategy<Value = Option<Loss>> {
    let decisions =
        prop_oneof![Just(None), Just(Some(LossDecision::Adopt)), Just(Some(LossDecision::Offer)),];
    optional(
        (any::<u64>(), optional(any::<u64>()), decisions)
            .prop_map(|(since, missing, decision)| Loss { since, missing, decision }),
    )
}

fn databases() -> impl Strategy<Value = Option<DatabaseId>> {
    optional("[a-z0-9-]{1,36}".prop_map(|id| DatabaseId::new(&id).unwrap()))
}

fn identities() -> impl Strategy<Value = Identity> {
    let ids = "[a-z0-9-]{1,36}".prop_map(|id| ClientId::new(&id).unwrap());
    let resumable = proptest::collection::vec(any::<u64>(), 0..3);
    let numbers = (any::<u64>(), any::<u64>(), any::<u64>());
    let parts = (databases(), databases(), clocks(), forgotten(), optional(attempts()));
    (ids, numbers, optional(any::<u64>()), resumable, parts).prop_map(
        |(client_id, numbers, digest, resumable, (known, other, clocks, forgotten, attempts))| {
            Identity {
                client_id,
                session: SessionNumber(numbers.0),
                confirmed: MutationNumber(numbers.1),
                digest: digest.map(Digest),
                next_write: WriteId(numbers.2),
                resumable,
                database: known,
                other_database: other,
                clocks,
                forgotten,
                attempts,
            }
        },
    )
}

fn attempts() -> impl Strategy<Value = Attempts> {
    (any::<u64>(), any::<u32>(), any::<u32>(), any::<bool>()).prop_map(
        |(write, breaks, refusals, given_up)| {
            let write = WriteId(write);
            Attempts { write, breaks, refusals, given_up }
        },
    )
}

fn forgotten() -> impl Strategy<Value = Forgotten> {
    let positions = (any::<u64>(), any::<u64>());
    let known = (optional(any::<u64>()), optional(any::<u64>()), positions);
    let known = known.prop_map(|(first, unsent, (from, until))| Forgotten {
        first_session: first.map(SessionNumber),
        unsent_from: unsent.map(WriteId),
        from: WriteId(from),
        until: WriteId(until),
    });
    prop_oneof![Just(Forgotten::default()), known]
}

fn clocks() -> impl Strategy<Value = Clocks> {
    let correction = (any::<i64>(), any::<u64>())
        .prop_map(|(millis, until)| Correction { millis, until: WriteId(until) });
    let runs = proptest::collection::vec((any::<u64>(), correction.clone()), 0..3);
    let known = (optional(any::<i64>()), optional(correction), runs);
    let known = known.prop_map(|(offset, unguessed, runs)| Clocks { offset, unguessed, runs });
    prop_oneof![Just(Clocks::default()), known]
}

/// A row that is truncated or has trailing bytes is not taken for another one.
fn whole<T>(row: &[u8], decode: impl Fn(Bytes) -> Result<T, StoreError>) -> bool {
    let longer = [row, &[9]].concat();
    (0..row.len()).all(|end| decode(Bytes::copy_from_slice(&row[..end])).is_err())
        && decode(longer.into()).is_err()
}

proptest! {
    #[test]
    fn records_come_back(row in rows()) {
        prop_assert!(whole(&row.encode(), Row::decode));
        prop_assert_eq!(Row::decode(row.encode().into()).unwrap(), row);
    }

    #[test]
    fn streams_come_back(stream in streams()) {
        // rows of earlier versions lack the last parts
        let has_scopes = stream.set.is_some() || !stream.kept.is_empty();
        let has_parts = stream.loss.is_some() || stream.forgotten_above > Seq(0) || has_scopes;
        let rights = stream.rights.is_some() || stream.history.is_some();
        let later = stream.plain.is_some() || has_parts || rights;
        prop_assert!(later || whole(&stream.encode(), StreamRow::decode));
        prop_assert_eq!(StreamRow::decode(stream.encode().into()).unwrap(), stream);
    }

    #[test]
    fn identities_come_back(identity in identities()) {
        let databases = [&identity.database, &identity.other_database];
        let earlier = identity.resumable.is_empty()
            && databases.iter().all(|it| it.is_none())
            && identity.clocks.is_default()
            && identity.forgotten.is_default()
            && identity.attempts.is_none();
        prop_assert!(!earlier || whole(&identity.encode(), Identity::decode));
        prop_assert_eq!(Identity::decode(identity.encode().into()).unwrap(), identity);
    }

    #[test]
    fn places_and_rejected_writes_come_back(entry in entries(), digest: u64, write: u64) {
        // rows of earlier versions lack the last parts
        let parts = (entry.stamped, entry.unit, entry.expects);
        let earlier = entry.at.is_empty() && parts == (None, None, None);
        let code = ErrorCode::Unauthorized;
        let rejected = Rejected::of(WriteId(write), entry.clone(), code, "no".into());
        let decode = |row| Rejected::decode(WriteId(write), row);
        prop_assert!(!earlier || whole(&rejected.encode(), decode));
        prop_assert_eq!(decode(rejected.encode().into()).unwrap(), rejected);
        let unit = entry.unit.map(|unit| (unit, entry.expects.is_some()));
        let (collection, record_id) = (entry.collection.clone(), entry.record_id.clone());
        let owner = Owner { collection, record_id, unit };
        prop_assert_eq!(OutboxRow::owner_of(entry.encode().into()).unwrap(), Some(owner));
        for place in [OutboxRow::Entry(entry), OutboxRow::Acked(Digest(digest))] {
            prop_assert!(!earlier || whole(&place.encode(), OutboxRow::decode));
            prop_assert_eq!(OutboxRow::decode(place.encode().into()).unwrap(), place);
        }
    }

    #[test]
    fn keys_name_what_they_were_made_of(
        slot: u32,
        collection in collections(),
        id in ids(),
        position: u64,
    ) {
        let keys = Keys::new(slot);
        let named = (collection.clone(), id.clone());
        prop_assert_eq!(keys.slot(), slot);
        prop_assert_eq!(record_of(&keys.row(&collection, &id)).unwrap(), named.clone());
        prop_assert_eq!(record_of(&keys.deferred(&collection, &id)).unwrap(), named);
        prop_assert_eq!(collection_of(&keys.stream(&collection)).unwrap(), collection.clone());
        let position = WriteId(position);
        prop_assert_eq!(write_id_of(&keys.entry(position)).unwrap(), position);
        prop_assert_eq!(write_id_of(&keys.rejected(position)).unwrap(), position);
        let pending = keys.pending(&collection, &id, position);
        prop_assert_eq!(write_id_of(&pending).unwrap(), position);
    }

    /// A range contains the keys of its own kind, collection and record, and no others.
    #[test]
    fn ranges_hold_their_own_keys_alone(
        slots in (0..3u32, 0..3u32),
        collections in (collections(), collections()),
        ids in (ids(), ids()),
        position: u64,
    ) {
        let (here, there) = (Keys::new(slots.0), Keys::new(slots.1));
        let position = WriteId(position);
        let within = |(from, to): (Vec<u8>, Vec<u8>), key: &[u8]| *from <= *key && *key < *to;
        let same_slot = slots.0 == slots.1;
        let same_collection = same_slot && collections.0 == collections.1;
        let row = there.row(&collections.1, &ids.1);
        let pending = there.pending(&collections.1, &ids.1, position);
        prop_assert_eq!(within(here.rows(&collections.0, None, None), &row), same_collection);
        prop_assert_eq!(within(here.pending_behind(None), &pending), same_slot);
        prop_assert_eq!(
            within(here.rows(&collections.0, None, Some(&ids.0)), &row),
            same_collection && ids.1 <= ids.0
        );
        prop_assert_eq!(
            within(here.rows(&collections.0, Some(&ids.0), None), &row),
            same_collection && ids.1 > ids.0
        );
        let keys = [
            there.identity(),
            there.stream(&collections.1),
            there.entry(position),
            row,
            pending,
            there.deferred(&collections.1, &ids.1),
            there.rejected(position),
        ];
        let ranges =
            [here.streams(), here.entries(WriteId(0)), here.all_deferred(), here.all_rejected()];
        let own = [1, 2, 5, 6];
        for (i, key) in keys.iter().enumerate() {
            for (range, own) in ranges.iter().zip(own) {
                prop_assert_eq!(within(range.clone(), key), same_slot && i == own);
            }
            prop_assert!(!within(Keys::users(), key));
        }
        let user = Keys::user(&ids.0);
        prop_assert!(within(Keys::users(), &user));
    }

    #[test]
    fn the_rows_of_indexes_come_back(
        number: u32,
        collection in collections(),
        id in ids(),
        state in 0..4_u8,
    ) {
        let keys = Keys::new(1);
        prop_assert_eq!(index_number_of(&keys.index(number)).unwrap(), number);
        let entry = [&keys.indexed(number)[..], b"fields", id.as_bytes()].concat();
        prop_assert_eq!(index_number_of(&entry).unwrap(), number);
        prop_assert!(entry < keys.end_of_index(number));
        let state = match state {
            0 => IndexState::Building(None),
            1 => IndexState::Building(Some(id)),
            2 => IndexState::Ready,
            _ => IndexState::Leaving,
        };
        let index = r#"done,-owner."zip.code""#.parse().unwrap();
        let row = IndexRow { collection, index, state };
        prop_assert!(whole(&row.encode(), IndexRow::decode));
        prop_assert_eq!(IndexRow::decode(row.encode().into()).unwrap(), row);
    }

    #[test]
    fn arbitrary_rows_and_keys_never_panic(bytes: Vec<u8>) {
        let row = Bytes::from(bytes);
        let _ = (Row::decode(row.clone()), StreamRow::decode(row.clone()));
        let _ = (Identity::decode(row.clone()), OutboxRow::decode(row.clone()));
        let _ = OutboxRow::owner_of(row.clone());
        let _ = Rejected::decode(WriteId(0), row.clone());
        let _ = (IndexRow::decode(row.clone()), index_number_of(&row));
        let _ = (record_of(&row), collection_of(&row), write_id_of(&row));
    }
}

#[test]
fn rows_of_before_there_were_plain_servers_are_read() {
    let stream = StreamRow { generation: 3, figures: SEVEN, ..StreamRow::default() };
    let old = stream.encode();
    assert_eq!(StreamRow::decode(old.clone().into()).unwrap(), stream);
    let plain = Some(PlainMark { address: 9, watermark: Some(Timestamp(-5)), reconciled_at: None });
    let new = StreamRow { plain, ..stream }.encode();
    assert!(new.starts_with(&old), "the new part is appended");
    assert_eq!(StreamRow::decode(new.clone().into()).unwrap().plain, plain);
    assert!(StreamRow::decode(new[..new.len() - 1].to_vec().into()).is_err());

    let mut identity = Identity {
        forgotten: Forgotten::default(),
        attempts: None,
        client_id: ClientId::new("c").unwrap(),
        session: SessionNumber(1),
        confirmed: MutationNumber(2),
        digest: None,
        next_write: WriteId(3),
        resumable: Vec::new(),
        database: None,
        other_database: None,
        clocks: Clocks::default(),
    };
    let old = identity.encode();
    assert_eq!(Identity::decode(old.clone().into()).unwrap(), identity);
    identity.resumable = alloc::vec![4, u64::MAX];
    let new = identity.encode();
    assert!(new.starts_with(&old));
    assert_eq!(Identity::decode(new.into()).unwrap(), identity);
}

#[test]
fn rows_of_before_databases_had_identities_are_read() {
    let plain = Some(PlainMark { address: 9, ..PlainMark::default() });
    for plain in [None, plain] {
        let stream = StreamRow { generation: 3, figures: SEVEN, plain, ..StreamRow::default() };
        let old = stream.encode();
        let loss = Some(Loss { since: 3, missing: Some(5), decision: None });
        let new = StreamRow { loss, ..stream.clone() };
        assert!(new.encode().starts_with(&old), "the new part is appended");
        assert_eq!(StreamRow::decode(new.encode().into()).unwrap(), new);
        assert_eq!(StreamRow::decode(old.into()).unwrap(), stream);
    }
}

/// A row that was learnt at this seq of this generation.
fn learnt(generation: u64, seq: u64) -> Row {
    Row { server: Some(doc("{\"a\":1}")), seq: Seq(seq), generation, ..Row::default() }
}

/// The same row, with writes that stand on an earlier state.
fn deferring(row: Row) -> Row {
    let deferred = Some(Deferred::new(Some(doc("{\"a\":0}")), Seq(2), Vec::new()));
    let pending = Pending { view: None, written_at: Timestamp(1), deferred };
    Row { pending: Some(pending), ..row }
}

fn entry(change: Change, written_at: i64) -> Entry {
    Entry::new(todos(), id("r"), change, Timestamp(written_at))
}

#[test]
fn pending_writes_stand_on_the_deferred_state_if_there_is_one() {
    assert_eq!(learnt(1, 1).base(), Some(&doc("{\"a\":1}")));
    assert_eq!(deferring(learnt(1, 1)).base(), Some(&doc("{\"a\":0}")));
}

#[test]
fn a_seq_of_an_earlier_generation_tells_nothing() {
    let stream = StreamRow { generation: 3, ..StreamRow::default() };
    assert_eq!(stream.learnt(Some(&learnt(3, 7))), Seq(7));
    assert_eq!(stream.learnt(Some(&learnt(2, 7))), Seq(0));
    assert_eq!(stream.learnt(None), Seq(0));
}

#[test]
fn a_state_that_was_not_learnt_now_keeps_its_generation_and_is_counted_once() {
    let (mut stream, mut row) = (StreamRow::default(), Row::default());
    stream.set_server(&id("r"), &mut row, Some(doc("{\"a\":0}")), Seq(7));
    stream.generation = 1;
    stream.set_unlearnt(&id("r"), &mut row, Some(doc("{\"a\":1}")), Seq(8));
    assert_eq!(row, learnt(0, 8));
    let mut checksum = Checksum::default();
    checksum.add(&id("r"), Seq(8), &doc("{\"a\":1}"));
    assert_eq!(stream.figures, Figures { count: 1, checksum });
}

#[test]
fn of_a_withheld_record_the_deferred_state_alone_is_known() {
    let mut stream = StreamRow { generation: 3, ..StreamRow::default() };
    // the seq of the deferred state holds in the generation in which it was learnt
    for (generation, known) in [(3, 2), (2, 0)] {
        let mut row = deferring(learnt(generation, 7));
        assert!(!row.is_withheld());
        stream.withhold(&id("r"), &mut row, Seq(9));
        assert!(row.is_withheld());
        assert_eq!((&row.server, row.seq, row.generation), (&None, Seq(9), 3));
        assert_eq!(row.deferred().unwrap().seq, Seq(known));
        stream.set_server(&id("r"), &mut row, None, Seq(10));
        assert!(!row.is_withheld(), "it is shown again");
    }
}

#[test]
fn a_record_is_missing_until_the_server_shows_it() {
    let loss = Some(Loss { since: 3, missing: Some(2), decision: None });
    let mut stream = StreamRow { generation: 3, loss, ..StreamRow::default() };
    let held = [2, 3, 4].map(|generation| stream.is_held(&learnt(generation, 7)));
    assert_eq!(held, [true, false, false]);
    assert!(!StreamRow::default().is_held(&learnt(0, 7)), "without a loss none is held");
    let figures =
        |stream: &StreamRow| (stream.loss.unwrap().missing.unwrap(), stream.figures.count);
    let (mut row, state) = (learnt(2, 7), Some(doc("{}")));
    stream.set_unlearnt(&id("r"), &mut row, state.clone(), Seq(8));
    assert_eq!(figures(&stream), (2, 0));
    stream.set_server(&id("r"), &mut row, state, Seq(8));
    assert_eq!(figures(&stream), (1, 1));
}

#[test]
fn an_insert_alone_may_have_been_sent_as_an_update() {
    let inserts = entry(insert("{\"a\":1}"), 5);
    let updates = inserts.clone().into_update();
    assert!(inserts.may_be(inserts.digest()) && inserts.may_be(updates.digest()));
    assert!(updates.may_be(updates.digest()) && !updates.may_be(inserts.digest()));
    assert!(!inserts.may_be(entry(insert("{\"a\":2}"), 5).digest()));
    let deletes = entry(Change::delete(), 5);
    assert!(!deletes.may_be(deletes.clone().into_update().digest()));
}

#[test]
fn a_merged_write_is_as_late_as_the_latest_of_both() {
    let stamped = |floor| Some(Stamped { run: 1, guessed: false, floor: Timestamp(floor) });
    let one = Entry { stamped: stamped(8), ..entry(update("{\"a\":1}"), 9) };
    // the clock was set back meanwhile
    let two = Entry { stamped: stamped(3), ..entry(update("{\"b\":1}"), 4) };
    let merged = one.then(&two).unwrap();
    assert_eq!((merged.written_at, merged.stamped), (Timestamp(9), stamped(8)));
    assert_eq!(["a", "b"].map(|name| merged.time_of(name).0), [9, 4]);
}
