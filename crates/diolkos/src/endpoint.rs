// SPDX-License-Identifier: Apache-2.0
//! The endpoint: the machine behind a lock, with the calls of the doors.
//!
//! Threads may share an endpoint. Every call takes the one lock, which costs a few nanoseconds when
//! nobody else wants it; a call that spins keeps it, and steps aside as soon as another thread
//! comes ([`crate::wait`]). Descriptors: one epoll set per endpoint holds the doorbells of all
//! peers, their liveness, the backend's socket and a wake-up of our own, so that one descriptor
//! serves any event loop.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use diolkos_island::local::{self, Alone};
use diolkos_island::{ChannelEnds, Identity, Island, IslandError, Road, Target, process};
use diolkos_proto::matching::ContextBits;
use diolkos_proto::patience::Patience;
use diolkos_proto::{Claim, Envelope, HandlerAction, Machine, MultiEvent, PeerId};
use diolkos_proto::{RequestId, Selector, Sent, Status, StatusCode};
use diolkos_shm::{Arena, Sink, Source, fork};
use rustix::event::{EventfdFlags, epoll};
use rustix::io::Errno;

use crate::error::Error;
use crate::inside::Unusable;
use crate::lane::ShmLane;
use crate::loans::Copies;
use crate::lock::{Guard, Lock, Returns};
use crate::peers::{Counters, PeerInfo, Peers, Token, Wish};
use crate::regions::Registered;
use crate::wait::Quiet;

/// Called for each message that finds no receive: the message, and its data if all of it is here.
pub type Handler = Box<dyn FnMut(&Status, Option<&[u8]>) -> HandlerAction + Send>;

/// How to open an endpoint.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Its name; `ep-<number>` when absent.
    pub name: Option<String>,
    /// Its number; the lowest free one when absent.
    pub number: Option<u32>,
    /// Its partition.
    pub partition: String,
    /// What connects must know, if anything; those that bring no key are let in.
    pub key: Option<u32>,
    /// Where the backend's socket lies; from the environment when absent.
    pub runtime_dir: Option<PathBuf>,
    /// The command that starts a backend when none runs; empty to start none.
    pub backend_command: Vec<OsString>,
    /// How long to wait for a backend that was started.
    pub start_timeout: Duration,
    /// Where the context id lies in the match info.
    pub context: ContextBits,
    /// The most that the arena may hold; half of the machine's memory when absent.
    pub arena_bytes: Option<u64>,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            name: None,
            number: None,
            partition: "default".into(),
            key: None,
            runtime_dir: None,
            backend_command: Vec::new(),
            start_timeout: Duration::from_secs(10),
            context: ContextBits::default(),
            arena_bytes: None,
        }
    }
}

/// What an arena may hold if nobody says otherwise: half of the machine's memory.
fn half_of_memory() -> u64 {
    let info = rustix::system::sysinfo();
    (info.totalram as u64).saturating_mul(u64::from(info.mem_unit)) / 2
}

/// Time since the endpoint was opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub fn now_ns(&self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }

    pub fn now_ms(&self) -> u64 {
        self.0.elapsed().as_millis() as u64
    }
}

/// Everything behind the lock.
pub(crate) struct Core {
    pub machine: Machine<ShmLane>,
    pub peers: Peers,
    pub patience: Patience,
    pub clock: Clock,
    pub epoll: Arc<OwnedFd>,
    pub handler: Option<Handler>,
    /// A thread is blocked on the epoll set.
    pub sleeper: bool,
    /// Threads that wait for the sleeper to return.
    pub followers: usize,
    /// The program waits in an event loop of its own.
    pub armed: bool,
    /// Threads that wait on the descriptor, among other things ([`Doze`]).
    pub dozing: usize,
    /// The bell of those who wait on the descriptor has been rung and not been silenced.
    pub belled: bool,
    pub sleeps: u64,
    pub wakeups: u64,
    pub polls_with_work: u64,
    pub idle_polls: u32,
    /// Operations on regions since one of them last looked.
    pub unlooked: u32,
    pub last_slow_check_ns: u64,
    pub counters_due: bool,
    pub quiet: Quiet,
    pub arena: Arena,
    pub regions: HashMap<u32, Registered>,
    pub copies: Copies,
}

