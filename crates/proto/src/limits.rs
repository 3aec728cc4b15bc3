// SPDX-License-Identifier: Apache-2.0
//! Every limit of the message protocols, by name.

/// Longest message that is sent without asking the receiver first, in bytes.
pub const EAGER_BYTES_MAX: usize = 64 << 10;
/// Shortest message that its receiver takes out of granted memory where it can, in bytes: from there
/// on that is quicker than two copies.
pub const GRANTED_BYTES_MIN: usize = 64 << 10;
/// Bytes of unreceived eager messages that one peer may have outstanding at a receiver.
pub const CREDIT_BYTES: u64 = 1 << 20;
/// Unreceived messages (eager or announced) that one peer may have outstanding at a receiver.
pub const CREDIT_MESSAGES: u64 = 1024;
/// Sends that may wait for room towards one peer; one more is refused. Doors whose programs cannot be
/// told so have no limit but that of requests (`Machine::queue_every_send`).
pub const QUEUED_SENDS_MAX: usize = 4096;
/// Requests that one endpoint may have at a time.
pub const REQUESTS_MAX: usize = 1 << 20;
/// Peers that one endpoint may have at a time.
pub const PARTNERS_MAX: usize = 4096;
/// Regions that one endpoint may have registered at a time.
pub const REGIONS_MAX: usize = 1 << 16;
/// Keys of one peer's regions whose place is remembered; of others it is asked again.
pub const KNOWN_KEYS_MAX: usize = 4096;
/// Bytes that are copied to or from granted memory in one go, before others get their turn.
pub const COPY_BYTES: usize = 1 << 20;
/// Cells taken from one peer before the others get their turn.
pub const BATCH_CELLS: usize = 32;

/// Length of the next fragment of a payload of which `done` bytes are under way and `left` are to
/// go: some four of a message, so that the receiver's copy overlaps with ours, but not so short
/// that their cells cost more than that brings.
#[inline]
#[must_use]
pub fn fragment_bytes(done: usize, left: usize) -> usize {
    let fragment = match done.saturating_add(left) {
        ..=8192 => 4 << 10,
        8193..=32_768 => 8 << 10,
        _ => 16 << 10,
    };
    if left < fragment + fragment / 2 { left } else { fragment }
}
