//! Times of the fields of a write, if they were not all written at one time.
//!
//! A write has one time, that of its latest part. The times of fields that were written earlier are
//! kept in a list of names and times, sorted by name.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::time::Timestamp;

/// Fields with their times, sorted by name.
pub(crate) type FieldTimes = Vec<(Box<str>, Timestamp)>;

/// The time of a field, if the list contains it.
#[must_use]
pub(crate) fn time_in(times: &[(Box<str>, Timestamp)], field: &str) -> Option<Timestamp> {
    let place = times.binary_search_by(|(name, _)| (**name).cmp(field)).ok()?;
    Some(times[place].1)
}

/// The fields whose time differs from `usual`. If a name occurs twice, either time may be kept.
pub(crate) fn others<'a>(
    times: impl Iterator<Item = (&'a str, Timestamp)>,
    usual: Timestamp,
) -> FieldTimes {
    let others = times.filter(|(_, at)| *at != usual);
    let mut others: FieldTimes = others.map(|(name, at)| (name.into(), at)).collect();
    others.sort_unstable();
    others.dedup_by(|later, earlier| later.0 == earlier.0);
    others
}

/// Sets the time of a field, and adds the field if the list lacks it.
pub(crate) fn set_time(times: &mut FieldTimes, field: &str, at: Timestamp) {
    match times.binary_search_by(|(name, _)| (**name).cmp(field)) {
        Ok(place) => times[place].1 = at,
        Err(place) => times.insert(place, (field.into(), at)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn a_list_names_the_fields_of_another_time() {
        let at = Timestamp;
        let mut times = others([("y", at(2)), ("z", at(9)), ("x", at(1))].into_iter(), at(9));
        assert_eq!(times, vec![("x".into(), at(1)), ("y".into(), at(2))]);
        assert_eq!(time_in(&times, "y"), Some(at(2)));
        assert_eq!(time_in(&times, "z"), None);
        set_time(&mut times, "y", at(3));
        set_time(&mut times, "a", at(4));
        assert_eq!(times, vec![("a".into(), at(4)), ("x".into(), at(1)), ("y".into(), at(3))]);
    }
}
