// SPDX-License-Identifier: Apache-2.0
//! `Loan`: memory of a peer, to look at until it is let go; and the calls that lend and borrow.

use std::ffi::{c_int, c_void};
use std::time::Instant;

use diolkos::{Envelope, PeerId, ReceivedLoan, RequestId, Selector, Space};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::{PyBufferError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyMemoryView, PyTuple};

use crate::buffer::Buffer;
use crate::endpoint::Endpoint;
use crate::errors;
use crate::layout::{self, Element, Layout, Scalar};
use crate::lent::Lent;
use crate::link::Link;
use crate::lock::Mutex;
use crate::memory;
use crate::orphans;
use crate::peer::Peer;
use crate::request::Request;
use crate::transfer;
use crate::waiting;

/// Memory that a peer has lent: a read-only buffer with a shape.
#[pyclass(frozen, weakref, module = "diolkos")]
pub struct Loan {
    link: Link,
    status: diolkos::Status,
    layout: Layout,
    base: *mut c_void,
    copied: bool,
    state: Mutex<State>,
}

struct State {
    /// Gone once it was released and no view is left.
    loan: Option<diolkos::Loan>,
    /// Views that have not been released.
    views: usize,
    released: bool,
}

// SAFETY: `base` is an address in memory that `state` holds, valid from any thread; it is handed out
// by the buffer protocol only, which counts who uses it.
unsafe impl Send for Loan {}
// SAFETY: as above.
unsafe impl Sync for Loan {}

impl Loan {
    /// The loan of a receive that has ended well, as a row of bytes.
    pub fn bytes(link: Link, status: diolkos::Status, loan: diolkos::Loan) -> Self {
        let layout = Layout::bytes(loan.len_bytes());
        Self::laid_out(link, status, loan, layout)
    }

    #[inline]
    fn laid_out(link: Link, status: diolkos::Status, loan: diolkos::Loan, layout: Layout) -> Self {
        debug_assert!(layout.len_bytes() == loan.len_bytes());
        Self {
            link,
            status,
            layout,
            base: loan.source().base().cast_mut().cast(),
            copied: loan.is_copied(),
            state: Mutex::new(State { loan: Some(loan), views: 0, released: false }),
        }
    }

    /// Takes the loan out, to be dropped by the caller, if nothing holds it any more.
    fn last(state: &mut State) -> Option<diolkos::Loan> {
        if state.released && state.views == 0 { state.loan.take() } else { None }
    }
}

#[cold]
fn was_released() -> PyErr {
    PyValueError::new_err("the loan was released; copy what you need before that")
}

#[pymethods]
impl Loan {
    /// Lets no more views be made; the loan goes back when the last one has gone.
    fn release(&self) {
        let loan = {
            let mut state = self.state.lock();
            state.released = true;
            Self::last(&mut state)
        };
        drop(loan);
    }

