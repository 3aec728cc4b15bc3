// SPDX-License-Identifier: Apache-2.0
//! The endpoint machine: requests, partners, and the protocols between them.
//!
//! # Protocols of one host
//!
//! ```text
//!   eager       sender: EAGER [MORE ...]                     up to 64 KiB, paid with credit
//!   rendezvous  sender: RTS   receiver: CTS   sender: DATA.. longer, or synchronous
//!   granted     sender: RTS   receiver copies, DONE          longer, out of granted memory
//!   loan        sender: RTS   receiver looks ..., DONE       see `loan`
//!   regions     ASK, TELL, PUT, GET, ATOMIC, ANSWER          see `region` and `remote`
//!   self        one copy when both sides have been posted    always synchronous
//!   close       CLOSE, or the lane's closing flag
//! ```
//!
//! A large message out of granted memory is copied once, by its receiver. Any other crosses the same
//! area as a small one, in pipelined pieces: two copies that overlap were measured faster than one
//! copy by the kernel at every size, and need no right over the peer's process
//! (`docs/decisions/0002-two-copies.md`).
//!
//! # Life of a request
//!
//! ```text
//!   send:  (done at once, no request)
//!          Queued -> [Announced -> Streaming] -> Complete
//!   recv:  Posted -> [Filling] -> Complete
//!   any:   Complete -> tested, and freed
//! ```
//!
//! # Rules
//!
//! 1. Everything that a peer sends can be taken off its ring at once: data goes to its receive, or
//!    into memory that the sender paid for ([`crate::credit`]). Polling never stalls behind a
//!    message that nobody wants.
//! 2. Messages to one peer leave in the order of their sends: while one waits for room or credit,
//!    all later ones wait behind it. Control frames and accepted data may overtake them, since
//!    they answer what was matched already.
//! 3. Polling costs the same however many idle peers there are: the two most recently active
//!    partners are looked at every time, the others one at a time in turn.
//! 4. A peer that breaks the protocol loses its channel; nothing else notices.
//! 5. A receive that names no source waits for anybody. It fails only when the last live peer
//!    *died* (or misbehaved) under it: nobody who could still answer is left.
//!
//! Calling order: any command or `poll`, then `ring_doorbells` is implied (each command rings for
//! what it sent). `take_handler_call` after every `poll` while a handler is installed.

mod burst;
mod handler;
mod kept;
mod loan;
mod multi;
mod partner;
mod progress;
mod pull;
mod receive;
mod region;
mod remote;
mod request;
mod send;

use std::collections::HashMap;

use crate::frame::Space;
use crate::lane::Lane;
use crate::limits::QUEUED_SENDS_MAX;
use crate::matching::{ContextBits, Matcher};

pub use handler::{HandlerAction, HandlerCall};
pub use loan::Loan;
pub use multi::MultiEvent;
pub use partner::Traffic;
pub use receive::Claim;
pub use region::Exposed;
pub use remote::Reach;

use handler::Pending;
use partner::Partner;
use receive::Arrivals;
use request::Requests;

/// Names a peer of one endpoint; a later peer in the same place has another name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerId(u32);

impl PeerId {
    /// The endpoint itself.
    pub const SELF: Self = Self(u32::MAX);

    /// The name as a number, for the doors.
    #[inline(always)]
    #[must_use]
    pub fn to_raw(self) -> u32 {
        self.0
    }

    /// The name from a number; a made-up one names nobody.
    #[inline(always)]
    #[must_use]
    pub fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    #[inline(always)]
    fn new(index: usize, generation: u16) -> Self {
        Self(index as u32 | u32::from(generation) << 16)
    }

    #[inline(always)]
    fn index(self) -> usize {
        (self.0 & 0xffff) as usize
    }
}

/// Names a request of one endpoint; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(u64);

impl RequestId {
    /// The name as a number, for the doors.
    #[inline(always)]
    #[must_use]
    pub fn to_raw(self) -> u64 {
        self.0
    }

    /// The name from a number; a made-up one names nothing.
    #[inline(always)]
    #[must_use]
    pub fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    #[inline(always)]
    fn new(index: u32, generation: u32) -> Self {
        Self(u64::from(index) | u64::from(generation) << 32)
    }

    #[inline(always)]
    fn index(self) -> u32 {
        self.0 as u32
    }

    #[inline(always)]
    fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// What a message carries besides its data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    /// 64 bits to match on.
    pub match_info: u64,
    /// 32 bits that ride along and take no part in matching.
    pub immediate: u32,
    /// Match space.
    pub space: Space,
    /// Complete only after the receive has matched.
    pub synchronous: bool,
}

