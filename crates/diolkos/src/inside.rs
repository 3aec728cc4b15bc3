// SPDX-License-Identifier: Apache-2.0
//! The endpoint with its lock held: for doors to whom several steps must be one.
//!
//! A door that keeps records of its own for each request (the MX interface does) must write them
//! before another thread can find the request complete, and read them before its name is given to
//! the next. So its functions run inside: [`Endpoint::inside`] for calls that post,
//! [`Endpoint::look_for`] for those that test, [`Endpoint::wait_for`] for those that wait. They must
//! be short, and call nothing of the endpoint but what [`Inside`] has.

use std::time::{Duration, Instant};

use diolkos_island::{IslandError, Target};
use diolkos_proto::{Envelope, PeerId, RequestId, Selector, Status};
use diolkos_shm::{Sink, Source};

use crate::endpoint::{Core, Endpoint};
use crate::error::Error;
use crate::peers::{PeerInfo, Wish};

/// Looks without work in a row, while they still hope for a message soon.
const EAGER_LOOKS: u32 = 6;
/// Bare looks at the ring of the peer that was active last.
const HOT_LOOKS: u32 = 4;

/// An endpoint cannot be used: as small as can be, for calls that must be quick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// It was closed.
    Closed,
    /// It belongs to the parent of this forked process.
    Forked,
}

impl From<Unusable> for Error {
    fn from(unusable: Unusable) -> Self {
        match unusable {
            Unusable::Closed => Self::Closed,
            Unusable::Forked => Self::Forked,
        }
    }
}

/// There is no such request, or it was completed already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRequest;

/// What can be done with the lock held.
pub struct Inside<'a> {
    core: &'a mut Core,
}

