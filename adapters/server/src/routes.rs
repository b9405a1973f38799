//! The paths of a server, and their answers.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, ALLOW, VARY,
};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, Response, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::routing::{any, get};
use synclayer_core::{Call, ErrorCode, Health, Reply, User};
use tokio::time::timeout;

use crate::budget::Account;
use crate::fairness::Principal;
use crate::origin::Origin;
use crate::reads::ReadError;
use crate::request::{
    Hold, Remote, check_host, discard, identify, origin, refuse_origin, respond, respond_holding,
    with_retry,
};
use crate::shared::{Caller, Shared};
use crate::upgrade;

/// The paths of a server that is mounted in another one.
pub(crate) fn mounted<S: Clone + Send + Sync + 'static>(shared: Arc<Shared>) -> Router<S> {
    checked(routes(), shared)
}

/// The paths of a server that listens itself, and an answer for all others.
pub(crate) fn standalone(shared: Arc<Shared>) -> Router {
    checked(routes().fallback(nothing), shared)
}

fn checked<S: Clone + Send + Sync + 'static>(
    routes: Router<Arc<Shared>>,
    shared: Arc<Shared>,
) -> Router<S> {
    let check_host = from_fn_with_state(Arc::clone(&shared), check_host);
    routes.layer(check_host).with_state(shared)
}

fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/ws", get(upgrade::websocket))
        .route("/health", get(health))
        .route("/sync/{*call}", any(sync))
}

/// Tells if the server can do its work, and a few numbers. It asks for no token, and reads nothing
/// from the store.
async fn health(State(shared): State<Arc<Shared>>) -> Response<Body> {
    let Health { transactions, commits, failure } = shared.commits.health();
    let (status, word) = match failure.is_some() {
        false => (StatusCode::OK, "ok"),
        true => (StatusCode::SERVICE_UNAVAILABLE, "store failed"),
    };
    let mut body = format!(
        "{{\"status\":\"{word}\",\"epoch\":\"{}\",\"uptimeMs\":{},\"connections\":{},\"sockets\":{},\"bufferedBytes\":{},\
         \"transactions\":{transactions},\"commits\":{commits},\"ringBytes\":{}",
        shared.epoch,
        shared.clock.now().mono.0,
        shared.connections(),
        shared.admission.taken(),
        shared.budget.used(),
        shared.feed.rings().bytes(),
    );
    for (name, number) in shared.config.metrics.iter().flat_map(|metrics| metrics()) {
        body.push_str(&format!(",\"{name}\":{number}"));
    }
    body.push('}');
    let headers =
        vec![("content-type", "application/json".into()), ("cache-control", "no-store".into())];
    respond(Reply { status: status.as_u16(), headers, body: body.into() })
}

async fn sync(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let origin = origin(&shared, &parts.headers);
    if origin == Origin::Foreign {
        discard(&shared, body).await;
        return refuse_origin(&shared, &parts.headers);
    }
    let mut response = if parts.method == Method::OPTIONS {
        preflight()
    } else {
        let remote = Remote::new(&shared, &parts);
        match remote.run(reply(&shared, &parts, &remote, body)).await {
            Ok((reply, hold)) => respond_holding(reply, hold),
            Err(refusal) => {
                shared.refusals.reply(&remote.sender(None), &refusal);
                respond(refusal)
            }
        }
    };
    if let Origin::Allowed(origin) = origin
        && let Ok(origin) = HeaderValue::from_str(&origin)
    {
        response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        response.headers_mut().insert(VARY, HeaderValue::from_static("origin"));
    }
    response
}