pub(crate) struct Shared {
    pub core: Lock<Core>,
    pub returns: Returns,
    /// Rung by threads of this process for the one that sleeps.
    wakeup: OwnedFd,
    /// Readable while those who wait on the descriptor should look again.
    bell: OwnedFd,
    /// What event loops watch: the epoll set, and the bell. A thread that sleeps on the set itself
    /// uses its events up, and rings the bell for the others.
    outer: OwnedFd,
    identity: Identity,
    pub arena: Arena,
    fork_generation: u32,
    closed: AtomicBool,
}

/// A port on which messages are sent, received and matched. Clones are the same endpoint.
#[derive(Clone)]
pub struct Endpoint {
    pub(crate) shared: Arc<Shared>,
}

impl Endpoint {
    /// Opens an endpoint at this host's backend, starting one if need be.
    ///
    /// # Errors
    /// [`Error::Introduction`] when the backend refuses or cannot be reached;
    /// [`Error::Interrupted`] when a signal came while one was being started: call again.
    pub fn open(options: &OpenOptions) -> Result<Self, Error> {
        let island = process::ProcessIsland::open(&process::OpenOptions {
            name: options.name.clone(),
            number: options.number,
            partition: options.partition.clone(),
            key: options.key,
            runtime_dir: options.runtime_dir.clone(),
            backend_command: options.backend_command.clone(),
            start_timeout: options.start_timeout,
        })
        .map_err(|error| match error {
            IslandError::System { errno: Errno::INTR, .. } => Error::Interrupted,
            other => Error::Introduction(other),
        })?;
        Self::on_island(Box::new(island), options)
    }

