//! A round trip through the codec, over arbitrary bytes.

use alloc::string::String;
use alloc::vec::Vec;

use crate::protocol::limits::Limits;
use crate::protocol::message::{ClientMessage, Level, ServerMessage};
use crate::protocol::name::Collection;
use crate::protocol::percent;
use crate::protocol::unit::{Member, Submission};
use crate::protocol::wire::http::{
    PageAnswer, PageQuery, PushAnswer, decode_pull, decode_push, decode_session, encode_atomic,
    encode_pull, encode_push, encode_session, refusal,
};
use crate::protocol::wire::{Incoming, decode_client, decode_server};

/// Reads bytes as a frame of either end, and as a body and a query of HTTP. Encodes whatever they are
/// read as, and reads it again: it has to be the same. For a fuzzer.
///
/// # Panics
/// When it is not the same.
pub fn reads_what_it_writes(bytes: &[u8]) {
    let limits = Limits::default();
    for message in messages(decode_client(bytes, &limits)) {
        let mut out = Vec::new();
        message.encode(&mut out);
        let again = decode_client(&out, &limits);
        if same_when_sent_on(&message) {
            assert_eq!(again, Ok(Incoming::One(message)));
        } else {
            assert!(again.is_ok(), "{again:?}");
        }
    }
    for message in messages(decode_server(bytes, &limits)) {
        let mut out = Vec::new();
        message.encode(Level::Plain, &mut out);
        assert!(decode_server(&out, &limits).is_ok());
        out.clear();
        message.encode(Level::Resumable, &mut out);
        assert_eq!(decode_server(&out, &limits), Ok(Incoming::<ServerMessage>::One(message)));
    }
    bodies(bytes, &limits);
    if let Ok(text) = core::str::from_utf8(bytes) {
        query(text);
    }
}

fn bodies(body: &[u8], limits: &Limits) {
    let mut out = Vec::new();
    if let Ok(hello) = decode_session(body, limits) {
        encode_session(&hello, &mut out);
        assert_eq!(decode_session(&out, limits), Ok(hello));
    }
    if let Ok(push) = decode_push(body, limits) {
        out.clear();
        let taken: Vec<_> = push.mutations.into_iter().filter_map(Result::ok).collect();
        encode_push(&push.head, taken.iter().map(submitted), &mut out);
        let again = decode_push(&out, limits).expect("what was read can be read again");
        assert_eq!(again.head, push.head);
        assert!(again.mutations.into_iter().eq(taken.into_iter().map(Ok)));
    }
    if let Ok((collection, query)) = decode_pull(body, limits) {
        out.clear();
        encode_pull(&collection, &query, &mut out);
        assert_eq!(decode_pull(&out, limits), Ok((collection, query)));
    }
    if let Ok(answer) = PushAnswer::decode(body, limits) {
        out.clear();
        answer.encode(&mut out);
        assert_eq!(PushAnswer::decode(&out, limits), Ok(answer));
    }
    if let Ok(answer) = PageAnswer::decode(body, limits) {
        out.clear();
        answer.encode(&mut out);
        assert_eq!(PageAnswer::decode(&out, limits), Ok(answer));
    }
    let _ = refusal(body, limits);
}

fn submitted(submission: &Submission) -> Vec<u8> {
    let mut out = Vec::new();
    match submission {
        Submission::One(write) => ClientMessage::Write(write.clone()).encode(&mut out),
        Submission::Unit(unit) => {
            let member = |member: &Member| {
                let mut message = Vec::new();
                member.encode(&mut message);
                message
            };
            encode_atomic(unit.members.iter().map(member), &mut out);
        }
    }
    out
}

fn query(text: &str) {
    let Ok(Some(query)) = parsed(text) else { return };
    let collection = Collection::new("todos").expect("a name");
    let target = query.target(&collection);
    let again = target.split_once('?').map(|(_, again)| parsed(again));
    assert_eq!(again, Some(Ok(Some(query))));
}

fn parsed(query: &str) -> Result<Option<PageQuery>, String> {
    let parameters: Vec<_> = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .filter_map(|(name, value)| Some((name, percent::decode(value, false)?)))
        .collect();
    PageQuery::parse(parameters.iter().map(|(name, value)| (*name, value.as_str())))
}

/// A plain write can only say that a field is null, not that it is removed.
fn same_when_sent_on(message: &ClientMessage) -> bool {
    match message {
        ClientMessage::Write(write) => {
            write.number.is_some() || write.change.delta.unset.is_empty()
        }
        ClientMessage::Auth { .. }
        | ClientMessage::Subscribe { .. }
        | ClientMessage::Unsubscribe { .. }
        | ClientMessage::Sync { .. }
        | ClientMessage::Unit(_)
        | ClientMessage::Ping { .. } => true,
    }
}

fn messages<M, E>(incoming: Result<Incoming<M>, E>) -> Vec<M> {
    match incoming {
        Ok(Incoming::One(message)) => Vec::from([message]),
        Ok(Incoming::Batch(messages)) => messages.into_iter().filter_map(Result::ok).collect(),
        Err(_) => Vec::new(),
    }
}
