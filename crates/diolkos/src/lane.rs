// SPDX-License-Identifier: Apache-2.0
//! The machine's lane over a pair of shared-memory rings.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use diolkos_island::Doorbell;
use diolkos_proto::frame::Body;
use diolkos_proto::{AtomicOp, Frame, Lane, LaneFault, Place, Placing, Unreachable};
use diolkos_shm::barrier::Barrier;
use diolkos_shm::doorbell::{PeerSleep, SleepFlag};
use diolkos_shm::layout::{self, BadHeader, INLINE_BYTES};
use diolkos_shm::sync::Ordering;
use diolkos_shm::words::Words;
use diolkos_shm::{Arena, GrantId, GrantNote, Granted, Granter, Grants, View};
use diolkos_shm::{Cell, Consumer, PayloadRef, PeerFault, PeerMemory, Producer, PushError, Region};
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
    /// What we grant, where the peer can map it.
    granter: Option<(Granter, Arena)>,
    /// Memory that was placed last, and where: programs send and lend the same again and again.
    placed: Option<Placed>,
    /// What the peer grants.
    grants: Grants,
    /// The memory of its process, where the policy lets us copy from and to it.
    peer_memory: Option<PeerMemory>,
}

/// Memory of ours, and the grant in which the peer finds it.
struct Placed {
    base: usize,
    len_bytes: usize,
    writable: bool,
    grant: GrantId,
    place: Place,
}

/// A channel's memory cannot be used.
#[derive(Debug)]
pub enum LaneError {
    Header(BadHeader),
    Region(RegionError),
}