    /// An endpoint whose channels come from any island; of the options only those count that do not
    /// concern the backend.
    ///
    /// # Errors
    /// [`Error::System`] when descriptors are short.
    pub fn on_island(island: Box<dyn Island>, options: &OpenOptions) -> Result<Self, Error> {
        let fork_generation = fork::watch();
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(|errno| Error::System("epoll_create", errno))?;
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let wakeup =
            rustix::event::eventfd(0, flags).map_err(|errno| Error::System("eventfd", errno))?;
        let events = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, &wakeup, Token::Wakeup.to_data(), events)
            .map_err(|errno| Error::System("epoll_ctl", errno))?;
        let bell =
            rustix::event::eventfd(0, flags).map_err(|errno| Error::System("eventfd", errno))?;
        let outer = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(|errno| Error::System("epoll_create", errno))?;
        for inner in [epoll.as_fd(), bell.as_fd()] {
            epoll::add(&outer, inner, Token::Wakeup.to_data(), epoll::EventFlags::IN)
                .map_err(|errno| Error::System("epoll_ctl", errno))?;
        }
        let epoll = Arc::new(epoll);
        let identity = island.identity().clone();
        let arena = Arena::new(options.arena_bytes.unwrap_or_else(half_of_memory));
        let mut core = Core {
            machine: Machine::new(options.context),
            peers: Peers::new(island),
            patience: Patience::default(),
            clock: Clock(Instant::now()),
            epoll,
            handler: None,
            sleeper: false,
            followers: 0,
            armed: false,
            dozing: 0,
            belled: false,
            sleeps: 0,
            wakeups: 0,
            polls_with_work: 0,
            idle_polls: 0,
            unlooked: 0,
            last_slow_check_ns: 0,
            counters_due: false,
            quiet: Quiet::default(),
            arena: arena.clone(),
            regions: HashMap::new(),
            copies: Copies::new(),
        };
        core.watch_island();
        core.publish_counters();
        let shared = Shared {
            core: Lock::new(core),
            returns: Returns::default(),
            wakeup,
            bell,
            outer,
            identity,
            arena,
            fork_generation,
            closed: AtomicBool::new(false),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Two endpoints of this process, joined without a backend: for tests and benches.
    ///
    /// # Errors
    /// [`Error::Introduction`] when the system has no memory or descriptors for them.
    pub fn local_pair() -> Result<[(Self, PeerId); 2], Error> {
        let (a, b) = local::pair()?;
        let open = |number: u32, ends: ChannelEnds| {
            let island = Alone::new(number);
            let endpoint = Self::on_island(Box::new(island), &OpenOptions::default())?;
            let peer = endpoint.lock()?.welcome(ends)?;
            Ok::<_, Error>((endpoint, peer))
        };
        Ok([open(0, a)?, open(1, b)?])
    }

    /// Joins a ready-made end of a channel: for tests, benches and islands that introduce by
    /// other means.
    ///
    /// # Errors
    /// [`Error`] when its memory cannot be used.
    pub fn adopt(&self, ends: ChannelEnds) -> Result<PeerId, Error> {
        let mut core = self.lock()?;
        let peer = core.welcome(ends)?;
        // Whoever sleeps has not said so to this peer.
        self.after(&mut core);
        Ok(peer)
    }

    /// Closes the endpoint: peers are told, open requests end with `EndpointClosed`. Idempotent.
    /// In a forked child only the child's copy is closed; the parent does not notice.
    pub fn close(&self) {
        if self.is_forked() {
            return;
        }
        let mut core = self.shared.core.lock();
        // Said under the lock: whoever learns that the endpoint is closed may free the memory of
        // its requests, so they must have ended by then.
        if self.shared.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        core.machine.close();
        core.bury();
        core.publish_counters();
        core.handler = None;
        core.copies.clear();
        core.peers.leave(Box::new(Alone::new(self.shared.identity.number)));
        self.ring_bell(&mut core);
        drop(core);
        self.shared.returns.announce();
        self.wake();
    }

    /// Whether the endpoint was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }

    /// Whether this process is a forked child that must not use it.
    #[must_use]
    pub fn is_forked(&self) -> bool {
        fork::generation() != self.shared.fork_generation
    }

    /// Its name, number and partition.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.shared.identity
    }

    /// Starts to connect; the request completes with the peer as its source.
    ///
    /// # Errors
    /// [`Error`] when the endpoint cannot be used.
    pub fn iconnect(
        &self,
        target: &Target,
        road: Option<Road>,
        timeout: Option<Duration>,
    ) -> Result<RequestId, Error> {
        let timeout_ms = timeout.map(|t| t.as_millis().min(u128::from(u32::MAX)) as u32);
        let mut core = self.lock()?;
        // An introduction may be waiting: it may be the very peer that is wanted.
        if core.take_events() {
            self.after(&mut core);
        }
        core.iconnect(Wish { target: target.clone(), road, timeout_ms, key: None, answer: false })
    }

    /// Connects and waits, for ever or at most so long.
    ///
    /// # Errors
    /// [`Error::Introduction`] when it was refused or timed out.
    pub fn connect(
        &self,
        target: &Target,
        road: Option<Road>,
        timeout: Option<Duration>,
    ) -> Result<PeerId, Error> {
        let request = self.iconnect(target, road, timeout)?;
        loop {
            // The backend keeps the time; it answers in any case.
            match self.wait(request, None) {
                Err(Error::Interrupted) => {}
                Err(error) => return Err(error),
                Ok(None) => {}
                Ok(Some(status)) => return self.connected(request, &status),
            }
        }
    }

    /// The result of a completed connect.
    ///
    /// # Errors
    /// [`Error::Introduction`] with the reason when it failed.
    pub fn connected(&self, request: RequestId, status: &Status) -> Result<PeerId, Error> {
        match status.code {
            StatusCode::Success => Ok(status.source),
            StatusCode::EndpointClosed => Err(Error::Closed),
            _ => Err(self.lock()?.peers.take_failure(request).map_or(
                Error::Introduction(IslandError::BackendUnavailable {
                    what: "the introduction failed".into(),
                }),
                Error::Introduction,
            )),
        }
    }

