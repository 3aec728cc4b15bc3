// SPDX-License-Identifier: Apache-2.0
//! Sizes of slabs: whole pages up to 64 KiB, then four steps a doubling.
//!
//! Few sizes, so that a freed slab fits the next allocation; at most a quarter of one is unused.

/// Up to here every number of pages is a size of its own.
const FINE_BYTES: usize = 64 << 10;

/// Bytes of the slab for an allocation of `len_bytes`, which is at most 2^40.
pub fn slab_bytes(len_bytes: usize, page_bytes: usize) -> usize {
    let step = if len_bytes <= FINE_BYTES {
        page_bytes
    } else {
        // A quarter of the power of two below, so that the next one is four steps away.
        let below = 1_usize << (len_bytes - 1).ilog2();
        (below / 4).max(page_bytes)
    };
    len_bytes.max(1).next_multiple_of(step)
}

#[cfg(test)]
mod tests {
    use super::slab_bytes;

    #[test]
    fn sizes_are_whole_pages_and_waste_little() {
        assert_eq!(slab_bytes(0, 4096), 4096);
        assert_eq!(slab_bytes(1, 4096), 4096);
        assert_eq!(slab_bytes(4097, 4096), 8192);
        assert_eq!(slab_bytes(64 << 10, 4096), 64 << 10);
        assert_eq!(slab_bytes((64 << 10) + 1, 4096), 80 << 10);
        assert_eq!(slab_bytes(1 << 20, 4096), 1 << 20);
        assert_eq!(slab_bytes((1 << 20) + 1, 4096), (1 << 20) + (256 << 10));
        assert_eq!(slab_bytes((1 << 20) + 1, 65536) % 65536, 0);
        assert_eq!(slab_bytes(1 << 40, 4096), 1 << 40);
        for len in (1_usize..3 << 20).step_by(997) {
            let bytes = slab_bytes(len, 4096);
            assert!(bytes >= len && bytes.is_multiple_of(4096) && bytes - len < 4096 + len / 4);
        }
    }
}