    /// The same loan with elements and a shape; this object has it no more.
    #[pyo3(
        signature = (dtype = None, shape = None),
        text_signature = "($self, dtype='u1', shape=None)"
    )]
    fn shaped(
        &self,
        py: Python<'_>,
        dtype: Option<&Bound<'_, PyAny>>,
        shape: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let layout = Element::named(dtype)
            .and_then(|element| Layout::filling(self.layout.len_bytes(), shape, element));
        let (taken, viewed) = {
            let mut state = self.state.lock();
            let viewed = state.views > 0;
            let free = !viewed && !state.released;
            state.released |= free;
            (if free { state.loan.take() } else { None }, viewed)
        };
        let loan = match taken {
            Some(loan) => loan,
            None if viewed => return Err(PyBufferError::new_err("the loan has views")),
            None => return Err(was_released()),
        };
        // One that does not fit goes back here.
        Ok(Self::laid_out(self.link.clone_ref(py), self.status, loan, layout?))
    }

    #[getter]
    fn released(&self) -> bool {
        self.state.lock().released
    }

    #[getter]
    fn copied(&self) -> bool {
        self.copied
    }

    #[getter]
    fn nbytes(&self) -> usize {
        self.layout.len_bytes()
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
    fn immediate(&self) -> u32 {
        self.status.immediate
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, _exception: &Bound<'_, PyTuple>) {
        self.release();
    }

    fn __len__(&self) -> usize {
        self.layout.len()
    }

    /// As `memoryview(loan)[index]`; quicker for a plain number of a row.
    fn __getitem__<'py>(
        slf: &Bound<'py, Self>,
        index: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let this = slf.get();
        let scalar = index.extract::<isize>().ok().and_then(|index| {
            let state = this.state.lock();
            let there = state.loan.is_some() && !state.released;
            // SAFETY: the loan is held while the lock is, and has as many bytes as the layout.
            there.then(|| unsafe { this.layout.scalar(this.base, index) }).flatten()
        });
        match scalar {
            Some(Scalar::Unsigned(value)) => value.into_bound_py_any(py),
            Some(Scalar::Signed(value)) => value.into_bound_py_any(py),
            Some(Scalar::Float(value)) => value.into_bound_py_any(py),
            None => PyMemoryView::from(slf.as_any())?.get_item(index),
        }
    }

    /// NumPy asks here when it was refused a view, and would hide why.
    #[pyo3(signature = (dtype = None, copy = None))]
    fn __array__<'py>(
        slf: &Bound<'py, Self>,
        dtype: Option<&Bound<'py, PyAny>>,
        copy: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        memory::array_of(slf.as_any(), dtype, copy)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let copied = if self.copied { " copied" } else { "" };
        let released = if self.released() { " released" } else { "" };
        Ok(format!(
            "<diolkos.Loan of {} bytes from {}: match={:#x} shape={} \
             format={:?}{copied}{released}>",
            self.nbytes(),
            self.source(py).describe(py),
            self.status.match_info,
            self.layout.shape(py)?.repr()?,
            self.layout.format(),
        ))
    }

    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        let loan = slf.get();
        if let Some(why) = loan.layout.refuses(flags, true) {
            return Err(layout::refused(why));
        }
        let there = {
            let mut state = loan.state.lock();
            let there = state.loan.is_some() && !state.released;
            state.views += usize::from(there);
            there
        };
        if !there {
            return Err(was_released());
        }
        // SAFETY: attached, and the caller's view; the layout lies in the object, which does not
        // move. The loan has as many bytes as the layout, and is held while there are views.
        unsafe { loan.layout.fill(view, flags, slf.as_ptr(), loan.base, true) };
        Ok(())
    }

    unsafe fn __releasebuffer__(&self, _view: *mut ffi::Py_buffer) {
        let loan = {
            let mut state = self.state.lock();
            state.views -= 1;
            Self::last(&mut state)
        };
        drop(loan);
    }
}

/// Lends memory; the request is complete when it is back.
#[inline]
pub fn lend(
    endpoint: &Bound<'_, Endpoint>,
    buffer: Buffer,
    peer: PeerId,
    envelope: &Envelope,
) -> PyResult<Request> {
    let (py, this) = (endpoint.py(), endpoint.get());
    this.reap();
    if !this.core.is_lendable(&buffer.source()) {
        return Err(not_lendable(py, this));
    }
    match this.core.lend(buffer.source(), peer, envelope) {
        Ok(request) => Ok(Request::lending(endpoint, request, buffer)),
        Err(error) => Err(errors::from_core(py, error)),
    }
}

#[cold]
fn not_lendable(py: Python<'_>, endpoint: &Endpoint) -> PyErr {
    let usable = [
        (endpoint.core.is_forked(), diolkos::Error::Forked),
        (endpoint.core.is_closed(), diolkos::Error::Closed),
    ];
    for (unusable, error) in usable {
        if unusable {
            return errors::from_core(py, error);
        }
    }
    PyValueError::new_err(
        "only memory that this endpoint has allocated can be lent: make it with ep.alloc(...), or \
         send() a copy",
    )
}

/// What a loan shall look like.
#[derive(Default)]
pub struct Wanted<'a, 'py> {
    pub dtype: Option<&'a Bound<'py, PyAny>>,
    pub shape: Option<&'a Bound<'py, PyAny>>,
}

