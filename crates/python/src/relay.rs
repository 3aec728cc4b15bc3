// SPDX-License-Identifier: Apache-2.0
//! `Relay`: the switched road, for the backend only.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use diolkos_switch::RelayError;
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;

use crate::lock::Mutex;

/// Carries messages between two channels.
#[pyclass(frozen, module = "diolkos._core")]
pub struct Relay {
    inner: Mutex<diolkos_switch::Relay>,
}

#[pymethods]
impl Relay {
    #[new]
    fn new(py: Python<'_>, fds_a: Vec<RawFd>, fds_b: Vec<RawFd>) -> PyResult<Self> {
        if fds_a.iter().chain(&fds_b).any(|fd| *fd < 0) {
            return Err(PyValueError::new_err("a descriptor is a number from 0 on"));
        }
        // SAFETY: the caller hands these descriptors over, as `_core.pyi` says: they are open, and
        // nothing else closes them.
        let adopt = |fd| unsafe { OwnedFd::from_raw_fd(fd) };
        let own = |fds: Vec<RawFd>| -> Vec<OwnedFd> { fds.into_iter().map(adopt).collect() };
        let (a, b) = (own(fds_a), own(fds_b));
        match py.detach(|| diolkos_switch::Relay::from_descriptors(a, b)) {
            Ok(inner) => Ok(Self { inner: Mutex::new(inner) }),
            Err(error) => Err(raise(&error)),
        }
    }

    /// Ends it when what is on the way has been forwarded. Returns at once.
    fn finish(&self, py: Python<'_>) {
        py.detach(|| self.inner.lock().finish());
    }

    /// Ends it now.
    fn stop(&self, py: Python<'_>) {
        py.detach(|| self.inner.lock().stop());
    }

    fn is_alive(&self, py: Python<'_>) -> bool {
        py.detach(|| self.inner.lock().is_alive())
    }
}

/// The backend tells shortages (by their number) from nonsense.
fn raise(error: &RelayError) -> PyErr {
    match error.errno() {
        Some(errno) => PyOSError::new_err((errno.raw_os_error(), error.to_string())),
        None => PyValueError::new_err(error.to_string()),
    }
}
