// SPDX-License-Identifier: Apache-2.0
//! The full fence of the sleep check, moved from the sender to the sleeper.
//!
//! Before a peer sleeps it says so and looks at its rings once more; a sender publishes and then
//! looks whether the peer sleeps. Each side stores and then loads, so both need a full fence
//! between the two, or a wake-up could be lost. On the sender's side that fence would stall every
//! message until its cache line has arrived (50 ns here). Linux lets the sleeper pay for both:
//! `membarrier(GLOBAL_EXPEDITED)` runs a full fence on every processor that runs a registered
//! process, and the sender keeps only a compiler fence.
//!
//! A peer that did not register loses only its own prompt wake-ups. Where the call is missing (or
//! between guests of a hypervisor), both sides use the full fence: [`Barrier::Symmetric`]. The two
//! sides of a channel agree through `docs/decisions/0003-sleep-fence.md`: a side may use the light
//! fence only if *it* is registered, and a sleeper always runs the heavy one.

use std::sync::OnceLock;
#[cfg(not(loom))]
use std::sync::atomic::compiler_fence;

use crate::sync::{Ordering, fence};

const QUERY: libc::c_int = 0;
const GLOBAL_EXPEDITED: libc::c_int = 1 << 1;
const REGISTER_GLOBAL_EXPEDITED: libc::c_int = 1 << 2;

/// How this process fences its sleep checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barrier {
    /// Senders use a compiler fence, sleepers `membarrier`.
    Asymmetric,
    /// Both use a full fence.
    Symmetric,
}

impl Barrier {
    /// Registers this process once, and says which kind it may use.
    #[must_use]
    pub fn of_this_process() -> Self {
        static CHOICE: OnceLock<Barrier> = OnceLock::new();
        *CHOICE.get_or_init(|| {
            let needed = GLOBAL_EXPEDITED | REGISTER_GLOBAL_EXPEDITED;
            let known = membarrier(QUERY);
            if known >= 0 && known & needed == needed && membarrier(REGISTER_GLOBAL_EXPEDITED) == 0
            {
                Self::Asymmetric
            } else {
                Self::Symmetric
            }
        })
    }

    /// The sender's side: between publishing and looking whether the peer sleeps.
    #[inline(always)]
    pub fn light(self) {
        match self {
            #[cfg(not(loom))]
            Self::Asymmetric => compiler_fence(Ordering::SeqCst),
            // The model checker knows no `membarrier`. What that does for us is a full fence
            // here, at some moment after the peer's.
            #[cfg(loom)]
            Self::Asymmetric => fence(Ordering::SeqCst),
            // ORDERING: pairs with `heavy` of the sleeper.
            Self::Symmetric => fence(Ordering::SeqCst),
        }
    }

    /// The sleeper's side: between saying that it sleeps and looking once more.
    #[cold]
    pub fn heavy(self) {
        // The own fence is needed in any case: the peer may be symmetric while we are not.
        fence(Ordering::SeqCst);
        // A kernel that has the command but not our registration still serves registered peers.
        #[cfg(not(loom))]
        let _ = membarrier(GLOBAL_EXPEDITED);
    }
}

fn membarrier(command: libc::c_int) -> libc::c_int {
    // SAFETY: the call takes three integers and touches no memory of ours; unknown commands
    // return an error.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, command, 0_u32, 0_i32) };
    result as libc::c_int
}
