// SPDX-License-Identifier: Apache-2.0
//! Memory that can be shown to peers: each allocation is a file of its own.
//!
//! The unit that a kernel protects is the file, so an allocation is one ([`Slab`]), and a peer that is
//! given one can reach nothing else. Making a file takes tens of microseconds, so freed slabs are
//! kept for the next allocation, as long as that is safe:
//!
//! ```text
//!   freed, and ...
//!     nobody was ever given it       -> kept for whoever comes next
//!     one peer was, for reading      -> kept for what that peer alone will see; its grant stays
//!     anybody else was, or may write -> grants taken back, unmapped, closed; never used again
//! ```
//!
//! What is kept counts towards the limit and makes room when it is reached. Used memory is not
//! cleared: a program sees what it left there itself.

mod classes;
mod slab;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use crate::buffer::{Sink, Source};
pub use slab::Slab;
use slab::{Fate, HUGE_BYTES};

/// Longest allocation in bytes; also the longest grant that a peer takes.
pub const LEN_MAX: usize = 1 << 40;
/// Largest alignment: that of a huge page.
pub const ALIGN_MAX: usize = HUGE_BYTES;
/// Slabs kept at most; each holds a descriptor.
const CACHED_MAX: usize = 64;

/// Where an endpoint's allocations come from.
#[derive(Clone, Debug)]
pub struct Arena {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    limit_bytes: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By address of the first byte.
    live: BTreeMap<usize, Live>,
    used_bytes: u64,
    /// The oldest first.
    cache: VecDeque<Cached>,
    cached_bytes: u64,
}

#[derive(Debug)]
struct Live {
    slab: Arc<Slab>,
    len_bytes: usize,
}

#[derive(Debug)]
struct Cached {
    /// None: nobody has seen it.
    channel: Option<u64>,
    bytes: usize,
    slab: Arc<Slab>,
}

/// What an arena holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArenaStatus {
    /// Most bytes that used and cached memory may have together.
    pub limit_bytes: u64,
    /// Bytes of the slabs in use.
    pub used_bytes: u64,
    /// Bytes of the slabs kept for later.
    pub cached_bytes: u64,
    /// Slabs in use.
    pub allocations: u64,
    /// Bytes of the slabs in use that some peer holds a grant of.
    pub granted_bytes: u64,
}

/// An allocation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ArenaError {
    /// The limit is reached.
    Full {
        /// Bytes that the allocation would take.
        asked_bytes: u64,
        /// Bytes in use.
        used_bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// Not a power of two, or more than [`ALIGN_MAX`].
    BadAlign,
    /// Longer than [`LEN_MAX`].
    TooLong,
    /// The system has no memory or descriptors for it.
    System(Errno),
}

impl fmt::Display for ArenaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { asked_bytes, used_bytes, limit_bytes } => write!(
                f,
                "no room for {asked_bytes} bytes: {used_bytes} of the limit of {limit_bytes} are \
                 in use; free memory that is not needed, or open the endpoint with a higher limit"
            ),
            Self::BadAlign => {
                write!(f, "the alignment must be a power of two of at most {ALIGN_MAX}")
            }
            Self::TooLong => write!(f, "an allocation has at most {LEN_MAX} bytes"),
            Self::System(errno @ (Errno::MFILE | Errno::NFILE)) => write!(
                f,
                "cannot make shared memory: {errno}; each allocation needs a descriptor, so \
                 allocate fewer and larger ones, or raise `ulimit -n`"
            ),
            Self::System(errno @ (Errno::NOMEM | Errno::NOSPC)) => write!(
                f,
                "cannot make shared memory: {errno}; the system has too little memory left, so \
                 free some"
            ),
            Self::System(errno) => write!(f, "cannot make shared memory: {errno}"),
        }
    }
}

impl std::error::Error for ArenaError {}

impl Arena {
    /// An empty arena of at most `limit_bytes`.
    #[must_use]
    pub fn new(limit_bytes: u64) -> Self {
        Self { inner: Arc::new(Inner { limit_bytes, state: Mutex::default() }) }
    }

