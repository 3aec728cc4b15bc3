// SPDX-License-Identifier: Apache-2.0
//! A port: an endpoint and what the door keeps for it. `mx_endpoint_t` points to one.
//!
//! Ports that were closed are kept for a while, so that a stale handle finds a closed port.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use diolkos::{Endpoint, Error, IslandError, OpenOptions};

use crate::address::Partners;
use crate::board;
use crate::codes;
use crate::environment;
use crate::errors::{HandlerCell, fail};
use crate::library;
use crate::params::{self, Params};
use crate::progression::{self, Progression};
use crate::request::Records;
use crate::timeout::Chores;
use crate::types::{Code, EndpointHandle, Param};

/// `MX_ANY_NIC` and `MX_ANY_ENDPOINT`.
pub const ANY: u32 = u32::MAX;
/// Endpoint ids of a board.
pub const ENDPOINTS_MAX: u32 = 256;
/// Closed ports that are kept.
const CLOSED_KEPT: usize = 8;

/// What `mx_endpoint_t` points to while it is open.
const OPEN: u32 = 0x6d78_6570;
const CLOSED: u32 = 0x646f_6e65;

/// Reasons why a call must look before it goes on ([`Port::enter`]).
pub mod flag {
    /// The progression thread has armed the endpoint.
    pub const DOZING: u32 = 1;
    /// The program has disabled progression.
    pub const DISABLED: u32 = 2;
    /// Requests with chores: nobody asks for them, or their time will be up.
    pub const CHORES: u32 = 4;
}

/// An endpoint of the program.
#[repr(align(64))]
pub struct Port {
    state: AtomicU32,
    /// See [`flag`].
    pub flags: AtomicU32,
    /// Counts calls; not exactly where threads share the port, which does no harm.
    pub activity: AtomicU32,
    /// Calls that wait.
    pub waiting: AtomicU32,
    /// Counts `mx_wakeup`.
    pub wakeups: AtomicU32,
    pub core: Endpoint,
    pub records: Records,
    pub partners: Partners,
    pub error_handler: HandlerCell,
    /// The thread that runs the program's unexpected handler; 0 while none does.
    pub handler_thread: AtomicU64,
    pub chores: Chores,
    pub progression: Progression,
    pub key: u32,
    pub session: u32,
}

static CLOSED_PORTS: Mutex<VecDeque<ClosedPort>> = Mutex::new(VecDeque::new());

/// The numbers of the endpoints that this process has open.
static OPEN_NUMBERS: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// Whether this process has the endpoint of that number open.
pub fn is_of_this_process(number: u32) -> bool {
    OPEN_NUMBERS.lock().unwrap_or_else(PoisonError::into_inner).contains(&number)
}

struct ClosedPort(*mut Port);
// SAFETY: a port that is closed is only read, and freed by whoever takes it out of the list.
unsafe impl Send for ClosedPort {}

impl Port {
    /// The port that a handle means, if it is open.
    #[inline(always)]
    pub fn at<'a>(handle: EndpointHandle) -> Option<&'a Self> {
        if !handle.is_aligned() {
            return None;
        }
        // SAFETY: null, or a handle of this library by the contract of the interface; ports stay
        // readable while they are open and for some time after.
        let port = unsafe { handle.as_ref() }?;
        (port.state.load(Ordering::Relaxed) == OPEN).then_some(port)
    }

    /// Its endpoint id.
    pub fn number(&self) -> u32 {
        self.core.identity().number
    }

    /// Begins a call; tells whether it may make progress.
    #[inline(always)]
    pub fn enter(&self) -> bool {
        let count = self.activity.load(Ordering::Relaxed);
        self.activity.store(count.wrapping_add(1), Ordering::Relaxed);
        match self.flags.load(Ordering::Relaxed) {
            0 => true,
            flags => self.enter_slowly(flags),
        }
    }

    #[cold]
    fn enter_slowly(&self, flags: u32) -> bool {
        if flags & flag::DOZING != 0 {
            self.progression.interrupt(self);
        }
        if flags & flag::CHORES != 0 {
            self.chores.look(self);
        }
        flags & flag::DISABLED == 0
    }

