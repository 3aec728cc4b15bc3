// SPDX-License-Identifier: Apache-2.0
//! The unexpected handler, and the callback that came before it.
//!
//! The endpoint calls it without its lock, from whatever call makes progress, one message at a
//! time. Which thread runs it is noted, so that a call that would wait for its end is refused.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, Ordering};

use diolkos::{Handler, HandlerAction, Status};

use crate::address;
use crate::codes;
use crate::endpoint::Port;
use crate::errors::fail;
use crate::types::{Addr, Code, EndpointHandle, MatchingCallback, UnexpectedHandler};

const CONTINUE: Code = 0;
const FINISHED: Code = 1;

/// A number of this thread, never 0.
fn this_thread() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    thread_local!(static NUMBER: Cell<u64> = const { Cell::new(0) });
    NUMBER.with(|number| {
        if number.get() == 0 {
            number.set(COUNT.fetch_add(1, Ordering::Relaxed));
        }
        number.get()
    })
}

impl Port {
    /// Whether this thread is inside the program's handler.
    pub fn in_handler(&self) -> bool {
        let thread = self.handler_thread.load(Ordering::Acquire);
        thread != 0 && thread == this_thread()
    }
}

/// What the handler was registered with.
struct Registered {
    port: EndpointHandle,
    context: *mut c_void,
}

// SAFETY: the context is the program's, which knows that any thread may run its handler; the port
// is there while its endpoint runs handlers.
unsafe impl Send for Registered {}

impl Registered {
    /// Runs the program's function, with what it is told of the message.
    fn run(&self, status: &Status, call: impl FnOnce(*mut c_void, Addr, u32)) {
        // SAFETY: a port is freed only long after its endpoint was closed.
        let port = unsafe { &*self.port };
        let source = port.core.inside(|inside| address::of_peer(port, inside, status.source));
        let length = status.message_bytes.min(u64::from(u32::MAX)) as u32;
        port.handler_thread.store(this_thread(), Ordering::Release);
        call(self.context, source.unwrap_or_default(), length);
        port.handler_thread.store(0, Ordering::Release);
    }
}

fn boxed_handler(registered: Registered, handler: UnexpectedHandler) -> Handler {
    Box::new(move |status, data| {
        let data = data.map_or(null_mut(), |data| data.as_ptr().cast_mut().cast::<c_void>());
        let mut action = CONTINUE;
        registered.run(status, |context, source, length| {
            // SAFETY: the program's own function, called as it was declared to be; the data lives
            // until it returns.
            action = unsafe { handler(context, source, status.match_info, length, data) };
        });
        match action {
            CONTINUE => HandlerAction::Continue,
            FINISHED => HandlerAction::Finished,
            other => {
                tell!("diolkos: the unexpected handler returned {other}, which means nothing");
                std::process::abort()
            }
        }
    })
}

fn boxed_callback(registered: Registered, callback: MatchingCallback) -> Handler {
    Box::new(move |status, _| {
        registered.run(status, |context, _, length| {
            let length = c_int::try_from(length).unwrap_or(c_int::MAX);
            // SAFETY: the program's own function, called as it was declared to be.
            unsafe { callback(context, status.match_info, length) };
        });
        HandlerAction::Continue
    })
}

fn install(port: &Port, handler: Option<Handler>, what: &str) -> Code {
    match port.core.set_unexpected_handler(handler) {
        Ok(()) => codes::SUCCESS,
        Err(error) => fail(Some(port), codes::of_error(&error), what),
    }
}

/// Registers a handler, or none.
pub fn register(
    handle: EndpointHandle,
    handler: Option<UnexpectedHandler>,
    context: *mut c_void,
    what: &str,
) -> Code {
    let Some(port) = Port::at(handle) else { return fail(None, codes::BAD_ENDPOINT, what) };
    let registered = Registered { port: handle, context };
    install(port, handler.map(|handler| boxed_handler(registered, handler)), what)
}

#[unsafe(no_mangle)]
extern "C" fn mx_register_unexp_handler(
    handle: EndpointHandle,
    handler: Option<UnexpectedHandler>,
    context: *mut c_void,
) -> Code {
    register(handle, handler, context, "mx_register_unexp_handler")
}

#[unsafe(no_mangle)]
extern "C" fn mx_register_unexp_callback(
    handle: EndpointHandle,
    callback: Option<MatchingCallback>,
    context: *mut c_void,
) -> Code {
    let what = "mx_register_unexp_callback";
    let Some(port) = Port::at(handle) else { return fail(None, codes::BAD_ENDPOINT, what) };
    let registered = Registered { port: handle, context };
    install(port, callback.map(|callback| boxed_callback(registered, callback)), what)
}
