// SPDX-License-Identifier: Apache-2.0
//! Endpoints: messages between domains that are kept apart.
//!
//! This crate joins the others: the machine of `diolkos-proto` moves messages over lanes made of
//! `diolkos-shm` rings, which islands of `diolkos-island` introduce. It owns what they may not
//! have: threads, waiting and real time. The doors (Python, C) see this crate and no other.
//!
//! ```no_run
//! use diolkos::{Endpoint, Envelope, OpenOptions, Selector, Source, Target};
//!
//! let alice = Endpoint::open(&OpenOptions { name: Some("alice".into()), ..Default::default() })?;
//! let bob = alice.connect(&Target::Name("bob".into()), None, None)?;
//! let text = b"hello";
//! // SAFETY: `text` lives for ever.
//! let source = unsafe { Source::from_raw(text.as_ptr(), text.len()) };
//! alice.isend(source, bob, &Envelope { match_info: 7, ..Default::default() })?;
//! # Ok::<(), diolkos::Error>(())
//! ```
#![forbid(unsafe_code)]

mod answers;
mod calibrate;
mod endpoint;
mod error;
mod inside;
mod lane;
mod loans;
mod lock;
mod peers;
mod regions;
mod wait;
mod watch;

pub use calibrate::bulk_window_bytes;
pub use diolkos_island::{Identity, IslandError, Road, Target, system_hint};
pub use diolkos_proto::limits::EAGER_BYTES_MAX;
pub use diolkos_proto::machine::Reach;
pub use diolkos_proto::matching::ContextBits;
pub use diolkos_proto::{AtomicOp, Exposed, Key};
pub use diolkos_proto::{Claim, Envelope, HandlerAction, MultiEvent, PeerId, RequestId, Selector};
pub use diolkos_proto::{Sent, Space, Status, StatusCode};
pub use diolkos_shm::{ArenaError, ArenaStatus, Block, Sink, Source};
pub use endpoint::{Endpoint, Handler, OpenOptions};
pub use error::Error;
pub use inside::{Inside, NoRequest, Unusable};
pub use loans::Loan;
pub use peers::{Counters, PeerInfo};
pub use regions::Region;
pub use wait::{Received, ReceivedLoan};
pub use watch::Doze;
