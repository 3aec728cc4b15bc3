// SPDX-License-Identifier: Apache-2.0
//! The placement of payloads against a naive model: a list of the ranges in flight.

use std::collections::VecDeque;

use super::harness::Dice;
use crate::layout::{AREA_BYTES, BULK_BYTES, CELL_COUNT};
use crate::ring::area::{Area, SMALL_PAYLOAD_MAX, WINDOW_BYTES_MIN};

#[test]
fn ranges_in_flight_never_overlap_and_never_leave_the_area() {
    for seed in 0..40 {
        let mut dice = Dice::new(seed);
        let mut area = Area::new(WINDOW_BYTES_MIN + dice.below(BULK_BYTES as u64));
        let mut in_flight: VecDeque<(usize, usize)> = VecDeque::new();
        let (mut published, mut consumed) = (0_u64, 0_u64);
        for _ in 0..3000 {
            let len = match dice.below(3) {
                0 => 1 + dice.below(SMALL_PAYLOAD_MAX as u64) as usize,
                _ => 1 + dice.below(24 << 10) as usize,
            };
            if in_flight.len() < CELL_COUNT
                && let Some(at) = area.allocate(len)
            {
                assert!(at + len <= AREA_BYTES, "seed {seed}: {len} bytes at {at:#x}");
                for (other, other_len) in &in_flight {
                    let apart = at + len <= *other || other + other_len <= at;
                    assert!(apart, "seed {seed}: {at:#x} meets {other:#x}");
                }
                in_flight.push_back((at, len));
                area.mark(published);
                published += 1;
            }
            for _ in 0..dice.below(3).min(published - consumed) {
                in_flight.pop_front();
                consumed += 1;
            }
            area.release(consumed);
            if dice.below(50) == 0 {
                area.resize(dice.next() >> dice.below(64));
            }
        }
    }
}

#[test]
fn whatever_window_a_peer_asks_for_stays_inside_the_area() {
    for wish in [0, 1, WINDOW_BYTES_MIN - 1, WINDOW_BYTES_MIN + 1, 3 << 20, u64::MAX] {
        let mut area = Area::new(WINDOW_BYTES_MIN);
        area.resize(wish);
        let window = area.window();
        assert!(window.is_multiple_of(64 << 10), "{wish} gave {window}");
        assert!((WINDOW_BYTES_MIN..=BULK_BYTES as u64).contains(&window), "{wish} gave {window}");
    }
}

#[test]
fn a_window_is_not_changed_under_a_payload_in_flight() {
    let mut area = Area::new(WINDOW_BYTES_MIN);
    assert!(area.allocate(4096).is_some());
    area.mark(0);
    area.resize(1 << 20);
    assert_eq!(area.window(), WINDOW_BYTES_MIN);
    area.release(1);
    area.resize(1 << 20);
    assert_eq!(area.window(), 1 << 20);
}

#[test]
fn half_a_window_always_fits_into_an_idle_area() {
    // Wherever the last payload ended: a piece that does not fit before the end of the window
    // skips what is left of it, so that more than half a window may never fit.
    let mut area = Area::new(WINDOW_BYTES_MIN);
    let half = WINDOW_BYTES_MIN as usize / 2;
    for published in 0..2000 {
        let len = if published % 2 == 0 { 1025 + 64 * (published as usize % 97) } else { half };
        assert!(area.allocate(len).is_some(), "payload {published} of {len} bytes");
        area.mark(published);
        area.release(published + 1);
    }
}
