// SPDX-License-Identifier: Apache-2.0
//! Posting, by the native names.

use std::ffi::c_void;

use crate::codes;
use crate::endpoint::Port;
use crate::errors::fail;
use crate::receive;
use crate::segments::{self, Stretch};
use crate::send::{self, Letter};
use crate::types::{Addr, Code, EndpointHandle, RequestHandle, Segment};

/// One buffer, which may be longer than a segment.
fn buffer(base: *mut c_void, length: usize, most: usize) -> Result<Stretch, Code> {
    if base.is_null() && length > 0 {
        return Err(codes::BAD_SEG_MEM);
    }
    if length > most {
        return Err(codes::NO_RESOURCES);
    }
    Ok(Stretch::Whole(base.cast(), length))
}

/// # Safety
/// As the interface demands.
unsafe fn send_buffer(
    handle: EndpointHandle,
    (base, length): (*mut c_void, usize),
    letter: &Letter,
    request: *mut RequestHandle,
    what: &str,
) -> Code {
    let Some(port) = Port::at(handle) else { return fail(None, codes::BAD_ENDPOINT, what) };
    // SAFETY: as the caller says.
    unsafe { send::post(port, buffer(base, length, u32::MAX as usize), letter, request, what) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn omx_isend(
    handle: EndpointHandle,
    base: *mut c_void,
    length: usize,
    dest: Addr,
    match_info: u64,
    context: *mut c_void,
    request: *mut RequestHandle,
) -> Code {
    let letter = Letter { dest, match_info, context, synchronous: false };
    // SAFETY: pointers of the program, as the interface demands.
    unsafe { send_buffer(handle, (base, length), &letter, request, "omx_isend") }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn omx_issend(
    handle: EndpointHandle,
    base: *mut c_void,
    length: usize,
    dest: Addr,
    match_info: u64,
    context: *mut c_void,
    request: *mut RequestHandle,
) -> Code {
    let letter = Letter { dest, match_info, context, synchronous: true };
    // SAFETY: pointers of the program, as the interface demands.
    unsafe { send_buffer(handle, (base, length), &letter, request, "omx_issend") }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn omx_isendv(
    handle: EndpointHandle,
    list: *const Segment,
    count: u32,
    dest: Addr,
    match_info: u64,
    context: *mut c_void,
    request: *mut RequestHandle,
) -> Code {
    let letter = Letter { dest, match_info, context, synchronous: false };
    // SAFETY: pointers of the program, as the interface demands.
    unsafe { send::post_list(handle, list, count, &letter, request, "omx_isendv") }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn omx_issendv(
    handle: EndpointHandle,
    list: *const Segment,
    count: u32,
    dest: Addr,
    match_info: u64,
    context: *mut c_void,
    request: *mut RequestHandle,
) -> Code {
    let letter = Letter { dest, match_info, context, synchronous: true };
    // SAFETY: pointers of the program, as the interface demands.
    unsafe { send::post_list(handle, list, count, &letter, request, "omx_issendv") }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn omx_irecv(
    handle: EndpointHandle,
    base: *mut c_void,
    length: usize,
    match_info: u64,
    mask: u64,
    context: *mut c_void,
    request: *mut RequestHandle,
) -> Code {
    let what = "omx_irecv";
    let Some(port) = Port::at(handle) else { return fail(None, codes::BAD_ENDPOINT, what) };
    let stretch = buffer(base, length, isize::MAX as usize);
    // SAFETY: pointers of the program, as the interface demands.
    unsafe { receive::post(port, stretch, (match_info, mask), context, request, what) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn omx_irecvv(
    handle: EndpointHandle,
    list: *const Segment,
    count: u32,
    match_info: u64,
    mask: u64,
    context: *mut c_void,
    request: *mut RequestHandle,
) -> Code {
    let what = "omx_irecvv";
    let Some(port) = Port::at(handle) else { return fail(None, codes::BAD_ENDPOINT, what) };
    // SAFETY: pointers of the program, as the interface demands.
    unsafe {
        let stretch = segments::read(list, count, true);
        receive::post(port, stretch, (match_info, mask), context, request, what)
    }
}
