//! One suite for both clients: whatever way to the server there is, the outcome is the same.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod callback;
mod client;
mod close;
mod fate;
mod metrics;
mod modify;
mod reads;
mod sign_out;
mod slow;
mod suite;
mod support;
mod transactions;
mod unreachable;

/// Runs every test of the suite with each client.
macro_rules! suite {
    ($($story:ident::$name:ident,)+) => {
        mod tokio_client {
            $(#[test] fn $name() { crate::$story::$name::<crate::client::Tokio>(); })+
        }
        mod blocking_client {
            $(#[test] fn $name() { crate::$story::$name::<crate::client::Blocking>(); })+
        }
    };
}

suite! {
    suite::two_devices_converge_in_real_time,
    suite::polling_and_real_time_converge,
    suite::offline_writes_survive_a_restart_and_arrive,
    suite::a_blocked_upgrade_leads_to_polling_and_back,
    suite::a_stalled_upgrade_leads_to_polling,
    suite::a_stalled_request_is_given_up_and_made_again,
    suite::a_failing_server_is_asked_again,
    suite::a_busy_server_is_given_its_time,
    suite::pages_of_something_else_are_no_answers,
    suite::a_push_that_is_too_large_is_made_smaller,
    suite::a_refused_token_is_asked_for_and_nothing_is_dropped,
    suite::writes_take_effect_once_whatever_carries_them,
    suite::a_server_that_comes_back_is_found,
    suite::an_idle_hour_of_polling_is_cheap,
    suite::without_the_clock_it_asks_when_told,
    suite::the_app_can_say_whether_there_is_a_network,
    suite::closing_waits_for_no_answer,
    suite::synced_names_what_the_server_refuses,
    suite::hundreds_of_collections_are_in_sync,
    suite::a_collection_without_handles_is_left_after_a_while,
    suite::a_collection_that_was_left_stays_as_it_was_until_it_is_used_again,
    callback::a_resolver_that_panics_is_told_of_and_the_client_goes_on,
    fate::a_write_tells_whether_the_server_has_it,
    fate::a_joined_write_and_one_without_effect_share_the_fate_of_what_waits,
    fate::a_write_that_the_strategy_gives_up_says_so,
    fate::a_client_that_closes_leaves_nobody_waiting,
    fate::writes_that_nobody_waits_for_are_forgotten,
    sign_out::what_a_user_leaves_waits_for_their_return,
    sign_out::a_wipe_takes_everything_of_the_user_and_nothing_of_others,
    callback::a_resolver_that_calls_its_client_gets_an_error_at_once,
    unreachable::what_does_not_let_itself_be_reached_is_told_apart,
    unreachable::failures_of_tls_say_which_certificate_and_why,
    unreachable::what_answers_and_is_no_server_is_told,
    unreachable::a_failure_is_over_when_the_server_is_in_reach,
    close::a_goodbye_arrives_whatever_is_unread,
    slow::a_page_that_comes_slowly_is_waited_for,
    slow::a_write_that_leaves_slowly_is_waited_for,
    slow::connections_that_carry_little_carry_everything_in_the_end,
    metrics::the_metrics_tell_the_work_of_a_client,
    metrics::a_catch_up_tells_how_far_it_has_come,
    modify::no_increment_of_many_threads_is_lost,
    modify::a_closure_makes_removes_and_leaves_records,
    modify::a_write_that_changes_nothing_is_answered,
    modify::a_closure_that_fails_changes_nothing_and_the_client_goes_on,
    transactions::a_transaction_is_made_at_once_and_reaches_the_others,
    transactions::a_transaction_that_can_not_be_made_changes_nothing,
    transactions::a_claim_made_off_line_fails_where_somebody_was_faster,
    transactions::many_records_are_written_in_few_transactions,
}

#[test]
fn all_kinds_converge() {
    suite::all_kinds_converge();
}
