// SPDX-License-Identifier: Apache-2.0
//! A peer that grants what is no memory, takes back and replaces what it granted, and names places
//! that are not there, at random moments.
//!
//! ```text
//!   honest peer <--- messages, loans, atomics, all the time ---> victim <--- anything --- liar
//! ```
//!
//! The liar reads the victim's frames, so it knows the names of requests and the secrets of regions
//! that concern it. Whatever it does: the victim is not killed by touching memory, nothing hangs, its
//! requests to the liar end, no descriptor stays, and the honest peer is served exactly. A failure
//! prints the seed; `DIOLKOS_SEED` tries one again.

#[allow(dead_code, reason = "other tests use the rest")]
mod dice;
#[path = "conformance/port.rs"]
#[allow(dead_code, reason = "the conformance suite uses the rest")]
mod port;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use diolkos::{
    AtomicOp, Block, Endpoint, Exposed, Key, Loan, OpenOptions, PeerId, RequestId, Selector, Sent,
    Sink, Source, StatusCode,
};
use diolkos_island::local::Alone;
use diolkos_island::{ChannelEnds, Doorbell, IslandError};
use diolkos_shm::layout::{GRANT_COUNT, WORD_GRANTS, WORD_TOUCHING};
use diolkos_shm::words::Words;
use diolkos_shm::{Cell, Consumer, GrantId, GrantNote, Producer};
use rustix::fs::{FallocateFlags, MemfdFlags, Mode, OFlags, SealFlags};

use dice::Dice;
use port::{Lent, Port, info, join, lonely, pattern, tag, until, wait};

/// As in the conformance suite, whose harness this borrows.
pub type Maker = fn() -> Result<(ChannelEnds, ChannelEnds), IslandError>;

/// How long liars are tried.
const DURATION: Duration = Duration::from_secs(8);
/// What the victim does with each.
const ACTIONS: u64 = 300;
const PAGE: u64 = 4096;

const RTS: u8 = 3;
const CTS: u8 = 4;
const DATA: u8 = 5;
const DONE: u8 = 7;
const ASK: u8 = 8;
const TELL: u8 = 9;
const PUT: u8 = 10;
const GET: u8 = 11;
const ATOMIC: u8 = 12;
const ANSWER: u8 = 13;
const LENT: u8 = 2;
const PLACED: u8 = 4;

fn memfd(bytes: u64, seals: SealFlags, flags: MemfdFlags) -> Option<OwnedFd> {
    let flags = flags | MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = rustix::fs::memfd_create("hostile-grant", flags).ok()?;
    rustix::fs::ftruncate(&file, bytes).ok()?;
    rustix::fs::fcntl_add_seals(&file, seals).ok()?;
    Some(file)
}

fn reopen(file: &OwnedFd, flags: OFlags) -> Option<OwnedFd> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).ok()
}

fn open(path: &str, flags: OFlags) -> Option<OwnedFd> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR).ok()
}

/// A file that is or is not what a grant needs.
fn some_file(dice: &mut Dice, pages: u64) -> Option<OwnedFd> {
    let (none, fixed) = (MemfdFlags::empty(), SealFlags::SHRINK | SealFlags::GROW);
    let bytes = pages * PAGE;
    match dice.below(16) {
        0 => memfd(bytes, SealFlags::empty(), none),
        1 => memfd(bytes, SealFlags::SHRINK, none),
        2 => memfd(bytes, SealFlags::GROW | SealFlags::SEAL, none),
        3 => memfd(bytes - 1, fixed, none),
        4 => memfd(0, fixed, none),
        5 => rustix::pipe::pipe().ok().map(|(reader, _)| reader),
        6 => open("/tmp", OFlags::TMPFILE | OFlags::RDWR),
        7 => open("/dev/zero", OFlags::RDWR),
        8 => open("/", OFlags::RDONLY | OFlags::DIRECTORY),
        9 => memfd(2 << 20, fixed, MemfdFlags::HUGETLB),
        10 => reopen(&memfd(bytes, fixed, none)?, OFlags::RDONLY),
        11 => reopen(&memfd(bytes, fixed, none)?, OFlags::PATH),
        12 => memfd(bytes, fixed | SealFlags::FUTURE_WRITE, none),
        _ => memfd(bytes, fixed, none),
    }
}

/// The liar: its files, and what it has learnt from the victim.
struct Liar {
    dice: Dice,
    doorbell: Doorbell,
    outgoing: Words,
    producer: Producer,
    consumer: Consumer,
    /// What it has granted, good or not.
    grants: Vec<(GrantId, OwnedFd)>,
    generation: u64,
    /// Regions of the victim that it was told of: number and secret.
    regions: Vec<(u64, [u64; 2])>,
    /// How rarely it sends what breaks the protocol for certain.
    honesty: u64,
    bytes: Vec<u8>,
}

