// SPDX-License-Identifier: Apache-2.0
//! Waiting: spin, then pause, then sleep.
//!
//! ```text
//!            +--------- something happened ----------+
//!            v                                       |
//!   poll --> [ spin, lock held ] -- budget spent --> [ sleep on the epoll set, lock free ]
//!                                                        others: [ wait for the sleeper ]
//! ```
//!
//! One thread sleeps for all that wait on an endpoint; when it returns, everybody looks for its own
//! request. Before it sleeps it raises its flag in every channel, runs the heavy fence, and looks
//! at every ring once more (`diolkos_shm::doorbell`).
//!
//! While it spins, a thread keeps the lock and hands it over when another thread wants it. The
//! clock is read every 16 looks, so a message that comes at once costs no clock at all.

use std::time::{Duration, Instant};

use diolkos_proto::{Claim, MultiEvent, RequestId, Selector, Status};
use diolkos_shm::Sink;
use diolkos_shm::barrier::Barrier;
use rustix::event::epoll;
use rustix::io::Errno;

use crate::endpoint::{Core, Endpoint};
use crate::error::Error;
use crate::loans::Loan;
use crate::lock::Guard;
use crate::peers::Token;

/// Bare looks at the hottest ring for one look at everything.
const HOT_LOOKS: u32 = 16;
/// Looks between two readings of the clock.
const LOOKS_PER_CLOCK: u32 = 16;
/// Looks before the processor is told that we spin.
const LOOKS_BEFORE_PAUSE: u32 = 512;
/// Idle polls of a program that only tests, between two looks at the clock.
const IDLE_POLLS_PER_CHECK: u32 = 32;
/// Least time between two slow checks of a program that only tests, in nanoseconds.
const SLOW_CHECK_NS: u64 = 1_000_000;
/// After this long asleep, idle bulk memory is given back.
pub(crate) const RECLAIM_AFTER: Duration = Duration::from_secs(1);
/// A sleeper that may not use `membarrier` cannot fence a peer that may: a ring could be missed, so it
/// looks by itself this often.
const LOST_RING_CHECK: Duration = Duration::from_millis(5);
/// A sleeper without a backend looks for a new one this often.
const BACKEND_CHECK: Duration = Duration::from_millis(200);
/// Polls with work between two publications of the counters under load.
const POLLS_PER_PUBLICATION: u64 = 4096;
/// Descriptors handled at one wake-up; the rest stays ready.
const EVENTS_MAX: usize = 32;

/// How long nothing has happened, over any number of waits: a door may sleep in slices that are
/// shorter than what idle memory is kept for.
#[derive(Debug, Default)]
pub(crate) struct Quiet {
    /// `polls_with_work` when the quiet began.
    pub polls_with_work: u64,
    since_ns: u64,
    /// Idle memory has been given back since.
    pub reclaimed: bool,
}

/// Why a spin ended.
enum Spun<T> {
    Found(T),
    Deadline,
    Spent,
}

/// Ends a wait for a message from anybody when the last one who could send it has died.
struct DeathWatch {
    for_anybody: bool,
    seen: Option<u64>,
}

impl DeathWatch {
    fn new(selector: &Selector) -> Self {
        Self { for_anybody: selector.source.is_none(), seen: None }
    }

    /// Called when there is no message: whether there is any sense in waiting on.
    fn look<T>(&mut self, core: &Core) -> Result<Option<T>, Error> {
        let (deaths, code) = core.machine.last_deaths();
        if self.for_anybody && *self.seen.get_or_insert(deaths) != deaths {
            return Err(Error::PeerGone(code));
        }
        Ok(None)
    }
}

/// What became of a receive that was posted and polled for.
#[derive(Clone, Copy, Debug)]
pub enum Received {
    /// The message is in the buffer.
    Done(Status),
    /// Still waiting; the buffer is still lent.
    Pending(RequestId),
}

/// What became of a loan receive that was posted and polled for.
pub enum ReceivedLoan {
    /// It has ended, and this is the loan if it ended with success.
    Done(Status, Option<Loan>),
    /// Still waiting.
    Pending(RequestId),
}

impl Endpoint {
    /// Waits until a request is complete and frees it. `None`: the deadline passed first.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when a signal came: check signals and call again. [`Error::Closed`]
    /// when another thread closed the endpoint.
    #[inline]
    pub fn wait(
        &self,
        request: RequestId,
        deadline: Option<Instant>,
    ) -> Result<Option<Status>, Error> {
        self.wait_until(deadline, |core| Ok(core.machine.test(request)?))
    }

