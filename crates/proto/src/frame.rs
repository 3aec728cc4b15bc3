// SPDX-License-Identifier: Apache-2.0
//! What a cell means.
//!
//! A [`Frame`] is the raw form that crosses: a kind, flags and three words, as a peer alleges
//! them. A [`Message`] is the parsed form, which cannot hold nonsense.
//!
//! ```text
//!   kind    flags    word 0                 word 1                     word 2        payload
//!   EAGER   space    match info             immediate                  length        first part
//!   MORE             -                      -                          -             next part
//!   RTS     space    match info             immediate | send id << 32  length        [place]
//!   CTS              send id | recv id<<32  accepted length            -             -
//!   DATA             recv id                offset                     -             part
//!   CLOSE            -                      -                          -             -
//!   DONE             send id                taken length               -             -
//!   ASK              region << 32           secret, low                secret, high  -
//!   TELL             region << 32           answer | rights << 8 | placed << 16      length  told
//!   PUT              send id | region<<32   offset                     length        initiator
//!   GET              recv id | region<<32   offset                     length        initiator
//!   ATOMIC           id | region << 32      offset                     operation     operands
//!   ANSWER           id                     answer                     value         -
//! ```
//!
//! Some carry words behind those three, as an inline payload of at most 32 bytes (a [`Body`]):
//!
//! ```text
//!   place      grant, offset
//!   initiator  secret low, high, and perhaps the address of its buffer
//!   told       secret low, high, grant, offset
//!   operands   secret low, high, operand, expected value
//! ```

/// Which of an endpoint's two match spaces a message belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Space {
    /// Messages with match info: everything that MX knows.
    #[default]
    Tagged,
    /// Plain messages; the libfabric door serves `FI_MSG` with them.
    Untagged,
    /// Loans: memory that the receiver looks at where it lies.
    Lent,
}

/// Words that follow the three of a frame, inside its cell.
pub type Body = [u64; 4];

/// Bytes of a [`Body`] that a place or a secret takes.
pub const SHORT_BODY_BYTES: usize = 16;
/// Bytes of a [`Body`] with a secret and the address of a buffer.
pub const ADDRESSED_BODY_BYTES: usize = 24;
/// Bytes of a whole [`Body`].
pub const BODY_BYTES: usize = 32;

/// A cell's meaning as it crosses: unchecked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// One of the kinds above.
    pub kind: u8,
    /// Bits 0 and 1: match space; bit 2: a place follows.
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
        /// Whether the receiver can take the data out of granted memory: the place follows.
        placed: bool,
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
    /// The receiver has taken an announced message out of granted memory, or let a loan go.
    Done {
        /// The name that the announcement gave.
        send_id: u32,
        /// Bytes that were taken.
        taken: u64,
    },
    /// Where is a region? The secret proves the right to know.
    Ask {
        /// The region.
        region: u32,
        /// Its secret.
        secret: Secret,
    },
    /// Where a region is now, or that it is gone.
    Tell {
        /// The region.
        region: u32,
        /// Whether it may be used.
        answer: Answer,
        /// Whether it may be written.
        writable: bool,
        /// Whether it can be reached in granted memory.
        placed: bool,
        /// Its length in bytes.
        length: u64,
    },
    /// Take data for a region.
    Put {
        /// The initiator's name for its request.
        send_id: u32,
        /// The region.
        region: u32,
        /// Where in it, in bytes.
        offset: u64,
        /// How much, in bytes.
        length: u64,
    },
    /// Send data of a region.
    Get {
        /// The initiator's name for its request.
        recv_id: u32,
        /// The region.
        region: u32,
        /// Where in it, in bytes.
        offset: u64,
        /// How much, in bytes.
        length: u64,
    },
    /// Change a word of a region.
    Atomic {
        /// The initiator's name for its request.
        id: u32,
        /// The region.
        region: u32,
        /// Where in it, in bytes.
        offset: u64,
        /// How: 0 adds, 1 compares and swaps.
        operation: u64,
    },
    /// The end of a put or an atomic, or of a get that came to nothing.
    Answer {
        /// The name that the request gave.
        id: u32,
        /// How it ended.
        answer: Answer,
        /// What an atomic found.
        value: u64,
    },
}

/// What proves the right to a region: 128 random bits.
pub type Secret = [u64; 2];

/// How the owner of a region answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Yes, or done.
    Ok,
    /// There is no such region for this peer with this secret and these rights.
    Denied,
    /// There was one, and it was revoked.
    Revoked,
    /// The place lies outside of it, or is not aligned.
    OutOfRange,
}

impl Answer {
    fn from_word(word: u64) -> Option<Self> {
        Some(match word & 0xff {
            0 => Self::Ok,
            1 => Self::Denied,
            2 => Self::Revoked,
            3 => Self::OutOfRange,
            _ => return None,
        })
    }

