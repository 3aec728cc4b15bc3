// SPDX-License-Identifier: Apache-2.0
//! Where the producer puts payloads: two byte rings, of private arithmetic only.

use std::collections::VecDeque;

use crate::layout::{BULK_BYTES, CELL_COUNT, SMALL_BYTES};

/// Payloads up to this many bytes go to the small part.
pub const SMALL_PAYLOAD_MAX: usize = 512;
/// The smallest window of the bulk part.
pub const WINDOW_BYTES_MIN: u64 = 256 << 10;
/// Windows are multiples of this.
const WINDOW_STEP: u64 = 64 << 10;
/// In the small part, payloads start at cache lines and leave this much unused behind them.
const SMALL_GAP: u64 = 512;
/// In the bulk part, payloads start at pages and leave one page unused behind them. A reader's
/// prefetcher runs on beyond what is read; without a gap it takes away the very lines that the
/// writer is filling for the next message (4 KiB: 450 ns without, 250 ns with the gap).
const PAGE: u64 = 4096;
/// Longer payloads have no gap: what the prefetcher takes away is little against their length.
const GAP_PAYLOAD_MAX: u64 = 8 << 10;

/// A rotating byte range: `tail <= head <= tail + window`.
#[derive(Clone, Copy, Debug, Default)]
struct ByteRing {
    head: u64,
    tail: u64,
}

impl ByteRing {
    /// Position of `len` contiguous bytes, or `None` while there is no room.
    #[inline]
    fn place(&self, len: u64, window: u64) -> Option<u64> {
        let at = self.head % window;
        let skip = if at + len > window { window - at } else { 0 };
        let position = self.head + skip;
        (position + len - self.tail <= window).then_some(position)
    }
}

/// The producer's view of the area.
pub struct Area {
    small: ByteRing,
    bulk: ByteRing,
    /// Bytes of the bulk part in use, whole steps; changes only when nothing is in flight.
    window: u64,
    /// For each cell in flight with a payload here, in order: its index, and the heads of both
    /// rings after it.
    marks: VecDeque<(u64, u64, u64)>,
}

impl Area {
    pub fn new(window: u64) -> Self {
        Self {
            small: ByteRing::default(),
            bulk: ByteRing::default(),
            window: clamp_window(window),
            marks: VecDeque::with_capacity(CELL_COUNT),
        }
    }

    /// Takes room for a payload; the offset counts from the start of the area.
    #[inline]
    pub fn allocate(&mut self, len_bytes: usize) -> Option<usize> {
        let (ring, start, window, room) = self.part(len_bytes);
        let position = ring.place(room, window)?;
        ring.head = position + room;
        Some(start + (position % window) as usize)
    }

    /// Where a payload of this length would go now, if there is room.
    #[cfg(not(loom))]
    #[inline]
    pub fn next_place(&mut self, len_bytes: usize) -> Option<usize> {
        let (ring, start, window, room) = self.part(len_bytes);
        let position = ring.place(room, window)?;
        Some(start + (position % window) as usize)
    }

    /// The byte ring for a payload, where it starts in the area, over how much it rotates, and how
    /// much of it the payload takes with its gap.
    #[inline(always)]
    fn part(&mut self, len_bytes: usize) -> (&mut ByteRing, usize, u64, u64) {
        let room = room_bytes(len_bytes);
        if len_bytes <= SMALL_PAYLOAD_MAX {
            (&mut self.small, 0, SMALL_BYTES as u64, room)
        } else {
            (&mut self.bulk, SMALL_BYTES, self.window, room)
        }
    }

    /// Notes that the cell at `index` has been published with all allocations so far.
    #[inline]
    pub fn mark(&mut self, index: u64) {
        self.marks.push_back((index, self.small.head, self.bulk.head));
    }

    /// Frees what belongs to cells before `consumed`.
    #[inline]
    pub fn release(&mut self, consumed: u64) {
        while let Some(&(index, small, bulk)) = self.marks.front()
            && index < consumed
        {
            self.small.tail = small;
            self.bulk.tail = bulk;
            self.marks.pop_front();
        }
    }

    /// Whether the bulk part is empty, so that its pages may be given back.
    pub fn bulk_is_idle(&self) -> bool {
        self.bulk.head == self.bulk.tail
    }

    /// Bytes of the bulk part that were ever touched since the last [`Area::forget_bulk`].
    pub fn bulk_touched(&self) -> usize {
        self.bulk.head.min(self.window) as usize
    }

    /// Starts the bulk part anew after its pages were given back. Only when idle.
    pub fn forget_bulk(&mut self) {
        debug_assert!(self.bulk_is_idle());
        self.bulk = ByteRing::default();
        for mark in &mut self.marks {
            mark.2 = 0;
        }
    }

    /// Adopts another window when nothing is in flight; otherwise does nothing. Returns how many
    /// bytes at the start of the bulk part are not used any more, whose pages may be given back.
    pub fn resize(&mut self, window: u64) -> usize {
        let window = clamp_window(window);
        if window == self.window || !self.bulk_is_idle() {
            return 0;
        }
        let touched = self.bulk_touched();
        self.window = window;
        self.forget_bulk();
        touched
    }

    #[cfg(not(loom))]
    pub fn window(&self) -> u64 {
        self.window
    }
}

/// How much of its part of the area a payload takes, with its gap.
#[inline(always)]
pub fn room_bytes(len_bytes: usize) -> u64 {
    let len = len_bytes as u64;
    if len_bytes <= SMALL_PAYLOAD_MAX {
        len.next_multiple_of(64) + SMALL_GAP
    } else {
        let gap = if len <= GAP_PAYLOAD_MAX { PAGE } else { 0 };
        len.next_multiple_of(PAGE) + gap
    }
}

/// A window is whole steps, between the smallest useful one and the whole bulk part, whatever a peer
/// may ask for.
fn clamp_window(window: u64) -> u64 {
    let window = window.clamp(WINDOW_BYTES_MIN, BULK_BYTES as u64);
    window - window % WINDOW_STEP
}
