//! Alternatives: a query whose condition has an `or` or a list of values is several queries, of which an
//! index may serve each.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::definition::Query;
use super::index::{Index, Plan};
use super::predicate::{Node, Predicate};
use super::walk::{Explanation, IndexRows, Load, Visit, Walk};
use crate::store::{Scan, StoreError};

/// A query, or one of its alternatives, with the index that it is carried out by.
pub(crate) struct Branch {
    pub(crate) query: Query,
    /// The place of the index among those that there are.
    pub(crate) index: usize,
    pub(crate) plan: Plan,
}

impl Branch {
    /// The best way to carry a query out by these indexes: as a whole, or in parts, each for one of its
    /// alternatives. A record may be in several parts, and those of one are in the query's order if its plan
    /// has one. `None` if it is better to read all records.
    pub(crate) fn choose(query: &Query, indexes: &[&Index]) -> Option<Vec<Self>> {
        let of = |query: Query| {
            let (index, plan) = Plan::choose(&query, indexes.iter().copied())?;
            Some(Self { query, index, plan })
        };
        let whole = of(query.clone()).map(|branch| Vec::from([branch]));
        let parts = query.predicate.alternatives().into_iter().filter_map(|predicates| {
            let query = |predicate| Query { predicate, ..query.clone() };
            let parts = predicates.into_iter().map(|predicate| of(query(predicate)));
            // to read everything in order for each part is worse than doing so once
            parts.map(|part| part.filter(|part| part.plan.finds())).collect::<Option<Vec<_>>>()
        });
        let rank = |branches: &Vec<Self>| {
            branches.iter().map(|branch| branch.plan.rank(&branch.query)).min()
        };
        whole.into_iter().chain(parts).reduce(
            |best, other| {
                if rank(&other) > rank(&best) { other } else { best }
            },
        )
    }
}

/// Shows the records that a query finds by indexes, each once and with its place in the order, until
/// `visit` ends it. Where they come in order, no more are read than the query can return.
pub(crate) fn walk(
    query: &Query,
    branches: &[(IndexRows<'_>, &Branch)],
    load: &Load<'_>,
    visit: &mut Visit<'_>,
) -> Result<Explanation, StoreError> {
    let most = query.limit.map_or(usize::MAX, |limit| limit.saturating_add(query.offset));
    let (mut seen, mut explanation, mut ended) =
        (BTreeSet::new(), Explanation::default(), Scan::Next);
    for (rows, branch) in branches {
        if ended == Scan::Stop {
            break;
        }
        let (mut count, plan) = (0, &branch.plan);
        let mut walk = Walk::new(*rows, plan, &branch.query, load);
        walk.each(&mut |key, record| {
            count += 1;
            if branches.len() == 1 || seen.insert(record.id.clone()) {
                ended = visit(key, record);
            }
            if plan.is_ordered() && count >= most { Scan::Stop } else { ended }
        })?;
        explanation.add(&walk);
    }
    Ok(explanation)
}

impl Predicate {
    /// For each `or` and each list of values that all documents have to meet: the conditions of which a
    /// document meets one at least if it meets the whole, and none otherwise.
    fn alternatives(&self) -> Vec<Vec<Self>> {
        let conjuncts = self.node.conjunct_nodes();
        let of_one = |(at, node): (usize, &&Node)| {
            let alternatives = node.alternatives()?;
            let rest: Vec<_> = conjuncts
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != at)
                .map(|(_, node)| (*node).clone())
                .collect();
            let joined = |alternative| Self::of_all(alternative, rest.clone());
            Some(alternatives.into_iter().map(joined).collect())
        };
        conjuncts.iter().enumerate().filter_map(of_one).collect()
    }
}
