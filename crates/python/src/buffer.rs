// SPDX-License-Identifier: Apache-2.0
//! Memory of Python objects, by the buffer protocol, without a copy.
//!
//! A [`Buffer`] keeps its object alive and in place (a `bytearray` refuses to grow meanwhile) until
//! it is released. Only C-contiguous memory is taken: gathering would be a copy that nobody asked
//! for. Memory that holds references to objects is refused for receiving and for sending: bytes of
//! a peer must never become pointers here, and ours mean nothing there.

use std::ffi::{CStr, c_int};
use std::mem::MaybeUninit;

use diolkos::{Sink, Source};
use pyo3::exceptions::{PyBufferError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;

/// C-contiguous memory with its format; without a shape, some exporters refuse to tell the format.
const CONTIGUOUS: c_int = ffi::PyBUF_ND | ffi::PyBUF_FORMAT;

/// A view of an object's memory.
pub struct Buffer {
    /// Moved by assignment, as CPython itself does (`PyMemoryView_FromBuffer`); only the shape may
    /// point into the view, and nobody looks at it.
    view: ffi::Py_buffer,
}

// SAFETY: the view is only a record of addresses. The memory stays valid while the view is held,
// from any thread; the one call that needs the interpreter, the release, attaches first.
unsafe impl Send for Buffer {}
// SAFETY: as above; a shared reference only gives addresses.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// The memory of `object` for sending.
    #[inline]
    pub fn readable(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        Self::acquire(object, CONTIGUOUS)
    }

    /// The memory of `object` for receiving.
    #[inline]
    pub fn writable(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        Self::acquire(object, CONTIGUOUS | ffi::PyBUF_WRITABLE)
    }

    #[inline]
    fn acquire(object: &Bound<'_, PyAny>, flags: c_int) -> PyResult<Self> {
        let mut view = MaybeUninit::<ffi::Py_buffer>::uninit();
        // SAFETY: attached (a `Bound` proves it), a live object, and room for one view.
        let result = unsafe { ffi::PyObject_GetBuffer(object.as_ptr(), view.as_mut_ptr(), flags) };
        if result != 0 {
            return Err(explain(object, flags));
        }
        // SAFETY: filled in, as the call succeeded.
        let buffer = Self { view: unsafe { view.assume_init() } };
        if buffer.holds_references() {
            return Err(references());
        }
        Ok(buffer)
    }

    /// Whether the elements are pointers to Python objects: `O` in the format.
    #[inline(always)]
    fn holds_references(&self) -> bool {
        if self.view.format.is_null() {
            return false;
        }
        // SAFETY: a format that is not null is a C string that lives as long as the view.
        let format = unsafe { CStr::from_ptr(self.view.format) }.to_bytes();
        match format {
            [_] => format[0] == b'O',
            _ => names_objects(format),
        }
    }

    /// Length in bytes.
    #[inline(always)]
    pub fn len_bytes(&self) -> usize {
        // A length is never negative once the view was granted.
        self.view.len as usize
    }

    /// The memory, lent to a send.
    #[inline(always)]
    pub fn source(&self) -> Source {
        // SAFETY: the exporter keeps the memory valid until the view is released, and whoever
        // holds `self` keeps it until the request is complete (`lent`, rule 2 of the crate).
        unsafe { Source::from_raw(self.view.buf.cast::<u8>(), self.len_bytes()) }
    }

    /// The memory, lent to a receive. Only for a view made by [`Buffer::writable`].
    #[inline(always)]
    pub fn sink(&self) -> Sink {
        debug_assert!(self.view.readonly == 0);
        // SAFETY: as in `source`, and the exporter granted writing. That the program leaves the
        // memory alone meanwhile is its own affair: it would see a mixture, nothing worse.
        unsafe { Sink::from_raw(self.view.buf.cast::<u8>(), self.len_bytes()) }
    }

    /// Lets go of the object: as dropping, for callers that are attached anyway.
    #[inline(always)]
    pub fn release(mut self, _py: Python<'_>) {
        // SAFETY: attached, and released once: the drop is skipped.
        unsafe { ffi::PyBuffer_Release(&raw mut self.view) };
        std::mem::forget(self);
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: attached for the call, and the view is released once.
        Python::attach(|_| unsafe { ffi::PyBuffer_Release(&raw mut self.view) });
    }
}

/// Looks for an `O` in a format of several letters; names of fields stand between colons.
#[cold]
fn names_objects(format: &[u8]) -> bool {
    let mut in_name = false;
    for letter in format {
        match letter {
            b':' => in_name = !in_name,
            b'O' if !in_name => return true,
            _ => {}
        }
    }
    false
}

#[cold]
fn references() -> PyErr {
    PyTypeError::new_err(
        "the buffer holds references to Python objects, which mean nothing elsewhere; \
         send objects with send_object()",
    )
}

/// Why an object gave no buffer, with the way out. Takes the pending exception.
#[cold]
fn explain(object: &Bound<'_, PyAny>, flags: c_int) -> PyErr {
    let py = object.py();
    let refused = PyErr::fetch(py);
    let kind = object.get_type().name().map_or_else(|_| "object".into(), |n| n.to_string());
    let mut view = MaybeUninit::<ffi::Py_buffer>::uninit();
    // SAFETY: attached, a live object, and room for one view.
    let got =
        unsafe { ffi::PyObject_GetBuffer(object.as_ptr(), view.as_mut_ptr(), ffi::PyBUF_FULL_RO) };
    if got != 0 {
        drop(PyErr::fetch(py));
        if refused.is_instance_of::<PyTypeError>(py) {
            return PyTypeError::new_err(format!(
                "a buffer is needed (bytes, bytearray, memoryview, a NumPy array, ...), not \
                 {kind}; objects travel with send_object()"
            ));
        }
        return refused;
    }
    // SAFETY: filled in, as the call succeeded; released below, once.
    let (contiguous, readonly) = unsafe {
        let view = view.assume_init_mut();
        let contiguous = ffi::PyBuffer_IsContiguous(view, b'C' as std::ffi::c_char) != 0;
        let readonly = view.readonly != 0;
        ffi::PyBuffer_Release(view);
        (contiguous, readonly)
    };
    if !contiguous {
        return PyBufferError::new_err(format!(
            "the memory of this {kind} is not C-contiguous; pass a contiguous copy, such as \
             numpy.ascontiguousarray(a)"
        ));
    }
    if readonly && flags & ffi::PyBUF_WRITABLE != 0 {
        return PyBufferError::new_err(format!(
            "this {kind} is read-only; a bytearray or a writable array is needed here"
        ));
    }
    refused
}