    /// Memory of `len_bytes` at a multiple of `align`, with whatever contents.
    ///
    /// `for_channel`: only the peer of this channel will be shown it, so memory that this peer has
    /// seen before will do.
    ///
    /// # Errors
    /// [`ArenaError`] when the limit is reached, the system refuses, or the request makes no sense.
    pub fn alloc(
        &self,
        len_bytes: usize,
        align: usize,
        for_channel: Option<u64>,
    ) -> Result<Block, ArenaError> {
        if !align.is_power_of_two() || align > ALIGN_MAX {
            return Err(ArenaError::BadAlign);
        }
        if len_bytes > LEN_MAX {
            return Err(ArenaError::TooLong);
        }
        let bytes = classes::slab_bytes(len_bytes, rustix::param::page_size());
        let mut state = self.inner.lock();
        if let Some(slab) = state.take_cached(bytes, align, for_channel) {
            slab.reuse(len_bytes);
            state.used_bytes += bytes as u64;
            return Ok(self.hand_out(&mut state, slab, len_bytes));
        }
        self.make(state, bytes, len_bytes, || Slab::new(bytes, align, len_bytes))
    }

    /// As `alloc`, with pages that come when they are touched: for a length that a peer alleges, which
    /// may never fill it.
    ///
    /// # Errors
    /// As `alloc`.
    pub fn alloc_sparse(&self, len_bytes: usize) -> Result<Block, ArenaError> {
        if len_bytes > LEN_MAX {
            return Err(ArenaError::TooLong);
        }
        let page_bytes = rustix::param::page_size();
        let bytes = classes::slab_bytes(len_bytes, page_bytes);
        let state = self.inner.lock();
        self.make(state, bytes, len_bytes, || Slab::sparse(bytes, page_bytes, len_bytes))
    }

    /// A block in a slab of its own, if the limit allows it.
    fn make(
        &self,
        mut state: MutexGuard<'_, State>,
        bytes: usize,
        len_bytes: usize,
        slab: impl Fn() -> Result<Slab, Errno>,
    ) -> Result<Block, ArenaError> {
        let limit_bytes = self.inner.limit_bytes;
        let (asked_bytes, used_bytes) = (bytes as u64, state.used_bytes);
        if used_bytes.saturating_add(asked_bytes) > limit_bytes {
            return Err(ArenaError::Full { asked_bytes, used_bytes, limit_bytes });
        }
        // Counted before it is made, so that the lock is free meanwhile.
        state.used_bytes += asked_bytes;
        let room = limit_bytes - state.used_bytes;
        let evicted = state.shrink_cache(room, CACHED_MAX);
        drop(state);
        drop(evicted);
        let made = slab().or_else(|_| {
            // Whatever is short, what is cached has some of it.
            self.trim();
            slab()
        });
        let mut state = self.inner.lock();
        match made {
            Ok(slab) => Ok(self.hand_out(&mut state, Arc::new(slab), len_bytes)),
            Err(errno) => {
                state.used_bytes -= asked_bytes;
                Err(ArenaError::System(errno))
            }
        }
    }

    fn hand_out(&self, state: &mut State, slab: Arc<Slab>, len_bytes: usize) -> Block {
        let live = Live { slab: slab.clone(), len_bytes };
        state.live.insert(slab.base().addr().get(), live);
        Block { arena: self.inner.clone(), slab, len_bytes }
    }

    /// What the arena holds now.
    #[must_use]
    pub fn status(&self) -> ArenaStatus {
        let state = self.inner.lock();
        let granted = state.live.values().filter(|live| live.slab.is_granted());
        ArenaStatus {
            limit_bytes: self.inner.limit_bytes,
            used_bytes: state.used_bytes,
            cached_bytes: state.cached_bytes,
            allocations: state.live.len() as u64,
            granted_bytes: granted.map(|live| live.slab.bytes() as u64).sum(),
        }
    }

    /// The slab of the block in use that holds `len_bytes` from `base` on, and the offset in it.
    #[must_use]
    pub fn find(&self, base: *const u8, len_bytes: usize) -> Option<(Arc<Slab>, usize)> {
        let state = self.inner.lock();
        let (start, live) = state.live.range(..=base.addr()).next_back()?;
        let offset = base.addr() - start;
        let end = offset.checked_add(len_bytes)?;
        (end <= live.len_bytes).then(|| (live.slab.clone(), offset))
    }

