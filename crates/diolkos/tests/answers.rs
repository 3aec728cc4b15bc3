// SPDX-License-Identifier: Apache-2.0
//! Connects that end when the peer has taken its end of the channel in, and not before: a peer may be
//! stopped, take it in while the connecter sleeps, or go without a word.
//!
//! The island here introduces at once, as a backend does, and keeps the peer's end in a drawer.

#[path = "conformance/port.rs"]
#[allow(dead_code, reason = "the conformance suite uses the rest")]
mod port;

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};
use std::thread;

use diolkos::{Endpoint, IslandError, OpenOptions, RequestId, Road, Status, StatusCode, Target};
use diolkos_island::{ChannelEnds, Event, Identity, Island, local};
use diolkos_shm::words::Words;
use diolkos_shm::{Producer, Region};
use port::{lonely, until, until_asleep, wait};

/// As in the conformance suite, whose harness this borrows.
pub type Maker = fn() -> Result<(ChannelEnds, ChannelEnds), IslandError>;

const ROUNDS: usize = 200;

/// What the backend of one endpoint has to say, and the peers' ends that it has not handed over.
#[derive(Default)]
struct Office {
    events: VecDeque<Event>,
    drawer: Vec<ChannelEnds>,
    channel: u64,
}

struct Introducer {
    identity: Identity,
    office: Arc<Mutex<Office>>,
}

impl Island for Introducer {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn home(&self) -> Option<&Arc<Region>> {
        None
    }

    fn connect(
        &mut self,
        ticket: u32,
        _: &Target,
        _: Option<Road>,
        _: Option<u32>,
        _: Option<u32>,
    ) -> Result<(), IslandError> {
        let (ours, theirs) = local::pair()?;
        let mut office = self.office.lock().unwrap();
        office.channel = ours.channel;
        office.events.push_back(Event::Connected { ticket, ends: Box::new(ours) });
        office.drawer.push(theirs);
        Ok(())
    }

    fn cancel(&mut self, _: u32) {}

    fn disconnect(&mut self, _: u64) {}

