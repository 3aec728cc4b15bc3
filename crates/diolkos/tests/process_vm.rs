// SPDX-License-Identifier: Apache-2.0
//! Operations on memory outside the arena, between two processes that may reach into each other's.
//!
//! ```text
//!   this test process                       child: the same program, told by its environment
//!   owner or initiator  <--- a channel ---> initiator or owner
//! ```
//!
//! Which way the data goes is a question of policy and kernel; what arrives is not.

#[path = "conformance/port.rs"]
#[allow(dead_code, reason = "the conformance suite uses the rest")]
mod port;

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::process::{Child, Command};

use diolkos::{
    Endpoint, Exposed, Key, PeerId, Reach, Region, Road, Sent, Sink, Source, StatusCode,
};
use diolkos_island::process::ends_from_descriptors;
use diolkos_island::{ChannelEnds, IslandError, local};
use diolkos_shm::layout::{CHANNEL_FILE_BYTES, header_bytes};
use port::{Port, lonely, pattern, tag, until, wait};
use rustix::fs::{MemfdFlags, OFlags, SealFlags};
use rustix::io::FdFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, getpid, pidfd_open};

/// As in the conformance suite, whose harness this borrows.
pub type Maker = fn() -> Result<(ChannelEnds, ChannelEnds), IslandError>;

/// Bytes of the region.
const LEN: usize = (4 << 20) + 9;
const KEY: u64 = 1;
const DONE: u64 = 2;
/// What the child is, and the numbers of its descriptors.
const TOLD: &str = "DIOLKOS_TEST_CHILD";

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Initiator,
    Owner,
}

/// How the child is told to limit itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    Nothing,
    /// It may not reach into others.
    NoRight,
    /// It cannot be reached into.
    Closed,
    /// It is not allowed by its policy.
    Policy,
    /// It ends in the middle.
    Dies,
}

