// SPDX-License-Identifier: Apache-2.0
//! The process island: this host's processes and containers.
//!
//! Memory is sealed memfds, doorbells are eventfds, and both come from the backend over a Unix
//! socket, one JSON object a packet (`docs/reference/control.md`). The socket is used when a
//! channel is made or ended, never for a message.
//!
//! ```text
//!            open                          the socket ends, or talks nonsense
//!   (none) --------> up -----------------------------------------------> lost
//!                     ^                                                   | every 100 ms
//!                     |        opened, as who we were                     v
//!                     +--------------------------------------- returning (connected, asked)
//! ```
//!
//! While the backend is lost, channels go on: nothing of theirs runs through here. Connects are
//! taken and wait; where a command for it is known, the first of them starts another backend. The
//! backend that is found then takes this endpoint back under its number and name and hears which
//! channels it still holds. The caller repeats its waiting connects after `BackendReturned`.
//!
//! Trust: the backend's word on who a peer is is taken. Its packets are checked all the same (size,
//! schema, number of descriptors, kind of each file), and one that is wrong ends the connection:
//! a broken backend then is a lost one.
//!
//! A forked child shares the socket with its parent. It sends nothing, and dropping its copy says
//! nothing either.

mod control;
mod grant;
mod info;
mod messages;
mod runtime_dir;
mod spawn;

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use diolkos_shm::{Region, fork};

use crate::{ChannelEnds, Event, Identity, Island, IslandError, PeerIdentity, Road, Target};
use control::{Control, Packet};
use messages::{CLAIMS_PER_PACKET_MAX, Claim, Reply, Request, Resume, TargetWord};
use runtime_dir::RuntimeDir;
use spawn::{Progress, Starter};

pub use grant::ends_from_descriptors;
pub use info::query_info;

/// The beginning of a small file that the owner of the runtime directory keeps there; `None` when
/// there is none, or the directory cannot be trusted.
#[must_use]
pub fn runtime_file(runtime_dir: Option<&Path>, name: &str, bytes_max: usize) -> Option<Vec<u8>> {
    RuntimeDir::open(runtime_dir).ok()??.read(name, bytes_max)
}

/// How to open an endpoint at this host's backend.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Its name; `ep-<number>` when there is none.
    pub name: Option<String>,
    /// Its number; the lowest free one when there is none.
    pub number: Option<u32>,
    /// Its partition.
    pub partition: String,
    /// What connects must know, if anything.
    pub key: Option<u32>,
    /// Where the backend listens; by the rules of `docs/reference/control.md` when there is none.
    pub runtime_dir: Option<PathBuf>,
    /// What starts a backend when none runs; `--runtime-dir D --ready-fd N` is added. Empty: none.
    pub backend_command: Vec<OsString>,
    /// How long a backend may take to answer, the time to start one included.
    pub start_timeout: Duration,
}

/// Where a connection to the backend stands.
enum Link {
    /// It serves us.
    Up(Control),
    /// It has been asked to take us back.
    Returning(Control),
    /// There is none.
    Lost,
}

/// A channel that this endpoint holds: what a new backend must hear of it.
struct Held {
    peer: PeerIdentity,
    road: Road,
}

/// An endpoint's connection to the backend.
pub struct ProcessIsland {
    identity: Identity,
    key: Option<u32>,
    home: Arc<Region>,
    generation: u64,
    link: Link,
    runtime_dir: Option<PathBuf>,
    backend_command: Vec<OsString>,
    starter: Option<Starter>,
    /// When to look for a lost backend again, on the caller's clock.
    retry_at_ms: u64,
    held: HashMap<u64, Held>,
    /// Request id of each connect under way, by ticket. A ticket may be used again after a
    /// cancel; an id never is.
    asked: HashMap<u32, u64>,
    /// Connects while there is no backend: their time, then (once the clock is known) its end.
    parked: HashMap<u32, Parked>,
    next_id: u64,
    lost_told: bool,
    fork_generation: u32,
}

/// A connect that waits for a backend.
#[derive(Clone, Copy)]
struct Parked {
    timeout_ms: Option<u32>,
    deadline_ms: Option<u64>,
}

/// How often a lost backend is looked for.
const RETRY_MS: u64 = 100;
/// How often after it was found and did not take us back.
const RETRY_REFUSED_MS: u64 = 1000;

