// SPDX-License-Identifier: Apache-2.0
//! Introductions: peers come, are watched, and go.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use diolkos_island::{ChannelEnds, Doorbell, Event, Island, IslandError, Road, Target};
use diolkos_proto::{Lane, Machine, PeerId, RequestId, StatusCode};
use diolkos_shm::RegionError;
use diolkos_shm::layout::{HOME_CHANNELS_MAX, HOME_WORD_CHANNELS, HOME_WORD_ENDPOINT};
use diolkos_shm::sync::Ordering;
use diolkos_shm::words::Words;
use rustix::event::epoll;

use crate::answers::Unanswered;
use crate::calibrate::bulk_window_bytes;
use crate::endpoint::Core;
use crate::error::Error;
use crate::lane::{LaneError, ShmLane};

/// Bulk memory that all peers of one endpoint should rotate over together.
const POOL_BYTES: u64 = 64 << 20;
/// The smallest share that makes sense to ask for.
const SHARE_BYTES_MIN: u64 = 256 << 10;

/// What an endpoint knows of a peer.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// Its endpoint number.
    pub number: u32,
    /// Its name.
    pub name: String,
    /// The road to it.
    pub road: Road,
    /// Why this road.
    pub reason: String,
    /// The channel's number at the backend.
    pub channel: u64,
    /// How it left, once it is gone.
    pub gone: Option<StatusCode>,
}

/// What crossed an endpoint so far, and what is in it now.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Messages sent to peers that are still connected.
    pub tx_messages: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Messages received.
    pub rx_messages: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Doorbells rung for sleeping peers.
    pub doorbells_rung: u64,
    /// Times that this endpoint slept.
    pub sleeps: u64,
    /// Messages waiting for a receive.
    pub unexpected: u64,
    /// Receives waiting for a message.
    pub posted: u64,
    /// Requests that exist.
    pub requests: u64,
}

/// A peer's descriptors and its line of counters.
pub(crate) struct Peer {
    pub info: PeerInfo,
    /// Rung by the peer.
    doorbell: Option<Arc<Doorbell>>,
    /// Readable once the peer's process is gone.
    liveness: Option<OwnedFd>,
    counter_line: usize,
    /// The key that its backend has accepted for it.
    accepted_key: Option<u32>,
}

/// What the descriptors of an endpoint stand for, in their epoll data.
pub(crate) enum Token {
    Control,
    Wakeup,
    Doorbell(PeerId),
    Liveness(PeerId),
}

impl Token {
    pub fn to_data(&self) -> epoll::EventData {
        epoll::EventData::new_u64(match self {
            Self::Control => 0,
            Self::Wakeup => 1,
            Self::Doorbell(peer) => 1 << 32 | u64::from(peer.to_raw()),
            Self::Liveness(peer) => 2 << 32 | u64::from(peer.to_raw()),
        })
    }

    pub fn from_data(data: epoll::EventData) -> Self {
        let word = data.u64();
        let peer = PeerId::from_raw(word as u32);
        match word >> 32 {
            0 if word == 0 => Self::Control,
            0 => Self::Wakeup,
            1 => Self::Doorbell(peer),
            _ => Self::Liveness(peer),
        }
    }
}

/// What a connect asks for.
pub(crate) struct Wish {
    pub target: Target,
    pub road: Option<Road>,
    /// How long the backend may wait for the target to exist.
    pub timeout_ms: Option<u32>,
    pub key: Option<u32>,
    /// Whether the peer itself must have answered ([`crate::answers`]).
    pub answer: bool,
}

/// A connect that waits for its introduction.
struct PendingConnect {
    request: RequestId,
    wish: Wish,
}

/// The peers of an endpoint, and how they came.
pub(crate) struct Peers {
    pub island: Box<dyn Island>,
    known: HashMap<PeerId, Peer>,
    pending: HashMap<u32, PendingConnect>,
    pub unanswered: Unanswered,
    failures: HashMap<RequestId, IslandError>,
    next_ticket: u32,
    home: Option<Words>,
    attention_seen: u32,
}

