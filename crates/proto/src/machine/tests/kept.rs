// SPDX-License-Identifier: Apache-2.0
//! What doors need in whose interface every operation has a request.

use super::world::{A, B, World, anything, tag};
use crate::limits::QUEUED_SENDS_MAX;
use crate::machine::{Envelope, Refusal, StatusCode};
use crate::testing::{Limits, Source};

const NARROW: Limits = Limits { cells: 3, area_bytes: 24 << 10 };

fn envelope(match_info: u64) -> Envelope {
    Envelope { match_info, ..Envelope::default() }
}

#[test]
fn a_send_that_left_at_once_waits_in_the_order_of_completions() {
    let mut w = World::pair();
    let to_b = w.peer(A, B);
    let source = Source::new(1, 8);
    let first = w.machines[A].isend_kept(source, to_b, &envelope(1)).unwrap();
    let receive = w.receive(A, anything(), 8).request;
    let second = w.machines[A].isend_kept(source, to_b, &envelope(2)).unwrap();
    assert_eq!(w.machines[A].oldest_complete(), Some(first));
    let (found, status) = w.machines[A].test_matching(2, u64::MAX).unwrap().unwrap();
    assert_eq!((found, status.source, status.transferred_bytes), (second, to_b, 8));
    assert_eq!(w.machines[A].test(first).unwrap().unwrap().code, StatusCode::Success);
    assert_eq!(w.machines[A].oldest_complete(), None);
    assert!(w.is_open(A, receive));
}

#[test]
fn a_cancelled_request_may_stay_and_is_complete() {
    let mut w = World::pair();
    let receive = w.receive(B, tag(1), 8).request;
    let connect = w.machines[B].begin_connect().unwrap();
    w.machines[B].label(connect, 9).unwrap();
    assert_eq!(w.machines[B].cancel_kept(receive), Ok(true));
    assert_eq!(w.machines[B].cancel_kept(connect), Ok(true));
    assert_eq!(w.machines[B].cancel_kept(connect), Ok(false));
    for (match_info, request) in [(9, connect), (1, receive)] {
        let (found, status) = w.machines[B].test_matching(match_info, u64::MAX).unwrap().unwrap();
        assert_eq!((found, status.code), (request, StatusCode::Cancelled));
    }
    assert_eq!(w.machines[B].cancel_kept(receive), Err(Refusal::BadRequest));
}

#[test]
fn a_private_request_is_found_by_its_name_only() {
    let mut w = World::pair();
    let machine = &mut w.machines[A];
    for searched_before in [false, true] {
        let early = machine.begin_connect().unwrap();
        machine.finish_connect(early, Err(StatusCode::Refused));
        machine.keep_private(early).unwrap();
        let late = machine.begin_connect().unwrap();
        machine.keep_private(late).unwrap();
        machine.finish_connect(late, Err(StatusCode::Refused));
        let public = machine.begin_connect().unwrap();
        machine.finish_connect(public, Err(StatusCode::Refused));
        assert_eq!(machine.oldest_complete(), Some(public), "{searched_before}");
        let (found, _) = machine.test_matching(0, 0).unwrap().unwrap();
        assert_eq!(found, public);
        assert!(machine.test_matching(0, 0).unwrap().is_none());
        for request in [late, early] {
            assert_eq!(machine.test(request).unwrap().unwrap().code, StatusCode::Refused);
        }
        assert_eq!(machine.request_count(), 0);
    }
}

#[test]
fn a_send_without_room_is_stuck_and_one_that_was_announced_is_not() {
    let mut w = World::new(2, NARROW);
    let to_b = w.peer(A, B);
    let long = Source::new(1, 1 << 20);
    let announced = w.machines[A].isend_kept(long, to_b, &envelope(0)).unwrap();
    assert_eq!(w.machines[A].stuck_send(announced), None);
    let mut last = announced;
    for _ in 0..8 {
        last = w.machines[A].isend_kept(Source::new(2, 8), to_b, &envelope(0)).unwrap();
    }
    assert_eq!(w.machines[A].stuck_send(last), Some(to_b));
}

#[test]
fn sends_may_wait_without_a_limit_of_their_own() {
    let mut w = World::pair();
    let to_b = w.peer(A, B);
    let envelope = Envelope { synchronous: true, ..Envelope::default() };
    let source = Source::new(1, 0);
    let mut most = 0;
    let refusal = loop {
        match w.machines[A].isend_kept(source, to_b, &envelope) {
            Ok(_) => most += 1,
            Err(refusal) => break refusal,
        }
    };
    // The first ones are announced, and wait at the other end.
    assert_eq!((refusal, most > QUEUED_SENDS_MAX), (Refusal::Busy, true));
    w.machines[A].queue_every_send();
    for _ in most..2 * most {
        w.machines[A].isend_kept(source, to_b, &envelope).unwrap();
    }
    for _ in 0..2 * most {
        let receive = w.receive(B, anything(), 0).request;
        w.drive();
        assert!(!w.is_open(B, receive));
    }
    assert_eq!(w.machines[A].traffic(to_b).tx_queued, 0);
}

#[test]
fn receives_may_outlive_all_peers() {
    let mut w = World::pair();
    w.machines[B].receives_outlive_peers();
    let receive = w.receive(B, anything(), 8).request;
    let a = w.peer(B, A);
    w.machines[B].peer_failed(a, StatusCode::PeerDied, "its process died");
    assert!(w.is_open(B, receive));
}
