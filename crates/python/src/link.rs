// SPDX-License-Identifier: Apache-2.0
//! How results refer to the endpoint that they came from, without keeping it alive.
//!
//! A program may keep messages, statuses and peers for as long as it likes; an endpoint that it has
//! dropped is closed at once all the same. Whether two of them belong to the same endpoint is told
//! by a serial number, which no later endpoint of this process gets.

use std::sync::atomic::{AtomicU64, Ordering};

use pyo3::prelude::*;
use pyo3::types::{PyWeakrefMethods, PyWeakrefReference};

use crate::endpoint::Endpoint;
use crate::errors;

/// A weak reference to an endpoint.
pub struct Link {
    /// `None` when there was no memory for it.
    weak: Option<Py<PyWeakrefReference>>,
    serial: u64,
}

impl Link {
    /// A number for a new endpoint.
    pub fn next_serial() -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed)
    }

    /// A link to an endpoint.
    #[inline]
    pub fn to(endpoint: &Bound<'_, Endpoint>) -> Self {
        Self { weak: endpoint.get().weak(endpoint), serial: endpoint.get().serial }
    }

    /// Another link to the same endpoint.
    #[inline]
    pub fn clone_ref(&self, py: Python<'_>) -> Self {
        Self { weak: self.weak.as_ref().map(|weak| weak.clone_ref(py)), serial: self.serial }
    }

    /// The endpoint, while it exists.
    pub fn upgrade<'py>(&self, py: Python<'py>) -> Option<Bound<'py, Endpoint>> {
        self.weak.as_ref()?.bind(py).upgrade_as::<Endpoint>().ok().flatten()
    }

    /// The endpoint, or the exception that says that it is gone.
    pub fn endpoint<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, Endpoint>> {
        self.upgrade(py).ok_or_else(|| {
            errors::raise(py, "ClosedError", "the endpoint that this belonged to is gone", None)
        })
    }

    /// The endpoint's number, as [`Endpoint::serial`].
    #[inline(always)]
    pub fn serial(&self) -> u64 {
        self.serial
    }
}
