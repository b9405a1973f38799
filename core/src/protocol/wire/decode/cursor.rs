//! Decoding of a cursor, and of the place at which a catch-up resumes.

use super::super::super::message::{Cursor, Mode, Resume};
use super::super::super::name::{Epoch, RecordId, Seq};
use super::field::{Fault, Field, Fields, fields, required};

fields! {
    /// The fields of a cursor and of its `resume`.
    pub(super) struct CursorFields {
        epoch: "epoch",
        seq: "seq",
        snapshot_seq: "snapshotSeq",
        after: "after",
        resume: "resume",
        rights: "rights",
        set: "set",
        scopes: "scopes",
    }
}

impl CursorFields<'_> {
    pub(super) fn cursor(&self) -> Result<Option<Cursor>, Fault> {
        let epoch = self.epoch.name("metadata.cursor.epoch", Epoch::new)?;
        let seq = self.seq.number("metadata.cursor.seq")?.map(Seq);
        match (epoch, seq) {
            (None, None) => Ok(None),
            (Some(epoch), Some(seq)) => Ok(Some(Cursor { epoch, seq })),
            (Some(_), None) => Err(Fault::missing("metadata.cursor.seq")),
            (None, Some(_)) => Err(Fault::missing("metadata.cursor.epoch")),
        }
    }

    pub(super) fn resume(&self) -> Result<Option<Resume>, Fault> {
        const EPOCH: &str = "metadata.cursor.resume.epoch";
        const SEQ: &str = "metadata.cursor.resume.seq";
        const SNAPSHOT_SEQ: &str = "metadata.cursor.resume.snapshotSeq";
        const AFTER: &str = "metadata.cursor.resume.after";
        let Some(resume) = self.resume.object::<CursorFields<'_>>("metadata.cursor.resume")? else {
            return Ok(None);
        };
        let epoch = required(resume.epoch.name(EPOCH, Epoch::new)?, EPOCH)?;
        Ok(Some(match resume.snapshot_seq.number(SNAPSHOT_SEQ)?.map(Seq) {
            None => Resume::Delta { epoch, seq: Seq(required(resume.seq.number(SEQ)?, SEQ)?) },
            Some(snapshot_seq) => {
                let after = required(resume.after.name(AFTER, RecordId::new)?, AFTER)?;
                Resume::Snapshot { epoch, snapshot_seq, after }
            }
        }))
    }
}

/// The mode of a catch-up.
pub(super) fn mode(field: Field<'_>) -> Result<Option<Mode>, Fault> {
    match field.text("metadata.mode")?.as_deref() {
        None => Ok(None),
        Some("delta") => Ok(Some(Mode::Delta)),
        Some("snapshot") => Ok(Some(Mode::Snapshot)),
        Some(_) => Err(Fault::new("`metadata.mode` is neither delta nor snapshot")),
    }
}
