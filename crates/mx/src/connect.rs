// SPDX-License-Identifier: Apache-2.0
//! Connecting and disconnecting.
//!
//! The backend introduces; it says at once that an endpoint is not there. One that is there must
//! answer itself, and a connect waits for that, as in MX.

use std::ffi::c_void;

use diolkos::{Error, Inside, RequestId, Space, Status, StatusCode, Target};

use crate::address;
use crate::board;
use crate::codes;
use crate::complete::take;
use crate::endpoint::{ENDPOINTS_MAX, Port, is_of_this_process};
use crate::errors::fail;
use crate::request::{Kind, Record};
use crate::send::finish_posting;
use crate::types::{Addr, Code, EndpointHandle, MxStatus, RequestHandle};
use crate::wait::{self, Limit};

/// Whom to connect to.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    pub nic_id: u64,
    pub endpoint_id: u32,
    pub key: u32,
}

/// Begins a connect. What is wrong with the wish is told when the request is completed.
fn begin(
    port: &Port,
    inside: &mut Inside<'_>,
    wish: &Wish,
    match_info: u64,
    context: *mut c_void,
) -> Result<RequestId, Error> {
    let own = port.number() == wish.endpoint_id;
    let code = match wish {
        wish if wish.endpoint_id >= ENDPOINTS_MAX => codes::BAD_ENDPOINT_ID,
        wish if own && wish.key != port.key => codes::BAD_CONNECTION_KEY,
        _ => codes::SUCCESS,
    };
    let id = if code == codes::SUCCESS {
        let target = Target::Number(wish.endpoint_id);
        // An endpoint of this very process is there; and whoever would answer may be this thread.
        let answer = !is_of_this_process(wish.endpoint_id);
        inside.iconnect(&target, Some(std::time::Duration::ZERO), wish.key, match_info, answer)?
    } else {
        inside.add_ended(Status {
            code: StatusCode::Success,
            source: diolkos::PeerId::SELF,
            match_info,
            immediate: 0,
            space: Space::Tagged,
            message_bytes: 0,
            transferred_bytes: 0,
        })?
    };
    let mut record = Record::new(id, Kind::Connect, context);
    record.code = code;
    port.records.enter(record);
    Ok(id)
}

/// Connects and waits.
///
/// # Safety
/// `addr` is null or points to an address.
pub unsafe fn now(
    handle: EndpointHandle,
    wish: &Wish,
    limit: Limit,
    addr: *mut Addr,
    what: &str,
) -> Code {
    let Some(port) = Port::at(handle) else { return fail(None, codes::BAD_ENDPOINT, what) };
    if wish.nic_id != board::nic_id() {
        return fail(Some(port), codes::NIC_NOT_FOUND, what);
    }
    match connect(port, wish, limit) {
        Ok(source) => {
            // SAFETY: as the caller says.
            if let Some(to) = unsafe { addr.as_mut() } {
                *to = source;
            }
            codes::SUCCESS
        }
        // An endpoint that does not answer is, to a function that waits, one that takes too long.
        Err(codes::UNREACHABLE) => fail(Some(port), codes::TIMEOUT, what),
        Err(code) => fail(Some(port), code, what),
    }
}

fn connect(port: &Port, wish: &Wish, limit: Limit) -> Result<Addr, Code> {
    let begun = port.core.inside(|inside| {
        let id = begin(port, inside, wish, 0, std::ptr::null_mut())?;
        inside.keep_private(id)?;
        Ok(id)
    });
    let begun = begun.unwrap_or_else(|unusable| Err(unusable.into()));
    let id = begun.map_err(|error| codes::of_error(&error))?;
    let mut status = MxStatus::nothing();
    let to = &raw mut status;
    // SAFETY: the status lives until the wait has ended.
    let found = wait::wait(port, limit, |inside| unsafe { take(port, inside, id, to) })?;
    match found {
        Some(Ok(codes::SUCCESS)) => Ok(status.source),
        Some(Ok(failed) | Err(failed)) => Err(failed),
        None => {
            // It may have been answered just now; then it is as if it had not.
            let _ = port.core.inside(|inside| match inside.cancel(id, false) {
                Ok(true) => {}
                Ok(false) | Err(_) => {
                    inside.forget(id);
                    let _ = inside.take_failure(id);
                }
            });
            Err(codes::TIMEOUT)
        }
    }
}

/// Begins to connect.
///
/// # Safety
/// `request` is null or points to a handle.
pub unsafe fn later(
    handle: EndpointHandle,
    wish: &Wish,
    (match_info, context): (u64, *mut c_void),
    request: *mut RequestHandle,
    what: &str,
) -> Code {
    let Some(port) = Port::at(handle) else { return fail(None, codes::BAD_ENDPOINT, what) };
    let _ = port.enter();
    if wish.nic_id != board::nic_id() {
        return fail(Some(port), codes::NIC_NOT_FOUND, what);
    }
    let begun = port.core.inside(|inside| {
        let id = begin(port, inside, wish, match_info, context)?;
        finish_posting(port, inside, id, request.is_null());
        Ok(port.records.at(id))
    });
    match begun.unwrap_or_else(|unusable| Err(unusable.into())) {
        Ok(place) => {
            // SAFETY: as the caller says.
            if let Some(to) = unsafe { request.as_mut() } {
                *to = place;
            }
            codes::SUCCESS
        }
        Err(error) => fail(Some(port), codes::of_error(&error), what),
    }
}

/// Parts from a peer.
pub fn part(handle: EndpointHandle, addr: Addr, what: &str) -> Code {
    let Some(port) = Port::at(handle) else { return fail(None, codes::BAD_ENDPOINT, what) };
    let _ = port.enter();
    let Some(peer) = address::peer_of(port, addr) else { return codes::SUCCESS };
    // From itself an endpoint cannot part, and from one that is gone it has.
    match port.core.inside(|inside| inside.disconnect(peer)) {
        Ok(Ok(()) | Err(Error::NotConnected | Error::PeerGone(_))) => codes::SUCCESS,
        Ok(Err(error)) => fail(Some(port), codes::of_error(&error), what),
        Err(_) => fail(Some(port), codes::BAD_ENDPOINT, what),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mx_connect(
    handle: EndpointHandle,
    nic_id: u64,
    endpoint_id: u32,
    key: u32,
    timeout: u32,
    addr: *mut Addr,
) -> Code {
    let wish = Wish { nic_id, endpoint_id, key };
    // SAFETY: a pointer of the program, as the interface demands.
    unsafe { now(handle, &wish, Limit::mx(timeout), addr, "mx_connect") }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mx_iconnect(
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
    unsafe { later(handle, &wish, (match_info, context), request, "mx_iconnect") }
}

#[unsafe(no_mangle)]
extern "C" fn mx_disconnect(handle: EndpointHandle, addr: Addr) -> Code {
    part(handle, addr, "mx_disconnect")
}
