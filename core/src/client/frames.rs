//! The frames of a WebSocket: each message goes to the story that it is about.

use super::catchup::Subscribed;
use super::edit::Edit;
use super::machine::Client;
use super::step::StepError;
use crate::protocol::message::{ErrorCode, ErrorMessage, ServerMessage};
use crate::protocol::wire::{Incoming, decode_server};

impl Client {
    pub(super) fn read(&mut self, edit: &mut Edit<'_>, frame: &[u8]) -> Result<(), StepError> {
        let incoming = decode_server(frame, &self.config.limits)
            .map_err(|error| StepError::Peer(error.message))?;
        match &incoming {
            Incoming::One(message) => self.check_whole([message].into_iter())?,
            Incoming::Batch(messages) => {
                self.check_whole(messages.iter().filter_map(|message| message.as_ref().ok()))?;
            }
        }
        match incoming {
            Incoming::One(message) => self.on_message(edit, message),
            Incoming::Batch(messages) => messages.into_iter().try_for_each(|message| {
                if !self.link.is_open() {
                    // a message before it has ended the connection
                    edit.ignore();
                    return Ok(());
                }
                let message = message.map_err(|error| StepError::Peer(error.message))?;
                self.on_message(edit, message)
            }),
        }
    }

    fn on_message(&mut self, edit: &mut Edit<'_>, message: ServerMessage) -> Result<(), StepError> {
        let ready = self.link.ready_since().is_some();
        if !ready && Self::is_plain_word(&message) {
            self.meet_plain(edit)?;
        }
        if self.is_foreign(&message) {
            edit.ignore();
            return Ok(());
        }
        if self.link.ready_since().is_some() && self.peer.is_plain() {
            return self.on_plain_message(edit, message);
        }
        match message {
            ServerMessage::Pong { timestamp, welcome } => match (welcome, ready) {
                (Some(_), false) if !self.link.hello_is_out() => {
                    return Err(StepError::peer("it answers a hello that was not sent yet"));
                }
                (Some(welcome), false) => self.welcomed(edit, welcome, timestamp)?,
                (None, false) => edit.ignore(),
                (Some(_) | None, true) => self.ponged(edit, timestamp)?,
            },
            ServerMessage::Error(error) => self.complained(edit, error)?,
            ServerMessage::Authenticated { .. } => {}
            ServerMessage::Unknown { .. } => edit.ignore(),
            ServerMessage::Subscribed { .. }
            | ServerMessage::Unsubscribed { .. }
            | ServerMessage::Change { .. }
            | ServerMessage::Sync { .. }
            | ServerMessage::Load(_)
            | ServerMessage::Synced { .. }
            | ServerMessage::Ack(_)
                if !ready =>
            {
                edit.ignore();
            }
            ServerMessage::Subscribed {
                collection,
                record_count,
                head,
                mode,
                partial,
                rights,
                set,
                refused,
            } => {
                let answer = Subscribed { record_count, head, mode, partial, rights, set, refused };
                self.subscribed(edit, &collection, &answer)?;
            }
            ServerMessage::Unsubscribed { collection, scopes } if scopes.is_empty() => {
                self.unsubscribed(edit, &collection);
            }
            ServerMessage::Unsubscribed { collection, scopes } => {
                self.scopes_ended(edit, &collection, &scopes)?;
            }
            ServerMessage::Change { collection, record_id, change, reason, prev } => {
                if let Some(mut records) = self.records(&collection) {
                    records.changed(edit, &record_id, &change, reason.is_some(), prev)?;
                }
            }
            ServerMessage::Sync { collection, records, range } => {
                if let Some(mut of) = self.records(&collection) {
                    of.paged(edit, &records, range.as_ref())?;
                }
            }
            ServerMessage::Load(page) => {
                if let Some(mut records) = self.records(&page.collection) {
                    records.loaded(edit, &page)?;
                }
            }
            ServerMessage::Synced { collection, cursor, count, checksum, set } => {
                self.synced_with(edit, &collection, cursor, (count, checksum), set)?;
            }
            ServerMessage::Ack(ack) => self.acked(edit, ack)?,
        }
        Ok(())
    }

    /// The server has refused something.
    fn complained(&mut self, edit: &mut Edit<'_>, error: ErrorMessage) -> Result<(), StepError> {
        if let Some(number) = error.mutation {
            return self.refused(edit, number, error);
        }
        match (&error.code, error.collection.clone()) {
            (ErrorCode::AuthFailed | ErrorCode::AuthExpired, _) => {
                self.need_token(edit, error.code, error.message);
            }
            (ErrorCode::SessionSuperseded, _) => self.become_another(edit)?,
            (_, Some(collection)) if !self.matters(&collection) => edit.ignore(),
            (_, Some(collection)) => self.subscription_failed(edit, &collection, error),
            (ErrorCode::Unauthorized, None) if self.link.ready_since().is_none() => {
                self.need_token(edit, error.code, error.message);
            }
            (_, None) if self.link.ready_since().is_none() => {
                return Err(StepError::Peer(error.message));
            }
            (_, None) => edit.error(alloc::format!("{}: {}", error.code, error.message)),
        }
        Ok(())
    }
}
