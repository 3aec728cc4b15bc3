// SPDX-License-Identifier: Apache-2.0
//! The endpoint machine: MX matching and the message protocols of one host.
//!
//! Pure: no clock, no system call, no memory of others. The machine moves messages through a
//! [`Lane`], which the caller implements over shared memory (`diolkos`), and tests implement over
//! a queue. Time enters as an argument ([`patience`]).
//!
//! ```text
//!   machine    requests, partners, and the four protocols (eager, rendezvous, self, close)
//!   matching   posted receives and unexpected messages, per context id
//!   frame      what a cell means: parse and emit
//!   granted    places in granted memory, and the keys to regions
//!   credit     how much a peer may send before it is received
//!   patience   spin, pause or sleep
//!   testing    a lane made of queues (feature `testing`)
//! ```
#![forbid(unsafe_code)]

pub mod credit;
pub mod frame;
pub mod granted;
pub mod lane;
pub mod limits;
pub mod machine;
pub mod matching;
pub mod patience;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use frame::{Frame, Space};
pub use granted::{AtomicOp, Key, Place, Placing, Unreachable};
pub use lane::{Lane, LaneFault};
pub use machine::{Claim, Exposed, HandlerAction, Loan, Machine, MultiEvent, Refusal, Sent};
pub use machine::{Envelope, PeerId, RequestId, Selector, Status, StatusCode};
