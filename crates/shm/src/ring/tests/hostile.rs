// SPDX-License-Identifier: Apache-2.0
//! One end lies: it owns its file and writes into it what it likes, when it likes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::harness::{Dice, End, LINE, channel, receive, send};
use crate::layout::{
    AREA_BYTES, CELL_BYTES, CELL_COUNT, CELL_WORDS, CELLS_OFFSET, WORD_CELLS, WORD_CONSUMED,
    WORD_CREDIT_BYTES, WORD_CREDIT_MESSAGES, WORD_WINDOW,
};
use crate::sync::Ordering;
use crate::{Cell, PeerFault, PushError, Sink};

#[test]
fn more_consumed_than_was_produced_is_a_fault() {
    let (mut a, b) = channel();
    fill(&mut a);
    b.own.store(WORD_CONSUMED, CELL_COUNT as u64 + 1, Ordering::Relaxed);
    let fault = Err(PushError::Peer(PeerFault::BadConsumed));
    assert_eq!(a.producer.push(&Cell::default()), fault);
}

#[test]
fn less_consumed_than_before_is_a_fault() {
    let (mut a, mut b) = channel();
    fill(&mut a);
    for number in 0..10 {
        assert!(receive(&mut b, number));
    }
    b.consumer.tell();
    for number in 0..10 {
        assert!(send(&mut a, number, LINE));
    }
    b.own.store(WORD_CONSUMED, 9, Ordering::Relaxed);
    let fault = Err(PushError::Peer(PeerFault::BadConsumed));
    assert_eq!(a.producer.push(&Cell::default()), fault);
}

#[test]
fn payload_claims_are_checked_to_the_byte() {
    let (_, b) = channel();
    let area = AREA_BYTES as u64;
    let claim = |offset: u64, len: u64, inline_len: u16| {
        let body = [offset | len << 32, 0, 0, 0];
        let cell = Cell { flags: Cell::IN_AREA, inline_len, body, ..Cell::default() };
        b.consumer.payload(&cell).map(|place| place.map(|place| place.len_bytes()))
    };
    assert_eq!(claim(0, area, 0), Ok(Some(AREA_BYTES)));
    assert_eq!(claim(area, 0, 0), Ok(Some(0)));
    assert_eq!(claim(area - 1, 1, 0), Ok(Some(1)));
    for (offset, len, inline_len) in [
        (0, area + 1, 0),
        (1, area, 0),
        (area, 1, 0),
        (area + 1, 0, 0),
        (0xffff_ffff, 1, 0),
        (1, 0xffff_ffff, 0),
        (0xffff_ffff, 0xffff_ffff, 0),
        (0, 1, 1),
    ] {
        assert_eq!(claim(offset, len, inline_len), Err(PeerFault::BadPayload), "{offset} {len}");
    }
}

#[test]
fn an_inline_length_above_the_cell_is_a_fault() {
    let (_, b) = channel();
    for inline_len in 33..=u16::MAX {
        let cell = Cell { inline_len, ..Cell::default() };
        assert_eq!(b.consumer.payload(&cell), Err(PeerFault::BadPayload));
    }
    for inline_len in 0..=32 {
        let cell = Cell { inline_len, ..Cell::default() };
        assert_eq!(b.consumer.payload(&cell), Ok(None));
    }
}

#[test]
fn every_stamp_but_the_next_one_is_no_cell() {
    let (a, mut b) = channel();
    for stamp in [0, 2, 3, CELL_COUNT as u64, 1 << 31, 0xffff_ffff] {
        a.own.store(WORD_CELLS, stamp, Ordering::Relaxed);
        assert_eq!(b.consumer.peek(), None, "stamp {stamp}");
    }
    a.own.store(WORD_CELLS, 1, Ordering::Relaxed);
    assert!(b.consumer.peek().is_some());
}

#[test]
fn a_lying_consumer_garbles_only_what_it_reads_itself() {
    // It claims whatever it likes within the bounds; the producer goes on or reports the fault,
    // and never writes outside its area.
    for seed in 0..50 {
        let mut dice = Dice::new(seed);
        let (mut a, b) = channel();
        let (mut produced, mut consumed) = (0_u64, 0);
        for _ in 0..3000 {
            consumed += dice.below(produced.saturating_sub(consumed) + 1);
            // Sooner or later a lie that cannot be true.
            let lie = u64::from(dice.below(500) == 0);
            b.own.store(WORD_CONSUMED, consumed + lie * dice.next(), Ordering::Relaxed);
            b.own.store(WORD_WINDOW, dice.next() >> dice.below(64), Ordering::Relaxed);
            let bytes = vec![7; dice.below(24 << 10) as usize];
            // SAFETY: `bytes` outlives the push.
            let source = unsafe { crate::Source::from_raw(bytes.as_ptr(), bytes.len()) };
            match a.producer.push_payload(&Cell::default(), &source, 0, bytes.len()) {
                Ok(()) => produced += 1,
                Err(PushError::Full) => {}
                Err(PushError::Peer(fault)) => {
                    assert_eq!(fault, PeerFault::BadConsumed, "seed {seed}");
                    break;
                }
            }
        }
    }
}

