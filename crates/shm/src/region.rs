// SPDX-License-Identifier: Apache-2.0
//! A mapping of granted memory, and what may be said of it.
//!
//! A region is mapped once, stays at its address until it is dropped, and is not inherited by
//! `fork()`: a child that touched it would corrupt its parent's channels, so the kernel does not
//! give it the pages at all (`MADV_DONTFORK`). Callers check for a fork before they use a region.

use std::ffi::c_void;
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

use crate::fork;

/// What the kernel lets this process do with a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading only: the peer's outgoing file.
    ReadOnly,
    /// Reading and writing: our own outgoing file.
    ReadWrite,
}

/// Mapping granted memory failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum RegionError {
    /// The file that was granted is smaller than the layout needs; whoever granted it is at fault.
    TooSmall {
        /// Size of the file in bytes.
        file_bytes: u64,
        /// Size that the layout needs, in bytes.
        needed_bytes: usize,
    },
    /// The file can be shrunk by a peer, so touching it could kill this process.
    NotSealed,
    /// The system refused; out of memory or address space, most often.
    System(Errno),
}

impl fmt::Display for RegionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooSmall { file_bytes, needed_bytes } => {
                write!(f, "granted file has {file_bytes} bytes, {needed_bytes} are needed")
            }
            Self::NotSealed => f.write_str("granted file is not sealed against shrinking"),
            Self::System(errno) => write!(f, "cannot map granted memory: {errno}"),
        }
    }
}

impl std::error::Error for RegionError {}

/// A mapped stretch of shared memory; unmapped on drop.
pub struct Region {
    base: NonNull<u8>,
    len_bytes: usize,
    access: Access,
    /// Who mapped it: a forked child does not have the mapping.
    fork_generation: u32,
}

// SAFETY: a region is an address range that is valid from any thread until drop; it hands out no
// references to its bytes. Concurrent access goes through atomics or through copies whose callers
// uphold SAFETY.md ("One writer").
unsafe impl Send for Region {}
// SAFETY: as above; `&Region` gives nothing but the address, the length and the access.
unsafe impl Sync for Region {}

impl Region {
    /// Maps the first `len_bytes` of `file` and closes the descriptor.
    ///
    /// The file must be sealed against shrinking: a peer that truncated it could otherwise kill us
    /// with `SIGBUS`.
    ///
    /// # Errors
    /// [`RegionError`] when the file is too small, not sealed, or the system refuses.
    pub fn map(file: OwnedFd, len_bytes: usize, access: Access) -> Result<Self, RegionError> {
        let seals = rustix::fs::fcntl_get_seals(&file).map_err(RegionError::System)?;
        if !seals.contains(rustix::fs::SealFlags::SHRINK) {
            return Err(RegionError::NotSealed);
        }
        let file_bytes = rustix::fs::fstat(&file).map_err(RegionError::System)?.st_size as u64;
        if file_bytes < len_bytes as u64 {
            return Err(RegionError::TooSmall { file_bytes, needed_bytes: len_bytes });
        }
        let prot = match access {
            Access::ReadOnly => ProtFlags::READ,
            Access::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
        };
        // SAFETY: a null hint lets the kernel choose a free range, so no existing mapping is
        // replaced; the file covers `len_bytes` (checked) and cannot shrink (sealed).
        let base = unsafe {
            mmap(std::ptr::null_mut(), len_bytes, prot, MapFlags::SHARED, file.as_fd(), 0)
        }
        .map_err(RegionError::System)?;
        let region = Self {
            base: NonNull::new(base.cast()).ok_or(RegionError::System(Errno::NOMEM))?,
            len_bytes,
            access,
            fork_generation: fork::watch(),
        };
        // SAFETY: the range was mapped just above and is ours alone.
        unsafe { madvise(region.address(), len_bytes, Advice::LinuxDontFork) }
            .map_err(RegionError::System)?;
        Ok(region)
    }

    /// Makes the pages of a range present now, so that nothing faults on the path of a message.
    ///
    /// # Errors
    /// [`RegionError::System`] when memory is short; then nothing was lost but the attempt.
    pub fn populate(&self, offset: usize, len_bytes: usize) -> Result<(), RegionError> {
        assert!(offset.checked_add(len_bytes).is_some_and(|end| end <= self.len_bytes));
        let advice = match self.access {
            Access::ReadOnly => Advice::LinuxPopulateRead,
            Access::ReadWrite => Advice::LinuxPopulateWrite,
        };
        // SAFETY: the range lies inside the mapping (asserted); populating changes no contents.
        let result = unsafe { madvise(self.base.as_ptr().add(offset).cast(), len_bytes, advice) };
        match result {
            // Kernels before 5.14 do not know the advice; pages then fault in on first use.
            Ok(()) | Err(Errno::INVAL) => Ok(()),
            Err(errno) => Err(RegionError::System(errno)),
        }
    }

    /// Gives the pages of a range back to the system; they read as zero afterwards.
    ///
    /// Only for ranges of our own file in which nothing is in flight.
    pub fn discard(&self, offset: usize, len_bytes: usize) {
        assert!(self.access == Access::ReadWrite);
        assert!(offset.checked_add(len_bytes).is_some_and(|end| end <= self.len_bytes));
        // SAFETY: the range lies inside the mapping (asserted) and the caller has nothing in
        // flight there; a failure (an old kernel) only leaves the pages where they are.
        let _ = unsafe {
            let start = self.base.as_ptr().add(offset).cast::<c_void>();
            libc::madvise(start, len_bytes, libc::MADV_REMOVE)
        };
    }

    /// Length of the mapping in bytes.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// What the kernel lets us do with it.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access
    }

    /// First byte of the mapping.
    #[must_use]
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    fn address(&self) -> *mut c_void {
        self.base.as_ptr().cast()
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Region({} bytes, {:?})", self.len_bytes, self.access)
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if fork::generation() != self.fork_generation {
            // A forked child never had the mapping. Something of its own may be there by now.
            return;
        }
        // SAFETY: the range was mapped by `map` and nothing can use it after this.
        let _ = unsafe { munmap(self.address(), self.len_bytes) };
    }
}
