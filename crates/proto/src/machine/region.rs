// SPDX-License-Identifier: Apache-2.0
//! Regions that this endpoint has registered: who may know of them, and what is served by copies.
//!
//! Whoever can reach a region in granted memory asks once where it is (ASK, TELL) and then needs
//! nothing of us. The others, be it that the memory is not granted or that no memory can be, send
//! PUT, GET and ATOMIC frames, which are served here whenever the program makes progress. One at a
//! time for each peer: that bounds what a peer can make us hold, and keeps its operations in order.
//!
//! ```text
//!   PUT, GET --- with an address, and the lane reaches the peer ---> Moving --- all ---> ANSWER
//!      |                                                               |
//!      +--- else, and when a stretch fails: from the start <-----------+
//!      |
//!      +---> PUT: CTS, then DATA comes, then ANSWER;  GET: DATA goes
//! ```
//!
//! While it is moving, data goes between the region and the initiator's own buffer in stretches, one
//! a turn. It is us who move it, so a region that was withdrawn is not touched by anybody any more.

use super::partner::{Answer as Queued, Served, Stream, StreamEnd};
use super::request::Body;
use super::{Envelope, Machine, PeerId, Refusal, Status, StatusCode};
use crate::frame::{Answer, Body as FrameBody, Message, Secret};
use crate::granted::{AtomicOp, Placing};
use crate::lane::{Lane, LaneFault};
use crate::limits::{COPY_BYTES, REGIONS_MAX};

/// What a region gives access to.
#[derive(Clone, Copy, Debug)]
pub enum Exposed<R, W> {
    /// Memory that others may read.
    ReadOnly(R),
    /// Memory that others may read and write.
    ReadWrite(W),
}

/// Memory of ours that peers with its secret may use.
pub(super) struct Region<L: Lane> {
    memory: Exposed<L::Source, L::Sink>,
    secret: Secret,
    /// The only peer that may use it, if any.
    bound: Option<PeerId>,
    /// Peers that were told where it is.
    told: Vec<PeerId>,
}

/// A part of a region that is moved between us and the memory of the peer that asked for it.
pub(super) struct Moving<L: Lane> {
    /// What the peer calls it.
    id: u32,
    region: u32,
    /// What is read, for a get, or written, for a put.
    part: Exposed<L::Source, L::Sink>,
    /// Where the peer's buffer lies, as it alleges.
    address: u64,
    done: usize,
}

impl<L: Lane> Region<L> {
    fn source(&self) -> L::Source {
        match self.memory {
            Exposed::ReadOnly(source) => source,
            Exposed::ReadWrite(sink) => L::sink_source(&sink),
        }
    }

    fn sink(&self) -> Option<L::Sink> {
        match self.memory {
            Exposed::ReadOnly(_) => None,
            Exposed::ReadWrite(sink) => Some(sink),
        }
    }

    fn len(&self) -> u64 {
        L::source_len(&self.source()) as u64
    }
}

/// `length` bytes from `offset` on, if they lie inside `of` bytes.
pub(super) fn inside(offset: u64, length: u64, of: u64) -> Option<(usize, usize)> {
    let end = offset.checked_add(length)?;
    (end <= of).then_some((offset as usize, length as usize))
}

impl<L: Lane> Machine<L> {
    /// Registers memory. It must stay valid until [`Machine::withdraw_region`]. Returns the region's
    /// number, which is never used again.
    ///
    /// # Errors
    /// [`Refusal::NoResources`] when there are too many; as [`Machine::peer_state`] for a bound one.
    pub fn add_region(
        &mut self,
        memory: Exposed<L::Source, L::Sink>,
        secret: Secret,
        bound: Option<PeerId>,
    ) -> Result<u32, Refusal> {
        if let Some(peer) = bound
            && peer != PeerId::SELF
        {
            self.peer_state(peer)?;
        }
        if self.regions.len() >= REGIONS_MAX || self.next_region == u32::MAX {
            return Err(Refusal::NoResources);
        }
        let number = self.next_region;
        self.next_region += 1;
        self.regions.insert(number, Region { memory, secret, bound, told: Vec::new() });
        Ok(number)
    }

    /// Tells a peer where a region is, before it asks, or once more.
    ///
    /// # Errors
    /// [`Refusal::Denied`] for a region of another peer, or none; as [`Machine::peer_state`].
    pub fn tell_region(&mut self, number: u32, peer: PeerId) -> Result<(), Refusal> {
        let region = self.regions.get_mut(&number).ok_or(Refusal::Denied)?;
        if region.bound.is_some_and(|bound| bound != peer) {
            return Err(Refusal::Denied);
        }
        if peer == PeerId::SELF {
            return Ok(());
        }
        self.peer_state(peer)?;
        let index = self.partner_index(peer)?;
        self.queue_tell(index, number);
        self.flush(index);
        Ok(())
    }

