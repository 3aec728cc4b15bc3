// SPDX-License-Identifier: Apache-2.0
//! What the machine needs of the road to one peer.

use std::fmt::Debug;

use crate::frame::{Body, Frame};
use crate::granted::{AtomicOp, Place, Placing, Unreachable};

/// The peer broke the rules of the road; the text says which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneFault(pub &'static str);

/// One end of a channel: frames and payload in order, both ways, nothing lost.
///
/// Implemented over shared memory by `diolkos`, over a queue by the tests. Nothing here waits.
pub trait Lane {
    /// Memory that a send reads from.
    type Source: Copy + Debug;
    /// Memory that a receive writes to.
    type Sink: Copy + Debug;
    /// The payload of the frame that `peek` showed; valid until `pop`.
    type Payload: Copy + Debug;
    /// Granted memory of the peer that stays readable until this value is dropped.
    type View;

    /// Length of a send buffer in bytes.
    fn source_len(source: &Self::Source) -> usize;
    /// Room of a receive buffer in bytes.
    fn sink_len(sink: &Self::Sink) -> usize;
    /// The part of a receive buffer from `offset` on, at most `len` bytes of it.
    fn sink_part(sink: &Self::Sink, offset: usize, len: usize) -> Self::Sink;
    /// Writes private bytes into a receive buffer at `offset`, as far as there is room.
    fn sink_write(sink: &Self::Sink, offset: usize, bytes: &[u8]) -> usize;
    /// A message to oneself: copies as far as there is room and returns the bytes copied.
    fn copy_local(source: &Self::Source, sink: &Self::Sink) -> usize;
    /// A private copy of a send buffer.
    fn source_to_vec(source: &Self::Source) -> Vec<u8>;

    /// The part of a send buffer from `offset` on, `len` bytes of it; both must lie inside.
    fn source_part(source: &Self::Source, offset: usize, len: usize) -> Self::Source;
    /// A receive buffer, to send from.
    fn sink_source(sink: &Self::Sink) -> Self::Source;
    /// An atomic operation on our own memory; `None` when the word is not aligned or not inside.
    fn atomic_local(sink: &Self::Sink, offset: usize, op: AtomicOp) -> Option<u64>;

    /// Whether `peek` would show a frame; as cheap as can be, for spinning.
    fn has_frame(&self) -> bool;
    /// The next frame, in private memory.
    ///
    /// # Errors
    /// [`LaneFault`] when the peer wrote something impossible.
    fn peek(&mut self) -> Result<Option<(Frame, Self::Payload)>, LaneFault>;
    /// Length of a payload in bytes.
    fn payload_len(payload: &Self::Payload) -> usize;
    /// Copies a payload into a receive buffer at `at`, as far as there is room.
    fn copy(&self, payload: &Self::Payload, sink: &Self::Sink, at: usize) -> usize;
    /// Appends a payload to private memory.
    fn copy_to_vec(&self, payload: &Self::Payload, to: &mut Vec<u8>);
    /// Done with the frame that `peek` showed.
    fn pop(&mut self, payload: &Self::Payload);

    /// Sends a frame, with `len` bytes of payload from `offset` of a buffer. `false` when there is
    /// no room now.
    ///
    /// # Errors
    /// [`LaneFault`] when the peer wrote something impossible.
    fn push(
        &mut self,
        frame: &Frame,
        payload: Option<(&Self::Source, usize, usize)>,
    ) -> Result<bool, LaneFault>;
    /// Sends a frame with the first `len_bytes` of `body` behind its words. `false` when there is no
    /// room now.
    ///
    /// # Errors
    /// As `push`.
    fn push_body(
        &mut self,
        frame: &Frame,
        body: &Body,
        len_bytes: usize,
    ) -> Result<bool, LaneFault>;
    /// What lies behind the words of the frame that `peek` showed, zeros behind its end. `None` when
    /// that is no body.
    fn body(&self, payload: &Self::Payload) -> Option<Body>;

    /// Makes memory of ours reachable for the peer, unless it is already or cannot be.
    fn place(&mut self, memory: &Self::Source, writable: bool) -> Placing;
    /// Whether the peer has not taken a place back; as cheap as can be.
    fn is_live(&self, place: &Place) -> bool;
    /// Copies `len` bytes from `offset` behind a place of the peer into a receive buffer at the
    /// same offset, where there is room for them.
    ///
    /// # Errors
    /// [`Unreachable`]; then what the buffer holds there is undefined.
    fn copy_placed(
        &mut self,
        place: &Place,
        offset: usize,
        sink: &Self::Sink,
        len: usize,
    ) -> Result<(), Unreachable>;
    /// Copies `len` bytes of a send buffer from `offset` on to the same distance behind a place of the
    /// peer.
    ///
    /// # Errors
    /// [`Unreachable`]: `TakenBack` also when that happened meanwhile.
    fn write_placed(
        &mut self,
        place: &Place,
        offset: usize,
        source: &Self::Source,
        len: usize,
    ) -> Result<(), Unreachable>;
    /// An atomic operation at a place of the peer.
    ///
    /// # Errors
    /// As `write_placed`.
    fn atomic_placed(&mut self, place: &Place, op: AtomicOp) -> Result<u64, Unreachable>;
    /// A view of `len` bytes at a place of the peer.
    ///
    /// # Errors
    /// [`Unreachable`].
    fn view(&mut self, place: &Place, len: u64) -> Result<Self::View, Unreachable>;

    /// Where a buffer of ours lies, for a peer that may reach into our memory by itself; 0 when it may
    /// not.
    fn peer_address(&self, memory: &Self::Source) -> u64;
    /// Whether memory of the peer can be reached where the peer says that it lies.
    fn reaches_peer(&self) -> bool;
    /// Copies `len` bytes from an address of the peer's into a receive buffer at `at`; both must lie
    /// inside. `false`: not all of it came, and what the buffer holds there is undefined.
    fn read_peer(&mut self, address: u64, sink: &Self::Sink, at: usize, len: usize) -> bool;
    /// Copies `len` bytes of a send buffer from `at` on to an address of the peer's. `false`: not all
    /// of it went.
    fn write_peer(&mut self, address: u64, source: &Self::Source, at: usize, len: usize) -> bool;
    /// Says that nothing more will come, as `close`. From its return on the peer does not reach into
    /// our memory any more: the one call here that may wait, for the end of one stretch.
    fn keep_out(&mut self);

    /// Eager bytes and messages that the peer has given back so far, as it alleges.
    fn credits_returned(&self) -> (u64, u64);
    /// Gives eager credit back to the peer.
    fn return_credits(&mut self, bytes: u64, messages: u64);
    /// Lets the peer see what was consumed and given back, and wakes it if it sleeps for that.
    fn tell(&mut self);
    /// Wakes the peer if it sleeps. Call after pushing.
    fn ring(&mut self);
    /// Whether the peer has said that nothing more will come.
    fn peer_is_closing(&self) -> bool;
    /// Says that nothing more will come.
    fn close(&mut self);
}
