// SPDX-License-Identifier: Apache-2.0
//! Numbers from a seed.

pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        // The low bits of such a number are its weakest.
        (self.next() >> 8) % bound
    }

    /// A number of any magnitude: small ones are the interesting ones.
    pub fn any_size(&mut self) -> u64 {
        let shift = self.below(64);
        self.next() >> shift
    }

    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}
