// SPDX-License-Identifier: Apache-2.0
//! Loans: a peer looks at memory of ours where it lies, and we at memory of peers.

use std::collections::HashMap;

use diolkos_proto::{Envelope, PeerId, RequestId, Selector};
use diolkos_shm::{Block, Source, View};

use crate::endpoint::{Core, Endpoint};
use crate::error::Error;

/// Memory for loans that are copied, by the request that it is for.
pub(crate) type Copies = HashMap<RequestId, Copied>;

/// Memory for one loan that is copied.
pub(crate) struct Copied {
    block: Block,
    /// Nobody will take it; it goes with its request, which may still be writing to it.
    forgotten: bool,
}

/// Memory that a peer has lent: readable until this is dropped, which lets it go. It stays readable
/// when the lender is gone.
pub struct Loan {
    memory: Memory,
    endpoint: Endpoint,
    lender: PeerId,
    len_bytes: usize,
}

enum Memory {
    /// The lender's own, and its name for the loan.
    Lent(View, u32),
    /// A copy, where the lender's cannot be reached.
    Copied(Block),
}

impl Endpoint {
    /// Lends memory to a peer, which must be arena memory to be lent without a copy. The request is
    /// complete when the peer has let go, or is gone; until then the memory must not change.
    ///
    /// # Errors
    /// [`Error`] when the peer is not there, or too much waits for it.
    #[inline]
    pub fn lend(
        &self,
        source: Source,
        peer: PeerId,
        envelope: &Envelope,
    ) -> Result<RequestId, Error> {
        let mut core = self.lock()?;
        let request = core.machine.lend(source, peer, envelope)?;
        self.after(&mut core);
        Ok(request)
    }

    /// Whether memory lies in the arena, so that it can be lent without a copy.
    #[must_use]
    pub fn is_lendable(&self, source: &Source) -> bool {
        self.shared.arena.find(source.base(), source.len_bytes()).is_some()
    }

    /// Posts a receive for a loan. Once it is complete, [`Endpoint::take_loan`] has the loan.
    ///
    /// # Errors
    /// As [`Endpoint::irecv`].
    #[inline]
    pub fn irecv_loan(&self, selector: &Selector) -> Result<RequestId, Error> {
        let mut core = self.lock()?;
        let request = core.machine.irecv_loan(selector)?;
        core.fill_loans();
        self.after(&mut core);
        Ok(request)
    }

    /// The loan of a loan receive that ended with success; once.
    ///
    /// # Errors
    /// [`Error`] when the endpoint cannot be used.
    #[inline]
    pub fn take_loan(&self, request: RequestId) -> Result<Option<Loan>, Error> {
        let mut core = self.lock()?;
        Ok(self.loan_of(&mut core, request))
    }

    #[inline]
    pub(crate) fn loan_of(&self, core: &mut Core, request: RequestId) -> Option<Loan> {
        if let Some(loan) = core.machine.take_loan(request) {
            return Some(Loan {
                memory: Memory::Lent(loan.view, loan.send_id),
                endpoint: self.clone(),
                lender: loan.lender,
                len_bytes: loan.len as usize,
            });
        }
        core.copies.remove(&request).map(|Copied { block, .. }| Loan {
            len_bytes: block.len_bytes(),
            memory: Memory::Copied(block),
            endpoint: self.clone(),
            lender: PeerId::SELF,
        })
    }
}

impl Core {
    /// Provides memory for loans that must be copied.
    #[inline(always)]
    pub fn fill_loans(&mut self) {
        if self.machine.is_wanting() {
            self.find_memory_for_loans();
        }
    }

    /// A request was forgotten: nobody will take its loan.
    #[inline(always)]
    pub fn forget_loan(&mut self, request: RequestId) {
        if !self.copies.is_empty() {
            if let Some(copied) = self.copies.get_mut(&request) {
                copied.forgotten = true;
            }
            self.drop_forgotten_copies();
        }
    }

    #[cold]
    fn drop_forgotten_copies(&mut self) {
        let machine = &self.machine;
        self.copies.retain(|request, copied| {
            let exists = machine.is_complete(*request).is_ok();
            !copied.forgotten || exists
        });
    }

    #[cold]
    fn find_memory_for_loans(&mut self) {
        self.drop_forgotten_copies();
        while let Some((request, len)) = self.machine.take_wanting() {
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            let block = self.arena.alloc_sparse(len).ok();
            self.machine.fill_loan(request, block.as_ref().map(Block::sink));
            if let Some(block) = block {
                self.copies.insert(request, Copied { block, forgotten: false });
            }
        }
    }
}

impl Loan {
    /// The memory; readable as long as the loan is held.
    #[must_use]
    pub fn source(&self) -> Source {
        match &self.memory {
            Memory::Lent(view, _) => view.source(),
            Memory::Copied(block) => block.source(),
        }
    }

    /// Its length in bytes.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// Whether it is a copy, as the lender's memory cannot be reached from here.
    #[must_use]
    pub fn is_copied(&self) -> bool {
        matches!(self.memory, Memory::Copied(_))
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        let Memory::Lent(_, send_id) = self.memory else { return };
        // With the endpoint closed the lender knows already.
        if let Ok(mut core) = self.endpoint.lock() {
            core.machine.let_go(self.lender, send_id, self.len_bytes as u64);
            self.endpoint.after(&mut core);
        }
    }
}