impl Peers {
    pub fn new(island: Box<dyn Island>) -> Self {
        let home = island.home().map(|region| Words::new(region.clone()));
        Self {
            island,
            known: HashMap::new(),
            pending: HashMap::new(),
            unanswered: Unanswered::default(),
            failures: HashMap::new(),
            next_ticket: 0,
            home,
            attention_seen: 0,
        }
    }

    pub fn info(&self, peer: PeerId) -> Option<&PeerInfo> {
        self.known.get(&peer).map(|known| &known.info)
    }

    /// Whether the backend has sent something since we last looked. One load.
    #[inline(always)]
    pub fn attention(&self) -> bool {
        match &self.home {
            // ORDERING: relaxed; a hint to look at the socket, which orders everything itself.
            Some(home) => home.load(0, Ordering::Relaxed) as u32 != self.attention_seen,
            None => false,
        }
    }

    pub fn live_peer(&self, mut wanted: impl FnMut(&PeerInfo) -> bool) -> Option<PeerId> {
        let live = |(peer, known): (&PeerId, &Peer)| {
            (known.info.gone.is_none() && wanted(&known.info)).then_some(*peer)
        };
        self.known.iter().find_map(live)
    }

    /// Whether a connect with this key needs no further answer.
    fn has_accepted(&self, peer: PeerId, key: Option<u32>) -> bool {
        key.is_none() || self.known.get(&peer).is_some_and(|known| known.accepted_key == key)
    }

    fn note_accepted(&mut self, peer: PeerId, key: Option<u32>) {
        if let (Some(known), Some(_)) = (self.known.get_mut(&peer), key) {
            known.accepted_key = key;
        }
    }

    /// Leaves the backend, and gives back what it granted.
    pub fn leave(&mut self, to: Box<dyn Island>) {
        self.island = to;
        self.home = None;
    }

    /// Whether this island ever had a backend.
    pub fn has_backend(&self) -> bool {
        self.home.is_some()
    }

    pub fn take_failure(&mut self, request: RequestId) -> Option<IslandError> {
        self.failures.remove(&request)
    }

    /// Forgets a connect that nobody waits for any more.
    pub fn cancel_connect(&mut self, request: RequestId) {
        self.unanswered.forget(request);
        let ticket = self.pending.iter().find(|(_, p)| p.request == request).map(|(t, _)| *t);
        if let Some(ticket) = ticket {
            self.pending.remove(&ticket);
            self.island.cancel(ticket);
        }
    }
}

impl Core {
    /// Starts an introduction; the request completes when it is done.
    pub fn iconnect(&mut self, wish: Wish) -> Result<RequestId, Error> {
        let request = self.machine.begin_connect()?;
        let identity = self.peers.island.identity();
        let is_self = match &wish.target {
            Target::Name(name) => *name == identity.name,
            Target::Number(number) => *number == identity.number,
        };
        if is_self {
            self.machine.finish_connect(request, Ok(PeerId::SELF));
            return Ok(request);
        }
        let fits = |info: &PeerInfo| {
            let named = match &wish.target {
                Target::Name(name) => info.name == *name,
                Target::Number(number) => info.number == *number,
            };
            named && wish.road.is_none_or(|road| road == info.road)
        };
        if let Some(peer) = self.peers.live_peer(fits)
            && self.peers.has_accepted(peer, wish.key)
        {
            self.finish_or_await(request, peer, wish.answer);
            return Ok(request);
        }
        self.peers.next_ticket = self.peers.next_ticket.wrapping_add(1);
        self.issue(self.peers.next_ticket, PendingConnect { request, wish });
        Ok(request)
    }

    pub fn fail_connect(&mut self, request: RequestId, error: IslandError) {
        self.peers.failures.insert(request, error);
        self.machine.finish_connect(request, Err(StatusCode::Refused));
    }

