// SPDX-License-Identifier: Apache-2.0
//! The receiving side: posting, probing, and messages that came before their receive.

use super::partner::Inflow;
use super::request::Body;
use super::{Envelope, Machine, PeerId, Refusal, RequestId, Selector, Status, StatusCode};
use crate::frame::{Message, Space};
use crate::granted::Place;
use crate::lane::Lane;
use crate::matching::{Key, Pattern};

/// A message taken out of matching by [`Machine::improbe`]; only its holder can receive it.
#[derive(Debug, PartialEq, Eq)]
pub struct Claim {
    index: u32,
    generation: u32,
}

/// What is held of a message without a receive.
pub(super) enum Held {
    Free {
        next: u32,
    },
    /// Eager data, whole when it has the message's length.
    Eager {
        data: Vec<u8>,
    },
    /// Announced; the data is still with the sender, and can perhaps be taken from a place.
    Announced {
        send_id: u32,
        place: Option<Place>,
    },
    /// A message to oneself: the request of its send.
    Local {
        request: u32,
    },
}

pub(super) struct Arrival {
    generation: u32,
    pub status: Status,
    pub held: Held,
    claimed: bool,
}

/// The slab of messages without a receive.
#[derive(Default)]
pub(super) struct Arrivals {
    slots: Vec<Arrival>,
    free: Option<u32>,
}

impl Arrivals {
    pub fn add(&mut self, status: Status, held: Held) -> u32 {
        if let Some(index) = self.free {
            let slot = &mut self.slots[index as usize];
            let Held::Free { next } = slot.held else {
                unreachable!("a used slot on the free list")
            };
            self.free = (next != u32::MAX).then_some(next);
            slot.status = status;
            slot.held = held;
            slot.claimed = false;
            return index;
        }
        self.slots.push(Arrival { generation: 0, status, held, claimed: false });
        self.slots.len() as u32 - 1
    }

    pub fn get(&mut self, index: u32) -> &mut Arrival {
        &mut self.slots[index as usize]
    }

    pub fn remove(&mut self, index: u32) -> (Status, Held) {
        let free = Held::Free { next: self.free.unwrap_or(u32::MAX) };
        self.free = Some(index);
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        (slot.status, std::mem::replace(&mut slot.held, free))
    }

    /// Forgets everything; names given out before stay invalid.
    pub fn clear(&mut self) {
        for index in 0..self.slots.len() as u32 {
            if !matches!(self.slots[index as usize].held, Held::Free { .. }) {
                let _ = self.remove(index);
            }
        }
    }

    fn claimed(&self, claim: &Claim) -> Option<u32> {
        let slot = self.slots.get(claim.index as usize)?;
        (slot.claimed
            && slot.generation == claim.generation
            && !matches!(slot.held, Held::Free { .. }))
        .then_some(claim.index)
    }
}

impl Status {
    pub(super) fn key(&self) -> Key {
        Key { match_info: self.match_info, source: self.source.to_raw(), space: self.space }
    }
}

impl<L: Lane> Machine<L> {
    /// Posts a receive. Never waits.
    ///
    /// # Errors
    /// [`Refusal`] for a mask that does not fit, a source that is gone and has nothing waiting, or
    /// too many requests.
    #[inline]
    pub fn irecv(&mut self, sink: L::Sink, selector: &Selector) -> Result<RequestId, Refusal> {
        let pattern = self.pattern(selector)?;
        if selector.space == Space::Lent {
            return Err(Refusal::BadSpace);
        }
        if !self.matcher.context().fixed_by(pattern.mask) {
            return Err(Refusal::BadContext);
        }
        if let Some((_, arrival)) = self.matcher.take_unexpected(&pattern) {
            return self.receive_arrival(arrival, sink);
        }
        self.require_source(selector)?;
        let request = self.requests.add(Body::Posted { sink }, posted_status(selector))?;
        self.matcher.post(pattern, request.index());
        Ok(request)
    }

    /// Looks for a waiting message and leaves it where it is.
    ///
    /// # Errors
    /// [`Refusal::BadMask`]; [`Refusal::PeerGone`] when the named source can send nothing more.
    pub fn iprobe(&mut self, selector: &Selector) -> Result<Option<Status>, Refusal> {
        let pattern = self.pattern(selector)?;
        match self.matcher.find_unexpected(&pattern) {
            Some((_, arrival)) => Ok(Some(self.arrivals.get(arrival).status)),
            None => self.require_source(selector).map(|()| None),
        }
    }

