//! The calls of level 2: a WebSocket's hello, writes and catch-up, one exchange at a time.

use core::time::Duration;

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;

use super::{Call, ExpectedReply, ReadCall, Reply, Request, Wanted, WriteCall, invalid, reader};
use crate::protocol::message::{
    ErrorCode, ErrorMessage, Features, Hello, Level, ServerMessage, Welcome,
};
use crate::protocol::name::{Collection, MutationNumber, UserId};
use crate::protocol::time::Timestamp;
use crate::protocol::unit::Submission;
use crate::protocol::wire::WireError;
use crate::protocol::wire::http::{
    PageAnswer, PageFrom, PageQuery, PushAnswer, decode_pull, decode_push, decode_session,
};
use crate::rules::page::{
    Content, Next, Page, PageChange, PageLimits, Pulled, ReadRequest, Reader,
};
use crate::rules::policy::{Asker, Policy};
use crate::rules::transaction::{HelloAnswer, Outcome, Push, PushOutcome, Transaction, Verdict};
use crate::server::about::{About, UnitVerdict, known_by_others, too_many_clients};
use crate::server::limits::ServerLimits;
use crate::server::sets::{AskedSet, NamedSet, Place};
use crate::server::sight::Sight;

pub(super) fn session(request: &Request<'_>, limits: &ServerLimits) -> Result<Call, Reply> {
    let hello = decode_session(request.body, &limits.input).map_err(unread)?;
    let Hello { client_id: client, session } = hello;
    let user = request.user.as_ref().map(|user| user.id.clone());
    let transaction = Transaction::Hello { client, user: user.clone(), session };
    Ok(Call::Transact(WriteCall::new(transaction, ExpectedReply::Session { user })))
}

pub(super) fn session_opened(
    answer: HelloAnswer,
    user_id: Option<UserId>,
    now: Timestamp,
    limits: &ServerLimits,
) -> Reply {
    match answer {
        HelloAnswer::Open { database, epoch, last_mutation, last_digest, first_session } => {
            let welcome = Welcome {
                database,
                epoch,
                last_mutation,
                last_digest,
                first_session,
                user_id,
                max_batch_bytes: limits.max_batch_bytes,
                features: Features::OFFERED,
            };
            let pong = ServerMessage::Pong { timestamp: Some(now), welcome: Some(welcome) };
            let mut body = Vec::new();
            pong.encode(Level::Resumable, &mut body);
            Reply::json(200, body)
        }
        HelloAnswer::Superseded => superseded(),
        HelloAnswer::OtherUser => {
            let message = "the client id belongs to another user: take a new one";
            Reply::error(ErrorCode::Unauthorized, message)
        }
        HelloAnswer::TooMany(most) => {
            Reply::error(ErrorCode::RateLimitExceeded, &too_many_clients(most))
        }
    }
}

pub(super) fn push(request: &Request<'_>, limits: &ServerLimits) -> Result<Call, Reply> {
    let push = decode_push(request.body, &limits.input).map_err(unread)?;
    let (writes, unheard) = until_unread(push.mutations)?;
    let transaction = Transaction::Push(Push {
        client: (push.head.client_id, push.head.session),
        user: request.user.clone(),
        epoch: push.head.epoch,
        writes,
    });
    Ok(Call::Transact(WriteCall::new(transaction, ExpectedReply::Push { unheard })))
}

