//! The figures of a client's work.

use serde_json::json;
use synclayer_tokio::Transports;

use crate::client::Client;
use crate::support::{Host, TODOS, config, until};

pub fn the_metrics_tell_the_work_of_a_client<C: Client>() {
    for transports in [Transports::RealtimeOnly, Transports::PollOnly] {
        let host = Host::start();
        let (a_way, b_way) = (host.proxy(), host.proxy());
        let a = C::open(config(&a_way).transports(transports).connect_at_start(false));
        let b = C::open(config(&b_way));
        let none = a.metrics();
        assert_eq!((none.sync_attempts, none.success_rate(), none.last_sync_time), (0, 0.0, None));
        a.save("x", &json!({"n": 1}));
        a.save("y", &json!({"n": 1}));
        let saved = a.metrics();
        assert_eq!((saved.operations_queued, saved.operations_synced), (2, 0));
        assert_eq!((saved.bytes_sent, saved.bytes_received), (0, 0));
        a.connect();
        a.synced();
        until("the records are on b", || b.shown().len() == 2);
        let synced = a.metrics();
        assert_eq!((synced.operations_synced, synced.operations_failed), (2, 0));
        assert!(synced.sync_successes >= 1 && synced.success_rate() > 0.0, "{synced:?}");
        assert!(synced.sync_successes + synced.sync_failures <= synced.sync_attempts, "{synced:?}");
        assert!(synced.average_sync_duration.is_some() && synced.last_sync_time.is_some());
        assert!(synced.bytes_sent > 100 && synced.bytes_received > 100, "{synced:?}");
        let by_socket = transports == Transports::RealtimeOnly;
        assert_eq!((synced.connections == 1, synced.requests == 0), (by_socket, by_socket));

        a.set_online(false);
        a.update("x", &json!({"n": 2}));
        let late = a.transacted(Box::new(|t| {
            t.expect_unchanged(TODOS, "y")?;
            t.save_with_id(TODOS, "z", &json!({}))
        }));
        b.update("x", &json!({"n": 3}));
        b.update("y", &json!({"n": 3}));
        b.save("from b", &json!({}));
        b.synced();
        a.set_online(true);
        assert!(late.unwrap()().is_ok());
        a.synced();
        let met = a.metrics();
        assert_eq!((met.conflicts_detected, met.conflicts_resolved), (1, 1), "{met:?}");
        assert_eq!(met.operations_failed, 1, "{met:?}");
        assert!(met.top_errors.contains(&("PRECONDITION_FAILED".to_owned(), 1)), "{met:?}");
        a.close();
        b.close();
    }
}
