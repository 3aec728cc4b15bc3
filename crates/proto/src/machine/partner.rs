// SPDX-License-Identifier: Apache-2.0
//! What an endpoint keeps for one peer.

use std::collections::VecDeque;

use super::pull::Pull;
use super::region::Moving;
use super::remote::{Known, Operation};
use super::request::Body;
use super::{Machine, PeerId, Refusal, StatusCode};
use crate::credit::{HeldCredit, SendCredit};
use crate::frame::Message;
use crate::granted::Place;
use crate::lane::Lane;
use crate::limits::{CREDIT_MESSAGES, PARTNERS_MAX};

/// Places of departed peers that are kept before one is used again, so that late calls still get
/// to know how the peer left.
const DEPARTED_KEPT: usize = 64;

/// Batches of frames that are taken in after a peer is known to be gone: more than any ring holds.
/// A peer that is said to have left but goes on writing must not keep us reading for ever.
const LAST_BATCHES_MAX: u32 = 64;

/// A send that could not leave at once; in the order of the program's calls.
pub(super) struct QueuedSend<L: Lane> {
    pub request: u32,
    pub source: L::Source,
    pub first: Message,
    /// Where the receiver can take the data from, if anywhere.
    pub place: Option<Place>,
    /// Bytes of an eager message that have left.
    pub done: usize,
    pub paid: bool,
}

/// Accepted data on its way out.
pub(super) struct Stream<L: Lane> {
    pub recv_id: u32,
    pub source: L::Source,
    pub next: usize,
    pub end: usize,
    pub end_of: StreamEnd,
}

/// What ends with a stream.
pub(super) enum StreamEnd {
    /// The send with this request.
    Send(u32),
    /// Nothing yet: the owner of the region answers the write.
    Put,
    /// What a peer wanted out of a region of ours.
    Served,
}

/// An answer that waits for a free cell.
pub(super) enum Answer {
    Frame {
        message: Message,
        /// Whether the announcement that it answers is given back with it.
        returns_credit: bool,
    },
    /// Where a region is, as of when it is sent.
    Tell { region: u32 },
}

/// What a peer is being served out of our regions.
pub(super) enum Served<L: Lane> {
    Nothing,
    /// Its data is coming; `cut` when the region is gone and the data goes nowhere.
    Put {
        request: u32,
        send_id: u32,
        region: u32,
        cut: bool,
    },
    /// Its data is on its way out.
    Get {
        recv_id: u32,
        region: u32,
    },
    /// It is moved between the region and the peer's own memory.
    Moving(Moving<L>),
}

/// Where the parts of the eager message under way go.
#[derive(Clone, Copy)]
pub(super) enum Inflow {
    Nothing,
    /// To a receive.
    Request(u32),
    /// To an unexpected message.
    Arrival(u32),
    /// Nowhere: the message was refused, but its parts are still coming.
    Discard {
        left: u64,
    },
}

/// Why a peer is about to be parted from, and how many of its last frames are still taken in.
#[derive(Clone, Copy)]
pub(super) struct Leaving {
    pub code: StatusCode,
    pub why: &'static str,
    pub batches_left: u32,
}

/// Messages and bytes that crossed, each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Messages sent.
    pub tx_messages: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Messages received.
    pub rx_messages: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Sends waiting now.
    pub tx_queued: u64,
    /// Messages held unreceived now.
    pub rx_held: u64,
}

pub(super) struct Partner<L: Lane> {
    pub generation: u16,
    /// `None` when the peer is gone.
    pub lane: Option<L>,
    /// It is gone, as we were told; its last frames are being taken in.
    pub leaving: Option<Leaving>,
    /// How it left, when it is gone.
    pub gone: StatusCode,
    pub credit: SendCredit,
    pub held: HeldCredit,
    pub queue: VecDeque<QueuedSend<L>>,
    pub answers: VecDeque<Answer>,
    pub streams: VecDeque<Stream<L>>,
    pub pulls: VecDeque<Pull<L>>,
    pub operations: VecDeque<Operation<L>>,
    /// Its regions of which we know.
    pub known: Vec<Known>,
    pub served: Served<L>,
    pub inflow: Inflow,
    pub traffic: Traffic,
}

