//! Users sign out of their devices in a run, and come back.

use synclayer_core::testing::SimulatedDisk;
use synclayer_core::{
    ClientConfig, ClientStore, CommitNumber, MemoryClientStore, Misuse, Replica, SignOut, SignedOut,
};

use crate::draw::Draw;
use crate::invariants::Invariant;
use crate::plan::{Strategy, collections};
use crate::run::Run;
use crate::world::World;

impl World {
    /// The user of a device signs out. Whatever becomes of it, the device has to be started again
    /// where it does not say why it was refused.
    ///
    /// # Errors
    /// The reason for which it was refused.
    ///
    /// # Panics
    /// Never: a store in memory can be opened.
    pub fn sign_out(
        &mut self,
        device: usize,
        how: SignOut,
    ) -> Result<SignedOut<MemoryClientStore>, Misuse> {
        self.note(|| format!("the user of device {device} signs out: {how:?}"));
        // the replica ends its group by itself
        self.devices[device].shared = 0;
        let now = self.devices[device].now(self.now);
        let (mut actions, store) = (Vec::new(), MemoryClientStore::default());
        let nobody = Replica::open(ClientConfig::default(), 0, now, store, &mut Vec::new());
        let nobody = nobody.expect("an empty store can be opened");
        let replica = std::mem::replace(&mut self.devices[device].replica, nobody);
        let signed_out = match replica.sign_out(now, how, &mut actions) {
            Ok(signed_out) => Ok(signed_out),
            Err(refused) => {
                let (replica, why) = *refused;
                self.devices[device].replica = replica;
                Err(why)
            }
        };
        self.carry_out(device, actions);
        signed_out
    }
}

impl Run {
    /// The user of a device signs out, and comes back to what was left; on the way the device may
    /// crash.
    pub(crate) fn sign_out(&mut self, draw: &mut Draw<'_>) {
        let device = self.device(draw);
        let how = match draw.below(4) {
            0 | 1 => SignOut::Keep,
            2 => SignOut::Wipe,
            // sums can't do without what was taken along
            _ if self.plan.strategy == Strategy::Sum => SignOut::Wipe,
            _ => SignOut::WipeUnsent,
        };
        // an older copy of a directory may hold what was wiped
        let wipes = how != SignOut::Keep;
        if self.world.devices[device].has_halted() || wipes && self.plan.rates.restore > 0 {
            return;
        }
        let status = self.world.devices[device].replica.status();
        let unsent = status.pending_writes + status.rejected_writes;
        let (_, durable) = self.world.commits(device);
        match self.world.sign_out(device, how) {
            Ok(signed_out) => self.depart(device, how, unsent, durable, signed_out, draw),
            Err(Misuse::Unsent(_)) if unsent > 0 => self.world.count("wipe refused"),
            // its disk has failed
            Err(_) if self.world.devices[device].has_halted() => {}
            Err(why) => {
                self.world.fail(Invariant::Contract, format!("a sound sign-out is refused: {why}"));
            }
        }
    }

    fn depart(
        &mut self,
        device: usize,
        how: SignOut,
        unsent: usize,
        durable: CommitNumber,
        mut signed_out: SignedOut<MemoryClientStore>,
        draw: &mut Draw<'_>,
    ) {
        // what the end of the connection changes is no part of the wipe
        let (mut failed, begun) = (false, signed_out.store().last());
        loop {
            match signed_out.step() {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) => {
                    failed = true;
                    break;
                }
            }
        }
        let mut store = signed_out.store().clone();
        let (last, durable) = (store.last(), store.durable().unwrap_or(durable));
        let lost = if draw.one_in(2) || failed {
            draw.below(usize::try_from(last.0 - durable.0).unwrap_or(0) + 1) as u64
        } else {
            0
        };
        let back_to = CommitNumber(last.0 - lost);
        let wiped = how != SignOut::Keep && back_to > begun;
        self.count_leaving(how, unsent, wiped, wiped && (failed || lost > 0));
        if self.ledger.waits_for_a_fate(device) {
            self.world.count("fate waited for in a crash");
        }
        self.ledger.crashed(device, back_to);
        self.world.restart_device(device, store.crash_to(back_to));
        if wiped {
            self.ledger.wiped(device);
            self.world.know_client(device);
            self.check_wiped(device);
            return;
        }
        let refused = self.world.devices[device].replica.rejected().expect("the store is sound");
        self.ledger.still_refused(device, &refused);
        if let Err(broken) = self.ledger.fates_last(device) {
            self.world.fail(Invariant::TrueFates, broken);
        }
    }

    fn count_leaving(&mut self, how: SignOut, unsent: usize, wiped: bool, cut_short: bool) {
        let points = [
            ("signed out", how == SignOut::Keep),
            ("signed out with waiting writes", how == SignOut::Keep && unsent > 0),
            ("wiped", wiped),
            ("wiped with waiting writes", wiped && unsent > 0),
            ("wipe cut short by a crash", cut_short),
        ];
        for (point, _) in points.into_iter().filter(|(_, met)| *met) {
            self.world.count(point);
        }
    }

    /// Nothing of the user is left.
    fn check_wiped(&mut self, device: usize) {
        let replica = &self.world.devices[device].replica;
        let status = replica.status();
        let held = |collection| replica.get_all(collection).map_or(0, |records| records.len());
        let records: usize = collections().iter().map(held).sum();
        let left = (records, status.pending_writes, status.rejected_writes);
        if left != (0, 0, 0) {
            let left = format!("device {device} was wiped, and {left:?} is left");
            self.world.fail(Invariant::Contract, left);
        }
    }
}
