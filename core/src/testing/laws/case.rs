//! Generated conflicts: drawing, display and minimisation.

use core::cmp::Reverse;
use core::fmt;

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use fastrand::Rng;

use crate::protocol::document::Document;
use crate::protocol::name::{Collection, RecordId};
use crate::protocol::time::Timestamp;
use crate::rules::conflict::{Conflict, Resolver, ResolverFailure};

/// The default values of fields: of every kind, some equal as numbers or as sets but not as texts,
/// some too large for common types.
pub(super) const VALUES: [&str; 17] = [
    "0",
    "1",
    "-2",
    "1.0",
    "0.5",
    "18446744073709551616",
    "1e999",
    "null",
    "true",
    r#""""#,
    r#""x""#,
    "[]",
    r#"["x"]"#,
    r#"["y", "x"]"#,
    "{}",
    r#"{"x":1}"#,
    r#"{"x":2,"y":[]}"#,
];

/// The owned parts of a [`Conflict`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Case {
    /// The server's state on which the local one stands; `None` if the record is missing.
    pub base: Option<Document>,
    /// The local state.
    pub local: Option<Document>,
    /// The server's newest state.
    pub remote: Option<Document>,
    /// The time of the latest local write.
    pub local_at: Timestamp,
    /// The time of the latest remote write.
    pub remote_at: Timestamp,
    /// The fields whose time differs from `local_at`, sorted by name.
    pub local_field_at: Vec<(Box<str>, Timestamp)>,
    /// The fields whose time differs from `remote_at`, sorted by name.
    pub remote_field_at: Vec<(Box<str>, Timestamp)>,
}

impl Case {
    /// The resolver's result for this conflict, in the collection `c` and for the record `r`.
    pub(crate) fn ask(&self, resolver: &dyn Resolver) -> Option<Document> {
        self.show(|conflict| resolver.resolve(conflict))?
    }

    /// As [`ask`](Self::ask), for a resolver that may fail.
    ///
    /// # Errors
    /// When the resolver fails.
    pub(crate) fn try_ask(
        &self,
        resolver: &dyn Resolver,
    ) -> Result<Option<Document>, ResolverFailure> {
        self.show(|conflict| resolver.try_resolve(conflict)).unwrap_or(Ok(None))
    }

