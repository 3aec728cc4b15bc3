// SPDX-License-Identifier: Apache-2.0
//! Both ends keep the rules: everything arrives once, in order, unchanged.

use super::harness::{
    Dice, End, LINE, channel, channel_with_window, is_drained, pattern, receive, send, take_payload,
};
use crate::layout::{CELL_COUNT, SMALL_BYTES};
use crate::ring::area::{SMALL_PAYLOAD_MAX, WINDOW_BYTES_MIN};
use crate::{Cell, PushError, Sink, Source};

#[test]
fn every_length_up_to_two_pages_arrives_unchanged() {
    let (mut a, mut b) = channel();
    for len in (0..=8192).chain([16 << 10, 24 << 10, 64 << 10, 256 << 10]) {
        let number = len as u64;
        assert!(send(&mut a, number, len), "{len} bytes found no room in an empty ring");
        assert!(receive(&mut b, number));
        assert!(!receive(&mut b, number + 1));
        b.consumer.tell();
    }
}

#[test]
fn both_directions_are_independent() {
    let (mut a, mut b) = channel();
    for number in 0..2000 {
        assert!(send(&mut a, number, number as usize % 100));
        assert!(send(&mut b, number + 7, number as usize % 3000));
        assert!(receive(&mut b, number));
        assert!(receive(&mut a, number + 7));
        a.consumer.tell();
        b.consumer.tell();
    }
}

#[test]
fn a_part_of_a_buffer_arrives_as_that_part() {
    let (mut a, mut b) = channel();
    let bytes = pattern(5, 10_000);
    // SAFETY: `bytes` outlives the pushes.
    let source = unsafe { Source::from_raw(bytes.as_ptr(), bytes.len()) };
    for (offset, len) in [(0, 8), (8, 8), (1, 0), (9_999, 1), (17, 5_000), (0, 10_000)] {
        a.producer.push_payload(&Cell::default(), &source, offset, len).unwrap();
        let cell = b.consumer.peek().unwrap();
        let (got, in_area) = take_payload(&b, &cell);
        assert_eq!(got, &bytes[offset..offset + len]);
        b.consumer.pop(in_area);
    }
}

#[test]
fn a_short_receive_buffer_takes_the_first_bytes_and_no_more() {
    let (mut a, mut b) = channel();
    assert!(send(&mut a, 1, 5_000));
    let cell = b.consumer.peek().unwrap();
    let place = b.consumer.payload(&cell).unwrap().unwrap();
    let mut bytes = vec![0xee; 4_000];
    // SAFETY: `bytes` outlives the sink; the last 1000 bytes are not lent.
    let sink = unsafe { Sink::from_raw(bytes.as_mut_ptr(), 3_000) };
    assert_eq!(b.consumer.copy_payload(place, &sink, 100), 2_900);
    assert_eq!(b.consumer.copy_payload(place, &sink, 3_000), 0);
    assert_eq!(b.consumer.copy_payload(place, &sink, usize::MAX), 0);
    assert!(bytes[..100].iter().all(|byte| *byte == 0xee));
    assert_eq!(bytes[100..3_000], pattern(1, 5_000)[..2_900]);
    assert!(bytes[3_000..].iter().all(|byte| *byte == 0xee));
}

#[test]
fn a_relay_writes_its_payload_in_place() {
    let (mut a, mut b) = channel();
    for len in [1, 33, 1024, 1025, 20_000] {
        let bytes = pattern(9, len);
        a.producer
            .push_with(&Cell::default(), len, |sink| assert_eq!(sink.write(0, &bytes), len))
            .unwrap();
        let cell = b.consumer.peek().unwrap();
        assert_eq!(take_payload(&b, &cell).0, bytes);
        b.consumer.pop(len);
    }
}

