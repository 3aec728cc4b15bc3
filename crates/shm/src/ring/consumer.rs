// SPDX-License-Identifier: Apache-2.0
//! The reading end of a ring.

#[cfg(not(loom))]
use std::time::Instant;

use super::PeerFault;
use super::area::room_bytes;
use crate::buffer::Sink;
use crate::cell::Cell;
use crate::distance::Distance;
#[cfg(not(loom))]
use crate::layout::AREA_OFFSET;
use crate::layout::{
    AREA_BYTES, CELL_COUNT, INLINE_BYTES, WORD_CLOSING, WORD_CONSUMED, WORD_CREDIT_BYTES,
    WORD_CREDIT_MESSAGES, WORD_FAR, WORD_WINDOW,
};
use crate::sync::Ordering;
use crate::words::Words;

/// Cells consumed before the producer is told in the middle of a burst.
const TELL_CELLS: u64 = CELL_COUNT.div_ceil(8) as u64;
/// Room in the area consumed before the producer is told in the middle of a burst: a fraction of the
/// smallest window, so that a producer never waits for a report that is being held back.
const TELL_BYTES: u64 = 64 << 10;

/// How far ahead of the cell in use a line is fetched.
const CELLS_AHEAD: u64 = 4;

/// A checked place in the peer's payload area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadRef {
    offset: usize,
    len_bytes: usize,
}

impl PayloadRef {
    /// Bytes of the payload.
    #[inline(always)]
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }
}

/// Reads cells and payload from the peer's file.
pub struct Consumer {
    /// The peer's file: cells and payload.
    incoming: Words,
    /// Our own file: how much we have consumed.
    outgoing: Words,
    /// Cells consumed so far.
    consumed: u64,
    /// What the peer has been told; `told <= consumed`.
    told: u64,
    /// Room in the area consumed since the peer was told, in bytes.
    untold_bytes: u64,
    /// Whether the peer was told of anything since the last `tell`.
    news: bool,
    /// Credits given back so far, and whether the peer has been told of them.
    credit_bytes: u64,
    credit_messages: u64,
    credits_untold: bool,
    distance: Distance,
}

impl Consumer {
    /// The consumer of a fresh channel.
    #[must_use]
    pub fn new(incoming: Words, outgoing: Words) -> Self {
        Self {
            incoming,
            outgoing,
            consumed: 0,
            told: 0,
            untold_bytes: 0,
            news: false,
            credit_bytes: 0,
            credit_messages: 0,
            credits_untold: false,
            distance: Distance::default(),
        }
    }

    /// Whether a cell is there: one load, for spinning.
    #[inline(always)]
    #[must_use]
    pub fn has_cell(&self) -> bool {
        // ORDERING: relaxed; `peek` loads it again, with acquire.
        let head = self.incoming.cell(self.consumed).load(0, Ordering::Relaxed);
        head as u32 == (self.consumed as u32).wrapping_add(1)
    }

    /// The next cell, copied into private memory; `None` while there is none.
    #[inline(always)]
    #[must_use]
    pub fn peek(&self) -> Option<Cell> {
        let cell = self.peek_frame()?;
        let body = if cell.flags & Cell::IN_AREA == 0 { self.inline_words() } else { cell.body };
        Some(Cell { body, ..cell })
    }

    /// As [`Consumer::peek`], without the payload that is inside the cell: as one in the area, it
    /// is read when it is copied to its destination.
    #[inline(always)]
    #[must_use]
    pub fn peek_frame(&self) -> Option<Cell> {
        let line = self.incoming.cell(self.consumed);
        // ORDERING: pairs with the release store in `Producer::publish`.
        let head = line.load(0, Ordering::Acquire);
        if head as u32 != (self.consumed as u32).wrapping_add(1) {
            return None;
        }
        // ORDERING: relaxed; ordered by the acquire load above. A hostile peer may still be
        // writing: whatever is read here is read once and checked afterwards. Words that the
        // peer did not write this time are leftovers of its own.
        let word = |i| line.load(i, Ordering::Relaxed);
        let mut cell = Cell::from_words([head, word(1), word(2), word(3), 0, 0, 0, 0]);
        if cell.flags & Cell::IN_AREA != 0 {
            cell.body[0] = word(4);
        }
        Some(cell)
    }

    /// The payload inside the cell that [`Consumer::peek_frame`] showed, and leftovers behind it.
    /// A hostile peer may be writing: read it once.
    #[inline(always)]
    #[must_use]
    pub fn inline_words(&self) -> [u64; INLINE_BYTES / 8] {
        let line = self.incoming.cell(self.consumed);
        // ORDERING: relaxed; ordered by the acquire load of `peek_frame`.
        std::array::from_fn(|i| line.load(4 + i, Ordering::Relaxed))
    }

    /// Copies the payload inside the cell to the start of `sink`, as far as there is room; returns
    /// the bytes copied. The most frequent length has a way of its own, of one word.
    #[inline(always)]
    pub fn copy_inline(&self, len_bytes: usize, sink: &Sink) -> usize {
        if len_bytes == 8 && sink.len_bytes() >= 8 {
            // ORDERING: as in `inline_words`.
            let word = self.incoming.cell(self.consumed).load(4, Ordering::Relaxed);
            return sink.write_inline(&[word, 0, 0, 0], 8);
        }
        self.copy_inline_words(len_bytes, sink)
    }

    #[inline(never)]
    fn copy_inline_words(&self, len_bytes: usize, sink: &Sink) -> usize {
        sink.write_inline(&self.inline_words(), len_bytes)
    }

