//! **Durable before shown**, and **nothing acknowledged is lost**.

use synclayer_core::protocol::{ClientMessage, Incoming, Member, decode_client};
use synclayer_core::{CommitNumber, EventKind, Limits, WriteKind};

use crate::guarantees::exactly_once::times_in_log;
use crate::guarantees::ledger::{Ledger, STRANGER, Write};
use crate::guarantees::{is_permanent, new_tokens, tokens};
use crate::plan::Strategy;
use crate::world::{Committed, Device, World};

/// **Durable before shown:** nothing leaves a client before its outbox is durable; so nothing that
/// a client has lost in a crash can reach the server.
///
/// # Errors
/// When it does.
pub fn durable_before_applied(ledger: &Ledger, committed: &Committed) -> Result<(), String> {
    for token in new_tokens(committed) {
        if ledger.write(token).is_some_and(|write| write.lost) && !ledger.loose {
            return Err(format!("write {token} was lost, and came"));
        }
    }
    Ok(())
}

/// **Durable before shown:** no write leaves a client before it is durable there.
///
/// # Errors
/// Which write has.
pub fn durable_before_sent(
    ledger: &Ledger,
    device: usize,
    frame: &[u8],
    durable: CommitNumber,
) -> Result<(), String> {
    let sent = match decode_client(frame, &Limits::default()) {
        Ok(Incoming::One(ClientMessage::Write(sent))) => vec![Member::Write(sent)],
        Ok(Incoming::One(ClientMessage::Unit(unit))) => unit.members,
        _ => return Ok(()),
    };
    let of = |member: &Member| match member {
        Member::Write(sent) => tokens(Some(&sent.change.delta.set)),
        Member::Expect(_) => Default::default(),
    };
    for token in sent.iter().flat_map(of) {
        let own = ledger.write(token).filter(|write| write.device == device && !write.lost);
        if own.is_some_and(|write| write.commit > durable) {
            return Err(format!("device {device} sent write {token} before it was durable"));
        }
    }
    Ok(())
}

/// **Nothing acknowledged is lost:** only what the server has refused is given up, and with an
/// insert or a delete the later writes to its record, which have nothing to stand on. `seen` says
/// how many events of the device were looked at before.
///
/// # Errors
/// Names what was given up with an update.
pub fn gives_up_what_was_refused(device: &Device, seen: usize) -> Result<(), String> {
    for event in &device.events[seen..] {
        let EventKind::OperationFailed { write, with, transaction, .. } = &event.kind else {
            continue;
        };
        // another member of the transaction may have taken them along
        if with.is_empty() || transaction.is_some() {
            continue;
        }
        let rejected = device.replica.rejected().map_err(|error| error.message)?;
        let refused = rejected.iter().find(|one| one.write == *write);
        if refused.is_some_and(|one| one.change.kind == WriteKind::Update) {
            return Err(format!("{with:?} were given up with update {write}"));
        }
    }
    Ok(())
}

/// **Nothing acknowledged is lost:** every write that its device did not lose in a crash before it
/// was durable, and that was not reported as rejected, has taken effect.
///
/// # Errors
/// Which write has not.
pub fn nothing_is_lost(ledger: &Ledger, world: &World) -> Result<(), String> {
    let present = world.histories().present();
    // a server that has forgotten a replica takes a copy of it for the same one
    let counted = ledger.plan.rates.restore == 0
        || ledger.plan.strategy == Strategy::Client
            && !world.counts.contains_key("client forgotten");
    // what is in the way may look like a plain server, to which inserts go without a condition
    let counted = counted && !world.counts.contains_key("taken for a plain server");
    for (index, write) in ledger.writes.iter().enumerate().filter(|(_, w)| w.must_survive()) {
        let token = index + 1;
        let record = present.now(&write.place);
        let field = format!("t{token}");
        let there = record.and_then(|record| record.text(&field)).is_some();
        if write.unique && counted && !there {
            return Err(format!("{field} of {:?} is gone", write.place));
        }
        if write.appends && ledger.is_strict() && times_in_log(record, token) == 0 {
            return Err(format!("{token} is gone from the list in {:?}", write.place));
        }
    }
    Ok(())
}

impl Write {
    /// Returns `true` if its token must be there at the end.
    pub(super) fn must_survive(&self) -> bool {
        !self.lost
            && !self.forgotten
            && !self.rejected
            && is_permanent(&self.place.1)
            && self.device != STRANGER
    }
}
