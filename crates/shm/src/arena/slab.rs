// SPDX-License-Identifier: Apache-2.0
//! One allocation of an arena: a file of its own, mapped here, and whom it was given to.
//!
//! ```text
//!   fresh ---- first grant, read-only ----> sealed against new writers ---- renew --+
//!     |                                                                             |
//!     +------ make_writable, first grant -> writable by holders ---------- renew ---+
//!                                                                                   v
//!                                                   a fresh file at the same address
//! ```
//!
//! What a file allows is fixed by seals before anybody else gets its descriptor. A read-only one has
//! `F_SEAL_FUTURE_WRITE`: our own mapping stays writable, and no other will ever be. No mapping of a peer
//! can be taken away, so taking back means to leave: the data moves to a file that nobody else has.
//!
//! A slab is memory of the user, and so a forked child keeps it, unlike the memory of channels
//! (`MADV_DONTFORK`): arrays that lie in it stay readable there. It is shared, so that what either of
//! the two writes the other sees; a child does not use its parent's arena.

use std::ffi::c_void;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, MremapFlags, ProtFlags};
use rustix::mm::{madvise, mmap, mmap_anonymous, mremap_fixed, munmap};

use crate::barrier::Barrier;
use crate::copy;
use crate::grants::GrantId;
use crate::grants::owner::Table;

/// From this size on a slab starts at a multiple of it, and asks for huge pages.
pub(super) const HUGE_BYTES: usize = 2 << 20;

/// Shared memory in a file of its own, and the grants of it.
#[derive(Debug)]
pub struct Slab {
    base: NonNull<u8>,
    /// Length of the mapping and of the file.
    bytes: usize,
    state: Mutex<State>,
}

/// What changes while a slab lives.
#[derive(Debug)]
pub(crate) struct State {
    file: OwnedFd,
    /// Bytes that the user has; what lies behind them is never shown to anybody.
    len_bytes: usize,
    /// Whether holders of grants may write.
    pub(crate) writable: bool,
    /// Whether the file's seals say so already: from the first grant on.
    sealed: bool,
    /// Who was given this very file, if anybody.
    exposures: Vec<Exposure>,
    /// Its pages are there from the start, as every user of the arena expects.
    populated: bool,
}

/// A channel whose peer was given the file.
#[derive(Debug)]
struct Exposure {
    channel: u64,
    /// None: taken back, which nobody can force the peer to notice.
    grant: Option<GrantId>,
    table: Weak<Table>,
}

// SAFETY: a slab is an address range that is valid from any thread until drop; it hands out no
// references to its bytes.
unsafe impl Send for Slab {}
// SAFETY: as above; everything that changes lies behind the mutex.
unsafe impl Sync for Slab {}

impl Slab {
    /// A slab of `bytes`, whole pages, at a multiple of `align`.
    pub(super) fn new(bytes: usize, align: usize, len_bytes: usize) -> Result<Self, Errno> {
        let slab = Self::sparse(bytes, align, len_bytes)?;
        populate(slab.base, bytes)?;
        slab.lock().populated = true;
        Ok(slab)
    }

    /// As `new`, with pages that come when they are touched: for lengths that a peer alleges.
    pub(super) fn sparse(bytes: usize, align: usize, len_bytes: usize) -> Result<Self, Errno> {
        let (file, base) = mapped_file(bytes, align)?;
        let (writable, sealed, populated) = (false, false, false);
        let exposures = Vec::new();
        let state = State { file, len_bytes, writable, sealed, exposures, populated };
        Ok(Self { base, bytes, state: Mutex::new(state) })
    }

    /// First byte of the slab; stays where it is as long as the slab lives.
    #[must_use]
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Length of the slab, whole pages: at least that of the allocation.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes the slab reachable for writing by holders of grants, if it is not. The address stays.
    ///
    /// A slab that was granted for reading moves to another file for it, as [`Slab::renew`] does.
    ///
    /// # Errors
    /// The system's, when it has no memory or descriptors for the move.
    pub fn make_writable(&self) -> Result<(), Errno> {
        let mut state = self.lock();
        if state.writable { Ok(()) } else { self.change(&mut state, true) }
    }

