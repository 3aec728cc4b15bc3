// SPDX-License-Identifier: Apache-2.0
//! `Region` and `Key`: memory that peers may use by themselves, and the right to it.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Weak};

use diolkos::{Exposed, PeerId, Reach};
use pyo3::basic::CompareOp;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple, PyType};

use crate::arguments;
use crate::buffer::Buffer;
use crate::endpoint::Endpoint;
use crate::errors;
use crate::lock::Mutex;
use crate::peer::Peer;

/// Memory that may be used by peers with its key.
#[pyclass(frozen, weakref, module = "diolkos")]
pub struct Region {
    inner: Arc<Inner>,
}

/// What an endpoint knows of its regions.
struct Inner {
    /// First, so that it is revoked before the memory goes.
    core: diolkos::Region,
    /// The memory, until it is revoked.
    buffer: Mutex<Option<Buffer>>,
}

/// The regions of one endpoint that still exist, by number.
#[derive(Default)]
pub struct Regions(Mutex<HashMap<u32, Weak<Inner>>>);

impl Regions {
    fn find(&self, key: &diolkos::Key) -> Option<Arc<Inner>> {
        let found = self.0.lock().get(&key.region)?.upgrade()?;
        (found.core.key() == key).then_some(found)
    }

    fn add(&self, region: &Arc<Inner>) {
        let mut regions = self.0.lock();
        regions.retain(|_, other| other.strong_count() > 0);
        regions.insert(region.core.key().region, Arc::downgrade(region));
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        !self.0.lock().values().any(|region| region.strong_count() > 0)
    }

    /// Lets the memory of all go: the endpoint was closed, and nobody is served any more.
    pub fn end(&self) {
        let regions = std::mem::take(&mut *self.0.lock());
        for region in regions.into_values().filter_map(|region| region.upgrade()) {
            region.let_go();
        }
    }

