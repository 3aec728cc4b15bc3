// SPDX-License-Identifier: Apache-2.0
//! The copies of a payload: into our own file, out of the peer's, and with granted memory.
//!
//! Into our own file, where nobody else writes, the C library copies what is shorter than two pages:
//! it is the quickest at that. Bytes in the peer's file may change while they are read; Rust's
//! ordinary copies assume that nobody writes meanwhile, so this copy is written in assembly, which
//! the compiler cannot reason about: whatever mixture of bytes arrives is just bytes, never looked
//! at again in shared memory. Plain vector loads and stores, 64 bytes wide where the processor has
//! them and 32 where not, keep the most lines on their way from the other processor's cache: 4 KiB
//! take 450 ns so, and 650 ns with the C library or `rep movsb`. Other x86 processors use
//! `rep movsb`, other architectures volatile bytes.
//!
//! Into and out of *granted* memory, which several processes may read and write at once, goes a copy
//! that moves each 64-bit word at a multiple of 8 there in one piece, so that a counter or a flag in
//! such memory is never seen half-written.

use crate::distance::MEASURED_BYTES;

/// Copies payload of the user into our own file.
///
/// # Safety
/// `from` must be readable and `to` writable for `len_bytes`; the two must not overlap; nobody
/// else may write `to` (the file has one writer).
#[inline]
pub unsafe fn into_own(from: *const u8, to: *mut u8, len_bytes: usize) {
    // SAFETY: passed on from the caller. The peer may read `to` meanwhile, but an honest one does
    // only after the cell that announces it, and a dishonest one reads only what is meant for it.
    unsafe {
        let done = copy_page_pairs(from, to, len_bytes);
        std::ptr::copy_nonoverlapping(from.add(done), to.add(done), len_bytes - done);
    }
}

/// As [`into_own`], for a reader that shares no cache with us: all but the end of the payload goes
/// to memory without staying in our caches. `to` should lie at the start of a page.
///
/// # Safety
/// As [`into_own`].
#[inline]
pub unsafe fn past_the_caches(from: *const u8, to: *mut u8, len_bytes: usize) {
    let mut done = 0;
    #[cfg(target_arch = "x86_64")]
    if to.addr().is_multiple_of(64)
        && len_bytes > MEASURED_BYTES
        && std::arch::is_x86_feature_detected!("avx512f")
    {
        done = len_bytes - MEASURED_BYTES;
        done -= done % 256;
        // SAFETY: passed on from the caller; whole blocks of 256 bytes, aligned, inside both
        // ranges; the processor has AVX-512.
        unsafe { stream_avx512(from, to, done) };
    }
    // SAFETY: passed on from the caller.
    unsafe { std::ptr::copy_nonoverlapping(from.add(done), to.add(done), len_bytes - done) };
}

/// # Safety
/// As [`into_own`], with whole blocks of 256 bytes and `to` at a multiple of 64, on a processor with
/// the feature.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn stream_avx512(from: *const u8, to: *mut u8, len_bytes: usize) {
    for at in (0..len_bytes).step_by(256) {
        // SAFETY: one block from `at` on lies inside both ranges.
        unsafe {
            std::arch::asm!(
                "vmovdqu64 {a}, [{from}]",
                "vmovdqu64 {b}, [{from} + 64]",
                "vmovdqu64 {c}, [{from} + 128]",
                "vmovdqu64 {d}, [{from} + 192]",
                "vmovntdq [{to}], {a}",
                "vmovntdq [{to} + 64], {b}",
                "vmovntdq [{to} + 128], {c}",
                "vmovntdq [{to} + 192], {d}",
                from = in(reg) from.add(at),
                to = in(reg) to.add(at),
                a = out(zmm_reg) _,
                b = out(zmm_reg) _,
                c = out(zmm_reg) _,
                d = out(zmm_reg) _,
                options(nostack, preserves_flags)
            );
        }
    }
    // Such stores are ordered by nothing else: before the cell that announces them.
    // SAFETY: a fence touches nothing.
    unsafe { std::arch::asm!("sfence", options(nostack, preserves_flags)) };
}

