// SPDX-License-Identifier: Apache-2.0
//! Every interleaving of the ring and of the sleep protocol, in a ring of two cells.
//!
//! Run by `RUSTFLAGS="--cfg loom" cargo test -p diolkos-shm --release loom`. The model checker
//! tries all schedules and, for relaxed accesses, all values that the memory model allows; the
//! payload area is left out (it is private arithmetic, and its bytes are ordered by the same
//! release and acquire as the words of a cell, which the models do check).
//!
//! The last tests expect the checker to *fail*: they run the same protocol with one fence missing,
//! and so prove that the fences are needed and that the models would notice.

use loom::thread;

use crate::barrier::Barrier;
use crate::doorbell::{PeerSleep, SleepFlag};
use crate::layout::{CELL_COUNT, CELL_WORDS, WORD_CELLS};
use crate::words::Words;
use crate::{Cell, Consumer, Producer, PushError};

/// The words of the two files of a channel.
fn files() -> (Words, Words) {
    let count = WORD_CELLS + CELL_COUNT * CELL_WORDS;
    (Words::on_heap(count), Words::on_heap(count))
}

fn producer(own: &Words, peer: &Words) -> Producer {
    Producer::new(own.clone(), peer.clone(), 0)
}

fn consumer(own: &Words, peer: &Words) -> Consumer {
    Consumer::new(peer.clone(), own.clone())
}

/// A cell whose every word says `number`.
fn cell(number: u64) -> Cell {
    Cell { kind: 1, flags: 0, inline_len: 16, words: [number; 3], body: [number, number, 0, 0] }
}

#[test]
fn cells_arrive_once_in_order_and_whole_across_the_wrap() {
    loom::model(|| {
        let (a, b) = files();
        let mut tx = producer(&a, &b);
        let mut rx = consumer(&b, &a);
        let sender = thread::spawn(move || {
            for number in 1..=CELL_COUNT as u64 + 2 {
                while tx.push(&cell(number)) == Err(PushError::Full) {
                    thread::yield_now();
                }
            }
        });
        for number in 1..=CELL_COUNT as u64 + 2 {
            let got = loop {
                match rx.peek() {
                    Some(got) => break got,
                    None => thread::yield_now(),
                }
            };
            // A word of an older or a newer cell here would be one read before it was published,
            // or overwritten before it was consumed.
            assert_eq!(got, cell(number));
            rx.pop(0);
        }
        assert_eq!(rx.peek(), None);
        sender.join().unwrap();
    });
}

/// A cell that takes half a line.
fn short(number: u64) -> Cell {
    Cell { kind: 1, inline_len: 8, words: [number, number, 8], body: [number, 0, 0, 0], flags: 0 }
}

/// Sends these cells while the other side takes them.
fn pass(cells: &'static [fn(u64) -> Cell]) {
    loom::model(move || {
        let (a, b) = files();
        let mut tx = producer(&a, &b);
        let mut rx = consumer(&b, &a);
        let sender = thread::spawn(move || {
            for (number, make) in cells.iter().enumerate() {
                while tx.push(&make(number as u64)) == Err(PushError::Full) {
                    thread::yield_now();
                }
            }
        });
        for (number, make) in cells.iter().enumerate() {
            let got = loop {
                match rx.peek() {
                    Some(got) => break got,
                    None => thread::yield_now(),
                }
            };
            assert_eq!(got, make(number as u64));
            rx.pop(0);
        }
        assert_eq!(rx.peek(), None);
        sender.join().unwrap();
    });
}

#[test]
fn halves_and_lines_arrive_once_in_order_and_whole() {
    pass(&[short, short, short]);
    pass(&[short, cell, short]);
    pass(&[cell, short, short, cell]);
    // Across the wrap, over leftovers of both kinds.
    pass(&[short, cell, short, short, short]);
    pass(&[cell, cell, short, cell]);
}

#[test]
fn a_producer_never_sees_more_room_than_there_is() {
    loom::model(|| {
        let (a, b) = files();
        let mut tx = producer(&a, &b);
        let mut rx = consumer(&b, &a);
        let receiver = thread::spawn(move || {
            let mut popped = 0;
            for _ in 0..3 {
                if let Some(got) = rx.peek() {
                    popped += 1;
                    assert_eq!(got, cell(popped));
                    rx.pop(0);
                }
            }
        });
        for number in 1..=4 {
            match tx.push(&cell(number)) {
                Ok(()) => {}
                Err(PushError::Full) => break,
                Err(PushError::Peer(fault)) => panic!("an honest peer was accused: {fault}"),
            }
        }
        receiver.join().unwrap();
    });
}

#[test]
fn credit_is_never_seen_before_its_message_was_taken_out() {
    loom::model(|| {
        let (a, b) = files();
        let mut tx = producer(&a, &b);
        let mut rx = consumer(&b, &a);
        tx.push(&cell(1)).unwrap();
        let receiver = thread::spawn(move || {
            let got = rx.peek().unwrap();
            rx.pop(0);
            rx.return_credits(got.words[0], 1);
            rx.tell();
        });
        let (bytes, messages) = tx.credits_returned();
        assert!(bytes <= 1 && messages <= 1);
        if bytes == 1 || messages == 1 {
            assert!(tx.is_drained());
        }
        receiver.join().unwrap();
        assert_eq!(tx.credits_returned(), (1, 1));
    });
}

