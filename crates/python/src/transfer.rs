// SPDX-License-Identifier: Apache-2.0
//! The calls that move messages or wait for them, once their arguments are known.
//!
//! What happens when a wait ends early (deadline, Ctrl-C) is decided here:
//!
//! * A receive that has not matched is cancelled; nothing is lost.
//! * A receive whose message has begun to arrive gets [`GRACE`] to end after a deadline, and then
//!   counts as received in time. After Ctrl-C, or when the sender stalls, the rest of the message
//!   is lost, and the memory stays lent until the core lets go of it.
//! * A send cannot be taken back. Its memory stays lent until it is done.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use diolkos::{
    Claim, Envelope, OpenOptions, PeerId, Received, RequestId, Road, Selector, Sent, Target,
};
use pyo3::prelude::*;

use crate::arguments;
use crate::buffer::Buffer;
use crate::endpoint::Endpoint;
use crate::errors;
use crate::lent::Lent;
use crate::lock::Mutex;
use crate::message::Message;
use crate::orphans;
use crate::peer::Peer;
use crate::request::Request;
use crate::status::Status;
use crate::waiting;

/// How long a message that began to arrive before a deadline may go on after it.
const GRACE: Duration = Duration::from_secs(10);
/// How long the backend may take to say that a connect timed out, before we say it.
const ANSWER_GRACE: Duration = Duration::from_secs(1);
/// Looks at signals while an endpoint is being opened.
const OPEN_SLICE: Duration = Duration::from_millis(50);
/// From this length on, what may be a copy within this process runs detached.
const DETACH_BYTES: usize = 1 << 20;

/// Opens an endpoint. The work happens on a thread of its own, so that Ctrl-C ends the wait: the
/// thread then finishes alone, and what it opened is closed at once.
pub fn open(py: Python<'_>, options: OpenOptions) -> PyResult<diolkos::Endpoint> {
    let (sender, receiver) = mpsc::sync_channel(1);
    std::thread::Builder::new()
        .name("diolkos-open".into())
        .spawn(move || {
            // Signals are the business of the thread that waits for us.
            let opened = loop {
                match diolkos::Endpoint::open(&options) {
                    Err(diolkos::Error::Interrupted) => {}
                    opened => break opened,
                }
            };
            // Nobody listens any more when the wait was interrupted.
            let _ = sender.send(opened);
        })
        .map_err(|error| errors::raise(py, "LimitError", &error.to_string(), None))?;
    let receiver = Mutex::new(receiver);
    loop {
        match py.detach(|| receiver.lock().recv_timeout(OPEN_SLICE)) {
            Ok(opened) => return opened.map_err(|error| errors::from_core(py, error)),
            Err(mpsc::RecvTimeoutError::Timeout) => py.check_signals()?,
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return Err(errors::raise(py, "DiolkosError", "opening an endpoint failed", None));
            }
        }
    }
}

/// Connects and waits.
pub fn connect(
    endpoint: &Bound<'_, Endpoint>,
    target: &Target,
    road: Option<Road>,
    timeout: Option<Duration>,
) -> PyResult<Peer> {
    let (py, core) = (endpoint.py(), &endpoint.get().core);
    let raise = |error| errors::from_core(py, error);
    let request = core.iconnect(target, road, timeout).map_err(raise)?;
    let deadline = timeout.map(|left| Instant::now() + left + ANSWER_GRACE);
    match waiting::complete(py, core, request, deadline) {
        Ok(Some(status)) => {
            let peer = core.connected(request, &status).map_err(raise)?;
            Ok(Peer::introduced(endpoint, peer))
        }
        Ok(None) => {
            // What can fail here is that it was answered just now; the peer stays connected.
            let _ = core.cancel(request);
            core.forget(request);
            Err(errors::timeout(py, "the backend did not answer in time"))
        }
        Err(error) => {
            let _ = core.cancel(request);
            core.forget(request);
            Err(error)
        }
    }
}

/// Sends and waits until the buffer is free again.
#[inline(always)]
pub fn send(
    endpoint: &Bound<'_, Endpoint>,
    buffer: Buffer,
    dest: PeerId,
    envelope: &Envelope,
    timeout_s: Option<f64>,
) -> PyResult<()> {
    let py = endpoint.py();
    match begin_send(endpoint, &buffer, dest, envelope) {
        Ok(Sent::Done) => {
            buffer.release(py);
            Ok(())
        }
        Ok(Sent::Pending(request)) => finish_send(endpoint, buffer, request, timeout_s),
        Err(error) => Err(errors::from_core(py, error)),
    }
}

