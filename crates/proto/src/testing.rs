// SPDX-License-Identifier: Apache-2.0
//! A channel made of queues, for tests and fuzzers: no memory of others, no threads, no time.
//!
//! ```text
//!   wire(limits) -> (QueueLane, QueueLane)      the two ends; both stay in one thread
//!   Tap                                         what a test sees and does behind their backs
//! ```
//!
//! It behaves like a channel of shared memory as far as a machine can tell: cells and payload
//! bytes are limited, room comes back only when the consumer has told so, credit too, a peer that
//! sleeps must be rung. A [`Tap`] can write frames that no honest peer would write, give back
//! credit that was never owed, and see who sleeps and was rung.
//!
//! Payloads are not stored: every message has a number, and the bytes follow from the number and
//! their place ([`byte_of`]). So a receive can be checked to the byte, and a message of 5 GiB costs
//! nothing but its fragments (into a [`Sink::counting`] buffer).

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use crate::frame::{Body, Frame};
use crate::granted::{AtomicOp, Place, Placing, Unreachable};
use crate::lane::{Lane, LaneFault};

/// Payload bytes that travel inside a cell and need no room in the area.
const INLINE_BYTES: usize = 32;
/// What a receive buffer holds before anything was written to it.
pub const UNTOUCHED: u8 = 0xee;

/// Byte `at` of message `number`.
#[must_use]
pub fn byte_of(number: u64, at: usize) -> u8 {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed.wrapping_add((at as u64).wrapping_mul(0x5851_f42d_4c95_7f2d)) >> 56) as u8
}

/// Bytes `range` of message `number`.
pub fn bytes_of(number: u64, range: std::ops::Range<usize>) -> impl Iterator<Item = u8> {
    range.map(move |at| byte_of(number, at))
}

/// A message to send: its number and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its bytes follow from this.
    pub number: u64,
    /// Its length in bytes.
    pub len: usize,
    /// Where it begins in the message of that number; or, for what a receive buffer holds, the buffer.
    pub from: From,
}

/// Where the bytes of a [`Source`] come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// A message, from this byte on.
    Message(usize),
    /// A receive buffer.
    Buffer(Sink),
}

impl Source {
    /// A whole message.
    #[must_use]
    pub fn new(number: u64, len: usize) -> Self {
        Self { number, len, from: From::Message(0) }
    }
}

/// A receive buffer of this thread, or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sink {
    buffer: usize,
    offset: usize,
    len: usize,
}

/// The payload of a frame: a part of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    /// The message.
    pub number: u64,
    /// Where the part begins in it.
    pub offset: usize,
    /// Bytes of the part.
    pub len: usize,
    /// The buffer that holds the bytes instead, plus one; 0 for none.
    pub buffer: usize,
    /// What a frame carries behind its words.
    pub body: Body,
}

/// What lies behind a [`Sink`].
enum Buffer {
    Stored(Vec<u8>),
    /// Stores nothing; checks that the bytes of one message come in order.
    Counting {
        number: u64,
        next: usize,
    },
}

thread_local! {
    static BUFFERS: RefCell<Vec<Buffer>> = const { RefCell::new(Vec::new()) };
}

impl Sink {
    /// A fresh buffer of `len` bytes.
    #[must_use]
    pub fn new(len: usize) -> Self {
        Self::behind(Buffer::Stored(vec![UNTOUCHED; len]), len)
    }

    /// A buffer of any length that takes no memory: it checks that the bytes of message `number`
    /// arrive in order, and counts them.
    #[must_use]
    pub fn counting(number: u64, len: usize) -> Self {
        Self::behind(Buffer::Counting { number, next: 0 }, len)
    }

    fn behind(buffer: Buffer, len: usize) -> Self {
        BUFFERS.with_borrow_mut(|buffers| {
            buffers.push(buffer);
            Self { buffer: buffers.len() - 1, offset: 0, len }
        })
    }

