// SPDX-License-Identifier: Apache-2.0
//! The reading end of a ring.

#[cfg(not(loom))]
use std::time::Instant;

use super::PeerFault;
use super::area::room_bytes;
use crate::buffer::Sink;
use crate::cell::Cell;
#[cfg(not(loom))]
use crate::distance::Distance;
use crate::layout::{
    AREA_BYTES, CELL_COUNT, HALF_WORDS, INLINE_BYTES, WORD_CLOSING, WORD_CONSUMED,
    WORD_CREDIT_BYTES, WORD_CREDIT_MESSAGES, WORD_WINDOW,
};
#[cfg(not(loom))]
use crate::layout::{AREA_OFFSET, WORD_FAR};
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

/// The stamp of the line with this free-running number.
#[inline(always)]
fn stamp(number: u64) -> u32 {
    (number as u32).wrapping_add(1)
}

/// Reads cells and payload from the peer's file.
pub struct Consumer {
    /// The peer's file: cells and payload.
    incoming: Words,
    /// Our own file: how much we have consumed.
    outgoing: Words,
    /// Lines consumed so far.
    consumed: u64,
    /// The first half of the next line has been consumed, and its second may hold a short cell.
    second: bool,
    /// The cell that was shown last is a short one.
    short: bool,
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
    #[cfg(not(loom))]
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
            second: false,
            short: false,
            told: 0,
            untold_bytes: 0,
            news: false,
            credit_bytes: 0,
            credit_messages: 0,
            credits_untold: false,
            #[cfg(not(loom))]
            distance: Distance::default(),
        }
    }

    /// Whether a cell is there, for spinning: one load, or two after a short cell.
    #[inline(always)]
    #[must_use]
    pub fn has_cell(&self) -> bool {
        // ORDERING: relaxed; `peek` loads it again, with acquire.
        let is_at = |number: u64, word| {
            self.incoming.cell(number).load(word, Ordering::Relaxed) as u32 == stamp(number)
        };
        if self.second {
            is_at(self.consumed, HALF_WORDS) || is_at(self.consumed + 1, 0)
        } else {
            is_at(self.consumed, 0)
        }
    }

    /// The next cell, copied into private memory; `None` while there is none.
    #[inline(always)]
    #[must_use]
    pub fn peek(&mut self) -> Option<Cell> {
        let cell = self.peek_frame()?;
        let body = if cell.flags & Cell::IN_AREA == 0 { self.inline_words() } else { cell.body };
        Some(Cell { body, ..cell })
    }

    /// As [`Consumer::peek`], without the payload that is inside the cell: as one in the area, it
    /// is read when it is copied to its destination.
    #[inline(always)]
    #[must_use]
    pub fn peek_frame(&mut self) -> Option<Cell> {
        if self.second {
            match self.half_head(HALF_WORDS) {
                Some(head) => return Some(self.short_cell(head)),
                // The next line was published after whatever is in this one.
                None if !self.next_line_is_there() => return None,
                None => {}
            }
            if let Some(head) = self.half_head(HALF_WORDS) {
                return Some(self.short_cell(head));
            }
            self.second = false;
            self.next_line();
        }
        let head = self.half_head(0)?;
        if (head >> 40) as u8 & Cell::SHORT != 0 {
            return Some(self.short_cell(head));
        }
        self.short = false;
        let line = self.incoming.cell(self.consumed);
        // ORDERING: relaxed; ordered by the acquire load of the stamp. A hostile peer may still be
        // writing: whatever is read here is read once and checked afterwards. Words that the
        // peer did not write this time are leftovers of its own.
        let word = |i| line.load(i, Ordering::Relaxed);
        let mut cell = Cell::from_words([head, word(1), word(2), word(3), 0, 0, 0, 0]);
        if cell.flags & Cell::IN_AREA != 0 {
            cell.body[0] = word(4);
        }
        Some(cell)
    }

    /// The first word of a cell that starts there in the next line, if there is one.
    #[inline(always)]
    fn half_head(&self, word: usize) -> Option<u64> {
        // ORDERING: pairs with the release store in `Producer::publish`.
        let head = self.incoming.cell(self.consumed).load(word, Ordering::Acquire);
        (head as u32 == stamp(self.consumed)).then_some(head)
    }

    #[inline(always)]
    fn next_line_is_there(&self) -> bool {
        let next = self.consumed + 1;
        // ORDERING: acquire, so that the second look at this line comes after.
        self.incoming.cell(next).load(0, Ordering::Acquire) as u32 == stamp(next)
    }

    /// A short cell, without its payload, in the half of the line that is at hand.
    #[inline(always)]
    fn short_cell(&mut self, head: u64) -> Cell {
        self.short = true;
        let half = self.half();
        let line = self.incoming.cell(self.consumed);
        // ORDERING: as in `peek_frame`.
        let word = |i: usize| line.load(half + i, Ordering::Relaxed);
        Cell::from_half(head, word(1), word(2))
    }

    /// Where in the next line the cell at hand starts, if it is a short one.
    #[inline(always)]
    fn half(&self) -> usize {
        if self.second { HALF_WORDS } else { 0 }
    }

    /// The payload inside the cell that [`Consumer::peek_frame`] showed, and leftovers behind it.
    /// A hostile peer may be writing: read it once.
    #[inline(always)]
    #[must_use]
    pub fn inline_words(&self) -> [u64; INLINE_BYTES / 8] {
        let line = self.incoming.cell(self.consumed);
        // ORDERING: relaxed; ordered by the acquire load of `peek_frame`.
        let word = |i: usize| line.load(i, Ordering::Relaxed);
        if self.short {
            return [word(self.half() + 3), 0, 0, 0];
        }
        std::array::from_fn(|i| word(4 + i))
    }

    /// Copies the payload inside the cell to the start of `sink`, as far as there is room; returns
    /// the bytes copied. The most frequent length has a way of its own, of one word.
    #[inline(always)]
    pub fn copy_inline(&self, len_bytes: usize, sink: &Sink) -> usize {
        if self.short && len_bytes == 8 && sink.len_bytes() >= 8 {
            // ORDERING: as in `inline_words`.
            let word = self.incoming.cell(self.consumed).load(self.half() + 3, Ordering::Relaxed);
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
        if std::mem::take(&mut self.short) && !self.second {
            self.second = true;
            return;
        }
        self.second = false;
        self.next_line();
        if payload_bytes > 0 {
            self.untold_bytes += room_bytes(payload_bytes);
        }
        if self.consumed - self.told >= TELL_CELLS || self.untold_bytes >= TELL_BYTES {
            self.report();
        }
    }

    #[inline(always)]
    fn next_line(&mut self) {
        // In a burst the lines ahead are written already; have them come while this one is used.
        self.incoming.cell(self.consumed + CELLS_AHEAD).warm();
        self.consumed += 1;
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
