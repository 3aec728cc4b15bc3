// SPDX-License-Identifier: Apache-2.0
//! The drivers of the fuzz targets, fed with numbers from a seed: runs without libFuzzer, in
//! bounded time. A failure prints the seed; `DIOLKOS_FUZZ_SEED` runs that one alone.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

fn input(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let len = 1 + next() % 3000;
    (0..len).map(|_| (next() >> 24) as u8).collect()
}

fn run(driver: fn(&[u8]), seeds: u64) {
    let seeds = match std::env::var("DIOLKOS_FUZZ_SEED").map(|seed| seed.parse::<u64>()) {
        Ok(Ok(seed)) => seed..seed + 1,
        _ => 0..seeds,
    };
    for seed in seeds {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| driver(&input(seed)))) {
            eprintln!("failed with DIOLKOS_FUZZ_SEED={seed}");
            resume_unwind(panic);
        }
    }
}

#[test]
fn frame() {
    run(diolkos_fuzz::frame, 2000);
}

#[test]
fn machine() {
    run(diolkos_fuzz::machine, 1000);
}

#[test]
fn ring() {
    run(diolkos_fuzz::ring, 600);
}

#[test]
fn channel() {
    run(diolkos_fuzz::channel, 600);
}