impl<L: Lane> Partner<L> {
    fn new(lane: L, generation: u16) -> Self {
        Self {
            generation,
            lane: Some(lane),
            leaving: None,
            gone: StatusCode::Success,
            credit: SendCredit::default(),
            held: HeldCredit::default(),
            queue: VecDeque::new(),
            answers: VecDeque::new(),
            streams: VecDeque::new(),
            pulls: VecDeque::new(),
            operations: VecDeque::new(),
            known: Vec::new(),
            served: Served::Nothing,
            inflow: Inflow::Nothing,
            traffic: Traffic::default(),
        }
    }

    /// Whether more answers of a kind wait than there is credit for messages.
    #[inline(always)]
    pub fn owes_too_much(&self, is_counted: impl Fn(&Answer) -> bool) -> bool {
        let most = CREDIT_MESSAGES as usize;
        self.answers.len() > most
            && self.answers.iter().filter(|answer| is_counted(answer)).count() > most
    }

    /// Whether something waits to be sent.
    #[inline(always)]
    pub fn has_backlog(&self) -> bool {
        !(self.queue.is_empty()
            && self.answers.is_empty()
            && self.streams.is_empty()
            && self.pulls.is_empty()
            && self.operations.is_empty()
            && !matches!(self.served, Served::Moving(_)))
    }
}

impl<L: Lane> Machine<L> {
    /// Adds a peer behind a fresh lane.
    ///
    /// # Errors
    /// [`Refusal::NoResources`] when there are too many.
    pub fn add_partner(&mut self, lane: L) -> Result<PeerId, Refusal> {
        let departed = self.partners.iter().filter(|p| p.lane.is_none()).count();
        let reuse = (departed > DEPARTED_KEPT || self.partners.len() >= PARTNERS_MAX)
            .then(|| self.partners.iter().position(|p| p.lane.is_none()))
            .flatten();
        let index = match reuse {
            Some(index) => {
                let generation = self.partners[index].generation.wrapping_add(1);
                self.partners[index] = Partner::new(lane, generation);
                index
            }
            None if self.partners.len() < PARTNERS_MAX => {
                self.partners.push(Partner::new(lane, 0));
                self.partners.len() - 1
            }
            None => return Err(Refusal::NoResources),
        };
        self.live_partners += 1;
        self.make_hot(index);
        Ok(PeerId::new(index, self.partners[index].generation))
    }

    /// Parts from a peer on our wish. Its requests end with `EndpointClosed`.
    ///
    /// # Errors
    /// [`Refusal::NotConnected`] when there is no such peer.
    pub fn disconnect(&mut self, peer: PeerId) -> Result<(), Refusal> {
        let index = self.partner_index(peer)?;
        self.part(index, StatusCode::EndpointClosed, "disconnected by us", true);
        Ok(())
    }

    /// The peer is gone, as somebody outside the channel knows (its process died, say). What it
    /// had sent before is taken in first, at once or, while the handler is asked, by later polls.
    pub fn peer_failed(&mut self, peer: PeerId, code: StatusCode, why: &'static str) {
        let Ok(index) = self.partner_index(peer) else { return };
        // A death is told twice, by the process and by the backend. For a peer that has been parted
        // from already it is no news, and must not look like work for ever.
        if self.partners[index].lane.is_none() {
            return;
        }
        let leaving = Leaving { code, why, batches_left: LAST_BATCHES_MAX };
        self.partners[index].leaving.get_or_insert(leaving);
        while self.partners[index].lane.is_some() && self.pending_handler.is_none() {
            self.poll_partner(index);
        }
    }

    /// A batch of a leaving peer's last frames was taken in, or there was none: the end of it?
    #[cold]
    pub(super) fn poll_leaving(&mut self, index: usize, taken: usize) {
        let Some(leaving) = self.partners[index].leaving.as_mut() else { return };
        leaving.batches_left = leaving.batches_left.saturating_sub(1);
        let Leaving { code, why, batches_left } = *leaving;
        if taken == 0 || batches_left == 0 {
            self.part(index, code, why, false);
        }
    }

    /// Whether a peer is there.
    ///
    /// # Errors
    /// [`Refusal::NotConnected`] for a name that never was or was replaced,
    /// [`Refusal::PeerGone`] for one that left.
    pub fn peer_state(&self, peer: PeerId) -> Result<(), Refusal> {
        let index = self.partner_index(peer)?;
        match self.partners[index].lane {
            Some(_) => Ok(()),
            None => Err(Refusal::PeerGone(self.partners[index].gone)),
        }
    }