    pub fn raise(&self, flag: u32) {
        self.flags.fetch_or(flag, Ordering::AcqRel);
    }

    pub fn lower(&self, flag: u32) {
        self.flags.fetch_and(!flag, Ordering::AcqRel);
    }
}

/// Opens a port; `board` and `id` may be wildcards.
fn open(board: u32, id: u32, key: u32, params: Params) -> Result<*mut Port, Code> {
    if !library::is_initialized() {
        return Err(codes::NOT_INITIALIZED);
    }
    if board != ANY && !board::exists(board) {
        return Err(codes::BOARD_UNKNOWN);
    }
    let id = if id == ANY { environment::any_endpoint().unwrap_or(ANY) } else { id };
    if id != ANY && id >= ENDPOINTS_MAX {
        return Err(codes::BAD_ENDPOINT);
    }
    let context = params.context.or_else(environment::context_bits);
    let context = context.ok_or(codes::BAD_PARAM_VAL)?;
    let options = OpenOptions {
        number: (id != ANY).then_some(id),
        partition: environment::partition(),
        key: Some(key),
        backend_command: environment::backend_command(),
        context,
        ..OpenOptions::default()
    };
    let core = if id == ANY { open_any(options)? } else { open_one(&options)? };
    core.inside(|inside| {
        inside.receives_outlive_peers();
        inside.queue_every_send();
    })
    .map_err(|_| codes::BAD_ENDPOINT)?;
    let port = Port {
        state: AtomicU32::new(OPEN),
        flags: AtomicU32::new(0),
        activity: AtomicU32::new(0),
        waiting: AtomicU32::new(0),
        wakeups: AtomicU32::new(0),
        session: board::session(core.identity().number),
        core,
        records: Records::new(),
        partners: Partners::new(),
        error_handler: HandlerCell::new(),
        handler_thread: AtomicU64::new(0),
        chores: Chores::default(),
        progression: Progression::default(),
        key,
    };
    port.error_handler.replace(params.error_handler);
    OPEN_NUMBERS.lock().unwrap_or_else(PoisonError::into_inner).push(port.number());
    let port = Box::into_raw(Box::new(port));
    if environment::has_progression() {
        // SAFETY: just made; freed only after its thread has ended.
        progression::start(unsafe { &*port });
    }
    Ok(port)
}

/// The lowest free id. The backend may give out higher numbers, to spare those of endpoints that
/// could come back after a restart; then one is looked for.
fn open_any(mut options: OpenOptions) -> Result<Endpoint, Code> {
    let core = open_one(&options)?;
    if core.identity().number < ENDPOINTS_MAX {
        return Ok(core);
    }
    core.close();
    for number in 0..ENDPOINTS_MAX {
        options.number = Some(number);
        match open_one(&options) {
            Err(codes::BUSY) => {}
            opened => return opened,
        }
    }
    Err(codes::BUSY)
}

fn open_one(options: &OpenOptions) -> Result<Endpoint, Code> {
    loop {
        return match Endpoint::open(options) {
            Ok(core) => Ok(core),
            // A signal while a backend was being started.
            Err(Error::Interrupted) => continue,
            Err(error) => Err(open_code(options, &error)),
        };
    }
}

fn open_code(options: &OpenOptions, error: &Error) -> Code {
    let Error::Introduction(refusal) = error else {
        tell!("diolkos: {error}");
        return codes::NO_RESOURCES;
    };
    let code = match refusal {
        IslandError::Busy { .. } => return codes::BUSY,
        IslandError::Denied { .. } => codes::NO_PERM,
        IslandError::Version { .. } => codes::BAD_LIB_VERSION,
        IslandError::BackendUnavailable { .. } if options.backend_command.is_empty() => {
            codes::NO_DEV
        }
        IslandError::BackendUnavailable { .. } => codes::NO_DRIVER,
        IslandError::Limit { .. } | IslandError::System { .. } => codes::NO_RESOURCES,
        _ => codes::BAD_BAD_BAD,
    };
    // What no code can say: why there is no backend, or which limit it is.
    tell!("diolkos: {error}");
    if let Some(hint) = refusal.hint() {
        tell!("diolkos: hint: {hint}");
    }
    code
}

