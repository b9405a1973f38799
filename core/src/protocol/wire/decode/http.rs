//! Decoding of level 2's bodies over HTTP.

use alloc::format;
use alloc::vec::Vec;

use super::super::super::hash::RightsTag;
use super::super::super::limits::Limits;
use super::super::super::message::{
    ClientMessage, ErrorCode, ErrorMessage, Hello, ServerMessage, kept_text,
};
use super::super::super::name::{
    ClientId, Collection, DatabaseId, Epoch, MutationNumber, SessionNumber,
};
use super::super::super::unit::Submission;
use super::super::WireError;
use super::super::http::{PageAnswer, PageFrom, PageQuery, Push, PushAnswer, PushHead};
use super::cursor::CursorFields;
use super::field::{self, Fault, Field, Fields, fields, required};
use super::{Envelope, client, scopes, server, unit};

fields! {
    /// The fields of client bodies and of refusals.
    struct Body {
        client_id: "clientId",
        collection: "collection",
        cursor: "cursor",
        limit: "limit",
        page_bytes: "pageBytes",
        session: "session",
        rights: "rights",
        set: "set",
        scopes: "scopes",
        epoch: "epoch",
        mutations: "mutations",
        error: "error",
        code: "code",
        retry_after_ms: "retryAfterMs",
    }
}

pub(in super::super) fn session(body: &[u8], limits: &Limits) -> Result<Hello, WireError> {
    read(body, limits).and_then(|body| body.hello()).map_err(Fault::about_nothing)
}

pub(in super::super) fn push(body: &[u8], limits: &Limits) -> Result<Push, WireError> {
    let body = read(body, limits).map_err(Fault::about_nothing)?;
    let (head, mutations) = body.push(limits).map_err(Fault::about_nothing)?;
    let write = |element: Field<'_>| submitted(element, limits);
    Ok(Push { head, mutations: mutations.into_iter().map(write).collect() })
}

pub(in super::super) fn pull(
    body: &[u8],
    limits: &Limits,
) -> Result<(Collection, PageQuery), WireError> {
    read(body, limits).and_then(|body| body.pull()).map_err(Fault::about_nothing)
}

fields! {
    /// An element of a push that is no message.
    struct Element {
        atomic: "atomic",
    }
}

/// A write or unit of a push; other messages are errors here.
fn submitted(element: Field<'_>, limits: &Limits) -> Result<Submission, WireError> {
    let envelope = match Envelope::read(element.json()) {
        Ok(envelope) => envelope,
        Err(error) => {
            let members = element.object::<Element<'_>>("mutations[]");
            let members =
                members.map(|element| element.unwrap_or_default().atomic).unwrap_or_default();
            let members = members.list("mutations[].atomic", limits.batch_messages);
            let Some(members) = members.map_err(Fault::about_nothing)? else { return Err(error) };
            return unit::read(&members, limits).map(Submission::Unit);
        }
    };
    match envelope.open(limits, client)? {
        ClientMessage::Write(mutation) if mutation.number.is_some() => {
            Ok(Submission::One(mutation))
        }
        ClientMessage::Write(_) => Err(envelope.error(Fault::missing("metadata.mutation"))),
        ClientMessage::Auth { .. }
        | ClientMessage::Subscribe { .. }
        | ClientMessage::Unsubscribe { .. }
        | ClientMessage::Sync { .. }
        | ClientMessage::Unit(_)
        | ClientMessage::Ping { .. } => {
            let text = format!("a `{}` can't be pushed: only writes can", envelope.kind);
            Err(envelope.error(Fault::new(text)))
        }
    }
}

pub(in super::super) fn push_answer(body: &[u8], limits: &Limits) -> Result<PushAnswer, WireError> {
    let envelope = answer(body, limits)?;
    let number = last_mutation(&envelope).and_then(|number| required(number, LAST_MUTATION));
    Ok(PushAnswer {
        last_mutation: number.map_err(|fault| envelope.error(fault))?,
        verdicts: messages(&envelope, limits)?,
    })
}

pub(in super::super) fn page_answer(body: &[u8], limits: &Limits) -> Result<PageAnswer, WireError> {
    let envelope = answer(body, limits)?;
    let head = || {
        let m = &envelope.metadata;
        let database = m.database.name("metadata.database", DatabaseId::new)?;
        let epoch = required(m.epoch.name("metadata.epoch", Epoch::new)?, "metadata.epoch")?;
        let from: CursorFields<'_> = required(m.from.object("metadata.from")?, "metadata.from")?;
        let from = page_from(&from, from.rights, (from.set, from.scopes))?;
        let last_mutation = last_mutation(&envelope)?;
        Ok(PageAnswer { database, epoch, from, last_mutation, messages: Vec::new() })
    };
    let head = head().map_err(|fault| envelope.error(fault))?;
    Ok(PageAnswer { messages: messages(&envelope, limits)?, ..head })
}

