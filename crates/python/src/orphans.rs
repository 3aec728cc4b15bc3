// SPDX-License-Identifier: Apache-2.0
//! Requests that nobody waits for any more, and their memory.
//!
//! A program may drop a request, be interrupted, or run out of time while the core still reads or
//! writes the memory of a message. The memory then waits here until the core is done with it; later
//! calls on the endpoint look after that, and closing the endpoint ends all requests at once.

use std::sync::atomic::{AtomicUsize, Ordering};

use diolkos::{MultiEvent, RequestId};

use crate::lent::Lent;
use crate::lock::Mutex;

/// What kind of request was left.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One message, or one operation.
    Message,
    /// A receive for a loan, which goes back when it comes.
    Loan,
    /// A buffer for many, which was cancelled.
    Multi,
}

struct Orphan {
    request: RequestId,
    kind: Kind,
    /// Only here to be dropped when the request is complete.
    _lent: Lent,
}

/// The orphans of one endpoint.
#[derive(Default)]
pub struct Orphans {
    list: Mutex<Vec<Orphan>>,
    /// Length of the list, to look at without its lock.
    count: AtomicUsize,
}

impl Orphans {
    /// Keeps the memory of a request until the core is done with it.
    #[cold]
    pub fn adopt(&self, core: &diolkos::Endpoint, request: RequestId, kind: Kind, lent: Lent) {
        self.put_back(vec![Orphan { request, kind, _lent: lent }]);
        self.reap_now(core);
    }

    /// Lets go of memory that the core is done with. One load when there is none.
    #[inline(always)]
    pub fn reap(&self, core: &diolkos::Endpoint) {
        if self.count.load(Ordering::Relaxed) > 0 {
            self.reap_now(core);
        }
    }

    #[cold]
    fn reap_now(&self, core: &diolkos::Endpoint) {
        // Looked at without the lock: looking makes progress, which may call the handler.
        let orphans = std::mem::take(&mut *self.list.lock());
        let (finished, open): (Vec<_>, Vec<_>) =
            orphans.into_iter().partition(|orphan| is_finished(core, orphan));
        self.put_back(open);
        drop(finished);
    }

    fn put_back(&self, orphans: Vec<Orphan>) {
        let mut list = self.list.lock();
        list.extend(orphans);
        self.count.store(list.len(), Ordering::Relaxed);
    }
}

/// Whether the core is done. An error means that the request is no more: the endpoint was closed
/// (which ends every request), or this is a forked child, where the core does nothing.
fn is_finished(core: &diolkos::Endpoint, orphan: &Orphan) -> bool {
    if orphan.kind != Kind::Multi {
        let ended = !matches!(core.test(orphan.request), Ok(None));
        if ended && orphan.kind == Kind::Loan {
            drop(core.take_loan(orphan.request));
        }
        return ended;
    }
    loop {
        match core.poll_multi(orphan.request) {
            Ok(MultiEvent::Delivery { .. }) => {}
            Ok(MultiEvent::Nothing) => return false,
            Ok(MultiEvent::Released(_)) | Err(_) => return true,
        }
    }
}
