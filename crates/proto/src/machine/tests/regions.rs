// SPDX-License-Identifier: Apache-2.0
//! Operations on regions: each is tried where memory can be granted, and by copies.

use super::world::{A, B, C, World, anything, tag};
use crate::machine::{Envelope, Exposed, PeerId, Reach, Refusal, RequestId, StatusCode};
use crate::testing::{Limits, Sink, Source, UNTOUCHED, bytes_of};
use crate::{AtomicOp, Key, Sent};

const SECRET: [u64; 2] = [0x1234_5678_9abc_def0, 0x0fed_cba9_8765_4321];
const LEN: usize = 3 << 20;

/// A uses a region of B.
struct Stage {
    w: World,
    memory: Sink,
    key: Key,
}

fn stage(granting: bool) -> Stage {
    let mut w = World::new(3, Limits::default());
    w.tap(A, B).0.set_granting(granting);
    let memory = Sink::new(LEN);
    let region = w.machines[B].add_region(Exposed::ReadWrite(memory), SECRET, None).expect("room");
    let key = Key { owner: 1, region, secret: SECRET, length: LEN as u64, writable: true };
    Stage { w, memory, key }
}

fn both(test: impl Fn(Stage)) {
    for granting in [true, false] {
        test(stage(granting));
    }
}

impl Stage {
    fn b(&self) -> PeerId {
        self.w.peer(A, B)
    }

    fn write(&mut self, number: u64, len: usize, offset: u64) -> Result<Sent, Refusal> {
        let (b, key) = (self.b(), self.key);
        self.w.machines[A].rdma_write(Source::new(number, len), b, &key, offset, None)
    }

    fn read(&mut self, sink: Sink, offset: u64) -> Result<Sent, Refusal> {
        let (b, key) = (self.b(), self.key);
        self.w.machines[A].rdma_read(sink, b, &key, offset)
    }

    fn atomic(&mut self, offset: u64, op: AtomicOp) -> Result<RequestId, Refusal> {
        let (b, key) = (self.b(), self.key);
        self.w.machines[A].rdma_atomic(b, &key, offset, op)
    }

    /// The end of an operation.
    fn end(&mut self, sent: Result<Sent, Refusal>) -> StatusCode {
        match sent.expect("an operation") {
            Sent::Done => StatusCode::Success,
            Sent::Pending(request) => {
                self.w.drive();
                self.w.test(A, request).expect("complete").code
            }
        }
    }

    fn value(&mut self, offset: u64, op: AtomicOp) -> u64 {
        let request = self.atomic(offset, op).expect("an operation");
        self.w.drive();
        let status = self.w.test(A, request).expect("complete");
        assert_eq!(status.code, StatusCode::Success);
        status.match_info
    }
}

#[test]
fn what_is_written_is_there_and_is_read_back() {
    both(|mut s| {
        for (number, offset, len) in [(1, 0, 8), (2, 17, 0), (3, 100, LEN - 100), (4, 9, 65_537)] {
            let sent = s.write(number, len, offset);
            assert_eq!(s.end(sent), StatusCode::Success);
            let there = s.memory.contents();
            let at = offset as usize;
            assert!(bytes_of(number, 0..len).eq(there[at..at + len].iter().copied()));
            let back = Sink::new(len);
            let sent = s.read(back, offset);
            assert_eq!(s.end(sent), StatusCode::Success);
            assert!(bytes_of(number, 0..len).eq(back.contents()));
        }
        s.w.expect_empty();
    });
}

#[test]
fn a_region_that_is_known_needs_nothing_of_its_owner() {
    let mut s = stage(true);
    let a = s.w.peer(B, A);
    s.w.machines[B].tell_region(s.key.region, a).expect("told");
    s.w.machines[A].poll();
    assert_eq!(s.w.machines[A].reach(s.b(), &s.key), Ok(Reach::Granted));
    assert_eq!(s.write(1, 1000, 5), Ok(Sent::Done));
    let Ok(Sent::Pending(long)) = s.write(2, LEN, 0) else { panic!("in one go") };
    for _ in 0..10 {
        s.w.machines[A].poll();
    }
    assert_eq!(s.w.test(A, long).expect("complete").transferred_bytes, LEN as u64);
    let request = s.atomic(0, AtomicOp::FetchAdd(1)).expect("an operation");
    assert!(s.w.test(A, request).is_some());
}

