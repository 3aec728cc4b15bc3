// SPDX-License-Identifier: Apache-2.0
//! The sending side: eager at once when possible, else queued, announced, streamed.

use super::partner::{Answer, Partner, QueuedSend, Served, StreamEnd};
use super::request::Body;
use super::{Envelope, Machine, PeerId, Refusal, RequestId, Sent, Status, StatusCode};
use crate::frame::{Message, SHORT_BODY_BYTES};
use crate::granted::Place;
use crate::lane::{Lane, LaneFault};
use crate::limits::{EAGER_BYTES_MAX, GRANTED_BYTES_MIN, fragment_bytes};

impl<L: Lane> Machine<L> {
    /// Sends a message. Never waits.
    ///
    /// # Errors
    /// [`Refusal`] when the peer is not there, or too many sends wait for it already.
    #[inline]
    pub fn isend(
        &mut self,
        source: L::Source,
        dest: PeerId,
        envelope: &Envelope,
    ) -> Result<Sent, Refusal> {
        if dest == PeerId::SELF {
            return self.send_to_self(source, envelope);
        }
        let index = self.partner_index(dest)?;
        let partner = &mut self.partners[index];
        if partner.lane.is_none() {
            return Err(Refusal::PeerGone(partner.gone));
        }
        let len = L::source_len(&source);
        let place = match partner.lane.as_mut() {
            Some(lane) if len >= GRANTED_BYTES_MIN => lane.place(&source, false).place(),
            _ => None,
        };
        if envelope.synchronous || len > EAGER_BYTES_MAX || place.is_some() {
            if let Some(request) = self.announce_now(index, source, place, envelope)? {
                return Ok(Sent::Pending(request));
            }
            let first = announcement(envelope, len, 0, place.is_some());
            return self.enqueue(index, source, first, place, None, envelope);
        }
        let first = eager(envelope, len);
        if !partner.queue.is_empty() {
            return self.enqueue(index, source, first, None, None, envelope);
        }
        match send_eager(partner, &source, &first, 0) {
            Ok(done) if done == Some(len) => {
                partner.count_sent(len);
                Ok(Sent::Done)
            }
            Ok(done) => self.enqueue(index, source, first, None, done, envelope),
            Err(fault) => {
                self.part(index, StatusCode::PeerMisbehaved, fault.0, true);
                Err(Refusal::PeerGone(StatusCode::PeerMisbehaved))
            }
        }
    }

    /// An empty message behind the others, whatever the limit of the queue says.
    pub(super) fn queue_notification(
        &mut self,
        peer: PeerId,
        empty: L::Source,
        envelope: &Envelope,
    ) {
        let Ok(index) = self.partner_index(peer) else { return };
        let status = Status::of(peer, envelope, 0);
        let body = Body::Sending { source: empty, announced: false };
        let request = self.requests.add_required(body, status).index();
        self.requests.slot(request).forgotten = true;
        let first = eager(envelope, 0);
        let send = QueuedSend { request, source: empty, first, place: None, done: 0, paid: false };
        self.partners[index].queue.push_back(send);
    }

    /// Queues a send behind the others. `done` says how much of it has left already.
    #[cold]
    #[inline(never)]
    pub(super) fn enqueue(
        &mut self,
        index: usize,
        source: L::Source,
        first: Message,
        place: Option<Place>,
        done: Option<usize>,
        envelope: &Envelope,
    ) -> Result<Sent, Refusal> {
        if self.partners[index].queue.len() >= self.queued_sends_max {
            return Err(Refusal::Busy);
        }
        let peer = self.peer_id(index);
        let status = Status::of(peer, envelope, L::source_len(&source) as u64);
        let body = Body::Sending { source, announced: false };
        // A message that has begun to leave must be finished, whatever the limit says.
        let id = match done {
            Some(_) => self.requests.add_required(body, status),
            None => self.requests.add(body, status)?,
        };
        let request = id.index();
        let first = match first {
            Message::Rts { .. } => {
                announcement(envelope, L::source_len(&source), request, place.is_some())
            }
            other => other,
        };
        self.partners[index].queue.push_back(QueuedSend {
            request,
            source,
            first,
            place,
            done: done.unwrap_or(0),
            paid: done.is_some(),
        });
        self.flush(index);
        Ok(Sent::Pending(id))
    }

