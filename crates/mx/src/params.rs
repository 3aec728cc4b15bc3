// SPDX-License-Identifier: Apache-2.0
//! Parameters of an endpoint.

use diolkos::ContextBits;

use crate::codes;
use crate::types::{Code, ErrorHandler, Param};

const ERROR_HANDLER: Code = 0;
const UNEXPECTED_MAX: Code = 1;
const CONTEXT_ID: Code = 2;

/// What a list of parameters says.
#[derive(Clone, Copy, Default)]
pub struct Params {
    pub error_handler: Option<ErrorHandler>,
    pub context: Option<ContextBits>,
}

/// Reads a list.
///
/// # Errors
/// The code of what is wrong with it.
///
/// # Safety
/// `list` is null or has `count` parameters.
pub unsafe fn read(list: *const Param, count: u32) -> Result<Params, Code> {
    let mut params = Params::default();
    if count == 0 {
        return Ok(params);
    }
    if list.is_null() {
        return Err(codes::BAD_PARAM_LIST);
    }
    for at in 0..count as usize {
        // SAFETY: as the caller says.
        let param = unsafe { &*list.add(at) };
        match param.key {
            // SAFETY: the key says which member the program has set; any bits are a function or
            // none, as far as this language is concerned.
            ERROR_HANDLER => params.error_handler = unsafe { param.value.error_handler },
            // What waits unreceived is bounded for each peer anyway.
            UNEXPECTED_MAX => {}
            CONTEXT_ID => {
                // SAFETY: as above; any bits are two bytes.
                let field = unsafe { param.value.context_id };
                let bits = ContextBits::new(field.bits, field.shift);
                params.context = Some(bits.ok_or(codes::BAD_PARAM_VAL)?);
            }
            _ => return Err(codes::BAD_PARAM_NAME),
        }
    }
    Ok(params)
}
