// SPDX-License-Identifier: Apache-2.0
//! Memory of the user, lent for the time of one request.
//!
//! The MX interface lets a program post a buffer and go on; the buffer is read or written later,
//! from whatever call makes progress. Rust references cannot say that, so a request holds one of
//! these two values and whoever makes them promises that the memory stays valid until the request
//! is complete. After that single promise everything here is safe to call.

use std::ptr::NonNull;

use crate::layout::INLINE_BYTES;

/// Memory that a send reads from.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    base: NonNull<u8>,
    len_bytes: usize,
}

/// Memory that a receive writes to.
#[derive(Clone, Copy, Debug)]
pub struct Sink {
    base: NonNull<u8>,
    len_bytes: usize,
}

// SAFETY: the promise made in `from_raw` covers every thread that may make progress.
unsafe impl Send for Source {}
// SAFETY: as above.
unsafe impl Send for Sink {}

impl Source {
    /// Lends `len_bytes` of memory at `base` to a send. A null `base` is an empty message.
    ///
    /// # Safety
    /// The memory must stay readable, from any thread, until the request that holds this value
    /// is complete. (That the program does not change it meanwhile is its own affair: the peer
    /// would see a mixture, nothing worse.)
    #[inline(always)]
    #[must_use]
    pub unsafe fn from_raw(base: *const u8, len_bytes: usize) -> Self {
        match NonNull::new(base.cast_mut()) {
            Some(base) => Self { base, len_bytes },
            None => Self { base: NonNull::dangling(), len_bytes: 0 },
        }
    }

    /// Bytes lent.
    #[inline(always)]
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// First byte of the buffer.
    #[inline(always)]
    #[must_use]
    pub fn base(&self) -> *const u8 {
        self.base.as_ptr()
    }

    /// The `len_bytes` from `offset` on.
    ///
    /// # Panics
    /// When the range leaves the buffer: our bug.
    #[inline(always)]
    #[must_use]
    pub fn part(&self, offset: usize, len_bytes: usize) -> Self {
        assert!(offset.checked_add(len_bytes).is_some_and(|end| end <= self.len_bytes));
        // SAFETY: inside the buffer, as asserted, so the promise of `from_raw` carries over.
        unsafe { Self::from_raw(self.base.as_ptr().add(offset), len_bytes) }
    }

    /// The first bytes, at most 32, zero-padded into words.
    ///
    /// # Panics
    /// When the buffer is longer than 32 bytes.
    #[inline(always)]
    pub(crate) fn inline_words(&self) -> [u64; 4] {
        // SAFETY: eight bytes are readable, by `from_raw`.
        let word =
            |i: usize| unsafe { self.base.as_ptr().add(8 * i).cast::<u64>().read_unaligned() };
        if self.len_bytes == 8 {
            return [word(0), 0, 0, 0];
        }
        assert!(self.len_bytes <= INLINE_BYTES);
        let mut words = [0_u64; 4];
        let full = self.len_bytes / 8;
        for (i, to) in words.iter_mut().enumerate().take(full) {
            *to = word(i);
        }
        if !self.len_bytes.is_multiple_of(8) {
            let mut last = [0_u8; 8];
            for (i, byte) in last.iter_mut().enumerate().take(self.len_bytes % 8) {
                // SAFETY: `8 * full + i < len_bytes`.
                *byte = unsafe { *self.base.as_ptr().add(8 * full + i) };
            }
            words[full] = u64::from_le_bytes(last);
        }
        words
    }

    /// Address of byte `offset`, after checking that `len_bytes` follow.
    ///
    /// # Panics
    /// When the range leaves the buffer: our bug.
    #[cfg(not(loom))]
    #[inline(always)]
    pub(crate) fn range(&self, offset: usize, len_bytes: usize) -> *const u8 {
        assert!(offset.checked_add(len_bytes).is_some_and(|end| end <= self.len_bytes));
        // SAFETY: inside the buffer, as asserted.
        unsafe { self.base.as_ptr().add(offset) }
    }

    /// A private copy of the whole buffer.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        // SAFETY: readable by `from_raw`; the copy is made before the slice ends.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.len_bytes) }.to_vec()
    }

    /// Copies between two buffers of this process (a message to oneself); returns the bytes copied.
    pub fn copy_to(&self, sink: &Sink) -> usize {
        let len = self.len_bytes.min(sink.len_bytes);
        // SAFETY: both ranges are valid by their `from_raw`; `copy` allows them to overlap.
        unsafe { std::ptr::copy(self.base.as_ptr(), sink.base.as_ptr(), len) };
        len
    }
}