    /// Waits until one of the requests is complete and frees that one.
    ///
    /// # Errors
    /// As [`Endpoint::wait`].
    pub fn wait_any(
        &self,
        requests: &[RequestId],
        deadline: Option<Instant>,
    ) -> Result<Option<(usize, Status)>, Error> {
        self.wait_until(deadline, |core| core.take_any(requests))
    }

    /// Waits until all of the requests are complete and frees them; `ended` gets each status, in
    /// order. Returns how many were freed: less than all when the deadline passed first.
    ///
    /// # Errors
    /// As [`Endpoint::wait`]; requests before the one that was being waited for are freed.
    pub fn wait_all(
        &self,
        requests: &[RequestId],
        deadline: Option<Instant>,
        mut ended: impl FnMut(&Status),
    ) -> Result<usize, Error> {
        let mut done = 0;
        let all = self.wait_until(deadline, |core| {
            while let Some(request) = requests.get(done) {
                let Some(status) = core.machine.test(*request)? else { return Ok(None) };
                ended(&status);
                done += 1;
            }
            Ok(Some(()))
        })?;
        debug_assert!(all.is_none() || done == requests.len());
        Ok(done)
    }

    /// Waits until a complete request's match info fits and frees it: MX's `wait_any`.
    ///
    /// # Errors
    /// As [`Endpoint::wait`].
    pub fn wait_matching(
        &self,
        match_info: u64,
        mask: u64,
        deadline: Option<Instant>,
    ) -> Result<Option<(RequestId, Status)>, Error> {
        self.wait_until(deadline, |core| Ok(core.machine.test_matching(match_info, mask)?))
    }

    /// Waits for a message without a receive, and leaves it.
    ///
    /// # Errors
    /// As [`Endpoint::wait`]; [`Error::PeerGone`] when the last live peer died meanwhile and the
    /// selector names no source, as for a posted receive.
    pub fn probe(
        &self,
        selector: &Selector,
        deadline: Option<Instant>,
    ) -> Result<Option<Status>, Error> {
        let mut guard = DeathWatch::new(selector);
        self.wait_until(deadline, |core| match core.machine.iprobe(selector)? {
            None => guard.look(core),
            found => Ok(found),
        })
    }

    /// Waits for a message without a receive, and claims it.
    ///
    /// # Errors
    /// As [`Endpoint::probe`].
    pub fn mprobe(
        &self,
        selector: &Selector,
        deadline: Option<Instant>,
    ) -> Result<Option<(Claim, Status)>, Error> {
        let mut guard = DeathWatch::new(selector);
        self.wait_until(deadline, |core| match core.machine.improbe(selector)? {
            None => guard.look(core),
            found => Ok(found),
        })
    }

    /// Waits for the next event of a multi-receive buffer.
    ///
    /// # Errors
    /// As [`Endpoint::wait`].
    pub fn wait_multi(
        &self,
        request: RequestId,
        deadline: Option<Instant>,
    ) -> Result<Option<MultiEvent>, Error> {
        self.wait_until(deadline, |core| match core.machine.poll_multi(request)? {
            MultiEvent::Nothing => Ok(None),
            event => Ok(Some(event)),
        })
    }

    /// Polls for a request for at most `budget` and never sleeps: what a door does before it gives
    /// up an interpreter's lock.
    ///
    /// # Errors
    /// As [`Endpoint::wait`].
    #[inline]
    pub fn spin(&self, request: RequestId, budget: Duration) -> Result<Option<Status>, Error> {
        let mut core = self.lock()?;
        if let Some(status) = core.machine.test(request)? {
            return Ok(Some(status));
        }
        let find = &mut |core: &mut Core| Ok(core.machine.test(request)?);
        match self.spin_for(&mut core, Some(budget), None, find)? {
            Spun::Found(status) => Ok(Some(status)),
            Spun::Deadline | Spun::Spent => Ok(None),
        }
    }

    /// Polls until anything has happened, for at most `budget` and without sleeping. `false`: nothing
    /// has. What event loops do before they wait on [`Endpoint::descriptor`].
    ///
    /// # Errors
    /// As [`Endpoint::wait`].
    pub fn linger(&self, budget: Duration) -> Result<bool, Error> {
        let mut core = self.lock()?;
        let before = core.polls_with_work;
        let find = &mut |core: &mut Core| Ok((core.polls_with_work != before).then_some(()));
        match self.spin_for(&mut core, Some(budget), None, find)? {
            Spun::Found(()) => Ok(true),
            Spun::Deadline | Spun::Spent => {
                core.patience.slept();
                Ok(false)
            }
        }
    }

