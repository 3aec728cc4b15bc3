// SPDX-License-Identifier: Apache-2.0
//! The reader's side: what the peer of one channel has granted us.

use std::fmt;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Instant;

use rustix::fs::{OFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

use super::atomics::{self, AtomicOp};
use super::pace::{PACED_MIN, Pace, Way};
use super::{GrantId, GrantNote};
use crate::arena::LEN_MAX;
use crate::barrier::Barrier;
use crate::buffer::{Sink, Source};
use crate::copy;
use crate::layout::{GRANT_COUNT, WORD_GRANTS, WORD_TOUCHING};
use crate::sync::{AtomicU64, Ordering};
use crate::words::Words;

/// What `fstatfs` calls the file system of a memfd in ordinary pages.
const TMPFS_MAGIC: u64 = 0x0102_1994;
/// Messages from this length on are copied past the caches: they would only empty them.
const PAST_CACHES_MIN: usize = 8 << 20;
/// Bytes of one channel's grants that are mapped at most, views included: a peer must not use up the
/// addresses of this process.
const MAPPED_MAX: u64 = 4 << 40;
/// Pages of a mapping made present at once: no more, as the owner decides how long a grant is.
const POPULATED_MAX: usize = 4 << 20;

/// A file that came as a grant is none, by its owner's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GrantFault {
    /// The length is 0, not whole pages, or too long.
    BadLength,
    /// The file does not have that length.
    TooSmall,
    /// It is not memory in ordinary pages, which alone can be touched without harm.
    NotMemory,
    /// Its length is not fixed by seals.
    NotSealed,
    /// It cannot be read, or not be written where that is promised.
    BadAccess,
}

impl fmt::Display for GrantFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadLength => "a granted length is not whole pages, or too long",
            Self::TooSmall => "a granted file is shorter than it was said to be",
            Self::NotMemory => "a granted file is not plain shared memory",
            Self::NotSealed => "a granted file is not sealed against shrinking and growing",
            Self::BadAccess => "a granted file cannot be mapped as it was said to be",
        })
    }
}

impl std::error::Error for GrantFault {}

/// Why granted memory cannot be used (that way).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unreachable {
    /// The grant has not arrived, or there is none.
    Unknown,
    /// Its owner has taken it back.
    TakenBack,
    /// It allows no writing.
    ReadOnly,
    /// The range leaves the memory; or a word does not lie at a multiple of 8.
    OutOfRange,
    /// The system refuses to map it.
    System(Errno),
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("the memory was not granted"),
            Self::TakenBack => f.write_str("the grant was taken back"),
            Self::ReadOnly => f.write_str("the memory was granted for reading only"),
            Self::OutOfRange => f.write_str("the range does not lie inside the granted memory"),
            Self::System(errno) => write!(f, "cannot map granted memory: {errno}"),
        }
    }
}

impl std::error::Error for Unreachable {}

/// The grants of one channel's peer.
pub struct Grants {
    words: Words,
    /// Our own file, where we say what we touch.
    outgoing: Words,
    barrier: Barrier,
    pace: Pace,
    /// As many as were ever used: most channels grant nothing.
    slots: Vec<Slot>,
    /// Bytes of all mappings that still exist.
    mapped_bytes: Arc<AtomicU64>,
}

/// The grant known by a slot.
#[derive(Default)]
struct Slot {
    /// 0: none.
    generation: u64,
    /// 0 until it is mapped, so that one comparison settles both.
    mapped_bytes: u64,
    base: Option<NonNull<u8>>,
    writable: bool,
    len_bytes: u64,
    /// Until it is mapped.
    file: Option<OwnedFd>,
    mapping: Option<Arc<Mapping>>,
}

// SAFETY: `base` is an address in `mapping`, which is `Send` and lives as long.
unsafe impl Send for Grants {}
// SAFETY: as above; a shared reference gives no address.
unsafe impl Sync for Grants {}

impl Grants {
    /// For a channel with these files.
    #[must_use]
    pub fn new(incoming: Words, outgoing: Words) -> Self {
        let mapped_bytes = Arc::default();
        let barrier = Barrier::of_this_process();
        let (pace, slots) = (Pace::default(), Vec::new());
        Self { words: incoming, outgoing, barrier, pace, slots, mapped_bytes }
    }

