// SPDX-License-Identifier: Apache-2.0
//! The ring over real memory files, both ends in this process.
//!
//! Each end has its own two mappings, one writable and one read-only, as two processes would. The
//! memory orderings are checked by loom (`loom_tests`); here it is about places, bounds and lies.

mod area;
mod harness;
mod honest;
mod hostile;
mod memory;