    /// Parts from a peer.
    ///
    /// # Errors
    /// [`Error::NotConnected`] when there is no such peer.
    pub fn disconnect(&self, peer: PeerId) -> Result<(), Error> {
        let mut core = self.lock()?;
        core.machine.disconnect(peer)?;
        core.bury();
        self.after(&mut core);
        Ok(())
    }

    /// What is known of a peer.
    ///
    /// # Errors
    /// [`Error`] when the endpoint cannot be used.
    pub fn peer_info(&self, peer: PeerId) -> Result<Option<PeerInfo>, Error> {
        Ok(self.lock()?.peers.info(peer).cloned())
    }

    /// The peers that are connected now.
    ///
    /// # Errors
    /// [`Error`] when the endpoint cannot be used.
    pub fn peers(&self) -> Result<Vec<PeerId>, Error> {
        let mut core = self.lock()?;
        // Who has left since the last call counts as gone.
        self.progress_once(&mut core);
        Ok(core.machine.peers().collect())
    }

    /// Sends a message; never waits.
    ///
    /// # Errors
    /// [`Error`] when the peer is gone or too much is under way.
    #[inline]
    pub fn isend(&self, source: Source, dest: PeerId, envelope: &Envelope) -> Result<Sent, Error> {
        let mut core = self.lock()?;
        let sent = core.machine.isend(source, dest, envelope)?;
        if dest == PeerId::SELF {
            self.run_handlers(&mut core);
        }
        self.after(&mut core);
        Ok(sent)
    }

    /// Posts a receive; never waits.
    ///
    /// # Errors
    /// [`Error`] for a selector that makes no sense, or a source that is gone.
    #[inline]
    pub fn irecv(&self, sink: Sink, selector: &Selector) -> Result<RequestId, Error> {
        let mut core = self.lock()?;
        let request = core.machine.irecv(sink, selector)?;
        self.after(&mut core);
        Ok(request)
    }

    /// The status of a request that is complete, which frees it.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there is no such request.
    #[inline]
    pub fn test(&self, request: RequestId) -> Result<Option<Status>, Error> {
        let mut core = self.lock()?;
        if let Some(status) = core.machine.test(request)? {
            return Ok(Some(status));
        }
        self.progress_once(&mut core);
        Ok(core.machine.test(request)?)
    }

    /// The status of a request that has ended with success, which frees it. Makes no progress.
    #[inline]
    #[must_use]
    pub fn test_success(&self, request: RequestId) -> Option<Status> {
        self.lock().ok()?.machine.test_success(request)
    }

    /// The first of these requests that is complete, which frees it.
    ///
    /// # Errors
    /// [`Error::Invalid`] when one of them does not exist.
    pub fn test_any(&self, requests: &[RequestId]) -> Result<Option<(usize, Status)>, Error> {
        let mut core = self.lock()?;
        self.progress_once(&mut core);
        core.take_any(requests)
    }

    /// The oldest complete request whose match info fits, which frees it: MX's `test_any`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value with bits outside the mask.
    pub fn test_matching(
        &self,
        match_info: u64,
        mask: u64,
    ) -> Result<Option<(RequestId, Status)>, Error> {
        let mut core = self.lock()?;
        self.progress_once(&mut core);
        Ok(core.machine.test_matching(match_info, mask)?)
    }

    /// Looks for a message without a receive, and leaves it.
    ///
    /// # Errors
    /// [`Error`] for a selector that makes no sense, or a source that can send nothing more.
    pub fn iprobe(&self, selector: &Selector) -> Result<Option<Status>, Error> {
        let mut core = self.lock()?;
        self.progress_once(&mut core);
        Ok(core.machine.iprobe(selector)?)
    }

