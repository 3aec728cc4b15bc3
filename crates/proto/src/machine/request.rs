// SPDX-License-Identifier: Apache-2.0
//! The table of requests: a slab with generations and a list of the complete ones.

use std::collections::HashMap;

use super::multi::Multi;
use super::receive::outcome;
use super::{Envelope, PeerId, Refusal, RequestId, Status, StatusCode};
use crate::lane::Lane;
use crate::limits::REQUESTS_MAX;

const NONE: u32 = u32::MAX;

/// What a request is doing; its data is in the variant.
pub(super) enum Body<L: Lane> {
    Free {
        next: u32,
    },
    /// Complete; linked into the list of complete requests if somebody searches it.
    Complete {
        previous: u32,
        next: u32,
    },
    Connecting,
    /// A send that waits in its partner's queue, for its acceptance, or is being streamed.
    Sending {
        source: L::Source,
        announced: bool,
    },
    /// A receive in the matcher's list.
    Posted {
        sink: L::Sink,
    },
    /// A receive whose message is coming in: `received` of `expected` bytes so far.
    Filling {
        sink: L::Sink,
        received: u64,
        expected: u64,
        rendezvous: bool,
    },
    /// A receive whose message is copied out of granted memory.
    Pulling,
    /// A receive for a loan in the matcher's list.
    PostedLoan,
    /// A loan receive that has matched, and waits for memory to copy to.
    LoanWaits {
        send_id: u32,
    },
    /// An operation on a region of a peer.
    Operation,
    /// A multi-receive; its state is in `multis`, to keep this enum free of drop glue.
    Multi,
}

/// Two cache lines, so that finding one is a shift.
#[repr(align(128))]
pub(super) struct Slot<L: Lane> {
    generation: u32,
    /// Free it when it completes; nobody will ask.
    pub forgotten: bool,
    /// Only its name finds it, and no search: a call waits for it that the program knows nothing of.
    private: bool,
    /// The multi-receive that this receive is a part of, and where its data lies there.
    pub parent: Option<(u32, usize)>,
    pub status: Status,
    pub body: Body<L>,
    /// When it completed, as a count of completions.
    order: u64,
}

pub(super) struct Requests<L: Lane> {
    slots: Vec<Slot<L>>,
    free: u32,
    live: usize,
    /// Completions so far.
    completions: u64,
    /// Whether complete requests are kept in a list. Only programs that search it (MX's `test_any`)
    /// pay for it: from their first search on.
    listed: bool,
    complete_first: u32,
    complete_last: u32,
    pub multis: HashMap<u32, Multi<L>>,
}

impl<L: Lane> Default for Requests<L> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: NONE,
            live: 0,
            completions: 0,
            listed: false,
            complete_first: NONE,
            complete_last: NONE,
            multis: HashMap::new(),
        }
    }
}

impl<L: Lane> Requests<L> {
    pub fn len(&self) -> usize {
        self.live
    }

    #[inline]
    pub fn add(&mut self, body: Body<L>, status: Status) -> Result<RequestId, Refusal> {
        if self.live >= REQUESTS_MAX {
            return Err(Refusal::NoResources);
        }
        Ok(self.add_required(body, status))
    }

    /// As `add`, without the limit: for requests that finish something begun.
    #[inline]
    pub fn add_required(&mut self, body: Body<L>, status: Status) -> RequestId {
        if self.free == NONE {
            self.grow();
        }
        self.live += 1;
        let index = self.free;
        let slot = &mut self.slots[index as usize];
        let Body::Free { next } = slot.body else { unreachable!("a used slot on the free list") };
        self.free = next;
        slot.forgotten = false;
        slot.private = false;
        slot.parent = None;
        slot.status = status;
        slot.body = body;
        RequestId::new(index, slot.generation)
    }

    /// Makes a free slot where there is none.
    #[cold]
    fn grow(&mut self) {
        let index = self.slots.len() as u32;
        self.slots.push(Slot {
            generation: 1,
            forgotten: false,
            private: false,
            parent: None,
            status: Status::of(PeerId::SELF, &Envelope::default(), 0),
            body: Body::Free { next: self.free },
            order: 0,
        });
        self.free = index;
    }

