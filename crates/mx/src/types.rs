// SPDX-License-Identifier: Apache-2.0
//! The types that programs see, byte for byte as in `mx.md` 1.3.5.

use std::ffi::{c_char, c_int, c_void};
use std::mem::{offset_of, size_of};

use crate::endpoint::Port;
use crate::request::Record;

/// `mx_return_t`, `omx_return_t`, and every other enum: an `int`.
pub type Code = c_int;
/// `mx_endpoint_t`.
pub type EndpointHandle = *const Port;
/// `mx_request_t`.
pub type RequestHandle = *mut Record;
/// `mx_error_handler_t`.
pub type ErrorHandler = unsafe extern "C" fn(*mut c_char, Code) -> Code;
/// `mx_unexp_handler_t`.
pub type UnexpectedHandler = unsafe extern "C" fn(*mut c_void, Addr, u64, u32, *mut c_void) -> Code;
/// `mx_matching_callback_t`, deprecated.
pub type MatchingCallback = unsafe extern "C" fn(*mut c_void, u64, c_int);

/// `mx_endpoint_addr_t`; see `address`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addr {
    pub stuff: [u64; 2],
}

/// `mx_segment_t`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    pub base: *mut c_void,
    pub length: u32,
}

/// `mx_param_t`.
#[repr(C)]
pub struct Param {
    pub key: Code,
    pub value: ParamValue,
}

/// What a parameter says; its key tells which.
#[repr(C)]
pub union ParamValue {
    pub error_handler: Option<ErrorHandler>,
    pub unexpected_max: u32,
    pub context_id: ContextId,
}

/// Where the context id lies in the match info.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ContextId {
    pub bits: u8,
    pub shift: u8,
}

/// `mx_status_t`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct MxStatus {
    pub code: Code,
    pub source: Addr,
    pub match_info: u64,
    pub message_length: u32,
    pub transferred_length: u32,
    pub context: *mut c_void,
}

impl MxStatus {
    pub fn nothing() -> Self {
        Self {
            code: 0,
            source: Addr::default(),
            match_info: 0,
            message_length: 0,
            transferred_length: 0,
            context: std::ptr::null_mut(),
        }
    }
}

/// `mx_mapper_state_t`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct MapperState {
    pub board_number: u32,
    pub mapper_mac: [u8; 6],
    pub iport: u16,
    pub map_version: u32,
    pub num_hosts: u32,
    pub network_configured: u32,
    pub routes_valid: u32,
    pub level: u32,
    pub flags: u32,
}

const _: () = {
    assert!(size_of::<Addr>() == 16 && align_of::<Addr>() == 8);
    assert!(size_of::<Segment>() == 16 && offset_of!(Segment, length) == 8);
    assert!(size_of::<Param>() == 16 && offset_of!(Param, value) == 8);
    assert!(offset_of!(ContextId, shift) == 1);
    assert!(size_of::<MxStatus>() == 48);
    assert!(offset_of!(MxStatus, source) == 8);
    assert!(offset_of!(MxStatus, match_info) == 24);
    assert!(offset_of!(MxStatus, message_length) == 32);
    assert!(offset_of!(MxStatus, transferred_length) == 36);
    assert!(offset_of!(MxStatus, context) == 40);
    assert!(size_of::<MapperState>() == 36);
    assert!(offset_of!(MapperState, iport) == 10);
    assert!(offset_of!(MapperState, map_version) == 12);
    assert!(offset_of!(MapperState, flags) == 32);
};
