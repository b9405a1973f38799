//! The HTTP API as a pure function: a request becomes a reply, or a transaction or a read whose
//! outcome becomes one. Adapters only move the bytes.
//!
//! ```text
//! request.call(…) ─┬─ Call::Immediate(reply)
//!                   ├─ Call::Transact(write)   write.transaction() … write.reply(outcome)
//!                   └─ Call::Read(read)        read.request()      … read.reply(outcome)
//! ```

mod grounds;
mod plain;
mod resumable;
mod transaction;

use core::time::Duration;

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use self::grounds::Grounds;
use super::about::hide_records;
use super::limits::ServerLimits;
use super::sets::NamedSet;
use super::sight::Sight;
use crate::protocol::document::write_json_string;
use crate::protocol::message::{ErrorCode, ErrorMessage};
use crate::protocol::name::{Collection, RecordId, UserId};
use crate::protocol::percent;
use crate::protocol::time::Timestamp;
use crate::protocol::wire::http::{
    PULL_PATH, PUSH_PATH, PageFrom, PageQuery, SESSION_PATH, TRANSACTION_PATH,
};
use crate::protocol::write::WriteKind;
use crate::rules::page::{ReadAnswer, ReadRequest, Reader};
use crate::rules::policy::{Access, Asker, Policy, User};
use crate::rules::transaction::{TransactError, Transaction, TransactionAnswer};
use crate::store::StoreError;

/// The time after which a scope may be asked for again whose rows are being built.
pub(crate) const BUILDING: Duration = Duration::from_secs(1);

/// A request as it came, its token checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request<'a> {
    /// The method, in upper case.
    pub method: &'a str,
    /// The path, percent-encoded, without the query.
    pub path: &'a str,
    /// The text behind the `?`, percent-encoded; empty if there is none.
    pub query: &'a str,
    /// The body.
    pub body: &'a [u8],
    /// The user of its token; `None` if the server knows no users.
    pub user: Option<User>,
}

/// The need of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Call {
    /// Nothing: this is the reply.
    Immediate(Reply),
    /// A transaction.
    Transact(WriteCall),
    /// A read.
    Read(ReadCall),
}

/// A request that writes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WriteCall {
    transaction: Transaction,
    expected: ExpectedReply,
    grounds: Grounds,
}

/// The reply that a request that writes expects.
#[derive(Clone, PartialEq, Eq, Debug)]
enum ExpectedReply {
    /// The state of a session.
    Session { user: Option<UserId> },
    /// Verdicts. A write that never came to be judged has its own, behind those that did.
    Push { unheard: Option<Box<ErrorMessage>> },
    /// The verdict on the one write.
    Plain { record_id: RecordId, kind: WriteKind },
    /// The verdicts on the writes of a level-1 transaction.
    PlainUnit,
}

/// A request that reads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadCall {
    request: ReadRequest,
    wanted: Wanted,
    grounds: Grounds,
}

/// The reply that a request that reads expects.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Wanted {
    /// The records that a query finds.
    Records,
    /// The one record.
    Record,
    /// The page of a catch-up that begins here, of a set of scopes if it names any.
    Page(Box<(PageFrom, NamedSet)>),
}

/// The reply to a request.
///
/// ```
/// use synclayer_core::{ErrorCode, Reply};
///
/// let reply = Reply::error(ErrorCode::AuthFailed, "the token is wrong");
/// assert_eq!(reply.status, 401);
/// assert!(reply.headers.contains(&("www-authenticate", "Bearer".into())));
/// assert_eq!(reply.body, br#"{"error":"the token is wrong","code":"AUTH_FAILED"}"#);
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The headers, their names in lower case.
    pub headers: Vec<(&'static str, Cow<'static, str>)>,
    /// The body: JSON, or nothing.
    pub body: Vec<u8>,
}

