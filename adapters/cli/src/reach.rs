//! The texts for a server that is out of reach or does not let the user in: the fault, and the remedy.
//! The consequence is the command's to tell.

use synclayer_core::ErrorCode;
use synclayer_tokio::{ConnectFailure, FailureCause};

use crate::args::ReplicaArgs;

/// The options that a person may have to change.
#[derive(Clone, Debug)]
pub(crate) struct Reach {
    has_token: bool,
    has_ca: bool,
}

impl Reach {
    pub(crate) fn new(args: &ReplicaArgs) -> Self {
        Self { has_token: args.token.is_some(), has_ca: args.ca.is_some() }
    }

    /// Says why the server at an address is out of reach.
    #[allow(clippy::wildcard_enum_match_arm)] // there may be more causes one day
    pub(crate) fn explain(&self, failure: &ConnectFailure, server: &str) -> String {
        let ConnectFailure { cause, message, .. } = failure;
        let advice = match cause {
            FailureCause::UnknownHost => {
                "check the name in --server, and that this device is on the network"
            }
            FailureCause::Refused => "check the port in --server, and that the server runs",
            FailureCause::NoRoute => "check this device's network",
            FailureCause::Silent => {
                "it may be down, or a firewall holds the packets back; a longer --timeout waits longer"
            }
            FailureCause::Certificate if message.contains("valid") && !message.contains("name") => {
                "check this device's clock"
            }
            FailureCause::Certificate if message.contains("has expired") => {
                "it has to be renewed at the server, unless this device's clock is wrong"
            }
            FailureCause::Certificate if message.contains("other names") => {
                "use one of its names in --server"
            }
            FailureCause::Certificate if message.contains("CA:TRUE") => {
                "the server needs one of its own, as openssl makes with -addext \
                 basicConstraints=critical,CA:FALSE"
            }
            FailureCause::Certificate if self.has_ca => {
                "check that --ca names its authority's certificate"
            }
            FailureCause::Certificate => {
                "if it is the server's own, name its authority's certificate with --ca FILE"
            }
            FailureCause::Tls => "the server and this program have no way of TLS in common",
            FailureCause::PlainPort => {
                "write http:// in --server, or give the port that speaks TLS"
            }
            FailureCause::TlsPort => "write https:// in --server",
            FailureCause::NotHttp => {
                "another program listens at that port: check the port in --server"
            }
            FailureCause::Proxy => {
                "check that variable, or list the server's host in NO_PROXY to go without a proxy"
            }
            FailureCause::NoServer => {
                "it is no SyncLayer server, or the path is wrong: check --server"
            }
            FailureCause::Access => return self.not_let_in(None, message),
            FailureCause::Protocol => {
                "it may be no SyncLayer server, or something on the way changes what passes"
            }
            FailureCause::Redirected => "use the address that it names in --server",
            FailureCause::Declined => "it may serve again later",
            _ => "it is tried again",
        };
        // what has checked an address by both ways says itself what to do
        if message.starts_with("no SyncLayer server") {
            return message.clone();
        }
        format!("the server at {server} can't be reached: {message}; {advice}")
    }

    /// Says why the server, or something on the way, does not let the user in.
    pub(crate) fn not_let_in(&self, code: Option<&ErrorCode>, message: &str) -> String {
        let name = code.map(|code| format!(" ({code})")).unwrap_or_default();
        let wants_token = matches!(code, None | Some(ErrorCode::AuthFailed));
        if code == Some(&ErrorCode::AuthExpired) {
            return format!(
                "the server does not let this user in{name}: the token has expired; get a fresh one, \
                 and give it with --token"
            );
        }
        if wants_token && !self.has_token {
            return format!(
                "the server does not let this user in{name}: it wants a token, and none was given; \
                 give the user's with --token, or in SYNCLAYER_TOKEN"
            );
        }
        let check = if self.has_token { "check --token (or SYNCLAYER_TOKEN)" } else { "see to it" };
        format!(
            "the server does not let this user in{name}: {message}; {check} with whoever runs the server"
        )
    }
}
