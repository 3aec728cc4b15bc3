// SPDX-License-Identifier: Apache-2.0
//! Operations on regions of peers: write, read, atomics, and fences between them.
//!
//! ```text
//!   begun, nothing else under way, region reachable, short enough -----------------> done at once
//!   else, in the order in which they were begun, one at a time for each peer:
//!     New --- place unknown: ASK ---> Asked --- TELL ---+
//!      |                                                v
//!      +---- known ----> reachable: copied, a stretch at a time --------------> complete
//!                        by copies: Sent --- CTS, DATA / DATA / ANSWER -------> complete
//!                        with our buffer's address: Sent --- moved, ANSWER ---> complete
//! ```
//!
//! The address is for an owner that may reach into our memory. Whether it does is its decision; if
//! not, copies follow as if none had been given. Until the operation ends, it may be writing to the
//! buffer: who parts from it keeps it out first (`Lane::keep_out`).
//!
//! Each operation is complete at the target when its request is, so what is begun after sees it, and
//! a fence is an operation that does nothing.
//!
//! A region that was reachable and is not any more has been revoked, or has moved: its owner sends a
//! TELL in either case, and the operation waits for that.

use super::partner::{Partner, Stream, StreamEnd};
use super::region::inside;
use super::request::Body;
use super::{Envelope, Machine, PeerId, Refusal, RequestId, Sent, Status, StatusCode};
use crate::frame::{
    ADDRESSED_BODY_BYTES, Answer, BODY_BYTES, Body as FrameBody, Message, SHORT_BODY_BYTES, Secret,
};
use crate::granted::{AtomicOp, Key, Place, Unreachable};
use crate::lane::{Lane, LaneFault};
use crate::limits::{COPY_BYTES, KNOWN_KEYS_MAX};

/// How a region of a peer is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// In memory that its owner granted: nobody there has to do anything.
    Granted,
    /// By copies through the channel, which its owner makes when it makes progress.
    Copied,
    /// By a copy that the kernel makes between the two processes when the owner makes progress, as the
    /// last operation was.
    Kernel,
    /// Not known yet: the first operation asks.
    Unknown,
}

/// What is known of a region of a peer.
pub(super) struct Known {
    region: u32,
    secret: Secret,
    at: Whereabouts,
    length: u64,
    writable: bool,
    /// The owner moved the data of the last operation between the region and our own memory.
    moved: bool,
}

/// Where a region of a peer is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whereabouts {
    Placed(Place),
    /// Only its owner reaches it.
    Copied,
    /// It was taken back; the news of why is on its way.
    Moving,
    /// It was revoked, for ever: numbers of regions are not used again.
    Gone,
}

/// What an operation does.
pub(super) enum Kind<L: Lane> {
    Write { source: L::Source, notify: Option<Envelope> },
    Read { sink: L::Sink },
    Atomic(AtomicOp),
    Fence,
}

/// Places that are found soon enough.
const SOON: usize = 8;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    /// Waits for news of its region.
    Asked,
    /// Under way through the channel.
    Sent,
}

/// An operation under way, or waiting for those before it.
pub(super) struct Operation<L: Lane> {
    pub request: u32,
    key: Key,
    offset: u64,
    len: usize,
    kind: Kind<L>,
    done: usize,
    state: State,
    /// Its owner was told where our buffer is, and has not said that it takes the other way.
    offered: bool,
}

impl<L: Lane> Operation<L> {
    /// Whether the owner may be reaching into our memory.
    pub fn is_offered(&self) -> bool {
        self.offered
    }
}

impl Known {
    fn is(&self, key: &Key) -> bool {
        self.region == key.region && self.secret == key.secret
    }

    /// Whether its owner lets us do that; what a key alleges is for those who hold it.
    #[inline(always)]
    fn allows(&self, offset: u64, len: usize, writing: bool) -> Result<(), StatusCode> {
        if self.at == Whereabouts::Gone {
            return Err(StatusCode::Revoked);
        }
        if writing && !self.writable {
            return Err(StatusCode::Denied);
        }
        inside(offset, len as u64, self.length).map(drop).ok_or(StatusCode::OutOfRange)
    }
}

