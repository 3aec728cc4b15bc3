// SPDX-License-Identifier: Apache-2.0
//! Results: the numbers of `enum dio_code`, and sentences about them.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int};

use diolkos::{ArenaError, Error, IslandError, StatusCode};

pub type Code = c_int;

pub const SUCCESS: Code = 0;
pub const NOT_YET: Code = 1;
pub const INVALID: Code = 2;
const CLOSED: Code = 3;
const FORKED: Code = 4;
const INTERRUPTED: Code = 5;
pub const NOT_CONNECTED: Code = 6;
const BUSY: Code = 7;
const NO_RESOURCES: Code = 8;
const ARENA_FULL: Code = 9;
const NO_MEMORY: Code = 10;
const SYSTEM: Code = 11;
const UNAVAILABLE: Code = 12;
const REFUSED: Code = 13;
const TIMEOUT: Code = 14;
pub const INTERNAL: Code = 15;
const TRUNCATED: Code = 32;
const CANCELLED: Code = 33;
const ENDPOINT_CLOSED: Code = 34;
const PEER_CLOSED: Code = 35;
const PEER_DIED: Code = 36;
const PEER_MISBEHAVED: Code = 37;
const DENIED: Code = 38;
const REVOKED: Code = 39;
const OUT_OF_RANGE: Code = 40;

/// What a call came to, if not to success.
#[derive(Debug)]
pub struct Failure {
    pub code: Code,
    /// For `dio_error_text`, where there is more to say than the code does.
    pub text: Option<String>,
}

impl Failure {
    pub fn invalid(what: &str) -> Self {
        Self { code: INVALID, text: Some(what.to_owned()) }
    }

    /// Not a failure: nothing to remember.
    pub fn not_yet() -> Self {
        Self { code: NOT_YET, text: None }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { code: code_of(&error), text: Some(error.to_string()) }
    }
}

fn code_of(error: &Error) -> Code {
    match error {
        Error::Closed => CLOSED,
        Error::Forked => FORKED,
        Error::Interrupted => INTERRUPTED,
        Error::NotConnected => NOT_CONNECTED,
        Error::PeerGone(code) => status_code(*code),
        Error::Busy => BUSY,
        Error::NoResources => NO_RESOURCES,
        Error::Invalid(_) => INVALID,
        Error::Denied => DENIED,
        Error::OutOfRange => OUT_OF_RANGE,
        Error::Arena(ArenaError::Full { .. }) => ARENA_FULL,
        Error::Arena(ArenaError::BadAlign | ArenaError::TooLong) => INVALID,
        Error::Arena(_) => NO_MEMORY,
        Error::Introduction(error) => match error {
            IslandError::BackendUnavailable { .. } | IslandError::Version { .. } => UNAVAILABLE,
            IslandError::Invalid { .. } => INVALID,
            IslandError::Timeout { .. } => TIMEOUT,
            IslandError::System { .. } | IslandError::BackendMisbehaved { .. } => SYSTEM,
            IslandError::Limit { .. } => NO_RESOURCES,
            _ => REFUSED,
        },
        _ => SYSTEM,
    }
}

pub fn status_code(code: StatusCode) -> Code {
    match code {
        StatusCode::Success => SUCCESS,
        StatusCode::Truncated => TRUNCATED,
        StatusCode::Cancelled => CANCELLED,
        StatusCode::EndpointClosed => ENDPOINT_CLOSED,
        StatusCode::PeerClosed => PEER_CLOSED,
        StatusCode::PeerDied => PEER_DIED,
        StatusCode::PeerMisbehaved => PEER_MISBEHAVED,
        StatusCode::Refused => REFUSED,
        StatusCode::Denied => DENIED,
        StatusCode::Revoked => REVOKED,
        StatusCode::OutOfRange => OUT_OF_RANGE,
        StatusCode::NoMemory => NO_MEMORY,
        _ => INTERNAL,
    }
}

fn sentence(code: Code) -> &'static CStr {
    match code {
        SUCCESS => c"success",
        NOT_YET => c"not yet",
        INVALID => c"an argument makes no sense",
        CLOSED => c"the endpoint is closed",
        FORKED => c"the endpoint belongs to the parent of this forked process",
        INTERRUPTED => c"a signal interrupted the wait",
        NOT_CONNECTED => c"not connected to such a peer",
        BUSY => c"too much waits for this peer already",
        NO_RESOURCES => c"too many requests, peers or regions at this endpoint",
        ARENA_FULL => c"the arena has reached its limit",
        NO_MEMORY => c"the system has no memory or descriptors left",
        SYSTEM => c"a system call failed",
        UNAVAILABLE => c"there is no backend, and none could be started",
        REFUSED => c"the backend refused",
        TIMEOUT => c"the target did not appear in time",
        INTERNAL => c"a fault of the library",
        TRUNCATED => c"the receive was shorter than the message",
        CANCELLED => c"cancelled before it matched",
        ENDPOINT_CLOSED => c"the endpoint was closed, or disconnected from the peer",
        PEER_CLOSED => c"the peer closed its endpoint",
        PEER_DIED => c"the peer's process died",
        PEER_MISBEHAVED => c"the peer broke the protocol; its channel is closed",
        DENIED => c"the key does not allow this",
        REVOKED => c"the region was revoked by its owner",
        OUT_OF_RANGE => c"the place lies outside of the region, or is not aligned",
        _ => c"no such code",
    }
}

thread_local! {
    static LAST: RefCell<CString> = RefCell::default();
}

/// Keeps what a failed call has to say.
pub fn remember(failure: &Failure) {
    let text = match &failure.text {
        Some(text) => CString::new(text.replace('\0', " ")).unwrap_or_default(),
        None => sentence(failure.code).to_owned(),
    };
    // At the end of a thread there is nobody to tell.
    let _ = LAST.try_with(|last| *last.borrow_mut() = text);
}

#[unsafe(no_mangle)]
extern "C" fn dio_strerror(code: Code) -> *const c_char {
    sentence(code).as_ptr()
}

#[unsafe(no_mangle)]
extern "C" fn dio_error_text() -> *const c_char {
    LAST.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}
