// SPDX-License-Identifier: Apache-2.0
//! Which way to copy into granted memory: learned by doing it.
//!
//! Through the caches, each line that the owner has read must first be taken away from it; past
//! them, none. Which is quicker depends on where the owner's processor is and what it did with the
//! lines: for 1 MiB just read by it, 26 us against 43 us or 105 us against 38 us were measured on one
//! machine, on different days. So both ways are timed, the quicker is used, and the other one is
//! tried now and then.

use std::time::Duration;

/// Shorter copies go through the caches: they are not worth a look at the clock.
pub const PACED_MIN: usize = 8 << 10;
/// One copy in so many is done the other way.
const EXPLORE_EVERY: u32 = 64;
/// One copy counts for at most so many times what was expected: it may have been interrupted.
const SURPRISE_MAX: f32 = 2.0;

/// A way to copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Through the caches.
    Through,
    /// Past them, to memory.
    Past,
}

/// What each way has cost lately.
#[derive(Debug, Default)]
pub struct Pace {
    /// Nanoseconds for 1 KiB, by [`Way`]; 0 while it was never tried.
    ns_per_kib: [f32; 2],
    copies: u32,
}

impl Pace {
    /// How to do the next copy.
    #[inline]
    pub fn choose(&mut self) -> Way {
        self.copies = self.copies.wrapping_add(1);
        let [through, past] = self.ns_per_kib;
        // The very first copies of a mapping fault its pages in, and say nothing of either way.
        if past == 0.0 && self.copies > 2 {
            return Way::Past;
        }
        let (best, other) = if past != 0.0 && past < through {
            (Way::Past, Way::Through)
        } else {
            (Way::Through, Way::Past)
        };
        if self.copies.is_multiple_of(EXPLORE_EVERY) { other } else { best }
    }

    /// Takes in what a copy took.
    #[inline]
    pub fn note(&mut self, way: Way, len_bytes: usize, took: Duration) {
        let taken = took.as_nanos() as f32 * 1024.0 / len_bytes as f32;
        let known = &mut self.ns_per_kib[way as usize];
        if *known == 0.0 || self.copies <= 2 {
            *known = taken;
        } else {
            // Good news counts more: no accident makes a copy quicker than it can be.
            let share = if taken < *known { 0.5 } else { 0.25 };
            *known += (taken.min(*known * SURPRISE_MAX) - *known) * share;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    /// Copies with these costs; the share of each way, in percent.
    fn shares(pace: &mut Pace, through_us: u64, past_us: u64) -> (u32, u32) {
        let mut counts = [0; 2];
        for _ in 0..6400 {
            let way = pace.choose();
            counts[way as usize] += 1;
            let us = if way == Way::Through { through_us } else { past_us };
            pace.note(way, MIB, Duration::from_micros(us));
        }
        (counts[0] / 64, counts[1] / 64)
    }

    #[test]
    fn the_quicker_way_is_found_and_found_again_when_that_changes() {
        let mut pace = Pace::default();
        for (through, past) in [(105, 38), (26, 43), (400, 41), (30, 31)] {
            let (by_through, by_past) = shares(&mut pace, through, past);
            let right = if through < past { by_through } else { by_past };
            assert!(right >= 80, "{through} against {past}: {by_through} % through");
            assert!(by_through > 0 && by_past > 0, "the other way is never tried again");
        }
    }

    #[test]
    fn an_interruption_changes_nothing() {
        let mut pace = Pace::default();
        shares(&mut pace, 105, 38);
        pace.note(Way::Past, MIB, Duration::from_millis(20));
        assert_eq!(pace.choose(), Way::Past);
    }
}