/// The writes up to the first that can't be read, and the verdict on that one. What comes behind
/// it is not looked at.
fn until_unread(
    all: Vec<Result<Submission, WireError>>,
) -> Result<(Vec<Submission>, Option<Box<ErrorMessage>>), Reply> {
    let mut writes: Vec<Submission> = Vec::with_capacity(all.len());
    let mut unheard = None;
    let mut next = None;
    for submission in all {
        let number = match &submission {
            Ok(submission) => submission.first(),
            Err(error) => error.mutation,
        };
        match (number, submission) {
            (None, Err(error)) => return Err(unread(error)),
            (None, Ok(_)) => return Err(invalid("a write that is pushed needs a number")),
            (Some(number), _) if next.is_some_and(|next| next != number) => {
                let message =
                    format!("write {number} follows none: the numbers have to rise by one");
                return Err(invalid(&message));
            }
            (Some(number), Ok(submission)) => {
                next = Some(MutationNumber(number.0 + submission.size() as u64));
                writes.push(submission);
            }
            (Some(_), Err(error)) => {
                unheard = Some(Box::new(error.into()));
                break;
            }
        }
    }
    Ok((writes, unheard))
}

pub(super) fn charge(
    push: &mut Push,
    unheard: &mut Option<Box<ErrorMessage>>,
    take: &mut dyn FnMut(usize) -> Result<(), Duration>,
) {
    // the call itself has paid for one
    let mut paid = 1;
    for place in 0..push.writes.len() {
        let count = push.writes[place].size() - core::mem::take(&mut paid);
        if count == 0 {
            continue;
        }
        if let Err(wait) = take(count) {
            let refused = push.writes.swap_remove(place);
            push.writes.truncate(place);
            let message = "too many writes: slow down";
            let mut error = ErrorMessage {
                retry_after_ms: Some(super::millis(wait)),
                mutation: refused.first(),
                ..ErrorMessage::new(ErrorCode::RateLimitExceeded, message)
            };
            if let Submission::One(refused) = refused {
                error.collection = Some(refused.collection);
                error.record_id = Some(refused.record_id);
            }
            *unheard = Some(Box::new(error));
            return;
        }
    }
}

pub(super) fn pushed(
    outcome: PushOutcome,
    unheard: Option<Box<ErrorMessage>>,
    limits: &ServerLimits,
) -> Reply {
    let (outcomes, last_mutation) = match outcome {
        PushOutcome::Judged { outcomes, last_mutation } => (outcomes, last_mutation),
        PushOutcome::Superseded => return superseded(),
        PushOutcome::OtherEpoch => {
            return Reply::unavailable(
                "the server's database was opened anew since this session began: nothing was \
                 changed, say hello again",
            );
        }
    };
    let mut verdicts = Vec::with_capacity(outcomes.len() + 1);
    let mut failed = false;
    // an answer that would be too large ends early: what has no verdict is told by the next hello
    let mut left = limits.answer_bytes;
    let mut outcomes = outcomes.into_iter().peekable();
    while let Some(outcome) = outcomes.next() {
        let told = match outcome.unit {
            None => told(outcome).map(|(verdict, bytes)| (Vec::from([verdict]), bytes)),
            Some(first) => {
                let mut of_unit = Vec::from([outcome]);
                while let Some(more) = outcomes.next_if(|next| next.unit == Some(first)) {
                    of_unit.push(more);
                }
                told_of_unit(first, of_unit, limits)
            }
        };
        let (mut of_one, bytes) = match told {
            Ok(told) => told,
            Err(reply) => return reply,
        };
        failed = matches!(of_one.last(), Some(ServerMessage::Error(_)));
        verdicts.append(&mut of_one);
        left = left.saturating_sub(bytes);
        if left == 0 {
            failed = true;
            break;
        }
    }
    // of a write that was applied long ago nobody may say that it was not
    let next = Some(last_mutation.next());
    if let Some(error) = unheard.filter(|error| error.mutation == next)
        && !failed
    {
        verdicts.push(ServerMessage::Error(*error));
    }
    let mut body = Vec::new();
    PushAnswer { last_mutation, verdicts }.encode(&mut body);
    Reply::json(200, body)
}

