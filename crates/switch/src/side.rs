// SPDX-License-Identifier: Apache-2.0
//! The backend's end of one of the two channels that a relay joins.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use diolkos_island::{ChannelEnds, Doorbell};
use diolkos_shm::barrier::Barrier;
use diolkos_shm::doorbell::{PeerSleep, SleepFlag};
use diolkos_shm::layout;
use diolkos_shm::sync::Ordering;
use diolkos_shm::words::Words;
use diolkos_shm::{Consumer, PeerFault, Producer, PushError};

use crate::RelayError;

/// Bytes that a relay's bulk payload rotates over until the endpoint asks otherwise.
const WINDOW_BYTES: u64 = 1 << 20;
/// The longest payload of one cell that is forwarded. An endpoint's fragments have at most 24 KiB;
/// this is what always finds room in the smallest window, so that a cell cannot block for ever.
pub const PAYLOAD_BYTES_MAX: usize = 128 << 10;
/// Cells that move one way before the other way gets its turn.
const CELLS_PER_TURN: usize = 32;

/// What an endpoint did that ends its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It broke the rules of the ring.
    Ring(PeerFault),
    /// A cell with a payload longer than any endpoint sends.
    PayloadTooLong,
    /// It took credit back that it had given.
    CreditShrank,
}

/// One end.
pub struct Side {
    producer: Producer,
    consumer: Consumer,
    own_sleep: SleepFlag,
    peer_sleep: PeerSleep,
    barrier: Barrier,
    /// Bytes and messages of credit that the endpoint has given back so far.
    credits_seen: (u64, u64),
    /// The other endpoint's wish for the window, as this one was told.
    wish_told: u64,
    /// Rings the endpoint, and is rung by it.
    pub doorbell: Doorbell,
    /// Readable once the endpoint's process is gone.
    pub liveness: Option<OwnedFd>,
}

impl Side {
    /// Takes an end over.
    ///
    /// # Errors
    /// [`RelayError::Header`] when the files are not those of that channel.
    pub fn new(ends: ChannelEnds) -> Result<Self, RelayError> {
        let outgoing = Words::new(Arc::new(ends.outgoing));
        let incoming = Words::new(Arc::new(ends.incoming));
        for words in [&outgoing, &incoming] {
            let header = std::array::from_fn(|i| words.load(i, Ordering::Relaxed));
            layout::check_header(&header, ends.channel).map_err(RelayError::Header)?;
        }
        Ok(Self {
            producer: Producer::new(outgoing.clone(), incoming.clone(), WINDOW_BYTES),
            consumer: Consumer::new(incoming.clone(), outgoing.clone()),
            own_sleep: SleepFlag::new(outgoing),
            peer_sleep: PeerSleep::new(incoming),
            barrier: Barrier::of_this_process(),
            credits_seen: (0, 0),
            wish_told: 0,
            // A relay carries copies only; files that an endpoint sends here would pile up.
            doorbell: ends.doorbell.refuse_grants(),
            liveness: ends.liveness,
        })
    }

    /// Moves what is there from this side to `to`, as far as there is room and for one turn, and
    /// credit and wishes the other way. Returns whether anything moved.
    ///
    /// # Errors
    /// [`Fault`] of either endpoint.
    pub fn forward(&mut self, to: &mut Self) -> Result<bool, Fault> {
        let cells = self.forward_cells(to)?;
        if cells > 0 {
            to.ring();
        }
        let (bytes, messages) = to.new_credits()?;
        if bytes > 0 || messages > 0 {
            self.consumer.return_credits(bytes, messages);
        }
        self.pass_wish(to.producer.window_wish());
        let told = self.consumer.tell();
        if told {
            self.barrier.light();
            if self.peer_sleep.wants_room() {
                self.doorbell.ring();
            }
        }
        Ok(cells > 0 || told)
    }

    fn forward_cells(&mut self, to: &mut Self) -> Result<usize, Fault> {
        for moved in 0..CELLS_PER_TURN {
            let Some(cell) = self.consumer.peek() else { return Ok(moved) };
            let (len_bytes, pushed) = match self.consumer.payload(&cell).map_err(Fault::Ring)? {
                None => (0, to.producer.push(&cell)),
                Some(payload) => {
                    let len_bytes = payload.len_bytes();
                    if len_bytes > PAYLOAD_BYTES_MAX {
                        return Err(Fault::PayloadTooLong);
                    }
                    let copy = |sink| {
                        self.consumer.copy_payload(payload, &sink, 0);
                    };
                    (len_bytes, to.producer.push_with(&cell, len_bytes, copy))
                }
            };
            match pushed {
                Ok(()) => self.consumer.pop(len_bytes),
                Err(PushError::Full) => return Ok(moved),
                Err(PushError::Peer(fault)) => return Err(Fault::Ring(fault)),
            }
        }
        Ok(CELLS_PER_TURN)
    }

    /// Tells this endpoint what the other one wishes. The first wish says that the other has taken
    /// its channel in, which this one may be sleeping for; later ones wake nobody.
    fn pass_wish(&mut self, wish: u64) {
        if wish == self.wish_told || wish == 0 {
            return;
        }
        let is_first = self.wish_told == 0;
        self.wish_told = wish;
        self.consumer.ask_window(wish);
        if is_first {
            self.ring();
        }
    }

    /// Credit that the endpoint has given back since the last call.
    fn new_credits(&mut self) -> Result<(u64, u64), Fault> {
        let (bytes, messages) = self.producer.credits_returned();
        let (bytes_seen, messages_seen) = self.credits_seen;
        if bytes < bytes_seen || messages < messages_seen {
            return Err(Fault::CreditShrank);
        }
        self.credits_seen = (bytes, messages);
        Ok((bytes - bytes_seen, messages - messages_seen))
    }

    /// Says that the relay sleeps. It wants to hear of room too: there may be a cell to forward,
    /// or credit that the other endpoint waits for.
    pub fn raise_sleep(&self) {
        self.own_sleep.raise(true);
    }

    /// Says that the relay is awake.
    pub fn lower_sleep(&self) {
        self.own_sleep.lower();
    }

    /// The sleeper's fence of this process.
    pub fn barrier(&self) -> Barrier {
        self.barrier
    }

    /// Whether the endpoint has said that it is done and all that it said before has been taken.
    pub fn is_finished(&self) -> bool {
        // The flag is looked at first: every cell before it is there then.
        self.consumer.peer_is_closing() && !self.consumer.has_cell()
    }

    /// Whether nothing more is there to be taken.
    pub fn is_empty(&self) -> bool {
        !self.consumer.has_cell()
    }

    /// Says that nothing more will come, and wakes the endpoint so that it hears of it.
    pub fn close(&mut self) {
        self.producer.close();
        self.own_sleep.lower();
        self.doorbell.ring();
    }

    fn ring(&mut self) {
        self.barrier.light();
        if self.peer_sleep.must_ring() {
            self.doorbell.ring();
        }
    }
}