impl Liar {
    fn new(ends: ChannelEnds, seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let honesty = 1 + dice.below(500);
        let outgoing = Words::new(Arc::new(ends.outgoing));
        let incoming = Words::new(Arc::new(ends.incoming));
        Self {
            dice,
            doorbell: ends.doorbell,
            producer: Producer::new(outgoing.clone(), incoming.clone(), 1 << 20),
            consumer: Consumer::new(incoming, outgoing.clone()),
            outgoing,
            grants: Vec::new(),
            generation: 0,
            regions: Vec::new(),
            honesty,
            bytes: pattern(seed, 70_000),
        }
    }

    fn run(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            match self.dice.below(12) {
                0 | 1 => self.grant(),
                2 => self.meddle(),
                3 | 4 => self.announce(),
                5 => self.ask_for_something(),
                6 if self.dice.below(self.honesty) == 0 => self.lie(),
                _ => self.answer(),
            }
            if self.dice.below(20) == 0 {
                std::thread::yield_now();
            }
        }
    }

    fn push(&mut self, kind: u8, flags: u8, words: [u64; 3], body: &[u64]) {
        let mut whole = [0; 4];
        whole[..body.len()].copy_from_slice(body);
        let inline_len = 8 * body.len() as u16;
        let cell = Cell { kind, flags, words, body: whole, inline_len };
        let _ = self.producer.push(&cell);
        if self.dice.below(4) == 0 {
            self.doorbell.ring();
        }
    }

    /// Passes a file, and says in the table that it lives, or something else.
    fn grant(&mut self) {
        let most = self.dice.one_of(&[40, 40, 40, 40, 3000]);
        let pages = 1 + self.dice.below(most);
        let Some(file) = some_file(&mut self.dice, pages) else { return };
        self.generation += 1;
        let generation = if self.dice.below(10) == 0 { 1 } else { self.generation };
        let grant = GrantId { slot: self.dice.below(6) as u16, generation };
        let said = match self.dice.below(8) {
            0 => self.dice.any_size(),
            1 => (pages + 1) * PAGE,
            2 => 1 << 40,
            _ => pages * PAGE,
        };
        let note = GrantNote { grant, len_bytes: said, writable: self.dice.below(2) == 0 };
        let mut bytes = note.encode();
        if self.dice.below(20) == 0 {
            bytes[self.dice.below(24) as usize] ^= 0x81;
        }
        if self.dice.below(10) > 0 {
            let word = WORD_GRANTS + usize::from(grant.slot);
            self.outgoing.store(word, generation, Ordering::Release);
        }
        let _ = self.doorbell.send_grant(&bytes, file.as_fd());
        self.grants.push((grant, file));
        if self.grants.len() > 12 {
            let first = self.dice.below(12) as usize;
            self.grants.swap_remove(first);
        }
    }

    /// Takes back, replaces, shrinks, punches, says that it is busy.
    fn meddle(&mut self) {
        let most = self.dice.one_of(&[6, 6, 6, GRANT_COUNT as u64]);
        let slot = self.dice.below(most);
        let generation = match self.dice.below(4) {
            0 => self.dice.any_size(),
            1 => 1 + self.dice.below(self.generation + 1),
            _ => 0,
        };
        match self.dice.below(5) {
            0 | 1 => {
                let word = WORD_GRANTS + slot as usize;
                self.outgoing.store(word, generation, Ordering::Release);
            }
            2 => {
                // Perhaps a grant of the victim's.
                let some = (1 + self.dice.below(20)) << 16 | self.dice.below(4);
                let touched = if self.dice.below(30) == 0 { some } else { 0 };
                self.outgoing.store(WORD_TOUCHING, touched, Ordering::Relaxed);
            }
            what => {
                let count = self.grants.len() as u64;
                if count == 0 {
                    return;
                }
                let (_, file) = &self.grants[self.dice.below(count) as usize];
                let _ = if what == 3 {
                    rustix::fs::ftruncate(file, self.dice.below(3) * PAGE)
                } else {
                    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                    rustix::fs::fallocate(file, punch, 0, 8 * PAGE)
                };
            }
        }
    }

    /// A place in something granted, or not.
    fn place(&mut self) -> [u64; 2] {
        let count = self.grants.len() as u64;
        let grant = if count > 0 && self.dice.below(10) > 0 {
            self.grants[self.dice.below(count) as usize].0.to_word()
        } else {
            self.dice.any_size()
        };
        let offset = self.dice.below(8) * 8;
        [grant, if self.dice.below(8) == 0 { self.dice.any_size() } else { offset }]
    }

    /// A message, or a loan.
    fn announce(&mut self) {
        let place = self.place();
        let length = match self.dice.below(6) {
            0 => self.dice.any_size(),
            1 => 30 * PAGE,
            _ => self.dice.below(3 * PAGE),
        };
        let flags = self.dice.one_of(&[0, PLACED, PLACED, LENT, LENT | PLACED, LENT | PLACED]);
        let send_id = self.dice.below(5) << 32;
        let body = if flags & PLACED == 0 { &place[..0] } else { &place[..] };
        let match_info = self.dice.below(4);
        self.push(RTS, flags, [match_info, send_id, length], body);
    }

    /// An operation on a region of the victim.
    fn ask_for_something(&mut self) {
        let count = self.regions.len() as u64;
        let (region, secret) = if count > 0 && self.dice.below(8) > 0 {
            self.regions[self.dice.below(count) as usize]
        } else {
            (self.dice.below(5), [self.dice.any_size(), 0])
        };
        let id = self.dice.below(4) | region << 32;
        let [low, high] = secret;
        let offset = self.dice.below(4) * 8;
        match self.dice.below(4) {
            0 => self.push(ASK, 0, [region << 32, low, high], &[]),
            // With an operation under way the next one would be against the rules.
            1 if self.dice.below(3) == 0 => self.push(GET, 0, [id, offset, 64], &[low, high]),
            2 => {
                let op = self.dice.below(2);
                self.push(ATOMIC, 0, [id, offset, op], &[low, high, 1, 0]);
            }
            _ => self.tell(region, secret),
        }
    }

    fn tell(&mut self, region: u64, [low, high]: [u64; 2]) {
        let [grant, offset] = self.place();
        let answer = if self.dice.below(6) == 0 { self.dice.below(4) } else { 0 };
        let rights = answer | self.dice.below(2) << 8 | self.dice.below(2) << 16;
        let length = self.dice.one_of(&[8, PAGE, 100 * PAGE, u64::MAX]);
        self.push(TELL, 0, [region << 32, rights, length], &[low, high, grant, offset]);
    }

    /// Something that is wrong whatever was before.
    fn lie(&mut self) {
        let kind = self.dice.below(16) as u8;
        let words = [self.dice.any_size(), self.dice.any_size(), self.dice.any_size()];
        let body = [self.dice.any_size(); 4];
        let len = self.dice.below(5) as usize;
        let flags = self.dice.below(8) as u8;
        self.push(kind, flags, words, &body[..len]);
    }

    /// Reads what the victim says, and answers in some way.
    fn answer(&mut self) {
        let Some(cell) = self.consumer.peek() else { return };
        let payload = self.consumer.payload(&cell).ok().flatten();
        self.consumer.pop(payload.map_or(0, |place| place.len_bytes()));
        self.consumer.return_credits(0, u64::from(cell.kind == RTS || cell.kind == 1));
        self.consumer.tell();
        let [first, second, third] = cell.words;
        let (low, high) = (first & 0xffff_ffff, first >> 32);
        let [secret, other] = [cell.body[0], cell.body[1]];
        let code = if self.dice.below(3) == 0 { self.dice.below(4) } else { 0 };
        match cell.kind {
            // A message or a loan of the victim: taken, asked for, or left alone.
            RTS => match self.dice.below(4) {
                0 => {}
                1 => self.push(CTS, 0, [second >> 32 | 7 << 32, third / 2, 0], &[]),
                _ => self.push(DONE, 0, [second >> 32, third, 0], &[]),
            },
            CTS => {
                let len = (second as usize).min(24_000);
                if len > 0 {
                    let cell = Cell { kind: DATA, words: [high, 0, 0], ..Cell::default() };
                    // SAFETY: the bytes outlive the push.
                    let source = unsafe { Source::from_raw(self.bytes.as_ptr(), len) };
                    let _ = self.producer.push_payload(&cell, &source, 0, len);
                }
            }
            ASK => self.tell(high, [second, third]),
            TELL if second & 0xff == 0 => self.regions.push((high, [secret, other])),
            PUT | GET | ATOMIC => {
                let code = if cell.kind == GET && code == 0 { 1 } else { code };
                self.push(ANSWER, 0, [low, code, 5], &[]);
            }
            _ => {}
        }
    }
}