impl<L: Lane> Partner<L> {
    /// What is known of a region. What was asked for last is found soonest.
    #[inline(always)]
    fn known(&mut self, key: &Key) -> Option<&Known> {
        let at = self.known.iter().position(|known| known.is(key))?;
        if at >= SOON {
            self.known.swap(0, at);
            return self.known.first();
        }
        self.known.get(at)
    }

    /// The news of where a region is.
    fn note_whereabouts(&mut self, key: &Key, at: Whereabouts) {
        if let Some(known) = self.known.iter_mut().find(|known| known.is(key)) {
            known.at = at;
        }
    }

    /// A region is gone, whatever secrets were tried on it.
    fn note_revoked(&mut self, region: u32) {
        for known in self.known.iter_mut().filter(|known| known.region == region) {
            known.at = Whereabouts::Gone;
        }
    }

    /// Which way the data of the last operation went.
    fn note_moved(&mut self, key: &Key, moved: bool) {
        if let Some(known) = self.known.iter_mut().find(|known| known.is(key)) {
            known.moved = moved;
        }
    }
}

impl<L: Lane> Machine<L> {
    /// Writes to a region, and then perhaps sends an empty message that says so.
    ///
    /// # Errors
    /// [`Refusal`] when the peer is not there, the key does not allow it, or too many operations wait.
    #[inline]
    pub fn rdma_write(
        &mut self,
        source: L::Source,
        peer: PeerId,
        key: &Key,
        offset: u64,
        notify: Option<Envelope>,
    ) -> Result<Sent, Refusal> {
        let len = L::source_len(&source);
        if !key.writable {
            return Err(Refusal::Denied);
        }
        if let Some((partner, place)) = self.at_hand(peer, key, offset, len, true)? {
            let Some(lane) = partner.lane.as_mut() else { return Err(Refusal::NotConnected) };
            if lane.write_placed(&place, 0, &source, len).is_ok() {
                if let Some(envelope) = notify {
                    self.notify(peer, L::source_part(&source, 0, 0), &envelope);
                }
                return Ok(Sent::Done);
            }
        }
        self.begin(peer, key, offset, len, Kind::Write { source, notify })
    }

    /// Reads from a region.
    ///
    /// # Errors
    /// As [`Machine::rdma_write`].
    #[inline]
    pub fn rdma_read(
        &mut self,
        sink: L::Sink,
        peer: PeerId,
        key: &Key,
        offset: u64,
    ) -> Result<Sent, Refusal> {
        let len = L::sink_len(&sink);
        if let Some((partner, place)) = self.at_hand(peer, key, offset, len, false)? {
            let Some(lane) = partner.lane.as_mut() else { return Err(Refusal::NotConnected) };
            if lane.copy_placed(&place, 0, &sink, len).is_ok() {
                return Ok(Sent::Done);
            }
        }
        self.begin(peer, key, offset, len, Kind::Read { sink })
    }

    /// Changes a 64-bit word of a region. What was there before is the `match_info` of the status.
    ///
    /// # Errors
    /// As [`Machine::rdma_write`]; [`Refusal::OutOfRange`] also for an offset that is no multiple
    /// of 8.
    pub fn rdma_atomic(
        &mut self,
        peer: PeerId,
        key: &Key,
        offset: u64,
        op: AtomicOp,
    ) -> Result<RequestId, Refusal> {
        if !key.writable {
            return Err(Refusal::Denied);
        }
        if !offset.is_multiple_of(8) {
            return Err(Refusal::OutOfRange);
        }
        if let Some((partner, place)) = self.at_hand(peer, key, offset, 8, true)? {
            let Some(lane) = partner.lane.as_mut() else { return Err(Refusal::NotConnected) };
            if let Ok(value) = lane.atomic_placed(&place, op) {
                let mut status = Status::of(peer, &Envelope::default(), 8);
                (status.match_info, status.transferred_bytes) = (value, 8);
                return Ok(self.requests.add_complete(status));
            }
        }
        match self.begin(peer, key, offset, 8, Kind::Atomic(op))? {
            Sent::Pending(request) => Ok(request),
            Sent::Done => unreachable!("an atomic has a result"),
        }
    }

