//! Slow links, and links that break again and again.

use std::time::Duration;

use serde_json::{Value, json};
use synclayer_server::{ServerConfig, ServerLimits};
use synclayer_tokio::{SyncConfig, Transports};

use crate::client::Client;
use crate::support::{Carries, Host, SlowLink, TODOS, config};

/// The time without a sign of life after which what is under way is given up: much less than all of
/// it takes, and much more than a busy machine is silent.
const SILENCE: Duration = Duration::from_millis(1_500);

fn host() -> Host {
    let mut limits = ServerLimits::default();
    limits.idle_timeout = SILENCE * 2;
    Host::with(ServerConfig::new().limits(limits).write_timeout(SILENCE).http_timeout(SILENCE))
}

/// A client that has the server's records, all written in its own way.
fn writer<C: Client>(host: &Host, records: usize, bytes: usize) {
    let proxy = host.proxy();
    let writer = C::open(config(&proxy));
    for number in 0..records {
        writer.save(&format!("{number:03}"), &text(bytes));
    }
    writer.synced();
    writer.close();
}

fn text(bytes: usize) -> Value {
    json!({"text": "x".repeat(bytes)})
}

fn over(link: &SlowLink, transports: Transports) -> SyncConfig {
    SyncConfig::new(link.url())
        .collections([TODOS])
        .transports(transports)
        .reconnect_delay(Duration::from_millis(10))
        .ping_interval(SILENCE / 3)
        .ping_timeout(SILENCE)
        .request_timeout(SILENCE)
}

const BOTH: [Transports; 2] = [Transports::RealtimeOnly, Transports::PollOnly];

pub fn a_page_that_comes_slowly_is_waited_for<C: Client>() {
    let host = host();
    writer::<C>(&host, 40, 4_000);
    for transports in BOTH {
        let link = host.link(Carries { per_second: 40_000, ..Carries::default() });
        let reader = C::open(over(&link, transports));
        reader.synced();
        assert_eq!(reader.records().len(), 40);
        // a page of 160 KB on the first of them; HTTP need not keep the one of its hello
        assert!(link.connections() <= 2, "{} by {transports:?}", link.connections());
        reader.close();
    }
}

pub fn a_write_that_leaves_slowly_is_waited_for<C: Client>() {
    let host = host();
    for transports in BOTH {
        let link = host.link(Carries { per_second: 100_000, ..Carries::default() });
        let writer = C::open(over(&link, transports));
        writer.save("large", &text(500_000));
        writer.synced();
        assert!(link.connections() <= 2, "{} by {transports:?}", link.connections());
        writer.close();
    }
}

pub fn connections_that_carry_little_carry_everything_in_the_end<C: Client>() {
    let host = host();
    writer::<C>(&host, 300, 1_000);
    for transports in BOTH {
        for per_connection in [100_000, 30_000] {
            let link = host.link(Carries { per_connection, ..Carries::default() });
            let client = C::open(over(&link, transports));
            client.synced();
            assert_eq!(client.records().len(), 300, "{per_connection} by {transports:?}");
            for number in 0..300 {
                client.save(&format!("{number:03}"), &json!({"text": "y".repeat(1_000)}));
            }
            client.synced();
            assert_eq!(client.status().pending_writes, 0);
            assert!(link.connections() > 5, "{} by {transports:?}", link.connections());
            client.close();
        }
    }
}