    /// Whether its file allows grants for writing.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.lock().writable
    }

    /// Takes every grant back. The data moves to a fresh file at the same address, which nobody else
    /// can read or write, and which will allow grants for writing or not as `writable` says.
    ///
    /// Costs next to nothing when nothing was ever granted. While the data moves nobody in this
    /// process may write it: what is written meanwhile may be lost. Reading is always fine, as the
    /// address is never without memory.
    ///
    /// # Errors
    /// The system's, when it has no memory or descriptors for the move. The grants are taken back
    /// all the same, but peers still see what is written here.
    pub fn renew(&self, writable: bool) -> Result<(), Errno> {
        self.change(&mut self.lock(), writable)
    }

    fn change(&self, state: &mut State, writable: bool) -> Result<(), Errno> {
        if state.exposures.is_empty() && (!state.sealed || state.writable == writable) {
            state.writable = writable;
            return Ok(());
        }
        let taken = state.take_back();
        // Pairs with the light fence of whoever writes there: either it finds the grant taken back,
        // or what it wrote is seen by the copy below.
        Barrier::of_this_process().heavy();
        if state.writable {
            taken.iter().for_each(|(table, grant)| table.await_touch(*grant));
        }
        let (file, fresh) = mapped_file(self.bytes, rustix::param::page_size())?;
        if let Err(errno) = populate(fresh, self.bytes) {
            // SAFETY: nobody has seen the fresh mapping.
            let _ = unsafe { munmap(fresh.as_ptr().cast(), self.bytes) };
            return Err(errno);
        }
        // SAFETY: both mappings have at least so many bytes and do not overlap. Peers may write the
        // old one meanwhile, which this copy allows; the fresh one is known to nobody else.
        unsafe { copy::out_of_peer(self.base.as_ptr(), fresh.as_ptr(), state.len_bytes) };
        // SAFETY: `fresh` was mapped just above and is used by nobody. It replaces our own mapping in
        // one step: addresses into it stay valid, and show the same bytes.
        let moved = unsafe {
            let (from, to) = (fresh.as_ptr().cast(), self.base.as_ptr().cast());
            mremap_fixed(from, self.bytes, self.bytes, MremapFlags::MAYMOVE, to)
        };
        if let Err(errno) = moved {
            // SAFETY: nobody has seen the fresh mapping.
            let _ = unsafe { munmap(fresh.as_ptr().cast(), self.bytes) };
            return Err(errno);
        }
        state.file = file;
        state.exposures.clear();
        state.sealed = false;
        state.writable = writable;
        state.populated = true;
        Ok(())
    }

    /// Fixes by seals what the file allows, before somebody else gets it.
    pub(crate) fn seal(&self, state: &mut State) -> Result<(), Errno> {
        if state.sealed {
            return Ok(());
        }
        let kind = if state.writable { SealFlags::empty() } else { SealFlags::FUTURE_WRITE };
        rustix::fs::fcntl_add_seals(&state.file, kind | SealFlags::SEAL)?;
        state.sealed = true;
        // A slab may have held other data before; what of that lies behind the user's bytes, where
        // the user cannot clear it, is not for the peer.
        // SAFETY: inside the mapping; nobody but this crate writes behind the user's bytes.
        unsafe {
            let tail = self.base.as_ptr().add(state.len_bytes);
            tail.write_bytes(0, self.bytes - state.len_bytes);
        }
        Ok(())
    }

    /// Readies a cached slab, which nobody has, for its next user.
    pub(super) fn reuse(&self, len_bytes: usize) {
        self.lock().len_bytes = len_bytes;
    }

    /// What may be done with a slab that its user has given back.
    pub(super) fn fate(&self) -> Fate {
        let mut state = self.lock();
        if let Some(first) = state.exposures.first() {
            let channel = first.channel;
            let only = state.exposures.iter().all(|e| e.channel == channel && e.grant.is_some());
            // A peer that may write would do so under the next user's hands.
            return if only && !state.writable { Fate::KeepFor(channel) } else { Fate::Close };
        }
        if !state.populated || (state.sealed && state.writable) {
            // The next user would pay for its pages. Or its file cannot be granted read-only any more.
            return Fate::Close;
        }
        state.writable = false;
        Fate::Keep
    }

    /// Whether anybody holds a grant of it.
    pub(super) fn is_granted(&self) -> bool {
        self.lock().exposures.iter().any(|e| e.grant.is_some())
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a freed slab goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nobody else has seen it: for whoever comes next.
    Keep,
    /// Only the peer of this channel can read it: for what only that peer will see.
    KeepFor(u64),
    /// Never used again.
    Close,
}