    /// Where the payload of a cell lies, if it lies in the area.
    ///
    /// # Errors
    /// [`PeerFault::BadPayload`] when the cell's claims leave the cell or the area.
    #[inline(always)]
    pub fn payload(&self, cell: &Cell) -> Result<Option<PayloadRef>, PeerFault> {
        if cell.flags & Cell::IN_AREA == 0 {
            if usize::from(cell.inline_len) > INLINE_BYTES {
                return Err(PeerFault::BadPayload);
            }
            return Ok(None);
        }
        let offset = cell.body[0] as u32 as usize;
        let len_bytes = (cell.body[0] >> 32) as usize;
        if offset > AREA_BYTES || len_bytes > AREA_BYTES - offset || cell.inline_len != 0 {
            return Err(PeerFault::BadPayload);
        }
        Ok(Some(PayloadRef { offset, len_bytes }))
    }

    /// Measures now and then how far away the peer is, before a payload is copied, and tells it how to
    /// write the next ones.
    #[cfg(not(loom))]
    #[inline(always)]
    pub fn survey(&mut self, payload: PayloadRef) {
        if self.distance.is_due(payload.len_bytes) {
            self.measure(payload);
        }
    }

    #[cfg(not(loom))]
    #[cold]
    fn measure(&mut self, payload: PayloadRef) {
        let last = (AREA_OFFSET + payload.offset + payload.len_bytes) / 8 - 1;
        let before = Instant::now();
        // ORDERING: acquire keeps the second look at the clock behind it.
        std::hint::black_box(self.incoming.load(last, Ordering::Acquire));
        let line_ns = before.elapsed().as_nanos() as u64;
        if let Some(far) = self.distance.judge(line_ns) {
            // ORDERING: relaxed; a wish, read whenever the peer likes.
            self.outgoing.store(WORD_FAR, u64::from(far), Ordering::Relaxed);
        }
    }

    /// Copies the first bytes of a payload to `sink` at `at`, as far as there is room; returns
    /// the bytes copied.
    #[cfg(not(loom))]
    #[inline]
    pub fn copy_payload(&self, payload: PayloadRef, sink: &Sink, at: usize) -> usize {
        let len = payload.len_bytes.min(sink.len_bytes().saturating_sub(at));
        if len > 0 {
            let to = sink.range(at, len);
            // SAFETY: the payload lies inside the peer's mapped file (a `PayloadRef` is only made
            // after the check in `payload`); `to` is writable for `len` (checked by `range`);
            // user memory is not inside the peer's file.
            unsafe {
                let from = self.incoming.region().base().as_ptr().add(AREA_OFFSET + payload.offset);
                crate::copy::out_of_peer(from, to, len);
            }
        }
        len
    }

    /// Appends a payload to private memory.
    #[cfg(not(loom))]
    pub fn append_payload(&self, payload: PayloadRef, to: &mut Vec<u8>) {
        to.reserve(payload.len_bytes);
        let at = to.len();
        // SAFETY: `reserve` made room for `len_bytes` behind the first `at` bytes; the copy
        // initialises them before the length says so.
        unsafe {
            let sink = Sink::from_raw(to.as_mut_ptr().add(at), payload.len_bytes);
            let copied = self.copy_payload(payload, &sink, 0);
            to.set_len(at + copied);
        }
    }

    /// Done with the cell that [`Consumer::peek`] showed, and with its payload.
    #[inline(always)]
    pub fn pop(&mut self, payload_bytes: usize) {
        // In a burst the lines ahead are written already; have them come while this one is used.
        self.incoming.cell(self.consumed + CELLS_AHEAD).warm();
        self.consumed += 1;
        if payload_bytes > 0 {
            self.untold_bytes += room_bytes(payload_bytes);
        }
        if self.consumed - self.told >= TELL_CELLS || self.untold_bytes >= TELL_BYTES {
            self.report();
        }
    }

    /// Gives eager credit back; told to the peer at the next [`Consumer::tell`].
    #[inline(always)]
    pub fn return_credits(&mut self, bytes: u64, messages: u64) {
        self.credit_bytes += bytes;
        self.credit_messages += messages;
        self.credits_untold = true;
    }

    /// Tells the producer everything that it may want to know; cheap, and free when nothing is new.
    /// `true`: something was told since the last call; a producer that sleeps for want of room
    /// must be woken.
    #[inline]
    pub fn tell(&mut self) -> bool {
        self.report();
        std::mem::take(&mut self.news)
    }

    /// Asks the producer to rotate its bulk payload over `window` bytes.
    pub fn ask_window(&self, window: u64) {
        // ORDERING: relaxed; a hint, read when the producer next runs out of room.
        self.outgoing.store(WORD_WINDOW, window, Ordering::Relaxed);
    }

    /// Whether the peer has said that no further cell will come; look at the ring once more after.
    #[must_use]
    pub fn peer_is_closing(&self) -> bool {
        // ORDERING: pairs with the release store of `Producer::close`.
        self.incoming.load(WORD_CLOSING, Ordering::Acquire) != 0
    }

    #[inline]
    fn report(&mut self) {
        if self.told != self.consumed {
            self.told = self.consumed;
            self.untold_bytes = 0;
            self.news = true;
            // ORDERING: pairs with the acquire load in `Producer::refresh`; our reads of the cells
            // and payload happen before the producer may overwrite them.
            self.outgoing.store(WORD_CONSUMED, self.consumed, Ordering::Release);
        }
        if self.credits_untold {
            self.credits_untold = false;
            self.news = true;
            // ORDERING: pairs with the acquire loads of `Producer::credits_returned`.
            self.outgoing.store(WORD_CREDIT_BYTES, self.credit_bytes, Ordering::Release);
            self.outgoing.store(WORD_CREDIT_MESSAGES, self.credit_messages, Ordering::Release);
        }
    }
}