#[inline(always)]
fn begin_send(
    endpoint: &Bound<'_, Endpoint>,
    buffer: &Buffer,
    dest: PeerId,
    envelope: &Envelope,
) -> Result<Sent, diolkos::Error> {
    let this = endpoint.get();
    this.reap();
    if buffer.len_bytes() < DETACH_BYTES {
        return this.core.isend(buffer.source(), dest, envelope);
    }
    let source = buffer.source();
    endpoint.py().detach(move || this.core.isend(source, dest, envelope))
}

#[cold]
#[inline(never)]
fn finish_send(
    endpoint: &Bound<'_, Endpoint>,
    buffer: Buffer,
    request: RequestId,
    timeout_s: Option<f64>,
) -> PyResult<()> {
    let (py, this) = (endpoint.py(), endpoint.get());
    let waited = arguments::deadline(timeout_s)
        .and_then(|deadline| waiting::complete(py, &this.core, request, deadline));
    match waited {
        Ok(Some(status)) => {
            buffer.release(py);
            errors::failure(py, this, &status).map_or(Ok(()), Err)
        }
        Ok(None) => {
            this.adopt(request, orphans::Kind::Message, Lent::Buffer(buffer));
            Err(errors::timeout(
                py,
                "the receiver has not taken the message in time; it may still be delivered, \
                 and the buffer is in use until then",
            ))
        }
        Err(error) => {
            this.adopt(request, orphans::Kind::Message, Lent::Buffer(buffer));
            Err(error)
        }
    }
}

/// Sends without waiting.
pub fn isend(
    endpoint: &Bound<'_, Endpoint>,
    buffer: Buffer,
    dest: PeerId,
    envelope: &Envelope,
) -> PyResult<Request> {
    match begin_send(endpoint, &buffer, dest, envelope) {
        Ok(Sent::Done) => {
            let len_bytes = buffer.len_bytes() as u64;
            buffer.release(endpoint.py());
            Ok(Request::sent(endpoint, dest, envelope, len_bytes))
        }
        Ok(Sent::Pending(request)) => Ok(Request::sending(endpoint, request, buffer)),
        Err(error) => Err(errors::from_core(endpoint.py(), error)),
    }
}

/// Sends without waiting; no request when there is nothing to wait for.
pub fn try_send(
    endpoint: &Bound<'_, Endpoint>,
    buffer: Buffer,
    dest: PeerId,
    envelope: &Envelope,
) -> PyResult<Option<Request>> {
    match begin_send(endpoint, &buffer, dest, envelope) {
        Ok(Sent::Done) => {
            buffer.release(endpoint.py());
            Ok(None)
        }
        Ok(Sent::Pending(request)) => Ok(Some(Request::sending(endpoint, request, buffer))),
        Err(error) => Err(errors::from_core(endpoint.py(), error)),
    }
}

/// Receives into a buffer what is here: its status, or its request while the rest is coming.
pub fn try_recv_into(
    endpoint: &Bound<'_, Endpoint>,
    buffer: Buffer,
    selector: &Selector,
) -> PyResult<Option<Py<PyAny>>> {
    let (py, this) = (endpoint.py(), endpoint.get());
    let raise = |error| errors::from_core(py, error);
    this.reap();
    let Some((claim, status)) = this.core.improbe(selector).map_err(raise)? else {
        buffer.release(py);
        return Ok(None);
    };
    let request = begin_claimed(endpoint, claim, &status, buffer.sink())?;
    match this.core.test(request).map_err(raise)? {
        Some(status) => {
            buffer.release(py);
            Ok(Some(finished(endpoint, status)?.into_any()))
        }
        None => {
            let request = Request::receiving(endpoint, request, Lent::Buffer(buffer));
            Ok(Some(Py::new(py, request)?.into_any()))
        }
    }
}

/// As `try_recv_into`, into memory of its own size.
pub fn try_recv(
    endpoint: &Bound<'_, Endpoint>,
    selector: &Selector,
) -> PyResult<Option<Py<PyAny>>> {
    let (py, this) = (endpoint.py(), endpoint.get());
    let raise = |error| errors::from_core(py, error);
    this.reap();
    let Some((claim, status)) = this.core.improbe(selector).map_err(raise)? else {
        return Ok(None);
    };
    let (claim, mut lent) = owned_for(endpoint, claim, &status)?;
    let request = begin_claimed(endpoint, claim, &status, lent.sink())?;
    match this.core.test(request).map_err(raise)? {
        Some(status) => match errors::failure(py, this, &status) {
            None => {
                // SAFETY: the core just said that it has completed.
                let message = unsafe { message(endpoint, lent, status) };
                Ok(Some(Py::new(py, message)?.into_any()))
            }
            Some(error) => Err(error),
        },
        None => {
            let request = Request::receiving(endpoint, request, lent);
            Ok(Some(Py::new(py, request)?.into_any()))
        }
    }
}

