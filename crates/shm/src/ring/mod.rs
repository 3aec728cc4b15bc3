// SPDX-License-Identifier: Apache-2.0
//! A one-way ring of cells with a payload area behind it.
//!
//! ```text
//!                 our outgoing file (we write)              the peer's outgoing file (it writes)
//!   producer      cells, payload  ------------------------> read by the peer's consumer
//!                 "consumed" of the peer's file <---------- tells our producer what is free
//! ```
//!
//! Interface:
//! * The producer keeps private copies of everything: where it is, what the peer has consumed so
//!   far (re-read only when the ring looks full), which part of the area each cell occupies.
//! * The consumer reads one cell at a time into private memory, checks it, uses the copy, and
//!   then pops. It tells the producer about freed cells in batches.
//!
//! Invariants:
//! 1. Indexes are free-running 64-bit counts, masked on use; they never wrap in practice.
//! 2. `consumed <= produced <= consumed + CELL_COUNT`. A peer that alleges anything else is at
//!    fault ([`PeerFault`]).
//! 3. Payload is consumed in the order of its cells, so the area is two byte rings whose tails
//!    move when cells are consumed. Where a payload lies is decided by the producer alone and
//!    checked by the consumer against the area's bounds; a lying producer garbles its own data.
//! 4. The stamp of a cell is stored last (release) and read first (acquire).
//!
//! The area has a small part and a bulk part because of how caches behave: a ring of up to 128 KiB
//! is rewritten while its lines are still dirty in the other processor's private cache, and moves
//! 8 GB/s here; one that rotates over 1 to 4 MiB has had its lines evicted to the shared cache and
//! moves three times that. Small payloads are dominated by latency and stay in the small part.

mod area;
mod consumer;
mod producer;

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod tests;

pub use consumer::{Consumer, PayloadRef};
pub use producer::{Producer, PushError};

/// A peer wrote something impossible; the channel must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerFault {
    /// It alleges to have consumed more cells than were produced, or fewer than before.
    BadConsumed,
    /// It alleges to have given back more credit than was used.
    BadCredit,
    /// A cell with an inline length above 32, or a payload outside the area.
    BadPayload,
}

impl std::fmt::Display for PeerFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::BadConsumed => "it claims to have read cells that were never written",
            Self::BadCredit => "it gave back more credit than it was owed",
            Self::BadPayload => "it announced a payload outside its memory",
        })
    }
}

impl std::error::Error for PeerFault {}
