// SPDX-License-Identifier: Apache-2.0
//! Noticing that this process is a forked child, for the price of one load.
//!
//! A child does not inherit the mappings of its parent's channels; touching one would be fatal. So
//! each endpoint remembers the generation of the process that opened it, and compares before use.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

static GENERATION: AtomicU32 = AtomicU32::new(0);

extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

/// How many forks lie between the first endpoint's process and this one. Also starts the counting.
#[must_use]
pub fn watch() -> u32 {
    static WATCHING: OnceLock<()> = OnceLock::new();
    WATCHING.get_or_init(|| {
        // SAFETY: `in_child` only adds to an atomic, which is allowed in a forked child, and it
        // is a function of this library, which is never unloaded (Python does not).
        let result = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        assert!(result == 0, "pthread_atfork fails only without memory");
    });
    generation()
}

/// The count now.
#[inline(always)]
#[must_use]
pub fn generation() -> u32 {
    GENERATION.load(Ordering::Relaxed)
}
