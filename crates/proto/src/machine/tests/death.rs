// SPDX-License-Identifier: Apache-2.0
//! Peers that leave, and peers that die, at every stage of every protocol.
//!
//! A story is told step by step. For each number of steps the same story is started anew and the
//! peer dies there: whatever was under way must end, and the third endpoint must not notice.

use super::world::{A, B, C, LARGE, PIECES, SMALL, World, anything, check_contents, tag};
use crate::machine::{MultiEvent, PeerId, Refusal, Sent, Status, StatusCode};
use crate::testing::{Limits, Sink};

const NARROW: Limits = Limits { cells: 3, area_bytes: 24 << 10 };

/// What the survivor does with the peer that will die.
#[derive(Clone, Copy, Debug)]
enum Story {
    Receives,
    ReceivesLate,
    ReceivesShort,
    ReceivesFromAnybody,
    Claims,
    FillsABuffer,
    Sends,
    SendsSynchronously,
    BothFlood,
}

const STORIES: [Story; 9] = [
    Story::Receives,
    Story::ReceivesLate,
    Story::ReceivesShort,
    Story::ReceivesFromAnybody,
    Story::Claims,
    Story::FillsABuffer,
    Story::Sends,
    Story::SendsSynchronously,
    Story::BothFlood,
];

/// Begins a story between the survivor B and the peer A. Returns the survivor's requests.
fn begin(w: &mut World, story: Story, len: usize) -> Vec<crate::RequestId> {
    let from_a = w.from(B, A, anything());
    match story {
        Story::Receives => {
            let receive = w.receive(B, from_a, len);
            w.send(A, B, 1, len);
            vec![receive.request]
        }
        Story::ReceivesShort => {
            let receive = w.receive(B, from_a, len / 3);
            w.send(A, B, 1, len);
            vec![receive.request]
        }
        Story::ReceivesFromAnybody => {
            let receive = w.receive(B, tag(1), len);
            w.send(A, B, 1, len);
            vec![receive.request]
        }
        Story::ReceivesLate | Story::Claims => {
            w.send(A, B, 1, len);
            w.machines[B].poll_all();
            Vec::new()
        }
        Story::FillsABuffer => {
            let sink = Sink::new(2 * len);
            let request = w.machines[B].post_multi(sink, 1, &from_a).expect("a buffer");
            w.send(A, B, 1, len);
            w.send(A, B, 1, len);
            vec![request]
        }
        Story::Sends | Story::SendsSynchronously => {
            w.receive(A, anything(), len);
            let message = match story {
                Story::Sends => w.send(B, A, 1, len),
                _ => w.send_synchronously(B, A, 1, len),
            };
            match message.sent {
                Sent::Pending(request) => vec![request],
                Sent::Done => Vec::new(),
            }
        }
        Story::BothFlood => {
            let mut requests = Vec::new();
            for _ in 0..5 {
                w.send(A, B, 1, len);
                w.receive(A, anything(), len);
                requests.push(w.receive(B, from_a, len).request);
                if let Sent::Pending(request) = w.send(B, A, 1, len).sent {
                    requests.push(request);
                }
            }
            requests
        }
    }
}

/// One turn of one of the two, as the number says; tells whether there was anything to do.
fn step(w: &mut World, number: usize) -> bool {
    w.machines[[B, A][number % 2]].poll()
}

