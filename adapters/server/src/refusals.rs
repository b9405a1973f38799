//! The lines of the log about what was refused: for the operator, who else hears of it only from
//! users. A flood of them leaves one line a second for each cause.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use synclayer_core::{ErrorCode, Reply, UserId};

/// The shortest time between two lines about one cause.
const INTERVAL: Duration = Duration::from_secs(1);
/// The most characters of a refused path that are logged.
const PATH_CHARS: usize = 200;

#[derive(Default)]
pub(crate) struct Refusals {
    lines: Mutex<BTreeMap<Cause, Line>>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Cause {
    Handshake,
    Authenticator,
    Host,
    Origin,
    Login,
    Rights,
    Size,
    Rate,
    Sense,
    Path,
}

/// The sender of something that was refused, as far as they are known.
pub(crate) struct Sender<'a> {
    pub(crate) user: Option<&'a UserId>,
    /// Programs of this machine have none.
    pub(crate) address: Option<IpAddr>,
}

/// The last line about a cause, and the number of refusals since.
struct Line {
    at: Instant,
    more: u64,
}

impl Refusals {
    /// A request called an open server by this name.
    pub(crate) fn host(&self, host: &str) {
        let advice = "an open server answers to loopback's names only: if this name is yours, allow \
                      it (--allow-host, allow_hosts), or add a token";
        if let Some(more) = self.turn(Cause::Host, Instant::now()) {
            tracing::warn!(?host, more, "refused a host name: {advice}");
        }
    }

    /// A page of this origin made a request.
    pub(crate) fn origin(&self, origin: &str) {
        let advice = "if the page is yours, allow it (--allow-origin, allow_origins)";
        if let Some(more) = self.turn(Cause::Origin, Instant::now()) {
            tracing::warn!(?origin, more, "refused a web page: {advice}");
        }
    }

    /// A TLS handshake failed.
    pub(crate) fn handshake(&self, error: &io::Error) {
        let advice = "the client has to open https:// or wss://, trust the certificate's authority \
                      (--ca), and use a name that stands in the certificate";
        if let Some(more) = self.turn(Cause::Handshake, Instant::now()) {
            tracing::warn!(%error, more, "a TLS handshake failed: {advice}");
        }
    }

    /// The authenticator could not say whose a token is.
    pub(crate) fn authenticator(&self, failure: &str) {
        if let Some(more) = self.turn(Cause::Authenticator, Instant::now()) {
            tracing::error!(failure, more, "the authenticator did not say whose a token is");
        }
    }

    /// A session sent an error.
    pub(crate) fn error(&self, from: &Sender<'_>, code: &ErrorCode, message: &str) {
        if let Some(cause) = Cause::of_code(code) {
            self.call(cause, from, code.as_str(), message);
        }
    }

    /// A call was answered with an error.
    pub(crate) fn reply(&self, from: &Sender<'_>, reply: &Reply) {
        if let Some(cause) = Cause::of_status(reply.status) {
            self.call(cause, from, "", &String::from_utf8_lossy(&reply.body));
        }
    }

    /// A request asked for a path that is none of this server's.
    pub(crate) fn path(&self, from: &Sender<'_>, path: &str) {
        let advice = "there is nothing at that path: the client's address has one too many, or a \
                      proxy before this server takes none away";
        let Some(more) = self.turn(Cause::Path, Instant::now()) else { return };
        let path: String = path.chars().take(PATH_CHARS).collect();
        let address = from.address.map(tracing::field::display);
        tracing::warn!(address, ?path, more, "refused a path: {advice}");
    }

    fn call(&self, cause: Cause, from: &Sender<'_>, code: &str, why: &str) {
        let Some(more) = self.turn(cause, Instant::now()) else { return };
        let user = from.user.map(|user| user.as_str());
        let address = from.address.map(tracing::field::display);
        let advice = cause.advice();
        tracing::warn!(user, address, code, %why, more, "{advice}");
    }

    /// Returns the number of refusals since the last line about a cause; `None` where that was just
    /// written.
    fn turn(&self, cause: Cause, now: Instant) -> Option<u64> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        match lines.get_mut(&cause) {
            Some(line) if now.saturating_duration_since(line.at) < INTERVAL => {
                line.more += 1;
                None
            }
            last => {
                let more = last.map_or(0, |line| line.more);
                lines.insert(cause, Line { at: now, more: 0 });
                Some(more)
            }
        }
    }
}

impl Cause {
    /// The cause of an error; `None` if it belongs to the normal course of things, or the log has
    /// it already.
    #[allow(clippy::wildcard_enum_match_arm)] // there may be more of them one day
    fn of_code(code: &ErrorCode) -> Option<Self> {
        match code {
            ErrorCode::AuthFailed | ErrorCode::AuthExpired => Some(Self::Login),
            ErrorCode::Unauthorized => Some(Self::Rights),
            ErrorCode::PayloadTooLarge => Some(Self::Size),
            ErrorCode::RateLimitExceeded => Some(Self::Rate),
            ErrorCode::InvalidMessage
            | ErrorCode::CollectionNotFound
            | ErrorCode::RecordNotFound
            | ErrorCode::OutOfOrder => Some(Self::Sense),
            // conflicts, newer sessions, failures of the store
            _ => None,
        }
    }

    fn of_status(status: u16) -> Option<Self> {
        match status {
            401 => Some(Self::Login),
            403 => Some(Self::Rights),
            413 => Some(Self::Size),
            429 => Some(Self::Rate),
            409 => None,
            400..500 => Some(Self::Sense),
            _ => None,
        }
    }

    fn advice(self) -> &'static str {
        match self {
            Self::Login => {
                "refused a login: give the client a token that this server knows (--token, \
                 --token-file, authenticator)"
            }
            Self::Rights => {
                "refused what a user may not do: give them the right, or keep the app from trying"
            }
            Self::Size => {
                "refused what is larger than a limit: raise the limit, or let the app write less at \
                 once"
            }
            Self::Rate => {
                "refused what came too fast: raise the rate, or let the app write less often"
            }
            Self::Authenticator
            | Self::Handshake
            | Self::Host
            | Self::Origin
            | Self::Path
            | Self::Sense => "refused what is not valid: the app that sent it has to be changed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_has_one_line_a_second_that_counts_the_others() {
        let (refusals, start) = (Refusals::default(), Instant::now());
        let turn = |cause, ms| refusals.turn(cause, start + Duration::from_millis(ms));
        assert_eq!(turn(Cause::Login, 0), Some(0));
        assert_eq!((turn(Cause::Login, 1), turn(Cause::Login, 999)), (None, None));
        assert_eq!(turn(Cause::Host, 999), Some(0));
        assert_eq!(turn(Cause::Login, 1000), Some(2));
        assert_eq!((turn(Cause::Login, 1999), turn(Cause::Login, 2000)), (None, Some(1)));
    }
}
