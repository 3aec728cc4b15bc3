// SPDX-License-Identifier: Apache-2.0
//! Posting receives.

use std::ffi::c_void;

use diolkos::{Error, Selector, Space};

use crate::codes;
use crate::endpoint::Port;
use crate::errors::fail;
use crate::request::{Kind, Record};
use crate::segments::{self, Staging, Stretch};
use crate::send::finish_posting;
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
        let id = inside.irecv(sink, &selector(match_info, mask))?;
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
        Ok(Err(error)) | Err(error) => {
            drop(Staging::take(staging));
            let code = match error {
                // The mask fits its value, as seen above: it is the context id.
                Error::Invalid(_) => codes::BAD_MATCHING_FOR_CONTEXT_ID_MASK,
                other => codes::of_error(&other),
            };
            fail(Some(port), code, what)
        }
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
