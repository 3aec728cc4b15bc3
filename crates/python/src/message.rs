// SPDX-License-Identifier: Apache-2.0
//! `Message`: a received message in memory of its own.

use std::ffi::{c_int, c_void};

use diolkos::StatusCode;
use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::buffer::Buffer;
use crate::endpoint::Endpoint;
use crate::link::Link;
use crate::peer::Peer;
use crate::status::Status;

/// A message that belongs to the program: a writable buffer that knows where it came from.
#[pyclass(frozen, module = "diolkos")]
pub struct Message {
    link: Link,
    status: diolkos::Status,
    /// Address and length of memory allocated as a `Vec`, which this object owns. Kept apart
    /// because views of Python may write to it while we hold `&self`.
    base: *mut u8,
    len_bytes: usize,
    capacity: usize,
}

// SAFETY: the memory is owned and stays in place until the object dies; all access through Python's
// buffer protocol is as synchronised as for any other exporter (not at all, by convention).
unsafe impl Send for Message {}
// SAFETY: as above.
unsafe impl Sync for Message {}

impl Message {
    /// A message out of its memory.
    pub fn new(endpoint: &Bound<'_, Endpoint>, status: diolkos::Status, data: Vec<u8>) -> Self {
        Self::linked(Link::to(endpoint), status, data)
    }

    fn linked(link: Link, status: diolkos::Status, data: Vec<u8>) -> Self {
        let mut data = std::mem::ManuallyDrop::new(data);
        Self {
            link,
            status,
            base: data.as_mut_ptr(),
            len_bytes: data.len(),
            capacity: data.capacity(),
        }
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        // SAFETY: these are the parts of the vector that `new` took apart; every view that was
        // exported held a reference to this object, so none is left.
        drop(unsafe { Vec::from_raw_parts(self.base, self.len_bytes, self.capacity) });
    }
}

#[pymethods]
impl Message {
    #[getter]
    fn status(&self, py: Python<'_>) -> Status {
        Status::linked(self.link.clone_ref(py), self.status)
    }

    #[getter]
    fn source(&self, py: Python<'_>) -> Peer {
        Peer::linked(self.link.clone_ref(py), self.status.source)
    }

    #[getter]
    fn r#match(&self) -> u64 {
        self.status.match_info
    }

    #[getter]
    fn nbytes(&self) -> usize {
        self.len_bytes
    }

    #[getter]
    fn immediate(&self) -> u32 {
        self.status.immediate
    }

    /// As if it was received into `buffer` now: for messages that a cancelled receive left.
    fn copy_into(&self, buffer: &Bound<'_, PyAny>) -> PyResult<Status> {
        let py = buffer.py();
        let buffer = Buffer::writable(buffer)?;
        // SAFETY: the memory is valid for `len_bytes` and read before this call ends.
        let own = unsafe { diolkos::Source::from_raw(self.base, self.len_bytes) };
        let copied = own.copy_to(&buffer.sink());
        buffer.release(py);
        let mut status = self.status;
        status.transferred_bytes = copied as u64;
        if copied < self.len_bytes {
            status.code = StatusCode::Truncated;
        }
        Ok(Status::linked(self.link.clone_ref(py), status))
    }

    /// A message of what a receive left in `buffer`.
    #[staticmethod]
    fn kept(buffer: &Bound<'_, PyAny>, status: &Bound<'_, Status>) -> PyResult<Self> {
        let py = buffer.py();
        let buffer = Buffer::readable(buffer)?;
        let mut data = buffer.source().to_vec();
        buffer.release(py);
        let link = status.get().link().clone_ref(py);
        let status = status.get().values();
        data.truncate(usize::try_from(status.transferred_bytes).unwrap_or(usize::MAX));
        Ok(Self::linked(link, status, data))
    }

    fn __len__(&self) -> usize {
        self.len_bytes
    }

    fn __bytes__<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        // SAFETY: the memory is valid for `len_bytes`, and the copy is made at once.
        PyBytes::new(py, unsafe { std::slice::from_raw_parts(self.base, self.len_bytes) })
    }

    fn __eq__(&self, other: Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let py = other.py();
        let Ok(buffer) = Buffer::readable(&other) else {
            return Ok(py.NotImplemented());
        };
        // SAFETY: the memory is valid for `len_bytes`; the slice ends with this statement.
        let own = unsafe { std::slice::from_raw_parts(self.base, self.len_bytes) };
        let same = buffer.len_bytes() == own.len() && buffer.source().to_vec() == own;
        buffer.release(py);
        Ok(same.into_pyobject(py)?.to_owned().into_any().unbind())
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let source = self.source(py).describe(py);
        format!(
            "<diolkos.Message of {} bytes from {source}: match={:#x}>",
            self.len_bytes, self.status.match_info
        )
    }

    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        let message = slf.get();
        let Ok(len) = isize::try_from(message.len_bytes) else {
            return Err(PyBufferError::new_err("the message is too long for a buffer"));
        };
        let base = message.base.cast::<c_void>();
        // SAFETY: `view` is the caller's to fill in; the memory lives as long as the object, to
        // which the filled-in view holds a reference.
        let result = unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), base, len, 0, flags) };
        if result == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}
