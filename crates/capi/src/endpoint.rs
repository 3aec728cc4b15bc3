// SPDX-License-Identifier: Apache-2.0
//! Endpoints and their peers.

use std::env;
use std::ffi::{CString, OsString, c_char};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::Duration;

use diolkos::{Endpoint, Error, OpenOptions, PeerId, PeerInfo, Target};

use crate::boundary::{guard, guard_or, put, required, shared, text};
use crate::codes::{self, Code, Failure};

/// What `dio_endpoint` is.
pub struct Handle {
    pub endpoint: Endpoint,
    name: CString,
}

/// What a handle's pointer stands for.
///
/// # Safety
/// It is NULL or came from `dio_open` and was not closed.
pub unsafe fn opened<'a>(handle: *const Handle) -> Result<&'a Endpoint, Failure> {
    // SAFETY: as promised by the caller; a handle is never changed.
    unsafe { shared(handle, "the endpoint") }.map(|handle| &handle.endpoint)
}

#[repr(C)]
struct Options {
    size: usize,
    name: *const c_char,
    partition: *const c_char,
    runtime_dir: *const c_char,
    backend_command: *const c_char,
    number: i64,
    arena_bytes: u64,
}

#[repr(C)]
struct Counters {
    words: [u64; 9],
}

/// The command that starts a backend when the program names none. A privileged program trusts neither its
/// environment nor its PATH.
fn default_command() -> Vec<OsString> {
    // SAFETY: reads a word that the kernel gave the process.
    if unsafe { libc::getauxval(libc::AT_SECURE) } != 0 {
        return Vec::new();
    }
    if let Ok(command) = env::var("DIOLKOS_BACKEND_COMMAND") {
        return command.split_whitespace().map(OsString::from).collect();
    }
    use std::os::unix::fs::PermissionsExt;
    let path = env::var_os("PATH").unwrap_or_default();
    let program = env::split_paths(&path).map(|directory| directory.join("diolkos")).find(|file| {
        file.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
    });
    program.map_or_else(Vec::new, |program| {
        let rest = ["backend", "--idle-exit", "60"].map(OsString::from);
        std::iter::once(program.into_os_string()).chain(rest).collect()
    })
}

