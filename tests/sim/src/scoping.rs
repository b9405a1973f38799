//! The part of a run's plan that is about scopes: keys of each kind, the scopes of which apps choose, and
//! fields that move records between them.

use std::collections::BTreeMap;
use std::time::Duration;

use synclayer_core::{ClientConfig, Collection, NamedScope, ScopeKey};

use crate::draw::Draw;
use crate::plan::collections;
use crate::run::Run;

/// The keys that the server declares: a field, the elements of an array, a tuple.
const KEYS: [&str; 3] = ["room", "members[]", "project+status"];

/// The scopes of which apps choose, by the parts of their keys; the last one is of no declared key.
const SCOPES: [&[(&str, &str)]; 9] = [
    &[("room", "1")],
    &[("room", "\"1\"")],
    &[("room", BARRED_ROOM)],
    &[("members[]", "\"ann\"")],
    &[("members[]", "\"bob\"")],
    &[("project", "1"), ("status", "\"open\"")],
    &[("project", "true"), ("status", "\"done\"")],
    &[("room", "true")],
    UNDECLARED,
];

/// The room that guests may be barred from.
pub(crate) const BARRED_ROOM: &str = "2.0";

const UNDECLARED: &[(&str, &str)] = &[("owner", "\"ann\"")];

/// Values of fields, and those that are in no scope.
const ROOMS: [&str; 6] = ["1", "\"1\"", "2", "1.0", "true", "[1]"];
const MEMBERS: [&str; 5] =
    [r#"["ann"]"#, r#"["ann","bob"]"#, r#"["bob","ann","bob"]"#, "[]", r#""ann""#];
const PROJECTS: [&str; 3] = ["1", "true", "2"];
const STATUSES: [&str; 3] = ["\"open\"", "\"done\"", "null"];

/// The use of scopes in a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scoping {
    /// The collections that each of the first devices holds by scopes, as bits.
    pub by_scopes: [usize; 4],
    /// The scope with which each of them starts.
    pub first: [usize; 4],
    /// The time for which an unused scope is held, in seconds.
    pub keep_seconds: usize,
    /// Rate of the changes of what apps use, in thousandths of the steps.
    pub rate: usize,
}

impl Scoping {
    /// Draws the use of scopes.
    #[must_use]
    pub fn draw(draw: &mut Draw<'_>) -> Self {
        let by_scopes = [0; 4].map(|_| [0, 1, 2, 2, 3, 3][draw.below(6)]);
        Self {
            by_scopes,
            first: [0; 4].map(|_| draw.below(SCOPES.len() - 1)),
            keep_seconds: [0, 1, 4, 300][draw.below(4)],
            rate: draw.within(10, 80),
        }
    }

    /// The scope keys of all collections.
    ///
    /// # Panics
    /// Never: they are valid.
    #[must_use]
    pub fn keys() -> BTreeMap<Collection, Vec<ScopeKey>> {
        let keys: Vec<ScopeKey> = KEYS.map(|key| key.parse().expect("a valid key")).into();
        collections().into_iter().map(|name| (name, keys.clone())).collect()
    }

    /// Configures a device to hold its collections by scopes.
    pub fn configure(&self, device: usize, config: &mut ClientConfig) {
        for (at, name) in collections().into_iter().enumerate() {
            if self.by_scopes[device] >> at & 1 == 1 {
                config.collections.retain(|whole| *whole != name);
                config.scopes.insert(name, vec![scope(self.first[device])]);
            }
        }
        config.keep_scopes_for = Duration::from_secs(self.keep_seconds as u64);
    }

    /// Returns fields that put a record into some scopes, and perhaps out of others; ever others for
    /// ever other numbers.
    #[must_use]
    pub fn fields(n: u64) -> (String, Vec<&'static str>) {
        let mut rest = usize::try_from(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40).unwrap_or(0);
        let mut take = |of: usize| {
            let taken = rest % of;
            rest /= of;
            taken
        };
        let (mut set, mut unset) = (Vec::new(), Vec::new());
        let fields: [(&'static str, &[&str]); 4] = [
            ("room", &ROOMS),
            ("members", &MEMBERS),
            ("project", &PROJECTS),
            ("status", &STATUSES),
        ];
        for (field, values) in fields {
            match take(4) {
                0 | 1 => set.push(format!("\"{field}\":{}", values[take(values.len())])),
                2 if take(2) == 0 => unset.push(field),
                _ => {}
            }
        }
        (set.join(","), unset)
    }
}

/// One of the scopes of which apps choose.
///
/// # Panics
/// When there is none at `index`.
#[must_use]
pub fn scope(index: usize) -> NamedScope {
    NamedScope::new(SCOPES[index].iter().copied()).expect("a valid scope")
}

/// Draws one of the scopes that the server has declared.
pub(crate) fn any_scope(draw: &mut Draw<'_>) -> NamedScope {
    scope(draw.below(SCOPES.len() - 1))
}

/// Fields of a record in [`popular_scope`].
pub(crate) const POPULAR_FIELDS: &str = r#""members":["ann"]"#;

/// The scope that most records are in.
pub(crate) fn popular_scope() -> NamedScope {
    scope(3)
}

/// A scope of one field as a level-1 filter, with its name.
#[must_use]
pub fn filter() -> (&'static str, NamedScope) {
    (r#"{"room":1}"#, scope(0))
}

impl Run {
    /// The app of a device uses another part of a collection.
    pub(crate) fn change_scopes(&mut self, draw: &mut Draw<'_>) {
        let device = self.device(draw);
        let names: Vec<_> = self.world.devices[device].config.scopes.keys().cloned().collect();
        let count = if draw.one_in(4) { SCOPES.len() } else { SCOPES.len() - 1 };
        let (which, scope) = (draw.below(names.len()), scope(draw.below(count)));
        let Some(name) = names.get(which) else { return };
        match draw.below(12) {
            0..=4 => self.world.use_scope(device, name, &scope, true),
            5..=8 => self.world.use_scope(device, name, &scope, false),
            9 => self.world.keep_scope(device, name, &scope, draw.below(2) == 0),
            10 => self.world.subscribe(device, name, true),
            _ => self.world.release(device, name),
        }
    }

    /// Before the end, every app uses scopes that there are.
    pub(crate) fn use_scopes_at_last(&mut self) {
        let undeclared = NamedScope::new(UNDECLARED.iter().copied()).expect("a valid scope");
        for device in 0..self.world.devices.len() {
            for (name, first) in self.world.devices[device].config.scopes.clone() {
                self.world.keep_scope(device, &name, &undeclared, false);
                self.world.use_scope(device, &name, &undeclared, false);
                first.iter().for_each(|scope| self.world.use_scope(device, &name, scope, true));
                self.world.release(device, &name);
            }
        }
    }
}
