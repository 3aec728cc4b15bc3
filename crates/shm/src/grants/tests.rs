// SPDX-License-Identifier: Apache-2.0
//! Tests of grants, with an owner and a reader in one process.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{FallocateFlags, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

use super::*;
use crate::arena::{Arena, Block, LEN_MAX, Slab};
use crate::buffer::{Sink, Source};
use crate::layout::CHANNEL_FILE_BYTES;
use crate::words::Words;
use crate::{Access, Region};

const MIB: usize = 1 << 20;
const NO_GRANT: GrantId = GrantId { slot: 9, generation: 99 };

/// The two sides of one channel's table.
struct Pair {
    arena: Arena,
    granter: Granter,
    grants: Grants,
    table: Words,
}

fn pair() -> Pair {
    pair_of(&Arena::new(64 << 20), 1)
}

fn pair_of(arena: &Arena, channel: u64) -> Pair {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = rustix::fs::memfd_create("grants-test", flags).unwrap();
    rustix::fs::ftruncate(&file, CHANNEL_FILE_BYTES as u64).unwrap();
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
    // Both directions in one file: the words of the two sides do not overlap.
    let map = |access| {
        let region = Region::map(file.try_clone().unwrap(), CHANNEL_FILE_BYTES, access).unwrap();
        Words::new(Arc::new(region))
    };
    let table = map(Access::ReadWrite);
    let incoming = map(Access::ReadOnly);
    let granter = Granter::new(table.clone(), incoming.clone(), channel);
    Pair { arena: arena.clone(), granter, grants: Grants::new(incoming, table.clone()), table }
}

impl Pair {
    fn block(&self, len_bytes: usize, byte: u8) -> Block {
        let block = self.arena.alloc(len_bytes, 8, None).unwrap();
        fill(&block, byte);
        block
    }

    fn send(&self, slab: &Arc<Slab>, writable: bool) -> (GrantNote, OwnedFd) {
        let mut sent = None;
        let granted = self.granter.grant(slab, writable, |note, file| {
            sent = Some((*note, file.try_clone_to_owned().unwrap()));
            true
        });
        let (note, file) = sent.unwrap();
        assert_eq!(granted, Granted::Now(note.grant));
        (note, file)
    }

    fn grant(&mut self, slab: &Arc<Slab>, writable: bool) -> GrantId {
        let (note, file) = self.send(slab, writable);
        let note = GrantNote::decode(&note.encode()).unwrap();
        self.grants.accept(note, file).unwrap();
        note.grant
    }

    fn read(&mut self, grant: GrantId, offset: u64, len: usize) -> Result<Vec<u8>, Unreachable> {
        let mut bytes = vec![0; len];
        // SAFETY: `bytes` outlives the sink.
        let sink = unsafe { Sink::from_raw(bytes.as_mut_ptr(), len) };
        let copied = self.grants.copy_out(grant, offset, &sink, 0, len)?;
        assert_eq!(copied, len);
        Ok(bytes)
    }

    fn write(&mut self, grant: GrantId, offset: u64, bytes: &[u8]) -> Result<(), Unreachable> {
        // SAFETY: `bytes` outlives the source.
        let source = unsafe { Source::from_raw(bytes.as_ptr(), bytes.len()) };
        self.grants.copy_in(grant, offset, &source, 0, bytes.len())
    }
}

fn fill(block: &Block, byte: u8) {
    // SAFETY: the block's own memory.
    unsafe { block.base().as_ptr().write_bytes(byte, block.len_bytes()) };
}

fn first(block: &Block) -> u8 {
    block.source().to_vec()[0]
}

fn memfd(bytes: u64, seals: SealFlags, flags: MemfdFlags) -> Option<OwnedFd> {
    let flags = flags | MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = rustix::fs::memfd_create("grants-test", flags).ok()?;
    rustix::fs::ftruncate(&file, bytes).ok()?;
    rustix::fs::fcntl_add_seals(&file, seals).ok()?;
    Some(file)
}

fn reopen(file: &OwnedFd, flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())
}

fn map_writable(file: &OwnedFd) -> Result<(), Errno> {
    let prot = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a null hint replaces no mapping, and this one is never used.
    unsafe { rustix::mm::mmap(std::ptr::null_mut(), 4096, prot, MapFlags::SHARED, file, 0) }
        .map(|_| ())
}

