// SPDX-License-Identifier: Apache-2.0
//! Loops for measuring granted memory: messages out of the arena, and operations on regions.
//!
//! Step for step the work of `bench/native/exchange.h` ("touched") and `one_sided.h`, which the rivals
//! and the bare copy do. What an operation costs depends on where the lines of the memory are, so
//! the side that owns it touches all of it before each operation, and only the operation is timed.

use diolkos::{AtomicOp, Block, Envelope, Key, PeerId, RequestId, Selector, Sent, Sink, Source};
use diolkos::{Status, StatusCode};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::arguments;
use crate::bench::{ANSWER, ANY, PAYLOAD, SPIN, Stop, Ticks, pattern, raise, time_bytes};
use crate::buffer::Buffer;
use crate::endpoint::Endpoint;
use crate::peer::Peer;

/// What an atomic operation adds.
const ADDEND: u64 = 3;
const LINE_BYTES: usize = 64;
const PAGE_BYTES: usize = 4096;

/// Whom a loop talks to.
struct Link {
    core: diolkos::Endpoint,
    peer: PeerId,
}

impl Link {
    fn new(endpoint: &Bound<'_, Endpoint>, peer: &Bound<'_, Peer>) -> PyResult<Self> {
        let peer = arguments::known(endpoint, peer)?;
        Ok(Self { core: endpoint.get().core.clone(), peer })
    }

    #[inline(always)]
    fn wait(&self, request: RequestId) -> Result<Status, Stop> {
        crate::bench::wait(&self.core, request)
    }

    #[inline(always)]
    fn finish(&self, sent: Sent) -> Result<(), Stop> {
        match sent {
            Sent::Done => Ok(()),
            Sent::Pending(request) => self.wait(request).map(drop),
        }
    }

    #[inline(always)]
    fn send(&self, source: Source, match_info: u64) -> Result<(), Stop> {
        let envelope = Envelope { match_info, ..Envelope::default() };
        let sent = self.core.isend(source, self.peer, &envelope)?;
        self.finish(sent)
    }

    #[inline(always)]
    fn receive(&self, sink: Sink, match_info: u64) -> Result<(), Stop> {
        let selector = Selector { match_info, mask: u64::MAX, source: Some(self.peer), ..ANY };
        match self.core.receive(sink, &selector, SPIN)? {
            diolkos::Received::Done(status) if status.code == StatusCode::Success => Ok(()),
            diolkos::Received::Done(status) => Err(Stop::Ended(status.code)),
            diolkos::Received::Pending(request) => self.wait(request).map(drop),
        }
    }

    fn give_turn(&self) -> Result<(), Stop> {
        // SAFETY: no bytes.
        self.send(unsafe { Source::from_raw(std::ptr::null(), 0) }, ANSWER)
    }

    fn wait_turn(&self) -> Result<(), Stop> {
        // SAFETY: no bytes.
        self.receive(unsafe { Sink::from_raw(std::ptr::null_mut(), 0) }, ANSWER)
    }
}

/// Memory that a loop works on; a peer may change it at any time.
struct Memory {
    base: *mut u8,
    len: usize,
}

// SAFETY: an address and a length; whoever makes one keeps the memory for as long.
unsafe impl Send for Memory {}

impl Memory {
    /// The memory of `sink`, which stays valid by its own promise.
    fn of(sink: &Sink) -> Self {
        Self { base: sink.base().cast_mut(), len: sink.len_bytes() }
    }

    fn source(&self) -> Source {
        // SAFETY: valid, by `of`.
        unsafe { Source::from_raw(self.base, self.len) }
    }

    fn sink(&self) -> Sink {
        // SAFETY: valid, by `of`.
        unsafe { Sink::from_raw(self.base, self.len) }
    }

    #[inline(always)]
    fn read(&self, at: usize) -> u8 {
        assert!(at < self.len);
        // SAFETY: inside the memory.
        unsafe { self.base.add(at).read_volatile() }
    }

    #[inline(always)]
    fn write(&self, at: usize, byte: u8) {
        assert!(at < self.len);
        // SAFETY: inside the memory.
        unsafe { self.base.add(at).write_volatile(byte) }
    }

    /// Reads a word of each line, so that the lines are in this processor's cache.
    fn read_lines(&self) {
        for at in (0..self.len.saturating_sub(7)).step_by(LINE_BYTES) {
            // SAFETY: eight bytes inside the memory.
            let _ = unsafe { self.base.add(at).cast::<u64>().read_unaligned_volatile() };
        }
    }

    /// Writes a word of each line, so that the lines are this processor's own.
    fn write_lines(&self, word: u64) {
        for at in (0..self.len.saturating_sub(7)).step_by(LINE_BYTES) {
            // SAFETY: eight bytes inside the memory.
            unsafe { self.base.add(at).cast::<u64>().write_unaligned_volatile(word) };
        }
    }

    fn stamp(&self, word: usize) {
        for (at, byte) in (word as u64).to_ne_bytes().into_iter().enumerate().take(self.len) {
            self.write(at, byte);
        }
    }

