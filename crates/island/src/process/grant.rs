// SPDX-License-Identifier: Apache-2.0
//! What the backend grants: descriptors, checked to be what they should be, become a channel's end.

use std::os::fd::OwnedFd;

use diolkos_shm::layout::{CHANNEL_FILE_BYTES, HOME_FILE_BYTES};
use diolkos_shm::{Access, Region, RegionError};
use rustix::fs::OFlags;

use crate::{ChannelEnds, Doorbell, IslandError, PeerIdentity, Road};

/// Where a channel file says which channel it is of.
const CHANNEL_NUMBER_OFFSET: u64 = 16;

/// The end of a channel from its descriptors: outgoing, incoming, the doorbell, and (where the
/// system has such handles) the peer's process.
///
/// # Errors
/// [`IslandError::BackendMisbehaved`] when they are too few, too many or of the wrong kind;
/// [`IslandError::System`] when this process has no memory for them. All are closed then.
pub fn channel_ends(
    channel: u64,
    peer: PeerIdentity,
    road: Road,
    reason: String,
    process_vm: bool,
    descriptors: Vec<OwnedFd>,
) -> Result<ChannelEnds, IslandError> {
    let count = descriptors.len();
    let mut descriptors = descriptors.into_iter();
    let mut next = || descriptors.next().ok_or_else(|| wrong_count(count));
    let (outgoing, incoming, doorbell) = (next()?, next()?, next()?);
    let liveness = next().ok();
    if descriptors.next().is_some() {
        return Err(wrong_count(count));
    }
    Ok(ChannelEnds {
        channel,
        peer,
        road,
        reason,
        outgoing: map(outgoing, CHANNEL_FILE_BYTES, Access::ReadWrite)?,
        incoming: map(incoming, CHANNEL_FILE_BYTES, Access::ReadOnly)?,
        doorbell: Doorbell::from_descriptor(doorbell)
            .ok_or_else(|| misbehaved("a granted doorbell is none".into()))?,
        liveness,
        // On any other road the process at the other end is not the peer's.
        process_vm: process_vm && road == Road::Direct,
    })
}

/// The end of a channel from nothing but its descriptors; the channel's number is in the file.
///
/// # Errors
/// As [`channel_ends`].
pub fn ends_from_descriptors(descriptors: Vec<OwnedFd>) -> Result<ChannelEnds, IslandError> {
    let mut number = [0; 8];
    let outgoing = descriptors.first().ok_or_else(|| wrong_count(0))?;
    rustix::io::pread(outgoing, &mut number, CHANNEL_NUMBER_OFFSET)
        .map_err(|errno| IslandError::System { call: "pread", errno })?;
    let peer = PeerIdentity { number: 0, name: String::new() };
    let channel = u64::from_le_bytes(number);
    channel_ends(channel, peer, Road::Switched, String::new(), false, descriptors)
}

/// The endpoint's home from its descriptor.
///
/// # Errors
/// As [`channel_ends`].
pub fn home(descriptors: Vec<OwnedFd>) -> Result<Region, IslandError> {
    let [home] = <[OwnedFd; 1]>::try_from(descriptors).map_err(|all| wrong_count(all.len()))?;
    map(home, HOME_FILE_BYTES, Access::ReadWrite)
}

/// The homes in a page of `info`, to look at.
///
/// # Errors
/// As [`channel_ends`].
pub fn homes(descriptors: Vec<OwnedFd>) -> Result<Vec<Region>, IslandError> {
    let look = |home| map(home, HOME_FILE_BYTES, Access::ReadOnly);
    descriptors.into_iter().map(look).collect()
}

/// Maps a granted file, which must be opened for exactly what it is for.
fn map(file: OwnedFd, len_bytes: usize, access: Access) -> Result<Region, IslandError> {
    let opened = rustix::fs::fcntl_getfl(&file)
        .map_err(|errno| IslandError::System { call: "fcntl(F_GETFL)", errno })?;
    let expected = match access {
        Access::ReadOnly => OFlags::RDONLY,
        Access::ReadWrite => OFlags::RDWR,
    };
    if opened & OFlags::RWMODE != expected {
        return Err(misbehaved(format!("a granted file is not opened {access:?}")));
    }
    Region::map(file, len_bytes, access).map_err(|error| match error {
        RegionError::System(errno) => IslandError::System { call: "mmap", errno },
        error => misbehaved(error.to_string()),
    })
}

fn wrong_count(count: usize) -> IslandError {
    misbehaved(format!("a grant with {count} descriptors"))
}

fn misbehaved(what: String) -> IslandError {
    IslandError::BackendMisbehaved { what }
}
