// SPDX-License-Identifier: Apache-2.0
//! Two endpoints, a relay between them, and everything an endpoint may do to it.
//!
//! ```text
//!   near <== channel ==> relay <== channel ==> far
//! ```

use std::process::{Child, Command as Program, Stdio};
use std::time::{Duration, Instant};

use diolkos_island::{Doorbell, local};
use diolkos_shm::barrier::Barrier;
use diolkos_shm::doorbell::{PeerSleep, SleepFlag};
use diolkos_shm::layout::{
    AREA_BYTES, CELL_COUNT, WORD_CELLS, WORD_CONSUMED, WORD_CREDIT_BYTES, WORD_CREDIT_MESSAGES,
};
use diolkos_shm::words::Words;
use diolkos_shm::{Cell, Consumer, Producer, PushError};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::*;
use crate::side::PAYLOAD_BYTES_MAX;

const PATIENCE: Duration = Duration::from_secs(20);

/// An endpoint that knows rings and nothing else. It sleeps as a real one does.
struct Endpoint {
    producer: Producer,
    consumer: Consumer,
    sleep: SleepFlag,
    peer_sleep: PeerSleep,
    outgoing: Words,
    doorbell: Doorbell,
}

impl Endpoint {
    fn new(ends: ChannelEnds) -> Self {
        let outgoing = Words::new(Arc::new(ends.outgoing));
        let incoming = Words::new(Arc::new(ends.incoming));
        Self {
            producer: Producer::new(outgoing.clone(), incoming.clone(), 1 << 18),
            consumer: Consumer::new(incoming.clone(), outgoing.clone()),
            sleep: SleepFlag::new(outgoing.clone()),
            peer_sleep: PeerSleep::new(incoming),
            outgoing,
            doorbell: ends.doorbell,
        }
    }

    /// Sends a numbered message if there is room.
    fn try_send(&mut self, number: u64, payload: &[u8]) -> bool {
        let mut cell = Cell { kind: 3, flags: 5, words: [number, !number, 7], ..Cell::default() };
        let pushed = if payload.len() <= 32 {
            for (i, byte) in payload.iter().enumerate() {
                cell.body[i / 8] |= u64::from(*byte) << (i % 8 * 8);
            }
            cell.inline_len = payload.len() as u16;
            self.producer.push(&cell)
        } else {
            let fill = |sink: diolkos_shm::Sink| {
                sink.write(0, payload);
            };
            self.producer.push_with(&cell, payload.len(), fill)
        };
        match pushed {
            Ok(()) => {}
            Err(PushError::Full) => return false,
            Err(PushError::Peer(fault)) => panic!("{fault}"),
        }
        Barrier::of_this_process().light();
        if self.peer_sleep.must_ring() {
            self.doorbell.ring();
        }
        true
    }

    fn ask_window(&mut self, window: u64) {
        self.consumer.ask_window(window);
        Barrier::of_this_process().light();
        if self.peer_sleep.must_ring() {
            self.doorbell.ring();
        }
    }

    /// Takes a message if one is there.
    fn try_receive(&mut self) -> Option<(u64, Vec<u8>)> {
        let cell = self.consumer.peek()?;
        assert_eq!((cell.kind, cell.flags & 0x7f, cell.words[2]), (3, 5, 7));
        assert_eq!(cell.words[1], !cell.words[0]);
        let mut payload = Vec::new();
        match self.consumer.payload(&cell).unwrap() {
            Some(place) => self.consumer.append_payload(place, &mut payload),
            None => payload.extend(
                (0..usize::from(cell.inline_len)).map(|i| (cell.body[i / 8] >> (i % 8 * 8)) as u8),
            ),
        }
        self.consumer.pop(payload.len());
        self.tell();
        Some((cell.words[0], payload))
    }

    fn tell(&mut self) {
        if self.consumer.tell() {
            Barrier::of_this_process().light();
            if self.peer_sleep.wants_room() {
                self.doorbell.ring();
            }
        }
    }

