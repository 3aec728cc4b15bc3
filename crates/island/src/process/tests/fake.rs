// SPDX-License-Identifier: Apache-2.0
//! The fake backend, its socket and the channel ends that it grants.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use diolkos_shm::layout::{CHANNEL_FILE_BYTES, HOME_FILE_BYTES, header_bytes};
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown,
    SocketAddrUnix, SocketFlags, SocketType,
};
use serde_json::{Value, json};

use super::super::*;

/// A private directory that goes away with the test.
pub struct Place(pub PathBuf);

impl Place {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("dio-{}-{count}", std::process::id()));
        rustix::fs::mkdir(&path, Mode::RWXU).unwrap();
        Self(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Listens where a backend would.
pub struct FakeBackend {
    pub listener: OwnedFd,
}

/// One accepted connection.
pub struct Served {
    pub socket: OwnedFd,
}

// Other tests fork, and for a moment their children have all our descriptors too: closing one says
// nothing then, shutting the socket down does.
impl Drop for FakeBackend {
    fn drop(&mut self) {
        let _ = rustix::net::shutdown(&self.listener, Shutdown::Both);
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Both);
    }
}

impl FakeBackend {
    pub fn listen(place: &Place) -> Self {
        let path = place.0.join("backend.sock");
        let _ = std::fs::remove_file(&path);
        let listener = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        rustix::net::bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        rustix::net::listen(&listener, 16).unwrap();
        Self { listener }
    }

    pub fn accept(&self) -> Served {
        Served { socket: rustix::net::accept(&self.listener).unwrap() }
    }

    /// Accepts one connection and answers its open as number 1, from a thread of its own.
    pub fn serve_open(self) -> std::thread::JoinHandle<(Self, Served)> {
        std::thread::spawn(move || {
            let served = self.accept();
            let open = served.expect("open");
            served.welcome(&open, 100);
            (self, served)
        })
    }
}

impl Served {
    pub fn expect(&self, kind: &str) -> Value {
        let mut buffer = vec![0; 1 << 16];
        let (count, _) =
            rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::empty()).unwrap();
        let packet: Value = serde_json::from_slice(&buffer[..count]).unwrap();
        assert_eq!(packet["type"], kind, "{packet}");
        packet
    }

    pub fn send(&self, packet: &Value, descriptors: &[&OwnedFd]) {
        self.send_raw(&serde_json::to_vec(packet).unwrap(), descriptors);
    }

    pub fn send_raw(&self, bytes: &[u8], descriptors: &[&OwnedFd]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(32))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(|fd| fd.as_fd()).collect();
        if !descriptors.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
        }
        let parts = [IoSlice::new(bytes)];
        rustix::net::sendmsg(&self.socket, &parts, &mut control, SendFlags::empty()).unwrap();
    }

    pub fn welcome(&self, open: &Value, generation: u64) {
        let home = sealed(HOME_FILE_BYTES, &[]);
        self.send(
            &json!({
                "type": "opened", "id": open["id"], "number": 1, "name": "me",
                "partition": "default", "generation": generation, "limits": {"endpoints": 3},
            }),
            &[&home],
        );
    }

    /// Sends a packet with a proper end of channel `channel`.
    pub fn grant(&self, mut packet: Value, channel: u64) {
        let (outgoing, incoming, bell) = end(channel);
        packet["channel"] = json!(channel);
        packet["road"] = json!("direct");
        packet["reason"] = json!("because");
        self.send(&packet, &[&outgoing, &incoming, &bell, &bell]);
    }
}

pub fn sealed(len_bytes: usize, head: &[u8]) -> OwnedFd {
    let file =
        rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(&file, len_bytes as u64).unwrap();
    rustix::io::pwrite(&file, head, 0).unwrap();
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW).unwrap();
    file
}

pub fn read_only(file: &OwnedFd) -> OwnedFd {
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file));
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

pub fn end(channel: u64) -> (OwnedFd, OwnedFd, OwnedFd) {
    let outgoing = sealed(CHANNEL_FILE_BYTES, &header_bytes(channel, 0));
    let incoming = read_only(&sealed(CHANNEL_FILE_BYTES, &header_bytes(channel, 1)));
    (outgoing, incoming, doorbell())
}

pub fn doorbell() -> OwnedFd {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .unwrap()
        .0
}

pub fn options(place: &Place) -> OpenOptions {
    OpenOptions {
        name: Some("me".into()),
        number: None,
        partition: "default".into(),
        key: None,
        runtime_dir: Some(place.0.clone()),
        backend_command: Vec::new(),
        start_timeout: Duration::from_secs(10),
    }
}

pub fn opened(place: &Place) -> (ProcessIsland, FakeBackend, Served) {
    let serving = FakeBackend::listen(place).serve_open();
    let island = ProcessIsland::open(&options(place)).unwrap();
    let (backend, served) = serving.join().unwrap();
    (island, backend, served)
}

pub fn connect(island: &mut ProcessIsland, ticket: u32, timeout_ms: Option<u32>) {
    island.connect(ticket, &Target::Name("peer".into()), None, timeout_ms, None).unwrap();
}

pub const PEER: &str = r#"{"number": 7, "name": "peer"}"#;

pub fn peer() -> Value {
    serde_json::from_str(PEER).unwrap()
}