    /// As [`Endpoint::mprobe`], for at most `budget` and without sleeping.
    ///
    /// # Errors
    /// As [`Endpoint::wait`].
    #[inline]
    pub fn spin_claim(
        &self,
        selector: &Selector,
        budget: Duration,
    ) -> Result<Option<(Claim, Status)>, Error> {
        let mut core = self.lock()?;
        let find = &mut |core: &mut Core| Ok(core.machine.improbe(selector)?);
        if let Some(found) = find(&mut core)? {
            return Ok(Some(found));
        }
        match self.spin_for(&mut core, Some(budget), None, find)? {
            Spun::Found(found) => Ok(Some(found)),
            Spun::Deadline | Spun::Spent => Ok(None),
        }
    }

    /// Posts a receive and polls for its message for at most `budget`: [`Endpoint::irecv`] and
    /// [`Endpoint::spin`] under one lock.
    ///
    /// # Errors
    /// As [`Endpoint::irecv`] and [`Endpoint::wait`]. After [`Error::Closed`] the receive has ended.
    #[inline]
    pub fn receive(
        &self,
        sink: Sink,
        selector: &Selector,
        budget: Duration,
    ) -> Result<Received, Error> {
        let mut core = self.lock()?;
        let request = core.machine.irecv(sink, selector)?;
        self.after(&mut core);
        if let Some(status) = core.machine.test(request)? {
            return Ok(Received::Done(status));
        }
        let find = &mut |core: &mut Core| Ok(core.machine.test(request)?);
        match self.spin_for(&mut core, Some(budget), None, find)? {
            Spun::Found(status) => Ok(Received::Done(status)),
            Spun::Deadline | Spun::Spent => Ok(Received::Pending(request)),
        }
    }

    /// [`Endpoint::irecv_loan`], [`Endpoint::spin`] and [`Endpoint::take_loan`] under one lock.
    ///
    /// # Errors
    /// As [`Endpoint::receive`].
    #[inline]
    pub fn receive_loan(
        &self,
        selector: &Selector,
        budget: Duration,
    ) -> Result<ReceivedLoan, Error> {
        let mut core = self.lock()?;
        let request = core.machine.irecv_loan(selector)?;
        core.fill_loans();
        self.after(&mut core);
        let find = &mut |core: &mut Core| Ok(core.machine.test(request)?);
        let status = match find(&mut core)? {
            Some(status) => status,
            None => match self.spin_for(&mut core, Some(budget), None, find)? {
                Spun::Found(status) => status,
                Spun::Deadline | Spun::Spent => return Ok(ReceivedLoan::Pending(request)),
            },
        };
        Ok(ReceivedLoan::Done(status, self.loan_of(&mut core, request)))
    }

    #[inline]
    pub(crate) fn wait_until<T>(
        &self,
        deadline: Option<Instant>,
        mut find: impl FnMut(&mut Core) -> Result<Option<T>, Error>,
    ) -> Result<Option<T>, Error> {
        let mut core = self.lock()?;
        if let Some(found) = find(&mut core)? {
            return Ok(Some(found));
        }
        loop {
            match self.spin_for(&mut core, None, deadline, &mut find)? {
                Spun::Found(found) => return Ok(Some(found)),
                Spun::Deadline => return Ok(None),
                Spun::Spent => {}
            }
            let woken = self.sleep(&mut core, deadline);
            if self.is_closed() {
                return Err(Error::Closed);
            }
            self.run_handlers(&mut core);
            if let Some(found) = find(&mut core)? {
                return Ok(Some(found));
            }
            if !woken? {
                return Ok(None);
            }
        }
    }