    fn to_word(self) -> u64 {
        match self {
            Self::Ok => 0,
            Self::Denied => 1,
            Self::Revoked => 2,
            Self::OutOfRange => 3,
        }
    }
}

const EAGER: u8 = 1;
const MORE: u8 = 2;
const RTS: u8 = 3;
const CTS: u8 = 4;
const DATA: u8 = 5;
const CLOSE: u8 = 6;
const DONE: u8 = 7;
const ASK: u8 = 8;
const TELL: u8 = 9;
const PUT: u8 = 10;
const GET: u8 = 11;
const ATOMIC: u8 = 12;
const ANSWER: u8 = 13;
const UNTAGGED: u8 = 1;
const LENT: u8 = 2;
const PLACED: u8 = 4;
const TELL_WRITABLE: u64 = 1 << 8;
const TELL_PLACED: u64 = 1 << 16;

impl Message {
    /// The meaning of a frame, or `None` when it has none.
    #[inline(always)]
    #[must_use]
    pub fn parse(frame: &Frame) -> Option<Self> {
        let [first, second, third] = frame.words;
        let space = match frame.flags & (UNTAGGED | LENT) {
            0 => Space::Tagged,
            UNTAGGED => Space::Untagged,
            LENT if frame.kind == RTS => Space::Lent,
            _ => return None,
        };
        let (low, high) = (first as u32, (first >> 32) as u32);
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
                placed: frame.flags & PLACED != 0,
            },
            CTS => Self::Cts { send_id: low, recv_id: high, accepted: second },
            DATA => Self::Data { recv_id: low, offset: second },
            CLOSE => Self::Close,
            DONE => Self::Done { send_id: low, taken: second },
            ASK => Self::Ask { region: high, secret: [second, third] },
            TELL => Self::Tell {
                region: high,
                answer: Answer::from_word(second)?,
                writable: second & TELL_WRITABLE != 0,
                placed: second & TELL_PLACED != 0,
                length: third,
            },
            PUT => Self::Put { send_id: low, region: high, offset: second, length: third },
            GET => Self::Get { recv_id: low, region: high, offset: second, length: third },
            ATOMIC => Self::Atomic { id: low, region: high, offset: second, operation: third },
            ANSWER => Self::Answer { id: low, answer: Answer::from_word(second)?, value: third },
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
            Self::Rts { match_info, immediate, space, length, send_id, placed } => Frame {
                kind: RTS,
                flags: space_flag(space) | if placed { PLACED } else { 0 },
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
            Self::Done { send_id, taken } => Frame::of(DONE, [u64::from(send_id), taken, 0]),
            Self::Ask { region, secret: [low, high] } => {
                Frame::of(ASK, [named(0, region), low, high])
            }
            Self::Tell { region, answer, writable, placed, length } => {
                let writable = if writable { TELL_WRITABLE } else { 0 };
                let placed = if placed { TELL_PLACED } else { 0 };
                let second = answer.to_word() | writable | placed;
                Frame::of(TELL, [named(0, region), second, length])
            }
            Self::Put { send_id, region, offset, length } => {
                Frame::of(PUT, [named(send_id, region), offset, length])
            }
            Self::Get { recv_id, region, offset, length } => {
                Frame::of(GET, [named(recv_id, region), offset, length])
            }
            Self::Atomic { id, region, offset, operation } => {
                Frame::of(ATOMIC, [named(id, region), offset, operation])
            }
            Self::Answer { id, answer, value } => {
                Frame::of(ANSWER, [u64::from(id), answer.to_word(), value])
            }
        }
    }
}

impl Frame {
    fn of(kind: u8, words: [u64; 3]) -> Self {
        Self { kind, flags: 0, words }
    }
}

/// A request and a region in one word.
fn named(request: u32, region: u32) -> u64 {
    u64::from(request) | u64::from(region) << 32
}

#[inline(always)]
fn space_flag(space: Space) -> u8 {
    match space {
        Space::Tagged => 0,
        Space::Untagged => UNTAGGED,
        Space::Lent => LENT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_parses_is_emitted_and_parsed_the_same(
            kind in 0_u8..16,
            flags in 0_u8..8,
            words in any::<[u64; 3]>(),
        ) {
            if let Some(message) = Message::parse(&Frame { kind, flags, words }) {
                prop_assert_eq!(Message::parse(&message.emit()), Some(message));
            } else {
                let known = (EAGER..=ANSWER).contains(&kind);
                let bad_space = flags & LENT != 0 && (kind != RTS || flags & UNTAGGED != 0);
                let bad_answer = matches!(kind, TELL | ANSWER) && words[1] & 0xff > 3;
                prop_assert!(!known || bad_space || bad_answer);
            }
        }
    }
}
