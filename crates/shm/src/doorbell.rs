// SPDX-License-Identifier: Apache-2.0
//! Who sleeps, and who must ring.
//!
//! Theory of operation (one direction; the other is the same):
//!
//! ```text
//!   sleeper                                sender
//!   -------                                ------
//!   sleeping := 1                          publish the cell
//!   full fence (on all processors)         light fence
//!   look at the ring once more             sleeping == 1 ?  ring the doorbell
//!     something there: sleeping := 0
//!     nothing: block on the doorbell
//!   sleeping := 0
//! ```
//!
//! The same holds for a sleeper that waits for *room*: it raises the flag with a second bit, and
//! whoever consumes its cells looks for that bit after it has told how far it read.
//!
//! Either the sleeper's second look sees the cell, or the sender sees the flag; both may happen,
//! neither cannot. A doorbell that rings for nobody is harmless. What rings (an eventfd, MSI-X,
//! an event channel) is the island's business: this module only says when.

use crate::layout::WORD_SLEEPING;
use crate::sync::Ordering;
use crate::words::Words;

/// Bit of the flag: ring for what you publish.
const FOR_CELLS: u64 = 1;
/// Bit of the flag: ring also when you have consumed, or given credit back.
const FOR_ROOM: u64 = 2;

/// The sleep flag that we write for our peer to read.
pub struct SleepFlag {
    words: Words,
}

impl SleepFlag {
    /// The flag in our own outgoing file.
    #[must_use]
    pub fn new(outgoing: Words) -> Self {
        Self { words: outgoing }
    }

    /// Says that we sleep, and whether room in our ring would wake us too. Follow with the heavy
    /// fence and one more look at the rings.
    pub fn raise(&self, for_room: bool) {
        let flag = if for_room { FOR_CELLS | FOR_ROOM } else { FOR_CELLS };
        // ORDERING: made visible by the heavy fence that the caller runs next.
        self.words.store(WORD_SLEEPING, flag, Ordering::Relaxed);
    }

    /// Says that we are awake.
    pub fn lower(&self) {
        // ORDERING: none needed; a late reader rings once for nothing.
        self.words.store(WORD_SLEEPING, 0, Ordering::Relaxed);
    }
}

/// The peer's sleep flag as we see it.
pub struct PeerSleep {
    words: Words,
}

impl PeerSleep {
    /// The flag in the peer's file.
    #[must_use]
    pub fn new(incoming: Words) -> Self {
        Self { words: incoming }
    }

    /// Whether the peer must be rung. Call after publishing and the light fence.
    #[inline(always)]
    #[must_use]
    pub fn must_ring(&self) -> bool {
        // ORDERING: ordered after the publishing store by the light fence of the caller, which
        // pairs with the sleeper's heavy fence.
        self.words.load(WORD_SLEEPING, Ordering::Relaxed) & FOR_CELLS != 0
    }

    /// Whether the peer must be rung because it has room again. Call after telling it so and the
    /// light fence.
    #[inline(always)]
    #[must_use]
    pub fn wants_room(&self) -> bool {
        // ORDERING: as in `must_ring`; the store before the fence is that of `Consumer::tell`.
        self.words.load(WORD_SLEEPING, Ordering::Relaxed) & FOR_ROOM != 0
    }
}
