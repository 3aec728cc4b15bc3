// SPDX-License-Identifier: Apache-2.0
//! A peer that writes frames which no honest peer would write.
//!
//! The liar A owns its wire: it injects whatever it likes towards the victim B and reads nothing
//! honestly. Whatever it does, only its own channel may end, with `PeerMisbehaved`; requests that
//! concern it end with it; the honest peer C keeps exact data; memory stays bounded.

use super::world::{A, B, C, LARGE, PIECES, SMALL, World, anything, tag};
use crate::frame::{Answer, Frame, Message};
use crate::limits::{CREDIT_BYTES, CREDIT_MESSAGES, EAGER_BYTES_MAX};
use crate::machine::{MultiEvent, Refusal, Sent, StatusCode};
use crate::testing::{Limits, Payload, Sink, Tap};
use crate::{HandlerAction, Space};

/// The victim with a liar and an honest peer.
pub struct Stage {
    pub w: World,
    pub tap: Tap,
    pub end: usize,
}

pub fn stage() -> Stage {
    let w = World::new(3, Limits { cells: 8, area_bytes: 64 << 10 });
    let (tap, end) = w.tap(B, A);
    Stage { w, tap, end }
}

impl Stage {
    fn inject(&mut self, message: Message, len: usize) {
        self.tap.inject(
            self.end,
            message.emit(),
            Payload { number: 666, len, ..Payload::default() },
        );
    }

    /// The victim looks at everything.
    fn look(&mut self) {
        while self.w.machines[B].poll_all() {}
    }

    fn is_found_out(&self) -> bool {
        let a = self.w.peer(B, A);
        match self.w.machines[B].peer_state(a) {
            Ok(()) => false,
            Err(Refusal::PeerGone(code)) => {
                assert_eq!(code, StatusCode::PeerMisbehaved);
                true
            }
            Err(other) => panic!("{other:?}"),
        }
    }

    /// The honest peer's messages arrive as ever, in both directions.
    pub fn expect_honest_traffic(&mut self) {
        for len in [SMALL, PIECES, LARGE] {
            let from_c = self.w.from(B, C, tag(4242));
            let receive = self.w.receive(B, from_c, len);
            let message = self.w.send(C, B, 4242, len);
            let back = self.w.receive(C, tag(4243), len);
            let reply = self.w.send(B, C, 4243, len);
            for _ in 0..1000 {
                self.w.machines[B].poll();
                self.w.machines[C].poll();
            }
            self.w.expect_received(&receive, &message);
            self.w.expect_received(&back, &reply);
            self.w.expect_sent(&message, len);
            self.w.expect_sent(&reply, len);
        }
    }

    fn expect_honest_traffic_after(&mut self, pending: super::world::Message) {
        let receive = self.w.receive(C, tag(pending.match_info), pending.len);
        self.w.drive();
        self.w.expect_received(&receive, &pending);
        self.w.expect_sent(&pending, pending.len);
        self.expect_honest_traffic();
    }
}

fn eager(length: u64) -> Message {
    Message::Eager { match_info: 1, immediate: 0, space: Space::Tagged, length }
}

fn rts(length: u64) -> Message {
    Message::Rts {
        match_info: 1,
        immediate: 0,
        space: Space::Tagged,
        length,
        send_id: 3,
        placed: false,
    }
}

/// Runs a lie, and expects it to be found out and to harm nobody else.
fn expect_fault(prepare: impl FnOnce(&mut Stage), lies: &[(Message, usize)]) {
    let mut s = stage();
    prepare(&mut s);
    for (message, len) in lies {
        assert!(!s.is_found_out(), "found out before {message:?}");
        s.inject(*message, *len);
        s.look();
    }
    assert!(s.is_found_out(), "nobody noticed {lies:?}");
    s.expect_honest_traffic();
    let departed = s.w.machines[B].take_departed();
    assert_eq!(departed.map(|(_, code, _)| code), Some(StatusCode::PeerMisbehaved));
}

#[test]
fn frames_that_make_no_sense_by_themselves() {
    let max = EAGER_BYTES_MAX as u64;
    let nothing = |_: &mut Stage| {};
    expect_fault(nothing, &[(eager(max + 1), 0)]);
    expect_fault(nothing, &[(eager(u64::MAX), 8)]);
    expect_fault(nothing, &[(eager(7), 8)]);
    expect_fault(nothing, &[(Message::More, 8)]);
    expect_fault(nothing, &[(Message::Data { recv_id: 0, offset: 0 }, 8)]);
    expect_fault(nothing, &[(Message::Data { recv_id: u32::MAX, offset: 0 }, 8)]);
    expect_fault(nothing, &[(Message::Cts { send_id: 0, recv_id: 0, accepted: 0 }, 0)]);
    expect_fault(nothing, &[(Message::Cts { send_id: u32::MAX, recv_id: 0, accepted: 1 }, 0)]);
    let done = Message::Done { send_id: 0, taken: 0 };
    let answer = Message::Answer { id: 0, answer: Answer::Ok, value: 0 };
    expect_fault(nothing, &[(done, 0)]);
    expect_fault(nothing, &[(answer, 0)]);
    for kind in (14..=255).chain([0]) {
        let mut s = stage();
        s.tap.inject(s.end, Frame { kind, ..Frame::default() }, Payload::default());
        s.look();
        assert!(s.is_found_out(), "kind {kind}");
    }
}

