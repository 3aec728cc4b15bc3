// SPDX-License-Identifier: Apache-2.0
//! A whole endpoint over a file whose owner writes anything at any time.

use std::sync::Arc;

use diolkos::{Endpoint, Envelope, PeerId, RequestId, Selector, Sent, Sink, Source, Space};
use diolkos_island::local;
use diolkos_shm::words::Words;

use crate::Script;
use crate::ring::scribble;

const LENGTHS: [usize; 6] = [0, 8, 100, 5000, 60_000, 200_000];

struct Victim {
    endpoint: Endpoint,
    liar: PeerId,
    /// Requests, and the buffers that they use.
    open: Vec<(RequestId, Vec<u8>)>,
}

/// The endpoint never panics or hangs, and parting from the liar ends what waits for it.
pub fn channel(data: &[u8]) {
    let mut script = Script::new(data);
    let (own, liar) = local::pair().expect("a channel");
    let file = Words::new(Arc::new(liar.outgoing));
    let [(endpoint, honest), (other, _)] = Endpoint::local_pair().expect("two endpoints");
    let liar = endpoint.adopt(own).expect("a usable end");
    let mut victim = Victim { endpoint, liar, open: Vec::new() };
    while !script.is_empty() {
        match script.byte() % 8 {
            0..=3 => scribble(&file, &mut script),
            4 => victim.endpoint.progress().expect("an open endpoint"),
            5 => victim.receive(LENGTHS[script.below(6)]),
            6 => victim.send(LENGTHS[script.below(6)]),
            _ => victim.test_all(),
        }
        assert!(victim.endpoint.counters().expect("an open endpoint").unexpected <= 1024);
    }
    let _ = victim.endpoint.disconnect(liar);
    victim.test_all();
    assert!(victim.open.is_empty(), "requests to a liar live on");
    exchange(&victim.endpoint, honest, &other);
}

impl Victim {
    fn receive(&mut self, len: usize) {
        let mut buffer = vec![0; len];
        // SAFETY: the buffer is kept with its request, and leaked if the request never ends.
        let sink = unsafe { Sink::from_raw(buffer.as_mut_ptr(), len) };
        let from =
            Selector { match_info: 0, mask: 0, source: Some(self.liar), space: Space::Tagged };
        if let Ok(request) = self.endpoint.irecv(sink, &from) {
            self.open.push((request, buffer));
        }
    }

    fn send(&mut self, len: usize) {
        let buffer = vec![7; len];
        // SAFETY: as in `receive`.
        let source = unsafe { Source::from_raw(buffer.as_ptr(), len) };
        if let Ok(Sent::Pending(request)) =
            self.endpoint.isend(source, self.liar, &Envelope::default())
        {
            self.open.push((request, buffer));
        }
    }

    fn test_all(&mut self) {
        let endpoint = &self.endpoint;
        self.open.retain(|(request, _)| endpoint.test(*request).expect("a request").is_none());
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // A failed run must not free what a request may still use.
        if !self.open.is_empty() {
            std::mem::forget(std::mem::take(&mut self.open));
        }
    }
}

/// The honest peer beside the liar is served.
fn exchange(victim: &Endpoint, honest: PeerId, other: &Endpoint) {
    let text = *b"as if nothing had happened";
    let mut buffer = [0_u8; 26];
    let back = other.peers().expect("an open endpoint")[0];
    // SAFETY: both outlive the loop below, which ends with the receive.
    let (source, sink) =
        unsafe { (Source::from_raw(text.as_ptr(), 26), Sink::from_raw(buffer.as_mut_ptr(), 26)) };
    let from = Selector { match_info: 0, mask: 0, source: Some(honest), space: Space::Tagged };
    let request = victim.irecv(sink, &from).expect("a receive");
    assert_eq!(other.isend(source, back, &Envelope::default()).expect("a send"), Sent::Done);
    for _ in 0..100 {
        if victim.test(request).expect("a request").is_some() {
            assert_eq!(buffer, text);
            return;
        }
    }
    panic!("the honest peer's message never came");
}
