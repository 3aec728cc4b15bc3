// SPDX-License-Identifier: Apache-2.0
//! What wakes a sleeping peer on this host, and brings it granted files: one end of a pair of
//! datagram sockets.
//!
//! Each end is an open file of its own, so nothing that a peer does to its end, be it flags, floods
//! or hanging up, makes a call on ours wait, fail loudly or raise a signal
//! (`docs/decisions/0006-epoll-sockets-pidfd.md`).
//!
//! ```text
//!   1 byte, no descriptor     a ring: look at the rings of the channel
//!   24 bytes, 1 descriptor    a grant: a note, which only the channel's end understands, and its file
//!   anything else             nothing; descriptors in it are closed
//! ```
//!
//! Whoever empties the queue comes across both, so grants are kept aside for the one who asks. An end
//! that nobody asks for grants says so once (`refuse_grants`), and closes them as they come.

use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, ReturnFlags, SendFlags, SocketFlags, SocketType};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage};
use rustix::net::{recv, recvmsg, send, sendmsg, socketpair, sockopt};

/// Rings taken at once. An honest peer has one or two under way; whoever floods is not waited for.
const RINGS_MAX: usize = 16;
/// Grants kept for whoever asks: as many as a peer can have alive. What comes beyond is closed.
const INBOX_MAX: usize = 512;
/// Bytes of a grant's note.
const NOTE_BYTES: usize = 24;

/// Our end of a channel's two doorbells: it rings the peer, and is readable when the peer rings.
#[derive(Debug)]
pub struct Doorbell {
    socket: OwnedFd,
    inbox: Mutex<VecDeque<Grant>>,
    /// Whether the inbox holds something.
    has_grants: AtomicBool,
    /// Whether somebody will ask for grants.
    takes_grants: bool,
}

/// The note of a grant, and the file.
pub type Grant = ([u8; NOTE_BYTES], OwnedFd);

impl Doorbell {
    /// The doorbells of the two ends of a channel.
    ///
    /// # Errors
    /// The system's, when it has no descriptors or memory.
    pub fn pair() -> Result<(Self, Self), Errno> {
        let (a, b) =
            socketpair(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        Ok((Self::new(a), Self::new(b)))
    }

    /// Takes over a descriptor that was granted as a doorbell. `None`: it is not one.
    #[must_use]
    pub fn from_descriptor(socket: OwnedFd) -> Option<Self> {
        let fits = sockopt::socket_domain(&socket) == Ok(AddressFamily::UNIX)
            && sockopt::socket_type(&socket) == Ok(SocketType::DGRAM);
        fits.then(|| Self::new(socket))
    }

    fn new(socket: OwnedFd) -> Self {
        let inbox = Mutex::default();
        Self { socket, inbox, has_grants: AtomicBool::new(false), takes_grants: true }
    }

    /// The same end for somebody who has no use for grants: their files are closed at once.
    #[must_use]
    pub fn refuse_grants(self) -> Self {
        Self { takes_grants: false, ..self }
    }

    /// Wakes the peer. Never waits.
    pub fn ring(&self) {
        // A full queue has rung already; nothing else can go wrong that the peer's death would not
        // tell better.
        let _ = send(&self.socket, &[1], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }

    /// Passes a granted file to the peer, and wakes it. Never waits; says whether it went.
    #[must_use]
    pub fn send_grant(&self, note: &[u8; NOTE_BYTES], file: BorrowedFd<'_>) -> bool {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let files = [file];
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        control.push(SendAncillaryMessage::ScmRights(&files))
            && sendmsg(&self.socket, &[IoSlice::new(note)], &mut control, flags) == Ok(NOTE_BYTES)
    }

    /// Takes the rings that are there, so that the next one is news. Never waits. Grants among them
    /// are kept.
    pub fn silence(&self) {
        for _ in 0..RINGS_MAX {
            // Most often there was one, and to find nothing is cheaper this way.
            if !self.take_one() || self.is_silent() {
                return;
            }
        }
    }

    /// Whether nothing is there to be taken.
    fn is_silent(&self) -> bool {
        let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
        recv(&self.socket, &mut [0_u8; 1], flags) == Err(Errno::AGAIN)
    }

    /// Takes one datagram; says whether there may be more.
    fn take_one(&self) -> bool {
        let mut note = [0; NOTE_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC | RecvFlags::CMSG_CLOEXEC;
        let parts = &mut [IoSliceMut::new(&mut note)];
        let taken = match recvmsg(&self.socket, parts, &mut control, flags) {
            Ok(taken) => taken,
            // Any other error is a hang-up told once; there may be rings from before.
            Err(errno) => return errno != Errno::AGAIN,
        };
        // Whatever came is owned, and so closed, from here on.
        let mut files = control.drain().flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(files) => files.collect::<Vec<_>>(),
            _ => Vec::new(),
        });
        let (first, second) = (files.next(), files.next());
        let whole = taken.bytes == NOTE_BYTES && !taken.flags.contains(ReturnFlags::CTRUNC);
        if let (Some(file), None, true, true) = (first, second, whole, self.takes_grants) {
            self.keep((note, file));
        }
        true
    }

    #[cold]
    fn keep(&self, grant: Grant) {
        let mut inbox = self.inbox();
        if inbox.len() < INBOX_MAX {
            inbox.push_back(grant);
            // ORDERING: only a hint; the inbox itself lies behind the lock.
            self.has_grants.store(true, Ordering::Relaxed);
        }
    }

    /// Whether grants were found when rings were last taken.
    #[inline]
    #[must_use]
    pub fn has_grants(&self) -> bool {
        // ORDERING: as in `keep`.
        self.has_grants.load(Ordering::Relaxed)
    }

    /// The grants that have come, the oldest first; takes the rings too. Never waits.
    #[must_use]
    pub fn take_grants(&self) -> Vec<Grant> {
        // More than a queue holds; whoever fills it faster than that is not waited for.
        for _ in 0..INBOX_MAX {
            if !self.take_one() {
                break;
            }
        }
        let mut inbox = self.inbox();
        // ORDERING: as in `keep`.
        self.has_grants.store(false, Ordering::Relaxed);
        inbox.drain(..).collect()
    }

    fn inbox(&self) -> MutexGuard<'_, VecDeque<Grant>> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use rustix::fs::MemfdFlags;

    const NOTE: [u8; NOTE_BYTES] = [7; NOTE_BYTES];

    fn file() -> OwnedFd {
        rustix::fs::memfd_create("doorbell-test", MemfdFlags::CLOEXEC).unwrap()
    }

    fn inode(file: &OwnedFd) -> u64 {
        rustix::fs::fstat(file).unwrap().st_ino
    }

    /// Descriptors of this process that are open files of this kind; other tests run meanwhile.
    fn open_copies(of: &OwnedFd) -> usize {
        let wanted = inode(of);
        std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|entry| std::fs::metadata(entry.ok()?.path()).ok())
            .filter(|found| std::os::unix::fs::MetadataExt::ino(found) == wanted)
            .count()
    }