    fn check_stamp(&self, word: usize) -> Result<(), Stop> {
        let bytes = (word as u64).to_ne_bytes();
        let right = bytes.into_iter().enumerate().take(self.len).all(|(at, b)| self.read(at) == b);
        if right { Ok(()) } else { Err(Stop::WrongContents(word)) }
    }

    fn fill(&self, seed: usize) {
        (0..self.len).for_each(|at| self.write(at, pattern(seed, at)));
    }

    fn check(&self, seed: usize) -> Result<(), Stop> {
        let right = (0..self.len).all(|at| self.read(at) == pattern(seed, at));
        if right { Ok(()) } else { Err(Stop::WrongContents(seed)) }
    }
}

/// Volatile access to words that may lie at any address.
trait UnalignedVolatile {
    unsafe fn read_unaligned_volatile(self) -> u64;
    unsafe fn write_unaligned_volatile(self, word: u64);
}

impl UnalignedVolatile for *mut u64 {
    #[inline(always)]
    unsafe fn read_unaligned_volatile(self) -> u64 {
        // SAFETY: readable, by the caller; an array of bytes has no alignment.
        u64::from_ne_bytes(unsafe { self.cast::<[u8; 8]>().read_volatile() })
    }

    #[inline(always)]
    unsafe fn write_unaligned_volatile(self, word: u64) {
        // SAFETY: as above, writable.
        unsafe { self.cast::<[u8; 8]>().write_volatile(word.to_ne_bytes()) }
    }
}

/// Round trips of messages in the arena, each written anew before it is sent.
pub fn pingpong<'py>(
    endpoint: &Bound<'py, Endpoint>,
    peer: &Bound<'py, Peer>,
    size: usize,
    iterations: usize,
    initiator: bool,
    verify: bool,
) -> PyResult<Bound<'py, PyBytes>> {
    let py = endpoint.py();
    let link = Link::new(endpoint, peer)?;
    let ns_per_tick = Ticks::ns_per_tick();
    let allocate = || link.core.alloc(size, PAGE_BYTES, Some(link.peer));
    let blocks = || Ok::<[Block; 2], diolkos::Error>([allocate()?, allocate()?]);
    let blocks = blocks().map_err(|error| crate::errors::from_core(py, error))?;
    let [out, back] = [Memory::of(&blocks[0].sink()), Memory::of(&blocks[1].sink())];
    let result = py.detach(move || exchange(&link, [out, back], iterations, initiator, verify));
    match result {
        Ok(ticks) => Ok(time_bytes(py, &ticks, ns_per_tick)),
        Err(stop) => {
            // Requests may be open: their memory is left alone.
            std::mem::forget(blocks);
            Err(raise(py, stop))
        }
    }
}

fn exchange(
    link: &Link,
    [out, back]: [Memory; 2],
    iterations: usize,
    initiator: bool,
    verify: bool,
) -> Result<Vec<u64>, Stop> {
    let mut ticks = vec![0];
    let mut total = 0;
    for i in 0..iterations {
        if verify {
            out.fill(i);
        } else {
            out.write_lines(i as u64);
            out.stamp(i);
        }
        // Side 1 says that its message is written.
        if initiator {
            link.wait_turn()?
        } else {
            link.give_turn()?
        }
        let begin = Ticks::now();
        if !initiator {
            link.receive(back.sink(), PAYLOAD)?;
        }
        link.send(out.source(), PAYLOAD)?;
        if initiator {
            link.receive(back.sink(), PAYLOAD)?;
        }
        total += Ticks::now() - begin;
        if verify {
            back.check(i)?
        } else {
            back.check_stamp(i)?
        }
        ticks.push(total);
    }
    Ok(if initiator && !verify { ticks } else { Vec::new() })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Op {
    Write,
    Read,
    FetchAdd,
}

/// One side of a loop of operations: the one with the key operates on the other's region.
struct OneSided {
    link: Link,
    memory: Memory,
    key: Option<Key>,
    op: Op,
    iterations: usize,
    batch: usize,
}

/// Native-endian `u32` nanoseconds of each operation, or batch of `window`; empty for the owner.
///
/// `memory` is that of the region at its owner (`key` is None), else what is written from or read to.
#[pyfunction]
#[pyo3(signature = (endpoint, peer, memory, key, op, iterations, window, verify))]
#[expect(clippy::too_many_arguments, reason = "the parameters of a benchmark's command")]
pub fn bench_rdma<'py>(
    endpoint: &Bound<'py, Endpoint>,
    peer: &Bound<'py, Peer>,
    memory: &Bound<'py, PyAny>,
    key: Option<&Bound<'py, PyAny>>,
    op: &str,
    iterations: usize,
    window: usize,
    verify: bool,
) -> PyResult<Bound<'py, PyBytes>> {
    let py = endpoint.py();
    let op = match op {
        "write" => Op::Write,
        "read" => Op::Read,
        "fetch_add" => Op::FetchAdd,
        _ => return Err(PyValueError::new_err("op is write, read or fetch_add")),
    };
    let decode = |key: &Bound<'py, PyAny>| {
        let bytes: Vec<u8> = key.call_method0("__bytes__")?.extract()?;
        Key::decode(&bytes).ok_or_else(|| PyValueError::new_err("not the bytes of a key"))
    };
    let key = key.map(decode).transpose()?;
    let buffer = Buffer::writable(memory)?;
    let memory = Memory::of(&buffer.sink());
    let link = Link::new(endpoint, peer)?;
    let ns_per_tick = Ticks::ns_per_tick();
    let batch = window.max(1);
    let side = OneSided { link, memory, key, op, iterations, batch };
    let result = py.detach(move || match (verify, side.batch > 1) {
        (true, _) => side.verify().map(|()| Vec::new()),
        (false, true) => side.batches(),
        (false, false) => side.touched(),
    });
    match result {
        Ok(ticks) => Ok(time_bytes(py, &ticks, ns_per_tick)),
        Err(stop) => {
            // Requests may be open: their memory is left alone.
            std::mem::forget(buffer);
            Err(raise(py, stop))
        }
    }
}