fn dies_after(story: Story, len: usize, steps: usize) -> bool {
    let mut w = World::new(3, NARROW);
    let mut requests = begin(&mut w, story, len);
    let mut moved = 0;
    for number in 0..steps {
        if let (Story::ReceivesLate, 4) = (story, number) {
            let from_a = w.from(B, A, anything());
            requests.push(w.receive(B, from_a, len).request);
        }
        if let (Story::Claims, 4) = (story, number)
            && let Some((claim, _)) = w.machines[B].improbe(&anything()).expect("a probe")
        {
            requests.push(w.machines[B].imrecv(claim, Sink::new(len)).expect("a receive"));
        }
        moved += usize::from(step(&mut w, number));
    }
    let a = w.peer(B, A);
    w.machines[B].peer_failed(a, StatusCode::PeerDied, "killed");
    let departed = w.machines[B].take_departed();
    assert_eq!(departed, Some((a, StatusCode::PeerDied, "killed")));
    for request in requests {
        end_of(&mut w, request, story);
    }
    assert_eq!(w.machines[B].peer_state(a), Err(Refusal::PeerGone(StatusCode::PeerDied)));
    // The third endpoint did not notice.
    let receive = w.receive(B, tag(99), SMALL);
    let message = w.send(C, B, 99, SMALL);
    w.drive();
    w.expect_received(&receive, &message);
    // What had arrived in full may still be received, and then nothing is left.
    let from_a = Sink::new(len);
    while w.machines[B].iprobe(&anything()).expect("a probe").is_some() {
        let request = w.machines[B].irecv(from_a, &anything()).expect("a whole message");
        let status = w.test(B, request).expect("its data is here");
        assert_eq!(status.code, StatusCode::Success);
    }
    w.expect_empty_at(B);
    moved == steps
}

/// A request of the survivor must be over: by the death, or well before it.
fn end_of(w: &mut World, request: crate::RequestId, story: Story) {
    if let Story::FillsABuffer = story {
        for _ in 0..3 {
            if let Ok(MultiEvent::Released(_)) | Err(_) = w.machines[B].poll_multi(request) {
                return;
            }
        }
        panic!("the buffer was not released");
    }
    if let Story::ReceivesFromAnybody = story
        && w.is_open(B, request)
    {
        // Somebody else may still answer it.
        assert_eq!(w.machines[B].cancel(request), Ok(true));
        return;
    }
    let status = w.test(B, request).expect("a request to a dead peer must end");
    let fine = match story {
        Story::ReceivesShort if status.message_bytes > 0 => StatusCode::Truncated,
        _ => StatusCode::Success,
    };
    assert!([StatusCode::PeerDied, fine].contains(&status.code), "{story:?}: {status:?}");
    if status.code == StatusCode::PeerDied {
        assert_eq!(status.transferred_bytes, 0, "{story:?}");
        assert_eq!(status.source, w.peer(B, A));
    }
}

#[test]
fn a_peer_may_die_at_any_stage() {
    for story in STORIES {
        for len in [0, SMALL, PIECES, LARGE] {
            let mut steps = 0;
            // To the end of the story and a little further.
            while dies_after(story, len, steps) || steps < 12 {
                steps += 1;
                assert!(steps < 2000, "{story:?} of {len} bytes never ends");
            }
        }
    }
}

#[test]
fn a_receive_for_anybody_fails_when_the_last_peer_died_and_not_before() {
    for misbehaved in [false, true] {
        let mut w = World::new(3, Limits::default());
        let receive = w.receive(B, anything(), SMALL);
        let code = if misbehaved { StatusCode::PeerMisbehaved } else { StatusCode::PeerDied };
        let [a, c] = [w.peer(B, A), w.peer(B, C)];
        w.machines[B].peer_failed(a, code, "first");
        assert!(w.is_open(B, receive.request));
        w.machines[B].peer_failed(c, code, "last");
        assert_eq!(w.test(B, receive.request).map(|status| status.code), Some(code));
        w.expect_empty_at(B);
    }
}

#[test]
fn a_death_that_is_told_twice_keeps_nobody_awake() {
    let mut w = World::pair();
    let a = w.peer(B, A);
    for _ in 0..2 {
        w.machines[B].peer_failed(a, StatusCode::PeerDied, "killed");
    }
    assert!(w.machines[B].take_departed().is_some());
    assert!(w.machines[B].take_departed().is_none());
    // What has work never sleeps.
    assert!(!w.machines[B].poll_all());
    assert!(!w.machines[B].poll());
}

