// SPDX-License-Identifier: Apache-2.0
//! Loops for measuring the core itself, without Python between two messages.
//!
//! They run detached, on the endpoint that Python opened. A ping-pong reads the clock once an
//! iteration (the processor's time stamp counter where there is one) and checks a word of what came
//! back; with `verify` it checks every byte and the times mean nothing.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use diolkos::{
    Envelope, Error, PeerId, Received, RequestId, Selector, Sent, Sink, Source, Status, StatusCode,
};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use rustix::event::{EventfdFlags, eventfd};
use rustix::thread::CpuSet;

use crate::arguments;
use crate::bench_granted;
use crate::endpoint::Endpoint;
use crate::errors;
use crate::peer::Peer;

/// Match info of the messages of a benchmark.
pub const PAYLOAD: u64 = 0xbe7c;
/// Match info of the answer to a window of messages.
pub const ANSWER: u64 = 0xbe7d;
/// How long a receive spins before it waits in the core's own way.
pub const SPIN: Duration = Duration::from_millis(1);
/// How long the clocks are compared to learn the speed of the time stamp counter.
const CALIBRATION: Duration = Duration::from_millis(20);

/// Why a loop ended early.
pub enum Stop {
    Core(Error),
    Ended(StatusCode),
    WrongContents(usize),
    Signal(PyErr),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Core(error)
    }
}

pub fn raise(py: Python<'_>, stop: Stop) -> PyErr {
    match stop {
        Stop::Core(error) => errors::from_core(py, error),
        Stop::Ended(code) => errors::from_core(py, Error::PeerGone(code)),
        Stop::WrongContents(at) => {
            PyRuntimeError::new_err(format!("message {at} has the wrong contents"))
        }
        Stop::Signal(error) => error,
    }
}

/// One side of a benchmark: whom it talks to, and its memory. One buffer serves both ways, as in
/// the C loop that the rivals run.
struct Side {
    core: diolkos::Endpoint,
    peer: PeerId,
    buffer: Vec<u8>,
}

impl Side {
    fn new(endpoint: &Bound<'_, Endpoint>, peer: &Bound<'_, Peer>, size: usize) -> PyResult<Self> {
        let peer = arguments::known(endpoint, peer)?;
        let core = endpoint.get().core.clone();
        Ok(Self { core, peer, buffer: vec![1; size] })
    }

    /// Runs a loop detached. When it fails, requests may be open: their memory is left alone.
    fn run<T: Send>(
        mut self,
        py: Python<'_>,
        work: impl FnOnce(&mut Self) -> Result<T, Stop> + Send,
    ) -> PyResult<T> {
        py.detach(|| match work(&mut self) {
            Ok(done) => Ok(done),
            Err(stop) => {
                std::mem::forget(self);
                Err(stop)
            }
        })
        .map_err(|stop| raise(py, stop))
    }

    /// Starts to send the first `len` bytes of the buffer.
    #[inline(always)]
    fn send(&self, match_info: u64, len: usize) -> Result<Sent, Error> {
        // SAFETY: within `buffer`; every loop waits for its requests before it ends, and the memory
        // of one that failed is never freed (`Side::run`).
        let source = unsafe { Source::from_raw(self.buffer.as_ptr(), len.min(self.buffer.len())) };
        self.core.isend(source, self.peer, &Envelope { match_info, ..Envelope::default() })
    }

    /// Posts a receive into the buffer.
    #[inline(always)]
    fn receive(&mut self, match_info: u64) -> Result<RequestId, Error> {
        // SAFETY: as in `send`. Several receives of one window share the memory, as in every
        // benchmark of message rates; what it holds is looked at when all are complete.
        let sink = unsafe { Sink::from_raw(self.buffer.as_mut_ptr(), self.buffer.len()) };
        let source = Some(self.peer);
        self.core.irecv(sink, &Selector { match_info, mask: u64::MAX, source, ..ANY })
    }

    /// Receives into the buffer and waits: the blocking receive, as in the C loop.
    #[inline(always)]
    fn receive_now(&mut self, match_info: u64) -> Result<(), Stop> {
        // SAFETY: as in `receive`.
        let sink = unsafe { Sink::from_raw(self.buffer.as_mut_ptr(), self.buffer.len()) };
        let selector = Selector { match_info, mask: u64::MAX, source: Some(self.peer), ..ANY };
        match self.core.receive(sink, &selector, SPIN)? {
            Received::Done(status) if status.code == StatusCode::Success => Ok(()),
            Received::Done(status) => Err(Stop::Ended(status.code)),
            Received::Pending(request) => self.wait(request).map(drop),
        }
    }

