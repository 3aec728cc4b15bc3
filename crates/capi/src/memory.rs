// SPDX-License-Identifier: Apache-2.0
//! The arena, regions and operations on them, loans.

use std::ffi::c_void;

use diolkos::{AtomicOp, Block, Endpoint, Envelope, Exposed, Key, Loan, PeerId, Region, RequestId};

use crate::boundary::{guard, guard_or, maybe_peer, put, required, shared, sink, source};
use crate::codes::{self, Code, Failure};
use crate::endpoint::{Handle, drop_handle, opened};
use crate::messages::{name_of, selector};

const READ: u32 = 1;
const READ_WRITE: u32 = 3;

#[repr(C)]
struct Arena {
    words: [u64; 5],
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dio_alloc(
    endpoint: *const Handle,
    length: usize,
    align: usize,
    peer: u32,
    memory: *mut *mut Block,
) -> Code {
    guard(|| {
        // SAFETY: the caller's promise.
        let endpoint = unsafe { opened(endpoint) }?;
        let to = required(memory, "where the memory goes")?;
        let block = endpoint.alloc(length, align, maybe_peer(peer))?;
        // SAFETY: not NULL, and the caller's to be written.
        unsafe { put(to, Box::into_raw(Box::new(block))) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dio_memory_data(memory: *const Block) -> *mut c_void {
    // SAFETY: the caller's promise.
    unsafe { memory.as_ref() }.map_or(std::ptr::null_mut(), |block| block.base().as_ptr().cast())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dio_memory_length(memory: *const Block) -> usize {
    // SAFETY: the caller's promise.
    unsafe { memory.as_ref() }.map_or(0, Block::len_bytes)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dio_free(memory: *mut Block) {
    // SAFETY: it came from `dio_alloc`, and the caller uses it no more.
    unsafe { drop_handle(memory) };
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dio_arena(endpoint: *const Handle, arena: *mut Arena) -> Code {
    guard(|| {
        // SAFETY: the caller's promise.
        let endpoint = unsafe { opened(endpoint) }?;
        let to = required(arena, "where the numbers go")?;
        let a = endpoint.arena();
        let words = [a.limit_bytes, a.used_bytes, a.cached_bytes, a.allocations, a.granted_bytes];
        // SAFETY: not NULL, and the caller's to be written.
        unsafe { put(to, Arena { words }) };
        Ok(())
    })
}

/// A key in C: its bytes.
type KeyBytes = [u8; Key::BYTES];

/// # Safety
/// The pointer is NULL or points to the bytes of a key.
unsafe fn key(bytes: *const KeyBytes) -> Result<Key, Failure> {
    // SAFETY: as promised by the caller.
    let bytes = unsafe { shared(bytes, "the key") }?;
    Key::decode(bytes).ok_or_else(|| Failure::invalid("these bytes are no key"))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dio_register(
    endpoint: *const Handle,
    data: *mut u8,
    length: usize,
    access: u32,
    peer: u32,
    region: *mut *mut Region,
) -> Code {
    guard(|| {
        // SAFETY: the caller's promise.
        let endpoint = unsafe { opened(endpoint) }?;
        let to = required(region, "where the region goes")?;
        let memory = match access {
            READ => Exposed::ReadOnly(source(data, length)?),
            READ_WRITE => Exposed::ReadWrite(sink(data, length)?),
            _ => return Err(Failure::invalid("the access is neither read nor read-write")),
        };
        let registered = endpoint.register(memory, maybe_peer(peer))?;
        // SAFETY: not NULL, and the caller's to be written.
        unsafe { put(to, Box::into_raw(Box::new(registered))) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dio_region_key(region: *const Region, key: *mut KeyBytes) -> Code {
    guard(|| {
        // SAFETY: the caller's promise.
        let region = unsafe { shared(region, "the region") }?;
        let to = required(key, "where the key goes")?;
        // SAFETY: not NULL, and the caller's to be written.
        unsafe { put(to, region.key().encode()) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dio_region_grant(region: *const Region, peer: u32) -> Code {
    // SAFETY: the caller's promise.
    guard(|| Ok(unsafe { shared(region, "the region") }?.grant(PeerId::from_raw(peer))?))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dio_region_revoke(region: *const Region) -> Code {
    // SAFETY: the caller's promise.
    guard(|| Ok(unsafe { shared(region, "the region") }?.revoke()?))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dio_region_free(region: *mut Region) {
    // SAFETY: it came from `dio_register`, and the caller uses it no more.
    unsafe { drop_handle(region) };
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dio_key_info(
    bytes: *const KeyBytes,
    length: *mut u64,
    access: *mut u32,
) -> Code {
    guard(|| {
        // SAFETY: the caller's promise.
        let key = unsafe { key(bytes) }?;
        // SAFETY: each is NULL, or the caller's to be written.
        unsafe {
            put(length, key.length);
            put(access, if key.writable { READ_WRITE } else { READ });
        }
        Ok(())
    })
}

/// Begins an operation on a region of a peer.
///
/// # Safety
/// As the functions say that call it.
unsafe fn operate(
    endpoint: *const Handle,
    bytes: *const KeyBytes,
    request: *mut u64,
    begin: impl FnOnce(&Endpoint, &Key) -> Result<u64, Failure>,
) -> Code {
    guard(|| {
        // SAFETY: the caller's promise.
        let (endpoint, key) = unsafe { (opened(endpoint)?, key(bytes)?) };
        let to = required(request, "where the request goes")?;
        let name = begin(endpoint, &key)?;
        // SAFETY: not NULL, and the caller's to be written.
        unsafe { put(to, name) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dio_rdma_write(
    endpoint: *const Handle,
    data: *const u8,
    length: usize,
    peer: u32,
    key: *const KeyBytes,
    offset: u64,
    request: *mut u64,
) -> Code {
    let peer = PeerId::from_raw(peer);
    let begin = |endpoint: &Endpoint, key: &Key| {
        Ok(name_of(endpoint.rdma_write(source(data, length)?, peer, key, offset, None)?))
    };
    // SAFETY: the caller's promise.
    unsafe { operate(endpoint, key, request, begin) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dio_rdma_write_notify(
    endpoint: *const Handle,
    data: *const u8,
    length: usize,
    peer: u32,
    key: *const KeyBytes,
    offset: u64,
    match_info: u64,
    immediate: u32,
    request: *mut u64,
) -> Code {
    let peer = PeerId::from_raw(peer);
    let notify = Some(Envelope { match_info, immediate, ..Envelope::default() });
    let begin = |endpoint: &Endpoint, key: &Key| {
        Ok(name_of(endpoint.rdma_write(source(data, length)?, peer, key, offset, notify)?))
    };
    // SAFETY: the caller's promise.
    unsafe { operate(endpoint, key, request, begin) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dio_rdma_read(
    endpoint: *const Handle,
    data: *mut u8,
    length: usize,
    peer: u32,
    key: *const KeyBytes,
    offset: u64,
    request: *mut u64,
) -> Code {
    let peer = PeerId::from_raw(peer);
    let begin = |endpoint: &Endpoint, key: &Key| {
        Ok(name_of(endpoint.rdma_read(sink(data, length)?, peer, key, offset)?))
    };
    // SAFETY: the caller's promise.
    unsafe { operate(endpoint, key, request, begin) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dio_fetch_add(
    endpoint: *const Handle,
    peer: u32,
    key: *const KeyBytes,
    offset: u64,
    value: u64,
    request: *mut u64,
) -> Code {
    let (peer, op) = (PeerId::from_raw(peer), AtomicOp::FetchAdd(value));
    let begin =
        |endpoint: &Endpoint, key: &Key| Ok(endpoint.rdma_atomic(peer, key, offset, op)?.to_raw());
    // SAFETY: the caller's promise.
    unsafe { operate(endpoint, key, request, begin) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dio_compare_swap(
    endpoint: *const Handle,
    peer: u32,
    key: *const KeyBytes,
    offset: u64,
    expected: u64,
    desired: u64,
    request: *mut u64,
) -> Code {
    let (peer, op) = (PeerId::from_raw(peer), AtomicOp::CompareSwap { expected, desired });
    let begin =
        |endpoint: &Endpoint, key: &Key| Ok(endpoint.rdma_atomic(peer, key, offset, op)?.to_raw());
    // SAFETY: the caller's promise.
    unsafe { operate(endpoint, key, request, begin) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dio_rdma_fence(endpoint: *const Handle, peer: u32, request: *mut u64) -> Code {
    guard(|| {
        // SAFETY: the caller's promise.
        let endpoint = unsafe { opened(endpoint) }?;
        let to = required(request, "where the request goes")?;
        let sent = endpoint.rdma_fence(PeerId::from_raw(peer))?;
        // SAFETY: not NULL, and the caller's to be written.
        unsafe { put(to, name_of(sent)) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dio_lend(
    endpoint: *const Handle,
    data: *const u8,
    length: usize,
    peer: u32,
    match_info: u64,
    immediate: u32,
    request: *mut u64,
) -> Code {
    guard(|| {
        // SAFETY: the caller's promise.
        let endpoint = unsafe { opened(endpoint) }?;
        let to = required(request, "where the request goes")?;
        let envelope = Envelope { match_info, immediate, ..Envelope::default() };
        let peer = PeerId::from_raw(peer);
        let lent = endpoint.lend(source(data, length)?, peer, &envelope)?;
        // SAFETY: not NULL, and the caller's to be written.
        unsafe { put(to, lent.to_raw()) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dio_irecv_loan(
    endpoint: *const Handle,
    match_info: u64,
    mask: u64,
    from: u32,
    request: *mut u64,
) -> Code {
    guard(|| {
        // SAFETY: the caller's promise.
        let endpoint = unsafe { opened(endpoint) }?;
        let to = required(request, "where the request goes")?;
        let posted = endpoint.irecv_loan(&selector(match_info, mask, from))?;
        // SAFETY: not NULL, and the caller's to be written.
        unsafe { put(to, posted.to_raw()) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dio_take_loan(
    endpoint: *const Handle,
    request: u64,
    loan: *mut *mut Loan,
) -> Code {
    guard(|| {
        // SAFETY: the caller's promise.
        let endpoint = unsafe { opened(endpoint) }?;
        let to = required(loan, "where the loan goes")?;
        let request = RequestId::from_raw(request);
        if endpoint.is_complete(request).is_ok() {
            let text = Some("wait for the request before its loan is taken".to_owned());
            return Err(Failure { code: codes::INVALID, text });
        }
        let taken = endpoint.take_loan(request)?;
        let taken = taken.ok_or_else(|| Failure::invalid("there is no loan of this request"))?;
        // SAFETY: not NULL, and the caller's to be written.
        unsafe { put(to, Box::into_raw(Box::new(taken))) };
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dio_loan_data(loan: *const Loan) -> *const c_void {
    // SAFETY: the caller's promise.
    let loan = unsafe { loan.as_ref() };
    guard_or(std::ptr::null(), || loan.map_or(std::ptr::null(), |loan| loan.source().base().cast()))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dio_loan_length(loan: *const Loan) -> usize {
    // SAFETY: the caller's promise.
    unsafe { loan.as_ref() }.map_or(0, Loan::len_bytes)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dio_loan_is_copied(loan: *const Loan) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { loan.as_ref() }.map_or(0, |loan| i32::from(loan.is_copied()))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dio_release(loan: *mut Loan) {
    // SAFETY: it came from `dio_take_loan`, and the caller uses it no more.
    unsafe { drop_handle(loan) };
}
