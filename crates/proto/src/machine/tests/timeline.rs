// SPDX-License-Identifier: Apache-2.0
//! Each protocol as a story.

use super::world::{A, B, C, LARGE, PIECES, SMALL, World, anything, check_contents, tag};
use crate::Space;
use crate::limits::EAGER_BYTES_MAX;
use crate::machine::{Envelope, PeerId, Refusal, RequestId, Selector, Sent, StatusCode};
use crate::matching::ContextBits;
use crate::testing::{Limits, Sink, Source};

/// Every way that a message can take, and the edges between them.
const LENGTHS: [usize; 16] = [
    0,
    1,
    8,
    32,
    33,
    4095,
    4096,
    4097,
    6 << 10,
    16 << 10,
    EAGER_BYTES_MAX - 1,
    EAGER_BYTES_MAX,
    EAGER_BYTES_MAX + 1,
    100_000,
    1 << 20,
    5_000_001,
];

#[test]
fn every_length_arrives_whether_the_receive_or_the_message_comes_first() {
    for len in LENGTHS {
        for receive_first in [true, false] {
            let mut w = World::pair();
            let early = receive_first.then(|| w.receive(B, tag(7), len));
            let message = w.send(A, B, 7, len);
            assert_eq!(message.sent == Sent::Done, len <= EAGER_BYTES_MAX, "{len} bytes");
            w.drive();
            let receive = early.unwrap_or_else(|| w.receive(B, tag(7), len));
            w.drive();
            w.expect_received(&receive, &message);
            w.expect_sent(&message, len);
            w.expect_empty();
        }
    }
}

#[test]
fn a_message_of_five_gibibytes_arrives() {
    let len = 5 << 30;
    let mut w = World::pair();
    let number = 77;
    let sink = Sink::counting(number, len);
    let request = w.machines[B].irecv(sink, &tag(1)).unwrap();
    let envelope = Envelope { match_info: 1, ..Envelope::default() };
    let to_b = w.peer(A, B);
    let sent = w.machines[A].isend(Source::new(number, len), to_b, &envelope).unwrap();
    w.drive();
    let status = w.test(B, request).unwrap();
    assert_eq!((status.code, status.transferred_bytes), (StatusCode::Success, len as u64));
    assert_eq!(sink.counted(), len);
    let Sent::Pending(send) = sent else { panic!("a large message waits for its receive") };
    assert_eq!(w.test(A, send).unwrap().transferred_bytes, len as u64);
}

#[test]
fn a_short_receive_truncates_and_a_large_sender_learns_it() {
    for len in LENGTHS {
        for room in [0, 1, len / 2, len.saturating_sub(1)] {
            for late in [false, true] {
                let mut w = World::pair();
                let early = (!late).then(|| w.receive(B, anything(), room));
                let message = w.send(A, B, 0, len);
                w.drive();
                let receive = early.unwrap_or_else(|| w.receive(B, anything(), room));
                w.drive();
                w.expect_received(&receive, &message);
                // "An eager sender sees success and both lengths full." (mx.md 1.6.5)
                let told = if len > EAGER_BYTES_MAX { room } else { len };
                w.expect_sent(&message, told);
                w.expect_empty();
            }
        }
    }
}

#[test]
fn a_synchronous_send_completes_only_when_it_has_matched() {
    for len in LENGTHS {
        let mut w = World::pair();
        let message = w.send_synchronously(A, B, 3, len);
        w.drive();
        assert!(w.is_open(A, message.request()), "{len} bytes");
        let wrong = w.receive(B, tag(4), len);
        w.drive();
        assert!(w.is_open(A, message.request()));
        let receive = w.receive(B, tag(3), len);
        w.drive();
        w.expect_received(&receive, &message);
        w.expect_sent(&message, len);
        assert!(w.machines[B].cancel(wrong.request).unwrap());
        w.expect_empty();
    }
}