fn roles() -> [(Role, &'static str); 2] {
    [(Role::Initiator, "initiator"), (Role::Owner, "owner")]
}

fn limits() -> [(Limit, &'static str); 5] {
    [
        (Limit::Nothing, "nothing"),
        (Limit::NoRight, "no-right"),
        (Limit::Closed, "closed"),
        (Limit::Policy, "policy"),
        (Limit::Dies, "dies"),
    ]
}

fn word<T: Copy + PartialEq>(of: &[(T, &'static str)], what: T) -> &'static str {
    of.iter().find(|(value, _)| *value == what).expect("a word").1
}

fn meaning<T: Copy>(of: &[(T, &'static str)], word: &str) -> T {
    of.iter().find(|(_, known)| *known == word).expect("a known word").0
}

fn channel_file(direction: u32) -> (OwnedFd, OwnedFd) {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = rustix::fs::memfd_create("process-vm-test", flags).expect("a memfd");
    rustix::fs::ftruncate(&file, CHANNEL_FILE_BYTES as u64).expect("its size");
    rustix::io::pwrite(&file, &header_bytes(1, direction), 0).expect("its header");
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW).expect("its seals");
    let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    let view = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, 0.into()).expect("a view");
    (file, view)
}

fn handle_of(pid: Pid) -> OwnedFd {
    pidfd_open(pid, PidfdFlags::empty()).expect("a handle of a process")
}

/// The end of a channel between processes whose policy may let them reach into each other.
fn end_of(descriptors: Vec<OwnedFd>, process_vm: bool) -> ChannelEnds {
    let ends = ends_from_descriptors(descriptors).expect("an end");
    ChannelEnds { road: Road::Direct, process_vm, ..ends }
}

/// Starts a child at the other end of a channel.
fn start(role: Role, limit: Limit) -> (Port, Child) {
    let ((our_file, our_view), (their_file, their_view)) = (channel_file(0), channel_file(1));
    let kind = (AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC);
    let (our_bell, their_bell) = socketpair(kind.0, kind.1, kind.2, None).expect("doorbells");
    let theirs = [their_file, our_view, their_bell, handle_of(getpid())];
    let numbers: Vec<String> = theirs.iter().map(|fd| fd.as_raw_fd().to_string()).collect();
    for descriptor in &theirs {
        rustix::io::fcntl_setfd(descriptor, FdFlags::empty()).expect("one to inherit");
    }
    let told = [word(&roles(), role), word(&limits(), limit), &numbers.join(",")].join(" ");
    let child = Command::new(std::env::current_exe().expect("this program"))
        .args(["child", "--exact", "--ignored", "--nocapture"])
        .env(TOLD, told)
        .spawn()
        .expect("a child");
    let handle = handle_of(Pid::from_raw(child.id() as i32).expect("not 0"));
    let endpoint = lonely(0);
    let ends = end_of(vec![our_file, their_view, our_bell, handle], true);
    let peer = endpoint.adopt(ends).expect("a usable end");
    (Port { endpoint, peer }, child)
}

/// The other process.
#[test]
#[ignore = "only as the child of another test"]
fn child() {
    let Ok(told) = std::env::var(TOLD) else { return };
    let told: Vec<&str> = told.split(' ').collect();
    let (role, limit) = (meaning(&roles(), told[0]), meaning(&limits(), told[1]));
    let take = |number: &str| {
        let number = number.parse().expect("a number");
        // SAFETY: inherited for us, and taken once.
        unsafe { OwnedFd::from_raw_fd(number) }
    };
    let descriptors: Vec<OwnedFd> = told[2].split(',').map(take).collect();
    // SAFETY: two calls that take numbers and change this process only.
    let done = unsafe {
        match limit {
            Limit::NoRight => libc::setuid(65534),
            Limit::Closed => libc::prctl(libc::PR_SET_DUMPABLE, 0),
            _ => 0,
        }
    };
    assert_eq!(done, 0);
    let endpoint = lonely(1);
    let ends = end_of(descriptors, limit != Limit::Policy);
    let peer = endpoint.adopt(ends).expect("a usable end");
    let port = Port { endpoint, peer };
    match role {
        Role::Initiator if limit == Limit::Dies => {
            let key = take_key(&port);
            let mut buffer = vec![0_u8; LEN];
            let _ = read(&port, &key, 0, &mut buffer).expect("a read");
            std::process::exit(0);
        }
        Role::Initiator => drop(initiate(&port)),
        Role::Owner => {
            own(&port);
        }
    }
    std::process::exit(0);
}

/// Memory of this process, as a region that others may write.
fn expose(endpoint: &Endpoint, memory: &mut [u8]) -> Region {
    // SAFETY: every caller keeps the memory until the region is revoked.
    let sink = unsafe { Sink::from_raw(memory.as_mut_ptr(), memory.len()) };
    endpoint.register(Exposed::ReadWrite(sink), None).expect("a region")
}

fn read(port: &Port, key: &Key, offset: usize, into: &mut [u8]) -> Result<Sent, diolkos::Error> {
    // SAFETY: every caller keeps the memory until the request has ended.
    let sink = unsafe { Sink::from_raw(into.as_mut_ptr(), into.len()) };
    port.endpoint.rdma_read(sink, port.peer, key, offset as u64)
}

fn write(port: &Port, key: &Key, offset: usize, from: &[u8]) -> Result<Sent, diolkos::Error> {
    // SAFETY: as above.
    let source = unsafe { Source::from_raw(from.as_ptr(), from.len()) };
    port.endpoint.rdma_write(source, port.peer, key, offset as u64, None)
}

fn finish(port: &Port, sent: Result<Sent, diolkos::Error>) {
    if let Sent::Pending(request) = sent.expect("an operation") {
        assert_eq!(wait(&port.endpoint, request).code, StatusCode::Success);
    }
}

fn give_key(port: &Port, region: &Region) {
    let key = port.try_isend(region.key().encode().to_vec(), &port::info(KEY));
    key.expect("a send").wait(&port.endpoint);
}

fn take_key(port: &Port) -> Key {
    let (_, key) = port.irecv(Key::BYTES, &tag(KEY)).wait(&port.endpoint);
    Key::decode(&key).expect("a key")
}

/// Has a region, serves it, and looks at what became of it.
fn own(port: &Port) {
    let mut memory = pattern(1, LEN);
    let region = expose(&port.endpoint, &mut memory);
    assert_eq!(region.reach(), Reach::Copied);
    give_key(port, &region);
    port.irecv(1, &tag(DONE)).wait(&port.endpoint);
    drop(region);
    assert!(memory == pattern(3, LEN), "what was written is not what is there");
}

/// Reads and writes a region of the peer; how that was done.
fn initiate(port: &Port) -> Vec<Reach> {
    let key = take_key(port);
    let there = pattern(1, LEN);
    let mut ways = Vec::new();
    for (offset, len) in [(0, 8), (3, 5000), (1, 1 << 20), (0, LEN)] {
        let mut buffer = vec![0xee; len];
        finish(port, read(port, &key, offset, &mut buffer));
        assert!(buffer == there[offset..offset + len], "a read of {len} bytes");
        ways.push(port.endpoint.reach(port.peer, &key).expect("a peer"));
    }
    let mut there = there;
    for (number, offset, len) in [(2, 8, 8), (4, 100, 70_000), (5, 1 << 20, (2 << 20) + 1)] {
        let bytes = pattern(number, len);
        finish(port, write(port, &key, offset, &bytes));
        there[offset..offset + len].copy_from_slice(&bytes);
        ways.push(port.endpoint.reach(port.peer, &key).expect("a peer"));
    }
    let mut buffer = vec![0xee; LEN];
    finish(port, read(port, &key, 0, &mut buffer));
    assert!(buffer == there, "it was not written where it should be");
    let last = pattern(3, LEN);
    finish(port, write(port, &key, 0, &last));
    port.send(0, 1, DONE);
    ways
}

/// What the child is, this process is not. How the initiator's operations were done, if it is here.
fn play(child: Role, limit: Limit) -> Vec<Reach> {
    let (port, mut process) = start(child, limit);
    let ways = match child {
        Role::Initiator => {
            own(&port);
            Vec::new()
        }
        Role::Owner => initiate(&port),
    };
    assert!(process.wait().expect("its end").success());
    ways
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn what_the_kernel_moves_arrives_whole() {
    let ways = play(Role::Owner, Limit::Nothing);
    assert!(ways.iter().all(|way| *way == Reach::Kernel), "{ways:?}");
    play(Role::Initiator, Limit::Nothing);
}

#[test]
fn where_one_side_may_not_copies_serve() {
    let ways = play(Role::Owner, Limit::Policy);
    assert!(ways.iter().all(|way| *way == Reach::Copied), "{ways:?}");
    play(Role::Initiator, Limit::Policy);
}

#[test]
fn an_owner_without_the_right_copies() {
    // Who is not root cannot lose it towards a process of the same user; see the next test.
    if is_root() {
        let ways = play(Role::Owner, Limit::NoRight);
        assert!(ways.iter().all(|way| *way == Reach::Copied), "{ways:?}");
    }
}

#[test]
fn an_initiator_that_cannot_be_reached_is_served() {
    play(Role::Initiator, Limit::Closed);
}

#[test]
fn an_initiator_that_dies_in_the_middle_is_parted_from() {
    let (port, mut process) = start(Role::Initiator, Limit::Dies);
    let mut memory = pattern(1, LEN);
    let region = expose(&port.endpoint, &mut memory);
    give_key(&port, &region);
    until("the end of the child", || {
        port.endpoint.progress().expect("progress");
        port.endpoint.peers().expect("an open endpoint").is_empty()
    });
    assert!(process.wait().expect("its end").success());
    drop(region);
    assert!(memory == pattern(1, LEN));
}

/// Two endpoints of this process that may reach into its memory by its number.
fn pair() -> (Port, Port) {
    let (a, b) = local::pair().expect("a channel");
    let join = |number, ends: ChannelEnds| {
        let endpoint = lonely(number);
        let ends = ChannelEnds { liveness: Some(handle_of(getpid())), process_vm: true, ..ends };
        let peer: PeerId = endpoint.adopt(ends).expect("a usable end");
        Port { endpoint, peer }
    };
    (join(0, a), join(1, b))
}

#[test]
fn a_buffer_is_the_programs_again_when_it_has_disconnected() {
    const BIG: usize = 32 << 20;
    let mut memory = vec![1_u8; BIG];
    let mut buffer = vec![0_u8; BIG];
    let mut cut = 0;
    for round in 0..20 {
        let (initiator, owner) = pair();
        let region = expose(&owner.endpoint, &mut memory);
        let key = *region.key();
        std::thread::scope(|scope| {
            let owner = &owner;
            let serving = scope.spawn(move || {
                until("the end of the peer", || {
                    owner.endpoint.progress().expect("progress");
                    owner.endpoint.peers().expect("an open endpoint").is_empty()
                });
            });
            let sent = read(&initiator, &key, 0, &mut buffer).expect("a read");
            let Sent::Pending(request) = sent else { panic!("at once") };
            let polls = 10 * round;
            for _ in 0..polls {
                initiator.endpoint.progress().expect("progress");
            }
            initiator.endpoint.disconnect(initiator.peer).expect("a peer");
            let ended = initiator.endpoint.test(request).expect("a request").expect("its end");
            cut += usize::from(ended.code == StatusCode::EndpointClosed);
            // Few, so that a copy that goes on comes after some of them.
            let marks = || (0..BIG).step_by(64 << 10);
            marks().for_each(|at| buffer[at] = 2);
            serving.join().expect("the owner");
            assert!(marks().all(|at| buffer[at] == 2), "the owner went on writing");
        });
        drop(region);
    }
    assert!(cut > 0, "every read was complete before it was given up");
}

#[test]
fn a_revoked_region_is_not_written_any_more() {
    let (initiator, owner) = pair();
    let mut memory = vec![1_u8; 32 << 20];
    let bytes = vec![2_u8; 32 << 20];
    let region = expose(&owner.endpoint, &mut memory);
    let key = *region.key();
    let Sent::Pending(request) = write(&initiator, &key, 0, &bytes).expect("a write") else {
        panic!("at once")
    };
    until("the first stretches", || {
        owner.endpoint.progress().expect("progress");
        initiator.endpoint.progress().expect("progress");
        memory[1 << 20] == 2
    });
    region.revoke().expect("taken back");
    memory.fill(3);
    until("the answer", || {
        owner.endpoint.progress().expect("progress");
        initiator.endpoint.progress().expect("progress");
        initiator.endpoint.is_complete(request).expect("a request")
    });
    let status = initiator.endpoint.test(request).expect("a request").expect("its end");
    assert_eq!(status.code, StatusCode::Revoked);
    assert!(memory.iter().all(|byte| *byte == 3));
}
