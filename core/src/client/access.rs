//! Refusals of access. Whoever refuses it, be it the server or a portal on the way: a token is asked
//! for by an event, and everything is tried again.

use alloc::format;
use alloc::string::String;
use core::time::Duration;

use super::edit::Edit;
use super::event::{EventKind, Transport};
use super::failure::{ConnectFailure, FailureCause};
use super::machine::Client;
use crate::protocol::message::{ErrorCode, ErrorMessage};
use crate::protocol::wire::http::refusal;

impl Client {
    /// The server wants another token: asks the app for one. The transport that was refused is tried
    /// again after a while.
    pub(super) fn need_token(&mut self, edit: &mut Edit<'_>, code: ErrorCode, message: String) {
        self.refuse_access(edit, code, message, true);
    }

    /// The server, or something on the way, refuses access.
    pub(super) fn refuse_access(
        &mut self,
        edit: &mut Edit<'_>,
        code: ErrorCode,
        message: String,
        by_server: bool,
    ) {
        self.token_needed = true;
        match edit.transport {
            Transport::WebSocket => {
                self.lose_connection(edit, "the server wants another token");
                self.back_off(edit);
            }
            Transport::Http if self.works_plainly() => {
                self.give_up_work(edit, Duration::ZERO);
            }
            Transport::Http => self.give_up_exchange(edit),
        }
        self.ask_for_token(edit, code, message, by_server);
    }

    pub(super) fn ask_for_token(
        &mut self,
        edit: &mut Edit<'_>,
        code: ErrorCode,
        message: String,
        by_server: bool,
    ) {
        self.token_needed = true;
        self.note_failure(ConnectFailure::new(FailureCause::Access, message.clone()));
        edit.remote_event(EventKind::TokenNeeded { code, message, by_server });
    }

    /// Gives up the tries with the token that was refused.
    pub(super) fn forget_old_token(&mut self, edit: &mut Edit<'_>) {
        if self.exchange.is_some() || self.peer.is_candidate() {
            self.drop_exchange(edit);
            self.fallback.doubt();
        }
        if self.link.is_connecting() {
            self.lose_connection(edit, "there is a fresh token");
            self.link.off();
        }
    }

    /// The upgrade to a WebSocket was answered with another status.
    pub(super) fn turned_away(
        &mut self,
        edit: &mut Edit<'_>,
        status: u16,
        retry_after: Option<Duration>,
        body: &[u8],
    ) {
        self.rest(retry_after);
        let told = refusal(body, &self.config.limits);
        let reason = match &told {
            Some(told) => {
                format!("the server answered {status} to the connection: {}", told.message)
            }
            None => format!("the server answered {status} to the connection"),
        };
        match (status, told) {
            // the server itself: by HTTP it would say the same
            (401 | 403, Some(told)) if speaks_of_access(&told) => {
                self.need_token(edit, told.code, reason);
            }
            (401 | 403, _) => {
                self.ask_for_token(edit, code_of(status), reason.clone(), false);
                let failure = ConnectFailure::new(FailureCause::Access, reason);
                self.fail_connection(edit, failure);
            }
            (_, _) => {
                let failure = ConnectFailure::new(cause_of(status), reason);
                self.fail_connection(edit, failure);
            }
        }
    }
}

/// The cause of a failure that a server, or something on the way, has answered with this status.
pub(super) fn cause_of(status: u16) -> FailureCause {
    match status {
        300..=399 => FailureCause::Redirected,
        401 | 403 | 407 => FailureCause::Access,
        429 | 500..=599 => FailureCause::Declined,
        _ => FailureCause::NoServer,
    }
}

/// Returns `true` if a refusal is this protocol's word about access.
pub(super) fn speaks_of_access(told: &ErrorMessage) -> bool {
    matches!(told.code, ErrorCode::AuthFailed | ErrorCode::AuthExpired | ErrorCode::Unauthorized)
}

/// The code of a refusal whose body names none.
pub(super) fn code_of(status: u16) -> ErrorCode {
    if status == 401 { ErrorCode::AuthFailed } else { ErrorCode::Unauthorized }
}