impl ProcessIsland {
    /// Opens an endpoint, starting a backend if none runs and a command for it is known.
    ///
    /// # Errors
    /// [`IslandError`] when the backend refuses, cannot be reached or started in time, or the
    /// runtime directory cannot be trusted. A signal ends the wait with `System` and `EINTR`;
    /// nothing is lost then, and the call can be repeated.
    pub fn open(options: &OpenOptions) -> Result<Self, IslandError> {
        let fork_generation = fork::watch();
        let deadline = Instant::now() + options.start_timeout;
        let request = Request::open(options, None);
        let (control, packet) = spawn::reach(
            options.runtime_dir.as_deref(),
            &options.backend_command,
            deadline,
            &request,
        )?;
        let opened = Opened::take(packet)?;
        Ok(Self {
            identity: opened.identity,
            key: options.key,
            home: Arc::new(opened.home),
            generation: opened.generation,
            link: Link::Up(control),
            runtime_dir: options.runtime_dir.clone(),
            backend_command: options.backend_command.clone(),
            starter: None,
            retry_at_ms: 0,
            held: HashMap::new(),
            asked: HashMap::new(),
            parked: HashMap::new(),
            next_id: messages::FIRST_CONNECT_ID,
            lost_told: false,
            fork_generation,
        })
    }

    fn forked(&self) -> bool {
        fork::generation() != self.fork_generation
    }

    /// Sends while the backend is up; a failure is noticed as its loss by the next poll.
    fn tell(&mut self, request: &Request) {
        if self.forked() {
            return;
        }
        if let Link::Up(control) = &self.link
            && control.send(request).is_err()
        {
            self.lose();
        }
    }

    /// The backend is gone, or as good as gone.
    fn lose(&mut self) {
        if let Link::Up(_) = self.link {
            self.lost_told = false;
        }
        self.link = Link::Lost;
        self.retry_at_ms = 0;
        // The caller repeats these when a backend is back; until then only their time matters.
        for (ticket, _) in self.asked.drain() {
            self.parked.entry(ticket).or_insert(Parked { timeout_ms: None, deadline_ms: None });
        }
    }

    /// Handles what the backend sent; an error makes it a lost one.
    fn handle(&mut self, packet: Packet) -> Result<Option<Event>, IslandError> {
        let reply = Reply::parse(&packet.bytes)?;
        match reply {
            Reply::Connected { id, channel, peer, road, reason, existing, process_vm } => {
                let ticket = self.ticket_of(id);
                if existing {
                    return Ok(ticket.map(|ticket| Event::AlreadyConnected { ticket, channel }));
                }
                let ends = match channel_ends(packet, channel, peer, road, reason, process_vm) {
                    Ok(ends) => ends,
                    Err(error @ IslandError::System { .. }) => {
                        self.decline(channel);
                        return Ok(ticket.map(|ticket| Event::Refused { ticket, error }));
                    }
                    Err(error) => return Err(error),
                };
                self.hold(&ends);
                Ok(Some(match ticket {
                    Some(ticket) => Event::Connected { ticket, ends: Box::new(ends) },
                    // The connect was cancelled while its answer was on the way. The peer has
                    // its end already, so we take ours.
                    None => Event::Introduced(Box::new(ends)),
                }))
            }
            Reply::Introduced { channel, peer, road, reason, process_vm } => {
                let ends = match channel_ends(packet, channel, peer, road, reason, process_vm) {
                    Ok(ends) => ends,
                    // Whoever wanted to meet us sees that we left.
                    Err(IslandError::System { .. }) => {
                        self.decline(channel);
                        return Ok(None);
                    }
                    Err(error) => return Err(error),
                };
                self.hold(&ends);
                Ok(Some(Event::Introduced(Box::new(ends))))
            }
            Reply::Gone { channel, reason } => {
                Ok(self.held.remove(&channel).map(|_| Event::Gone { channel, reason }))
            }
            Reply::Error(refusal) => {
                let ticket = self.ticket_of(refusal.id);
                Ok(ticket.map(|ticket| Event::Refused { ticket, error: refusal.into() }))
            }
            Reply::Opened(_) => {
                Err(IslandError::BackendMisbehaved { what: "an endpoint opened twice".into() })
            }
        }
    }

    /// This process has no descriptors or memory for a channel: the backend did nothing wrong, and
    /// hears that the channel has ended.
    fn decline(&mut self, channel: u64) {
        self.tell(&Request::Disconnect { id: messages::UNANSWERED_ID, channel });
    }

    fn hold(&mut self, ends: &ChannelEnds) {
        let held = Held { peer: ends.peer.clone(), road: ends.road };
        self.held.insert(ends.channel, held);
    }

