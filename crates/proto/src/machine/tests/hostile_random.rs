// SPDX-License-Identifier: Apache-2.0
//! Random frames, random lengths, random credit, in the middle of traffic with the same peer.
//!
//! The words are drawn so that many of them almost make sense: the numbers of requests that exist,
//! lengths that are nearly right.

use proptest::prelude::*;

use super::hostile::{Stage, stage};
use super::world::{A, B, LARGE, PIECES, anything};
use crate::Space;
use crate::frame::{Body, Frame};
use crate::limits::{CREDIT_BYTES, CREDIT_MESSAGES};
use crate::machine::{Exposed, Refusal, RequestId, Sent};
use crate::testing::{Payload, Sink, Source};
use crate::{AtomicOp, Key};

/// One thing that the liar or the victim does.
#[derive(Clone, Debug)]
enum Step {
    Lie(Frame, usize, Body),
    Credits(u64, u64),
    Drain,
    Look,
    Receive {
        room: usize,
        from_liar: bool,
    },
    Send {
        len: usize,
        synchronous: bool,
    },
    Probe,
    Multi,
    CancelOne,
    Register {
        secret: u64,
        bound: bool,
    },
    Withdraw(u32),
    Lend(usize),
    Borrow,
    /// Memory for loans that are copied, or none.
    Fill(bool),
    LetGo,
    Operate {
        kind: u8,
        region: u32,
        offset: u64,
        len: usize,
    },
    /// The liar grants something, or takes everything back.
    Grant(Option<bool>),
}

fn frame() -> impl Strategy<Value = Frame> {
    let small = 0_u64..6;
    let odd = prop_oneof![Just(u64::MAX), Just(1 << 32), Just(1 << 63), any::<u64>()];
    let word = prop_oneof![8 => small, 4 => 0_u64..70_000, 1 => odd];
    let halves = (0_u64..6, 0_u64..6).prop_map(|(low, high)| low | high << 32);
    let first = prop_oneof![word.clone(), halves.clone()];
    let second = prop_oneof![word.clone(), halves];
    let kind = prop_oneof![10 => 1_u8..6, 10 => 7_u8..14, 1 => 0_u8..16];
    let flags = prop_oneof![4 => Just(0_u8), 2 => Just(4_u8), 2 => Just(6_u8), 1 => 0_u8..8];
    (kind, flags, first, second, word).prop_map(|(kind, flags, a, b, c)| Frame {
        kind,
        flags,
        words: [a, b, c],
    })
}

/// Secrets, places and operands that nearly fit.
fn body() -> impl Strategy<Value = Body> {
    let word = || prop_oneof![8 => 0_u64..4, 2 => 0_u64..70_000, 1 => any::<u64>()];
    [word(), word(), word(), word()]
}

fn credits() -> impl Strategy<Value = (u64, u64)> {
    (0_u64..100_000, 0_u64..30)
}

fn step() -> impl Strategy<Value = Step> {
    let len = || prop_oneof![Just(0_usize), 1..64_usize, Just(PIECES), Just(LARGE)];
    let part = prop_oneof![Just(0_usize), 1..64_usize, 1..70_000_usize];
    prop_oneof![
        10 => (frame(), part, body()).prop_map(|(frame, len, body)| Step::Lie(frame, len, body)),
        6 => (frame(), body()).prop_map(|(frame, body)| Step::Lie(frame, 32, body)),
        1 => credits().prop_map(|(bytes, messages)| Step::Credits(bytes, messages)),
        2 => Just(Step::Drain),
        6 => Just(Step::Look),
        4 => (len(), any::<bool>()).prop_map(|(room, from_liar)| Step::Receive { room, from_liar }),
        3 => (len(), any::<bool>()).prop_map(|(len, synchronous)| Step::Send { len, synchronous }),
        1 => Just(Step::Probe),
        1 => Just(Step::Multi),
        1 => Just(Step::CancelOne),
        2 => (0_u64..3, any::<bool>())
            .prop_map(|(secret, bound)| Step::Register { secret, bound }),
        1 => (0_u32..4).prop_map(Step::Withdraw),
        1 => len().prop_map(Step::Lend),
        2 => Just(Step::Borrow),
        1 => any::<bool>().prop_map(Step::Fill),
        1 => Just(Step::LetGo),
        4 => (0_u8..5, 0_u32..4, 0_u64..40, len())
            .prop_map(|(kind, region, offset, len)| Step::Operate { kind, region, offset, len }),
        1 => proptest::option::of(any::<bool>()).prop_map(Step::Grant),
    ]
}