    /// Forgets all buffers of this thread; sinks made before must not be used again.
    pub fn forget_all() {
        BUFFERS.with_borrow_mut(Vec::clear);
    }

    /// What the buffer holds now.
    ///
    /// # Panics
    /// For a counting buffer, which holds nothing.
    #[must_use]
    pub fn contents(&self) -> Vec<u8> {
        BUFFERS.with_borrow(|buffers| match &buffers[self.buffer] {
            Buffer::Stored(bytes) => bytes[self.offset..self.offset + self.len].to_vec(),
            Buffer::Counting { .. } => panic!("a counting buffer holds nothing"),
        })
    }

    /// Bytes that a counting buffer has seen.
    ///
    /// # Panics
    /// For a buffer that stores.
    #[must_use]
    pub fn counted(&self) -> usize {
        BUFFERS.with_borrow(|buffers| match &buffers[self.buffer] {
            Buffer::Counting { next, .. } => *next,
            Buffer::Stored(_) => panic!("only a counting buffer counts"),
        })
    }

    /// Writes as much of `payload` as there is room for at `at`; returns the bytes written.
    fn take(&self, payload: &Payload, at: usize) -> usize {
        let len = payload.len.min(self.len.saturating_sub(at));
        if payload.buffer > 0 {
            let from = Self { buffer: payload.buffer - 1, offset: payload.offset, len };
            let bytes = from.contents();
            return QueueLane::sink_write(self, at, &bytes);
        }
        BUFFERS.with_borrow_mut(|buffers| match &mut buffers[self.buffer] {
            Buffer::Stored(bytes) if len > 0 => {
                let room = &mut bytes[self.offset + at..self.offset + at + len];
                let from = payload.offset;
                for (place, byte) in room.iter_mut().zip(bytes_of(payload.number, from..from + len))
                {
                    *place = byte;
                }
            }
            Buffer::Stored(_) => {}
            Buffer::Counting { number, next } => {
                assert_eq!((payload.number, payload.offset, at), (*number, *next, *next));
                *next += len;
            }
        });
        len
    }
}

/// What a wire has room for, each way.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Cells that may be under way.
    pub cells: usize,
    /// Payload bytes that may be under way; at least one fragment (24 KiB).
    pub area_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { cells: 512, area_bytes: 1 << 20 }
    }
}

/// What travels to one end, and what that end has said about it.
#[derive(Default)]
struct Direction {
    ring: VecDeque<(Frame, Payload)>,
    ring_bytes: usize,
    /// Consumed, but the producer has not been told.
    untold_cells: usize,
    untold_bytes: usize,
    credits: (u64, u64),
    credits_told: (u64, u64),
    /// Something was told since the last `tell`.
    news: bool,
    closing: bool,
    /// The next push finds the consumer's words impossible.
    consumer_lies: bool,
}

/// Whether one end sleeps, and whether it was rung.
#[derive(Default)]
struct Sleep {
    for_cells: bool,
    for_room: bool,
    rung: bool,
}

struct Wire {
    limits: Limits,
    /// By the end that reads.
    to: [Direction; 2],
    sleep: [Sleep; 2],
    /// Whether memory can be granted, and what each end has granted: the memory, whether it may be
    /// written, and whether it has not been taken back.
    granting: bool,
    granted: [Vec<(Source, bool, bool)>; 2],
    reach: Reaching,
}

/// Whether and how the ends reach into each other's memory.
#[derive(Default)]
struct Reaching {
    allowed: bool,
    /// Stretches that still work.
    stretches_left: usize,
    /// Stretches that were moved so far.
    moved: usize,
    /// What each end has said the address of, by end.
    offered: [Vec<Source>; 2],
    /// Ends that have kept the other out.
    kept_out: [bool; 2],
}

/// One end of a channel.
pub struct QueueLane {
    wire: Rc<RefCell<Wire>>,
    end: usize,
}

/// A test's hand on a wire.
#[derive(Clone)]
pub struct Tap {
    wire: Rc<RefCell<Wire>>,
}

