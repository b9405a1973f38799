//! The parts of a request that every route looks at: its origin, its sender, its token, and the
//! reply.

use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{AUTHORIZATION, HOST, HeaderName, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};
use axum::middleware::Next;
use bytes::Bytes;
use synclayer_core::{ErrorCode, Reply, Token, UserId};
use tokio::task::yield_now;
use tokio::time::timeout;

use crate::address;
use crate::admission::{AdmittedRequest, ConnectionPermit};
use crate::auth::AuthError;
use crate::budget::Account;
use crate::fairness::Principal;
use crate::host;
use crate::origin::Origin;
use crate::refusals::Sender;
use crate::shared::{Caller, LoginError, Shared};
use crate::turns::Meter;

/// The time limit for the rest of a refused request's body.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);

/// Judges the origin of a request.
pub(crate) fn origin(shared: &Shared, headers: &HeaderMap) -> Origin {
    Origin::of(headers, &shared.config.allow_origins)
}

/// The reply to a page of a foreign origin.
pub(crate) fn refuse_origin(shared: &Shared, headers: &HeaderMap) -> Response<Body> {
    shared.refusals.origin(&text(headers, ORIGIN));
    let message = "pages of this origin may not connect: the server has to be told to allow it";
    respond(Reply::error(ErrorCode::Unauthorized, message))
}

/// Refuses a request that calls an open server by a name that may be a page's own. A server with
/// tokens need not look: such a page has none.
pub(crate) async fn check_host(
    State(shared): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let is_open = shared.config.authenticator.is_none();
    let allowed = &shared.config.allow_hosts;
    if is_open && !host::is_known(request.uri(), request.headers(), allowed) {
        shared.refusals.host(&text(request.headers(), HOST));
        discard(&shared, request.into_body()).await;
        let message = "the server has no tokens, and answers to this host name only once it is \
                       told to allow it: use localhost, or serve with --allow-host";
        return respond(Reply::error(ErrorCode::Unauthorized, message));
    }
    next.run(request).await
}

/// The text of a header, whatever its bytes are.
fn text(headers: &HeaderMap, name: HeaderName) -> String {
    let value = headers.get(name).map(HeaderValue::as_bytes);
    String::from_utf8_lossy(value.unwrap_or_default()).into_owned()
}

/// The remote end of a request.
pub(crate) struct Remote {
    /// The permit of its connection; `None` where another server has accepted that.
    permit: Option<Arc<ConnectionPermit>>,
    /// The meter of its connection's time, or of its own.
    meter: Arc<Meter>,
    peer: Option<IpAddr>,
    /// The address that it is counted by.
    pub(crate) address: Option<IpAddr>,
}

impl Remote {
    pub(crate) fn new(shared: &Shared, parts: &Parts) -> Self {
        let permit = parts.extensions.get::<Arc<ConnectionPermit>>().cloned();
        let peer = match &permit {
            Some(permit) => permit.peer(),
            // where the program asked its server for it
            None => parts.extensions.get().map(|ConnectInfo::<SocketAddr>(peer)| peer.ip()),
        };
        let address = address::counted(peer, &parts.headers, &shared.config.trusted_proxies);
        let own = || shared.admission.meter(&Principal::new(None, address));
        let meter = permit.as_ref().map_or_else(own, |permit| Arc::clone(permit.meter()));
        Self { permit, meter, peer, address }
    }

    /// Runs what answers its request: in turns of its own where the connection has none.
    pub(crate) async fn run<F: Future>(&self, answer: F) -> F::Output {
        let answer = pin!(answer);
        if self.permit.is_some() { answer.await } else { self.meter.run(answer).await }
    }

    /// The permit of its connection, which begins to count where another server has accepted it.
    pub(crate) fn permit(&self, shared: &Shared) -> Option<Arc<ConnectionPermit>> {
        self.permit.clone().or_else(|| shared.admission.permit_now(self.peer))
    }

    /// Admits its request, whose token was good.
    pub(crate) fn admit(&self) -> Result<Option<AdmittedRequest>, Reply> {
        let Some(permit) = &self.permit else { return Ok(None) };
        permit.admit(self.address).map(Some).ok_or_else(too_many)
    }

    /// Lets what follows wait for a turn of the principal that it counts to by now.
    pub(crate) async fn begin_turns(&self) {
        if self.permit.is_none() {
            yield_now().await;
        }
    }

    /// Counts its time to this principal.
    pub(crate) fn count_to(&self, principal: &Principal) {
        self.meter.set_principal(principal);
    }

