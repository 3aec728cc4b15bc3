// SPDX-License-Identifier: Apache-2.0
//! Messages out of granted memory, and loans.

use super::world::{A, B, LARGE, World, anything, tag};
use crate::machine::{Envelope, PeerId, Refusal, RequestId, StatusCode};
use crate::testing::{Sink, Source, bytes_of};
use crate::{Lane, Space};

/// Two endpoints that can grant each other memory.
fn pair() -> World {
    let w = World::pair();
    w.tap(A, B).0.set_granting(true);
    w
}

fn envelope(match_info: u64) -> Envelope {
    Envelope { match_info, ..Envelope::default() }
}

/// Lends message `number` from A to B.
fn lend(w: &mut World, number: u64, len: usize, match_info: u64) -> RequestId {
    let to_b = w.peer(A, B);
    w.machines[A].lend(Source::new(number, len), to_b, &envelope(match_info)).expect("a loan")
}

fn seen(view: &Source) -> Vec<u8> {
    crate::testing::QueueLane::source_to_vec(view)
}

#[test]
fn a_large_message_is_taken_where_it_lies() {
    let (mut w, big) = (pair(), 5 << 20);
    for (receive_first, room) in [(true, big), (false, big), (true, 100_000), (false, 0)] {
        let early = receive_first.then(|| w.receive(B, tag(7), room));
        let message = w.send(A, B, 7, big);
        if !receive_first {
            w.machines[B].poll_all();
        }
        let receive = early.unwrap_or_else(|| w.receive(B, tag(7), room));
        // Nothing of it may go through the area.
        for _ in 0..100 {
            w.machines[B].poll_all();
        }
        assert!(!w.is_open(B, receive.request), "the receiver needs nobody for it");
        assert!(w.is_open(A, message.request()), "the sender has not heard of it");
        w.drive();
        w.expect_received(&receive, &message);
        w.expect_sent(&message, room.min(big));
    }
    w.expect_empty();
}

#[test]
fn memory_that_was_taken_back_comes_through_the_channel() {
    for begun in [false, true] {
        let (mut w, big) = (pair(), 5 << 20);
        let message = w.send(A, B, 7, big);
        w.machines[B].poll_all();
        let (tap, end) = w.tap(A, B);
        if !begun {
            tap.take_back(end);
        }
        let receive = w.receive(B, tag(7), big);
        w.machines[B].poll();
        tap.take_back(end);
        w.drive();
        w.expect_received(&receive, &message);
        w.expect_sent(&message, big);
        w.expect_empty();
    }
}

#[test]
fn a_sender_that_dies_fails_a_message_half_taken() {
    let mut w = pair();
    let receive = w.receive(B, tag(7), 5 << 20);
    w.send(A, B, 7, 5 << 20);
    w.machines[B].poll();
    let a = w.peer(B, A);
    w.machines[B].peer_failed(a, StatusCode::PeerDied, "it died");
    let status = w.test(B, receive.request).expect("complete");
    assert_eq!((status.code, status.source), (StatusCode::PeerDied, a));
    w.expect_empty_at(B);
}

#[test]
fn a_loan_is_seen_and_goes_back() {
    let mut w = pair();
    for (receive_first, len) in [(true, 8), (false, LARGE), (true, 0), (false, 70_000_000)] {
        let early =
            receive_first.then(|| w.machines[B].irecv_loan(&anything()).expect("a receive"));
        let lent = lend(&mut w, 3, len, 9);
        w.machines[B].poll_all();
        let receive =
            early.unwrap_or_else(|| w.machines[B].irecv_loan(&tag(9)).expect("a receive"));
        let status = w.test(B, receive).expect("complete");
        assert_eq!((status.code, status.message_bytes), (StatusCode::Success, len as u64));
        assert_eq!((status.match_info, status.source), (9, w.peer(B, A)));
        let loan = w.machines[B].take_loan(receive).expect("the loan");
        assert_eq!(loan.view.len, len);
        if len < 1 << 20 {
            assert!(bytes_of(3, 0..len).eq(seen(&loan.view)));
        }
        w.drive();
        assert!(w.is_open(A, lent), "it is still out");
        w.machines[B].let_go(loan.lender, loan.send_id, loan.len);
        w.drive();
        let status = w.test(A, lent).expect("it is back");
        assert_eq!((status.code, status.source), (StatusCode::Success, w.peer(A, B)));
    }
    w.expect_empty();
}

