//! Placeholders that stand for literals in a file.
//!
//! | in a file | stands for |
//! | --- | --- |
//! | `"$client1"`, `"$client2"` … | the client ids that the replica had, in their order |
//! | `"$digest:3"` | the digest of the write that was last sent under the number 3 |
//! | `{"$checksum": {"a": [5, {…}]}}` | the checksum of a collection that holds these: record id, its seq, its document; of a list: the sum over several scopes |

use serde_json::{Value, json};
use synclayer_core::protocol::{ClientMessage, Incoming, Member, decode_client};
use synclayer_core::{Checksum, Collection, Document, Limits, RecordId, Seq};

/// The values seen so far that a file can name.
#[derive(Default)]
pub(super) struct Words {
    clients: Vec<String>,
    /// Number and digest of each write that was sent, in their order.
    digests: Vec<(u64, String)>,
}

impl Words {
    /// The replica goes by this id.
    pub(super) fn note_client(&mut self, id: &str) {
        if !self.clients.iter().any(|known| known == id) {
            self.clients.push(id.into());
        }
    }

    /// A frame was sent.
    pub(super) fn note_frame(&mut self, frame: &[u8]) {
        let sent = |message| match message {
            ClientMessage::Write(write) => vec![Member::Write(write)],
            ClientMessage::Unit(unit) => unit.members,
            ClientMessage::Auth { .. }
            | ClientMessage::Subscribe { .. }
            | ClientMessage::Unsubscribe { .. }
            | ClientMessage::Sync { .. }
            | ClientMessage::Ping { .. } => Vec::new(),
        };
        let Ok(Incoming::One(message)) = decode_client(frame, &Limits::default()) else { return };
        for member in sent(message) {
            let number = match &member {
                Member::Write(write) => write.number,
                Member::Expect(expectation) => Some(expectation.number),
            };
            self.digests.extend(number.map(|number| (number.0, member.digest().to_string())));
        }
    }

    /// The texts of one frame, or of a list of frames.
    pub(super) fn frames(&self, frames: &Value) -> Result<Vec<String>, String> {
        let frames = self.resolve(frames)?;
        let list = frames.as_array().map_or(std::slice::from_ref(&frames), Vec::as_slice);
        Ok(list.iter().map(ToString::to_string).collect())
    }

    /// Replaces the placeholders in a value of a file.
    pub(super) fn resolve(&self, value: &Value) -> Result<Value, String> {
        match value {
            Value::String(text) => self.resolve_text(text).map(Value::String),
            Value::Array(items) => items.iter().map(|item| self.resolve(item)).collect(),
            Value::Object(fields) => match fields.get("$checksum") {
                Some(records) => checksum(records),
                None => fields
                    .iter()
                    .map(|(name, value)| Ok((name.clone(), self.resolve(value)?)))
                    .collect::<Result<_, String>>()
                    .map(Value::Object),
            },
            Value::Null | Value::Bool(_) | Value::Number(_) => Ok(value.clone()),
        }
    }

    fn resolve_text(&self, text: &str) -> Result<String, String> {
        if let Some(number) = text.strip_prefix("$client") {
            let index = number.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
            let id = index.and_then(|index| self.clients.get(index));
            return id.cloned().ok_or(format!("{text}: there is no such client id yet"));
        }
        if let Some(number) = text.strip_prefix("$digest:") {
            let number: u64 = number.parse().map_err(|_| format!("{text}: not a number"))?;
            let last = self.digests.iter().rev().find(|(sent, _)| *sent == number);
            return last
                .map(|(_, digest)| digest.clone())
                .ok_or(format!("{text}: no write with this number was sent yet"));
        }
        Ok(text.into())
    }

    /// Replaces the ids in an output by their names.
    pub(super) fn name(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.name_text(text)),
            Value::Array(items) => items.into_iter().map(|item| self.name(item)).collect(),
            Value::Object(fields) => {
                fields.into_iter().map(|(name, value)| (name, self.name(value))).collect()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => value,
        }
    }

    fn name_text(&self, text: String) -> String {
        self.clients.iter().enumerate().fold(text, |text, (index, id)| {
            text.replace(id.as_str(), &format!("$client{}", index + 1))
        })
    }
}

fn checksum(records: &Value) -> Result<Value, String> {
    let mut sum = Checksum::default();
    let parts = records.as_array().map_or(std::slice::from_ref(records), Vec::as_slice);
    let parts: Option<Vec<_>> = parts.iter().map(Value::as_object).collect();
    for (id, state) in parts.ok_or("$checksum takes objects")?.into_iter().flatten() {
        let (seq, data) = (state[0].as_u64(), state[1].to_string());
        let seq = seq.ok_or_else(|| format!("$checksum: {id} takes [seq, document]"))?;
        sum.add(&record_id(id)?, Seq(seq), &document(&data)?);
    }
    Ok(json!(sum.to_string()))
}

/// The collection and the record of `todos/a`.
pub(super) fn place(at: &str) -> Result<(Collection, RecordId), String> {
    let (name, id) = at.split_once('/').ok_or(format!("{at}: collection/record is wanted"))?;
    Ok((collection(name)?, record_id(id)?))
}

pub(super) fn collection(name: &str) -> Result<Collection, String> {
    Collection::new(name).map_err(|error| format!("{name}: {error}"))
}

pub(super) fn record_id(id: &str) -> Result<RecordId, String> {
    RecordId::new(id).map_err(|error| format!("{id}: {error}"))
}

pub(super) fn document(json: &str) -> Result<Document, String> {
    Document::parse(json, &Limits::default()).map_err(|error| format!("{json}: {error}"))
}
