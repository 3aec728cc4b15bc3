// SPDX-License-Identifier: Apache-2.0
//! The interface as a C program declares it, and a backend of one's own.
#![allow(dead_code, missing_docs, clippy::missing_safety_doc)]

use std::ffi::{c_char, c_int, c_void};
use std::path::PathBuf;
use std::ptr::{null, null_mut};
use std::sync::{Mutex, MutexGuard, OnceLock};

// Linked for its C functions.
use diolkos_mx as _;

pub type Code = c_int;
pub type Endpoint = *const c_void;
pub type Request = *mut c_void;
pub type ErrorHandler = unsafe extern "C" fn(*mut c_char, Code) -> Code;
pub type UnexpectedHandler = extern "C" fn(*mut c_void, Addr, u64, u32, *mut c_void) -> Code;
pub type Callback = extern "C" fn(*mut c_void, u64, c_int);

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addr {
    pub stuff: [u64; 2],
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    pub base: *mut c_void,
    pub length: u32,
}

#[repr(C)]
pub struct Param {
    pub key: Code,
    pub value: [u64; 1],
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Status {
    pub code: Code,
    pub source: Addr,
    pub match_info: u64,
    pub msg_length: u32,
    pub xfer_length: u32,
    pub context: *mut c_void,
}

impl Default for Status {
    fn default() -> Self {
        // SAFETY: plain data, for which zeros are values.
        unsafe { std::mem::zeroed() }
    }
}

unsafe extern "C" {
    pub static MX_ERRORS_RETURN: ErrorHandler;
    pub static MX_ERRORS_ARE_FATAL: ErrorHandler;
    pub safe fn mx__init_api(api: c_int) -> Code;
    pub safe fn mx_finalize() -> Code;
    pub safe fn mx_set_error_handler(handler: Option<ErrorHandler>) -> ErrorHandler;
    pub fn mx_strerror(code: Code) -> *const c_char;
    pub fn mx_strstatus(code: Code) -> *const c_char;
    pub fn mx_open_endpoint(
        board: u32,
        id: u32,
        key: u32,
        params: *const Param,
        count: u32,
        ep: *mut Endpoint,
    ) -> Code;
    pub safe fn mx_close_endpoint(ep: Endpoint) -> Code;
    pub safe fn mx_wakeup(ep: Endpoint) -> Code;
    pub safe fn mx_progress(ep: Endpoint) -> Code;
    pub safe fn mx_disable_progression(ep: Endpoint) -> Code;
    pub safe fn mx_reenable_progression(ep: Endpoint) -> Code;
    pub safe fn mx_register_unexp_handler(
        ep: Endpoint,
        handler: Option<UnexpectedHandler>,
        context: *mut c_void,
    ) -> Code;
    pub safe fn mx_register_unexp_callback(
        ep: Endpoint,
        callback: Option<Callback>,
        context: *mut c_void,
    ) -> Code;
    pub fn mx_get_endpoint_addr(ep: Endpoint, addr: *mut Addr) -> Code;
    pub fn mx_connect(
        ep: Endpoint,
        nic: u64,
        id: u32,
        key: u32,
        timeout: u32,
        addr: *mut Addr,
    ) -> Code;
    pub fn mx_iconnect(
        ep: Endpoint,
        nic: u64,
        id: u32,
        key: u32,
        match_info: u64,
        context: *mut c_void,
        request: *mut Request,
    ) -> Code;
    pub safe fn mx_disconnect(ep: Endpoint, addr: Addr) -> Code;
    pub fn mx_decompose_endpoint_addr(addr: Addr, nic: *mut u64, id: *mut u32) -> Code;
    pub fn mx_decompose_endpoint_addr2(
        addr: Addr,
        nic: *mut u64,
        id: *mut u32,
        session: *mut u32,
    ) -> Code;
    pub safe fn mx_set_endpoint_addr_context(addr: Addr, context: *mut c_void) -> Code;
    pub fn mx_get_endpoint_addr_context(addr: Addr, context: *mut *mut c_void) -> Code;
    pub fn mx_isend(
        ep: Endpoint,
        list: *const Segment,
        count: u32,
        dest: Addr,
        match_info: u64,
        context: *mut c_void,
        request: *mut Request,
    ) -> Code;
    pub fn mx_issend(
        ep: Endpoint,
        list: *const Segment,
        count: u32,
        dest: Addr,
        match_info: u64,
        context: *mut c_void,
        request: *mut Request,
    ) -> Code;
    pub fn mx_irecv(
        ep: Endpoint,
        list: *const Segment,
        count: u32,
        match_info: u64,
        mask: u64,
        context: *mut c_void,
        request: *mut Request,
    ) -> Code;
    pub fn mx_test(ep: Endpoint, r: *mut Request, status: *mut Status, result: *mut u32) -> Code;
    pub fn mx_wait(
        ep: Endpoint,
        request: *mut Request,
        timeout: u32,
        status: *mut Status,
        result: *mut u32,
    ) -> Code;
    pub fn mx_test_any(
        ep: Endpoint,
        match_info: u64,
        mask: u64,
        status: *mut Status,
        result: *mut u32,
    ) -> Code;
    pub fn mx_wait_any(
        ep: Endpoint,
        timeout: u32,
        match_info: u64,
        mask: u64,
        status: *mut Status,
        result: *mut u32,
    ) -> Code;
    pub fn mx_ipeek(ep: Endpoint, request: *mut Request, result: *mut u32) -> Code;
    pub fn mx_peek(ep: Endpoint, timeout: u32, request: *mut Request, result: *mut u32) -> Code;
    pub fn mx_iprobe(
        ep: Endpoint,
        match_info: u64,
        mask: u64,
        status: *mut Status,
        result: *mut u32,
    ) -> Code;
    pub fn mx_probe(
        ep: Endpoint,
        timeout: u32,
        match_info: u64,
        mask: u64,
        status: *mut Status,
        result: *mut u32,
    ) -> Code;
    pub fn mx_ibuffered(ep: Endpoint, request: *mut Request, result: *mut u32) -> Code;
    pub fn mx_cancel(ep: Endpoint, request: *mut Request, result: *mut u32) -> Code;
    pub fn omx_cancel_notest(ep: Endpoint, request: *mut Request, result: *mut u32) -> Code;
    pub fn mx_forget(ep: Endpoint, request: *mut Request) -> Code;
    pub fn mx_context(request: *mut Request, context: *mut *mut c_void) -> Code;
    pub safe fn mx_set_request_timeout(ep: Endpoint, request: Request, ms: u32) -> Code;
    pub fn mx_get_info(
        ep: Endpoint,
        key: Code,
        input: *const c_void,
        input_length: u32,
        output: *mut c_void,
        output_length: u32,
    ) -> Code;
    pub fn mx_hostname_to_nic_id(host: *const c_char, nic: *mut u64) -> Code;
    pub fn mx_nic_id_to_hostname(nic: u64, host: *mut c_char) -> Code;
    pub fn mx_board_number_to_nic_id(board: u32, nic: *mut u64) -> Code;
    pub fn mx_nic_id_to_board_number(nic: u64, board: *mut u32) -> Code;
    pub fn mx_raw_open_endpoint(
        board: u32,
        params: *const Param,
        count: u32,
        ep: *mut *mut c_void,
    ) -> Code;
    pub safe fn mx_raw_close_endpoint(ep: *mut c_void) -> Code;
}

pub const ANY: u32 = u32::MAX;
pub const API: c_int = 0x301;
pub const KEY: u32 = 0x1234_5678;
pub const ALL: u64 = u64::MAX;

/// The library, initialised over a backend of this process's own. One test at a time has it.
pub struct Library(#[allow(unused)] MutexGuard<'static, ()>);

/// Python and the folder of its packages, by which this clone's backend runs.
fn backend_command() -> String {
    if let Ok(command) = std::env::var("DIOLKOS_BACKEND_COMMAND") {
        return command;
    }
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let python = root.join(".venv/bin/python");
    format!("{} -m diolkos backend --idle-exit 1", python.display())
}

/// Where the backend of this process listens.
static PLACE: OnceLock<PathBuf> = OnceLock::new();

/// The backend leaves by itself when nobody is there any more.
extern "C" fn remove_place() {
    if let Some(place) = PLACE.get() {
        let _ = std::fs::remove_dir_all(place);
    }
}

pub fn library() -> Library {
    static LOCK: Mutex<()> = Mutex::new(());
    let guard = LOCK.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    PLACE.get_or_init(|| {
        let place = env!("CARGO_TARGET_TMPDIR");
        let place = PathBuf::from(place).join(format!("mx-{}", std::process::id()));
        std::fs::create_dir_all(&place).unwrap();
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&place, PermissionsExt::from_mode(0o700)).unwrap();
        // SAFETY: a function that may run at any time.
        unsafe { libc::atexit(remove_place) };
        let command = backend_command();
        // SAFETY: under the lock, before any thread of the library runs.
        unsafe {
            std::env::set_var("XDG_RUNTIME_DIR", &place);
            std::env::remove_var("DIOLKOS_RUNTIME_DIR");
            std::env::set_var("DIOLKOS_BACKEND_COMMAND", command);
        }
        place
    });
    // SAFETY: a function of the library.
    mx_set_error_handler(Some(unsafe { MX_ERRORS_RETURN }));
    assert_eq!(mx__init_api(API), 0);
    Library(guard)
}

impl Drop for Library {
    fn drop(&mut self) {
        mx_finalize();
    }
}

/// An endpoint that is closed at the end.
pub struct Ep(pub Endpoint);

impl Drop for Ep {
    fn drop(&mut self) {
        let _ = mx_close_endpoint(self.0);
    }
}

pub fn try_open(id: u32, params: &[Param]) -> Result<Ep, Code> {
    let mut ep = null();
    // SAFETY: plain pointers to live values.
    let code = unsafe {
        let list = if params.is_empty() { null() } else { params.as_ptr() };
        mx_open_endpoint(0, id, KEY, list, params.len() as u32, &mut ep)
    };
    if code == 0 { Ok(Ep(ep)) } else { Err(code) }
}

pub fn open() -> Ep {
    try_open(ANY, &[]).unwrap()
}

pub fn context_param(bits: u8, shift: u8) -> Param {
    Param { key: 2, value: [u64::from(bits) | u64::from(shift) << 8] }
}

pub fn nic() -> u64 {
    let mut nic = 0;
    // SAFETY: a pointer to a live value.
    assert_eq!(unsafe { mx_board_number_to_nic_id(0, &mut nic) }, 0);
    nic
}

impl Ep {
    pub fn addr(&self) -> Addr {
        let mut addr = Addr::default();
        // SAFETY: a pointer to a live value.
        assert_eq!(unsafe { mx_get_endpoint_addr(self.0, &mut addr) }, 0);
        addr
    }