impl Wanted<'_, '_> {
    #[inline(always)]
    fn loan(
        &self,
        endpoint: &Bound<'_, Endpoint>,
        element: Element,
        status: diolkos::Status,
        loan: diolkos::Loan,
    ) -> PyResult<Loan> {
        let len_bytes = loan.len_bytes();
        let layout = match (self.dtype, self.shape) {
            (None, None) => Layout::bytes(len_bytes),
            // One that does not fit goes back when `loan` is dropped.
            _ => Layout::filling(len_bytes, self.shape, element)?,
        };
        Ok(Loan::laid_out(Link::to(endpoint), status, loan, layout))
    }
}

/// Receives a loan and waits.
#[inline]
pub fn recv(
    endpoint: &Bound<'_, Endpoint>,
    selector: &Selector,
    wanted: &Wanted<'_, '_>,
    deadline: Option<Instant>,
) -> PyResult<Loan> {
    let (py, this) = (endpoint.py(), endpoint.get());
    // First, so that a name that nobody knows costs no loan.
    let element = Element::named(wanted.dtype)?;
    this.reap();
    let (status, loan) = match this.core.receive_loan(selector, waiting::SPIN) {
        Ok(ReceivedLoan::Done(status, loan)) => (status, loan),
        Ok(ReceivedLoan::Pending(request)) => finish(endpoint, request, deadline)?,
        Err(error) => return Err(errors::from_core(py, error)),
    };
    match (errors::failure(py, this, &status), loan) {
        (None, Some(loan)) => wanted.loan(endpoint, element, status, loan),
        (Some(error), _) => Err(error),
        (None, None) => Err(errors::from_core(py, diolkos::Error::Closed)),
    }
}

/// Waits on for a loan that was not there at once.
#[cold]
#[inline(never)]
fn finish(
    endpoint: &Bound<'_, Endpoint>,
    request: RequestId,
    deadline: Option<Instant>,
) -> PyResult<(diolkos::Status, Option<diolkos::Loan>)> {
    let (py, this) = (endpoint.py(), endpoint.get());
    let status =
        match waiting::in_slices(py, deadline, |until| this.core.wait(request, Some(until))) {
            Ok(Some(status)) => status,
            Ok(None) => transfer::late(endpoint, request, orphans::Kind::Loan, Lent::Nothing)?.0,
            Err(error) => {
                transfer::abandon(this, request, orphans::Kind::Loan, Lent::Nothing);
                return Err(error);
            }
        };
    let loan = this.core.take_loan(request).map_err(|error| errors::from_core(py, error))?;
    Ok((status, loan))
}

/// Posts a receive for a loan.
pub fn irecv(endpoint: &Bound<'_, Endpoint>, selector: &Selector) -> PyResult<Request> {
    let this = endpoint.get();
    this.reap();
    match this.core.irecv_loan(selector) {
        Ok(request) => Ok(Request::borrowing(endpoint, request)),
        Err(error) => Err(errors::from_core(endpoint.py(), error)),
    }
}

/// A loan that is here: itself, or its request while a copy of it is on its way.
pub fn try_recv(
    endpoint: &Bound<'_, Endpoint>,
    selector: &Selector,
) -> PyResult<Option<Py<PyAny>>> {
    if !is_here(endpoint, selector)? {
        return Ok(None);
    }
    let (py, request) = (endpoint.py(), irecv(endpoint, selector)?);
    if request.test_now(py)? {
        return Ok(request.take_loan(py).map(Py::into_any));
    }
    Ok(Some(Py::new(py, request)?.into_any()))
}

/// Whether there is a loan without a receive.
pub fn is_here(endpoint: &Bound<'_, Endpoint>, selector: &Selector) -> PyResult<bool> {
    let selector = Selector { space: Space::Lent, ..*selector };
    let found = endpoint.get().core.iprobe(&selector);
    let found = found.map_err(|error| errors::from_core(endpoint.py(), error))?;
    Ok(found.is_some())
}
