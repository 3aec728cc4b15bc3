// SPDX-License-Identifier: Apache-2.0
//! What can go wrong, and whose fault it is.

use std::fmt;

use diolkos_island::IslandError;
use diolkos_proto::{Refusal, StatusCode};
use diolkos_shm::ArenaError;
use rustix::io::Errno;

/// A call on an endpoint failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The endpoint was closed.
    Closed,
    /// The endpoint was opened by the parent of this forked process.
    Forked,
    /// A signal came while waiting; nothing is lost, call again.
    Interrupted,
    /// No such peer, or not any more.
    NotConnected,
    /// The peer is gone, and how it left.
    PeerGone(StatusCode),
    /// Too many sends are waiting for this peer.
    Busy,
    /// Too many requests or peers at this endpoint.
    NoResources,
    /// The call itself makes no sense.
    Invalid(&'static str),
    /// The introduction failed: the backend refused it, or could not be reached.
    Introduction(IslandError),
    /// Memory that was granted cannot be used.
    Grant(String),
    /// Memory cannot be allocated.
    Arena(ArenaError),
    /// The key does not allow this, or the region is another peer's.
    Denied,
    /// The place lies outside of the region, or is not aligned.
    OutOfRange,
    /// The system refused.
    System(&'static str, Errno),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the endpoint is closed"),
            Self::Forked => f.write_str(
                "the endpoint belongs to the parent of this forked process; open one of your own",
            ),
            Self::Interrupted => f.write_str("a signal interrupted the wait"),
            Self::NotConnected => f.write_str("not connected to such a peer"),
            Self::PeerGone(code) => f.write_str(match code {
                StatusCode::PeerDied => "the peer's process died",
                StatusCode::PeerMisbehaved => "the peer broke the protocol; its channel is closed",
                StatusCode::EndpointClosed => "the peer was disconnected by this endpoint",
                _ => "the peer closed its endpoint",
            }),
            Self::Busy => write!(
                f,
                "{} sends are waiting for this peer already; wait for some of them first",
                diolkos_proto::limits::QUEUED_SENDS_MAX
            ),
            Self::NoResources => f.write_str("too many requests or peers at this endpoint"),
            Self::Invalid(what) => f.write_str(what),
            Self::Introduction(error) => error.fmt(f),
            Self::Grant(what) => f.write_str(what),
            Self::Arena(error) => error.fmt(f),
            Self::Denied => f.write_str(
                "the key does not allow this; ask the owner of the region for one that does",
            ),
            Self::OutOfRange => f.write_str(
                "the place lies outside of the region, or is not a multiple of 8 for an atomic",
            ),
            Self::System(call, errno) => write!(f, "{call} failed: {errno}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotConnected => Self::NotConnected,
            Refusal::PeerGone(code) => Self::PeerGone(code),
            Refusal::Busy => Self::Busy,
            Refusal::BadMask => Self::Invalid("the match value has bits outside the mask"),
            Refusal::BadContext => Self::Invalid("a receive must fix the context id in its mask"),
            Refusal::BadRequest => Self::Invalid("no such request, or it was completed already"),
            Refusal::Denied => Self::Denied,
            Refusal::OutOfRange => Self::OutOfRange,
            Refusal::ToSelf => Self::Invalid("an endpoint lends nothing to itself"),
            Refusal::BadSpace => Self::Invalid("loans are received by calls of their own"),
            _ => Self::NoResources,
        }
    }
}

impl From<IslandError> for Error {
    fn from(error: IslandError) -> Self {
        Self::Introduction(error)
    }
}
