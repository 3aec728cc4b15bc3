// SPDX-License-Identifier: Apache-2.0
//! The writing end of a ring.

use super::PeerFault;
use super::area::Area;
use crate::buffer::Source;
use crate::cell::Cell;
#[cfg(not(loom))]
use crate::distance::FAR_PAYLOAD_MIN;
#[cfg(not(loom))]
use crate::layout::AREA_OFFSET;
#[cfg(not(loom))]
use crate::layout::WORD_FAR;
use crate::layout::{
    CELL_COUNT, HALF_WORDS, INLINE_BYTES, WORD_CLOSING, WORD_CONSUMED, WORD_CREDIT_BYTES,
    WORD_CREDIT_MESSAGES, WORD_WINDOW,
};
use crate::sync::Ordering;
use crate::words::Words;

/// So much of the next payload's place is fetched ahead after a message.
#[cfg(not(loom))]
const WARM_BYTES_MAX: usize = 8192;

/// A cell could not be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushError {
    /// No room now; not a failure.
    Full,
    /// The peer's indexes make no sense.
    Peer(PeerFault),
}

/// Publishes cells and payload in our own file.
pub struct Producer {
    /// Our own file: cells and payload.
    outgoing: Words,
    /// The peer's file: how much it has consumed and given back.
    incoming: Words,
    /// Lines published so far; two short cells share one.
    produced: u64,
    /// The last cell is a short one, and the second half of its line is free.
    half_free: bool,
    /// What the peer said it consumed when we last looked; `produced - consumed <= CELL_COUNT`.
    consumed: u64,
    area: Area,
}

impl Producer {
    /// The producer of a fresh channel.
    ///
    /// `window` is how many bytes of the bulk area to rotate over, until the peer asks otherwise.
    #[must_use]
    pub fn new(outgoing: Words, incoming: Words, window: u64) -> Self {
        Self {
            outgoing,
            incoming,
            produced: 0,
            half_free: false,
            consumed: 0,
            area: Area::new(window),
        }
    }

    /// Publishes a cell whose payload, if any, is inline already.
    ///
    /// # Errors
    /// [`PushError::Full`] while the peer has not consumed enough; [`PushError::Peer`] when it
    /// lies.
    #[inline(always)]
    pub fn push(&mut self, cell: &Cell) -> Result<(), PushError> {
        if !(self.half_free && cell.is_short()) {
            self.require_cell()?;
        }
        self.publish(cell);
        Ok(())
    }

    /// How many bytes of the bulk area the peer wishes us to rotate over; 0 until it has taken its
    /// end of the channel in. Anything, if the peer lies.
    #[must_use]
    pub fn window_wish(&self) -> u64 {
        // ORDERING: relaxed; clamped before use, and nothing is read on the strength of it. For a
        // sleeper that waits for it, the fences of the sleep flag order it.
        self.incoming.load(WORD_WINDOW, Ordering::Relaxed)
    }

    /// Publishes a cell with `len_bytes` of payload from `source`, inline when it fits.
    ///
    /// # Errors
    /// As [`Producer::push`]; also `Full` while the area has no room.
    #[inline(always)]
    pub fn push_payload(
        &mut self,
        cell: &Cell,
        source: &Source,
        offset: usize,
        len_bytes: usize,
    ) -> Result<(), PushError> {
        if len_bytes <= INLINE_BYTES && offset == 0 && source.len_bytes() == len_bytes {
            return self.push(&cell.with_inline(source));
        }
        self.require_cell()?;
        self.push_area(cell, source, offset, len_bytes)
    }

    #[inline(never)]
    fn push_area(
        &mut self,
        cell: &Cell,
        source: &Source,
        offset: usize,
        len_bytes: usize,
    ) -> Result<(), PushError> {
        let place = self.allocate(len_bytes)?;
        self.copy_in(source, offset, place, len_bytes);
        self.publish(&cell.with_area(place, len_bytes));
        #[cfg(not(loom))]
        if offset + len_bytes == source.len_bytes()
            && (len_bytes < FAR_PAYLOAD_MIN || !self.reader_is_far())
        {
            self.warm_next(source.len_bytes().min(WARM_BYTES_MAX));
        }
        Ok(())
    }

