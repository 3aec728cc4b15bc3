// SPDX-License-Identifier: Apache-2.0
//! Completing requests, and what else can be done with one.

use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::atomic::Ordering;

use diolkos::{Error, Inside, NoRequest, RequestId};

use crate::codes;
use crate::endpoint::{Port, flag};
use crate::errors::fail;
use crate::request::{self, Kind};
use crate::segments::Staging;
use crate::types::{Code, EndpointHandle, MxStatus, RequestHandle};
use crate::wait::{self, Limit};

/// Whose names and numbers a caller uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Face {
    Mx,
    Native,
}

/// Where a call writes what it found.
#[derive(Clone, Copy)]
pub struct Answer {
    pub status: *mut MxStatus,
    pub result: *mut u32,
}

/// What a search found, or the code of why it cannot be made.
type Found<T> = Result<T, Code>;

/// Tells the program whether a request was finished, and how: a failed one goes through the error
/// handler first. The rest of the status has been written.
///
/// # Safety
/// The pointers are null or point to such values.
#[inline(always)]
unsafe fn tell(port: &Port, face: Face, finished: Option<Code>, to: Answer, what: &str) {
    // SAFETY: as the caller says.
    if let Some(result) = unsafe { to.result.as_mut() } {
        *result = u32::from(finished.is_some());
    }
    if let Some(code) = finished
        && code != codes::SUCCESS
    {
        let code = failed_request(port, face, code, what);
        // SAFETY: as the caller says.
        if let Some(status) = unsafe { to.status.as_mut() } {
            status.code = code;
        }
    }
}

#[cold]
fn failed_request(port: &Port, face: Face, failed: Code, what: &str) -> Code {
    match (face, fail(Some(port), failed, what)) {
        (Face::Native, code) => code,
        (Face::Mx, code) => codes::status(code),
    }
}

/// The request that a handle means, if it is one of this port.
///
/// # Safety
/// `request` is null or points to a handle.
#[inline(always)]
unsafe fn request_of(port: &Port, request: *mut RequestHandle) -> Found<RequestId> {
    // SAFETY: as the caller says.
    let handle = unsafe { request.as_ref() }.ok_or(codes::BAD_REQUEST)?;
    // SAFETY: as the caller says.
    unsafe { id_of(port, *handle) }
}

/// # Safety
/// `handle` is null or one of this library.
#[inline(always)]
pub unsafe fn id_of(port: &Port, handle: RequestHandle) -> Found<RequestId> {
    // SAFETY: as the caller says; records stay readable while their port is there.
    let id = unsafe { handle.as_ref() }.map(|record| record.id).ok_or(codes::BAD_REQUEST)?;
    port.records.has(handle, id).then_some(id).ok_or(codes::BAD_REQUEST)
}

/// Frees a request that is complete: how it ended, or the code of why it cannot be asked for.
///
/// # Safety
/// `to` is null or points to a status.
#[inline(always)]
pub unsafe fn take(
    port: &Port,
    inside: &mut Inside<'_>,
    id: RequestId,
    to: *mut MxStatus,
) -> Option<Found<Code>> {
    match inside.test(id) {
        Ok(None) => None,
        // SAFETY: as the caller says.
        Ok(Some(status)) => Some(Ok(unsafe { request::finish(port, inside, id, &status, to) })),
        Err(NoRequest) => Some(Err(codes::BAD_REQUEST)),
    }
}