    pub fn id(&self) -> u32 {
        id_of(self.addr())
    }

    pub fn connect(&self, id: u32, key: u32, timeout: u32) -> Result<Addr, Code> {
        let mut addr = Addr::default();
        // SAFETY: a pointer to a live value.
        let code = unsafe { mx_connect(self.0, nic(), id, key, timeout, &mut addr) };
        if code == 0 { Ok(addr) } else { Err(code) }
    }

    pub fn isend(&self, data: &[u8], dest: Addr, match_info: u64, context: usize) -> Request {
        let segment = Segment { base: data.as_ptr() as *mut c_void, length: data.len() as u32 };
        let mut request = null_mut();
        // SAFETY: pointers to live values; the callers complete the request before the data ends.
        let code = unsafe {
            mx_isend(self.0, &segment, 1, dest, match_info, context as *mut c_void, &mut request)
        };
        assert_eq!(code, 0);
        request
    }

    pub fn issend(&self, data: &[u8], dest: Addr, match_info: u64) -> Request {
        let segment = Segment { base: data.as_ptr() as *mut c_void, length: data.len() as u32 };
        let mut request = null_mut();
        // SAFETY: as above.
        let code =
            unsafe { mx_issend(self.0, &segment, 1, dest, match_info, null_mut(), &mut request) };
        assert_eq!(code, 0);
        request
    }

