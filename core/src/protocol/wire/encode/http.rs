//! The bodies of level 2 over HTTP.

use alloc::vec::Vec;

use super::super::super::message::{Hello, Level, ServerMessage};
use super::super::super::name::Collection;
use super::super::http::{PageAnswer, PageFrom, PageQuery, PushAnswer, PushHead};
use super::{Object, list, message, object};

pub(in super::super) fn session(hello: &Hello, out: &mut Vec<u8>) {
    object(out, |body| {
        body.text("clientId", &hello.client_id);
        body.number("session", hello.session.0);
    });
}

pub(in super::super) fn push<M: AsRef<[u8]>>(
    head: &PushHead,
    writes: impl IntoIterator<Item = M>,
    out: &mut Vec<u8>,
) {
    object(out, |body| {
        body.text("clientId", &head.client_id);
        body.number("session", head.session.0);
        body.text("epoch", &head.epoch);
        list(body.key("mutations"), writes, |out, write| out.extend_from_slice(write.as_ref()));
    });
}

pub(in super::super) fn pull(collection: &Collection, query: &PageQuery, out: &mut Vec<u8>) {
    let PageQuery { from, limit, page_bytes, client_id } = query;
    let PageFrom { cursor, resume, rights, set, scopes } = from;
    object(out, |body| {
        body.text("collection", collection);
        body.cursor(cursor.as_ref(), resume.as_ref());
        body.rights(*rights);
        body.set(*set, scopes);
        body.optional("limit", limit.map(|limit| limit as u64));
        body.optional("pageBytes", page_bytes.map(|bytes| bytes as u64));
        body.optional_text("clientId", client_id.as_deref());
    });
}

pub(in super::super) fn push_answer(answer: &PushAnswer, out: &mut Vec<u8>) {
    batch(out, &answer.verdicts, |metadata| {
        metadata.number("lastMutation", answer.last_mutation.0);
    });
}

pub(in super::super) fn page_answer(answer: &PageAnswer, out: &mut Vec<u8>) {
    batch(out, &answer.messages, |metadata| {
        metadata.optional_text("database", answer.database.as_deref());
        metadata.text("epoch", &answer.epoch);
        metadata.object("from", |from| {
            let PageFrom { cursor, resume, rights, set, scopes } = &answer.from;
            from.cursor_fields(cursor.as_ref(), resume.as_ref());
            from.rights(*rights);
            from.set(*set, scopes);
        });
        metadata.optional("lastMutation", answer.last_mutation.map(|number| number.0));
    });
}

fn batch(out: &mut Vec<u8>, messages: &[ServerMessage], fill: impl FnOnce(&mut Object<'_>)) {
    message(out, "batch", |m| {
        m.object("metadata", fill);
        list(m.key("messages"), messages, |out, message| message.encode(Level::Resumable, out));
    });
}
