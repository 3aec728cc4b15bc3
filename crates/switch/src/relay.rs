// SPDX-License-Identifier: Apache-2.0
//! One thread between two channels.
//!
//! ```text
//!            something moved
//!          +-----------------+
//!          v                 |
//!   --> forward both ways ---+
//!          |        ^
//!          | nothing | moved after all
//!          v        |
//!   raise the sleep flags, heavy fence, forward once more
//!          | nothing
//!          v
//!   poll: two doorbells, two processes, the command   --> forward both ways
//! ```
//!
//! It ends, and closes both channels,
//!
//! * when an endpoint has closed its channel and all that it wrote has been forwarded;
//! * when an endpoint's process is gone, and likewise all has been forwarded;
//! * when an endpoint breaks the rules: at once;
//! * on [`Relay::finish`], when what is on the way has been forwarded;
//! * on [`Relay::stop`], at once.
//!
//! "All has been forwarded" can take as long as the receiving endpoint takes to make room, and
//! ends with that endpoint at the latest.
//!
//! Bounds: it holds nothing but what is in the rings; a turn moves a few cells one way, then the
//! other way; whoever owns it holds one thread and five descriptors a relay.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::JoinHandle;

use diolkos_island::{ChannelEnds, IslandError, process};
use diolkos_shm::layout::BadHeader;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;

use crate::side::{Fault, Side};

/// Bytes of a relay thread's stack; it calls nothing deep.
const STACK_BYTES: usize = 128 << 10;

/// A relay could not be started.
#[derive(Debug)]
#[non_exhaustive]
pub enum RelayError {
    /// A granted file is not that of its channel.
    Header(BadHeader),
    /// The descriptors do not make the end of a channel.
    Grant(IslandError),
    /// The system refused.
    System(&'static str, Errno),
}

impl fmt::Display for RelayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(error) => error.fmt(f),
            Self::Grant(error) => error.fmt(f),
            Self::System(call, errno) => write!(f, "{call} failed: {errno}"),
        }
    }
}

impl std::error::Error for RelayError {}

impl RelayError {
    /// The system's error, where the system refused.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::System(_, errno) | Self::Grant(IslandError::System { errno, .. }) => Some(*errno),
            _ => None,
        }
    }
}

/// What the owner wants: each implies the ones before it.
const GO_ON: u8 = 0;
const FINISH: u8 = 1;
const STOP: u8 = 2;

/// What the owner and the thread share.
struct Command {
    wish: AtomicU8,
    /// Rung with each wish.
    bell: OwnedFd,
}