pub(in super::super) fn refusal(body: &[u8], limits: &Limits) -> Option<ErrorMessage> {
    let body: Body<'_> = read(body, limits).ok()?;
    let code = body.code.text("code").ok()??;
    let message = body.error.text("error").unwrap_or(None);
    Some(ErrorMessage {
        retry_after_ms: body.retry_after_ms.number("retryAfterMs").unwrap_or(None),
        collection: body.collection.name("collection", Collection::new).unwrap_or(None),
        ..ErrorMessage::new(
            ErrorCode::parse(kept_text(&code)),
            kept_text(message.as_deref().unwrap_or_default()),
        )
    })
}

const LAST_MUTATION: &str = "metadata.lastMutation";

fn last_mutation(envelope: &Envelope<'_>) -> Result<Option<MutationNumber>, Fault> {
    Ok(envelope.metadata.last_mutation.number(LAST_MUTATION)?.map(MutationNumber))
}

/// An answer is a `batch` with metadata.
fn answer<'a>(body: &'a [u8], limits: &Limits) -> Result<Envelope<'a>, WireError> {
    let envelope = Envelope::read(text(body, limits).map_err(Fault::about_nothing)?)?;
    if envelope.kind == "batch" {
        return Ok(envelope);
    }
    Err(envelope.error(Fault::new("the answer is not a `batch`")))
}

fn messages(envelope: &Envelope<'_>, limits: &Limits) -> Result<Vec<ServerMessage>, WireError> {
    let list = envelope.fields.messages.list("messages", limits.batch_messages);
    let list = list.and_then(|list| required(list, "messages"));
    let list = list.map_err(|fault| envelope.error(fault))?;
    let one = |message: Field<'_>| Envelope::read(message.json())?.open(limits, server);
    list.into_iter().map(one).collect()
}

fn page_from(
    cursor: &CursorFields<'_>,
    rights: Field<'_>,
    (set, scopes): (Field<'_>, Field<'_>),
) -> Result<PageFrom, Fault> {
    let set = set.number("set")?;
    Ok(PageFrom {
        cursor: cursor.cursor()?,
        resume: cursor.resume()?,
        rights: rights.parsed("rights", RightsTag::parse)?,
        set,
        scopes: scopes::asked(scopes, "scopes", set)?,
    })
}

fn read<'a>(body: &'a [u8], limits: &Limits) -> Result<Body<'a>, Fault> {
    field::object(text(body, limits)?)
}

fn text<'a>(body: &'a [u8], limits: &Limits) -> Result<&'a str, Fault> {
    if body.len() > limits.frame_bytes {
        let (bytes, max) = (body.len(), limits.frame_bytes);
        let text = format!("the body is {bytes} bytes long, at most {max} are allowed");
        return Err(Fault::too_large(text));
    }
    core::str::from_utf8(body).map_err(|_| Fault::new("the body is not valid UTF-8"))
}

impl<'a> Body<'a> {
    fn hello(&self) -> Result<Hello, Fault> {
        let client_id = self.client_id.name("clientId", ClientId::new)?;
        let session = self.session.number("session")?.map(SessionNumber);
        Ok(Hello {
            client_id: required(client_id, "clientId")?,
            session: required(session, "session")?,
        })
    }

    fn pull(&self) -> Result<(Collection, PageQuery), Fault> {
        let collection = self.collection.name("collection", Collection::new)?;
        let cursor: CursorFields<'_> = self.cursor.object("cursor")?.unwrap_or_default();
        let from = page_from(&cursor, self.rights, (self.set, self.scopes))?;
        let limit = self.limit.size("limit")?;
        let page_bytes = self.page_bytes.size("pageBytes")?;
        let client_id = self.client_id.name("clientId", ClientId::new)?;
        Ok((required(collection, "collection")?, PageQuery { from, limit, page_bytes, client_id }))
    }

    fn push(&self, limits: &Limits) -> Result<(PushHead, Vec<Field<'a>>), Fault> {
        let Hello { client_id, session } = self.hello()?;
        let epoch = required(self.epoch.name("epoch", Epoch::new)?, "epoch")?;
        let mutations = self.mutations.list("mutations", limits.batch_messages)?;
        Ok((PushHead { client_id, session, epoch }, required(mutations, "mutations")?))
    }
}
