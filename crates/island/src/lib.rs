// SPDX-License-Identifier: Apache-2.0
//! Islands: kinds of domains, and the code that gets shared memory and doorbells in and out.
//!
//! ```text
//!   process    this host's processes and containers: sealed memfds over the backend's Unix socket
//!   local      both ends in one process, without a backend: tests and benches
//! ```
//!
//! Interface: an endpoint asks its [`Island`] to `connect`; the answer, and introductions that
//! others asked for, come out of `poll_event`. Nothing here waits. What comes out is always the
//! same [`ChannelEnds`]: two mapped files, a doorbell, and something that tells when the peer's
//! process is gone. Guests (`qemu`, `xen`) will implement the same trait with device memory and
//! interrupts; the conformance suite in the crate `diolkos` is written against it.
#![forbid(unsafe_code)]

mod doorbell;
mod error;
pub mod local;
pub mod process;

use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use diolkos_shm::Region;

pub use doorbell::Doorbell;
pub use error::{IslandError, system_hint};

/// How the two ends of a channel are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Road {
    /// Frontend to frontend: both map the same memory.
    Direct,
    /// Through this host's backend, which copies.
    Switched,
}

impl Road {
    /// The word of the control protocol.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Switched => "switched",
        }
    }
}

impl fmt::Display for Road {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whom to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// By name, within the own partition.
    Name(String),
    /// By endpoint number.
    Number(u32),
}

/// Who a peer is, as stamped by the backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// Its endpoint number.
    pub number: u32,
    /// Its name.
    pub name: String,
}

/// Who an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its endpoint number.
    pub number: u32,
    /// Its name.
    pub name: String,
    /// Its partition.
    pub partition: String,
}

/// One end of a channel.
#[derive(Debug)]
pub struct ChannelEnds {
    /// The channel's number, stamped into both files.
    pub channel: u64,
    /// The other end.
    pub peer: PeerIdentity,
    /// The road that was chosen.
    pub road: Road,
    /// Why.
    pub reason: String,
    /// Our file, mapped read-write.
    pub outgoing: Region,
    /// The peer's file, mapped read-only.
    pub incoming: Region,
    /// Rings the peer, and is readable when the peer rings.
    pub doorbell: Doorbell,
    /// Readable once the peer's process is gone, where the system can tell.
    pub liveness: Option<OwnedFd>,
    /// Whether the two processes may copy from and to each other's memory, as far as the kernel lets
    /// them: their policy says that they trust each other.
    pub process_vm: bool,
}

/// What an island has to say.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A connect succeeded.
    Connected {
        /// The connect.
        ticket: u32,
        /// Our end.
        ends: Box<ChannelEnds>,
    },
    /// A connect led to a peer that a channel exists to already.
    AlreadyConnected {
        /// The connect.
        ticket: u32,
        /// The channel.
        channel: u64,
    },
    /// A connect failed.
    Refused {
        /// The connect.
        ticket: u32,
        /// Why.
        error: IslandError,
    },
    /// Somebody connected to us.
    Introduced(Box<ChannelEnds>),
    /// The backend saw the peer's endpoint leave.
    Gone {
        /// The channel to it.
        channel: u64,
        /// In words.
        reason: String,
    },
    /// The backend is gone. Channels go on; connects wait.
    BackendLost,
    /// A backend is there again and has taken us back.
    BackendReturned,
}

/// Where an endpoint's channels come from.
pub trait Island: Send {
    /// Who this endpoint is.
    fn identity(&self) -> &Identity;
    /// The endpoint's page of attention and counters, where there is a backend. Another one after
    /// `BackendReturned`.
    fn home(&self) -> Option<&Arc<Region>>;
    /// Starts an introduction; the answer is an event with the same ticket. `None` for the time
    /// waits for ever until the target exists. A key must be the target's, if that has one.
    ///
    /// # Errors
    /// [`IslandError`] when it cannot even be asked for.
    fn connect(
        &mut self,
        ticket: u32,
        target: &Target,
        road: Option<Road>,
        timeout_ms: Option<u32>,
        key: Option<u32>,
    ) -> Result<(), IslandError>;
    /// Gives a connect up.
    fn cancel(&mut self, ticket: u32);
    /// A channel is not used any more.
    fn disconnect(&mut self, channel: u64);
    /// The next event. Never waits; also returns to a lost backend, at most every 100 ms.
    fn poll_event(&mut self, now_ms: u64) -> Option<Event>;
    /// Readable when `poll_event` has something. `None` while the backend is lost; another one
    /// after `BackendReturned`.
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;
}