/// A running relay. Dropping it stops it.
pub struct Relay {
    command: Arc<Command>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Starts to carry messages between the other ends of two channels.
    ///
    /// # Errors
    /// [`RelayError`]; both channels are closed then.
    pub fn start(a: ChannelEnds, b: ChannelEnds) -> Result<Self, RelayError> {
        let mut a = Side::new(a)?;
        let mut b = Side::new(b)?;
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| RelayError::System("eventfd", errno))?;
        let command = Arc::new(Command { wish: AtomicU8::new(GO_ON), bell });
        let shared = Arc::clone(&command);
        let thread = std::thread::Builder::new()
            .name("diolkos-relay".into())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                // A fault ends this relay and nothing else; the endpoint that did not commit it
                // sees its peer close.
                let _ = carry(&mut a, &mut b, &shared);
                a.close();
                b.close();
            })
            .map_err(|error| {
                let errno = Errno::from_io_error(&error).unwrap_or(Errno::AGAIN);
                RelayError::System("starting a thread", errno)
            })?;
        Ok(Self { command, thread: Some(thread) })
    }

    /// Starts from the descriptors of the two ends, in the order of the control protocol.
    ///
    /// # Errors
    /// As [`Relay::start`]. The descriptors are closed then.
    pub fn from_descriptors(a: Vec<OwnedFd>, b: Vec<OwnedFd>) -> Result<Self, RelayError> {
        let a = process::ends_from_descriptors(a).map_err(RelayError::Grant)?;
        let b = process::ends_from_descriptors(b).map_err(RelayError::Grant)?;
        Self::start(a, b)
    }

    /// Ends it when what is on the way has been forwarded. Returns at once.
    pub fn finish(&self) {
        self.wish(FINISH);
    }

    /// Ends it now; returns when it has ended. What was on the way is lost.
    pub fn stop(&mut self) {
        self.wish(STOP);
        if let Some(thread) = self.thread.take() {
            // It cannot have panicked on what an endpoint wrote; if we have a bug, the thread has
            // said so and the relay is as ended as it can be.
            let _ = thread.join();
        }
    }

    /// Whether it still carries messages.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    fn wish(&self, wish: u8) {
        // ORDERING: release; pairs with the acquire load in `carry`. The bell makes it seen.
        self.command.wish.fetch_max(wish, Ordering::Release);
        let _ = rustix::io::write(&self.command.bell, &1_u64.to_ne_bytes());
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Carries until one of the ends of the essay above.
fn carry(a: &mut Side, b: &mut Side, command: &Command) -> Result<(), Fault> {
    let mut gone = Gone::default();
    loop {
        // ORDERING: acquire; pairs with the release in `wish`.
        let wish = command.wish.load(Ordering::Acquire);
        if wish == STOP {
            return Ok(());
        }
        if exchange(a, b)? {
            continue;
        }
        let ended = |side: &Side, gone| side.is_finished() || (gone && side.is_empty());
        if ended(a, gone.a) || ended(b, gone.b) {
            return Ok(());
        }
        if wish == FINISH && a.is_empty() && b.is_empty() {
            return Ok(());
        }
        a.raise_sleep();
        b.raise_sleep();
        a.barrier().heavy();
        let moved = exchange(a, b);
        let ended = a.is_finished() || b.is_finished();
        if !matches!(moved, Ok(true)) && !ended {
            gone = sleep(a, b, command, gone);
        }
        a.lower_sleep();
        b.lower_sleep();
        moved?;
    }
}

/// Which endpoints' processes are known to be gone.
#[derive(Clone, Copy, Default)]
struct Gone {
    a: bool,
    b: bool,
}

/// Forwards both ways; whether anything moved.
fn exchange(a: &mut Side, b: &mut Side) -> Result<bool, Fault> {
    let there = a.forward(b)?;
    let back = b.forward(a)?;
    Ok(there || back)
}

/// Sleeps until a doorbell, a death or a command; says who is gone.
fn sleep(a: &Side, b: &Side, command: &Command, known: Gone) -> Gone {
    let mut watched = vec![
        PollFd::new(&a.doorbell, PollFlags::IN),
        PollFd::new(&b.doorbell, PollFlags::IN),
        PollFd::new(&command.bell, PollFlags::IN),
    ];
    // A process that is known to be gone would keep us awake.
    let watch_a = a.liveness.as_ref().filter(|_| !known.a);
    let watch_b = b.liveness.as_ref().filter(|_| !known.b);
    watched.extend(watch_a.into_iter().chain(watch_b).map(watch));
    // Interrupted is awake; and nothing else can go wrong with open descriptors.
    let _ = poll(&mut watched, None);
    let mut died = watched[3..].iter().map(|process| !process.revents().is_empty());
    let gone = Gone {
        a: known.a || (watch_a.is_some() && died.next() == Some(true)),
        b: known.b || (watch_b.is_some() && died.next() == Some(true)),
    };
    a.doorbell.silence();
    b.doorbell.silence();
    let _ = rustix::io::read(&command.bell, &mut [0; 8]);
    gone
}

fn watch(descriptor: &OwnedFd) -> PollFd<'_> {
    PollFd::new(descriptor, PollFlags::IN)
}

#[cfg(test)]
mod tests;
