// SPDX-License-Identifier: Apache-2.0
//! Operations on regions whose owner may reach into the initiator's memory.

use super::world::{A, B, World, anything};
use crate::frame::{Answer, Frame, Message};
use crate::limits::COPY_BYTES;
use crate::machine::{Envelope, Exposed, PeerId, Reach, RequestId, Sent, StatusCode};
use crate::testing::{Limits, Payload, Sink, Source, Tap, UNTOUCHED, bytes_of};
use crate::{AtomicOp, Key, Lane};

const SECRET: [u64; 2] = [11, 12];
/// Three stretches and a part of a fourth.
const LEN: usize = 3 * COPY_BYTES + 1000;
const ALWAYS: usize = usize::MAX;

/// A uses a region of B.
struct Stage {
    w: World,
    memory: Sink,
    key: Key,
}

fn stage() -> Stage {
    let mut w = World::new(2, Limits::default());
    let memory = Sink::new(LEN);
    let region = w.machines[B].add_region(Exposed::ReadWrite(memory), SECRET, None).expect("room");
    let key = Key { owner: 1, region, secret: SECRET, length: LEN as u64, writable: true };
    Stage { w, memory, key }
}

/// A stage on which so many stretches can be moved.
fn reaching(stretches: usize) -> Stage {
    let s = stage();
    s.tap().let_reach(stretches);
    s
}

impl Stage {
    fn tap(&self) -> Tap {
        self.w.tap(A, B).0
    }

    /// The end of the wire that belongs to A, and that of B.
    fn ends(&self) -> (usize, usize) {
        (self.w.tap(A, B).1, self.w.tap(B, A).1)
    }

    fn b(&self) -> PeerId {
        self.w.peer(A, B)
    }

    fn write(&mut self, number: u64, len: usize, offset: u64) -> RequestId {
        let (b, key) = (self.b(), self.key);
        let source = Source::new(number, len);
        pending(self.w.machines[A].rdma_write(source, b, &key, offset, None).expect("a write"))
    }

    fn read(&mut self, sink: Sink, offset: u64) -> RequestId {
        let (b, key) = (self.b(), self.key);
        pending(self.w.machines[A].rdma_read(sink, b, &key, offset).expect("a read"))
    }

    /// How an operation ends.
    fn end(&mut self, request: RequestId) -> StatusCode {
        self.w.drive();
        let status = self.w.test(A, request).expect("complete");
        let whole = status.transferred_bytes == status.message_bytes;
        assert_eq!(whole, status.code == StatusCode::Success || status.message_bytes == 0);
        status.code
    }

    fn reach(&self) -> Reach {
        self.w.machines[A].reach(self.b(), &self.key).expect("a peer")
    }

    fn holds(&self, number: u64, len: usize) -> bool {
        bytes_of(number, 0..len).eq(self.memory.contents()[..len].iter().copied())
    }

    /// The operation is with its owner, which has moved so many stretches and not all.
    fn until_moved(&mut self, stretches: usize) {
        for _ in 0..100 {
            if self.tap().stretches_moved() == stretches {
                return;
            }
            self.w.machines[A].poll();
            self.w.machines[B].poll();
        }
        panic!("{} stretches were moved", self.tap().stretches_moved());
    }

    /// A frame as its peer might send it to A.
    fn tell_a(&self, message: Message) {
        self.tap().inject(self.ends().0, message.emit(), Payload::default());
    }

    /// The channel carries messages as before.
    fn expect_traffic(&mut self) {
        let receive = self.w.receive(B, anything(), 100);
        let message = self.w.send(A, B, 1, 100);
        self.w.drive();
        self.w.expect_received(&receive, &message);
    }
}

fn pending(sent: Sent) -> RequestId {
    match sent {
        Sent::Pending(request) => request,
        Sent::Done => panic!("it was done at once"),
    }
}

#[test]
fn data_is_moved_and_arrives_whole() {
    let mut s = reaching(ALWAYS);
    for (number, offset, len) in [(1, 0, 8), (2, 100, 5000), (3, 0, LEN), (4, 9, COPY_BYTES)] {
        let write = s.write(number, len, offset);
        assert_eq!(s.end(write), StatusCode::Success);
        let there = s.memory.contents();
        let at = offset as usize;
        assert!(bytes_of(number, 0..len).eq(there[at..at + len].iter().copied()));
        let back = Sink::new(len);
        let read = s.read(back, offset);
        assert_eq!(s.end(read), StatusCode::Success);
        assert!(bytes_of(number, 0..len).eq(back.contents()));
        assert_eq!(s.reach(), Reach::Kernel);
    }
    // Twice one, one, four, and one stretch.
    assert_eq!(s.tap().stretches_moved(), 2 * (1 + 1 + 4 + 1));
    s.w.expect_empty();
}

