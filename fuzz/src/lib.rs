// SPDX-License-Identifier: Apache-2.0
//! What the fuzzers drive: every byte that a peer controls, from the outside in.
//!
//! ```text
//!   frame      the meaning of one cell
//!   machine    an endpoint machine behind a peer that sends any frames and gives back any credit
//!   ring       both ends of a ring over a file that its owner fills with anything
//!   channel    a whole endpoint over such a file
//! ```
//!
//! A driver takes any bytes, reads them as a program of the liar and its victim, and panics when a
//! promise is broken. `fuzz_targets/` hands them to libFuzzer; `tests/seeded.rs` feeds them with
//! numbers from a seed, so that they run everywhere.

mod channel;
mod machine;
mod ring;

pub use channel::channel;
pub use machine::machine;
pub use ring::ring;

use diolkos_proto::frame::{Frame, Message};

/// Reads a program off the input; after its end everything is zero.
pub(crate) struct Script<'a> {
    data: &'a [u8],
}

impl<'a> Script<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Self { data }
    }

    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.data.split_first() else { return 0 };
        self.data = rest;
        *first
    }

    pub fn below(&mut self, bound: usize) -> usize {
        usize::from(self.short()) % bound
    }

    pub fn short(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// A number that is small more often than not: the names of requests and the lengths that
    /// nearly fit are the interesting ones.
    pub fn word(&mut self) -> u64 {
        match self.byte() % 8 {
            0..=2 => u64::from(self.byte() % 8),
            3 | 4 => u64::from(self.short()),
            5 => u64::from(self.byte() % 8) | u64::from(self.byte() % 8) << 32,
            6 => u64::from(self.short()) << (self.byte() % 64),
            _ => u64::MAX - u64::from(self.byte()),
        }
    }
}

/// Whatever parses is emitted and parsed the same.
pub fn frame(data: &[u8]) {
    let mut script = Script::new(data);
    while !script.is_empty() {
        let (kind, flags) = (script.byte(), script.byte());
        let words = [script.word(), script.word(), script.word()];
        if let Some(message) = Message::parse(&Frame { kind, flags, words }) {
            assert_eq!(Message::parse(&message.emit()), Some(message));
        }
    }
}