    /// Whether a peer's name is still remembered, there or gone.
    #[must_use]
    pub fn knows(&self, peer: PeerId) -> bool {
        self.partner_index(peer).is_ok()
    }

    /// The lane to a peer, while it is there.
    pub fn lane_mut(&mut self, peer: PeerId) -> Option<&mut L> {
        let index = self.partner_index(peer).ok()?;
        self.partners[index].lane.as_mut()
    }

    /// Whether something waits to be sent to a peer: a sleeper must be woken for room, too.
    #[must_use]
    pub fn waits_for_room(&self, peer: PeerId) -> bool {
        self.partner_index(peer).is_ok_and(|index| self.partners[index].has_backlog())
    }

    /// Every live peer.
    pub fn peers(&self) -> impl Iterator<Item = PeerId> + '_ {
        let live = |(index, partner): (usize, &Partner<L>)| {
            partner.lane.is_some().then(|| PeerId::new(index, partner.generation))
        };
        self.partners.iter().enumerate().filter_map(live)
    }

    /// What crossed to and from a peer.
    #[must_use]
    pub fn traffic(&self, peer: PeerId) -> Traffic {
        let Ok(index) = self.partner_index(peer) else { return Traffic::default() };
        let partner = &self.partners[index];
        Traffic {
            tx_queued: partner.queue.len() as u64,
            rx_held: partner.held.held().1,
            ..partner.traffic
        }
    }

    #[inline(always)]
    pub(super) fn partner_index(&self, peer: PeerId) -> Result<usize, Refusal> {
        match self.partners.get(peer.index()) {
            Some(partner) if PeerId::new(peer.index(), partner.generation) == peer => {
                Ok(peer.index())
            }
            _ => Err(Refusal::NotConnected),
        }
    }

    #[inline(always)]
    pub(super) fn peer_id(&self, index: usize) -> PeerId {
        PeerId::new(index, self.partners[index].generation)
    }

    /// Ends the relation to a peer in any way: the one place where a lane is dropped.
    pub(super) fn part(&mut self, index: usize, code: StatusCode, why: &'static str, by_us: bool) {
        let peer = self.peer_id(index);
        let partner = &mut self.partners[index];
        let Some(mut lane) = partner.lane.take() else { return };
        if by_us {
            // The frame is quicker to see; the flag works even when the ring is full.
            let _ = lane.push(&Message::Close.emit(), None);
            lane.close();
            lane.ring();
        }
        // What it may still be writing to is about to be the program's again.
        if partner.operations.front().is_some_and(Operation::is_offered) {
            lane.keep_out();
        }
        drop(lane);
        partner.leaving = None;
        partner.gone = code;
        partner.queue.clear();
        partner.answers.clear();
        partner.streams.clear();
        partner.pulls.clear();
        partner.operations.clear();
        partner.known.clear();
        partner.served = Served::Nothing;
        partner.inflow = Inflow::Nothing;
        self.live_partners -= 1;
        self.forget_told(peer);
        self.drop_unfinished_arrivals(peer);
        self.requests.fail_bound(peer, code);
        let last_died = self.live_partners == 0
            && matches!(code, StatusCode::PeerDied | StatusCode::PeerMisbehaved);
        if last_died {
            self.last_deaths.0 += 1;
            self.last_deaths.1 = code;
        }
        let doomed = self.matcher.remove_posted(|pattern, _| match pattern.source {
            Some(source) => source == peer.to_raw(),
            None => last_died && !self.receives_outlive_peers,
        });
        for request in doomed {
            self.fail_posted(request, peer, code);
        }
        self.departed.push((peer, code, why));
    }

    fn fail_posted(&mut self, request: u32, peer: PeerId, code: StatusCode) {
        let slot = self.requests.slot(request);
        slot.status.source = peer;
        debug_assert!(matches!(slot.body, Body::Posted { .. } | Body::PostedLoan | Body::Multi));
        if !self.requests.end_multi(request, code) {
            self.requests.complete(request, code, 0);
        }
    }

    pub(super) fn make_hot(&mut self, index: usize) {
        let index = index as u16;
        if self.hot[0] != index {
            self.hot = [index, self.hot[0]];
        }
    }
}
