// SPDX-License-Identifier: Apache-2.0
//! Progress: frames come in, and what waited goes out.

use super::partner::{Answer, Inflow, Stream, StreamEnd};
use super::receive::{Held, outcome};
use super::remote::Told;
use super::request::Body;
use super::{Envelope, Machine, Status, StatusCode};
use crate::frame::{Frame, Message, Space};
use crate::granted::Place;
use crate::lane::{Lane, LaneFault};
use crate::limits::{BATCH_CELLS, EAGER_BYTES_MAX};
use crate::matching::Key;

/// Above so many partners only every other look takes in one of the idle ones.
const MANY: usize = 4;

impl<L: Lane> Machine<L> {
    /// Spins at most `looks` times for a frame from the partner that was active last.
    #[inline(always)]
    pub fn spin_hot(&self, looks: u32) {
        let hot = self.partners.get(usize::from(self.hot[0]));
        let Some(lane) = hot.and_then(|partner| partner.lane.as_ref()) else { return };
        for _ in 0..looks {
            if lane.has_frame() {
                return;
            }
        }
    }

    /// Looks at the partners once: the hot ones and one of the others. Returns whether anything
    /// happened.
    #[inline]
    pub fn poll(&mut self) -> bool {
        if self.pending_handler.is_some() || self.partners.is_empty() {
            return false;
        }
        let [first, second] = self.hot;
        let mut work = self.poll_partner(usize::from(first));
        // A message for the handler stops progress with the other partners too.
        if work && self.pending_handler.is_some() {
            return true;
        }
        if second != first {
            work |= self.poll_partner(usize::from(second));
            if work && self.pending_handler.is_some() {
                return true;
            }
        }
        // With many peers a look at one more is dear: their rings lie in the same sets of the cache.
        self.skip = !self.skip && self.partners.len() > MANY;
        if self.skip {
            return work;
        }
        self.cursor += 1;
        if usize::from(self.cursor) >= self.partners.len() {
            self.cursor = 0;
        }
        if self.cursor != first && self.cursor != second {
            let index = usize::from(self.cursor);
            if self.poll_partner(index) {
                self.make_hot(index);
                work = true;
            }
        }
        work
    }

    /// Looks at every partner: before sleeping, and after waking up. Also notices peers that close
    /// with a full ring.
    pub fn poll_all(&mut self) -> bool {
        let mut work = false;
        for index in 0..self.partners.len() {
            if self.pending_handler.is_some() {
                return work;
            }
            // The flag is read first: everything that came before it is then visible.
            let closing = self.partners[index].lane.as_ref().is_some_and(L::peer_is_closing);
            let worked = self.poll_partner(index);
            if closing && !worked {
                self.part(index, StatusCode::PeerClosed, "it closed its endpoint", false);
                work = true;
            }
            if worked {
                self.make_hot(index);
                work = true;
            }
        }
        work
    }

    /// Takes in up to a batch of frames from one partner, and sends what waits for it.
    #[inline]
    pub(super) fn poll_partner(&mut self, index: usize) -> bool {
        let taken = match self.take_batch(index) {
            Ok(taken) => taken,
            Err(fault) => {
                self.part(index, StatusCode::PeerMisbehaved, fault.0, true);
                return true;
            }
        };
        let partner = &mut self.partners[index];
        if taken == 0
            && let Some(lane) = partner.lane.as_mut()
        {
            lane.tell();
        }
        if partner.leaving.is_some() {
            self.poll_leaving(index, taken);
            return true;
        }
        if partner.has_backlog() && self.flush(index) {
            return true;
        }
        taken > 0
    }

    #[inline(always)]
    fn take_batch(&mut self, index: usize) -> Result<usize, LaneFault> {
        let mut taken = 0;
        loop {
            let burst = self.take_burst(index, BATCH_CELLS - taken)?;
            taken += burst.taken;
            if !burst.other || !self.take_frame(index)? {
                return Ok(taken);
            }
            taken += 1;
            if taken == BATCH_CELLS || self.pending_handler.is_some() {
                return Ok(taken);
            }
        }
    }

    /// Takes in the next frame, whatever it is.
    #[inline(never)]
    fn take_frame(&mut self, index: usize) -> Result<bool, LaneFault> {
        let Some(lane) = self.partners[index].lane.as_mut() else { return Ok(false) };
        let Some((frame, payload)) = lane.peek()? else { return Ok(false) };
        // The one kind that is worth a branch of its own; the others are behind a call.
        if let Some(Message::Eager { match_info, immediate, space, length }) =
            Message::parse(&frame)
        {
            let envelope = Envelope { match_info, immediate, space, synchronous: false };
            self.take_eager(index, &envelope, length, &payload)?;
        } else {
            self.take_other(index, &frame, &payload)?;
        }
        if let Some(lane) = self.partners[index].lane.as_mut() {
            lane.pop(&payload);
        }
        Ok(true)
    }

