//! A real HAProxy on the way to the server.

use std::net::{SocketAddr, TcpListener};

use serde_json::json;
use synclayer_e2e::host::Host;
use synclayer_e2e::wait::{soon, told};
use synclayer_tokio::{EventKind, Fate, Transports};

use crate::common::Device;
use crate::middlebox::{self, Middlebox};

const ARGS: &[&str] = &["-db", "-q", "-f", middlebox::CONFIG];

/// The configuration of one in front of a server, with further lines for its frontend.
fn config(server: SocketAddr, idle_timeout: &str, rules: &str) -> impl Fn(SocketAddr) -> String {
    move |address| {
        format!(
            "defaults
                 mode http
                 timeout connect 2s
                 timeout client {idle_timeout}
                 timeout server {idle_timeout}
                 timeout tunnel {idle_timeout}
                 retries 0
             frontend way
                 bind {address}
                 {rules}
                 default_backend synclayer
             backend synclayer
                 server one {server}\n"
        )
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_name_travels_through_haproxy() {
    let host = Host::start().await;
    let config = config(host.address(), "60s", "");
    let Some(haproxy) = Middlebox::start("haproxy", ARGS, config) else { return };
    middlebox::any_name_travels(&haproxy, &host).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_where_haproxy_cuts_idle_connections() {
    let host = Host::start().await;
    let config = config(host.address(), "1s", "");
    let Some(haproxy) = Middlebox::start("haproxy", ARGS, config) else { return };
    middlebox::nothing_is_lost_where_idle_connections_are_cut(&haproxy, &host).await;
}

/// Whole bodies gather in it before they go on, and each connection has one answer only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_records_pass_a_haproxy_that_buffers_and_closes() {
    let host = Host::start().await;
    let rules = "option http-buffer-request\noption httpclose\ntimeout http-request 10s";
    let config = config(host.address(), "60s", rules);
    let Some(haproxy) = Middlebox::start("haproxy", ARGS, config) else { return };
    let polling = haproxy.device(&host, Transports::PollOnly).await;
    let live = haproxy.device(&host, Transports::RealtimeOnly).await;
    let text = "x".repeat(900_000);
    for (from, to, id) in [(&polling, &live, "by-http"), (&live, &polling, "by-socket")] {
        from.todos.save_with_id(id, &json!({ "text": text })).await.unwrap();
        from.synced().await;
        to.synced().await;
        assert_eq!(to.field(id, "text").await, Some(json!(text)), "{id}");
    }
}

/// The pages that it answers with where there is no server, or too many requests come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_haproxy_are_outlived() {
    let host = Host::start().await;
    let good = config(host.address(), "60s", "");
    let Some(mut haproxy) = Middlebox::start("haproxy", ARGS, &good) else { return };
    let nowhere = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let without_server = config(nowhere, "60s", "");
    let denied = config(host.address(), "60s", "http-request deny deny_status 429");
    for (status, bad) in [(503, &without_server), (429, &denied)] {
        for transports in [Transports::PollOnly, Transports::RealtimeOnly, Transports::Both] {
            let case = format!("{status} {transports:?}");
            let mut device = haproxy.device(&host, transports).await;
            device.todos.save_with_id("before", &json!({})).await.unwrap();
            device.synced().await;
            haproxy.restart(bad);
            device.todos.save_with_id("meanwhile", &json!({})).await.unwrap();
            device.todos.delete("before").await.unwrap();
            told(&mut device.events, |kind| is_told(kind, status)).await;
            let now = device.sync.status().await.unwrap();
            assert_eq!((now.pending_writes, now.rejected_writes), (2, 0), "{case}");
            haproxy.restart(&good);
            device.synced().await;
            let now = device.sync.status().await.unwrap();
            assert_eq!((now.pending_writes, now.rejected_writes), (0, 0), "{case}");
            assert!(device.todos.get("before").await.unwrap().is_none(), "{case}");
            device.todos.delete("meanwhile").await.unwrap();
            device.synced().await;
        }
    }
}

fn is_told(kind: &EventKind, status: u16) -> bool {
    matches!(kind, EventKind::Error { message, .. } if message.contains(&status.to_string()))
}

/// It lets fewer requests pass in a second than a round through all collections takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_limit_of_haproxy_slows_down_and_loses_nothing() {
    let host = Host::start().await;
    let rules = "stick-table type ip size 100 expire 10s store http_req_rate(1s)
                 http-request track-sc0 src
                 http-request deny deny_status 429 if { sc_http_req_rate(0) gt 5 }";
    let config = config(host.address(), "60s", rules);
    let Some(haproxy) = Middlebox::start("haproxy", ARGS, config) else { return };
    let mut polling = haproxy.device(&host, Transports::PollOnly).await;
    let other = Device::new(&host).await;
    let ids: Vec<_> = (10..15).map(|n| n.to_string()).collect();
    for id in &ids {
        let saved = polling.todos.save_with_id(id, &json!({})).await.unwrap();
        assert_eq!(soon("its acknowledgement", saved.confirmed()).await, Ok(Fate::Acknowledged));
    }
    told(&mut polling.events, |kind| is_told(kind, 429)).await;
    other.synced().await;
    let found = other.todos.get_all().await.unwrap();
    assert!(found.iter().map(|record| &*record.id).eq(ids.iter().map(String::as_str)));
}
