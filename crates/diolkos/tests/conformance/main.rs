// SPDX-License-Identifier: Apache-2.0
//! The conformance suite: what every island's channels must do, whatever they are made of.
//!
//! ```text
//!   port        an endpoint with one peer, and buffers that are safe to use
//!   channel     the two ends of a channel by themselves: memory and doorbells
//!   messages    every size class, order, matching, truncation, probes, claims, buffers for many
//!   waiting     sleeping and waking, event loops, deadlines, signals, threads
//!   many        floods, many peers, closing
//!   regions     granted memory, remote reads and writes, revoking
//!   loans       memory that peers look at where it lies
//! ```
//!
//! The suite is written against a [`Maker`]: a function that makes the two ends of a fresh channel,
//! both of which are then used from this process. An island that can do that runs all of it with
//! one line at the end of this file. Nothing here may sleep as a way to synchronise: a test that
//! needs its peer asleep asks the peer's counters.

mod channel;
mod loans;
mod many;
mod messages;
mod port;
mod regions;
mod waiting;

use diolkos_island::{ChannelEnds, IslandError, Road};

/// Makes the two ends of a fresh channel.
pub type Maker = fn() -> Result<(ChannelEnds, ChannelEnds), IslandError>;

/// Runs the whole suite over the channels of one island.
macro_rules! conformance {
    ($island:ident, $make:expr; $($module:ident: $($name:ident),* $(,)?;)*) => {
        mod $island {
            $(mod $module {
                $(#[test]
                fn $name() {
                    crate::$module::$name($make);
                })*
            })*
        }
    };
    ($island:ident, $make:expr) => {
        conformance! { $island, $make;
            channel:
                both_ends_agree_on_the_channel,
                what_one_end_writes_the_other_reads,
                the_file_of_the_peer_cannot_be_written,
                a_doorbell_wakes_the_other_end_and_nobody_else;
            messages:
                every_length_arrives_whichever_comes_first,
                a_mixed_stream_keeps_its_order,
                matching_looks_at_tag_mask_source_and_space,
                a_synchronous_send_waits_for_its_receive,
                short_receives_truncate,
                probes_and_claims,
                one_buffer_takes_many_messages,
                cancelled_receives_take_nothing,
                immediate_data_rides_along,
                messages_to_oneself,
                the_handler_sees_what_nobody_waits_for,
                names_of_requests_are_checked;
            waiting:
                a_sleeping_receiver_is_woken,
                a_sleeping_sender_is_woken_by_room,
                ping_pong_between_sleepers,
                an_event_loop_is_woken,
                all_ways_of_waiting_share_an_endpoint,
                who_wakes_up_leaves_the_others_asleep,
                a_deadline_is_kept,
                a_deadline_is_kept_under_a_flood,
                a_signal_interrupts_one_wait_and_loses_nothing,
                the_first_of_several_requests_is_found,
                many_threads_share_an_endpoint,
                a_thread_that_only_tests_does_not_steal_from_those_that_wait,
                a_handler_that_takes_its_time_delays_nobody_for_ever;
            many:
                two_endpoints_flood_each_other,
                sixty_four_peers,
                closing_is_seen_by_the_peer,
                closing_ends_the_waits_of_other_threads,
                disconnecting_leaves_the_other_peers_alone,
                what_was_sent_before_a_close_arrives,
                idle_memory_is_small;
        }
    };
}

/// Runs the tests of granted memory over the channels of one island. Those of the switched road, and
/// of islands that cannot grant, must pass them by copies.
macro_rules! memory_conformance {
    ($island:ident, $make:expr) => {
        conformance! { $island, $make;
            regions:
                large_messages_leave_granted_memory_whole,
                what_is_written_is_there_and_is_read_back,
                atomics_tell_what_was_there,
                places_outside_a_region_are_refused,
                a_fence_waits_for_what_was_begun_before,
                a_notification_follows_its_data,
                keys_that_are_not_good_open_nothing,
                what_is_revoked_is_out_of_sight,
                revoking_ends_a_long_transfer,
                memory_that_moves_loses_nothing,
                memory_that_becomes_writable_stays_where_it_is,
                both_sides_hammer_one_word,
                an_arena_has_a_limit,
                an_operation_ends_with_its_peer;
            loans:
                a_loan_shows_the_same_bytes,
                a_loan_outlives_its_lender,
                a_borrower_that_leaves_gives_its_loans_back,
                memory_that_was_lent_is_used_for_nobody_else,
                loans_and_messages_are_kept_apart,
                a_loan_that_nobody_wants_any_more_goes_back,
                other_memory_is_lent_as_a_copy;
        }
    };
}

/// A channel whose ends believe that a relay lies between them, which passes no files.
fn switched_pair() -> Result<(ChannelEnds, ChannelEnds), IslandError> {
    let (a, b) = diolkos_island::local::pair()?;
    let switched = |end| ChannelEnds { road: Road::Switched, ..end };
    Ok((switched(a), switched(b)))
}

conformance!(in_process, diolkos_island::local::pair);
memory_conformance!(memory_in_process, diolkos_island::local::pair);
memory_conformance!(memory_by_copies, crate::switched_pair);