    /// Fetches the place of the next payload, likely as long as this one, off the critical path.
    #[cfg(not(loom))]
    #[inline]
    fn warm_next(&mut self, len_bytes: usize) {
        if let Some(place) = self.area.next_place(len_bytes) {
            let start = self.outgoing.region().base().as_ptr().wrapping_add(AREA_OFFSET + place);
            crate::copy::warm_for_writing(start, len_bytes);
        }
    }

    /// Publishes a cell with `len_bytes` of payload that `fill` writes in place: given the first
    /// byte of `len_bytes` writable bytes. For relays, which copy from another file.
    ///
    /// # Errors
    /// As [`Producer::push_payload`].
    #[cfg(not(loom))]
    pub fn push_with(
        &mut self,
        cell: &Cell,
        len_bytes: usize,
        fill: impl FnOnce(crate::buffer::Sink),
    ) -> Result<(), PushError> {
        self.require_cell()?;
        let place = self.allocate(len_bytes)?;
        // SAFETY: the area just allocated is inside our file, which only we write, and nothing
        // else uses it until the peer has consumed the cell that is published below.
        let sink = unsafe {
            let base = self.outgoing.region().base().as_ptr().add(AREA_OFFSET + place);
            crate::buffer::Sink::from_raw(base, len_bytes)
        };
        fill(sink);
        self.publish(&cell.with_area(place, len_bytes));
        Ok(())
    }

    /// Eager bytes and messages that the peer has given back so far, free-running.
    #[must_use]
    pub fn credits_returned(&self) -> (u64, u64) {
        // ORDERING: pairs with the release store of `Consumer::tell`; the counts only
        // say what the peer's private memory has room for, so nothing else hangs on them.
        let bytes = self.incoming.load(WORD_CREDIT_BYTES, Ordering::Acquire);
        let messages = self.incoming.load(WORD_CREDIT_MESSAGES, Ordering::Acquire);
        (bytes, messages)
    }

    /// Whether every line that was published has been consumed.
    #[cfg(test)]
    pub(crate) fn is_drained(&mut self) -> bool {
        let _ = self.refresh();
        self.produced == self.consumed
    }

    /// Says that no further cell will come.
    pub fn close(&self) {
        // ORDERING: release, so that a peer that sees the flag sees every cell before it.
        self.outgoing.store(WORD_CLOSING, 1, Ordering::Release);
    }

    /// Gives the pages of an idle bulk area back to the system; returns the bytes given back.
    #[cfg(not(loom))]
    pub fn reclaim(&mut self) -> usize {
        let _ = self.refresh();
        let touched = self.area.bulk_touched();
        if touched == 0 || !self.area.bulk_is_idle() {
            return 0;
        }
        self.outgoing.region().discard(AREA_OFFSET + crate::layout::SMALL_BYTES, touched);
        self.area.forget_bulk();
        touched
    }

    #[inline(always)]
    fn require_cell(&mut self) -> Result<(), PushError> {
        if self.produced - self.consumed == CELL_COUNT as u64 {
            self.refresh().map_err(PushError::Peer)?;
            if self.produced - self.consumed == CELL_COUNT as u64 {
                return Err(PushError::Full);
            }
        }
        Ok(())
    }

    #[inline]
    fn allocate(&mut self, len_bytes: usize) -> Result<usize, PushError> {
        #[cfg(not(loom))]
        if len_bytes > super::area::SMALL_PAYLOAD_MAX && self.area.bulk_touched() == 0 {
            // First bulk payload: have the pages now, all at once, instead of a fault for each
            // piece. If memory is short the kernel says so better when they are touched.
            let start = AREA_OFFSET + crate::layout::SMALL_BYTES;
            let _ = self.outgoing.region().populate(start, self.area.window() as usize);
        }
        if let Some(place) = self.area.allocate(len_bytes) {
            return Ok(place);
        }
        self.refresh().map_err(PushError::Peer)?;
        // Zero is no wish.
        let wish = self.window_wish();
        if wish != 0 {
            let left_bytes = self.area.resize(wish);
            #[cfg(not(loom))]
            if left_bytes > 0 {
                let start = AREA_OFFSET + crate::layout::SMALL_BYTES;
                self.outgoing.region().discard(start, left_bytes);
            }
            #[cfg(loom)]
            let _ = left_bytes;
        }
        self.area.allocate(len_bytes).ok_or(PushError::Full)
    }