/// Completes one request, if it is complete in time.
///
/// # Safety
/// The pointers are null or point to such values.
#[inline(always)]
pub unsafe fn one(
    face: Face,
    handle: EndpointHandle,
    request: *mut RequestHandle,
    limit: Limit,
    to: Answer,
    what: &str,
) -> Code {
    let Some(port) = Port::at(handle) else { return fail(None, codes::BAD_ENDPOINT, what) };
    // SAFETY: as the caller says.
    let id = match unsafe { request_of(port, request) } {
        Ok(id) => id,
        Err(code) => return fail(Some(port), code, what),
    };
    // SAFETY: as the caller says.
    let find = |inside: &mut Inside<'_>| unsafe { take(port, inside, id, to.status) };
    let found = match limit {
        Limit::Now => wait::look(port, find),
        limit => wait::wait(port, limit, find),
    };
    match found {
        Ok(None) => {
            // SAFETY: as the caller says.
            unsafe { tell(port, face, None, to, what) };
            codes::SUCCESS
        }
        Ok(Some(Ok(finished))) => {
            // SAFETY: as the caller says; the handle is not null, or there were no request.
            unsafe {
                *request = null_mut();
                tell(port, face, Some(finished), to, what);
            }
            codes::SUCCESS
        }
        Ok(Some(Err(code))) | Err(code) => fail(Some(port), code, what),
    }
}

/// Completes the oldest complete request that fits, if there is one in time.
///
/// # Safety
/// The pointers are null or point to such values.
pub unsafe fn any(
    face: Face,
    handle: EndpointHandle,
    (match_info, mask): (u64, u64),
    limit: Limit,
    to: Answer,
    what: &str,
) -> Code {
    let Some(port) = Port::at(handle) else { return fail(None, codes::BAD_ENDPOINT, what) };
    if match_info & !mask != 0 {
        return fail(Some(port), codes::BAD_MATCH_MASK, what);
    }
    let find = |inside: &mut Inside<'_>| {
        clear_orphans(port, inside);
        match inside.test_matching(match_info, mask) {
            Ok(None) => None,
            Ok(Some((id, status))) => {
                // SAFETY: as the caller says.
                Some(unsafe { request::finish(port, inside, id, &status, to.status) })
            }
            // Only a bad mask fails, and it is none.
            Err(_) => None,
        }
    };
    match wait::wait(port, limit, find) {
        Ok(finished) => {
            // SAFETY: as the caller says.
            unsafe { tell(port, face, finished, to, what) };
            codes::SUCCESS
        }
        Err(code) => fail(Some(port), code, what),
    }
}

/// Requests that were forgotten must not be found.
#[inline(always)]
fn clear_orphans(port: &Port, inside: &mut Inside<'_>) {
    if port.flags.load(Ordering::Relaxed) & flag::CHORES != 0 {
        port.chores.sweep(port, inside);
    }
}

/// Finds the oldest complete request and leaves it.
///
/// # Safety
/// The pointers are null or point to such values.
pub unsafe fn peek(
    handle: EndpointHandle,
    limit: Limit,
    request: *mut RequestHandle,
    result: *mut u32,
    what: &str,
) -> Code {
    let Some(port) = Port::at(handle) else { return fail(None, codes::BAD_ENDPOINT, what) };
    let find = |inside: &mut Inside<'_>| {
        clear_orphans(port, inside);
        inside.oldest_complete().map(|id| port.records.at(id))
    };
    match wait::wait(port, limit, find) {
        Ok(found) => {
            // SAFETY: as the caller says.
            unsafe {
                if let Some(result) = result.as_mut() {
                    *result = u32::from(found.is_some());
                }
                if let (Some(to), Some(place)) = (request.as_mut(), found) {
                    *to = place;
                }
            }
            codes::SUCCESS
        }
        Err(code) => fail(Some(port), code, what),
    }
}

/// Cancels a receive that has not matched or a connect that was not answered; if `kept` it stays
/// and is complete.
///
/// # Safety
/// The pointers are null or point to such values.
pub unsafe fn cancel(
    handle: EndpointHandle,
    request: *mut RequestHandle,
    result: *mut u32,
    kept: bool,
    what: &str,
) -> Code {
    let Some(port) = Port::at(handle) else { return fail(None, codes::BAD_ENDPOINT, what) };
    // SAFETY: as the caller says.
    let id = match unsafe { request_of(port, request) } {
        Ok(id) => id,
        Err(code) => return fail(Some(port), code, what),
    };
    let cancelled = wait::look(port, |inside| Some(try_cancel(port, inside, id, kept)));
    match cancelled {
        Ok(Some(Ok(cancelled))) => {
            // SAFETY: as the caller says; the handle is not null, or there were no request.
            unsafe {
                if cancelled && !kept {
                    *request = null_mut();
                }
                if let Some(result) = result.as_mut() {
                    *result = u32::from(cancelled);
                }
            }
            codes::SUCCESS
        }
        Ok(Some(Err(code))) | Err(code) => fail(Some(port), code, what),
        Ok(None) => codes::SUCCESS,
    }
}