    /// Repeats `attempt` until it gives something, asleep in between.
    fn until<T>(&mut self, mut attempt: impl FnMut(&mut Self) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(result) = attempt(self) {
                return result;
            }
            self.sleep.raise(true);
            Barrier::of_this_process().heavy();
            if let Some(result) = attempt(self) {
                self.sleep.lower();
                return result;
            }
            let left = deadline.saturating_duration_since(Instant::now()).try_into().unwrap();
            let bell = &mut [PollFd::new(&self.doorbell, PollFlags::IN)];
            assert_ne!(poll(bell, Some(&left)).unwrap(), 0, "nobody rang");
            self.doorbell.silence();
            self.sleep.lower();
        }
    }

    fn send(&mut self, number: u64, payload: &[u8]) {
        self.until(|endpoint| endpoint.try_send(number, payload).then_some(()));
    }

    fn receive(&mut self) -> (u64, Vec<u8>) {
        self.until(Self::try_receive)
    }

    fn expect_close(&mut self) {
        self.until(|endpoint| endpoint.consumer.peer_is_closing().then_some(()));
    }
}

/// A relay and its two endpoints; `far` may be of another process.
fn joined(far_process: Option<OwnedFd>) -> (Endpoint, Relay, Endpoint) {
    let (near, near_inner) = local::pair().unwrap();
    let (far, mut far_inner) = local::pair().unwrap();
    far_inner.liveness = far_process;
    (Endpoint::new(near), Relay::start(near_inner, far_inner).unwrap(), Endpoint::new(far))
}

fn expect_end(relay: &mut Relay) {
    let thread = relay.thread.take().unwrap();
    thread.join().unwrap();
}

fn pattern(number: u64, len_bytes: usize) -> Vec<u8> {
    (0..len_bytes).map(|i| (i as u64 * 31).wrapping_add(number.wrapping_mul(17)) as u8).collect()
}

/// The next message, which must be this one. (Payloads are too long to be printed.)
fn expect(endpoint: &mut Endpoint, number: u64, expected: &[u8]) {
    let (came, payload) = endpoint.receive();
    assert_eq!((came, payload.len()), (number, expected.len()));
    assert!(payload == expected, "payload of {} bytes was changed", expected.len());
}

/// Lengths around every boundary that a payload meets on its way.
const LENGTHS: [usize; 14] =
    [0, 1, 8, 31, 32, 33, 64, 1023, 1024, 1025, 4096, 16384, 24575, PAYLOAD_BYTES_MAX];

#[test]
fn messages_of_every_length_arrive_unchanged_and_in_order_both_ways() {
    let (mut near, _relay, mut far) = joined(None);
    for (number, len) in LENGTHS.into_iter().enumerate() {
        let number = number as u64;
        near.send(number, &pattern(number, len));
        expect(&mut far, number, &pattern(number, len));
        far.send(number, &pattern(!number, len));
        expect(&mut near, number, &pattern(!number, len));
    }
}

#[test]
fn a_slow_reader_holds_up_its_sender_and_loses_nothing() {
    let (mut near, _relay, mut far) = joined(None);
    let mut sent = 0;
    while near.try_send(sent, &pattern(sent, 5000)) {
        sent += 1;
    }
    let reader = std::thread::spawn(move || {
        for number in 0..5000 {
            expect(&mut far, number, &pattern(number, 5000));
        }
        far
    });
    for number in sent..5000 {
        near.send(number, &pattern(number, 5000));
    }
    reader.join().unwrap();
}

#[test]
fn both_ways_at_once_under_load() {
    let (mut near, _relay, mut far) = joined(None);
    let exchange = |endpoint: &mut Endpoint| {
        let (mut sent, mut received) = (0, 0);
        while received < 3000 {
            endpoint.until(|endpoint| {
                let mut moved = false;
                while sent < 3000 && endpoint.try_send(sent, &pattern(sent, sent as usize % 3000)) {
                    sent += 1;
                    moved = true;
                }
                while let Some((number, payload)) = endpoint.try_receive() {
                    assert_eq!(number, received);
                    assert!(payload == pattern(number, number as usize % 3000));
                    received += 1;
                    moved = true;
                }
                moved.then_some(())
            });
        }
        endpoint.until(|endpoint| {
            while sent < 3000 && endpoint.try_send(sent, &pattern(sent, sent as usize % 3000)) {
                sent += 1;
            }
            (sent == 3000).then_some(())
        });
    };
    std::thread::scope(|scope| {
        scope.spawn(|| exchange(&mut near));
        scope.spawn(|| exchange(&mut far));
    });
}

