//! Level 2 over HTTP: encoding and decoding of bodies and queries.
//!
//! | call | asks with | answers with |
//! | --- | --- | --- |
//! | `POST /sync/session` | [`Hello`] | a `pong`, as on a WebSocket |
//! | `POST /sync/push` | [`Push`] | [`PushAnswer`] |
//! | `POST /sync/pull` | a collection and a [`PageQuery`] | [`PageAnswer`] |
//! | `GET /sync/{collection}?epoch=…` | [`PageQuery`] | [`PageAnswer`] |
//!
//! The last two are one call. The first of them is for servers whose pong names the feature `pull`:
//! a name in a body arrives as it was sent, and no cache keeps a `POST`.
//!
//! Every other answer is a [`refusal`].
//!
//! A page is like a `subscribe` and its first answers. It opens with a `subscribed` if a run
//! begins, or begins anew. A client drops a page whose `from` or `epoch` differs from its own (that
//! of its last hello), and begins with a hello. A pull needs no hello of its own.

use core::fmt::Write;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::super::hash::RightsTag;
use super::super::limits::Limits;
use super::super::message::{Cursor, ErrorMessage, Hello, Resume, ServerMessage};
use super::super::name::{
    ClientId, Collection, DatabaseId, Epoch, MutationNumber, RecordId, Seq, SessionNumber,
};
use super::super::percent;
use super::super::scopes::AskedScope;
use super::super::unit::Submission;
use super::{WireError, decode, encode};

/// The path of a hello.
pub(crate) const SESSION_PATH: &str = "/sync/session";

/// The path of a push.
pub(crate) const PUSH_PATH: &str = "/sync/push";

/// The path of a pull.
pub(crate) const PULL_PATH: &str = "/sync/pull";

/// The path of a call of a later version: no level-1 call can be posted there.
pub(crate) const TRANSACTION_PATH: &str = "/sync/transaction";

/// The fields of a push before its writes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct PushHead {
    /// The replica.
    pub client_id: ClientId,
    /// The session that the last hello opened.
    pub session: SessionNumber,
    /// The epoch that the hello's pong named. The bases of the writes are seqs of this epoch's
    /// history; a server that was reopened since refuses the push.
    pub epoch: Epoch,
}

/// A push, as decoded by the server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Push {
    /// The client, session and epoch of the writes.
    pub head: PushHead,
    /// The writes and units in order, each decoded on its own.
    pub mutations: Vec<Result<Submission, WireError>>,
}

/// The answer to a push.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PushAnswer {
    /// The number of the client's last applied write after the push.
    pub last_mutation: MutationNumber,
    /// The verdicts in the order of the numbers: acks out of place, and at most one error, as the
    /// last one. The writes behind the error were not judged.
    pub verdicts: Vec<ServerMessage>,
}

/// The position at which a page begins. The client sends it, and the page returns it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct PageFrom {
    /// The cursor; without it the page is of a snapshot.
    pub cursor: Option<Cursor>,
    /// The position in an interrupted catch-up from the cursor.
    pub resume: Option<Resume>,
    /// The rights by which that was reached.
    pub rights: Option<RightsTag>,
    /// The number of the set.
    pub set: Option<u64>,
    /// The scopes of the set; empty for the whole collection. A [`target`](PageQuery::target) has
    /// none.
    pub scopes: Vec<AskedScope>,
}

/// The parameters of a page request.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct PageQuery {
    /// The position at which the page begins.
    pub from: PageFrom,
    /// The maximal number of records; the server has a limit of its own.
    pub limit: Option<usize>,
    /// The most bytes of a page that the client wants; the server has a limit of its own.
    pub page_bytes: Option<usize>,
    /// The client whose last mutation the page returns.
    pub client_id: Option<ClientId>,
}

/// A page of a catch-up, read from one view of the server's rows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PageAnswer {
    /// The identity of the server's database; `None` if the server does not tell.
    pub database: Option<DatabaseId>,
    /// The server's current epoch, to which the page's seqs belong.
    pub epoch: Epoch,
    /// The position that was asked for.
    pub from: PageFrom,
    /// The number of the last applied write of the client in the request, if the server knows it as
    /// a client of this user.
    pub last_mutation: Option<MutationNumber>,
    /// `subscribed`; then changes, or a `sync`; then, on the last page, `synced`.
    pub messages: Vec<ServerMessage>,
}

