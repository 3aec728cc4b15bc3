// SPDX-License-Identifier: Apache-2.0
//! `MultiReceive`: one large buffer that takes many small messages.

use std::time::Instant;

use diolkos::{Error, MultiEvent, RequestId, Selector, StatusCode};
use pyo3::prelude::*;
use pyo3::types::{PyMemoryView, PySlice};

use crate::arguments;
use crate::buffer::Buffer;
use crate::endpoint::Endpoint;
use crate::errors;
use crate::lent::Lent;
use crate::lock::Mutex;
use crate::orphans;
use crate::status::Status;
use crate::waiting;

enum State {
    Posted { request: RequestId, lent: Lent },
    Released,
}

/// A buffer that stays posted until it is nearly full.
#[pyclass(frozen, module = "diolkos")]
pub struct MultiReceive {
    endpoint: Py<Endpoint>,
    buffer: Py<PyAny>,
    state: Mutex<State>,
}

/// A message in a buffer posted with `multi_recv`.
#[pyclass(frozen, get_all, module = "diolkos")]
pub struct Delivery {
    offset: usize,
    status: Py<Status>,
    /// A view of the message's part of the buffer.
    data: Py<PyAny>,
}

impl MultiReceive {
    pub fn post(
        endpoint: &Bound<'_, Endpoint>,
        object: &Bound<'_, PyAny>,
        min_free: usize,
        selector: &Selector,
    ) -> PyResult<Self> {
        let this = endpoint.get();
        this.reap();
        let mut lent = Lent::Buffer(Buffer::writable(object)?);
        let request = this
            .core
            .post_multi(lent.sink(), min_free, selector)
            .map_err(|error| errors::from_core(endpoint.py(), error))?;
        Ok(Self {
            endpoint: endpoint.clone().unbind(),
            buffer: object.clone().unbind(),
            state: Mutex::new(State::Posted { request, lent }),
        })
    }

    fn request(&self) -> Option<RequestId> {
        match &*self.state.lock() {
            State::Posted { request, .. } => Some(*request),
            State::Released => None,
        }
    }

    /// What an event means for the program; `None`: the buffer is the program's again.
    fn take(&self, py: Python<'_>, event: MultiEvent) -> PyResult<Option<Delivery>> {
        match event {
            MultiEvent::Nothing => Ok(None),
            MultiEvent::Delivery { offset, status } => {
                let endpoint = self.endpoint.bind(py);
                if let Some(error) = errors::failure(py, endpoint.get(), &status) {
                    return Err(error);
                }
                let data = self.part(py, offset, status.transferred_bytes)?;
                let status = Py::new(py, Status::new(endpoint, status))?;
                Ok(Some(Delivery { offset, status, data }))
            }
            MultiEvent::Released(code) => {
                self.release();
                match code {
                    StatusCode::Success | StatusCode::Cancelled => Ok(None),
                    StatusCode::EndpointClosed => Err(errors::from_core(py, Error::Closed)),
                    code => Err(errors::from_core(py, Error::PeerGone(code))),
                }
            }
        }
    }

    fn part(&self, py: Python<'_>, offset: usize, len_bytes: u64) -> PyResult<Py<PyAny>> {
        let view = PyMemoryView::from(self.buffer.bind(py))?.call_method1("cast", ("B",))?;
        let end = offset + len_bytes as usize;
        let part = PySlice::new(py, offset as isize, end as isize, 1);
        Ok(view.get_item(part)?.unbind())
    }

    fn release(&self) {
        let previous = std::mem::replace(&mut *self.state.lock(), State::Released);
        // Without the lock: letting go of an object may run any code.
        drop(previous);
    }

    fn wait(&self, py: Python<'_>, deadline: Option<Instant>) -> PyResult<Option<MultiEvent>> {
        let Some(request) = self.request() else { return Ok(None) };
        let core = &self.endpoint.get().core;
        let raise = |error| {
            if matches!(error, Error::Closed) {
                self.release();
            }
            errors::from_core(py, error)
        };
        let event = match core.poll_multi(request).map_err(raise)? {
            MultiEvent::Nothing => {
                let wait = |until| core.wait_multi(request, Some(until));
                waiting::in_slices(py, deadline, wait)?
            }
            event => Some(event),
        };
        match event {
            Some(event) => Ok(Some(event)),
            None => Err(errors::timeout(py, "no such message came in time")),
        }
    }
}

#[pymethods]
impl MultiReceive {
    #[pyo3(signature = (timeout = None))]
    fn next(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<Delivery>> {
        match self.wait(py, arguments::deadline(timeout)?)? {
            Some(event) => self.take(py, event),
            None => Ok(None),
        }
    }

    fn poll(&self, py: Python<'_>) -> PyResult<Option<Delivery>> {
        let Some(request) = self.request() else { return Ok(None) };
        match self.endpoint.get().core.poll_multi(request) {
            Ok(event) => self.take(py, event),
            Err(error) => Err(errors::from_core(py, error)),
        }
    }

    /// Takes no more messages; those under way still come, then the buffer is released.
    fn cancel(&self, py: Python<'_>) -> PyResult<()> {
        let Some(request) = self.request() else { return Ok(()) };
        match self.endpoint.get().core.cancel(request) {
            Ok(_) => Ok(()),
            Err(error) => Err(errors::from_core(py, error)),
        }
    }

    #[getter]
    fn released(&self) -> bool {
        self.request().is_none()
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Delivery>> {
        self.next(py, None)
    }

    fn __repr__(&self) -> String {
        let state = if self.released() { "released" } else { "posted" };
        format!("<diolkos.MultiReceive {state}>")
    }
}

#[pymethods]
impl Delivery {
    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let status = self.status.bind(py).repr()?;
        Ok(format!("<diolkos.Delivery at {}: {status}>", self.offset))
    }
}

impl Drop for MultiReceive {
    fn drop(&mut self) {
        let state = std::mem::replace(self.state.get_mut(), State::Released);
        if let State::Posted { request, lent } = state {
            let endpoint = self.endpoint.get();
            // Whatever it answers, the orphan is kept until the core lets go.
            let _ = endpoint.core.cancel(request);
            endpoint.adopt(request, orphans::Kind::Multi, lent);
        }
    }
}