    /// Tells everybody who knows a region where it is now.
    pub fn tell_region_again(&mut self, number: u32) {
        let told = self.regions.get(&number).map(|region| region.told.clone());
        for peer in told.unwrap_or_default() {
            // A peer that is gone needs no news.
            let _ = self.tell_region(number, peer);
        }
    }

    /// A peer is gone: nobody need tell it anything.
    pub(super) fn forget_told(&mut self, peer: PeerId) {
        for region in self.regions.values_mut() {
            region.told.retain(|told| *told != peer);
        }
    }

    /// Ends a region: nothing of it is served from here on, and everybody who knows it is told so.
    pub fn withdraw_region(&mut self, number: u32) {
        let Some(region) = self.regions.remove(&number) else { return };
        for index in 0..self.partners.len() {
            self.stop_serving(index, number);
            // Whoever has not been told yet need not be.
            let answers = &mut self.partners[index].answers;
            answers
                .retain(|answer| !matches!(answer, Queued::Tell { region } if *region == number));
        }
        for peer in region.told {
            if let Ok(index) = self.partner_index(peer)
                && self.partners[index].lane.is_some()
            {
                self.queue_tell(index, number);
                self.flush(index);
            }
        }
    }

    /// What a peer is being served out of a region ends, and its memory is not touched any more.
    fn stop_serving(&mut self, index: usize, number: u32) {
        let partner = &mut self.partners[index];
        match &mut partner.served {
            Served::Put { request, region, cut, .. } if *region == number => {
                *cut = true;
                // The rest of the data still comes, and goes nowhere.
                if let Body::Filling { sink, .. } = &mut self.requests.slot(*request).body {
                    *sink = L::sink_part(sink, 0, 0);
                }
            }
            Served::Get { recv_id: id, region } | Served::Moving(Moving { id, region, .. })
                if *region == number =>
            {
                let id = *id;
                partner.served = Served::Nothing;
                partner.streams.retain(|stream| !matches!(stream.end_of, StreamEnd::Served));
                partner.answer(Message::Answer { id, answer: Answer::Revoked, value: 0 });
                self.flush(index);
            }
            _ => {}
        }
    }

    fn queue_tell(&mut self, index: usize, number: u32) {
        let answers = &mut self.partners[index].answers;
        let waits =
            |answer: &Queued| matches!(answer, Queued::Tell { region } if *region == number);
        if !answers.iter().any(waits) {
            answers.push_back(Queued::Tell { region: number });
        }
    }

    /// Sends what is true of a region now. `false`: not now.
    pub(super) fn send_tell(&mut self, index: usize, number: u32) -> Result<bool, LaneFault> {
        let peer = self.peer_id(index);
        let Some(lane) = self.partners[index].lane.as_mut() else { return Ok(false) };
        let Some(region) = self.regions.get_mut(&number) else {
            return lane.push(&refusal(number, Answer::Revoked).emit(), None);
        };
        let writable = region.sink().is_some();
        let place = match lane.place(&region.source(), writable) {
            Placing::Later => return Ok(false),
            Placing::At(place) => Some(place),
            Placing::Never => None,
        };
        let message = Message::Tell {
            region: number,
            answer: Answer::Ok,
            writable,
            placed: place.is_some(),
            length: region.len(),
        };
        let [low, high] = region.secret;
        let body = [low, high, place.map_or(0, |p| p.grant), place.map_or(0, |p| p.offset)];
        let sent = lane.push_body(&message.emit(), &body, crate::frame::BODY_BYTES)?;
        if sent && !region.told.contains(&peer) {
            region.told.push(peer);
        }
        Ok(sent)
    }

    /// The region that a peer names, if it has the right to it.
    fn region_for(&self, index: usize, number: u32, secret: Secret) -> Result<&Region<L>, Answer> {
        let Some(region) = self.regions.get(&number) else {
            let was_one = number != 0 && number < self.next_region;
            return Err(if was_one { Answer::Revoked } else { Answer::Denied });
        };
        let peer = self.peer_id(index);
        // Both words, whatever the first one is: the time says nothing.
        let differs = (region.secret[0] ^ secret[0]) | (region.secret[1] ^ secret[1]);
        if differs != 0 || region.bound.is_some_and(|bound| bound != peer) {
            return Err(Answer::Denied);
        }
        Ok(region)
    }

