//! Encoding of units.

use alloc::vec::Vec;

use super::super::super::message::FailedMember;
use super::super::super::unit::{Expectation, Member};
use super::{Object, list, message, object};

impl Member {
    /// Appends the member as a message.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Write(mutation) => mutation.encode(out),
            Self::Expect(expectation) => expectation.encode(out),
        }
    }
}

impl Expectation {
    fn encode(&self, out: &mut Vec<u8>) {
        message(out, "expect", |m| {
            m.text("collection", &self.collection);
            m.text("recordId", &self.record_id);
            m.object("metadata", |metadata| {
                metadata.number("mutation", self.number.0);
                metadata.optional("base", self.base.map(|base| base.0));
                metadata.flag("absent", self.base.is_none());
            });
        });
    }
}

/// Appends the frame of a unit. Its members are already encoded, as [`Member::encode`] does.
pub(crate) fn encode_unit<M: AsRef<[u8]>>(members: impl IntoIterator<Item = M>, out: &mut Vec<u8>) {
    message(out, "batch", |m| {
        m.object("metadata", |metadata| metadata.flag("atomic", true));
        list(m.key("messages"), members, |out, member| out.extend_from_slice(member.as_ref()));
    });
}

/// Appends a `batch` of messages that are already encoded.
pub(crate) fn join<M: AsRef<[u8]>>(messages: &[M], out: &mut Vec<u8>) {
    message(out, "batch", |m| {
        list(m.key("messages"), messages, |out, one| out.extend_from_slice(one.as_ref()));
    });
}

/// Appends a unit as an element of a push. Its members are already encoded.
pub(in super::super) fn atomic<M: AsRef<[u8]>>(
    members: impl IntoIterator<Item = M>,
    out: &mut Vec<u8>,
) {
    object(out, |element| {
        list(element.key("atomic"), members, |out, member| out.extend_from_slice(member.as_ref()));
    });
}

impl Object<'_> {
    /// The members of a unit that failed.
    pub(super) fn failed(&mut self, failed: &[FailedMember]) {
        if failed.is_empty() {
            return;
        }
        list(self.key("failed"), failed, |out, member| {
            object(out, |fields| {
                fields.number("mutation", member.mutation.0);
                fields.text("code", member.code.as_str());
                fields.text("collection", &member.collection);
                fields.text("recordId", &member.record_id);
                if let Some(current) = &member.current {
                    fields.current(current);
                }
            });
        });
    }
}
