// SPDX-License-Identifier: Apache-2.0
//! For doors in whose interface every operation has a request: MX's.
//!
//! There a send that has left at once is complete but still waits for somebody to ask, in one queue
//! of completions with receives and connects. A receive from anybody waits for peers to come, even
//! if the last one has died.

use super::request::Body;
use super::{Envelope, Machine, PeerId, Refusal, RequestId, Sent, Status, StatusCode};
use crate::lane::Lane;
use crate::limits::REQUESTS_MAX;

impl<L: Lane> Machine<L> {
    /// As [`Machine::isend`], with a request in any case.
    ///
    /// # Errors
    /// As [`Machine::isend`].
    #[inline]
    pub fn isend_kept(
        &mut self,
        source: L::Source,
        dest: PeerId,
        envelope: &Envelope,
    ) -> Result<RequestId, Refusal> {
        // Before the message leaves: then it must have its request.
        if self.requests.len() >= REQUESTS_MAX {
            return Err(Refusal::NoResources);
        }
        let len = L::source_len(&source) as u64;
        match self.isend(source, dest, envelope)? {
            Sent::Pending(id) => Ok(id),
            Sent::Done => {
                let status = Status { transferred_bytes: len, ..Status::of(dest, envelope, len) };
                Ok(self.requests.add_complete(status))
            }
        }
    }

    /// A request that has ended already, so that its failure is told when somebody asks.
    ///
    /// # Errors
    /// [`Refusal::NoResources`] when there are too many requests.
    pub fn add_ended(&mut self, status: Status) -> Result<RequestId, Refusal> {
        if self.requests.len() >= REQUESTS_MAX {
            return Err(Refusal::NoResources);
        }
        Ok(self.requests.add_complete(status))
    }

    /// Gives a request the match info by which searches find it: a connect has none of its own.
    ///
    /// # Errors
    /// [`Refusal::BadRequest`] when there is no such request.
    pub fn label(&mut self, id: RequestId, match_info: u64) -> Result<(), Refusal> {
        let index = self.requests.check(id)?;
        self.requests.slot(index).status.match_info = match_info;
        Ok(())
    }

    /// Hides a request from searches: its call waits for it by name, and another thread that asks for
    /// whatever is complete must not get it.
    ///
    /// # Errors
    /// [`Refusal::BadRequest`] when there is no such request.
    pub fn keep_private(&mut self, id: RequestId) -> Result<(), Refusal> {
        let index = self.requests.check(id)?;
        self.requests.make_private(index);
        Ok(())
    }

    /// The oldest complete request, which stays: MX's `peek`.
    #[must_use]
    pub fn oldest_complete(&mut self) -> Option<RequestId> {
        self.requests.first_complete()
    }

    /// As [`Machine::cancel`], but a request that is cancelled stays and is complete.
    ///
    /// # Errors
    /// As [`Machine::cancel`].
    pub fn cancel_kept(&mut self, id: RequestId) -> Result<bool, Refusal> {
        let index = self.requests.check(id)?;
        if self.requests.is_complete(id)? {
            return Ok(false);
        }
        if self.requests.is_send(index) {
            return Err(Refusal::BadRequest);
        }
        let cancelled = self.requests.is_connect(index)
            || !self.matcher.remove_posted(|_, posted| posted == index).is_empty();
        if cancelled && !self.requests.end_multi(index, StatusCode::Cancelled) {
            self.requests.complete(index, StatusCode::Cancelled, 0);
        }
        Ok(cancelled)
    }

    /// The peer of a send that has not even been announced yet: it waits for room there, or credit.
    #[must_use]
    pub fn stuck_send(&mut self, id: RequestId) -> Option<PeerId> {
        let index = self.requests.check(id).ok()?;
        let slot = self.requests.slot(index);
        let peer = slot.status.source;
        let Body::Sending { announced: false, .. } = slot.body else { return None };
        let partner = self.partner_index(peer).ok()?;
        self.partners[partner].queue.iter().any(|send| send.request == index).then_some(peer)
    }

    /// Sends may wait for a peer for as long as there are requests for them.
    pub fn queue_every_send(&mut self) {
        self.queued_sends_max = REQUESTS_MAX;
    }

    /// Receives that name no source wait for peers to come, whoever has died (not rule 5).
    pub fn receives_outlive_peers(&mut self) {
        self.receives_outlive_peers = true;
    }
}