#[test]
fn a_receive_for_anybody_outlives_peers_that_close() {
    let mut w = World::pair();
    let receive = w.receive(B, anything(), SMALL);
    w.machines[A].close();
    w.drive();
    assert!(w.is_open(B, receive.request));
    // Somebody new may come.
    w.machines[A] = crate::Machine::new(Default::default());
    w.join(A, B, Limits::default());
    let message = w.send(A, B, 1, SMALL);
    w.drive();
    w.expect_received(&receive, &message);
}

#[test]
fn closing_ends_everything_on_both_sides() {
    let mut w = World::new(3, NARROW);
    let of_a = [
        w.send(A, B, 1, LARGE).request(),
        w.send_synchronously(A, C, 1, 0).request(),
        w.send(A, A, 1, 8).request(),
        w.receive(A, tag(77), 8).request,
        w.machines[A].begin_connect().unwrap(),
    ];
    let from_a = w.from(B, A, tag(5));
    let waits = w.receive(B, from_a, 8);
    let announced = w.send(B, A, 1, LARGE);
    let open = w.receive(C, anything(), 8);
    w.machines[A].poll();
    w.machines[A].close();
    for request in of_a {
        let status = w.test(A, request).unwrap();
        assert_eq!(status.code, StatusCode::EndpointClosed, "{status:?}");
    }
    w.expect_empty_at(A);
    w.drive();
    for request in [waits.request, announced.request()] {
        assert_eq!(w.test(B, request).unwrap().code, StatusCode::PeerClosed);
    }
    assert!(w.machines[C].cancel(open.request).unwrap() || !w.is_open(C, open.request));
    let to_a = w.peer(B, A);
    let gone = Err(Refusal::PeerGone(StatusCode::PeerClosed));
    assert_eq!(w.machines[B].peer_state(to_a), gone.map(|_: ()| ()));
}

#[test]
fn what_was_sent_before_a_close_arrives() {
    for len in [0, SMALL, 20_000] {
        let mut w = World::pair();
        let messages = [1, 2, 3].map(|info| w.send(A, B, info, len));
        w.machines[A].close();
        w.drive();
        for message in &messages {
            let receive = w.receive(B, anything(), len);
            w.expect_received(&receive, message);
        }
        let from_a = w.from(B, A, anything());
        let refused = w.machines[B].irecv(Sink::new(1), &from_a);
        assert_eq!(refused, Err(Refusal::PeerGone(StatusCode::PeerClosed)));
        assert_eq!(w.machines[B].iprobe(&from_a), Err(Refusal::PeerGone(StatusCode::PeerClosed)));
    }
}

#[test]
fn a_close_is_noticed_though_the_ring_is_full() {
    let mut w = World::new(2, NARROW);
    for _ in 0..10 {
        w.send(A, B, 1, SMALL);
    }
    w.machines[A].close();
    w.drive();
    let a = w.peer(B, A);
    assert_eq!(w.machines[B].peer_state(a), Err(Refusal::PeerGone(StatusCode::PeerClosed)));
}

#[test]
fn disconnecting_ends_what_concerns_that_peer_only() {
    let mut w = World::new(3, Limits::default());
    let a = w.peer(B, A);
    let from_a = w.from(B, A, anything());
    let waits = w.receive(B, from_a, SMALL);
    let sends = w.send(B, A, 1, LARGE);
    let from_c = w.from(B, C, anything());
    let other = w.receive(B, from_c, SMALL);
    w.machines[B].disconnect(a).unwrap();
    for request in [waits.request, sends.request()] {
        assert_eq!(w.test(B, request).unwrap().code, StatusCode::EndpointClosed);
    }
    assert!(w.is_open(B, other.request));
    w.drive();
    let b = w.peer(A, B);
    assert_eq!(w.machines[A].peer_state(b), Err(Refusal::PeerGone(StatusCode::PeerClosed)));
    assert!(w.machines[B].disconnect(a).is_ok(), "once more does no harm");
}