    pub(super) fn take_ask(
        &mut self,
        index: usize,
        number: u32,
        secret: Secret,
    ) -> Result<(), LaneFault> {
        if self.owes_too_much(index) {
            return Err(LaneFault("it asks for regions and does not read the answers"));
        }
        match self.region_for(index, number, secret) {
            Ok(_) => self.queue_tell(index, number),
            Err(answer) => self.partners[index].answer(refusal(number, answer)),
        }
        self.flush(index);
        Ok(())
    }

    /// A peer wants to put data into a region.
    pub(super) fn take_put(
        &mut self,
        index: usize,
        [send_id, number]: [u32; 2],
        [offset, length]: [u64; 2],
        body: &FrameBody,
    ) -> Result<(), LaneFault> {
        self.require_idle(index)?;
        let part = self.region_for(index, number, [body[0], body[1]]).and_then(|region| {
            let sink = region.sink().ok_or(Answer::Denied)?;
            let (at, len) = inside(offset, length, region.len()).ok_or(Answer::OutOfRange)?;
            Ok(L::sink_part(&sink, at, len))
        });
        match part {
            Ok(sink) if length > 0 => {
                self.serve(index, [send_id, number], Exposed::ReadWrite(sink), body[2]);
            }
            Ok(_) => self.answer_at_once(index, send_id, Answer::Ok),
            Err(answer) => self.answer_at_once(index, send_id, answer),
        }
        Ok(())
    }

    /// All data of a put has come, if this is the request of one.
    pub(super) fn finish_put(&mut self, index: usize, filled: u32) {
        let Served::Put { request, send_id, cut, .. } = self.partners[index].served else { return };
        if request == filled {
            self.partners[index].served = Served::Nothing;
            let answer = if cut { Answer::Revoked } else { Answer::Ok };
            self.answer_operation(index, send_id, answer, 0);
            self.flush(index);
        }
    }

    /// A peer wants data of a region.
    pub(super) fn take_get(
        &mut self,
        index: usize,
        [recv_id, number]: [u32; 2],
        [offset, length]: [u64; 2],
        body: &FrameBody,
    ) -> Result<(), LaneFault> {
        self.require_idle(index)?;
        let part = self.region_for(index, number, [body[0], body[1]]).and_then(|region| {
            let (at, len) = inside(offset, length, region.len()).ok_or(Answer::OutOfRange)?;
            Ok(L::source_part(&region.source(), at, len))
        });
        match part {
            Ok(source) if length > 0 => {
                self.serve(index, [recv_id, number], Exposed::ReadOnly(source), body[2]);
            }
            Ok(_) => self.answer_at_once(index, recv_id, Answer::Ok),
            Err(answer) => self.answer_at_once(index, recv_id, answer),
        }
        Ok(())
    }

    /// Begins to serve a put or a get.
    fn serve(
        &mut self,
        index: usize,
        [id, region]: [u32; 2],
        part: Exposed<L::Source, L::Sink>,
        address: u64,
    ) {
        let partner = &mut self.partners[index];
        let fits = address.checked_add(part_len::<L>(&part) as u64).is_some();
        if address != 0 && fits && partner.lane.as_ref().is_some_and(L::reaches_peer) {
            // Its first stretch is for the end of this turn.
            partner.served = Served::Moving(Moving { id, region, part, address, done: 0 });
        } else {
            self.serve_through_channel(index, [id, region], part);
            self.flush(index);
        }
    }

    fn serve_through_channel(
        &mut self,
        index: usize,
        [id, region]: [u32; 2],
        part: Exposed<L::Source, L::Sink>,
    ) {
        let length = part_len::<L>(&part) as u64;
        match part {
            Exposed::ReadWrite(sink) => {
                let status = Status::of(self.peer_id(index), &Envelope::default(), length);
                let body = Body::Filling { sink, received: 0, expected: length, rendezvous: true };
                let request = self.requests.add_required(body, status).index();
                // Nobody here will ask for it.
                self.requests.slot(request).forgotten = true;
                let partner = &mut self.partners[index];
                partner.served = Served::Put { request, send_id: id, region, cut: false };
                partner.answer(Message::Cts { send_id: id, recv_id: request, accepted: length });
            }
            Exposed::ReadOnly(source) => {
                let partner = &mut self.partners[index];
                partner.served = Served::Get { recv_id: id, region };
                let (end, end_of) = (length as usize, StreamEnd::Served);
                let stream = Stream { recv_id: id, source, next: 0, end, end_of };
                partner.streams.push_back(stream);
            }
        }
    }

