// SPDX-License-Identifier: Apache-2.0
//! Between C and Rust: every function runs inside [`guard`], and every pointer passes one of these.

use std::ffi::{CStr, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use diolkos::{PeerId, Sink, Source};

use crate::codes::{self, Code, Failure};

/// As a peer: any, or none in particular.
pub const ANY_PEER: u32 = 0xffff_fffe;

/// Runs the body of a function. A panic ends here.
pub fn guard(body: impl FnOnce() -> Result<(), Failure>) -> Code {
    let result = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| {
        let text = Some("a fault of the library: please report it".to_owned());
        Err(Failure { code: codes::INTERNAL, text })
    });
    match result {
        Ok(()) => codes::SUCCESS,
        Err(failure) => {
            if failure.code != codes::NOT_YET {
                codes::remember(&failure);
            }
            failure.code
        }
    }
}

/// As [`guard`], for functions that return nothing, or whose result has a value of its own for failures.
pub fn guard_or<T>(otherwise: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(otherwise)
}

/// What a pointer points to.
///
/// # Safety
/// It is NULL, or points to a value that stays valid, and is only read by others, for `'a`.
pub unsafe fn shared<'a, T>(pointer: *const T, what: &str) -> Result<&'a T, Failure> {
    // SAFETY: as promised by the caller.
    unsafe { pointer.as_ref() }.ok_or_else(|| Failure::invalid(&format!("{what} is NULL")))
}

/// Writes a result.
///
/// # Safety
/// The pointer is NULL or may be written, if it is aligned.
pub unsafe fn put<T>(pointer: *mut T, value: T) {
    if !pointer.is_null() {
        // SAFETY: as promised by the caller.
        unsafe { pointer.write(value) };
    }
}

/// Where a result goes that cannot be done without.
pub fn required<T>(pointer: *mut T, what: &str) -> Result<*mut T, Failure> {
    if pointer.is_null() {
        return Err(Failure::invalid(&format!("{what} is NULL")));
    }
    Ok(pointer)
}

fn check_length(is_null: bool, length: usize) -> Result<(), Failure> {
    if length > isize::MAX as usize {
        return Err(Failure::invalid("a length is more than memory can have"));
    }
    if is_null && length > 0 {
        return Err(Failure::invalid("data is NULL, and its length is not 0"));
    }
    Ok(())
}

/// Memory that a request reads.
pub fn source(data: *const u8, length: usize) -> Result<Source, Failure> {
    check_length(data.is_null(), length)?;
    // SAFETY: the header asks the program to keep it valid until the request has ended.
    Ok(unsafe { Source::from_raw(data, length) })
}

/// Memory that a request writes.
pub fn sink(data: *mut u8, length: usize) -> Result<Sink, Failure> {
    check_length(data.is_null(), length)?;
    // SAFETY: as in `source`.
    Ok(unsafe { Sink::from_raw(data, length) })
}

/// A text, if there is one.
///
/// # Safety
/// The pointer is NULL or points to a string with its final zero.
pub unsafe fn text(pointer: *const c_char, what: &str) -> Result<Option<String>, Failure> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: as promised by the caller.
    let text = unsafe { CStr::from_ptr(pointer) }.to_str();
    match text {
        Ok(text) => Ok(Some(text.to_owned())),
        Err(_) => Err(Failure::invalid(&format!("{what} is not UTF-8"))),
    }
}

/// A peer, or none.
pub fn maybe_peer(peer: u32) -> Option<PeerId> {
    (peer != ANY_PEER).then(|| PeerId::from_raw(peer))
}

/// The end of a wait.
pub fn deadline(timeout_ms: i64) -> Option<Instant> {
    let timeout = Duration::from_millis(u64::try_from(timeout_ms).ok()?);
    Instant::now().checked_add(timeout)
}