/// Receives into a buffer and waits.
#[inline(always)]
pub fn recv_into(
    endpoint: &Bound<'_, Endpoint>,
    buffer: Buffer,
    selector: &Selector,
    timeout_s: Option<f64>,
) -> PyResult<Py<Status>> {
    let (py, this) = (endpoint.py(), endpoint.get());
    let deadline = arguments::deadline(timeout_s)?;
    this.reap();
    match this.core.receive(buffer.sink(), selector, waiting::SPIN) {
        Ok(Received::Done(status)) => {
            buffer.release(py);
            finished(endpoint, status)
        }
        Ok(Received::Pending(request)) => finish_receive(endpoint, buffer, request, deadline),
        Err(error) => Err(errors::from_core(py, error)),
    }
}

/// Waits on for a receive that was not over at once.
#[cold]
#[inline(never)]
fn finish_receive(
    endpoint: &Bound<'_, Endpoint>,
    buffer: Buffer,
    request: RequestId,
    deadline: Option<Instant>,
) -> PyResult<Py<Status>> {
    let (py, this) = (endpoint.py(), endpoint.get());
    match waiting::in_slices(py, deadline, |until| this.core.wait(request, Some(until))) {
        Ok(Some(status)) => {
            buffer.release(py);
            finished(endpoint, status)
        }
        Ok(None) => {
            let kind = orphans::Kind::Message;
            let (status, _) = late(endpoint, request, kind, Lent::Buffer(buffer))?;
            finished(endpoint, status)
        }
        Err(error) => {
            abandon(this, request, orphans::Kind::Message, Lent::Buffer(buffer));
            Err(error)
        }
    }
}

#[inline(always)]
fn finished(endpoint: &Bound<'_, Endpoint>, status: diolkos::Status) -> PyResult<Py<Status>> {
    let this = endpoint.get();
    match errors::failure(endpoint.py(), this, &status) {
        None => this.recycled.status(endpoint, status),
        Some(error) => Err(error),
    }
}

#[inline(always)]
fn begin_receive(
    endpoint: &Bound<'_, Endpoint>,
    sink: diolkos::Sink,
    selector: &Selector,
) -> PyResult<RequestId> {
    let this = endpoint.get();
    this.reap();
    let posted = if sink.len_bytes() < DETACH_BYTES {
        this.core.irecv(sink, selector)
    } else {
        endpoint.py().detach(move || this.core.irecv(sink, selector))
    };
    posted.map_err(|error| errors::from_core(endpoint.py(), error))
}

/// Posts a receive.
pub fn irecv(
    endpoint: &Bound<'_, Endpoint>,
    mut lent: Lent,
    selector: &Selector,
) -> PyResult<Request> {
    let request = begin_receive(endpoint, lent.sink(), selector)?;
    Ok(Request::receiving(endpoint, request, lent))
}

/// Receives a message into memory of its own size and waits.
pub fn recv(
    endpoint: &Bound<'_, Endpoint>,
    selector: &Selector,
    deadline: Option<Instant>,
) -> PyResult<Message> {
    let (claim, status) = claim(endpoint, selector, deadline)?;
    recv_claimed(endpoint, claim, &status, deadline)
}

/// Waits for a message and claims it.
pub fn claim(
    endpoint: &Bound<'_, Endpoint>,
    selector: &Selector,
    deadline: Option<Instant>,
) -> PyResult<(Claim, diolkos::Status)> {
    let (py, this) = (endpoint.py(), endpoint.get());
    this.reap();
    let found = match this.core.spin_claim(selector, waiting::SPIN) {
        Ok(None) => {
            waiting::in_slices(py, deadline, |until| this.core.mprobe(selector, Some(until)))?
        }
        Ok(found) => found,
        Err(error) => return Err(errors::from_core(py, error)),
    };
    found.ok_or_else(|| errors::timeout(py, "no such message came in time"))
}

/// Waits for a message and leaves it.
pub fn probe(
    endpoint: &Bound<'_, Endpoint>,
    selector: &Selector,
    deadline: Option<Instant>,
) -> PyResult<Status> {
    let (py, this) = (endpoint.py(), endpoint.get());
    this.reap();
    let raise = |error| errors::from_core(py, error);
    let found = match this.core.iprobe(selector).map_err(raise)? {
        None => waiting::in_slices(py, deadline, |until| this.core.probe(selector, Some(until)))?,
        found => found,
    };
    match found {
        Some(status) => Ok(Status::new(endpoint, status)),
        None => Err(errors::timeout(py, "no such message came in time")),
    }
}

/// Receives a claimed message into memory of its own size.
pub fn recv_claimed(
    endpoint: &Bound<'_, Endpoint>,
    claim: Claim,
    status: &diolkos::Status,
    deadline: Option<Instant>,
) -> PyResult<Message> {
    let (claim, lent) = owned_for(endpoint, claim, status)?;
    let (status, lent) = fill_claimed(endpoint, claim, status, lent, deadline)?;
    // SAFETY: it has completed.
    Ok(unsafe { message(endpoint, lent, status) })
}

