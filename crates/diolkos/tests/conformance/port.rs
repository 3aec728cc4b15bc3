// SPDX-License-Identifier: Apache-2.0
//! An endpoint with one peer, and buffers that live as long as the requests that use them.

use std::time::{Duration, Instant};

use diolkos::{
    Endpoint, Envelope, Error, OpenOptions, PeerId, RequestId, Selector, Sent, Sink, Source, Space,
    Status, StatusCode,
};
use diolkos_island::local::Alone;

use crate::Maker;

/// After this long a test has hung; far more than any wait on a loaded machine.
pub const HUNG: Duration = Duration::from_secs(30);

/// An endpoint and one of its peers.
#[derive(Clone)]
pub struct Port {
    pub endpoint: Endpoint,
    pub peer: PeerId,
}

/// Two endpoints joined by a channel of this maker.
pub fn pair(make: Maker) -> (Port, Port) {
    let (a, b) = (lonely(0), lonely(1));
    join(make, &a, &b)
}

/// Joins two endpoints by a further channel.
pub fn join(make: Maker, a: &Endpoint, b: &Endpoint) -> (Port, Port) {
    let (a_end, b_end) = make().expect("a channel");
    let to_b = a.adopt(a_end).expect("a usable end");
    let to_a = b.adopt(b_end).expect("a usable end");
    (Port { endpoint: a.clone(), peer: to_b }, Port { endpoint: b.clone(), peer: to_a })
}

/// An endpoint without peers or a backend.
pub fn lonely(number: u32) -> Endpoint {
    Endpoint::on_island(Box::new(Alone::new(number)), &OpenOptions::default()).expect("an endpoint")
}

/// `len` bytes that belong to this number and no other.
pub fn pattern(number: u64, len: usize) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = vec![0; len];
    for chunk in bytes.chunks_mut(8) {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(number | 1);
        chunk.copy_from_slice(&(state ^ state >> 29).to_le_bytes()[..chunk.len()]);
    }
    bytes
}

/// Exactly this match info, from anybody.
pub fn tag(match_info: u64) -> Selector {
    Selector { match_info, mask: u64::MAX, source: None, space: Space::Tagged }
}

/// Anything from anybody.
pub fn anything() -> Selector {
    Selector { match_info: 0, mask: 0, source: None, space: Space::Tagged }
}

/// An envelope with this match info and nothing else.
pub fn info(match_info: u64) -> Envelope {
    Envelope { match_info, ..Envelope::default() }
}

/// A buffer that a request may be using. Dropped too early it is leaked, never freed.
pub struct Lent {
    pub request: Option<RequestId>,
    bytes: Vec<u8>,
}

impl Lent {
    /// Waits for the end of the request.
    pub fn wait(mut self, endpoint: &Endpoint) -> (Option<Status>, Vec<u8>) {
        let status = self.request.take().map(|request| wait(endpoint, request));
        (status, std::mem::take(&mut self.bytes))
    }

    /// The end of the request, if it has come.
    pub fn test(&mut self, endpoint: &Endpoint) -> Option<Status> {
        let status = endpoint.test(self.request?).expect("a request that exists");
        if status.is_some() {
            self.request = None;
        }
        status
    }

    /// The request came to its end in another way.
    pub fn ended(mut self) -> Vec<u8> {
        self.request = None;
        std::mem::take(&mut self.bytes)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if self.request.is_some() {
            std::mem::forget(std::mem::take(&mut self.bytes));
        }
    }
}

/// Waits for a request, and fails the test when it hangs.
pub fn wait(endpoint: &Endpoint, request: RequestId) -> Status {
    let deadline = Instant::now() + HUNG;
    loop {
        match endpoint.wait(request, Some(deadline)) {
            Ok(Some(status)) => return status,
            Ok(None) => panic!("a wait hung"),
            Err(Error::Interrupted) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Waits until `done`, looking again and again without sleeping.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + HUNG;
    while !done() {
        assert!(Instant::now() < deadline, "{what} never happened");
        std::thread::yield_now();
    }
}

/// Waits until another thread has fallen asleep on the endpoint once more.
pub fn until_asleep(endpoint: &Endpoint, sleeps_before: u64) {
    until("sleep", || endpoint.counters().expect("counters").sleeps > sleeps_before);
}

impl Port {
    /// Starts a send of these bytes.
    pub fn try_isend(&self, bytes: Vec<u8>, envelope: &Envelope) -> Result<Lent, Error> {
        self.isend_to(self.peer, bytes, envelope)
    }

    pub fn isend_to(
        &self,
        peer: PeerId,
        bytes: Vec<u8>,
        envelope: &Envelope,
    ) -> Result<Lent, Error> {
        // SAFETY: the memory is owned by the `Lent`, which frees it only after the request ended.
        let source = unsafe { Source::from_raw(bytes.as_ptr(), bytes.len()) };
        let request = match self.endpoint.isend(source, peer, envelope)? {
            Sent::Done => None,
            Sent::Pending(request) => Some(request),
        };
        Ok(Lent { request, bytes })
    }

    pub fn isend(&self, number: u64, len: usize, match_info: u64) -> Lent {
        self.try_isend(pattern(number, len), &info(match_info)).expect("a send")
    }

    /// Sends and waits until the buffer is free again.
    pub fn send(&self, number: u64, len: usize, match_info: u64) {
        let (status, _) = self.isend(number, len, match_info).wait(&self.endpoint);
        if let Some(status) = status {
            assert_eq!(status.code, StatusCode::Success);
        }
    }

    pub fn try_irecv(&self, room: usize, selector: &Selector) -> Result<Lent, Error> {
        let mut bytes = vec![0xee; room];
        // SAFETY: as in `isend_to`; nothing else touches the memory meanwhile.
        let sink = unsafe { Sink::from_raw(bytes.as_mut_ptr(), room) };
        let request = self.endpoint.irecv(sink, selector)?;
        Ok(Lent { request: Some(request), bytes })
    }

    pub fn irecv(&self, room: usize, selector: &Selector) -> Lent {
        self.try_irecv(room, selector).expect("a receive")
    }

    /// Receives exactly this message, to the byte.
    pub fn receive(&self, number: u64, len: usize, selector: &Selector) {
        let (status, bytes) = self.irecv(len, selector).wait(&self.endpoint);
        expect(&status.expect("a receive has a request"), &bytes, number, len);
    }

    /// Hands a buffer to a call that posts it, and keeps it until the end.
    pub fn lend<T>(
        &self,
        room: usize,
        post: impl FnOnce(&Endpoint, Sink) -> Result<T, Error>,
        request: impl FnOnce(&T) -> RequestId,
    ) -> Lent {
        let mut bytes = vec![0xee; room];
        // SAFETY: as in `try_irecv`.
        let sink = unsafe { Sink::from_raw(bytes.as_mut_ptr(), room) };
        let posted = post(&self.endpoint, sink).expect("a buffer");
        Lent { request: Some(request(&posted)), bytes }
    }

    pub fn sleeps(&self) -> u64 {
        self.endpoint.counters().expect("counters").sleeps
    }
}

/// A receive took exactly this message.
pub fn expect(status: &Status, bytes: &[u8], number: u64, len: usize) {
    assert_eq!(status.code, StatusCode::Success);
    assert_eq!(status.message_bytes, len as u64);
    assert_eq!(status.transferred_bytes, len as u64);
    assert!(bytes == pattern(number, len), "message {number} of {len} bytes was garbled");
}