#[test]
fn credit_comes_back_to_who_gave_it() {
    let (mut near, _relay, mut far) = joined(None);
    near.send(0, b"x");
    far.receive();
    for round in 1..=3_u64 {
        far.consumer.return_credits(1000, 2);
        far.tell();
        let expected = (round * 1000, round * 2);
        near.until(|near| (near.producer.credits_returned() == expected).then_some(()));
    }
}

#[test]
fn the_first_wish_of_an_endpoint_wakes_the_other_one_that_sleeps_for_it() {
    let (mut near, _relay, mut far) = joined(None);
    let waiter = std::thread::spawn(move || {
        near.until(|near| (near.producer.window_wish() == 300_000).then_some(()));
        near
    });
    far.ask_window(300_000);
    let mut near = waiter.join().unwrap();
    // A later wish rides along with what comes anyway.
    far.ask_window(400_000);
    far.send(0, b"x");
    near.receive();
    near.until(|near| (near.producer.window_wish() == 400_000).then_some(()));
    assert_eq!(far.producer.window_wish(), 0);
}

#[test]
fn a_close_arrives_after_everything_before_it() {
    let (mut near, mut relay, mut far) = joined(None);
    for number in 0..100 {
        near.send(number, &pattern(number, 3000));
    }
    near.producer.close();
    near.doorbell.ring();
    for number in 0..100 {
        expect(&mut far, number, &pattern(number, 3000));
    }
    far.expect_close();
    near.expect_close();
    expect_end(&mut relay);
    assert!(!relay.is_alive());
}

fn sleeper() -> (Child, OwnedFd) {
    let child = Program::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
    let pid = Pid::from_raw(child.id() as i32).unwrap();
    let process = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    (child, process)
}

