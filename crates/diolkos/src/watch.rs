// SPDX-License-Identifier: Apache-2.0
//! For whoever waits on the endpoint's descriptor: event loops, threads that wait for several
//! endpoints, and threads that make progress in the background.

use std::time::Duration;

use crate::endpoint::{Core, Endpoint};
use crate::error::Error;
use crate::lock::Guard;
use crate::wait::RECLAIM_AFTER;

impl Endpoint {
    /// Gives idle memory back when nothing has happened for a while, and says after how long to ask
    /// again, or `None` once it has: for event loops, which sleep where nobody sees it.
    ///
    /// # Errors
    /// [`Error`] when the endpoint cannot be used.
    pub fn rest(&self) -> Result<Option<Duration>, Error> {
        let mut core = self.lock()?;
        if core.quiet.polls_with_work != core.polls_with_work {
            core.quiet_begins();
        }
        if core.quiet.reclaimed {
            return Ok(None);
        }
        let left = RECLAIM_AFTER.saturating_sub(core.quiet_for());
        if left > Duration::ZERO {
            return Ok(Some(left));
        }
        core.reclaim();
        core.quiet.reclaimed = true;
        Ok(None)
    }

    /// Says that the program now waits for [`Endpoint::descriptor`] in an event loop of its own,
    /// of which an endpoint has one. `true`: something is here already; do not wait. Where threads
    /// share the endpoint, look once more for what is waited for: one of them may have taken it in
    /// just before. Undo with [`Endpoint::disarm`] in any case.
    ///
    /// # Errors
    /// [`Error`] when the endpoint cannot be used.
    pub fn arm(&self) -> Result<bool, Error> {
        let mut core = self.lock()?;
        core.armed = true;
        Ok(self.watch(&mut core))
    }

    /// As [`Endpoint::arm`], for a thread that waits on the descriptor together with others.
    ///
    /// # Errors
    /// [`Error`] when the endpoint cannot be used.
    pub fn doze(&self) -> Result<Doze<'_>, Error> {
        let mut core = self.lock()?;
        Ok(self.doze_locked(&mut core))
    }

    /// As [`Endpoint::doze`], unless `wanted`, which is asked under the lock, says no. With
    /// [`Endpoint::stir`] in the place where the answer changes, no peer rings in vain.
    ///
    /// # Errors
    /// As [`Endpoint::doze`].
    pub fn doze_if(&self, wanted: impl FnOnce() -> bool) -> Result<Option<Doze<'_>>, Error> {
        let mut core = self.lock()?;
        Ok(wanted().then(|| self.doze_locked(&mut core)))
    }

    fn doze_locked(&self, core: &mut Guard<'_, Core>) -> Doze<'_> {
        core.dozing += 1;
        let found = self.watch(core);
        Doze { endpoint: self, found }
    }

    /// The program looks by itself from now on: peers need not ring for the only one that dozes,
    /// who has been told but may not run for a while.
    #[cold]
    pub fn stir(&self) {
        if let Ok(mut core) = self.lock()
            && !core.sleeper
            && !core.armed
            && core.dozing == 1
        {
            core.lower_flags();
        }
    }

    fn watch(&self, core: &mut Guard<'_, Core>) -> bool {
        core.publish_counters();
        let came = core.take_events();
        let found = came | core.raise_sleep();
        self.run_handlers(core);
        if found {
            self.after(core);
        }
        found
    }

    /// Ends what [`Endpoint::arm`] began, makes the descriptor quiet and takes in what came.
    ///
    /// # Errors
    /// [`Error`] when the endpoint cannot be used.
    pub fn disarm(&self) -> Result<(), Error> {
        let mut core = self.lock()?;
        core.armed = false;
        self.unwatch(&mut core);
        Ok(())
    }

    fn unwatch(&self, core: &mut Guard<'_, Core>) {
        core.lower_sleep();
        let handled = core.check_descriptors();
        let worked = core.look_at_all();
        self.run_handlers(core);
        if handled || worked {
            self.after(core);
        }
        self.silence_bell(core);
    }
}

/// A thread waits on an endpoint's descriptor until this is dropped.
pub struct Doze<'a> {
    endpoint: &'a Endpoint,
    /// Something is here already; do not wait.
    pub found: bool,
}

impl Drop for Doze<'_> {
    fn drop(&mut self) {
        // A closed endpoint has no flags to lower and no bell to silence.
        if let Ok(mut core) = self.endpoint.lock() {
            core.dozing -= 1;
            self.endpoint.unwatch(&mut core);
        }
    }
}