impl Sink {
    /// Lends `len_bytes` of memory at `base` to a receive. A null `base` has room for nothing.
    ///
    /// # Safety
    /// The memory must stay writable, from any thread, and be used by nothing else until the
    /// request that holds this value is complete.
    #[inline(always)]
    #[must_use]
    pub unsafe fn from_raw(base: *mut u8, len_bytes: usize) -> Self {
        match NonNull::new(base) {
            Some(base) => Self { base, len_bytes },
            None => Self { base: NonNull::dangling(), len_bytes: 0 },
        }
    }

    /// Room in bytes.
    #[inline(always)]
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// First byte of the buffer.
    #[inline(always)]
    #[must_use]
    pub fn base(&self) -> *const u8 {
        self.base.as_ptr()
    }

    /// The same memory, to send from.
    #[must_use]
    pub fn as_source(&self) -> Source {
        // SAFETY: what stays writable stays readable.
        unsafe { Source::from_raw(self.base.as_ptr(), self.len_bytes) }
    }

    /// The part that starts at `offset` (empty when `offset` is past the end).
    #[must_use]
    pub fn skip(&self, offset: usize) -> Self {
        let offset = offset.min(self.len_bytes);
        // SAFETY: still inside the buffer, so the promise of `from_raw` carries over.
        unsafe { Self::from_raw(self.base.as_ptr().add(offset), self.len_bytes - offset) }
    }

    /// The first `len_bytes` (all of it when it is shorter).
    #[must_use]
    pub fn first(&self, len_bytes: usize) -> Self {
        Self { base: self.base, len_bytes: self.len_bytes.min(len_bytes) }
    }

    /// Writes private bytes at `offset`, as far as there is room; returns the bytes written.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> usize {
        let room = self.len_bytes.saturating_sub(offset);
        let len = bytes.len().min(room);
        if len > 0 {
            // SAFETY: `offset + len <= len_bytes`, writable by `from_raw`; `bytes` is a live
            // slice, which the user's buffer cannot overlap by the promise of exclusive use.
            unsafe {
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.as_ptr().add(offset), len);
            }
        }
        len
    }

    /// Writes the first `len_bytes` of an inline payload, as far as there is room.
    #[inline(always)]
    pub fn write_inline(&self, words: &[u64; 4], len_bytes: usize) -> usize {
        let len = len_bytes.min(self.len_bytes).min(INLINE_BYTES);
        if len == 8 {
            // SAFETY: eight bytes are writable, by `from_raw`.
            unsafe { self.base.as_ptr().cast::<u64>().write_unaligned(words[0]) };
            return len;
        }
        let full = len / 8;
        for (i, word) in words.iter().enumerate().take(full) {
            // SAFETY: `8 * full <= len <= len_bytes`, writable by `from_raw`.
            unsafe { self.base.as_ptr().add(8 * i).cast::<u64>().write_unaligned(*word) };
        }
        for i in 8 * full..len {
            // SAFETY: `i < len <= len_bytes`.
            unsafe { *self.base.as_ptr().add(i) = words[full].to_le_bytes()[i % 8] };
        }
        len
    }

    /// Address of byte `offset`, after checking that `len_bytes` follow.
    ///
    /// # Panics
    /// When the range leaves the buffer: our bug.
    #[cfg(not(loom))]
    #[inline(always)]
    pub(crate) fn range(&self, offset: usize, len_bytes: usize) -> *mut u8 {
        assert!(offset.checked_add(len_bytes).is_some_and(|end| end <= self.len_bytes));
        // SAFETY: inside the buffer, as asserted.
        unsafe { self.base.as_ptr().add(offset) }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn inline_words_round_trip_at_every_length() {
        let bytes: Vec<u8> = (1..=32).collect();
        for len in 0..=32 {
            // SAFETY: `bytes` outlives the source.
            let source = unsafe { Source::from_raw(bytes.as_ptr(), len) };
            let words = source.inline_words();
            let mut out = [0_u8; 40];
            // SAFETY: `out` outlives the sink.
            let sink = unsafe { Sink::from_raw(out.as_mut_ptr(), 40) };
            assert_eq!(sink.write_inline(&words, len), len);
            assert_eq!(&out[..len], &bytes[..len]);
            assert!(out[len..].iter().all(|b| *b == 0), "wrote past {len}");
        }
    }

    #[test]
    fn a_short_sink_is_never_overrun() {
        let mut out = [0_u8; 16];
        for room in 0..16 {
            out.fill(0);
            // SAFETY: `out` outlives the sink.
            let sink = unsafe { Sink::from_raw(out.as_mut_ptr(), room) };
            assert_eq!(sink.write_inline(&[u64::MAX; 4], 32), room);
            assert!(out[room..].iter().all(|b| *b == 0));
            assert_eq!(sink.write(3, &[1; 32]), room.saturating_sub(3));
        }
    }
}