impl Request<'_> {
    /// Turns a request into its reply, or into what its reply needs.
    ///
    /// ```
    /// use synclayer_core::{AllowAll, Call, MemoryRows, Request, ServerLimits};
    ///
    /// let (limits, rows) = (ServerLimits::default(), MemoryRows::default());
    /// let (path, query) = ("/sync/todos", "limit=10");
    /// let request = Request { method: "GET", path, query, body: b"", user: None };
    /// let Call::Read(read) = request.call(&limits, &AllowAll) else { panic!("it reads") };
    /// let found = read.request().run(&rows, &AllowAll);
    /// let reply = read.reply(&AllowAll, found);
    /// assert_eq!((reply.status, &*reply.body), (200, &br#"{"records":[],"protocol":2}"#[..]));
    /// ```
    #[must_use]
    pub fn call(&self, limits: &ServerLimits, policy: &dyn Policy) -> Call {
        match plan(self, limits, policy).unwrap_or_else(Call::Immediate) {
            Call::Transact(write) => {
                let grounds = Grounds::of_writes(&write.transaction, self.user.as_ref(), policy);
                Call::Transact(WriteCall { grounds, ..write })
            }
            Call::Read(read) => {
                let collections = [&read.request.reader().collection];
                let grounds = Grounds::new(collections, self.user.as_ref(), policy);
                Call::Read(ReadCall { grounds, ..read })
            }
            immediate @ Call::Immediate(_) => immediate,
        }
    }
}

/// A refusal is the `Err`.
fn plan(request: &Request<'_>, limits: &ServerLimits, policy: &dyn Policy) -> Result<Call, Reply> {
    let max = limits.input.frame_bytes;
    if request.body.len() > max {
        let message = format!("the body has {} bytes, at most {max} are read", request.body.len());
        return Err(Reply::error(ErrorCode::PayloadTooLarge, &message));
    }
    match (request.method, request.path) {
        ("POST", SESSION_PATH) => return resumable::session(request, limits),
        ("POST", PUSH_PATH) => return resumable::push(request, limits),
        ("POST", PULL_PATH) => return resumable::asked_page(request, limits, policy),
        ("POST", TRANSACTION_PATH) => return transaction::call(request, limits),
        _ => {}
    }
    let (collection, record) = target(request.path)?;
    match (request.method, record) {
        ("GET", None) => {
            let parameters = parameters(request.query)?;
            match page_query(&parameters)? {
                Some(query) => resumable::pull(request, collection, query, limits, policy),
                None => plain::query(request, collection, parameters, limits, policy),
            }
        }
        ("POST", None) => plain::insert(request, collection, limits),
        ("GET", Some(record)) => {
            let parameters = parameters(request.query)?;
            plain::record(request, collection, record, parameters, limits, policy)
        }
        ("PATCH", Some(record)) => plain::update(request, collection, record, limits),
        ("DELETE", Some(record)) => Ok(plain::delete(request, collection, record)),
        (_, None) => Err(Reply::not_allowed("GET, POST")),
        (_, Some(_)) => Err(Reply::not_allowed("GET, PATCH, DELETE")),
    }
}

/// The parameters of a query, decoded.
fn parameters(query: &str) -> Result<Vec<(String, String)>, Reply> {
    let decoded = |part: &str| {
        percent::decode(part, true)
            .ok_or_else(|| invalid("the query is not valid percent-encoding"))
    };
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Ok((decoded(name)?, decoded(value)?))
    };
    query.split('&').filter(|pair| !pair.is_empty()).map(pair).collect()
}

/// The query of a page at level 2, which is known by its `epoch`.
fn page_query(parameters: &[(String, String)]) -> Result<Option<PageQuery>, Reply> {
    let parameters = parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    PageQuery::parse(parameters).map_err(|message| invalid(&message))
}

/// The reader of a collection, or of the scope of it with these parts, unless the policy says no.
fn reader(
    request: &Request<'_>,
    collection: Collection,
    scope: &[(String, String)],
    policy: &dyn Policy,
) -> Result<Reader, Reply> {
    let by = Asker::new(request.user.as_ref(), None);
    let access = match scope {
        [] => policy.access(&by, &collection),
        parts => policy.access_to_scope(&by, &collection, parts),
    };
    if access == Access::None {
        return Err(Reply::error(ErrorCode::Unauthorized, "this user may not read the collection"));
    }
    let Sight { access, stamp } = Sight::new(access, policy, &by, &collection);
    let user = request.user.clone();
    Ok(Reader { collection, user, access, stamp, whole: false, scopes: None })
}

