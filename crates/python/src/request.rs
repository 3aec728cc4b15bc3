// SPDX-License-Identifier: Apache-2.0
//! `Request`: a send, receive, connect, loan or operation under way.
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
use crate::link::Link;
use crate::loan::Loan;
use crate::lock::Mutex;
use crate::message::Message;
use crate::orphans;
use crate::peer::Peer;
use crate::status::Status;
use crate::transfer::abandon;
use crate::waiting;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Connect,
    Receive,
    Send,
    /// Memory of ours that a peer has.
    Lend,
    /// A receive for a loan.
    Borrow,
    /// An operation on a region of a peer.
    Operation,
}

/// What a request leaves beside its status.
enum Left {
    Nothing,
    /// Of a receive into memory of its own.
    Message(Py<Message>),
    Loan(Py<Loan>),
}

enum State {
    Open {
        request: RequestId,
        lent: Lent,
        waited_for: bool,
    },
    /// Complete; its result is being made, which must not happen under the lock.
    Ending,
    Done {
        status: diolkos::Status,
        left: Left,
    },
    Failed {
        status: diolkos::Status,
        error: PyErr,
    },
    Cancelled,
}

impl State {
    fn failed(py: Python<'_>, status: diolkos::Status, error: PyErr) -> Self {
        // Made into an object now: later it is copied under the lock.
        let _ = error.value(py);
        Self::Failed { status, error }
    }
}

/// Whether a caller may wait for a request.
enum Reserved {
    Yes(RequestId),
    /// Another thread does.
    Busy,
    Ended,
}

