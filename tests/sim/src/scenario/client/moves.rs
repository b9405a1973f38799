//! The inputs of a client in a scenario, as a file writes them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use synclayer_core::{Collection, NamedScope, SignOut};

use crate::scenario::store::Holds;
use crate::scenario::words::collection;

/// An input of a replica.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) enum ClientMove {
    // the app
    Connect,
    Disconnect,
    Save {
        at: String,
        data: Value,
    },
    Update {
        at: String,
        #[serde(default)]
        set: Value,
        #[serde(default)]
        unset: Vec<String>,
    },
    Delete {
        at: String,
    },
    Modify {
        at: String,
        add: BTreeMap<String, i64>,
    },
    #[serde(rename_all = "camelCase")]
    Transact {
        writes: Vec<Member>,
        #[serde(default)]
        keep_what_won: bool,
    },
    Use(String),
    Leave(String),
    Release(String),
    UseScope(OfScope),
    ReleaseScope(OfScope),
    KeepScope(OfScope),
    Synced,
    SetToken(String),
    Watch(String),
    Unwatch(u64),
    Get(String),
    GetAll(String),
    Rejected,
    Retry(u64),
    Discard(u64),
    Follow(u64),
    FollowTransaction(u64),
    RejectStalled(u64),
    Adopt,
    Offer,
    /// The user signs out, and another, or the same, signs in at once.
    #[serde(rename_all = "camelCase")]
    SignOut {
        how: How,
        #[serde(default)]
        back_to: Option<u64>,
        #[serde(default)]
        config: Value,
    },
    Status,
    SyncNow,
    SetOnline(bool),
    // the network
    Up,
    Hear(Value),
    HearText(String),
    Heard,
    Progress,
    RequestProgress,
    Lost(String),
    #[serde(rename_all = "camelCase")]
    Refused {
        status: u16,
        #[serde(default)]
        retry_after_ms: Option<u64>,
        #[serde(default)]
        body: Value,
    },
    Answer(HttpReply),
    // time
    Tick(u64),
    Clock(i64),
    // the disk
    Fail(Holds),
    FailStore,
    Durable(u64),
    AllDurable,
    #[serde(rename_all = "camelCase")]
    Restart {
        #[serde(default)]
        back_to: Option<u64>,
        #[serde(default)]
        config: Value,
    },
}

/// A member of a transaction.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) enum Member {
    Save {
        at: String,
        data: Value,
    },
    Update {
        at: String,
        #[serde(default)]
        set: Value,
        #[serde(default)]
        unset: Vec<String>,
    },
    Delete(String),
    /// A record that is to stay as it is.
    Expect(String),
}

/// A scope of a collection, named as in messages.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfScope {
    pub(super) of: String,
    by: Vec<String>,
    is: Vec<Value>,
    /// `false` if a scope is not kept any more.
    #[serde(default = "yes")]
    pub(super) kept: bool,
}

fn yes() -> bool {
    true
}

impl OfScope {
    pub(super) fn read(&self) -> Result<(Collection, NamedScope), String> {
        let values: Vec<_> = self.is.iter().map(ToString::to_string).collect();
        let parts = self.by.iter().map(String::as_str).zip(values.iter().map(String::as_str));
        let scope = NamedScope::new(parts).map_err(|error| error.to_string())?;
        Ok((collection(&self.of)?, scope))
    }
}

/// The answer to a request: a status with what else comes, or why there is none.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct HttpReply {
    /// The latest where it isn't said.
    #[serde(default)]
    pub(super) request: Option<u64>,
    #[serde(default)]
    pub(super) status: Option<u16>,
    #[serde(default)]
    pub(super) body: Value,
    #[serde(default)]
    pub(super) retry_after_ms: Option<u64>,
    #[serde(default)]
    pub(super) failed: String,
}

impl ClientMove {
    /// Returns true if the app makes it.
    pub(super) fn is_call(&self) -> bool {
        matches!(
            self,
            Self::Save { .. }
                | Self::Update { .. }
                | Self::Delete { .. }
                | Self::Modify { .. }
                | Self::Transact { .. }
                | Self::Retry(_)
                | Self::Discard(_)
                | Self::RejectStalled(_)
        )
    }
}

/// The treatment of a user's data at sign-out.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum How {
    Keep,
    Wipe,
    WipeUnsent,
}

impl From<How> for SignOut {
    fn from(how: How) -> Self {
        match how {
            How::Keep => Self::Keep,
            How::Wipe => Self::Wipe,
            How::WipeUnsent => Self::WipeUnsent,
        }
    }
}