#[test]
fn a_region_that_was_revoked_is_refused_without_its_owner() {
    for heard_before in [true, false] {
        let mut s = stage(true);
        let sent = s.write(1, 8, 0);
        assert_eq!(s.end(sent), StatusCode::Success);
        s.w.machines[B].withdraw_region(s.key.region);
        let (tap, end) = s.w.tap(B, A);
        tap.take_back(end);
        if heard_before {
            s.w.machines[A].poll_all();
        }
        for _ in 0..3 {
            let Ok(Sent::Pending(request)) = s.write(2, 8, 0) else { panic!("not at once") };
            s.w.machines[A].poll_all();
            assert_eq!(s.w.test(A, request).expect("complete").code, StatusCode::Revoked);
        }
    }
}

#[test]
fn operations_of_one_peer_keep_their_order() {
    both(|mut s| {
        let sinks: Vec<Sink> = (0..4).map(|_| Sink::new(LEN)).collect();
        for (number, sink) in (1..).zip(&sinks) {
            let _ = s.write(number, LEN, 0).expect("a write");
            let _ = s.read(*sink, 0).expect("a read");
        }
        let b = s.b();
        let fence = s.w.machines[A].rdma_fence(b);
        assert_eq!(s.end(fence), StatusCode::Success);
        for (number, sink) in (1..).zip(&sinks) {
            assert!(bytes_of(number, 0..LEN).eq(sink.contents()), "read {number}");
        }
    });
}

#[test]
fn a_fence_with_nothing_before_it_is_done() {
    let mut s = stage(true);
    let b = s.b();
    assert_eq!(s.w.machines[A].rdma_fence(b), Ok(Sent::Done));
    assert_eq!(s.w.machines[A].rdma_fence(PeerId::SELF), Ok(Sent::Done));
}

#[test]
fn atomics_return_what_was_there() {
    both(|mut s| {
        let sent = s.write(1, 64, 0);
        s.end(sent);
        let word = |at: usize| {
            let bytes: Vec<u8> = bytes_of(1, at..at + 8).collect();
            u64::from_le_bytes(bytes.try_into().expect("eight"))
        };
        assert_eq!(s.value(8, AtomicOp::FetchAdd(5)), word(8));
        assert_eq!(s.value(8, AtomicOp::FetchAdd(u64::MAX)), word(8).wrapping_add(5));
        let expected = word(8).wrapping_add(4);
        assert_eq!(s.value(8, AtomicOp::CompareSwap { expected: 1, desired: 2 }), expected);
        assert_eq!(s.value(8, AtomicOp::CompareSwap { expected, desired: 77 }), expected);
        assert_eq!(s.value(8, AtomicOp::FetchAdd(0)), 77);
        assert_eq!(s.value(16, AtomicOp::FetchAdd(0)), word(16));
    });
}

#[test]
fn a_notification_comes_after_the_data() {
    both(|mut s| {
        let receive = s.w.receive(B, tag(5), 10);
        let (b, key) = (s.b(), s.key);
        let notify = Some(Envelope { match_info: 5, immediate: 6, ..Envelope::default() });
        let write = s.w.machines[A].rdma_write(Source::new(9, LEN), b, &key, 0, notify);
        let mut status = None;
        for _ in 0..10_000 {
            s.w.machines[A].poll();
            s.w.machines[B].poll();
            status = s.w.test(B, receive.request);
            if status.is_some() {
                break;
            }
        }
        let status = status.expect("the notification");
        assert_eq!((status.match_info, status.immediate, status.message_bytes), (5, 6, 0));
        assert!(bytes_of(9, 0..LEN).eq(s.memory.contents()));
        assert_eq!(s.end(write), StatusCode::Success);
        s.w.expect_empty();
    });
}

#[test]
fn what_lies_outside_is_refused_at_once() {
    both(|mut s| {
        for (offset, len) in [(LEN as u64, 1), (u64::MAX, 1), (u64::MAX - 7, 8), (1, LEN)] {
            assert_eq!(s.write(1, len, offset), Err(Refusal::OutOfRange), "{offset} {len}");
            assert_eq!(s.read(Sink::new(len), offset), Err(Refusal::OutOfRange));
        }
        let add = AtomicOp::FetchAdd(1);
        for offset in [1, 4, LEN as u64, LEN as u64 - 4, u64::MAX - 7, u64::MAX] {
            assert_eq!(s.atomic(offset, add), Err(Refusal::OutOfRange), "{offset}");
        }
        s.w.drive();
        assert!(s.memory.contents().iter().all(|byte| *byte == UNTOUCHED));
    });
}