/// # Safety
/// As `dio_open` says of its options.
unsafe fn read_options(options: *const Options) -> Result<OpenOptions, Failure> {
    let mut read = OpenOptions { backend_command: default_command(), ..OpenOptions::default() };
    if options.is_null() {
        return Ok(read);
    }
    // SAFETY: the first member is there in every version.
    if unsafe { (*options).size } != size_of::<Options>() {
        return Err(Failure::invalid("the size of the options is not that of dio_options"));
    }
    // SAFETY: as promised by the caller; of that size, as just seen.
    let options = unsafe { &*options };
    // SAFETY: as promised by the caller, each is NULL or a string.
    let (name, partition, runtime_dir, command) = unsafe {
        (
            text(options.name, "the name")?,
            text(options.partition, "the partition")?,
            text(options.runtime_dir, "the runtime directory")?,
            text(options.backend_command, "the backend command")?,
        )
    };
    read.name = name;
    read.partition = partition.unwrap_or(read.partition);
    read.runtime_dir = runtime_dir.map(PathBuf::from);
    if let Some(command) = command {
        read.backend_command = command.split_whitespace().map(OsString::from).collect();
    }
    if options.number >= 0 {
        let number = u32::try_from(options.number);
        let number = number.map_err(|_| Failure::invalid("the number is too large"))?;
        read.number = Some(number);
    }
    read.arena_bytes = (options.arena_bytes > 0).then_some(options.arena_bytes);
    Ok(read)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dio_open(options: *const Options, endpoint: *mut *mut Handle) -> Code {
    guard(|| {
        let to = required(endpoint, "where the endpoint goes")?;
        // SAFETY: the caller's promise.
        let options = unsafe { read_options(options) }?;
        let endpoint = Endpoint::open(&options)?;
        let name = CString::new(endpoint.identity().name.as_str()).unwrap_or_default();
        // SAFETY: not NULL, and the caller's to be written.
        unsafe { put(to, Box::into_raw(Box::new(Handle { endpoint, name }))) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dio_close(endpoint: *mut Handle) -> Code {
    guard(|| {
        if !endpoint.is_null() {
            // SAFETY: it came from `dio_open`, and the caller uses it no more.
            let handle = unsafe { Box::from_raw(endpoint) };
            // In a forked child there is nothing to close but the child's copies.
            if !handle.endpoint.is_forked() {
                handle.endpoint.close();
            }
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dio_name(endpoint: *const Handle) -> *const c_char {
    // SAFETY: the caller's promise.
    unsafe { endpoint.as_ref() }.map_or(std::ptr::null(), |handle| handle.name.as_ptr())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dio_number(endpoint: *const Handle) -> u32 {
    // SAFETY: the caller's promise.
    unsafe { endpoint.as_ref() }.map_or(u32::MAX, |handle| handle.endpoint.identity().number)
}

#[unsafe(no_mangle)]
extern "C" fn dio_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

#[unsafe(no_mangle)]
extern "C" fn dio_api_version() -> u32 {
    1 << 16
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dio_counters(endpoint: *const Handle, counters: *mut Counters) -> Code {
    guard(|| {
        // SAFETY: the caller's promise.
        let endpoint = unsafe { opened(endpoint) }?;
        let to = required(counters, "where the counters go")?;
        let c = endpoint.counters()?;
        let words = [
            c.tx_messages,
            c.tx_bytes,
            c.rx_messages,
            c.rx_bytes,
            c.doorbells_rung,
            c.sleeps,
            c.unexpected,
            c.posted,
            c.requests,
        ];
        // SAFETY: not NULL, and the caller's to be written.
        unsafe { put(to, Counters { words }) };
        Ok(())
    })
}

/// # Safety
/// As `dio_connect` says.
unsafe fn connect(
    endpoint: *const Handle,
    target: &Target,
    timeout_ms: i64,
    peer: *mut u32,
) -> Result<(), Failure> {
    // SAFETY: the caller's promise.
    let endpoint = unsafe { opened(endpoint) }?;
    let to = required(peer, "where the peer goes")?;
    let timeout = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
    let found = endpoint.connect(target, None, timeout)?;
    // SAFETY: not NULL, and the caller's to be written.
    unsafe { put(to, found.to_raw()) };
    Ok(())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dio_connect(
    endpoint: *const Handle,
    name: *const c_char,
    timeout_ms: i64,
    peer: *mut u32,
) -> Code {
    guard(|| {
        // SAFETY: the caller's promise.
        let name = unsafe { text(name, "the name") }?;
        let name = name.ok_or_else(|| Failure::invalid("the name is NULL"))?;
        // SAFETY: the caller's promise.
        unsafe { connect(endpoint, &Target::Name(name), timeout_ms, peer) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dio_connect_number(
    endpoint: *const Handle,
    number: u32,
    timeout_ms: i64,
    peer: *mut u32,
) -> Code {
    // SAFETY: the caller's promise.
    guard(|| unsafe { connect(endpoint, &Target::Number(number), timeout_ms, peer) })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dio_disconnect(endpoint: *const Handle, peer: u32) -> Code {
    // SAFETY: the caller's promise.
    guard(|| Ok(unsafe { opened(endpoint) }?.disconnect(PeerId::from_raw(peer))?))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dio_peers(
    endpoint: *const Handle,
    peers: *mut u32,
    room: usize,
    count: *mut usize,
) -> Code {
    guard(|| {
        // SAFETY: the caller's promise.
        let endpoint = unsafe { opened(endpoint) }?;
        if room > 0 {
            required(peers, "where the peers go")?;
        }
        let found = endpoint.peers()?;
        for (at, peer) in found.iter().take(room).enumerate() {
            // SAFETY: `at < room`, so many of which the caller has.
            unsafe { peers.add(at).write(peer.to_raw()) };
        }
        // SAFETY: NULL, or the caller's to be written.
        unsafe { put(count, found.len()) };
        Ok(())
    })
}

fn info(endpoint: &Endpoint, peer: u32) -> Result<PeerInfo, Failure> {
    Ok(endpoint.peer_info(PeerId::from_raw(peer))?.ok_or(Error::NotConnected)?)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dio_peer_number(endpoint: *const Handle, peer: u32, number: *mut u32) -> Code {
    guard(|| {
        // SAFETY: the caller's promise.
        let endpoint = unsafe { opened(endpoint) }?;
        let to = required(number, "where the number goes")?;
        let own = || Ok(endpoint.identity().number);
        let found = if peer == PeerId::SELF.to_raw() {
            own()
        } else {
            info(endpoint, peer).map(|info| info.number)
        }?;
        // SAFETY: not NULL, and the caller's to be written.
        unsafe { put(to, found) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dio_peer_name(
    endpoint: *const Handle,
    peer: u32,
    name: *mut c_char,
    room: usize,
) -> Code {
    guard(|| {
        // SAFETY: the caller's promise.
        let endpoint = unsafe { opened(endpoint) }?;
        let to = required(name, "where the name goes")?;
        let found = if peer == PeerId::SELF.to_raw() {
            endpoint.identity().name.clone()
        } else {
            info(endpoint, peer)?.name
        };
        if found.len() >= room {
            return Err(Failure::invalid("there is too little room for the name"));
        }
        // SAFETY: the caller has `room` bytes, which the name and its final zero fit.
        unsafe {
            std::ptr::copy_nonoverlapping(found.as_ptr(), to.cast(), found.len());
            to.add(found.len()).write(0);
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dio_peer_state(endpoint: *const Handle, peer: u32) -> Code {
    guard(|| {
        // SAFETY: the caller's promise.
        let endpoint = unsafe { opened(endpoint) }?;
        if peer == PeerId::SELF.to_raw() {
            return Ok(());
        }
        endpoint.progress()?;
        match info(endpoint, peer)?.gone {
            None => Ok(()),
            Some(code) => Err(Failure { code: codes::status_code(code), text: None }),
        }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dio_progress(endpoint: *const Handle) -> Code {
    // SAFETY: the caller's promise.
    guard(|| Ok(unsafe { opened(endpoint) }?.progress()?))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dio_fd(endpoint: *const Handle, fd: *mut i32) -> Code {
    guard(|| {
        // SAFETY: the caller's promise.
        let endpoint = unsafe { opened(endpoint) }?;
        let to = required(fd, "where the descriptor goes")?;
        // SAFETY: not NULL, and the caller's to be written.
        unsafe { put(to, endpoint.descriptor().as_raw_fd()) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dio_arm(endpoint: *const Handle) -> Code {
    guard(|| {
        // SAFETY: the caller's promise.
        let found = unsafe { opened(endpoint) }?.arm()?;
        if found { Ok(()) } else { Err(Failure::not_yet()) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dio_disarm(endpoint: *const Handle) -> Code {
    // SAFETY: the caller's promise.
    guard(|| Ok(unsafe { opened(endpoint) }?.disarm()?))
}

/// Drops what a handle owns. NULL is ignored.
///
/// # Safety
/// It came from `Box::into_raw`, and the caller uses it no more.
pub unsafe fn drop_handle<T>(handle: *mut T) {
    if !handle.is_null() {
        // SAFETY: as promised by the caller.
        guard_or((), || drop(unsafe { Box::from_raw(handle) }));
    }
}