#[test]
fn names_and_notes_are_read_strictly() {
    let grant = GrantId { slot: 511, generation: (1 << 48) - 1 };
    assert_eq!(GrantId::from_word(grant.to_word()), Some(grant));
    for word in [0, 511, 1 << 16 | 512, u64::from(u16::MAX) | 1 << 16] {
        assert_eq!(GrantId::from_word(word), None, "{word:#x}");
    }
    let note = GrantNote { grant, len_bytes: 8192, writable: true };
    let bytes = note.encode();
    assert_eq!(GrantNote::decode(&bytes), Some(note));
    assert_eq!(GrantNote::decode(&bytes[..23]), None);
    assert_eq!(GrantNote::decode(&[0; 24]), None);
    for at in 16..24 {
        let mut odd = bytes;
        odd[at] |= 2;
        assert_eq!(GrantNote::decode(&odd), None, "byte {at}");
    }
}

#[test]
fn granted_memory_is_read_where_it_is_asked() {
    let mut pair = pair();
    let block = pair.block(MIB, 1);
    let grant = pair.grant(block.slab(), false);
    assert!(pair.grants.knows(grant) && pair.grants.is_live(grant));
    assert_eq!(pair.read(grant, 5, 3), Ok(vec![1; 3]));
    fill(&block, 2);
    assert_eq!(pair.read(grant, MIB as u64 - 1000, 1000), Ok(vec![2; 1000]));
    assert_eq!(pair.read(grant, 7, 300_001), Ok(vec![2; 300_001]));
    assert_eq!(pair.read(grant, MIB as u64, 0), Ok(vec![]));
    assert_eq!(pair.granter.grant(block.slab(), false, |_, _| false), Granted::Already(grant));
    assert_eq!(pair.granter.granted(block.slab(), false), Some(grant));
    assert_eq!(pair.granter.granted(block.slab(), true), None);
    assert_eq!(pair.granter.grant(block.slab(), true, |_, _| true), Granted::Never);
    assert_eq!(pair.arena.status().granted_bytes, MIB as u64);
    // A short sink is never overrun.
    let mut bytes = [0_u8; 8];
    // SAFETY: `bytes` outlives the sink.
    let sink = unsafe { Sink::from_raw(bytes.as_mut_ptr(), 6) };
    assert_eq!(pair.grants.copy_out(grant, 0, &sink, 2, 100), Ok(4));
    assert_eq!(pair.grants.copy_out(grant, 0, &sink, 9, 100), Ok(0));
    assert_eq!(bytes, [0, 0, 2, 2, 2, 2, 0, 0]);
}

#[test]
fn ranges_outside_are_refused_to_the_byte() {
    let mut pair = pair();
    let block = pair.block(MIB, 1);
    block.slab().make_writable().unwrap();
    let grant = pair.grant(block.slab(), true);
    // Before the mapping is there, and after.
    for _ in 0..2 {
        let mut out = |offset, len| pair.grants.reach(grant, offset, len, true).err();
        let wrong = Some(Unreachable::OutOfRange);
        assert_eq!(out(u64::MAX, 1), wrong);
        assert_eq!(out(u64::MAX, 0), wrong);
        assert_eq!(out(1, usize::MAX), wrong);
        assert_eq!(out(MIB as u64, 1), wrong);
        assert_eq!(out(0, MIB + 1), wrong);
        assert_eq!(out(MIB as u64 - 1, 1), None);
        assert_eq!(out(0, MIB), None);
    }
    for offset in [1, 4, 12, MIB as u64 - 4, MIB as u64, u64::MAX - 7, u64::MAX] {
        let result = pair.grants.atomic(grant, offset, AtomicOp::FetchAdd(1));
        assert_eq!(result, Err(Unreachable::OutOfRange), "{offset}");
    }
}