/// Appends the body of a hello.
pub(crate) fn encode_session(hello: &Hello, out: &mut Vec<u8>) {
    encode::http::session(hello, out);
}

/// Reads the body of a hello.
///
/// # Errors
/// When it is not JSON of that form.
pub(crate) fn decode_session(body: &[u8], limits: &Limits) -> Result<Hello, WireError> {
    decode::http::session(body, limits)
}

/// Appends the body of a push. The writes are already encoded, as
/// [`ClientMessage::Write`](super::ClientMessage::Write) is, and units as [`encode_atomic`] does.
pub(crate) fn encode_push<M: AsRef<[u8]>>(
    head: &PushHead,
    writes: impl IntoIterator<Item = M>,
    out: &mut Vec<u8>,
) {
    encode::http::push(head, writes, out);
}

/// Appends a unit as an element of a push. Its members are already encoded, as
/// [`Member::encode`](super::super::unit::Member::encode) does.
pub(crate) fn encode_atomic<M: AsRef<[u8]>>(
    members: impl IntoIterator<Item = M>,
    out: &mut Vec<u8>,
) {
    encode::unit::atomic(members, out);
}

/// Reads the body of a push.
///
/// # Errors
/// When anything but the content of a single write is unreadable.
pub(crate) fn decode_push(body: &[u8], limits: &Limits) -> Result<Push, WireError> {
    decode::http::push(body, limits)
}

/// Appends the body that asks for a page of a collection.
pub(crate) fn encode_pull(collection: &Collection, query: &PageQuery, out: &mut Vec<u8>) {
    encode::http::pull(collection, query, out);
}

/// Reads the body that asks for a page of a collection.
///
/// # Errors
/// When it is not JSON of that form.
pub(crate) fn decode_pull(
    body: &[u8],
    limits: &Limits,
) -> Result<(Collection, PageQuery), WireError> {
    decode::http::pull(body, limits)
}

impl PushAnswer {
    /// Appends the body.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        encode::http::push_answer(self, out);
    }

    /// Reads the body.
    ///
    /// # Errors
    /// When any part of it can't be read.
    pub(crate) fn decode(body: &[u8], limits: &Limits) -> Result<Self, WireError> {
        decode::http::push_answer(body, limits)
    }
}

impl PageAnswer {
    /// Appends the body.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        encode::http::page_answer(self, out);
    }

    /// Reads the body.
    ///
    /// # Errors
    /// When any part of it can't be read.
    pub(crate) fn decode(body: &[u8], limits: &Limits) -> Result<Self, WireError> {
        decode::http::page_answer(body, limits)
    }
}

/// Decodes an answer that is no success, if its body is this protocol's `{"error": …, "code": …,
/// "retryAfterMs": …}`. `None` for a proxy's HTML.
#[must_use]
pub(crate) fn refusal(body: &[u8], limits: &Limits) -> Option<ErrorMessage> {
    decode::http::refusal(body, limits)
}

impl PageQuery {
    /// The path and query of a page request.
    #[must_use]
    pub(crate) fn target(&self, collection: &Collection) -> String {
        let mut out = String::from("/sync/");
        percent::encode_segment(collection, &mut out);
        out.push_str("?epoch=");
        if let Some(Cursor { epoch, seq }) = &self.from.cursor {
            percent::encode(epoch, &mut out);
            // formatting into a text can't fail
            let _ = write!(out, "&seq={seq}");
        }
        if let Some(resume) = &self.from.resume {
            out.push_str("&resume=");
            percent::encode(&resume_text(resume), &mut out);
        }
        if let Some(rights) = self.from.rights {
            let _ = write!(out, "&rights={rights}");
        }
        if let Some(limit) = self.limit {
            let _ = write!(out, "&limit={limit}");
        }
        if let Some(bytes) = self.page_bytes {
            let _ = write!(out, "&pageBytes={bytes}");
        }
        if let Some(client) = &self.client_id {
            out.push_str("&clientId=");
            percent::encode(client, &mut out);
        }
        out
    }

