// SPDX-License-Identifier: Apache-2.0
//! An endpoint machine with a peer that sends any frames, and an honest one beside it.

use diolkos_proto::frame::Frame;
use diolkos_proto::limits::{CREDIT_BYTES, CREDIT_MESSAGES};
use diolkos_proto::matching::ContextBits;
use diolkos_proto::testing::{Limits, Payload, QueueLane, Sink, Source, Tap, wire};
use diolkos_proto::{
    AtomicOp, Envelope, Exposed, HandlerAction, Key, Machine, PeerId, RequestId, Selector, Sent,
    Space, StatusCode,
};

use crate::Script;

const LENGTHS: [usize; 6] = [0, 5, 100, 5000, 40_000, 200_000];

struct Stage {
    victim: Machine<QueueLane>,
    honest: Machine<QueueLane>,
    to_liar: PeerId,
    to_honest: PeerId,
    to_victim: PeerId,
    tap: Tap,
    requests: Vec<RequestId>,
    buffers: Vec<RequestId>,
    loans: Vec<RequestId>,
}

fn stage() -> Stage {
    Sink::forget_all();
    let limits = Limits { cells: 6, area_bytes: 32 << 10 };
    let (mut victim, mut honest) =
        (Machine::new(ContextBits::default()), Machine::new(ContextBits::default()));
    let (own, _, tap) = wire(limits);
    let to_liar = victim.add_partner(own).expect("room for a peer");
    let (own, other, _) = wire(limits);
    let to_honest = victim.add_partner(own).expect("room for a peer");
    let to_victim = honest.add_partner(other).expect("room for a peer");
    let (requests, buffers, loans) = (Vec::new(), Vec::new(), Vec::new());
    Stage { victim, honest, to_liar, to_honest, to_victim, tap, requests, buffers, loans }
}

/// Only the liar's channel may end, memory stays bounded, and the honest peer is served.
pub fn machine(data: &[u8]) {
    let mut script = Script::new(data);
    let mut s = stage();
    while !script.is_empty() {
        s.step(&mut script);
        let (messages, bytes) = s.victim.unexpected();
        assert!(messages as u64 <= CREDIT_MESSAGES && bytes <= CREDIT_BYTES);
    }
    s.finish();
}

fn any(source: Option<PeerId>) -> Selector {
    Selector { match_info: 0, mask: 0, source, space: Space::Tagged }
}

impl Stage {
    fn step(&mut self, script: &mut Script<'_>) {
        match script.byte() % 16 {
            0..=3 => {
                let (kind, flags) = (script.byte() % 16, script.byte() % 8);
                let words = [script.word(), script.word(), script.word()];
                // Most frames that carry words have all four.
                let len = match script.byte() % 3 {
                    0 => usize::from(script.short()),
                    1 => 16,
                    _ => 32,
                };
                let body = [script.word(), script.word(), script.word(), script.word()];
                let payload = Payload { number: 666, len, body, ..Payload::default() };
                self.tap.inject(0, Frame { kind, flags, words }, payload);
            }
            4 => self.tap.allege_credits(0, (script.word(), script.word())),
            5 => self.tap.drain(1),
            6 | 7 => {
                self.victim.poll();
            }
            8 => {
                let selector = any((script.byte() % 2 == 0).then_some(self.to_liar));
                let sink = Sink::new(LENGTHS[script.below(6)]);
                self.requests.extend(self.victim.irecv(sink, &selector));
            }
            9 => {
                let source = Source::new(7, LENGTHS[script.below(6)]);
                let synchronous = script.byte() % 2 == 0;
                let envelope = Envelope { match_info: 1, synchronous, ..Envelope::default() };
                if let Ok(Sent::Pending(request)) =
                    self.victim.isend(source, self.to_liar, &envelope)
                {
                    self.requests.push(request);
                }
            }
            10 => self.claim_or_handle(script),
            11 | 12 => self.operate(script),
            13 => self.lend_or_borrow(script),
            14 => self.register(script),
            _ => {
                let sink = Sink::new(LENGTHS[script.below(6)]);
                let min_free = script.below(10_000);
                self.buffers.extend(self.victim.post_multi(sink, min_free, &any(None)));
            }
        }
    }