/// A refusal is the `Err`.
async fn reply(
    shared: &Arc<Shared>,
    parts: &Parts,
    remote: &Remote,
    mut body: Body,
) -> Result<(Reply, Hold), Reply> {
    let (user, mut hold) = match admit(shared, parts, remote).await {
        Ok(admitted) => admitted,
        Err(refusal) => {
            discard(shared, body).await;
            return Err(refusal);
        }
    };
    remote.begin_turns().await;
    let time_limit = shared.config.http_timeout;
    let max = shared.limits.input.frame_bytes;
    let body = match read(&mut body, max, &mut hold.account, time_limit).await {
        Ok(body) => body,
        Err(Unread::TooLong) => {
            discard(shared, body).await;
            let message = format!("the body is longer than {max} bytes");
            return Err(Reply::error(ErrorCode::PayloadTooLarge, &message));
        }
        Err(Unread::BrokeOff) => {
            let message = "the body broke off on its way: nothing was changed, send it again";
            return Err(Reply::error(ErrorCode::InvalidMessage, message));
        }
        Err(Unread::Silent) => {
            let message = "nothing more of the body came for too long";
            let refusal = Reply::error(ErrorCode::InvalidMessage, message);
            return Err(Reply { status: StatusCode::REQUEST_TIMEOUT.as_u16(), ..refusal });
        }
    };
    let request = synclayer_core::Request {
        method: parts.method.as_str(),
        path: parts.uri.path(),
        query: parts.uri.query().unwrap_or_default(),
        body: &body,
        user,
    };
    let mut call = request.call(&shared.limits, &*shared.config.policy);
    let user = request.user.as_ref().map(|user| &user.id);
    let principal = Principal::new(user, remote.address);
    if let Call::Transact(write) = &mut call {
        write.charge(&mut |count| take_tokens(shared, &principal, count))?;
    }
    let answer = timeout(time_limit, answer(shared, call, &principal, &mut hold.account)).await;
    let reply = answer.map_err(|_| {
        let message = "the server took too long: the write may have happened, read before you try \
                       again";
        Reply::error(ErrorCode::ServerError, message)
    })?;
    shared.refusals.reply(&remote.sender(request.user.as_ref().map(|user| &user.id)), &reply);
    Ok((reply, hold))
}

/// Identifies the user of a call, and counts it against their rate.
async fn admit(
    shared: &Shared,
    parts: &Parts,
    remote: &Remote,
) -> Result<(Option<User>, Hold), Reply> {
    let user = match identify(shared, parts, remote).await? {
        Caller::Anyone => None,
        Caller::Known(known) => Some(known.user),
        Caller::Unknown => {
            let message = "send a token in the `Authorization: Bearer` header";
            return Err(Reply::error(ErrorCode::AuthFailed, message));
        }
    };
    let admitted = remote.admit()?;
    let principal = Principal::new(user.as_ref().map(|user| &user.id), remote.address);
    remote.count_to(&principal);
    take_token(shared, &principal).map_err(Reply::slow_down)?;
    Ok((user, Hold { account: remote.open_account(shared, &principal), _admitted: admitted }))
}

/// The reason why a body could not be read.
enum Unread {
    /// It has said to be longer than what is read, or was.
    TooLong,
    /// It ended early.
    BrokeOff,
    /// Nothing of it came for too long.
    Silent,
}

/// Reads a whole body. Only a length that was declared or read makes it too long.
async fn read(
    body: &mut Body,
    max: usize,
    account: &mut Account,
    time_limit: Duration,
) -> Result<Vec<u8>, Unread> {
    let declared = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if declared > max {
        return Err(Unread::TooLong);
    }
    // what is declared need not come
    let mut read = Vec::with_capacity(declared.min(64 << 10));
    loop {
        let next = timeout(time_limit, poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)));
        let Some(frame) = next.await.map_err(|_| Unread::Silent)? else { return Ok(read) };
        let frame = frame.map_err(|_| Unread::BrokeOff)?;
        // trailers say nothing
        let Ok(data) = frame.into_data() else { continue };
        if read.len() + data.len() > max {
            return Err(Unread::TooLong);
        }
        read.extend_from_slice(&data);
        account.set_about(read.len());
        timeout(time_limit, account.room()).await.map_err(|_| Unread::Silent)?;
    }
}

