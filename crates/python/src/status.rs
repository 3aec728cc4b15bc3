// SPDX-License-Identifier: Apache-2.0
//! `Status`: what became of a request, or what a probe saw.

use diolkos::StatusCode;
use pyo3::prelude::*;

use crate::endpoint::Endpoint;
use crate::peer::Peer;

/// What became of a message.
#[pyclass(frozen, freelist = 64, module = "diolkos")]
pub struct Status {
    pub endpoint: Py<Endpoint>,
    pub status: diolkos::Status,
}

impl Status {
    /// The status as Python sees it.
    #[inline(always)]
    pub fn new(endpoint: &Bound<'_, Endpoint>, status: diolkos::Status) -> Self {
        Self { endpoint: endpoint.clone().unbind(), status }
    }
}

#[pymethods]
impl Status {
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
        self.status.transferred_bytes
    }

    #[getter]
    fn message_nbytes(&self) -> u64 {
        self.status.message_bytes
    }

    #[getter]
    fn truncated(&self) -> bool {
        self.status.code == StatusCode::Truncated
    }

    #[getter]
    fn immediate(&self) -> u32 {
        self.status.immediate
    }

    #[getter]
    fn untagged(&self) -> bool {
        self.status.space == diolkos::Space::Untagged
    }

    #[getter]
    fn code(&self) -> &'static str {
        code_name(self.status.code)
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let status = &self.status;
        format!(
            "<diolkos.Status {} from {}: match={:#x} nbytes={} message_nbytes={} immediate={}>",
            code_name(status.code),
            Peer::new(self.endpoint.bind(py), status.source).describe(),
            status.match_info,
            status.transferred_bytes,
            status.message_bytes,
            status.immediate,
        )
    }
}

/// The word for a code.
pub fn code_name(code: StatusCode) -> &'static str {
    match code {
        StatusCode::Success => "success",
        StatusCode::Truncated => "truncated",
        StatusCode::Cancelled => "cancelled",
        StatusCode::EndpointClosed => "endpoint closed",
        StatusCode::PeerClosed => "peer closed",
        StatusCode::PeerDied => "peer died",
        StatusCode::PeerMisbehaved => "peer misbehaved",
        StatusCode::Refused => "refused",
        _ => "unknown",
    }
}
