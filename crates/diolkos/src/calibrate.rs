// SPDX-License-Identifier: Apache-2.0
//! What this machine's caches ask for.

use std::sync::OnceLock;

/// Bulk payload rotates over at least this much.
const WINDOW_BYTES_MIN: u64 = 1 << 20;
/// Bulk payload rotates over at most this much.
const WINDOW_BYTES_MAX: u64 = 4 << 20;
/// The private cache that is assumed when the system does not tell.
const PRIVATE_CACHE_BYTES: u64 = 1 << 20;

/// Bytes that bulk payload should rotate over, so that a slot has left the reader's private cache
/// for the shared one when it is written again, and not the shared one for memory: three times the
/// private cache, between 1 and 4 MiB.
#[must_use]
pub fn bulk_window_bytes() -> u64 {
    static WINDOW: OnceLock<u64> = OnceLock::new();
    *WINDOW.get_or_init(|| {
        let private = private_cache_bytes().unwrap_or(PRIVATE_CACHE_BYTES);
        (3 * private).clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX)
    })
}

/// Size of the first processor's level 2 cache.
fn private_cache_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/cpu0/cache/index2/size").ok()?;
    let text = text.trim();
    let (digits, unit) = match text.strip_suffix('K') {
        Some(digits) => (digits, 1 << 10),
        None => (text.strip_suffix('M')?, 1 << 20),
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}
