//! One suite for both clients: whatever way to the server there is, the outcome is the same.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod client;
mod suite;
mod support;

/// Runs every test of the suite with each client.
macro_rules! suite {
    ($($name:ident,)+) => {
        mod tokio_client {
            $(#[test] fn $name() { crate::suite::$name::<crate::client::Tokio>(); })+
        }
        mod blocking_client {
            $(#[test] fn $name() { crate::suite::$name::<crate::client::Blocking>(); })+
        }
    };
}

suite! {
    two_devices_converge_in_real_time,
    polling_and_real_time_converge,
    offline_writes_survive_a_restart_and_arrive,
    a_blocked_upgrade_leads_to_polling_and_back,
    a_stalled_upgrade_leads_to_polling,
    a_stalled_request_is_given_up_and_made_again,
    a_failing_server_is_asked_again,
    a_busy_server_is_given_its_time,
    pages_of_something_else_are_no_answers,
    a_push_that_is_too_large_is_made_smaller,
    a_refused_token_is_asked_for_and_nothing_is_dropped,
    writes_take_effect_once_whatever_carries_them,
    a_server_that_comes_back_is_found,
    an_idle_hour_of_polling_is_cheap,
    without_the_clock_it_asks_when_told,
    the_app_can_say_whether_there_is_a_network,
    closing_waits_for_no_answer,
}

#[test]
fn all_kinds_converge() {
    suite::all_kinds_converge();
}
