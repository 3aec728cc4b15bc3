// SPDX-License-Identifier: Apache-2.0
//! Both ends of a ring over a file whose owner writes anything at any time.

use std::sync::Arc;

use diolkos_island::local;
use diolkos_shm::layout::{CELL_COUNT, CELL_WORDS, CHANNEL_FILE_BYTES, WORD_CELLS};
use diolkos_shm::sync::Ordering;
use diolkos_shm::words::Words;
use diolkos_shm::{Cell, Consumer, PeerFault, Producer, PushError, Sink, Source};

use crate::Script;

const ROOM: usize = 4096;
const GUARD: u8 = 0xa5;

/// One write of the liar into its own file: words that matter, cells that look like the next one,
/// anything at all.
pub(crate) fn scribble(file: &Words, script: &mut Script<'_>) {
    match script.byte() % 4 {
        0 => {
            let index = (script.below(1 << 16) * 9) % (CHANNEL_FILE_BYTES / 8);
            file.store(index, script.word(), Ordering::Relaxed);
        }
        1 => file.store(8 + script.below(24), script.word(), Ordering::Relaxed),
        _ => {
            let slot = script.below(8);
            let base = WORD_CELLS + slot * CELL_WORDS;
            for word in 1..5 {
                file.store(base + word, script.word(), Ordering::Relaxed);
            }
            let stamp = slot as u64 + 1 + u64::from(script.byte() % 2) * CELL_COUNT as u64;
            let kind = u64::from(script.byte() % 8);
            let flags = u64::from(script.byte() & 0x81);
            let inline_len = u64::from(script.byte() % 64);
            let head = stamp | kind << 32 | flags << 40 | inline_len << 48;
            file.store(base, head, Ordering::Release);
        }
    }
}

/// Nothing is read or written outside the buffers that were lent, and every lie is either harmless
/// or a named fault.
pub fn ring(data: &[u8]) {
    let mut script = Script::new(data);
    let (own, liar) = local::pair().expect("a channel");
    let file = Words::new(Arc::new(liar.outgoing));
    let outgoing = Words::new(Arc::new(own.outgoing));
    let incoming = Words::new(Arc::new(own.incoming));
    let mut producer = Producer::new(outgoing.clone(), incoming.clone(), 1 << 20);
    let mut consumer = Consumer::new(incoming, outgoing);
    let mut guarded = vec![GUARD; 3 * ROOM];
    // SAFETY: `guarded` outlives the sink; only its middle third is lent, and looked at only after
    // the last use of the sink.
    let sink = unsafe { Sink::from_raw(guarded.as_mut_ptr().add(ROOM), ROOM) };
    let message = vec![7_u8; 30_000];
    while !script.is_empty() {
        match script.byte() % 4 {
            0 | 1 => scribble(&file, &mut script),
            2 => receive(&mut consumer, &sink, &mut script),
            _ => {
                let len = script.below(30_000);
                // SAFETY: `message` outlives the push.
                let source = unsafe { Source::from_raw(message.as_ptr(), len) };
                match producer.push_payload(&Cell::default(), &source, 0, len) {
                    Ok(()) | Err(PushError::Full | PushError::Peer(PeerFault::BadConsumed)) => {}
                    Err(error) => panic!("{error:?}"),
                }
                let _ = producer.credits_returned();
                if script.byte() % 16 == 0 {
                    producer.reclaim();
                }
            }
        }
    }
    let outside = guarded[..ROOM].iter().chain(&guarded[2 * ROOM..]);
    assert!(outside.into_iter().all(|byte| *byte == GUARD), "written outside the buffer");
}

fn receive(consumer: &mut Consumer, sink: &Sink, script: &mut Script<'_>) {
    let Some(cell) = consumer.peek() else {
        consumer.tell();
        return;
    };
    let taken = match consumer.payload(&cell) {
        Ok(Some(place)) => {
            let at = script.below(ROOM + 100);
            let copied = consumer.copy_payload(place, sink, at);
            assert!(copied <= ROOM.saturating_sub(at) && copied <= place.len_bytes());
            place.len_bytes()
        }
        Ok(None) => {
            assert!(sink.write_inline(&cell.body, cell.inline_len.into()) <= 32);
            0
        }
        Err(fault) => {
            assert_eq!(fault, PeerFault::BadPayload);
            0
        }
    };
    consumer.pop(taken);
}
