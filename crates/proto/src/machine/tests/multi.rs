// SPDX-License-Identifier: Apache-2.0
//! One buffer for many messages.

use super::world::{A, B, C, LARGE, Message, World, anything, check_contents, tag};
use crate::machine::{MultiEvent, RequestId, StatusCode};
use crate::testing::{Limits, Sink};

/// Everything that a buffer has to tell now, each delivery checked to the byte.
fn deliveries(w: &mut World, request: RequestId, sink: &Sink, messages: &[Message]) -> usize {
    let mut count = 0;
    while let MultiEvent::Delivery { offset, status } =
        w.machines[B].poll_multi(request).expect("a multi-receive")
    {
        let message = messages
            .iter()
            .find(|message| message.number == u64::from(status.immediate))
            .expect("a message that was sent");
        let stored = status.transferred_bytes as usize;
        let contents = sink.contents();
        check_contents(&contents[offset..offset + stored], message);
        assert_eq!(status.message_bytes, message.len as u64);
        count += 1;
    }
    count
}

#[test]
fn messages_fill_the_buffer_one_behind_the_other() {
    let mut w = World::pair();
    let early = [10, 0, 200].map(|len| w.send(A, B, 1, len));
    w.drive();
    let sink = Sink::new(100_000);
    let request = w.machines[B].post_multi(sink, 1000, &anything()).unwrap();
    let late = [7, 40_000, 1].map(|len| w.send(A, B, 1, len));
    w.drive();
    let all = [early, late].concat();
    assert_eq!(deliveries(&mut w, request, &sink, &all), 6);
    assert_eq!(w.machines[B].poll_multi(request), Ok(MultiEvent::Nothing));
}

#[test]
fn the_buffer_is_released_when_too_little_is_left_and_the_rest_waits() {
    let mut w = World::pair();
    let sink = Sink::new(1000);
    let request = w.machines[B].post_multi(sink, 300, &anything()).unwrap();
    let messages = [400, 400, 400].map(|len| w.send(A, B, 1, len));
    w.drive();
    assert_eq!(deliveries(&mut w, request, &sink, &messages), 2);
    // `deliveries` has taken the release, which frees the request.
    assert!(w.machines[B].poll_multi(request).is_err());
    let receive = w.receive(B, anything(), 400);
    w.expect_received(&receive, &messages[2]);
    w.expect_empty();
}

#[test]
fn a_message_longer_than_what_is_left_is_truncated() {
    for len in [500, LARGE] {
        let mut w = World::pair();
        let sink = Sink::new(400);
        let request = w.machines[B].post_multi(sink, 100, &anything()).unwrap();
        let messages = [w.send(A, B, 1, 200), w.send(A, B, 1, len)];
        w.drive();
        assert_eq!(deliveries(&mut w, request, &sink, &messages), 2);
        let told = if len == LARGE { 200 } else { len };
        w.expect_sent(&messages[1], told);
        w.expect_empty();
    }
}

#[test]
fn a_released_buffer_waits_for_the_messages_under_way() {
    let mut w = World::new(2, Limits { cells: 8, area_bytes: 24 << 10 });
    let sink = Sink::new(2 * LARGE);
    let request = w.machines[B].post_multi(sink, LARGE, &anything()).unwrap();
    let messages = [LARGE, LARGE].map(|len| w.send(A, B, 1, len));
    for _ in 0..3 {
        w.machines[B].poll();
        w.machines[A].poll();
    }
    assert_eq!(w.machines[B].poll_multi(request), Ok(MultiEvent::Nothing));
    w.drive();
    assert_eq!(deliveries(&mut w, request, &sink, &messages), 2);
    w.expect_sent(&messages[0], LARGE);
    w.expect_sent(&messages[1], LARGE);
    w.expect_empty();
}

