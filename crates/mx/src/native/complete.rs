// SPDX-License-Identifier: Apache-2.0
//! Completing, by the native names.

use std::ffi::c_void;

use crate::complete::{self, Answer, Face};
use crate::probe::probe;
use crate::types::{Code, EndpointHandle, MxStatus, RequestHandle};
use crate::wait::Limit;

#[unsafe(no_mangle)]
unsafe extern "C" fn omx_test(
    handle: EndpointHandle,
    request: *mut RequestHandle,
    status: *mut MxStatus,
    result: *mut u32,
) -> Code {
    let to = Answer { status, result };
    // SAFETY: pointers of the program, as the interface demands.
    unsafe { complete::one(Face::Native, handle, request, Limit::Now, to, "omx_test") }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn omx_wait(
    handle: EndpointHandle,
    request: *mut RequestHandle,
    status: *mut MxStatus,
    result: *mut u32,
    timeout: u32,
) -> Code {
    let to = Answer { status, result };
    let limit = Limit::native(timeout);
    // SAFETY: pointers of the program, as the interface demands.
    unsafe { complete::one(Face::Native, handle, request, limit, to, "omx_wait") }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn omx_test_any(
    handle: EndpointHandle,
    match_info: u64,
    mask: u64,
    status: *mut MxStatus,
    result: *mut u32,
) -> Code {
    let (wanted, to) = ((match_info, mask), Answer { status, result });
    // SAFETY: pointers of the program, as the interface demands.
    unsafe { complete::any(Face::Native, handle, wanted, Limit::Now, to, "omx_test_any") }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn omx_wait_any(
    handle: EndpointHandle,
    match_info: u64,
    mask: u64,
    status: *mut MxStatus,
    result: *mut u32,
    timeout: u32,
) -> Code {
    let (wanted, to) = ((match_info, mask), Answer { status, result });
    let limit = Limit::native(timeout);
    // SAFETY: pointers of the program, as the interface demands.
    unsafe { complete::any(Face::Native, handle, wanted, limit, to, "omx_wait_any") }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn omx_ipeek(
    handle: EndpointHandle,
    request: *mut RequestHandle,
    result: *mut u32,
) -> Code {
    // SAFETY: pointers of the program, as the interface demands.
    unsafe { complete::peek(handle, Limit::Now, request, result, "omx_ipeek") }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn omx_peek(
    handle: EndpointHandle,
    request: *mut RequestHandle,
    result: *mut u32,
    timeout: u32,
) -> Code {
    // SAFETY: pointers of the program, as the interface demands.
    unsafe { complete::peek(handle, Limit::native(timeout), request, result, "omx_peek") }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn omx_iprobe(
    handle: EndpointHandle,
    match_info: u64,
    mask: u64,
    status: *mut MxStatus,
    result: *mut u32,
) -> Code {
    let to = Answer { status, result };
    // SAFETY: pointers of the program, as the interface demands.
    unsafe { probe(handle, (match_info, mask), Limit::Now, to, "omx_iprobe") }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn omx_probe(
    handle: EndpointHandle,
    match_info: u64,
    mask: u64,
    status: *mut MxStatus,
    result: *mut u32,
    timeout: u32,
) -> Code {
    let to = Answer { status, result };
    // SAFETY: pointers of the program, as the interface demands.
    unsafe { probe(handle, (match_info, mask), Limit::native(timeout), to, "omx_probe") }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn omx_ibuffered(
    handle: EndpointHandle,
    request: *mut RequestHandle,
    result: *mut u32,
) -> Code {
    // SAFETY: pointers of the program, as the interface demands.
    unsafe { complete::buffered(handle, request, Limit::Now, result, "omx_ibuffered") }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn omx_cancel(
    handle: EndpointHandle,
    request: *mut RequestHandle,
    result: *mut u32,
) -> Code {
    // SAFETY: pointers of the program, as the interface demands.
    unsafe { complete::cancel(handle, request, result, false, "omx_cancel") }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn omx_cancel_notest(
    handle: EndpointHandle,
    request: *mut RequestHandle,
    result: *mut u32,
) -> Code {
    // SAFETY: pointers of the program, as the interface demands.
    unsafe { complete::cancel(handle, request, result, true, "omx_cancel_notest") }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn omx_forget(handle: EndpointHandle, request: *mut RequestHandle) -> Code {
    // SAFETY: a pointer of the program, as the interface demands.
    unsafe { complete::forget(handle, request, "omx_forget") }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn omx_context(request: *mut RequestHandle, to: *mut *mut c_void) -> Code {
    // SAFETY: pointers of the program, as the interface demands.
    unsafe { complete::context(request, to, "omx_context") }
}
