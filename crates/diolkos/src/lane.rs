// SPDX-License-Identifier: Apache-2.0
//! The machine's lane over a pair of shared-memory rings.

use std::sync::Arc;

use diolkos_island::Doorbell;
use diolkos_proto::{Frame, Lane, LaneFault};
use diolkos_shm::barrier::Barrier;
use diolkos_shm::doorbell::{PeerSleep, SleepFlag};
use diolkos_shm::layout::{self, BadHeader, INLINE_BYTES};
use diolkos_shm::sync::Ordering;
use diolkos_shm::words::Words;
use diolkos_shm::{Cell, Consumer, PayloadRef, PeerFault, Producer, PushError, Region};
use diolkos_shm::{RegionError, Sink, Source};

/// The payload of a cell, still in the peer's memory: in the cell, or in the area.
#[derive(Clone, Copy, Debug)]
pub enum Payload {
    Inline { len_bytes: u16 },
    Area(PayloadRef),
}

/// One end of a channel, and the doorbell of the peer.
pub struct ShmLane {
    producer: Producer,
    consumer: Consumer,
    own_sleep: SleepFlag,
    peer_sleep: PeerSleep,
    barrier: Barrier,
    doorbell: Arc<Doorbell>,
    pub doorbells_rung: u64,
}

/// A channel's memory cannot be used.
#[derive(Debug)]
pub enum LaneError {
    Header(BadHeader),
    Region(RegionError),
}

impl ShmLane {
    /// Joins two mapped files to a lane.
    pub fn new(
        channel: u64,
        outgoing: Region,
        incoming: Region,
        doorbell: Arc<Doorbell>,
        window: u64,
    ) -> Result<Self, LaneError> {
        // Faulted in now, so that nothing faults on the path of a small message.
        let hot_bytes = layout::CELLS_OFFSET + layout::CELL_COUNT * layout::CELL_BYTES;
        outgoing.populate(0, hot_bytes).map_err(LaneError::Region)?;
        incoming.populate(0, hot_bytes).map_err(LaneError::Region)?;
        let outgoing = Words::new(Arc::new(outgoing));
        let incoming = Words::new(Arc::new(incoming));
        for words in [&outgoing, &incoming] {
            let header = std::array::from_fn(|i| words.load(i, Ordering::Relaxed));
            layout::check_header(&header, channel).map_err(LaneError::Header)?;
        }
        Ok(Self {
            producer: Producer::new(outgoing.clone(), incoming.clone(), window),
            consumer: Consumer::new(incoming.clone(), outgoing.clone()),
            own_sleep: SleepFlag::new(outgoing),
            peer_sleep: PeerSleep::new(incoming),
            barrier: Barrier::of_this_process(),
            doorbell,
            doorbells_rung: 0,
        })
    }

    /// Says that we are about to sleep, and whether something here waits for room towards the
    /// peer; the heavy fence and one more look must follow.
    pub fn raise_sleep(&mut self, for_room: bool) {
        self.tell();
        self.own_sleep.raise(for_room);
    }

    /// Says that we are awake.
    pub fn lower_sleep(&self) {
        self.own_sleep.lower();
    }

    /// Gives the pages of an idle bulk area back to the system.
    pub fn reclaim(&mut self) {
        self.producer.reclaim();
    }

    /// Whether the peer has taken its end of the channel in: it has a wish for the window then.
    pub fn is_taken_in(&self) -> bool {
        self.producer.window_wish() != 0
    }

    /// Asks the peer to rotate its bulk payload over `window` bytes.
    pub fn ask_window(&self, window: u64) {
        self.consumer.ask_window(window);
    }

    #[cold]
    fn wake_peer(&mut self) {
        self.doorbells_rung += 1;
        self.doorbell.ring();
    }
}

fn fault(fault: PeerFault) -> LaneFault {
    LaneFault(match fault {
        PeerFault::BadConsumed => "it claims to have read cells that were never written",
        PeerFault::BadCredit => "it gave back more credit than it was owed",
        _ => "it announced a payload outside its memory",
    })
}

impl Lane for ShmLane {
    type Source = Source;
    type Sink = Sink;
    type Payload = Payload;

    #[inline(always)]
    fn source_len(source: &Source) -> usize {
        source.len_bytes()
    }

    #[inline(always)]
    fn sink_len(sink: &Sink) -> usize {
        sink.len_bytes()
    }

