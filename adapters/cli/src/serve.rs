//! The server.

use std::sync::Arc;

use serde_json::json;
use synclayer_fjall::{Durability, FjallServerStore, ServerOptions};
use synclayer_server::{Server, ServerConfig};
use tokio::task;

use crate::args::{DurabilityArg, PlainUpdatesArg, ServeArgs};
use crate::failure::Failure;
use crate::output::Printer;
use crate::reload::Reloadable;
use crate::signal::{Hangup, Signals};

pub(crate) async fn serve(args: ServeArgs, out: Printer) -> Result<(), Failure> {
    let mut hangup = Hangup::new()?;
    let files = Reloadable::read(&args).await?;
    let mut signals = Signals::new()?;
    // each connection takes a descriptor, and the usual limit is meant for programs that open files
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "can't raise the limit of open files: it bounds the connections");
    }
    let durability = match args.durability {
        DurabilityArg::Synced => Durability::Synced,
        DurabilityArg::Buffered => Durability::Buffered,
    };
    let options = ServerOptions::new().durability(durability);
    let data = args.data;
    let open = move || FjallServerStore::open(data, options);
    let store = Arc::new(task::spawn_blocking(open).await.map_err(Failure::plain)??);
    let mut config = ServerConfig::new()
        .listen(args.listen)
        .allow_origins(args.allow_origins)
        .allow_hosts(args.allow_hosts)
        .plain_whole(args.plain_updates == PlainUpdatesArg::Whole)
        .trusted_proxies(args.trusted_proxies);
    config.authenticator = files.authenticator();
    config.tls = files.tls();
    if let Some(rules) = files.rules() {
        config.policy = rules;
        // for users who may read only some records
        config.rings.documents = true;
    }
    for (collection, keys) in args.scopes {
        config.scopes.entry(collection).or_default().extend(keys);
    }
    for (collection, index) in args.indexes {
        config.indexes.entry(collection).or_default().push(index);
    }
    args.limits.put_into(&mut config);
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let server = Server::bind(config, store).await?;
    let address = server.local_addr();
    let url = format!("{scheme}://{address}");
    out.line(format_args!("listening on {url}"), &json!({ "listening": address, "url": url }))?;
    let reloads = async {
        loop {
            hangup.received().await;
            files.reload(&server).await;
        }
    };
    tokio::select! {
        () = signals.end() => {}
        () = reloads => {}
    }
    tokio::select! {
        () = server.shutdown() => Ok(()),
        // what was acknowledged is on the disk in any case
        () = signals.end() => Err(Failure::plain("told to end twice: the peers were not waited for")),
    }
}
