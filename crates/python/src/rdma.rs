// SPDX-License-Identifier: Apache-2.0
//! Operations on regions of peers: write, read, atomics, fences.
//!
//! An operation cannot be taken back. When a wait for one ends early, its memory stays lent until it is
//! done.

use diolkos::{AtomicOp, Envelope, PeerId, RequestId, Sent, Space, StatusCode};
use pyo3::exceptions::{PyOverflowError, PyTypeError};
use pyo3::prelude::*;

use crate::arguments;
use crate::buffer::Buffer;
use crate::endpoint::Endpoint;
use crate::errors;
use crate::lent::Lent;
use crate::orphans;
use crate::region::Key;
use crate::request::Request;
use crate::waiting;

/// From this length on, what may be a copy within this call runs detached.
const DETACH_BYTES: usize = 1 << 20;

/// Where an operation goes.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    pub peer: PeerId,
    pub key: &'a diolkos::Key,
    pub offset: u64,
}

impl<'a> Place<'a> {
    #[inline]
    pub fn new(
        peer: PeerId,
        key: &'a Bound<'_, Key>,
        offset: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let offset = match offset {
            None => 0,
            Some(offset) => offset.extract().map_err(|error| bad_offset(offset, error))?,
        };
        Ok(Self { peer, key: &key.get().0, offset })
    }
}

/// A place that no region has is out of range, whatever it is for Python.
#[cold]
fn bad_offset(offset: &Bound<'_, PyAny>, error: PyErr) -> PyErr {
    let py = offset.py();
    if error.is_instance_of::<PyOverflowError>(py) {
        let text = format!("the offset {offset} lies outside of the region");
        return errors::raise(py, "RangeError", &text, None);
    }
    if error.is_instance_of::<PyTypeError>(py) {
        return PyTypeError::new_err("an offset is an integer: bytes from the region's start");
    }
    error
}

/// The message that says that something was written.
#[inline(always)]
pub fn notice(notify: Option<u64>, immediate: u32) -> Option<Envelope> {
    let space = Space::Tagged;
    notify.map(|match_info| Envelope { match_info, immediate, space, synchronous: false })
}

/// Begins to write.
#[inline(always)]
fn begin_write(
    endpoint: &Bound<'_, Endpoint>,
    local: &Buffer,
    place: Place<'_>,
    notice: Option<Envelope>,
) -> PyResult<Sent> {
    let (this, source) = (endpoint.get(), local.source());
    this.reap();
    let Place { peer, key, offset } = place;
    let sent = if local.len_bytes() < DETACH_BYTES {
        this.core.rdma_write(source, peer, key, offset, notice)
    } else {
        endpoint.py().detach(move || this.core.rdma_write(source, peer, key, offset, notice))
    };
    sent.map_err(|error| errors::from_core(endpoint.py(), error))
}

/// Begins to read.
#[inline(always)]
fn begin_read(endpoint: &Bound<'_, Endpoint>, into: &Buffer, place: Place<'_>) -> PyResult<Sent> {
    let (this, sink) = (endpoint.get(), into.sink());
    this.reap();
    let Place { peer, key, offset } = place;
    let sent = if into.len_bytes() < DETACH_BYTES {
        this.core.rdma_read(sink, peer, key, offset)
    } else {
        endpoint.py().detach(move || this.core.rdma_read(sink, peer, key, offset))
    };
    sent.map_err(|error| errors::from_core(endpoint.py(), error))
}

/// Writes and waits until it is there.
#[inline(always)]
pub fn write(
    endpoint: &Bound<'_, Endpoint>,
    local: Buffer,
    place: Place<'_>,
    notice: Option<Envelope>,
    timeout_s: Option<f64>,
) -> PyResult<()> {
    match begin_write(endpoint, &local, place, notice)? {
        Sent::Done => local.release(endpoint.py()),
        Sent::Pending(request) => {
            finish(endpoint, request, Lent::Buffer(local), timeout_s)?;
        }
    }
    Ok(())
}

/// Reads and waits until it is here.
#[inline(always)]
pub fn read(
    endpoint: &Bound<'_, Endpoint>,
    into: Buffer,
    place: Place<'_>,
    timeout_s: Option<f64>,
) -> PyResult<()> {
    match begin_read(endpoint, &into, place)? {
        Sent::Done => into.release(endpoint.py()),
        Sent::Pending(request) => {
            finish(endpoint, request, Lent::Buffer(into), timeout_s)?;
        }
    }
    Ok(())
}

/// Writes without waiting; no request when there is nothing to wait for.
pub fn try_write(
    endpoint: &Bound<'_, Endpoint>,
    local: Buffer,
    place: Place<'_>,
    notice: Option<Envelope>,
) -> PyResult<Option<Request>> {
    let sent = begin_write(endpoint, &local, place, notice)?;
    Ok(pending(endpoint, sent, local))
}