    fn show<T>(&self, ask: impl FnOnce(&Conflict<'_>) -> T) -> Option<T> {
        let collection = Collection::new("c").ok()?;
        let record_id = RecordId::new("r").ok()?;
        Some(ask(&Conflict {
            collection: &collection,
            record_id: &record_id,
            base: self.base.as_ref(),
            local: self.local.as_ref(),
            remote: self.remote.as_ref(),
            local_at: self.local_at,
            remote_at: self.remote_at,
            local_field_at: &self.local_field_at,
            remote_field_at: &self.remote_field_at,
        }))
    }

    /// The conflict as the other side sees it.
    #[must_use]
    pub(crate) fn mirrored(&self) -> Self {
        Self {
            base: self.base.clone(),
            local: self.remote.clone(),
            remote: self.local.clone(),
            local_at: self.remote_at,
            remote_at: self.local_at,
            local_field_at: self.remote_field_at.clone(),
            remote_field_at: self.local_field_at.clone(),
        }
    }

    /// Returns `true` if a local and a remote write may have the same time.
    pub(super) fn is_tied(&self) -> bool {
        let of = |at: Timestamp, fields: &[(Box<str>, Timestamp)]| {
            let times = fields.iter().map(|(_, at)| *at).chain([at]);
            times.collect::<BTreeSet<_>>()
        };
        let local = of(self.local_at, &self.local_field_at);
        !local.is_disjoint(&of(self.remote_at, &self.remote_field_at))
    }

    /// The names of all fields in any of the states.
    pub(super) fn names(&self) -> BTreeSet<&str> {
        self.states().into_iter().flatten().flat_map(|state| state.iter().map(|(n, _)| n)).collect()
    }

    pub(super) fn draw(draw: &mut Rng, fields: &[(&str, Vec<&str>)]) -> Self {
        let mut states: [Vec<(&str, &str)>; 3] = Default::default();
        let mut sorted: Vec<_> = fields.iter().collect();
        sorted.sort_by_key(|(name, _)| *name);
        sorted.dedup_by_key(|(name, _)| *name);
        for (name, values) in sorted {
            for (state, value) in states.iter_mut().zip(draw_values(draw, values)) {
                state.extend(value.map(|value| (*name, value)));
            }
        }
        let mut state = |i: usize, missing: u8| {
            (draw.u8(..missing) > 0).then(|| Document::of_sorted(&states[i]))
        };
        let (base, local, remote) = (state(0, 6), state(1, 8), state(2, 8));
        Self {
            base,
            local,
            remote,
            local_at: Timestamp(draw.i64(0..4)),
            remote_at: Timestamp(draw.i64(0..4)),
            local_field_at: draw_times(draw, fields),
            remote_field_at: draw_times(draw, fields),
        }
    }

    /// All conflicts that are one step simpler, the largest steps first.
    pub(super) fn simpler(&self) -> Vec<Self> {
        let mut all = Vec::new();
        for i in 0..3 {
            all.push(self.with(i, None));
            all.push(self.with(i, Some(Document::empty())));
        }
        all.push(Self { local_field_at: Vec::new(), ..self.clone() });
        all.push(Self { remote_field_at: Vec::new(), ..self.clone() });
        for name in self.names() {
            all.push(self.with_field(name, [None; 3]));
            let texts = self.states().map(|state| state.and_then(|state| state.text(name)));
            for i in 0..3 {
                for text in [None, Some("0"), Some("1"), texts[0], texts[1], texts[2]] {
                    let mut changed = texts;
                    changed[i] = text;
                    all.push(self.with_field(name, changed));
                }
            }
        }
        for at in [0, 1] {
            all.push(Self { local_at: Timestamp(at), ..self.clone() });
            all.push(Self { remote_at: Timestamp(at), ..self.clone() });
        }
        all.retain(|case| case.weight() < self.weight());
        all.sort_by_key(|case| (case.weight(), Reverse(case.local.is_some())));
        all
    }

    /// The size that minimisation reduces: fields first, then times, then the length of values.
    fn weight(&self) -> (usize, usize, usize, i64) {
        let states = self.states();
        let fields = states.iter().flatten().map(|state| state.len() + 1).sum();
        let bytes = states.iter().flatten().map(|state| state.size()).sum();
        let digits =
            states.iter().flatten().flat_map(|s| s.iter()).filter(|(_, text)| *text != "0").count();
        let times = self.local_field_at.len() + self.remote_field_at.len();
        (fields, times, bytes, self.local_at.0 + self.remote_at.0 + digits as i64)
    }

    fn states(&self) -> [Option<&Document>; 3] {
        [self.base.as_ref(), self.local.as_ref(), self.remote.as_ref()]
    }

    fn with(&self, i: usize, state: Option<Document>) -> Self {
        let mut case = self.clone();
        *[&mut case.base, &mut case.local, &mut case.remote][i] = state;
        case
    }

    /// The conflict with these texts of a field in the existing states.
    fn with_field(&self, name: &str, texts: [Option<&str>; 3]) -> Self {
        let mut case = self.clone();
        let states = [&mut case.base, &mut case.local, &mut case.remote];
        for (state, text) in states.into_iter().zip(texts) {
            let Some(document) = state else { continue };
            let mut fields: Vec<_> = document.iter().filter(|(n, _)| *n != name).collect();
            fields.extend(text.map(|text| (name, text)));
            fields.sort_unstable();
            *state = Some(Document::of_sorted(&fields));
        }
        if texts == [None; 3] {
            case.local_field_at.retain(|(n, _)| **n != *name);
            case.remote_field_at.retain(|(n, _)| **n != *name);
        }
        case
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [base, local, remote] = self.states().map(text);
        writeln!(f, "  base    {base}")?;
        write!(f, "  local   {local}, written at {}", self.local_at.0)?;
        show_times(f, &self.local_field_at)?;
        write!(f, "\n  remote  {remote}, written at {}", self.remote_at.0)?;
        show_times(f, &self.remote_field_at)
    }
}

/// A state in words.
pub(super) fn text(state: Option<&Document>) -> String {
    state.map_or_else(|| "no record".to_owned(), ToString::to_string)
}

fn show_times(f: &mut fmt::Formatter<'_>, times: &[(Box<str>, Timestamp)]) -> fmt::Result {
    times.iter().try_for_each(|(name, at)| write!(f, ", {name:?} at {}", at.0))
}

/// One field in base, local and remote: often untouched by a side, seldom changed alike.
fn draw_values<'a>(draw: &mut Rng, values: &[&'a str]) -> [Option<&'a str>; 3] {
    let mut any = || match draw.usize(..values.len() + values.len() / 3 + 1) {
        i if i < values.len() => Some(values[i]),
        _ => None,
    };
    let [base, mut local, mut remote] = [any(), any(), any()];
    if draw.u8(..10) < 4 {
        local = base;
    }
    match draw.u8(..10) {
        0..4 => remote = base,
        4 => remote = local,
        _ => {}
    }
    [base, local, remote]
}

/// Times of their own for a few fields.
fn draw_times(draw: &mut Rng, fields: &[(&str, Vec<&str>)]) -> Vec<(Box<str>, Timestamp)> {
    if draw.bool() {
        return Vec::new();
    }
    let names: BTreeSet<&str> = fields.iter().map(|(name, _)| *name).collect();
    names
        .into_iter()
        .filter_map(|name| match draw.u8(..3) {
            0 => Some((name.into(), Timestamp(draw.i64(0..4)))),
            _ => None,
        })
        .collect()
}
