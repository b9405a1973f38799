//! Ready-made resolvers that combine both sides' changes of a field.
//!
//! ```
//! use synclayer_core::{ConflictStrategy, FieldWise};
//!
//! // Tags are united, votes are counted, of the rest the later write wins.
//! let strategy: ConflictStrategy = FieldWise::merge_arrays()
//!     .only(["tags"])
//!     .or_else(FieldWise::sum_numbers().only(["votes"]))
//!     .into();
//! ```

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cmp::Ordering;

use serde_json::value::RawValue;

use super::conflict::{Conflict, ConflictStrategy, FieldStates, Resolver, ResolverFailure};
use crate::protocol::delta::Delta;
use crate::protocol::document::Document;
use crate::protocol::limits::Limits;

/// A resolver that combines the values of each field that both sides changed, and leaves other
/// decisions to a fallback strategy.
///
/// The fallback, by default last-write-wins, decides about fields outside [`only`](Self::only),
/// values of another type than the rule expects, and deletes. A field that only one side changed is
/// never lost, and its value stays as written.
#[derive(Clone, Debug)]
pub struct FieldWise {
    rule: Rule,
    /// The field names, sorted; `None` means every field.
    only: Option<Vec<Box<str>>>,
    fallback: ConflictStrategy,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Rule {
    MergeArrays,
    SumNumbers,
    MaxValue,
    KeepLocal,
    KeepRemote,
    LastWriteWins,
    DeepMerge,
}

impl FieldWise {
    /// Unites arrays: elements that one side added are included, elements that a side removed are
    /// not.
    ///
    /// The elements come in the order of the server's array, followed by those that were added
    /// here. Elements are equal if their JSON texts are, white space aside. For repeated elements,
    /// the number of occurrences is merged: if both sides add one, one is added.
    #[must_use]
    pub fn merge_arrays() -> Self {
        Self::new(Rule::MergeArrays)
    }

    /// Adds both sides' changes: from 10 to 12 here and from 10 to 15 at the server make 17.
    ///
    /// A missing base counts as 0. The sum is exact for integers of up to 128 bits, otherwise it is
    /// one of 64-bit floats.
    #[must_use]
    pub fn sum_numbers() -> Self {
        Self::new(Rule::SumNumbers)
    }

    /// Takes the larger number.
    #[must_use]
    pub fn max_value() -> Self {
        Self::new(Rule::MaxValue)
    }

    /// Keeps the local value: this client wins the fields named by [`only`](Self::only).
    #[must_use]
    pub fn keep_local() -> Self {
        Self::new(Rule::KeepLocal)
    }

    /// Keeps the server's value: the server wins the fields named by [`only`](Self::only).
    #[must_use]
    pub fn keep_remote() -> Self {
        Self::new(Rule::KeepRemote)
    }

    /// Keeps the later write of each field, by the time at which *that field* was written. The
    /// server wins a tie. With [`only`](Self::only) and [`or_else`](Self::or_else) it does so for
    /// some fields; for all of them it is the default strategy.
    #[must_use]
    pub fn field_last_write_wins() -> Self {
        Self::new(Rule::LastWriteWins)
    }

    /// Merges nested objects field by field, at every depth.
    ///
    /// The fallback strategy sees each nested object as a record of its own, so
    /// `deep_merge().or_else(sum_numbers())` adds numbers at every depth.
    #[must_use]
    pub fn deep_merge() -> Self {
        Self::new(Rule::DeepMerge)
    }

    /// Restricts the resolver to these top-level fields.
    #[must_use]
    pub fn only<N: Into<Box<str>>>(self, fields: impl IntoIterator<Item = N>) -> Self {
        let mut fields: Vec<Box<str>> = fields.into_iter().map(Into::into).collect();
        fields.sort_unstable();
        Self { only: Some(fields), ..self }
    }

    /// Sets the fallback strategy.
    #[must_use]
    pub fn or_else(self, fallback: impl Into<ConflictStrategy>) -> Self {
        Self { fallback: fallback.into(), ..self }
    }

    fn new(rule: Rule) -> Self {
        Self { rule, only: None, fallback: ConflictStrategy::default() }
    }