    /// The connect that a request id belongs to; it is answered then.
    fn ticket_of(&mut self, id: u64) -> Option<u32> {
        let ticket =
            self.asked.iter().find(|(_, asked)| **asked == id).map(|(ticket, _)| *ticket)?;
        self.asked.remove(&ticket);
        Some(ticket)
    }

    /// One step towards a backend. Never waits.
    fn return_to_backend(&mut self, now_ms: u64) -> Option<Event> {
        if let Link::Returning(control) = &mut self.link {
            return match control.receive() {
                Ok(None) => None,
                Ok(Some(packet)) => self.taken_back(packet, now_ms),
                Err(_) => self.retry_later(now_ms, RETRY_MS),
            };
        }
        if let Some(event) = self.watch_starter(now_ms) {
            return Some(event);
        }
        if now_ms < self.retry_at_ms {
            return None;
        }
        self.retry_at_ms = now_ms + RETRY_MS;
        match self.ask_back() {
            Ok(true) => {}
            Ok(false) => self.start_backend(),
            Err(_) => self.retry_at_ms = now_ms + RETRY_REFUSED_MS,
        }
        None
    }

    /// Connects and asks to be taken back; false when nobody listens.
    fn ask_back(&mut self) -> Result<bool, IslandError> {
        let Some(directory) = RuntimeDir::open(self.runtime_dir.as_deref())? else {
            return Ok(false);
        };
        let Some(control) = Control::connect(&directory)? else {
            return Ok(false);
        };
        let mut claims = self.claims();
        claims.truncate(CLAIMS_PER_PACKET_MAX);
        let resume =
            Resume { number: self.identity.number, generation: self.generation, channels: claims };
        control.send(&Request::reopen(&self.identity, self.key, resume))?;
        self.link = Link::Returning(control);
        Ok(true)
    }

    fn claims(&self) -> Vec<Claim> {
        let claim = |(channel, held): (&u64, &Held)| Claim {
            channel: *channel,
            peer_number: held.peer.number,
            peer_name: held.peer.name.clone(),
            road: held.road.as_str(),
        };
        let mut claims: Vec<Claim> = self.held.iter().map(claim).collect();
        // In order, so that the first packet and the later ones are parts of one list.
        claims.sort_by_key(|claim| claim.channel);
        claims
    }

    /// The backend's answer to `ask_back`.
    fn taken_back(&mut self, packet: Packet, now_ms: u64) -> Option<Event> {
        let opened = match Opened::take(packet) {
            Ok(opened) if opened.identity == self.identity => opened,
            // Somebody else has our name now, or a limit is in the way: it may pass.
            _ => return self.retry_later(now_ms, RETRY_REFUSED_MS),
        };
        let Link::Returning(control) = std::mem::replace(&mut self.link, Link::Lost) else {
            return None;
        };
        self.link = Link::Up(control);
        self.home = Arc::new(opened.home);
        self.generation = opened.generation;
        self.parked.clear();
        self.starter = None;
        let claims = self.claims();
        for part in claims.chunks(CLAIMS_PER_PACKET_MAX).skip(1) {
            self.tell(&Request::Claim { id: messages::UNANSWERED_ID, channels: part.to_vec() });
        }
        Some(Event::BackendReturned)
    }

    fn retry_later(&mut self, now_ms: u64, delay_ms: u64) -> Option<Event> {
        self.link = Link::Lost;
        self.retry_at_ms = now_ms + delay_ms;
        None
    }

    /// Starts a backend if a connect waits for one and nobody else is about to.
    fn start_backend(&mut self) {
        if self.starter.is_none() && !self.parked.is_empty() && !self.backend_command.is_empty() {
            let starter = Starter::try_start(self.runtime_dir.as_deref(), &self.backend_command);
            self.starter = starter.ok().flatten();
        }
    }

    /// Looks at a backend that is starting; one that cannot start fails those who wait for it.
    fn watch_starter(&mut self, now_ms: u64) -> Option<Event> {
        match self.starter.as_mut()?.poll() {
            Progress::Starting => None,
            Progress::Ready | Progress::OtherRuns => {
                self.starter = None;
                self.retry_at_ms = now_ms;
                None
            }
            Progress::Failed(what) => {
                let Some(ticket) = self.parked.keys().next().copied() else {
                    self.starter = None;
                    return None;
                };
                // The starter stays, and says the same again, until nobody waits any more.
                self.parked.remove(&ticket);
                Some(Event::Refused { ticket, error: IslandError::BackendUnavailable { what } })
            }
        }
    }