    pub fn irecv(&self, room: &mut [u8], match_info: u64, mask: u64, context: usize) -> Request {
        let segment = Segment { base: room.as_mut_ptr().cast(), length: room.len() as u32 };
        let mut request = null_mut();
        // SAFETY: as above.
        let code = unsafe {
            mx_irecv(self.0, &segment, 1, match_info, mask, context as *mut c_void, &mut request)
        };
        assert_eq!(code, 0);
        request
    }

    pub fn test(&self, request: &mut Request) -> Option<Status> {
        let (mut status, mut result) = (Status::default(), 7);
        // SAFETY: pointers to live values.
        assert_eq!(unsafe { mx_test(self.0, request, &mut status, &mut result) }, 0);
        (result == 1).then_some(status)
    }

    pub fn wait(&self, request: &mut Request) -> Status {
        let (mut status, mut result) = (Status::default(), 7);
        // SAFETY: pointers to live values.
        let code = unsafe { mx_wait(self.0, request, 20_000, &mut status, &mut result) };
        assert_eq!((code, result), (0, 1), "not complete in 20 s");
        assert!(request.is_null());
        status
    }

    pub fn wait_any(&self, match_info: u64, mask: u64, timeout: u32) -> Option<Status> {
        let (mut status, mut result) = (Status::default(), 7);
        // SAFETY: pointers to live values.
        let code =
            unsafe { mx_wait_any(self.0, timeout, match_info, mask, &mut status, &mut result) };
        assert_eq!(code, 0);
        (result == 1).then_some(status)
    }
}

pub fn id_of(addr: Addr) -> u32 {
    let (mut nic, mut id) = (0, 0);
    // SAFETY: pointers to live values.
    assert_eq!(unsafe { mx_decompose_endpoint_addr(addr, &mut nic, &mut id) }, 0);
    id
}

/// Two endpoints that know each other.
pub fn pair() -> (Ep, Ep, Addr) {
    let (a, b) = (open(), open());
    let to_b = a.connect(b.id(), KEY, 0).unwrap();
    (a, b, to_b)
}