    /// Its name in the log.
    pub(crate) fn sender<'a>(&self, user: Option<&'a UserId>) -> Sender<'a> {
        Sender { user, address: self.address }
    }

    pub(crate) fn open_account(&self, shared: &Shared, principal: &Principal) -> Account {
        shared.budget.open(principal, self.permit.clone())
    }
}

/// The reply to an address that has as many connections as one may have.
pub(crate) fn too_many() -> Reply {
    let message = "too many connections come from this address: close some, or try again later";
    let refusal = Reply::error(ErrorCode::RateLimitExceeded, message);
    with_retry(refusal, 1)
}

/// Identifies the caller by the token of a request.
pub(crate) async fn identify(
    shared: &Shared,
    parts: &Parts,
    remote: &Remote,
) -> Result<Caller, Reply> {
    let token = bearer(&parts.headers).or_else(|| token_in(parts.uri.query()?));
    shared.identify(token.as_ref(), remote.address).await.map_err(|error| {
        let message = error.to_string();
        match error {
            LoginError::Auth(AuthError::Wrong) => Reply::error(ErrorCode::AuthFailed, &message),
            LoginError::Auth(AuthError::Expired) => Reply::error(ErrorCode::AuthExpired, &message),
            LoginError::Auth(AuthError::Unavailable) => {
                let refusal = Reply::error(ErrorCode::ServerError, &message);
                let status = StatusCode::SERVICE_UNAVAILABLE.as_u16();
                with_retry(Reply { status, ..refusal }, 1)
            }
            LoginError::LockedOut(wait) => {
                let refusal = Reply::error(ErrorCode::RateLimitExceeded, &message);
                with_retry(refusal, wait.as_secs() + 1)
            }
        }
    })
}

pub(crate) fn with_retry(mut refusal: Reply, seconds: u64) -> Reply {
    refusal.headers.push(("retry-after", seconds.to_string().into()));
    refusal
}

fn bearer(headers: &HeaderMap) -> Option<Token> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| Token::from(token.trim()))
}

fn token_in(query: &str) -> Option<Token> {
    let token = query.split('&').find_map(|pair| pair.strip_prefix("token="))?;
    Some(Token::from(&*percent_decoded(token)))
}

/// The text that `%XX` stand for. A `+` stays: tokens have it more often than spaces.
fn percent_decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let hex = behind.get(..2).filter(|_| byte == b'%');
        let decoded = hex
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(decoded.unwrap_or(byte));
        rest = if decoded.is_some() { &behind[2..] } else { behind };
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Reads a body that nobody wants, and forgets it. A connection that is closed while some of it is
/// still on its way is reset, and then the answer may be lost that says why. What comes too slowly,
/// or is too much, is not waited for.
pub(crate) async fn discard(shared: &Shared, mut body: Body) {
    let mut left = shared.limits.input.frame_bytes;
    let discard = async {
        while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let bytes = frame.data_ref().map_or(0, |data| data.len());
            match left.checked_sub(bytes) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    // who sends slowly may miss the answer
    drop(timeout(DISCARD_TIMEOUT, discard).await);
}

/// The share that a request holds until its answer was written.
pub(crate) struct Hold {
    pub(crate) account: Account,
    pub(crate) _admitted: Option<AdmittedRequest>,
}

/// The body of an answer, with what it holds.
struct HeldBody {
    bytes: Vec<u8>,
    _hold: Hold,
}

impl AsRef<[u8]> for HeldBody {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A reply of the core as a response.
pub(crate) fn respond(mut reply: Reply) -> Response<Body> {
    let body = std::mem::take(&mut reply.body);
    with_body(reply, Body::from(body))
}

/// The same, which counts until it was written.
pub(crate) fn respond_holding(mut reply: Reply, mut hold: Hold) -> Response<Body> {
    let bytes = std::mem::take(&mut reply.body);
    hold.account.set(bytes.len());
    with_body(reply, Body::from(Bytes::from_owner(HeldBody { bytes, _hold: hold })))
}

fn with_body(reply: Reply, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() =
        StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in reply.headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_where_they_may_be() {
        let found = |query| token_in(query).map(|token| token.reveal().to_owned());
        assert_eq!(found("token=a%2Bb+c%20d"), Some("a+b+c d".into()));
        assert_eq!(found("x=1&token=100%&token=2"), Some("100%".into()));
        assert_eq!(found("tokens=1"), None);
        let headers =
            |value| HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(value))]);
        let found = |value| bearer(&headers(value)).map(|token| token.reveal().to_owned());
        assert_eq!(found("bearer abc"), Some("abc".into()));
        assert_eq!(found("Basic abc"), None);
        assert_eq!(found("Bearer"), None);
    }
}
