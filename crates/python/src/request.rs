// SPDX-License-Identifier: Apache-2.0
//! `Request`: a send, receive or connect under way.
//!
//! ```text
//!            wait, test, wait_any                    cancel
//!   Open  ---------------------------> Done       Open -----> Cancelled
//!     |   \--------------------------> Failed
//!     +-- dropped: the endpoint adopts the memory
//! ```
//!
//! One thread at a time may wait for a request; a second one is told so.

use std::time::Instant;

use diolkos::{Envelope, Error, PeerId, RequestId, Space, StatusCode};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::arguments;
use crate::buffer::Buffer;
use crate::endpoint::Endpoint;
use crate::errors;
use crate::lent::Lent;
use crate::lock::Mutex;
use crate::message::Message;
use crate::peer::Peer;
use crate::status::Status;
use crate::waiting;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Connect,
    Receive,
    Send,
}

enum State {
    Open { request: RequestId, lent: Lent, waited_for: bool },
    Done { status: diolkos::Status, received: Received },
    Failed { status: diolkos::Status, error: PyErr },
    Cancelled,
}

/// What a finished receive leaves besides its status.
enum Received {
    /// It went into a buffer of the program.
    Elsewhere,
    /// Memory of our own that nobody has asked for yet.
    Memory(Vec<u8>),
    Message(Py<Message>),
}

/// A send, receive or connect under way.
#[pyclass(frozen, module = "diolkos")]
pub struct Request {
    pub endpoint: Py<Endpoint>,
    kind: Kind,
    state: Mutex<State>,
}

impl Request {
    fn open(endpoint: &Bound<'_, Endpoint>, kind: Kind, request: RequestId, lent: Lent) -> Self {
        let state = Mutex::new(State::Open { request, lent, waited_for: false });
        Self { endpoint: endpoint.clone().unbind(), kind, state }
    }

    pub fn connecting(endpoint: &Bound<'_, Endpoint>, request: RequestId) -> Self {
        Self::open(endpoint, Kind::Connect, request, Lent::Nothing)
    }

    pub fn receiving(endpoint: &Bound<'_, Endpoint>, request: RequestId, lent: Lent) -> Self {
        Self::open(endpoint, Kind::Receive, request, lent)
    }

    pub fn sending(endpoint: &Bound<'_, Endpoint>, request: RequestId, buffer: Buffer) -> Self {
        Self::open(endpoint, Kind::Send, request, Lent::Buffer(buffer))
    }

    /// A send that was done at once.
    pub fn sent(
        endpoint: &Bound<'_, Endpoint>,
        dest: PeerId,
        envelope: &Envelope,
        len_bytes: u64,
    ) -> Self {
        let status = diolkos::Status {
            code: StatusCode::Success,
            source: dest,
            match_info: envelope.match_info,
            immediate: envelope.immediate,
            space: envelope.space,
            message_bytes: len_bytes,
            transferred_bytes: len_bytes,
        };
        let state = Mutex::new(State::Done { status, received: Received::Elsewhere });
        Self { endpoint: endpoint.clone().unbind(), kind: Kind::Send, state }
    }

    /// That this request is one of `endpoint`.
    pub fn require_endpoint(&self, endpoint: &Bound<'_, Endpoint>) -> PyResult<()> {
        if self.endpoint.as_ptr() == endpoint.as_ptr() {
            return Ok(());
        }
        Err(PyValueError::new_err("this request belongs to another endpoint"))
    }

    /// The core's name of the request, to wait for: until `stop_waiting` nobody else may.
    /// `None`: it has ended.
    pub fn start_waiting(&self, py: Python<'_>) -> PyResult<Option<RequestId>> {
        match &mut *self.state.lock() {
            State::Open { waited_for: true, .. } => {
                Err(errors::raise(py, "BusyError", "another thread waits for this request", None))
            }
            State::Open { request, waited_for, .. } => {
                *waited_for = true;
                Ok(Some(*request))
            }
            _ => Ok(None),
        }
    }

    pub fn stop_waiting(&self) {
        if let State::Open { waited_for, .. } = &mut *self.state.lock() {
            *waited_for = false;
        }
    }

    /// The core says how the request ended.
    pub fn finish(&self, py: Python<'_>, status: diolkos::Status) {
        let endpoint = self.endpoint.get();
        let mut error = match self.kind {
            Kind::Connect => None,
            Kind::Receive | Kind::Send => errors::failure(py, endpoint, &status),
        };
        let mut state = self.state.lock();
        let State::Open { request, .. } = *state else { return };
        if self.kind == Kind::Connect {
            error = endpoint
                .core
                .connected(request, &status)
                .err()
                .map(|error| errors::from_core(py, error));
        }
        let lent = match std::mem::replace(&mut *state, State::Cancelled) {
            State::Open { lent, .. } => lent,
            _ => Lent::Nothing,
        };
        let leftover = match error {
            Some(error) => {
                *state = State::Failed { status, error };
                Some(lent)
            }
            None => {
                let (received, leftover) = keep(self.kind, lent, &status);
                *state = State::Done { status, received };
                leftover
            }
        };
        drop(state);
        // Without the lock: letting go of an object may run any code.
        drop(leftover);
    }

    /// The request ended because its endpoint was closed.
    pub fn finish_closed(&self, py: Python<'_>) {
        let status = diolkos::Status {
            code: StatusCode::EndpointClosed,
            source: PeerId::SELF,
            match_info: 0,
            immediate: 0,
            space: Space::Tagged,
            message_bytes: 0,
            transferred_bytes: 0,
        };
        self.finish(py, status);
    }