/// A fresh channel: its two ends (0 and 1), and the tap on it.
#[must_use]
pub fn wire(limits: Limits) -> (QueueLane, QueueLane, Tap) {
    let (to, sleep, granted, reach) = Default::default();
    let wire = Wire { limits, to, sleep, granting: false, granted, reach };
    let wire = Rc::new(RefCell::new(wire));
    let end = |end| QueueLane { wire: Rc::clone(&wire), end };
    (end(0), end(1), Tap { wire: Rc::clone(&wire) })
}

impl Tap {
    /// Puts a frame in front of `end`, as its peer might, whatever the limits say.
    pub fn inject(&self, end: usize, frame: Frame, payload: Payload) {
        let to = &mut self.wire.borrow_mut().to[end];
        to.ring_bytes += payload.len;
        to.ring.push_back((frame, payload));
    }

    /// Lets `end` see this as the credit that its peer gave back.
    pub fn allege_credits(&self, end: usize, credits: (u64, u64)) {
        self.wire.borrow_mut().to[1 - end].credits_told = credits;
    }

    /// The next push of `end` finds that its peer claims something impossible.
    pub fn lie_to(&self, end: usize) {
        self.wire.borrow_mut().to[1 - end].consumer_lies = true;
    }

    /// Lets `end` see its peer's closing flag.
    pub fn close_towards(&self, end: usize) {
        self.wire.borrow_mut().to[end].closing = true;
    }

    /// Whether memory can be granted over this wire from here on.
    pub fn set_granting(&self, granting: bool) {
        self.wire.borrow_mut().granting = granting;
    }

    /// `end` grants a receive buffer, for writing or not; its place in the frames is the number that
    /// comes back.
    pub fn grant(&self, end: usize, memory: Sink, writable: bool) -> u64 {
        let granted = &mut self.wire.borrow_mut().granted[end];
        granted.push((QueueLane::sink_source(&memory), writable, true));
        granted.len() as u64
    }

    /// `end` takes everything back that it has granted.
    pub fn take_back(&self, end: usize) {
        for (_, _, live) in &mut self.wire.borrow_mut().granted[end] {
            *live = false;
        }
    }

    /// The ends may reach into each other's memory from here on, and this many times it works.
    pub fn let_reach(&self, stretches: usize) {
        let reach = &mut self.wire.borrow_mut().reach;
        (reach.allowed, reach.stretches_left) = (true, stretches);
    }

    /// How many stretches were moved between a region and memory of the other end.
    #[must_use]
    pub fn stretches_moved(&self) -> usize {
        self.wire.borrow().reach.moved
    }

    /// Whether `end` has kept the other out of its memory.
    #[must_use]
    pub fn has_kept_out(&self, end: usize) -> bool {
        self.wire.borrow().reach.kept_out[end]
    }

    /// Frames that wait for `end`.
    #[must_use]
    pub fn waiting(&self, end: usize) -> usize {
        self.wire.borrow().to[end].ring.len()
    }

    /// Throws away what waits for `end`, as a peer does that reads and does not care.
    pub fn drain(&self, end: usize) {
        let to = &mut self.wire.borrow_mut().to[end];
        to.ring.clear();
        (to.ring_bytes, to.untold_cells, to.untold_bytes) = (0, 0, 0);
    }

    /// `end` says that it sleeps, and whether room would wake it.
    pub fn fall_asleep(&self, end: usize, for_room: bool) {
        let sleep = &mut self.wire.borrow_mut().sleep[end];
        (sleep.for_cells, sleep.for_room) = (true, for_room);
    }

    /// `end` is awake. Returns whether it was rung since the last call.
    pub fn wake_up(&self, end: usize) -> bool {
        std::mem::take(&mut self.wire.borrow_mut().sleep[end]).rung
    }

    /// Whether `end` was rung and has not woken up yet.
    #[must_use]
    pub fn is_rung(&self, end: usize) -> bool {
        self.wire.borrow().sleep[end].rung
    }
}

