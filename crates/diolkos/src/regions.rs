// SPDX-License-Identifier: Apache-2.0
//! Granted memory, and what others may do with it: allocation, regions, remote reads and writes.
//!
//! ```text
//!   alloc ------> arena memory: a file of its own for each allocation, shared with nobody yet
//!   register ---> a region: arena memory is granted to whoever has the key, as a whole;
//!                 other memory is served by copies when this endpoint makes progress
//!   revoke -----> nothing is served any more, and arena memory moves to a file that is granted to nobody
//! ```
//!
//! Ordering: one operation on regions of a peer is complete at the target before the next is begun,
//! and a message that is sent after one is complete is received after it.

use std::sync::Arc;

use diolkos_proto::machine::Reach;
use diolkos_proto::{AtomicOp, Envelope, Exposed, Key, PeerId, RequestId, Sent};
use diolkos_shm::{ArenaStatus, Block, Sink, Slab, Source};

use crate::endpoint::{Core, Endpoint};
use crate::error::Error;
use crate::lock::Guard;

/// Operations on regions after which one of them also takes in what came.
const OPERATIONS_PER_LOOK: u32 = 64;

/// A region at its owner's endpoint.
pub(crate) struct Registered {
    /// The arena memory that it lies in, if it does.
    slab: Option<Arc<Slab>>,
    writable: bool,
}

impl Registered {
    fn is_in(&self, slab: &Arc<Slab>) -> bool {
        self.slab.as_ref().is_some_and(|own| Arc::ptr_eq(own, slab))
    }
}

/// Memory that peers with its key may use. Dropping it revokes it.
pub struct Region {
    endpoint: Endpoint,
    key: Key,
    granted: bool,
}

impl Endpoint {
    /// Allocates memory that can be granted: page-aligned, or to `align` bytes, and faulted in.
    /// With a `peer`, only that one will be sent or lent it; memory that it has seen may be used
    /// again for it.
    ///
    /// # Errors
    /// [`Error::Arena`] when the arena is full, or the system is; as [`Endpoint::peer_info`].
    pub fn alloc(
        &self,
        len_bytes: usize,
        align: usize,
        peer: Option<PeerId>,
    ) -> Result<Block, Error> {
        let channel = match peer {
            None => None,
            Some(peer) => Some(self.lock()?.peers.info(peer).ok_or(Error::NotConnected)?.channel),
        };
        self.require_usable()?;
        self.shared.arena.alloc(len_bytes, align, channel).map_err(Error::Arena)
    }

    /// How full the arena is.
    #[must_use]
    pub fn arena(&self) -> ArenaStatus {
        self.shared.arena.status()
    }

    /// Lets peers use memory: one of them, or all that are given the key. The memory must stay valid
    /// as [`Source::from_raw`] and [`Sink::from_raw`] say until the region is revoked.
    ///
    /// Arena memory that may be written moves to another file first; it must not be written while
    /// this is called.
    ///
    /// # Errors
    /// [`Error`] when the peer is not there, or there are too many regions.
    pub fn register(
        &self,
        memory: Exposed<Source, Sink>,
        peer: Option<PeerId>,
    ) -> Result<Region, Error> {
        let secret = random_secret()?;
        let (base, length, writable) = match &memory {
            Exposed::ReadOnly(source) => (source.base(), source.len_bytes(), false),
            Exposed::ReadWrite(sink) => (sink.base(), sink.len_bytes(), true),
        };
        let slab = self.shared.arena.find(base, length).map(|(slab, _)| slab);
        let mut core = self.lock()?;
        let number = core.machine.add_region(memory, secret, peer)?;
        if let Some(slab) = &slab
            && writable
            && !slab.is_writable()
        {
            if let Err(errno) = slab.make_writable() {
                core.machine.withdraw_region(number);
                return Err(Error::System("moving memory to a file that may be written", errno));
            }
            core.tell_neighbours(slab);
        }
        let granted = slab.is_some();
        core.regions.insert(number, Registered { slab, writable });
        if let Some(peer) = peer {
            core.machine.tell_region(number, peer)?;
        }
        self.after(&mut core);
        let owner = self.identity().number;
        let key = Key { owner, region: number, secret, length: length as u64, writable };
        drop(core);
        Ok(Region { endpoint: self.clone(), key, granted })
    }

    fn revoke(&self, number: u32) -> Result<(), Error> {
        if self.is_forked() {
            // The memory of the channels is not here, and what was granted is the parent's.
            return Err(Error::Forked);
        }
        // Also of a closed endpoint: peers may still have its memory mapped.
        let mut core = self.shared.core.lock();
        core.machine.withdraw_region(number);
        let Some(region) = core.regions.remove(&number) else { return Ok(()) };
        let Some(slab) = region.slab else { return Ok(()) };
        let writable = core.regions.values().any(|other| other.is_in(&slab) && other.writable);
        if let Err(errno) = slab.renew(writable) {
            // Kept, so that it can be tried again: peers may still see the memory.
            let region = Registered { slab: Some(slab), writable: region.writable };
            core.regions.insert(number, region);
            return Err(Error::System("moving revoked memory to fresh pages", errno));
        }
        core.tell_neighbours(&slab);
        self.after(&mut core);
        Ok(())
    }

