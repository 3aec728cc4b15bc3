// SPDX-License-Identifier: Apache-2.0
//! How long to spin before sleeping: a pure machine, fed with the time.
//!
//! Waking a sleeper costs some 20 µs; a spinner sees a message in 50 ns. Spinning about as long as
//! a wake-up costs is never worse than twice the best choice (the ski-rental argument). Two facts
//! are learnt on the way:
//!
//! * **We share our processor.** A spinner that finds a hole in time was descheduled: somebody
//!   else wants the processor, perhaps the very peer that we wait for. Then spinning only delays
//!   it, and the budget is zero for a while.
//! * **The peer is slow.** When the last waits all ended asleep, the next one spins briefly.
//!
//! ```text
//!              message came while spinning: full budget
//!            +---------------------------------------------+
//!            v                                             |
//!        [ full ] --slept 8 times in a row--> [ brief ] ---+
//!            |                                   |
//!            +-------- hole in time -------------+--> [ none ] --for 20 ms--> [ brief ]
//! ```

/// Longest spin before sleeping, in nanoseconds: two wake-ups.
pub const SPIN_NS_FULL: u64 = 50_000;
/// Spin when the peer has been slow, in nanoseconds.
pub const SPIN_NS_BRIEF: u64 = 5_000;
/// A hole of this length between two looks at the clock means that we were descheduled.
pub const HOLE_NS: u64 = 200_000;
/// How long a hole is remembered, in nanoseconds.
pub const CROWDED_NS: u64 = 20_000_000;
/// Waits that ended asleep before the budget shrinks.
const SLEPT_IN_A_ROW_MAX: u32 = 8;

/// The spin budget of one endpoint.
#[derive(Debug, Default)]
pub struct Patience {
    slept_in_a_row: u32,
    crowded_until_ns: u64,
    last_look_ns: u64,
}

impl Patience {
    /// Nanoseconds that a wait starting now may spin.
    #[must_use]
    pub fn begin(&mut self, now_ns: u64) -> u64 {
        self.last_look_ns = now_ns;
        if now_ns < self.crowded_until_ns {
            0
        } else if self.slept_in_a_row >= SLEPT_IN_A_ROW_MAX {
            SPIN_NS_BRIEF
        } else {
            SPIN_NS_FULL
        }
    }

    /// A spinner looked at the clock. Returns `false` when it should sleep at once.
    pub fn look(&mut self, now_ns: u64) -> bool {
        let hole = now_ns.saturating_sub(self.last_look_ns) > HOLE_NS;
        self.last_look_ns = now_ns;
        if hole {
            self.crowded_until_ns = now_ns + CROWDED_NS;
        }
        !hole
    }

    /// The wait ended while it was spinning.
    pub fn came_spinning(&mut self) {
        self.slept_in_a_row = 0;
    }

    /// The wait had to sleep.
    pub fn slept(&mut self) {
        self.slept_in_a_row = self.slept_in_a_row.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spins_fully_at_first_and_briefly_for_a_slow_peer() {
        let mut patience = Patience::default();
        for _ in 0..SLEPT_IN_A_ROW_MAX {
            assert_eq!(patience.begin(0), SPIN_NS_FULL);
            patience.slept();
        }
        assert_eq!(patience.begin(0), SPIN_NS_BRIEF);
        patience.came_spinning();
        assert_eq!(patience.begin(0), SPIN_NS_FULL);
    }

    #[test]
    fn a_hole_in_time_ends_spinning_for_a_while() {
        let mut patience = Patience::default();
        let _ = patience.begin(1_000);
        assert!(patience.look(2_000));
        assert!(!patience.look(2_000 + HOLE_NS + 1));
        let now = 2_001 + HOLE_NS;
        assert_eq!(patience.begin(now + CROWDED_NS - 1), 0);
        assert_eq!(patience.begin(now + CROWDED_NS), SPIN_NS_FULL);
    }
}