/// Copies payload out of a peer's file.
///
/// # Safety
/// `from` must be readable and `to` writable for `len_bytes`; the two must not overlap; nobody
/// but the caller may write `to`.
#[inline]
pub unsafe fn out_of_peer(from: *const u8, to: *mut u8, len_bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: passed on from the caller; the processor has what each loop needs.
    unsafe {
        let done = copy_page_pairs(from, to, len_bytes);
        let (from, to, len_bytes) = (from.add(done), to.add(done), len_bytes - done);
        if len_bytes >= 4 * 64 && std::arch::is_x86_feature_detected!("avx512f") {
            copy_avx512(from, to, len_bytes);
        } else if len_bytes >= 4 * 32 && std::arch::is_x86_feature_detected!("avx2") {
            copy_avx2(from, to, len_bytes);
        } else {
            copy_bytes(from, to, len_bytes);
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    for i in 0..len_bytes {
        // SAFETY: `i < len_bytes`, and the caller vouches for both ranges.
        unsafe { to.add(i).write_volatile(from.add(i).read_volatile()) };
    }
}

/// Copies out of granted memory. Words at a multiple of 8 of `from` are read in one piece.
///
/// # Safety
/// `from` must be readable and `to` writable for `len_bytes`; the two must not overlap.
#[inline]
pub unsafe fn out_of_shared(from: *const u8, to: *mut u8, len_bytes: usize) {
    // SAFETY: passed on from the caller.
    unsafe { in_words(from, to, len_bytes, from.addr()) };
}

/// Copies into granted memory. Words at a multiple of 8 of `to` are written in one piece.
///
/// # Safety
/// As [`out_of_shared`].
#[inline]
pub unsafe fn into_shared(from: *const u8, to: *mut u8, len_bytes: usize) {
    // SAFETY: passed on from the caller.
    unsafe { in_words(from, to, len_bytes, to.addr()) };
}

/// As [`out_of_shared`], to memory, without staying in our caches: for what would not fit there.
///
/// # Safety
/// As [`out_of_shared`].
#[inline]
pub unsafe fn out_past_caches(from: *const u8, to: *mut u8, len_bytes: usize) {
    // SAFETY: passed on from the caller.
    unsafe {
        // Where words of the two do not lie alike, vectors could read a word in two pieces.
        if from.addr() % 8 == to.addr() % 8 {
            into_past_caches(from, to, len_bytes);
        } else {
            out_of_shared(from, to, len_bytes);
        }
    }
}

/// As [`into_shared`], to memory, without staying in our caches and without taking lines away from
/// whoever has read them. 1 MiB that another processor has just read takes 40 us so, and otherwise
/// 26 to 400 us, as far away as that is.
///
/// # Safety
/// As [`out_of_shared`].
#[inline]
pub unsafe fn into_past_caches(from: *const u8, to: *mut u8, len_bytes: usize) {
    let mut done = 0;
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx512f") {
        let head = (to.addr().next_multiple_of(64) - to.addr()).min(len_bytes);
        let lines = len_bytes - head;
        done = head + lines - lines % 256;
        // SAFETY: passed on from the caller; `head <= done <= len_bytes`, and between the two lie whole
        // blocks of 256 bytes, aligned; the processor has AVX-512.
        unsafe {
            into_shared(from, to, head);
            stream_avx512(from.add(head), to.add(head), done - head);
        }
    }
    // SAFETY: passed on from the caller; `done <= len_bytes`.
    unsafe { into_shared(from.add(done), to.add(done), len_bytes - done) };
}

/// From here on the vectors of [`out_of_peer`] are quicker than single words.
const VECTORS_MIN: usize = 256;

/// # Safety
/// As [`out_of_shared`]; `shared` is the address whose words stay in one piece.
#[inline]
unsafe fn in_words(from: *const u8, to: *mut u8, len_bytes: usize, shared: usize) {
    let head = (shared.next_multiple_of(8) - shared).min(len_bytes);
    let end = len_bytes - (len_bytes - head) % 8;
    // SAFETY: `head <= end <= len_bytes`, and each piece lies between two of them; the caller vouches
    // for both ranges.
    unsafe {
        for at in 0..head {
            move_byte(from.add(at), to.add(at));
        }
        let mut at = head;
        if end - head >= VECTORS_MIN && has_vectors() {
            // Whole words from a multiple of 8 on, in vectors, which the processor splits nowhere but
            // between cache lines. A rest that is too short for them goes in words again.
            let rest = (end - at) % PAIR_BYTES;
            let vectors = end - at - if rest < VECTORS_MIN { rest } else { 0 };
            out_of_peer(from.add(at), to.add(at), vectors);
            at += vectors;
        }
        while at < end {
            move_word(from.add(at), to.add(at));
            at += 8;
        }
        for at in end..len_bytes {
            move_byte(from.add(at), to.add(at));
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn has_vectors() -> bool {
    std::arch::is_x86_feature_detected!("avx2")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_vectors() -> bool {
    false
}

/// # Safety
/// As [`out_of_shared`], with one byte.
#[inline(always)]
unsafe fn move_byte(from: *const u8, to: *mut u8) {
    // SAFETY: passed on from the caller; volatile, as others may write either meanwhile.
    unsafe { to.write_volatile(from.read_volatile()) };
}

/// # Safety
/// As [`out_of_shared`], with eight bytes; each of the two at a multiple of 8 is accessed in one piece.
#[inline(always)]
unsafe fn move_word(from: *const u8, to: *mut u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: reads and writes eight bytes at addresses that the caller vouches for.
    unsafe {
        std::arch::asm!(
            "mov {word}, [{from}]",
            "mov [{to}], {word}",
            from = in(reg) from,
            to = in(reg) to,
            word = out(reg) _,
            options(nostack, preserves_flags)
        );
    }
    #[cfg(not(target_arch = "x86_64"))]
    // SAFETY: passed on from the caller; words are accessed as such where they are aligned.
    unsafe {
        let word = if from.addr().is_multiple_of(8) {
            from.cast::<u64>().read_volatile().to_ne_bytes()
        } else {
            std::array::from_fn(|i| from.add(i).read_volatile())
        };
        if to.addr().is_multiple_of(8) {
            to.cast::<u64>().write_volatile(u64::from_ne_bytes(word));
        } else {
            for (i, byte) in word.into_iter().enumerate() {
                to.add(i).write_volatile(byte);
            }
        }
    }
}

/// Fetches the lines of a range for writing, ahead of time and without waiting: the next payload's
/// place, while the peer still works on this one.
#[inline]
pub fn warm_for_writing(start: *const u8, len_bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    for at in (0..len_bytes).step_by(64) {
        // SAFETY: a prefetch touches nothing and faults on no address.
        unsafe {
            std::arch::asm!(
                "prefetchw [{at}]",
                at = in(reg) start.wrapping_add(at),
                options(nostack, preserves_flags, readonly)
            );
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (start, len_bytes);
}

/// Fetches one line for reading, ahead of time and without waiting.
#[inline(always)]
pub fn warm_for_reading(line: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch touches nothing and faults on no address.
    unsafe {
        std::arch::asm!(
            "prefetcht0 [{line}]",
            line = in(reg) line,
            options(nostack, preserves_flags, readonly)
        );
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

/// Copies as many pairs of pages as there are, each two side by side, and returns their bytes.
///
/// The processor fetches ahead within a page. Two pages at a time are two streams to fetch ahead in,
/// and the start of the next page comes half as often: 64 KiB take an eighth less time.
///
/// # Safety
/// As [`out_of_peer`].
#[inline]
unsafe fn copy_page_pairs(from: *const u8, to: *mut u8, len_bytes: usize) -> usize {
    #[cfg(target_arch = "x86_64")]
    if (2 * PAGE_BYTES..PAIRS_END).contains(&len_bytes)
        && std::arch::is_x86_feature_detected!("avx512f")
    {
        let done = len_bytes - len_bytes % (2 * PAGE_BYTES);
        for pair in (0..done).step_by(2 * PAGE_BYTES) {
            // SAFETY: two pages from `pair` on lie inside both ranges; the processor has AVX-512.
            unsafe { copy_page_pair(from.add(pair), to.add(pair)) };
        }
        return done;
    }
    let _ = (from, to, len_bytes);
    0
}

#[cfg(target_arch = "x86_64")]
const PAGE_BYTES: usize = 4096;
/// From here on one stream is quicker, as what is written does not fit the nearest caches: 1 MiB takes
/// a tenth less time.
#[cfg(target_arch = "x86_64")]
const PAIRS_END: usize = 512 << 10;
/// What is copied side by side.
const PAIR_BYTES: usize = 2 * 4096;

/// # Safety
/// As [`out_of_peer`], with two pages, on a processor with the feature.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn copy_page_pair(from: *const u8, to: *mut u8) {
    for at in (0..PAGE_BYTES).step_by(128) {
        // SAFETY: 128 bytes from `at` on lie inside each of the two pages.
        unsafe {
            std::arch::asm!(
                "vmovdqu64 {a}, [{from}]",
                "vmovdqu64 {b}, [{from} + 64]",
                "vmovdqu64 {c}, [{from} + 4096]",
                "vmovdqu64 {d}, [{from} + 4160]",
                "vmovdqu64 [{to}], {a}",
                "vmovdqu64 [{to} + 64], {b}",
                "vmovdqu64 [{to} + 4096], {c}",
                "vmovdqu64 [{to} + 4160], {d}",
                from = in(reg) from.add(at),
                to = in(reg) to.add(at),
                a = out(zmm_reg) _,
                b = out(zmm_reg) _,
                c = out(zmm_reg) _,
                d = out(zmm_reg) _,
                options(nostack, preserves_flags)
            );
        }
    }
}

/// # Safety
/// As [`out_of_peer`].
#[cfg(target_arch = "x86_64")]
#[inline]
unsafe fn copy_bytes(from: *const u8, to: *mut u8, len_bytes: usize) {
    // SAFETY: `rep movsb` reads and writes exactly `len_bytes` at the two addresses, which the
    // caller vouches for; the direction flag is clear by the calling convention.
    unsafe {
        std::arch::asm!(
            "rep movsb",
            inout("rcx") len_bytes => _,
            inout("rsi") from => _,
            inout("rdi") to => _,
            options(nostack, preserves_flags)
        );
    }
}

/// A copy loop of four vector registers a step.
#[cfg(target_arch = "x86_64")]
macro_rules! copy_loop {
    ($name:ident, $feature:literal, $register:ident, $width:literal, $move:literal) => {
        /// # Safety
        /// As [`out_of_peer`], with at least four vectors, on a processor with the feature.
        #[target_feature(enable = $feature)]
        unsafe fn $name(from: *const u8, to: *mut u8, len_bytes: usize) {
            const BLOCK_BYTES: usize = 4 * $width;
            let last = len_bytes - BLOCK_BYTES;
            let mut at = 0;
            loop {
                // SAFETY: `at <= last`, so one block from `at` on lies inside both ranges.
                unsafe {
                    std::arch::asm!(
                        concat!($move, " {a}, [{from}]"),
                        concat!($move, " {b}, [{from} + ", $width, "]"),
                        concat!($move, " {c}, [{from} + 2*", $width, "]"),
                        concat!($move, " {d}, [{from} + 3*", $width, "]"),
                        concat!($move, " [{to}], {a}"),
                        concat!($move, " [{to} + ", $width, "], {b}"),
                        concat!($move, " [{to} + 2*", $width, "], {c}"),
                        concat!($move, " [{to} + 3*", $width, "], {d}"),
                        from = in(reg) from.add(at),
                        to = in(reg) to.add(at),
                        a = out($register) _,
                        b = out($register) _,
                        c = out($register) _,
                        d = out($register) _,
                        options(nostack, preserves_flags)
                    );
                }
                if at == last {
                    return;
                }
                // The last block ends with the payload and may overlap the one before.
                at = (at + BLOCK_BYTES).min(last);
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
copy_loop!(copy_avx2, "avx2", ymm_reg, 32, "vmovdqu");
#[cfg(target_arch = "x86_64")]
copy_loop!(copy_avx512, "avx512f", zmm_reg, 64, "vmovdqu64");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_exactly_at_every_length_and_alignment() {
        exactly(out_of_peer);
        exactly(into_own);
        exactly(past_the_caches);
        exactly(out_of_shared);
        exactly(into_shared);
        exactly(into_past_caches);
        exactly(out_past_caches);
    }

    fn exactly(copy: unsafe fn(*const u8, *mut u8, usize)) {
        let from: Vec<u8> = (0..40_000_u32).map(|i| (i * 7 + i / 256) as u8).collect();
        for len in (0..300).chain([511, 512, 513, 1024, 1999, 8191, 8192, 8193, 16384, 30000]) {
            for shift in [0, 1, 13] {
                let mut room = vec![0xAA_u8; len + shift + 128];
                let start = room.as_ptr().align_offset(64);
                let to = &mut room[start..];
                // SAFETY: both ranges lie inside their vectors.
                unsafe { copy(from.as_ptr().add(shift), to.as_mut_ptr().add(shift), len) };
                assert_eq!(&to[shift..shift + len], &from[shift..shift + len], "{len} + {shift}");
                assert!(to[..shift].iter().chain(&to[shift + len..]).all(|b| *b == 0xAA));
            }
        }
    }
}