    /// Returns `true` if the rule applies. Two equal changes of a number are still two changes.
    fn decides(&self, field: &FieldStates<'_>) -> bool {
        let twice = matches!(self.rule, Rule::SumNumbers)
            && field.changed_locally()
            && field.changed_remotely();
        twice || field.is_contested()
    }

    fn covers(&self, field: &str) -> bool {
        let covers = |fields: &Vec<Box<str>>| {
            fields.binary_search_by(|listed| (**listed).cmp(field)).is_ok()
        };
        self.only.as_ref().is_none_or(covers)
    }

    /// The value of a field by the rule: `None` if the rule does not apply, an inner `None` if the
    /// field is removed.
    fn combine<'a>(
        &self,
        conflict: &Conflict<'_>,
        field: &FieldStates<'a>,
    ) -> Result<Option<Option<Cow<'a, str>>>, ResolverFailure> {
        let local_is_later = || conflict.local_at(field.name) > conflict.remote_at(field.name);
        let pick = |local_wins| if local_wins { field.local } else { field.remote };
        Ok(match self.rule {
            Rule::MergeArrays => merge_arrays(field).map(Cow::from).map(Some),
            Rule::SumNumbers => sum(field).map(Cow::from).map(Some),
            Rule::MaxValue => max(field).map(Cow::from).map(Some),
            Rule::KeepLocal => Some(field.local.map(Cow::from)),
            Rule::KeepRemote => Some(field.remote.map(Cow::from)),
            Rule::LastWriteWins => Some(pick(local_is_later()).map(Cow::from)),
            Rule::DeepMerge => self.merge_objects(conflict, field)?.map(Cow::from).map(Some),
        })
    }

    fn merge_objects(
        &self,
        conflict: &Conflict<'_>,
        field: &FieldStates<'_>,
    ) -> Result<Option<String>, ResolverFailure> {
        let object = |text: Option<&str>| Document::parse(text?, &Limits::OF_ACCEPTED).ok();
        let (Some(local), Some(remote)) = (object(field.local), object(field.remote)) else {
            return Ok(None);
        };
        let base = object(field.base);
        let nested = Conflict {
            base: base.as_ref(),
            local: Some(&local),
            remote: Some(&remote),
            local_at: conflict.local_at(field.name),
            remote_at: conflict.remote_at(field.name),
            local_field_at: &[],
            remote_field_at: &[],
            ..*conflict
        };
        let everywhere = Self { only: None, ..self.clone() };
        Ok(everywhere.try_resolve(&nested)?.map(|merged| merged.to_string()))
    }
}

impl Resolver for FieldWise {
    /// Decides by last-write-wins if the fallback strategy fails.
    fn resolve(&self, conflict: &Conflict<'_>) -> Option<Document> {
        self.try_resolve(conflict).unwrap_or_else(|_| conflict.merge_later())
    }

    fn try_resolve(&self, conflict: &Conflict<'_>) -> Result<Option<Document>, ResolverFailure> {
        let Some(decided) = self.fallback.try_resolve(conflict)? else { return Ok(None) };
        if conflict.local.is_none() || conflict.remote.is_none() {
            return Ok(Some(decided));
        }
        let (mut set, mut unset) = (Vec::new(), Vec::new());
        for field in conflict.fields().filter(|f| self.decides(f) && self.covers(f.name)) {
            match self.combine(conflict, &field)? {
                Some(Some(text)) => set.push((field.name, text)),
                Some(None) => unset.push(field.name.into()),
                None => {}
            }
        }
        Ok(Some(Delta::new(Document::of_sorted(&set), unset).apply(&decided)))
    }
}

impl From<FieldWise> for ConflictStrategy {
    fn from(resolver: FieldWise) -> Self {
        Self::custom(resolver)
    }
}

