// SPDX-License-Identifier: Apache-2.0
//! Atomic operations on 64-bit words that several processes use at once.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::buffer::Sink;

/// An atomic operation on a 64-bit word; each gives what stood there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtomicOp {
    /// Adds, and wraps.
    FetchAdd(u64),
    /// Stores `desired` if the word is `expected`.
    CompareSwap {
        /// What must stand there.
        expected: u64,
        /// What is to stand there then.
        desired: u64,
    },
}

/// Does an operation on memory of this process, in step with peers that do theirs on the same word.
/// `None`: the word does not lie inside, or not at a multiple of 8.
#[must_use]
pub fn atomic_local(sink: &Sink, offset: usize, op: AtomicOp) -> Option<u64> {
    if offset.checked_add(8).is_none_or(|end| end > sink.len_bytes()) {
        return None;
    }
    let word = NonNull::new(sink.range(offset, 8))?;
    // SAFETY: eight bytes inside the sink (checked), which is writable by `Sink::from_raw`, at a
    // multiple of 8 (checked).
    word.addr().get().is_multiple_of(8).then(|| unsafe { apply(word, op) })
}

/// # Safety
/// `word` must be writable, at a multiple of 8, and stay so during the call.
pub unsafe fn apply(word: NonNull<u8>, op: AtomicOp) -> u64 {
    // SAFETY: writable and aligned, by the caller. Other accesses to granted memory are atomics,
    // assembly, or the user's own.
    let word = unsafe { AtomicU64::from_ptr(word.as_ptr().cast()) };
    // ORDERING: all of these are in one order with each other, whoever does them.
    match op {
        AtomicOp::FetchAdd(value) => word.fetch_add(value, Ordering::SeqCst),
        AtomicOp::CompareSwap { expected, desired } => word
            .compare_exchange(expected, desired, Ordering::SeqCst, Ordering::SeqCst)
            .unwrap_or_else(|before| before),
    }
}
