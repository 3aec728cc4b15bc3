// SPDX-License-Identifier: Apache-2.0
//! Channels within one process, without a backend: for tests, benches and the relay's own tests.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use diolkos_shm::layout::{CHANNEL_FILE_BYTES, header_bytes};
use diolkos_shm::{Access, Region};
use rustix::event::EventfdFlags;
use rustix::fs::{MemfdFlags, OFlags, SealFlags};

use crate::{ChannelEnds, IslandError, PeerIdentity, Road};

/// The two ends of a fresh channel, made as a backend makes them.
///
/// # Errors
/// [`IslandError::System`] when the system has no memory or descriptors for it.
pub fn pair() -> Result<(ChannelEnds, ChannelEnds), IslandError> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let channel = NEXT.fetch_add(1, Ordering::Relaxed);
    let (a_file, a_view) = channel_file(channel, 0)?;
    let (b_file, b_view) = channel_file(channel, 1)?;
    let (a_bell, a_rings) = doorbell()?;
    let (b_bell, b_rings) = doorbell()?;
    let end = |outgoing, incoming, doorbell_in, doorbell_out, number| {
        Ok::<_, IslandError>(ChannelEnds {
            channel,
            peer: PeerIdentity { number, name: format!("local-{number}") },
            road: Road::Direct,
            reason: "both ends in one process".into(),
            outgoing: map(outgoing, Access::ReadWrite)?,
            incoming: map(incoming, Access::ReadOnly)?,
            doorbell_in,
            doorbell_out,
            liveness: None,
        })
    };
    Ok((end(a_file, b_view, a_bell, b_rings, 1)?, end(b_file, a_view, b_bell, a_rings, 0)?))
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

fn doorbell() -> Result<(OwnedFd, OwnedFd), IslandError> {
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    let bell = rustix::event::eventfd(0, flags).map_err(system("eventfd"))?;
    let ringer = rustix::io::fcntl_dupfd_cloexec(bell.as_fd(), 0).map_err(system("dup"))?;
    Ok((bell, ringer))
}