#[test]
fn messages_of_one_pair_match_in_the_order_of_their_sends() {
    // Large ones are announced, small ones overtake nothing.
    let mut w = World::pair();
    let lens = [LARGE, 8, 0, PIECES, LARGE, SMALL, EAGER_BYTES_MAX, 1];
    let messages = lens.map(|len| w.send(A, B, 1, len));
    let receives = lens.map(|_| w.receive(B, anything(), 1 << 20));
    w.drive();
    for (receive, message) in receives.iter().zip(&messages) {
        w.expect_received(receive, message);
        w.expect_sent(message, message.len);
    }
    w.expect_empty();
}

#[test]
fn receives_match_in_the_order_of_posting() {
    let mut w = World::pair();
    let first = w.receive(B, anything(), SMALL);
    let second = w.receive(B, tag(5), SMALL);
    let third = w.receive(B, tag(5), SMALL);
    let [m1, m2, m3] = [5, 5, 5].map(|info| w.send(A, B, info, SMALL));
    w.drive();
    w.expect_received(&first, &m1);
    w.expect_received(&second, &m2);
    w.expect_received(&third, &m3);
}

#[test]
fn a_receive_that_names_its_sender_takes_from_no_other() {
    let mut w = World::new(3, Limits::default());
    let from_c = w.from(B, C, anything());
    let receive = w.receive(B, from_c, SMALL);
    let of_a = w.send(A, B, 1, SMALL);
    w.drive();
    assert!(w.is_open(B, receive.request));
    let of_c = w.send(C, B, 1, SMALL);
    w.drive();
    w.expect_received(&receive, &of_c);
    let rest = w.receive(B, anything(), SMALL);
    w.expect_received(&rest, &of_a);
}

#[test]
fn the_two_match_spaces_do_not_see_each_other() {
    let mut w = World::pair();
    let untagged = Envelope { match_info: 1, space: Space::Untagged, ..Envelope::default() };
    let plain = w.try_send(A, B, SMALL, untagged).unwrap();
    let tagged = w.send(A, B, 1, SMALL);
    w.drive();
    let receive = w.receive(B, anything(), SMALL);
    w.expect_received(&receive, &tagged);
    let receive = w.receive(B, Selector { space: Space::Untagged, ..anything() }, SMALL);
    w.expect_received(&receive, &plain);
}

#[test]
fn a_message_may_be_matched_before_all_of_it_is_here() {
    let mut w = World::new(2, Limits { cells: 4, area_bytes: 24 << 10 });
    let message = w.send(A, B, 1, PIECES);
    assert!(w.machines[B].poll(), "the first part");
    let status = w.machines[B].iprobe(&tag(1)).unwrap().expect("it has its place in the queue");
    assert_eq!(status.message_bytes, PIECES as u64);
    let receive = w.receive(B, tag(1), PIECES);
    assert!(w.is_open(B, receive.request));
    w.drive();
    w.expect_received(&receive, &message);
    w.expect_sent(&message, PIECES);
}

#[test]
fn a_probe_leaves_the_message_and_shows_the_oldest() {
    let mut w = World::pair();
    assert_eq!(w.machines[B].iprobe(&anything()), Ok(None));
    let first = w.send(A, B, 1, SMALL);
    let second = w.send(A, B, 2, LARGE);
    w.drive();
    for _ in 0..2 {
        let status = w.machines[B].iprobe(&anything()).unwrap().unwrap();
        assert_eq!((status.match_info, status.message_bytes), (1, SMALL as u64));
        let status = w.machines[B].iprobe(&tag(2)).unwrap().unwrap();
        assert_eq!((status.match_info, status.message_bytes), (2, LARGE as u64));
    }
    let receive = w.receive(B, anything(), SMALL);
    w.expect_received(&receive, &first);
    let receive = w.receive(B, anything(), LARGE);
    w.drive();
    w.expect_received(&receive, &second);
}

