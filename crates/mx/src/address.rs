// SPDX-License-Identifier: Apache-2.0
//! Addresses: what an `mx_endpoint_addr_t` holds.
//!
//! ```text
//!   stuff[0]   the partner's record           stuff[1]   endpoint id | session id << 32
//! ```
//!
//! There is one record for each peer of each port, so that addresses of one peer are equal byte for
//! byte and lead to one context. A record belongs to its port for as long as that is open, and is
//! kept for the next port then: whoever uses an address too long reads a record, finds another
//! session or port in it, and is told so.

use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use diolkos::{Inside, PeerId};

use crate::board;
use crate::codes;
use crate::endpoint::Port;
use crate::types::{Addr, Code, EndpointHandle};

/// Places in an endpoint's table of peers; `proto::limits::PARTNERS_MAX`.
const PEERS_MAX: usize = 4096;

/// What is kept for a peer.
#[derive(Default)]
pub struct Partner {
    port: AtomicPtr<Port>,
    peer: AtomicU32,
    endpoint_id: AtomicU32,
    session: AtomicU32,
    nic_id: AtomicU64,
    context: AtomicPtr<c_void>,
}

/// The records of a port, by their peers.
pub struct Partners {
    by_place: Box<[AtomicPtr<Partner>]>,
    own: AtomicPtr<Partner>,
    all: Mutex<Vec<&'static Partner>>,
}

/// Records of ports that were closed.
static SPARE: Mutex<Vec<&'static Partner>> = Mutex::new(Vec::new());

impl Partners {
    pub fn new() -> Self {
        let mut by_place = Vec::new();
        by_place.resize_with(PEERS_MAX, AtomicPtr::default);
        Self {
            by_place: by_place.into_boxed_slice(),
            own: AtomicPtr::default(),
            all: Mutex::default(),
        }
    }

    #[inline(always)]
    fn place(&self, peer: PeerId) -> &AtomicPtr<Partner> {
        let index = (peer.to_raw() & 0xffff) as usize;
        self.by_place.get(index).unwrap_or(&self.own)
    }

    /// Gives all records back: their port is closed.
    pub fn retire(&self) {
        for place in self.by_place.iter().chain([&self.own]) {
            place.store(null_mut(), Ordering::Release);
        }
        let all = std::mem::take(&mut *lock(&self.all));
        for partner in &all {
            partner.port.store(null_mut(), Ordering::Release);
        }
        lock(&SPARE).extend(all);
    }
}

/// A list is whole even if its holder panicked.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The address of a peer. Called inside the endpoint.
#[inline]
pub fn of_peer(port: &Port, inside: &Inside<'_>, peer: PeerId) -> Addr {
    let known = port.partners.place(peer).load(Ordering::Acquire);
    // SAFETY: records are never freed.
    if let Some(partner) = unsafe { known.as_ref() }
        && partner.peer.load(Ordering::Relaxed) == peer.to_raw()
    {
        return partner.addr();
    }
    make(port, inside, peer)
}

#[cold]
fn make(port: &Port, inside: &Inside<'_>, peer: PeerId) -> Addr {
    let (endpoint_id, session) = if peer == PeerId::SELF {
        (port.number(), port.session)
    } else {
        match inside.peer_info(peer) {
            Some(info) => (info.number, session_of(info.channel)),
            // Gone so long that nothing is remembered.
            None => return Addr::default(),
        }
    };
    let partner = lock(&SPARE).pop().unwrap_or_else(|| Box::leak(Box::default()));
    partner.peer.store(peer.to_raw(), Ordering::Relaxed);
    partner.endpoint_id.store(endpoint_id, Ordering::Relaxed);
    partner.session.store(session, Ordering::Relaxed);
    partner.nic_id.store(board::nic_id(), Ordering::Relaxed);
    partner.context.store(null_mut(), Ordering::Relaxed);
    partner.port.store(std::ptr::from_ref(port).cast_mut(), Ordering::Release);
    lock(&port.partners.all).push(partner);
    let raw = std::ptr::from_ref(partner).cast_mut();
    port.partners.place(peer).store(raw, Ordering::Release);
    partner.addr()
}

/// A number that an endpoint has for one relation to a peer, and never again for another.
fn session_of(channel: u64) -> u32 {
    // Channels are counted; spread, so that a session does not look like an index.
    (channel as u32).wrapping_mul(0x9e37_79b1) | 1
}

