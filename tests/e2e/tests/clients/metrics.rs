//! The figures of a client's work.

use serde_json::json;
use synclayer_tokio::{EventKind, Transports};

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
        assert!(met.records_received >= 3, "{met:?}");
        assert!(met.top_errors.contains(&("PRECONDITION_FAILED".to_owned(), 1)), "{met:?}");
        a.close();
        b.close();
    }
}

pub fn a_catch_up_tells_how_far_it_has_come<C: Client>() {
    for transports in [Transports::RealtimeOnly, Transports::PollOnly] {
        let host = Host::start();
        let (a_way, b_way) = (host.proxy(), host.proxy());
        let a = C::open(config(&a_way));
        // several pages
        let text = "x".repeat(4 << 10);
        a.saved_all((0..300).map(|n| json!({"n": n, "text": text})).collect());
        a.synced();
        let mut b = C::open(config(&b_way).transports(transports));
        let mut told = Vec::new();
        b.told("that it is in sync", |event| match &event.kind {
            EventKind::SyncProgress { records, bytes, of, .. } => {
                told.push((*records, *bytes, *of));
                false
            }
            kind => matches!(kind, EventKind::SyncCompleted { .. }),
        });
        let (records, bytes, of) = *told.last().unwrap();
        assert!(told.len() > 2 && told.is_sorted(), "{told:?}");
        assert_eq!((records, of), (300, Some(300)));
        assert!((300 * 4_096..300 * 5_000).contains(&bytes), "{bytes}");
        // the next poll has nothing more to bring
        if transports == Transports::RealtimeOnly {
            let todos = b.status().collections.into_values().next().unwrap();
            assert_eq!((todos.received_records, todos.received_bytes), (records, bytes));
            assert_eq!(todos.expected_records, Some(300));
        }
        assert!(b.metrics().records_received >= 300);

        b.set_online(false);
        for n in 0..5 {
            a.save(&format!("new {n}"), &json!({}));
        }
        a.synced();
        b.set_online(true);
        b.told("that five changes have come", |event| {
            matches!(event.kind, EventKind::SyncProgress { records: 5, of: Some(5), .. })
        });
        a.close();
        b.close();
    }
}