    /// Takes in a file that came over the channel, if touching it can do no harm. One that was taken
    /// back on the way is let go, without a word.
    ///
    /// # Errors
    /// [`GrantFault`]: the peer is at fault, and the file is closed.
    pub fn accept(&mut self, note: GrantNote, file: OwnedFd) -> Result<(), GrantFault> {
        let page_bytes = rustix::param::page_size() as u64;
        let fits = note.len_bytes.is_multiple_of(page_bytes) && note.len_bytes <= LEN_MAX as u64;
        if note.len_bytes == 0 || !fits {
            return Err(GrantFault::BadLength);
        }
        check_file(&note, &file)?;
        if self.is_live(note.grant) {
            let at = usize::from(note.grant.slot);
            if self.slots.len() <= at {
                self.slots.resize_with(at + 1, Slot::default);
            }
            self.slots[at] = Slot {
                generation: note.grant.generation,
                writable: note.writable,
                len_bytes: note.len_bytes,
                file: Some(file),
                ..Slot::default()
            };
        }
        Ok(())
    }

    /// Whether the owner has not taken it back.
    #[inline]
    #[must_use]
    pub fn is_live(&self, grant: GrantId) -> bool {
        let slot = usize::from(grant.slot);
        // ORDERING: acquire pairs with `Table::take`: what the owner did before it granted is seen.
        slot < GRANT_COUNT
            && self.words.load(WORD_GRANTS + slot, Ordering::Acquire) == grant.generation
    }

    /// Whether its file has arrived.
    #[must_use]
    pub fn knows(&self, grant: GrantId) -> bool {
        let slot = self.slots.get(usize::from(grant.slot));
        grant.generation != 0 && slot.is_some_and(|slot| slot.generation == grant.generation)
    }

    /// The address of `len_bytes` at `offset` of a live grant, mapped if need be. It is valid until the
    /// next call that takes `&mut self`; others may change the bytes at any time.
    ///
    /// # Errors
    /// [`Unreachable`].
    #[inline]
    pub fn reach(
        &mut self,
        grant: GrantId,
        offset: u64,
        len_bytes: usize,
        writing: bool,
    ) -> Result<NonNull<u8>, Unreachable> {
        if self.is_live(grant)
            && let Some(slot) = self.slots.get(usize::from(grant.slot))
            && slot.generation == grant.generation
            && let Some(base) = slot.base
            && offset.checked_add(len_bytes as u64).is_some_and(|end| end <= slot.mapped_bytes)
            && (slot.writable || !writing)
        {
            // SAFETY: inside the mapping, as just compared.
            return Ok(unsafe { base.add(offset as usize) });
        }
        self.reach_slowly(grant, offset, len_bytes, writing)
    }

    #[cold]
    fn reach_slowly(
        &mut self,
        grant: GrantId,
        offset: u64,
        len_bytes: usize,
        writing: bool,
    ) -> Result<NonNull<u8>, Unreachable> {
        if !self.is_live(grant) {
            return Err(Unreachable::TakenBack);
        }
        if !self.knows(grant) {
            return Err(Unreachable::Unknown);
        }
        let slot = &self.slots[usize::from(grant.slot)];
        if writing && !slot.writable {
            return Err(Unreachable::ReadOnly);
        }
        if offset.checked_add(len_bytes as u64).is_none_or(|end| end > slot.len_bytes) {
            return Err(Unreachable::OutOfRange);
        }
        if slot.len_bytes > MAPPED_MAX.saturating_sub(self.mapped_bytes.load(Ordering::Relaxed)) {
            // What was taken back may be in the way.
            self.tidy();
        }
        let slot = &mut self.slots[usize::from(grant.slot)];
        let mapping = slot.mapping(&self.mapped_bytes)?;
        // SAFETY: inside the mapping, as just compared.
        Ok(unsafe { mapping.base.add(offset as usize) })
    }

    /// A view of granted memory that stays mapped as long as it lives, whatever the owner does. What
    /// the owner writes is seen in it until the grant is taken back.
    ///
    /// # Errors
    /// [`Unreachable`].
    pub fn view(
        &mut self,
        grant: GrantId,
        offset: u64,
        len_bytes: usize,
    ) -> Result<View, Unreachable> {
        let base = self.reach(grant, offset, len_bytes, false)?;
        // Whoever wants a view looks at its start next, and the owner has just written there.
        copy::warm_for_reading(base.as_ptr());
        let mapping = self.slots[usize::from(grant.slot)].mapping(&self.mapped_bytes)?.clone();
        Ok(View { mapping, base, len_bytes })
    }