impl State {
    /// The file, for passing it on.
    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The grant that the peer of `channel` holds, if it allows what is wanted.
    pub(crate) fn granted(&self, channel: u64, writable: bool) -> Option<GrantId> {
        if writable && !self.writable {
            return None;
        }
        self.exposures.iter().filter(|e| e.channel == channel).find_map(|e| e.grant)
    }

    /// Notes that the peer of `channel` was given the file.
    pub(crate) fn expose(&mut self, channel: u64, grant: GrantId, table: Weak<Table>) {
        self.exposures.push(Exposure { channel, grant: Some(grant), table });
    }

    /// Clears the words of all grants; says whose they were.
    fn take_back(&mut self) -> Vec<(Arc<Table>, GrantId)> {
        let take = |exposure: &mut Exposure| {
            let (grant, table) = (exposure.grant.take()?, exposure.table.upgrade()?);
            table.clear(grant);
            Some((table, grant))
        };
        self.exposures.iter_mut().filter_map(take).collect()
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        let _ = self.state.get_mut().unwrap_or_else(PoisonError::into_inner).take_back();
        // SAFETY: the range was mapped by `mapped_file`, a forked child has it too, and nothing can
        // use it after this: blocks hold their slab.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

/// A fresh file of `bytes` for ever, mapped at a multiple of `align`.
fn mapped_file(bytes: usize, align: usize) -> Result<(OwnedFd, NonNull<u8>), Errno> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let made = rustix::fs::memfd_create("diolkos-arena", flags | MemfdFlags::NOEXEC_SEAL);
    let file = match made {
        // Kernels before 6.3 do not know the flag.
        Err(Errno::INVAL) => rustix::fs::memfd_create("diolkos-arena", flags)?,
        made => made?,
    };
    rustix::fs::ftruncate(&file, bytes as u64)?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW)?;
    let align = if bytes >= HUGE_BYTES { align.max(HUGE_BYTES) } else { align };
    let base = map_aligned(&file, bytes, align)?;
    let address = base.as_ptr().cast::<c_void>();
    if bytes >= HUGE_BYTES {
        // SAFETY: our own mapping of so many bytes. Only advice: most systems have none for files.
        let _ = unsafe { madvise(address, bytes, Advice::LinuxHugepage) };
    }
    Ok((file, base))
}

/// Makes the pages of a slab's mapping present.
fn populate(base: NonNull<u8>, bytes: usize) -> Result<(), Errno> {
    // SAFETY: the caller's own mapping of so many bytes; populating changes no contents.
    match unsafe { madvise(base.as_ptr().cast(), bytes, Advice::LinuxPopulateWrite) } {
        // Kernels before 5.14 do not know the advice; pages then fault in on first use.
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        // A page that cannot be had is told as a bad address.
        Err(Errno::FAULT) => Err(Errno::NOMEM),
        Err(errno) => Err(errno),
    }
}

/// Maps a file at a multiple of `align`, a power of two.
fn map_aligned(file: &OwnedFd, bytes: usize, align: usize) -> Result<NonNull<u8>, Errno> {
    let read_write = ProtFlags::READ | ProtFlags::WRITE;
    if align <= rustix::param::page_size() {
        // SAFETY: a null hint replaces no mapping; the file covers `bytes` and cannot shrink.
        let base =
            unsafe { mmap(std::ptr::null_mut(), bytes, read_write, MapFlags::SHARED, file, 0)? };
        return NonNull::new(base.cast()).ok_or(Errno::NOMEM);
    }
    // Room for the mapping wherever in it a multiple lies; what is too much goes back.
    let room = bytes.checked_add(align).ok_or(Errno::NOMEM)?;
    // SAFETY: a null hint replaces no mapping.
    let start = unsafe {
        mmap_anonymous(std::ptr::null_mut(), room, ProtFlags::empty(), MapFlags::PRIVATE)?
    };
    let before = start.addr().next_multiple_of(align) - start.addr();
    // SAFETY: `before < align`, so the file's pages replace a part of the room that was just made, and
    // what is unmapped are the rest of it or all of it; nobody else knows these addresses.
    unsafe {
        let base = start.byte_add(before);
        let fixed = MapFlags::SHARED | MapFlags::FIXED;
        if let Err(errno) = mmap(base, bytes, read_write, fixed, file, 0) {
            let _ = munmap(start, room);
            return Err(errno);
        }
        if before > 0 {
            let _ = munmap(start, before);
        }
        if align > before {
            let _ = munmap(base.byte_add(bytes), align - before);
        }
        NonNull::new(base.cast()).ok_or(Errno::NOMEM)
    }
}