/// The names in `/sync/{collection}` and `/sync/{collection}/{recordId}`.
fn target(path: &str) -> Result<(Collection, Option<RecordId>), Reply> {
    let unknown = || {
        let message = "there is nothing here: the calls are /sync/{collection} and \
                       /sync/{collection}/{recordId}";
        Reply::error(ErrorCode::CollectionNotFound, message)
    };
    let mut parts = path.strip_prefix("/sync/").ok_or_else(unknown)?.split('/');
    let name = |part: &str, what: &str| -> Result<String, Reply> {
        percent::decode(part, false).ok_or_else(|| {
            invalid(&format!("the {what} in the path is not valid percent-encoding"))
        })
    };
    let collection = name(parts.next().unwrap_or_default(), "collection")?;
    let collection = Collection::new(&collection)
        .map_err(|error| invalid(&format!("the collection's name is not valid: {error}")))?;
    let record = parts.next().map(|part| name(part, "record id")).transpose()?;
    let record = record
        .map(|id| RecordId::new(&id))
        .transpose()
        .map_err(|error| invalid(&format!("the record id is not valid: {error}")))?;
    if parts.next().is_some() { Err(unknown()) } else { Ok((collection, record)) }
}

fn invalid(message: &str) -> Reply {
    Reply::error(ErrorCode::InvalidMessage, message)
}

impl WriteCall {
    fn new(transaction: Transaction, expected: ExpectedReply) -> Self {
        Self { transaction, expected, grounds: Grounds::default() }
    }

    /// The transaction to decide and commit.
    #[must_use]
    pub fn transaction(&self) -> &Transaction {
        &self.transaction
    }

    /// Pays for the writes of a push, of which the first is paid for by the call itself. `take` takes
    /// this number of tokens at once. Those from the first on that it does not allow, and says how long
    /// to wait, are refused.
    ///
    /// # Errors
    /// With the reply, if the call as a whole is refused.
    pub fn charge(
        &mut self,
        take: &mut dyn FnMut(usize) -> Result<(), Duration>,
    ) -> Result<(), Reply> {
        if let (Transaction::Push(push), ExpectedReply::Push { unheard }) =
            (&mut self.transaction, &mut self.expected)
        {
            resumable::charge(push, unheard, take);
        }
        if let Transaction::PlainUnit(unit) = &self.transaction
            && unit.writes.len() > 1
        {
            take(unit.writes.len() - 1).map_err(Reply::slow_down)?;
        }
        Ok(())
    }

    /// The reply, once the outcome is durable or known to be missing. If the user's rights have changed since
    /// the call came, it shows no record: a conflict is to be tried again (`SERVER_ERROR`).
    #[must_use]
    pub fn reply(
        self,
        now: Timestamp,
        limits: &ServerLimits,
        policy: &dyn Policy,
        mut outcome: Result<TransactionAnswer, TransactError>,
    ) -> Reply {
        if let Ok(answer) = &mut outcome
            && !self.grounds.hold(policy)
        {
            hide_records(answer);
        }
        match (self.expected, outcome) {
            (ExpectedReply::Session { user }, Ok(TransactionAnswer::Hello(answer))) => {
                resumable::session_opened(answer, user, now, limits)
            }
            (ExpectedReply::Push { unheard }, Ok(TransactionAnswer::Pushed(outcome))) => {
                resumable::pushed(outcome, unheard, limits)
            }
            (ExpectedReply::Plain { record_id, kind }, Ok(TransactionAnswer::Plain(outcome))) => {
                plain::written(record_id, kind, outcome)
            }
            (ExpectedReply::PlainUnit, Ok(TransactionAnswer::PlainUnit(outcomes))) => {
                transaction::reply(&outcomes)
            }
            (
                _,
                Ok(
                    TransactionAnswer::Hello(_)
                    | TransactionAnswer::Writes(_)
                    | TransactionAnswer::Pushed(_)
                    | TransactionAnswer::Plain(_)
                    | TransactionAnswer::PlainUnit(_)
                    | TransactionAnswer::Swept(_)
                    | TransactionAnswer::Begun,
                ),
            ) => Reply::mixed_up(),
            (_, Err(TransactError::Failed(_))) => {
                Reply::unavailable("the server's database failed: nothing was changed, try again")
            }
            (_, Err(TransactError::Unknown(_))) => Reply::error(
                ErrorCode::ServerError,
                "the server's database failed: the write may have happened, read before you try again",
            ),
        }
    }
}

impl ReadCall {
    fn new(request: ReadRequest, wanted: Wanted) -> Self {
        Self { request, wanted, grounds: Grounds::default() }
    }

    /// The data to read.
    #[must_use]
    pub fn request(&self) -> &ReadRequest {
        &self.request
    }