#[test]
fn what_is_not_granted_is_unreachable() {
    let mut pair = pair();
    assert_eq!(pair.read(NO_GRANT, 0, 1), Err(Unreachable::TakenBack));
    let odd = GrantId { slot: u16::MAX, generation: 1 };
    assert_eq!(pair.read(odd, 0, 1), Err(Unreachable::TakenBack));
    assert!(!pair.grants.knows(odd) && !pair.grants.is_live(odd));
    // An empty slot is no grant, whatever is asked for.
    let empty = GrantId { slot: 3, generation: 0 };
    assert!(!pair.grants.knows(empty));
    assert!(pair.read(empty, 0, 1).is_err());
    let block = pair.block(4096, 1);
    let (note, file) = pair.send(block.slab(), false);
    assert_eq!(pair.read(note.grant, 0, 1), Err(Unreachable::Unknown));
    assert!(!pair.grants.knows(note.grant));
    pair.grants.accept(note, file).unwrap();
    assert_eq!(pair.read(note.grant, 0, 1), Ok(vec![1]));
    assert_eq!(pair.write(note.grant, 0, &[1]), Err(Unreachable::ReadOnly));
    let add = AtomicOp::FetchAdd(1);
    assert_eq!(pair.grants.atomic(note.grant, 0, add), Err(Unreachable::ReadOnly));
}

#[test]
fn files_that_could_do_harm_are_refused() {
    let mut pair = pair();
    // The table says that all of these are live.
    pair.table.store(crate::layout::WORD_GRANTS, 1, Ordering::Relaxed);
    let size = SealFlags::SHRINK | SealFlags::GROW;
    let grant = GrantId { slot: 0, generation: 1 };
    let mut accept = |len_bytes, writable, file| {
        pair.grants.accept(GrantNote { grant, len_bytes, writable }, file)
    };
    let file = |seals| memfd(8192, seals, MemfdFlags::empty()).unwrap();
    for len in [0, 1, 4095, 8191, LEN_MAX as u64 + 4096, u64::MAX] {
        assert_eq!(accept(len, false, file(size)), Err(GrantFault::BadLength), "{len}");
    }
    for seals in [SealFlags::empty(), SealFlags::SHRINK, SealFlags::GROW] {
        assert_eq!(accept(8192, false, file(seals)), Err(GrantFault::NotSealed));
    }
    assert_eq!(accept(12288, false, file(size)), Err(GrantFault::TooSmall));
    if let Some(huge) = memfd(2 << 20, size, MemfdFlags::HUGETLB) {
        assert_eq!(accept(2 << 20, false, huge), Err(GrantFault::NotMemory));
    }
    let (pipe, _end) = rustix::pipe::pipe().unwrap();
    assert_eq!(accept(8192, false, pipe), Err(GrantFault::NotMemory));
    let disk = reopen(&file(size), OFlags::PATH).unwrap();
    assert_eq!(accept(8192, false, disk), Err(GrantFault::NotMemory));
    let source: OwnedFd = std::fs::File::open(file!().replace("crates/shm/", "")).unwrap().into();
    assert_eq!(accept(4096, false, source), Err(GrantFault::NotMemory));
    let readable = reopen(&file(size), OFlags::RDONLY).unwrap();
    assert_eq!(accept(8192, true, readable), Err(GrantFault::BadAccess));
    let blind = reopen(&file(size), OFlags::WRONLY).unwrap();
    assert_eq!(accept(8192, false, blind), Err(GrantFault::BadAccess));
    for seal in [SealFlags::WRITE, SealFlags::FUTURE_WRITE] {
        assert_eq!(accept(8192, true, file(size | seal)), Err(GrantFault::BadAccess));
        assert_eq!(accept(8192, false, file(size | seal)), Ok(()));
    }
    assert_eq!(accept(4096, true, file(size)), Ok(()), "longer than said is no harm");
    assert!(pair.grants.reach(grant, 4095, 1, true).is_ok());
    assert!(pair.grants.reach(grant, 4096, 1, true).is_err());
}

