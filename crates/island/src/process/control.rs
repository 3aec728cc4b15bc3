// SPDX-License-Identifier: Apache-2.0
//! The socket to the backend: whole packets with descriptors, and never a half of one.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType,
};

use super::messages::{PACKET_BYTES_MAX, Request};
use super::runtime_dir::RuntimeDir;
use crate::IslandError;

/// Descriptors in one packet: the homes of a page of `info` are the most.
pub const DESCRIPTORS_MAX: usize = 16;
/// How long a backend that does not read is waited for before it counts as lost.
const SEND_PATIENCE: Duration = Duration::from_secs(1);

/// What came in one packet.
pub struct Packet {
    pub bytes: Vec<u8>,
    pub descriptors: Vec<OwnedFd>,
    /// Some of its descriptors are lost: this process has no room for them.
    pub cut: bool,
}

impl Packet {
    /// The packet with all of its descriptors.
    ///
    /// # Errors
    /// [`IslandError::System`] with `EMFILE` when this process had no room for them.
    pub fn whole(self) -> Result<Self, IslandError> {
        if self.cut {
            let errno = Errno::MFILE;
            return Err(IslandError::System { call: "receiving descriptors", errno });
        }
        Ok(self)
    }
}

/// A connection to the backend of a runtime directory.
pub struct Control {
    socket: OwnedFd,
    /// Where packets arrive; allocated once, because looking for one is frequent.
    buffer: Vec<u8>,
}

impl Control {
    /// Connects; `None` when nobody listens there.
    ///
    /// # Errors
    /// [`IslandError::Denied`] when the socket is not for this user; [`IslandError::System`]
    /// otherwise.
    pub fn connect(directory: &RuntimeDir) -> Result<Option<Self>, IslandError> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
                .map_err(system("socket"))?;
        let address =
            SocketAddrUnix::new(directory.socket_path()).map_err(system("socket address"))?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) => {}
            // Nobody has listened yet, nobody does any more, or all at once want to be accepted.
            Err(Errno::NOENT | Errno::CONNREFUSED | Errno::AGAIN) => return Ok(None),
            Err(Errno::ACCESS | Errno::PERM) => {
                return Err(IslandError::Denied {
                    what: format!("the backend in {} is not for this user", directory.shown()),
                    hint: Some("ask its owner to run it with --group".into()),
                });
            }
            Err(errno) => return Err(IslandError::System { call: "connect", errno }),
        }
        // Whoever listens is the directory's owner: nobody else can put a socket there. The
        // socket's own credentials would say the same, but not across PID namespaces, where the
        // process number that comes with them is zero.
        Ok(Some(Self { socket, buffer: vec![0; PACKET_BYTES_MAX] }))
    }

    /// Sends a request. A backend that does not read is waited for, but not for long.
    ///
    /// # Errors
    /// [`IslandError::BackendUnavailable`] when it is gone.
    pub fn send(&self, request: &Request) -> Result<(), IslandError> {
        let bytes = request.encode();
        let deadline = Instant::now() + SEND_PATIENCE;
        loop {
            let sent = rustix::net::sendmsg(
                &self.socket,
                &[IoSlice::new(&bytes)],
                &mut SendAncillaryBuffer::default(),
                SendFlags::NOSIGNAL,
            );
            match sent {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    if !self.wait(PollFlags::OUT, deadline).unwrap_or(true) {
                        return Err(gone("it does not read"));
                    }
                }
                Err(errno) => return Err(gone(&errno.to_string())),
            }
        }
    }

    /// The next packet, if one is there. Never waits.
    ///
    /// # Errors
    /// [`IslandError::BackendUnavailable`] when the backend is gone,
    /// [`IslandError::BackendMisbehaved`] when the packet did not fit.
    pub fn receive(&mut self) -> Result<Option<Packet>, IslandError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let mut resets = 0;
        let received = loop {
            let parts = &mut [IoSliceMut::new(&mut self.buffer)];
            match rustix::net::recvmsg(&self.socket, parts, &mut control, flags) {
                Ok(received) => break received,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(None),
                // It closed without having read all of ours. What it sent before comes after.
                Err(Errno::CONNRESET) if resets == 0 => resets = 1,
                Err(errno) => return Err(gone(&errno.to_string())),
            }
        };
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        if received.bytes == 0 {
            return Err(gone("it closed the connection"));
        }
        if received.flags.contains(ReturnFlags::TRUNC) {
            let what = format!("a packet of more than {PACKET_BYTES_MAX} bytes");
            return Err(IslandError::BackendMisbehaved { what });
        }
        // The kernel cuts when there are too many, and also when this process has no room.
        let cut = received.flags.contains(ReturnFlags::CTRUNC);
        if cut && descriptors.len() >= DESCRIPTORS_MAX {
            let what = format!("a packet of more than {DESCRIPTORS_MAX} descriptors");
            return Err(IslandError::BackendMisbehaved { what });
        }
        Ok(Some(Packet { bytes: self.buffer[..received.bytes].to_vec(), descriptors, cut }))
    }

    /// Waits for the next packet.
    ///
    /// # Errors
    /// As `receive`; [`IslandError::BackendUnavailable`] when none came in time, `System` with
    /// `EINTR` when a signal came first.
    pub fn receive_until(&mut self, deadline: Instant) -> Result<Packet, IslandError> {
        loop {
            if let Some(packet) = self.receive()? {
                return Ok(packet);
            }
            if !self.wait(PollFlags::IN, deadline).map_err(system("poll"))? {
                return Err(gone("it does not answer"));
            }
        }
    }

    /// Waits until the socket is ready; false when the time is up.
    fn wait(&self, events: PollFlags, deadline: Instant) -> Result<bool, Errno> {
        wait_for(self.socket.as_fd(), events, deadline)
    }

    /// What to watch for packets.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Ends the connection for every process that holds the socket.
    pub fn shut_down(&self) {
        // It fails only when the connection has ended already.
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Both);
    }
}

/// Waits until a descriptor is ready; false when the time is up.
pub fn wait_for(
    descriptor: BorrowedFd<'_>,
    events: PollFlags,
    deadline: Instant,
) -> Result<bool, Errno> {
    let left = deadline.saturating_duration_since(Instant::now());
    let left = left.try_into().map_err(|_| Errno::INVAL)?;
    let ready = poll(&mut [PollFd::from_borrowed_fd(descriptor, events)], Some(&left))?;
    Ok(ready > 0)
}

fn gone(why: &str) -> IslandError {
    IslandError::BackendUnavailable { what: format!("the backend is gone: {why}") }
}

fn system(call: &'static str) -> impl Fn(Errno) -> IslandError {
    move |errno| IslandError::System { call, errno }
}