/// The verdicts on a unit, which are never parted, and about how many bytes they have.
fn told_of_unit(
    first: MutationNumber,
    outcomes: Vec<Outcome>,
    limits: &ServerLimits,
) -> Result<(Vec<ServerMessage>, usize), Reply> {
    // an answer has room for one more, and its reader for several
    let most = limits.input.frame_bytes / 2;
    let verdicts = match UnitVerdict::of(first, outcomes, most) {
        UnitVerdict::Applied(acks) => {
            acks.into_iter().map(|member| ServerMessage::Ack(member.ack)).collect()
        }
        UnitVerdict::Failed(error, _) => Vec::from([ServerMessage::Error(*error)]),
        UnitVerdict::Superseded => return Err(superseded()),
        UnitVerdict::OutOfOrder { next } => return Err(out_of_order(first, next)),
    };
    let mut encoded = Vec::new();
    verdicts
        .iter()
        .for_each(|verdict: &ServerMessage| verdict.encode(Level::Resumable, &mut encoded));
    Ok((verdicts, encoded.len()))
}

/// A verdict and about how many bytes it has. What stands for the whole push is the `Err`.
fn told(outcome: Outcome) -> Result<(ServerMessage, usize), Reply> {
    /// About what a verdict has besides a record's content.
    const FRAME: usize = 300;
    let (about, verdict) = About::of(outcome);
    let Some(number) = about.mutation else { return Err(Reply::mixed_up()) };
    Ok(match verdict {
        Verdict::Applied { seq: _, version, echo } => {
            let bytes = FRAME + echo.as_ref().map_or(0, |echo| echo.change.delta.set.size());
            (ServerMessage::Ack(about.ack(number, Some(version), echo)), bytes)
        }
        Verdict::Unchanged { version } => {
            (ServerMessage::Ack(about.ack(number, version, None)), FRAME)
        }
        Verdict::Conflict { current } => {
            let bytes = FRAME + current.change.delta.set.size();
            (ServerMessage::Error(about.conflict(current)), bytes)
        }
        Verdict::Refused { code, message } => {
            (ServerMessage::Error(about.error(code, message)), FRAME)
        }
        Verdict::Superseded => return Err(superseded()),
        Verdict::OutOfOrder { next } => return Err(out_of_order(number, next)),
    })
}

/// Reads a page of the collection that the body names.
pub(super) fn asked_page(
    request: &Request<'_>,
    limits: &ServerLimits,
    policy: &dyn Policy,
) -> Result<Call, Reply> {
    let (collection, query) = decode_pull(request.body, &limits.input).map_err(unread)?;
    let set = AskedSet::read(query.from.scopes.clone());
    match set.map_err(|problem| Reply::error(ErrorCode::InvalidMessage, &problem))? {
        None => pull(request, collection, query, limits, policy),
        Some(set) => pull_set(request, collection, query, set, limits, policy),
    }
}

/// Reads a page of a set of scopes.
fn pull_set(
    request: &Request<'_>,
    collection: Collection,
    query: PageQuery,
    set: AskedSet,
    limits: &ServerLimits,
    policy: &dyn Policy,
) -> Result<Call, Reply> {
    let PageQuery { from, limit, page_bytes, client_id: client } = query;
    let by = Asker::new(request.user.as_ref(), None);
    let Some(granted) = set.grant(from.set, policy, &by, &collection) else {
        return Err(Reply::error(ErrorCode::Unauthorized, "this user may not read the collection"));
    };
    let Sight { access, stamp } = Sight::new(granted.access, policy, &by, &collection);
    let (set, scopes, position) = granted.start(place(&from), false);
    let reader = Reader {
        scopes: Some(scopes),
        collection,
        user: request.user.clone(),
        access,
        stamp,
        whole: false,
    };
    let limits = page_limits(limit, page_bytes, limits);
    let request = ReadRequest::Pull { reader, position, limits, client };
    let wanted = Wanted::Page(Box::new((from, set)));
    Ok(Call::Read(ReadCall::new(request, wanted)))
}