/// What the victim has under way with the liar.
#[derive(Default)]
struct Affairs {
    messages: Vec<Lent>,
    requests: Vec<RequestId>,
    loans: Vec<RequestId>,
    held: Vec<Loan>,
    /// Memory that requests use.
    blocks: Vec<Block>,
    buffers: Vec<Vec<u8>>,
    regions: Vec<diolkos::Region>,
}

/// What one can do with a liar, without ever waiting for it.
fn act(victim: &Port, dice: &mut Dice, affairs: &mut Affairs) {
    let Port { endpoint, peer } = victim;
    let peer = *peer;
    let from_liar = Selector { source: Some(peer), match_info: 0, mask: 0, ..tag(0) };
    let secret = [dice.below(3), 0];
    let key = Key {
        owner: 1,
        region: dice.below(5) as u32,
        secret,
        length: dice.one_of(&[8, 4096, 1 << 30]),
        writable: true,
    };
    match dice.below(12) {
        0 | 1 => affairs.messages.extend(victim.try_irecv(100_000, &from_liar).ok()),
        2 | 3 => affairs.loans.extend(endpoint.irecv_loan(&from_liar).ok()),
        4 => {
            let block = endpoint.alloc(200_000, 64, Some(peer).filter(|_| dice.below(2) == 0));
            let Ok(block) = block else { return };
            if dice.below(2) == 0 {
                affairs.requests.extend(endpoint.lend(block.source(), peer, &info(1)).ok());
            } else if let Ok(Sent::Pending(request)) =
                endpoint.isend(block.source(), peer, &info(1))
            {
                affairs.requests.push(request);
            }
            affairs.blocks.push(block);
        }
        5 | 6 => {
            let mut buffer = vec![0; dice.one_of(&[8, 64, 4096, 300_000])];
            // SAFETY: kept in `affairs` until the request has ended.
            let sink = unsafe { Sink::from_raw(buffer.as_mut_ptr(), buffer.len()) };
            let offset = dice.below(4) * 8;
            let sent = match dice.below(3) {
                0 => endpoint.rdma_read(sink, peer, &key, offset),
                1 => endpoint.rdma_write(sink.as_source(), peer, &key, offset, Some(info(3))),
                _ => endpoint
                    .rdma_atomic(peer, &key, offset, AtomicOp::FetchAdd(1))
                    .map(Sent::Pending),
            };
            if let Ok(Sent::Pending(request)) = sent {
                affairs.requests.push(request);
            }
            affairs.buffers.push(buffer);
        }
        7 => {
            let Ok(block) = endpoint.alloc(8192, 64, None) else { return };
            let memory = if dice.below(2) == 0 {
                Exposed::ReadWrite(block.sink())
            } else {
                Exposed::ReadOnly(block.source())
            };
            affairs.regions.extend(endpoint.register(memory, Some(peer)).ok());
            affairs.blocks.push(block);
        }
        8 => drop(affairs.regions.pop()),
        9 => drop(affairs.held.pop()),
        10 => drop(endpoint.rdma_fence(peer).map(|sent| match sent {
            Sent::Pending(request) => affairs.requests.push(request),
            Sent::Done => {}
        })),
        _ => {
            let _ = endpoint.reach(peer, &key);
        }
    }
    endpoint.progress().expect("progress");
    settle(endpoint, affairs);
}