#[derive(Default)]
struct Requests {
    plain: Vec<RequestId>,
    multi: Vec<RequestId>,
    /// Loans that were received, complete or not.
    loans: Vec<RequestId>,
}

fn run_step(s: &mut Stage, step: &Step, requests: &mut Requests) {
    match step {
        Step::Lie(frame, len, body) => {
            let payload = Payload { number: 666, len: *len, body: *body, ..Payload::default() };
            s.tap.inject(s.end, *frame, payload);
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
        _ => run_region_step(s, step, requests),
    }
}

/// The steps that concern regions and loans.
fn run_region_step(s: &mut Stage, step: &Step, requests: &mut Requests) {
    let liar = s.w.peer(B, A);
    let machine = &mut s.w.machines[B];
    match step {
        Step::Register { secret, bound } => {
            let memory = Exposed::ReadWrite(Sink::new(PIECES));
            let bound = bound.then_some(liar);
            if let Ok(region) = machine.add_region(memory, [*secret, *secret], bound) {
                let _ = machine.tell_region(region, liar);
            }
        }
        Step::Withdraw(region) => machine.withdraw_region(*region),
        Step::Lend(len) => {
            let lent = machine.lend(Source::new(7, *len), liar, &crate::Envelope::default());
            requests.plain.extend(lent.ok());
        }
        Step::Borrow => {
            let request = machine.irecv_loan(&anything()).expect("a receive");
            requests.plain.push(request);
            requests.loans.push(request);
        }
        Step::Fill(with) => {
            if let Some((request, len)) = machine.take_wanting() {
                let len = usize::try_from(len).ok().filter(|len| *with && *len <= LARGE);
                machine.fill_loan(request, len.map(Sink::new));
            }
        }
        Step::LetGo => {
            if let Some(loan) = requests.loans.pop().and_then(|request| machine.take_loan(request))
            {
                machine.let_go(loan.lender, loan.send_id, loan.len);
            }
        }
        Step::Operate { kind, region, offset, len } => {
            let secret = [offset % 3; 2];
            let length = PIECES as u64;
            let key = Key { owner: 0, region: *region, secret, length, writable: true };
            let sent = match kind {
                0 => machine.rdma_read(Sink::new(*len), liar, &key, *offset),
                1 => machine.rdma_write(Source::new(9, *len), liar, &key, *offset, None),
                2 => {
                    let notify = Some(crate::Envelope::default());
                    machine.rdma_write(Source::new(9, 8), liar, &key, *offset, notify)
                }
                3 => machine.rdma_fence(liar),
                _ => machine
                    .rdma_atomic(liar, &key, 8 * offset, AtomicOp::FetchAdd(1))
                    .map(Sent::Pending),
            };
            if let Ok(Sent::Pending(request)) = sent {
                requests.plain.push(request);
            }
        }
        Step::Grant(Some(writable)) => {
            s.tap.grant(1 - s.end, Sink::new(PIECES), *writable);
        }
        Step::Grant(None) => s.tap.take_back(1 - s.end),
        _ => unreachable!("run by the caller"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn random_frames_harm_only_their_sender(
        granting: bool,
        steps in proptest::collection::vec(step(), 0..60),
    ) {
        let mut s = stage();
        s.tap.set_granting(granting);
        let mut requests = Requests::default();
        for step in &steps {
            run_step(&mut s, step, &mut requests);
            let (messages, bytes) = s.w.machines[B].unexpected();
            prop_assert!(messages as u64 <= CREDIT_MESSAGES && bytes <= CREDIT_BYTES);
        }
        // Found out or not, parting from the liar ends everything that waits for it.
        let a = s.w.peer(B, A);
        let _ = s.w.machines[B].disconnect(a);
        for number in 0..100 {
            s.w.machines[B].withdraw_region(number);
        }
        while let Some((request, _)) = s.w.machines[B].take_wanting() {
            s.w.machines[B].fill_loan(request, None);
        }
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
