// SPDX-License-Identifier: Apache-2.0
//! Copies between memory of ours and memory of the peer's process, made by the kernel
//! (`process_vm_readv`, `process_vm_writev`).
//!
//! Only for a channel whose policy says so, and only to where the peer said that its buffer lies. What
//! lies there is the peer's business: an address is a number here, and the kernel refuses one that
//! means nothing. Three things are ours:
//!
//! **Which process.** The calls want a process id, and the backend gave us a handle (a pidfd). The id is
//! read from the handle, which must show it alive right before a copy, and still right after one. A
//! number can only be given to another process after the first one is gone, so a copy that began while
//! the handle showed life and ended so went to the right process.
//!
//! **When it must not be.** A peer that gives a buffer up before we are done (it disconnects, say) must
//! be able to keep us out before its program uses that memory again:
//!
//! ```text
//!   who copies (the owner of a region)      whose buffer it is
//!   ----------------------------------      ------------------
//!   reaching := 1                           closing := 1
//!   full fence                              full fence
//!   peer's closing == 0 ?  copy a stretch   wait while peer's reaching != 0 and it lives
//!   reaching := 0 (release)                 (acquire) the buffer is the program's
//! ```
//!
//! Either the one sees `closing` and does not copy, or the other sees `reaching` and waits.
//!
//! **When to stop trying.** A kernel that refuses once (no right, no such process) is not asked again.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::buffer::{Sink, Source};
use crate::layout::{WORD_CLOSING, WORD_REACHING};
use crate::sync::{Ordering, fence};
use crate::words::Words;

/// What is known of the peer's process id.
#[derive(Clone, Copy, Debug)]
enum Process {
    NotAsked,
    Is(libc::pid_t),
    /// It cannot be reached, now or ever.
    OutOfReach,
}

/// The memory of the process at the other end of a channel.
pub struct PeerMemory {
    outgoing: Words,
    incoming: Words,
    /// A pidfd.
    handle: OwnedFd,
    process: Process,
}

impl PeerMemory {
    /// The memory of the process that `handle` is a pidfd of, at the other end of a channel of these
    /// two files.
    #[must_use]
    pub fn new(outgoing: Words, incoming: Words, handle: OwnedFd) -> Self {
        Self { outgoing, incoming, handle, process: Process::NotAsked }
    }

    /// Whether it is worth trying to copy.
    #[must_use]
    pub fn is_in_reach(&self) -> bool {
        !matches!(self.process, Process::OutOfReach)
    }

    /// Copies `len_bytes` from an address of the peer's to offset `at` of a buffer. Whether all of it
    /// came; if not, what the buffer holds there is undefined.
    pub fn read(&mut self, address: u64, sink: &Sink, at: usize, len_bytes: usize) -> bool {
        let base = sink.range(at, len_bytes);
        self.copy(address, len_bytes, |pid, remote| {
            let local = libc::iovec { iov_base: base.cast(), iov_len: len_bytes };
            // SAFETY: one local range, writable for `len_bytes` by `Sink::range`, and one remote one, which
            // is a number that the kernel checks. Both structs live until the call returns.
            unsafe { libc::process_vm_readv(pid, &raw const local, 1, remote, 1, 0) }
        })
    }

    /// Copies `len_bytes` from offset `at` of a buffer to an address of the peer's. Whether all of it
    /// went.
    pub fn write(&mut self, address: u64, source: &Source, at: usize, len_bytes: usize) -> bool {
        let base = source.range(at, len_bytes);
        self.copy(address, len_bytes, |pid, remote| {
            let local = libc::iovec { iov_base: base.cast_mut().cast(), iov_len: len_bytes };
            // SAFETY: as in `read`; the kernel only reads the local range, readable by `Source::range`.
            unsafe { libc::process_vm_writev(pid, &raw const local, 1, remote, 1, 0) }
        })
    }

    /// The peer does not reach into our memory any more when this returns: it sees us closing. Waits
    /// for the end of a copy that it is in the middle of, or of its process.
    pub fn keep_out(&self) {
        // ORDERING: pairs with the fence in `copy`, see above.
        self.outgoing.store(WORD_CLOSING, 1, Ordering::Release);
        fence(Ordering::SeqCst);
        // ORDERING: pairs with the release store in `copy`.
        while self.incoming.load(WORD_REACHING, Ordering::Acquire) != 0
            && self.is_gone() != Some(true)
        {
            std::thread::yield_now();
        }
    }