/// Takes in what has ended, and looks at what was lent.
fn settle(endpoint: &Endpoint, affairs: &mut Affairs) {
    affairs.messages.retain_mut(|lent| lent.test(endpoint).is_none());
    affairs.requests.retain(|request| endpoint.test(*request).expect("a request").is_none());
    let held = &mut affairs.held;
    affairs.loans.retain(|request| match endpoint.test(*request).expect("a request") {
        None => true,
        Some(status) => {
            let loan = endpoint.take_loan(*request).expect("an endpoint");
            held.extend(loan.filter(|_| status.code == StatusCode::Success));
            false
        }
    });
    // What is lent must be readable, whatever its lender does.
    for loan in held.iter().filter(|loan| loan.len_bytes() < 1 << 20) {
        let _ = loan.source().to_vec();
    }
}

/// Everything that an honest peer does with the victim, once.
fn deal_honestly(victim: &Port, honest: &Port, number: u64) {
    let len = [100, 50_000, 300_000][number as usize % 3];
    let bytes = pattern(number, len);
    let block = honest.endpoint.alloc(len, 64, None).expect("memory");
    block.sink().write(0, &bytes);
    let counter = honest.endpoint.alloc(8, 64, None).expect("memory");
    counter.sink().write(0, &[0; 8]);
    let exposed = Exposed::ReadWrite(counter.sink());
    let region = honest.endpoint.register(exposed, Some(honest.peer)).expect("a region");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let sent = honest.endpoint.isend(block.source(), honest.peer, &info(77));
            let lent = honest.endpoint.lend(block.source(), honest.peer, &info(78)).expect("lent");
            if let Sent::Pending(request) = sent.expect("sent") {
                wait(&honest.endpoint, request);
            }
            assert_eq!(wait(&honest.endpoint, lent).code, StatusCode::Success);
            until("the end of the victim's part", || {
                honest.endpoint.progress().expect("progress");
                stop.load(Ordering::Relaxed)
            });
        });
        let from = |selector: Selector| Selector { source: Some(victim.peer), ..selector };
        victim.receive(number, len, &from(tag(77)));
        let request = victim.endpoint.irecv_loan(&from(tag(78))).expect("a receive");
        assert_eq!(wait(&victim.endpoint, request).code, StatusCode::Success);
        let loan = victim.endpoint.take_loan(request).expect("an endpoint").expect("a loan");
        assert!(loan.source().to_vec() == bytes);
        drop(loan);
        let op = AtomicOp::FetchAdd(number);
        let request = victim.endpoint.rdma_atomic(victim.peer, region.key(), 0, op);
        assert_eq!(wait(&victim.endpoint, request.expect("begun")).code, StatusCode::Success);
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(counter.source().to_vec(), number.to_le_bytes());
}

