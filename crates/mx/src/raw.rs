// SPDX-License-Identifier: Apache-2.0
//! The raw interface of fabric mappers. It moves Ethernet frames, and board 0 is no NIC: there is
//! nothing to open, so all that is left of it is to say so.

use std::ffi::{c_char, c_int, c_void};

use crate::board;
use crate::codes;
use crate::errors::fail;
use crate::types::{Code, Param};

/// `mx_raw_endpoint_t`; there never is one.
type RawHandle = *mut c_void;

const NO_HANDLE: c_int = -1;

fn no_endpoint(what: &str) -> Code {
    fail(None, codes::BAD_ENDPOINT, what)
}

fn open(board: u32, endpoint: *mut RawHandle, what: &str) -> Code {
    // SAFETY: null or a pointer of the program.
    if let Some(to) = unsafe { endpoint.as_mut() } {
        *to = std::ptr::null_mut();
    }
    let code = if board::exists(board) { codes::NO_DEV } else { codes::BOARD_UNKNOWN };
    fail(None, code, what)
}

#[unsafe(no_mangle)]
extern "C" fn mx_raw_open_endpoint(
    board: u32,
    _params: *const Param,
    _count: u32,
    endpoint: *mut RawHandle,
) -> Code {
    open(board, endpoint, "mx_raw_open_endpoint")
}

#[unsafe(no_mangle)]
extern "C" fn omx_raw_open_endpoint(
    board: u32,
    _params: *const Param,
    _count: u32,
    endpoint: *mut RawHandle,
) -> Code {
    open(board, endpoint, "omx_raw_open_endpoint")
}

#[unsafe(no_mangle)]
extern "C" fn mx_raw_handle(_endpoint: RawHandle) -> c_int {
    NO_HANDLE
}

#[unsafe(no_mangle)]
extern "C" fn mx_raw_close_endpoint(_endpoint: RawHandle) -> Code {
    no_endpoint("mx_raw_close_endpoint")
}

#[unsafe(no_mangle)]
extern "C" fn omx_raw_close_endpoint(_endpoint: RawHandle) -> Code {
    no_endpoint("omx_raw_close_endpoint")
}

#[unsafe(no_mangle)]
extern "C" fn mx_raw_send(
    _endpoint: RawHandle,
    _port: u32,
    _route: *mut c_void,
    _route_length: u32,
    _buffer: *mut c_void,
    _length: u32,
    _context: *mut c_void,
) -> Code {
    no_endpoint("mx_raw_send")
}

#[unsafe(no_mangle)]
extern "C" fn mx_raw_next_event(
    _endpoint: RawHandle,
    _port: *mut u32,
    _context: *mut *mut c_void,
    _buffer: *mut c_void,
    _bytes: *mut u32,
    _timeout: u32,
    _status: *mut c_int,
) -> Code {
    no_endpoint("mx_raw_next_event")
}

#[unsafe(no_mangle)]
extern "C" fn mx_raw_set_route_begin(_endpoint: RawHandle) -> Code {
    no_endpoint("mx_raw_set_route_begin")
}

#[unsafe(no_mangle)]
extern "C" fn mx_raw_set_route_end(_endpoint: RawHandle) -> Code {
    no_endpoint("mx_raw_set_route_end")
}

#[unsafe(no_mangle)]
extern "C" fn mx_raw_set_route(
    _endpoint: RawHandle,
    _destination: u64,
    _route: *mut c_void,
    _route_length: u32,
    _input_port: u32,
    _output_port: u32,
    _host_type: c_int,
) -> Code {
    no_endpoint("mx_raw_set_route")
}

#[unsafe(no_mangle)]
extern "C" fn mx_raw_set_route_mag(
    _endpoint: RawHandle,
    _destination: u64,
    _route: *mut c_void,
    _route_length: u32,
    _input_port: u32,
    _output_port: u32,
    _host_type: c_int,
    _mag_id: u32,
) -> Code {
    no_endpoint("mx_raw_set_route_mag")
}

#[unsafe(no_mangle)]
extern "C" fn mx_raw_clear_routes(_endpoint: RawHandle, _destination: u64, _port: u32) -> Code {
    no_endpoint("mx_raw_clear_routes")
}

#[unsafe(no_mangle)]
extern "C" fn mx_raw_remove_peer(_endpoint: RawHandle, _destination: u64) -> Code {
    no_endpoint("mx_raw_remove_peer")
}

#[unsafe(no_mangle)]
extern "C" fn mx_raw_set_map_version(
    _endpoint: RawHandle,
    _port: u32,
    _mapper: u64,
    _version: u32,
    _nodes: u32,
    _complete: u32,
) -> Code {
    no_endpoint("mx_raw_set_map_version")
}

#[unsafe(no_mangle)]
extern "C" fn mx_raw_num_ports(_endpoint: RawHandle, _ports: *mut u32) -> Code {
    no_endpoint("mx_raw_num_ports")
}

#[unsafe(no_mangle)]
extern "C" fn mx_raw_line_speed(_endpoint: RawHandle, _speed: *mut c_int) -> Code {
    no_endpoint("mx_raw_line_speed")
}

#[unsafe(no_mangle)]
extern "C" fn mx_raw_set_hostname(_endpoint: RawHandle, _name: *mut c_char) -> Code {
    no_endpoint("mx_raw_set_hostname")
}

#[unsafe(no_mangle)]
extern "C" fn mx_raw_set_peer_name(_endpoint: RawHandle, _nic: u64, _name: *mut c_char) -> Code {
    no_endpoint("mx_raw_set_peer_name")
}

#[unsafe(no_mangle)]
extern "C" fn mx_raw_set_nic_reply_info(
    _endpoint: RawHandle,
    _blob: *mut c_void,
    _size: u32,
) -> Code {
    no_endpoint("mx_raw_set_nic_reply_info")
}