#[test]
fn the_ring_holds_exactly_its_cells() {
    let (mut a, mut b) = channel();
    for number in 0..CELL_COUNT as u64 {
        assert!(send(&mut a, number, LINE));
    }
    assert!(!send(&mut a, 0, LINE));
    assert_eq!(a.producer.push(&Cell::default()), Err(PushError::Full));
    assert!(receive(&mut b, 0));
    b.consumer.tell();
    assert!(send(&mut a, CELL_COUNT as u64, LINE));
    assert!(!send(&mut a, 0, LINE));
    for number in 1..=CELL_COUNT as u64 {
        assert!(receive(&mut b, number));
    }
    assert!(!receive(&mut b, 0));
}

#[test]
fn small_payloads_leave_the_bulk_area_alone_and_the_other_way_round() {
    let (mut a, mut b) = channel();
    for (number, len) in (0..4000).map(|n| (n, 33 + (n as usize * 37) % 3000)) {
        assert!(send(&mut a, number, len));
        let place = b.consumer.peek().unwrap().body[0] as u32 as usize;
        assert_eq!(place < SMALL_BYTES, len <= SMALL_PAYLOAD_MAX, "{len} bytes at {place:#x}");
        assert!(receive(&mut b, number));
        b.consumer.tell();
    }
}

#[test]
fn a_consumer_that_says_nothing_between_bursts_never_stalls_its_producer() {
    // Reports may be held back inside a burst, but not so long that the producer runs dry: here
    // nobody ever calls `tell`.
    for window in [WINDOW_BYTES_MIN, 1 << 20, 4 << 20] {
        for len in [0, 32, 33, 512, 513, 1025, 4096, 4097, 8 << 10, 16 << 10, 24 << 10] {
            let (mut a, mut b) = channel_with_window(window);
            let (mut sent, mut received) = (0, 0);
            while received < 3000 {
                while sent < 3000 && send(&mut a, sent, len) {
                    sent += 1;
                }
                let before = received;
                while receive(&mut b, received) {
                    received += 1;
                }
                assert!(received > before, "{len} bytes in {window}: stuck at {received}");
            }
        }
    }
}

#[test]
fn random_bursts_arrive_in_order_and_unchanged() {
    for seed in 0..20 {
        let mut dice = Dice::new(seed);
        let (mut a, mut b) = channel();
        let (mut sent, mut received) = (0, 0);
        for _ in 0..1500 {
            for _ in 0..dice.below(40) {
                let len = random_len(&mut dice);
                sent += u64::from(send(&mut a, sent, len));
            }
            for _ in 0..dice.below(40) {
                received += u64::from(receive(&mut b, received));
            }
            match dice.below(8) {
                0 | 1 => {
                    let _ = b.consumer.tell();
                }
                2 => b.consumer.ask_window(dice.next()),
                3 => {
                    let _ = a.producer.reclaim();
                }
                _ => {}
            }
        }
        while receive(&mut b, received) {
            received += 1;
        }
        assert_eq!(received, sent, "seed {seed}");
        assert!(is_drained(&mut a, &mut b, sent), "seed {seed}");
    }
}

#[test]
fn two_threads_pass_a_mixed_load() {
    const COUNT: u64 = 30_000;
    let (mut a, mut b) = channel();
    let producer = std::thread::spawn(move || {
        let mut dice = Dice::new(77);
        for number in 0..COUNT {
            let len = random_len(&mut dice);
            while !send(&mut a, number, len) {
                std::thread::yield_now();
            }
        }
        a
    });
    let mut received = 0;
    while received < COUNT {
        if receive(&mut b, received) {
            received += 1;
        } else {
            b.consumer.tell();
            std::thread::yield_now();
        }
    }
    let mut a: End = producer.join().unwrap();
    assert!(is_drained(&mut a, &mut b, COUNT));
}

#[test]
fn closing_is_seen_after_the_last_cell() {
    let (mut a, mut b) = channel();
    assert!(!b.consumer.peer_is_closing());
    assert!(send(&mut a, 0, 8));
    a.producer.close();
    assert!(b.consumer.peer_is_closing());
    assert!(b.consumer.peek().is_some());
}