#[test]
fn a_read_only_grant_stays_one_whatever_is_done_with_its_file() {
    let pair = pair();
    let block = pair.block(8192, 7);
    let (_, file) = pair.send(block.slab(), false);
    assert_eq!(map_writable(&file), Err(Errno::PERM));
    assert_eq!(rustix::io::pwrite(&file, &[1], 0), Err(Errno::PERM));
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    assert_eq!(rustix::fs::fallocate(&file, punch, 0, 4096), Err(Errno::PERM));
    assert!(rustix::fs::ftruncate(&file, 0).is_err());
    assert_eq!(rustix::fs::fcntl_add_seals(&file, SealFlags::WRITE), Err(Errno::PERM));
    for flags in [OFlags::RDWR, OFlags::RDWR | OFlags::TRUNC] {
        if let Ok(again) = reopen(&file, flags) {
            assert_eq!(map_writable(&again), Err(Errno::PERM));
            assert_eq!(rustix::io::pwrite(&again, &[1], 0), Err(Errno::PERM));
        }
    }
    assert_eq!(block.source().to_vec(), vec![7; 8192]);
    fill(&block, 8);
    assert_eq!(first(&block), 8);
}

#[test]
fn a_writable_grant_writes_and_counts() {
    let mut pair = pair();
    let block = pair.block(MIB, 0);
    block.slab().make_writable().unwrap();
    assert_eq!(pair.granter.grant(block.slab(), false, |_, _| true), Granted::Never);
    let grant = pair.grant(block.slab(), true);
    assert_eq!(pair.granter.granted(block.slab(), false), Some(grant));
    let sizes = [(0, 8), (9, 3), (16, 16), (33, 70), (1001, 5000), (20_003, 300_000)];
    // Often enough that each way of copying is tried.
    for (turn, (offset, len)) in (0..4).flat_map(|turn| sizes.map(|size| (turn, size))) {
        let bytes: Vec<u8> = (0..len).map(|i| (i * 7 + offset + turn) as u8).collect();
        pair.write(grant, offset as u64, &bytes).unwrap();
        assert_eq!(&block.source().to_vec()[offset..offset + len], &bytes[..]);
        assert_eq!(pair.read(grant, offset as u64, len), Ok(bytes));
    }
    pair.write(grant, 8, &5_u64.to_ne_bytes()).unwrap();
    let swap = |expected, desired| AtomicOp::CompareSwap { expected, desired };
    assert_eq!(pair.grants.atomic(grant, 8, AtomicOp::FetchAdd(u64::MAX)), Ok(5));
    assert_eq!(atomic_local(&block.sink(), 8, swap(4, 40)), Some(4));
    assert_eq!(pair.grants.atomic(grant, 8, swap(4, 1)), Ok(40));
    assert_eq!(pair.grants.atomic(grant, 8, swap(40, 1)), Ok(40));
    assert_eq!(atomic_local(&block.sink(), 8, AtomicOp::FetchAdd(1)), Some(1));
    for offset in [1, 4, MIB - 4, MIB, usize::MAX] {
        assert_eq!(atomic_local(&block.sink(), offset, AtomicOp::FetchAdd(1)), None);
    }
    // The address counts, not the offset.
    assert_eq!(atomic_local(&block.sink().skip(4), 4, AtomicOp::FetchAdd(0)), Some(2));
    assert_eq!(atomic_local(&block.sink().skip(4), 8, AtomicOp::FetchAdd(0)), None);
}

#[test]
fn atomics_of_both_sides_lose_no_count() {
    let mut pair = pair();
    let block = pair.block(4096, 0);
    block.slab().make_writable().unwrap();
    let grant = pair.grant(block.slab(), true);
    let sink = block.sink();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for _ in 0..20_000 {
                assert!(atomic_local(&sink, 64, AtomicOp::FetchAdd(1)).is_some());
            }
        });
        for _ in 0..20_000 {
            pair.grants.atomic(grant, 64, AtomicOp::FetchAdd(1)).unwrap();
        }
    });
    assert_eq!(pair.grants.atomic(grant, 64, AtomicOp::FetchAdd(0)), Ok(40_000));
}