#[test]
fn a_cancelled_buffer_still_delivers_what_it_has() {
    let mut w = World::pair();
    let sink = Sink::new(1000);
    let request = w.machines[B].post_multi(sink, 1, &anything()).unwrap();
    let message = w.send(A, B, 1, 100);
    w.drive();
    assert_eq!(w.machines[B].cancel(request), Ok(true));
    let next = w.send(A, B, 1, 100);
    w.drive();
    let event = w.machines[B].poll_multi(request).unwrap();
    let MultiEvent::Delivery { offset: 0, status } = event else { panic!("{event:?}") };
    w.check_status(B, &status, &message, 100);
    let end = w.machines[B].poll_multi(request).unwrap();
    assert_eq!(end, MultiEvent::Released(StatusCode::Cancelled));
    let receive = w.receive(B, anything(), 100);
    w.expect_received(&receive, &next);
    w.expect_empty();
}

#[test]
fn a_forgotten_buffer_is_gone_when_it_is_used_up() {
    // Nobody asks for its deliveries any more, so nobody would ever free it.
    let mut w = World::pair();
    let sink = Sink::new(1000);
    let request = w.machines[B].post_multi(sink, 500, &tag(1)).unwrap();
    w.machines[B].forget(request);
    let message = w.send(A, B, 1, 600);
    w.drive();
    check_contents(&sink.contents()[..600], &message);
    w.expect_empty();
    // Likewise one whose last message has come already.
    let sink = Sink::new(1000);
    let request = w.machines[B].post_multi(sink, 500, &tag(1)).unwrap();
    w.send(A, B, 1, 600);
    w.drive();
    w.machines[B].forget(request);
    w.expect_empty();
}

#[test]
fn empty_messages_use_the_buffer_up_too() {
    // Each delivery is kept until the program asks for it. If a message of no bytes took no room,
    // a peer could make us keep any number of them.
    let mut w = World::pair();
    let sink = Sink::new(10);
    let request = w.machines[B].post_multi(sink, 1, &anything()).unwrap();
    let messages: Vec<Message> = (0..50).map(|_| w.send(A, B, 1, 0)).collect();
    w.drive();
    assert_eq!(deliveries(&mut w, request, &sink, &messages), 10);
    assert_eq!(w.machines[B].unexpected().0, 40);
}

#[test]
fn a_peer_that_dies_leaves_a_failed_delivery_and_the_buffer_to_the_others() {
    let mut w = World::new(3, Limits { cells: 8, area_bytes: 24 << 10 });
    let sink = Sink::new(2 * LARGE);
    let request = w.machines[B].post_multi(sink, 1, &anything()).unwrap();
    w.send(A, B, 1, LARGE);
    for _ in 0..3 {
        w.machines[B].poll_all();
        w.machines[A].poll_all();
    }
    let a = w.peer(B, A);
    w.machines[B].peer_failed(a, StatusCode::PeerDied, "killed");
    let event = w.machines[B].poll_multi(request).unwrap();
    let MultiEvent::Delivery { offset: 0, status } = event else { panic!("{event:?}") };
    assert_eq!((status.code, status.transferred_bytes), (StatusCode::PeerDied, 0));
    let message = w.send(C, B, 1, 100);
    w.drive();
    let event = w.machines[B].poll_multi(request).unwrap();
    let MultiEvent::Delivery { offset, status } = event else { panic!("{event:?}") };
    assert_eq!(offset, LARGE);
    w.check_status(B, &status, &message, 100);
}

#[test]
fn the_last_peer_to_die_fails_a_buffer_for_anybody() {
    let mut w = World::pair();
    let request = w.machines[B].post_multi(Sink::new(100), 1, &anything()).unwrap();
    let a = w.peer(B, A);
    w.machines[B].peer_failed(a, StatusCode::PeerDied, "killed");
    let event = w.machines[B].poll_multi(request);
    assert_eq!(event, Ok(MultiEvent::Released(StatusCode::PeerDied)));
    w.expect_empty_at(B);
}