#[test]
fn credit_given_back_is_seen_once_told() {
    let (a, mut b) = channel();
    b.consumer.return_credits(100, 1);
    b.consumer.return_credits(20, 2);
    assert_eq!(a.producer.credits_returned(), (0, 0));
    assert!(b.consumer.tell());
    assert_eq!(a.producer.credits_returned(), (120, 3));
    assert!(!b.consumer.tell(), "nothing new was to be told");
    assert_eq!(a.producer.credits_returned(), (120, 3));
}

#[test]
fn a_report_in_the_middle_of_a_burst_still_counts_as_news_at_its_end() {
    // A producer that sleeps for want of room is woken by what `tell` says at the end of a burst,
    // also when the last cell of the burst happened to be reported by `pop`.
    let (mut a, mut b) = channel();
    for number in 0..CELL_COUNT as u64 {
        assert!(send(&mut a, number, LINE));
    }
    for number in 0..CELL_COUNT as u64 {
        assert!(receive(&mut b, number));
    }
    assert!(a.producer.is_drained(), "the burst ends exactly at a report");
    assert!(b.consumer.tell());
    assert!(!b.consumer.tell());
}

#[test]
fn two_short_messages_share_a_line() {
    let (mut a, mut b) = channel();
    for number in 0..2 * CELL_COUNT as u64 {
        assert!(send(&mut a, number, number as usize % 9), "message {number}");
    }
    assert!(!send(&mut a, 0, 8), "the ring is full");
    for number in 0..2 * CELL_COUNT as u64 {
        assert!(receive(&mut b, number));
    }
    assert!(!b.consumer.has_cell());
}

#[test]
fn the_second_half_may_come_late_or_not_at_all() {
    let (mut a, mut b) = channel();
    let mut number = 0;
    for lens in [&[8, 8][..], &[8, LINE], &[LINE, 8], &[8, 100], &[8], &[8], &[0, 40, 8, 8, 8]] {
        for read_at_once in [true, false] {
            for (i, len) in lens.iter().enumerate() {
                assert!(send(&mut a, number + i as u64, *len));
                if read_at_once {
                    assert!(b.consumer.has_cell() && receive(&mut b, number + i as u64));
                    assert!(!b.consumer.has_cell());
                }
            }
            for i in 0..lens.len() as u64 {
                assert!(read_at_once || receive(&mut b, number + i));
            }
            assert_eq!(b.consumer.peek(), None);
            number += lens.len() as u64;
        }
    }
}

#[test]
fn leftovers_are_never_taken_for_the_second_half_of_a_line() {
    // Payload of an earlier round that looks like a short cell of this one.
    let (mut a, mut b) = channel();
    let round = CELL_COUNT as u64;
    for line in 0..round {
        let head = 0x4001_u64 << 32 | (line + round + 1);
        let cell = Cell { inline_len: 32, body: [head; 4], ..Cell::default() };
        a.producer.push(&cell).unwrap();
        assert_eq!(b.consumer.peek(), Some(cell));
        b.consumer.pop(0);
    }
    for number in 0..round {
        assert!(send(&mut a, number, 8) && receive(&mut b, number));
        assert_eq!(b.consumer.peek(), None, "message {number}");
        // The next one takes a line of its own again.
        assert!(send(&mut a, number, 8) && receive(&mut b, number));
    }
}

/// Mostly what programs send, sometimes the edges between the ways to send it.
fn random_len(dice: &mut Dice) -> usize {
    match dice.below(8) {
        0 => 0,
        1 => [31, 32, 33, 63, 64, 65, 1023, 1024, 1025, 4096][dice.below(10) as usize],
        2 | 3 => dice.below(33) as usize,
        4 | 5 => dice.below(1025) as usize,
        _ => dice.below(24 << 10) as usize,
    }
}