impl Source {
    /// The bytes `range` of it.
    fn payload(&self, offset: usize, len: usize) -> Payload {
        match self.from {
            From::Message(from) => {
                let offset = from + offset;
                Payload { number: self.number, offset, len, ..Payload::default() }
            }
            // What the buffer holds now.
            From::Buffer(sink) => {
                let bytes = QueueLane::sink_part(&sink, offset, len).contents();
                let copy = Sink::behind(Buffer::Stored(bytes), len);
                Payload { buffer: copy.buffer + 1, len, ..Payload::default() }
            }
        }
    }
}

impl QueueLane {
    /// The granted memory of the peer at a place, and whether it may be written.
    fn granted(&self, place: &Place, offset: usize, len: usize) -> Result<Source, Unreachable> {
        let wire = self.wire.borrow();
        let granted = &wire.granted[1 - self.end];
        let index = (place.grant as usize).checked_sub(1).ok_or(Unreachable::Missing)?;
        let (memory, _, live) = granted.get(index).ok_or(Unreachable::Missing)?;
        if !live {
            return Err(Unreachable::TakenBack);
        }
        let start = place.offset.checked_add(offset as u64).ok_or(Unreachable::OutOfRange)?;
        let end = start.checked_add(len as u64).ok_or(Unreachable::OutOfRange)?;
        if end > memory.len as u64 {
            return Err(Unreachable::OutOfRange);
        }
        Ok(Self::source_part(memory, start as usize, len))
    }

    /// As `granted`, to write to.
    fn granted_sink(&self, place: &Place, offset: usize, len: usize) -> Result<Sink, Unreachable> {
        let from = self.granted(place, offset, len)?.from;
        let writable = self.wire.borrow().granted[1 - self.end][place.grant as usize - 1].1;
        match from {
            From::Buffer(sink) if writable => Ok(sink),
            _ => Err(Unreachable::OutOfRange),
        }
    }

    /// `len` bytes of what the peer has at an address, if it can be reached now.
    fn reached(&self, address: u64, len: usize) -> Option<Source> {
        let reach = &mut self.wire.borrow_mut().reach;
        let peer = 1 - self.end;
        assert!(!reach.kept_out[peer], "it reaches into memory that it is kept out of");
        let memory = *reach.offered[peer].get(((address >> 32) as usize).checked_sub(1)?)?;
        let at = address as u32 as usize;
        if !reach.allowed || at.checked_add(len)? > memory.len {
            return None;
        }
        reach.stretches_left = reach.stretches_left.checked_sub(1)?;
        reach.moved += 1;
        Some(Self::source_part(&memory, at, len))
    }

    fn push_payload(&self, frame: &Frame, payload: Payload) -> Result<bool, LaneFault> {
        let mut wire = self.wire.borrow_mut();
        let limits = wire.limits;
        let to = &mut wire.to[1 - self.end];
        if to.consumer_lies {
            return Err(LaneFault("it claims to have read cells that were never written"));
        }
        let has_cell = to.ring.len() + to.untold_cells < limits.cells;
        let has_area = payload.len <= INLINE_BYTES
            || to.ring_bytes + to.untold_bytes + payload.len <= limits.area_bytes;
        if has_cell && has_area {
            to.ring_bytes += payload.len;
            to.ring.push_back((*frame, payload));
        }
        Ok(has_cell && has_area)
    }

    fn consume(&mut self, told: bool) {
        let mut wire = self.wire.borrow_mut();
        let wire = &mut *wire;
        let batch = wire.limits.cells.div_ceil(8);
        let to = &mut wire.to[self.end];
        if told || to.untold_cells >= batch || to.untold_bytes >= wire.limits.area_bytes / 4 {
            to.news |= to.untold_cells > 0 || to.credits != to.credits_told;
            (to.untold_cells, to.untold_bytes) = (0, 0);
            to.credits_told = to.credits;
        }
        if told && std::mem::take(&mut to.news) && wire.sleep[1 - self.end].for_room {
            wire.sleep[1 - self.end].rung = true;
        }
    }
}