#[test]
fn renewed_memory_is_its_owners_alone() {
    let mut pair = pair();
    let block = pair.block(MIB, 1);
    block.slab().make_writable().unwrap();
    let grant = pair.grant(block.slab(), true);
    let view = pair.grants.view(grant, 10, 100).unwrap();
    pair.write(grant, 0, &[3]).unwrap();
    let (base, reached) = (block.base(), pair.grants.reach(grant, 0, 8, true).unwrap());
    block.slab().renew(false).unwrap();
    assert_eq!(block.base(), base);
    assert_eq!(block.source().to_vec()[..2], [3, 1], "what was written before is kept");
    assert!(!block.slab().is_writable());
    assert_eq!(pair.granter.granted(block.slab(), false), None);
    assert_eq!(pair.write(grant, 0, &[4]), Err(Unreachable::TakenBack));
    assert_eq!(pair.read(grant, 0, 1), Err(Unreachable::TakenBack));
    let add = AtomicOp::FetchAdd(1);
    assert_eq!(pair.grants.atomic(grant, 0, add), Err(Unreachable::TakenBack));
    fill(&block, 9);
    assert_eq!(view.source().to_vec(), vec![1; 100], "the old bytes stay with the old file");
    // SAFETY: the old mapping is still there, as nothing was tidied; a peer that does not look.
    unsafe { reached.as_ptr().write_bytes(6, 8) };
    assert_eq!(first(&block), 9);
    // A new grant shows the new bytes; the slot's old name does not come back.
    let again = pair.grant(block.slab(), false);
    assert_eq!(again.slot, grant.slot);
    assert_ne!(again.generation, grant.generation);
    assert_eq!(pair.read(again, 0, 1), Ok(vec![9]));
    assert_eq!(pair.read(grant, 0, 1), Err(Unreachable::TakenBack));
    assert_eq!(view.clone().source().to_vec(), vec![1; 100]);
    assert_eq!((view.base(), view.len_bytes()), (view.base(), 100));
}

#[test]
fn a_slab_granted_for_reading_moves_to_become_writable() {
    let mut pair = pair();
    let block = pair.block(MIB, 1);
    let grant = pair.grant(block.slab(), false);
    block.slab().make_writable().unwrap();
    assert!(!pair.grants.is_live(grant));
    let grant = pair.grant(block.slab(), true);
    pair.write(grant, 0, &[2]).unwrap();
    block.slab().make_writable().unwrap();
    assert!(pair.grants.is_live(grant), "nothing to do");
    assert_eq!(first(&block), 2);
}

#[test]
fn tidying_lets_go_of_what_was_taken_back_and_nothing_else() {
    let mut pair = pair();
    let (block, other) = (pair.block(MIB, 1), pair.block(MIB, 2));
    let grant = pair.grant(block.slab(), false);
    let kept = pair.grant(other.slab(), false);
    let view = pair.grants.view(grant, 0, MIB).unwrap();
    block.slab().renew(false).unwrap();
    pair.grants.tidy();
    assert!(!pair.grants.knows(grant) && pair.grants.knows(kept));
    assert_eq!(view.source().to_vec(), vec![1; MIB]);
    assert_eq!(pair.read(kept, 0, 1), Ok(vec![2]));
}

#[test]
fn a_grant_that_did_not_go_leaves_no_trace() {
    let mut pair = pair();
    let block = pair.block(4096, 1);
    let mut tried = None;
    let later = pair.granter.grant(block.slab(), false, |note, _| {
        tried = Some(note.grant);
        false
    });
    assert_eq!(later, Granted::Later);
    assert!(!pair.grants.is_live(tried.unwrap()));
    assert_eq!(pair.granter.granted(block.slab(), false), None);
    let grant = pair.grant(block.slab(), false);
    assert_ne!(Some(grant.generation), tried.map(|grant| grant.generation));
}

#[test]
fn one_that_arrives_too_late_is_dropped_and_replaces_nothing() {
    let mut pair = pair();
    let (block, other) = (pair.block(4096, 1), pair.block(4096, 2));
    let (late, late_file) = pair.send(block.slab(), false);
    block.slab().renew(false).unwrap();
    let grant = pair.grant(other.slab(), false);
    assert_eq!(grant.slot, late.grant.slot);
    assert_eq!(pair.grants.accept(late, late_file), Ok(()));
    assert!(!pair.grants.knows(late.grant));
    assert_eq!(pair.read(grant, 0, 1), Ok(vec![2]));
}

#[test]
fn the_table_has_an_end_and_its_slots_come_back() {
    let mut pair = pair();
    let blocks: Vec<_> = (0..=crate::layout::GRANT_COUNT).map(|_| pair.block(1, 1)).collect();
    let (last, others) = blocks.split_last().unwrap();
    let grants: Vec<_> =
        others.iter().map(|block| pair.send(block.slab(), false).0.grant).collect();
    assert_eq!(pair.granter.grant(last.slab(), false, |_, _| true), Granted::Never);
    others[77].slab().renew(false).unwrap();
    let grant = pair.grant(last.slab(), false);
    assert_eq!(grant.slot, grants[77].slot);
    assert!(grants.iter().all(|old| old.generation != grant.generation));
}

