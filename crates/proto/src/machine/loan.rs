// SPDX-License-Identifier: Apache-2.0
//! Loans: the receiver looks at the sender's memory where it lies, until it lets go.
//!
//! ```text
//!   lender                                    borrower
//!   lend: RTS in the space of loans  ------>  matches a posted loan receive, or waits for one
//!         (with the place of the data)        a view of the place: the request is complete
//!   complete: may write again  <------ DONE   lets go
//! ```
//!
//! Where the place cannot be reached (the switched road, say) the borrower gets a copy: the caller of
//! the machine provides memory for it ([`Machine::take_wanting`]), the data comes through the channel,
//! and the loan is back with its lender as soon as it has left.

use super::request::Body;
use super::send::announcement;
use super::{Envelope, Machine, PeerId, Refusal, RequestId, Selector, Sent, Status, StatusCode};
use crate::frame::{Message, Space};
use crate::granted::Place;
use crate::lane::Lane;

/// A loan that has come: to be let go with [`Machine::let_go`]. Until then it counts as a message
/// that its lender has outstanding.
#[derive(Debug)]
pub struct Loan<V> {
    /// The memory.
    pub view: V,
    /// Its lender.
    pub lender: PeerId,
    /// The lender's name for it.
    pub send_id: u32,
    /// Its length in bytes.
    pub len: u64,
}

impl<L: Lane> Machine<L> {
    /// Lends memory to a peer. The request is complete when the peer has let go, or is gone.
    ///
    /// # Errors
    /// As [`Machine::isend`]; [`Refusal::ToSelf`].
    pub fn lend(
        &mut self,
        source: L::Source,
        dest: PeerId,
        envelope: &Envelope,
    ) -> Result<RequestId, Refusal> {
        if dest == PeerId::SELF {
            return Err(Refusal::ToSelf);
        }
        let index = self.partner_index(dest)?;
        let partner = &mut self.partners[index];
        let Some(lane) = partner.lane.as_mut() else {
            return Err(Refusal::PeerGone(partner.gone));
        };
        let place = lane.place(&source, false).place();
        let envelope = Envelope { space: Space::Lent, ..*envelope };
        if let Some(request) = self.announce_now(index, source, place, &envelope)? {
            return Ok(request);
        }
        let first = announcement(&envelope, L::source_len(&source), 0, place.is_some());
        match self.enqueue(index, source, first, place, None, &envelope)? {
            Sent::Pending(request) => Ok(request),
            Sent::Done => unreachable!("an announcement waits for its answer"),
        }
    }

    /// Posts a receive for a loan. Once it is complete, [`Machine::take_loan`] has the loan.
    ///
    /// # Errors
    /// As [`Machine::irecv`].
    pub fn irecv_loan(&mut self, selector: &Selector) -> Result<RequestId, Refusal> {
        let selector = Selector { space: Space::Lent, ..*selector };
        let pattern = self.pattern(&selector)?;
        if !self.matcher.context().fixed_by(pattern.mask) {
            return Err(Refusal::BadContext);
        }
        if let Some((_, arrival)) = self.matcher.take_unexpected(&pattern) {
            let status = self.arrivals.get(arrival).status;
            let request = self.requests.add_required(Body::PostedLoan, status);
            self.bind_loan_arrival(arrival, request.index());
            return Ok(request);
        }
        self.require_source(&selector)?;
        let status = super::receive::posted_status(&selector);
        let request = self.requests.add(Body::PostedLoan, status)?;
        self.matcher.post(pattern, request.index());
        Ok(request)
    }

    /// The loan of a request that is complete, or was.
    pub fn take_loan(&mut self, request: RequestId) -> Option<Loan<L::View>> {
        let at = self.loans.iter().rposition(|(held, _)| *held == request)?;
        Some(self.loans.swap_remove(at).1)
    }

    /// A request that has matched a loan whose data must be copied, and the memory that it needs in
    /// bytes. Answer with [`Machine::fill_loan`].
    pub fn take_wanting(&mut self) -> Option<(RequestId, u64)> {
        while let Some(request) = self.wanting.pop() {
            if let Ok(index) = self.requests.check(request)
                && let Body::LoanWaits { .. } = self.requests.slot(index).body
            {
                return Some((request, self.requests.slot(index).status.message_bytes));
            }
        }
        None
    }

    /// Whether [`Machine::take_wanting`] has something.
    #[inline(always)]
    #[must_use]
    pub fn is_wanting(&self) -> bool {
        !self.wanting.is_empty()
    }

    /// Memory for a loan that must be copied, or none: then the request fails, and the loan goes
    /// back.
    pub fn fill_loan(&mut self, request: RequestId, sink: Option<L::Sink>) {
        let Ok(index) = self.requests.check(request) else { return };
        let Body::LoanWaits { send_id } = self.requests.slot(index).body else { return };
        let status = self.requests.slot(index).status;
        match sink {
            Some(sink) => {
                self.requests.slot(index).body = Body::Posted { sink };
                self.accept_stream(index, sink, &status, send_id);
            }
            None => {
                if let Ok(partner) = self.partner_index(status.source) {
                    let refusal = Message::Cts { send_id, recv_id: u32::MAX, accepted: 0 };
                    self.partners[partner].answer_announcement(refusal);
                    self.flush(partner);
                }
                self.requests.complete(index, StatusCode::NoMemory, 0);
            }
        }
    }

    /// Lets a loan go; its lender is told, if it is there.
    pub fn let_go(&mut self, lender: PeerId, send_id: u32, len: u64) {
        let Ok(index) = self.partner_index(lender) else { return };
        let partner = &mut self.partners[index];
        let Some(lane) = partner.lane.as_mut() else { return };
        let done = Message::Done { send_id, taken: len };
        // Most often nothing waits before it.
        if partner.answers.is_empty() && lane.push(&done.emit(), None) == Ok(true) {
            lane.return_credits(0, 1);
            lane.ring();
            return;
        }
        partner.answer_announcement(done);
        self.flush(index);
    }

    pub(super) fn bind_loan_arrival(&mut self, arrival: u32, request: u32) {
        let (status, held) = self.arrivals.remove(arrival);
        let super::receive::Held::Announced { send_id, place } = held else {
            unreachable!("a loan that was not announced")
        };
        self.release_held(status.source, 0);
        self.bind_loan(request, &status, send_id, place);
    }

    /// Joins a loan with the receive that matched it.
    pub(super) fn bind_loan(
        &mut self,
        request: u32,
        status: &Status,
        send_id: u32,
        place: Option<Place>,
    ) {
        let id = self.requests.id(request);
        let slot = self.requests.slot(request);
        slot.status = *status;
        if slot.forgotten {
            self.requests.free(request);
            self.let_go(status.source, send_id, status.message_bytes);
            return;
        }
        let len = status.message_bytes;
        let lane = self.lane_mut(status.source);
        let view = place.zip(lane).and_then(|(place, lane)| lane.view(&place, len).ok());
        match view {
            Some(view) => {
                let loan = Loan { view, lender: status.source, send_id, len };
                self.loans.push((id, loan));
                self.requests.complete(request, StatusCode::Success, len);
            }
            None => {
                self.requests.slot(request).body = Body::LoanWaits { send_id };
                self.wanting.push(id);
            }
        }
    }
}