    /// Takes everything that the island has to say. Never waits.
    #[cold]
    pub fn take_events(&mut self) -> bool {
        let mut came = false;
        if let Some(home) = &self.peers.home {
            self.peers.attention_seen = home.load(0, Ordering::Relaxed) as u32;
        }
        while let Some(event) = self.peers.island.poll_event(self.clock.now_ms()) {
            came = true;
            match event {
                Event::Connected { ticket, ends } => {
                    let pending = self.peers.pending.remove(&ticket);
                    let channel = ends.channel;
                    let result = self.welcome(*ends);
                    if result.is_err() {
                        self.peers.island.disconnect(channel);
                    }
                    if let Some(pending) = pending {
                        match result {
                            Ok(peer) => {
                                self.peers.note_accepted(peer, pending.wish.key);
                                self.finish_or_await(pending.request, peer, pending.wish.answer);
                            }
                            Err(error) => self.fail_connect(pending.request, error),
                        }
                    }
                }
                Event::AlreadyConnected { ticket, channel } => {
                    self.already_connected(ticket, channel);
                }
                Event::Refused { ticket, error } => {
                    if let Some(pending) = self.peers.pending.remove(&ticket) {
                        self.fail_connect(pending.request, error);
                    }
                }
                Event::Introduced(ends) => {
                    // Without memory for it the peer is not let in; it sees a closed channel.
                    let channel = ends.channel;
                    if self.welcome(*ends).is_err() {
                        self.peers.island.disconnect(channel);
                    }
                }
                Event::Gone { channel, .. } => {
                    if let Some(peer) = self.peers.live_peer(|info| info.channel == channel) {
                        self.peer_left(peer);
                    }
                }
                Event::BackendLost => self.watch_island(),
                Event::BackendReturned => self.backend_returned(),
                _ => {}
            }
        }
        self.bury();
        came
    }

    fn already_connected(&mut self, ticket: u32, channel: u64) {
        let Some(pending) = self.peers.pending.remove(&ticket) else { return };
        match self.peers.live_peer(|info| info.channel == channel) {
            Some(peer) => match self.peers.info(peer).map(|info| info.road) {
                Some(road) if pending.wish.road.is_some_and(|wanted| wanted != road) => {
                    let what = format!("connected by the {road} road already; disconnect first");
                    self.fail_connect(pending.request, IslandError::Busy { what });
                }
                _ => {
                    self.peers.note_accepted(peer, pending.wish.key);
                    self.finish_or_await(pending.request, peer, pending.wish.answer);
                }
            },
            None => {
                // The channel ended on our side and the backend has not heard of it: once more.
                self.peers.island.disconnect(channel);
                self.issue(ticket, pending);
            }
        }
    }

    /// Asks the backend for an introduction, perhaps once more.
    fn issue(&mut self, ticket: u32, pending: PendingConnect) {
        let Wish { ref target, road, timeout_ms, key, .. } = pending.wish;
        match self.peers.island.connect(ticket, target, road, timeout_ms, key) {
            Ok(()) => {
                self.peers.pending.insert(ticket, pending);
            }
            Err(error) => self.fail_connect(pending.request, error),
        }
    }

    fn backend_returned(&mut self) {
        self.peers.home = self.peers.island.home().map(|region| Words::new(region.clone()));
        self.watch_island();
        for (ticket, pending) in std::mem::take(&mut self.peers.pending) {
            self.issue(ticket, pending);
        }
        self.publish_counters();
    }

    /// Watches the island's descriptor, which changes when a backend is lost or returns. A closed
    /// descriptor has left the epoll set by itself.
    pub fn watch_island(&mut self) {
        if let Some(descriptor) = self.peers.island.descriptor() {
            let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
            match epoll::add(&self.epoll, descriptor, Token::Control.to_data(), flags) {
                Ok(()) | Err(_) => {}
            }
        }
    }

