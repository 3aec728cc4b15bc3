// SPDX-License-Identifier: Apache-2.0
//! Requests and messages.

use diolkos::{Envelope, RequestId, Selector, Sent, Space, Status};

use crate::boundary::{deadline, guard, maybe_peer, put, required, sink, source};
use crate::codes::{self, Code, Failure};
use crate::endpoint::{Handle, opened};

/// The flag of `dio_isend`.
const SYNCHRONOUS: u32 = 1;
/// The name of what was complete at once.
const DONE: u64 = 0;

/// `dio_status`.
#[repr(C)]
#[derive(Default)]
pub struct CStatus {
    code: i32,
    peer: u32,
    match_info: u64,
    immediate: u32,
    reserved: u32,
    message_bytes: u64,
    transferred_bytes: u64,
}

impl From<Status> for CStatus {
    fn from(status: Status) -> Self {
        Self {
            code: codes::status_code(status.code),
            peer: status.source.to_raw(),
            match_info: status.match_info,
            immediate: status.immediate,
            reserved: 0,
            message_bytes: status.message_bytes,
            transferred_bytes: status.transferred_bytes,
        }
    }
}

/// What is looked for.
pub fn selector(match_info: u64, mask: u64, source: u32) -> Selector {
    Selector { match_info, mask, source: maybe_peer(source), space: Space::Tagged }
}

/// The name of what was begun.
pub fn name_of(sent: Sent) -> u64 {
    match sent {
        Sent::Done => DONE,
        Sent::Pending(request) => request.to_raw(),
    }
}

/// Writes a status, or says that there is none yet.
///
/// # Safety
/// The pointer is NULL or may be written.
unsafe fn give(status: *mut CStatus, found: Option<Status>) -> Result<(), Failure> {
    let found = found.ok_or_else(Failure::not_yet)?;
    // SAFETY: as promised by the caller.
    unsafe { put(status, found.into()) };
    Ok(())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dio_test(endpoint: *const Handle, request: u64, status: *mut CStatus) -> Code {
    guard(|| {
        // SAFETY: the caller's promise.
        let endpoint = unsafe { opened(endpoint) }?;
        if request == DONE {
            // SAFETY: NULL, or the caller's to be written.
            unsafe { put(status, CStatus::default()) };
            return Ok(());
        }
        let found = endpoint.test(RequestId::from_raw(request))?;
        // SAFETY: as above.
        unsafe { give(status, found) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dio_wait(
    endpoint: *const Handle,
    request: u64,
    timeout_ms: i64,
    status: *mut CStatus,
) -> Code {
    guard(|| {
        // SAFETY: the caller's promise.
        let endpoint = unsafe { opened(endpoint) }?;
        if request == DONE {
            // SAFETY: NULL, or the caller's to be written.
            unsafe { put(status, CStatus::default()) };
            return Ok(());
        }
        let found = endpoint.wait(RequestId::from_raw(request), deadline(timeout_ms))?;
        // SAFETY: as above.
        unsafe { give(status, found) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dio_wait_any(
    endpoint: *const Handle,
    requests: *const u64,
    count: usize,
    timeout_ms: i64,
    index: *mut usize,
    status: *mut CStatus,
) -> Code {
    guard(|| {
        // SAFETY: the caller's promise.
        let endpoint = unsafe { opened(endpoint) }?;
        let at = required(index, "where the index goes")?;
        if requests.is_null() || count == 0 || count > isize::MAX as usize / 8 {
            return Err(Failure::invalid("there are no requests to wait for"));
        }
        // SAFETY: the caller has `count` of them.
        let names = unsafe { std::slice::from_raw_parts(requests, count) };
        if let Some(first) = names.iter().position(|name| *name == DONE) {
            // SAFETY: not NULL, or NULL allowed, and the caller's to be written.
            unsafe {
                put(at, first);
                put(status, CStatus::default());
            }
            return Ok(());
        }
        let names: Vec<RequestId> = names.iter().map(|name| RequestId::from_raw(*name)).collect();
        let found = endpoint.wait_any(&names, deadline(timeout_ms))?;
        let (first, found) = found.ok_or_else(Failure::not_yet)?;
        // SAFETY: as above.
        unsafe {
            put(at, first);
            put(status, found.into());
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dio_cancel(endpoint: *const Handle, request: u64) -> Code {
    guard(|| {
        // SAFETY: the caller's promise.
        let endpoint = unsafe { opened(endpoint) }?;
        let cancelled = request != DONE && endpoint.cancel(RequestId::from_raw(request))?;
        if cancelled { Ok(()) } else { Err(Failure::not_yet()) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dio_forget(endpoint: *const Handle, request: u64) -> Code {
    guard(|| {
        // SAFETY: the caller's promise.
        unsafe { opened(endpoint) }?.forget(RequestId::from_raw(request));
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dio_isend(
    endpoint: *const Handle,
    data: *const u8,
    length: usize,
    peer: u32,
    match_info: u64,
    immediate: u32,
    flags: u32,
    request: *mut u64,
) -> Code {
    guard(|| {
        // SAFETY: the caller's promise.
        let endpoint = unsafe { opened(endpoint) }?;
        let to = required(request, "where the request goes")?;
        if flags & !SYNCHRONOUS != 0 {
            return Err(Failure::invalid("a flag of a send is unknown"));
        }
        let synchronous = flags & SYNCHRONOUS != 0;
        let envelope = Envelope { match_info, immediate, synchronous, ..Envelope::default() };
        let peer = diolkos::PeerId::from_raw(peer);
        let sent = endpoint.isend(source(data, length)?, peer, &envelope)?;
        // SAFETY: not NULL, and the caller's to be written.
        unsafe { put(to, name_of(sent)) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dio_irecv(
    endpoint: *const Handle,
    data: *mut u8,
    length: usize,
    match_info: u64,
    mask: u64,
    from: u32,
    request: *mut u64,
) -> Code {
    guard(|| {
        // SAFETY: the caller's promise.
        let endpoint = unsafe { opened(endpoint) }?;
        let to = required(request, "where the request goes")?;
        let posted = endpoint.irecv(sink(data, length)?, &selector(match_info, mask, from))?;
        // SAFETY: not NULL, and the caller's to be written.
        unsafe { put(to, posted.to_raw()) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dio_probe(
    endpoint: *const Handle,
    match_info: u64,
    mask: u64,
    from: u32,
    timeout_ms: i64,
    status: *mut CStatus,
) -> Code {
    guard(|| {
        // SAFETY: the caller's promise.
        let endpoint = unsafe { opened(endpoint) }?;
        let wanted = selector(match_info, mask, from);
        let found = if timeout_ms == 0 {
            endpoint.iprobe(&wanted)?
        } else {
            endpoint.probe(&wanted, deadline(timeout_ms))?
        };
        // SAFETY: NULL, or the caller's to be written.
        unsafe { give(status, found) }
    })
}
