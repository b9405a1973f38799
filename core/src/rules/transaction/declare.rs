//! The scope keys and the indexes of collections.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;

use super::{Decision, TransactionAnswer};
use crate::protocol::name::{Collection, Seq};
use crate::rules::record::declared::{Built, Declarable, Declarations};
use crate::rules::record::{self, Head};
use crate::store::{Batch, Rows, Scan, StoreError, StoreErrorKind};

pub(super) fn declare<K: Declarable>(
    keys: &BTreeMap<Collection, Vec<K>>,
    rows: &dyn Rows,
) -> Result<Decision, StoreError> {
    let mut known = BTreeMap::<_, Declarations<K>>::new();
    let (from, to) = record::range_of(K::TAG);
    rows.scan(&from, &to, &mut |key, row| {
        let collection = record::name_in(key, |name| Collection::new(name).ok())?;
        known.insert(collection, Declarations::from_row(row)?);
        Ok(Scan::Next)
    })?;
    for collection in keys.keys() {
        known.entry(collection.clone()).or_default();
    }
    let mut batch = Batch::default();
    for (collection, mut declared) in known {
        let keys = keys.get(&collection).map_or(&[][..], Vec::as_slice);
        if keys.len() > K::MOST {
            let message = format!("{collection} has more than {} {}", K::MOST, K::NAME);
            return Err(StoreError::new(StoreErrorKind::Other, message));
        }
        if !declared.declare(keys) {
            continue;
        }
        match rows.get(&record::head_key(&collection))? {
            Some(row) => {
                let mut head = Head::from_row(row)?;
                K::set_in_use(&mut head, true);
                batch.put(record::head_key(&collection), head.to_row());
            }
            // there is nothing to build
            None => declared.keys.iter_mut().for_each(|key| key.built = Built::Since(Seq(0))),
        }
        declared.put(&collection, &mut batch);
    }
    Ok(Decision { batch, answer: TransactionAnswer::Begun, published: Vec::new() })
}
