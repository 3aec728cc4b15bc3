// SPDX-License-Identifier: Apache-2.0
//! Connects that end only when the peer itself has answered, as MX's do.
//!
//! ```text
//!   connecter                                        peer
//!   ---------                                        ----
//!   takes its end of the channel in                  (stopped, or busy elsewhere)
//!   looks at the peer's window: 0                    takes its end in:
//!   sleeping := 1, heavy fence, looks once more        window := its wish
//!     not 0: answered                                  light fence
//!     0: sleeps                            <-- rings   sleeping == 1 ?  rings the doorbell
//! ```
//!
//! The backend introduces two endpoints without asking the second one. For most doors that is
//! enough: what is sent waits in the channel. A peer that has taken the channel in has said how much
//! of its bulk area the other side should use, which is never 0, and that is the answer that is
//! waited for here. It is the peer's word for its own: a hostile one gains nothing by it. A relay
//! passes it on.
//!
//! The connecter takes its end in before it sleeps, so that its flag is up in that channel too.

use diolkos_proto::{PeerId, Refusal, RequestId, StatusCode};

use crate::endpoint::Core;

/// Connects whose channel is there and whose peer has not answered.
#[derive(Default)]
pub(crate) struct Unanswered(Vec<(RequestId, PeerId)>);

impl Unanswered {
    /// Nobody waits for this one any more.
    pub fn forget(&mut self, request: RequestId) {
        self.0.retain(|(waiting, _)| *waiting != request);
    }
}

impl Core {
    /// There is a channel to the peer of a connect, which completes now, or when it is answered.
    pub fn finish_or_await(&mut self, request: RequestId, peer: PeerId, answer: bool) {
        if answer && peer != PeerId::SELF {
            self.peers.unanswered.0.push((request, peer));
            self.take_answers();
        } else {
            self.machine.finish_connect(request, Ok(peer));
        }
    }

    /// Completes connects that were answered, or whose peer is gone. Tells whether there were any.
    #[inline(always)]
    pub fn take_answers(&mut self) -> bool {
        !self.peers.unanswered.0.is_empty() && self.look_for_answers()
    }

    #[cold]
    fn look_for_answers(&mut self) -> bool {
        let machine = &mut self.machine;
        let unanswered = &mut self.peers.unanswered.0;
        let before = unanswered.len();
        unanswered.retain(|(request, peer)| {
            let result = match machine.peer_state(*peer) {
                Ok(()) if machine.lane_mut(*peer).is_some_and(|lane| lane.is_taken_in()) => {
                    Ok(*peer)
                }
                Ok(()) => return true,
                Err(Refusal::PeerGone(code)) => Err(code),
                Err(_) => Err(StatusCode::PeerClosed),
            };
            machine.finish_connect(*request, result);
            false
        });
        unanswered.len() != before
    }
}
