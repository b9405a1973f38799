//! Laws of conflict resolvers.

mod case;
mod judge;

use core::fmt;

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use fastrand::Rng;

pub use case::Case;

use crate::protocol::document::{Document, DocumentError};
use crate::protocol::limits::Limits;
use crate::rules::conflict::Resolver;

/// A law of resolvers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Law {
    /// The resolver answers every conflict, and never [fails](Resolver::try_resolve). A panic
    /// propagates to the test, unless [`Laws::catching`] tells how to catch it.
    Total,
    /// The resolver gives equal answers to equal conflicts, whatever it was asked in between.
    Deterministic,
    /// A record that both sides have is not deleted.
    KeepsRecord,
    /// A record that both sides have deleted stays deleted.
    StaysDeleted,
    /// A field that only one side has changed or removed is kept as that side has it, and no field
    /// appears that neither side has.
    KeepsOneSided,
    /// A field that both sides changed to the same value keeps that value. A resolver that counts
    /// two equal changes as two, such as
    /// [`sum_numbers`](crate::rules::merge::FieldWise::sum_numbers), is checked
    /// [without](Laws::without) this law.
    KeepsAgreed,
    /// A result stays the same if it meets the same remote state again.
    Idempotent,
    /// Both sides get the same result. Checked only if [claimed](Laws::symmetric). Two writes of
    /// the same time are not compared, so a strategy may let the server win a tie.
    Symmetric,
}

impl Law {
    /// All laws, in the order in which they are checked.
    const ALL: [Self; 8] = [
        Self::Total,
        Self::Deterministic,
        Self::KeepsRecord,
        Self::StaysDeleted,
        Self::KeepsOneSided,
        Self::KeepsAgreed,
        Self::Idempotent,
        Self::Symmetric,
    ];
}

impl fmt::Display for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Total => "every conflict is answered",
            Self::Deterministic => "equal questions have equal answers",
            Self::KeepsRecord => "a record that both sides hold stays",
            Self::StaysDeleted => "a record that both sides deleted stays deleted",
            Self::KeepsOneSided => "a change that only one side made is kept",
            Self::KeepsAgreed => "a change that both sides made alike is kept",
            Self::Idempotent => "what was decided is not decided otherwise when asked again",
            Self::Symmetric => "both sides come to the same result",
        })
    }
}

/// A law that a resolver breaks, with a small conflict that shows it. `Display` is readable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Broken {
    /// The law.
    pub law: Law,
    /// A conflict in which the law is broken.
    pub case: Box<Case>,
    /// The breach in words.
    pub why: String,
    /// The resolver's result for the conflict. An inner `None` is a deleted record; an outer one
    /// means that there was no answer.
    pub result: Option<Option<Document>>,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let result = match &self.result {
            Some(result) => case::text(result.as_ref()),
            None => "none".to_owned(),
        };
        write!(f, "{}: {}\n{}\n  result  {result}", self.law, self.why, self.case)
    }
}

impl core::error::Error for Broken {}