    /// Looks for a waiting message and claims it: no other receive can match it any more.
    ///
    /// # Errors
    /// As [`Machine::iprobe`].
    pub fn improbe(&mut self, selector: &Selector) -> Result<Option<(Claim, Status)>, Refusal> {
        let pattern = self.pattern(selector)?;
        let Some((_, index)) = self.matcher.take_unexpected(&pattern) else {
            return self.require_source(selector).map(|()| None);
        };
        let arrival = self.arrivals.get(index);
        arrival.claimed = true;
        Ok(Some((Claim { index, generation: arrival.generation }, arrival.status)))
    }

    /// Receives a claimed message.
    ///
    /// # Errors
    /// [`Refusal::BadRequest`] when its sender is gone and the data with it.
    pub fn imrecv(&mut self, claim: Claim, sink: L::Sink) -> Result<RequestId, Refusal> {
        let arrival = self.arrivals.claimed(&claim).ok_or(Refusal::BadRequest)?;
        self.receive_arrival(arrival, sink)
    }

    /// Gives a claimed message up: it is consumed unseen.
    pub fn discard(&mut self, claim: Claim) {
        if let Some(arrival) = self.arrivals.claimed(&claim) {
            self.discard_arrival(arrival);
        }
    }

    pub(super) fn pattern(&self, selector: &Selector) -> Result<Pattern, Refusal> {
        if selector.match_info & !selector.mask != 0 {
            return Err(Refusal::BadMask);
        }
        Ok(Pattern {
            value: selector.match_info,
            mask: selector.mask,
            source: selector.source.map(PeerId::to_raw),
            space: selector.space,
        })
    }

    #[inline]
    pub(super) fn require_source(&self, selector: &Selector) -> Result<(), Refusal> {
        match selector.source {
            Some(peer) if peer != PeerId::SELF => self.peer_state(peer),
            _ => Ok(()),
        }
    }

    /// A new receive for a message that is here already, in part or in whole.
    fn receive_arrival(&mut self, arrival: u32, sink: L::Sink) -> Result<RequestId, Refusal> {
        let status = self.arrivals.get(arrival).status;
        let request = self.requests.add_required(Body::Posted { sink }, status);
        self.bind(arrival, request.index(), sink);
        Ok(request)
    }

    /// Joins an unexpected message with the receive that matched it.
    pub(super) fn bind(&mut self, arrival: u32, request: u32, sink: L::Sink) {
        let (status, held) = self.arrivals.remove(arrival);
        self.requests.slot(request).status = status;
        match held {
            Held::Eager { data } => self.bind_eager(arrival, request, sink, &status, &data),
            Held::Announced { send_id, place } => {
                self.release_held(status.source, 0);
                self.accept(request, sink, &status, send_id, place);
            }
            Held::Local { request: send } => self.finish_local(send, request, sink),
            Held::Free { .. } => unreachable!("a free arrival was matched"),
        }
    }

    fn bind_eager(
        &mut self,
        arrival: u32,
        request: u32,
        sink: L::Sink,
        status: &Status,
        data: &[u8],
    ) {
        let room = L::sink_write(&sink, 0, data);
        let length = status.message_bytes;
        self.release_held(status.source, length);
        self.return_credit(status.source, length);
        if data.len() as u64 == length {
            self.requests.complete(request, outcome(room as u64, length), room as u64);
            return;
        }
        // Matched before it was complete: the rest goes straight to the receive.
        self.requests.slot(request).body = Body::Filling {
            sink,
            received: data.len() as u64,
            expected: length,
            rendezvous: false,
        };
        if let Ok(index) = self.partner_index(status.source) {
            let inflow = &mut self.partners[index].inflow;
            debug_assert!(matches!(inflow, Inflow::Arrival(a) if *a == arrival));
            *inflow = Inflow::Request(request);
        }
    }

    /// Takes an announced message from where it lies, or tells its sender where to send it.
    pub(super) fn accept(
        &mut self,
        request: u32,
        sink: L::Sink,
        status: &Status,
        send_id: u32,
        place: Option<Place>,
    ) {
        let taken =
            place.is_some_and(|place| self.begin_pull(request, sink, status, send_id, place));
        if !taken {
            self.accept_stream(request, sink, status, send_id);
        }
    }

    /// Tells the sender of an announced message where to send it.
    pub(super) fn accept_stream(
        &mut self,
        request: u32,
        sink: L::Sink,
        status: &Status,
        send_id: u32,
    ) {
        let room = L::sink_len(&sink) as u64;
        let accepted = status.message_bytes.min(room);
        self.answer(status.source, send_id, request, accepted);
        // Answering may have found the peer at fault; then the request has failed already.
        if let Ok(index) = self.partner_index(status.source)
            && self.partners[index].lane.is_none()
        {
            let code = self.partners[index].gone;
            self.requests.complete(request, code, 0);
            return;
        }
        self.await_data(request, sink, accepted);
    }