    /// Makes a peer of the end of a channel.
    pub fn welcome(&mut self, ends: ChannelEnds) -> Result<PeerId, IslandError> {
        let misbehaved = |what: String| IslandError::BackendMisbehaved { what };
        let grant = |error: LaneError| match error {
            LaneError::Header(error) => misbehaved(error.to_string()),
            LaneError::Region(RegionError::System(errno)) => {
                IslandError::System { call: "madvise", errno }
            }
            LaneError::Region(error) => misbehaved(error.to_string()),
        };
        let doorbell = Arc::new(ends.doorbell);
        let (outgoing, incoming) = (ends.outgoing, ends.incoming);
        let window = bulk_window_bytes();
        // A relay in between maps nothing but the two channels.
        let arena = (ends.road == Road::Direct).then(|| self.arena.clone());
        // Without a descriptor for it, copies go through the channel.
        let reached =
            ends.liveness.as_ref().filter(|_| ends.process_vm && ends.road == Road::Direct);
        let process = reached.and_then(|process| process.try_clone().ok());
        let (channel, bell) = (ends.channel, doorbell.clone());
        let lane = ShmLane::new(channel, outgoing, incoming, bell, window, arena, process)
            .map_err(grant)?;
        let full = |_| IslandError::Limit { what: "this endpoint has too many peers".into() };
        let peer = self.machine.add_partner(lane).map_err(full)?;
        let watch = |fd: BorrowedFd<'_>, token: Token| {
            let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
            epoll::add(&self.epoll, fd, token.to_data(), flags)
        };
        let mut watched = watch(doorbell.as_fd(), Token::Doorbell(peer));
        if let Some(liveness) = &ends.liveness {
            watched = watched.and_then(|()| watch(liveness.as_fd(), Token::Liveness(peer)));
        }
        if let Err(errno) = watched {
            let _ = self.machine.disconnect(peer);
            return Err(IslandError::System { call: "epoll_ctl", errno });
        }
        self.peers.known.retain(|other, _| self.machine.knows(*other));
        let counter_line = self.free_counter_line();
        let info = PeerInfo {
            number: ends.peer.number,
            name: ends.peer.name,
            road: ends.road,
            reason: ends.reason,
            channel: ends.channel,
            gone: None,
        };
        let doorbell = Some(doorbell);
        self.peers.known.insert(
            peer,
            Peer { info, doorbell, liveness: ends.liveness, counter_line, accepted_key: None },
        );
        self.share_pool();
        // The wish that was just stored is the answer that the peer may be sleeping for.
        if let Some(lane) = self.machine.lane_mut(peer) {
            lane.ring();
        }
        self.publish_counters();
        Ok(peer)
    }

    /// The backend saw a peer leave. Whoever closes says so in the channel first; the backend may
    /// hear of a process that died before its descriptor tells us.
    fn peer_left(&mut self, peer: PeerId) {
        if self.machine.lane_mut(peer).is_some_and(|lane| lane.peer_is_closing()) {
            self.machine.peer_failed(peer, StatusCode::PeerClosed, "it left");
        } else {
            self.machine.peer_failed(peer, StatusCode::PeerDied, "its process died");
        }
    }

    /// The process behind a peer is gone.
    pub fn peer_died(&mut self, peer: PeerId) {
        self.machine.peer_failed(peer, StatusCode::PeerDied, "its process died");
        self.bury();
    }

    /// Closes what belonged to departed peers and tells the backend.
    pub fn bury(&mut self) {
        let mut changed = false;
        while let Some((peer, code, _)) = self.machine.take_departed() {
            changed = true;
            let Some(known) = self.peers.known.get_mut(&peer) else { continue };
            known.info.gone = Some(code);
            // Removed by hand: others may hold the same open files, so closing our descriptors would
            // not take them out of the set.
            if let Some(doorbell) = known.doorbell.take() {
                let _ = epoll::delete(&self.epoll, doorbell.as_fd());
            }
            if let Some(liveness) = known.liveness.take() {
                let _ = epoll::delete(&self.epoll, &liveness);
            }
            let line = std::mem::replace(&mut known.counter_line, HOME_CHANNELS_MAX);
            let channel = known.info.channel;
            self.clear_counter_line(line);
            self.arena.forget_channel(channel);
            self.peers.island.disconnect(channel);
        }
        if changed {
            self.share_pool();
        }
    }

    /// Divides the bulk pool among the peers that are there.
    fn share_pool(&mut self) {
        let peers: Vec<PeerId> = self.machine.peers().collect();
        let share =
            (POOL_BYTES / peers.len().max(1) as u64).clamp(SHARE_BYTES_MIN, bulk_window_bytes());
        for peer in peers {
            if let Some(lane) = self.machine.lane_mut(peer) {
                lane.ask_window(share);
            }
        }
    }

    /// Takes a peer's rings: they said to look at the rings, and the next one is news.
    pub fn silence_doorbell(&self, peer: PeerId) {
        if let Some(doorbell) = self.peers.known.get(&peer).and_then(|peer| peer.doorbell.as_ref())
        {
            doorbell.silence();
        }
    }

    fn free_counter_line(&self) -> usize {
        let used: std::collections::HashSet<usize> =
            self.peers.known.values().map(|known| known.counter_line).collect();
        (0..HOME_CHANNELS_MAX).find(|line| !used.contains(line)).unwrap_or(HOME_CHANNELS_MAX)
    }

    fn clear_counter_line(&self, line: usize) {
        if let Some(home) = &self.peers.home
            && line < HOME_CHANNELS_MAX
        {
            home.store(HOME_WORD_CHANNELS + 8 * line, 0, Ordering::Relaxed);
        }
    }

    /// Writes the counters where others can read them. Plain stores: nobody is disturbed.
    #[cold]
    pub fn publish_counters(&mut self) {
        let Some(home) = &self.peers.home else { return };
        let (unexpected, unexpected_bytes) = self.machine.unexpected();
        let endpoint = [
            self.peers.known.len() as u64,
            self.wakeups,
            self.sleeps,
            self.polls_with_work,
            unexpected as u64,
            unexpected_bytes,
            self.machine.posted_count() as u64,
            self.machine.request_count() as u64,
        ];
        for (i, value) in endpoint.into_iter().enumerate() {
            home.store(HOME_WORD_ENDPOINT + i, value, Ordering::Relaxed);
        }
        for (peer, known) in &self.peers.known {
            if known.counter_line < HOME_CHANNELS_MAX {
                let line = channel_line(&mut self.machine, *peer, known.info.channel);
                for (i, value) in line.into_iter().enumerate() {
                    let word = HOME_WORD_CHANNELS + 8 * known.counter_line + i;
                    home.store(word, value, Ordering::Relaxed);
                }
            }
        }
    }

    /// The endpoint's counters as a private value.
    pub fn counters(&mut self) -> Counters {
        let peers: Vec<PeerId> = self.machine.peers().collect();
        let mut sum = Counters {
            sleeps: self.sleeps,
            unexpected: self.machine.unexpected().0 as u64,
            posted: self.machine.posted_count() as u64,
            requests: self.machine.request_count() as u64,
            ..Counters::default()
        };
        for peer in peers {
            let traffic = self.machine.traffic(peer);
            sum.tx_messages += traffic.tx_messages;
            sum.tx_bytes += traffic.tx_bytes;
            sum.rx_messages += traffic.rx_messages;
            // A peer alleges the lengths of its messages, so even this sum may overflow.
            sum.rx_bytes = sum.rx_bytes.saturating_add(traffic.rx_bytes);
            sum.doorbells_rung += self.machine.lane_mut(peer).map_or(0, |lane| lane.doorbells_rung);
        }
        sum
    }
}

fn channel_line(machine: &mut Machine<ShmLane>, peer: PeerId, channel: u64) -> [u64; 8] {
    let traffic = machine.traffic(peer);
    let rung = machine.lane_mut(peer).map_or(0, |lane| lane.doorbells_rung);
    [
        channel,
        traffic.tx_messages,
        traffic.tx_bytes,
        traffic.rx_messages,
        traffic.rx_bytes,
        rung,
        traffic.tx_queued,
        traffic.rx_held,
    ]
}
