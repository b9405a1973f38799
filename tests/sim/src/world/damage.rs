//! Damage to the server's store, and the store that is made of what is left.

use std::collections::BTreeMap;

use bytes::Bytes;
use synclayer_core::rules::{Content, Page, PageLimits, Position, Reader, Rebuild, database};
use synclayer_core::{AllowAll, Batch, MemoryRows, ReadAnswer, ReadRequest, RecordId, Rows, Seq};

use super::server::Backup;
use super::{Collection, World};
use crate::draw::Draw;

/// The number of rows that are read at a time.
const AT_ONCE: usize = 16;

impl World {
    /// The server's store is damaged, and started again as a repair leaves it: some rows are gone,
    /// others are as they were at a backup. The clients' numbers stay, because a number that went
    /// back alone lets a possibly sent write count twice.
    ///
    /// # Panics
    /// When the rows can't be read.
    pub fn repair_server(&mut self, backup: &Backup, draw: &mut Draw<'_>) {
        self.count("server restored");
        self.count("server repaired");
        self.note(|| "the server starts from what is left of a damaged store".into());
        let present = self.backup();
        let damaged = damage(&present.rows, &backup.rows, draw);
        let identity = database(&present.rows).expect("the rows can be read");
        let mut rows = MemoryRows::default();
        let mut rebuild = Rebuild::new(identity);
        let all: Vec<_> = damaged.iter().map(|(key, row)| (key.clone(), row.clone())).collect();
        for some in all.chunks(AT_ONCE) {
            let batch = rebuild.step(some.to_vec(), &rows).expect("the rows can be read");
            rows.apply(batch);
        }
        let batch = rebuild.finish(&rows).expect("the rows can be read").batch;
        rows.apply(batch);
        self.start_from(Backup { rows, history: present.history });
        for collection in self.config.collections.clone() {
            let live = live(&self.store.rows, &collection);
            let history = self.store.histories.present_mut();
            history.cut(&collection, |id| live.get(id).copied());
        }
    }
}

/// The readable rows after the damage, some of them as they were at a backup.
fn damage(present: &MemoryRows, backup: &MemoryRows, draw: &mut Draw<'_>) -> MemoryRows {
    let mut batch = Batch::default();
    let mut keep = |key: &Bytes, row: Option<Bytes>| {
        if let Some(row) = row {
            batch.put(key.clone(), row);
        }
    };
    for (key, row) in present.iter() {
        let kind = key.first().copied().unwrap_or_default();
        let old = || backup.get(key).expect("the rows can be read");
        match draw.below(8) {
            _ if kind == b'u' => keep(key, Some(row.clone())),
            0 => {}
            1 => keep(key, old()),
            _ => keep(key, Some(row.clone())),
        }
    }
    let mut rows = MemoryRows::default();
    rows.apply(batch);
    rows
}

/// The live records of a collection, each with its seq.
fn live(rows: &MemoryRows, collection: &Collection) -> BTreeMap<RecordId, Seq> {
    let reader = Reader::from(collection.clone());
    let position = Position::Start { cursor: None, resume: None };
    let mut limits = PageLimits::default();
    (limits.records, limits.bytes) = (usize::MAX, usize::MAX);
    let request = ReadRequest::CatchUp { reader, position, limits };
    match request.run(rows, &AllowAll).expect("the rows can be read") {
        ReadAnswer::Page(Page { content: Content::Snapshot { records, .. }, .. }) => {
            let seq = |seq: Option<Seq>| seq.expect("at level 2 each record has one");
            records.into_iter().map(|record| (record.id, seq(record.seq))).collect()
        }
        ReadAnswer::Page(_)
        | ReadAnswer::Whole(_)
        | ReadAnswer::Pulled(_)
        | ReadAnswer::Found(_)
        | ReadAnswer::Refused { .. } => unreachable!("a snapshot was asked for"),
    }
}