async fn answer(
    shared: &Arc<Shared>,
    call: Call,
    principal: &Principal,
    account: &mut Account,
) -> Reply {
    let policy = &*shared.config.policy;
    match call {
        Call::Immediate(reply) => reply,
        Call::Transact(write) => {
            let outcome = shared.commits.run(principal, write.transaction().clone()).await;
            write.reply(shared.clock.now().wall, &shared.limits, policy, outcome)
        }
        Call::Read(read) => {
            match shared.read(read.request().clone(), principal.clone(), account).await {
                Ok(answer) => read.reply(policy, Ok(answer)),
                Err(ReadError::Store(error)) => read.reply(policy, Err(error)),
                Err(ReadError::TooLong) => too_long(),
                Err(ReadError::Busy | ReadError::SetBack) => busy(),
            }
        }
    }
}

fn too_long() -> Reply {
    let message = "the query looks at too many records: ask for those that changed `since` a time, or \
                   for a part by `limit` and `offset`, or sync the collection";
    Reply::error(ErrorCode::PayloadTooLarge, message)
}

fn busy() -> Reply {
    let message = "the server has no memory left for so large an answer: try again later, or ask for \
                   less by `limit`";
    let refusal = Reply::error(ErrorCode::ServerError, message);
    let status = StatusCode::SERVICE_UNAVAILABLE.as_u16();
    with_retry(Reply { status, ..refusal }, 1)
}

/// Counts a call, or a write of one, against its principal's rate. The `Err` is how long to wait.
fn take_token(shared: &Shared, principal: &Principal) -> Result<(), Duration> {
    take_tokens(shared, principal, 1)
}

fn take_tokens(shared: &Shared, principal: &Principal, count: usize) -> Result<(), Duration> {
    let Some(bucket) = shared.bucket(principal) else { return Ok(()) };
    let now = shared.clock.now().mono;
    bucket.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take_many(now, count)
}

async fn nothing(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let remote = Remote::new(&shared, &parts);
    discard(&shared, body).await;
    let message = "there is nothing here: the paths are /ws, /health and /sync/{collection}";
    shared.refusals.path(&remote.sender(None), parts.uri.path());
    respond(Reply::error(ErrorCode::CollectionNotFound, message))
}

/// The answer to the question of a browser before it lets a page of another origin call.
fn preflight() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    for (name, value) in [
        (ALLOW, "GET, POST, PATCH, DELETE, OPTIONS"),
        (ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, PATCH, DELETE"),
        (ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type"),
        (ACCESS_CONTROL_MAX_AGE, "600"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;
    use crate::clock::Clock;
    use crate::{MemoryServerStore, ServerConfig, StaticTokens};

    #[tokio::test]
    async fn a_busy_user_s_calls_of_a_mounted_server_take_turns() {
        let user = |name| synclayer_core::UserId::new(name).unwrap();
        let tokens =
            StaticTokens::new([(user("ann"), "token-of-ann"), (user("bob"), "token-of-bob")]);
        let config = ServerConfig::new().authenticator(Arc::new(tokens));
        let epoch = synclayer_core::Epoch::new("e").unwrap();
        let store = Arc::new(MemoryServerStore::new());
        let shared = Arc::new(Shared::new(config, store, epoch, Clock::start()));
        let turns = shared.admission.turns();
        let held = turns.hold_all();
        let call = |token: &str| {
            let request = Request::delete("/sync")
                .header("authorization", format!("Bearer {token}"))
                .body(Body::empty());
            sync(State(Arc::clone(&shared)), request.unwrap())
        };
        assert_eq!(call("token-of-bob").await.status(), StatusCode::NOT_FOUND);
        let mut anns = pin!(call("token-of-ann"));
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..4 {
            assert!(anns.as_mut().poll(&mut cx).is_pending());
            turns.make_busy(&Principal::User(user("ann")));
        }
        drop(held);
        assert_eq!(anns.await.status(), StatusCode::NOT_FOUND);
    }
}
