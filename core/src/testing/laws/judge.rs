//! The checks of the laws in one conflict, and the messages about breaches.

use alloc::format;
use alloc::string::{String, ToString};

use super::case::{Case, text};
use super::{Law, Panics};
use crate::protocol::document::Document;
use crate::rules::conflict::Resolver;

/// The breach of one law by a resolver's decision of a conflict, if there is one.
pub(super) fn breach(
    law: Law,
    case: &Case,
    resolver: &dyn Resolver,
    computed: &dyn Fn(&str) -> bool,
    panics: Panics,
) -> Option<String> {
    match law {
        Law::Total if panics(&mut || drop(case.ask(resolver))) => Some("it panics".to_string()),
        Law::Total => case.try_ask(resolver).err().map(|failure| format!("it fails: {failure}")),
        Law::Deterministic => differs(case, resolver),
        Law::KeepsRecord => {
            let held = case.local.is_some() && case.remote.is_some();
            let deleted = held && case.ask(resolver).is_none();
            deleted.then(|| "it was deleted by the resolver alone".to_string())
        }
        Law::StaysDeleted => {
            let gone = case.local.is_none() && case.remote.is_none();
            let back = gone && case.ask(resolver).is_some();
            back.then(|| "it was brought back by the resolver alone".to_string())
        }
        Law::KeepsOneSided => fields(case, resolver, computed, &one_sided),
        Law::KeepsAgreed => fields(case, resolver, computed, &agreed),
        Law::Idempotent => wavers(case, resolver),
        Law::Symmetric => takes_sides(case, resolver),
    }
}

fn differs(case: &Case, resolver: &dyn Resolver) -> Option<String> {
    let first = case.ask(resolver);
    let second = case.ask(resolver);
    let _ = case.mirrored().ask(resolver);
    let third = case.ask(resolver);
    let other = if second == first { third } else { second };
    (other != first).then(|| {
        format!("asked twice, it said {} and {}", text(first.as_ref()), text(other.as_ref()))
    })
}

/// A rule: from a field's texts in base, local and remote, the required text and the reason.
type Rule<'r> = &'r dyn for<'a> Fn([Option<&'a str>; 3]) -> Option<(Option<&'a str>, &'static str)>;

/// The first field of the result of two edits that breaks a rule.
fn fields(
    case: &Case,
    resolver: &dyn Resolver,
    computed: &dyn Fn(&str) -> bool,
    rule: Rule<'_>,
) -> Option<String> {
    let (local, remote) = (case.local.as_ref()?, case.remote.as_ref()?);
    let result = case.ask(resolver)?;
    let of = |state: &Document, name: &str| state.text(name).map(ToString::to_string);
    let mut names = case.names();
    names.extend(result.iter().map(|(name, _)| name));
    names.into_iter().filter(|name| !computed(name)).find_map(|name| {
        let base = case.base.as_ref().and_then(|base| base.text(name));
        let (expected, why) = rule([base, local.text(name), remote.text(name)])?;
        let said = of(&result, name);
        let now = expected.map_or_else(|| "removed".to_string(), |text| format!("to {text}"));
        let why = why.replace("{}", &now);
        (said.as_deref() != expected).then(|| format!("the field {name:?} was {why}"))
    })
}

fn one_sided([base, local, remote]: [Option<&str>; 3]) -> Option<(Option<&str>, &'static str)> {
    match (base == local, base == remote) {
        (true, true) if base.is_none() => Some((None, "in neither state")),
        (true, true) => Some((base, "changed by nobody")),
        (false, true) => Some((local, "changed here alone, {}")),
        (true, false) => Some((remote, "changed at the server alone, {}")),
        (false, false) => None,
    }
}

fn agreed([base, local, remote]: [Option<&str>; 3]) -> Option<(Option<&str>, &'static str)> {
    (local == remote && base != local).then_some((local, "changed by both sides, {}"))
}

fn wavers(case: &Case, resolver: &dyn Resolver) -> Option<String> {
    let result = case.ask(resolver);
    let again = Case { base: case.remote.clone(), local: result.clone(), ..case.clone() };
    let second = again.ask(resolver);
    (second != result).then(|| {
        format!("with the result as the local state, it then said {}", text(second.as_ref()))
    })
}

fn takes_sides(case: &Case, resolver: &dyn Resolver) -> Option<String> {
    if case.is_tied() {
        return None;
    }
    let (here, there) = (case.ask(resolver), case.mirrored().ask(resolver));
    (here != there).then(|| {
        let there = text(there.as_ref());
        format!("whoever has the two states the other way round comes to {there}")
    })
}