    /// Copies out of granted memory into `sink` from `at` on; gives the bytes for which there was room.
    ///
    /// # Errors
    /// [`Unreachable`]; then nothing was copied.
    #[inline]
    pub fn copy_out(
        &mut self,
        grant: GrantId,
        offset: u64,
        sink: &Sink,
        at: usize,
        len_bytes: usize,
    ) -> Result<usize, Unreachable> {
        let from = self.reach(grant, offset, len_bytes, false)?;
        let len = len_bytes.min(sink.len_bytes().saturating_sub(at));
        if len > 0 {
            // SAFETY: both ranges were checked by `reach` and `range`, and are valid by `reach` and
            // `Sink::from_raw`.
            unsafe {
                let to = sink.range(at, len);
                if sink.len_bytes() >= PAST_CACHES_MIN {
                    copy::out_past_caches(from.as_ptr(), to, len);
                } else {
                    copy::out_of_shared(from.as_ptr(), to, len);
                }
            }
        }
        Ok(len)
    }

    /// Copies `len_bytes` of `source` from `at` on into memory that was granted for writing.
    ///
    /// # Errors
    /// [`Unreachable`]. When the grant was taken back meanwhile, some of it may have arrived.
    ///
    /// # Panics
    /// When the range leaves `source`: our bug.
    #[inline]
    pub fn copy_in(
        &mut self,
        grant: GrantId,
        offset: u64,
        source: &Source,
        at: usize,
        len_bytes: usize,
    ) -> Result<(), Unreachable> {
        let to = self.reach(grant, offset, len_bytes, true)?;
        let from = source.range(at, len_bytes);
        // SAFETY: both ranges were checked by `reach` and `range`, and are valid by `reach` and
        // `Source::from_raw`.
        unsafe {
            if len_bytes < PACED_MIN {
                copy::into_shared(from, to.as_ptr(), len_bytes);
            } else {
                self.copy_in_paced(from, to.as_ptr(), len_bytes);
            }
        }
        self.still_live(grant)
    }

    /// # Safety
    /// As [`copy::into_shared`].
    unsafe fn copy_in_paced(&mut self, from: *const u8, to: *mut u8, len_bytes: usize) {
        let way = self.pace.choose();
        let before = Instant::now();
        // SAFETY: passed on from the caller.
        unsafe {
            match way {
                Way::Through => copy::into_shared(from, to, len_bytes),
                Way::Past => copy::into_past_caches(from, to, len_bytes),
            }
        }
        self.pace.note(way, len_bytes, before.elapsed());
    }

    /// Does an atomic operation on a word of memory that was granted for writing; gives what stood
    /// there before.
    ///
    /// # Errors
    /// [`Unreachable`]; then it was not done.
    #[inline]
    pub fn atomic(
        &mut self,
        grant: GrantId,
        offset: u64,
        op: AtomicOp,
    ) -> Result<u64, Unreachable> {
        let word = self.reach(grant, offset, 8, true)?;
        if !offset.is_multiple_of(8) {
            return Err(Unreachable::OutOfRange);
        }
        // ORDERING: relaxed, and before the look by the light fence, which pairs with the heavy one of
        // `Slab::renew`: either we find the grant taken back, or its owner finds us touching it.
        self.outgoing.store(WORD_TOUCHING, grant.to_word(), Ordering::Relaxed);
        let live = self.still_live(grant);
        // SAFETY: mapped for writing, by `reach`; at a multiple of 8, as mappings start with a page.
        let before = live.map(|()| unsafe { atomics::apply(word, op) });
        // ORDERING: release, so that the owner sees the operation done once it sees this.
        self.outgoing.store(WORD_TOUCHING, 0, Ordering::Release);
        before
    }

    /// The second look: after writing, or before what must not be done in vain.
    #[inline]
    fn still_live(&self, grant: GrantId) -> Result<(), Unreachable> {
        // Pairs with the heavy fence of `Slab::renew`.
        self.barrier.light();
        if self.is_live(grant) { Ok(()) } else { Err(Unreachable::TakenBack) }
    }

    /// Lets go of what was taken back. Views keep what they need.
    pub fn tidy(&mut self) {
        for (i, slot) in self.slots.iter_mut().enumerate() {
            // ORDERING: none needed; what is taken back a moment later goes next time.
            let current = || self.words.load(WORD_GRANTS + i, Ordering::Relaxed);
            if slot.generation != 0 && slot.generation != current() {
                *slot = Slot::default();
            }
        }
    }
}

impl fmt::Debug for Grants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.slots.iter().filter(|slot| slot.generation != 0).count();
        write!(f, "Grants({known} known)")
    }
}

impl Slot {
    /// The mapping, made now if there is none yet.
    fn mapping(&mut self, total: &Arc<AtomicU64>) -> Result<&Arc<Mapping>, Unreachable> {
        if let Some(file) = &self.file {
            let mapping = Mapping::new(file, self.len_bytes, self.writable, total.clone())
                .map_err(Unreachable::System)?;
            self.base = Some(mapping.base);
            self.mapped_bytes = self.len_bytes;
            self.mapping = Some(Arc::new(mapping));
            self.file = None;
        }
        self.mapping.as_ref().ok_or(Unreachable::Unknown)
    }
}