impl Lane for QueueLane {
    type Source = Source;
    type Sink = Sink;
    type Payload = Payload;
    type View = Source;

    fn source_len(source: &Source) -> usize {
        source.len
    }

    fn source_part(source: &Source, offset: usize, len: usize) -> Source {
        assert!(offset + len <= source.len, "a part outside its message");
        let from = match source.from {
            From::Message(from) => From::Message(from + offset),
            From::Buffer(sink) => From::Buffer(Self::sink_part(&sink, offset, len)),
        };
        Source { len, from, ..*source }
    }

    fn sink_source(sink: &Sink) -> Source {
        Source { number: 0, len: sink.len, from: From::Buffer(*sink) }
    }

    fn atomic_local(sink: &Sink, offset: usize, op: AtomicOp) -> Option<u64> {
        let fits = offset.is_multiple_of(8) && offset.checked_add(8)? <= sink.len;
        let word = Self::sink_part(sink, offset, 8);
        let old = u64::from_le_bytes(fits.then(|| word.contents())?.try_into().ok()?);
        let new = match op {
            AtomicOp::FetchAdd(value) => old.wrapping_add(value),
            AtomicOp::CompareSwap { expected, desired } if old == expected => desired,
            AtomicOp::CompareSwap { .. } => old,
        };
        Self::sink_write(&word, 0, &new.to_le_bytes());
        Some(old)
    }

    fn sink_len(sink: &Sink) -> usize {
        sink.len
    }

    fn sink_part(sink: &Sink, offset: usize, len: usize) -> Sink {
        let offset = offset.min(sink.len);
        Sink { offset: sink.offset + offset, len: len.min(sink.len - offset), ..*sink }
    }

    fn sink_write(sink: &Sink, offset: usize, bytes: &[u8]) -> usize {
        let len = bytes.len().min(sink.len.saturating_sub(offset));
        BUFFERS.with_borrow_mut(|buffers| match &mut buffers[sink.buffer] {
            Buffer::Stored(stored) => {
                let at = sink.offset + offset.min(sink.len);
                stored[at..at + len].copy_from_slice(&bytes[..len]);
            }
            Buffer::Counting { number, next } => {
                assert_eq!(*next, offset);
                assert!(bytes_of(*number, offset..offset + len).eq(bytes[..len].iter().copied()));
                *next += len;
            }
        });
        len
    }

    fn copy_local(source: &Source, sink: &Sink) -> usize {
        sink.take(&source.payload(0, source.len), 0)
    }

    fn source_to_vec(source: &Source) -> Vec<u8> {
        let sink = Sink::new(source.len);
        Self::copy_local(source, &sink);
        sink.contents()
    }

    fn has_frame(&self) -> bool {
        !self.wire.borrow().to[self.end].ring.is_empty()
    }

    fn peek(&mut self) -> Result<Option<(Frame, Payload)>, LaneFault> {
        Ok(self.wire.borrow().to[self.end].ring.front().copied())
    }

    fn payload_len(payload: &Payload) -> usize {
        payload.len
    }

    fn copy(&self, payload: &Payload, sink: &Sink, at: usize) -> usize {
        sink.take(payload, at)
    }

    fn copy_to_vec(&self, payload: &Payload, to: &mut Vec<u8>) {
        let sink = Sink::new(payload.len);
        sink.take(payload, 0);
        to.extend(sink.contents());
    }

    fn pop(&mut self, payload: &Payload) {
        let mut wire = self.wire.borrow_mut();
        let to = &mut wire.to[self.end];
        let popped = to.ring.pop_front();
        assert!(popped.is_some_and(|(_, shown)| shown == *payload), "popped what was not shown");
        to.ring_bytes -= payload.len;
        to.untold_cells += 1;
        to.untold_bytes += payload.len;
        drop(wire);
        self.consume(false);
    }