    /// A parked connect whose time is up.
    fn expired(&mut self, now_ms: u64) -> Option<Event> {
        for parked in self.parked.values_mut() {
            if parked.deadline_ms.is_none() {
                parked.deadline_ms = parked.timeout_ms.map(|ms| now_ms + u64::from(ms));
            }
        }
        let over = |parked: &Parked| parked.deadline_ms.is_some_and(|at| at <= now_ms);
        let ticket = *self.parked.iter().find(|(_, parked)| over(parked))?.0;
        self.parked.remove(&ticket);
        let what = "the backend is gone and none has come back in time".into();
        Some(Event::Refused { ticket, error: IslandError::Timeout { what } })
    }
}

impl Island for ProcessIsland {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn home(&self) -> Option<&Arc<Region>> {
        Some(&self.home)
    }

    fn connect(
        &mut self,
        ticket: u32,
        target: &Target,
        road: Option<Road>,
        timeout_ms: Option<u32>,
        key: Option<u32>,
    ) -> Result<(), IslandError> {
        if self.forked() {
            return Err(IslandError::Invalid { what: "the endpoint is the parent's".into() });
        }
        let id = self.next_id;
        self.next_id += 1;
        if let Link::Up(control) = &self.link {
            let road = road.map_or("auto", Road::as_str);
            let target = TargetWord::from(target);
            let request = Request::Connect { id, target, road, timeout_ms, key };
            if control.send(&request).is_ok() {
                self.asked.insert(ticket, id);
                return Ok(());
            }
            self.lose();
        }
        if timeout_ms == Some(0) {
            let what = "the backend is gone; connects wait for another".into();
            return Err(IslandError::BackendUnavailable { what });
        }
        self.parked.insert(ticket, Parked { timeout_ms, deadline_ms: None });
        Ok(())
    }

    fn cancel(&mut self, ticket: u32) {
        self.parked.remove(&ticket);
        if let Some(target_id) = self.asked.remove(&ticket) {
            self.tell(&Request::Cancel { id: messages::UNANSWERED_ID, target_id });
        }
    }

    fn disconnect(&mut self, channel: u64) {
        if self.held.remove(&channel).is_some() {
            self.tell(&Request::Disconnect { id: messages::UNANSWERED_ID, channel });
        }
    }

    fn poll_event(&mut self, now_ms: u64) -> Option<Event> {
        if self.forked() {
            return None;
        }
        while let Link::Up(control) = &mut self.link {
            let handled = match control.receive() {
                Ok(None) => return None,
                Ok(Some(packet)) => self.handle(packet),
                Err(error) => Err(error),
            };
            match handled {
                Ok(Some(event)) => return Some(event),
                Ok(None) => {}
                Err(_) => self.lose(),
            }
        }
        if !self.lost_told {
            self.lost_told = true;
            return Some(Event::BackendLost);
        }
        self.expired(now_ms).or_else(|| self.return_to_backend(now_ms))
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match &self.link {
            Link::Up(control) => Some(control.descriptor()),
            Link::Returning(_) | Link::Lost => None,
        }
    }
}

impl Drop for ProcessIsland {
    fn drop(&mut self) {
        // A forked child may hold the socket too: the end must be said, closing does not say it.
        // In such a child it must not be said.
        if !self.forked()
            && let Link::Up(control) = &self.link
        {
            control.shut_down();
        }
    }
}

/// The end of a granted channel.
fn channel_ends(
    packet: Packet,
    channel: u64,
    peer: PeerIdentity,
    road: Road,
    reason: String,
    process_vm: bool,
) -> Result<ChannelEnds, IslandError> {
    let descriptors = packet.whole()?.descriptors;
    grant::channel_ends(channel, peer, road, reason, process_vm, descriptors)
}

/// A checked `opened`.
struct Opened {
    identity: Identity,
    generation: u64,
    home: Region,
}

impl Opened {
    /// Takes the answer to an open apart.
    fn take(packet: Packet) -> Result<Self, IslandError> {
        let packet = packet.whole()?;
        match Reply::parse(&packet.bytes)? {
            Reply::Opened(opened) => Ok(Self {
                home: grant::home(packet.descriptors)?,
                generation: opened.generation,
                identity: Identity {
                    number: opened.number,
                    name: opened.name,
                    partition: opened.partition,
                },
            }),
            Reply::Error(refusal) => Err(refusal.into()),
            _ => Err(IslandError::BackendMisbehaved { what: "no answer to an open".into() }),
        }
    }
}

#[cfg(test)]
mod tests;