    fn poll_event(&mut self, _: u64) -> Option<Event> {
        self.office.lock().unwrap().events.pop_front()
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// An endpoint that asks for an answer, and its backend.
fn connecter() -> (Endpoint, Arc<Mutex<Office>>) {
    let office = Arc::new(Mutex::new(Office::default()));
    let identity = Identity { number: 0, name: "near".into(), partition: "local".into() };
    let island = Introducer { identity, office: Arc::clone(&office) };
    let endpoint = Endpoint::on_island(Box::new(island), &OpenOptions::default());
    (endpoint.expect("an endpoint"), office)
}

fn ask(endpoint: &Endpoint) -> RequestId {
    let asked = endpoint.inside(|inside| inside.iconnect(&Target::Number(1), None, 0, 7, true));
    asked.expect("an open endpoint").expect("a request")
}

/// Polls until the channel is there, which must not complete the connect.
fn introduced(endpoint: &Endpoint, request: RequestId) {
    until("an introduction", || {
        assert!(endpoint.test(request).expect("a request that exists").is_none());
        !endpoint.peers().expect("an open endpoint").is_empty()
    });
    for _ in 0..100 {
        assert!(endpoint.test(request).expect("a request that exists").is_none());
    }
}

fn their_end(office: &Mutex<Office>) -> ChannelEnds {
    office.lock().unwrap().drawer.pop().expect("an end")
}

fn polled(endpoint: &Endpoint, request: RequestId) -> Status {
    let mut found = None;
    until("an answer", || {
        found = endpoint.test(request).expect("a request that exists");
        found.is_some()
    });
    found.expect("just found")
}

#[test]
fn a_connect_ends_when_the_peer_has_taken_the_channel_in() {
    let (near, office) = connecter();
    let request = ask(&near);
    introduced(&near, request);
    let far = lonely(1);
    far.adopt(their_end(&office)).expect("a usable end");
    let status = polled(&near, request);
    assert_eq!((status.code, status.match_info), (StatusCode::Success, 7));
    assert_eq!(near.peers().unwrap(), [status.source]);
    // The next one has its answer already.
    let again = ask(&near);
    assert_eq!(near.test(again).unwrap().expect("an answer").source, status.source);
}

#[test]
fn a_second_connect_waits_as_the_first_one_does() {
    let (near, office) = connecter();
    let first = ask(&near);
    introduced(&near, first);
    let second = ask(&near);
    assert!(near.test(second).unwrap().is_none());
    assert_eq!(office.lock().unwrap().drawer.len(), 1);
    let far = lonely(1);
    far.adopt(their_end(&office)).expect("a usable end");
    assert_eq!(polled(&near, second).source, polled(&near, first).source);
}

#[test]
fn a_sleeping_connecter_is_rung_for() {
    for round in 0..ROUNDS {
        let (near, office) = connecter();
        let request = ask(&near);
        introduced(&near, request);
        let before = near.counters().unwrap().sleeps;
        let waiter = {
            let near = near.clone();
            thread::spawn(move || wait(&near, request))
        };
        // Asleep, and on the way there.
        if round % 2 == 0 {
            until_asleep(&near, before);
        }
        let far = lonely(1);
        far.adopt(their_end(&office)).expect("a usable end");
        assert_eq!(waiter.join().expect("no panic").code, StatusCode::Success);
    }
}

#[test]
fn whoever_waits_on_the_descriptor_is_rung_for() {
    let (near, office) = connecter();
    let request = ask(&near);
    introduced(&near, request);
    assert!(!near.arm().unwrap());
    let far = lonely(1);
    far.adopt(their_end(&office)).expect("a usable end");
    let descriptor = near.descriptor();
    let mut watched = [rustix::event::PollFd::new(&descriptor, rustix::event::PollFlags::IN)];
    let limit = port::HUNG.try_into().unwrap();
    assert_eq!(rustix::event::poll(&mut watched, Some(&limit)).unwrap(), 1);
    near.disarm().unwrap();
    assert!(near.is_complete(request).unwrap());
}

#[test]
fn a_peer_that_goes_without_an_answer_ends_the_connect() {
    for says_so in [true, false] {
        let (near, office) = connecter();
        let request = ask(&near);
        introduced(&near, request);
        let waiter = {
            let near = near.clone();
            thread::spawn(move || polled(&near, request))
        };
        let theirs = their_end(&office);
        if says_so {
            let words = |region| Words::new(Arc::new(region));
            Producer::new(words(theirs.outgoing), words(theirs.incoming), 0).close();
        } else {
            let mut office = office.lock().unwrap();
            let channel = office.channel;
            office.events.push_back(Event::Gone { channel, reason: "it was killed".into() });
        }
        let code = if says_so { StatusCode::PeerClosed } else { StatusCode::PeerDied };
        assert_eq!(waiter.join().expect("no panic").code, code);
    }
}

#[test]
fn what_is_cancelled_expired_or_closed_waits_no_more() {
    let (near, office) = connecter();
    let request = ask(&near);
    introduced(&near, request);
    assert_eq!(near.inside(|inside| inside.cancel(request, false)).unwrap().ok(), Some(true));
    let kept = ask(&near);
    assert_eq!(near.inside(|inside| inside.cancel(kept, true)).unwrap().ok(), Some(true));
    assert_eq!(near.test(kept).unwrap().expect("an end").code, StatusCode::Cancelled);
    let expired = ask(&near);
    near.inside(|inside| inside.expire_connect(expired)).unwrap();
    assert_eq!(near.test(expired).unwrap().expect("an end").code, StatusCode::Refused);
    // None of them is answered late, whoever has their places in the table now.
    let mut byte = 0_u8;
    // SAFETY: the endpoint is closed before the byte goes.
    let sink = unsafe { diolkos::Sink::from_raw(&raw mut byte, 1) };
    let receive = near.irecv(sink, &port::tag(1)).unwrap();
    let waiting = ask(&near);
    let far = lonely(1);
    far.adopt(their_end(&office)).expect("a usable end");
    let status = polled(&near, waiting);
    assert_eq!(status.code, StatusCode::Success);
    assert!(near.test(receive).unwrap().is_none());
    near.disconnect(status.source).unwrap();
    introduced(&near, ask(&near));
    near.close();
}

#[test]
fn two_that_connect_to_each_other_at_once_answer_each_other() {
    for _ in 0..ROUNDS {
        let (near, office) = connecter();
        let (far, other_office) = connecter();
        let (ours, theirs) = local::pair().unwrap();
        let requests = [&near, &far].map(|endpoint| {
            // Both have asked when the one channel comes.
            let asked = ask(endpoint);
            let office = if std::ptr::eq(endpoint, &near) { &office } else { &other_office };
            let mut office = office.lock().unwrap();
            office.events.clear();
            office.drawer.clear();
            asked
        });
        // Tickets are counted from 1.
        let connected = Event::Connected { ticket: 1, ends: Box::new(ours) };
        office.lock().unwrap().events.push_back(connected);
        let channel = theirs.channel;
        let mut there = other_office.lock().unwrap();
        there.events.push_back(Event::Introduced(Box::new(theirs)));
        there.events.push_back(Event::AlreadyConnected { ticket: 1, channel });
        drop(there);
        let waiters = [(near, requests[0]), (far, requests[1])]
            .map(|(endpoint, request)| thread::spawn(move || (wait(&endpoint, request), endpoint)));
        // An endpoint that has its answer stays until the other one has it too.
        let ended = waiters.map(|waiter| waiter.join().expect("no panic"));
        for (status, _endpoint) in &ended {
            assert_eq!(status.code, StatusCode::Success);
        }
    }
}
