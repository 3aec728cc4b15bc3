// SPDX-License-Identifier: Apache-2.0
//! Records of requests: what an `mx_request_t` points to.
//!
//! The endpoint's table has a place for each request, and a request's name says which. So the
//! record of the request in place *n* is the *n*th record of its port: it is found from the name
//! without a search, needs no free list and no lock of its own.
//!
//! A record is written inside the endpoint (`diolkos::Inside`) when its request is made, before any
//! other thread can find it complete, and what is wanted of it is taken out inside when the request
//! is freed. Between the two it does not change, but for its staging. Records are never given back
//! while their port is there, so that a stale handle reads a record and nothing else.

use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

use diolkos::{Inside, RequestId, Status, StatusCode};

use crate::address;
use crate::codes;
use crate::endpoint::Port;
use crate::segments::Staging;
use crate::types::{Addr, Code, MxStatus};

/// Records that are made at once.
const CHUNK: usize = 256;
/// More than an endpoint may have requests.
const CHUNKS: usize = (1 << 21) / CHUNK;

/// What a request is; decides what may be done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Connect,
    Receive,
    Send,
}

/// What a handle points to.
pub struct Record {
    pub id: RequestId,
    pub context: *mut c_void,
    pub kind: Kind,
    /// For messages in several segments, until the request is freed; null otherwise.
    pub staging: *mut Staging,
    /// Who a send or connect goes to, where that is not the peer of its status.
    pub addr: Addr,
    /// How it ended, if not as its status says.
    pub code: Code,
}

impl Record {
    pub fn new(id: RequestId, kind: Kind, context: *mut c_void) -> Self {
        let (addr, code) = (Addr::default(), codes::SUCCESS);
        Self { id, context, kind, staging: null_mut(), addr, code }
    }
}

/// All records of a port.
pub struct Records {
    chunks: Box<[AtomicPtr<Record>]>,
}

impl Records {
    pub fn new() -> Self {
        let mut chunks = Vec::new();
        chunks.resize_with(CHUNKS, AtomicPtr::default);
        Self { chunks: chunks.into_boxed_slice() }
    }

    /// Where the record of a request is. Called inside the endpoint.
    #[inline]
    pub fn at(&self, id: RequestId) -> *mut Record {
        let index = id.to_raw() as u32 as usize;
        let chunk = self.chunks[index / CHUNK % CHUNKS].load(Ordering::Acquire);
        let chunk = if chunk.is_null() { self.make_chunk(index / CHUNK % CHUNKS) } else { chunk };
        // SAFETY: a chunk has `CHUNK` records.
        unsafe { chunk.add(index % CHUNK) }
    }

    /// Whether a handle is of this port: the number of its request leads back to it.
    #[inline(always)]
    pub fn has(&self, handle: *const Record, id: RequestId) -> bool {
        let index = id.to_raw() as u32 as usize;
        let chunk = self.chunks[index / CHUNK % CHUNKS].load(Ordering::Acquire);
        std::ptr::eq(chunk.wrapping_add(index % CHUNK), handle)
    }

    /// Enters the record of a new request. Called inside the endpoint.
    #[inline]
    pub fn enter(&self, record: Record) -> *mut Record {
        let place = self.at(record.id);
        // SAFETY: a place of a chunk; the request is new, so nobody reads its record yet, and
        // inside the endpoint nobody else writes one.
        unsafe { place.write(record) };
        place
    }

    #[cold]
    fn make_chunk(&self, at: usize) -> *mut Record {
        let nobody = RequestId::from_raw(0);
        let mut records = Vec::with_capacity(CHUNK);
        records.resize_with(CHUNK, || Record::new(nobody, Kind::Send, null_mut()));
        let chunk = Box::into_raw(records.into_boxed_slice()).cast::<Record>();
        // Inside the endpoint there is one thread.
        self.chunks[at].store(chunk, Ordering::Release);
        chunk
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        for chunk in &self.chunks {
            let chunk = chunk.load(Ordering::Acquire);
            if !chunk.is_null() {
                let records = std::ptr::slice_from_raw_parts_mut(chunk, CHUNK);
                // SAFETY: made by `make_chunk` from a box of so many records, and dropped once.
                let records = unsafe { Box::from_raw(records) };
                for record in &*records {
                    drop(Staging::take(record.staging));
                }
            }
        }
    }
}

/// Tells what is known of a request that has just been freed; returns how it ended, which is also
/// the status's code. Called inside the endpoint.
///
/// # Safety
/// `to` is null or points to a status.
#[inline(always)]
pub unsafe fn finish(
    port: &Port,
    inside: &mut Inside<'_>,
    id: RequestId,
    status: &Status,
    to: *mut MxStatus,
) -> Code {
    // SAFETY: a place of a chunk; inside the endpoint nobody else writes it.
    let record = unsafe { &mut *port.records.at(id) };
    let code = match status.code {
        StatusCode::Success => record.code,
        _ => failure(inside, id, record, status),
    };
    let source = if record.addr == Addr::default() {
        address::of_peer(port, inside, status.source)
    } else {
        record.addr
    };
    let transferred_length = clamped(status.transferred_bytes);
    if !record.staging.is_null() {
        unload(record, transferred_length);
    }
    if !to.is_null() {
        let value = MxStatus {
            code,
            source,
            match_info: status.match_info,
            message_length: clamped(status.message_bytes),
            transferred_length,
            context: record.context,
        };
        // SAFETY: as the caller says.
        unsafe { to.write(value) };
    }
    code
}

#[cold]
fn unload(record: &mut Record, length: u32) {
    if let Some(staging) = Staging::take(std::mem::replace(&mut record.staging, null_mut())) {
        staging.scatter(length as usize);
    }
}

#[cold]
fn failure(inside: &mut Inside<'_>, id: RequestId, record: &Record, status: &Status) -> Code {
    if record.code != codes::SUCCESS {
        return record.code;
    }
    match (record.kind, inside.take_failure(id)) {
        (Kind::Connect, Some(error)) => codes::of_refusal(&error),
        _ => codes::of_status(status.code),
    }
}

/// MX has 32 bits for a length; peers at other doors may send more.
#[inline]
fn clamped(bytes: u64) -> u32 {
    bytes.min(u64::from(u32::MAX)) as u32
}