    fn sink_part(sink: &Sink, offset: usize, len: usize) -> Sink {
        sink.skip(offset).first(len)
    }

    fn sink_write(sink: &Sink, offset: usize, bytes: &[u8]) -> usize {
        sink.write(offset, bytes)
    }

    fn copy_local(source: &Source, sink: &Sink) -> usize {
        source.copy_to(sink)
    }

    fn source_to_vec(source: &Source) -> Vec<u8> {
        source.to_vec()
    }

    #[inline(always)]
    fn has_frame(&self) -> bool {
        self.consumer.has_cell()
    }

    #[inline(always)]
    fn peek(&mut self) -> Result<Option<(Frame, Payload)>, LaneFault> {
        let Some(cell) = self.consumer.peek_frame() else { return Ok(None) };
        let payload = match self.consumer.payload(&cell).map_err(fault)? {
            None => Payload::Inline { len_bytes: cell.inline_len },
            Some(place) => {
                self.consumer.survey(place);
                Payload::Area(place)
            }
        };
        Ok(Some((Frame { kind: cell.kind, flags: cell.flags, words: cell.words }, payload)))
    }

    #[inline(always)]
    fn payload_len(payload: &Payload) -> usize {
        match payload {
            Payload::Inline { len_bytes } => usize::from(*len_bytes),
            Payload::Area(place) => place.len_bytes(),
        }
    }

    #[inline(always)]
    fn copy(&self, payload: &Payload, sink: &Sink, at: usize) -> usize {
        match payload {
            Payload::Inline { len_bytes } if at == 0 => {
                self.consumer.copy_inline(usize::from(*len_bytes), sink)
            }
            Payload::Inline { len_bytes } => {
                self.consumer.copy_inline(usize::from(*len_bytes), &sink.skip(at))
            }
            Payload::Area(place) => self.consumer.copy_payload(*place, sink, at),
        }
    }

    fn copy_to_vec(&self, payload: &Payload, to: &mut Vec<u8>) {
        match payload {
            Payload::Inline { len_bytes } => {
                let words = self.consumer.inline_words();
                let bytes: [u8; INLINE_BYTES] =
                    std::array::from_fn(|i| words[i / 8].to_le_bytes()[i % 8]);
                to.extend_from_slice(&bytes[..usize::from(*len_bytes)]);
            }
            Payload::Area(place) => self.consumer.append_payload(*place, to),
        }
    }

    #[inline(always)]
    fn pop(&mut self, payload: &Payload) {
        let area_bytes = match payload {
            Payload::Inline { .. } => 0,
            Payload::Area(place) => place.len_bytes(),
        };
        self.consumer.pop(area_bytes);
    }

    #[inline(always)]
    fn push(
        &mut self,
        frame: &Frame,
        payload: Option<(&Source, usize, usize)>,
    ) -> Result<bool, LaneFault> {
        let cell =
            Cell { kind: frame.kind, flags: frame.flags, words: frame.words, ..Cell::default() };
        let result = match payload {
            None => self.producer.push(&cell),
            Some((source, offset, len)) => self.producer.push_payload(&cell, source, offset, len),
        };
        match result {
            Ok(()) => Ok(true),
            Err(PushError::Full) => Ok(false),
            Err(PushError::Peer(peer)) => Err(fault(peer)),
        }
    }

    fn credits_returned(&self) -> (u64, u64) {
        self.producer.credits_returned()
    }

    #[inline(always)]
    fn return_credits(&mut self, bytes: u64, messages: u64) {
        self.consumer.return_credits(bytes, messages);
    }

    #[inline(always)]
    fn tell(&mut self) {
        if self.consumer.tell() {
            // The same question as in `ring`, for a peer that sleeps until it has room.
            self.barrier.light();
            if self.peer_sleep.wants_room() {
                self.wake_peer();
            }
        }
    }

    #[inline(always)]
    fn ring(&mut self) {
        self.barrier.light();
        if self.peer_sleep.must_ring() {
            self.wake_peer();
        }
    }

    fn peer_is_closing(&self) -> bool {
        self.consumer.peer_is_closing()
    }

    fn close(&mut self) {
        self.producer.close();
        // Nobody is left who could sleep here; the flag must not keep asking for doorbells.
        self.own_sleep.lower();
    }
}
