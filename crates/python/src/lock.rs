// SPDX-License-Identifier: Apache-2.0
//! A mutex that does not mind panics: what it guards here is never left half-changed.
//!
//! It is taken by attached threads. So nothing may happen under it that could detach: no call of
//! Python, no object made or dropped (either may collect garbage, which runs anything), no
//! exception made by calling its class, no `PyOnceLock` filled in. A thread that detached with the
//! lock in its hand would never be attached again once another one waits for the lock.

use std::sync::{MutexGuard, PoisonError, TryLockError};

/// Guards the state of a Python object, for moments.
#[derive(Default)]
pub struct Mutex<T>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    #[inline(always)]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}
