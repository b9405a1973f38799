//! What goes over the wire.

use synclayer_core::words::limits::Limits;
use synclayer_core::words::message::{ClientMessage, Level, ServerMessage};
use synclayer_core::words::wire::{Incoming, decode_client, decode_server};

/// Reads a frame as both ends would. Whatever was understood is understood the same when it is
/// sent on.
///
/// # Panics
/// When it is not: that is what the fuzzer looks for.
pub fn wire(frame: &[u8]) {
    let limits = Limits::default();
    for message in messages(decode_client(frame, &limits)) {
        let mut out = Vec::new();
        message.encode(&mut out);
        let again = decode_client(&out, &limits);
        if same_when_sent_on(&message) {
            assert_eq!(again, Ok(Incoming::One(message)));
        } else {
            assert!(again.is_ok(), "{again:?}");
        }
    }
    for message in messages(decode_server(frame, &limits)) {
        let mut out = Vec::new();
        message.encode(Level::Plain, &mut out);
        assert!(decode_server(&out, &limits).is_ok());
        out.clear();
        message.encode(Level::Resumable, &mut out);
        assert_eq!(decode_server(&out, &limits), Ok(Incoming::<ServerMessage>::One(message)));
    }
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
        | ClientMessage::Ping { .. } => true,
    }
}

fn messages<M, E>(incoming: Result<Incoming<M>, E>) -> Vec<M> {
    match incoming {
        Ok(Incoming::One(message)) => vec![message],
        Ok(Incoming::Batch(messages)) => messages.into_iter().filter_map(Result::ok).collect(),
        Err(_) => Vec::new(),
    }
}
