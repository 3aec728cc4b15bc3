// SPDX-License-Identifier: Apache-2.0
//! The MX C interface: `libmyriexpress`, binary-compatible with MX and Open-MX.
//!
//! A thin door over the crate `diolkos`: matching, protocols and waiting are the endpoint's own.
//! What is here is what C programs need on top (`docs/decisions/0011-mx-door.md`):
//!
//! ```text
//!   types, codes        layouts, and the numbering of results
//!   library, errors     init, handlers of errors;  environment: variables
//!   endpoint            a port: the endpoint and what the door keeps for it;  params
//!   request             a record for each request: what its handle points to
//!   address             a record for each peer: what an address points to
//!   send receive connect segments       posting
//!   complete wait probe                 finding out;  timeout: requests whose time is up
//!   handler progression                 the unexpected handler; the thread
//!   board info internals raw            names, numbers, and what mappers want
//!   native              the same with Open-MX's own names
//! ```
//!
//! A program that breaks the rules of C (a dangling handle, a buffer that is gone) gets what C
//! programs get. Null pointers, handles of closed endpoints and requests of other ones are found.

/// As `eprintln`, which panics when nobody reads the standard error any more.
macro_rules! tell {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($text)*);
    }};
}

mod address;
mod board;
mod codes;
mod complete;
mod connect;
mod endpoint;
mod environment;
mod errors;
mod handler;
mod info;
mod internals;
mod library;
mod native;
mod params;
mod probe;
mod progression;
mod raw;
mod receive;
mod request;
mod segments;
mod send;
mod timeout;
mod types;
mod wait;