#[test]
fn where_it_is_not_allowed_no_address_is_told_and_copies_serve() {
    let mut s = stage();
    let write = s.write(1, LEN, 0);
    assert_eq!(s.end(write), StatusCode::Success);
    assert!(s.holds(1, LEN));
    assert_eq!((s.reach(), s.tap().stretches_moved()), (Reach::Copied, 0));
}

#[test]
fn an_address_that_nobody_may_use_is_ignored() {
    let mut s = stage();
    let [low, high] = SECRET;
    let body = [low, high, 1 << 32, 0];
    let get = Message::Get { recv_id: 5, region: s.key.region, offset: 0, length: 100 };
    let payload = Payload { len: 24, body, ..Payload::default() };
    s.tap().inject(s.ends().1, get.emit(), payload);
    s.w.machines[B].poll();
    assert_eq!(s.tap().waiting(s.ends().0), 1, "the data");
    assert_eq!(s.tap().stretches_moved(), 0);
}

#[test]
fn whatever_fails_at_any_stretch_is_copied_from_its_start() {
    for stretches in 0..4 {
        let mut s = reaching(stretches);
        let write = s.write(1, LEN, 0);
        assert_eq!(s.end(write), StatusCode::Success);
        assert!(s.holds(1, LEN), "{stretches}");
        assert_eq!(s.tap().stretches_moved(), stretches);
        assert_eq!(s.reach(), Reach::Copied);
        s.tap().let_reach(stretches);
        let back = Sink::new(LEN);
        let read = s.read(back, 0);
        assert_eq!(s.end(read), StatusCode::Success);
        assert!(bytes_of(1, 0..LEN).eq(back.contents()), "{stretches}");
        assert_eq!(s.reach(), Reach::Copied);
        // What failed is tried again by the next one.
        s.tap().let_reach(ALWAYS);
        let read = s.read(Sink::new(10), 0);
        assert_eq!(s.end(read), StatusCode::Success);
        assert_eq!(s.reach(), Reach::Kernel);
        s.w.expect_empty();
    }
}

#[test]
fn addresses_that_make_no_sense_are_copied_around() {
    for address in [1, 7 << 32, u64::MAX, u64::MAX - 50, 1 << 63] {
        let mut s = reaching(ALWAYS);
        let [low, high] = SECRET;
        let payload = Payload { len: 24, body: [low, high, address, 0], ..Payload::default() };
        let get = Message::Get { recv_id: 5, region: s.key.region, offset: 0, length: 100 };
        s.tap().inject(s.ends().1, get.emit(), payload);
        s.w.machines[B].poll();
        assert_eq!(s.tap().waiting(s.ends().0), 1, "the data, for {address:#x}");
        assert_eq!(s.tap().stretches_moved(), 0);
    }
}

#[test]
fn operations_keep_their_order_and_a_notification_comes_after() {
    let mut s = reaching(ALWAYS);
    let sinks: Vec<Sink> = (0..4).map(|_| Sink::new(LEN)).collect();
    let mut requests = Vec::new();
    for (number, sink) in (1..).zip(&sinks) {
        requests.push(s.write(number, LEN, 0));
        requests.push(s.read(*sink, 0));
    }
    let (b, key) = (s.b(), s.key);
    let receive = s.w.receive(B, anything(), 0);
    let notify = Some(Envelope { match_info: 5, ..Envelope::default() });
    let last = s.w.machines[A].rdma_write(Source::new(9, LEN), b, &key, 0, notify);
    while s.w.test(B, receive.request).is_none() {
        s.w.machines[A].poll();
        s.w.machines[B].poll();
    }
    assert!(s.holds(9, LEN));
    requests.push(pending(last.expect("a write")));
    for request in requests {
        assert_eq!(s.end(request), StatusCode::Success);
    }
    for (number, sink) in (1..).zip(&sinks) {
        assert!(bytes_of(number, 0..LEN).eq(sink.contents()), "read {number}");
    }
    s.w.expect_empty();
}