#[test]
fn a_key_that_was_tampered_with_opens_nothing() {
    both(|s| {
        let honest = s.key;
        let mut s = s;
        let forged = [
            (Key { secret: [SECRET[0], SECRET[1] ^ 1], ..honest }, StatusCode::Denied),
            (Key { secret: [0, 0], ..honest }, StatusCode::Denied),
            (Key { region: honest.region + 1, ..honest }, StatusCode::Denied),
            (Key { region: 0, ..honest }, StatusCode::Denied),
            (Key { length: u64::MAX >> 1, ..honest }, StatusCode::OutOfRange),
        ];
        for known in [false, true] {
            if known {
                s.key = honest;
                let sent = s.write(1, 8, 0);
                assert_eq!(s.end(sent), StatusCode::Success);
            }
            for (key, code) in forged {
                s.key = key;
                let offset = if code == StatusCode::OutOfRange { LEN as u64 } else { 0 };
                let sent = s.write(2, 8, offset);
                assert_eq!(s.end(sent), code, "{key:?}");
                let sent = s.read(Sink::new(8), offset);
                assert_eq!(s.end(sent), code, "{key:?}");
                let request = s.atomic(offset, AtomicOp::FetchAdd(1)).expect("an operation");
                let sent = Ok(Sent::Pending(request));
                assert_eq!(s.end(sent), code, "{key:?}");
            }
        }
        assert!(bytes_of(1, 0..8).eq(s.memory.contents()[..8].iter().copied()));
    });
}

#[test]
fn a_read_only_region_stays_as_it_is() {
    both(|mut s| {
        let memory = Sink::new(64);
        let source = <crate::testing::QueueLane as crate::Lane>::sink_source(&memory);
        let region = s.w.machines[B].add_region(Exposed::ReadOnly(source), SECRET, None);
        let region = region.expect("room");
        let honest = Key { region, length: 64, writable: false, ..s.key };
        s.key = honest;
        assert_eq!(s.write(1, 8, 0), Err(Refusal::Denied));
        assert_eq!(s.atomic(0, AtomicOp::FetchAdd(1)), Err(Refusal::Denied));
        // Its holder says otherwise; its owner does not.
        s.key = Key { writable: true, ..honest };
        let sent = s.write(1, 8, 0);
        assert_eq!(s.end(sent), StatusCode::Denied);
        let sent = s.write(1, 8, 0);
        assert_eq!(s.end(sent), StatusCode::Denied);
        let back = Sink::new(8);
        let sent = s.read(back, 0);
        assert_eq!(s.end(sent), StatusCode::Success);
        assert_eq!(back.contents(), [UNTOUCHED; 8]);
        assert!(memory.contents().iter().all(|byte| *byte == UNTOUCHED));
    });
}

#[test]
fn a_bound_region_is_for_one_peer_only() {
    both(|mut s| {
        let a = s.w.peer(B, A);
        let bound = s.w.machines[B].add_region(Exposed::ReadWrite(s.memory), SECRET, Some(a));
        let region = bound.expect("room");
        s.key = Key { region, ..s.key };
        let sent = s.write(1, 8, 0);
        assert_eq!(s.end(sent), StatusCode::Success);
        let to_b = s.w.peer(C, B);
        let stolen = s.w.machines[C].rdma_write(Source::new(2, 8), to_b, &s.key, 0, None);
        s.w.drive();
        let Ok(Sent::Pending(request)) = stolen else { panic!("{stolen:?}") };
        assert_eq!(s.w.test(C, request).expect("complete").code, StatusCode::Denied);
        let c = s.w.peer(B, C);
        assert_eq!(s.w.machines[B].tell_region(region, c), Err(Refusal::Denied));
        assert!(bytes_of(1, 0..8).eq(s.memory.contents()[..8].iter().copied()));
    });
}