impl ShmLane {
    /// Joins two mapped files to a lane. Memory of `arena`, if there is one, can be granted over it. With a
    /// handle of the peer's `process`, the two may reach into each other's memory.
    pub fn new(
        channel: u64,
        outgoing: Region,
        incoming: Region,
        doorbell: Arc<Doorbell>,
        window: u64,
        arena: Option<Arena>,
        process: Option<OwnedFd>,
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
            granter: arena
                .map(|arena| (Granter::new(outgoing.clone(), incoming.clone(), channel), arena)),
            placed: None,
            grants: Grants::new(incoming.clone(), outgoing.clone()),
            peer_memory: process
                .map(|process| PeerMemory::new(outgoing.clone(), incoming.clone(), process)),
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

    /// Gives the pages of an idle bulk area back to the system, and mappings of what the peer has
    /// taken back.
    pub fn reclaim(&mut self) {
        self.producer.reclaim();
        self.grants.tidy();
    }

    /// Takes in the grants that came with the peer's rings.
    #[cold]
    fn take_grants(&mut self) {
        for (note, file) in self.doorbell.take_grants() {
            // A wrong one grants nothing, and whoever relies on it gets copies.
            if let Some(note) = GrantNote::decode(&note) {
                let _ = self.grants.accept(note, file);
            }
        }
    }

    /// A call on granted memory, once more if its grant has only now been taken in.
    #[inline(always)]
    fn with_grant<T>(
        &mut self,
        place: &Place,
        act: impl Fn(&mut Grants, GrantId) -> Result<T, diolkos_shm::Unreachable>,
    ) -> Result<T, Unreachable> {
        // What names no possible grant lies nowhere.
        let grant = GrantId::from_word(place.grant).ok_or(Unreachable::Missing)?;
        match act(&mut self.grants, grant) {
            Ok(done) => Ok(done),
            Err(diolkos_shm::Unreachable::Unknown) => {
                self.take_grants();
                act(&mut self.grants, grant).map_err(unreachable)
            }
            Err(error) => Err(unreachable(error)),
        }
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

fn unreachable(error: diolkos_shm::Unreachable) -> Unreachable {
    match error {
        diolkos_shm::Unreachable::TakenBack => Unreachable::TakenBack,
        diolkos_shm::Unreachable::ReadOnly | diolkos_shm::Unreachable::OutOfRange => {
            Unreachable::OutOfRange
        }
        _ => Unreachable::Missing,
    }
}

fn operation(op: AtomicOp) -> diolkos_shm::AtomicOp {
    match op {
        AtomicOp::FetchAdd(value) => diolkos_shm::AtomicOp::FetchAdd(value),
        AtomicOp::CompareSwap { expected, desired } => {
            diolkos_shm::AtomicOp::CompareSwap { expected, desired }
        }
    }
}

impl Lane for ShmLane {
    type Source = Source;
    type Sink = Sink;
    type Payload = Payload;
    type View = View;

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

    fn source_part(source: &Source, offset: usize, len: usize) -> Source {
        source.part(offset, len)
    }

    fn sink_source(sink: &Sink) -> Source {
        sink.as_source()
    }

    fn atomic_local(sink: &Sink, offset: usize, op: AtomicOp) -> Option<u64> {
        diolkos_shm::atomic_local(sink, offset, operation(op))
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

    fn push_body(
        &mut self,
        frame: &Frame,
        body: &Body,
        len_bytes: usize,
    ) -> Result<bool, LaneFault> {
        let cell = Cell {
            kind: frame.kind,
            flags: frame.flags,
            words: frame.words,
            body: *body,
            inline_len: len_bytes.min(INLINE_BYTES) as u16,
        };
        match self.producer.push(&cell) {
            Ok(()) => Ok(true),
            Err(PushError::Full) => Ok(false),
            Err(PushError::Peer(peer)) => Err(fault(peer)),
        }
    }

    fn body(&self, payload: &Payload) -> Option<Body> {
        let Payload::Inline { len_bytes } = payload else { return None };
        let words = self.consumer.inline_words();
        // Behind its end lie leftovers.
        let full = usize::from(*len_bytes) / 8;
        Some(std::array::from_fn(|i| if i < full { words[i] } else { 0 }))
    }

    fn place(&mut self, memory: &Source, writable: bool) -> Placing {
        let Some((granter, arena)) = &self.granter else { return Placing::Never };
        let (base, len_bytes) = (memory.base(), memory.len_bytes());
        if let Some(last) = &self.placed
            && (last.base, last.len_bytes, last.writable) == (base.addr(), len_bytes, writable)
            && granter.is_live(last.grant)
        {
            return Placing::At(last.place);
        }
        let Some((slab, offset)) = arena.find(memory.base(), memory.len_bytes()) else {
            return Placing::Never;
        };
        let doorbell = &self.doorbell;
        let send = |note: &GrantNote, file: std::os::fd::BorrowedFd<'_>| {
            doorbell.send_grant(&note.encode(), file)
        };
        match granter.grant(&slab, writable, send) {
            Granted::Already(grant) | Granted::Now(grant) => {
                let place = Place { grant: grant.to_word(), offset: offset as u64 };
                let base = base.addr();
                self.placed = Some(Placed { base, len_bytes, writable, grant, place });
                Placing::At(place)
            }
            Granted::Later => Placing::Later,
            Granted::Never => Placing::Never,
        }
    }

    #[inline(always)]
    fn is_live(&self, place: &Place) -> bool {
        GrantId::from_word(place.grant).is_some_and(|grant| self.grants.is_live(grant))
    }

    #[inline]
    fn copy_placed(
        &mut self,
        place: &Place,
        offset: usize,
        sink: &Sink,
        len: usize,
    ) -> Result<(), Unreachable> {
        let from = place.offset.checked_add(offset as u64).ok_or(Unreachable::OutOfRange)?;
        self.with_grant(place, |grants, grant| grants.copy_out(grant, from, sink, offset, len))
            .map(drop)
    }

    #[inline]
    fn write_placed(
        &mut self,
        place: &Place,
        offset: usize,
        source: &Source,
        len: usize,
    ) -> Result<(), Unreachable> {
        let to = place.offset.checked_add(offset as u64).ok_or(Unreachable::OutOfRange)?;
        self.with_grant(place, |grants, grant| grants.copy_in(grant, to, source, offset, len))
    }

    fn atomic_placed(&mut self, place: &Place, op: AtomicOp) -> Result<u64, Unreachable> {
        self.with_grant(place, |grants, grant| grants.atomic(grant, place.offset, operation(op)))
    }

    fn view(&mut self, place: &Place, len: u64) -> Result<View, Unreachable> {
        let len = usize::try_from(len).map_err(|_| Unreachable::OutOfRange)?;
        self.with_grant(place, |grants, grant| grants.view(grant, place.offset, len))
    }

    fn peer_address(&self, memory: &Source) -> u64 {
        match &self.peer_memory {
            Some(_) => memory.base() as u64,
            None => 0,
        }
    }

    fn reaches_peer(&self) -> bool {
        self.peer_memory.as_ref().is_some_and(PeerMemory::is_in_reach)
    }

    fn read_peer(&mut self, address: u64, sink: &Sink, at: usize, len: usize) -> bool {
        self.peer_memory.as_mut().is_some_and(|peer| peer.read(address, sink, at, len))
    }

    fn write_peer(&mut self, address: u64, source: &Source, at: usize, len: usize) -> bool {
        self.peer_memory.as_mut().is_some_and(|peer| peer.write(address, source, at, len))
    }

    fn keep_out(&mut self) {
        if let Some(peer) = &self.peer_memory {
            peer.keep_out();
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
