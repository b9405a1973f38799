//! The setup of a replica in a scenario.

use std::time::Duration;

use serde::Deserialize;
use synclayer_core::{
    ClientConfig, Conflict, ConflictStrategy, Document, FieldWise, OnServerLoss, Resolver,
    ResolverFailure, Token,
};

use crate::scenario::words::collection;

/// The setup of a replica.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct ReplicaSetup {
    pub(super) user: String,
    pub(super) token: Option<String>,
    pub(super) collections: Vec<String>,
    pub(super) strategy: StrategySetup,
    pub(super) durable: Durability,
    pub(super) show_commits: bool,
    pub(super) window: Option<usize>,
    pub(super) max_pending_writes: Option<usize>,
    pub(super) max_reconnect_attempts: Option<u32>,
    pub(super) document_bytes: Option<usize>,
    pub(super) frame_bytes: Option<usize>,
    pub(super) http: bool,
    pub(super) web_socket: Option<bool>,
    pub(super) sync_interval_ms: Option<u64>,
    pub(super) keep_for_ms: Option<u64>,
    pub(super) keep_scopes_for_ms: Option<u64>,
    pub(super) address: String,
    pub(super) on_server_loss: Option<Loss>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum StrategySetup {
    #[default]
    LastWriteWins,
    ServerWins,
    ClientWins,
    MergeArrays,
    SumNumbers,
    /// A resolver that finds no answer.
    Fails,
}

/// A resolver that finds no answer.
pub(super) struct Fails;

impl Resolver for Fails {
    fn resolve(&self, _: &Conflict<'_>) -> Option<Document> {
        None
    }

    fn try_resolve(&self, _: &Conflict<'_>) -> Result<Option<Document>, ResolverFailure> {
        Err(ResolverFailure { reason: "no answer is found".into() })
    }
}

/// The treatment of records that the server lacks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Loss {
    Adopt,
    Offer,
    Ask,
}

/// When commits become durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Durability {
    #[default]
    AtOnce,
    WhenTold,
}

impl ReplicaSetup {
    pub(super) fn config(&self) -> Result<ClientConfig, String> {
        let mut config = ClientConfig::default();
        config.user = self.user.clone();
        config.token = self.token.as_deref().map(Token::from);
        config.conflict_strategy = match self.strategy {
            StrategySetup::LastWriteWins => ConflictStrategy::LastWriteWins,
            StrategySetup::ServerWins => ConflictStrategy::ServerWins,
            StrategySetup::ClientWins => ConflictStrategy::ClientWins,
            StrategySetup::MergeArrays => ConflictStrategy::custom(FieldWise::merge_arrays()),
            StrategySetup::SumNumbers => ConflictStrategy::custom(FieldWise::sum_numbers()),
            StrategySetup::Fails => ConflictStrategy::custom(Fails),
        };
        config.collections =
            self.collections.iter().map(|name| collection(name)).collect::<Result<_, _>>()?;
        config.max_reconnect_attempts = self.max_reconnect_attempts;
        config.http = self.http;
        config.websocket = self.web_socket.unwrap_or(true);
        config.address = self.address.clone();
        config.keep_for = self.keep_for_ms.map(Duration::from_millis);
        config.keep_scopes_for =
            self.keep_scopes_for_ms.map_or(config.keep_scopes_for, Duration::from_millis);
        config.on_server_loss = self.on_server_loss.map(|told| match told {
            Loss::Adopt => OnServerLoss::Adopt,
            Loss::Offer => OnServerLoss::Offer,
            Loss::Ask => OnServerLoss::Ask,
        });
        config.window = self.window.unwrap_or(config.window);
        config.max_pending_writes = self.max_pending_writes.unwrap_or(config.max_pending_writes);
        config.limits.document_bytes = self.document_bytes.unwrap_or(config.limits.document_bytes);
        config.limits.frame_bytes = self.frame_bytes.unwrap_or(config.limits.frame_bytes);
        config.sync_interval =
            self.sync_interval_ms.map_or(config.sync_interval, Duration::from_millis);
        Ok(config)
    }
}
