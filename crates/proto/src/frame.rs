// SPDX-License-Identifier: Apache-2.0
//! What a cell means.
//!
//! A [`Frame`] is the raw form that crosses: a kind, flags and three words, as a peer alleges
//! them. A [`Message`] is the parsed form, which cannot hold nonsense.
//!
//! ```text
//!   kind    flags    word 0               word 1                       word 2        payload
//!   EAGER   space    match info           immediate                    length        first part
//!   MORE             -                    -                            -             next part
//!   RTS     space    match info           immediate | send id << 32    length        -
//!   CTS              send id | recv id<<32  accepted length            -             -
//!   DATA             recv id              offset                       -             part
//!   CLOSE            -                    -                            -             -
//! ```

/// Which of an endpoint's two match spaces a message belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Space {
    /// Messages with match info: everything that MX knows.
    #[default]
    Tagged,
    /// Plain messages; the libfabric door serves `FI_MSG` with them.
    Untagged,
}

/// A cell's meaning as it crosses: unchecked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// One of the kinds above.
    pub kind: u8,
    /// Bit 0: untagged space.
    pub flags: u8,
    /// See the table above.
    pub words: [u64; 3],
}

/// A frame whose kind is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// A message with the first part of its data.
    Eager {
        /// 64 bits to match on.
        match_info: u64,
        /// 32 bits that ride along.
        immediate: u32,
        /// Match space.
        space: Space,
        /// Full length in bytes.
        length: u64,
    },
    /// The next part of the eager message that is under way.
    More,
    /// A message is announced and waits for its receive.
    Rts {
        /// 64 bits to match on.
        match_info: u64,
        /// 32 bits that ride along.
        immediate: u32,
        /// Match space.
        space: Space,
        /// Full length in bytes.
        length: u64,
        /// The sender's name for its request.
        send_id: u32,
    },
    /// The receive has matched: send `accepted` bytes to `recv_id`.
    Cts {
        /// The name that the announcement gave.
        send_id: u32,
        /// The receiver's name for its request.
        recv_id: u32,
        /// Bytes that the receive has room for.
        accepted: u64,
    },
    /// A part of an accepted message.
    Data {
        /// The name that the acceptance gave.
        recv_id: u32,
        /// Where the part belongs in the message, in bytes.
        offset: u64,
    },
    /// The peer's endpoint was closed; nothing follows.
    Close,
}

const EAGER: u8 = 1;
const MORE: u8 = 2;
const RTS: u8 = 3;
const CTS: u8 = 4;
const DATA: u8 = 5;
const CLOSE: u8 = 6;
const UNTAGGED: u8 = 1;

impl Message {
    /// The meaning of a frame, or `None` when its kind is unknown.
    #[inline(always)]
    #[must_use]
    pub fn parse(frame: &Frame) -> Option<Self> {
        let [first, second, third] = frame.words;
        let space = if frame.flags & UNTAGGED == 0 { Space::Tagged } else { Space::Untagged };
        Some(match frame.kind {
            EAGER => {
                Self::Eager { match_info: first, immediate: second as u32, space, length: third }
            }
            MORE => Self::More,
            RTS => Self::Rts {
                match_info: first,
                immediate: second as u32,
                space,
                length: third,
                send_id: (second >> 32) as u32,
            },
            CTS => {
                Self::Cts { send_id: first as u32, recv_id: (first >> 32) as u32, accepted: second }
            }
            DATA => Self::Data { recv_id: first as u32, offset: second },
            CLOSE => Self::Close,
            _ => return None,
        })
    }

    /// The frame that says it.
    #[inline(always)]
    #[must_use]
    pub fn emit(&self) -> Frame {
        match *self {
            Self::Eager { match_info, immediate, space, length } => Frame {
                kind: EAGER,
                flags: space_flag(space),
                words: [match_info, u64::from(immediate), length],
            },
            Self::More => Frame { kind: MORE, ..Frame::default() },
            Self::Rts { match_info, immediate, space, length, send_id } => Frame {
                kind: RTS,
                flags: space_flag(space),
                words: [match_info, u64::from(immediate) | u64::from(send_id) << 32, length],
            },
            Self::Cts { send_id, recv_id, accepted } => Frame {
                kind: CTS,
                flags: 0,
                words: [u64::from(send_id) | u64::from(recv_id) << 32, accepted, 0],
            },
            Self::Data { recv_id, offset } => {
                Frame { kind: DATA, flags: 0, words: [u64::from(recv_id), offset, 0] }
            }
            Self::Close => Frame { kind: CLOSE, ..Frame::default() },
        }
    }
}

#[inline(always)]
fn space_flag(space: Space) -> u8 {
    match space {
        Space::Tagged => 0,
        Space::Untagged => UNTAGGED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_parses_is_emitted_and_parsed_the_same(
            kind in 0_u8..10,
            flags in 0_u8..128,
            words in any::<[u64; 3]>(),
        ) {
            if let Some(message) = Message::parse(&Frame { kind, flags, words }) {
                prop_assert_eq!(Message::parse(&message.emit()), Some(message));
            } else {
                prop_assert!(!(EAGER..=CLOSE).contains(&kind));
            }
        }
    }
}
