// SPDX-License-Identifier: Apache-2.0
//! Memory that one side grants to the other, as the machine names it: never by an address.

use crate::frame::Secret;

/// Where something lies in memory that its owner has granted to one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The grant: its slot and generation in one word; opaque here.
    pub grant: u64,
    /// Bytes from the start of what was granted.
    pub offset: u64,
}

/// Whether memory of ours can be reached by a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placing {
    /// It can, there.
    At(Place),
    /// Not now: the road for grants is full.
    Later,
    /// Only by copies through the channel.
    Never,
}

impl Placing {
    /// The place, if there is one now.
    #[inline]
    #[must_use]
    pub fn place(self) -> Option<Place> {
        match self {
            Self::At(place) => Some(place),
            Self::Later | Self::Never => None,
        }
    }
}

/// Why memory of a peer cannot be reached at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// Its owner has taken it back.
    TakenBack,
    /// It lies outside of what was granted, or is granted for reading only, or is not aligned.
    OutOfRange,
    /// The grant did not get through, or this process has no memory for it.
    Missing,
}

/// What an atomic operation does with a 64-bit word; it returns what was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtomicOp {
    /// Adds, wrapping around.
    FetchAdd(u64),
    /// Puts `desired` there if `expected` is there.
    CompareSwap {
        /// What must be there.
        expected: u64,
        /// What is put there.
        desired: u64,
    },
}

/// The right to use a region of a peer, as its owner handed it out.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// The endpoint number of the owner, for messages to people.
    pub owner: u32,
    /// The region's number at its owner.
    pub region: u32,
    /// What proves the right.
    pub secret: Secret,
    /// Length of the region in bytes.
    pub length: u64,
    /// Whether it may be written.
    pub writable: bool,
}

impl Key {
    /// Bytes of an encoded key.
    pub const BYTES: usize = 40;
    const MAGIC: [u8; 4] = *b"DKY\x01";

    /// The key as bytes, to be sent to whoever shall use it.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let length = self.length | u64::from(self.writable) << 63;
        bytes[0..4].copy_from_slice(&Self::MAGIC);
        bytes[4..8].copy_from_slice(&self.owner.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.region.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.secret[0].to_le_bytes());
        bytes[24..32].copy_from_slice(&self.secret[1].to_le_bytes());
        bytes[32..40].copy_from_slice(&length.to_le_bytes());
        bytes
    }

    /// The key from bytes; `None` when they are none. Whether it opens anything is its owner's
    /// question.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::BYTES] = bytes.try_into().ok()?;
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        if bytes[0..4] != Self::MAGIC || bytes[12..16] != [0; 4] {
            return None;
        }
        let (second, length) = (word(8), word(32));
        Some(Self {
            owner: (word(0) >> 32) as u32,
            region: second as u32,
            secret: [word(16), word(24)],
            length: length & !(1 << 63),
            writable: length >> 63 != 0,
        })
    }
}

impl std::fmt::Debug for Key {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let access = if self.writable { "rw" } else { "r" };
        let Self { owner, region, length, .. } = self;
        write!(f, "Key({length} bytes, {access}, region {region} of endpoint {owner})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_key_survives_its_bytes(
            owner: u32,
            region: u32,
            secret: [u64; 2],
            length in 0_u64..1 << 63,
            writable: bool,
        ) {
            let key = Key { owner, region, secret, length, writable };
            prop_assert_eq!(Key::decode(&key.encode()), Some(key));
        }

        #[test]
        fn bytes_that_decode_are_the_key_encoded(bytes in any::<[u8; Key::BYTES]>(), magic: bool) {
            let mut bytes = bytes;
            if magic {
                bytes[0..4].copy_from_slice(&Key::MAGIC);
                bytes[12..16].fill(0);
            }
            let key = Key::decode(&bytes);
            prop_assert_eq!(key.map(|key| key.encode()), magic.then_some(bytes));
        }
    }

    #[test]
    fn a_key_shows_no_secret() {
        let secret = [1_234_567_890_123, 9_876_543_210_987];
        let key = Key { owner: 1, region: 2, secret, length: 3, writable: true };
        assert_eq!(format!("{key:?}"), "Key(3 bytes, rw, region 2 of endpoint 1)");
    }

    #[test]
    fn other_lengths_are_no_keys() {
        assert_eq!(Key::decode(&[]), None);
        assert_eq!(Key::decode(&[0; Key::BYTES + 1]), None);
    }
}
