//! The limits of a server on its peers.

use core::time::Duration;

use crate::protocol::limits::Limits;
use crate::rules::page::PageLimits;
use crate::rules::policy::Rate;

/// The limits of a server on its peers, for WebSockets and HTTP alike.
///
/// ```
/// use core::time::Duration;
///
/// use synclayer_core::{Rate, ServerLimits};
///
/// let mut limits = ServerLimits::default();
/// limits.input.document_bytes = 64 << 10;
/// limits.idle_timeout = Duration::from_secs(300);
/// limits.user_rate = Some(Rate { per_second: 20, burst: 100 });
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct ServerLimits {
    /// The limits on one frame, and on the body of one HTTP call.
    pub input: Limits,
    /// The limits of one page of a catch-up.
    pub page: PageLimits,
    /// The longest `batch`, or push by HTTP, that clients are told to send, in bytes. Default
    /// 256 KiB.
    pub max_batch_bytes: u64,
    /// The approximate maximal size of the records or verdicts in one answer by HTTP, in bytes.
    /// Default 16 MiB.
    pub answer_bytes: usize,
    /// The maximal size of a collection that is sent in one level-1 `sync`, in bytes. Default 4 MiB.
    pub sync_bytes: usize,
    /// The time after which a WebSocket is closed of which nothing comes, not even a part of a frame, and
    /// that takes nothing of what waits for it. Default 60 s.
    pub idle_timeout: Duration,
    /// The time within which a WebSocket has to send a good token. Default 10 s.
    pub auth_timeout: Duration,
    /// The number of bad frames in a row that closes a WebSocket. Default 20.
    pub bad_frames: u32,
    /// The maximal number of subscriptions of one WebSocket. Each takes less than 1 KiB of memory.
    /// Default 4,096.
    pub subscriptions: usize,
    /// The maximal number of messages that wait to be served, or for their verdict, before a
    /// WebSocket is read no further. Default 1,024.
    pub queued: usize,
    /// The approximate maximal size of the messages that wait to be served, in bytes. Default 4 MiB.
    pub queued_bytes: usize,
    /// The maximal number of writes of one WebSocket in one transaction. Default 256.
    pub run: usize,
    /// The maximal number of its own last seqs that a WebSocket remembers. Default 512.
    pub window: usize,
    /// The rate of messages of one WebSocket. Default: any.
    pub rate: Option<Rate>,
    /// The rate of messages and calls of one user, over all WebSockets and HTTP together. Where a
    /// server knows no users, it holds for each address that others than programs of its own machine
    /// come from, for each WebSocket of such programs, and for their calls together. Default: any.
    pub user_rate: Option<Rate>,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            input: Limits::default(),
            page: PageLimits::default(),
            max_batch_bytes: 256 << 10,
            answer_bytes: 16 << 20,
            sync_bytes: 4 << 20,
            idle_timeout: Duration::from_secs(60),
            auth_timeout: Duration::from_secs(10),
            bad_frames: 20,
            subscriptions: 4_096,
            queued: 1024,
            queued_bytes: 4 << 20,
            run: 256,
            window: 512,
            rate: None,
            user_rate: None,
        }
    }
}
