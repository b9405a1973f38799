//! The guarantees of transactions in the small world.

use synclayer_core::RecordId;

use super::device::SmallWrite;
use super::world::{SmallWorld, id, second};
use crate::world::todos;

impl SmallWorld {
    /// Checks, after every step, that nobody has half of a transaction.
    ///
    /// # Errors
    /// Says who has half of which.
    pub(super) fn check_units(&self) -> Result<(), String> {
        for (i, device) in self.devices.iter().enumerate() {
            let pending = device.replica.pending().map_err(|error| error.message)?;
            for one in &pending {
                let members = pending.iter().filter(|of| of.transaction == one.transaction);
                if one.transaction.is_some() && members.count() != 2 {
                    return Err(format!("replica {i} holds half of a transaction: {one:?}"));
                }
            }
        }
        // what removes fields may have removed those of a transaction
        if !self.devices[1].written.iter().all(|write| write.kind.is_update()) {
            return Ok(());
        }
        let server = self.server_records()?;
        let at_server = |record: RecordId, field: &str| {
            server.get(&record).is_some_and(|it| it.text(field).is_some())
        };
        for n in 1..=self.made {
            let field = format!("t{n}");
            let is_unit = self.devices[0].written.iter().any(|write| write.number == n);
            if is_unit && at_server(id(), &field) != at_server(second(), &field) {
                return Err(format!("the server has half of transaction {n}: {server:?}"));
            }
            self.check_shown(1, &field).map_err(|what| format!("transaction {n}: {what}"))?;
        }
        Ok(())
    }

    /// A replica that follows the collection shows all of a transaction of somebody else, or nothing.
    fn check_shown(&self, i: usize, field: &str) -> Result<(), String> {
        if self.devices[i].written.iter().any(|write| format!("t{}", write.number) == field) {
            return Ok(());
        }
        let replica = &self.devices[i].replica;
        if !replica.status().collections.get(&todos()).is_some_and(|of| of.live) {
            return Ok(());
        }
        let mut shown = Vec::new();
        for id in [id(), second()] {
            let record = replica.get(&todos(), &id).map_err(|error| error.message)?;
            // beneath an own write that is on its way nothing moves
            if record.as_ref().is_some_and(|record| record.pending) {
                return Ok(());
            }
            shown.push(record.is_some_and(|record| record.document.text(field).is_some()));
        }
        match shown[0] == shown[1] {
            true => Ok(()),
            false => Err(format!("replica {i} shows half of it")),
        }
    }

    /// Returns `true` if writes of a replica may be rejected at rest: a transaction whose record the
    /// other has deleted or saved anew.
    pub(super) fn may_lose(&self, i: usize) -> bool {
        let is_unit = |kind| kind == SmallWrite::Unit;
        self.devices[i].written.iter().any(|write| is_unit(write.kind))
            && !self.devices[1 - i].written.iter().all(|write| write.kind.is_update())
    }

    /// Checks transactions at rest: both clients show what the server has of the second
    /// record, which is of transactions alone, and a transaction that was made is there or rejected.
    ///
    /// # Errors
    /// Says which does not hold.
    pub(super) fn check_units_at_rest(&self) -> Result<(), String> {
        let server = self.server_records()?.remove(&second());
        for (i, device) in self.devices.iter().enumerate() {
            let shown = device.replica.get(&todos(), &second()).map_err(|error| error.message)?;
            let shown = shown.map(|record| record.document);
            if shown != server {
                return Err(format!("convergence: replica {i} shows {shown:?}, not {server:?}"));
            }
        }
        let rejected = self.devices[0].replica.rejected().map_err(|error| error.message)?;
        let made = self.devices[0].written.len();
        let taken = server.iter().flat_map(|record| record.iter());
        let taken = taken.filter(|(name, _)| name.starts_with('t')).count();
        if made != taken + rejected.len() / 2 || rejected.len() % 2 != 0 {
            return Err(format!("{made} transactions were made, {server:?}, {rejected:?}"));
        }
        Ok(())
    }
}