    /// So much of a message was asked for, and comes as parts; nothing comes of nothing.
    pub(super) fn await_data(&mut self, request: u32, sink: L::Sink, accepted: u64) {
        if accepted == 0 {
            let code = outcome(0, self.requests.slot(request).status.message_bytes);
            self.requests.complete(request, code, 0);
        } else {
            self.requests.slot(request).body =
                Body::Filling { sink, received: 0, expected: accepted, rendezvous: true };
        }
    }

    /// Queues and sends the answer to an announcement.
    fn answer(&mut self, peer: PeerId, send_id: u32, recv_id: u32, accepted: u64) {
        let Ok(index) = self.partner_index(peer) else { return };
        self.partners[index].answer_announcement(Message::Cts { send_id, recv_id, accepted });
        self.flush(index);
    }

    /// A message that nobody will receive: the handler took it, or its claim was given up.
    pub(super) fn discard_arrival(&mut self, arrival: u32) {
        let (status, held) = self.arrivals.remove(arrival);
        match held {
            Held::Eager { data } => {
                self.release_held(status.source, status.message_bytes);
                self.return_credit(status.source, status.message_bytes);
                let left = status.message_bytes - data.len() as u64;
                if left > 0
                    && let Ok(index) = self.partner_index(status.source)
                {
                    self.partners[index].inflow = Inflow::Discard { left };
                }
            }
            Held::Announced { send_id, .. } => {
                self.release_held(status.source, 0);
                self.answer(status.source, send_id, u32::MAX, 0);
            }
            Held::Local { request } => {
                let code = outcome(0, status.message_bytes);
                self.requests.complete(request, code, 0);
            }
            Held::Free { .. } => unreachable!("a free arrival was discarded"),
        }
    }

    /// A send to oneself: finds its receive, or waits for one.
    pub(super) fn arrive_from_self(&mut self, send: u32, envelope: &Envelope, len: u64) {
        let status = Status::of(PeerId::SELF, envelope, len);
        match self.match_posted(&status.key(), status.message_bytes) {
            Some((request, sink)) => {
                self.requests.slot(request).status = status;
                self.finish_local(send, request, sink);
            }
            None => {
                let arrival = self.arrivals.add(status, Held::Local { request: send });
                self.arrived_unexpected(arrival);
            }
        }
    }

    fn finish_local(&mut self, send: u32, request: u32, sink: L::Sink) {
        let Body::Sending { source, .. } = self.requests.slot(send).body else {
            unreachable!("a local message without its send")
        };
        let copied = L::copy_local(&source, &sink) as u64;
        let code = outcome(copied, L::source_len(&source) as u64);
        self.requests.complete(request, code, copied);
        self.requests.complete(send, code, copied);
    }

    /// Removes what a departed peer had announced or only begun; whole messages stay.
    pub(super) fn drop_unfinished_arrivals(&mut self, peer: PeerId) {
        let unfinished = |arrival: &Arrival| {
            arrival.status.source == peer
                && match &arrival.held {
                    Held::Eager { data } => (data.len() as u64) < arrival.status.message_bytes,
                    Held::Announced { .. } => true,
                    Held::Local { .. } | Held::Free { .. } => false,
                }
        };
        let doomed: Vec<u32> = (0..self.arrivals.slots.len() as u32)
            .filter(|index| unfinished(&self.arrivals.slots[*index as usize]))
            .collect();
        let _ = self.matcher.remove_unexpected(|_, arrival| doomed.contains(&arrival));
        if self.pending_handler.as_ref().is_some_and(|p| doomed.contains(&p.arrival)) {
            self.pending_handler = None;
        }
        for arrival in doomed {
            let (status, held) = self.arrivals.remove(arrival);
            let bytes = if let Held::Eager { .. } = held { status.message_bytes } else { 0 };
            self.release_held(peer, bytes);
        }
    }

    pub(super) fn return_credit(&mut self, peer: PeerId, bytes: u64) {
        if let Some(lane) = self.lane_mut(peer) {
            lane.return_credits(bytes, 1);
            // Told at once: a program that receives what is here already does not poll, and its
            // peer must not wait for credit that has long been given back.
            lane.tell();
        }
    }

    pub(super) fn release_held(&mut self, peer: PeerId, bytes: u64) {
        if let Ok(index) = self.partner_index(peer) {
            self.partners[index].held.release(bytes);
        }
    }
}

/// How a receive ends that stored `stored` of `length` bytes.
#[inline(always)]
pub(super) fn outcome(stored: u64, length: u64) -> StatusCode {
    if stored < length { StatusCode::Truncated } else { StatusCode::Success }
}

pub(super) fn posted_status(selector: &Selector) -> Status {
    let envelope =
        Envelope { match_info: selector.match_info, space: selector.space, ..Envelope::default() };
    Status::of(selector.source.unwrap_or(PeerId::SELF), &envelope, 0)
}