#[test]
fn parts_that_do_not_fit_their_message() {
    for receive_first in [false, true] {
        let prepare = |s: &mut Stage| {
            if receive_first {
                s.w.receive(B, tag(1), 50);
            }
        };
        expect_fault(prepare, &[(eager(100), 60), (Message::More, 41)]);
        expect_fault(prepare, &[(eager(100), 60), (eager(8), 8)]);
        expect_fault(prepare, &[(eager(100), 0), (Message::More, 0)]);
        expect_fault(prepare, &[(eager(100), 99), (Message::More, 1), (Message::More, 1)]);
    }
    // Also when the message was consumed before all of it was here.
    expect_fault(
        |s| {
            s.inject(eager(100), 60);
            s.look();
            let (claim, _) = s.w.machines[B].improbe(&anything()).unwrap().unwrap();
            s.w.machines[B].discard(claim);
        },
        &[(Message::More, 41)],
    );
}

#[test]
fn data_that_was_not_asked_for() {
    let accepted = |s: &mut Stage| {
        s.w.receive(B, tag(1), 100);
        s.inject(rts(100), 0);
        s.look();
        assert_eq!(s.tap.waiting(1 - s.end), 1, "the acceptance");
    };
    let data = |recv_id, offset| Message::Data { recv_id, offset };
    expect_fault(accepted, &[(data(0, 1), 8)]);
    expect_fault(accepted, &[(data(0, 0), 101)]);
    expect_fault(accepted, &[(data(0, 0), 0)]);
    expect_fault(accepted, &[(data(0, 0), 50), (data(0, 0), 50)]);
    expect_fault(accepted, &[(data(0, 0), 50), (data(0, 50), 51)]);
    expect_fault(accepted, &[(data(0, 0), 100), (data(0, 0), 1)]);
    expect_fault(accepted, &[(data(0, u64::MAX), 1)]);
    expect_fault(accepted, &[(data(1, 0), 8)]);
    // A receive that is posted, one that an eager message fills, one of another peer.
    expect_fault(
        |s| {
            s.w.receive(B, tag(1), 100);
        },
        &[(data(0, 0), 8)],
    );
    expect_fault(
        |s| {
            s.w.receive(B, tag(1), 100);
            s.inject(eager(100), 8);
            s.look();
        },
        &[(data(0, 8), 8)],
    );
    expect_fault(
        |s| {
            let from_c = s.w.from(B, C, anything());
            s.w.receive(B, from_c, LARGE);
            s.w.send(C, B, 1, LARGE);
            s.w.machines[C].poll();
            s.w.machines[B].poll_all();
        },
        &[(data(0, 0), 8)],
    );
}

#[test]
fn acceptances_of_what_was_not_announced() {
    let cts = |send_id, accepted| Message::Cts { send_id, recv_id: 0, accepted };
    let announced = |s: &mut Stage| {
        assert!(matches!(s.w.send(B, A, 1, LARGE).sent, Sent::Pending(_)));
    };
    expect_fault(announced, &[(cts(1, 1), 0)]);
    expect_fault(announced, &[(cts(0, LARGE as u64 + 1), 0)]);
    expect_fault(announced, &[(cts(0, u64::MAX), 0)]);
    expect_fault(announced, &[(cts(0, 1), 0), (cts(0, 1), 0)]);
    // Once more while the data is still on its way.
    expect_fault(announced, &[(cts(0, LARGE as u64), 0), (cts(0, LARGE as u64), 0)]);
    expect_fault(announced, &[(cts(0, 0), 0), (cts(0, 0), 0)]);
    // A send to somebody else, and one to ourselves.
    expect_fault(
        |s| {
            s.w.send(B, C, 1, LARGE);
        },
        &[(cts(0, 1), 0)],
    );
    expect_fault(
        |s| {
            s.w.send(B, B, 1, LARGE);
        },
        &[(cts(0, 1), 0)],
    );
    // One that still waits in the queue, since there is no credit for its announcement.
    expect_fault(
        |s| {
            for _ in 0..=CREDIT_MESSAGES {
                s.w.send(B, A, 1, LARGE);
                s.tap.drain(1 - s.end);
                s.w.machines[B].poll();
            }
        },
        &[(cts(CREDIT_MESSAGES as u32, 1), 0)],
    );
}

