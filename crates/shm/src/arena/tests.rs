// SPDX-License-Identifier: Apache-2.0
//! Tests of the arena itself; what grants do to it is tested with the grants.

use super::*;

const MIB: usize = 1 << 20;

/// Fills a block, which must be writable to its last byte.
fn fill(block: &Block, byte: u8) {
    // SAFETY: the block's own memory, which nobody else uses.
    unsafe { block.base().as_ptr().write_bytes(byte, block.len_bytes()) };
}

#[test]
fn a_freed_slab_is_used_again() {
    let arena = Arena::new(64 << 20);
    let block = arena.alloc(MIB - 100, 64, None).unwrap();
    fill(&block, 1);
    let base = block.base();
    drop(block);
    assert_eq!(arena.status().cached_bytes, MIB as u64);
    let again = arena.alloc(MIB, 4096, Some(3)).unwrap();
    assert_eq!(again.base(), base);
    assert_eq!(again.len_bytes(), MIB);
    assert_eq!(arena.status().cached_bytes, 0);
}

#[test]
fn the_status_adds_up() {
    let arena = Arena::new(64 << 20);
    let blocks: Vec<_> =
        [0, 1, 4097, 100_000].iter().map(|len| arena.alloc(*len, 8, None).unwrap()).collect();
    let used: u64 = 4096 + 4096 + 8192 + (112 << 10);
    let mut expected = ArenaStatus {
        limit_bytes: 64 << 20,
        used_bytes: used,
        cached_bytes: 0,
        allocations: 4,
        granted_bytes: 0,
    };
    assert_eq!(arena.status(), expected);
    drop(blocks);
    expected = ArenaStatus { used_bytes: 0, cached_bytes: used, allocations: 0, ..expected };
    assert_eq!(arena.status(), expected);
    arena.trim();
    assert_eq!(arena.status(), ArenaStatus { cached_bytes: 0, ..expected });
}

#[test]
fn the_limit_counts_what_is_used_and_the_cache_makes_room() {
    let arena = Arena::new(8 << 20);
    let kept = arena.alloc(MIB, 8, None).unwrap();
    drop(arena.alloc(2 * MIB, 8, None).unwrap());
    assert_eq!(arena.status().cached_bytes, 2 * MIB as u64);
    let large = arena.alloc(7 * MIB, 8, None).unwrap();
    assert_eq!(arena.status().cached_bytes, 0);
    let refused = arena.alloc(1, 8, None).unwrap_err();
    let (used_bytes, limit_bytes) = (8 << 20, 8 << 20);
    assert_eq!(refused, ArenaError::Full { asked_bytes: 4096, used_bytes, limit_bytes });
    assert!(refused.to_string().contains("limit of 8388608"));
    drop(kept);
    drop(large);
    assert!(arena.alloc(8 * MIB, 8, None).is_ok());
    assert!(arena.status().cached_bytes <= 2 << 20, "more than a quarter is kept");
}

#[test]
fn the_cache_holds_a_bounded_number_of_slabs() {
    let arena = Arena::new(64 << 20);
    let blocks: Vec<_> = (0..CACHED_MAX + 9).map(|_| arena.alloc(1, 1, None).unwrap()).collect();
    drop(blocks);
    assert_eq!(arena.status().cached_bytes, CACHED_MAX as u64 * 4096);
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let arena = Arena::new(u64::MAX);
    for align in [0, 3, 24, 4 << 20, usize::MAX] {
        assert_eq!(arena.alloc(1, align, None).unwrap_err(), ArenaError::BadAlign);
    }
    assert_eq!(arena.alloc(LEN_MAX + 1, 8, None).unwrap_err(), ArenaError::TooLong);
    assert_eq!(arena.alloc(usize::MAX, 8, None).unwrap_err(), ArenaError::TooLong);
    assert_eq!(arena.status().used_bytes, 0);
    let no_descriptors = ArenaError::System(Errno::MFILE).to_string();
    assert!(no_descriptors.contains("ulimit -n"));
}

#[test]
fn every_alignment_holds_also_from_the_cache() {
    let arena = Arena::new(64 << 20);
    for align in (0..=21).map(|bits| 1_usize << bits) {
        let blocks: Vec<_> = (0..3).map(|_| arena.alloc(5000, align, None).unwrap()).collect();
        for block in &blocks {
            assert!(block.base().addr().get().is_multiple_of(align));
            fill(block, 2);
        }
    }
}

#[test]
fn blocks_are_found_by_address() {
    let arena = Arena::new(64 << 20);
    let blocks: Vec<_> = (1..20).map(|i| arena.alloc(i * 1000, 8, None).unwrap()).collect();
    for block in &blocks {
        let (base, len) = (block.base().as_ptr().cast_const(), block.len_bytes());
        let (slab, offset) = arena.find(base.wrapping_add(len - 7), 7).unwrap();
        assert!(Arc::ptr_eq(&slab, block.slab()));
        assert_eq!(offset, len - 7);
        assert!(arena.find(base.wrapping_add(len - 7), 8).is_none());
        assert!(arena.find(base.wrapping_add(1), usize::MAX).is_none());
    }
    assert!(arena.find(std::ptr::null(), 0).is_none());
    let gone = blocks[3].base().as_ptr();
    drop(blocks);
    assert!(arena.find(gone, 1).is_none());
}

#[test]
fn a_slab_that_somebody_still_holds_is_not_used_again() {
    let arena = Arena::new(64 << 20);
    let block = arena.alloc(MIB, 8, None).unwrap();
    let slab = block.slab().clone();
    drop(block);
    assert_eq!(arena.status().cached_bytes, 0);
    assert_ne!(arena.alloc(MIB, 8, None).unwrap().base(), slab.base());
}

#[test]
fn blocks_outlive_their_arena() {
    let arena = Arena::new(64 << 20);
    let block = arena.alloc(MIB, 8, None).unwrap();
    drop(arena);
    fill(&block, 3);
}

#[test]
fn a_slab_that_nobody_has_changes_its_kind_without_moving() {
    let arena = Arena::new(64 << 20);
    let block = arena.alloc(MIB, 8, None).unwrap();
    fill(&block, 4);
    assert!(!block.slab().is_writable());
    block.slab().make_writable().unwrap();
    assert!(block.slab().is_writable());
    block.slab().renew(false).unwrap();
    assert!(!block.slab().is_writable());
    block.slab().renew(true).unwrap();
    drop(block);
    // What comes out of the cache is neither.
    assert!(!arena.alloc(MIB, 8, None).unwrap().slab().is_writable());
}

#[test]
fn a_sparse_block_counts_in_full_and_is_not_used_again() {
    let arena = Arena::new(64 << 20);
    let block = arena.alloc_sparse(MIB).unwrap();
    assert_eq!(block.source().to_vec(), vec![0; MIB]);
    assert!(arena.status().used_bytes >= MIB as u64);
    assert!(matches!(arena.alloc_sparse(64 << 20), Err(ArenaError::Full { .. })));
    drop(block);
    let status = arena.status();
    assert_eq!((status.used_bytes, status.cached_bytes), (0, 0), "its pages may be missing");
}
