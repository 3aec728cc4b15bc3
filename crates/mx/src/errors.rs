// SPDX-License-Identifier: Apache-2.0
//! Error handlers (`mx.md` 1.6.1): one for the process, and one for an endpoint that wants its own.
//!
//! Whenever a function is about to fail, and whenever a request is told to have failed, the handler
//! is called with a text and the code, and its answer is the function's result. No lock is held.

use std::ffi::{CStr, CString, c_char};
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::codes;
use crate::endpoint::Port;
use crate::environment;
use crate::library;
use crate::types::{Code, ErrorHandler};

/// A handler, or none, that can be replaced while others call it.
#[derive(Default)]
pub struct HandlerCell(AtomicPtr<()>);

impl HandlerCell {
    pub const fn new() -> Self {
        Self(AtomicPtr::new(std::ptr::null_mut()))
    }

    /// Sets it and returns the previous one.
    pub fn replace(&self, handler: Option<ErrorHandler>) -> Option<ErrorHandler> {
        let new = handler.map_or(std::ptr::null_mut(), |handler| handler as *mut ());
        from_pointer(self.0.swap(new, Ordering::AcqRel))
    }

    pub fn get(&self) -> Option<ErrorHandler> {
        from_pointer(self.0.load(Ordering::Acquire))
    }
}

fn from_pointer(pointer: *mut ()) -> Option<ErrorHandler> {
    // SAFETY: only `replace` writes the cell, null or a handler; a null pointer is `None`.
    unsafe { std::mem::transmute::<*mut (), Option<ErrorHandler>>(pointer) }
}

static GLOBAL: HandlerCell = HandlerCell::new();

/// Sets the handler of the process; returns the one that was in force.
pub fn set_global(handler: Option<ErrorHandler>) -> ErrorHandler {
    GLOBAL.replace(handler).unwrap_or_else(default_handler)
}

/// Sets the handler of an endpoint; returns the one that was in force there.
pub fn set_own(port: &Port, handler: Option<ErrorHandler>) -> ErrorHandler {
    port.error_handler.replace(handler).unwrap_or_else(global)
}

fn global() -> ErrorHandler {
    GLOBAL.get().unwrap_or_else(default_handler)
}

fn default_handler() -> ErrorHandler {
    if library::is_initialized() && !environment::errors_are_fatal() {
        errors_return
    } else {
        errors_are_fatal
    }
}

/// Tells the handler of a failure; its answer is the code to return.
#[cold]
pub fn fail(port: Option<&Port>, code: Code, what: &str) -> Code {
    let handler = port.and_then(|port| port.error_handler.get()).unwrap_or_else(global);
    let reason = codes::return_text(code).to_string_lossy();
    let text = CString::new(format!("{what}: {reason}")).unwrap_or_default();
    if environment::is_verbose() {
        tell!("diolkos: {what}: {reason} ({code})");
    }
    // SAFETY: the program's own function, called as it was declared to be, with a string that lives
    // until it returns.
    unsafe { handler(text.as_ptr().cast_mut(), code) }
}

unsafe extern "C" fn errors_are_fatal(text: *mut c_char, code: Code) -> Code {
    let shown = if text.is_null() {
        codes::return_text(code).to_string_lossy()
    } else {
        // SAFETY: handlers are called with a string that ends with a zero.
        unsafe { CStr::from_ptr(text) }.to_string_lossy()
    };
    tell!("diolkos: fatal error {code} in the MX interface: {shown}");
    // SAFETY: `exit` may be called anywhere; no lock of ours is held.
    unsafe { libc::exit(-1) }
}

unsafe extern "C" fn errors_return(_text: *mut c_char, code: Code) -> Code {
    code
}

/// Prints and exits.
#[unsafe(no_mangle)]
pub static MX_ERRORS_ARE_FATAL: ErrorHandler = errors_are_fatal;
/// Returns its code.
#[unsafe(no_mangle)]
pub static MX_ERRORS_RETURN: ErrorHandler = errors_return;
/// As [`MX_ERRORS_ARE_FATAL`], by its native name.
#[unsafe(no_mangle)]
pub static OMX_ERRORS_ARE_FATAL: ErrorHandler = errors_are_fatal;
/// As [`MX_ERRORS_RETURN`], by its native name.
#[unsafe(no_mangle)]
pub static OMX_ERRORS_RETURN: ErrorHandler = errors_return;