    /// Complete when every operation on regions of this peer that was begun before is.
    ///
    /// # Errors
    /// As [`Machine::peer_state`].
    pub fn rdma_fence(&mut self, peer: PeerId) -> Result<Sent, Refusal> {
        if peer == PeerId::SELF {
            return Ok(Sent::Done);
        }
        self.peer_state(peer)?;
        let index = self.partner_index(peer)?;
        if self.partners[index].operations.is_empty() {
            return Ok(Sent::Done);
        }
        let key = Key { owner: 0, region: 0, secret: [0; 2], length: 0, writable: false };
        self.begin(peer, &key, 0, 0, Kind::Fence)
    }

    /// How operations with a key are done.
    ///
    /// # Errors
    /// As [`Machine::peer_state`].
    pub fn reach(&self, peer: PeerId, key: &Key) -> Result<Reach, Refusal> {
        if peer == PeerId::SELF {
            return Ok(Reach::Granted);
        }
        self.peer_state(peer)?;
        let index = self.partner_index(peer)?;
        let known = self.partners[index].known.iter().find(|known| known.is(key));
        Ok(match known {
            None => Reach::Unknown,
            Some(Known { at: Whereabouts::Gone | Whereabouts::Moving, .. }) => Reach::Unknown,
            Some(Known { at: Whereabouts::Placed(_), .. }) => Reach::Granted,
            Some(Known { moved: true, .. }) => Reach::Kernel,
            Some(_) => Reach::Copied,
        })
    }

    /// The place of an operation that can be done now and in one go.
    #[inline(always)]
    fn at_hand(
        &mut self,
        peer: PeerId,
        key: &Key,
        offset: u64,
        len: usize,
        writing: bool,
    ) -> Result<Option<(&mut Partner<L>, Place)>, Refusal> {
        inside(offset, len as u64, key.length).ok_or(Refusal::OutOfRange)?;
        if peer == PeerId::SELF {
            return Ok(None);
        }
        let index = self.partner_index(peer)?;
        let partner = &mut self.partners[index];
        if partner.lane.is_none() {
            return Err(Refusal::PeerGone(partner.gone));
        }
        if !partner.operations.is_empty() || len > COPY_BYTES {
            return Ok(None);
        }
        match partner.known(key) {
            Some(known) if known.allows(offset, len, writing).is_ok() => match known.at {
                Whereabouts::Placed(place) => {
                    let place = Place { offset: place.offset.saturating_add(offset), ..place };
                    Ok(Some((partner, place)))
                }
                _ => Ok(None),
            },
            _ => Ok(None),
        }
    }

    /// Tells the target's program that something was written.
    fn notify(&mut self, peer: PeerId, empty: L::Source, envelope: &Envelope) {
        match self.isend(empty, peer, envelope) {
            // Nobody waits for it.
            Ok(Sent::Pending(request)) => self.requests.forget(request),
            // A full queue is not for what is owed already.
            Err(Refusal::Busy) => self.queue_notification(peer, empty, envelope),
            // It is gone, as the program hears elsewhere.
            Ok(Sent::Done) | Err(_) => {}
        }
    }

    /// Queues an operation behind the others.
    #[inline(never)]
    fn begin(
        &mut self,
        peer: PeerId,
        key: &Key,
        offset: u64,
        len: usize,
        kind: Kind<L>,
    ) -> Result<Sent, Refusal> {
        if peer == PeerId::SELF {
            return self.operate_on_self(key, offset, len, &kind);
        }
        let index = self.partner_index(peer)?;
        if self.partners[index].operations.len() >= self.queued_sends_max {
            return Err(Refusal::Busy);
        }
        let status = Status::of(peer, &Envelope::default(), len as u64);
        let id = self.requests.add(Body::Operation, status)?;
        self.partners[index].operations.push_back(Operation {
            request: id.index(),
            key: *key,
            offset,
            len,
            kind,
            done: 0,
            state: State::New,
            offered: false,
        });
        self.flush(index);
        Ok(Sent::Pending(id))
    }