    #[inline]
    fn spin_for<T>(
        &self,
        core: &mut Guard<'_, Core>,
        budget: Option<Duration>,
        deadline: Option<Instant>,
        find: &mut impl FnMut(&mut Core) -> Result<Option<T>, Error>,
    ) -> Result<Spun<T>, Error> {
        let mut looks = 0_u32;
        let mut started_ns = None;
        let mut budget_ns = 0;
        loop {
            core.machine.spin_hot(HOT_LOOKS);
            if core.look() {
                self.run_handlers(core);
                self.after(core);
                if let Some(found) = find(core)? {
                    core.patience.came_spinning();
                    return Ok(Spun::Found(found));
                }
            }
            looks += 1;
            if looks.is_multiple_of(LOOKS_PER_CLOCK) {
                let now_ns = core.clock.now_ns();
                let start_ns = *started_ns.get_or_insert_with(|| {
                    let patience = core.patience.begin(now_ns);
                    budget_ns = budget.map_or(patience, |most| patience.min(nanos(most)));
                    now_ns
                });
                // First the deadline: a budget of nothing must not hide that it has passed.
                if deadline.is_some_and(|at| Instant::now() >= at) {
                    return Ok(Spun::Deadline);
                }
                if !core.patience.look(now_ns) || now_ns - start_ns >= budget_ns {
                    return Ok(Spun::Spent);
                }
                if self.shared.core.is_wanted() {
                    self.shared.core.step_aside(core);
                    if self.is_closed() {
                        return Err(Error::Closed);
                    }
                }
                if let Some(found) = find(core)? {
                    return Ok(Spun::Found(found));
                }
            }
            if looks > LOOKS_BEFORE_PAUSE {
                std::hint::spin_loop();
            }
        }
    }

    /// Sleeps until something happens (`true`), the deadline passes (`false`) or a signal comes.
    #[cold]
    fn sleep(&self, core: &mut Guard<'_, Core>, deadline: Option<Instant>) -> Result<bool, Error> {
        if core.sleeper {
            core.followers += 1;
            let seen = self.shared.returns.count();
            let returned = Guard::unlocked(core, || self.shared.returns.wait(seen, deadline));
            core.followers -= 1;
            return Ok(returned);
        }
        core.patience.slept();
        core.publish_counters();
        let came = core.take_events();
        if came | core.raise_sleep() {
            core.lower_sleep();
            self.after(core);
            return Ok(true);
        }
        if core.quiet.polls_with_work != core.polls_with_work {
            core.quiet_begins();
        }
        core.sleeper = true;
        core.sleeps += 1;
        let result = self.block(core, deadline);
        core.sleeper = false;
        core.wakeups += 1;
        core.lower_sleep();
        // Whatever woke this thread, be it a signal: nobody sleeps for the others any more.
        if core.followers > 0 {
            self.shared.returns.announce();
        }
        let ready = result?;
        let handled = core.handle(&ready);
        let worked = core.look_at_all();
        if handled || worked {
            core.quiet_begins();
            self.after(core);
        }
        let late = deadline.is_some_and(|at| Instant::now() >= at);
        Ok(!(ready.is_empty() && late))
    }

    /// Blocks on the epoll set without the lock. Long sleeps give idle memory back on the way.
    fn block(
        &self,
        core: &mut Guard<'_, Core>,
        deadline: Option<Instant>,
    ) -> Result<Vec<epoll::Event>, Error> {
        let may_miss = Barrier::of_this_process() == Barrier::Symmetric;
        loop {
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            let lost = core.peers.island.descriptor().is_none() && core.peers.has_backend();
            let chores = match (lost, core.quiet.reclaimed) {
                _ if may_miss => Some(LOST_RING_CHECK),
                (true, _) => Some(BACKEND_CHECK),
                (false, false) => Some(RECLAIM_AFTER.saturating_sub(core.quiet_for())),
                (false, true) => None,
            };
            let limit = match (left, chores) {
                (Some(left), Some(chores)) => Some(left.min(chores)),
                (left, chores) => left.or(chores),
            };
            let epoll = core.epoll.clone();
            let mut events = Vec::with_capacity(EVENTS_MAX);
            let waited = Guard::unlocked(core, || {
                let limit = limit.and_then(|limit| limit.try_into().ok());
                epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), limit.as_ref())
            });
            match waited {
                Ok(_) => {}
                Err(Errno::INTR) => return Err(Error::Interrupted),
                Err(errno) => return Err(Error::System("epoll_wait", errno)),
            }
            let late = deadline.is_some_and(|at| Instant::now() >= at);
            if !events.is_empty() || late || self.is_closed() {
                return Ok(events);
            }
            if (lost && core.take_events()) || (may_miss && core.look_at_all()) {
                return Ok(events);
            }
            if !core.quiet.reclaimed && core.quiet_for() >= RECLAIM_AFTER {
                core.reclaim();
                core.quiet.reclaimed = true;
            }
        }
    }

    /// One look for calls that do not wait, and now and then at the descriptors.
    #[inline]
    pub(crate) fn progress_once(&self, core: &mut Guard<'_, Core>) {
        if core.look() {
            core.idle_polls = 0;
            self.run_handlers(core);
            self.after(core);
            return;
        }
        core.idle_polls += 1;
        if core.idle_polls >= IDLE_POLLS_PER_CHECK {
            core.idle_polls = 0;
            if core.slow_check() {
                self.run_handlers(core);
                self.after(core);
            }
        }
    }
}

