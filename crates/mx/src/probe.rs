// SPDX-License-Identifier: Apache-2.0
//! Looking for messages that have no receive yet.

use std::ptr::null_mut;

use diolkos::Inside;

use crate::address;
use crate::codes;
use crate::complete::Answer;
use crate::endpoint::Port;
use crate::errors::fail;
use crate::receive::selector;
use crate::types::{Code, EndpointHandle, MxStatus};
use crate::wait::{self, Limit};

/// Looks for a message, which stays where it is.
///
/// # Safety
/// The pointers are null or point to such values.
pub unsafe fn probe(
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
        let status = inside.iprobe(&selector(match_info, mask)).ok().flatten()?;
        Some(MxStatus {
            code: codes::SUCCESS,
            source: address::of_peer(port, inside, status.source),
            match_info: status.match_info,
            message_length: status.message_bytes.min(u64::from(u32::MAX)) as u32,
            transferred_length: 0,
            context: null_mut(),
        })
    };
    match wait::wait(port, limit, find) {
        Ok(found) => {
            // SAFETY: as the caller says.
            unsafe {
                if let Some(result) = to.result.as_mut() {
                    *result = u32::from(found.is_some());
                }
                if let (Some(found), Some(status)) = (found, to.status.as_mut()) {
                    *status = found;
                }
            }
            codes::SUCCESS
        }
        Err(code) => fail(Some(port), code, what),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mx_iprobe(
    handle: EndpointHandle,
    match_info: u64,
    mask: u64,
    status: *mut MxStatus,
    result: *mut u32,
) -> Code {
    let to = Answer { status, result };
    // SAFETY: pointers of the program, as the interface demands.
    unsafe { probe(handle, (match_info, mask), Limit::Now, to, "mx_iprobe") }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mx_probe(
    handle: EndpointHandle,
    timeout: u32,
    match_info: u64,
    mask: u64,
    status: *mut MxStatus,
    result: *mut u32,
) -> Code {
    let to = Answer { status, result };
    // SAFETY: pointers of the program, as the interface demands.
    unsafe { probe(handle, (match_info, mask), Limit::mx(timeout), to, "mx_probe") }
}