    /// The reply. If the user's rights have changed since the call came, it is 503, and the call may be made
    /// again.
    #[must_use]
    pub fn reply(self, policy: &dyn Policy, outcome: Result<ReadAnswer, StoreError>) -> Reply {
        if !self.grounds.hold(policy) {
            let message = "the rights of this user have changed meanwhile: ask again";
            return Reply::not_yet(&self.request.reader().collection, message);
        }
        match (self.wanted, outcome) {
            (Wanted::Records, Ok(ReadAnswer::Found(records))) => {
                plain::found(&self.request, records)
            }
            (Wanted::Record, Ok(ReadAnswer::Found(records))) => plain::found_one(records),
            (Wanted::Page(of), Ok(ReadAnswer::Pulled(pulled))) => {
                let (from, set) = *of;
                resumable::page(self.request.reader(), from, set, pulled)
            }
            (_, Ok(ReadAnswer::Refused { code: ErrorCode::ServerError, message })) => {
                Reply::not_yet(&self.request.reader().collection, &message)
            }
            (_, Ok(ReadAnswer::Refused { code, message })) => Reply::error(code, &message),
            (
                _,
                Ok(
                    ReadAnswer::Page(_)
                    | ReadAnswer::Pulled(_)
                    | ReadAnswer::Whole(_)
                    | ReadAnswer::Found(_),
                ),
            ) => Reply::mixed_up(),
            (_, Err(_)) => Reply::unavailable("the server could not read its database: try again"),
        }
    }
}

impl Reply {
    /// A refusal: `{"error": …, "code": …}` with the code's status.
    #[must_use]
    pub fn error(code: ErrorCode, message: &str) -> Self {
        let status = code.http_status();
        let mut reply = Self::json(status, error_body(&code, message));
        if status == 401 {
            reply.headers.push(("www-authenticate", "Bearer".into()));
        }
        reply
    }

    /// The refusal of one who has used up a [`Bucket`](crate::rules::policy::Bucket).
    #[must_use]
    pub fn slow_down(wait: Duration) -> Self {
        let code = ErrorCode::RateLimitExceeded;
        Self::later(code.http_status(), &code, "too many requests: slow down", wait)
    }

    /// The refusal of something that may be asked again after a time.
    fn later(status: u16, code: &ErrorCode, message: &str, wait: Duration) -> Self {
        let millis = millis(wait);
        let mut reply = Self::json(status, error_body(code, message));
        reply.say_more("retryAfterMs", millis.to_string().as_bytes());
        reply.headers.push(("retry-after", millis.div_ceil(1000).to_string().into()));
        reply
    }

    /// This collection can't be served at the moment: others are meanwhile.
    fn not_yet(collection: &Collection, message: &str) -> Self {
        let mut reply = Self::later(503, &ErrorCode::ServerError, message, BUILDING);
        let mut name = Vec::new();
        write_json_string(&mut name, collection);
        reply.say_more("collection", &name);
        reply
    }

    /// Adds a field to the object that the body is.
    fn say_more(&mut self, name: &str, value: &[u8]) {
        self.body.pop();
        self.body.extend_from_slice(format!(",\"{name}\":").as_bytes());
        self.body.extend_from_slice(value);
        self.body.push(b'}');
    }

    /// Nothing has happened, and later it may.
    fn unavailable(message: &str) -> Self {
        Self { status: 503, ..Self::error(ErrorCode::ServerError, message) }
    }

    fn mixed_up() -> Self {
        Self::error(ErrorCode::ServerError, "the server mixed up its answers")
    }

    fn not_allowed(methods: &'static str) -> Self {
        let message = format!("the methods here are {methods}");
        let mut reply = Self { status: 405, ..invalid(&message) };
        reply.headers.push(("allow", methods.into()));
        reply
    }

    fn json(status: u16, body: Vec<u8>) -> Self {
        let headers = Vec::from([
            ("content-type", "application/json".into()),
            ("cache-control", "no-store".into()),
        ]);
        Self { status, headers, body }
    }
}

/// A time to wait, as a number that every JSON reader takes.
pub(crate) fn millis(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).min((1 << 53) - 1)
}

fn error_body(code: &ErrorCode, message: &str) -> Vec<u8> {
    let mut body = Vec::from(b"{\"error\":".as_slice());
    write_json_string(&mut body, message);
    body.extend_from_slice(b",\"code\":");
    write_json_string(&mut body, code.as_str());
    body.push(b'}');
    body
}

#[cfg(test)]
mod tests;