#[test]
fn refusals_are_as_ever() {
    let mut s = reaching(ALWAYS);
    let request = s.write(1, 8, 0);
    assert_eq!(s.end(request), StatusCode::Success);
    let honest = s.key;
    s.key = Key { secret: [11, 13], ..honest };
    let request = s.write(2, LEN, 0);
    assert_eq!(s.end(request), StatusCode::Denied);
    s.key = Key { length: u64::MAX >> 1, secret: [0, 0], ..honest };
    let request = s.read(Sink::new(8), LEN as u64);
    assert_eq!(s.end(request), StatusCode::Denied);
    s.key = honest;
    let b = s.b();
    let request = s.w.machines[A].rdma_atomic(b, &honest, 0, AtomicOp::FetchAdd(0));
    assert_eq!(s.end(request.expect("an operation")), StatusCode::Success);
    assert_eq!(s.tap().stretches_moved(), 1);
    assert_eq!(s.reach(), Reach::Kernel, "atomics say nothing of it");
    let request = s.read(Sink::new(0), 0);
    assert_eq!(s.end(request), StatusCode::Success);
}

#[test]
fn a_region_that_is_revoked_between_stretches_is_not_touched_any_more() {
    for reading in [false, true] {
        for stretches in 1..4 {
            let mut s = reaching(ALWAYS);
            let sink = Sink::new(LEN);
            let request = if reading { s.read(sink, 0) } else { s.write(1, LEN, 0) };
            s.until_moved(stretches);
            s.w.machines[B].withdraw_region(s.key.region);
            let before = s.memory.contents();
            assert_eq!(s.end(request), StatusCode::Revoked);
            assert_eq!(s.tap().stretches_moved(), stretches);
            assert_eq!(s.memory.contents(), before);
            if !reading {
                let rest = &before[stretches * COPY_BYTES..];
                assert!(rest.iter().all(|byte| *byte == UNTOUCHED));
            }
            s.expect_traffic();
            s.w.expect_empty();
        }
    }
}

#[test]
fn others_get_their_turn_between_stretches() {
    let mut s = reaching(ALWAYS);
    let write = s.write(1, LEN, 0);
    s.until_moved(1);
    let receive = s.w.receive(B, anything(), 10);
    let message = s.w.send(A, B, 3, 10);
    s.w.machines[B].poll();
    assert!(s.tap().stretches_moved() < 4 && s.w.is_open(A, write));
    s.w.expect_received(&receive, &message);
    assert_eq!(s.end(write), StatusCode::Success);
}

#[test]
fn an_owner_that_sleeps_has_nothing_left_to_move() {
    let mut s = reaching(ALWAYS);
    let write = s.write(1, LEN, 0);
    s.w.drive_sleepily();
    assert_eq!(s.w.test(A, write).expect("complete").code, StatusCode::Success);
    assert!(s.holds(1, LEN));
}

#[test]
fn an_initiator_that_leaves_keeps_the_owner_out_first() {
    for stretches in [1, 2, 3] {
        let mut s = reaching(ALWAYS);
        let read = s.read(Sink::new(LEN), 0);
        s.until_moved(stretches);
        let b = s.b();
        s.w.machines[A].disconnect(b).expect("a peer");
        assert_eq!(s.w.test(A, read).expect("complete").code, StatusCode::EndpointClosed);
        assert!(s.tap().has_kept_out(s.ends().0));
        // The lane of the tests stands for it that the owner copies nothing from here on.
        let (peer, why) = (s.w.peer(B, A), StatusCode::PeerClosed);
        s.w.machines[B].peer_failed(peer, why, "it left");
        assert_eq!(s.tap().stretches_moved(), stretches);
        s.w.expect_empty();
    }
}

#[test]
fn only_who_has_told_an_address_keeps_anybody_out() {
    let mut s = stage();
    let _ = s.read(Sink::new(LEN), 0);
    s.w.machines[B].poll();
    let b = s.b();
    s.w.machines[A].disconnect(b).expect("a peer");
    assert!(!s.tap().has_kept_out(s.ends().0));
    // Nor where everything that was told has ended.
    let mut s = reaching(ALWAYS);
    let read = s.read(Sink::new(10), 0);
    assert_eq!(s.end(read), StatusCode::Success);
    let b = s.b();
    s.w.machines[A].disconnect(b).expect("a peer");
    assert!(!s.tap().has_kept_out(s.ends().0));
}

