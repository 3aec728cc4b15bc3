// SPDX-License-Identifier: Apache-2.0
//! Which Rust error becomes which Python exception. The tree itself is `diolkos/errors.py`.

use diolkos::{ArenaError, Error, IslandError, PeerId, Status, StatusCode, system_hint};
use pyo3::exceptions::{PyKeyboardInterrupt, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyModule;
use rustix::io::Errno;

use crate::endpoint::Endpoint;

/// An exception of `diolkos.errors` with a sentence and perhaps a way out.
#[cold]
pub fn raise(py: Python<'_>, class: &str, message: &str, hint: Option<&str>) -> PyErr {
    static ERRORS: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let made = ERRORS
        .get_or_try_init(py, || py.import("diolkos.errors").map(Bound::unbind))
        .and_then(|errors| errors.bind(py).getattr(class)?.call1((message, hint)));
    match made {
        Ok(exception) => PyErr::from_value(exception),
        Err(error) => error,
    }
}

/// The exception for an error of the core.
#[cold]
pub fn from_core(py: Python<'_>, error: Error) -> PyErr {
    let text = error.to_string();
    match &error {
        Error::Closed => raise(py, "ClosedError", &text, None),
        Error::Forked => raise(py, "ForkedError", &text, None),
        // A caller that knows signals handles it before; nobody else waits.
        Error::Interrupted => PyKeyboardInterrupt::new_err(()),
        Error::NotConnected => raise(py, "NotConnected", &text, Some("connect to it first")),
        Error::PeerGone(code) => raise(py, peer_class(*code), &text, None),
        Error::Busy => raise(py, "BusyError", &text, None),
        Error::NoResources => raise(py, "LimitError", &text, None),
        Error::Invalid(_) => PyValueError::new_err(text),
        Error::Introduction(island) => from_island(py, island, &text),
        Error::Arena(arena) => from_arena(py, arena, &text),
        Error::Denied => raise(py, "KeyRefusedError", &text, None),
        Error::OutOfRange => raise(py, "RangeError", &text, None),
        Error::Grant(_) => raise(py, "BackendError", &text, None),
        Error::System(_, errno) => from_system(py, *errno, &text),
        _ => raise(py, "DiolkosError", &text, None),
    }
}

fn from_arena(py: Python<'_>, error: &ArenaError, text: &str) -> PyErr {
    match error {
        ArenaError::BadAlign | ArenaError::TooLong => PyValueError::new_err(text.to_owned()),
        ArenaError::System(errno) => from_system(py, *errno, text),
        _ => {
            let hint = "or open the endpoint with a larger arena_nbytes";
            raise(py, "ArenaFullError", text, Some(hint))
        }
    }
}

fn from_island(py: Python<'_>, error: &IslandError, text: &str) -> PyErr {
    let class = match error {
        IslandError::Denied { .. } => "DeniedError",
        IslandError::Busy { .. } => "BusyError",
        IslandError::Limit { .. } => "LimitError",
        IslandError::Invalid { .. } => return PyValueError::new_err(text.to_owned()),
        IslandError::NotFound { .. } => "NotFoundError",
        IslandError::Timeout { .. } => "Timeout",
        IslandError::System { errno, .. } => return from_system(py, *errno, text),
        _ => "BackendError",
    };
    raise(py, class, text, error.hint())
}

/// `SystemRefusal` is an `OSError` and takes the number first.
fn from_system(py: Python<'_>, errno: Errno, text: &str) -> PyErr {
    let arguments = (errno.raw_os_error(), text, system_hint(errno));
    let made = py
        .import("diolkos.errors")
        .and_then(|errors| errors.getattr("SystemRefusal")?.call1(arguments));
    match made {
        Ok(exception) => PyErr::from_value(exception),
        Err(error) => error,
    }
}

fn peer_class(code: StatusCode) -> &'static str {
    match code {
        StatusCode::PeerClosed => "PeerClosed",
        StatusCode::PeerDied => "PeerDied",
        StatusCode::PeerMisbehaved => "PeerMisbehaved",
        _ => "NotConnected",
    }
}

/// The exception for a request that did not end well, `None` for one that did. Truncation is not
/// an error: the status tells.
#[inline(always)]
pub fn failure(py: Python<'_>, endpoint: &Endpoint, status: &Status) -> Option<PyErr> {
    match status.code {
        StatusCode::Success | StatusCode::Truncated => None,
        _ => Some(describe_failure(py, endpoint, status)),
    }
}

#[cold]
fn describe_failure(py: Python<'_>, endpoint: &Endpoint, status: &Status) -> PyErr {
    match status.code {
        StatusCode::Cancelled => raise(py, "Cancelled", "the request was cancelled", None),
        StatusCode::EndpointClosed if endpoint.core.is_closed() => from_core(py, Error::Closed),
        StatusCode::Denied | StatusCode::Revoked | StatusCode::OutOfRange => {
            describe_refusal(py, endpoint, status)
        }
        StatusCode::NoMemory => {
            let who = describe_peer(endpoint, status.source);
            let text = format!("there is no memory for a copy of the loan of {who}; it went back");
            let hint = "free memory that is not needed, or open the endpoint with a larger \
                        arena_nbytes";
            raise(py, "ArenaFullError", &text, Some(hint))
        }
        code => {
            let who = describe_peer(endpoint, status.source);
            let what = Error::PeerGone(code);
            raise(py, peer_class(code), &format!("{who}: {what}"), None)
        }
    }
}

/// The exception for an operation that the owner of a region does not allow.
#[cold]
fn describe_refusal(py: Python<'_>, endpoint: &Endpoint, status: &Status) -> PyErr {
    let who = describe_peer(endpoint, status.source);
    let (class, what, hint) = match status.code {
        StatusCode::Denied => (
            "KeyRefusedError",
            "does not accept the key for this: it is not one of its keys, is bound to another \
             peer, or allows reading only",
            "ask the owner of the region for a key with the rights that you need",
        ),
        StatusCode::Revoked => {
            ("RevokedError", "has revoked the region", "ask its owner for the key of another one")
        }
        _ => (
            "RangeError",
            "has no such place in the region, or none that is a multiple of 8 bytes for an atomic",
            "an operation lies between 0 and key.nbytes",
        ),
    };
    raise(py, class, &format!("{who} {what}"), Some(hint))
}

/// A peer's name and number for messages.
pub fn describe_peer(endpoint: &Endpoint, peer: PeerId) -> String {
    if peer == PeerId::SELF {
        return "this endpoint".into();
    }
    match endpoint.core.peer_info(peer) {
        Ok(Some(info)) => format!("{} (endpoint {})", info.name, info.number),
        _ => "a peer".into(),
    }
}

/// The exception for a deadline that passed.
#[cold]
pub fn timeout(py: Python<'_>, what: &str) -> PyErr {
    raise(py, "Timeout", what, None)
}