    /// Decodes the parameters of a query, percent-decoded. `None` if there is no `epoch`: the query
    /// is a plain one. Unknown parameters are skipped.
    ///
    /// # Errors
    /// A text for people that says what is wrong.
    pub(crate) fn parse<'a>(
        parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Option<Self>, String> {
        let (mut epoch, mut seq, mut query) = (None, "", Self::default());
        for (name, value) in parameters {
            match name {
                "epoch" => epoch = Some(value),
                "seq" => seq = value,
                "resume" if !value.is_empty() => query.from.resume = Some(parse_resume(value)?),
                "rights" if !value.is_empty() => {
                    let rights = RightsTag::parse(value);
                    query.from.rights =
                        Some(rights.ok_or("`rights` has to be 16 hexadecimal digits")?);
                }
                "limit" => query.limit = Some(integer(name, value)?),
                "pageBytes" => query.page_bytes = Some(integer(name, value)?),
                "clientId" if !value.is_empty() => {
                    let client = ClientId::new(value);
                    query.client_id =
                        Some(client.map_err(|error| format!("`clientId` can't be used: {error}"))?);
                }
                _ => {}
            }
        }
        let Some(epoch) = epoch else { return Ok(None) };
        query.from.cursor = match (epoch, seq) {
            ("", "") => None,
            ("", _) | (_, "") => {
                return Err("`epoch` and `seq` belong together: leave both empty, or none".into());
            }
            (epoch, seq) => {
                Some(Cursor { epoch: parse_epoch(epoch)?, seq: parse_seq("seq", seq)? })
            }
        };
        Ok(Some(query))
    }
}

/// `delta:EPOCH:SEQ` or `snapshot:EPOCH:SNAPSHOTSEQ:AFTER`, the epoch percent-encoded, so that it
/// holds no colon.
fn resume_text(resume: &Resume) -> String {
    let mut out = String::new();
    match resume {
        Resume::Delta { epoch, seq } => {
            out.push_str("delta:");
            percent::encode(epoch, &mut out);
            let _ = write!(out, ":{seq}");
        }
        Resume::Snapshot { epoch, snapshot_seq, after } => {
            out.push_str("snapshot:");
            percent::encode(epoch, &mut out);
            let _ = write!(out, ":{snapshot_seq}:{after}");
        }
    }
    out
}

fn parse_resume(text: &str) -> Result<Resume, String> {
    let form = || {
        String::from("`resume` is neither `delta:EPOCH:SEQ` nor `snapshot:EPOCH:SNAPSHOTSEQ:AFTER`")
    };
    let (kind, rest) = text.split_once(':').ok_or_else(form)?;
    let (epoch, rest) = rest.split_once(':').ok_or_else(form)?;
    let epoch = parse_epoch(&percent::decode(epoch, false).ok_or_else(form)?)?;
    match kind {
        "delta" => Ok(Resume::Delta { epoch, seq: parse_seq("resume", rest)? }),
        "snapshot" => {
            let (seq, after) = rest.split_once(':').ok_or_else(form)?;
            let after = RecordId::new(after)
                .map_err(|error| format!("the id in `resume` can't be used: {error}"))?;
            Ok(Resume::Snapshot { epoch, snapshot_seq: parse_seq("resume", seq)?, after })
        }
        _ => Err(form()),
    }
}

fn parse_epoch(text: &str) -> Result<Epoch, String> {
    Epoch::new(text).map_err(|error| format!("the epoch can't be used: {error}"))
}

/// A seq below 2⁵³.
fn parse_seq(name: &str, text: &str) -> Result<Seq, String> {
    let seq: u64 = integer(name, text)?;
    if seq < 1 << 53 { Ok(Seq(seq)) } else { Err(format!("the seq in `{name}` is too large")) }
}

fn integer<N: core::str::FromStr>(name: &str, text: &str) -> Result<N, String> {
    text.parse().map_err(|_| format!("`{name}` is not a number"))
}

#[cfg(test)]
mod tests;