    /// Looks for a message without a receive, and claims it for [`Endpoint::imrecv`].
    ///
    /// # Errors
    /// As [`Endpoint::iprobe`].
    pub fn improbe(&self, selector: &Selector) -> Result<Option<(Claim, Status)>, Error> {
        let mut core = self.lock()?;
        self.progress_once(&mut core);
        Ok(core.machine.improbe(selector)?)
    }

    /// Receives a claimed message.
    ///
    /// # Errors
    /// [`Error::Invalid`] when its sender is gone and the data with it.
    pub fn imrecv(&self, claim: Claim, sink: Sink) -> Result<RequestId, Error> {
        let mut core = self.lock()?;
        let request = core.machine.imrecv(claim, sink)?;
        self.after(&mut core);
        Ok(request)
    }

    /// Gives a claimed message up; it is consumed unseen.
    ///
    /// # Errors
    /// [`Error`] when the endpoint cannot be used.
    pub fn discard(&self, claim: Claim) -> Result<(), Error> {
        let mut core = self.lock()?;
        core.machine.discard(claim);
        self.after(&mut core);
        Ok(())
    }

    /// Posts one buffer for many messages; it stays posted until fewer than `min_free` bytes are
    /// left in it.
    ///
    /// # Errors
    /// As [`Endpoint::irecv`].
    pub fn post_multi(
        &self,
        sink: Sink,
        min_free: usize,
        selector: &Selector,
    ) -> Result<RequestId, Error> {
        let mut core = self.lock()?;
        let request = core.machine.post_multi(sink, min_free, selector)?;
        self.after(&mut core);
        Ok(request)
    }

    /// The next event of a multi-receive buffer.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there is no such request.
    pub fn poll_multi(&self, request: RequestId) -> Result<MultiEvent, Error> {
        let mut core = self.lock()?;
        self.progress_once(&mut core);
        Ok(core.machine.poll_multi(request)?)
    }

    /// Cancels a receive that has not matched or a connect that was not answered; `false` when it
    /// is too late.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a send, or when there is no such request.
    pub fn cancel(&self, request: RequestId) -> Result<bool, Error> {
        let mut core = self.lock()?;
        let cancelled = core.machine.cancel(request)?;
        if cancelled {
            core.peers.cancel_connect(request);
        }
        Ok(cancelled)
    }

    /// Lets a request finish unseen.
    pub fn forget(&self, request: RequestId) {
        if let Ok(mut core) = self.lock() {
            core.machine.forget(request);
            core.forget_loan(request);
        }
    }

    /// Whether a request is complete, without freeing it or making progress.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there is no such request.
    pub fn is_complete(&self, request: RequestId) -> Result<bool, Error> {
        Ok(self.lock()?.machine.is_complete(request)?)
    }

    /// Offers messages without a receive to a function, or to none.
    ///
    /// # Errors
    /// [`Error`] when the endpoint cannot be used.
    pub fn set_unexpected_handler(&self, handler: Option<Handler>) -> Result<(), Error> {
        let mut core = self.lock()?;
        core.machine.install_handler(handler.is_some());
        let previous = std::mem::replace(&mut core.handler, handler);
        drop(core);
        // Dropped without the lock: it may own something that takes locks of its own.
        drop(previous);
        Ok(())
    }

    /// Makes progress.
    ///
    /// # Errors
    /// [`Error`] when the endpoint cannot be used.
    pub fn progress(&self) -> Result<(), Error> {
        let mut core = self.lock()?;
        self.progress_once(&mut core);
        Ok(())
    }