/// Memory for a claimed message.
fn owned_for(
    endpoint: &Bound<'_, Endpoint>,
    claim: Claim,
    status: &diolkos::Status,
) -> PyResult<(Claim, Lent)> {
    match Lent::owned(status.message_bytes) {
        Ok(lent) => Ok((claim, lent)),
        Err(error) => {
            // Nobody else can receive it any more; its sender must not wait for ever.
            let _ = endpoint.get().core.discard(claim);
            Err(error)
        }
    }
}

/// A message out of the memory that it was received into.
///
/// # Safety
/// The receive into this memory must have completed with this status.
unsafe fn message(endpoint: &Bound<'_, Endpoint>, lent: Lent, status: diolkos::Status) -> Message {
    // SAFETY: as promised to this function.
    let data = unsafe { lent.received(status.transferred_bytes) }.unwrap_or_default();
    Message::new(endpoint, status, data)
}

/// Receives a claimed message into a buffer.
pub fn recv_claimed_into(
    endpoint: &Bound<'_, Endpoint>,
    claim: Claim,
    status: &diolkos::Status,
    buffer: Buffer,
) -> PyResult<Status> {
    let (status, lent) = fill_claimed(endpoint, claim, status, Lent::Buffer(buffer), None)?;
    drop(lent);
    Ok(Status::new(endpoint, status))
}

/// Starts to receive a claimed message.
pub fn begin_claimed(
    endpoint: &Bound<'_, Endpoint>,
    claim: Claim,
    status: &diolkos::Status,
    sink: diolkos::Sink,
) -> PyResult<RequestId> {
    let (py, this) = (endpoint.py(), endpoint.get());
    let begun = if sink.len_bytes() < DETACH_BYTES {
        this.core.imrecv(claim, sink)
    } else {
        py.detach(move || this.core.imrecv(claim, sink))
    };
    begun.map_err(|error| match (error, this.core.peer_info(status.source)) {
        (diolkos::Error::Invalid(_), Ok(Some(info))) if info.gone.is_some() => {
            let code = info.gone.unwrap_or(diolkos::StatusCode::PeerClosed);
            errors::from_core(py, diolkos::Error::PeerGone(code))
        }
        (error, _) => errors::from_core(py, error),
    })
}

/// Receives a claimed message. Without a deadline it may take as long as the sender lives.
fn fill_claimed(
    endpoint: &Bound<'_, Endpoint>,
    claim: Claim,
    status: &diolkos::Status,
    mut lent: Lent,
    deadline: Option<Instant>,
) -> PyResult<(diolkos::Status, Lent)> {
    let (py, this) = (endpoint.py(), endpoint.get());
    let request = begin_claimed(endpoint, claim, status, lent.sink())?;
    let deadline = deadline.map(|at| at.max(Instant::now()) + GRACE);
    match waiting::complete(py, &this.core, request, deadline) {
        Ok(Some(status)) => match errors::failure(py, this, &status) {
            None => Ok((status, lent)),
            Some(error) => Err(error),
        },
        Ok(None) => {
            this.adopt(request, orphans::Kind::Message, lent);
            Err(errors::timeout(py, "the sender of the message stalled; the message is lost"))
        }
        Err(error) => {
            this.adopt(request, orphans::Kind::Message, lent);
            Err(error)
        }
    }
}

/// A receive's deadline has passed: takes it back, or lets what has begun come to its end.
#[cold]
pub fn late(
    endpoint: &Bound<'_, Endpoint>,
    request: RequestId,
    kind: orphans::Kind,
    lent: Lent,
) -> PyResult<(diolkos::Status, Lent)> {
    let (py, this) = (endpoint.py(), endpoint.get());
    match this.core.cancel(request) {
        Ok(false) => {}
        Ok(true) => return Err(errors::timeout(py, "no such message came in time")),
        Err(error) => return Err(errors::from_core(py, error)),
    }
    match waiting::complete(py, &this.core, request, Some(Instant::now() + GRACE)) {
        Ok(Some(status)) => Ok((status, lent)),
        Ok(None) => {
            this.adopt(request, kind, lent);
            Err(errors::timeout(py, "the sender of the message stalled; the message is lost"))
        }
        Err(error) => {
            this.adopt(request, kind, lent);
            Err(error)
        }
    }
}

/// Gives a receive up at once.
#[cold]
pub fn abandon(endpoint: &Endpoint, request: RequestId, kind: orphans::Kind, lent: Lent) {
    // Cancelled, or ended with the endpoint: the memory is free. Else the core still writes to it.
    if matches!(endpoint.core.cancel(request), Ok(false)) {
        endpoint.adopt(request, kind, lent);
    }
}