    pub fn add_connect(&mut self) -> Result<RequestId, Refusal> {
        let status = Status::of(PeerId::SELF, &Envelope::default(), 0);
        self.add(Body::Connecting, status)
    }

    #[inline(always)]
    pub fn id(&self, index: u32) -> RequestId {
        RequestId::new(index, self.slots[index as usize].generation)
    }

    #[inline(always)]
    pub fn slot(&mut self, index: u32) -> &mut Slot<L> {
        &mut self.slots[index as usize]
    }

    /// The slot that a peer names; whether it fits is the caller's question.
    #[inline(always)]
    pub fn alleged(&mut self, index: u32) -> Option<&mut Slot<L>> {
        self.slots.get_mut(index as usize)
    }

    #[inline(always)]
    pub fn check(&self, id: RequestId) -> Result<u32, Refusal> {
        match self.slots.get(id.index() as usize) {
            Some(slot) if slot.generation == id.generation() => Ok(id.index()),
            _ => Err(Refusal::BadRequest),
        }
    }

    #[inline(always)]
    pub fn is_complete(&self, id: RequestId) -> Result<bool, Refusal> {
        let index = self.check(id)?;
        Ok(matches!(self.slots[index as usize].body, Body::Complete { .. }))
    }

    pub fn is_connect(&self, index: u32) -> bool {
        matches!(self.slots[index as usize].body, Body::Connecting)
    }

    pub fn is_send(&self, index: u32) -> bool {
        matches!(self.slots[index as usize].body, Body::Sending { .. } | Body::Operation)
    }

    #[inline]
    pub fn take_complete(&mut self, id: RequestId) -> Result<Option<Status>, Refusal> {
        let index = self.check(id)?;
        let slot = &self.slots[index as usize];
        let Body::Complete { .. } = slot.body else { return Ok(None) };
        let status = slot.status;
        self.unlink(index);
        self.free(index);
        Ok(Some(status))
    }

    pub fn take_first_complete(
        &mut self,
        fits: impl Fn(&Status) -> bool,
    ) -> Option<(RequestId, Status)> {
        self.list();
        let mut at = self.complete_first;
        while at != NONE {
            let slot = &self.slots[at as usize];
            let Body::Complete { next, .. } = slot.body else {
                unreachable!("an open request on the complete list")
            };
            if fits(&slot.status) {
                let found = (self.id(at), slot.status);
                self.unlink(at);
                self.free(at);
                return Some(found);
            }
            at = next;
        }
        None
    }

    /// A whole message for a receive in the matcher's list: `copy` writes it to
    /// the program's buffer and says how much there was room for. `false`, and nothing happened,
    /// when the request is not a receive of one message.
    #[inline(always)]
    pub fn deliver(
        &mut self,
        index: u32,
        message: Status,
        copy: impl FnOnce(&L::Sink) -> usize,
    ) -> bool {
        let slot = &mut self.slots[index as usize];
        let Body::Posted { sink } = slot.body else { return false };
        let stored = copy(&sink) as u64;
        let code = outcome(stored, message.message_bytes);
        slot.status = Status { code, transferred_bytes: stored, ..message };
        if slot.forgotten || slot.parent.is_some() || self.listed {
            self.complete(index, code, stored);
            return true;
        }
        slot.body = Body::Complete { previous: NONE, next: NONE };
        slot.order = self.completions;
        self.completions += 1;
        true
    }

    /// Ends a request. What waited for it finds it complete, unless nobody will ask.
    #[inline(always)]
    pub fn complete(&mut self, index: u32, code: StatusCode, transferred_bytes: u64) {
        let slot = &mut self.slots[index as usize];
        debug_assert!(!matches!(slot.body, Body::Free { .. } | Body::Complete { .. }));
        slot.status.code = code;
        slot.status.transferred_bytes = transferred_bytes;
        if let Some((parent, offset)) = slot.parent {
            let status = slot.status;
            self.free(index);
            self.deliver_to_multi(parent, offset, status);
            return;
        }
        if slot.forgotten {
            self.free(index);
            return;
        }
        slot.body = Body::Complete { previous: NONE, next: NONE };
        slot.order = self.completions;
        self.completions += 1;
        if self.listed && !slot.private {
            self.link(index);
        }
    }