    /// Operations on a region of our own.
    fn operate_on_self(
        &mut self,
        key: &Key,
        offset: u64,
        len: usize,
        kind: &Kind<L>,
    ) -> Result<Sent, Refusal> {
        let mut status = Status::of(PeerId::SELF, &Envelope::default(), len as u64);
        match self.do_on_self(key, offset, len, kind) {
            Ok(value) => (status.match_info, status.transferred_bytes) = (value, len as u64),
            Err(code) => status.code = code,
        }
        let id = self.requests.add_complete(status);
        if let Kind::Write { source, notify: Some(envelope) } = kind
            && status.code == StatusCode::Success
        {
            self.notify(PeerId::SELF, L::source_part(source, 0, 0), envelope);
        }
        Ok(Sent::Pending(id))
    }

    fn do_on_self(
        &self,
        key: &Key,
        offset: u64,
        len: usize,
        kind: &Kind<L>,
    ) -> Result<u64, StatusCode> {
        let (memory, writable) = self.own_region(key.region, key.secret)?;
        let of = L::source_len(&memory) as u64;
        let (at, len) = inside(offset, len as u64, of).ok_or(StatusCode::OutOfRange)?;
        match kind {
            Kind::Read { sink } => {
                L::copy_local(&L::source_part(&memory, at, len), sink);
                Ok(0)
            }
            Kind::Write { source, .. } => {
                let sink = writable.ok_or(StatusCode::Denied)?;
                L::copy_local(source, &L::sink_part(&sink, at, len));
                Ok(0)
            }
            Kind::Atomic(op) => {
                let sink = writable.ok_or(StatusCode::Denied)?;
                L::atomic_local(&sink, at, *op).ok_or(StatusCode::OutOfRange)
            }
            Kind::Fence => Ok(0),
        }
    }

    /// Goes on with the operations of a peer, as far as that is possible now.
    pub(super) fn flush_operations(&mut self, index: usize) -> Result<bool, LaneFault> {
        let mut moved = false;
        // One stretch of copying at most, so that others get their turn.
        while let Some(step) = self.step(index)? {
            moved = true;
            if let Step::Copied = step {
                break;
            }
        }
        Ok(moved)
    }

    /// The next step of the operation at the front; `None` when it waits.
    fn step(&mut self, index: usize) -> Result<Option<Step>, LaneFault> {
        let partner = &mut self.partners[index];
        let Some(operation) = partner.operations.front_mut() else { return Ok(None) };
        let Some(lane) = partner.lane.as_mut() else { return Ok(None) };
        if let Kind::Fence = operation.kind {
            self.finish_front(index, StatusCode::Success, 0);
            return Ok(Some(Step::Passed));
        }
        if operation.state == State::Sent {
            return Ok(None);
        }
        let at = match partner.known.iter().find(|known| known.is(&operation.key)) {
            Some(known) => {
                let writing = !matches!(operation.kind, Kind::Read { .. });
                if let Err(code) = known.allows(operation.offset, operation.len, writing) {
                    self.finish_front(index, code, 0);
                    return Ok(Some(Step::Passed));
                }
                known.at
            }
            None if operation.state == State::Asked => return Ok(None),
            None => {
                let Key { region, secret, .. } = operation.key;
                if !lane.push(&Message::Ask { region, secret }.emit(), None)? {
                    return Ok(None);
                }
                operation.state = State::Asked;
                return Ok(Some(Step::Passed));
            }
        };
        match at {
            Whereabouts::Placed(place) => self.copy_stretch(index, place),
            Whereabouts::Copied => self.send_operation(index),
            Whereabouts::Moving | Whereabouts::Gone => Ok(None),
        }
    }