/// What a receive or a probe looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selector {
    /// Value of the masked match info.
    pub match_info: u64,
    /// Bits that count; a value with other bits set is refused.
    pub mask: u64,
    /// The only sender that will do, if any.
    pub source: Option<PeerId>,
    /// Match space.
    pub space: Space,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StatusCode {
    /// All went well.
    Success,
    /// The receive was shorter than the message; the rest is lost.
    Truncated,
    /// Cancelled before it matched.
    Cancelled,
    /// This endpoint was closed, or disconnected from the peer.
    EndpointClosed,
    /// The peer closed its endpoint.
    PeerClosed,
    /// The peer's process died.
    PeerDied,
    /// The peer wrote nonsense; its channel is closed.
    PeerMisbehaved,
    /// The connection was refused; see the endpoint's connect error.
    Refused,
    /// The key does not open the region, or not for this.
    Denied,
    /// The region was revoked by its owner.
    Revoked,
    /// The place lies outside of the region, or is not aligned.
    OutOfRange,
    /// There was no memory to copy a loan to.
    NoMemory,
}

/// The result of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// How it ended.
    pub code: StatusCode,
    /// Sender of a received message; destination of a sent one; the new peer of a connect.
    pub source: PeerId,
    /// Match info of the message.
    pub match_info: u64,
    /// Immediate data of the message.
    pub immediate: u32,
    /// Match space.
    pub space: Space,
    /// Full length of the message in bytes.
    pub message_bytes: u64,
    /// Bytes that arrived in the receive's buffer.
    pub transferred_bytes: u64,
}

impl Status {
    fn of(source: PeerId, envelope: &Envelope, message_bytes: u64) -> Self {
        Self {
            code: StatusCode::Success,
            source,
            match_info: envelope.match_info,
            immediate: envelope.immediate,
            space: envelope.space,
            message_bytes,
            transferred_bytes: 0,
        }
    }
}

/// What became of a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The data has left the buffer; there is nothing to wait for.
    Done,
    /// Under way; the buffer is still needed.
    Pending(RequestId),
}

/// A call that the machine refuses; the caller's affair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// No such peer, or not any more.
    NotConnected,
    /// The peer is gone, and how.
    PeerGone(StatusCode),
    /// Too many sends are waiting for this peer already.
    Busy,
    /// Too many requests or peers.
    NoResources,
    /// The match value has bits outside the mask.
    BadMask,
    /// The receive does not fix the context id.
    BadContext,
    /// No such request, or it was completed already.
    BadRequest,
    /// The key does not allow this, or the region is another peer's.
    Denied,
    /// The place lies outside of the region, or is not aligned.
    OutOfRange,
    /// An endpoint lends nothing to itself.
    ToSelf,
    /// Loans have receives of their own.
    BadSpace,
}

/// One endpoint's state; see the module essay.
pub struct Machine<L: Lane> {
    requests: Requests<L>,
    partners: Vec<Partner<L>>,
    matcher: Matcher<u32, u32>,
    arrivals: Arrivals,
    /// The two partners that were active last; may name empty places.
    hot: [u16; 2],
    /// The partner whose turn it is among the others.
    cursor: u16,
    /// The last look left the others out.
    skip: bool,
    live_partners: usize,
    /// How often the last live peer died, and how it last did.
    last_deaths: (u64, StatusCode),
    receives_outlive_peers: bool,
    /// Sends that may wait for one peer.
    queued_sends_max: usize,
    handler_installed: bool,
    pending_handler: Option<Pending>,
    regions: HashMap<u32, region::Region<L>>,
    next_region: u32,
    /// Loans that came, until they are taken: few at a time, and the newest first.
    loans: Vec<(RequestId, Loan<L::View>)>,
    /// Loan receives that may wait for memory.
    wanting: Vec<RequestId>,
    /// Peers that failed and that nobody has been told of yet.
    departed: Vec<(PeerId, StatusCode, &'static str)>,
}

impl<L: Lane> Machine<L> {
    /// An endpoint without peers.
    #[must_use]
    pub fn new(context: ContextBits) -> Self {
        Self {
            requests: Requests::default(),
            partners: Vec::new(),
            matcher: Matcher::new(context),
            arrivals: Arrivals::default(),
            hot: [0, 0],
            cursor: 0,
            skip: false,
            live_partners: 0,
            last_deaths: (0, StatusCode::Success),
            receives_outlive_peers: false,
            queued_sends_max: QUEUED_SENDS_MAX,
            handler_installed: false,
            pending_handler: None,
            regions: HashMap::new(),
            // Zero is the number of no region.
            next_region: 1,
            loans: Vec::new(),
            wanting: Vec::new(),
            departed: Vec::new(),
        }
    }

    /// Requests that exist, complete or not.
    #[must_use]
    pub fn request_count(&self) -> usize {
        self.requests.len()
    }