#[test]
fn names_of_departed_peers_are_kept_for_a_while_and_never_reused() {
    let mut w = World::new(1, Limits::default());
    let mut names: Vec<PeerId> = Vec::new();
    for _ in 0..500 {
        let (lane, _, _) = crate::testing::wire(Limits::default());
        let peer = w.machines[A].add_partner(lane).unwrap();
        assert!(!names.contains(&peer), "{peer:?} was given out twice");
        names.push(peer);
        w.machines[A].peer_failed(peer, StatusCode::PeerDied, "killed");
        assert!(w.machines[A].take_departed().is_some());
        let gone = Err(Refusal::PeerGone(StatusCode::PeerDied));
        assert_eq!(w.machines[A].peer_state(peer), gone);
    }
    assert_eq!(w.machines[A].peer_state(names[0]), Err(Refusal::NotConnected));
    assert_eq!(w.machines[A].peers().count(), 0);
}

#[test]
fn a_message_of_a_departed_peer_may_wait_longer_than_its_name() {
    let mut w = World::pair();
    let message = w.send(A, B, 1, SMALL);
    w.drive();
    let a = w.peer(B, A);
    w.machines[B].peer_failed(a, StatusCode::PeerDied, "killed");
    for _ in 0..200 {
        let (lane, _, _) = crate::testing::wire(Limits::default());
        let peer = w.machines[B].add_partner(lane).unwrap();
        w.machines[B].peer_failed(peer, StatusCode::PeerDied, "killed");
    }
    assert!(!w.machines[B].knows(a));
    let sink = Sink::new(SMALL);
    let request = w.machines[B].irecv(sink, &anything()).unwrap();
    let status: Status = w.test(B, request).unwrap();
    assert_eq!((status.code, status.source), (StatusCode::Success, a));
    check_contents(&sink.contents(), &message);
    assert_eq!(w.machines[B].unexpected(), (0, 0));
}

#[test]
fn a_claim_on_a_message_that_died_is_refused() {
    for len in [PIECES, LARGE] {
        let mut w = World::new(2, NARROW);
        w.send(A, B, 1, len);
        w.machines[B].poll();
        let (claim, _) = w.machines[B].improbe(&anything()).unwrap().unwrap();
        let a = w.peer(B, A);
        w.machines[B].peer_failed(a, StatusCode::PeerDied, "killed");
        let refused = w.machines[B].imrecv(claim, Sink::new(len));
        assert_eq!(refused, Err(Refusal::BadRequest));
        w.expect_empty_at(B);
    }
}

#[test]
fn the_death_of_a_peer_that_never_stops_talking_is_still_the_end() {
    // The backend says that it left, but somebody keeps writing frames: a hostile peer whose
    // process lives on. It must not be able to keep us reading for ever.
    let mut w = World::pair();
    let (tap, end) = w.tap(B, A);
    let a = w.peer(B, A);
    let frame = crate::frame::Message::Eager {
        match_info: 1,
        immediate: 0,
        space: crate::Space::Tagged,
        length: 0,
    };
    w.receive(B, tag(2), 8);
    w.machines[B].install_handler(false);
    for _ in 0..100_000 {
        tap.inject(end, frame.emit(), Default::default());
    }
    let multi = w.machines[B].post_multi(Sink::new(1 << 20), 1, &anything()).unwrap();
    w.machines[B].peer_failed(a, StatusCode::PeerClosed, "it left");
    assert!(tap.waiting(end) > 50_000, "all of it was read");
    assert_eq!(w.machines[B].peer_state(a), Err(Refusal::PeerGone(StatusCode::PeerClosed)));
    assert!(w.machines[B].poll_multi(multi).is_ok());
}
