//! Queries that look at many records leave their turns to others.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod common;

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use common::{Peer, http};
use serde_json::json;
use synclayer_server::{
    Batch, Bytes, MemoryServerStore, Rows, Server, ServerConfig, ServerStore, StoreError, Visit,
};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// The number of records of the large collection.
const RECORDS: usize = 1000;

/// A store that takes a millisecond for each row that it visits.
#[derive(Default)]
struct Slow(MemoryServerStore);

struct SlowRows<'a>(&'a dyn Rows);

impl Rows for SlowRows<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.0.get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.0.scan(from, to, &mut |key, value| {
            thread::park_timeout(Duration::from_millis(1));
            visit(key, value)
        })
    }

    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        self.0.last(from, to)
    }
}

impl ServerStore for Slow {
    fn transact(
        &self,
        decide: &mut dyn FnMut(&dyn Rows) -> Result<Batch, StoreError>,
    ) -> Result<(), StoreError> {
        self.0.transact(decide)
    }

    fn read(
        &self,
        read: &mut dyn FnMut(&dyn Rows) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.0.read(&mut |rows| read(&SlowRows(rows)))
    }
}

/// A server with a large collection and a small one.
async fn serve(config: ServerConfig) -> Server {
    let server = Server::bind(config, Arc::new(Slow::default())).await.unwrap();
    let mut writer = Peer::connect(&server, "", &[]).await;
    for id in 0..RECORDS {
        let insert = json!({
            "type": "insert", "collection": "large", "recordId": id.to_string(), "data": {"n": id},
        });
        writer.send(insert.to_string()).await;
    }
    writer.expect_quiet().await;
    let body = r#"{"recordId":"1","data":{}}"#;
    assert_eq!(http(&server, "POST", "/sync/small", &[], body).await.status, 200);
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn others_read_while_many_scans_are_under_way() {
    let server = serve(ServerConfig::default()).await;
    let mut scans = Vec::new();
    for _ in 0..120 {
        let mut scan = TcpStream::connect(server.local_addr()).await.unwrap();
        let request = "GET /sync/large?where[n]=none HTTP/1.1\r\nhost: localhost\r\n\r\n";
        scan.write_all(request.as_bytes()).await.unwrap();
        scans.push(scan);
    }
    for _ in 0..3 {
        let small = http(&server, "GET", "/sync/small", &[], "").await;
        assert_eq!(small.json()["records"].as_array().unwrap().len(), 1);
        let mut peer = Peer::connect(&server, "", &[]).await;
        peer.subscribe("small").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_that_runs_for_too_long_is_refused() {
    let server = serve(ServerConfig::new().read_time(Duration::from_millis(100))).await;
    let refused = http(&server, "GET", "/sync/large?where[n]=none", &[], "").await;
    assert_eq!((refused.status, &refused.json()["code"]), (413, &json!("PAYLOAD_TOO_LARGE")));
    assert!(refused.body.contains("since"), "{}", refused.body);
    assert_eq!(http(&server, "GET", "/sync/small", &[], "").await.status, 200);
}
