// SPDX-License-Identifier: Apache-2.0
//! Shared memory between domains that do not trust each other.
//!
//! This crate is the one home of shared-memory `unsafe`; its rules are in `SAFETY.md`. From the
//! bottom up:
//!
//! ```text
//!   region    a mapping of a sealed file, read-write or read-only
//!   words     the same memory as 64-bit atomics (heap memory under loom)
//!   layout    where everything lies in a channel file, byte by byte
//!   cell      one 64-byte ring entry as a private value
//!   ring      producer and consumer of cells, and of the payload area behind them
//!   distance  whether the peer's processor shares a cache with ours
//!   doorbell  who sleeps, and who must ring
//!   buffer    memory of the user, lent for the time of one request
//!   arena     memory that peers can be given access to: one file an allocation
//!   grants    such files given to the peer of a channel, taken back, and used from there
//!   peer_memory   copies that the kernel makes between us and the peer's process
//! ```
//!
//! Each file of a channel has exactly one writer. A side therefore keeps everything that it says
//! (its outgoing cells and payload, but also how far it has read what came in) in its own
//! outgoing file, and maps the peer's file read-only. A hostile peer can write nonsense into its
//! own file and nowhere else. Granted memory is the one exception, and only where its owner said so.
//!
//! What this crate does not do: it knows nothing of messages, matching or policy, and it makes no
//! channels; islands do (`diolkos-island`). The files of the arena are the only ones it makes.

#[cfg(not(loom))]
pub mod arena;
pub mod barrier;
pub mod buffer;
pub mod cell;
pub mod copy;
pub mod distance;
pub mod doorbell;
pub mod fork;
#[cfg(not(loom))]
pub mod grants;
pub mod layout;
#[cfg(not(loom))]
pub mod peer_memory;
pub mod region;
pub mod ring;
pub mod sync;
pub mod words;

#[cfg(not(loom))]
pub use arena::{Arena, ArenaError, ArenaStatus, Block, Slab};
pub use buffer::{Sink, Source};
pub use cell::Cell;
#[cfg(not(loom))]
pub use grants::{
    AtomicOp, GrantFault, GrantId, GrantNote, Granted, Granter, Grants, atomic_local,
};
#[cfg(not(loom))]
pub use grants::{Unreachable, View};
#[cfg(not(loom))]
pub use peer_memory::PeerMemory;
pub use region::{Access, Region, RegionError};
pub use ring::{Consumer, PayloadRef, PeerFault, Producer, PushError};