/// The place that the reader has reached.
fn place(from: &PageFrom) -> Place {
    let (cursor, resume) = (from.cursor.clone(), from.resume.clone());
    Place { cursor, resume, rights: from.rights }
}

fn page_limits(
    limit: Option<usize>,
    page_bytes: Option<usize>,
    limits: &ServerLimits,
) -> PageLimits {
    let records = limit.unwrap_or(usize::MAX).min(limits.page.records);
    PageLimits { records, ..limits.page.at_most(page_bytes) }
}

pub(super) fn pull(
    request: &Request<'_>,
    collection: Collection,
    query: PageQuery,
    limits: &ServerLimits,
    policy: &dyn Policy,
) -> Result<Call, Reply> {
    let reader = reader(request, collection, &[], policy)?;
    let PageQuery { from, limit, page_bytes, client_id: client } = query;
    let position = place(&from).start(reader.access, false);
    let limits = page_limits(limit, page_bytes, limits);
    let request = ReadRequest::Pull { reader, position, limits, client };
    let set = NamedSet { number: from.set, ..NamedSet::default() };
    let wanted = Wanted::Page(Box::new((from, set)));
    Ok(Call::Read(ReadCall::new(request, wanted)))
}

pub(super) fn page(reader: &Reader, from: PageFrom, mut set: NamedSet, pulled: Pulled) -> Reply {
    let Pulled { page, database, epoch, last_mutation } = pulled;
    set.refuse(page.opened.as_ref().map_or(&[], |opened| &opened.refused));
    let messages = shown(reader, &set, page);
    let mut body = Vec::new();
    PageAnswer { database, epoch, from, last_mutation, messages }.encode(&mut body);
    Reply::json(200, body)
}

/// A page as the messages that a WebSocket would carry.
fn shown(reader: &Reader, set: &NamedSet, page: Page) -> Vec<ServerMessage> {
    let (collection, partial) = (&reader.collection, reader.access.is_partial());
    let Page { opened, content, next, looked: _ } = page;
    let mut messages = Vec::new();
    let others = opened.as_ref().and_then(|opened| Some((opened.head, opened.others?)));
    messages
        .extend(others.map(|(head, rights)| known_by_others(collection, head, rights, set.number)));
    messages.extend(opened.map(|opened| ServerMessage::Subscribed {
        collection: collection.clone(),
        record_count: (!partial).then_some(opened.count),
        head: Some(opened.head),
        mode: Some(opened.mode),
        partial,
        rights: opened.rights,
        set: set.number,
        refused: set.refused.clone(),
    }));
    match content {
        Content::Changes(changes) => {
            let message = |PageChange { record_id, change, reason }| ServerMessage::Change {
                collection: collection.clone(),
                record_id,
                change,
                reason,
                prev: None,
            };
            messages.extend(changes.into_iter().map(message));
        }
        Content::Snapshot { records, range } => messages.push(ServerMessage::Sync {
            collection: collection.clone(),
            records,
            range: Some(range),
        }),
        load @ Content::Load { .. } => {
            messages.extend(set.page(collection, load).map(ServerMessage::Load));
        }
        Content::Loads(loads) => {
            let loads = loads.into_iter().filter_map(|load| set.page(collection, load));
            messages.extend(loads.map(ServerMessage::Load));
        }
    }
    if let Next::Done { cursor, count, checksum } = next {
        let collection = collection.clone();
        messages.push(ServerMessage::Synced {
            collection,
            cursor,
            count,
            checksum,
            set: set.number,
        });
    }
    messages
}

fn superseded() -> Reply {
    let message = "a newer session of this client exists: say hello again";
    Reply::error(ErrorCode::SessionSuperseded, message)
}

fn out_of_order(number: MutationNumber, next: MutationNumber) -> Reply {
    let message = format!("write {number} came where {next} was next");
    Reply::error(ErrorCode::OutOfOrder, &message)
}

fn unread(error: WireError) -> Reply {
    Reply::error(error.code, &error.message)
}