    fn copy_stretch(&mut self, index: usize, place: Place) -> Result<Option<Step>, LaneFault> {
        let partner = &mut self.partners[index];
        let Some(operation) = partner.operations.front_mut() else { return Ok(None) };
        let Some(lane) = partner.lane.as_mut() else { return Ok(None) };
        let (at, stretch) = (operation.done, (operation.len - operation.done).min(COPY_BYTES));
        let place = Place { offset: place.offset.saturating_add(operation.offset), ..place };
        // The lane's offsets count from the place on, for the buffer and for the granted memory.
        let result = match &operation.kind {
            Kind::Write { source, .. } => {
                let part = L::source_part(source, 0, at + stretch);
                lane.write_placed(&place, at, &part, stretch).map(|()| 0)
            }
            Kind::Read { sink } => lane.copy_placed(&place, at, sink, stretch).map(|()| 0),
            Kind::Atomic(op) => lane.atomic_placed(&place, *op),
            Kind::Fence => Ok(0),
        };
        match result {
            Ok(value) => {
                operation.done += stretch;
                if operation.done == operation.len {
                    self.finish_front(index, StatusCode::Success, value);
                }
                Ok(Some(Step::Copied))
            }
            Err(Unreachable::TakenBack) => {
                let key = operation.key;
                operation.state = State::Asked;
                partner.note_whereabouts(&key, Whereabouts::Moving);
                Ok(Some(Step::Passed))
            }
            Err(Unreachable::OutOfRange) => {
                self.finish_front(index, StatusCode::OutOfRange, 0);
                Ok(Some(Step::Passed))
            }
            Err(Unreachable::Missing) => {
                // The grant did not get through; its owner serves us all the same.
                let key = operation.key;
                operation.done = 0;
                partner.note_whereabouts(&key, Whereabouts::Copied);
                Ok(Some(Step::Passed))
            }
        }
    }

    /// Sends an operation whose region is not reachable to the region's owner.
    fn send_operation(&mut self, index: usize) -> Result<Option<Step>, LaneFault> {
        let partner = &mut self.partners[index];
        let Some(operation) = partner.operations.front_mut() else { return Ok(None) };
        let Some(lane) = partner.lane.as_mut() else { return Ok(None) };
        let (region, offset, length) =
            (operation.key.region, operation.offset, operation.len as u64);
        let [low, high] = operation.key.secret;
        let mut body = [low, high, 0, 0];
        let mut body_bytes = SHORT_BODY_BYTES;
        let id = operation.request;
        let buffer = match &operation.kind {
            Kind::Write { source, .. } if length > 0 => Some(*source),
            Kind::Read { sink } if length > 0 => Some(L::sink_source(sink)),
            _ => None,
        };
        let address = buffer.map_or(0, |buffer| lane.peer_address(&buffer));
        if address != 0 {
            (body[2], body_bytes) = (address, ADDRESSED_BODY_BYTES);
        }
        let message = match &operation.kind {
            Kind::Write { .. } => Message::Put { send_id: id, region, offset, length },
            Kind::Read { .. } => Message::Get { recv_id: id, region, offset, length },
            Kind::Atomic(op) => {
                body_bytes = BODY_BYTES;
                let operation = match *op {
                    AtomicOp::FetchAdd(value) => {
                        body[2] = value;
                        0
                    }
                    AtomicOp::CompareSwap { expected, desired } => {
                        (body[2], body[3]) = (desired, expected);
                        1
                    }
                };
                Message::Atomic { id, region, offset, operation }
            }
            Kind::Fence => return Ok(None),
        };
        if !lane.push_body(&message.emit(), &body, body_bytes)? {
            return Ok(None);
        }
        operation.state = State::Sent;
        operation.offered = address != 0;
        if let Kind::Read { sink } = operation.kind
            && length > 0
        {
            self.requests.slot(id).body =
                Body::Filling { sink, received: 0, expected: length, rendezvous: true };
        }
        Ok(Some(Step::Passed))
    }

    /// Ends the operation at the front.
    fn finish_front(&mut self, index: usize, code: StatusCode, value: u64) {
        let peer = self.peer_id(index);
        let Some(operation) = self.partners[index].operations.pop_front() else { return };
        let slot = self.requests.slot(operation.request);
        slot.status.match_info = value;
        let moved = if code == StatusCode::Success { operation.len as u64 } else { 0 };
        self.requests.complete(operation.request, code, moved);
        if let Kind::Write { source, notify: Some(envelope) } = operation.kind
            && code == StatusCode::Success
        {
            self.notify(peer, L::source_part(&source, 0, 0), &envelope);
        }
    }

    /// All data of a read has come, if this is the request of one: it is complete already.
    pub(super) fn finish_get(&mut self, index: usize, filled: u32) {
        let partner = &mut self.partners[index];
        if let Some(operation) = partner.operations.front()
            && operation.request == filled
        {
            let key = operation.key;
            partner.operations.pop_front();
            partner.note_moved(&key, false);
            self.flush(index);
        }
    }