/// The laws of conflict resolvers to check in your tests, and the kind of conflicts to generate. By
/// default these are every law but [`Law::Symmetric`], and 1,000 conflicts over fields `a`, `b`, `c`
/// with values of all kinds.
///
/// A resolver decides about other people's changes. [`check`](Self::check) calls it with a thousand generated
/// conflicts, and reports the first law that it breaks, with a minimised counter-example:
///
/// ```
/// use synclayer_core::testing::{Broken, Law, Laws};
/// use synclayer_core::Conflict;
///
/// // takes the side with more votes, and with it everything else that the other side changed
/// let votes = |document: Option<&str>| document.and_then(|text| text.parse().ok()).unwrap_or(0);
/// let popular = move |conflict: &Conflict<'_>| {
///     let (local, remote) = (conflict.local?, conflict.remote?);
///     let local_wins: bool = votes(local.text("votes")) > votes(remote.text("votes"));
///     Some(if local_wins { local.clone() } else { remote.clone() })
/// };
/// let broken = Laws::default().check(&popular).unwrap_err();
/// assert_eq!(broken.law, Law::KeepsOneSided);
/// assert_eq!(
///     broken.to_string(),
///     r#"a change that only one side made is kept: the field "c" was changed here alone, to 0
///   base    no record
///   local   {"c":0}, written at 0
///   remote  {}, written at 0
///   result  {}"#
/// );
///
/// // leaves what is not contested alone
/// let careful = move |conflict: &Conflict<'_>| {
///     let (local, remote) = (conflict.local?, conflict.remote?);
///     conflict.merge(votes(local.text("votes")) > votes(remote.text("votes")))
/// };
/// Laws::default().field("votes", ["0", "1", "2"]).check(&careful)?;
/// # Ok::<(), Broken>(())
/// ```
///
/// For a resolver that reads certain fields, name them: [`Laws::field`]. For one that breaks a law
/// on purpose, declare that: [`Laws::without`], [`Laws::computes`].
#[derive(Clone, Debug)]
pub struct Laws {
    laws: BTreeSet<Law>,
    computed: BTreeSet<Box<str>>,
    fields: Vec<(Box<str>, Vec<Box<str>>)>,
    cases: usize,
    seed: u64,
    panics: Panics,
}

/// The type of a function that calls its argument and returns whether it panicked.
type Panics = fn(&mut dyn FnMut()) -> bool;

impl Default for Laws {
    fn default() -> Self {
        let laws = Law::ALL.into_iter().filter(|law| *law != Law::Symmetric).collect();
        let computed = BTreeSet::new();
        let panics: Panics = |ask| {
            ask();
            false
        };
        Self { laws, computed, fields: Vec::new(), cases: 1_000, seed: 1, panics }
    }
}

impl Laws {
    /// Claims that both sides get the same result.
    #[must_use]
    pub fn symmetric(mut self) -> Self {
        self.laws.insert(Law::Symmetric);
        self
    }

    /// Declares that the resolver breaks a law on purpose, so that it is not checked.
    #[must_use]
    pub fn without(mut self, law: Law) -> Self {
        self.laws.remove(&law);
        self
    }

    /// Declares fields whose value the resolver computes. It may change, invent and remove them,
    /// whichever side touched them; that it agrees with itself is still checked.
    #[must_use]
    pub fn computes<N: Into<Box<str>>>(mut self, fields: impl IntoIterator<Item = N>) -> Self {
        self.computed.extend(fields.into_iter().map(Into::into));
        self
    }

