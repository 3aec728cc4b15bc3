// SPDX-License-Identifier: Apache-2.0
//! Channels within one process, without a backend: for tests, benches and the relay's own tests.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use diolkos_shm::layout::{CHANNEL_FILE_BYTES, header_bytes};
use diolkos_shm::{Access, Region};
use rustix::fs::{MemfdFlags, OFlags, SealFlags};

use crate::{
    ChannelEnds, Doorbell, Event, Identity, Island, IslandError, PeerIdentity, Road, Target,
};

/// The two ends of a fresh channel, made as a backend makes them.
///
/// # Errors
/// [`IslandError::System`] when the system has no memory or descriptors for it.
pub fn pair() -> Result<(ChannelEnds, ChannelEnds), IslandError> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let channel = NEXT.fetch_add(1, Ordering::Relaxed);
    let (a_file, a_view) = channel_file(channel, 0)?;
    let (b_file, b_view) = channel_file(channel, 1)?;
    let (a_bell, b_bell) = Doorbell::pair().map_err(system("socketpair"))?;
    let end = |outgoing, incoming, doorbell, number| {
        Ok::<_, IslandError>(ChannelEnds {
            channel,
            peer: PeerIdentity { number, name: format!("local-{number}") },
            road: Road::Direct,
            reason: "both ends in one process".into(),
            outgoing: map(outgoing, Access::ReadWrite)?,
            incoming: map(incoming, Access::ReadOnly)?,
            doorbell,
            liveness: None,
            process_vm: false,
        })
    };
    Ok((end(a_file, b_view, a_bell, 1)?, end(b_file, a_view, b_bell, 0)?))
}

fn map(file: OwnedFd, access: Access) -> Result<Region, IslandError> {
    Region::map(file, CHANNEL_FILE_BYTES, access)
        .map_err(|error| IslandError::BackendMisbehaved { what: error.to_string() })
}

fn system(call: &'static str) -> impl Fn(rustix::io::Errno) -> IslandError {
    move |errno| IslandError::System { call, errno }
}

fn channel_file(channel: u64, direction: u32) -> Result<(OwnedFd, OwnedFd), IslandError> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file =
        rustix::fs::memfd_create("diolkos-channel", flags).map_err(system("memfd_create"))?;
    rustix::fs::ftruncate(&file, CHANNEL_FILE_BYTES as u64).map_err(system("ftruncate"))?;
    rustix::io::pwrite(&file, &header_bytes(channel, direction), 0).map_err(system("pwrite"))?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals).map_err(system("fcntl"))?;
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    let view = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, 0.into())
        .map_err(system("open"))?;
    Ok((file, view))
}

/// The island of an endpoint that nobody can be introduced to.
pub struct Alone {
    identity: Identity,
}

impl Alone {
    /// The identity of endpoint `number`, named `local-<number>`.
    #[must_use]
    pub fn new(number: u32) -> Self {
        let name = format!("local-{number}");
        Self { identity: Identity { number, name, partition: "local".into() } }
    }
}

impl Island for Alone {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn home(&self) -> Option<&Arc<Region>> {
        None
    }

    fn connect(
        &mut self,
        _: u32,
        _: &Target,
        _: Option<Road>,
        _: Option<u32>,
        _: Option<u32>,
    ) -> Result<(), IslandError> {
        Err(IslandError::BackendUnavailable { what: "this endpoint has no backend".into() })
    }

    fn cancel(&mut self, _: u32) {}

    fn disconnect(&mut self, _: u64) {}

    fn poll_event(&mut self, _: u64) -> Option<Event> {
        None
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}