#[test]
fn freed_memory_that_was_granted_is_never_handed_to_somebody_else() {
    let mut pair = pair();
    let mut other = pair_of(&pair.arena.clone(), 2);
    let block = pair.block(MIB, 1);
    let grant = pair.grant(block.slab(), false);
    let base = block.base();
    let view = pair.grants.view(grant, 0, MIB).unwrap();
    drop(block);
    // Kept for that peer alone, with its grant.
    assert!(pair.grants.is_live(grant));
    let for_all = pair.arena.alloc(MIB, 8, None).unwrap();
    let for_other = pair.arena.alloc(MIB, 8, Some(2)).unwrap();
    assert!(for_all.base() != base && for_other.base() != base);
    let for_peer = pair.arena.alloc(MIB, 8, Some(1)).unwrap();
    assert_eq!(for_peer.base(), base);
    assert_eq!(pair.granter.granted(for_peer.slab(), false), Some(grant));
    // Two peers, or one that may write, or an end of the channel: gone for good.
    let second = other.grant(for_peer.slab(), false);
    drop(for_peer);
    assert!(!pair.grants.is_live(grant) && !other.grants.is_live(second));
    assert_eq!(view.source().to_vec(), vec![1; MIB]);
    for_all.slab().make_writable().unwrap();
    let third = pair.grant(for_all.slab(), true);
    drop(for_all);
    assert!(!pair.grants.is_live(third));
    let fourth = other.grant(for_other.slab(), false);
    drop(for_other);
    assert!(other.grants.is_live(fourth));
    pair.arena.forget_channel(1);
    assert!(other.grants.is_live(fourth));
    pair.arena.forget_channel(2);
    assert!(!other.grants.is_live(fourth));
    assert_eq!(pair.arena.status().cached_bytes, 0);
}

#[test]
fn what_lies_behind_the_users_bytes_is_not_shown() {
    let mut pair = pair();
    drop(pair.block(8192, 0x5A));
    let block = pair.block(5, 1);
    drop(block);
    drop(pair.block(8192, 0x5A));
    let block = pair.block(4097, 1);
    let grant = pair.grant(block.slab(), false);
    let mut expected = vec![1; 4097];
    expected.resize(8192, 0);
    assert_eq!(pair.read(grant, 0, 8192), Ok(expected));
}

#[test]
fn the_owners_death_leaves_readers_their_views() {
    let mut pair = pair();
    let block = pair.block(MIB, 1);
    let grant = pair.grant(block.slab(), false);
    let view = pair.grants.view(grant, 0, MIB).unwrap();
    let Pair { arena, granter, grants, table } = pair;
    drop((granter, table, block, arena, grants));
    assert_eq!(view.source().to_vec(), vec![1; MIB]);
}

#[test]
fn what_a_writer_was_told_is_written_survives_every_renewal() {
    let mut pair = pair();
    let block = pair.block(64 << 10, 0);
    block.slab().make_writable().unwrap();
    let (word_offset, done) = (32_768, AtomicBool::new(false));
    let renewed = AtomicU64::new(0);
    let mut grant = pair.grant(block.slab(), true);
    let slab = block.slab().clone();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                slab.renew(true).unwrap();
                renewed.fetch_add(1, Ordering::Relaxed);
                std::thread::yield_now();
            }
        });
        let mut refused = 0;
        for number in 1..=20_000_u64 {
            // Words that are written are there afterwards, in whichever file that is then.
            while pair.write(grant, word_offset, &number.to_ne_bytes()).is_err() {
                refused += 1;
                if pair.granter.granted(&slab, true).is_none() {
                    grant = pair.grant(&slab, true);
                }
            }
            let there = atomic_local(&block.sink(), word_offset as usize, AtomicOp::FetchAdd(0));
            assert_eq!(there, Some(number));
        }
        done.store(true, Ordering::Relaxed);
        assert!(refused > 0 || renewed.load(Ordering::Relaxed) < 10);
    });
}