    #[inline(always)]
    fn wait(&self, request: RequestId) -> Result<Status, Stop> {
        wait(&self.core, request)
    }

    /// Waits for a window of requests at once.
    fn wait_all(&self, requests: &[RequestId]) -> Result<(), Stop> {
        let mut done = 0;
        let mut code = StatusCode::Success;
        while done < requests.len() {
            let left = &requests[done..];
            let ended = |status: &Status| {
                done += 1;
                if status.code != StatusCode::Success {
                    code = status.code;
                }
            };
            match self.core.wait_all(left, None, ended) {
                Ok(_) => {}
                Err(Error::Interrupted) => {
                    Python::attach(|py| py.check_signals()).map_err(Stop::Signal)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        if code == StatusCode::Success { Ok(()) } else { Err(Stop::Ended(code)) }
    }

    #[inline(always)]
    fn wait_sent(&self, sent: Sent) -> Result<(), Stop> {
        match sent {
            Sent::Done => Ok(()),
            Sent::Pending(request) => self.wait(request).map(drop),
        }
    }

    /// Writes a word that tells messages apart.
    #[inline(always)]
    fn write_word(&mut self, word: u64) {
        let len = self.buffer.len().min(8);
        self.buffer[..len].copy_from_slice(&word.to_le_bytes()[..len]);
    }

    /// Whether the word came back.
    #[inline(always)]
    fn check_word(&self, word: u64, at: usize) -> Result<(), Stop> {
        let len = self.buffer.len().min(8);
        if self.buffer[..len] == word.to_le_bytes()[..len] {
            Ok(())
        } else {
            Err(Stop::WrongContents(at))
        }
    }

    /// Fills the buffer with bytes that differ from message to message and place to place.
    fn fill(&mut self, seed: usize) {
        for (at, byte) in self.buffer.iter_mut().enumerate() {
            *byte = pattern(seed, at);
        }
    }

    fn check(&self, seed: usize) -> Result<(), Stop> {
        let right = self.buffer.iter().enumerate().all(|(at, byte)| *byte == pattern(seed, at));
        if right { Ok(()) } else { Err(Stop::WrongContents(seed)) }
    }
}

/// Waits for a request that must succeed.
#[inline(always)]
pub fn wait(core: &diolkos::Endpoint, request: RequestId) -> Result<Status, Stop> {
    loop {
        match core.wait(request, None) {
            Ok(Some(status)) if status.code == StatusCode::Success => return Ok(status),
            Ok(Some(status)) => return Err(Stop::Ended(status.code)),
            Ok(None) => {}
            Err(Error::Interrupted) => {
                Python::attach(|py| py.check_signals()).map_err(Stop::Signal)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The times between ticks as Python gets them: native-endian `u32` nanoseconds.
pub fn time_bytes<'py>(py: Python<'py>, ticks: &[u64], ns_per_tick: f64) -> Bound<'py, PyBytes> {
    let times: Vec<u8> = ticks
        .windows(2)
        .map(|pair| ((pair[1] - pair[0]) as f64 * ns_per_tick) as u32)
        .flat_map(u32::to_ne_bytes)
        .collect();
    PyBytes::new(py, &times)
}

pub const ANY: Selector =
    Selector { match_info: 0, mask: 0, source: None, space: diolkos::Space::Tagged };

pub fn pattern(seed: usize, at: usize) -> u8 {
    (seed.wrapping_mul(31).wrapping_add(at).wrapping_add(at >> 8)) as u8
}

/// Native-endian `u32` nanoseconds of each round trip; empty for the responder. With `arena` the
/// messages lie in the endpoint's arena, and are written anew before each round trip.
#[pyfunction]
#[pyo3(signature = (endpoint, peer, size, iterations, initiator, verify, *, arena=false))]
pub fn bench_pingpong<'py>(
    endpoint: &Bound<'py, Endpoint>,
    peer: &Bound<'py, Peer>,
    size: usize,
    iterations: usize,
    initiator: bool,
    verify: bool,
    arena: bool,
) -> PyResult<Bound<'py, PyBytes>> {
    if arena {
        return bench_granted::pingpong(endpoint, peer, size, iterations, initiator, verify);
    }
    let py = endpoint.py();
    let side = Side::new(endpoint, peer, size)?;
    let ns_per_tick = Ticks::ns_per_tick();
    let ticks = side.run(py, |side| match (initiator, verify) {
        (true, false) => initiate(side, iterations),
        (false, false) => respond(side, iterations).map(|()| Vec::new()),
        (_, true) => exchange_verified(side, iterations, initiator).map(|()| Vec::new()),
    })?;
    Ok(time_bytes(py, &ticks, ns_per_tick))
}

fn initiate(side: &mut Side, iterations: usize) -> Result<Vec<u64>, Stop> {
    let size = side.buffer.len();
    let mut ticks = Vec::with_capacity(iterations + 1);
    ticks.push(Ticks::now());
    for i in 0..iterations {
        side.write_word(i as u64);
        let sent = side.send(PAYLOAD, size)?;
        side.wait_sent(sent)?;
        side.receive_now(PAYLOAD)?;
        side.check_word(i as u64, i)?;
        ticks.push(Ticks::now());
    }
    Ok(ticks)
}

fn respond(side: &mut Side, iterations: usize) -> Result<(), Stop> {
    let size = side.buffer.len();
    for _ in 0..iterations {
        side.receive_now(PAYLOAD)?;
        let sent = side.send(PAYLOAD, size)?;
        side.wait_sent(sent)?;
    }
    Ok(())
}

fn exchange_verified(side: &mut Side, iterations: usize, initiator: bool) -> Result<(), Stop> {
    let size = side.buffer.len();
    for i in 0..iterations {
        for sending in [initiator, !initiator] {
            if sending {
                side.fill(i);
                let sent = side.send(PAYLOAD, size)?;
                side.wait_sent(sent)?;
            }
            side.buffer.fill(0);
            if !sending {
                let request = side.receive(PAYLOAD)?;
                side.wait(request)?;
                side.check(i)?;
            }
        }
    }
    Ok(())
}

/// Seconds for `count` messages in windows, each window answered with an empty message.
#[pyfunction]
#[pyo3(signature = (endpoint, peer, size, count, window, initiator))]
pub fn bench_rate(
    endpoint: &Bound<'_, Endpoint>,
    peer: &Bound<'_, Peer>,
    size: usize,
    count: usize,
    window: usize,
    initiator: bool,
) -> PyResult<f64> {
    let py = endpoint.py();
    if window == 0 {
        return Err(PyValueError::new_err("a window holds at least one message"));
    }
    let side = Side::new(endpoint, peer, size)?;
    side.run(py, |side| {
        let started = Instant::now();
        let mut left = count;
        // As in the C loop, the table of requests is not made anew for each window.
        let mut requests = Vec::with_capacity(window.min(count));
        while left > 0 {
            let messages = left.min(window);
            requests.clear();
            if initiator {
                send_window(side, messages, left as u64, &mut requests)?;
            } else {
                receive_window(side, messages, left as u64, &mut requests)?;
            }
            left -= messages;
        }
        Ok(started.elapsed().as_secs_f64())
    })
}

/// Sends a window of messages that all carry the window's number, and waits for the answer.
fn send_window(
    side: &mut Side,
    messages: usize,
    word: u64,
    pending: &mut Vec<RequestId>,
) -> Result<(), Stop> {
    let size = side.buffer.len();
    side.write_word(word);
    for _ in 0..messages {
        if let Sent::Pending(request) = side.send(PAYLOAD, size)? {
            pending.push(request);
        }
    }
    side.wait_all(pending)?;
    let answer = side.receive(ANSWER)?;
    side.wait(answer).map(drop)
}

fn receive_window(
    side: &mut Side,
    messages: usize,
    word: u64,
    posted: &mut Vec<RequestId>,
) -> Result<(), Stop> {
    for _ in 0..messages {
        posted.push(side.receive(PAYLOAD)?);
    }
    side.wait_all(posted)?;
    side.check_word(word, word as usize)?;
    let sent = side.send(ANSWER, 0)?;
    side.wait_sent(sent)
}

/// The cheapest clock of the machine.
pub struct Ticks;

impl Ticks {
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub fn now() -> u64 {
        // SAFETY: the instruction exists on every x86-64 processor and touches no memory.
        unsafe { core::arch::x86_64::_rdtsc() }
    }

    #[cfg(not(target_arch = "x86_64"))]
    #[inline(always)]
    pub fn now() -> u64 {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_nanos() as u64
    }

    /// Measured once.
    pub fn ns_per_tick() -> f64 {
        static SPEED: OnceLock<f64> = OnceLock::new();
        *SPEED.get_or_init(|| {
            let (clock, ticks) = (Instant::now(), Self::now());
            while clock.elapsed() < CALIBRATION {
                std::hint::spin_loop();
            }
            let elapsed = clock.elapsed().as_nanos() as f64;
            elapsed / (Self::now() - ticks) as f64
        })
    }
}

/// Half a round trip of one bare cache line between two processors, in nanoseconds.
#[pyfunction]
#[pyo3(signature = (cpu_a, cpu_b, round_trips))]
pub fn cache_line_ns(
    py: Python<'_>,
    cpu_a: usize,
    cpu_b: usize,
    round_trips: u64,
) -> PyResult<f64> {
    #[repr(align(128))]
    struct Line(AtomicU64);
    let line = Line(AtomicU64::new(0));
    // ORDERING: acquire and release as in the rings; odd values belong to the responder.
    let respond = || {
        for i in 0..round_trips {
            while line.0.load(Ordering::Acquire) != 2 * i + 1 {}
            line.0.store(2 * i + 2, Ordering::Release);
        }
        Ok(())
    };
    let initiate = || {
        for i in 0..round_trips {
            line.0.store(2 * i + 1, Ordering::Release);
            while line.0.load(Ordering::Acquire) != 2 * i + 2 {}
        }
        Ok(())
    };
    half_round_trip_ns(py, [cpu_a, cpu_b], round_trips, initiate, respond)
}

/// Half a round trip between two threads that block on an eventfd each, in nanoseconds.
#[pyfunction]
#[pyo3(signature = (cpu_a, cpu_b, round_trips))]
pub fn eventfd_wake(py: Python<'_>, cpu_a: usize, cpu_b: usize, round_trips: u64) -> PyResult<f64> {
    let failed = |errno: rustix::io::Errno| errors::from_core(py, Error::System("eventfd", errno));
    let there = eventfd(0, EventfdFlags::CLOEXEC).map_err(failed)?;
    let back = eventfd(0, EventfdFlags::CLOEXEC).map_err(failed)?;
    let ring = |bell| rustix::io::retry_on_intr(|| rustix::io::write(bell, &1_u64.to_ne_bytes()));
    let sleep = |bell| {
        let mut count = [0_u8; 8];
        rustix::io::retry_on_intr(|| rustix::io::read(bell, &mut count))
    };
    let initiate = || {
        for _ in 0..round_trips {
            ring(&there)?;
            sleep(&back)?;
        }
        Ok(())
    };
    let respond = || {
        for _ in 0..round_trips {
            sleep(&there)?;
            ring(&back)?;
        }
        Ok(())
    };
    half_round_trip_ns(py, [cpu_a, cpu_b], round_trips, initiate, respond)
}

/// Runs two loops on two processors.
fn half_round_trip_ns(
    py: Python<'_>,
    cpus: [usize; 2],
    round_trips: u64,
    initiate: impl Fn() -> Result<(), rustix::io::Errno> + Sync,
    respond: impl Fn() -> Result<(), rustix::io::Errno> + Sync,
) -> PyResult<f64> {
    if cpus[0] == cpus[1] {
        return Err(PyValueError::new_err("two different processors are needed"));
    }
    // Both pin themselves before either starts: a loop without its partner would not end.
    let pinned = std::sync::Barrier::new(2);
    let unpinned = AtomicBool::new(false);
    let start = |cpu: usize| {
        let result = pin(cpu);
        unpinned.fetch_or(result.is_err(), Ordering::Relaxed);
        pinned.wait();
        if unpinned.load(Ordering::Relaxed) { Err(rustix::io::Errno::INVAL) } else { Ok(()) }
    };
    let elapsed = py.detach(|| {
        std::thread::scope(|scope| {
            let responder = scope.spawn(|| start(cpus[1]).and_then(|()| respond()));
            let initiator = scope.spawn(|| {
                start(cpus[0])?;
                let started = Instant::now();
                initiate().map(|()| started.elapsed())
            });
            match (initiator.join(), responder.join()) {
                (Ok(elapsed), Ok(responded)) => responded.and(elapsed),
                _ => Err(rustix::io::Errno::INVAL),
            }
        })
    });
    let failed = |errno| errors::from_core(py, Error::System("sched_setaffinity", errno));
    let elapsed = elapsed.map_err(failed)?;
    Ok(elapsed.as_nanos() as f64 / (2 * round_trips.max(1)) as f64)
}

fn pin(cpu: usize) -> Result<(), rustix::io::Errno> {
    if cpu >= CpuSet::MAX_CPU {
        return Err(rustix::io::Errno::INVAL);
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set)
}
