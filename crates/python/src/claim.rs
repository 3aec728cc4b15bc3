// SPDX-License-Identifier: Apache-2.0
//! `ClaimedMessage`: a message that a probe found and took; only its holder can receive it.

use diolkos::Claim;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::buffer::Buffer;
use crate::endpoint::Endpoint;
use crate::lent::Lent;
use crate::lock::Mutex;
use crate::message::Message;
use crate::peer::Peer;
use crate::request::Request;
use crate::status::Status;
use crate::transfer;

/// A message that nobody else can receive.
#[pyclass(frozen, module = "diolkos")]
pub struct ClaimedMessage {
    endpoint: Py<Endpoint>,
    status: diolkos::Status,
    /// `None` once it was received or discarded.
    claim: Mutex<Option<Claim>>,
}

impl ClaimedMessage {
    pub fn new(endpoint: &Bound<'_, Endpoint>, claim: Claim, status: diolkos::Status) -> Self {
        Self { endpoint: endpoint.clone().unbind(), status, claim: Mutex::new(Some(claim)) }
    }

    fn take(&self) -> PyResult<Claim> {
        self.claim
            .lock()
            .take()
            .ok_or_else(|| PyValueError::new_err("the message was received or discarded already"))
    }
}

#[pymethods]
impl ClaimedMessage {
    fn recv(&self, py: Python<'_>) -> PyResult<Message> {
        transfer::recv_claimed(self.endpoint.bind(py), self.take()?, &self.status, None)
    }

    fn recv_into(&self, buffer: &Bound<'_, PyAny>) -> PyResult<Status> {
        let endpoint = self.endpoint.bind(buffer.py());
        // Before the claim is taken: a buffer that will not do must not cost the message.
        let buffer = Buffer::writable(buffer)?;
        transfer::recv_claimed_into(endpoint, self.take()?, &self.status, buffer)
    }

    fn irecv(&self, py: Python<'_>) -> PyResult<Request> {
        self.begin(py, Lent::owned(self.status.message_bytes)?)
    }

    fn irecv_into(&self, buffer: &Bound<'_, PyAny>) -> PyResult<Request> {
        self.begin(buffer.py(), Lent::Buffer(Buffer::writable(buffer)?))
    }

    fn discard(&self, py: Python<'_>) -> PyResult<()> {
        let discarded = self.endpoint.get().core.discard(self.take()?);
        discarded.map_err(|error| crate::errors::from_core(py, error))
    }

    #[getter]
    fn status(&self, py: Python<'_>) -> Status {
        Status::new(self.endpoint.bind(py), self.status)
    }

    #[getter]
    fn source(&self, py: Python<'_>) -> Peer {
        Peer::new(self.endpoint.bind(py), self.status.source)
    }

    #[getter]
    fn r#match(&self) -> u64 {
        self.status.match_info
    }

    #[getter]
    fn nbytes(&self) -> u64 {
        self.status.message_bytes
    }

    #[getter]
    fn immediate(&self) -> u32 {
        self.status.immediate
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let source = self.source(py).describe(py);
        let taken = if self.claim.lock().is_some() { "" } else { " (received)" };
        format!(
            "<diolkos.ClaimedMessage of {} bytes from {source}: match={:#x}{taken}>",
            self.status.message_bytes, self.status.match_info
        )
    }
}

impl ClaimedMessage {
    fn begin(&self, py: Python<'_>, mut lent: Lent) -> PyResult<Request> {
        let endpoint = self.endpoint.bind(py);
        let sink = lent.sink();
        let request = transfer::begin_claimed(endpoint, self.take()?, &self.status, sink)?;
        Ok(Request::receiving(endpoint, request, lent))
    }
}

impl Drop for ClaimedMessage {
    fn drop(&mut self) {
        if let Some(claim) = self.claim.get_mut().take() {
            // Nobody can receive it any more. Closed or forked, there is nothing to give back.
            let _ = self.endpoint.get().core.discard(claim);
        }
    }
}
