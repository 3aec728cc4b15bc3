// SPDX-License-Identifier: Apache-2.0
//! `Status`: what became of a request, or what a probe saw.
//!
//! Most programs look at a status for a moment, if at all. Making an object for it and throwing it
//! away is a sixth of what a short message costs, so each endpoint keeps the last one that it gave
//! out, and when nobody else has kept it, it is filled in once more ([`Recycled`]).

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, Ordering};

use diolkos::StatusCode;
use pyo3::ffi;
use pyo3::prelude::*;

use crate::endpoint::Endpoint;
use crate::link::Link;
use crate::lock::Mutex;
use crate::peer::Peer;

/// What became of a message.
#[pyclass(frozen, module = "diolkos")]
pub struct Status {
    link: Link,
    /// Written only while nobody but [`Recycled`] has a reference to the object.
    status: UnsafeCell<diolkos::Status>,
}

// SAFETY: the cell is read by whoever has a reference, and written only when there is a single one,
// which the writer owns and uses under its lock.
unsafe impl Sync for Status {}

impl Status {
    /// The status as Python sees it.
    #[inline]
    pub fn new(endpoint: &Bound<'_, Endpoint>, status: diolkos::Status) -> Self {
        Self::linked(Link::to(endpoint), status)
    }

    /// As `new`, for things that only have a link to their endpoint.
    #[inline]
    pub fn linked(link: Link, status: diolkos::Status) -> Self {
        Self { link, status: UnsafeCell::new(status) }
    }

    /// The values.
    #[inline(always)]
    pub fn values(&self) -> diolkos::Status {
        // SAFETY: the caller has a reference to the object beside the one in `Recycled`, so
        // nobody writes.
        unsafe { *self.status.get() }
    }

    /// The endpoint that it came from.
    pub fn link(&self) -> &Link {
        &self.link
    }
}

/// The status that an endpoint gave out last.
#[derive(Default)]
pub struct Recycled(Mutex<Option<Py<Status>>>);

impl Recycled {
    /// A status object with these values: the last one if nobody has it any more, else a new one.
    #[inline(always)]
    pub fn status(
        &self,
        endpoint: &Bound<'_, Endpoint>,
        values: diolkos::Status,
    ) -> PyResult<Py<Status>> {
        let py = endpoint.py();
        if let Some(last) = self.0.try_lock()
            && let Some(last) = &*last
            && reference_count(py, last) == 1
            && REFERENCES_ARE_EXACT.load(Ordering::Relaxed)
        {
            // SAFETY: the only reference is ours and stays behind the lock, so nobody else can
            // read the cell or get at the object meanwhile.
            unsafe { *last.get().status.get() = values };
            return Ok(last.clone_ref(py));
        }
        self.replace(endpoint, values)
    }

    #[inline(never)]
    fn replace(
        &self,
        endpoint: &Bound<'_, Endpoint>,
        values: diolkos::Status,
    ) -> PyResult<Py<Status>> {
        let py = endpoint.py();
        let status = Py::new(py, Status::new(endpoint, values))?;
        let previous = self.0.lock().replace(status.clone_ref(py));
        // Without the lock: see `lock`.
        drop(previous);
        Ok(status)
    }
}

#[inline(always)]
fn reference_count(_py: Python<'_>, object: &Py<Status>) -> isize {
    // SAFETY: attached, and a live object.
    unsafe { ffi::Py_REFCNT(object.as_ptr()) }
}

/// Whether the count of an object's references can be believed: without an interpreter lock, other
/// threads may be about to change it.
static REFERENCES_ARE_EXACT: AtomicBool = AtomicBool::new(false);

/// Finds out about this interpreter, when the module is loaded.
pub fn prepare(py: Python<'_>) {
    let enabled = py.import("sys").and_then(|sys| sys.call_method0("_is_gil_enabled"));
    // Interpreters without the question always have the lock.
    let exact = enabled.and_then(|answer| answer.is_truthy()).unwrap_or(true);
    REFERENCES_ARE_EXACT.store(exact, Ordering::Relaxed);
}

#[pymethods]
impl Status {
    #[getter]
    fn source(&self, py: Python<'_>) -> Peer {
        Peer::linked(self.link.clone_ref(py), self.values().source)
    }

    #[getter]
    fn r#match(&self) -> u64 {
        self.values().match_info
    }

    #[getter]
    fn nbytes(&self) -> u64 {
        self.values().transferred_bytes
    }

    #[getter]
    fn message_nbytes(&self) -> u64 {
        self.values().message_bytes
    }

    #[getter]
    fn truncated(&self) -> bool {
        self.values().code == StatusCode::Truncated
    }

    #[getter]
    fn immediate(&self) -> u32 {
        self.values().immediate
    }

    #[getter]
    fn untagged(&self) -> bool {
        self.values().space == diolkos::Space::Untagged
    }

    #[getter]
    fn code(&self) -> &'static str {
        code_name(self.values().code)
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let status = self.values();
        format!(
            "<diolkos.Status {} from {}: match={:#x} nbytes={} message_nbytes={} immediate={}>",
            code_name(status.code),
            self.source(py).describe(py),
            status.match_info,
            status.transferred_bytes,
            status.message_bytes,
            status.immediate,
        )
    }
}

/// The word for a code.
fn code_name(code: StatusCode) -> &'static str {
    match code {
        StatusCode::Success => "success",
        StatusCode::Truncated => "truncated",
        StatusCode::Cancelled => "cancelled",
        StatusCode::EndpointClosed => "endpoint closed",
        StatusCode::PeerClosed => "peer closed",
        StatusCode::PeerDied => "peer died",
        StatusCode::PeerMisbehaved => "peer misbehaved",
        StatusCode::Refused => "refused",
        StatusCode::Denied => "denied",
        StatusCode::Revoked => "revoked",
        StatusCode::OutOfRange => "out of range",
        StatusCode::NoMemory => "no memory",
        _ => "unknown",
    }
}