/// Only files that can be touched without harm: their pages cannot go away, and their kind has no other
/// way to fail a touch.
fn check_file(note: &GrantNote, file: &OwnedFd) -> Result<(), GrantFault> {
    // What knows no seals is no memory.
    let seals = rustix::fs::fcntl_get_seals(file).map_err(|_| GrantFault::NotMemory)?;
    // Huge pages have seals too, but may run out: a touch is then fatal.
    let kind = rustix::fs::fstatfs(file).map_err(|_| GrantFault::NotMemory)?.f_type;
    if kind as u64 != TMPFS_MAGIC {
        return Err(GrantFault::NotMemory);
    }
    if !seals.contains(SealFlags::SHRINK | SealFlags::GROW) {
        return Err(GrantFault::NotSealed);
    }
    let file_bytes = rustix::fs::fstat(file).map_err(|_| GrantFault::NotMemory)?.st_size as u64;
    if file_bytes < note.len_bytes {
        return Err(GrantFault::TooSmall);
    }
    let mode = rustix::fs::fcntl_getfl(file).map_err(|_| GrantFault::BadAccess)? & OFlags::RWMODE;
    let no_writers = seals.intersects(SealFlags::WRITE | SealFlags::FUTURE_WRITE);
    let fits = match note.writable {
        true => mode == OFlags::RDWR && !no_writers,
        false => mode != OFlags::WRONLY,
    };
    if fits { Ok(()) } else { Err(GrantFault::BadAccess) }
}

/// A granted file, mapped.
///
/// Not a `Region`: views of it are the user's, and a forked child keeps them.
#[derive(Debug)]
struct Mapping {
    base: NonNull<u8>,
    len_bytes: usize,
    /// What all mappings of the channel have together.
    total: Arc<AtomicU64>,
}

// SAFETY: an address range that is valid from any thread until drop.
unsafe impl Send for Mapping {}
// SAFETY: as above; a shared reference gives nothing but the address and the length.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps a file that `check_file` has passed.
    fn new(
        file: &OwnedFd,
        len_bytes: u64,
        writable: bool,
        total: Arc<AtomicU64>,
    ) -> Result<Self, Errno> {
        // ORDERING: only a count. One thread makes the channel's mappings; any may drop one.
        if len_bytes > MAPPED_MAX.saturating_sub(total.load(Ordering::Relaxed)) {
            return Err(Errno::NOMEM);
        }
        let len_bytes = usize::try_from(len_bytes).map_err(|_| Errno::NOMEM)?;
        let read_write = ProtFlags::READ | ProtFlags::WRITE;
        let prot = if writable { read_write } else { ProtFlags::READ };
        // SAFETY: a null hint replaces no mapping; the file covers `len_bytes` and cannot shrink, as
        // `check_file` made sure.
        let base =
            unsafe { mmap(std::ptr::null_mut(), len_bytes, prot, MapFlags::SHARED, file, 0)? };
        let base_byte = NonNull::new(base.cast()).ok_or(Errno::NOMEM)?;
        total.fetch_add(len_bytes as u64, Ordering::Relaxed);
        let mapping = Self { base: base_byte, len_bytes, total };
        let first = len_bytes.min(POPULATED_MAX);
        // A failure only leaves the pages to be mapped one by one.
        // SAFETY: the start of our own mapping; populating changes no contents.
        let _ = unsafe { madvise(base, first, Advice::LinuxPopulateRead) };
        Ok(mapping)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `new`, a forked child has it too, and nothing can use it after
        // this: slots and views hold it.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len_bytes) };
        self.total.fetch_sub(self.len_bytes as u64, Ordering::Relaxed);
    }
}

/// A range of granted memory, mapped for reading as long as this lives.
#[derive(Clone, Debug)]
pub struct View {
    mapping: Arc<Mapping>,
    base: NonNull<u8>,
    len_bytes: usize,
}

// SAFETY: `base` is an address in `mapping`, which is `Send` and `Sync` and lives as long.
unsafe impl Send for View {}
// SAFETY: as above.
unsafe impl Sync for View {}

impl View {
    /// First byte.
    #[must_use]
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Length in bytes.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// The memory, to send from. Whoever uses it holds the view until its request has ended.
    #[must_use]
    pub fn source(&self) -> Source {
        debug_assert!(self.base >= self.mapping.base);
        // SAFETY: mapped for reading as long as the view lives, and the view as long as the request, by
        // what is said above.
        unsafe { Source::from_raw(self.base.as_ptr(), self.len_bytes) }
    }
}
