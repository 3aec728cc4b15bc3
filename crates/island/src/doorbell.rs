// SPDX-License-Identifier: Apache-2.0
//! What wakes a sleeping peer on this host: one end of a pair of datagram sockets.
//!
//! Each end is an open file of its own, so nothing that a peer does to its end, be it flags, floods
//! or hanging up, makes a call on ours wait, fail loudly or raise a signal
//! (`docs/decisions/0006-epoll-sockets-pidfd.md`). A datagram means nothing but "look at the rings".

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::net::{recv, send, socketpair, sockopt};

/// Rings taken at once. An honest peer has one or two under way; whoever floods is not waited for.
const RINGS_MAX: usize = 16;

/// Our end of a channel's two doorbells: it rings the peer, and is readable when the peer rings.
#[derive(Debug)]
pub struct Doorbell {
    socket: OwnedFd,
}

impl Doorbell {
    /// The doorbells of the two ends of a channel.
    ///
    /// # Errors
    /// The system's, when it has no descriptors or memory.
    pub fn pair() -> Result<(Self, Self), Errno> {
        let (a, b) =
            socketpair(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        Ok((Self { socket: a }, Self { socket: b }))
    }

    /// Takes over a descriptor that was granted as a doorbell. `None`: it is not one.
    #[must_use]
    pub fn from_descriptor(socket: OwnedFd) -> Option<Self> {
        let fits = sockopt::socket_domain(&socket) == Ok(AddressFamily::UNIX)
            && sockopt::socket_type(&socket) == Ok(SocketType::DGRAM);
        fits.then_some(Self { socket })
    }

    /// Wakes the peer. Never waits.
    pub fn ring(&self) {
        // A full queue has rung already; nothing else can go wrong that the peer's death would not
        // tell better.
        let _ = send(&self.socket, &[1], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }

    /// Takes the rings that are there, so that the next one is news. Never waits.
    pub fn silence(&self) {
        for _ in 0..RINGS_MAX {
            let taken = recv(&self.socket, &mut [0_u8; 1], RecvFlags::DONTWAIT | RecvFlags::TRUNC);
            // Any other error is a hang-up told once; there may be rings from before.
            if taken == Err(Errno::AGAIN) {
                return;
            }
        }
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
