//! Decoding of units: all of one is taken, or nothing.

use alloc::format;
use alloc::vec::Vec;

use super::super::super::limits::Limits;
use super::super::super::message::ClientMessage;
use super::super::super::name::{MutationNumber, Seq};
use super::super::super::unit::{Expectation, Member, Unit};
use super::super::super::write::WriteKind;
use super::super::WireError;
use super::Envelope;
use super::field::{Fault, Field, required};

/// The unit that a frame is, if it is one.
pub(in super::super) fn atomic(
    batch: &Envelope<'_>,
    limits: &Limits,
) -> Option<Result<ClientMessage, WireError>> {
    if !batch.metadata.atomic.is_true() {
        return None;
    }
    let members = batch.fields.messages.list("messages", limits.batch_messages);
    let members = members.and_then(|members| required(members, "messages"));
    let members = members.map_err(|fault| batch.error(fault));
    Some(members.and_then(|members| read(&members, limits)).map(ClientMessage::Unit))
}

/// Reads all members of a unit. An error names the unit by its first number, and the member.
pub(super) fn read(members: &[Field<'_>], limits: &Limits) -> Result<Unit, WireError> {
    let mut unit = Unit { members: Vec::with_capacity(members.len().min(Unit::MAX_MEMBERS)) };
    // one more than may be is enough to see that there are too many
    for message in members.iter().take(Unit::MAX_MEMBERS + 1) {
        let member = Envelope::read(message.json()).and_then(|m| m.open(limits, member));
        let place = unit.members.len();
        unit.members.push(member.map_err(|error| fails(error, place, members))?);
    }
    unit.check().map_err(|flaw| {
        let fault = match flaw.too_large {
            true => Fault::too_large(flaw.message),
            false => Fault::new(flaw.message),
        };
        let member = unit.members.get(flaw.place);
        let error = WireError {
            mutation: member.and_then(Member::number),
            collection: member.map(|member| member.collection().clone()),
            record_id: member.map(|member| member.record_id().clone()),
            ..fault.about_nothing()
        };
        fails(error, flaw.place, members)
    })?;
    Ok(unit)
}

/// The error of a unit, made from that of the member in this place.
fn fails(error: WireError, place: usize, members: &[Field<'_>]) -> WireError {
    let number = |message: &Field<'_>| Envelope::read(message.json()).ok()?.number().ok()?;
    let mut numbers = members.iter().take(Unit::MAX_MEMBERS + 1).enumerate();
    let first = numbers.find_map(|(place, message)| {
        number(message)?.0.checked_sub(u64::try_from(place).ok()?).map(MutationNumber)
    });
    let counted =
        |first: MutationNumber| Some(MutationNumber(first.0 + u64::try_from(place).ok()?));
    let member = error.mutation.or_else(|| first.and_then(counted));
    WireError { mutation: first, member, ..error }
}

fn member(m: &Envelope<'_>, limits: &Limits) -> Result<Member, Fault> {
    let kind = match &*m.kind {
        "expect" => return m.expectation().map(Member::Expect),
        "insert" => WriteKind::Insert,
        "update" => WriteKind::Update,
        "delete" => WriteKind::Delete,
        other => {
            let text = format!(
                "{:?} can't be part of a transaction: insert, update, delete and expect can",
                super::short(other)
            );
            return Err(Fault::new(text));
        }
    };
    let mutation = m.mutation(kind, limits)?;
    required(mutation.number, "metadata.mutation")?;
    Ok(Member::Write(mutation))
}

impl Envelope<'_> {
    fn expectation(&self) -> Result<Expectation, Fault> {
        let base = self.metadata.base.number("metadata.base")?.map(Seq);
        match (base, self.metadata.absent.is_true()) {
            (None, false) => return Err(Fault::missing("metadata.base")),
            (Some(_), true) => {
                return Err(Fault::new("`metadata.base` and `metadata.absent` exclude each other"));
            }
            (Some(_), false) | (None, true) => {}
        }
        Ok(Expectation {
            collection: self.collection()?,
            record_id: self.record_id()?,
            number: required(self.number()?, "metadata.mutation")?,
            base,
        })
    }
}
