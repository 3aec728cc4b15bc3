// SPDX-License-Identifier: Apache-2.0
//! The layout of a channel file: the one place where offsets are written down.
//!
//! `docs/reference/channel.md` draws the same in prose. All numbers are little-endian; a file is
//! written by one side only (its *owner*) and mapped read-only by the other.
//!
//! ```text
//!            0        8        16       24       32       40       48       56
//!          +--------+--------+--------+--------+--------+--------+--------+--------+
//!  0x0000  | magic  |ver|feat|channel |cells|64|c.off|ar|area len|dir| zero        |  by the backend
//!  0x0040  |consumed|cr.bytes|cr.msgs | window |            zero                   |  by the owner
//!  0x0080  |sleeping|                          zero                                |  by the owner
//!  0x00c0  |closing |                          zero                                |  by the owner
//!  0x0100  |touching|reaching|                 zero                                |  by the owner
//!  0x1000  | cell 0   (64 bytes)                                                   |
//!    ...   | cell 511                                                              |
//!  0x9000  | grant 0| grant 1|  ...     512 words, the owner's grant table         |  by the owner
//!  0xa000  |                                   zero                                |
//!  0x10000 | small payload, 64 KiB, rotating                                       |
//!  0x20000 | bulk payload, 4 MiB, of which the first `window` bytes rotate         |
//!  0x420000+-----------------------------------------------------------------------+
//! ```
//!
//! | Word | Who reads it | Meaning |
//! |---|---|---|
//! | `consumed` | the peer, as producer | cells of the *peer's* file consumed so far, free-running |
//! | `cr.bytes`, `cr.msgs` | the peer, as producer | eager bytes and messages given back so far |
//! | `window` | the peer, as producer | bytes of its bulk area that the peer should rotate over |
//! | `sleeping` | the peer, after it published or told | bit 0: ring for cells; bit 1: and for room |
//! | `closing` | the peer, when nothing else comes | 1: my last cell has been written |
//! | `touching` | the peer, when it takes a grant back | the grant on which I do an atomic operation, or 0 |
//! | `reaching` | the peer, before a buffer that I was told of is free | 1: I may be copying in its memory |
//! | `grant n` | the peer, around each access to granted memory | generation of the grant in slot n, or 0 |
//!
//! ## A cell
//!
//! ```text
//!   0       4    5     6      8        16       24       32 ................... 64
//!   +-------+----+-----+------+--------+--------+--------+------------------------+
//!   | stamp |kind|flags|inline| word 1 | word 2 | word 3 | up to 32 payload bytes |
//!   +-------+----+-----+------+--------+--------+--------+------------------------+
//! ```
//!
//! Cell `i` (free-running) lies at slot `i mod 512` and is valid when its stamp is
//! `(i + 1) mod 2^32`: the stamp rides with the payload, so that the smallest messages cost one
//! cache line. The first eight bytes are stored last, as one word. A payload of more than 32
//! bytes lies in the area instead, at `offset` (bits 0..32 of byte 32..40, from the start of the
//! area) for `len` bytes (bits 32..64).

/// First eight bytes of every channel file.
pub const MAGIC: [u8; 8] = *b"DIOLKOS\x01";
/// Version of this layout.
pub const VERSION: u32 = 1;
/// Feature bits that this version knows: none yet, so a file with any bit set is refused.
pub const FEATURES: u32 = 0;

/// Length of a channel file in bytes; a sparse file, of which little is ever touched.
pub const CHANNEL_FILE_BYTES: usize = AREA_OFFSET + AREA_BYTES;
/// Cells in a ring; a power of two. The model checker tries every interleaving and needs few.
pub const CELL_COUNT: usize = if cfg!(loom) { 2 } else { 512 };
/// Bytes of a cell: one cache line.
pub const CELL_BYTES: usize = 64;
/// Words of a cell.
pub const CELL_WORDS: usize = CELL_BYTES / 8;
/// 64-bit words that a short cell takes: half a line.
pub const HALF_WORDS: usize = CELL_WORDS / 2;
/// Payload bytes that fit inside a cell.
pub const INLINE_BYTES: usize = 32;

/// Offset of the cells.
pub const CELLS_OFFSET: usize = if cfg!(loom) { 0x100 } else { 0x1000 };
/// Offset of the payload area.
pub const AREA_OFFSET: usize = 0x1_0000;
/// Bytes of the payload area.
pub const AREA_BYTES: usize = SMALL_BYTES + BULK_BYTES;
/// Bytes of the rotating part for small payloads, at the start of the area.
pub const SMALL_BYTES: usize = 0x1_0000;
/// Bytes of the rotating part for bulk payloads, behind the small part.
pub const BULK_BYTES: usize = 4 << 20;

