//! Rights that withhold records and refuse writes, for the targets in which a server takes part.

use std::sync::Arc;

use synclayer_core::{Access, AllowAll, Change, Collection, Document, Policy, RecordId, UserId};

/// Everyone may do everything; or some may not, if a choice's lowest bit says so. With the next one
/// records with a field `t` are withheld.
pub(super) fn policy(choice: u8) -> Arc<dyn Policy> {
    if choice & 1 == 0 { Arc::new(AllowAll) } else { Arc::new(Strict { partial: choice & 2 != 0 }) }
}

struct Strict {
    partial: bool,
}

impl Policy for Strict {
    fn read(&self, _: Option<&UserId>, collection: &Collection) -> Access {
        match (collection.as_str(), self.partial) {
            ("x", _) => Access::None,
            (_, true) => Access::Some,
            (_, false) => Access::All,
        }
    }

    fn read_record(
        &self,
        _: Option<&UserId>,
        _: &Collection,
        _: &RecordId,
        document: &Document,
    ) -> bool {
        document.text("t").is_none()
    }

    fn write(
        &self,
        user: Option<&UserId>,
        _: &Collection,
        id: &RecordId,
        before: Option<&Document>,
        change: &Change,
    ) -> Result<(), String> {
        if change.delta.set.text("b") == Some("[]") {
            return Err("nobody may empty a list".into());
        }
        let is_guest = user.is_some_and(|user| user.as_str() == "v");
        if is_guest && id.as_str() == "c" && before.is_some() {
            return Err("guests may not change what is there".into());
        }
        Ok(())
    }
}
