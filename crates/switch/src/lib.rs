// SPDX-License-Identifier: Apache-2.0
//! The backend's threads that carry messages.
//!
//! ```text
//!   endpoint A <== channel ==> side a | relay | side b <== channel ==> endpoint B
//! ```
//!
//! Endpoints that cannot (or by policy may not) see common memory are joined by a [`Relay`]: each
//! has a channel of its own to the backend, and a thread copies cells and payload from one to the
//! other. To an endpoint it looks like any other channel; only slower, because the thread never
//! spins: it sleeps on its doorbells. (Three spinners on two processors make everybody ten times
//! slower.)
//!
//! A relay understands rings, not messages: it gives no meaning to a cell, keeps nothing, and
//! reorders nothing. Both its endpoints are strangers: what they wrote is checked as any end of a
//! channel checks it, and whoever breaks the rules ends this one channel.
#![forbid(unsafe_code)]

mod relay;
mod side;

pub use relay::{Relay, RelayError};