    /// Announces a message at once, if nothing waits before it and there is room and credit.
    #[inline]
    pub(super) fn announce_now(
        &mut self,
        index: usize,
        source: L::Source,
        place: Option<Place>,
        envelope: &Envelope,
    ) -> Result<Option<RequestId>, Refusal> {
        let len = L::source_len(&source);
        let status = Status::of(self.peer_id(index), envelope, len as u64);
        let partner = &mut self.partners[index];
        if !partner.queue.is_empty() {
            return Ok(None);
        }
        let id = self.requests.add(Body::Sending { source, announced: true }, status)?;
        let first = announcement(envelope, len, id.index(), place.is_some());
        match send_announcement(partner, &first, place) {
            Ok(true) => {
                partner.count_sent(len);
                if let Some(lane) = partner.lane.as_mut() {
                    lane.ring();
                }
                Ok(Some(id))
            }
            Ok(false) => {
                self.requests.free(id.index());
                Ok(None)
            }
            Err(fault) => {
                self.requests.free(id.index());
                self.part(index, StatusCode::PeerMisbehaved, fault.0, true);
                Err(Refusal::PeerGone(StatusCode::PeerMisbehaved))
            }
        }
    }

    /// A message to oneself: copied when the receive is there, else it waits as unexpected.
    fn send_to_self(&mut self, source: L::Source, envelope: &Envelope) -> Result<Sent, Refusal> {
        let len = L::source_len(&source) as u64;
        let status = Status::of(PeerId::SELF, envelope, len);
        let request = self.requests.add(Body::Sending { source, announced: false }, status)?;
        self.arrive_from_self(request.index(), envelope, len);
        Ok(Sent::Pending(request))
    }

    /// Sends what waits for a peer, as far as there is room. Returns whether anything moved.
    pub(super) fn flush(&mut self, index: usize) -> bool {
        let moved = self.try_flush(index);
        match moved {
            Ok(moved) => {
                if moved && let Some(lane) = self.partners[index].lane.as_mut() {
                    lane.ring();
                }
                moved
            }
            Err(fault) => {
                self.part(index, StatusCode::PeerMisbehaved, fault.0, true);
                true
            }
        }
    }

    fn try_flush(&mut self, index: usize) -> Result<bool, LaneFault> {
        let mut moved = self.flush_answers(index)?;
        moved |= self.flush_queue(index)?;
        moved |= self.flush_moving(index);
        moved |= self.flush_streams(index)?;
        moved |= self.flush_pulls(index);
        moved |= self.flush_operations(index)?;
        // What the last ones have to say.
        if moved {
            self.flush_answers(index)?;
        }
        Ok(moved)
    }

    fn flush_answers(&mut self, index: usize) -> Result<bool, LaneFault> {
        let mut moved = false;
        while let Some(answer) = self.partners[index].answers.front() {
            let sent = match *answer {
                Answer::Tell { region } => self.send_tell(index, region)?,
                Answer::Frame { message, returns_credit } => {
                    let Some(lane) = self.partners[index].lane.as_mut() else { break };
                    let sent = lane.push(&message.emit(), None)?;
                    if sent && returns_credit {
                        lane.return_credits(0, 1);
                    }
                    sent
                }
            };
            if !sent {
                break;
            }
            self.partners[index].answers.pop_front();
            moved = true;
        }
        Ok(moved)
    }

    fn flush_queue(&mut self, index: usize) -> Result<bool, LaneFault> {
        let mut moved = false;
        while let Some(mut send) = self.partners[index].queue.pop_front() {
            let partner = &mut self.partners[index];
            let before = (send.done, send.paid);
            let finished = match send.first {
                Message::Rts { .. } => send_announcement(partner, &send.first, send.place)?,
                _ => continue_eager(partner, &mut send)?,
            };
            moved |= finished || before != (send.done, send.paid);
            if !finished {
                partner.queue.push_front(send);
                break;
            }
            let len = L::source_len(&send.source);
            partner.count_sent(len);
            if let Message::Rts { .. } = send.first {
                if let Body::Sending { announced, .. } = &mut self.requests.slot(send.request).body
                {
                    *announced = true;
                }
            } else {
                self.requests.complete(send.request, StatusCode::Success, len as u64);
            }
        }
        Ok(moved)
    }

