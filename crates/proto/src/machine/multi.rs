// SPDX-License-Identifier: Apache-2.0
//! Multi-receive: one large buffer that takes many messages.
//!
//! The receive stays posted until fewer than `min_free` bytes are left; each message becomes a
//! child receive on its part of the buffer. Parts are handed out in the order of matching, which
//! may differ from the order of completion: a delivery says where its data lies.

use std::collections::VecDeque;

use super::receive::posted_status;
use super::request::{Body, Requests};
use super::{Machine, Refusal, RequestId, Selector, Status, StatusCode};
use crate::frame::Space;
use crate::lane::Lane;
use crate::matching::Key;

/// What happened on a multi-receive buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MultiEvent {
    /// A message lies at `offset` of the buffer.
    Delivery {
        /// Where, in bytes.
        offset: usize,
        /// The message.
        status: Status,
    },
    /// Nothing new.
    Nothing,
    /// The buffer is used up (or the receive was cancelled, or failed): it is free again, and the
    /// request with it.
    Released(StatusCode),
}

pub(super) struct Multi<L: Lane> {
    sink: L::Sink,
    used: usize,
    min_free: usize,
    posted: bool,
    /// Messages on their way into the buffer.
    open: usize,
    deliveries: VecDeque<(usize, Status)>,
    end: StatusCode,
}

impl<L: Lane> Multi<L> {
    fn free(&self) -> usize {
        L::sink_len(&self.sink) - self.used
    }
}

impl<L: Lane> Machine<L> {
    /// Posts a buffer for many messages.
    ///
    /// # Errors
    /// As [`Machine::irecv`].
    pub fn post_multi(
        &mut self,
        sink: L::Sink,
        min_free: usize,
        selector: &Selector,
    ) -> Result<RequestId, Refusal> {
        let pattern = self.pattern(selector)?;
        if selector.space == Space::Lent {
            return Err(Refusal::BadSpace);
        }
        if !self.matcher.context().fixed_by(pattern.mask) {
            return Err(Refusal::BadContext);
        }
        self.require_source(selector)?;
        let multi = Multi {
            sink,
            used: 0,
            min_free: min_free.max(1),
            posted: true,
            open: 0,
            deliveries: VecDeque::new(),
            end: StatusCode::Success,
        };
        let id = self.requests.add(Body::Multi, posted_status(selector))?;
        let index = id.index();
        self.requests.multis.insert(index, multi);
        while self.requests.multi_takes(index)
            && let Some((_, arrival)) = self.matcher.take_unexpected(&pattern)
        {
            let length = self.arrivals.get(arrival).status.message_bytes;
            let (child, part) = self.requests.multi_child(index, length);
            self.bind(arrival, child, part);
        }
        if self.requests.multi_takes(index) {
            self.matcher.post(pattern, index);
        } else {
            self.requests.end_multi(index, StatusCode::Success);
        }
        Ok(id)
    }

    /// The next event of a multi-receive buffer.
    ///
    /// # Errors
    /// [`Refusal::BadRequest`] when there is no such request (any more).
    pub fn poll_multi(&mut self, id: RequestId) -> Result<MultiEvent, Refusal> {
        let index = self.requests.check(id)?;
        let multi = self.requests.multi(index).ok_or(Refusal::BadRequest)?;
        if let Some((offset, status)) = multi.deliveries.pop_front() {
            return Ok(MultiEvent::Delivery { offset, status });
        }
        if multi.posted || multi.open > 0 {
            return Ok(MultiEvent::Nothing);
        }
        let end = multi.end;
        self.requests.multis.remove(&index);
        self.requests.free(index);
        Ok(MultiEvent::Released(end))
    }

    /// The oldest receive for a message, ready to be filled.
    #[inline(always)]
    pub(super) fn match_posted(&mut self, key: &Key, length: u64) -> Option<(u32, L::Sink)> {
        let requests = &mut self.requests;
        let index = self.matcher.match_message(key, |index| match requests.slot(index).body {
            Body::Multi => requests.multi_stays_posted(index, length),
            _ => false,
        })?;
        match self.requests.slot(index).body {
            Body::Posted { sink } => Some((index, sink)),
            _ => Some(self.requests.multi_child(index, length)),
        }
    }
}

impl<L: Lane> Requests<L> {
    fn multi(&mut self, index: u32) -> Option<&mut Multi<L>> {
        match self.slot(index).body {
            Body::Multi => self.multis.get_mut(&index),
            _ => None,
        }
    }

    fn multi_takes(&mut self, index: u32) -> bool {
        self.multi(index).is_some_and(|multi| multi.posted && multi.free() >= multi.min_free)
    }

    #[cold]
    fn multi_stays_posted(&mut self, index: u32, length: u64) -> bool {
        let Some(multi) = self.multi(index) else { return false };
        multi.posted = multi.free().saturating_sub(charge(length)) >= multi.min_free;
        multi.posted
    }

    /// A receive on the next part of a multi-receive buffer.
    fn multi_child(&mut self, index: u32, length: u64) -> (u32, L::Sink) {
        let Some(multi) = self.multi(index) else { unreachable!("not a multi-receive") };
        let offset = multi.used;
        let part = L::sink_part(&multi.sink, offset, clamp(length));
        multi.used = L::sink_len(&multi.sink).min(offset.saturating_add(charge(length)));
        multi.open += 1;
        let status = self.slot(index).status;
        let child = self.add_required(Body::Posted { sink: part }, status).index();
        self.slot(child).parent = Some((index, offset));
        (child, part)
    }

    pub(super) fn deliver_to_multi(&mut self, index: u32, offset: usize, status: Status) {
        let wanted = !self.slot(index).forgotten;
        let Some(multi) = self.multi(index) else { return };
        multi.open -= 1;
        if wanted {
            multi.deliveries.push_back((offset, status));
        }
        self.free_forgotten_multi(index);
    }

    /// A multi-receive takes no more messages; `false` when the request is not one.
    pub(super) fn end_multi(&mut self, index: u32, end: StatusCode) -> bool {
        let Some(multi) = self.multi(index) else { return false };
        multi.posted = false;
        multi.end = end;
        self.free_forgotten_multi(index);
        true
    }

    /// A multi-receive that nobody will ask again goes with its last message.
    pub(super) fn free_forgotten_multi(&mut self, index: u32) {
        let forgotten = self.slot(index).forgotten;
        let Some(multi) = self.multi(index) else { return };
        if forgotten {
            multi.deliveries.clear();
            if !multi.posted && multi.open == 0 {
                self.multis.remove(&index);
                self.free(index);
            }
        }
    }
}

/// Bytes of the buffer that a message uses up. An empty one takes a byte, so that the deliveries
/// which wait for the program are as bounded as the buffer is.
fn charge(length: u64) -> usize {
    clamp(length).max(1)
}

fn clamp(length: u64) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}
