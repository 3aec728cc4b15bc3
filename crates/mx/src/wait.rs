// SPDX-License-Identifier: Apache-2.0
//! Looking once, and waiting.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use diolkos::{Error, Inside};

use crate::codes;
use crate::endpoint::{Port, flag};
use crate::environment;
use crate::types::Code;

/// How often a wait looks after requests with chores.
const CHORE_SLICE: Duration = Duration::from_millis(10);
/// How often a wait without progress looks.
const IDLE_SLICE: Duration = Duration::from_micros(200);

/// How long to wait.
#[derive(Clone, Copy, Debug)]
pub enum Limit {
    Now,
    After(u32),
    Forever,
}

impl Limit {
    /// MX: 0 is for ever.
    pub fn mx(ms: u32) -> Self {
        if ms == 0 { Self::Forever } else { Self::After(ms) }
    }

    /// Native: 0 is one look, all ones for ever.
    pub fn native(ms: u32) -> Self {
        match ms {
            0 => Self::Now,
            u32::MAX => Self::Forever,
            ms => Self::After(ms),
        }
    }
}

/// Looks once, with progress if the program has not disabled it.
///
/// # Errors
/// The code of an endpoint that cannot be used.
#[inline(always)]
pub fn look<T>(
    port: &Port,
    mut find: impl FnMut(&mut Inside<'_>) -> Option<T>,
) -> Result<Option<T>, Code> {
    let found = if port.enter() {
        port.core.look_for(find)
    } else {
        port.core.inside(|inside| find(inside))
    };
    found.map_err(|_| codes::BAD_ENDPOINT)
}

/// Counts those who wait: the progression thread leaves the work to them, and a port is closed
/// when they have left.
struct Waiting<'a>(&'a Port);

impl<'a> Waiting<'a> {
    fn begin(port: &'a Port) -> Self {
        port.waiting.fetch_add(1, Ordering::AcqRel);
        Self(port)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

enum Woken<T> {
    Found(T),
    /// By `mx_wakeup`, or because progression was disabled.
    Roused,
}

/// Looks until something is found. `None`: the time was up, or `mx_wakeup` was called.
///
/// # Errors
/// The code of an endpoint that cannot be used.
#[inline]
pub fn wait<T>(
    port: &Port,
    limit: Limit,
    mut find: impl FnMut(&mut Inside<'_>) -> Option<T>,
) -> Result<Option<T>, Code> {
    let wakeups = port.wakeups.load(Ordering::Acquire);
    if let Some(found) = look(port, &mut find)? {
        return Ok(Some(found));
    }
    match limit {
        Limit::Now => Ok(None),
        Limit::After(ms) => {
            let deadline = Instant::now() + Duration::from_millis(u64::from(ms));
            wait_until(port, wakeups, Some(deadline), find)
        }
        Limit::Forever => wait_until(port, wakeups, None, find),
    }
}

fn wait_until<T>(
    port: &Port,
    wakeups: u32,
    deadline: Option<Instant>,
    mut find: impl FnMut(&mut Inside<'_>) -> Option<T>,
) -> Result<Option<T>, Code> {
    let _waiting = Waiting::begin(port);
    let is_late = || deadline.is_some_and(|at| Instant::now() >= at);
    let woken = || port.wakeups.load(Ordering::Acquire) != wakeups;
    loop {
        if woken() {
            return Ok(None);
        }
        let flags = port.flags.load(Ordering::Acquire);
        let result = if flags & flag::DISABLED != 0 {
            std::thread::sleep(IDLE_SLICE);
            let found = port.core.inside(|inside| find(inside)).map_err(Error::from);
            found.map(|found| found.map(Woken::Found))
        } else if environment::waits_spin() {
            let found = port.core.look_for(&mut find).map_err(Error::from);
            found.map(|found| found.map(Woken::Found))
        } else {
            let slice = (flags & flag::CHORES != 0).then(|| Instant::now() + CHORE_SLICE);
            let until = match (deadline, slice) {
                (Some(deadline), Some(slice)) => Some(deadline.min(slice)),
                (deadline, slice) => deadline.or(slice),
            };
            port.core.wait_for(until, |inside| {
                let roused = || port.flags.load(Ordering::Acquire) & flag::DISABLED != 0 || woken();
                find(inside).map(Woken::Found).or_else(|| roused().then_some(Woken::Roused))
            })
        };
        match result {
            Ok(Some(Woken::Found(found))) => return Ok(Some(found)),
            Ok(Some(Woken::Roused)) => {}
            Ok(None) if is_late() => return Ok(None),
            Ok(None) => {
                if port.flags.load(Ordering::Acquire) & flag::CHORES != 0 {
                    port.chores.look(port);
                }
            }
            Err(Error::Interrupted) if environment::signals_end_waits() => return Ok(None),
            Err(Error::Interrupted) => {}
            Err(error) => return Err(codes::of_error(&error)),
        }
    }
}