#[test]
fn an_owner_that_is_said_to_be_gone_is_kept_out_too() {
    let mut s = reaching(ALWAYS);
    let read = s.read(Sink::new(LEN), 0);
    s.until_moved(1);
    let b = s.b();
    s.w.machines[A].peer_failed(b, StatusCode::PeerDied, "the backend says so");
    assert!(s.tap().has_kept_out(s.ends().0));
    assert_eq!(s.w.test(A, read).expect("complete").code, StatusCode::PeerDied);
}

#[test]
fn an_initiator_that_dies_leaves_nothing_at_the_owner() {
    let mut s = reaching(ALWAYS);
    let _ = s.write(1, LEN, 0);
    s.until_moved(2);
    let a = s.w.peer(B, A);
    s.w.machines[B].peer_failed(a, StatusCode::PeerDied, "it died");
    s.w.expect_empty_at(B);
}

/// A's read is with an owner that does not answer by itself.
fn asked(reach: bool) -> (Stage, RequestId, u32) {
    let mut s = if reach { reaching(0) } else { stage() };
    let small = s.write(1, 8, 0);
    assert_eq!(s.end(small), StatusCode::Success);
    let read = s.read(Sink::new(LEN), 0);
    s.tap().drain(s.ends().1);
    let id = read.index();
    (s, read, id)
}

fn ok(id: u32) -> Message {
    Message::Answer { id, answer: Answer::Ok, value: 0 }
}

#[test]
fn an_answer_instead_of_data_is_for_who_told_an_address() {
    let (mut s, read, id) = asked(true);
    s.tell_a(ok(id));
    s.w.machines[A].poll();
    // What an owner says that it has done is as true as the data that it would have sent.
    assert_eq!(s.w.test(A, read).expect("complete").code, StatusCode::Success);
    let (mut s, read, id) = asked(false);
    s.tell_a(ok(id));
    s.w.machines[A].poll();
    assert_eq!(s.w.test(A, read).expect("complete").code, StatusCode::PeerMisbehaved);
}

#[test]
fn an_answer_in_the_middle_of_the_data_is_a_fault() {
    let (mut s, read, id) = asked(true);
    let data = Message::Data { recv_id: id, offset: 0 }.emit();
    s.tap().inject(s.ends().0, data, Payload { number: 7, len: 100, ..Payload::default() });
    s.tell_a(ok(id));
    s.w.machines[A].poll();
    s.w.machines[A].poll();
    assert_eq!(s.w.test(A, read).expect("complete").code, StatusCode::PeerMisbehaved);
}

#[test]
fn an_answer_to_another_operation_or_twice_is_a_fault() {
    let (mut s, read, id) = asked(true);
    s.tell_a(ok(id + 1));
    s.w.machines[A].poll();
    assert_eq!(s.w.test(A, read).expect("complete").code, StatusCode::PeerMisbehaved);
    let (mut s, read, id) = asked(true);
    s.tell_a(ok(id));
    s.tell_a(ok(id));
    s.w.machines[A].poll();
    assert_eq!(s.w.test(A, read).expect("complete").code, StatusCode::Success);
    assert!(s.w.machines[A].peer_state(s.b()).is_err());
}

#[test]
fn an_operation_that_begins_while_another_is_moved_is_a_fault() {
    let mut s = reaching(ALWAYS);
    let _ = s.write(1, LEN, 0);
    s.until_moved(1);
    let [low, high] = SECRET;
    let payload = Payload { len: 16, body: [low, high, 0, 0], ..Payload::default() };
    let put = Message::Put { send_id: 9, region: s.key.region, offset: 0, length: 5 };
    let frame: Frame = put.emit();
    s.tap().inject(s.ends().1, frame, payload);
    s.w.machines[B].poll();
    let a = s.w.peer(B, A);
    assert!(s.w.machines[B].peer_state(a).is_err());
    let moved = s.tap().stretches_moved();
    s.w.drive();
    assert_eq!(s.tap().stretches_moved(), moved);
}

#[test]
fn memory_that_is_granted_is_never_moved() {
    let mut s = reaching(ALWAYS);
    s.tap().set_granting(true);
    let write = s.write(1, LEN, 0);
    assert_eq!(s.end(write), StatusCode::Success);
    assert_eq!((s.reach(), s.tap().stretches_moved()), (Reach::Granted, 0));
    let a = s.w.peer(B, A);
    assert!(s.w.machines[B].lane_mut(a).expect("a lane").reaches_peer());
}