#[test]
fn whoever_sees_the_closing_flag_sees_the_last_cell() {
    loom::model(|| {
        let (a, b) = files();
        let mut tx = producer(&a, &b);
        let mut rx = consumer(&b, &a);
        let sender = thread::spawn(move || {
            tx.push(&cell(1)).unwrap();
            tx.close();
        });
        if rx.peer_is_closing() {
            assert_eq!(rx.peek(), Some(cell(1)));
        }
        sender.join().unwrap();
    });
}

/// The two fences of the sleep protocol, each of which may be left out.
#[derive(Clone, Copy)]
struct Fences {
    sender: Option<Barrier>,
    sleeper: bool,
}

/// A sender of either kind, and a sleeper that knows nothing of it.
const COMPLETE: [Fences; 2] = [
    Fences { sender: Some(Barrier::Symmetric), sleeper: true },
    Fences { sender: Some(Barrier::Asymmetric), sleeper: true },
];

/// One cell is sent while the receiver goes to sleep: does somebody notice?
fn sleep_while_a_cell_comes(fences: Fences) {
    loom::model(move || {
        let (a, b) = files();
        let mut tx = producer(&a, &b);
        let mut rx = consumer(&b, &a);
        let sleep = SleepFlag::new(b.clone());
        let peer_sleep = PeerSleep::new(b);
        let sender = thread::spawn(move || {
            tx.push(&cell(1)).unwrap();
            if let Some(barrier) = fences.sender {
                barrier.light();
            }
            peer_sleep.must_ring()
        });
        sleep.raise(false);
        if fences.sleeper {
            Barrier::Symmetric.heavy();
        }
        let seen = rx.peek().is_some();
        let rung = sender.join().unwrap();
        assert!(seen || rung, "asleep, with a message in the ring and nobody to ring");
    });
}

/// Room is made while a sender with a full ring goes to sleep: does somebody notice?
fn sleep_while_room_is_made(fences: Fences) {
    loom::model(move || {
        let (a, b) = files();
        let mut tx = producer(&a, &b);
        let mut rx = consumer(&b, &a);
        let sleep = SleepFlag::new(a.clone());
        let peer_sleep = PeerSleep::new(a);
        for number in 1..=CELL_COUNT as u64 {
            tx.push(&cell(number)).unwrap();
        }
        let receiver = thread::spawn(move || {
            rx.pop(0);
            let news = rx.tell();
            if let Some(barrier) = fences.sender {
                barrier.light();
            }
            news && peer_sleep.wants_room()
        });
        sleep.raise(true);
        if fences.sleeper {
            Barrier::Symmetric.heavy();
        }
        let room = tx.push(&cell(9)).is_ok();
        let rung = receiver.join().unwrap();
        assert!(room || rung, "asleep, with room in the ring and nobody to ring");
    });
}

/// Both sides send one cell and go to sleep: both must notice.
#[test]
fn two_sleepers_never_wait_for_each_other() {
    loom::model(|| {
        let (a, b) = files();
        let side = |own: &Words, peer: &Words| {
            let (mut tx, mut rx) = (producer(own, peer), consumer(own, peer));
            let (sleep, peer_sleep) = (SleepFlag::new(own.clone()), PeerSleep::new(peer.clone()));
            move || {
                tx.push(&cell(1)).unwrap();
                Barrier::Symmetric.light();
                let rang = peer_sleep.must_ring();
                sleep.raise(false);
                Barrier::Symmetric.heavy();
                (rx.peek().is_some(), rang)
            }
        };
        let other = thread::spawn(side(&b, &a));
        let (seen_here, rang_there) = side(&a, &b)();
        let (seen_there, rang_here) = other.join().unwrap();
        assert!(seen_here || rang_here);
        assert!(seen_there || rang_there);
    });
}

#[test]
fn a_message_for_a_sleeper_is_seen_or_rung_for() {
    COMPLETE.into_iter().for_each(sleep_while_a_cell_comes);
}

#[test]
fn room_for_a_sleeper_is_seen_or_rung_for() {
    COMPLETE.into_iter().for_each(sleep_while_room_is_made);
}

#[test]
#[should_panic(expected = "nobody to ring")]
fn without_the_senders_fence_a_message_is_lost() {
    sleep_while_a_cell_comes(Fences { sender: None, sleeper: true });
}

#[test]
#[should_panic(expected = "nobody to ring")]
fn without_the_sleepers_fence_a_message_is_lost() {
    sleep_while_a_cell_comes(Fences { sender: Some(Barrier::Symmetric), sleeper: false });
}

#[test]
#[should_panic(expected = "nobody to ring")]
fn without_the_consumers_fence_a_wish_for_room_is_lost() {
    sleep_while_room_is_made(Fences { sender: None, sleeper: true });
}