    fn copy(
        &mut self,
        address: u64,
        len_bytes: usize,
        call: impl FnOnce(libc::pid_t, *const libc::iovec) -> isize,
    ) -> bool {
        let (Some(pid), Ok(address)) = (self.pid(), usize::try_from(address)) else { return false };
        let remote =
            libc::iovec { iov_base: std::ptr::without_provenance_mut(address), iov_len: len_bytes };
        // ORDERING: pairs with the fence in `keep_out`, see above.
        self.outgoing.store(WORD_REACHING, 1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        // ORDERING: as above.
        let wanted = self.incoming.load(WORD_CLOSING, Ordering::Relaxed) == 0;
        let copied =
            if wanted && self.is_gone() == Some(false) { call(pid, &raw const remote) } else { 0 };
        let error = if copied < 0 { std::io::Error::last_os_error().raw_os_error() } else { None };
        // ORDERING: release, so that whoever sees it may use what was copied, and its memory.
        self.outgoing.store(WORD_REACHING, 0, Ordering::Release);
        // Anything else, a bad address say, is this operation's affair only.
        let refused =
            error.is_some_and(|errno| [libc::EPERM, libc::ESRCH, libc::ENOSYS].contains(&errno));
        if refused || self.is_gone() != Some(false) {
            self.process = Process::OutOfReach;
            return false;
        }
        copied == len_bytes as isize
    }

    /// Whether the peer's process is gone: its handle is readable then. `None`: nobody can tell.
    fn is_gone(&self) -> Option<bool> {
        let mut watched = [PollFd::new(&self.handle, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        loop {
            match poll(&mut watched, Some(&now)) {
                Ok(ready) => return Some(ready > 0),
                Err(Errno::INTR) => {}
                Err(_) => return None,
            }
        }
    }

    fn pid(&mut self) -> Option<libc::pid_t> {
        if let Process::NotAsked = self.process {
            let pid = if own_numbers() { pid_of(&self.handle) } else { None };
            self.process = pid.map_or(Process::OutOfReach, Process::Is);
        }
        match self.process {
            Process::Is(pid) => Some(pid),
            Process::NotAsked | Process::OutOfReach => None,
        }
    }
}

/// The process id of a pidfd as `/proc` tells it; `None` for one that is gone, is in a name space that
/// this one does not see, or is no pidfd.
fn pid_of(handle: &OwnedFd) -> Option<libc::pid_t> {
    let told = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", handle.as_raw_fd())).ok()?;
    told.lines()
        .find_map(|line| line.strip_prefix("Pid:"))
        .and_then(|number| number.trim().parse().ok())
        .filter(|pid| *pid > 0)
}

/// Whether `/proc` shows process ids as this process's system calls mean them. One that was mounted for
/// an outer name space shows others, and then this process has a number in each.
fn own_numbers() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| {
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        numbers.is_some_and(|numbers| numbers.split_whitespace().count() == 1)
    })
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};
    use std::sync::Arc;

    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::*;
    use crate::layout::CHANNEL_FILE_BYTES;
    use crate::{Access, Region};

    fn words() -> Words {
        let flags = rustix::fs::MemfdFlags::CLOEXEC | rustix::fs::MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("peer-memory", flags).expect("a memfd");
        rustix::fs::ftruncate(&file, CHANNEL_FILE_BYTES as u64).expect("its length");
        let seals = rustix::fs::SealFlags::SHRINK | rustix::fs::SealFlags::GROW;
        rustix::fs::fcntl_add_seals(&file, seals).expect("its seals");
        let region = Region::map(file, CHANNEL_FILE_BYTES, Access::ReadWrite).expect("a mapping");
        Words::new(Arc::new(region))
    }

    /// Both ends of a channel between this process and itself.
    fn of_oneself() -> (PeerMemory, PeerMemory) {
        let (a, b) = (words(), words());
        let handle = || {
            pidfd_open(rustix::process::getpid(), PidfdFlags::empty()).expect("a handle of oneself")
        };
        (PeerMemory::new(a.clone(), b.clone(), handle()), PeerMemory::new(b, a, handle()))
    }

    fn of_child(child: &Child) -> PeerMemory {
        let pid = Pid::from_raw(child.id() as i32).expect("not 0");
        let handle = pidfd_open(pid, PidfdFlags::empty()).expect("a handle");
        PeerMemory::new(words(), words(), handle)
    }