    /// Receives waiting for a message.
    #[must_use]
    pub fn posted_count(&self) -> usize {
        self.matcher.posted_count()
    }

    /// Messages waiting for a receive, and their bytes held here.
    #[must_use]
    pub fn unexpected(&self) -> (usize, u64) {
        let bytes = self.partners.iter().map(|p| p.held.held().0).sum();
        (self.matcher.unexpected_count(), bytes)
    }

    /// The status of a complete request, which is freed; `None` while it is under way.
    ///
    /// # Errors
    /// [`Refusal::BadRequest`] when there is no such request.
    #[inline]
    pub fn test(&mut self, id: RequestId) -> Result<Option<Status>, Refusal> {
        self.requests.take_complete(id)
    }

    /// As [`Machine::test`], if it has ended with success; any other is left as it is.
    #[inline]
    pub fn test_success(&mut self, id: RequestId) -> Option<Status> {
        let index = self.requests.check(id).ok()?;
        if self.requests.slot(index).status.code != StatusCode::Success {
            return None;
        }
        self.requests.take_complete(id).ok()?
    }

    /// Whether a request is complete, without freeing it.
    ///
    /// # Errors
    /// [`Refusal::BadRequest`] when there is no such request.
    #[inline]
    pub fn is_complete(&self, id: RequestId) -> Result<bool, Refusal> {
        self.requests.is_complete(id)
    }

    /// How often the last live peer died (or misbehaved), and how it last did. Rule 5 for those who
    /// wait without a posted receive: they look whether the count has changed.
    #[must_use]
    pub fn last_deaths(&self) -> (u64, StatusCode) {
        self.last_deaths
    }

    /// The oldest complete request whose match info fits; freed. MX's `test_any`.
    ///
    /// # Errors
    /// [`Refusal::BadMask`] when the value has bits outside the mask.
    pub fn test_matching(
        &mut self,
        match_info: u64,
        mask: u64,
    ) -> Result<Option<(RequestId, Status)>, Refusal> {
        if match_info & !mask != 0 {
            return Err(Refusal::BadMask);
        }
        Ok(self.requests.take_first_complete(|status| status.match_info & mask == match_info))
    }

    /// Lets a request finish unseen: it is freed when it completes.
    pub fn forget(&mut self, id: RequestId) {
        self.requests.forget(id);
        if let Some(loan) = self.take_loan(id) {
            self.let_go(loan.lender, loan.send_id, loan.len);
        }
    }

    /// Cancels a receive that has not matched, or a connect; `false` when it is too late. A
    /// cancelled request is freed.
    ///
    /// # Errors
    /// [`Refusal::BadRequest`] when there is no such request, or it is a send.
    pub fn cancel(&mut self, id: RequestId) -> Result<bool, Refusal> {
        let index = self.requests.check(id)?;
        if self.requests.is_complete(id)? {
            return Ok(false);
        }
        if self.requests.is_connect(index) {
            self.requests.free(index);
            return Ok(true);
        }
        if self.requests.is_send(index) {
            return Err(Refusal::BadRequest);
        }
        let was_posted = !self.matcher.remove_posted(|_, posted| posted == index).is_empty();
        if was_posted && !self.requests.end_multi(index, StatusCode::Cancelled) {
            self.requests.free(index);
        }
        Ok(was_posted)
    }

    /// A request that completes when an introduction does.
    ///
    /// # Errors
    /// [`Refusal::NoResources`] when there are too many requests.
    pub fn begin_connect(&mut self) -> Result<RequestId, Refusal> {
        self.requests.add_connect()
    }

    /// Completes a connect with its peer, or with the failure. Unknown requests (cancelled ones)
    /// are ignored.
    pub fn finish_connect(&mut self, id: RequestId, result: Result<PeerId, StatusCode>) {
        self.requests.finish_connect(id, result);
    }

    /// Ends every request with `EndpointClosed` and tells every peer.
    pub fn close(&mut self) {
        for index in 0..self.partners.len() {
            self.part(index, StatusCode::EndpointClosed, "closed by us", true);
        }
        let _ = self.matcher.remove_posted(|_, _| true);
        let _ = self.matcher.remove_unexpected(|_, _| true);
        self.arrivals.clear();
        self.pending_handler = None;
        self.regions.clear();
        self.loans.clear();
        self.requests.fail_all(StatusCode::EndpointClosed);
    }

    /// Whether [`Machine::take_departed`] has something.
    #[inline(always)]
    #[must_use]
    pub fn has_departed(&self) -> bool {
        !self.departed.is_empty()
    }

    /// A peer that failed or left since the last call, how, and why in words.
    pub fn take_departed(&mut self) -> Option<(PeerId, StatusCode, &'static str)> {
        self.departed.pop()
    }
}

#[cfg(test)]
mod tests;