    fn send_odd(from: &Doorbell, bytes: &[u8], files: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(files.is_empty() || control.push(SendAncillaryMessage::ScmRights(files)));
        sendmsg(&from.socket, &[IoSlice::new(bytes)], &mut control, SendFlags::DONTWAIT).unwrap();
    }

    #[test]
    fn rings_and_grants_share_the_queue_and_are_told_apart() {
        let (a, b) = Doorbell::pair().unwrap();
        let (one, two) = (file(), file());
        a.ring();
        assert!(a.send_grant(&NOTE, one.as_fd()));
        a.ring();
        assert!(a.send_grant(&[8; NOTE_BYTES], two.as_fd()));
        assert!(!b.has_grants());
        b.silence();
        assert!(b.has_grants());
        a.ring();
        let grants = b.take_grants();
        let named: Vec<_> = grants.iter().map(|(note, file)| (note[0], inode(file))).collect();
        assert_eq!(named, [(7, inode(&one)), (8, inode(&two))]);
        for (_, file) in &grants {
            let flags = rustix::io::fcntl_getfd(file).unwrap();
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        }
        assert!(!b.has_grants());
        assert!(b.take_grants().is_empty());
        assert!(!b.take_one(), "nothing is left in the queue");
    }

    #[test]
    fn datagrams_of_another_shape_leave_nothing_behind() {
        let (a, b) = Doorbell::pair().unwrap();
        let file = file();
        let fd = file.as_fd();
        send_odd(&a, &[1], &[fd]);
        send_odd(&a, &[1; 23], &[fd]);
        send_odd(&a, &[1; 25], &[fd]);
        send_odd(&a, &NOTE, &[]);
        send_odd(&a, &NOTE, &[fd, fd]);
        send_odd(&a, &NOTE, &[fd, fd, fd, fd, fd]);
        send_odd(&a, &[], &[fd]);
        b.silence();
        assert!(b.take_grants().is_empty());
        assert_eq!(open_copies(&file), 1);
        assert!(!b.take_one(), "nothing is left in the queue");
    }

    #[test]
    fn a_flood_of_descriptors_is_bounded_and_leaks_none() {
        let (a, b) = Doorbell::pair().unwrap();
        let file = file();
        let mut sent = 0;
        for _ in 0..2 * INBOX_MAX {
            sent += usize::from(a.send_grant(&NOTE, file.as_fd()));
            b.silence();
        }
        assert_eq!(sent, 2 * INBOX_MAX);
        assert_eq!(open_copies(&file), 1 + INBOX_MAX);
        drop(b.take_grants());
        assert_eq!(open_copies(&file), 1);
        while a.send_grant(&NOTE, file.as_fd()) {}
        assert!(!a.send_grant(&NOTE, file.as_fd()), "a full queue is told, not waited for");
        b.silence();
        drop(b);
        assert_eq!(open_copies(&file), 1);
    }

    #[test]
    fn an_end_without_use_for_grants_keeps_none() {
        let (a, b) = Doorbell::pair().unwrap();
        let b = b.refuse_grants();
        let file = file();
        assert!(a.send_grant(&NOTE, file.as_fd()));
        b.silence();
        assert!(!b.has_grants());
        assert_eq!(open_copies(&file), 1);
    }
}
