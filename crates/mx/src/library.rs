// SPDX-License-Identifier: Apache-2.0
//! Starting and ending the use of the library, and the handler of its errors.

use std::ffi::{c_char, c_int};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::codes;
use crate::environment;
use crate::errors::{self, fail};
use crate::types::{Code, ErrorHandler};

/// The level of the interface; programs must have the same major number.
const API: c_int = 0x301;

static INITIALIZED: AtomicBool = AtomicBool::new(false);

pub fn is_initialized() -> bool {
    INITIALIZED.load(Ordering::Acquire)
}

/// Initialises once; a second call changes nothing.
fn init(api: c_int, what: &str) -> Code {
    if api == 0 || api >> 8 != API >> 8 {
        return fail(None, codes::BAD_LIB_VERSION, what);
    }
    if is_initialized() {
        return fail(None, codes::ALREADY_INITIALIZED, what);
    }
    // Without a backend nothing works: programs that have another network want to know now.
    if environment::backend_command().is_empty()
        && let Err(error) = diolkos_island::process::query_info(None)
    {
        tell!("diolkos: {error}, and there is no `diolkos` on the PATH that could start one");
        tell!("diolkos: hint: set DIOLKOS_BACKEND_COMMAND, or run `diolkos backend`");
        return fail(None, codes::NO_DEV, what);
    }
    if INITIALIZED.swap(true, Ordering::AcqRel) {
        return fail(None, codes::ALREADY_INITIALIZED, what);
    }
    codes::SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn mx__init_api(api: c_int) -> Code {
    init(api, "mx_init")
}

#[unsafe(no_mangle)]
extern "C" fn omx__init_api(api: c_int) -> Code {
    init(api, "omx_init")
}

/// Open endpoints stay open: a program may close them later, or end.
#[unsafe(no_mangle)]
extern "C" fn mx_finalize() -> Code {
    INITIALIZED.store(false, Ordering::Release);
    codes::SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn omx_finalize() -> Code {
    mx_finalize()
}

#[unsafe(no_mangle)]
extern "C" fn mx_set_error_handler(handler: Option<ErrorHandler>) -> ErrorHandler {
    errors::set_global(handler)
}

#[unsafe(no_mangle)]
extern "C" fn mx_strerror(code: Code) -> *const c_char {
    codes::return_text(code).as_ptr()
}

#[unsafe(no_mangle)]
extern "C" fn omx_strerror(code: Code) -> *const c_char {
    codes::return_text(code).as_ptr()
}

#[unsafe(no_mangle)]
extern "C" fn mx_strstatus(status: Code) -> *const c_char {
    codes::status_text(status).as_ptr()
}