    /// The descriptor for event loops: readable when something happens while armed.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.shared.outer.as_fd()
    }

    /// What crossed so far, and what is here now.
    ///
    /// # Errors
    /// [`Error`] when the endpoint cannot be used.
    pub fn counters(&self) -> Result<Counters, Error> {
        Ok(self.lock()?.counters())
    }

    /// Refuses to go on with an endpoint that cannot be used.
    pub(crate) fn require_usable(&self) -> Result<(), Error> {
        if self.is_forked() {
            return Err(Error::Forked);
        }
        if self.is_closed() { Err(Error::Closed) } else { Ok(()) }
    }

    #[inline(always)]
    pub(crate) fn lock(&self) -> Result<Guard<'_, Core>, Error> {
        Ok(self.lock_or_say()?)
    }

    #[inline(always)]
    pub(crate) fn lock_or_say(&self) -> Result<Guard<'_, Core>, Unusable> {
        if fork::generation() != self.shared.fork_generation {
            return Err(Unusable::Forked);
        }
        let core = self.shared.core.lock();
        if self.shared.closed.load(Ordering::Relaxed) {
            return Err(Unusable::Closed);
        }
        Ok(core)
    }

    /// Runs the handler for every message that waits for it, without the lock.
    #[inline(always)]
    pub(crate) fn run_handlers(&self, core: &mut Guard<'_, Core>) {
        if core.machine.handler_is_due() {
            self.run_handlers_slowly(core);
        }
    }

    #[cold]
    fn run_handlers_slowly(&self, core: &mut Guard<'_, Core>) {
        while let Some(call) = core.machine.take_handler_call() {
            let Some(mut handler) = core.handler.take() else {
                core.machine.answer_handler(HandlerAction::Continue);
                continue;
            };
            let action = Guard::unlocked(core, || handler(&call.status, call.data.as_deref()));
            // The handler may have installed another one.
            let replaced = if core.handler.is_none() && core.machine.has_handler() {
                core.handler = Some(handler);
                None
            } else {
                Some(handler)
            };
            core.machine.answer_handler(action);
            Guard::unlocked(core, || drop(replaced));
            core.machine.poll();
        }
        // Others may have fallen asleep over messages that waited for the handler.
        self.after(core);
    }

    /// Something happened to the endpoint: tells all others of this process that wait on it, as
    /// threads or in event loops, to look again.
    #[inline(always)]
    pub(crate) fn after(&self, core: &mut Guard<'_, Core>) {
        if core.sleeper || core.followers > 0 || core.is_watched() {
            self.tell_others(core);
        }
    }

    #[cold]
    fn tell_others(&self, core: &mut Core) {
        if core.followers > 0 {
            self.shared.returns.announce();
        }
        if core.sleeper {
            self.wake();
        }
        if core.is_watched() {
            self.ring_bell(core);
        }
    }

    /// Makes the descriptor readable until [`Endpoint::silence_bell`].
    fn ring_bell(&self, core: &mut Core) {
        if !core.belled {
            core.belled = true;
            // Cannot fail: the counter is 0 while the bell is silent.
            let _ = rustix::io::write(&self.shared.bell, &1_u64.to_ne_bytes());
        }
    }

    /// Whoever was to hear the bell has heard it, if nobody else waits on the descriptor.
    pub(crate) fn silence_bell(&self, core: &mut Core) {
        if core.belled && !core.is_watched() {
            core.belled = false;
            let _ = rustix::io::read(&self.shared.bell, &mut [0; 8]);
        }
    }

    #[cold]
    pub(crate) fn wake(&self) {
        // Cannot fail in a way that matters: a full counter is a wake-up already.
        let _ = rustix::io::write(&self.shared.wakeup, &1_u64.to_ne_bytes());
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if fork::generation() != self.fork_generation {
            // A forked child: the mappings were not inherited, and the parent's peers and backend
            // must not hear from us. The descriptors are the child's own copies.
            return;
        }
        if !self.closed.load(Ordering::Acquire) {
            let core = self.core.get_mut();
            core.machine.close();
            core.bury();
        }
    }
}

impl Core {
    /// Whether somebody waits on the descriptor.
    #[inline(always)]
    pub fn is_watched(&self) -> bool {
        self.armed || self.dozing > 0
    }

    pub fn take_any(&mut self, requests: &[RequestId]) -> Result<Option<(usize, Status)>, Error> {
        for (at, request) in requests.iter().enumerate() {
            if let Some(status) = self.machine.test(*request)? {
                return Ok(Some((at, status)));
            }
        }
        Ok(None)
    }
}