    /// Adds a field to the conflicts, with values from these JSON texts (from texts of all kinds if
    /// there are none). The first call replaces the default fields, more calls add to it.
    ///
    /// # Panics
    /// When one of the texts is not JSON.
    #[must_use]
    pub fn field<'a>(mut self, name: &str, values: impl IntoIterator<Item = &'a str>) -> Self {
        let values: Vec<Box<str>> = values.into_iter().map(Into::into).collect();
        for value in &values {
            assert!(is_json(value), "{value} is no value in JSON");
        }
        self.fields.push((name.into(), values));
        self
    }

    /// The number of generated conflicts for each law.
    #[must_use]
    pub fn cases(self, cases: usize) -> Self {
        Self { cases, ..self }
    }

    /// The seed of the generated conflicts: the same seed gives the same conflicts.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// Reports a panic of the resolver as a breach of [`Law::Total`], with a counter-example. This
    /// crate can't catch panics without the standard library: `panics` calls a function and returns
    /// `true` if it panicked.
    ///
    /// ```
    /// use std::panic::{AssertUnwindSafe, catch_unwind};
    /// use synclayer_core::testing::{Law, Laws};
    /// use synclayer_core::Conflict;
    ///
    /// let hasty = |conflict: &Conflict<'_>| Some(conflict.local.unwrap().clone());
    /// let laws = Laws::default().catching(|ask| catch_unwind(AssertUnwindSafe(ask)).is_err());
    /// assert_eq!(laws.check(&hasty).unwrap_err().law, Law::Total);
    /// ```
    #[must_use]
    pub fn catching(self, panics: fn(&mut dyn FnMut()) -> bool) -> Self {
        Self { panics, ..self }
    }

    /// Checks the laws one after the other.
    ///
    /// # Errors
    /// With the first one that is broken.
    pub fn check(&self, resolver: &dyn Resolver) -> Result<(), Broken> {
        let mut drawn = self.drawn();
        self.laws.iter().try_for_each(|law| self.check_one(*law, resolver, &mut drawn))
    }

    /// The first law that is broken in this conflict, which is not minimised.
    pub(crate) fn breach_in(&self, case: &Case, resolver: &dyn Resolver) -> Option<Broken> {
        self.laws.iter().find_map(|law| self.breach(*law, case, resolver))
    }

    fn check_one(
        &self,
        law: Law,
        resolver: &dyn Resolver,
        drawn: &mut Drawn<'_>,
    ) -> Result<(), Broken> {
        for i in 0..self.cases {
            let case = drawn.get(i);
            if self.breach(law, case, resolver).is_some() {
                return Err(self.smallest(law, case.clone(), resolver));
            }
        }
        Ok(())
    }

    /// The breach of a law by the resolver in this conflict, if there is one.
    fn breach(&self, law: Law, case: &Case, resolver: &dyn Resolver) -> Option<Broken> {
        let computed = |field: &str| self.computed.contains(field);
        let why = judge::breach(law, case, resolver, &computed, self.panics)?;
        let result = if law == Law::Total { None } else { Some(case.ask(resolver)) };
        Some(Broken { law, case: Box::new(case.clone()), why, result })
    }

    /// Simplifies a conflict for as long as the law stays broken in it.
    fn smallest(&self, law: Law, mut case: Case, resolver: &dyn Resolver) -> Broken {
        let mut broken = self.breach(law, &case, resolver);
        while let Some(simpler) =
            case.simpler().into_iter().find_map(|simpler| self.breach(law, &simpler, resolver))
        {
            case = (*simpler.case).clone();
            broken = Some(simpler);
        }
        broken.unwrap_or_else(|| Broken {
            law,
            case: Box::new(case),
            why: "it was broken once, and not when asked again".to_string(),
            result: None,
        })
    }

    fn drawn(&self) -> Drawn<'_> {
        Drawn { draw: Rng::with_seed(self.seed), fields: self.field_values(), cases: Vec::new() }
    }

    fn field_values(&self) -> Vec<(&str, Vec<&str>)> {
        if self.fields.is_empty() {
            return ["a", "b", "c"].map(|name| (name, case::VALUES.to_vec())).to_vec();
        }
        self.fields.iter().map(|(name, values)| (&**name, texts(values))).collect()
    }
}

/// The conflicts for all laws, generated as far as the first law needed.
struct Drawn<'a> {
    draw: Rng,
    fields: Vec<(&'a str, Vec<&'a str>)>,
    cases: Vec<Case>,
}

impl Drawn<'_> {
    fn get(&mut self, i: usize) -> &Case {
        while self.cases.len() <= i {
            self.cases.push(Case::draw(&mut self.draw, &self.fields));
        }
        &self.cases[i]
    }
}

fn texts(values: &[Box<str>]) -> Vec<&str> {
    if values.is_empty() {
        return case::VALUES.to_vec();
    }
    values.iter().map(|value| &**value).collect()
}

fn is_json(text: &str) -> bool {
    let document = alloc::format!("{{\"v\":{text}}}");
    let parsed: Result<Document, DocumentError> = Document::parse(&document, &Limits::default());
    parsed.is_ok_and(|document| document.len() == 1)
}

#[cfg(test)]
mod tests;