fn merge_arrays(field: &FieldStates<'_>) -> Option<String> {
    let (local, remote) = (elements(field.local?)?, elements(field.remote?)?);
    let base = field.base.and_then(elements).unwrap_or_default();
    let mut left: BTreeMap<&str, usize> = counts(&base, &local, &remote)
        .into_iter()
        .map(|(key, [b, l, r])| (key, merged_count(b, l, r)))
        .collect();
    let mut merged = String::from("[");
    for (key, text) in remote.iter().chain(&local) {
        let Some(left) = left.get_mut(&**key).filter(|left| **left > 0) else { continue };
        *left -= 1;
        if merged.len() > 1 {
            merged.push(',');
        }
        merged.push_str(text);
    }
    merged.push(']');
    Some(merged)
}

type Element<'a> = (Cow<'a, str>, &'a str);

/// The elements of an array, each with its normalised text for comparison.
fn elements(text: &str) -> Option<Vec<Element<'_>>> {
    let elements: Vec<&RawValue> = serde_json::from_str(text).ok()?;
    Some(elements.into_iter().map(|raw| (compact(raw.get()), raw.get())).collect())
}

/// The number of occurrences of each element in each of the arrays.
fn counts<'a>(
    base: &'a [Element<'_>],
    local: &'a [Element<'_>],
    remote: &'a [Element<'_>],
) -> BTreeMap<&'a str, [usize; 3]> {
    let mut counts = BTreeMap::<&str, [usize; 3]>::new();
    for (side, elements) in [base, local, remote].into_iter().enumerate() {
        for (key, _) in elements {
            counts.entry(key).or_default()[side] += 1;
        }
    }
    counts
}

fn merged_count(base: usize, local: usize, remote: usize) -> usize {
    match (local.cmp(&base), remote.cmp(&base)) {
        (Ordering::Greater, Ordering::Greater) => local.max(remote),
        (Ordering::Less, Ordering::Less) => local.min(remote),
        (Ordering::Equal, _) => remote,
        (_, Ordering::Equal) => local,
        (Ordering::Greater, Ordering::Less) | (Ordering::Less, Ordering::Greater) => {
            (local + remote).saturating_sub(base)
        }
    }
}

/// The text without white space between the tokens.
fn compact(json: &str) -> Cow<'_, str> {
    let blank = |c: char| matches!(c, ' ' | '\t' | '\n' | '\r');
    if !json.contains(blank) {
        return json.into();
    }
    let (mut in_string, mut escaped) = (false, false);
    let keep = |c: &char| {
        if in_string {
            in_string = escaped || *c != '"';
            escaped = !escaped && *c == '\\';
            return true;
        }
        in_string = *c == '"';
        !blank(*c)
    };
    json.chars().filter(keep).collect::<String>().into()
}

fn sum(field: &FieldStates<'_>) -> Option<String> {
    let (local, remote) = (Number::parse(field.local?)?, Number::parse(field.remote?)?);
    let base = match field.base {
        None | Some("null") => Number::Integer(0),
        Some(text) => Number::parse(text)?,
    };
    if let (Number::Integer(b), Number::Integer(l), Number::Integer(r)) = (base, local, remote)
        && let Some(sum) = l.checked_sub(b).and_then(|change| r.checked_add(change))
    {
        return Some(sum.to_string());
    }
    let sum = local.float() + remote.float() - base.float();
    sum.is_finite().then(|| serde_json::to_string(&sum).ok())?
}

fn max<'a>(field: &FieldStates<'a>) -> Option<&'a str> {
    let (local, remote) = (field.local?, field.remote?);
    let local_is_larger = match (Number::parse(local)?, Number::parse(remote)?) {
        (Number::Integer(l), Number::Integer(r)) => l > r,
        (l, r) => l.float() > r.float(),
    };
    Some(if local_is_larger { local } else { remote })
}

/// A JSON number: an integer of up to 128 bits, or else the nearest float.
#[derive(Clone, Copy)]
enum Number {
    Integer(i128),
    Float(f64),
}

