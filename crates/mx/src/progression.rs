// SPDX-License-Identifier: Apache-2.0
//! The progression thread: progress while the program computes. Native MX had one.
//!
//! ```text
//!             calls come                            no call for a tick, nobody waits
//!   +---> awake ------------------------------------------------------> dozing
//!   |      looks at the count of calls,                the endpoint is armed: sleeps until a peer
//!   |      every tick                                  rings, then makes progress
//!   +------------------------- the program calls -----------------------+
//! ```
//!
//! Peers ring only for an endpoint that is armed, so the thread arms it only when the program has
//! stopped calling, and lets go as soon as it calls again: whoever polls is never slowed down by
//! doorbells. While dozing it uses no processor time at all. While a call waits, that call makes
//! progress, and the thread looks ever more rarely.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use crate::codes;
use crate::endpoint::{Port, flag};
use crate::errors::fail;
use crate::types::{Code, EndpointHandle};

/// How long a program may be silent before it counts as computing.
const TICK: Duration = Duration::from_millis(10);
/// Between two looks while a call waits.
const TICK_MAX: Duration = Duration::from_millis(160);
/// Between two looks at whether a handler has ended.
const HANDLER_LOOK: Duration = Duration::from_micros(50);

/// The thread of a port, if it has one.
#[derive(Default)]
pub struct Progression {
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Wakes the thread.
    kick: Mutex<Option<OwnedFd>>,
    ending: AtomicBool,
    /// The thread may be making progress now.
    armed: AtomicBool,
}

/// A port that its thread may use: it is freed after the thread was joined.
struct Shared(*const Port);
// SAFETY: everything in a port that is not atomic has a lock, or is written inside the endpoint.
unsafe impl Send for Shared {}

impl Shared {
    fn port(&self) -> &Port {
        // SAFETY: see the type.
        unsafe { &*self.0 }
    }
}

/// Starts the thread of a port. Without one the program makes all progress itself.
pub fn start(port: &Port) {
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    let Ok(kick) = eventfd(0, flags) else { return };
    let Ok(ours) = kick.try_clone() else { return };
    *port.progression.kick.lock().unwrap_or_else(PoisonError::into_inner) = Some(kick);
    let shared = Shared(port);
    // The thread inherits the mask: signals are for the program's own threads.
    let previous = block_signals();
    let spawned = thread::Builder::new()
        .name("mx-progress".into())
        .stack_size(256 << 10)
        .spawn(move || run(&shared, &ours));
    restore_signals(&previous);
    if let Ok(thread) = spawned {
        *port.progression.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
    }
}

fn block_signals() -> libc::sigset_t {
    // SAFETY: plain data, filled by the calls; both sets are ours.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut previous: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut previous);
        previous
    }
}

fn restore_signals(previous: &libc::sigset_t) {
    // SAFETY: a set that `pthread_sigmask` gave out.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, previous, std::ptr::null_mut()) };
}

impl Progression {
    /// The program calls while the thread has armed the endpoint: it lets go.
    #[cold]
    pub fn interrupt(&self, port: &Port) {
        port.lower(flag::DOZING);
        // Now, not when the thread gets to run: until then peers would ring for every message.
        port.core.stir();
        self.kick();
    }

    fn kick(&self) {
        if let Some(kick) = &*self.kick.lock().unwrap_or_else(PoisonError::into_inner) {
            // Cannot fail in a way that matters: a full counter is a kick already.
            let _ = rustix::io::write(kick, &1_u64.to_ne_bytes());
        }
    }

    /// Ends the thread; its port is closed.
    pub fn end(&self, port: &Port) {
        self.ending.store(true, Ordering::Release);
        self.interrupt(port);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // It does not panic; if it did, it has ended all the same.
            let _ = thread.join();
        }
        *self.kick.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Waits until no handler runs and the thread keeps still.
    fn quiesce(&self, port: &Port) {
        if port.in_handler() {
            return;
        }
        self.interrupt(port);
        while self.armed.load(Ordering::Acquire) || port.handler_thread.load(Ordering::Acquire) != 0
        {
            thread::sleep(HANDLER_LOOK);
        }
    }
}