    /// Lets cached memory go.
    pub fn trim(&self) {
        let evicted = self.inner.lock().shrink_cache(0, 0);
        drop(evicted);
    }

    /// Lets the memory go that was kept for the peer of a channel which has ended.
    pub fn forget_channel(&self, channel: u64) {
        let mut state = self.inner.lock();
        let (gone, kept): (VecDeque<_>, VecDeque<_>) =
            state.cache.drain(..).partition(|cached| cached.channel == Some(channel));
        state.cache = kept;
        state.cached_bytes -= gone.iter().map(|cached| cached.bytes as u64).sum::<u64>();
        // Closed when nobody waits for the lock.
        drop(state);
        drop(gone);
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The cached slab that fits; rather one that this channel's peer has already, as its grant stays.
    fn take_cached(
        &mut self,
        bytes: usize,
        align: usize,
        for_channel: Option<u64>,
    ) -> Option<Arc<Slab>> {
        let fits = |cached: &Cached, channel| {
            cached.bytes == bytes
                && cached.channel == channel
                && cached.slab.base().addr().get().is_multiple_of(align)
        };
        // The youngest first: its lines may still be in our caches.
        let newest = |channel| self.cache.iter().rposition(|cached| fits(cached, channel));
        let found = for_channel.and_then(|_| newest(for_channel)).or_else(|| newest(None))?;
        let cached = self.cache.remove(found)?;
        self.cached_bytes -= cached.bytes as u64;
        Some(cached.slab)
    }

    /// Takes slabs out of the cache, the oldest first, until it is small enough; the caller drops them
    /// without the lock.
    #[must_use]
    fn shrink_cache(&mut self, bytes_max: u64, slabs_max: usize) -> Vec<Cached> {
        let mut evicted = Vec::new();
        while self.cached_bytes > bytes_max || self.cache.len() > slabs_max {
            let Some(oldest) = self.cache.pop_front() else { break };
            self.cached_bytes -= oldest.bytes as u64;
            evicted.push(oldest);
        }
        evicted
    }
}

/// An allocation, until it is dropped.
#[derive(Debug)]
pub struct Block {
    arena: Arc<Inner>,
    slab: Arc<Slab>,
    len_bytes: usize,
}

impl Block {
    /// First byte.
    #[must_use]
    pub fn base(&self) -> NonNull<u8> {
        self.slab.base()
    }

    /// Length as it was asked for.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// The memory, to send from. Whoever uses it holds the block until its request has ended.
    #[must_use]
    pub fn source(&self) -> Source {
        // SAFETY: the slab is mapped as long as the block lives, and the block as long as the request,
        // by what is said above.
        unsafe { Source::from_raw(self.base().as_ptr(), self.len_bytes) }
    }

    /// The memory, to receive into. Whoever uses it holds the block until its request has ended.
    #[must_use]
    pub fn sink(&self) -> Sink {
        // SAFETY: as in `source`.
        unsafe { Sink::from_raw(self.base().as_ptr(), self.len_bytes) }
    }

    /// The slab that it lies in, at offset 0.
    #[must_use]
    pub fn slab(&self) -> &Arc<Slab> {
        &self.slab
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut state = self.arena.lock();
        let bytes = self.slab.bytes();
        let live = state.live.remove(&self.slab.base().addr().get());
        state.used_bytes -= bytes as u64;
        // Ours and the one just taken out. Whoever else has the slab found it while it was in use,
        // and may still grant it.
        let ours_alone = Arc::strong_count(&self.slab) == 2;
        let channel = match self.slab.fate() {
            Fate::Keep if ours_alone => None,
            Fate::KeepFor(channel) if ours_alone => Some(channel),
            _ => {
                drop(state);
                // The last one to let go of the slab takes its grants back and closes it.
                return;
            }
        };
        let bytes_max = (self.arena.limit_bytes / 4).min(self.arena.limit_bytes - state.used_bytes);
        if bytes as u64 > bytes_max {
            drop(state);
            return;
        }
        if let Some(live) = live {
            state.cached_bytes += bytes as u64;
            state.cache.push_back(Cached { channel, bytes, slab: live.slab });
        }
        let evicted = state.shrink_cache(bytes_max, CACHED_MAX);
        drop(state);
        drop(evicted);
    }
}

#[cfg(test)]
mod tests;