    /// The status of a request that has ended; its exception when it failed.
    pub fn outcome(&self, py: Python<'_>) -> PyResult<Option<Status>> {
        match &*self.state.lock() {
            State::Open { .. } => Ok(None),
            State::Done { status, .. } => Ok(Some(Status::new(self.endpoint.bind(py), *status))),
            State::Failed { error, .. } => Err(error.clone_ref(py)),
            State::Cancelled => {
                Err(errors::raise(py, "Cancelled", "the request was cancelled", None))
            }
        }
    }

    /// The outcome after a wait that ended with an error of the core.
    pub fn after_error(&self, py: Python<'_>, error: Error) -> PyErr {
        if matches!(error, Error::Closed) {
            self.finish_closed(py);
        }
        errors::from_core(py, error)
    }

    /// Cancels, if it is not too late.
    pub fn cancel_now(&self, py: Python<'_>) -> PyResult<bool> {
        let mut state = self.state.lock();
        let State::Open { request, waited_for, .. } = &*state else { return Ok(false) };
        if *waited_for {
            drop(state);
            return Err(errors::raise(
                py,
                "BusyError",
                "another thread waits for this request; it cannot be cancelled now",
                None,
            ));
        }
        if self.kind == Kind::Send {
            // A send that was posted is under way: it is always too late.
            return Ok(false);
        }
        match self.endpoint.get().core.cancel(*request) {
            Ok(false) => Ok(false),
            Ok(true) => {
                let previous = std::mem::replace(&mut *state, State::Cancelled);
                drop(state);
                drop(previous);
                Ok(true)
            }
            Err(error) => {
                drop(state);
                Err(self.after_error(py, error))
            }
        }
    }
}

/// What stays of the memory of a request that ended well, and what goes.
fn keep(kind: Kind, lent: Lent, status: &diolkos::Status) -> (Received, Option<Lent>) {
    match lent {
        owned @ Lent::Owned(_) if kind == Kind::Receive => {
            // SAFETY: the receive into this memory has completed with this status.
            let data = unsafe { owned.received(status.transferred_bytes) };
            (data.map_or(Received::Elsewhere, Received::Memory), None)
        }
        other => (Received::Elsewhere, Some(other)),
    }
}

#[pymethods]
impl Request {
    #[pyo3(signature = (timeout = None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Status> {
        let deadline = arguments::deadline(timeout)?;
        if let Some(request) = self.start_waiting(py)? {
            let waited = self.wait_for(py, request, deadline);
            self.stop_waiting();
            waited?;
        }
        match self.outcome(py)? {
            Some(status) => Ok(status),
            None => Err(errors::timeout(py, "the request was not complete in time")),
        }
    }

    fn test(&self, py: Python<'_>) -> PyResult<Option<Status>> {
        let request = match &*self.state.lock() {
            State::Open { request, waited_for: false, .. } => Some(*request),
            State::Open { .. } => return Ok(None),
            _ => None,
        };
        if let Some(request) = request {
            match self.endpoint.get().core.test(request) {
                Ok(Some(status)) => self.finish(py, status),
                Ok(None) => return Ok(None),
                Err(error) => return Err(self.after_error(py, error)),
            }
        }
        self.outcome(py)
    }

    fn cancel(&self, py: Python<'_>) -> PyResult<bool> {
        self.cancel_now(py)
    }

    #[getter]
    fn done(&self) -> bool {
        !matches!(&*self.state.lock(), State::Open { .. })
    }

    #[getter]
    fn message(&self, py: Python<'_>) -> PyResult<Option<Py<Message>>> {
        let mut state = self.state.lock();
        let State::Done { status, received } = &mut *state else {
            return Err(PyValueError::new_err("the request has not ended well; wait for it"));
        };
        if let Received::Memory(data) = received {
            let data = std::mem::take(data);
            let message = Message::new(self.endpoint.bind(py), *status, data);
            *received = Received::Message(Py::new(py, message)?);
        }
        match received {
            Received::Message(message) => Ok(Some(message.clone_ref(py))),
            _ => Ok(None),
        }
    }

    #[getter]
    fn peer(&self, py: Python<'_>) -> Option<Peer> {
        match &*self.state.lock() {
            State::Done { status, .. } | State::Failed { status, .. } => {
                Some(Peer::new(self.endpoint.bind(py), status.source))
            }
            State::Open { .. } | State::Cancelled => None,
        }
    }

    fn __repr__(&self) -> String {
        let kind = match self.kind {
            Kind::Connect => "connect",
            Kind::Receive => "receive",
            Kind::Send => "send",
        };
        let state = match &*self.state.lock() {
            State::Open { .. } => "under way",
            State::Done { .. } => "done",
            State::Failed { .. } => "failed",
            State::Cancelled => "cancelled",
        };
        format!("<diolkos.Request {kind} {state}>")
    }
}

impl Request {
    /// Waits as long as the deadline allows and takes the result in, if there is one.
    fn wait_for(
        &self,
        py: Python<'_>,
        request: RequestId,
        deadline: Option<Instant>,
    ) -> PyResult<()> {
        let core = &self.endpoint.get().core;
        match waiting::complete(py, core, request, deadline) {
            Ok(Some(status)) => self.finish(py, status),
            Ok(None) => {}
            Err(error) => {
                if core.is_closed() {
                    self.finish_closed(py);
                }
                return Err(error);
            }
        }
        Ok(())
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let State::Open { request, lent, .. } =
            std::mem::replace(self.state.get_mut(), State::Cancelled)
        else {
            return;
        };
        let endpoint = self.endpoint.get();
        match self.kind {
            Kind::Send => endpoint.adopt(request, lent),
            Kind::Receive => crate::transfer::abandon(endpoint, request, lent),
            Kind::Connect => {
                let _ = endpoint.core.cancel(request);
                endpoint.core.forget(request);
            }
        }
    }
}