    fn operate(&mut self, script: &mut Script<'_>) {
        let secret = [script.word() % 8; 2];
        let (region, length) = (u32::from(script.byte() % 4), 40_000);
        let key = Key { owner: 0, region, secret, length, writable: true };
        let (peer, offset) = (self.to_liar, script.word() % 64);
        let (sink, source) = (Sink::new(LENGTHS[script.below(6)]), Source::new(9, 5000));
        let victim = &mut self.victim;
        let sent = match script.byte() % 5 {
            0 => victim.rdma_read(sink, peer, &key, offset),
            1 => victim.rdma_write(source, peer, &key, offset, None),
            2 => victim.rdma_write(source, peer, &key, offset, Some(Envelope::default())),
            3 => victim.rdma_fence(peer),
            _ => {
                victim.rdma_atomic(peer, &key, 8 * offset, AtomicOp::FetchAdd(1)).map(Sent::Pending)
            }
        };
        if let Ok(Sent::Pending(request)) = sent {
            self.requests.push(request);
        }
    }

    fn lend_or_borrow(&mut self, script: &mut Script<'_>) {
        match script.byte() % 4 {
            0 => {
                let source = Source::new(7, LENGTHS[script.below(6)]);
                let lent = self.victim.lend(source, self.to_liar, &Envelope::default());
                self.requests.extend(lent);
            }
            1 => {
                let request = self.victim.irecv_loan(&any(None)).expect("a receive");
                self.requests.push(request);
                self.loans.push(request);
            }
            2 => {
                if let Some((request, len)) = self.victim.take_wanting() {
                    let sink = (len <= 200_000).then(|| Sink::new(len as usize));
                    self.victim.fill_loan(request, sink);
                }
            }
            _ => {
                let loan = self.loans.pop().and_then(|request| self.victim.take_loan(request));
                if let Some(loan) = loan {
                    self.victim.let_go(loan.lender, loan.send_id, loan.len);
                }
            }
        }
    }

    fn register(&mut self, script: &mut Script<'_>) {
        match script.byte() % 5 {
            0 => self.victim.withdraw_region(u32::from(script.byte() % 4)),
            1 => {
                self.tap.grant(1, Sink::new(40_000), script.byte() % 2 == 0);
            }
            2 => self.tap.take_back(1),
            3 => self.tap.set_granting(script.byte() % 2 == 0),
            _ => {
                let secret = [script.word() % 8; 2];
                let bound = (script.byte() % 2 == 0).then_some(self.to_liar);
                let memory = Exposed::ReadWrite(Sink::new(40_000));
                if let Ok(region) = self.victim.add_region(memory, secret, bound) {
                    let _ = self.victim.tell_region(region, self.to_liar);
                }
            }
        }
    }

    fn claim_or_handle(&mut self, script: &mut Script<'_>) {
        match script.byte() % 4 {
            0 => self.victim.install_handler(script.byte() % 2 == 0),
            1 => {
                if self.victim.take_handler_call().is_some() {
                    let finished = script.byte() % 2 == 0;
                    self.victim.answer_handler(if finished {
                        HandlerAction::Finished
                    } else {
                        HandlerAction::Continue
                    });
                }
            }
            _ => {
                let Ok(Some((claim, _))) = self.victim.improbe(&any(None)) else { return };
                if script.byte() % 2 == 0 {
                    self.victim.discard(claim);
                } else {
                    self.requests.extend(self.victim.imrecv(claim, Sink::new(50)));
                }
            }
        }
    }

    /// Parting from the liar ends what waits for it; the honest peer's message then arrives.
    fn finish(mut self) {
        self.victim.install_handler(false);
        while self.victim.take_handler_call().is_some() {
            self.victim.answer_handler(HandlerAction::Finished);
        }
        self.victim.answer_handler(HandlerAction::Finished);
        let _ = self.victim.disconnect(self.to_liar);
        while let Some((request, _)) = self.victim.take_wanting() {
            self.victim.fill_loan(request, None);
        }
        for request in self.requests {
            if self.victim.test(request) == Ok(None) {
                assert_eq!(self.victim.cancel(request), Ok(true), "a request to a liar lives on");
            }
        }
        for request in self.buffers {
            let _ = self.victim.cancel(request);
            self.victim.forget(request);
        }
        assert_eq!(self.victim.request_count(), 0);
        let sink = Sink::new(200_000);
        let receive = self.victim.irecv(sink, &any(Some(self.to_honest))).expect("a receive");
        let source = Source::new(4711, 200_000);
        self.honest.isend(source, self.to_victim, &Envelope::default()).expect("a send");
        while self.victim.poll_all() | self.honest.poll_all() {}
        let status = self.victim.test(receive).expect("a request").expect("it has come");
        assert_eq!(status.code, StatusCode::Success);
        let expected = diolkos_proto::testing::bytes_of(4711, 0..200_000);
        assert!(expected.eq(sink.contents()), "the honest peer's data was garbled");
    }
}