    fn flush_streams(&mut self, index: usize) -> Result<bool, LaneFault> {
        let mut moved = false;
        loop {
            let partner = &mut self.partners[index];
            let Some(lane) = partner.lane.as_mut() else { return Ok(moved) };
            let Some(stream) = partner.streams.front_mut() else { return Ok(moved) };
            while stream.next < stream.end {
                let message = Message::Data { recv_id: stream.recv_id, offset: stream.next as u64 };
                let len = fragment_bytes(stream.next, stream.end - stream.next);
                if !lane.push(&message.emit(), Some((&stream.source, stream.next, len)))? {
                    return Ok(moved);
                }
                // Woken at the first piece, the peer copies while we go on.
                if stream.next == 0 {
                    lane.ring();
                }
                stream.next += len;
                moved = true;
            }
            let sent = stream.end as u64;
            let request = match stream.end_of {
                StreamEnd::Send(request) => Some(request),
                StreamEnd::Put => None,
                StreamEnd::Served => {
                    partner.served = Served::Nothing;
                    None
                }
            };
            partner.streams.pop_front();
            let Some(request) = request else { continue };
            let whole = sent == self.requests.slot(request).status.message_bytes;
            let code = if whole { StatusCode::Success } else { StatusCode::Truncated };
            self.requests.complete(request, code, sent);
        }
    }
}

impl<L: Lane> Partner<L> {
    #[inline(always)]
    fn count_sent(&mut self, len: usize) {
        self.traffic.tx_messages += 1;
        self.traffic.tx_bytes += len as u64;
    }

    /// Pays for a message, after asking what came back if need be.
    #[inline]
    fn try_pay(&mut self, bytes: usize) -> Result<bool, LaneFault> {
        if self.credit.try_pay(bytes as u64) {
            return Ok(true);
        }
        let Some(lane) = self.lane.as_ref() else { return Ok(false) };
        let returned = lane.credits_returned();
        self.credit.update(returned)?;
        Ok(self.credit.try_pay(bytes as u64))
    }
}

#[inline(always)]
fn eager(envelope: &Envelope, len: usize) -> Message {
    Message::Eager {
        match_info: envelope.match_info,
        immediate: envelope.immediate,
        space: envelope.space,
        length: len as u64,
    }
}

pub(super) fn announcement(envelope: &Envelope, len: usize, send_id: u32, placed: bool) -> Message {
    Message::Rts {
        match_info: envelope.match_info,
        immediate: envelope.immediate,
        space: envelope.space,
        length: len as u64,
        send_id,
        placed,
    }
}

/// Pays for an eager message and sends as much of it as there is room for. `None`: nothing left,
/// and nothing was paid.
#[inline(always)]
fn send_eager<L: Lane>(
    partner: &mut Partner<L>,
    source: &L::Source,
    first: &Message,
    done: usize,
) -> Result<Option<usize>, LaneFault> {
    let len = L::source_len(source);
    if !partner.try_pay(len)? {
        return Ok(None);
    }
    let Some(lane) = partner.lane.as_mut() else { return Ok(None) };
    debug_assert!(done == 0);
    let piece = fragment_bytes(0, len);
    if !lane.push(&first.emit(), Some((source, 0, piece)))? {
        partner.credit.refund(len as u64);
        return Ok(None);
    }
    lane.ring();
    if piece == len {
        return Ok(Some(len));
    }
    send_more(lane, source, piece).map(Some)
}

/// Sends the further parts of an eager message; returns how much has left.
fn send_more<L: Lane>(
    lane: &mut L,
    source: &L::Source,
    mut done: usize,
) -> Result<usize, LaneFault> {
    let len = L::source_len(source);
    while done < len {
        let piece = fragment_bytes(done, len - done);
        if !lane.push(&Message::More.emit(), Some((source, done, piece)))? {
            break;
        }
        done += piece;
    }
    lane.ring();
    Ok(done)
}

fn continue_eager<L: Lane>(
    partner: &mut Partner<L>,
    send: &mut QueuedSend<L>,
) -> Result<bool, LaneFault> {
    let len = L::source_len(&send.source);
    if !send.paid {
        match send_eager(partner, &send.source, &send.first, 0)? {
            None => return Ok(false),
            Some(done) => {
                send.done = done;
                send.paid = true;
            }
        }
    } else if let Some(lane) = partner.lane.as_mut() {
        send.done = send_more(lane, &send.source, send.done)?;
    }
    Ok(send.done == len)
}

fn send_announcement<L: Lane>(
    partner: &mut Partner<L>,
    first: &Message,
    place: Option<Place>,
) -> Result<bool, LaneFault> {
    if !partner.try_pay(0)? {
        return Ok(false);
    }
    let Some(lane) = partner.lane.as_mut() else { return Ok(false) };
    let pushed = match place {
        Some(Place { grant, offset }) => {
            lane.push_body(&first.emit(), &[grant, offset, 0, 0], SHORT_BODY_BYTES)?
        }
        None => lane.push(&first.emit(), None)?,
    };
    if !pushed {
        partner.credit.refund(0);
        return Ok(false);
    }
    Ok(true)
}
