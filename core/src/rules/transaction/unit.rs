//! Units: all members of one are applied, or none.

use alloc::vec::Vec;

use super::subject::expectation_fails;
use super::write::{Writer, origin};
use super::{Context, Decision, Outcome, PlainUnit, TransactionAnswer, Verdict, Window};
use crate::protocol::message::ErrorCode;
use crate::protocol::name::{ConnId, MutationNumber};
use crate::protocol::unit::{Expectation, Member, Unit};
use crate::rules::policy::AllowAll;
use crate::rules::record::ClientRow;
use crate::store::{Rows, StoreError};

pub(super) fn decide_plain_unit(
    unit: &PlainUnit,
    rows: &dyn Rows,
    context: Context<'_>,
) -> Result<Decision, StoreError> {
    let context = match unit.past_policy {
        true => Context { policy: &AllowAll, ..context },
        false => context,
    };
    let mut writer = Writer::new(rows, context, unit.user.as_ref());
    let mut outcomes = Vec::with_capacity(unit.writes.len());
    for write in &unit.writes {
        outcomes.push(writer.write_http(write)?);
    }
    if outcomes.iter().any(|outcome| outcome.verdict.is_failure()) {
        writer = Writer::new(rows, context, unit.user.as_ref());
    }
    writer.published.iter_mut().skip(1).for_each(|change| change.joined = true);
    Ok(writer.decision(TransactionAnswer::PlainUnit(outcomes)))
}

impl Verdict {
    /// Returns `true` if the write was not applied.
    pub(super) fn is_failure(&self) -> bool {
        match self {
            Self::Conflict { .. } | Self::Refused { .. } => true,
            Self::Applied { .. }
            | Self::Unchanged { .. }
            | Self::Superseded
            | Self::OutOfOrder { .. } => false,
        }
    }
}

impl Writer<'_> {
    /// Judges a unit, and applies it if nothing speaks against any member. Returns the outcomes of all
    /// members, or of those that failed.
    pub(super) fn write_unit(
        &mut self,
        unit: &Unit,
        conn: Option<ConnId>,
        client: &mut ClientRow,
        window: &mut Window,
    ) -> Result<Vec<Outcome>, StoreError> {
        let (Some(first), Some(last)) = (unit.first(), unit.last()) else { return Ok(Vec::new()) };
        let mut outcomes = if last <= client.last_mutation {
            self.write_unit_again(unit)?
        } else if first != client.last_mutation.next() {
            self.unit_out_of_order(unit, first, client.last_mutation.next())
        } else {
            let outcomes = self.write_members(unit, conn, window)?;
            if !outcomes.iter().any(|outcome| outcome.verdict.is_failure()) {
                let digest = unit.members.last().map(Member::digest).unwrap_or_default();
                client.consume(digest, last);
            }
            outcomes
        };
        outcomes.iter_mut().for_each(|outcome| outcome.unit = Some(first));
        Ok(outcomes)
    }

    fn write_members(
        &mut self,
        unit: &Unit,
        conn: Option<ConnId>,
        window: &mut Window,
    ) -> Result<Vec<Outcome>, StoreError> {
        // on rows of its own, which are dropped where a member fails
        let mut inner = Writer::new(&self.rows, self.context, self.user);
        let mut outcomes = Vec::with_capacity(unit.members.len());
        for member in &unit.members {
            outcomes.push(match member {
                Member::Write(mutation) => {
                    inner.write_numbered(mutation, origin(conn, mutation), window)?
                }
                // it is about the state before the unit
                Member::Expect(expectation) => self.expect(expectation, window)?,
            });
        }
        if outcomes.iter().any(|outcome| outcome.verdict.is_failure()) {
            outcomes.retain(|outcome| outcome.verdict.is_failure());
            return Ok(outcomes);
        }
        let (rows, mut published) = (inner.rows.into_batch(), inner.published);
        self.rows.apply(&rows);
        published.iter_mut().skip(1).for_each(|change| change.joined = true);
        self.published.append(&mut published);
        for outcome in &outcomes {
            if let Verdict::Applied { seq, .. } = outcome.verdict {
                window.entry(outcome.collection.clone()).or_default().push(seq);
            }
        }
        Ok(outcomes)
    }

    /// Judges an expectation by the rows as they are.
    fn expect(&self, expectation: &Expectation, window: &Window) -> Result<Outcome, StoreError> {
        let Expectation { collection, record_id, number, .. } = expectation;
        let subject = self.subject(collection, record_id)?;
        let own = window.get(collection).map_or(&[][..], |seqs| seqs);
        let verdict = if !self.may_read(&subject)? {
            let message = "this user may not read the record, so nothing can be expected of it";
            Verdict::Refused { code: ErrorCode::Unauthorized, message: message.into() }
        } else if expectation_fails(expectation, &subject, own) {
            self.conflict(&subject)?
        } else {
            Verdict::Unchanged {
                version: subject.record.as_ref().map(|record| record.last.version),
            }
        };
        Ok(self.outcome(&subject, Some(*number), verdict))
    }

    /// Acknowledges a unit again that was applied before.
    fn write_unit_again(&mut self, unit: &Unit) -> Result<Vec<Outcome>, StoreError> {
        let again = |member: &Member| {
            let number = member.number().unwrap_or_default();
            self.write_again(member.collection(), member.record_id(), number)
        };
        unit.members.iter().map(again).collect()
    }

    fn unit_out_of_order(
        &self,
        unit: &Unit,
        first: MutationNumber,
        next: MutationNumber,
    ) -> Vec<Outcome> {
        let member = unit.members.iter().take(1);
        let outcome = |m: &Member| self.out_of_order(m.collection(), m.record_id(), first, next);
        member.map(outcome).collect()
    }
}
