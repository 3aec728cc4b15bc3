// SPDX-License-Identifier: Apache-2.0
//! Credit, full rings and floods: memory stays bounded, nobody waits for ever, order is kept.
//!
//! `drive_sleepily` lets every endpoint sleep as soon as it has nothing to do and polls it again
//! only when it is rung. What does not finish that way would hang between two processes.

use super::world::{A, B, C, LARGE, Message, PIECES, SMALL, World, anything, tag};
use crate::limits::{CREDIT_BYTES, CREDIT_MESSAGES, EAGER_BYTES_MAX, QUEUED_SENDS_MAX};
use crate::machine::{Envelope, Refusal, Sent};
use crate::testing::Limits;

const TINY: Limits = Limits { cells: 2, area_bytes: 24 << 10 };

/// Receives one message after the other at `at` until all have come, sleeping in between.
fn receive_all(w: &mut World, at: usize, messages: &[Message]) {
    for message in messages {
        w.wake(at);
        let receive = w.receive(at, anything(), message.len);
        w.drive_sleepily();
        w.expect_received(&receive, message);
    }
}

#[test]
fn the_smallest_ring_carries_everything_between_sleepers() {
    for len in [0, 8, SMALL, PIECES, EAGER_BYTES_MAX, LARGE, 3 << 20] {
        for receive_first in [true, false] {
            let mut w = World::new(2, TINY);
            let early = receive_first.then(|| w.receive(B, anything(), len));
            w.drive_sleepily();
            w.wake(A);
            let message = w.send(A, B, 1, len);
            w.drive_sleepily();
            w.wake(B);
            let receive = early.unwrap_or_else(|| w.receive(B, anything(), len));
            w.drive_sleepily();
            w.expect_received(&receive, &message);
            w.expect_sent(&message, len);
            w.expect_empty();
        }
    }
}

#[test]
fn a_sender_asleep_for_want_of_room_is_woken_by_its_receiver() {
    // It has nothing to read, so nobody would ring it for a message; what it waits for is room.
    let mut w = World::new(2, Limits { cells: 4, area_bytes: 24 << 10 });
    let receive = w.receive(B, anything(), LARGE);
    let message = w.send(A, B, 1, LARGE);
    w.machines[B].poll();
    w.machines[A].poll();
    while w.step_sleepily(A) {}
    assert!(w.is_asleep(A), "it has filled the ring and sleeps");
    w.drive_sleepily();
    w.expect_received(&receive, &message);
    w.expect_sent(&message, LARGE);
}

#[test]
fn a_sender_asleep_for_want_of_credit_is_woken_by_a_receive() {
    let mut w = World::pair();
    let count = CREDIT_MESSAGES as usize + 10;
    let messages: Vec<Message> = (0..count).map(|_| w.send(A, B, 1, 1)).collect();
    w.drive_sleepily();
    assert!(w.is_asleep(A) && w.is_asleep(B));
    assert!(messages[count - 1].sent != Sent::Done);
    receive_all(&mut w, B, &messages);
    for message in &messages {
        w.expect_sent(message, 1);
    }
    w.expect_empty();
}

#[test]
fn rest_means_rest() {
    // What was left undone when all sleep would be found by one more look.
    let mut w = World::new(3, TINY);
    for (from, to) in [(A, B), (B, A), (A, C), (C, A), (B, C), (C, B)] {
        for len in [8, LARGE, PIECES] {
            w.send(from, to, 1, len);
        }
        let selector = w.from(to, from, anything());
        w.receive(to, selector, LARGE);
        w.drive_sleepily();
        for at in [A, B, C] {
            assert!(!w.machines[at].poll_all(), "endpoint {at} slept over something");
            w.wake(at);
        }
    }
}

#[test]
fn what_is_held_for_one_peer_is_bounded() {
    for len in [0, 8, 1000, PIECES, EAGER_BYTES_MAX, LARGE] {
        let mut w = World::pair();
        while w.try_send(A, B, len, Envelope::default()).is_ok() {
            w.drive();
        }
        let (messages, bytes) = w.machines[B].unexpected();
        assert!(messages as u64 <= CREDIT_MESSAGES, "{messages} messages of {len}");
        assert!(bytes <= CREDIT_BYTES, "{bytes} bytes in messages of {len}");
        let full = messages as u64 == CREDIT_MESSAGES || bytes + len as u64 > CREDIT_BYTES;
        assert!(full, "{len}: {messages} messages, {bytes} bytes");
        assert_eq!(w.machines[A].traffic(w.peer(A, B)).tx_queued as usize, QUEUED_SENDS_MAX);
        let refused = w.try_send(A, B, len, Envelope::default());
        assert_eq!(refused.map(|message| message.sent), Err(Refusal::Busy));
    }
}

#[test]
fn two_endpoints_that_flood_each_other_get_everything_in_order() {
    for limits in [TINY, Limits { cells: 16, area_bytes: 64 << 10 }, Limits::default()] {
        let mut w = World::new(2, limits);
        let lens = [8, 0, PIECES, LARGE, 33, EAGER_BYTES_MAX];
        let mut sent: [Vec<Message>; 2] = [Vec::new(), Vec::new()];
        for round in 0..600 {
            for (from, to) in [(A, B), (B, A)] {
                w.wake(from);
                sent[from].push(w.send(from, to, 1, lens[round % lens.len()]));
                w.step_sleepily(from);
            }
        }
        w.drive_sleepily();
        for at in [A, B] {
            let (messages, bytes) = w.machines[at].unexpected();
            assert!(messages as u64 <= CREDIT_MESSAGES && bytes <= CREDIT_BYTES);
        }
        receive_all(&mut w, B, &sent[A].clone());
        receive_all(&mut w, A, &sent[B].clone());
        for message in sent.iter().flatten() {
            w.expect_sent(message, message.len);
        }
        w.expect_empty();
    }
}

#[test]
fn a_refused_send_can_be_repeated_when_there_is_room_again() {
    let mut w = World::pair();
    let mut messages = Vec::new();
    while let Ok(message) = w.try_send(A, B, SMALL, Envelope::default()) {
        messages.push(message);
    }
    let receive = w.receive(B, anything(), SMALL);
    w.drive();
    w.expect_received(&receive, &messages[0]);
    messages.push(w.send(A, B, 0, SMALL));
    for message in &messages[1..] {
        let receive = w.receive(B, anything(), SMALL);
        w.drive();
        w.expect_received(&receive, message);
    }
}

#[test]
fn a_flood_from_one_peer_leaves_the_others_their_turn() {
    let mut w = World::new(3, Limits::default());
    while w.try_send(A, B, SMALL, Envelope::default()).is_ok() {
        w.drive();
    }
    let receive = w.receive(B, tag(9), SMALL);
    let message = w.send(C, B, 9, SMALL);
    w.drive();
    w.expect_received(&receive, &message);
}

#[test]
fn one_poll_takes_a_bounded_number_of_frames() {
    let mut w = World::pair();
    for _ in 0..500 {
        w.send(A, B, 1, 8);
    }
    w.machines[B].poll();
    assert_eq!(w.machines[B].unexpected().0, crate::limits::BATCH_CELLS);
}

#[test]
fn idle_peers_get_their_turn_however_many_there_are() {
    let mut w = World::new(20, Limits::default());
    let messages: Vec<Message> = (1..20).map(|from| w.send(from, A, 1, 8)).collect();
    for _ in 0..2 * 20 {
        w.machines[A].poll();
    }
    assert_eq!(w.machines[A].unexpected().0, messages.len());
}
