// SPDX-License-Identifier: Apache-2.0
//! The owner's side: who may reach which slab, as the channel's grant table says.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{GENERATION_END, GrantId, GrantNote};
use crate::arena::Slab;
use crate::fork;
use crate::layout::{GRANT_COUNT, WORD_GRANTS, WORD_TOUCHING};
use crate::sync::Ordering;
use crate::words::Words;

/// How long a peer may be in the middle of an atomic operation: longer than a processor is taken from it.
const TOUCH_PATIENCE: Duration = Duration::from_millis(100);

/// How an attempt to grant a slab ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granted {
    /// The peer has it from before.
    Already(GrantId),
    /// It is on its way to the peer.
    Now(GrantId),
    /// The channel takes no file now; nothing has changed.
    Later,
    /// Not this slab, or none at all any more: its file does not fit what is wanted, or all slots are
    /// taken.
    Never,
}

/// Grants slabs to the peer of one channel.
#[derive(Clone, Debug)]
pub struct Granter {
    table: Arc<Table>,
}

/// The grant table of a channel; slabs know it by a weak reference, to clear their words.
pub(crate) struct Table {
    words: Words,
    /// The peer's file, where it says what it touches.
    incoming: Words,
    channel: u64,
    /// Whose channel it is: a forked child does not have the memory of the words.
    fork_generation: u32,
    slots: Mutex<Slots>,
}

struct Slots {
    /// The generation given out last.
    generation: u64,
    free: Vec<u16>,
}

impl Granter {
    /// For a channel with these files, with an empty table.
    #[must_use]
    pub fn new(outgoing: Words, incoming: Words, channel: u64) -> Self {
        let free = (0..GRANT_COUNT as u16).rev().collect();
        let slots = Mutex::new(Slots { generation: 0, free });
        let fork_generation = fork::watch();
        let words = outgoing;
        Self { table: Arc::new(Table { words, incoming, channel, fork_generation, slots }) }
    }

    /// Makes a slab reachable for the peer, for reading or also for writing. `send` passes the note and
    /// the file over the channel, and says whether they went.
    pub fn grant(
        &self,
        slab: &Arc<Slab>,
        writable: bool,
        send: impl FnOnce(&GrantNote, BorrowedFd<'_>) -> bool,
    ) -> Granted {
        let mut state = slab.lock();
        if let Some(grant) = state.granted(self.table.channel, writable) {
            return Granted::Already(grant);
        }
        if state.writable != writable || slab.seal(&mut state).is_err() {
            return Granted::Never;
        }
        let Some(grant) = self.table.take() else { return Granted::Never };
        let note = GrantNote { grant, len_bytes: slab.bytes() as u64, writable };
        if send(&note, state.file()) {
            state.expose(self.table.channel, grant, Arc::downgrade(&self.table));
            Granted::Now(grant)
        } else {
            self.table.clear(grant);
            Granted::Later
        }
    }

    /// Whether a grant of this channel has not been taken back: the memory that it named is still
    /// where it was.
    #[inline]
    #[must_use]
    pub fn is_live(&self, grant: GrantId) -> bool {
        // ORDERING: relaxed; only this process writes the table, and a grant that is taken back at
        // this moment is one that the peer finds taken back.
        let word = WORD_GRANTS + usize::from(grant.slot);
        self.table.words.load(word, Ordering::Relaxed) == grant.generation
    }

    /// The grant of a slab that the peer has and that allows what is wanted.
    #[must_use]
    pub fn granted(&self, slab: &Arc<Slab>, writable: bool) -> Option<GrantId> {
        slab.lock().granted(self.table.channel, writable)
    }
}

impl Table {
    /// Takes a slot under a new generation.
    fn take(&self) -> Option<GrantId> {
        let mut slots = self.slots();
        let generation = slots.generation + 1;
        if generation == GENERATION_END || fork::generation() != self.fork_generation {
            return None;
        }
        let slot = slots.free.pop()?;
        slots.generation = generation;
        // ORDERING: read with acquire by `Grants`; the note that tells of it comes by a system call.
        self.words.store(WORD_GRANTS + usize::from(slot), generation, Ordering::Release);
        Some(GrantId { slot, generation })
    }

    /// Takes a grant back. Whoever needs the peer to have noticed runs the heavy fence.
    pub(crate) fn clear(&self, grant: GrantId) {
        if fork::generation() != self.fork_generation {
            // The words are not there in a forked child, and the grants are its parent's.
            return;
        }
        let mut slots = self.slots();
        // ORDERING: made visible by the heavy fence in `Slab::renew`; later is as good otherwise.
        self.words.store(WORD_GRANTS + usize::from(grant.slot), 0, Ordering::Release);
        slots.free.push(grant.slot);
    }

    /// Waits until the peer does no atomic operation on a grant that was taken back. Not for ever: one
    /// that is stopped, or says so for nothing, is let alone.
    pub(crate) fn await_touch(&self, grant: GrantId) {
        let mut started = None;
        // ORDERING: pairs with the release store in `Grants::atomic`.
        while self.incoming.load(WORD_TOUCHING, Ordering::Acquire) == grant.to_word() {
            let start = *started.get_or_insert_with(Instant::now);
            if start.elapsed() > TOUCH_PATIENCE {
                return;
            }
            std::thread::yield_now();
        }
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Table(channel {})", self.channel)
    }
}
