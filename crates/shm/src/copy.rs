// SPDX-License-Identifier: Apache-2.0
//! The two copies of a payload: into our own file, and out of the peer's.
//!
//! Bytes in the peer's file may change while they are read. Rust's ordinary copies assume that
//! nobody writes meanwhile, so the copy is written in assembly, which the compiler cannot reason
//! about: whatever mixture of bytes arrives is just bytes, never looked at again in shared memory.
//!
//! Both directions use the same loop. Lines come from the other processor's cache, so what counts
//! is how many are on their way at a time: plain vector loads and stores, 64 bytes wide where the
//! processor has them and 32 where not, were measured 10 to 40 % faster than `rep movsb` and than
//! the C library's `memcpy` for 1 to 16 KiB, and as fast above. Other x86 processors use `rep
//! movsb`, other architectures volatile bytes.

/// Copies `len_bytes` out of a peer's file, or into our own.
///
/// # Safety
/// `from` must be readable and `to` writable for `len_bytes`; the two must not overlap; nobody
/// but the caller may write `to`.
#[inline]
pub unsafe fn copy(from: *const u8, to: *mut u8, len_bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: passed on from the caller; the processor has what each loop needs.
    unsafe {
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

/// # Safety
/// As [`copy`].
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
        /// As [`copy`], with at least four vectors, on a processor with the feature.
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
        let from: Vec<u8> = (0..2048_u32).map(|i| (i * 7 + i / 256) as u8).collect();
        for len in (0..300).chain([511, 512, 513, 1024, 1999]) {
            for shift in [0, 1, 13] {
                let mut to = vec![0xAA_u8; len + shift + 64];
                // SAFETY: both ranges lie inside their vectors.
                unsafe { copy(from.as_ptr().add(shift), to.as_mut_ptr().add(shift), len) };
                assert_eq!(&to[shift..shift + len], &from[shift..shift + len], "{len} + {shift}");
                assert!(to[..shift].iter().chain(&to[shift + len..]).all(|b| *b == 0xAA));
            }
        }
    }
}
