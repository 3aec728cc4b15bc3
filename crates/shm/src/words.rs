// SPDX-License-Identifier: Apache-2.0
//! Shared memory as an array of 64-bit atomics.
//!
//! The rings do arithmetic on word indexes and never see an address. In a normal build a word is
//! eight bytes of a [`Region`]; under loom it is a model-checked atomic on the heap. That is how
//! the same ring code is checked and shipped.

#[cfg(not(loom))]
use std::marker::PhantomData;
#[cfg(not(loom))]
use std::ptr::NonNull;
use std::sync::Arc;

#[cfg(not(loom))]
use crate::layout::{CELL_BYTES, CELLS_OFFSET};
use crate::layout::{CELL_COUNT, CELL_WORDS, WORD_CELLS};
#[cfg(not(loom))]
use crate::region::Region;
use crate::sync::{AtomicU64, Ordering};

/// A view of a region as words; keeps the region mapped.
#[derive(Clone)]
pub struct Words {
    #[cfg(not(loom))]
    region: Arc<Region>,
    /// The region's base, here to save a hop on the path of a message.
    #[cfg(not(loom))]
    base: NonNull<u64>,
    #[cfg(loom)]
    words: Arc<Vec<AtomicU64>>,
    count: usize,
}

// SAFETY: `base` points into `region`, which is `Send` and `Sync` and lives as long; the words are
// only accessed as atomics.
#[cfg(not(loom))]
unsafe impl Send for Words {}
// SAFETY: as above.
#[cfg(not(loom))]
unsafe impl Sync for Words {}

/// Words of a cell, which lie inside the region.
#[derive(Clone, Copy)]
pub struct Line<'a> {
    #[cfg(not(loom))]
    base: NonNull<u64>,
    #[cfg(not(loom))]
    region: PhantomData<&'a Region>,
    #[cfg(loom)]
    words: &'a [AtomicU64],
}

impl Words {
    /// Sees the whole region as words.
    ///
    /// # Panics
    /// When the region is too short for the cells of a channel: our bug, as every file is longer.
    #[cfg(not(loom))]
    #[must_use]
    pub fn new(region: Arc<Region>) -> Self {
        assert!(region.len_bytes() >= CELLS_OFFSET + CELL_COUNT * CELL_BYTES);
        let (base, count) = (region.base().cast(), region.len_bytes() / 8);
        Self { region, base, count }
    }

    /// `count` zeroed words on the heap, for the model checker.
    #[cfg(loom)]
    #[must_use]
    pub fn on_heap(count: usize) -> Self {
        Self { words: Arc::new((0..count).map(|_| AtomicU64::new(0)).collect()), count }
    }

    /// The region behind the words.
    #[cfg(not(loom))]
    #[must_use]
    pub fn region(&self) -> &Arc<Region> {
        &self.region
    }

    /// Reads one word.
    ///
    /// # Panics
    /// When `index` lies outside the region: our bug, never a peer's doing.
    #[inline(always)]
    #[must_use]
    pub fn load(&self, index: usize, ordering: Ordering) -> u64 {
        self.word(index).load(ordering)
    }

    /// Writes one word. The region must be our own outgoing file.
    ///
    /// # Panics
    /// When `index` lies outside the region: our bug, never a peer's doing.
    #[inline(always)]
    pub fn store(&self, index: usize, value: u64, ordering: Ordering) {
        self.word(index).store(value, ordering);
    }

    /// The words of the cell with this free-running number.
    #[cfg(not(loom))]
    #[inline(always)]
    #[must_use]
    pub fn cell(&self, number: u64) -> Line<'_> {
        let index = WORD_CELLS + (number as usize % CELL_COUNT) * CELL_WORDS;
        // SAFETY: all `CELL_COUNT` cells lie inside the mapping, as `new` asserted.
        Line { base: unsafe { self.base.add(index) }, region: PhantomData }
    }

    /// The words of the cell with this free-running number.
    #[cfg(loom)]
    #[must_use]
    pub fn cell(&self, number: u64) -> Line<'_> {
        let index = WORD_CELLS + (number as usize % CELL_COUNT) * CELL_WORDS;
        Line { words: &self.words[index..index + CELL_WORDS] }
    }

    #[cfg(not(loom))]
    #[inline(always)]
    fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.count);
        // SAFETY: the word lies inside the mapping (asserted), mappings are page-aligned so the
        // word is 8-aligned, and the region lives as long as `self`. Both sides access these
        // words as atomics only. A store into a read-only region faults: callers store only into
        // their own file.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(index)) }
    }

    #[cfg(loom)]
    fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.count);
        &self.words[index]
    }
}

impl Line<'_> {
    /// Reads word `i`, which must be below [`CELL_WORDS`].
    #[inline(always)]
    #[must_use]
    pub fn load(&self, i: usize, ordering: Ordering) -> u64 {
        self.word(i).load(ordering)
    }

    /// Writes word `i`, which must be below [`CELL_WORDS`]. As [`Words::store`].
    #[inline(always)]
    pub fn store(&self, i: usize, value: u64, ordering: Ordering) {
        self.word(i).store(value, ordering);
    }

    /// Fetches the line for reading, ahead of time and without waiting.
    #[cfg(not(loom))]
    #[inline(always)]
    pub fn warm(&self) {
        crate::copy::warm_for_reading(self.base.as_ptr().cast());
    }

    /// The model checker has no caches.
    #[cfg(loom)]
    pub fn warm(&self) {}

    #[cfg(not(loom))]
    #[inline(always)]
    fn word(&self, i: usize) -> &AtomicU64 {
        assert!(i < CELL_WORDS);
        // SAFETY: as in `Words::word`; the whole line lies inside, by `Words::cell`.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(i)) }
    }

    #[cfg(loom)]
    fn word(&self, i: usize) -> &AtomicU64 {
        &self.words[i]
    }
}