#[test]
fn loans_and_messages_do_not_match_each_other() {
    let mut w = pair();
    let loan = w.machines[B].irecv_loan(&anything()).expect("a receive");
    let message = w.receive(B, anything(), 100);
    let sent = w.send(A, B, 1, 100);
    w.drive();
    w.expect_received(&message, &sent);
    let message = w.receive(B, anything(), 100);
    let lent = lend(&mut w, 4, 10, 1);
    w.drive();
    assert!(w.is_open(B, message.request) && !w.is_open(B, loan));
    let got = w.machines[B].take_loan(loan).expect("the loan");
    w.machines[B].let_go(got.lender, got.send_id, got.len);
    w.drive();
    w.expect_sent(&super::world::Message { sent: crate::Sent::Pending(lent), len: 10, ..sent }, 10);
    let other = crate::Selector { space: Space::Lent, ..anything() };
    assert_eq!(w.machines[B].irecv(Sink::new(8), &other), Err(Refusal::BadSpace));
    assert_eq!(w.machines[B].post_multi(Sink::new(8), 1, &other), Err(Refusal::BadSpace));
    assert_eq!(
        w.machines[B].lend(Source::new(1, 1), PeerId::SELF, &envelope(0)),
        Err(Refusal::ToSelf)
    );
}

#[test]
fn loans_keep_their_order_with_each_other() {
    let mut w = pair();
    for number in 1..=5 {
        lend(&mut w, number, 8, 1);
    }
    for number in 1..=5 {
        w.drive();
        let receive = w.machines[B].irecv_loan(&tag(1)).expect("a receive");
        let loan = w.machines[B].take_loan(receive).expect("the loan");
        assert_eq!(loan.view.number, number);
    }
}

#[test]
fn without_common_memory_a_loan_is_copied() {
    for (room, len) in [(true, LARGE), (true, 0), (false, LARGE)] {
        let mut w = World::pair();
        let receive = w.machines[B].irecv_loan(&tag(9)).expect("a receive");
        let lent = lend(&mut w, 3, len, 9);
        w.drive();
        assert!(w.is_open(B, receive) && w.is_open(A, lent));
        assert!(w.machines[B].is_wanting());
        let wanting = w.machines[B].take_wanting();
        assert_eq!(wanting, Some((receive, len as u64)));
        let sink = room.then(|| Sink::new(len));
        w.machines[B].fill_loan(receive, sink);
        w.drive();
        let status = w.test(B, receive).expect("complete");
        let code = if room { StatusCode::Success } else { StatusCode::NoMemory };
        assert_eq!(status.code, code);
        assert!(w.machines[B].take_loan(receive).is_none(), "there is nothing to let go");
        if let Some(sink) = sink {
            assert!(bytes_of(3, 0..len).eq(sink.contents()));
        }
        assert!(w.test(A, lent).is_some(), "it is back");
        w.expect_empty();
    }
}

#[test]
fn a_loan_comes_back_from_a_borrower_that_dies() {
    for stage in 0..3 {
        let mut w = pair();
        let lent = lend(&mut w, 3, LARGE, 9);
        if stage > 0 {
            w.machines[B].poll_all();
        }
        if stage > 1 {
            w.machines[B].irecv_loan(&tag(9)).expect("a receive");
        }
        let b = w.peer(A, B);
        w.machines[A].peer_failed(b, StatusCode::PeerDied, "it died");
        assert_eq!(w.test(A, lent).expect("it is back").code, StatusCode::PeerDied);
        w.expect_empty_at(A);
    }
}

#[test]
fn a_loan_that_nobody_waits_for_any_more_goes_back() {
    let mut w = pair();
    let receive = w.machines[B].irecv_loan(&tag(9)).expect("a receive");
    w.machines[B].forget(receive);
    let lent = lend(&mut w, 3, LARGE, 9);
    w.drive();
    assert!(w.test(A, lent).is_some());
    w.expect_empty();
}

#[test]
fn a_cancelled_loan_receive_takes_nothing() {
    let mut w = pair();
    let receive = w.machines[B].irecv_loan(&tag(9)).expect("a receive");
    assert_eq!(w.machines[B].cancel(receive), Ok(true));
    lend(&mut w, 3, LARGE, 9);
    w.drive();
    assert_eq!(w.machines[B].unexpected().0, 1);
}
