//! Refused answers by HTTP.
//!
//! The messages of an answer of level 2 count one after the other, as those of a frame do, up to the
//! first that is refused. An answer that is refused as a whole leaves all that the replica holds as it
//! was; only the time of the next try and the words about it differ from case to case.

use std::time::Duration;

use fastrand::Rng;
use serde_json::Value;
use synclayer_core::{Action, EventKind, HttpAnswer, HttpRequest, Input};

use super::any::any_message;
use super::{After, OpenCall, Refusals, State};

/// The purpose of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Purpose {
    Hello,
    Page,
    Push,
    PlainPage,
    PlainPush,
}

impl Purpose {
    fn of(request: &HttpRequest) -> Self {
        match (request.method, &*request.path) {
            (_, "/sync/session") => Self::Hello,
            (_, "/sync/push") => Self::Push,
            (_, "/sync/pull") => Self::Page,
            ("GET", path) if path.contains("?epoch=") => Self::Page,
            ("GET", _) => Self::PlainPage,
            (_, _) => Self::PlainPush,
        }
    }

    /// The name of its refusals.
    fn name(self) -> &'static str {
        match self {
            Self::Hello => "answers to a hello",
            Self::Page => "answers to a pull",
            Self::Push => "answers to a push",
            Self::PlainPage => "plain answers to a pull",
            Self::PlainPush => "plain answers to a push",
        }
    }

    /// The kinds of messages that have a place in its answer.
    fn kinds(self) -> &'static str {
        match self {
            Self::Push => "ack ack error error news",
            Self::Hello | Self::Page | Self::PlainPage | Self::PlainPush => {
                "subscribed sync sync synced insert update delete news"
            }
        }
    }
}

/// A message that has no place in any answer to a pull or push.
const OUT_OF_PLACE: &str = r#"{"type":"pong"}"#;

/// Hands two answers to copies of the replica: one that is no success or can't be read, and one whose
/// messages are not quite those of the server.
pub(super) fn check(
    state: &State<'_>,
    call: &OpenCall<'_>,
    draw: &mut Rng,
    refusals: &mut Refusals,
) -> Result<(), String> {
    let purpose = Purpose::of(&call.ticket.request);
    check_whole(state, call, &any_answer(draw, purpose, call), refusals)?;
    if let Some((head, messages)) = any_list(draw, purpose, call) {
        check_list(state, call, &head, &messages, refusals)?;
    }
    Ok(())
}

/// An answer that is refused as a whole changes nothing but what is sent next, perhaps as if there were
/// none. Where a pull fails, writes go out without it, for which a cursor may be given up, or are judged
/// by the pulls before it: that is the same however it fails.
fn check_whole(
    state: &State<'_>,
    call: &OpenCall<'_>,
    answer: &HttpAnswer,
    refusals: &mut Refusals,
) -> Result<(), String> {
    let (purpose, after) =
        (Purpose::of(&call.ticket.request), state.answered(call, answer.clone()));
    if after.words().is_empty() && !after.asks_for_token() {
        return Ok(());
    }
    refusals.count(purpose.name());
    let before = After { replica: state.replica.clone(), actions: Vec::new() };
    let lost = state.answered(call, HttpAnswer::Failed("lost".into()));
    let mut same = after.holds_as(&before) || after.holds_as(&lost);
    if !same && (purpose == Purpose::Page || after.settles_writes()) {
        same = after.holds_as(&state.answered(call, ok(b"not JSON".to_vec())));
    }
    let broken = || format!("a refused answer has changed what is held: {}", shown(answer));
    if same { Ok(()) } else { Err(broken()) }
}

/// The reasons for which an answer is refused before any of its messages counts.
const OF_THE_WHOLE: [&str; 2] = ["can't be read", ACKS_APART];
/// The reason for which a list of messages is refused before any of them counts, by either transport.
pub(super) const ACKS_APART: &str = "the acks of a transaction do not come together";

/// A message that is refused among others is as good as one that has no place there.
fn check_list(
    state: &State<'_>,
    call: &OpenCall<'_>,
    head: &str,
    messages: &[String],
    refusals: &mut Refusals,
) -> Result<(), String> {
    let answer = |messages: &[String]| {
        ok(format!(r#"{{"type":"batch","metadata":{head},"messages":[{}]}}"#, messages.join(","))
            .into())
    };
    let after = |messages: &[String]| state.answered(call, answer(messages));
    let stopped = |count: usize| {
        let out_of_place = [OUT_OF_PLACE.into()];
        after(&[&messages[..count], &out_of_place].concat())
    };
    let (whole, beyond) = (after(messages), stopped(messages.len()));
    let (words, others) = (whole.words(), beyond.words());
    if words.iter().any(|word| OF_THE_WHOLE.iter().any(|why| word.contains(why))) {
        return check_whole(state, call, &answer(messages), refusals);
    }
    if messages.is_empty() || words.is_empty() || words.len() != others.len() {
        return Ok(());
    }
    let as_refused = if words == others {
        match (0..messages.len()).find(|count| stopped(*count).words() == words) {
            // before any message counts
            Some(0) => return check_whole(state, call, &answer(messages), refusals),
            // the messages behind the last one that counts are told of as one is
            Some(count) => stopped(count - 1),
            None => stopped(messages.len() - 1),
        }
    } else {
        // by what it lacks at its end
        beyond
    };
    if as_refused.words().len() != words.len() {
        // the exchange ended in another way
        return Ok(());
    }
    refusals.count("messages of an answer");
    whole.is_as(&as_refused).map_err(|what| {
        format!("a refused message of an answer has changed {what}: {}", shown(&answer(messages)))
    })
}

impl State<'_> {
    /// The state after an answer.
    fn answered(&self, call: &OpenCall<'_>, answer: HttpAnswer) -> After {
        self.after(Input::Answered { request: call.ticket.id, answer })
    }
}

