// SPDX-License-Identifier: Apache-2.0
//! Endpoints, addresses and information, by their native names.

use std::ffi::c_void;

use crate::address;
use crate::board;
use crate::codes;
use crate::connect::{self, Wish};
use crate::endpoint::{ENDPOINTS_MAX, Port, open_for_program};
use crate::errors::{self, fail};
use crate::handler;
use crate::info::{self, COUNTERS, Out, optional_port};
use crate::library;
use crate::progression;
use crate::types::{
    Addr, Code, EndpointHandle, ErrorHandler, Param, RequestHandle, UnexpectedHandler,
};
use crate::wait::Limit;

unsafe extern "C" {
    fn mx_decompose_endpoint_addr2(a: Addr, nic: *mut u64, id: *mut u32, session: *mut u32)
    -> Code;
    fn mx_get_endpoint_addr_context(addr: Addr, context: *mut *mut c_void) -> Code;
    safe fn mx_set_endpoint_addr_context(addr: Addr, context: *mut c_void) -> Code;
}

#[unsafe(no_mangle)]
extern "C" fn omx_set_error_handler(
    handle: EndpointHandle,
    handler: Option<ErrorHandler>,
) -> ErrorHandler {
    match Port::at(handle) {
        Some(port) => errors::set_own(port, handler),
        None => errors::set_global(handler),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn omx_open_endpoint(
    board: u32,
    id: u32,
    key: u32,
    params: *const Param,
    count: u32,
    endpoint: *mut EndpointHandle,
) -> Code {
    // SAFETY: pointers of the program, as the interface demands.
    unsafe { open_for_program((board, id, key), params, count, endpoint, "omx_open_endpoint") }
}

#[unsafe(no_mangle)]
extern "C" fn omx_wakeup(handle: EndpointHandle) -> Code {
    crate::complete::wakeup(handle, "omx_wakeup")
}

#[unsafe(no_mangle)]
extern "C" fn omx_progress(handle: EndpointHandle) -> Code {
    progression::progress(handle, "omx_progress")
}

#[unsafe(no_mangle)]
extern "C" fn omx_disable_progression(handle: EndpointHandle) -> Code {
    progression::disable(handle, "omx_disable_progression")
}

#[unsafe(no_mangle)]
extern "C" fn omx_reenable_progression(handle: EndpointHandle) -> Code {
    progression::reenable(handle, "omx_reenable_progression")
}

#[unsafe(no_mangle)]
extern "C" fn omx_register_unexp_handler(
    handle: EndpointHandle,
    handler: Option<UnexpectedHandler>,
    context: *mut c_void,
) -> Code {
    handler::register(handle, handler, context, "omx_register_unexp_handler")
}

#[unsafe(no_mangle)]
unsafe extern "C" fn omx_get_endpoint_addr(handle: EndpointHandle, addr: *mut Addr) -> Code {
    // SAFETY: a pointer of the program, as the interface demands.
    unsafe { address::own(handle, addr, "omx_get_endpoint_addr") }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn omx_decompose_endpoint_addr(
    addr: Addr,
    nic_id: *mut u64,
    endpoint_id: *mut u32,
) -> Code {
    // SAFETY: pointers of the program, as the interface demands.
    unsafe { mx_decompose_endpoint_addr2(addr, nic_id, endpoint_id, std::ptr::null_mut()) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn omx_decompose_endpoint_addr_with_session(
    addr: Addr,
    nic_id: *mut u64,
    endpoint_id: *mut u32,
    session_id: *mut u32,
) -> Code {
    // SAFETY: pointers of the program, as the interface demands.
    unsafe { mx_decompose_endpoint_addr2(addr, nic_id, endpoint_id, session_id) }
}

#[unsafe(no_mangle)]
extern "C" fn omx_set_endpoint_addr_context(addr: Addr, context: *mut c_void) -> Code {
    mx_set_endpoint_addr_context(addr, context)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn omx_get_endpoint_addr_context(addr: Addr, context: *mut *mut c_void) -> Code {
    // SAFETY: a pointer of the program, as the interface demands.
    unsafe { mx_get_endpoint_addr_context(addr, context) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn omx_connect(
    handle: EndpointHandle,
    nic_id: u64,
    endpoint_id: u32,
    key: u32,
    timeout: u32,
    addr: *mut Addr,
) -> Code {
    let wish = Wish { nic_id, endpoint_id, key };
    // SAFETY: a pointer of the program, as the interface demands.
    unsafe { connect::now(handle, &wish, Limit::native(timeout), addr, "omx_connect") }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn omx_iconnect(
    handle: EndpointHandle,
    nic_id: u64,
    endpoint_id: u32,
    key: u32,
    match_info: u64,
    context: *mut c_void,
    request: *mut RequestHandle,
) -> Code {
    let wish = Wish { nic_id, endpoint_id, key };
    // SAFETY: a pointer of the program, as the interface demands.
    unsafe { connect::later(handle, &wish, (match_info, context), request, "omx_iconnect") }
}

#[unsafe(no_mangle)]
extern "C" fn omx_disconnect(handle: EndpointHandle, addr: Addr) -> Code {
    connect::part(handle, addr, "omx_disconnect")
}

fn answer(key: Code, port: Option<&Port>, input: Option<u32>) -> Result<Out, Code> {
    if matches!(key, 4..=6 | 8) && !board::exists(input.unwrap_or(0)) {
        return Err(codes::BOARD_UNKNOWN);
    }
    Ok(match key {
        0 | 2 => Out::word(1),
        1 => Out::word(ENDPOINTS_MAX),
        3 => Out::nic_ids(),
        4 => Out::text(&board::name()),
        5 => Out::text("diolkos"),
        6 => Out::word(u32::MAX),
        7 => Out::word(COUNTERS.len() as u32),
        8 => info::counters(port)?,
        9 => {
            let index = input.ok_or(codes::BAD_INFO_VAL)? as usize;
            Out::text(COUNTERS.get(index).ok_or(codes::BAD_INFO_VAL)?)
        }
        _ => return Err(codes::BAD_INFO_KEY),
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn omx_get_info(
    handle: EndpointHandle,
    key: Code,
    input: *const c_void,
    input_length: u32,
    output: *mut c_void,
    output_length: u32,
) -> Code {
    let told = || {
        if !library::is_initialized() {
            return Err(codes::NOT_INITIALIZED);
        }
        let port = optional_port(handle)?;
        let input = match key {
            // SAFETY: memory of the program, as the interface demands.
            4..=6 | 8 | 9 => unsafe { info::number(input, input_length) }?,
            _ => None,
        };
        let out = answer(key, port, input)?;
        // SAFETY: memory of the program, as the interface demands.
        unsafe { out.write(output, output_length) }
    };
    match told() {
        Ok(()) => codes::SUCCESS,
        Err(code) => fail(Port::at(handle), code, "omx_get_info"),
    }
}
