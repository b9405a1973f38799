//! HTTP calls: a request of the core's in, its answer out.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Request, Response};
use synclayer_core::{ConnectFailure, FailureCause, HttpAnswer, HttpRequest};
use tracing::debug;
use ureq::config::Config;
use ureq::{Agent, Body, Error};

use crate::address::Endpoint;
use crate::dial::Dialer;
use crate::fault;
use crate::progress;
use crate::tls::Tls;
use crate::transport::{Dialing, LeftToDialing};

/// The time for which a connection is kept for the next call. It is shorter than at servers, so that
/// no call meets a connection that is just being closed.
const KEPT: Duration = Duration::from_secs(3);

/// Calls a server over HTTP. Connections are kept for the next call for a short while.
///
/// Each is made as [`Dialer`] does it, through a proxy if the environment names one.
#[derive(Clone, Debug)]
pub struct HttpClient {
    agent: Agent,
    endpoint: Arc<Endpoint>,
    base: String,
    answer_bytes: usize,
}

impl HttpClient {
    /// A client of the server at `base`, of whose answers up to `answer_bytes` are read.
    #[must_use]
    pub fn new(base: &Endpoint, tls: &Tls, answer_bytes: usize) -> Self {
        let endpoint = Arc::new(base.clone());
        let config = Config::builder()
            .http_status_as_error(false)
            // a token goes nowhere but where it was meant to go
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .accept("application/json")
            .user_agent("synclayer")
            .max_idle_age(KEPT)
            .build();
        let dialing = Dialing::new(Dialer::new(Arc::clone(&endpoint)), Arc::clone(&tls.config));
        let agent = Agent::with_parts(config, dialing, LeftToDialing);
        let base = base.uri.to_string().trim_end_matches('/').to_owned();
        Self { agent, endpoint, base, answer_bytes }
    }

    /// Makes a call. It blocks until the answer is there, or nothing has moved for the request's time.
    #[must_use]
    pub fn call(&self, request: &HttpRequest) -> HttpAnswer {
        self.call_telling(request, || ())
    }

    /// As [`call`](Self::call). Now and then, as bytes move, `report` is called.
    pub(crate) fn call_telling(
        &self,
        request: &HttpRequest,
        report: impl Fn() + 'static,
    ) -> HttpAnswer {
        let answer = progress::call(request.timeout, report, || self.attempt(request))
            .unwrap_or_else(|error| HttpAnswer::Failed(fault::of(&error, &self.endpoint)));
        let path = request.path.split('?').next().unwrap_or_default();
        match &answer {
            HttpAnswer::Answered { status, .. } => debug!(request.method, path, status, "answered"),
            HttpAnswer::Failed(failure) => debug!(request.method, path, %failure, "failed"),
        }
        answer
    }

    fn attempt(&self, request: &HttpRequest) -> Result<HttpAnswer, Error> {
        let body = request.body.as_deref().unwrap_or_default();
        let response = self.agent.run(self.prepare(request, body)?)?;
        self.read(response)
    }

    fn prepare<'a>(
        &self,
        request: &HttpRequest,
        body: &'a [u8],
    ) -> Result<Request<&'a [u8]>, http::Error> {
        let mut call =
            Request::builder().method(request.method).uri(format!("{}{}", self.base, request.path));
        if let Some(token) = &request.token {
            let mut value = HeaderValue::try_from(format!("Bearer {}", token.reveal()))?;
            value.set_sensitive(true);
            call = call.header(AUTHORIZATION, value);
        }
        if request.body.is_some() {
            call = call.header(CONTENT_TYPE, "application/json");
        }
        call.body(body)
    }

    fn read(&self, mut response: Response<Body>) -> Result<HttpAnswer, Error> {
        let status = response.status().as_u16();
        if let (300..400, Some(to)) = (status, response.headers().get(LOCATION)) {
            let to = String::from_utf8_lossy(to.as_bytes());
            let to = to.split('?').next().unwrap_or_default();
            let why = format!("the server redirects to {to} (status {status}): use that address");
            return Ok(HttpAnswer::Failed(ConnectFailure::new(FailureCause::Redirected, why)));
        }
        let retry_after = retry_after(response.headers());
        let limit = u64::try_from(self.answer_bytes).unwrap_or(u64::MAX);
        let body = response.body_mut().with_config().limit(limit).read_to_vec()?;
        if let Some(failure) = fault::of_answer(status, &body, &self.endpoint) {
            return Ok(HttpAnswer::Failed(failure));
        }
        Ok(HttpAnswer::Answered { status, retry_after, body })
    }
}

/// The time for which the server asks to be left alone: `Retry-After`, in seconds or as a date.
#[must_use]
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}
