// SPDX-License-Identifier: Apache-2.0
//! Posting receives.

use std::ffi::c_void;

use diolkos::{Error, Selector, Space};

use crate::codes;
use crate::endpoint::Port;
use crate::errors::fail;
use crate::request::{Kind, Record};
use crate::segments::{self, Stretch};
use crate::send::{finish_posting, refuse};
use crate::types::{Code, EndpointHandle, RequestHandle, Segment};

/// What a receive or a probe of MX looks for: never a certain source.
#[inline(always)]
pub fn selector(match_info: u64, mask: u64) -> Selector {
    Selector { match_info, mask, source: None, space: Space::Tagged }
}

/// Posts a receive.
///
/// # Safety
/// `request` is null or points to a handle.
#[inline(always)]
pub unsafe fn post(
    port: &Port,
    stretch: Result<Stretch, Code>,
    (match_info, mask): (u64, u64),
    context: *mut c_void,
    request: *mut RequestHandle,
    what: &str,
) -> Code {
    let _ = port.enter();
    if match_info & !mask != 0 {
        return fail(Some(port), codes::BAD_MATCH_MASK, what);
    }
    let stretch = match stretch {
        Ok(stretch) => stretch,
        Err(code) => return fail(Some(port), code, what),
    };
    let (sink, staging) = stretch.into_sink();
    let posted = port.core.inside(|inside| {
        let id = match inside.irecv(sink, &selector(match_info, mask)) {
            Ok(id) => id,
            // The mask fits its value, as seen above: it is the context id.
            Err(Error::Invalid(_)) => return Err(codes::BAD_MATCHING_FOR_CONTEXT_ID_MASK),
            Err(error) => return Err(codes::of_error(&error)),
        };
        let mut record = Record::new(id, Kind::Receive, context);
        record.staging = staging;
        let place = port.records.enter(record);
        if request.is_null() {
            finish_posting(port, inside, id, true);
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

#[unsafe(no_mangle)]
unsafe extern "C" fn mx_irecv(
    handle: EndpointHandle,
    list: *const Segment,
    count: u32,
    match_info: u64,
    mask: u64,
    context: *mut c_void,
    request: *mut RequestHandle,
) -> Code {
    let Some(port) = Port::at(handle) else {
        return fail(None, codes::BAD_ENDPOINT, "mx_irecv");
    };
    // SAFETY: pointers of the program, as the interface demands.
    unsafe {
        let stretch = segments::read(list, count, true);
        post(port, stretch, (match_info, mask), context, request, "mx_irecv")
    }
}