#[test]
fn a_revoked_region_is_gone_for_everybody() {
    for granting in [true, false] {
        // Before it was used, after, and while a long operation is under way.
        for stage_of_use in 0..4 {
            let mut s = stage(granting);
            let mut pending = None;
            if stage_of_use == 1 {
                let sent = s.write(1, 8, 0);
                s.end(sent);
            }
            if stage_of_use >= 2 {
                pending = Some(if stage_of_use == 2 {
                    s.write(1, LEN, 0)
                } else {
                    s.read(Sink::new(LEN), 0)
                });
                for _ in 0..if granting { 1 } else { 3 } {
                    s.w.machines[B].poll();
                    s.w.machines[A].poll();
                }
            }
            s.w.machines[B].withdraw_region(s.key.region);
            let (tap, end) = s.w.tap(B, A);
            tap.take_back(end);
            let before = s.memory.contents();
            if let Some(sent) = pending {
                assert_eq!(s.end(sent), StatusCode::Revoked, "{granting} {stage_of_use}");
            }
            let sent = s.write(2, 8, 0);
            assert_eq!(s.end(sent), StatusCode::Revoked, "{granting} {stage_of_use}");
            let sent = s.read(Sink::new(8), 0);
            assert_eq!(s.end(sent), StatusCode::Revoked);
            assert_eq!(s.memory.contents(), before, "{granting} {stage_of_use}");
            s.w.expect_empty();
            // The channel is as good as before.
            let receive = s.w.receive(B, anything(), 100);
            let message = s.w.send(A, B, 1, 100);
            s.w.drive();
            s.w.expect_received(&receive, &message);
        }
    }
}

#[test]
fn memory_that_moves_is_found_again() {
    let mut s = stage(true);
    let sent = s.write(1, 8, 0);
    assert_eq!(s.end(sent), StatusCode::Success);
    let Ok(Sent::Pending(long)) = s.write(2, LEN, 0) else { panic!("in one go") };
    let (tap, end) = s.w.tap(B, A);
    tap.take_back(end);
    s.w.machines[A].poll();
    assert!(s.w.is_open(A, long), "it waits for news");
    s.w.machines[B].tell_region_again(s.key.region);
    s.w.drive();
    assert_eq!(s.w.test(A, long).expect("complete").code, StatusCode::Success);
    assert!(bytes_of(2, 0..LEN).eq(s.memory.contents()));
}

#[test]
fn operations_on_oneself_are_done_at_once() {
    let mut s = stage(true);
    let machine = &mut s.w.machines[B];
    let end = |machine: &mut crate::Machine<crate::testing::QueueLane>, sent| match sent {
        Ok(Sent::Pending(request)) => machine.test(request).expect("one").expect("complete"),
        other => panic!("{other:?}"),
    };
    let notify = Some(Envelope { match_info: 3, ..Envelope::default() });
    let sent = machine.rdma_write(Source::new(5, 100), PeerId::SELF, &s.key, 8, notify);
    assert_eq!(end(machine, sent).code, StatusCode::Success);
    assert_eq!(machine.unexpected().0, 1, "the notification");
    let back = Sink::new(100);
    let sent = machine.rdma_read(back, PeerId::SELF, &s.key, 8);
    assert_eq!(end(machine, sent).code, StatusCode::Success);
    assert!(bytes_of(5, 0..100).eq(back.contents()));
    let request = machine.rdma_atomic(PeerId::SELF, &s.key, 8, AtomicOp::FetchAdd(1));
    assert_eq!(end(machine, request.map(Sent::Pending)).code, StatusCode::Success);
    let wrong = Key { secret: [0, 1], ..s.key };
    let sent = machine.rdma_read(back, PeerId::SELF, &wrong, 8);
    assert_eq!(end(machine, sent).code, StatusCode::Denied);
    machine.withdraw_region(s.key.region);
    let sent = machine.rdma_read(back, PeerId::SELF, &s.key, 8);
    assert_eq!(end(machine, sent).code, StatusCode::Revoked);
}

#[test]
fn an_owner_that_dies_ends_what_is_asked_of_it() {
    both(|mut s| {
        let first = s.write(1, LEN, 0);
        let second = s.read(Sink::new(10), 0);
        s.w.machines[B].poll();
        s.w.machines[A].poll();
        let b = s.b();
        s.w.machines[A].peer_failed(b, StatusCode::PeerDied, "it died");
        for sent in [first, second] {
            if let Ok(Sent::Pending(request)) = sent {
                let code = s.w.test(A, request).expect("complete").code;
                assert!(matches!(code, StatusCode::PeerDied | StatusCode::Success));
            }
        }
        assert_eq!(s.write(1, 8, 0), Err(Refusal::PeerGone(StatusCode::PeerDied)));
        s.w.expect_empty_at(A);
    });
}

#[test]
fn an_initiator_that_dies_leaves_nothing_at_the_owner() {
    let mut s = stage(false);
    let _ = s.write(1, LEN, 0).expect("a write");
    for _ in 0..4 {
        s.w.machines[B].poll();
        s.w.machines[A].poll();
    }
    let a = s.w.peer(B, A);
    s.w.machines[B].peer_failed(a, StatusCode::PeerDied, "it died");
    s.w.expect_empty_at(B);
}