#[test]
fn a_claimed_message_belongs_to_its_claim_alone() {
    for len in [SMALL, PIECES, LARGE] {
        let mut w = World::pair();
        let message = w.send(A, B, 1, len);
        w.drive();
        let (claim, status) = w.machines[B].improbe(&anything()).unwrap().unwrap();
        assert_eq!(status.message_bytes, len as u64);
        assert_eq!(w.machines[B].iprobe(&anything()), Ok(None));
        let other = w.receive(B, anything(), len);
        w.drive();
        assert!(w.is_open(B, other.request));
        let sink = Sink::new(len);
        let request = w.machines[B].imrecv(claim, sink).unwrap();
        w.drive();
        let status = w.test(B, request).unwrap();
        w.check_status(B, &status, &message, len);
        check_contents(&sink.contents(), &message);
        w.expect_sent(&message, len);
        assert!(w.machines[B].cancel(other.request).unwrap());
        w.expect_empty();
    }
}

#[test]
fn a_discarded_claim_consumes_the_message() {
    for len in [0, SMALL, PIECES, LARGE] {
        let mut w = World::new(2, Limits { cells: 4, area_bytes: 24 << 10 });
        let message = w.send(A, B, 1, len);
        w.machines[B].poll();
        let (claim, _) = w.machines[B].improbe(&anything()).unwrap().unwrap();
        w.machines[B].discard(claim);
        w.drive();
        w.expect_sent(&message, if len > EAGER_BYTES_MAX { 0 } else { len });
        // What follows is not disturbed by the parts that were still coming.
        let next = w.send(A, B, 2, SMALL);
        w.drive();
        let receive = w.receive(B, anything(), SMALL);
        w.expect_received(&receive, &next);
        w.expect_empty();
    }
}

#[test]
fn a_message_to_oneself_completes_when_it_matches() {
    for len in LENGTHS {
        for receive_first in [true, false] {
            let mut w = World::pair();
            let early = receive_first.then(|| w.receive(A, tag(7), len));
            let message = w.send(A, A, 7, len);
            assert_eq!(w.is_open(A, message.request()), !receive_first);
            let receive = early.unwrap_or_else(|| w.receive(A, tag(7), len));
            w.expect_received(&receive, &message);
            w.expect_sent(&message, len);
            w.expect_empty();
        }
    }
}

#[test]
fn a_message_to_oneself_is_truncated_for_both_sides() {
    let mut w = World::pair();
    let receive = w.receive(A, anything(), 10);
    let message = w.send(A, A, 7, 100);
    w.expect_received(&receive, &message);
    w.expect_sent(&message, 10);
}

#[test]
fn only_a_receive_that_has_not_matched_can_be_cancelled() {
    let mut w = World::pair();
    let receive = w.receive(B, anything(), SMALL);
    assert_eq!(w.machines[B].cancel(receive.request), Ok(true));
    assert_eq!(w.machines[B].cancel(receive.request), Err(Refusal::BadRequest));
    assert_eq!(w.machines[B].test(receive.request), Err(Refusal::BadRequest));

    let matched = w.receive(B, anything(), LARGE);
    let message = w.send(A, B, 1, LARGE);
    w.machines[B].poll();
    assert_eq!(w.machines[B].cancel(matched.request), Ok(false));
    assert_eq!(w.machines[A].cancel(message.request()), Err(Refusal::BadRequest));
    w.drive();
    assert_eq!(w.machines[B].cancel(matched.request), Ok(false));
    w.expect_received(&matched, &message);
    w.expect_sent(&message, LARGE);
    w.expect_empty();
}

#[test]
fn a_forgotten_request_finishes_and_is_gone() {
    let mut w = World::pair();
    let receive = w.receive(B, anything(), LARGE);
    let message = w.send(A, B, 1, LARGE);
    w.machines[B].forget(receive.request);
    w.machines[A].forget(message.request());
    w.drive();
    check_contents(&receive.sink.contents(), &message);
    w.expect_empty();
    // One that is complete already is gone at once.
    let receive = w.receive(B, anything(), SMALL);
    w.send(A, B, 1, SMALL);
    w.drive();
    w.machines[B].forget(receive.request);
    w.expect_empty();
}

