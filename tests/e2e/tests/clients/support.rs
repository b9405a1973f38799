//! The server of a test, driven from the thread of the test, and configurations of its clients.

use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use synclayer_core::UserId;
use synclayer_e2e::host;
pub use synclayer_e2e::proxy::{Passage, Proxy, Request};
pub use synclayer_e2e::slow::{Carries, SlowLink};
pub use synclayer_e2e::wait::{TIMEOUT, until};
use synclayer_fjall::{ClientOptions, FjallClientStore};
use synclayer_server::{ServerConfig, StaticTokens};
use synclayer_tokio::{Store, SyncConfig};
use tokio::runtime::Runtime;

/// The collection of all tests.
pub const TODOS: &str = "todos";

/// Returns the runtime of the server, the proxies and the tokio client.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());
    &RUNTIME
}

/// A server with a store in memory.
pub struct Host(host::Host);

impl Host {
    pub fn start() -> Self {
        Self::with(ServerConfig::default())
    }

    /// One that knows a user `ann` by these tokens.
    pub fn with_tokens(tokens: &[&str]) -> Self {
        let ann = || UserId::new("ann").unwrap();
        let tokens = StaticTokens::new(tokens.iter().map(|token| (ann(), *token)));
        Self::with(ServerConfig::new().authenticator(Arc::new(tokens)))
    }

    pub fn with(config: ServerConfig) -> Self {
        Self(runtime().block_on(host::Host::in_memory(config)))
    }

    pub fn run(&mut self) {
        runtime().block_on(self.0.run());
    }

    pub fn stop(&mut self) {
        runtime().block_on(self.0.stop());
    }

    /// A slow link to the server.
    pub fn link(&self, carries: Carries) -> SlowLink {
        runtime().block_on(SlowLink::start(self.0.address(), carries))
    }

    /// A way to the server.
    pub fn proxy(&self) -> Proxy {
        runtime().block_on(self.0.proxy())
    }
}

/// A client's configuration: in memory, quick to try again.
pub fn config(proxy: &Proxy) -> SyncConfig {
    SyncConfig::new(proxy.url())
        .collections([TODOS])
        .reconnect_delay(Duration::from_millis(20))
        .request_timeout(Duration::from_secs(5))
}

/// A store in a directory.
pub fn on_disk(dir: &Path) -> Store {
    let dir = dir.to_owned();
    Store::opened_by(move |_on_durable| {
        Ok(Box::new(FjallClientStore::open(&dir, ClientOptions::default())?))
    })
}
