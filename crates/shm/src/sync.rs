// SPDX-License-Identifier: Apache-2.0
//! Atomics that run for real, or under loom's model checker with `--cfg loom`.

#[cfg(not(loom))]
pub use std::sync::atomic::{AtomicU64, Ordering, fence};

#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU64, Ordering, fence};
