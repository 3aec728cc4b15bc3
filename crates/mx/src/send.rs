// SPDX-License-Identifier: Apache-2.0
//! Posting sends.
//!
//! A send that cannot even begin, because its peer is gone, is a request all the same: its failure
//! is told to whoever completes it, as MX does.

use std::ffi::c_void;
use std::ptr::null_mut;

use diolkos::{Envelope, Error, Inside, PeerId, RequestId, Source, Space, Status, StatusCode};

use crate::address;
use crate::codes;
use crate::endpoint::Port;
use crate::errors::fail;
use crate::request::{Kind, Record};
use crate::segments::{self, Staging, Stretch};
use crate::types::{Addr, Code, EndpointHandle, RequestHandle, Segment};

/// Who and what a send is for.
#[derive(Clone, Copy)]
pub struct Letter {
    pub dest: Addr,
    pub match_info: u64,
    pub context: *mut c_void,
    pub synchronous: bool,
}

/// Posts a send.
///
/// # Safety
/// `request` is null or points to a handle.
#[inline(always)]
pub unsafe fn post(
    port: &Port,
    stretch: Result<Stretch, Code>,
    letter: &Letter,
    request: *mut RequestHandle,
    what: &str,
) -> Code {
    let _ = port.enter();
    let stretch = match stretch {
        Ok(stretch) => stretch,
        Err(code) => return fail(Some(port), code, what),
    };
    let (source, staging) = stretch.into_source();
    let posted = port.core.inside(|inside| {
        let (id, code) = match begin(port, inside, source, letter) {
            Ok(begun) => begun,
            Err(error) => return Err(codes::of_error(&error)),
        };
        let mut record = Record::new(id, Kind::Send, letter.context);
        record.addr = letter.dest;
        record.code = code;
        record.staging = staging;
        let place = port.records.enter(record);
        if request.is_null() || !staging.is_null() || port.chores.are_timed() {
            finish_posting(port, inside, id, request.is_null());
        }
        Ok(place)
    });
    match posted {
        Ok(Ok(place)) => {
            // SAFETY: as the caller says.
            if let Some(to) = unsafe { request.as_mut() } {
                *to = place;
            }
            codes::SUCCESS
        }
        Ok(Err(code)) => refuse(port, staging, code, what),
        Err(_) => refuse(port, staging, codes::BAD_ENDPOINT, what),
    }
}

/// A request could not be made.
#[cold]
pub fn refuse(port: &Port, staging: *mut Staging, code: Code, what: &str) -> Code {
    drop(Staging::take(staging));
    fail(Some(port), code, what)
}

/// Begins a send, or makes a request of its failure.
#[inline(always)]
fn begin(
    port: &Port,
    inside: &mut Inside<'_>,
    source: Source,
    letter: &Letter,
) -> Result<(RequestId, Code), Error> {
    let envelope = Envelope {
        match_info: letter.match_info,
        synchronous: letter.synchronous,
        ..Envelope::default()
    };
    let failed = match address::peer_of(port, letter.dest) {
        None => Error::NotConnected,
        Some(peer) => match inside.isend(source, peer, &envelope) {
            Ok(id) => return Ok((id, codes::SUCCESS)),
            Err(error) => error,
        },
    };
    end(inside, failed, letter, source.len_bytes() as u64)
}

#[cold]
fn end(
    inside: &mut Inside<'_>,
    failed: Error,
    letter: &Letter,
    message_bytes: u64,
) -> Result<(RequestId, Code), Error> {
    let (_, number, _) = address::decompose(letter.dest);
    let code = match failed {
        // The endpoint is there again, and the address is of the one before it.
        Error::PeerGone(_) if inside.peer_numbered(number).is_some() => codes::BAD_SESSION,
        Error::PeerGone(_) | Error::NotConnected => codes::of_error(&failed),
        other => return Err(other),
    };
    let status = Status {
        code: StatusCode::Success,
        source: PeerId::SELF,
        match_info: letter.match_info,
        immediate: 0,
        space: Space::Tagged,
        message_bytes,
        transferred_bytes: 0,
    };
    Ok((inside.add_ended(status)?, code))
}

/// What is rare: nobody will ask for the request, or it has private memory.
#[cold]
pub fn finish_posting(port: &Port, inside: &mut Inside<'_>, id: RequestId, forgotten: bool) {
    let place = port.records.at(id);
    // SAFETY: a place of a chunk; inside the endpoint nobody else writes it.
    let record = unsafe { &mut *place };
    if record.kind == Kind::Send && inside.is_complete(id).is_ok_and(|complete| complete) {
        drop(Staging::take(std::mem::replace(&mut record.staging, null_mut())));
    }
    if forgotten {
        if record.staging.is_null() && record.kind != Kind::Connect {
            inside.forget(id);
        } else {
            port.chores.adopt(port, id);
        }
    } else {
        port.chores.note(port, inside, id);
    }
}

/// # Safety
/// The pointers are null or what the interface demands.
#[inline(always)]
pub unsafe fn post_list(
    handle: EndpointHandle,
    list: *const Segment,
    count: u32,
    letter: &Letter,
    request: *mut RequestHandle,
    what: &str,
) -> Code {
    let Some(port) = Port::at(handle) else { return fail(None, codes::BAD_ENDPOINT, what) };
    // SAFETY: as the caller says.
    unsafe { post(port, segments::read(list, count, false), letter, request, what) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mx_isend(
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
    unsafe { post_list(handle, list, count, &letter, request, "mx_isend") }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mx_issend(
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
    unsafe { post_list(handle, list, count, &letter, request, "mx_issend") }
}
