// SPDX-License-Identifier: Apache-2.0
//! The quick way in: whole eager messages whose receives wait at the front, several at a time.
//!
//! This is what a stream of short messages and a ping-pong consist of, and here the instructions of
//! the receiver bound their rate. So the loop holds the parts of the machine that it needs by
//! themselves, writes each field once where it stays, and settles with the partner at the end. A
//! frame that is anything else is left in the ring for `take_frame`, which reads it anew and checks
//! it from the beginning; nothing that was read here counts there.

use super::partner::Inflow;
use super::{Envelope, Machine, PeerId, Status};
use crate::frame::Message;
use crate::lane::{Lane, LaneFault};
use crate::limits::EAGER_BYTES_MAX;
use crate::matching::Key;

/// What a look at the quick way came to.
pub(super) struct Burst {
    /// Frames taken in.
    pub taken: usize,
    /// The next frame is there and needs the long way.
    pub other: bool,
}

impl<L: Lane> Machine<L> {
    /// Takes in at most `most` messages the quick way.
    #[inline(always)]
    pub(super) fn take_burst(&mut self, index: usize, most: usize) -> Result<Burst, LaneFault> {
        let mut burst = Burst { taken: 0, other: false };
        let partner = &mut self.partners[index];
        let Some(lane) = partner.lane.as_mut() else { return Ok(burst) };
        let peer = PeerId::new(index, partner.generation);
        let between_messages = matches!(partner.inflow, Inflow::Nothing);
        let mut bytes = 0;
        while burst.taken < most {
            let Some((frame, payload)) = lane.peek()? else { break };
            // Whatever is not asked for here fails or passes on the long way.
            burst.other = true;
            let Some(Message::Eager { match_info, immediate, space, length }) =
                Message::parse(&frame)
            else {
                break;
            };
            let whole = L::payload_len(&payload) as u64 == length;
            if !whole || length > EAGER_BYTES_MAX as u64 || !between_messages {
                break;
            }
            let key = Key { match_info, source: peer.to_raw(), space };
            let Some(front) = self.matcher.front_for(&key) else { break };
            let envelope = Envelope { match_info, immediate, space, synchronous: false };
            let message = Status::of(peer, &envelope, length);
            let copy = |sink: &L::Sink| lane.copy(&payload, sink, 0);
            if !self.requests.deliver(front.value(), message, copy) {
                break;
            }
            front.take();
            lane.pop(&payload);
            bytes += length;
            burst.taken += 1;
            burst.other = false;
        }
        if burst.taken > 0 {
            let messages = burst.taken as u64;
            lane.return_credits(bytes, messages);
            partner.traffic.rx_messages += messages;
            partner.traffic.rx_bytes = partner.traffic.rx_bytes.saturating_add(bytes);
        }
        Ok(burst)
    }
}
