// SPDX-License-Identifier: Apache-2.0
//! What the ring does with pages: present when needed, given back when idle, never too early.

use super::harness::{End, LINE, channel, channel_with_window, receive, send};
use crate::layout::CELL_COUNT;
use crate::{Access, Region, RegionError};

/// Memory that a file takes, in bytes.
fn resident_bytes(end: &End) -> u64 {
    rustix::fs::fstat(&end.file).unwrap().st_blocks as u64 * 512
}

#[test]
fn a_fresh_channel_takes_next_to_nothing() {
    let (a, _) = channel();
    assert!(resident_bytes(&a) <= 8192, "{} bytes", resident_bytes(&a));
}

#[test]
fn idle_bulk_memory_is_given_back_and_taken_again() {
    let (mut a, mut b) = channel();
    for round in 0..3 {
        for number in 0..200 {
            assert!(send(&mut a, number, 16 << 10));
            assert!(receive(&mut b, number));
            b.consumer.tell();
        }
        assert!(resident_bytes(&a) >= 1 << 20, "round {round}");
        assert!(a.producer.reclaim() > 0, "round {round}");
        assert!(resident_bytes(&a) < 256 << 10, "{} bytes stay", resident_bytes(&a));
        assert_eq!(a.producer.reclaim(), 0, "nothing is given back twice");
    }
}

#[test]
fn memory_in_flight_is_not_given_back() {
    let (mut a, mut b) = channel();
    for number in 0..10 {
        assert!(send(&mut a, number, 16 << 10));
    }
    assert_eq!(a.producer.reclaim(), 0);
    assert!(receive(&mut b, 0));
    b.consumer.tell();
    assert_eq!(a.producer.reclaim(), 0);
    for number in 1..10 {
        assert!(receive(&mut b, number));
    }
}

#[test]
fn a_full_ring_is_not_taken_for_an_idle_one() {
    // The heads that were noted for a cell used to be overwritten by the cell one round later. A
    // look at the peer's count while the ring was full and nothing new had been consumed took the
    // heads of the newest cell for those of the last consumed one: all of the area seemed free,
    // and `reclaim` gave unread payloads back to the system.
    let (mut a, mut b) = channel_with_window(4 << 20);
    let len = |number: u64| if number % 4 == 1 { 1500 } else { LINE };
    assert!(send(&mut a, 0, 1500));
    assert!(receive(&mut b, 0));
    b.consumer.tell();
    for number in 1..=CELL_COUNT as u64 {
        assert!(send(&mut a, number, len(number)), "payload {number}");
    }
    assert!(!send(&mut a, 0, LINE));
    assert_eq!(a.producer.reclaim(), 0);
    for number in 1..=CELL_COUNT as u64 {
        assert!(receive(&mut b, number));
    }
}

#[test]
fn memory_outside_a_smaller_window_is_given_back_too() {
    let (mut a, mut b) = channel();
    for number in 0..200 {
        assert!(send(&mut a, number, 16 << 10));
        assert!(receive(&mut b, number));
        b.consumer.tell();
    }
    b.consumer.ask_window(256 << 10);
    // The wish is read when the producer runs out of room, and followed when nothing is in
    // flight.
    let mut number = 0;
    while send(&mut a, number, 16 << 10) {
        number += 1;
    }
    for number in 0..number {
        assert!(receive(&mut b, number));
    }
    b.consumer.tell();
    for number in 0..200 {
        assert!(send(&mut a, number, 16 << 10));
        assert!(receive(&mut b, number));
        b.consumer.tell();
    }
    assert!(resident_bytes(&a) < 512 << 10, "{} bytes stay", resident_bytes(&a));
    assert!(a.producer.reclaim() > 0);
    assert!(resident_bytes(&a) < 256 << 10, "{} bytes stay", resident_bytes(&a));
}

#[test]
fn a_file_that_could_shrink_or_is_too_small_is_refused() {
    let make = || {
        let flags = rustix::fs::MemfdFlags::CLOEXEC | rustix::fs::MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("region-test", flags).unwrap();
        rustix::fs::ftruncate(&file, 4096).unwrap();
        file
    };
    let unsealed = Region::map(make(), 4096, Access::ReadWrite);
    assert!(matches!(unsealed, Err(RegionError::NotSealed)));
    let file = make();
    rustix::fs::fcntl_add_seals(&file, rustix::fs::SealFlags::SHRINK).unwrap();
    let short = Region::map(file, 8192, Access::ReadWrite);
    assert!(matches!(short, Err(RegionError::TooSmall { file_bytes: 4096, needed_bytes: 8192 })));
}