    /// Grants the region of a key to a peer. `false`: it is none of ours, or bound to another.
    pub fn grant(&self, key: &diolkos::Key, peer: PeerId) -> Result<bool, diolkos::Error> {
        let Some(region) = self.find(key) else { return Ok(false) };
        match region.core.grant(peer) {
            Ok(()) => Ok(true),
            Err(diolkos::Error::Denied) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Inner {
    fn let_go(&self) {
        let buffer = self.buffer.lock().take();
        // Without the lock: letting go of an object may run any code.
        drop(buffer);
    }
}

impl Region {
    /// Registers memory for all peers that get the key, or for one.
    pub fn register(
        endpoint: &Bound<'_, Endpoint>,
        object: &Bound<'_, PyAny>,
        access: &str,
        peer: Option<PeerId>,
    ) -> PyResult<Self> {
        let (py, this) = (endpoint.py(), endpoint.get());
        this.reap();
        let (buffer, memory) = match access {
            "r" => {
                let buffer = Buffer::readable(object)?;
                let memory = Exposed::ReadOnly(buffer.source());
                (buffer, memory)
            }
            "rw" => {
                let buffer = Buffer::writable(object)?;
                let memory = Exposed::ReadWrite(buffer.sink());
                (buffer, memory)
            }
            _ => {
                return Err(PyValueError::new_err(format!(
                    "access is \"r\" or \"rw\", not {access:?}"
                )));
            }
        };
        // Memory that was granted for reading may have to move, which takes its time.
        let registered = py.detach(move || this.core.register(memory, peer));
        let core = registered.map_err(|error| errors::from_core(py, error))?;
        let inner = Arc::new(Inner { core, buffer: Mutex::new(Some(buffer)) });
        this.regions.add(&inner);
        if this.core.is_closed() {
            // It was closed meanwhile, and may not have seen this one.
            inner.let_go();
        }
        Ok(Self { inner })
    }
}

#[pymethods]
impl Region {
    #[getter]
    fn key(&self) -> Key {
        Key(*self.inner.core.key())
    }

    #[getter]
    fn access(&self) -> &'static str {
        access_of(self.inner.core.key())
    }

    #[getter]
    fn nbytes(&self) -> u64 {
        self.inner.core.key().length
    }

    #[getter]
    fn reach(&self) -> &'static str {
        reach_name(self.inner.core.reach())
    }

    #[getter]
    fn revoked(&self) -> bool {
        self.inner.buffer.lock().is_none()
    }

    fn grant(&self, peer: &Bound<'_, Peer>) -> PyResult<()> {
        let py = peer.py();
        let endpoint = peer.get().link().endpoint(py)?;
        let peer = arguments::known(&endpoint, peer)?;
        if !self.revoked() && endpoint.get().regions.find(self.inner.core.key()).is_none() {
            return Err(PyValueError::new_err("this peer belongs to another endpoint"));
        }
        self.inner.core.grant(peer).map_err(|error| match error {
            diolkos::Error::Denied if self.revoked() => {
                errors::raise(py, "RevokedError", "the region was revoked", None)
            }
            diolkos::Error::Denied => errors::raise(
                py,
                "KeyRefusedError",
                "the region is bound to another peer",
                Some("register the memory once more, for this one"),
            ),
            error => errors::from_core(py, error),
        })
    }

    fn revoke(&self, py: Python<'_>) -> PyResult<()> {
        let inner = &self.inner;
        py.detach(|| inner.core.revoke()).map_err(|error| errors::from_core(py, error))?;
        inner.let_go();
        Ok(())
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyTuple>) -> PyResult<()> {
        self.revoke(py)
    }

    fn __repr__(&self) -> String {
        let key = self.inner.core.key();
        let (access, reach) = (access_of(key), self.reach());
        let state = if self.revoked() { "revoked" } else { reach };
        format!("<diolkos.Region {} of {} bytes: {access}, {state}>", key.region, key.length)
    }
}

/// The right to use a region.
#[pyclass(frozen, module = "diolkos")]
pub struct Key(pub diolkos::Key);

#[pymethods]
impl Key {
    #[classmethod]
    #[pyo3(signature = (data, /))]
    fn from_bytes(_class: &Bound<'_, PyType>, data: &Bound<'_, PyAny>) -> PyResult<Self> {
        let buffer = Buffer::readable(data)?;
        let long = buffer.len_bytes() != diolkos::Key::BYTES;
        let bytes = if long { Vec::new() } else { buffer.source().to_vec() };
        buffer.release(data.py());
        match diolkos::Key::decode(&bytes) {
            Some(key) => Ok(Self(key)),
            None => Err(PyValueError::new_err("these bytes are no key; they come from bytes(key)")),
        }
    }

    #[getter]
    fn nbytes(&self) -> u64 {
        self.0.length
    }

    #[getter]
    fn access(&self) -> &'static str {
        access_of(&self.0)
    }

    fn __bytes__<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.encode())
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyTuple>> {
        let py = slf.py();
        let make = slf.get_type().getattr("from_bytes")?;
        let arguments = PyTuple::new(py, [slf.get().__bytes__(py)])?;
        PyTuple::new(py, [make, arguments.into_any()])
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.0.hash(&mut hasher);
        hasher.finish()
    }

    fn __richcmp__(&self, other: &Bound<'_, PyAny>, op: CompareOp) -> PyResult<Py<PyAny>> {
        let py = other.py();
        let Ok(other) = other.cast::<Self>() else { return Ok(py.NotImplemented()) };
        let same = self.0 == other.get().0;
        match op {
            CompareOp::Eq => Ok(same.into_pyobject(py)?.to_owned().into_any().unbind()),
            CompareOp::Ne => Ok((!same).into_pyobject(py)?.to_owned().into_any().unbind()),
            _ => Ok(py.NotImplemented()),
        }
    }

    fn __repr__(&self) -> String {
        let diolkos::Key { owner, region, length, .. } = self.0;
        let access = access_of(&self.0);
        format!("<diolkos.Key to {length} bytes: {access}, region {region} of endpoint {owner}>")
    }
}

fn access_of(key: &diolkos::Key) -> &'static str {
    if key.writable { "rw" } else { "r" }
}

/// The word for a way to reach a region.
pub fn reach_name(reach: Reach) -> &'static str {
    match reach {
        Reach::Granted => "granted",
        Reach::Copied => "copied",
        Reach::Kernel => "process_vm",
        Reach::Unknown => "unknown",
    }
}