    /// Reads what the peer alleges to have consumed, and believes it only if it can be true.
    #[cold]
    fn refresh(&mut self) -> Result<(), PeerFault> {
        // ORDERING: pairs with the release store of `Consumer::tell`: the peer is
        // done reading the cells and the payload that we may overwrite after this.
        let alleged = self.incoming.load(WORD_CONSUMED, Ordering::Acquire);
        if alleged < self.consumed || alleged > self.produced {
            return Err(PeerFault::BadConsumed);
        }
        // Nothing new must change nothing: in a full ring the marks of the last consumed cell
        // belong to the newest one already.
        if alleged != self.consumed {
            self.consumed = alleged;
            self.area.release(alleged);
        }
        Ok(())
    }

    #[cfg(not(loom))]
    #[inline]
    fn copy_in(&self, source: &Source, offset: usize, place: usize, len_bytes: usize) {
        let from = source.range(offset, len_bytes);
        assert!(place + len_bytes <= crate::layout::AREA_BYTES);
        // SAFETY: `from` is readable for `len_bytes` (checked by `range`); the destination lies in
        // the area of our own file (asserted), which only this producer writes, and which the
        // allocator has not given to a payload in flight; user memory is not inside our file.
        unsafe {
            let to = self.outgoing.region().base().as_ptr().add(AREA_OFFSET + place);
            if len_bytes >= FAR_PAYLOAD_MIN && self.reader_is_far() {
                crate::copy::past_the_caches(from, to, len_bytes);
            } else {
                crate::copy::into_own(from, to, len_bytes);
            }
        }
    }

    /// Whether the peer has measured that it shares no cache with us.
    #[cfg(not(loom))]
    #[inline(always)]
    fn reader_is_far(&self) -> bool {
        // ORDERING: relaxed; a wish that decides how we copy and nothing else.
        self.incoming.load(WORD_FAR, Ordering::Relaxed) == 1
    }

    /// Under loom there is no area: models use inline payload only.
    #[cfg(loom)]
    fn copy_in(&self, _: &Source, _: usize, _: usize, _: usize) {}

    #[inline(always)]
    fn publish(&mut self, cell: &Cell) {
        if cell.is_short() { self.publish_short(cell) } else { self.publish_line(cell) }
    }

    /// Publishes a short cell: two of them share a line, so that one transfer carries both when the
    /// peer is behind.
    #[inline(always)]
    fn publish_short(&mut self, cell: &Cell) {
        let (number, half) =
            if self.half_free { (self.produced - 1, HALF_WORDS) } else { (self.produced, 0) };
        let stamp = (number + 1) as u32;
        let line = self.outgoing.cell(number);
        // ORDERING: relaxed, made visible by the release store of the head below.
        line.store(half + 1, cell.words[0], Ordering::Relaxed);
        line.store(half + 2, cell.words[1], Ordering::Relaxed);
        line.store(half + 3, cell.body[0], Ordering::Relaxed);
        if half == 0 {
            // What lay here may look like anything, but not like the second half of this line.
            line.store(HALF_WORDS, u64::from(!stamp), Ordering::Relaxed);
            self.produced += 1;
        }
        self.half_free = half == 0;
        let head = cell.head() | u64::from(Cell::SHORT) << 40 | u64::from(stamp);
        // ORDERING: as in `publish_line`.
        line.store(half, head, Ordering::Release);
    }

    #[inline(always)]
    fn publish_line(&mut self, cell: &Cell) {
        debug_assert!(self.produced - self.consumed < CELL_COUNT as u64);
        self.half_free = false;
        let line = self.outgoing.cell(self.produced);
        // ORDERING: relaxed, made visible by the release store of the head below.
        line.store(1, cell.words[0], Ordering::Relaxed);
        line.store(2, cell.words[1], Ordering::Relaxed);
        line.store(3, cell.words[2], Ordering::Relaxed);
        let body_words = cell.body_words();
        if body_words > 0 {
            line.store(4, cell.body[0], Ordering::Relaxed);
        }
        for i in 1..body_words {
            line.store(4 + i, cell.body[i], Ordering::Relaxed);
        }
        if cell.flags & Cell::IN_AREA != 0 {
            self.area.mark(self.produced);
        }
        self.produced += 1;
        // ORDERING: pairs with the acquire load in `Consumer::peek`; the peer sees cell and
        // payload before the stamp.
        let stamp = u64::from(self.produced as u32);
        line.store(0, cell.head() | stamp, Ordering::Release);
    }
}
