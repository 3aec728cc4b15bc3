// SPDX-License-Identifier: Apache-2.0
//! The unexpected handler: who is asked, when, and what becomes of the answer.

use super::world::{A, B, C, LARGE, PIECES, SMALL, World, anything, tag};
use crate::machine::{HandlerAction, HandlerCall, StatusCode};
use crate::testing::{Limits, bytes_of};

fn world_with_handler() -> World {
    let mut w = World::pair();
    w.machines[B].install_handler(true);
    w
}

/// Polls until a call is due, and takes it.
fn next_call(w: &mut World) -> HandlerCall {
    w.drive();
    w.machines[B].take_handler_call().expect("a call for the handler")
}

#[test]
fn messages_are_offered_in_the_order_of_matching_and_finished_ones_are_gone() {
    let mut w = world_with_handler();
    let messages = [1, 2, 3].map(|info| w.send(A, B, info, SMALL));
    for message in &messages {
        let call = next_call(&mut w);
        assert_eq!(u64::from(call.status.immediate), message.number);
        w.machines[B].answer_handler(HandlerAction::Finished);
    }
    w.drive();
    assert!(w.machines[B].take_handler_call().is_none());
    w.expect_empty();
}

#[test]
fn a_message_that_has_a_receive_is_not_offered() {
    let mut w = world_with_handler();
    let receive = w.receive(B, tag(1), SMALL);
    let message = w.send(A, B, 1, SMALL);
    w.drive();
    assert!(!w.machines[B].handler_is_due());
    w.expect_received(&receive, &message);
}

#[test]
fn data_is_shown_only_when_all_of_it_is_here() {
    let mut w = world_with_handler();
    for (len, shown) in [(0, true), (SMALL, true), (4096, true), (PIECES, false), (LARGE, false)] {
        let message = w.send(A, B, 1, len);
        let call = next_call(&mut w);
        let whole: Vec<u8> = bytes_of(message.number, 0..len).collect();
        assert_eq!(call.data, shown.then_some(whole), "{len} bytes");
        w.machines[B].answer_handler(HandlerAction::Finished);
        w.drive();
        // "The library answers with a notify of length 0, so the sender completes with
        // MX_STATUS_TRUNCATED, xfer_length 0" (mx.md 1.6.8)
        w.expect_sent(&message, if len == LARGE { 0 } else { len });
    }
    let empty = w.send_synchronously(A, B, 1, 0);
    let _ = next_call(&mut w);
    w.machines[B].answer_handler(HandlerAction::Finished);
    w.drive();
    w.expect_sent(&empty, 0);
    w.expect_empty();
}

#[test]
fn a_kept_message_is_matched_once_more_and_then_waits() {
    for len in [SMALL, PIECES, LARGE] {
        let mut w = world_with_handler();
        let first = w.send(A, B, 1, len);
        let _ = next_call(&mut w);
        // "The handler may just have posted one."
        let receive = w.receive(B, tag(1), len);
        assert!(w.is_open(B, receive.request));
        w.machines[B].answer_handler(HandlerAction::Continue);
        w.drive();
        w.expect_received(&receive, &first);
        w.expect_sent(&first, len);

        let second = w.send(A, B, 2, len);
        let _ = next_call(&mut w);
        w.machines[B].answer_handler(HandlerAction::Continue);
        w.drive();
        assert!(!w.machines[B].handler_is_due(), "a message is offered once");
        let receive = w.receive(B, tag(2), len);
        w.drive();
        w.expect_received(&receive, &second);
        w.expect_sent(&second, len);
        w.expect_empty();
    }
}

#[test]
fn nothing_moves_while_the_handler_thinks() {
    let mut w = world_with_handler();
    w.send(A, B, 1, SMALL);
    w.send(A, B, 2, SMALL);
    let _ = next_call(&mut w);
    let receive = w.receive(B, tag(2), SMALL);
    w.drive();
    assert!(w.is_open(B, receive.request));
    assert!(w.machines[B].take_handler_call().is_none(), "the same call is not given twice");
    w.machines[B].answer_handler(HandlerAction::Finished);
    w.drive();
    assert!(!w.is_open(B, receive.request));
}

#[test]
fn a_message_to_oneself_is_offered_too() {
    let mut w = world_with_handler();
    let message = w.send(B, B, 1, LARGE);
    let call = w.machines[B].take_handler_call().unwrap();
    assert_eq!(call.data.map(|data| data.len()), Some(LARGE));
    w.machines[B].answer_handler(HandlerAction::Finished);
    w.expect_sent(&message, 0);
    w.expect_empty();
}

#[test]
fn without_a_handler_again_messages_wait_as_before() {
    let mut w = world_with_handler();
    w.machines[B].install_handler(false);
    let message = w.send(A, B, 1, SMALL);
    w.drive();
    let receive = w.receive(B, anything(), SMALL);
    w.expect_received(&receive, &message);
}

#[test]
fn the_answer_for_a_message_that_died_meanwhile_harms_no_other() {
    // While the program's handler runs for an announced message, its sender dies and the message
    // with it. The next one, from somebody else, becomes due before the handler returns: the
    // answer, which was for the dead one, consumed it unseen.
    let mut w = World::new(3, Limits::default());
    w.machines[B].install_handler(true);
    w.send(A, B, 1, LARGE);
    let _ = next_call(&mut w);
    let a = w.peer(B, A);
    w.machines[B].peer_failed(a, StatusCode::PeerDied, "killed");
    let message = w.send(C, B, 2, SMALL);
    w.drive();
    w.machines[B].answer_handler(HandlerAction::Finished);
    let call = next_call(&mut w);
    assert_eq!(u64::from(call.status.immediate), message.number);
    w.machines[B].answer_handler(HandlerAction::Continue);
    let receive = w.receive(B, anything(), SMALL);
    w.expect_received(&receive, &message);
}

#[test]
fn a_peer_that_leaves_is_heard_to_the_end() {
    // The news that a peer left may overtake its last messages (it comes from the backend). While
    // the handler was asked about the first of them, the others were thrown away.
    for code in [StatusCode::PeerClosed, StatusCode::PeerDied] {
        let mut w = world_with_handler();
        for info in 1..=5 {
            w.send(A, B, info, SMALL);
        }
        let a = w.peer(B, A);
        w.machines[B].peer_failed(a, code, "it left");
        for info in 1..=5 {
            let call = next_call(&mut w);
            assert_eq!(call.status.match_info, info);
            w.machines[B].answer_handler(HandlerAction::Finished);
        }
        w.drive();
        assert_eq!(w.machines[B].take_departed().map(|(_, how, _)| how), Some(code));
        w.expect_empty_at(B);
    }
}

#[test]
fn no_message_of_another_peer_overtakes_the_one_that_is_asked_about() {
    let mut w = World::new(3, Limits::default());
    w.machines[B].install_handler(true);
    // Both are hot, then one of them is the one in turn.
    for round in 0..4 {
        for sender in [A, C] {
            w.send(sender, B, 1, SMALL);
        }
        for _ in 0..2 {
            // One look takes in frames of several peers.
            while !w.machines[B].handler_is_due() {
                w.machines[B].poll();
            }
            let call = w.machines[B].take_handler_call().expect("it is due");
            let receive = w.receive(B, tag(1), SMALL);
            assert!(w.is_open(B, receive.request), "a queued message was there in round {round}");
            w.machines[B].answer_handler(HandlerAction::Continue);
            let status = w.test(B, receive.request).expect("the message that was asked about");
            assert_eq!(status, crate::Status { transferred_bytes: SMALL as u64, ..call.status });
        }
    }
    w.expect_empty();
}