impl Endpoint {
    /// Runs a function that posts or looks, under the lock.
    ///
    /// # Errors
    /// [`Unusable`].
    #[inline]
    pub fn inside<T>(&self, act: impl FnOnce(&mut Inside<'_>) -> T) -> Result<T, Unusable> {
        let mut core = self.lock_or_say()?;
        let result = act(&mut Inside { core: &mut core });
        self.run_handlers(&mut core);
        self.after(&mut core);
        Ok(result)
    }

    /// Looks, makes progress if nothing was found, and looks again. Never waits.
    ///
    /// # Errors
    /// [`Unusable`].
    #[inline]
    pub fn look_for<T>(
        &self,
        mut find: impl FnMut(&mut Inside<'_>) -> Option<T>,
    ) -> Result<Option<T>, Unusable> {
        let mut core = self.lock_or_say()?;
        if let Some(found) = find(&mut Inside { core: &mut core }) {
            return Ok(Some(found));
        }
        // Whoever tests again and again waits for the peer that was here last. A moment of bare
        // looks at its ring sees a message sooner than ever new calls do.
        if core.idle_polls < EAGER_LOOKS {
            core.machine.spin_hot(HOT_LOOKS);
        }
        self.progress_once(&mut core);
        Ok(find(&mut Inside { core: &mut core }))
    }

    /// Waits until something is found; looks again whenever something happened to the endpoint,
    /// and when [`Endpoint::rouse`] is called. `None`: the deadline passed first.
    ///
    /// # Errors
    /// As [`Endpoint::wait`].
    #[inline]
    pub fn wait_for<T>(
        &self,
        deadline: Option<Instant>,
        mut find: impl FnMut(&mut Inside<'_>) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        self.wait_until(deadline, |core| Ok(find(&mut Inside { core })))
    }

    /// Has every thread that waits on the endpoint look again.
    ///
    /// # Errors
    /// [`Error`] when the endpoint cannot be used.
    pub fn rouse(&self) -> Result<(), Error> {
        let mut core = self.lock()?;
        self.after(&mut core);
        Ok(())
    }
}

impl Inside<'_> {
    /// As [`Endpoint::isend`], with a request in any case.
    ///
    /// # Errors
    /// As [`Endpoint::isend`].
    #[inline]
    pub fn isend(
        &mut self,
        source: Source,
        dest: PeerId,
        envelope: &Envelope,
    ) -> Result<RequestId, Error> {
        Ok(self.core.machine.isend_kept(source, dest, envelope)?)
    }

    /// A request that has ended already.
    ///
    /// # Errors
    /// [`Error::NoResources`] when there are too many.
    pub fn add_ended(&mut self, status: Status) -> Result<RequestId, Error> {
        Ok(self.core.machine.add_ended(status)?)
    }

    /// As [`Endpoint::irecv`].
    ///
    /// # Errors
    /// As [`Endpoint::irecv`].
    #[inline]
    pub fn irecv(&mut self, sink: Sink, selector: &Selector) -> Result<RequestId, Error> {
        Ok(self.core.machine.irecv(sink, selector)?)
    }

    /// As [`Endpoint::iconnect`], with a key, and match info by which the request is found. If an
    /// `answer` is wanted it is complete only when the peer itself has taken the channel in: never
    /// while its process is stopped, or looks at its endpoint no more. The timeout is the backend's,
    /// which does not wait for that.
    ///
    /// # Errors
    /// As [`Endpoint::iconnect`].
    pub fn iconnect(
        &mut self,
        target: &Target,
        timeout: Option<Duration>,
        key: u32,
        match_info: u64,
        answer: bool,
    ) -> Result<RequestId, Error> {
        let timeout_ms = timeout.map(|t| t.as_millis().min(u128::from(u32::MAX)) as u32);
        // An introduction may be waiting: it may be the very peer that is wanted.
        self.core.take_events();
        let target = target.clone();
        let wish = Wish { target, road: None, timeout_ms, key: Some(key), answer };
        let request = self.core.iconnect(wish)?;
        self.core.machine.label(request, match_info)?;
        Ok(request)
    }

    /// Hides a request from searches for whatever is complete: for calls that wait for one of their
    /// own.
    ///
    /// # Errors
    /// When there is no such request.
    pub fn keep_private(&mut self, request: RequestId) -> Result<(), Error> {
        Ok(self.core.machine.keep_private(request)?)
    }

    /// Why a connect failed; told once.
    pub fn take_failure(&mut self, request: RequestId) -> Option<IslandError> {
        self.core.peers.take_failure(request)
    }

    /// As [`Endpoint::disconnect`].
    ///
    /// # Errors
    /// As [`Endpoint::disconnect`].
    pub fn disconnect(&mut self, peer: PeerId) -> Result<(), Error> {
        self.core.machine.disconnect(peer)?;
        self.core.bury();
        Ok(())
    }

    /// As [`Endpoint::test`], without progress.
    ///
    /// # Errors
    /// When there is no such request.
    #[inline(always)]
    pub fn test(&mut self, request: RequestId) -> Result<Option<Status>, NoRequest> {
        self.core.machine.test(request).map_err(|_| NoRequest)
    }

    /// As [`Endpoint::test_matching`], without progress.
    ///
    /// # Errors
    /// As [`Endpoint::test_matching`].
    pub fn test_matching(
        &mut self,
        match_info: u64,
        mask: u64,
    ) -> Result<Option<(RequestId, Status)>, Error> {
        Ok(self.core.machine.test_matching(match_info, mask)?)
    }

    /// The oldest complete request, which stays.
    pub fn oldest_complete(&mut self) -> Option<RequestId> {
        self.core.machine.oldest_complete()
    }

    /// As [`Endpoint::is_complete`].
    ///
    /// # Errors
    /// As [`Endpoint::is_complete`].
    pub fn is_complete(&self, request: RequestId) -> Result<bool, Error> {
        Ok(self.core.machine.is_complete(request)?)
    }

    /// As [`Endpoint::iprobe`], without progress.
    ///
    /// # Errors
    /// As [`Endpoint::iprobe`].
    pub fn iprobe(&mut self, selector: &Selector) -> Result<Option<Status>, Error> {
        Ok(self.core.machine.iprobe(selector)?)
    }

    /// As [`Endpoint::cancel`]; if `kept`, a cancelled request stays and is complete.
    ///
    /// # Errors
    /// As [`Endpoint::cancel`].
    pub fn cancel(&mut self, request: RequestId, kept: bool) -> Result<bool, Error> {
        let cancelled = if kept {
            self.core.machine.cancel_kept(request)?
        } else {
            self.core.machine.cancel(request)?
        };
        if cancelled {
            self.core.peers.cancel_connect(request);
        }
        Ok(cancelled)
    }

    /// Ends a connect whose time is up.
    pub fn expire_connect(&mut self, request: RequestId) {
        self.core.peers.cancel_connect(request);
        let what = "the connect was not answered in time".into();
        self.core.fail_connect(request, IslandError::Timeout { what });
    }

    /// As [`Endpoint::forget`].
    pub fn forget(&mut self, request: RequestId) {
        self.core.machine.forget(request);
    }

    /// The peer of a send for which there is no room at that peer yet.
    pub fn stuck_send(&mut self, request: RequestId) -> Option<PeerId> {
        self.core.machine.stuck_send(request)
    }

    /// As [`Endpoint::peer_info`].
    #[must_use]
    pub fn peer_info(&self, peer: PeerId) -> Option<&PeerInfo> {
        self.core.peers.info(peer)
    }

    /// A live peer of that number, if there is one.
    #[must_use]
    pub fn peer_numbered(&self, number: u32) -> Option<PeerId> {
        self.core.peers.live_peer(|info| info.number == number)
    }

    /// Sends may wait for a peer for as long as there are requests for them.
    pub fn queue_every_send(&mut self) {
        self.core.machine.queue_every_send();
    }

    /// Receives that name no source wait for peers to come, even when the last one has died.
    pub fn receives_outlive_peers(&mut self) {
        self.core.machine.receives_outlive_peers();
    }
}
