// SPDX-License-Identifier: Apache-2.0
//! Random frames, random lengths, random credit, in the middle of traffic with the same peer.
//!
//! The words are drawn so that many of them almost make sense: the numbers of requests that exist,
//! lengths that are nearly right.

use proptest::prelude::*;

use super::hostile::{Stage, stage};
use super::world::{A, B, LARGE, PIECES, anything};
use crate::Space;
use crate::frame::Frame;
use crate::limits::{CREDIT_BYTES, CREDIT_MESSAGES};
use crate::machine::{Refusal, RequestId, Sent};
use crate::testing::{Payload, Sink};

/// One thing that the liar or the victim does.
#[derive(Clone, Debug)]
enum Step {
    Lie(Frame, usize),
    Credits(u64, u64),
    Drain,
    Look,
    Receive { room: usize, from_liar: bool },
    Send { len: usize, synchronous: bool },
    Probe,
    Multi,
    CancelOne,
}

fn frame() -> impl Strategy<Value = Frame> {
    let small = 0_u64..6;
    let odd = prop_oneof![Just(u64::MAX), Just(1 << 32), Just(1 << 63), any::<u64>()];
    let word = prop_oneof![8 => small, 4 => 0_u64..70_000, 1 => odd];
    let halves = (0_u64..6, 0_u64..6).prop_map(|(low, high)| low | high << 32);
    let first = prop_oneof![word.clone(), halves.clone()];
    let second = prop_oneof![word.clone(), halves];
    let kind = prop_oneof![10 => 1_u8..6, 1 => 0_u8..9];
    (kind, 0_u8..2, first, second, word).prop_map(|(kind, flags, a, b, c)| Frame {
        kind,
        flags,
        words: [a, b, c],
    })
}

fn credits() -> impl Strategy<Value = (u64, u64)> {
    (0_u64..100_000, 0_u64..30)
}

fn step() -> impl Strategy<Value = Step> {
    let len = || prop_oneof![Just(0_usize), 1..64_usize, Just(PIECES), Just(LARGE)];
    let part = prop_oneof![Just(0_usize), 1..64_usize, 1..70_000_usize];
    prop_oneof![
        10 => (frame(), part).prop_map(|(frame, len)| Step::Lie(frame, len)),
        1 => credits().prop_map(|(bytes, messages)| Step::Credits(bytes, messages)),
        2 => Just(Step::Drain),
        6 => Just(Step::Look),
        4 => (len(), any::<bool>()).prop_map(|(room, from_liar)| Step::Receive { room, from_liar }),
        3 => (len(), any::<bool>()).prop_map(|(len, synchronous)| Step::Send { len, synchronous }),
        1 => Just(Step::Probe),
        1 => Just(Step::Multi),
        1 => Just(Step::CancelOne),
    ]
}

#[derive(Default)]
struct Requests {
    plain: Vec<RequestId>,
    multi: Vec<RequestId>,
}

fn run_step(s: &mut Stage, step: &Step, requests: &mut Requests) {
    match step {
        Step::Lie(frame, len) => {
            s.tap.inject(s.end, *frame, Payload { number: 666, len: *len, ..Payload::default() });
        }
        Step::Credits(bytes, messages) => s.tap.allege_credits(s.end, (*bytes, *messages)),
        Step::Drain => s.tap.drain(1 - s.end),
        Step::Look => {
            s.w.machines[B].poll();
        }
        Step::Receive { room, from_liar } => {
            let from_liar = from_liar.then(|| s.w.peer(B, A));
            let selector = crate::Selector { source: from_liar, ..anything() };
            if let Ok(request) = s.w.machines[B].irecv(Sink::new(*room), &selector) {
                requests.plain.push(request);
            }
        }
        Step::Send { len, synchronous } => {
            let synchronous = *synchronous;
            let envelope = crate::Envelope { match_info: 1, synchronous, ..Default::default() };
            if let Ok(message) = s.w.try_send(B, A, *len, envelope)
                && let Sent::Pending(request) = message.sent
            {
                requests.plain.push(request);
            }
        }
        Step::Probe => {
            if let Ok(Some((claim, _))) = s.w.machines[B].improbe(&anything())
                && let Ok(request) = s.w.machines[B].imrecv(claim, Sink::new(100))
            {
                requests.plain.push(request);
            }
        }
        Step::Multi => {
            if let Ok(request) = s.w.machines[B].post_multi(Sink::new(5000), 1000, &anything()) {
                requests.multi.push(request);
            }
        }
        Step::CancelOne => {
            if let Some(request) = requests.plain.pop()
                && let Ok(false) | Err(Refusal::BadRequest) = s.w.machines[B].cancel(request)
            {
                s.w.machines[B].forget(request);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn random_frames_harm_only_their_sender(
        steps in proptest::collection::vec(step(), 0..60),
    ) {
        let mut s = stage();
        let mut requests = Requests::default();
        for step in &steps {
            run_step(&mut s, step, &mut requests);
            let (messages, bytes) = s.w.machines[B].unexpected();
            prop_assert!(messages as u64 <= CREDIT_MESSAGES && bytes <= CREDIT_BYTES);
        }
        // Found out or not, parting from the liar ends everything that waits for it.
        let a = s.w.peer(B, A);
        let _ = s.w.machines[B].disconnect(a);
        for request in requests.plain {
            // What is left waits for anybody.
            if s.w.test(B, request).is_none() {
                prop_assert_eq!(s.w.machines[B].cancel(request), Ok(true));
            }
        }
        for request in requests.multi {
            let _ = s.w.machines[B].cancel(request);
            s.w.machines[B].forget(request);
        }
        while let Some((claim, _)) = s.w.machines[B].improbe(&anything()).expect("a probe") {
            s.w.machines[B].discard(claim);
        }
        let untagged = crate::Selector { space: Space::Untagged, ..anything() };
        while let Some((claim, _)) = s.w.machines[B].improbe(&untagged).expect("a probe") {
            s.w.machines[B].discard(claim);
        }
        s.expect_honest_traffic();
        s.w.expect_empty_at(B);
    }
}