/// Word index: lines consumed.
pub const WORD_CONSUMED: usize = 0x40 / 8;
/// Word index: eager bytes given back.
pub const WORD_CREDIT_BYTES: usize = WORD_CONSUMED + 1;
/// Word index: eager messages given back.
pub const WORD_CREDIT_MESSAGES: usize = WORD_CONSUMED + 2;
/// Word index: bytes of the bulk area that the peer should rotate over.
pub const WORD_WINDOW: usize = WORD_CONSUMED + 3;
/// Word index: the owner sleeps.
pub const WORD_SLEEPING: usize = 0x80 / 8;
/// Word index: the owner reads from far away, and wants long payloads written past the caches.
pub const WORD_FAR: usize = WORD_SLEEPING + 1;
/// Word index: the owner has written its last cell.
pub const WORD_CLOSING: usize = 0xc0 / 8;
/// Word index: the grant on which the owner does an atomic operation now.
pub const WORD_TOUCHING: usize = 0x100 / 8;
/// Word index: the owner is copying from or to memory of the peer's process.
pub const WORD_REACHING: usize = WORD_TOUCHING + 1;
/// Word index of the first cell.
pub const WORD_CELLS: usize = CELLS_OFFSET / 8;

/// Slots of the grant table.
pub const GRANT_COUNT: usize = 512;
/// Word index: the generation of the grant in slot 0; 0 when there is none. (Not in the model.)
pub const WORD_GRANTS: usize = 0x9000 / 8;

/// Length of an endpoint's home file in bytes: one page from the backend, the counters behind it.
pub const HOME_FILE_BYTES: usize = 0x1000 + 0x1_0000;
/// Word index in the home file: the backend's attention count (low 32 bits).
pub const HOME_WORD_ATTENTION: usize = 0;
/// Word index in the home file: the endpoint's own line of counters.
pub const HOME_WORD_ENDPOINT: usize = 0x1000 / 8;
/// Word index in the home file: the first channel's line of counters.
pub const HOME_WORD_CHANNELS: usize = HOME_WORD_ENDPOINT + 8;
/// Channels that have a line of counters; later ones are not counted one by one.
pub const HOME_CHANNELS_MAX: usize = 1000;

const _: () = {
    assert!(CELL_COUNT.is_power_of_two());
    assert!(CELLS_OFFSET + CELL_COUNT * CELL_BYTES <= WORD_GRANTS * 8);
    assert!((WORD_GRANTS + GRANT_COUNT) * 8 <= AREA_OFFSET);
    assert!(CHANNEL_FILE_BYTES == 0x42_0000);
    assert!((HOME_WORD_CHANNELS + 8 * HOME_CHANNELS_MAX) * 8 <= HOME_FILE_BYTES);
    assert!(CHANNEL_FILE_BYTES < u32::MAX as usize, "area offsets are 32 bits");
};

/// Why the header of a granted channel file was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadHeader(pub &'static str);

impl std::fmt::Display for BadHeader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "channel file with a wrong header: {}", self.0)
    }
}

impl std::error::Error for BadHeader {}

/// The 64 bytes that the backend writes at the start of a new channel file.
#[must_use]
pub fn header_bytes(channel: u64, direction: u32) -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes[0..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&FEATURES.to_le_bytes());
    bytes[16..24].copy_from_slice(&channel.to_le_bytes());
    bytes[24..28].copy_from_slice(&(CELL_COUNT as u32).to_le_bytes());
    bytes[28..32].copy_from_slice(&(CELL_BYTES as u32).to_le_bytes());
    bytes[32..36].copy_from_slice(&(CELLS_OFFSET as u32).to_le_bytes());
    bytes[36..40].copy_from_slice(&(AREA_OFFSET as u32).to_le_bytes());
    bytes[40..48].copy_from_slice(&(AREA_BYTES as u64).to_le_bytes());
    bytes[48..52].copy_from_slice(&direction.to_le_bytes());
    bytes
}

/// Checks a private copy of a file's first 64 bytes against what this build expects.
///
/// # Errors
/// [`BadHeader`] naming the first field that differs.
pub fn check_header(words: &[u64; 8], channel: u64) -> Result<(), BadHeader> {
    let mut bytes = [0; 64];
    for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    let expected = header_bytes(channel, 0);
    let fields = [
        (0..8, "magic"),
        (8..12, "version"),
        (12..16, "features"),
        (16..24, "channel id"),
        (24..32, "cells"),
        (32..48, "payload area"),
    ];
    for (range, name) in fields {
        if bytes[range.clone()] != expected[range] {
            return Err(BadHeader(name));
        }
    }
    Ok(())
}