/// A send, receive, connect, loan or operation under way.
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

    pub fn lending(endpoint: &Bound<'_, Endpoint>, request: RequestId, buffer: Buffer) -> Self {
        Self::open(endpoint, Kind::Lend, request, Lent::Buffer(buffer))
    }

    pub fn borrowing(endpoint: &Bound<'_, Endpoint>, request: RequestId) -> Self {
        Self::open(endpoint, Kind::Borrow, request, Lent::Nothing)
    }

    pub fn operating(endpoint: &Bound<'_, Endpoint>, request: RequestId, lent: Lent) -> Self {
        Self::open(endpoint, Kind::Operation, request, lent)
    }

    /// An operation that was done at once.
    pub fn operated(endpoint: &Bound<'_, Endpoint>, status: diolkos::Status) -> Self {
        let state = Mutex::new(State::Done { status, left: Left::Nothing });
        Self { endpoint: endpoint.clone().unbind(), kind: Kind::Operation, state }
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
        let state = Mutex::new(State::Done { status, left: Left::Nothing });
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
        match self.reserve() {
            Reserved::Yes(request) => Ok(Some(request)),
            Reserved::Ended => Ok(None),
            Reserved::Busy => {
                let why = "another thread waits for this request";
                Err(errors::raise(py, "BusyError", why, None))
            }
        }
    }

    fn reserve(&self) -> Reserved {
        match &mut *self.state.lock() {
            State::Open { waited_for: true, .. } | State::Ending => Reserved::Busy,
            State::Open { request, waited_for, .. } => {
                *waited_for = true;
                Reserved::Yes(*request)
            }
            State::Done { .. } | State::Failed { .. } | State::Cancelled => Reserved::Ended,
        }
    }

    /// The status, if the core has it and there is nothing to make of it: the quick end of a send or
    /// a loan that is complete already.
    #[inline]
    fn ended_well(&self) -> Option<diolkos::Status> {
        if !matches!(self.kind, Kind::Send | Kind::Lend | Kind::Operation) {
            return None;
        }
        let (status, lent) = {
            let mut state = self.state.lock();
            let State::Open { request, waited_for: false, .. } = *state else { return None };
            let status = self.endpoint.get().core.test_success(request)?;
            let done = State::Done { status, left: Left::Nothing };
            (status, std::mem::replace(&mut *state, done))
        };
        drop(lent);
        Some(status)
    }

    pub fn stop_waiting(&self) {
        if let State::Open { waited_for, .. } = &mut *self.state.lock() {
            *waited_for = false;
        }
    }

    /// The core says how the request ended. Called once for each, by whoever learnt it.
    pub fn finish(&self, py: Python<'_>, status: diolkos::Status) {
        let endpoint = self.endpoint.bind(py);
        let open = std::mem::replace(&mut *self.state.lock(), State::Ending);
        let (next, leftover) = match open {
            State::Open { request, lent, .. } => match self.failure(py, request, &status) {
                Some(error) => {
                    // Memory that was meant for a copy of a loan, if any.
                    drop(self.borrowed(request));
                    (State::failed(py, status, error), Some(lent))
                }
                None => match self.received(endpoint, request, lent, &status) {
                    Ok((left, leftover)) => (State::Done { status, left }, leftover),
                    Err(error) => (State::failed(py, status, error), None),
                },
            },
            ended => (ended, None),
        };
        *self.state.lock() = next;
        drop(leftover);
    }

    fn failure(
        &self,
        py: Python<'_>,
        request: RequestId,
        status: &diolkos::Status,
    ) -> Option<PyErr> {
        let endpoint = self.endpoint.get();
        match self.kind {
            Kind::Connect => {
                let connected = endpoint.core.connected(request, status);
                connected.err().map(|error| errors::from_core(py, error))
            }
            _ => errors::failure(py, endpoint, status),
        }
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
        let status = match &*self.state.lock() {
            State::Open { .. } | State::Ending => return Ok(None),
            State::Done { status, .. } => Some(*status),
            State::Failed { error, .. } => return Err(error.clone_ref(py)),
            State::Cancelled => None,
        };
        match status {
            Some(status) => Ok(Some(Status::new(self.endpoint.bind(py), status))),
            None => Err(errors::raise(py, "Cancelled", "the request was cancelled", None)),
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
        if matches!(self.kind, Kind::Send | Kind::Lend | Kind::Operation) {
            // What was posted is under way: it is always too late.
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

impl Request {
    /// What a request that ended well leaves: a message, if it went into memory of its own, or a loan;
    /// and the memory that can go.
    fn received(
        &self,
        endpoint: &Bound<'_, Endpoint>,
        request: RequestId,
        lent: Lent,
        status: &diolkos::Status,
    ) -> PyResult<(Left, Option<Lent>)> {
        let py = endpoint.py();
        if self.kind == Kind::Borrow {
            let Some(loan) = self.borrowed(request) else {
                return Err(errors::from_core(py, Error::Closed));
            };
            let loan = Loan::bytes(Link::to(endpoint), *status, loan);
            return Ok((Left::Loan(Py::new(py, loan)?), None));
        }
        if !matches!(lent, Lent::Owned(_)) {
            return Ok((Left::Nothing, Some(lent)));
        }
        // SAFETY: the receive into this memory has completed with this status.
        let data = unsafe { lent.received(status.transferred_bytes) }.unwrap_or_default();
        let message = Message::new(endpoint, *status, data);
        Ok((Left::Message(Py::new(py, message)?), None))
    }

    /// The core's loan, if this is a receive for one that has ended.
    fn borrowed(&self, request: RequestId) -> Option<diolkos::Loan> {
        if self.kind != Kind::Borrow {
            return None;
        }
        self.endpoint.get().core.take_loan(request).ok().flatten()
    }
}

#[pymethods]
impl Request {
    #[pyo3(signature = (timeout = None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Status> {
        if let Some(status) = self.ended_well() {
            return Ok(Status::new(self.endpoint.bind(py), status));
        }
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
        self.look(py)?;
        self.outcome(py)
    }

    fn cancel(&self, py: Python<'_>) -> PyResult<bool> {
        self.cancel_now(py)
    }

    #[getter]
    fn done(&self) -> bool {
        !matches!(&*self.state.lock(), State::Open { .. } | State::Ending)
    }

    #[getter]
    fn message(&self, py: Python<'_>) -> PyResult<Option<Py<Message>>> {
        match &*self.state.lock() {
            State::Done { left: Left::Message(message), .. } => Ok(Some(message.clone_ref(py))),
            State::Done { .. } => Ok(None),
            _ => Err(not_well()),
        }
    }

    #[getter]
    fn loan(&self, py: Python<'_>) -> PyResult<Option<Py<Loan>>> {
        match &*self.state.lock() {
            State::Done { left: Left::Loan(loan), .. } => Ok(Some(loan.clone_ref(py))),
            State::Done { .. } => Ok(None),
            _ => Err(not_well()),
        }
    }

    #[getter]
    fn peer(&self, py: Python<'_>) -> Option<Peer> {
        let source = match &*self.state.lock() {
            State::Done { status, .. } | State::Failed { status, .. } => status.source,
            State::Open { .. } | State::Ending | State::Cancelled => return None,
        };
        Some(Peer::new(self.endpoint.bind(py), source))
    }

    fn __repr__(&self) -> String {
        let kind = match self.kind {
            Kind::Connect => "connect",
            Kind::Receive => "receive",
            Kind::Send => "send",
            Kind::Lend => "lend",
            Kind::Borrow => "loan receive",
            Kind::Operation => "operation",
        };
        let state = match &*self.state.lock() {
            State::Open { .. } | State::Ending => "under way",
            State::Done { .. } => "done",
            State::Failed { .. } => "failed",
            State::Cancelled => "cancelled",
        };
        format!("<diolkos.Request {kind} {state}>")
    }
}

#[cold]
fn not_well() -> PyErr {
    PyValueError::new_err("the request has not ended well; wait for it")
}

impl Request {
    /// Makes progress and takes the result in, if there is one.
    fn look(&self, py: Python<'_>) -> PyResult<()> {
        if let Reserved::Yes(request) = self.reserve() {
            match self.endpoint.get().core.test(request) {
                Ok(Some(status)) => self.finish(py, status),
                Ok(None) => self.stop_waiting(),
                Err(error) => {
                    self.stop_waiting();
                    return Err(self.after_error(py, error));
                }
            }
        }
        Ok(())
    }

    /// As the Python method, for those who want no status: whether it has ended well.
    pub fn test_now(&self, py: Python<'_>) -> PyResult<bool> {
        self.look(py)?;
        Ok(self.outcome(py)?.is_some())
    }

    /// The loan of a receive that has ended well.
    pub fn take_loan(&self, py: Python<'_>) -> Option<Py<Loan>> {
        self.loan(py).ok().flatten()
    }

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
            Kind::Send | Kind::Lend | Kind::Operation => {
                endpoint.adopt(request, orphans::Kind::Message, lent);
            }
            Kind::Receive => abandon(endpoint, request, orphans::Kind::Message, lent),
            Kind::Borrow => abandon(endpoint, request, orphans::Kind::Loan, lent),
            Kind::Connect => {
                let _ = endpoint.core.cancel(request);
                endpoint.core.forget(request);
            }
        }
    }
}
