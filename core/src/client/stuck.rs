//! Catch-ups that don't get on because connections break before anything of the next page comes.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;

use super::edit::Edit;
use super::event::EventKind;
use super::machine::Client;
use super::stream::Stream;
use super::streams::Streams;
use crate::protocol::message::Resume;
use crate::protocol::name::Collection;
use crate::rules::row::StreamRow;

/// After this many connections or pulls in a row that broke before anything came, the last of them with
/// the smallest pages, a catch-up is called stalled.
const STALLED_BREAKS: u32 = 5;

impl Streams {
    /// Returns the number of further connections that may tell whether a catch-up stalls.
    pub(super) fn breaks_to_judge(&self) -> u32 {
        let judged = |(_, stream): (_, &Stream)| {
            Some(stream.breaks()).filter(|breaks| *breaks < STALLED_BREAKS)
        };
        self.iter().filter_map(judged).max().unwrap_or(0)
    }
}

impl Client {
    /// The connection of catch-ups has broken, or the pull of one: smaller pages are asked for where
    /// none has come, and the app is told of a collection of which not even the smallest came.
    pub(super) fn break_catch_ups(&mut self, edit: &mut Edit<'_>, pulled: Option<&Collection>) {
        let is_least = self.portions.pages.is_least();
        let mut stalled = None;
        for (name, stream) in self.streams.iter_mut() {
            if pulled.is_some_and(|pulled| pulled != name) {
                continue;
            }
            let before = stream.breaks();
            let breaks = stream.count_break();
            if breaks > before && is_least && breaks == STALLED_BREAKS {
                stalled = Some(name.clone());
            }
        }
        self.portions.pages.fail();
        if let Some(collection) = stalled {
            self.tell_stuck(edit, collection);
        }
    }

    /// Says where a catch-up does not get on, and why, if that is so.
    pub(super) fn stalls(&self, collection: &Collection, stream: &Stream) -> Option<Box<str>> {
        let stalls = stream.breaks() >= STALLED_BREAKS && self.portions.pages.is_least();
        stalls.then(|| described(collection, &stream.row).into())
    }

    fn tell_stuck(&self, edit: &mut Edit<'_>, collection: Collection) {
        let Some(stream) = self.streams.get(&collection) else { return };
        let message = described(&collection, &stream.row);
        let collection = Some(collection);
        edit.remote_event(EventKind::Error { collection, record_id: None, message, cause: None });
    }
}

/// Names the place behind which nothing comes. The record there is not known by its id.
fn described(collection: &Collection, row: &StreamRow) -> String {
    let place = match (&row.resume, &row.cursor) {
        (Some(Resume::Snapshot { after, .. }), _) => format!("behind record {after}"),
        (Some(Resume::Delta { seq, .. }), _) => format!("behind change {}", seq.0),
        (None, Some(cursor)) => format!("behind change {}", cursor.seq.0),
        (None, None) => "at its beginning".into(),
    };
    format!(
        "the next page of {collection}, {place}, does not arrive: {STALLED_BREAKS} connections or more in \
         a row broke before anything of it came, though only 4 KiB or one record were asked for; so it holds \
         a record that is larger than what the connection carries, and what lies behind it in the \
         collection waits: try again over a better connection, or make it smaller where it was written"
    )
}