    /// Moves the next stretch between a region and the memory of a peer. Returns whether there was one.
    pub(super) fn flush_moving(&mut self, index: usize) -> bool {
        let partner = &mut self.partners[index];
        let Served::Moving(moving) = &mut partner.served else { return false };
        let Some(lane) = partner.lane.as_mut() else { return false };
        let (at, len) = (moving.done, part_len::<L>(&moving.part));
        let stretch = (len - at).min(COPY_BYTES);
        let there = moving.address + at as u64;
        let moved = match &moving.part {
            Exposed::ReadOnly(source) => lane.write_peer(there, source, at, stretch),
            Exposed::ReadWrite(sink) => lane.read_peer(there, sink, at, stretch),
        };
        moving.done += stretch;
        let (names, part, done) = ([moving.id, moving.region], moving.part, moving.done);
        if !moved {
            self.serve_through_channel(index, names, part);
        } else if done == len {
            partner.served = Served::Nothing;
            self.answer_operation(index, names[0], Answer::Ok, 0);
        }
        true
    }

    /// A peer wants a word of a region changed.
    pub(super) fn take_atomic(
        &mut self,
        index: usize,
        [id, number]: [u32; 2],
        [offset, operation]: [u64; 2],
        body: &FrameBody,
    ) -> Result<(), LaneFault> {
        self.require_idle(index)?;
        let op = match operation {
            0 => AtomicOp::FetchAdd(body[2]),
            1 => AtomicOp::CompareSwap { expected: body[3], desired: body[2] },
            _ => return Err(LaneFault("it asked for an unknown atomic operation")),
        };
        let result = self.region_for(index, number, [body[0], body[1]]).and_then(|region| {
            let sink = region.sink().ok_or(Answer::Denied)?;
            let (at, _) = inside(offset, 8, region.len()).ok_or(Answer::OutOfRange)?;
            L::atomic_local(&sink, at, op).ok_or(Answer::OutOfRange)
        });
        match result {
            Ok(value) => self.answer_operation(index, id, Answer::Ok, value),
            Err(answer) => self.answer_operation(index, id, answer, 0),
        }
        self.flush(index);
        Ok(())
    }

    fn require_idle(&self, index: usize) -> Result<(), LaneFault> {
        let partner = &self.partners[index];
        if !matches!(partner.served, Served::Nothing) {
            return Err(LaneFault("it began an operation before the last one ended"));
        }
        if self.owes_too_much(index) {
            return Err(LaneFault("it asks for operations and does not read the answers"));
        }
        Ok(())
    }

    /// Whether more answers to questions about regions wait than an honest peer leaves unread. What it
    /// is told of our own accord does not count.
    fn owes_too_much(&self, index: usize) -> bool {
        self.partners[index].owes_too_much(|answer| match answer {
            Queued::Frame { message, .. } => {
                matches!(message, Message::Answer { .. } | Message::Tell { .. })
            }
            Queued::Tell { .. } => false,
        })
    }

    fn answer_operation(&mut self, index: usize, id: u32, answer: Answer, value: u64) {
        self.partners[index].answer(Message::Answer { id, answer, value });
    }

    fn answer_at_once(&mut self, index: usize, id: u32, answer: Answer) {
        self.answer_operation(index, id, answer, 0);
        self.flush(index);
    }

    /// The memory of a region of our own, for operations on ourselves.
    pub(super) fn own_region(
        &self,
        number: u32,
        secret: Secret,
    ) -> Result<(L::Source, Option<L::Sink>), StatusCode> {
        match self.regions.get(&number) {
            None if number != 0 && number < self.next_region => Err(StatusCode::Revoked),
            Some(region)
                if region.secret == secret
                    && region.bound.is_none_or(|bound| bound == PeerId::SELF) =>
            {
                Ok((region.source(), region.sink()))
            }
            _ => Err(StatusCode::Denied),
        }
    }
}

fn part_len<L: Lane>(part: &Exposed<L::Source, L::Sink>) -> usize {
    match part {
        Exposed::ReadOnly(source) => L::source_len(source),
        Exposed::ReadWrite(sink) => L::sink_len(sink),
    }
}

/// The news that a region cannot be used.
pub(super) fn refusal(region: u32, answer: Answer) -> Message {
    Message::Tell { region, answer, writable: false, placed: false, length: 0 }
}