#[test]
fn complete_requests_are_found_by_match_info_in_the_order_of_completion() {
    let mut w = World::pair();
    let [r1, r2, r3] = [1, 2, 3].map(|info| w.receive(B, tag(info), SMALL));
    for info in [3, 1, 2] {
        w.send(A, B, info, SMALL);
    }
    w.drive();
    let mut next = |info, mask| w.machines[B].test_matching(info, mask).unwrap().map(|(r, _)| r);
    assert_eq!(next(2, u64::MAX), Some(r2.request));
    assert_eq!(next(0, 0), Some(r3.request));
    assert_eq!(next(0, 0), Some(r1.request));
    assert_eq!(next(0, 0), None);
    assert_eq!(w.machines[B].test_matching(1, 0), Err(Refusal::BadMask));
    // A send is found by the match info that it was posted with.
    let message = w.send_synchronously(A, B, 9, 0);
    w.receive(B, tag(9), 0);
    w.drive();
    let found = w.machines[A].test_matching(9, u64::MAX).unwrap();
    assert_eq!(found.map(|(request, _)| request), Some(message.request()));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let mut w = World::with_context(2, Limits::default(), ContextBits::new(4, 60).unwrap());
    let b = &mut w.machines[B];
    let bad_mask = Selector { match_info: 2, mask: 1, ..anything() };
    let sink = Sink::new(1);
    assert_eq!(b.irecv(sink, &bad_mask), Err(Refusal::BadMask));
    assert_eq!(b.iprobe(&bad_mask), Err(Refusal::BadMask));
    assert_eq!(b.improbe(&bad_mask), Err(Refusal::BadMask));
    assert_eq!(b.irecv(sink, &anything()), Err(Refusal::BadContext));
    assert_eq!(b.post_multi(sink, 1, &anything()), Err(Refusal::BadContext));
    assert_eq!(b.iprobe(&anything()), Ok(None), "a probe may search all context ids");
    let nobody = PeerId::from_raw(77);
    let of_nobody = Selector { source: Some(nobody), ..tag(1) };
    assert_eq!(b.irecv(sink, &of_nobody), Err(Refusal::NotConnected));
    let source = Source::new(1, 1);
    let refused = b.isend(source, nobody, &Envelope::default());
    assert_eq!(refused, Err(Refusal::NotConnected));
    for raw in [0, 1, 1 << 32, u64::MAX] {
        let made_up = RequestId::from_raw(raw);
        assert_eq!(b.test(made_up), Err(Refusal::BadRequest));
        assert_eq!(b.cancel(made_up), Err(Refusal::BadRequest));
        assert_eq!(b.poll_multi(made_up), Err(Refusal::BadRequest));
        b.forget(made_up);
    }
}

#[test]
fn the_name_of_a_request_is_never_used_again() {
    let mut w = World::pair();
    let old = w.receive(B, anything(), SMALL);
    assert!(w.machines[B].cancel(old.request).unwrap());
    let new = w.receive(B, anything(), SMALL);
    assert_ne!(old.request, new.request);
    assert_eq!(w.machines[B].test(old.request), Err(Refusal::BadRequest));
    assert_eq!(w.machines[B].cancel(old.request), Err(Refusal::BadRequest));
    w.machines[B].forget(old.request);
    assert!(w.is_open(B, new.request));
}

#[test]
fn a_connect_is_a_request_like_any_other() {
    let mut w = World::pair();
    let a = &mut w.machines[A];
    let [done, refused, cancelled] = [(); 3].map(|()| a.begin_connect().unwrap());
    let peer = PeerId::from_raw(0);
    a.finish_connect(done, Ok(peer));
    a.finish_connect(refused, Err(StatusCode::Refused));
    assert_eq!(a.cancel(cancelled), Ok(true));
    a.finish_connect(cancelled, Ok(peer));
    let status = a.test(done).unwrap().unwrap();
    assert_eq!((status.code, status.source), (StatusCode::Success, peer));
    assert_eq!(a.test(refused).unwrap().unwrap().code, StatusCode::Refused);
    assert_eq!(a.cancel(cancelled), Err(Refusal::BadRequest));
    w.expect_empty();
}