fn try_cancel(
    port: &Port,
    inside: &mut Inside<'_>,
    id: RequestId,
    kept: bool,
) -> Result<bool, Code> {
    // SAFETY: a place of a chunk; inside the endpoint nobody else writes it.
    let record = unsafe { &mut *port.records.at(id) };
    if record.kind == Kind::Send {
        return Err(codes::BAD_REQUEST);
    }
    let cancelled = inside.cancel(id, kept).map_err(|error| codes::of_error(&error))?;
    if cancelled {
        drop(Staging::take(std::mem::replace(&mut record.staging, null_mut())));
    }
    Ok(cancelled)
}

/// Has the library complete a request, unseen.
///
/// # Safety
/// `request` is null or points to a handle.
pub unsafe fn forget(handle: EndpointHandle, request: *mut RequestHandle, what: &str) -> Code {
    let Some(port) = Port::at(handle) else { return fail(None, codes::BAD_ENDPOINT, what) };
    // SAFETY: as the caller says.
    let id = match unsafe { request_of(port, request) } {
        Ok(id) => id,
        Err(code) => return fail(Some(port), code, what),
    };
    let forgotten = wait::look(port, |inside| {
        Some(inside.is_complete(id).map(|_| crate::send::finish_posting(port, inside, id, true)))
    });
    match forgotten {
        Ok(Some(Ok(()))) => {
            // SAFETY: not null, or there were no request.
            unsafe { *request = null_mut() };
            codes::SUCCESS
        }
        Ok(Some(Err(error))) => fail(Some(port), codes::of_error(&error), what),
        Ok(None) => codes::SUCCESS,
        Err(code) => fail(Some(port), code, what),
    }
}

/// Whether the buffer of a send may be used again.
///
/// # Safety
/// The pointers are null or point to such values.
pub unsafe fn buffered(
    handle: EndpointHandle,
    request: *mut RequestHandle,
    limit: Limit,
    result: *mut u32,
    what: &str,
) -> Code {
    let Some(port) = Port::at(handle) else { return fail(None, codes::BAD_ENDPOINT, what) };
    // SAFETY: as the caller says.
    let id = match unsafe { request_of(port, request) } {
        Ok(id) => id,
        Err(code) => return fail(Some(port), code, what),
    };
    let find = |inside: &mut Inside<'_>| match inside.is_complete(id) {
        // SAFETY: a place of a chunk; inside the endpoint nobody writes it.
        Ok(_) if unsafe { (*port.records.at(id)).kind } != Kind::Send => {
            Some(Err(codes::BAD_REQUEST))
        }
        Ok(complete) => complete.then_some(Ok(())),
        Err(error) => Some(Err(codes::of_error(&error))),
    };
    match wait::wait(port, limit, find) {
        Ok(Some(Err(code))) | Err(code) => fail(Some(port), code, what),
        Ok(found) => {
            // SAFETY: as the caller says.
            if let Some(result) = unsafe { result.as_mut() } {
                *result = u32::from(found.is_some());
            }
            codes::SUCCESS
        }
    }
}

/// # Safety
/// The pointers are null or point to such values.
pub unsafe fn context(request: *mut RequestHandle, to: *mut *mut c_void, what: &str) -> Code {
    // SAFETY: as the caller says.
    match unsafe { (request.as_ref().and_then(|handle| handle.as_ref()), to.as_mut()) } {
        (Some(record), Some(to)) => {
            *to = record.context;
            codes::SUCCESS
        }
        _ => fail(None, codes::BAD_REQUEST, what),
    }
}