#[test]
fn a_peer_cannot_use_up_all_addresses() {
    let mut pair = pair();
    let size = SealFlags::SHRINK | SealFlags::GROW;
    let len_bytes = LEN_MAX as u64;
    let Some(file) = memfd(len_bytes, size, MemfdFlags::empty()) else { return };
    let mut views = Vec::new();
    for slot in 0..5 {
        let grant = GrantId { slot, generation: 1 };
        pair.table.store(crate::layout::WORD_GRANTS + usize::from(slot), 1, Ordering::Relaxed);
        let note = GrantNote { grant, len_bytes, writable: false };
        pair.grants.accept(note, file.try_clone().unwrap()).unwrap();
        views.push(pair.grants.view(grant, 0, 1));
    }
    let refused = Unreachable::System(Errno::NOMEM);
    assert_eq!(views.pop().unwrap().unwrap_err(), refused);
    assert!(views.iter().all(Result::is_ok));
    // A view holds its part also when the grant is gone.
    let last = GrantId { slot: 4, generation: 1 };
    pair.table.store(crate::layout::WORD_GRANTS, 0, Ordering::Relaxed);
    assert_eq!(pair.grants.reach(last, 0, 1, false), Err(refused));
    views.clear();
    assert!(pair.grants.reach(last, 0, 1, false).is_ok());
}

#[test]
fn a_forked_child_reads_what_there_is_and_takes_nothing_back() {
    let mut pair = pair();
    let block = pair.block(4096, 1);
    let grant = pair.grant(block.slab(), false);
    let view = pair.grants.view(grant, 0, 4096).unwrap();
    // SAFETY: the child calls nothing but what is tested, and ends without unwinding.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: both are mapped, in the child too.
        let seen = unsafe { (block.base().read_volatile(), view.base().read_volatile()) };
        block.slab().renew(false).ok();
        drop((block, view));
        // SAFETY: ends the child.
        unsafe { libc::_exit(if seen == (1, 1) { 0 } else { 1 }) };
    }
    let mut status = 0;
    // SAFETY: waits for the child that was just made.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(status, 0);
    assert!(pair.grants.is_live(grant));
    fill(&block, 2);
    assert_eq!(pair.read(grant, 0, 1), Ok(vec![2]));
}

#[test]
fn an_atomic_operation_is_done_once_whenever_the_memory_moves() {
    const MOVES: u64 = 300;
    let Pair { arena, granter, mut grants, table: _table } = pair();
    let block = arena.alloc(4096, 8, None).unwrap();
    fill(&block, 0);
    block.slab().make_writable().unwrap();
    let (send, receive) = std::sync::mpsc::channel();
    let counted = std::thread::spawn(move || {
        let mut counted = 0_u64;
        while let Ok((note, file)) = receive.recv() {
            let note: GrantNote = note;
            let _ = grants.accept(note, file);
            loop {
                match grants.atomic(note.grant, 0, AtomicOp::FetchAdd(1)) {
                    Ok(before) => assert_eq!(before, counted, "done twice, or lost"),
                    Err(Unreachable::TakenBack) => break,
                    Err(error) => panic!("{error}"),
                }
                counted += 1;
            }
        }
        counted
    });
    for number in 0..MOVES {
        let granted = granter.grant(block.slab(), true, |note, file| {
            send.send((*note, file.try_clone_to_owned().unwrap())).is_ok()
        });
        assert!(matches!(granted, Granted::Now(_)), "{granted:?}");
        std::thread::sleep(std::time::Duration::from_micros(number % 50));
        block.slab().renew(true).unwrap();
    }
    drop(send);
    let counted = counted.join().unwrap();
    assert_eq!(block.source().part(0, 8).to_vec(), counted.to_le_bytes());
}

#[test]
fn a_peer_that_never_ends_its_operation_is_not_waited_for_long() {
    let mut pair = pair();
    let block = pair.block(4096, 1);
    block.slab().make_writable().unwrap();
    let grant = pair.grant(block.slab(), true);
    pair.table.store(crate::layout::WORD_TOUCHING, grant.to_word(), Ordering::Relaxed);
    // It comes back at all.
    block.slab().renew(true).unwrap();
}