impl Core {
    /// One look at the rings, the backend's attention word included.
    #[inline(always)]
    pub(crate) fn look(&mut self) -> bool {
        let mut worked = self.machine.poll();
        if worked {
            self.fill_loans();
            self.counters_due = true;
            self.polls_with_work += 1;
            if self.polls_with_work.is_multiple_of(POLLS_PER_PUBLICATION) {
                self.publish_counters();
            }
            if self.machine.has_departed() {
                self.bury();
            }
        }
        if self.peers.attention() {
            self.take_events();
            worked = true;
        }
        self.take_answers() || worked
    }

    /// Everything that a look leaves out: descriptors, deaths, the backend, closing flags. Tells
    /// whether something happened.
    #[cold]
    fn slow_check(&mut self) -> bool {
        let now_ns = self.clock.now_ns();
        if now_ns - self.last_slow_check_ns < SLOW_CHECK_NS {
            return false;
        }
        self.last_slow_check_ns = now_ns;
        if self.counters_due {
            self.counters_due = false;
            self.publish_counters();
        }
        let handled = self.check_descriptors();
        let came = self.take_events();
        let worked = self.look_at_all();
        handled || came || worked
    }

    /// Handles what is ready now, and tells whether something happened. Never waits. While a
    /// thread sleeps on the descriptors their events are its own: what was meant to wake it must
    /// not be used up by another.
    pub(crate) fn check_descriptors(&mut self) -> bool {
        if self.sleeper {
            return false;
        }
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        let spare = rustix::buffer::spare_capacity(&mut events);
        // The only error that an own, open descriptor can give is an interruption.
        epoll::wait(&*self.epoll, spare, Some(&now)).is_ok() && self.handle(&events)
    }

    /// Takes in what the descriptors say, and tells whether something happened. The doorbells only
    /// say that the rings should be looked at.
    fn handle(&mut self, ready: &[epoll::Event]) -> bool {
        let mut happened = false;
        for event in ready {
            match Token::from_data(event.data) {
                Token::Control => happened |= self.take_events(),
                Token::Liveness(peer) => {
                    self.peer_died(peer);
                    happened = true;
                }
                // The rings say what happened. Our own bell is edge-triggered and never read.
                Token::Doorbell(peer) => self.silence_doorbell(peer),
                Token::Wakeup => {}
            }
        }
        happened
    }

    /// Raises the sleep flag everywhere and looks once more. `true`: something came.
    pub(crate) fn raise_sleep(&mut self) -> bool {
        let peers: Vec<_> = self.machine.peers().collect();
        for peer in &peers {
            let for_room = self.machine.waits_for_room(*peer);
            if let Some(lane) = self.machine.lane_mut(*peer) {
                lane.raise_sleep(for_room);
            }
        }
        Barrier::of_this_process().heavy();
        self.look_at_all()
    }

    /// Looks at the rings of every peer, and at what else a peer can say by itself.
    pub(crate) fn look_at_all(&mut self) -> bool {
        let worked = self.machine.poll_all();
        self.fill_loans();
        self.bury();
        self.take_answers() || worked
    }

    /// Lowers the flags, unless somebody else of this process still relies on them.
    pub(crate) fn lower_sleep(&mut self) {
        if self.sleeper || self.is_watched() {
            return;
        }
        self.lower_flags();
    }

    pub(crate) fn lower_flags(&mut self) {
        let peers: Vec<_> = self.machine.peers().collect();
        for peer in peers {
            if let Some(lane) = self.machine.lane_mut(peer) {
                lane.lower_sleep();
            }
        }
    }

    /// Something happened just now.
    pub(crate) fn quiet_begins(&mut self) {
        let since_ns = self.clock.now_ns();
        let polls_with_work = self.polls_with_work;
        self.quiet = Quiet { polls_with_work, since_ns, reclaimed: false };
    }

    /// How long ago something happened.
    pub(crate) fn quiet_for(&self) -> Duration {
        Duration::from_nanos(self.clock.now_ns().saturating_sub(self.quiet.since_ns))
    }

    pub(crate) fn reclaim(&mut self) {
        let peers: Vec<_> = self.machine.peers().collect();
        for peer in peers {
            if let Some(lane) = self.machine.lane_mut(peer) {
                lane.reclaim();
            }
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    duration.as_nanos().min(u128::from(u64::MAX)) as u64
}