    fn source(bytes: &[u8]) -> Source {
        // SAFETY: every test keeps its bytes until it ends.
        unsafe { Source::from_raw(bytes.as_ptr(), bytes.len()) }
    }

    fn sink(bytes: &mut [u8]) -> Sink {
        // SAFETY: as above.
        unsafe { Sink::from_raw(bytes.as_mut_ptr(), bytes.len()) }
    }

    #[test]
    fn bytes_are_read_and_written_where_they_lie() {
        let (mut owner, _) = of_oneself();
        let theirs: Vec<u8> = (0..10_000).map(|i| i as u8).collect();
        let mut region = vec![0_u8; 10_000];
        let there = theirs.as_ptr() as u64;
        assert!(owner.read(there + 10, &sink(&mut region), 5, 9000));
        assert_eq!(region[5..9005], theirs[10..9010]);
        assert!(region[..5].iter().chain(&region[9005..]).all(|byte| *byte == 0));
        let mut buffer = vec![0_u8; 100];
        let there = buffer.as_mut_ptr() as u64;
        assert!(owner.write(there, &source(&theirs), 200, 100));
        assert_eq!(buffer, theirs[200..300]);
    }

    #[test]
    fn a_bad_address_fails_and_nothing_else_does() {
        let (mut owner, _) = of_oneself();
        let mut region = [7_u8; 64];
        for address in [1, 4096, u64::MAX - 10, 1 << 63] {
            assert!(!owner.read(address, &sink(&mut region), 0, 64));
            assert!(!owner.write(address, &source(&region), 0, 64));
            assert!(owner.is_in_reach());
        }
        let theirs = [1_u8; 64];
        assert!(owner.read(theirs.as_ptr() as u64, &sink(&mut region), 0, 64));
        assert_eq!(region, theirs);
    }

    #[test]
    fn who_is_kept_out_copies_nothing() {
        let (mut owner, initiator) = of_oneself();
        let mut buffer = [0_u8; 64];
        initiator.keep_out();
        assert!(!owner.write(buffer.as_mut_ptr() as u64, &source(&[1; 64]), 0, 64));
        assert_eq!(buffer, [0; 64]);
    }

    #[test]
    fn nothing_is_written_behind_the_back_of_who_has_kept_the_owner_out() {
        const LEN: usize = 1 << 20;
        for _ in 0..50 {
            let (mut owner, initiator) = of_oneself();
            let mut buffer = vec![0_u8; LEN];
            let there = buffer.as_mut_ptr() as u64;
            let ones = vec![1_u8; LEN];
            std::thread::scope(|scope| {
                let copier = scope.spawn(|| {
                    let from = source(&ones);
                    while owner.write(there, &from, 0, LEN) {}
                });
                std::thread::yield_now();
                initiator.keep_out();
                buffer.fill(2);
                copier.join().expect("the copier");
            });
            assert!(buffer.iter().all(|byte| *byte == 2));
        }
    }

    #[test]
    fn a_process_that_is_gone_is_out_of_reach() {
        let mut child = Command::new("sleep").arg("1000").spawn().expect("a child");
        let mut peer = of_child(&child);
        assert_eq!(pid_of(&peer.handle), Some(child.id() as i32));
        assert!(peer.pid().is_some() && peer.is_in_reach());
        child.kill().expect("a signal");
        child.wait().expect("its end");
        assert_eq!(pid_of(&peer.handle), None);
        let mut region = [0_u8; 8];
        assert!(!peer.read(4096, &sink(&mut region), 0, 8));
        assert!(!peer.is_in_reach());
        // Nor is anybody kept waiting by what it left behind.
        let (outgoing, incoming) = (words(), words());
        incoming.store(WORD_REACHING, 1, Ordering::Relaxed);
        let PeerMemory { handle, .. } = peer;
        PeerMemory::new(outgoing, incoming, handle).keep_out();
    }

    #[test]
    fn what_is_no_handle_of_a_process_reaches_nothing() {
        let file = rustix::fs::memfd_create("no-process", rustix::fs::MemfdFlags::CLOEXEC);
        let mut peer = PeerMemory::new(words(), words(), file.expect("a memfd"));
        let mut region = [0_u8; 8];
        assert!(!peer.read(region.as_mut_ptr() as u64, &sink(&mut region), 0, 8));
        assert!(!peer.is_in_reach());
    }
}
