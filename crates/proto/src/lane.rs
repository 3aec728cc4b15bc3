// SPDX-License-Identifier: Apache-2.0
//! What the machine needs of the road to one peer.

use std::fmt::Debug;

use crate::frame::Frame;

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
