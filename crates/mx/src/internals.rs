// SPDX-License-Identifier: Apache-2.0
//! Functions that were never meant for programs, but that programs use (`mx.md` 1.7.9), and those
//! that MX declared and nobody had.

use std::ffi::{c_int, c_void};

use crate::board;
use crate::codes;
use crate::endpoint::Port;
use crate::errors::fail;
use crate::types::{Addr, Code, EndpointHandle, MapperState, RequestHandle};

/// What a board's handle is. There is no descriptor behind it, so it is a number that no descriptor has
/// (a program may close it) and that none of them takes for a failure.
const BOARD_HANDLE: c_int = 0x6d78_0000;

#[unsafe(no_mangle)]
unsafe extern "C" fn mx_open_board(board: c_int, handle: *mut c_int) -> Code {
    if !u32::try_from(board).is_ok_and(board::exists) {
        return fail(None, codes::BOARD_UNKNOWN, "mx_open_board");
    }
    // SAFETY: null or a pointer of the program.
    if let Some(to) = unsafe { handle.as_mut() } {
        *to = BOARD_HANDLE;
    }
    codes::SUCCESS
}

/// The map of a fabric that is one host, drawn by itself. Open MPI takes the last bytes of the
/// mapper for the number of the network, so it must be the same for all who can reach each other.
#[unsafe(no_mangle)]
unsafe extern "C" fn mx__get_mapper_state(_handle: c_int, state: *mut MapperState) -> Code {
    // SAFETY: null or a pointer of the program.
    let Some(to) = (unsafe { state.as_mut() }) else {
        return fail(None, codes::BAD_INFO_VAL, "mx__get_mapper_state");
    };
    let mut mapper_mac = [0; 6];
    mapper_mac.copy_from_slice(&board::nic_id().to_be_bytes()[2..]);
    *to = MapperState {
        mapper_mac,
        map_version: 1,
        num_hosts: 1,
        network_configured: 1,
        routes_valid: 1,
        ..MapperState::default()
    };
    codes::SUCCESS
}

/// Nothing is registered, so nothing is kept of memory that goes.
#[unsafe(no_mangle)]
extern "C" fn mx__regcache_clean(_start: *mut c_void, _length: usize) -> c_int {
    0
}

#[unsafe(no_mangle)]
extern "C" fn mx_iput(
    handle: EndpointHandle,
    _local: *mut c_void,
    _length: u32,
    _dest: Addr,
    _remote: u64,
    _context: *mut c_void,
    _request: *mut RequestHandle,
) -> Code {
    fail(Port::at(handle), codes::FAILURE, "mx_iput is not implemented")
}

#[unsafe(no_mangle)]
extern "C" fn mx_iget(
    handle: EndpointHandle,
    _local: *mut c_void,
    _length: u32,
    _dest: Addr,
    _remote: u64,
    _context: *mut c_void,
    _request: *mut RequestHandle,
) -> Code {
    fail(Port::at(handle), codes::FAILURE, "mx_iget is not implemented")
}