impl Number {
    fn parse(text: &str) -> Option<Self> {
        if !text.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
            return None;
        }
        match text.parse() {
            Ok(integer) => Some(Self::Integer(integer)),
            Err(_) => text.parse().ok().filter(|float: &f64| float.is_finite()).map(Self::Float),
        }
    }

    fn float(self) -> f64 {
        match self {
            Self::Integer(integer) => integer as f64,
            Self::Float(float) => float,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::conflict::tests::{Case, cases, check_laws};
    use super::*;
    use crate::protocol::time::Timestamp;
    use alloc::format;
    use proptest::prelude::*;

    fn rules() -> [FieldWise; 7] {
        [
            FieldWise::merge_arrays(),
            FieldWise::sum_numbers(),
            FieldWise::max_value(),
            FieldWise::keep_local(),
            FieldWise::keep_remote(),
            FieldWise::field_last_write_wins(),
            FieldWise::deep_merge(),
        ]
    }

    /// Documents with values for every rule, often with fields in common.
    fn documents() -> impl Strategy<Value = Document> {
        let number = prop_oneof![
            (-3..4i32).prop_map(|n| n.to_string()),
            Just("0.5".into()),
            Just("1e999".into()),
            Just(i128::MAX.to_string()),
            Just("99999999999999999999999999999999999999999999".into()),
        ];
        let array = proptest::collection::vec("[xyz]|( [12] )", 0..4)
            .prop_map(|items| format!("[{}]", items.join(",").replace(['x', 'y', 'z'], "\"q\"")));
        let leaf = prop_oneof![number, array, Just("null".to_string())];
        let value = leaf.prop_recursive(2, 12, 3, |inner| {
            proptest::collection::btree_map("[ab]", inner, 0..3).prop_map(|fields| {
                let fields: Vec<_> =
                    fields.into_iter().map(|(name, text)| format!("\"{name}\":{text}")).collect();
                format!("{{{}}}", fields.join(", "))
            })
        });
        proptest::collection::btree_map("[a-e]", value, 0..5)
            .prop_map(|fields| Document::of_sorted(&fields.into_iter().collect::<Vec<_>>()))
    }

    proptest! {
        /// The default strategy and the resolver of the same rule decide alike.
        #[test]
        fn last_write_wins_is_of_fields(case in cases(documents())) {
            let named = FieldWise::field_last_write_wins();
            prop_assert_eq!(case.ask(&named), case.ask(&ConflictStrategy::LastWriteWins));
        }
    }

    /// Returns `true` if both sides changed a field to the same value, which a sum counts as two
    /// changes.
    fn agree(case: &Case) -> bool {
        let (Some(local), Some(remote)) = (&case.local, &case.remote) else { return false };
        let base = case.base.as_ref();
        let mut fields = local.iter();
        fields.any(|(name, text)| {
            remote.text(name) == Some(text) && base.and_then(|base| base.text(name)) != Some(text)
        })
    }

    proptest! {
        #[test]
        fn every_rule_keeps_the_laws(case in cases(documents())) {
            for rule in rules() {
                if matches!(rule.rule, Rule::SumNumbers) && agree(&case) {
                    continue;
                }
                check_laws(&case, &rule)?;
                check_laws(&case, &rule.clone().only(["a", "c"]).or_else(ConflictStrategy::ClientWins))?;
                check_laws(&case, &FieldWise::deep_merge().or_else(rule))?;
            }
        }

        #[test]
        fn results_are_json(case in cases(documents())) {
            for rule in rules() {
                let text = case.text(&FieldWise::deep_merge().or_else(rule));
                prop_assert!(text == "deleted" || Document::parse(&text, &Limits::OF_ACCEPTED).is_ok());
            }
        }

        #[test]
        fn sums_and_arrays_do_not_depend_on_the_side(case in cases(documents())) {
            // fields with ties of their own go to the server, whichever side that is
            let case = Case { local_field_at: Vec::new(), remote_field_at: Vec::new(), ..case };
            let mirrored = Case {
                local: case.remote.clone(),
                remote: case.local.clone(),
                ..case.clone()
            };
            let sorted = |case: &Case, rule: &FieldWise| {
                case.ask(rule).map(|document| {
                    let of = |(name, text): (&str, &str)| {
                        let mut keys: Vec<_> = elements(text)
                            .map(|e| e.into_iter().map(|(key, _)| key.into_owned()).collect())
                            .unwrap_or_else(|| alloc::vec![text.to_string()]);
                        keys.sort();
                        (name.to_string(), keys)
                    };
                    document.iter().map(of).collect::<Vec<_>>()
                })
            };
            for rule in [FieldWise::merge_arrays(), FieldWise::sum_numbers()] {
                let typed = |case: &Case| case.clone().at(1, 2);
                let (one, two) = (typed(&case), mirrored.clone().at(2, 1));
                prop_assert_eq!(sorted(&one, &rule), sorted(&two, &rule));
            }
        }

        #[test]
        fn integers_add_exactly(b: i64, l: i64, r: i64) {
            let sum = i128::from(r) + i128::from(l) - i128::from(b);
            prop_assume!(b != l && b != r && l != r);
            prop_assert_eq!(one(&FieldWise::sum_numbers(), b, l, r), sum.to_string());
        }
    }

    /// The merged value of field `f`, for these values in base, local and remote.
    fn one<T: core::fmt::Display>(rule: &FieldWise, base: T, local: T, remote: T) -> String {
        let of = |value: T| format!("{{\"f\":{value}}}");
        let case = Case::new(&of(base), &of(local), &of(remote));
        case.ask(rule).unwrap().text("f").unwrap_or("removed").to_string()
    }

    #[test]
    fn arrays_are_united_and_removals_honoured() {
        let merge = |base, local, remote| one(&FieldWise::merge_arrays(), base, local, remote);
        assert_eq!(merge("[1,2,3]", "[1,3,4]", "[0,1,2,5]"), "[0,1,5,4]");
        assert_eq!(merge("[]", r#"[{"a": 1}]"#, r#"[{"a":1},2]"#), r#"[{"a":1},2]"#);
        assert_eq!(merge("[1,1]", "[1]", "[1,2]"), "[1,2]", "both removed one");
        assert_eq!(merge("[]", r#"["a b"]"#, r#"["ab"]"#), r#"["ab","a b"]"#);
        assert_eq!(merge("null", "[1]", "[2]"), "[2,1]");
        assert_eq!(merge("[]", "[1]", "7"), "7", "no array: the server wins the tie");
        assert_eq!(merge("[1,1,1]", "[1,1,1,1]", "[1]"), "[1,1]", "one added one, one removed two");
        assert_eq!(merge("[]", r#"["\" a"]"#, r#"["\"a"]"#), r#"["\"a","\" a"]"#, "two strings");
        assert_eq!(merge("[0]", "[[ 1, 2 ]]", r#"[[1,2],"\\" , "a b"]"#), r#"[[1,2],"\\","a b"]"#);
    }

    #[test]
    fn both_changes_are_added() {
        let sum = |base, local, remote| one(&FieldWise::sum_numbers(), base, local, remote);
        assert_eq!(sum("10", "12", "15"), "17");
        assert_eq!(sum("null", "1", "2"), "3");
        assert_eq!(
            sum("9007199254740993", "9007199254740995", "12345678901234567890123"),
            "12345678901234567890125"
        );
        assert_eq!(sum("0.5", "0.75", "1"), "1.25");
        assert_eq!(sum("0", "1e308", "1.5e308"), "1.5e308", "no number holds the sum");
        assert_eq!(sum("\"x\"", "1", "2"), "2", "the base is no number");
        assert_eq!(sum("1", "2", "\"x\""), "\"x\"");
        let case = Case::new("", r#"{"f":1}"#, r#"{"f":2}"#);
        assert_eq!(case.text(&FieldWise::sum_numbers()), r#"{"f":3}"#);
    }

    #[test]
    fn the_larger_number_stays_as_it_was_written() {
        let max = |base, local, remote| one(&FieldWise::max_value(), base, local, remote);
        assert_eq!(max("0", "9007199254740993", "9007199254740992"), "9007199254740993");
        assert_eq!(max("0", "1.50", "1"), "1.50");
        assert_eq!(max("0", "1", "1.0"), "1.0", "equal: the server's");
        assert_eq!(max("1", "0", "-0"), "-0", "equal integers likewise");
        assert_eq!(max("9", "3", "9"), "3", "only one side changed it");
    }

    #[test]
    fn chosen_fields_are_kept() {
        let case = Case::new(r#"{"a":0,"b":0}"#, r#"{"b":1}"#, r#"{"a":2,"b":2}"#);
        assert_eq!(case.text(&FieldWise::keep_local().only(["a"])), r#"{"b":2}"#);
        let keep_b = FieldWise::keep_remote().only(["b"]).or_else(ConflictStrategy::ClientWins);
        assert_eq!(case.text(&keep_b), r#"{"b":2}"#);
        assert_eq!(case.text(&FieldWise::keep_local()), r#"{"b":1}"#);
        let keep_local = FieldWise::keep_local().or_else(ConflictStrategy::ServerWins);
        let deleted_here = Case::new(r#"{"a":0}"#, "", r#"{"a":1}"#);
        assert_eq!(deleted_here.text(&keep_local), r#"{"a":1}"#, "deletes are left to the other");
    }

    #[test]
    fn each_field_has_a_time_of_its_own() {
        let mut case = Case::new(r#"{"a":0,"b":0}"#, r#"{"a":1,"b":1}"#, r#"{"a":2,"b":2}"#);
        case = case.at(5, 4);
        case.remote_field_at = alloc::vec![("b".into(), Timestamp(5))];
        assert_eq!(case.text(&FieldWise::field_last_write_wins()), r#"{"a":1,"b":2}"#);
        case.local_field_at = alloc::vec![("a".into(), Timestamp(3))];
        assert_eq!(case.text(&FieldWise::field_last_write_wins()), r#"{"a":2,"b":2}"#);
    }

    #[test]
    fn nested_objects_are_merged_at_every_depth() {
        let merge = |rule| {
            one(
                &rule,
                r#"{"n":10,"o":{"x":0,"y":0},"k":0.10}"#,
                r#"{"n":12,"o":{"x":1,"y":0},"k":0.10}"#,
                r#"{"n":15,"o":{"x":0,"y":2},"k":0.10,"r":1}"#,
            )
        };
        assert_eq!(merge(FieldWise::deep_merge()), r#"{"k":0.10,"n":15,"o":{"x":1,"y":2},"r":1}"#);
        assert_eq!(
            merge(FieldWise::deep_merge().only(["f"]).or_else(FieldWise::sum_numbers())),
            r#"{"k":0.10,"n":17,"o":{"x":1,"y":2},"r":1}"#
        );
    }

    #[test]
    fn what_is_nested_has_the_time_of_its_field() {
        let mut case =
            Case::new(r#"{"o":{"x":0}}"#, r#"{"o":{"x":1}}"#, r#"{"o":{"x":2}}"#).at(5, 4);
        let [local, remote] = [r#"{"o":{"x":1}}"#, r#"{"o":{"x":2}}"#];
        assert_eq!(case.text(&FieldWise::deep_merge()), local);
        case.local_field_at = alloc::vec![("o".into(), Timestamp(3))];
        assert_eq!(case.text(&FieldWise::deep_merge()), remote);
        case.remote_field_at = alloc::vec![("o".into(), Timestamp(2))];
        assert_eq!(case.text(&FieldWise::deep_merge()), local);
        // a field of the same name one floor up is another one
        let by_field = FieldWise::deep_merge().or_else(FieldWise::field_last_write_wins());
        case.local_field_at.push(("x".into(), Timestamp(1)));
        assert_eq!(case.text(&by_field), local);
        case.remote_field_at = alloc::vec![("o".into(), Timestamp(4)), ("x".into(), Timestamp(1))];
        assert_eq!(case.text(&by_field), remote);
    }

    #[test]
    fn resolvers_are_chained() {
        let case = Case::new(
            r#"{"n":1,"t":[1],"x":0}"#,
            r#"{"n":2,"t":[1,2],"x":1}"#,
            r#"{"n":3,"t":[3],"x":2}"#,
        );
        let sums = FieldWise::sum_numbers().only(["n"]).or_else(ConflictStrategy::ClientWins);
        let chain = FieldWise::merge_arrays().or_else(sums);
        assert_eq!(case.text(&chain), r#"{"n":4,"t":[3,2],"x":1}"#);
    }
}
