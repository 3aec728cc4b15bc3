// SPDX-License-Identifier: Apache-2.0
//! How a call of Python waits.
//!
//! ```text
//!   attached:  spin for a message that is just coming          SPIN
//!   detached:  spin, pause, sleep in the core, in slices       SLICE
//!   attached:  between slices: signals, and the user's deadline
//! ```
//!
//! Giving up the interpreter's lock and taking it back costs more than a short message, so a
//! message that comes while we spin never pays for it. A signal usually interrupts the sleep of
//! its own (`Error::Interrupted`); one that was delivered to another thread is seen at the end of a
//! slice.

use std::time::{Duration, Instant};

use diolkos::{Error, RequestId, Status};
use pyo3::prelude::*;

use crate::errors;

/// How long to spin before the interpreter's lock is given up.
pub const SPIN: Duration = Duration::from_micros(20);
/// The longest wait without a look at signals.
const SLICE: Duration = Duration::from_millis(250);

/// Waits until a request is complete. `None`: the deadline passed first.
#[inline(always)]
pub fn complete(
    py: Python<'_>,
    core: &diolkos::Endpoint,
    request: RequestId,
    deadline: Option<Instant>,
) -> PyResult<Option<Status>> {
    match core.spin(request, SPIN) {
        Ok(Some(status)) => Ok(Some(status)),
        Ok(None) => in_slices(py, deadline, |until| core.wait(request, Some(until))),
        Err(error) => Err(errors::from_core(py, error)),
    }
}

/// Waits detached, in slices, with a look at signals after each. `None`: the deadline passed.
#[cold]
#[inline(never)]
pub fn in_slices<T: Send>(
    py: Python<'_>,
    deadline: Option<Instant>,
    wait: impl Fn(Instant) -> Result<Option<T>, Error> + Sync,
) -> PyResult<Option<T>> {
    loop {
        let slice_end = Instant::now() + SLICE;
        let until = deadline.map_or(slice_end, |at| at.min(slice_end));
        match py.detach(|| wait(until)) {
            Ok(Some(found)) => return Ok(Some(found)),
            Ok(None) | Err(Error::Interrupted) => py.check_signals()?,
            Err(error) => return Err(errors::from_core(py, error)),
        }
        if deadline.is_some_and(|at| Instant::now() >= at) {
            return Ok(None);
        }
    }
}
