// SPDX-License-Identifier: Apache-2.0
//! `Peer`: somebody to send to.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::OnceLock;

use diolkos::{PeerId, PeerInfo};
use pyo3::basic::CompareOp;
use pyo3::prelude::*;

use crate::endpoint::Endpoint;
use crate::errors;
use crate::link::Link;

/// A peer of one endpoint.
#[pyclass(frozen, module = "diolkos")]
pub struct Peer {
    link: Link,
    pub id: PeerId,
    /// Who it is, once somebody asked: it does not change, and outlives the endpoint.
    info: OnceLock<PeerInfo>,
}

impl Peer {
    /// The peer as Python sees it.
    #[inline]
    pub fn new(endpoint: &Bound<'_, Endpoint>, id: PeerId) -> Self {
        Self::linked(Link::to(endpoint), id)
    }

    /// As `new`, for things that only have a link to their endpoint.
    #[inline]
    pub fn linked(link: Link, id: PeerId) -> Self {
        Self { link, id, info: OnceLock::new() }
    }

    /// As `new`, remembering who it is at once.
    pub fn introduced(endpoint: &Bound<'_, Endpoint>, id: PeerId) -> Self {
        let peer = Self::new(endpoint, id);
        // A peer that cannot be described now will say why when it is asked.
        let _ = peer.info(endpoint.py());
        peer
    }

    /// Whether this is a peer of that endpoint.
    #[inline(always)]
    pub fn belongs_to(&self, endpoint: &Endpoint) -> bool {
        self.link.serial() == endpoint.serial
    }

    /// The endpoint that it is a peer of.
    pub fn link(&self) -> &Link {
        &self.link
    }

    fn is_self(&self) -> bool {
        self.id == PeerId::SELF
    }

    fn info(&self, py: Python<'_>) -> PyResult<&PeerInfo> {
        if let Some(info) = self.info.get() {
            return Ok(info);
        }
        match self.link.endpoint(py)?.get().core.peer_info(self.id) {
            Ok(Some(info)) => Ok(self.info.get_or_init(|| info)),
            Ok(None) => Err(errors::from_core(py, diolkos::Error::NotConnected)),
            Err(error) => Err(errors::from_core(py, error)),
        }
    }

    /// Its name and number, as far as they are known.
    pub fn describe(&self, py: Python<'_>) -> String {
        if self.is_self() {
            return "itself".into();
        }
        match self.info(py) {
            Ok(info) => format!("{} (endpoint {})", info.name, info.number),
            Err(_) => "a peer".into(),
        }
    }
}

#[pymethods]
impl Peer {
    #[getter]
    fn number(&self, py: Python<'_>) -> PyResult<u32> {
        if self.is_self() {
            return Ok(self.link.endpoint(py)?.get().core.identity().number);
        }
        Ok(self.info(py)?.number)
    }

    #[getter]
    fn name(&self, py: Python<'_>) -> PyResult<String> {
        if self.is_self() {
            return Ok(self.link.endpoint(py)?.get().core.identity().name.clone());
        }
        Ok(self.info(py)?.name.clone())
    }

    #[getter]
    fn road(&self, py: Python<'_>) -> PyResult<&'static str> {
        if self.is_self() {
            return Ok("direct");
        }
        Ok(self.info(py)?.road.as_str())
    }

    #[getter]
    fn reason(&self, py: Python<'_>) -> PyResult<&str> {
        if self.is_self() {
            return Ok("an endpoint reaches itself within its own memory");
        }
        Ok(&self.info(py)?.reason)
    }

    #[getter]
    fn is_connected(&self, py: Python<'_>) -> bool {
        let Some(endpoint) = self.link.upgrade(py) else { return false };
        let core = &endpoint.get().core;
        if self.is_self() {
            return !core.is_closed() && !core.is_forked();
        }
        matches!(core.peer_info(self.id), Ok(Some(info)) if info.gone.is_none())
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.link.serial(), self.id).hash(&mut hasher);
        hasher.finish()
    }

    fn __richcmp__(&self, other: &Bound<'_, PyAny>, op: CompareOp) -> PyResult<Py<PyAny>> {
        let py = other.py();
        let Ok(other) = other.cast::<Self>() else { return Ok(py.NotImplemented()) };
        let other = other.get();
        let same = self.id == other.id && self.link.serial() == other.link.serial();
        match op {
            CompareOp::Eq => Ok(same.into_pyobject(py)?.to_owned().into_any().unbind()),
            CompareOp::Ne => Ok((!same).into_pyobject(py)?.to_owned().into_any().unbind()),
            _ => Ok(py.NotImplemented()),
        }
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        format!("<diolkos.Peer {}>", self.describe(py))
    }
}
