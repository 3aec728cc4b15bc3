// SPDX-License-Identifier: Apache-2.0
//! Requests with chores: those that nobody asks for but that have memory of ours, and those whose
//! time will be up.
//!
//! The time of a request is, as in MX, how long a peer may fail to acknowledge: it counts for a
//! connect without an answer, and for a send for which there is no room at its peer. A message that
//! is there and waits for its receive may wait for ever. When the time is up, the connect ends, or
//! everything that is under way to that peer, as by `mx_disconnect`.

use std::ptr::null_mut;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use diolkos::{Inside, RequestId};

use crate::codes;
use crate::complete::id_of;
use crate::endpoint::{Port, flag};
use crate::errors::fail;
use crate::request::{self, Kind};
use crate::types::{Code, EndpointHandle, RequestHandle};

#[derive(Clone, Copy, Debug)]
enum Chore {
    /// To be completed by us, unseen.
    Orphan(RequestId),
    /// To be ended then.
    Timed(RequestId, Instant),
}

/// The requests of a port that have chores. Its lock is taken inside the endpoint only.
#[derive(Default)]
pub struct Chores {
    list: Mutex<Vec<Chore>>,
    /// The time of requests to come; 0 is for ever.
    default_ms: AtomicU32,
}

impl Chores {
    fn lock(&self) -> MutexGuard<'_, Vec<Chore>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, port: &Port, chore: Chore) {
        self.lock().push(chore);
        port.raise(flag::CHORES);
    }

    /// A request that nobody will ask for. Called inside the endpoint.
    pub fn adopt(&self, port: &Port, id: RequestId) {
        self.add(port, Chore::Orphan(id));
    }

    /// A request was made: if there is a time for such, it runs. Called inside the endpoint.
    pub fn note(&self, port: &Port, inside: &Inside<'_>, id: RequestId) {
        let ms = self.default_ms.load(Ordering::Relaxed);
        if ms != 0 && inside.is_complete(id).is_ok_and(|complete| !complete) {
            self.add(port, Chore::Timed(id, after(ms)));
        }
    }

    /// Whether requests to come have a time.
    #[inline(always)]
    pub fn are_timed(&self) -> bool {
        self.default_ms.load(Ordering::Relaxed) != 0
    }

    /// Sets or replaces the time of a request; 0 takes it away.
    fn time(&self, port: &Port, id: RequestId, ms: u32) {
        self.lock().retain(|chore| !matches!(chore, Chore::Timed(timed, _) if *timed == id));
        if ms == 0 {
            return;
        }
        self.add(port, Chore::Timed(id, after(ms)));
    }

    /// Does what is due.
    #[cold]
    pub fn look(&self, port: &Port) {
        // Closed meanwhile: then there is nothing to do.
        let _ = port.core.inside(|inside| self.sweep(port, inside));
    }

    /// As `look`, inside the endpoint. What is an orphan and complete is gone afterwards, so that
    /// no search finds it.
    #[cold]
    pub fn sweep(&self, port: &Port, inside: &mut Inside<'_>) {
        let now = Instant::now();
        let mut list = self.lock();
        list.retain(|chore| match *chore {
            Chore::Orphan(id) => match inside.test(id) {
                Ok(None) => true,
                Ok(Some(status)) => {
                    // SAFETY: null is no status.
                    let _ = unsafe { request::finish(port, inside, id, &status, null_mut()) };
                    false
                }
                Err(_) => false,
            },
            Chore::Timed(id, due) => {
                let open = inside.is_complete(id).is_ok_and(|complete| !complete);
                if open && now >= due {
                    end(port, inside, id);
                }
                open && now < due
            }
        });
        if list.is_empty() {
            port.lower(flag::CHORES);
        }
    }
}

fn after(ms: u32) -> Instant {
    Instant::now() + Duration::from_millis(u64::from(ms))
}

fn end(port: &Port, inside: &mut Inside<'_>, id: RequestId) {
    // SAFETY: a place of a chunk; inside the endpoint nobody writes it.
    match unsafe { (*port.records.at(id)).kind } {
        Kind::Connect => inside.expire_connect(id),
        Kind::Send => {
            if let Some(peer) = inside.stuck_send(id) {
                let _ = inside.disconnect(peer);
            }
        }
        Kind::Receive => {}
    }
}

/// Sets the time of a request, or of all to come; 0 is for ever.
pub fn set(handle: EndpointHandle, request: RequestHandle, ms: u32, what: &str) -> Code {
    let Some(port) = Port::at(handle) else { return fail(None, codes::BAD_ENDPOINT, what) };
    if request.is_null() {
        port.chores.default_ms.store(ms, Ordering::Relaxed);
        return codes::SUCCESS;
    }
    // SAFETY: a handle of this library, by the contract of the interface.
    let id = match unsafe { id_of(port, request) } {
        Ok(id) => id,
        Err(code) => return fail(Some(port), code, what),
    };
    let set = port.core.inside(|inside| match inside.is_complete(id) {
        Ok(true) => Ok(()),
        Ok(false) => {
            port.chores.time(port, id, ms);
            Ok(())
        }
        Err(_) => Err(codes::BAD_REQUEST),
    });
    match set.unwrap_or(Err(codes::BAD_ENDPOINT)) {
        Ok(()) => codes::SUCCESS,
        Err(code) => fail(Some(port), code, what),
    }
}

#[unsafe(no_mangle)]
extern "C" fn mx_set_request_timeout(
    handle: EndpointHandle,
    request: RequestHandle,
    ms: u32,
) -> Code {
    set(handle, request, ms, "mx_set_request_timeout")
}

#[unsafe(no_mangle)]
extern "C" fn omx_set_request_timeout(
    handle: EndpointHandle,
    request: RequestHandle,
    ms: u32,
) -> Code {
    set(handle, request, ms, "omx_set_request_timeout")
}
