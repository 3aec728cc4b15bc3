// SPDX-License-Identifier: Apache-2.0
//! Announced messages whose data the receiver takes straight out of granted memory.
//!
//! One copy, made by the receiver, and no system call. A long one is copied a stretch at a time, so
//! that others get their turn. When the sender has taken the memory back meanwhile, the receiver
//! asks for the data through the channel, from the start.

use super::partner::{Answer, Partner};
use super::receive::outcome;
use super::request::Body;
use super::{Machine, Status};
use crate::frame::Message;
use crate::granted::Place;
use crate::lane::Lane;
use crate::limits::COPY_BYTES;

/// A message on its way out of granted memory.
pub(super) struct Pull<L: Lane> {
    pub request: u32,
    pub send_id: u32,
    pub place: Place,
    pub sink: L::Sink,
    pub next: usize,
    pub end: usize,
}

impl<L: Lane> Machine<L> {
    /// Begins to take an announced message out of granted memory. `false`: it cannot be had there.
    pub(super) fn begin_pull(
        &mut self,
        request: u32,
        sink: L::Sink,
        status: &Status,
        send_id: u32,
        place: Place,
    ) -> bool {
        let Ok(index) = self.partner_index(status.source) else { return false };
        let partner = &mut self.partners[index];
        let Some(lane) = partner.lane.as_mut() else { return false };
        let end = status.message_bytes.min(L::sink_len(&sink) as u64) as usize;
        if !lane.is_live(&place) {
            return false;
        }
        partner.pulls.push_back(Pull { request, send_id, place, sink, next: 0, end });
        self.requests.slot(request).body = Body::Pulling;
        self.flush(index);
        true
    }

    /// Copies the next stretch of the message at the front. Returns whether anything moved.
    pub(super) fn flush_pulls(&mut self, index: usize) -> bool {
        let partner = &mut self.partners[index];
        let Some(pull) = partner.pulls.front_mut() else { return false };
        let Some(lane) = partner.lane.as_mut() else { return false };
        let len = (pull.end - pull.next).min(COPY_BYTES);
        if lane.copy_placed(&pull.place, pull.next, &pull.sink, len).is_err() {
            self.stream_instead(index);
            return true;
        }
        pull.next += len;
        if pull.next == pull.end {
            let (request, send_id, end) = (pull.request, pull.send_id, pull.end as u64);
            partner.pulls.pop_front();
            partner.answer_announcement(Message::Done { send_id, taken: end });
            let length = self.requests.slot(request).status.message_bytes;
            self.requests.complete(request, outcome(end, length), end);
        }
        true
    }

    /// The memory of the pull at the front is gone: the data comes through the channel.
    #[cold]
    fn stream_instead(&mut self, index: usize) {
        let partner = &mut self.partners[index];
        let Some(pull) = partner.pulls.pop_front() else { return };
        let Pull { request, send_id, sink, end, .. } = pull;
        let accepted = end as u64;
        partner.answer_announcement(Message::Cts { send_id, recv_id: request, accepted });
        self.await_data(request, sink, accepted);
    }

    /// The receiver has taken a message that we announced, or let a loan go.
    pub(super) fn take_done(
        &mut self,
        index: usize,
        send_id: u32,
        taken: u64,
    ) -> Result<(), crate::lane::LaneFault> {
        let peer = self.peer_id(index);
        let fault = crate::lane::LaneFault("it took a message that was not announced to it");
        let slot = self.requests.alleged(send_id).ok_or(fault)?;
        let length = slot.status.message_bytes;
        let Body::Sending { announced: true, .. } = slot.body else { return Err(fault) };
        if slot.status.source != peer || taken > length {
            return Err(fault);
        }
        self.requests.complete(send_id, outcome(taken, length), taken);
        Ok(())
    }
}

impl<L: Lane> Partner<L> {
    /// Queues the answer to an announcement, which is paid for until it has left: so a peer that does
    /// not read cannot have more than its credit of them wait here.
    pub fn answer_announcement(&mut self, message: Message) {
        self.answers.push_back(Answer::Frame { message, returns_credit: true });
    }

    /// Queues an answer that has no body and gives no credit back.
    pub fn answer(&mut self, message: Message) {
        self.answers.push_back(Answer::Frame { message, returns_credit: false });
    }
}