    /// Writes to a region of a peer at `offset` bytes. `Done`: it is there. With `notify`, an empty
    /// message of that envelope follows when it is.
    ///
    /// # Errors
    /// [`Error`] when the peer is not there, or the key does not reach that far.
    #[inline]
    pub fn rdma_write(
        &self,
        source: Source,
        peer: PeerId,
        key: &Key,
        offset: u64,
        notify: Option<Envelope>,
    ) -> Result<Sent, Error> {
        let mut core = self.lock()?;
        let sent = core.machine.rdma_write(source, peer, key, offset, notify)?;
        self.look_at_times(&mut core);
        self.after(&mut core);
        Ok(sent)
    }

    /// Reads from a region of a peer at `offset` bytes. `Done`: it is here.
    ///
    /// # Errors
    /// As [`Endpoint::rdma_write`].
    #[inline]
    pub fn rdma_read(
        &self,
        sink: Sink,
        peer: PeerId,
        key: &Key,
        offset: u64,
    ) -> Result<Sent, Error> {
        let mut core = self.lock()?;
        let sent = core.machine.rdma_read(sink, peer, key, offset)?;
        self.look_at_times(&mut core);
        self.after(&mut core);
        Ok(sent)
    }

    /// Changes a 64-bit word of a region of a peer, at a multiple of 8 bytes. The status of the
    /// request has what was there before as its `match_info`. Atomic with respect to every other
    /// such operation, and to aligned loads and stores of the owner.
    ///
    /// # Errors
    /// As [`Endpoint::rdma_write`].
    pub fn rdma_atomic(
        &self,
        peer: PeerId,
        key: &Key,
        offset: u64,
        op: AtomicOp,
    ) -> Result<RequestId, Error> {
        let mut core = self.lock()?;
        let request = core.machine.rdma_atomic(peer, key, offset, op)?;
        self.look_at_times(&mut core);
        self.after(&mut core);
        Ok(request)
    }

    /// Operations in granted memory need nobody, so a program that does nothing else would never
    /// hear that the owner is dead, nor serve anybody: some of them look.
    #[inline(always)]
    fn look_at_times(&self, core: &mut Guard<'_, Core>) {
        core.unlooked += 1;
        if core.unlooked >= OPERATIONS_PER_LOOK {
            core.unlooked = 0;
            self.look_now(core);
        }
    }

    #[cold]
    #[inline(never)]
    fn look_now(&self, core: &mut Guard<'_, Core>) {
        self.progress_once(core);
    }

    /// Complete when every operation on regions of this peer that was begun before is complete.
    ///
    /// # Errors
    /// [`Error`] when the peer is not there.
    pub fn rdma_fence(&self, peer: PeerId) -> Result<Sent, Error> {
        let mut core = self.lock()?;
        let sent = core.machine.rdma_fence(peer)?;
        self.after(&mut core);
        Ok(sent)
    }

    /// How operations with a key of a peer are done, as far as is known.
    ///
    /// # Errors
    /// [`Error`] when the peer is not there.
    pub fn reach(&self, peer: PeerId, key: &Key) -> Result<Reach, Error> {
        let mut core = self.lock()?;
        self.progress_once(&mut core);
        Ok(core.machine.reach(peer, key)?)
    }
}

impl Core {
    /// Memory has moved: whoever knows a region in it must hear where it is now.
    fn tell_neighbours(&mut self, slab: &Arc<Slab>) {
        let here = self.regions.iter().filter(|(_, other)| other.is_in(slab));
        let numbers: Vec<u32> = here.map(|(number, _)| *number).collect();
        for number in numbers {
            self.machine.tell_region_again(number);
        }
    }
}

impl Region {
    /// The right to use it, for those who shall.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// How peers that share memory with this endpoint reach it.
    #[must_use]
    pub fn reach(&self) -> Reach {
        if self.granted { Reach::Granted } else { Reach::Copied }
    }

    /// Grants it to a peer ahead of its first use, so that that needs nothing of this endpoint.
    ///
    /// # Errors
    /// [`Error`] when it is bound to another peer, was revoked, or the peer is not there.
    pub fn grant(&self, peer: PeerId) -> Result<(), Error> {
        let mut core = self.endpoint.lock()?;
        core.machine.tell_region(self.key.region, peer)?;
        self.endpoint.after(&mut core);
        Ok(())
    }

    /// Takes it back. From here on nothing that a peer does reads or changes what this process holds
    /// there: arena memory has moved, at its address, to pages that nobody else has. It must not be
    /// written by other threads while this is called. Idempotent.
    ///
    /// # Errors
    /// [`Error::System`] when there is no memory to move to: it is not served any more, but peers
    /// that have it mapped still do. Try again.
    pub fn revoke(&self) -> Result<(), Error> {
        self.endpoint.revoke(self.key.region)
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // With the endpoint closed the memory is most likely about to go too, and is not moved. A failure
        // leaves it granted, which is the caller's to free.
        if !self.endpoint.is_closed() {
            let _ = self.revoke();
        } else if !self.endpoint.is_forked() {
            self.endpoint.shared.core.lock().regions.remove(&self.key.region);
        }
    }
}

fn random_secret() -> Result<[u64; 2], Error> {
    let mut bytes = [0_u8; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(Error::System("getrandom", errno)),
        }
    }
    let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
    Ok([word(0), word(8)])
}