    #[inline(never)]
    fn take_other(
        &mut self,
        index: usize,
        frame: &Frame,
        payload: &L::Payload,
    ) -> Result<(), LaneFault> {
        let Some(message) = Message::parse(frame) else {
            return Err(LaneFault("it sent a frame without meaning"));
        };
        let body = self.partners[index].lane.as_ref().and_then(|lane| lane.body(payload));
        let body = body.ok_or(LaneFault("it sent a frame with a payload that it cannot have"));
        match message {
            Message::Eager { .. } => unreachable!("taken by the caller"),
            Message::More => self.take_more(index, payload),
            Message::Rts { match_info, immediate, space, length, send_id, placed } => {
                let envelope = Envelope { match_info, immediate, space, synchronous: false };
                let [grant, offset, ..] = body?;
                let place = placed.then_some(Place { grant, offset });
                self.take_announcement(index, &envelope, length, send_id, place)
            }
            Message::Cts { send_id, recv_id, accepted } => {
                self.take_acceptance(index, send_id, recv_id, accepted)
            }
            Message::Data { recv_id, offset } => self.take_data(index, recv_id, offset, payload),
            Message::Close => {
                self.part(index, StatusCode::PeerClosed, "it closed its endpoint", false);
                Ok(())
            }
            Message::Done { send_id, taken } => self.take_done(index, send_id, taken),
            Message::Ask { region, secret } => self.take_ask(index, region, secret),
            Message::Tell { region, answer, writable, placed, length } => {
                let told = Told { region, answer, writable, placed, length };
                self.take_tell(index, told, &body?);
                Ok(())
            }
            Message::Put { send_id, region, offset, length } => {
                self.take_put(index, [send_id, region], [offset, length], &body?)
            }
            Message::Get { recv_id, region, offset, length } => {
                self.take_get(index, [recv_id, region], [offset, length], &body?)
            }
            Message::Atomic { id, region, offset, operation } => {
                self.take_atomic(index, [id, region], [offset, operation], &body?)
            }
            Message::Answer { id, answer, value } => self.take_answer(index, id, answer, value),
        }
    }

    #[inline(always)]
    fn take_eager(
        &mut self,
        index: usize,
        envelope: &Envelope,
        length: u64,
        payload: &L::Payload,
    ) -> Result<(), LaneFault> {
        let part = L::payload_len(payload) as u64;
        if length > EAGER_BYTES_MAX as u64 || part > length {
            return Err(LaneFault("it sent an eager message of impossible length"));
        }
        let peer = self.peer_id(index);
        let status = Status::of(peer, envelope, length);
        // Every check comes before matching: a fault must not take a receive with it.
        if !matches!(self.partners[index].inflow, Inflow::Nothing) {
            return Err(LaneFault("it began a message inside another"));
        }
        let key =
            Key { match_info: envelope.match_info, source: peer.to_raw(), space: envelope.space };
        let matched = self.match_posted(&key, length);
        let partner = &mut self.partners[index];
        partner.traffic.rx_messages += 1;
        partner.traffic.rx_bytes = partner.traffic.rx_bytes.saturating_add(length);
        let Some(lane) = partner.lane.as_mut() else { return Ok(()) };
        let Some((request, sink)) = matched else {
            return self.keep_unexpected(index, &status, payload);
        };
        let stored = lane.copy(payload, &sink, 0) as u64;
        lane.return_credits(length, 1);
        let slot = self.requests.slot(request);
        slot.status = status;
        if part == length {
            self.requests.complete(request, outcome(stored, length), stored);
        } else {
            slot.body = Body::Filling { sink, received: part, expected: length, rendezvous: false };
            partner.inflow = Inflow::Request(request);
        }
        Ok(())
    }

    /// An eager message without a receive: its data is kept, as its sender has paid for.
    #[inline(never)]
    fn keep_unexpected(
        &mut self,
        index: usize,
        status: &Status,
        payload: &L::Payload,
    ) -> Result<(), LaneFault> {
        let partner = &mut self.partners[index];
        let length = status.message_bytes;
        partner.held.hold(length)?;
        let Some(lane) = partner.lane.as_mut() else { return Ok(()) };
        let mut data = Vec::with_capacity(length as usize);
        lane.copy_to_vec(payload, &mut data);
        let part = data.len() as u64;
        let arrival = self.arrivals.add(*status, Held::Eager { data });
        if part < length {
            self.partners[index].inflow = Inflow::Arrival(arrival);
        }
        self.arrived_unexpected(arrival);
        Ok(())
    }