impl OneSided {
    /// One operation, complete at the owner; what an atomic found.
    #[inline(always)]
    fn operate(&self, key: &Key) -> Result<u64, Stop> {
        let Link { core, peer } = &self.link;
        match self.op {
            Op::Write => {
                let sent = core.rdma_write(self.memory.source(), *peer, key, 0, None)?;
                self.link.finish(sent).map(|()| 0)
            }
            Op::Read => {
                let sent = core.rdma_read(self.memory.sink(), *peer, key, 0)?;
                self.link.finish(sent).map(|()| 0)
            }
            Op::FetchAdd => {
                let request = core.rdma_atomic(*peer, key, 0, AtomicOp::FetchAdd(ADDEND))?;
                self.link.wait(request).map(|status| status.match_info)
            }
        }
    }

    fn touched(&self) -> Result<Vec<u64>, Stop> {
        let mut ticks = Vec::with_capacity(self.iterations + 1);
        let mut total = 0;
        ticks.push(total);
        for i in 0..self.iterations {
            match &self.key {
                Some(key) => {
                    if self.op == Op::Write {
                        self.memory.stamp(i);
                    }
                    self.link.wait_turn()?;
                    let begin = Ticks::now();
                    self.operate(key)?;
                    total += Ticks::now() - begin;
                    ticks.push(total);
                    if self.op == Op::Read {
                        self.memory.check_stamp(i)?;
                    }
                    self.link.give_turn()?;
                }
                None => {
                    match self.op {
                        Op::Write => self.memory.read_lines(),
                        Op::Read => {
                            self.memory.write_lines(i as u64);
                            self.memory.stamp(i);
                        }
                        Op::FetchAdd => {}
                    }
                    self.link.give_turn()?;
                    self.link.wait_turn()?;
                    if self.op == Op::Write {
                        self.memory.check_stamp(i)?;
                    }
                }
            }
        }
        Ok(if self.key.is_some() { ticks } else { Vec::new() })
    }

    fn batches(&self) -> Result<Vec<u64>, Stop> {
        let Some(key) = &self.key else {
            self.link.wait_turn()?;
            if self.op == Op::Write {
                self.memory.check_stamp(self.iterations.saturating_sub(1))?;
            }
            return Ok(Vec::new());
        };
        let mut ticks = Vec::with_capacity(self.iterations + 1);
        ticks.push(Ticks::now());
        for i in 0..self.iterations {
            if self.op == Op::Write {
                self.memory.stamp(i);
            }
            for _ in 0..self.batch {
                self.operate(key)?;
            }
            ticks.push(Ticks::now());
        }
        self.link.give_turn()?;
        Ok(ticks)
    }

    fn verify(&self) -> Result<(), Stop> {
        for i in 0..self.iterations {
            match &self.key {
                Some(key) => {
                    self.link.wait_turn()?;
                    if self.op == Op::Write {
                        self.memory.fill(i);
                    }
                    let found = self.operate(key)?;
                    match self.op {
                        Op::Read => self.memory.check(i)?,
                        Op::FetchAdd if found != i as u64 * ADDEND => {
                            return Err(Stop::WrongContents(i));
                        }
                        _ => {}
                    }
                    self.link.give_turn()?;
                }
                None => {
                    match self.op {
                        Op::Read => self.memory.fill(i),
                        Op::FetchAdd if i == 0 => (0..self.memory.len).for_each(|at| {
                            self.memory.write(at, 0);
                        }),
                        _ => {}
                    }
                    self.link.give_turn()?;
                    self.link.wait_turn()?;
                    match self.op {
                        Op::Write => self.memory.check(i)?,
                        Op::FetchAdd => self.memory.check_stamp((i + 1) * ADDEND as usize)?,
                        Op::Read => {}
                    }
                }
            }
        }
        Ok(())
    }
}
