//! Calls of a device that share a commit.

use synclayer_core::CommitNumber;
use synclayer_core::testing::{InspectReplica, SimulatedDisk};

use super::World;
use crate::invariants::Invariant;

impl World {
    /// The app of a device waits for a commit: its replica asks the store to make it durable, in a
    /// group at the end.
    pub(crate) fn await_commit(&mut self, device: usize, commit: CommitNumber) {
        let this = &mut self.devices[device];
        this.awaited = this.awaited.max(commit);
        self.check_awaited(device);
    }

    /// A commit that is made, and that an app waits for, is on its way to the disk.
    pub(super) fn check_awaited(&mut self, device: usize) {
        let this = &self.devices[device];
        let asked = this.replica.store().asked().max(this.replica.durable());
        let is_due = this.shared == 0 && !this.replica.has_halted();
        if is_due && asked < this.awaited {
            let waits = format!("device {device} waits for a commit that nobody makes durable");
            self.fail(Invariant::Contract, waits);
        }
    }

    /// The calls of a device that share a commit have all been made.
    pub(super) fn end_group(&mut self, device: usize) {
        if self.devices[device].shared > 0 {
            self.count("shared commit");
            // the next call is the last of the group
            self.devices[device].shared = self.config.shared;
            self.with(device, |_, _, _| ());
        }
    }

    /// As [`end_group`](Self::end_group), of all devices.
    pub(crate) fn end_groups(&mut self) {
        (0..self.devices.len()).for_each(|device| self.end_group(device));
    }
}
