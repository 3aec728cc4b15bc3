// SPDX-License-Identifier: Apache-2.0
//! Slabs of an arena made reachable for the peer of one channel, and taken back.
//!
//! ```text
//!   owner (Granter)                               reader (Grants)
//!   ---------------                               ---------------
//!   table[slot] := generation
//!   note and file over the channel  ------------> checks the file, keeps it by slot
//!                                                 table[slot] == generation ?  maps, reads, writes
//!   table[slot] := 0                              (for writing: and looks once more after)
//!   heavy fence                                   light fence before that second look
//!   data moves to a file of its own
//! ```
//!
//! The table lies in the owner's channel file. Generations count up and never come back, so a slot is
//! free again at once, without an answer of the reader. Either a writer's second look finds the grant
//! taken back, or what it wrote is there before the owner copies the data: the same argument as for
//! sleepers (`doorbell`). A reader that does not look sees the old file, in which nothing happens any
//! more.
//!
//! An atomic operation must not be done twice or half: the reader says before its second look that it
//! is in the middle of one (`WORD_OPERATING` of its own file is odd), and the owner waits for its end
//! before it copies the data.
//!
//! Nothing here depends on what the other side does with such memory: a reader takes a file only if
//! touching it cannot fault, and all that it reads is just bytes. Views are the user's to interpret.

mod atomics;
pub(crate) mod owner;
mod reader;

use crate::layout::GRANT_COUNT;

pub use atomics::{AtomicOp, atomic_local};
pub use owner::{Granted, Granter};
pub use reader::{GrantFault, Grants, Unreachable, View};

/// Bits of a grant's word that hold the slot.
const SLOT_BITS: u32 = 16;
/// First generation that would not fit the rest of the word.
const GENERATION_END: u64 = 1 << 48;
/// Bytes of an encoded note.
const NOTE_BYTES: usize = 24;

/// A grant's name on its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GrantId {
    /// Place in the owner's grant table.
    pub slot: u16,
    /// What stands there as long as the grant lives: 1 to 2^48 - 1, each once on a channel.
    pub generation: u64,
}

impl GrantId {
    /// As one word; never 0, which stands for no grant.
    #[inline]
    #[must_use]
    pub fn to_word(self) -> u64 {
        self.generation << SLOT_BITS | u64::from(self.slot)
    }

    /// Reads a word that a peer sent. `None`: it names no possible grant.
    #[inline]
    #[must_use]
    pub fn from_word(word: u64) -> Option<Self> {
        let (slot, generation) = (word as u16, word >> SLOT_BITS);
        (usize::from(slot) < GRANT_COUNT && generation != 0).then_some(Self { slot, generation })
    }
}

/// What goes with the file of a grant over the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrantNote {
    /// The grant's name.
    pub grant: GrantId,
    /// Length of the slab: whole pages.
    pub len_bytes: u64,
    /// Whether the reader may write.
    pub writable: bool,
}

impl GrantNote {
    /// As bytes: the grant's word, the length, and 1 for writing or 0, each as a 64-bit word.
    #[must_use]
    pub fn encode(&self) -> [u8; NOTE_BYTES] {
        let words = [self.grant.to_word(), self.len_bytes, u64::from(self.writable)];
        let mut bytes = [0; NOTE_BYTES];
        for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Reads what a peer sent. `None`: it is not a note.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; NOTE_BYTES] = bytes.try_into().ok()?;
        let mut words = [0_u64; 3];
        for (word, from) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(from.try_into().ok()?);
        }
        let grant = GrantId::from_word(words[0])?;
        (words[2] <= 1).then_some(Self { grant, len_bytes: words[1], writable: words[2] == 1 })
    }
}

#[cfg(test)]
mod tests;
