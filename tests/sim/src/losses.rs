//! Servers with another database, and what apps say where a server lacks what is held.

use synclayer_core::Status;

use crate::run::Run;
use crate::world::Backup;

impl Run {
    /// The server has another database from now on: an empty one, or the one that it had before the
    /// last exchange.
    pub(crate) fn exchange_database(&mut self) -> Result<(), String> {
        self.look()?;
        self.world.count("another database");
        let before = self.world.histories().present().clone();
        let here = self.world.backup();
        let other = self.other.replace(here).unwrap_or_else(Backup::empty);
        self.world.restore_server(other);
        self.forget_lost(&before);
        Ok(())
    }

    /// The apps that are asked decide. Says how many did.
    pub(crate) fn answer_losses(&mut self) -> Result<usize, String> {
        // a server that has forgotten a replica looks like one that was restored, and so may one in a new
        // epoch that shows less by the rights of now
        let may_lack = self.plan.rates.restore > 0
            || self.plan.ruling.is_some()
            || self.world.counts.contains_key("client forgotten");
        if !may_lack {
            return Ok(0);
        }
        let mut answered = 0;
        for device in 0..self.world.devices.len() {
            answered += usize::from(self.answer_loss(device)?);
        }
        Ok(answered)
    }

    /// The app of a device decides, if it is asked. Says whether it was.
    pub(crate) fn answer_loss(&mut self, device: usize) -> Result<bool, String> {
        let status = self.world.devices[device].replica.status();
        if status.halted.is_some() || !is_asked(&status) {
            return Ok(false);
        }
        self.look()?;
        let offers = (device + self.ledger.writes().len()).is_multiple_of(2);
        self.world.note(|| format!("device {device} decides to offer: {offers}"));
        match (offers, status.other_database.is_some()) {
            (true, true) => self.world.count("offered to another database"),
            (true, false) => self.world.count("offered what was lost"),
            (false, true) => self.world.count("adopted another database"),
            (false, false) => self.world.count("adopted a loss"),
        }
        self.world.decide(device, offers);
        if offers {
            // what others deleted, or what was lost, may come back
            let present = self.world.histories().present();
            self.ledger.forget(|_, write| present.now(&write.place).is_none());
        }
        self.look()?;
        Ok(true)
    }
}

fn is_asked(status: &Status) -> bool {
    let mut collections = status.collections.values();
    status.other_database.is_some() || collections.any(|of| of.missing.is_some())
}
