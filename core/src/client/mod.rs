//! The client machine: what a replica does with its server, without any I/O.
//!
//! | file | story |
//! | --- | --- |
//! | `replica`, `sign_out` | the machine joined to its store and its watchers |
//! | `group` | calls that share a commit |
//! | `config`, `interface`, `event` | what the app sets, what goes in and out |
//! | `machine` | its parts, and which part each input is for |
//! | `step` | a change, its commit, and what is sent after it |
//! | `commits` | how far the store has come with its commits |
//! | `frames` | where a message goes |
//! | `commands`, `reads` | what the app says and asks |
//! | `checks` | its invariants |
//! | `boot` | its start, from the rows in the store |
//! | `link`, `connection` | when a connection is made, kept, given up |
//! | `failure` | why the server is out of reach |
//! | `access` | refusals of access: a token is asked for |
//! | `wake` | what may have died while the device slept |
//! | `fallback`, `transports` | which transport is used when, and how soon after a failure |
//! | `clock`, `server_time`, `past`, `leap` | the time of writes, and leaps of the wall clock |
//! | `exchange` | what goes by HTTP |
//! | `peer` | the server's level, and what comes with it |
//! | `plain` | a server of level 1 |
//! | `hello` | what the server knows of its writes, and what follows |
//! | `wipe` | everything of a user is removed from the store |
//! | `fate` | what became of a write, told to whoever follows it |
//! | `writes`, `outbox` | what the app writes, and what of it is on its way |
//! | `transaction`, `unit`, `units` | several writes with one fate |
//! | `pending`, `ahead` | the parts of the outbox that are in memory |
//! | `sending`, `pacing`, `portion` | what goes out, when it may, and how much at a time |
//! | `synced` | the answers to calls of `synced` |
//! | `interest` | which collections matter |
//! | `loss`, `offer`, `adopt` | a server that lacks records which are held here |
//! | `database` | a server with another database |
//! | `streams`, `stream`, `catchup`, `received` | the collections' changes, and how far a catch-up has come |
//! | `verdicts`, `rejections` | what the server says of writes, and what falls with a rejected one |
//! | `records`, `rebase` | how all of that folds into a record |
//! | `output` | what the machine wants done |
//! | `edit` | one step's changes to the store |
//! | `indexes`, `indexing` | the store's indexes, built and removed by and by |
//! | `queries` | the queries that somebody watches |

mod access;
mod adopt;
mod ahead;
mod boot;
mod catchup;
mod checks;
mod clock;
mod commands;
mod commits;
mod config;
mod connection;
mod database;
mod edit;
pub(crate) mod event;
mod exchange;
pub(crate) mod failure;
mod fallback;
pub(crate) mod fate;
mod forgotten;
mod frames;
mod group;
mod hello;
mod indexes;
mod indexing;
mod interest;
pub(crate) mod interface;
mod leap;
mod link;
mod loss;
mod machine;
mod offer;
mod outbox;
pub(crate) mod output;
mod pacing;
mod past;
mod peer;
mod pending;
mod plain;
mod portion;
mod queries;
mod reads;
mod rebase;
mod received;
mod records;
mod recount;
mod rejections;
pub(crate) mod replica;
mod scopes;
mod scoping;
mod sending;
mod server_time;
pub(crate) mod sign_out;
mod step;
mod stream;
mod streams;
mod stuck;
mod synced;
#[cfg(test)]
mod tests;
mod throttle;
mod times;
mod transaction;
mod transports;
mod unit;
mod units;
mod unused;
mod verdicts;
mod wake;
pub(crate) mod wipe;
mod writes;

pub use self::event::{
    CollectionStatus, ConnectionState, Event, EventKind, PendingWrite, ScopeStanding, StalledWrite,
    Status, Transport,
};
pub use self::failure::{ConnectFailure, FailureCause};
pub use self::fate::{Fate, FateId};
pub use self::interface::{
    ClientConfig, Command, Disconnect, Guarantees, HttpAnswer, HttpRequest, HttpTicket, Input,
    Misuse, Modify, NetAction, OnServerLoss, PlainServers, RequestId, SyncFailure,
    SyncFailureReason, SyncId, SyncOutcome, Timer, TransactionBody, Write, Written,
};
pub use self::replica::{Action, Replica, WatchId};
pub use self::sign_out::{SignOut, SignedOut};
pub use self::transaction::TransactionDraft;
pub use self::wipe::Unsent;