fn run(shared: &Shared, kick: &OwnedFd) {
    let port = shared.port();
    let mut seen = port.activity.load(Ordering::Relaxed);
    let mut tick = TICK;
    loop {
        wait_for(&[kick.as_fd()], Some(tick));
        drain(kick);
        if port.progression.ending.load(Ordering::Acquire) {
            return;
        }
        let activity = port.activity.load(Ordering::Relaxed);
        let disabled = port.flags.load(Ordering::Acquire) & flag::DISABLED != 0;
        if disabled || port.waiting.load(Ordering::Acquire) > 0 {
            tick = (2 * tick).min(TICK_MAX);
            seen = activity;
            continue;
        }
        tick = TICK;
        if activity != seen {
            seen = activity;
            continue;
        }
        port.progression.armed.store(true, Ordering::Release);
        doze(port, kick, activity);
        port.progression.armed.store(false, Ordering::Release);
        seen = port.activity.load(Ordering::Relaxed);
    }
}

/// Makes progress until the program calls again.
fn doze(port: &Port, kick: &OwnedFd, activity: u32) {
    port.raise(flag::DOZING);
    let descriptor = port.core.descriptor();
    loop {
        let flags = port.flags.load(Ordering::Acquire);
        // A call may have come between the look at the count and the flag.
        if flags & flag::DOZING == 0
            || flags & flag::DISABLED != 0
            || port.activity.load(Ordering::Relaxed) != activity
            || port.progression.ending.load(Ordering::Acquire)
        {
            break;
        }
        let wanted = || port.flags.load(Ordering::Acquire) & flag::DOZING != 0;
        let Ok(Some(dozing)) = port.core.doze_if(wanted) else { break };
        if !dozing.found {
            let chores = flags & flag::CHORES != 0;
            wait_for(&[descriptor, kick.as_fd()], chores.then_some(TICK));
        }
        drop(dozing);
        if flags & flag::CHORES != 0 {
            port.chores.look(port);
        }
    }
    port.lower(flag::DOZING);
}

fn wait_for(descriptors: &[std::os::fd::BorrowedFd<'_>], limit: Option<Duration>) {
    let mut watched: Vec<_> = descriptors.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    let limit = limit.and_then(|limit| limit.try_into().ok());
    // Interruptions and failures alike end the wait; whoever waits looks again.
    let _ = poll(&mut watched, limit.as_ref());
}

fn drain(kick: &OwnedFd) {
    // Empty when the tick was over.
    let _ = rustix::io::read(kick, &mut [0; 8]);
}

/// From now on no call makes progress.
pub fn disable(handle: EndpointHandle, what: &str) -> Code {
    let Some(port) = Port::at(handle) else { return fail(None, codes::BAD_ENDPOINT, what) };
    port.raise(flag::DISABLED);
    // Those who wait must wait without progress.
    let _ = port.core.rouse();
    port.progression.quiesce(port);
    codes::SUCCESS
}

/// From now on calls make progress again.
pub fn reenable(handle: EndpointHandle, what: &str) -> Code {
    let Some(port) = Port::at(handle) else { return fail(None, codes::BAD_ENDPOINT, what) };
    port.lower(flag::DISABLED);
    progress(handle, what)
}

/// Makes progress.
pub fn progress(handle: EndpointHandle, what: &str) -> Code {
    let Some(port) = Port::at(handle) else { return fail(None, codes::BAD_ENDPOINT, what) };
    if !port.enter() {
        return codes::SUCCESS;
    }
    match port.core.progress() {
        Ok(()) => codes::SUCCESS,
        Err(error) => fail(Some(port), codes::of_error(&error), what),
    }
}

#[unsafe(no_mangle)]
extern "C" fn mx_disable_progression(handle: EndpointHandle) -> Code {
    disable(handle, "mx_disable_progression")
}

#[unsafe(no_mangle)]
extern "C" fn mx_reenable_progression(handle: EndpointHandle) -> Code {
    reenable(handle, "mx_reenable_progression")
}

#[unsafe(no_mangle)]
extern "C" fn mx_progress(handle: EndpointHandle) -> Code {
    progress(handle, "mx_progress")
}
