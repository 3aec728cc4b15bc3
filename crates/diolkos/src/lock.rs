// SPDX-License-Identifier: Apache-2.0
//! The endpoint's lock, and the place where threads wait for the one that sleeps.
//!
//! The lock is held for tens of nanoseconds, or by a thread that spins for messages; that one looks
//! at [`Lock::is_wanted`] and steps aside. So a spin lock fits: it costs one atomic to take and a
//! plain store to release. Threads that find it taken yield their processor.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Instant;

type Raw = spin::mutex::SpinMutex<(), spin::Yield>;

/// Proof that the lock is held.
pub(crate) type Guard<'a, T> = lock_api::MutexGuard<'a, Raw, T>;

/// Yields of a thread that steps aside before it takes the lock again.
const YIELDS_MAX: u32 = 16;

/// A lock that knows whether somebody else wants it.
pub(crate) struct Lock<T> {
    mutex: lock_api::Mutex<Raw, T>,
    wanting: AtomicU32,
}

impl<T> Lock<T> {
    pub fn new(value: T) -> Self {
        Self { mutex: lock_api::Mutex::new(value), wanting: AtomicU32::new(0) }
    }

    #[inline(always)]
    pub fn lock(&self) -> Guard<'_, T> {
        match self.mutex.try_lock() {
            Some(guard) => guard,
            None => self.lock_slowly(),
        }
    }

    pub fn get_mut(&mut self) -> &mut T {
        self.mutex.get_mut()
    }

    /// Whether a thread waits for the lock: whoever spins with it should step aside.
    #[inline(always)]
    pub fn is_wanted(&self) -> bool {
        // ORDERING: relaxed; a hint that is looked at again and again.
        self.wanting.load(Ordering::Relaxed) != 0
    }

    /// Lets those who want the lock have it, and takes it again.
    #[cold]
    pub fn step_aside(&self, guard: &mut Guard<'_, T>) {
        Guard::unlocked(guard, || {
            for _ in 0..YIELDS_MAX {
                std::thread::yield_now();
                if !self.is_wanted() {
                    break;
                }
            }
        });
    }

    #[cold]
    fn lock_slowly(&self) -> Guard<'_, T> {
        self.wanting.fetch_add(1, Ordering::Relaxed);
        let guard = self.mutex.lock();
        self.wanting.fetch_sub(1, Ordering::Relaxed);
        guard
    }
}

/// Counts the returns of the thread that sleeps for all others.
#[derive(Default)]
pub(crate) struct Returns {
    count: Mutex<u64>,
    changed: Condvar,
}

impl Returns {
    /// The count now. Take it before the endpoint's lock is released: every later return shows.
    pub fn count(&self) -> u64 {
        *self.lock()
    }

    /// Everybody looks for its own request.
    pub fn announce(&self) {
        *self.lock() += 1;
        self.changed.notify_all();
    }

    /// Waits for a return after `seen`; `false` when the deadline passed first.
    pub fn wait(&self, seen: u64, deadline: Option<Instant>) -> bool {
        let mut count = self.lock();
        while *count == seen {
            count = match deadline {
                None => self.changed.wait(count).unwrap_or_else(|poisoned| poisoned.into_inner()),
                Some(at) => {
                    let left = at.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return false;
                    }
                    let waited = self.changed.wait_timeout(count, left);
                    waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0
                }
            };
        }
        true
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, u64> {
        // A panic cannot leave a counter in a bad state.
        self.count.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
