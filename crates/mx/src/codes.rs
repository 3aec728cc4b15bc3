// SPDX-License-Identifier: Apache-2.0
//! Codes and their texts (`mx.md` 1.4).
//!
//! Inside, one numbering is used: that of the native interface, which serves as result and as
//! status. Up to 42 it is `mx_return_t` too; [`status`] makes an `mx_status_code_t` of it.

use std::ffi::CStr;

use diolkos::{Error, IslandError, StatusCode};

use crate::types::Code;

pub const SUCCESS: Code = 0;
pub const BAD_BAD_BAD: Code = 1;
pub const FAILURE: Code = 2;
pub const ALREADY_INITIALIZED: Code = 3;
pub const NOT_INITIALIZED: Code = 4;
pub const NO_DEV: Code = 5;
pub const NO_DRIVER: Code = 6;
pub const NO_PERM: Code = 7;
pub const BOARD_UNKNOWN: Code = 8;
pub const BAD_ENDPOINT: Code = 9;
pub const BAD_SEG_MEM: Code = 11;
pub const BAD_SEG_CNT: Code = 12;
pub const BAD_REQUEST: Code = 13;
pub const BAD_MATCH_MASK: Code = 14;
pub const NO_RESOURCES: Code = 15;
pub const BUSY: Code = 20;
pub const BAD_INFO_KEY: Code = 21;
pub const BAD_INFO_VAL: Code = 22;
pub const BAD_PARAM_LIST: Code = 24;
pub const BAD_PARAM_NAME: Code = 25;
pub const BAD_PARAM_VAL: Code = 26;
pub const HOST_NOT_FOUND: Code = 28;
pub const TIMEOUT: Code = 30;
pub const BAD_ENDPOINT_ID: Code = 32;
pub const CONNECTION_FAILED: Code = 33;
pub const BAD_CONNECTION_KEY: Code = 34;
pub const BAD_INFO_LENGTH: Code = 35;
pub const NIC_NOT_FOUND: Code = 36;
pub const BAD_LIB_VERSION: Code = 38;
pub const CLOSE_IN_HANDLER: Code = 41;
pub const BAD_MATCHING_FOR_CONTEXT_ID_MASK: Code = 42;
pub const CANCELLED: Code = 90;
pub const UNREACHABLE: Code = 92;
pub const BAD_SESSION: Code = 93;
pub const ABORTED: Code = 94;
pub const TRUNCATED: Code = 95;
pub const NOT_SUPPORTED_IN_HANDLER: Code = 96;

/// The texts of `mx_return_t` 0 to 43, by number.
const RETURN_TEXTS: [&CStr; 44] = [
    c"Success",
    c"Unexpected error of the system",
    c"Failure",
    c"Already initialized",
    c"Not initialized",
    c"No backend, and nothing that could start one",
    c"The backend cannot be started or does not answer",
    c"Permission denied",
    c"No such board",
    c"Bad or closed endpoint",
    c"Bad segment list",
    c"Bad segment memory",
    c"Bad segment count",
    c"Bad request",
    c"Match value has bits outside the mask",
    c"No resources",
    c"Bad address list",
    c"Bad address count",
    c"Bad root",
    c"Not completed",
    c"Busy",
    c"Bad info key",
    c"Bad info value",
    c"Bad NIC",
    c"Bad parameter list",
    c"Bad parameter name",
    c"Bad parameter value",
    c"Bad host name arguments",
    c"Host not found",
    c"Request pending",
    c"Timed out",
    c"No match",
    c"Bad endpoint id",
    c"Connection failed: the remote endpoint is closed",
    c"Bad connection key",
    c"Bad info length",
    c"NIC not found",
    c"Bad driver version",
    c"Bad library version",
    c"NIC dead",
    c"Cancel not supported",
    c"Close called in the unexpected handler",
    c"Receive does not fix the context id",
    c"Not supported with context ids",
];

/// The texts of `mx_status_code_t`, by number.
const STATUS_TEXTS: [&CStr; 17] = [
    c"Success",
    c"Pending",
    c"Buffered",
    c"Rejected",
    c"Timed out",
    c"Truncated",
    c"Cancelled",
    c"Endpoint unknown",
    c"Endpoint closed",
    c"Endpoint unreachable",
    c"Bad session: the endpoint was closed and opened again",
    c"Bad connection key",
    c"Bad endpoint id",
    c"Bad RDMA window",
    c"Aborted",
    c"Event queue full",
    c"No resources",
];

/// The text of a result. Never fails.
pub fn return_text(code: Code) -> &'static CStr {
    match code {
        CANCELLED => c"Cancelled",
        91 => c"Bad RDMA window",
        UNREACHABLE => c"Endpoint unreachable",
        BAD_SESSION => c"Bad session: the endpoint was closed and opened again",
        ABORTED => c"Aborted",
        TRUNCATED => c"Truncated",
        NOT_SUPPORTED_IN_HANDLER => c"Not supported in the unexpected handler",
        97 => c"No resources of the system",
        99 => c"Not implemented",
        _ => {
            let text = usize::try_from(code).ok().and_then(|at| RETURN_TEXTS.get(at));
            text.copied().unwrap_or(c"Unknown code")
        }
    }
}

/// The text of a status. Never fails.
pub fn status_text(status: Code) -> &'static CStr {
    let text = usize::try_from(status).ok().and_then(|at| STATUS_TEXTS.get(at));
    text.copied().unwrap_or(c"Unknown status")
}

/// The status code of MX for a native code. What has none, from a handler of the program say, is
/// an aborted message.
pub fn status(native: Code) -> Code {
    match native {
        SUCCESS => 0,
        TIMEOUT => 4,
        TRUNCATED => 5,
        CANCELLED => 6,
        CONNECTION_FAILED => 8,
        UNREACHABLE => 9,
        BAD_SESSION => 10,
        BAD_CONNECTION_KEY => 11,
        BAD_ENDPOINT_ID => 12,
        91 => 13,
        NO_RESOURCES | 97 => 16,
        _ => 14,
    }
}

/// The native code of how a request ended. A refused connect has a reason of its own.
pub fn of_status(code: StatusCode) -> Code {
    match code {
        StatusCode::Success => SUCCESS,
        StatusCode::Truncated => TRUNCATED,
        StatusCode::Cancelled => CANCELLED,
        // Whoever dies has its endpoints closed by the system: to its peers it is the same.
        StatusCode::PeerClosed | StatusCode::PeerDied => CONNECTION_FAILED,
        _ => UNREACHABLE,
    }
}

/// The native code of a refused introduction.
pub fn of_refusal(error: &IslandError) -> Code {
    match error {
        IslandError::NotFound { .. } => CONNECTION_FAILED,
        IslandError::BadKey { .. } => BAD_CONNECTION_KEY,
        IslandError::Limit { .. } | IslandError::Busy { .. } => NO_RESOURCES,
        _ => UNREACHABLE,
    }
}

/// The code of a call that failed.
#[cold]
pub fn of_error(error: &Error) -> Code {
    match error {
        Error::Closed | Error::Forked => BAD_ENDPOINT,
        Error::Busy | Error::NoResources => NO_RESOURCES,
        Error::Invalid(_) => BAD_REQUEST,
        Error::NotConnected => BAD_SESSION,
        Error::PeerGone(code) => of_status(*code),
        _ => BAD_BAD_BAD,
    }
}