/// Has every call that waits on the endpoint return as if its time were up.
pub fn wakeup(handle: EndpointHandle, what: &str) -> Code {
    let Some(port) = Port::at(handle) else { return fail(None, codes::BAD_ENDPOINT, what) };
    port.wakeups.fetch_add(1, Ordering::AcqRel);
    match port.core.rouse() {
        Ok(()) | Err(Error::Closed) => codes::SUCCESS,
        Err(error) => fail(Some(port), codes::of_error(&error), what),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mx_test(
    handle: EndpointHandle,
    request: *mut RequestHandle,
    status: *mut MxStatus,
    result: *mut u32,
) -> Code {
    // SAFETY: pointers of the program, as the interface demands.
    unsafe { one(Face::Mx, handle, request, Limit::Now, Answer { status, result }, "mx_test") }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mx_wait(
    handle: EndpointHandle,
    request: *mut RequestHandle,
    timeout: u32,
    status: *mut MxStatus,
    result: *mut u32,
) -> Code {
    let to = Answer { status, result };
    // SAFETY: pointers of the program, as the interface demands.
    unsafe { one(Face::Mx, handle, request, Limit::mx(timeout), to, "mx_wait") }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mx_test_any(
    handle: EndpointHandle,
    match_info: u64,
    mask: u64,
    status: *mut MxStatus,
    result: *mut u32,
) -> Code {
    let to = Answer { status, result };
    // SAFETY: pointers of the program, as the interface demands.
    unsafe { any(Face::Mx, handle, (match_info, mask), Limit::Now, to, "mx_test_any") }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mx_wait_any(
    handle: EndpointHandle,
    timeout: u32,
    match_info: u64,
    mask: u64,
    status: *mut MxStatus,
    result: *mut u32,
) -> Code {
    let to = Answer { status, result };
    // SAFETY: pointers of the program, as the interface demands.
    unsafe { any(Face::Mx, handle, (match_info, mask), Limit::mx(timeout), to, "mx_wait_any") }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mx_ipeek(
    handle: EndpointHandle,
    request: *mut RequestHandle,
    result: *mut u32,
) -> Code {
    // SAFETY: pointers of the program, as the interface demands.
    unsafe { peek(handle, Limit::Now, request, result, "mx_ipeek") }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mx_peek(
    handle: EndpointHandle,
    timeout: u32,
    request: *mut RequestHandle,
    result: *mut u32,
) -> Code {
    // SAFETY: pointers of the program, as the interface demands.
    unsafe { peek(handle, Limit::mx(timeout), request, result, "mx_peek") }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mx_cancel(
    handle: EndpointHandle,
    request: *mut RequestHandle,
    result: *mut u32,
) -> Code {
    // SAFETY: pointers of the program, as the interface demands.
    unsafe { cancel(handle, request, result, false, "mx_cancel") }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mx_forget(handle: EndpointHandle, request: *mut RequestHandle) -> Code {
    // SAFETY: a pointer of the program, as the interface demands.
    unsafe { forget(handle, request, "mx_forget") }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mx_ibuffered(
    handle: EndpointHandle,
    request: *mut RequestHandle,
    result: *mut u32,
) -> Code {
    // SAFETY: pointers of the program, as the interface demands.
    unsafe { buffered(handle, request, Limit::Now, result, "mx_ibuffered") }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mx_buffered(
    handle: EndpointHandle,
    request: *mut RequestHandle,
    timeout: u32,
    result: *mut u32,
) -> Code {
    // SAFETY: pointers of the program, as the interface demands.
    unsafe { buffered(handle, request, Limit::mx(timeout), result, "mx_buffered") }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mx_context(request: *mut RequestHandle, to: *mut *mut c_void) -> Code {
    // SAFETY: pointers of the program, as the interface demands.
    unsafe { context(request, to, "mx_context") }
}

#[unsafe(no_mangle)]
extern "C" fn mx_wakeup(handle: EndpointHandle) -> Code {
    wakeup(handle, "mx_wakeup")
}
