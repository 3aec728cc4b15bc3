// SPDX-License-Identifier: Apache-2.0
//! The C interface: `libdiolkos`, whose header `diolkos.h` says what each function does.
//!
//! A thin door over the crate `diolkos`. What is here is what C needs on top:
//!
//! ```text
//!   codes       results and their sentences; the last failure of a thread
//!   boundary    no unwinding into C, pointers that are not NULL, lengths that can be
//!   endpoint    open, connect, progress, event loops
//!   messages    requests, sends, receives
//!   memory      the arena, regions and operations on them, loans
//! ```
//!
//! A program that breaks the rules of C (a dangling handle, a buffer that is gone) gets what C
//! programs get. Everything else is found: null pointers, lengths, requests and peers that are not.

mod boundary;
mod codes;
mod endpoint;
mod memory;
mod messages;