#[test]
fn more_than_there_is_credit_for() {
    let mut s = stage();
    for _ in 0..CREDIT_MESSAGES {
        s.inject(eager(0), 0);
    }
    s.look();
    assert!(!s.is_found_out());
    assert_eq!(s.w.machines[B].unexpected().0 as u64, CREDIT_MESSAGES);
    s.inject(rts(1 << 40), 0);
    s.look();
    assert!(s.is_found_out());

    let mut s = stage();
    for _ in 0..CREDIT_BYTES / EAGER_BYTES_MAX as u64 {
        s.inject(eager(EAGER_BYTES_MAX as u64), EAGER_BYTES_MAX);
    }
    s.look();
    assert!(!s.is_found_out());
    assert_eq!(s.w.machines[B].unexpected().1, CREDIT_BYTES);
    s.inject(eager(1), 1);
    s.look();
    assert!(s.is_found_out());
    s.expect_honest_traffic();
}

#[test]
fn credit_that_was_never_owed() {
    for credits in [(0, u64::MAX), (u64::MAX, 0), (u64::MAX, u64::MAX), (1 << 63, 5)] {
        let mut s = stage();
        s.tap.allege_credits(s.end, credits);
        // The victim looks at its account when it runs short.
        let mut refused = false;
        for _ in 0..2 * CREDIT_MESSAGES {
            s.tap.drain(1 - s.end);
            let envelope = crate::Envelope::default();
            refused |= s.w.try_send(B, A, 2000, envelope).is_err();
        }
        assert!(refused && s.is_found_out(), "{credits:?}");
        s.expect_honest_traffic();
    }
}

#[test]
fn credit_that_is_taken_back() {
    let mut s = stage();
    for round in 0..3 {
        for _ in 0..CREDIT_MESSAGES {
            s.tap.drain(1 - s.end);
            let _ = s.w.try_send(B, A, 0, crate::Envelope::default());
        }
        let returned = if round == 2 { 1 } else { CREDIT_MESSAGES * (round + 1) };
        s.tap.allege_credits(s.end, (0, returned));
    }
    for _ in 0..=CREDIT_MESSAGES {
        s.tap.drain(1 - s.end);
        let _ = s.w.try_send(B, A, 0, crate::Envelope::default());
        s.look();
    }
    assert!(s.is_found_out());
}

#[test]
fn a_liar_found_out_while_we_send_fails_only_what_concerns_it() {
    let mut s = stage();
    let large = s.w.send(B, A, 1, LARGE);
    let to_c = s.w.send(B, C, 1, LARGE);
    s.tap.lie_to(s.end);
    let refused = s.w.try_send(B, A, 8, crate::Envelope::default());
    let queued = refused.map(|message| message.sent);
    assert!(matches!(queued, Err(Refusal::PeerGone(StatusCode::PeerMisbehaved))), "{queued:?}");
    assert!(s.is_found_out());
    assert_eq!(s.w.test(B, large.request()).unwrap().code, StatusCode::PeerMisbehaved);
    assert!(s.w.is_open(B, to_c.request()));
    s.expect_honest_traffic_after(to_c);
}

#[test]
fn lengths_beyond_all_memory_are_only_numbers() {
    // Announced twice, the counters of bytes would overflow.
    let mut s = stage();
    for _ in 0..4 {
        s.inject(rts(u64::MAX), 0);
    }
    s.look();
    assert!(!s.is_found_out());
    let receive = s.w.receive(B, anything(), SMALL);
    let sink = Sink::new(1000);
    let multi = s.w.machines[B].post_multi(sink, 1, &anything()).unwrap();
    s.inject(Message::Data { recv_id: receive.request.to_raw() as u32, offset: 0 }, SMALL);
    s.look();
    let status = s.w.test(B, receive.request).unwrap();
    assert_eq!((status.code, status.message_bytes), (StatusCode::Truncated, u64::MAX));
    assert_eq!(status.transferred_bytes, SMALL as u64);
    assert_eq!(s.w.machines[B].poll_multi(multi), Ok(MultiEvent::Nothing));
    s.expect_honest_traffic();
}

#[test]
fn announcements_whose_answers_are_never_read_are_bounded() {
    let mut s = stage();
    let mut injected = 0_u64;
    s.w.machines[B].install_handler(true);
    while !s.is_found_out() && injected < 10 * CREDIT_MESSAGES {
        s.inject(rts(1 << 20), 0);
        injected += 1;
        s.look();
        while s.w.machines[B].take_handler_call().is_some() {
            s.w.machines[B].answer_handler(HandlerAction::Finished);
            s.look();
        }
    }
    assert!(s.is_found_out());
    assert!(injected <= 2 * CREDIT_MESSAGES, "{injected} answers were kept");
    s.w.machines[B].install_handler(false);
    s.expect_honest_traffic();
}

#[test]
fn parts_of_no_bytes_are_refused() {
    // They would keep us busy for ever without any message getting longer.
    expect_fault(|_| {}, &[(eager(100), 50), (Message::More, 0)]);
}