/// Reads without waiting; no request when there is nothing to wait for.
pub fn try_read(
    endpoint: &Bound<'_, Endpoint>,
    into: Buffer,
    place: Place<'_>,
) -> PyResult<Option<Request>> {
    let sent = begin_read(endpoint, &into, place)?;
    Ok(pending(endpoint, sent, into))
}

fn pending(endpoint: &Bound<'_, Endpoint>, sent: Sent, buffer: Buffer) -> Option<Request> {
    match sent {
        Sent::Done => {
            buffer.release(endpoint.py());
            None
        }
        Sent::Pending(request) => Some(Request::operating(endpoint, request, Lent::Buffer(buffer))),
    }
}

/// A request for an operation of `len_bytes` that was done at once.
pub fn done(endpoint: &Bound<'_, Endpoint>, peer: PeerId, len_bytes: usize) -> Request {
    let status = diolkos::Status {
        code: StatusCode::Success,
        source: peer,
        match_info: 0,
        immediate: 0,
        space: Space::Tagged,
        message_bytes: len_bytes as u64,
        transferred_bytes: len_bytes as u64,
    };
    Request::operated(endpoint, status)
}

/// Changes a word; what was there before.
pub fn atomic(
    endpoint: &Bound<'_, Endpoint>,
    place: Place<'_>,
    op: AtomicOp,
    timeout_s: Option<f64>,
) -> PyResult<u64> {
    let request = begin_atomic(endpoint, place, op)?;
    Ok(finish(endpoint, request, Lent::Nothing, timeout_s)?.match_info)
}

/// Changes a word without waiting: what was there before, or the request that will say so.
pub fn try_atomic(
    endpoint: &Bound<'_, Endpoint>,
    place: Place<'_>,
    op: AtomicOp,
) -> PyResult<Py<PyAny>> {
    let (py, this) = (endpoint.py(), endpoint.get());
    let request = begin_atomic(endpoint, place, op)?;
    match this.core.test(request).map_err(|error| errors::from_core(py, error))? {
        None => {
            let request = Request::operating(endpoint, request, Lent::Nothing);
            Ok(Py::new(py, request)?.into_any())
        }
        Some(status) => match errors::failure(py, this, &status) {
            None => Ok(status.match_info.into_pyobject(py)?.into_any().unbind()),
            Some(error) => Err(error),
        },
    }
}

#[inline(always)]
fn begin_atomic(
    endpoint: &Bound<'_, Endpoint>,
    place: Place<'_>,
    op: AtomicOp,
) -> PyResult<RequestId> {
    let this = endpoint.get();
    this.reap();
    let Place { peer, key, offset } = place;
    let request = this.core.rdma_atomic(peer, key, offset, op);
    request.map_err(|error| errors::from_core(endpoint.py(), error))
}

/// Waits until all operations that were begun before are complete.
pub fn fence(endpoint: &Bound<'_, Endpoint>, peer: PeerId, timeout_s: Option<f64>) -> PyResult<()> {
    match begin_fence(endpoint, peer)? {
        Sent::Done => Ok(()),
        Sent::Pending(request) => {
            finish(endpoint, request, Lent::Nothing, timeout_s)?;
            Ok(())
        }
    }
}

/// As `fence`, without waiting: no request when there is nothing to wait for.
pub fn try_fence(endpoint: &Bound<'_, Endpoint>, peer: PeerId) -> PyResult<Option<Request>> {
    match begin_fence(endpoint, peer)? {
        Sent::Done => Ok(None),
        Sent::Pending(request) => Ok(Some(Request::operating(endpoint, request, Lent::Nothing))),
    }
}

fn begin_fence(endpoint: &Bound<'_, Endpoint>, peer: PeerId) -> PyResult<Sent> {
    let this = endpoint.get();
    this.reap();
    this.core.rdma_fence(peer).map_err(|error| errors::from_core(endpoint.py(), error))
}

/// Waits for an operation; its memory is lent until it is done, however long the caller waits.
#[cold]
#[inline(never)]
fn finish(
    endpoint: &Bound<'_, Endpoint>,
    request: RequestId,
    lent: Lent,
    timeout_s: Option<f64>,
) -> PyResult<diolkos::Status> {
    let (py, this) = (endpoint.py(), endpoint.get());
    let waited = arguments::deadline(timeout_s)
        .and_then(|deadline| waiting::complete(py, &this.core, request, deadline));
    match waited {
        Ok(Some(status)) => {
            drop(lent);
            errors::failure(py, this, &status).map_or(Ok(status), Err)
        }
        Ok(None) => {
            this.adopt(request, orphans::Kind::Message, lent);
            Err(errors::timeout(
                py,
                "the operation was not complete in time; it may still be done, and its buffer is \
                 in use until then",
            ))
        }
        Err(error) => {
            this.adopt(request, orphans::Kind::Message, lent);
            Err(error)
        }
    }
}