    /// The owner of a region is ready for the data of a write.
    pub(super) fn take_put_acceptance(
        &mut self,
        index: usize,
        send_id: u32,
        recv_id: u32,
        accepted: u64,
    ) -> Result<(), LaneFault> {
        let fault = LaneFault("it accepted a write that was not asked of it");
        let partner = &mut self.partners[index];
        let streaming = |stream: &Stream<L>| matches!(stream.end_of, StreamEnd::Put);
        match partner.operations.front_mut() {
            Some(Operation {
                request,
                state: State::Sent,
                kind: Kind::Write { source, .. },
                len,
                offered,
                ..
            }) if *request == send_id
                && accepted == *len as u64
                && accepted > 0
                && !partner.streams.iter().any(streaming) =>
            {
                *offered = false;
                let (source, end, end_of) = (*source, *len, StreamEnd::Put);
                partner.streams.push_back(Stream { recv_id, source, next: 0, end, end_of });
                Ok(())
            }
            _ => Err(fault),
        }
    }

    /// The owner of a region has done what it was asked, or will not.
    pub(super) fn take_answer(
        &mut self,
        index: usize,
        id: u32,
        answer: Answer,
        value: u64,
    ) -> Result<(), LaneFault> {
        let fault = LaneFault("it answered an operation that was not asked of it");
        let partner = &mut self.partners[index];
        let streaming = |stream: &Stream<L>| matches!(stream.end_of, StreamEnd::Put);
        let Some(Operation { request, state: State::Sent, kind, len, key, offered, .. }) =
            partner.operations.front()
        else {
            return Err(fault);
        };
        let (key, offered) = (*key, *offered);
        let early = match kind {
            // The data itself is the answer, unless it was moved to where we said.
            Kind::Read { .. } if answer == Answer::Ok && *len > 0 => {
                let begun = match self.requests.slot(*request).body {
                    Body::Filling { received, .. } => received > 0,
                    _ => true,
                };
                !offered || begun
            }
            Kind::Read { .. } => false,
            _ => partner.streams.iter().any(streaming),
        };
        if *request != id || early {
            return Err(fault);
        }
        match answer {
            Answer::Revoked => partner.note_revoked(key.region),
            Answer::Ok if !matches!(kind, Kind::Atomic(_)) => partner.note_moved(&key, offered),
            _ => {}
        }
        self.finish_front(index, code_of(answer), value);
        self.flush(index);
        Ok(())
    }

    /// The owner of a region says where it is, or that it is gone.
    pub(super) fn take_tell(&mut self, index: usize, told: Told, body: &FrameBody) {
        let partner = &mut self.partners[index];
        let Told { region, answer, writable, placed, length } = told;
        let [low, high, grant, offset] = *body;
        let asks = partner.operations.front().is_some_and(|operation| {
            operation.state == State::Asked && operation.key.region == region
        });
        if answer != Answer::Ok {
            if answer == Answer::Revoked {
                partner.note_revoked(region);
            }
            if asks {
                self.finish_front(index, code_of(answer), 0);
            }
            self.flush(index);
            return;
        }
        let secret = [low, high];
        let place = Whereabouts::Placed(Place { grant, offset });
        let at = if placed { place } else { Whereabouts::Copied };
        let news = Known { region, secret, at, length, writable, moved: false };
        let known = &mut partner.known;
        match known.iter_mut().find(|known| known.region == region && known.secret == secret) {
            Some(known) => *known = Known { moved: known.moved, ..news },
            None => {
                if known.len() >= KNOWN_KEYS_MAX {
                    known.remove(0);
                }
                known.push(news);
            }
        }
        self.flush(index);
    }
}

/// What the owner of a region says of it.
pub(super) struct Told {
    pub region: u32,
    pub answer: Answer,
    pub writable: bool,
    pub placed: bool,
    pub length: u64,
}

/// What a step came to.
enum Step {
    /// Something was copied.
    Copied,
    /// Something else happened.
    Passed,
}

fn code_of(answer: Answer) -> StatusCode {
    match answer {
        Answer::Ok => StatusCode::Success,
        Answer::Denied => StatusCode::Denied,
        Answer::Revoked => StatusCode::Revoked,
        Answer::OutOfRange => StatusCode::OutOfRange,
    }
}
