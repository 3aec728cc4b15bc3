// SPDX-License-Identifier: Apache-2.0
//! One ring entry as a private value.

use crate::buffer::Source;
use crate::layout::INLINE_BYTES;

/// A cell outside shared memory: what a producer publishes, or a private copy of what a peer
/// alleges. The ring gives no meaning to kinds and words; the protocol does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// What the cell is; the protocol's business.
    pub kind: u8,
    /// Bits that qualify the kind; bits 6 and 7 belong to the ring ([`Cell::IN_AREA`]).
    pub flags: u8,
    /// Payload bytes inside the cell, `0..=32`; 0 when the payload lies in the area.
    pub inline_len: u16,
    /// Three words for the protocol.
    pub words: [u64; 3],
    /// Inline payload, or the place of the payload in the area.
    pub body: [u64; 4],
}

impl Cell {
    /// Flag bit: the payload lies in the area, `body[0]` says where.
    pub const IN_AREA: u8 = 0x80;

    /// Flag bit of the ring: the cell takes half a line only.
    pub(crate) const SHORT: u8 = 0x40;

    /// Whether half a line is enough: at most eight bytes of payload inside, and a third word that
    /// says no more than the inline length does. Short whole messages are like that.
    #[inline(always)]
    pub(crate) fn is_short(&self) -> bool {
        self.flags & Self::IN_AREA == 0
            && self.inline_len <= 8
            && self.words[2] == u64::from(self.inline_len)
    }

    /// The first word as it is stored, but for the stamp in its low half.
    #[inline(always)]
    pub(crate) fn head(&self) -> u64 {
        u64::from(self.kind) << 32 | u64::from(self.flags) << 40 | u64::from(self.inline_len) << 48
    }

    /// The cell that was read as words.
    #[inline(always)]
    pub(crate) fn from_words(words: [u64; 8]) -> Self {
        let [head, a, b, c, body @ ..] = words;
        Self {
            kind: (head >> 32) as u8,
            flags: (head >> 40) as u8,
            inline_len: (head >> 48) as u16,
            words: [a, b, c],
            body,
        }
    }

    /// The cell that was read as the words of half a line.
    #[inline(always)]
    pub(crate) fn from_half(head: u64, first: u64, second: u64) -> Self {
        let inline_len = (head >> 48) as u16;
        Self {
            kind: (head >> 32) as u8,
            flags: (head >> 40) as u8 & !(Self::SHORT | Self::IN_AREA),
            inline_len,
            words: [first, second, u64::from(inline_len)],
            body: [0; 4],
        }
    }

    /// The same cell with `payload` inside, which must not be longer than [`INLINE_BYTES`].
    #[inline(always)]
    pub(crate) fn with_inline(mut self, payload: &Source) -> Self {
        self.inline_len = payload.len_bytes() as u16;
        self.body = payload.inline_words();
        self
    }

    /// The same cell with its payload at `place` of the area.
    #[inline(always)]
    pub(crate) fn with_area(mut self, place: usize, len_bytes: usize) -> Self {
        self.inline_len = 0;
        self.flags |= Self::IN_AREA;
        self.body[0] = place as u64 | (len_bytes as u64) << 32;
        self
    }

    /// Words of the body that carry something, so that a short cell costs few stores.
    #[inline(always)]
    pub(crate) fn body_words(&self) -> usize {
        if self.flags & Self::IN_AREA != 0 {
            1
        } else {
            usize::from(self.inline_len).min(INLINE_BYTES).div_ceil(8)
        }
    }
}
