// SPDX-License-Identifier: Apache-2.0
//! Endpoints in a full mesh of queues, and messages that are known by their number.

use std::collections::HashMap;

use crate::lane::Lane;
use crate::machine::{
    Envelope, Machine, PeerId, Refusal, RequestId, Selector, Sent, Status, StatusCode,
};
use crate::matching::ContextBits;
use crate::testing::{Limits, QueueLane, Sink, Source, Tap, UNTOUCHED, bytes_of, wire};

/// The endpoints of most tests.
pub const A: usize = 0;
pub const B: usize = 1;
pub const C: usize = 2;

/// A length that goes eagerly in one piece, in several, and by announcement.
pub const SMALL: usize = 100;
pub const PIECES: usize = 40_000;
pub const LARGE: usize = 300_000;

/// Exactly this match info, from anybody.
pub fn tag(match_info: u64) -> Selector {
    Selector { match_info, mask: u64::MAX, source: None, space: crate::Space::Tagged }
}

/// Anything from anybody.
pub fn anything() -> Selector {
    Selector { match_info: 0, mask: 0, source: None, space: crate::Space::Tagged }
}

/// A message that was sent.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    pub from: usize,
    pub number: u64,
    pub len: usize,
    pub match_info: u64,
    pub sent: Sent,
}

impl Message {
    /// The request of a send that did not finish at once.
    pub fn request(&self) -> RequestId {
        match self.sent {
            Sent::Pending(request) => request,
            Sent::Done => panic!("message {} was sent at once", self.number),
        }
    }
}

/// A receive that was posted.
#[derive(Clone, Copy, Debug)]
pub struct Receive {
    pub at: usize,
    pub request: RequestId,
    pub sink: Sink,
}

pub struct World {
    pub machines: Vec<Machine<QueueLane>>,
    peers: HashMap<(usize, usize), PeerId>,
    taps: HashMap<(usize, usize), (Tap, usize)>,
    asleep: Vec<bool>,
    next_number: u64,
}

impl World {
    /// Two endpoints on a roomy wire.
    pub fn pair() -> Self {
        Self::new(2, Limits::default())
    }

    /// `count` endpoints, each joined with each other.
    pub fn new(count: usize, limits: Limits) -> Self {
        Self::with_context(count, limits, ContextBits::default())
    }

    pub fn with_context(count: usize, limits: Limits, context: ContextBits) -> Self {
        Sink::forget_all();
        let mut world = Self {
            machines: (0..count).map(|_| Machine::new(context)).collect(),
            peers: HashMap::new(),
            taps: HashMap::new(),
            asleep: vec![false; count],
            next_number: 1,
        };
        for a in 0..count {
            world.peers.insert((a, a), PeerId::SELF);
            for b in a + 1..count {
                world.join(a, b, limits);
            }
        }
        world
    }

    /// Joins two endpoints by a fresh wire.
    pub fn join(&mut self, a: usize, b: usize, limits: Limits) {
        let (a_lane, b_lane, tap) = wire(limits);
        let to_b = self.machines[a].add_partner(a_lane).expect("room for a peer");
        let to_a = self.machines[b].add_partner(b_lane).expect("room for a peer");
        self.peers.extend([((a, b), to_b), ((b, a), to_a)]);
        self.taps.extend([((a, b), (tap.clone(), 0)), ((b, a), (tap, 1))]);
    }

    /// What `at` calls `peer`.
    pub fn peer(&self, at: usize, peer: usize) -> PeerId {
        self.peers[&(at, peer)]
    }

    /// The tap on the wire between two endpoints, and which end of it is `at`.
    pub fn tap(&self, at: usize, peer: usize) -> (Tap, usize) {
        self.taps[&(at, peer)].clone()
    }

    /// A selector that names its sender.
    pub fn from(&self, at: usize, sender: usize, selector: Selector) -> Selector {
        Selector { source: Some(self.peer(at, sender)), ..selector }
    }

    pub fn try_send(
        &mut self,
        from: usize,
        to: usize,
        len: usize,
        envelope: Envelope,
    ) -> Result<Message, Refusal> {
        let number = self.next_number;
        self.next_number += 1;
        let envelope = Envelope { immediate: number as u32, ..envelope };
        let dest = self.peer(from, to);
        let sent = self.machines[from].isend(Source::new(number, len), dest, &envelope)?;
        Ok(Message { from, number, len, match_info: envelope.match_info, sent })
    }

    pub fn send(&mut self, from: usize, to: usize, match_info: u64, len: usize) -> Message {
        let envelope = Envelope { match_info, ..Envelope::default() };
        self.try_send(from, to, len, envelope).expect("a send")
    }

    pub fn send_synchronously(
        &mut self,
        from: usize,
        to: usize,
        match_info: u64,
        len: usize,
    ) -> Message {
        let envelope = Envelope { match_info, synchronous: true, ..Envelope::default() };
        self.try_send(from, to, len, envelope).expect("a send")
    }

    pub fn receive(&mut self, at: usize, selector: Selector, room: usize) -> Receive {
        let sink = Sink::new(room);
        let request = self.machines[at].irecv(sink, &selector).expect("a receive");
        Receive { at, request, sink }
    }