    fn take_more(&mut self, index: usize, payload: &L::Payload) -> Result<(), LaneFault> {
        let part = L::payload_len(payload) as u64;
        if part == 0 {
            return Err(LaneFault("it sent a part of no bytes"));
        }
        let partner = &mut self.partners[index];
        let Some(lane) = partner.lane.as_mut() else { return Ok(()) };
        let too_long = LaneFault("it sent more data than it announced");
        match partner.inflow {
            Inflow::Nothing => return Err(LaneFault("it continued a message that it never began")),
            Inflow::Discard { left } => {
                let left = left.checked_sub(part).ok_or(too_long)?;
                partner.inflow = if left == 0 { Inflow::Nothing } else { Inflow::Discard { left } };
            }
            Inflow::Arrival(arrival) => {
                let arrival = self.arrivals.get(arrival);
                let length = arrival.status.message_bytes;
                let Held::Eager { data } = &mut arrival.held else {
                    unreachable!("parts of a message that is not eager")
                };
                if data.len() as u64 + part > length {
                    return Err(too_long);
                }
                lane.copy_to_vec(payload, data);
                if data.len() as u64 == length {
                    partner.inflow = Inflow::Nothing;
                }
            }
            Inflow::Request(request) => {
                let slot = self.requests.slot(request);
                let Body::Filling { sink, received, expected, .. } = &mut slot.body else {
                    unreachable!("parts for a receive that is not open")
                };
                if *received + part > *expected {
                    return Err(too_long);
                }
                lane.copy(payload, sink, *received as usize);
                *received += part;
                if received == expected {
                    let stored = (*expected).min(L::sink_len(sink) as u64);
                    let code = outcome(stored, *expected);
                    partner.inflow = Inflow::Nothing;
                    self.requests.complete(request, code, stored);
                }
            }
        }
        Ok(())
    }

    fn take_announcement(
        &mut self,
        index: usize,
        envelope: &Envelope,
        length: u64,
        send_id: u32,
        place: Option<Place>,
    ) -> Result<(), LaneFault> {
        let status = Status::of(self.peer_id(index), envelope, length);
        let partner = &mut self.partners[index];
        partner.traffic.rx_messages += 1;
        // An alleged length may be anything; twice the largest must not overflow.
        partner.traffic.rx_bytes = partner.traffic.rx_bytes.saturating_add(length);
        if partner
            .owes_too_much(|answer| matches!(answer, Answer::Frame { returns_credit: true, .. }))
        {
            return Err(LaneFault("it announces messages and does not read the answers"));
        }
        if envelope.space == Space::Lent {
            if let Some(request) = self.matcher.match_message(&status.key(), |_| false) {
                self.bind_loan(request, &status, send_id, place);
                return Ok(());
            }
        } else if let Some((request, sink)) = self.match_posted(&status.key(), length) {
            self.requests.slot(request).status = status;
            self.accept(request, sink, &status, send_id, place);
            return Ok(());
        }
        self.partners[index].held.hold(0)?;
        let arrival = self.arrivals.add(status, Held::Announced { send_id, place });
        self.arrived_unexpected(arrival);
        Ok(())
    }

    fn take_acceptance(
        &mut self,
        index: usize,
        send_id: u32,
        recv_id: u32,
        accepted: u64,
    ) -> Result<(), LaneFault> {
        let peer = self.peer_id(index);
        let fault = LaneFault("it accepted a message that was not announced to it");
        let slot = self.requests.alleged(send_id).ok_or(fault)?;
        let length = slot.status.message_bytes;
        if let Body::Operation = slot.body {
            return self.take_put_acceptance(index, send_id, recv_id, accepted);
        }
        let Body::Sending { source, announced } = &mut slot.body else { return Err(fault) };
        if slot.status.source != peer || !*announced || accepted > length {
            return Err(fault);
        }
        *announced = false;
        if accepted == 0 {
            let code = outcome(0, length);
            self.requests.complete(send_id, code, 0);
            return Ok(());
        }
        let (end, end_of) = (accepted as usize, StreamEnd::Send(send_id));
        let stream = Stream { recv_id, source: *source, next: 0, end, end_of };
        self.partners[index].streams.push_back(stream);
        Ok(())
    }

    fn take_data(
        &mut self,
        index: usize,
        recv_id: u32,
        offset: u64,
        payload: &L::Payload,
    ) -> Result<(), LaneFault> {
        let part = L::payload_len(payload) as u64;
        let peer = self.peer_id(index);
        let fault = LaneFault("it sent data that was not asked for");
        let slot = self.requests.alleged(recv_id).ok_or(fault)?;
        let bound = slot.status.source == peer;
        let length = slot.status.message_bytes;
        let Body::Filling { sink, received, expected, rendezvous: true } = &mut slot.body else {
            return Err(fault);
        };
        if !bound || offset != *received || part == 0 || part > *expected - *received {
            return Err(fault);
        }
        if let Some(lane) = self.partners[index].lane.as_ref() {
            lane.copy(payload, sink, offset as usize);
        }
        *received += part;
        if received == expected {
            let stored = *expected;
            self.requests.complete(recv_id, outcome(stored, length), stored);
            self.finish_get(index, recv_id);
            self.finish_put(index, recv_id);
        }
        Ok(())
    }
}