#[test]
fn a_death_arrives_after_everything_before_it() {
    let (mut child, process) = sleeper();
    let (mut near, mut relay, mut far) = joined(Some(process));
    for number in 0..100 {
        far.send(number, &pattern(number, 3000));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    for number in 0..100 {
        expect(&mut near, number, &pattern(number, 3000));
    }
    near.expect_close();
    expect_end(&mut relay);
}

#[test]
fn a_death_wakes_a_sleeping_relay() {
    let (mut child, process) = sleeper();
    let (mut near, mut relay, mut far) = joined(Some(process));
    near.send(0, b"ping");
    far.receive();
    child.kill().unwrap();
    child.wait().unwrap();
    near.expect_close();
    expect_end(&mut relay);
}

#[test]
fn stop_ends_it_though_a_reader_does_not_read() {
    let (mut near, mut relay, mut far) = joined(None);
    // More than the rings of both channels hold: the relay is stuck with the rest.
    let mut sent = 0;
    while near.try_send(sent, &pattern(sent, 20_000)) {
        sent += 1;
    }
    assert!(relay.is_alive());
    relay.stop();
    relay.stop();
    assert!(!relay.is_alive());
    near.expect_close();
    far.expect_close();
}

#[test]
fn finish_forwards_what_is_there_first() {
    let (mut near, mut relay, mut far) = joined(None);
    for number in 0..100 {
        near.send(number, &pattern(number, 3000));
    }
    relay.finish();
    for number in 0..100 {
        expect(&mut far, number, &pattern(number, 3000));
    }
    far.expect_close();
    expect_end(&mut relay);
}

#[test]
fn dropping_stops_it() {
    let (mut near, relay, mut far) = joined(None);
    drop(relay);
    near.expect_close();
    far.expect_close();
}

/// Each lie ends the relay, and the other endpoint sees a close.
#[test]
fn an_endpoint_that_breaks_the_rules_ends_its_channel_only() {
    let area_cell = |offset: usize, len: usize| {
        move |near: &mut Endpoint| {
            // By hand: the producer of an honest ring refuses to write such a cell.
            let place = offset as u64 | (len as u64) << 32;
            near.outgoing.store(WORD_CELLS + 4, place, Ordering::Relaxed);
            let head = 1 | 3 << 32 | u64::from(Cell::IN_AREA) << 40;
            near.outgoing.store(WORD_CELLS, head, Ordering::Release);
        }
    };
    type Lie = Box<dyn Fn(&mut Endpoint)>;
    let lies: [(&str, Lie); 7] = [
        ("a payload outside the area", Box::new(area_cell(AREA_BYTES, 1))),
        ("a payload that overflows", Box::new(area_cell(u32::MAX as usize, u32::MAX as usize))),
        ("a payload that is too long", Box::new(area_cell(0, PAYLOAD_BYTES_MAX + 1))),
        (
            "an inline length that is none",
            Box::new(|near| {
                let head = 1 | 3 << 32 | 33 << 48;
                near.outgoing.store(WORD_CELLS, head, Ordering::Release);
            }),
        ),
        (
            "cells read that were never written",
            Box::new(|near| {
                near.outgoing.store(WORD_CONSUMED, u64::MAX, Ordering::Release);
            }),
        ),
        (
            "credit bytes taken back",
            Box::new(|near| {
                near.outgoing.store(WORD_CREDIT_BYTES, 5, Ordering::Release);
            }),
        ),
        (
            "credit messages taken back",
            Box::new(|near| {
                near.outgoing.store(WORD_CREDIT_MESSAGES, 5, Ordering::Release);
            }),
        ),
    ];
    let (mut other_near, other_relay, mut other_far) = joined(None);
    for (what, lie) in lies {
        let (mut near, mut relay, mut far) = joined(None);
        lie(&mut near);
        near.doorbell.ring();
        if what.starts_with("credit") {
            // Given first, so that there is something to take back.
            far.until(|far| (far.producer.credits_returned() != (0, 0)).then_some(()));
            near.outgoing.store(WORD_CREDIT_BYTES, 0, Ordering::Release);
            near.outgoing.store(WORD_CREDIT_MESSAGES, 0, Ordering::Release);
            near.doorbell.ring();
        }
        if what.starts_with("cells read") {
            // It shows when the ring has gone round once and room is needed.
            for number in 0..=CELL_COUNT as u64 {
                far.send(number, b"x");
            }
        }
        far.expect_close();
        near.expect_close();
        expect_end(&mut relay);
        other_near.send(1, what.as_bytes());
        assert_eq!(other_far.receive(), (1, what.as_bytes().to_vec()));
    }
    assert!(other_relay.is_alive());
}

/// Random words over everything that an endpoint can write, and a relay that must end or go on.
#[test]
fn seeded_garbage_over_the_whole_outgoing_file() {
    let seed = std::env::var("DIOLKOS_FUZZ_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| u64::from(std::process::id()));
    println!("DIOLKOS_FUZZ_SEED={seed}");
    let mut state = seed | 1;
    let mut dice = move || {
        // xorshift64: Marsaglia, "Xorshift RNGs".
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..50 {
        let (near, mut relay, far) = joined(None);
        for _ in 0..200 {
            let word = match dice() % 4 {
                0 => 8 + dice() % 24,
                1 => WORD_CELLS as u64 + dice() % 64,
                _ => dice() % ((AREA_BYTES / 8) as u64),
            };
            let value = match dice() % 3 {
                0 => dice() % 4,
                1 => dice() % (1 << 34),
                _ => dice(),
            };
            near.outgoing.store(word as usize, value, Ordering::Release);
            near.doorbell.ring();
        }
        drop(far);
        relay.stop();
    }
}

#[test]
fn files_of_another_channel_are_refused() {
    let (_near, mut near_inner) = local::pair().unwrap();
    let (_far, far_inner) = local::pair().unwrap();
    near_inner.channel += 1000;
    assert!(matches!(Relay::start(near_inner, far_inner), Err(RelayError::Header(_))));
}

#[test]
fn descriptors_that_are_no_end_of_a_channel_are_refused() {
    let bell = || eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    for count in 0..7 {
        let descriptors = |_| (0..count).map(|_| bell()).collect();
        let result = Relay::from_descriptors(descriptors(0), descriptors(1));
        assert!(matches!(result, Err(RelayError::Grant(_))), "{count}");
    }
}