    /// Hides a request from searches.
    pub fn make_private(&mut self, index: u32) {
        self.unlink(index);
        self.slots[index as usize].private = true;
    }

    /// A request that is complete from the start.
    #[inline]
    pub fn add_complete(&mut self, status: Status) -> RequestId {
        let body = Body::Complete { previous: NONE, next: NONE };
        let id = self.add_required(body, status);
        self.slots[id.index() as usize].order = self.completions;
        self.completions += 1;
        if self.listed {
            self.link(id.index());
        }
        id
    }

    /// The oldest complete request, which stays.
    pub fn first_complete(&mut self) -> Option<RequestId> {
        self.list();
        (self.complete_first != NONE).then(|| self.id(self.complete_first))
    }

    /// Starts to keep the list, with what is complete already.
    fn list(&mut self) {
        if std::mem::replace(&mut self.listed, true) {
            return;
        }
        let is_findable = |index: &u32| {
            let slot = &self.slots[*index as usize];
            matches!(slot.body, Body::Complete { .. }) && !slot.private
        };
        let mut complete: Vec<u32> = (0..self.slots.len() as u32).filter(is_findable).collect();
        complete.sort_unstable_by_key(|index| self.slots[*index as usize].order);
        for index in complete {
            self.link(index);
        }
    }

    fn link(&mut self, index: u32) {
        let previous = self.complete_last;
        self.slots[index as usize].body = Body::Complete { previous, next: NONE };
        if previous == NONE {
            self.complete_first = index;
        } else if let Body::Complete { next, .. } = &mut self.slots[previous as usize].body {
            *next = index;
        }
        self.complete_last = index;
    }

    pub fn forget(&mut self, id: RequestId) {
        let Ok(index) = self.check(id) else { return };
        if let Body::Complete { .. } = self.slots[index as usize].body {
            self.unlink(index);
            self.free(index);
        } else {
            self.slots[index as usize].forgotten = true;
            self.free_forgotten_multi(index);
        }
    }

    pub fn finish_connect(&mut self, id: RequestId, result: Result<PeerId, StatusCode>) {
        let Ok(index) = self.check(id) else { return };
        if !self.is_connect(index) {
            return;
        }
        let code = match result {
            Ok(peer) => {
                self.slots[index as usize].status.source = peer;
                StatusCode::Success
            }
            Err(code) => code,
        };
        self.complete(index, code, 0);
    }

    /// Ends every request that is bound to a peer, or all that are open.
    pub fn fail_bound(&mut self, peer: PeerId, code: StatusCode) {
        self.fail_where(code, |slot| {
            slot.status.source == peer
                && matches!(
                    slot.body,
                    Body::Sending { .. }
                        | Body::Filling { .. }
                        | Body::Pulling
                        | Body::LoanWaits { .. }
                        | Body::Operation
                )
        });
    }

    pub fn fail_all(&mut self, code: StatusCode) {
        self.fail_where(code, |slot| {
            !matches!(slot.body, Body::Free { .. } | Body::Complete { .. })
        });
    }

    fn fail_where(&mut self, code: StatusCode, doomed: impl Fn(&Slot<L>) -> bool) {
        for index in 0..self.slots.len() as u32 {
            if doomed(&self.slots[index as usize]) {
                self.complete(index, code, 0);
            }
        }
    }

    #[inline]
    pub fn free(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        // Zero is skipped, so that a name made of zeros never fits.
        slot.generation = slot.generation.wrapping_add(1).max(1);
        slot.body = Body::Free { next: self.free };
        self.free = index;
        self.live -= 1;
    }

    #[inline(always)]
    fn unlink(&mut self, index: u32) {
        if self.listed && !self.slots[index as usize].private {
            self.unlink_listed(index);
        }
    }

    fn unlink_listed(&mut self, index: u32) {
        let Body::Complete { previous, next } = self.slots[index as usize].body else { return };
        if previous == NONE {
            self.complete_first = next;
        } else if let Body::Complete { next: link, .. } = &mut self.slots[previous as usize].body {
            *link = next;
        }
        if next == NONE {
            self.complete_last = previous;
        } else if let Body::Complete { previous: link, .. } = &mut self.slots[next as usize].body {
            *link = previous;
        }
    }
}