impl Partner {
    #[inline(always)]
    fn addr(&self) -> Addr {
        let endpoint_id = self.endpoint_id.load(Ordering::Relaxed);
        let session = self.session.load(Ordering::Relaxed);
        let stuff =
            [std::ptr::from_ref(self) as u64, u64::from(endpoint_id) | u64::from(session) << 32];
        Addr { stuff }
    }
}

/// The record that an address holds, if it is still of the same session.
#[inline]
fn partner(addr: Addr) -> Option<&'static Partner> {
    let raw = addr.stuff[0] as *const Partner;
    if !raw.is_aligned() {
        return None;
    }
    // SAFETY: an address comes from this library, by the contract of the interface, or is all
    // zeros; records are never freed.
    let partner = unsafe { raw.as_ref() }?;
    (partner.session.load(Ordering::Relaxed) == (addr.stuff[1] >> 32) as u32).then_some(partner)
}

/// The peer that an address means at a port.
#[inline]
pub fn peer_of(port: &Port, addr: Addr) -> Option<PeerId> {
    let partner = partner(addr)?;
    let is_own = std::ptr::eq(partner.port.load(Ordering::Acquire), port);
    is_own.then(|| PeerId::from_raw(partner.peer.load(Ordering::Relaxed)))
}

/// NIC, endpoint and session of an address; zeros for one that is none.
pub fn decompose(addr: Addr) -> (u64, u32, u32) {
    let nic_id = if addr == Addr::default() { 0 } else { board::nic_id() };
    let nic_id = partner(addr).map_or(nic_id, |partner| partner.nic_id.load(Ordering::Relaxed));
    (nic_id, addr.stuff[1] as u32, (addr.stuff[1] >> 32) as u32)
}

/// # Safety
/// The pointers are null or point to such values.
unsafe fn write_decomposed(
    addr: Addr,
    nic_id: *mut u64,
    endpoint_id: *mut u32,
    session_id: *mut u32,
) -> Code {
    let (nic, endpoint, session) = decompose(addr);
    // SAFETY: as the caller says; null pointers are left out.
    unsafe {
        if let Some(to) = nic_id.as_mut() {
            *to = nic;
        }
        if let Some(to) = endpoint_id.as_mut() {
            *to = endpoint;
        }
        if let Some(to) = session_id.as_mut() {
            *to = session;
        }
    }
    codes::SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mx_decompose_endpoint_addr(
    addr: Addr,
    nic_id: *mut u64,
    endpoint_id: *mut u32,
) -> Code {
    // SAFETY: pointers of the program, as the interface demands.
    unsafe { write_decomposed(addr, nic_id, endpoint_id, null_mut()) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mx_decompose_endpoint_addr2(
    addr: Addr,
    nic_id: *mut u64,
    endpoint_id: *mut u32,
    session_id: *mut u32,
) -> Code {
    // SAFETY: pointers of the program, as the interface demands.
    unsafe { write_decomposed(addr, nic_id, endpoint_id, session_id) }
}

#[unsafe(no_mangle)]
extern "C" fn mx_set_endpoint_addr_context(addr: Addr, context: *mut c_void) -> Code {
    if let Some(partner) = partner(addr) {
        partner.context.store(context, Ordering::Release);
    }
    codes::SUCCESS
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mx_get_endpoint_addr_context(addr: Addr, context: *mut *mut c_void) -> Code {
    let known = partner(addr).map_or(null_mut(), |partner| partner.context.load(Ordering::Acquire));
    // SAFETY: null or a pointer of the program.
    if let Some(to) = unsafe { context.as_mut() } {
        *to = known;
    }
    codes::SUCCESS
}

/// # Safety
/// `addr` is null or points to an address.
pub unsafe fn own(handle: EndpointHandle, addr: *mut Addr, what: &str) -> Code {
    let Some(port) = Port::at(handle) else {
        return crate::errors::fail(None, codes::BAD_ENDPOINT, what);
    };
    // SAFETY: as the caller says.
    let Some(to) = (unsafe { addr.as_mut() }) else {
        return crate::errors::fail(Some(port), codes::BAD_BAD_BAD, what);
    };
    match port.core.inside(|inside| of_peer(port, inside, PeerId::SELF)) {
        Ok(own) => {
            *to = own;
            codes::SUCCESS
        }
        Err(_) => crate::errors::fail(Some(port), codes::BAD_ENDPOINT, what),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mx_get_endpoint_addr(handle: EndpointHandle, addr: *mut Addr) -> Code {
    // SAFETY: a pointer of the program, as the interface demands.
    unsafe { own(handle, addr, "mx_get_endpoint_addr") }
}