#[test]
fn random_cells_never_reach_outside_the_receive_buffer() {
    for seed in 0..200 {
        let mut dice = Dice::new(seed);
        let (a, mut b) = channel();
        let mut guarded = vec![0xa5_u8; 3 * 4096];
        // SAFETY: `guarded` outlives the sink; only its middle third is lent.
        let sink = unsafe { Sink::from_raw(guarded.as_mut_ptr().add(4096), 4096) };
        for consumed in 0..600_u64 {
            write_random_cell(&a, &mut dice, consumed);
            let Some(cell) = b.consumer.peek() else { panic!("seed {seed}: a stamp was lost") };
            match b.consumer.payload(&cell) {
                Ok(Some(place)) => {
                    let at = dice.below(5000) as usize;
                    let copied = b.consumer.copy_payload(place, &sink, at);
                    assert!(at.min(4096) + copied <= 4096, "seed {seed}");
                }
                Ok(None) => assert!(sink.write_inline(&cell.body, cell.inline_len.into()) <= 32),
                Err(fault) => assert_eq!(fault, PeerFault::BadPayload),
            }
            b.consumer.pop(0);
        }
        let outside = guarded[..4096].iter().chain(&guarded[8192..]);
        assert!(outside.into_iter().all(|byte| *byte == 0xa5), "seed {seed}: guard overwritten");
    }
}

#[test]
fn garbage_written_while_we_read_is_only_garbage() {
    for seed in 0..8 {
        let (a, mut b) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let scribbler = scribble(&a, seed, Arc::clone(&stop));
        let mut buffer = vec![0_u8; 64 << 10];
        // SAFETY: `buffer` outlives the sink.
        let sink = unsafe { Sink::from_raw(buffer.as_mut_ptr(), buffer.len()) };
        for number in 0..20_000 {
            if let Some(cell) = b.consumer.peek() {
                if let Ok(Some(place)) = b.consumer.payload(&cell) {
                    assert!(b.consumer.copy_payload(place, &sink, 0) <= buffer.len());
                }
                b.consumer.pop(cell.words[0] as usize % 4096);
            }
            // Our own sending must not be disturbed either, beyond being told of the fault.
            if number % 16 == 0 {
                let pushed = b.producer.push(&Cell { kind: 1, ..Cell::default() });
                assert!(matches!(
                    pushed,
                    Ok(()) | Err(PushError::Full | PushError::Peer(PeerFault::BadConsumed))
                ));
                let _ = b.producer.credits_returned();
                let _ = b.consumer.peer_is_closing();
            }
            b.consumer.tell();
        }
        stop.store(true, Relaxed);
        scribbler.join().unwrap();
    }
}

/// A thread that writes garbage over the words that matter until it is stopped; now and then the
/// stamp that the victim is waiting for.
fn scribble(liar: &End, seed: u64, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    let own = liar.own.clone();
    std::thread::spawn(move || {
        let mut dice = Dice::new(seed);
        while !stop.load(Relaxed) {
            let slot = dice.below(CELL_COUNT as u64);
            let base = WORD_CELLS + slot as usize * CELL_WORDS;
            let round = dice.below(64) * CELL_COUNT as u64;
            let head = (dice.next() << 32) | (slot + 1 + round);
            let word = [
                WORD_CONSUMED,
                WORD_CREDIT_BYTES,
                WORD_CREDIT_MESSAGES,
                WORD_WINDOW,
                base + 1 + dice.below(7) as usize,
            ][dice.below(5) as usize];
            own.store(word, dice.next() >> dice.below(64), Ordering::Relaxed);
            own.store(base, head, Ordering::Release);
        }
    })
}

fn write_random_cell(liar: &End, dice: &mut Dice, index: u64) {
    let base = CELLS_OFFSET / 8 + (index as usize * CELL_BYTES / 8) % (CELL_COUNT * CELL_WORDS);
    for word in 1..CELL_WORDS {
        // Small numbers are the interesting ones: lengths and offsets near the bounds.
        liar.own.store(base + word, dice.next() >> dice.below(64), Ordering::Relaxed);
    }
    let flags = dice.next() & 0x80ff;
    let inline_len = if dice.below(2) == 0 { 0 } else { dice.next() >> dice.below(64) };
    let head = (index + 1) & 0xffff_ffff | flags << 32 | inline_len << 48;
    liar.own.store(base, head, Ordering::Release);
}

fn fill(end: &mut End) {
    for number in 0..CELL_COUNT as u64 {
        assert!(send(end, number, LINE));
    }
}