impl After {
    /// Says what the replica tells of failures, unless its store has failed.
    fn words(&self) -> Vec<&str> {
        if self.halts() {
            return Vec::new();
        }
        self.events().filter_map(word).collect()
    }

    fn settles_writes(&self) -> bool {
        self.events().any(|kind| matches!(kind, EventKind::OperationSynced { .. }))
    }

    fn asks_for_token(&self) -> bool {
        self.events().any(|kind| matches!(kind, EventKind::TokenNeeded { .. }))
    }

    fn events(&self) -> impl Iterator<Item = &EventKind> {
        self.actions.iter().filter_map(|action| {
            let Action::Event(event) = action else { return None };
            Some(&event.kind)
        })
    }
}

fn word(kind: &EventKind) -> Option<&str> {
    if let EventKind::Error { message, .. }
    | EventKind::SyncFailed { message, .. }
    | EventKind::NoServer { message } = kind
    {
        return Some(message);
    }
    None
}

fn shown(answer: &HttpAnswer) -> String {
    match answer {
        HttpAnswer::Answered { status, body, .. } => {
            format!("{status} {}", String::from_utf8_lossy(body))
        }
        HttpAnswer::Failed(why) => why.to_string(),
    }
}

fn ok(body: Vec<u8>) -> HttpAnswer {
    HttpAnswer::Answered { status: 200, retry_after: None, body }
}

/// An answer that is no success, or can't be read.
fn any_answer(draw: &mut Rng, purpose: Purpose, call: &OpenCall<'_>) -> HttpAnswer {
    let statuses: &[u16] = match purpose {
        // the others say something about the write, which may be believed
        Purpose::PlainPush => &[401, 418, 429, 500, 503],
        // after a 413 another session is opened at once, for smaller pushes
        Purpose::Push => &[200, 200, 302, 400, 401, 403, 404, 409, 429, 500, 503],
        // the others refuse the collection for good: its writes are judged without reading it
        Purpose::PlainPage => &[200, 200, 302, 401, 405, 409, 410, 422, 429, 500, 501, 503],
        Purpose::Hello | Purpose::Page => {
            &[200, 200, 302, 400, 401, 403, 404, 405, 409, 410, 413, 422, 429, 500, 501, 503]
        }
    };
    let status = statuses[draw.usize(..statuses.len())];
    let codes =
        ["AUTH_FAILED", "UNAUTHORIZED", "SERVER_ERROR", "OUT_OF_ORDER", "RATE_LIMIT_EXCEEDED"];
    let code = codes[draw.usize(..codes.len())];
    let mut body = match (draw.u8(..4), &call.answer) {
        (0, Some((_, body))) => body.clone(),
        (0 | 1, _) => any_message(draw, purpose.kinds()).into(),
        (2, _) => b"<html>no</html>".to_vec(),
        (_, _) => format!(r#"{{"error":"no","code":"{code}"}}"#).into(),
    };
    if status == 200 {
        body.truncate(draw.usize(..=body.len()).saturating_sub(1));
    }
    let retry_after = (draw.u8(..4) == 0).then_some(Duration::from_secs(7));
    HttpAnswer::Answered { status, retry_after, body }
}

/// The parts of the server's answer, with some of its messages left out, said again, or others among
/// them.
fn any_list(
    draw: &mut Rng,
    purpose: Purpose,
    call: &OpenCall<'_>,
) -> Option<(String, Vec<String>)> {
    let (Purpose::Page | Purpose::Push, Some((200, body))) = (purpose, &call.answer) else {
        return None;
    };
    let answer: Value = serde_json::from_slice(body).ok()?;
    let mut head = answer.get("metadata")?.clone();
    if draw.u8(..8) == 0 {
        head["lastMutation"] = draw.u64(..9).into();
    }
    let messages = answer.get("messages")?.as_array()?;
    let mut messages: Vec<_> = messages.iter().map(Value::to_string).collect();
    for _ in 0..draw.usize(1..4) {
        let at = draw.usize(..=messages.len());
        match (draw.u8(..4), messages.get(at).cloned()) {
            (0, Some(_)) => drop(messages.remove(at)),
            (1, Some(message)) => messages.push(message),
            (_, _) => messages.insert(at, any_message(draw, purpose.kinds())),
        }
    }
    Some((head.to_string(), messages))
}
