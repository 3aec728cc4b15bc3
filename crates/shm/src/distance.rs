// SPDX-License-Identifier: Apache-2.0
//! How far away the peer's processor is, and what follows for long payloads.
//!
//! Processors that share a cache hand a line over in some 50 ns, and long payloads are best left in
//! the caches. Processors that share none (two sockets, two chiplets, or a virtual machine whose
//! processors were moved apart) need 130 to 250 ns for a line that the other one has written, and
//! then 64 KiB take 20 µs; written past the caches they take 6.5 µs, which near processors need too
//! and so lose by it. Which it is may change at any moment, so the reader measures it: now and then
//! it times the load of one line of a payload that lies in the writer's cache in either case.

/// Payloads from this many bytes on are worth it.
pub const FAR_PAYLOAD_MIN: usize = 8 << 10;
/// The end of a payload that is written through the caches in any case, for the reader to measure.
pub const MEASURED_BYTES: usize = 64;
/// One payload in so many is measured; measuring costs some 100 ns.
const SAMPLE_EVERY: u32 = 32;
/// So many measurements in a row change the judgement: one may be an interruption.
const STREAK: u32 = 4;
/// A line from farther away than this, with the clock's own time, is from far away.
const FAR_NS: u64 = 100;

/// What the reader of a ring has measured.
#[derive(Debug)]
pub struct Distance {
    countdown: u32,
    /// Measurements in a row that contradict `far`.
    against: u32,
    far: bool,
}

impl Default for Distance {
    fn default() -> Self {
        Self { countdown: SAMPLE_EVERY, against: 0, far: false }
    }
}

impl Distance {
    /// Whether this payload is to be measured.
    #[inline(always)]
    pub fn is_due(&mut self, payload_bytes: usize) -> bool {
        if payload_bytes < FAR_PAYLOAD_MIN {
            return false;
        }
        self.countdown -= 1;
        if self.countdown > 0 {
            return false;
        }
        self.countdown = SAMPLE_EVERY;
        true
    }

    /// Takes a measurement in; `Some` when it changes what the peer should do.
    pub fn judge(&mut self, line_ns: u64) -> Option<bool> {
        if (line_ns > FAR_NS) == self.far {
            self.against = 0;
            return None;
        }
        self.against += 1;
        if self.against < STREAK {
            return None;
        }
        self.against = 0;
        self.far = !self.far;
        Some(self.far)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_payload_in_so_many_is_measured_and_no_short_one() {
        let mut distance = Distance::default();
        let due = (0..320).filter(|_| distance.is_due(FAR_PAYLOAD_MIN)).count();
        assert_eq!(due, 10);
        assert!((0..320).all(|_| !distance.is_due(FAR_PAYLOAD_MIN - 1)));
    }

    #[test]
    fn a_streak_changes_the_judgement_and_a_single_hole_does_not() {
        let mut distance = Distance::default();
        for _ in 0..10 {
            for _ in 1..STREAK {
                assert_eq!(distance.judge(FAR_NS + 1), None);
            }
            assert_eq!(distance.judge(FAR_NS), None);
        }
        let judgements: Vec<_> = (0..STREAK).map(|_| distance.judge(1_000_000)).collect();
        assert_eq!(judgements, [None, None, None, Some(true)]);
        assert_eq!(distance.judge(1_000_000), None);
        let judgements: Vec<_> = (0..STREAK).map(|_| distance.judge(50)).collect();
        assert_eq!(judgements, [None, None, None, Some(false)]);
    }
}
