// SPDX-License-Identifier: Apache-2.0
//! Boards and names: board 0 is this host's backend.
//!
//! Its NIC id is a MAC address as nobody sells one: locally administered, made of the identity of
//! the running kernel. So all domains of a host that share a kernel, containers too, agree on it,
//! and hosts differ. It changes when the host starts again, when no address of before is valid
//! anyway. Board 0 is called `localhost` and `<host name>`, both also with `:0`, and as somebody renamed
//! it: then its name is the one line of the file `mx-hostname` in the runtime directory.

use std::ffi::{CStr, c_char};
use std::fs;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::codes;
use crate::errors::fail;
use crate::library;
use crate::types::Code;

/// A peer's name has 80 bytes with its final zero; this is without the `:0` that names the board.
const PLAIN_NAME_BYTES_MAX: usize = 77;
/// What the board is called, in the runtime directory, if somebody renamed it.
const NAME_FILE: &str = "mx-hostname";

pub fn exists(board: u32) -> bool {
    board == 0
}

/// The NIC id of board 0.
pub fn nic_id() -> u64 {
    static ONCE: OnceLock<u64> = OnceLock::new();
    *ONCE.get_or_init(|| {
        let identity = fs::read("/proc/sys/kernel/random/boot_id")
            .or_else(|_| fs::read("/etc/machine-id"))
            .unwrap_or_else(|_| host_name().into_bytes());
        // The second lowest bit of the first byte: locally administered; the lowest: no group.
        hash(&identity) & 0xfcff_ffff_ffff | 0x0200_0000_0000
    })
}

/// FNV-1a, folded to 48 bits.
fn hash(bytes: &[u8]) -> u64 {
    let step = |state: u64, byte: &u8| (state ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    let state = bytes.iter().fold(0xcbf2_9ce4_8422_2325, step);
    (state ^ state >> 48) & 0xffff_ffff_ffff
}

/// A session id for an endpoint that opens now; never 0.
pub fn session(number: u32) -> u32 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let seed = [std::process::id(), number, count].map(u32::to_le_bytes).concat();
    hash(&seed) as u32 | 1
}

pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// What somebody called the board (`diolkos mx hostname`), if it is a name.
fn given_name() -> Option<String> {
    let most = PLAIN_NAME_BYTES_MAX + 1;
    let bytes = diolkos_island::process::runtime_file(None, NAME_FILE, most)?;
    let plain = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let is_good = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    let fits = !plain.is_empty() && plain.len() <= PLAIN_NAME_BYTES_MAX;
    (fits && plain.iter().all(is_good)).then(|| String::from_utf8_lossy(plain).into_owned())
}

/// The name of board 0.
pub fn name() -> String {
    let mut name = given_name().unwrap_or_else(host_name);
    let mut end = name.len().min(PLAIN_NAME_BYTES_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.truncate(end);
    name + ":0"
}

fn is_ours(name: &str) -> bool {
    let plain = name.strip_suffix(":0").unwrap_or(name);
    plain == "localhost" || plain == host_name() || Some(plain) == self::name().strip_suffix(":0")
}

fn checked(result: Result<(), Code>, what: &str) -> Code {
    match result {
        Ok(()) => codes::SUCCESS,
        Err(code) => fail(None, code, what),
    }
}

fn need_library() -> Result<(), Code> {
    library::is_initialized().then_some(()).ok_or(codes::NOT_INITIALIZED)
}

/// # Safety
/// The pointers are null or point to such values.
unsafe fn find_host(host: *const c_char, nic: *mut u64) -> Result<(), Code> {
    need_library()?;
    if host.is_null() {
        return Err(codes::HOST_NOT_FOUND);
    }
    // SAFETY: as the caller says.
    let (host, nic) = unsafe { (CStr::from_ptr(host), nic.as_mut()) };
    if !host.to_str().is_ok_and(is_ours) {
        return Err(codes::HOST_NOT_FOUND);
    }
    *nic.ok_or(codes::BAD_INFO_VAL)? = nic_id();
    Ok(())
}

/// # Safety
/// `host` is null or has room for 80 bytes.
unsafe fn name_host(nic: u64, host: *mut c_char) -> Result<(), Code> {
    need_library()?;
    if nic != nic_id() {
        return Err(codes::HOST_NOT_FOUND);
    }
    if host.is_null() {
        return Err(codes::BAD_INFO_VAL);
    }
    let name = name();
    // SAFETY: a name has less than 80 bytes.
    unsafe {
        host.cast::<u8>().copy_from_nonoverlapping(name.as_ptr(), name.len());
        *host.add(name.len()) = 0;
    }
    Ok(())
}

/// # Safety
/// `nic` is null or points to such a value.
unsafe fn nic_of(board: u32, nic: *mut u64) -> Result<(), Code> {
    need_library()?;
    if !exists(board) {
        return Err(codes::BOARD_UNKNOWN);
    }
    // SAFETY: as the caller says.
    *unsafe { nic.as_mut() }.ok_or(codes::BAD_INFO_VAL)? = nic_id();
    Ok(())
}

/// # Safety
/// `board` is null or points to such a value.
unsafe fn board_of(nic: u64, board: *mut u32) -> Result<(), Code> {
    need_library()?;
    if nic != nic_id() {
        return Err(codes::BOARD_UNKNOWN);
    }
    // SAFETY: as the caller says.
    *unsafe { board.as_mut() }.ok_or(codes::BAD_INFO_VAL)? = 0;
    Ok(())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mx_hostname_to_nic_id(host: *const c_char, nic: *mut u64) -> Code {
    // SAFETY: pointers of the program, as the interface demands.
    checked(unsafe { find_host(host, nic) }, "mx_hostname_to_nic_id")
}

#[unsafe(no_mangle)]
unsafe extern "C" fn omx_hostname_to_nic_id(host: *const c_char, nic: *mut u64) -> Code {
    // SAFETY: pointers of the program, as the interface demands.
    checked(unsafe { find_host(host, nic) }, "omx_hostname_to_nic_id")
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mx_nic_id_to_hostname(nic: u64, host: *mut c_char) -> Code {
    // SAFETY: pointers of the program, as the interface demands.
    checked(unsafe { name_host(nic, host) }, "mx_nic_id_to_hostname")
}

#[unsafe(no_mangle)]
unsafe extern "C" fn omx_nic_id_to_hostname(nic: u64, host: *mut c_char) -> Code {
    // SAFETY: pointers of the program, as the interface demands.
    checked(unsafe { name_host(nic, host) }, "omx_nic_id_to_hostname")
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mx_board_number_to_nic_id(board: u32, nic: *mut u64) -> Code {
    // SAFETY: pointers of the program, as the interface demands.
    checked(unsafe { nic_of(board, nic) }, "mx_board_number_to_nic_id")
}

#[unsafe(no_mangle)]
unsafe extern "C" fn omx_board_number_to_nic_id(board: u32, nic: *mut u64) -> Code {
    // SAFETY: pointers of the program, as the interface demands.
    checked(unsafe { nic_of(board, nic) }, "omx_board_number_to_nic_id")
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mx_nic_id_to_board_number(nic: u64, board: *mut u32) -> Code {
    // SAFETY: pointers of the program, as the interface demands.
    checked(unsafe { board_of(nic, board) }, "mx_nic_id_to_board_number")
}

#[unsafe(no_mangle)]
unsafe extern "C" fn omx_nic_id_to_board_number(nic: u64, board: *mut u32) -> Code {
    // SAFETY: pointers of the program, as the interface demands.
    checked(unsafe { board_of(nic, board) }, "omx_nic_id_to_board_number")
}