/// Closes a port.
fn close(handle: EndpointHandle) -> Result<(), Code> {
    let port = Port::at(handle).ok_or(codes::BAD_ENDPOINT)?;
    if port.in_handler() {
        return Err(codes::NOT_SUPPORTED_IN_HANDLER);
    }
    let was = port.state.compare_exchange(OPEN, CLOSED, Ordering::AcqRel, Ordering::Relaxed);
    if was.is_err() {
        return Err(codes::BAD_ENDPOINT);
    }
    if port.core.is_forked() {
        // The parent's: its thread and its peers are not ours to end.
        return Ok(());
    }
    let number = port.number();
    OPEN_NUMBERS.lock().unwrap_or_else(PoisonError::into_inner).retain(|open| *open != number);
    port.wakeups.fetch_add(1, Ordering::AcqRel);
    port.core.close();
    port.progression.end(port);
    // Those who wait see that it is closed and leave.
    while port.waiting.load(Ordering::Acquire) > 0 {
        std::thread::sleep(Duration::from_micros(50));
    }
    port.partners.retire();
    let mut closed = CLOSED_PORTS.lock().unwrap_or_else(PoisonError::into_inner);
    closed.push_back(ClosedPort(handle.cast_mut()));
    let oldest = if closed.len() > CLOSED_KEPT { closed.pop_front() } else { None };
    drop(closed);
    if let Some(ClosedPort(port)) = oldest {
        // SAFETY: made of a box by `open`, and taken out of the list once.
        drop(unsafe { Box::from_raw(port) });
    }
    Ok(())
}

/// # Safety
/// The pointers are null or point to such values.
pub unsafe fn open_for_program(
    (board, id, key): (u32, u32, u32),
    list: *const Param,
    count: u32,
    endpoint: *mut EndpointHandle,
    what: &str,
) -> Code {
    // SAFETY: as the caller says.
    let opened = unsafe { params::read(list, count) };
    let own = opened.as_ref().ok().and_then(|params| params.error_handler);
    // SAFETY: as the caller says.
    let opened = match unsafe { endpoint.as_mut() } {
        None => Err(codes::BAD_ENDPOINT),
        Some(to) => opened.and_then(|params| open(board, id, key, params)).map(|port| *to = port),
    };
    match (opened, own) {
        (Ok(()), _) => codes::SUCCESS,
        (Err(code), Some(own)) => {
            // The handler that the endpoint would have had.
            let text = std::ffi::CString::new(what).unwrap_or_default();
            // SAFETY: the program's own function, called as it was declared to be.
            unsafe { own(text.as_ptr().cast_mut(), code) }
        }
        (Err(code), None) => fail(None, code, what),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mx_open_endpoint(
    board: u32,
    id: u32,
    key: u32,
    params: *const Param,
    count: u32,
    endpoint: *mut EndpointHandle,
) -> Code {
    // SAFETY: pointers of the program, as the interface demands.
    unsafe { open_for_program((board, id, key), params, count, endpoint, "mx_open_endpoint") }
}

#[unsafe(no_mangle)]
extern "C" fn mx_close_endpoint(handle: EndpointHandle) -> Code {
    match close(handle) {
        Ok(()) => codes::SUCCESS,
        Err(codes::NOT_SUPPORTED_IN_HANDLER) => {
            fail(Port::at(handle), codes::CLOSE_IN_HANDLER, "mx_close_endpoint")
        }
        Err(code) => fail(Port::at(handle), code, "mx_close_endpoint"),
    }
}

#[unsafe(no_mangle)]
extern "C" fn omx_close_endpoint(handle: EndpointHandle) -> Code {
    match close(handle) {
        Ok(()) => codes::SUCCESS,
        Err(code) => fail(Port::at(handle), code, "omx_close_endpoint"),
    }
}
