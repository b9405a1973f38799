//! When the fields of a record were written: here, at the server, and in what a strategy has decided.

use alloc::vec::Vec;

use crate::protocol::document::Document;
use crate::protocol::message::ServerChange;
use crate::protocol::name::WriteId;
use crate::protocol::time::Timestamp;
use crate::protocol::times::{FieldTimes, others, set_time, time_in};
use crate::protocol::write::{Change, WriteKind};
use crate::rules::conflict::Conflict;
use crate::rules::row::Entry;

/// When the latest of a record's writes was made.
pub(super) fn latest(entries: &[(WriteId, Entry)]) -> Timestamp {
    entries.iter().map(|(_, entry)| entry.written_at).max().unwrap_or_default()
}

/// When each field was last written here, where that was not at `latest`. An insert and a delete
/// are of all fields.
pub(super) fn local_times(
    base: Option<&Document>,
    entries: &[(WriteId, Entry)],
    latest: Timestamp,
) -> FieldTimes {
    let mut times = Vec::new();
    for (_, entry) in entries {
        if entry.change.kind != WriteKind::Update {
            write_whole(&mut times, base, entry.written_at);
        }
        for (name, _) in entry.change.delta.fields() {
            set_time(&mut times, name, entry.time_of(name));
        }
    }
    times.retain(|(_, at)| *at != latest);
    times
}

/// When the fields were written that a server's change may have changed. `times` is what is known
/// from changes before, `before` the server's state before this one, and `usual` the time of the
/// fields that the change names no other for.
///
/// A state that comes whole may have changed every field. One that it lacks and does not name either
/// has been gone since nobody knows when: at the latest since its last change.
pub(super) fn remote_times(
    times: &mut FieldTimes,
    before: Option<&Document>,
    news: &ServerChange,
    usual: Timestamp,
) {
    match news.change.kind {
        WriteKind::Update => {}
        WriteKind::Insert => {
            write_whole(times, before, usual);
            times.iter_mut().for_each(|(name, at)| *at = time_in(&news.at, name).unwrap_or(usual));
        }
        WriteKind::Delete => times.clear(),
    }
    for (name, _) in news.change.delta.fields() {
        set_time(times, name, time_in(&news.at, name).unwrap_or(usual));
    }
}

fn write_whole(times: &mut FieldTimes, state: Option<&Document>, at: Timestamp) {
    times.iter_mut().for_each(|time| time.1 = at);
    for (name, _) in state.into_iter().flat_map(Document::iter) {
        set_time(times, name, at);
    }
}

/// The time of what a strategy has decided, and the fields in it that have another. A field is as
/// late as whichever side it was decided from. What deletes a record or brings it back is of one
/// time: `whole`.
pub(super) fn outcome_times(
    conflict: &Conflict<'_>,
    outcome: &Change,
    whole: Timestamp,
) -> (Timestamp, FieldTimes) {
    if outcome.kind != WriteKind::Update {
        return (whole, Vec::new());
    }
    let time = |name: &str| {
        let base = conflict.base.and_then(|state| state.text(name));
        let differs = |state: Option<&Document>| state.and_then(|state| state.text(name)) != base;
        let local = differs(conflict.local).then(|| conflict.local_at(name));
        let remote = differs(conflict.remote).then(|| conflict.remote_at(name));
        local.max(remote).unwrap_or(whole)
    };
    let times: Vec<_> = outcome.delta.fields().map(|(name, _)| (name, time(name))).collect();
    let latest = times.iter().map(|(_, at)| *at).max().unwrap_or(whole);
    (latest, others(times.into_iter(), latest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::delta::Delta;
    use crate::protocol::limits::Limits;
    use crate::protocol::name::{Collection, RecordId};
    use alloc::vec;

    fn document(json: &str) -> Document {
        Document::parse(json, &Limits::default()).unwrap()
    }

    fn entry(change: Change, written_at: i64, at: &[(&str, i64)]) -> (WriteId, Entry) {
        let at = at.iter().map(|(name, at)| ((*name).into(), Timestamp(*at))).collect();
        let (collection, id) = (Collection::new("c").unwrap(), RecordId::new("r").unwrap());
        (WriteId(1), Entry { at, ..Entry::new(collection, id, change, Timestamp(written_at)) })
    }

    fn update(json: &str) -> Change {
        Change::update(Delta::new(document(json), vec![]))
    }

    fn times(of: &[(&str, i64)]) -> FieldTimes {
        of.iter().map(|(name, at)| ((*name).into(), Timestamp(*at))).collect()
    }

    #[test]
    fn a_joined_write_keeps_the_times_of_its_fields() {
        let (_, first) = entry(Change::insert(document(r#"{"x":1,"y":1,"z":1}"#)), 3, &[]);
        let unset = Change::update(Delta::new(document(r#"{"y":2}"#), vec!["z".into()]));
        let (_, second) = entry(unset, 5, &[]);
        let (_, third) = entry(update(r#"{"w":3}"#), 9, &[]);
        let joined = first.then(&second).unwrap().then(&third).unwrap();
        assert_eq!(joined.written_at, Timestamp(9));
        assert_eq!(joined.at, times(&[("x", 3), ("y", 5)]), "w is the latest, z is not there");
        let again = joined.then(&entry(Change::delete(), 10, &[]).1).unwrap();
        assert_eq!((again.written_at, again.at), (Timestamp(10), vec![]));
    }

    #[test]
    fn an_insert_is_of_all_fields() {
        let base = document(r#"{"gone":0,"x":0}"#);
        let entries = [
            entry(update(r#"{"w":1}"#), 1, &[]),
            entry(Change::insert(document(r#"{"x":1,"y":1}"#)), 4, &[("x", 3)]),
            entry(update(r#"{"z":1}"#), 9, &[]),
        ];
        let found = local_times(Some(&base), &entries, latest(&entries));
        assert_eq!(found, times(&[("gone", 4), ("w", 4), ("x", 3), ("y", 4)]));
    }

    #[test]
    fn what_the_server_shows_whole_has_the_times_that_it_names() {
        let news = |change, at: &[(&str, i64)]| ServerChange {
            change,
            seq: None,
            version: None,
            timestamp: None,
            at: times(at),
            user_id: None,
        };
        let mut known = times(&[("old", 2)]);
        let before = document(r#"{"gone":0,"x":0}"#);
        let update = news(update(r#"{"x":1,"y":1}"#), &[("x", 3)]);
        remote_times(&mut known, Some(&before), &update, Timestamp(7));
        assert_eq!(known, times(&[("old", 2), ("x", 3), ("y", 7)]));
        let whole = news(Change::insert(document(r#"{"x":2}"#)), &[("old", 4), ("x", 8)]);
        remote_times(&mut known, Some(&before), &whole, Timestamp(9));
        assert_eq!(known, times(&[("gone", 9), ("old", 4), ("x", 8), ("y", 9)]));
        remote_times(&mut known, Some(&before), &news(Change::delete(), &[]), Timestamp(9));
        assert_eq!(known, vec![]);
    }
}