    /// Polls every endpoint until nothing moves.
    pub fn drive(&mut self) {
        for _ in 0..1_000_000 {
            let mut moved = false;
            for machine in &mut self.machines {
                moved |= machine.poll_all();
            }
            if !moved {
                return;
            }
        }
        panic!("the endpoints never come to rest");
    }

    /// As `drive`, but an endpoint that finds nothing to do says so and sleeps, and is polled
    /// again only when it is rung, as a blocked process is.
    pub fn drive_sleepily(&mut self) {
        for _ in 0..1_000_000 {
            let mut moved = false;
            for at in 0..self.machines.len() {
                moved |= self.step_sleepily(at);
            }
            if !moved {
                return;
            }
        }
        panic!("the endpoints never come to rest");
    }

    /// One turn of an endpoint that sleeps whenever it can. Returns whether it did something.
    pub fn step_sleepily(&mut self, at: usize) -> bool {
        let wires: Vec<(Tap, usize, PeerId)> = self
            .taps
            .iter()
            .filter(|((end, _), _)| *end == at)
            .map(|((_, peer), (tap, end))| (tap.clone(), *end, self.peers[&(at, *peer)]))
            .collect();
        if self.asleep[at] {
            if wires.iter().any(|(tap, end, _)| tap.is_rung(*end)) {
                self.wake(at);
                return true;
            }
            return false;
        }
        if self.machines[at].poll_all() {
            return true;
        }
        for (tap, end, peer) in &wires {
            let for_room = self.machines[at].waits_for_room(*peer);
            if let Some(lane) = self.machines[at].lane_mut(*peer) {
                lane.tell();
                tap.fall_asleep(*end, for_room);
            }
        }
        if self.machines[at].poll_all() {
            for (tap, end, _) in &wires {
                tap.wake_up(*end);
            }
            return true;
        }
        self.asleep[at] = true;
        // Going to sleep is doing something: it may have told a peer of room.
        true
    }

    /// The program of an endpoint calls again, so it is awake.
    pub fn wake(&mut self, at: usize) {
        self.asleep[at] = false;
        for ((end, _), (tap, side)) in &self.taps {
            if *end == at {
                tap.wake_up(*side);
            }
        }
    }

    pub fn is_asleep(&self, at: usize) -> bool {
        self.asleep[at]
    }

    /// The status of a request if it is complete, which frees it.
    pub fn test(&mut self, at: usize, request: RequestId) -> Option<Status> {
        self.machines[at].test(request).expect("a request that exists")
    }

    pub fn is_open(&self, at: usize, request: RequestId) -> bool {
        !self.machines[at].is_complete(request).expect("a request that exists")
    }

    /// The receive is complete and took exactly this message, as far as it had room.
    pub fn expect_received(&mut self, receive: &Receive, message: &Message) {
        let status = self.test(receive.at, receive.request).expect("a complete receive");
        let room = receive.sink.contents().len();
        self.check_status(receive.at, &status, message, room);
        check_contents(&receive.sink.contents(), message);
    }

    /// The status says exactly what became of this message in a receive with `room`.
    pub fn check_status(&self, at: usize, status: &Status, message: &Message, room: usize) {
        assert_eq!(u64::from(status.immediate), message.number, "another message");
        let code = if room < message.len { StatusCode::Truncated } else { StatusCode::Success };
        assert_eq!(status.code, code);
        assert_eq!(status.source, self.peer(at, message.from));
        assert_eq!(status.match_info, message.match_info);
        assert_eq!(status.message_bytes, message.len as u64);
        assert_eq!(status.transferred_bytes, message.len.min(room) as u64);
    }

    /// The send is complete, and its receiver had room for `transferred` bytes.
    pub fn expect_sent(&mut self, message: &Message, transferred: usize) {
        let Sent::Pending(request) = message.sent else { return };
        let status = self.test(message.from, request).expect("a complete send");
        let code =
            if transferred < message.len { StatusCode::Truncated } else { StatusCode::Success };
        assert_eq!((status.code, status.transferred_bytes), (code, transferred as u64));
        assert_eq!(status.message_bytes, message.len as u64);
    }

    /// Nothing is left anywhere: no request, no receive, no message.
    pub fn expect_empty(&self) {
        for at in 0..self.machines.len() {
            self.expect_empty_at(at);
        }
    }

    /// Nothing is left at one endpoint.
    pub fn expect_empty_at(&self, at: usize) {
        let machine = &self.machines[at];
        assert_eq!(machine.request_count(), 0, "requests at {at}");
        assert_eq!(machine.posted_count(), 0, "receives at {at}");
        assert_eq!(machine.unexpected(), (0, 0), "messages at {at}");
    }
}

/// The buffer holds the message as far as it has room, and nothing else was written.
pub fn check_contents(contents: &[u8], message: &Message) {
    let len = message.len.min(contents.len());
    assert!(
        bytes_of(message.number, 0..len).eq(contents[..len].iter().copied()),
        "message {} of {} bytes was garbled",
        message.number,
        message.len
    );
    assert!(contents[len..].iter().all(|byte| *byte == UNTOUCHED), "written past the message");
}