    fn push(
        &mut self,
        frame: &Frame,
        payload: Option<(&Source, usize, usize)>,
    ) -> Result<bool, LaneFault> {
        let payload = payload.map_or(Payload::default(), |(source, offset, len)| {
            assert!(offset + len <= source.len, "a part outside its message");
            source.payload(offset, len)
        });
        self.push_payload(frame, payload)
    }

    fn push_body(&mut self, frame: &Frame, body: &Body, len: usize) -> Result<bool, LaneFault> {
        let body = std::array::from_fn(|i| if 8 * i < len { body[i] } else { 0 });
        self.push_payload(frame, Payload { len, body, ..Payload::default() })
    }

    fn body(&self, payload: &Payload) -> Option<Body> {
        (payload.len <= INLINE_BYTES).then_some(payload.body)
    }

    fn place(&mut self, memory: &Source, writable: bool) -> Placing {
        let wire = &mut *self.wire.borrow_mut();
        if !wire.granting {
            return Placing::Never;
        }
        let granted = &mut wire.granted[self.end];
        granted.push((*memory, writable, true));
        Placing::At(Place { grant: granted.len() as u64, offset: 0 })
    }

    fn is_live(&self, place: &Place) -> bool {
        self.granted(place, 0, 0).is_ok()
    }

    fn copy_placed(
        &mut self,
        place: &Place,
        offset: usize,
        sink: &Sink,
        len: usize,
    ) -> Result<(), Unreachable> {
        let from = self.granted(place, offset, len)?;
        sink.take(&from.payload(0, len), offset);
        Ok(())
    }

    fn write_placed(
        &mut self,
        place: &Place,
        offset: usize,
        source: &Source,
        len: usize,
    ) -> Result<(), Unreachable> {
        let to = self.granted_sink(place, offset, len)?;
        to.take(&source.payload(offset, len), 0);
        Ok(())
    }

    fn atomic_placed(&mut self, place: &Place, op: AtomicOp) -> Result<u64, Unreachable> {
        let to = self.granted_sink(place, 0, 8)?;
        Self::atomic_local(&to, 0, op).ok_or(Unreachable::OutOfRange)
    }

    fn view(&mut self, place: &Place, len: u64) -> Result<Source, Unreachable> {
        self.granted(place, 0, len as usize)
    }

    fn peer_address(&self, memory: &Source) -> u64 {
        let reach = &mut self.wire.borrow_mut().reach;
        if !reach.allowed {
            return 0;
        }
        let offered = &mut reach.offered[self.end];
        offered.push(*memory);
        (offered.len() as u64) << 32
    }

    fn reaches_peer(&self) -> bool {
        self.wire.borrow().reach.allowed
    }

    fn read_peer(&mut self, address: u64, sink: &Sink, at: usize, len: usize) -> bool {
        let Some(there) = self.reached(address, len) else { return false };
        sink.take(&there.payload(0, len), at);
        true
    }

    fn write_peer(&mut self, address: u64, source: &Source, at: usize, len: usize) -> bool {
        let Some(Source { from: From::Buffer(there), .. }) = self.reached(address, len) else {
            return false;
        };
        there.take(&source.payload(at, len), 0);
        true
    }

    fn keep_out(&mut self) {
        self.close();
        self.wire.borrow_mut().reach.kept_out[self.end] = true;
    }

    fn credits_returned(&self) -> (u64, u64) {
        self.wire.borrow().to[1 - self.end].credits_told
    }

    fn return_credits(&mut self, bytes: u64, messages: u64) {
        let to = &mut self.wire.borrow_mut().to[self.end];
        to.credits = (to.credits.0 + bytes, to.credits.1 + messages);
    }

    fn tell(&mut self) {
        self.consume(true);
    }

    fn ring(&mut self) {
        let sleep = &mut self.wire.borrow_mut().sleep[1 - self.end];
        sleep.rung |= sleep.for_cells;
    }

    fn peer_is_closing(&self) -> bool {
        self.wire.borrow().to[self.end].closing
    }

    fn close(&mut self) {
        self.wire.borrow_mut().to[1 - self.end].closing = true;
    }
}