/// One liar against one victim; tells whether it was found out.
fn run(seed: u64) -> bool {
    let (end, liar) = diolkos_island::local::pair().expect("a channel");
    // A liar may lend what it does not have, and the copy takes memory: as much as the arena may have.
    let options = OpenOptions { arena_bytes: Some(64 << 20), ..OpenOptions::default() };
    let endpoint = Endpoint::on_island(Box::new(Alone::new(0)), &options).expect("an endpoint");
    let honest = lonely(1);
    let (to_honest, honest) = join(diolkos_island::local::pair, &endpoint, &honest);
    let peer: PeerId = endpoint.adopt(end).expect("a usable end");
    let victim = Port { endpoint, peer };
    let stop = AtomicBool::new(false);
    let mut affairs = Affairs::default();
    let mut dice = Dice::new(seed ^ 0xabcd);
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        scope.spawn(|| Liar::new(liar, seed).run(&stop));
        for action in 0..ACTIONS {
            act(&victim, &mut dice, &mut affairs);
            if action % 100 == 99 {
                deal_honestly(&to_honest, &honest, seed * 10 + action / 100);
            }
        }
    });
    let info = victim.endpoint.peer_info(victim.peer).expect("an endpoint").expect("a peer");
    let found_out = info.gone == Some(StatusCode::PeerMisbehaved);
    let expected = [None, Some(StatusCode::PeerClosed), Some(StatusCode::PeerMisbehaved)];
    assert!(expected.contains(&info.gone), "the liar left as {:?}", info.gone);
    let _ = victim.endpoint.disconnect(victim.peer);
    let requests = affairs.messages.iter().filter_map(|lent| lent.request);
    for request in requests.chain(affairs.requests).chain(affairs.loans) {
        let ended = victim.endpoint.test(request);
        assert!(matches!(ended, Ok(Some(_))), "a request to the liar did not end: {ended:?}");
        drop(victim.endpoint.take_loan(request));
    }
    affairs.messages.into_iter().for_each(|lent| drop(lent.ended()));
    deal_honestly(&to_honest, &honest, seed);
    drop((affairs.held, affairs.regions));
    found_out
}

/// Stops the liar, whatever becomes of the victim.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("our descriptors").count()
}

fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps")
        .expect("our mappings")
        .matches("hostile-grant")
        .count()
}

#[test]
fn a_liar_with_grants_harms_only_itself() {
    let told = std::env::var("DIOLKOS_SEED").ok().and_then(|seed| seed.parse::<u64>().ok());
    if let Some(seed) = told {
        println!("seed {seed}: {}", run(seed));
        return;
    }
    run(0);
    let (before, begin) = (descriptors(), Instant::now());
    let (mut seeds, mut found_out) = (1, 0);
    while seeds < 8 || begin.elapsed() < DURATION {
        println!("seed {seeds}");
        found_out += u64::from(run(seeds));
        seeds += 1;
    }
    println!("{found_out} of {seeds} found out");
    assert!(found_out > 0 && found_out < seeds, "{found_out} of {seeds} found out");
    assert_eq!(descriptors(), before, "descriptors were left");
    assert_eq!(mappings(), 0, "mappings were left");
}
