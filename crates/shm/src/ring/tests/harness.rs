// SPDX-License-Identifier: Apache-2.0
//! Two ends of a channel in one process, and payloads that are known by their number.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{MemfdFlags, OFlags, SealFlags};

use crate::layout::{CHANNEL_FILE_BYTES, header_bytes};
use crate::words::Words;
use crate::{Access, Cell, Consumer, Producer, Region, Sink, Source};

pub const WINDOW_BYTES: u64 = 1 << 20;
/// A payload whose cell takes a whole line: two shorter ones share one.
pub const LINE: usize = 9;

/// One end of a channel, and the file that it writes.
pub struct End {
    pub producer: Producer,
    pub consumer: Consumer,
    pub own: Words,
    pub file: OwnedFd,
}

/// The two ends of a fresh channel.
pub fn channel() -> (End, End) {
    channel_with_window(WINDOW_BYTES)
}

/// The two ends of a fresh channel whose bulk payload rotates over so much.
pub fn channel_with_window(window_bytes: u64) -> (End, End) {
    let (a_file, a_view) = channel_file(0);
    let (b_file, b_view) = channel_file(1);
    (end(a_file, b_view, window_bytes), end(b_file, a_view, window_bytes))
}

fn channel_file(direction: u32) -> (OwnedFd, OwnedFd) {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = rustix::fs::memfd_create("ring-test", flags).unwrap();
    rustix::fs::ftruncate(&file, CHANNEL_FILE_BYTES as u64).unwrap();
    rustix::io::pwrite(&file, &header_bytes(1, direction), 0).unwrap();
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW).unwrap();
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let view = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, 0.into()).unwrap();
    (file, view)
}

fn end(file: OwnedFd, view: OwnedFd, window_bytes: u64) -> End {
    let kept = file.try_clone().unwrap();
    let map =
        |fd, access| Words::new(Arc::new(Region::map(fd, CHANNEL_FILE_BYTES, access).unwrap()));
    let own = map(file, Access::ReadWrite);
    let peer = map(view, Access::ReadOnly);
    End {
        producer: Producer::new(own.clone(), peer.clone(), window_bytes),
        consumer: Consumer::new(peer, own.clone()),
        own,
        file: kept,
    }
}

/// `len` bytes that belong to message `number` and to no other.
pub fn pattern(number: u64, len: usize) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = vec![0; len];
    for chunk in bytes.chunks_mut(8) {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(number | 1);
        chunk.copy_from_slice(&(state ^ state >> 29).to_le_bytes()[..chunk.len()]);
    }
    bytes
}

/// Numbers from a seed; a failure prints the seed, and the same seed gives the same numbers.
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

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Publishes message `number` of `len` bytes; `false` while there is no room.
pub fn send(end: &mut End, number: u64, len: usize) -> bool {
    let bytes = pattern(number, len);
    // SAFETY: `bytes` outlives the push.
    let source = unsafe { Source::from_raw(bytes.as_ptr(), len) };
    let cell = Cell { kind: 1, words: [number, !number, len as u64], ..Cell::default() };
    match end.producer.push_payload(&cell, &source, 0, len) {
        Ok(()) => true,
        Err(crate::PushError::Full) => false,
        Err(error) => panic!("message {number}: {error:?}"),
    }
}

/// Whether everything that `from` sent has been consumed. A message of a whole line comes last, as a
/// short one may leave the second half of its line to the next.
pub fn is_drained(from: &mut End, to: &mut End, number: u64) -> bool {
    assert!(send(from, number, LINE) && receive(to, number));
    to.consumer.tell();
    from.producer.is_drained()
}

/// Takes the next message and compares every byte with what `number` must be; `false` while there
/// is none.
pub fn receive(end: &mut End, number: u64) -> bool {
    let Some(cell) = end.consumer.peek() else { return false };
    assert_eq!(cell.words[..2], [number, !number], "message {number} is another");
    let len = cell.words[2] as usize;
    let (bytes, in_area) = take_payload(end, &cell);
    assert!(bytes == pattern(number, len), "message {number} of {len} bytes was garbled");
    end.consumer.pop(in_area);
    true
}

/// The payload of a cell, and how many of its bytes lay in the area.
pub fn take_payload(end: &End, cell: &Cell) -> (Vec<u8>, usize) {
    match end.consumer.payload(cell).unwrap() {
        Some(place) => {
            let mut bytes = Vec::new();
            end.consumer.append_payload(place, &mut bytes);
            (bytes, place.len_bytes())
        }
        None => {
            let mut bytes = vec![0; usize::from(cell.inline_len)];
            // SAFETY: `bytes` outlives the sink and nothing else uses it.
            let sink = unsafe { Sink::from_raw(bytes.as_mut_ptr(), bytes.len()) };
            sink.write_inline(&cell.body, bytes.len());
            (bytes, 0)
        }
    }
}
