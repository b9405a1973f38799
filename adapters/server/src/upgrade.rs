//! From an HTTP request to a WebSocket.

use std::pin::pin;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    CONNECTION, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use synclayer_core::{ErrorCode, Reply};
use tokio::task;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::connection::{Connection, Peer};
use crate::origin::Origin;
use crate::request::{Remote, identify, origin, refuse_origin, respond, too_many};
use crate::shared::{Caller, Shared};
use crate::socket::Socket;
use crate::timed::Timed;

/// Accepts a WebSocket, or refuses it with the reason.
pub(crate) async fn websocket(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Response<Body> {
    let (mut parts, _) = request.into_parts();
    if origin(&shared, &parts.headers) == Origin::Foreign {
        return refuse_origin(&shared, &parts.headers);
    }
    let remote = Remote::new(&shared, &parts);
    match accept(&shared, &mut parts, &remote).await {
        Ok(response) => response,
        Err(refusal) => {
            shared.refusals.reply(&remote.sender(None), &refusal);
            respond(refusal)
        }
    }
}

async fn accept(
    shared: &Arc<Shared>,
    parts: &mut Parts,
    remote: &Remote,
) -> Result<Response<Body>, Reply> {
    let caller = identify(shared, parts, remote).await?;
    let key = handshake_key(parts)?;
    let Some(upgrade) = parts.extensions.remove::<OnUpgrade>() else {
        return Err(Reply::error(ErrorCode::ServerError, "the connection can't be upgraded"));
    };
    let permit = remote.permit(shared).ok_or_else(full)?;
    let admitted = match caller {
        Caller::Anyone | Caller::Known(_) => {
            Some(permit.admit(remote.address).ok_or_else(too_many)?)
        }
        Caller::Unknown => None,
    };
    let peer = Peer { permit, admitted, address: remote.address };
    task::spawn(serve(Arc::clone(shared), caller, upgrade, peer));
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, key);
    Ok(response)
}

fn full() -> Reply {
    let message = "the server has as many connections as it takes: try again later";
    let refusal = Reply::error(ErrorCode::ServerError, message);
    Reply { status: StatusCode::SERVICE_UNAVAILABLE.as_u16(), ..refusal }
}

/// The proof for the client that its handshake was understood.
fn handshake_key(parts: &Parts) -> Result<HeaderValue, Reply> {
    let has = |name: HeaderName, word: &str| {
        parts.headers.get_all(name).iter().any(|value| {
            let words = value.to_str().unwrap_or_default();
            words.split(',').any(|found| found.trim().eq_ignore_ascii_case(word))
        })
    };
    let key = parts.headers.get(SEC_WEBSOCKET_KEY);
    let accepted =
        key.and_then(|key| HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok());
    match accepted {
        Some(accepted)
            if has(CONNECTION, "upgrade")
                && has(UPGRADE, "websocket")
                && has(SEC_WEBSOCKET_VERSION, "13") =>
        {
            Ok(accepted)
        }
        Some(_) | None => {
            let message = "this is a WebSocket: connect with the `websocket` upgrade, version 13";
            let mut refusal = Reply::error(ErrorCode::InvalidMessage, message);
            refusal.status = StatusCode::UPGRADE_REQUIRED.as_u16();
            refusal.headers.push(("upgrade", "websocket".into()));
            refusal.headers.push(("sec-websocket-version", "13".into()));
            Err(refusal)
        }
    }
}

/// Serves one WebSocket from the handshake to its end.
async fn serve(shared: Arc<Shared>, caller: Caller, upgrade: OnUpgrade, peer: Peer) {
    let meter = Arc::clone(peer.permit.meter());
    let upgraded = tokio::select! {
        upgraded = upgrade => upgraded,
        () = peer.permit.ended() => return,
    };
    let upgraded = match upgraded {
        Ok(upgraded) => upgraded,
        Err(error) => return tracing::debug!(%error, "a handshake broke off"),
    };
    let stream = Timed::new(TokioIo::new(upgraded), shared.config.write_timeout);
    let socket = Socket::new(stream, shared.limits.input.frame_bytes).await;
    let (conn, mailbox) = shared.enter();
    tracing::debug!(%conn, "a connection began");
    // in place: what is moved between futures takes its room in each of them
    let mut connection = Connection::new(shared, conn, mailbox, caller, peer, socket);
    meter.run(pin!(connection.run())).await;
}
