// SPDX-License-Identifier: Apache-2.0
//! An hour's worth of operations in a minute: random ones of every kind between three endpoints,
//! checked against a model.
//!
//! One thread drives all three, so an order of calls follows from the seed; what is done at once and
//! what is done later depends on the channels. Each region has one user, whose operations apply in the
//! order of their calls: the model changes when one is begun, and says then what a read or an atomic
//! will find. `DIOLKOS_STRESS_SEED` and `DIOLKOS_STRESS_SECONDS` say which and how long.

#[allow(dead_code, reason = "other tests use the rest")]
mod dice;
#[path = "conformance/port.rs"]
#[allow(dead_code, reason = "the conformance suite uses the rest")]
mod port;

use std::time::{Duration, Instant, SystemTime};

use diolkos::{
    AtomicOp, Block, Endpoint, Envelope, Error, Exposed, Key, Loan, Region, RequestId, Road,
    Selector, Sent, Sink, Source, Status, StatusCode,
};
use diolkos_island::{ChannelEnds, IslandError};

use dice::Dice;
use port::{HUNG, Port, info, join, lonely, pattern, tag};

/// As in the conformance suite, whose harness this borrows.
pub type Maker = fn() -> Result<(ChannelEnds, ChannelEnds), IslandError>;

const ENDPOINTS: usize = 3;
/// Operations under way at most.
const PENDING_MAX: usize = 60;
const LENGTHS: [usize; 9] = [0, 1, 8, 100, 5000, 65_536, 65_537, 300_000, 3_000_001];

fn switched_pair() -> Result<(ChannelEnds, ChannelEnds), IslandError> {
    let (a, b) = diolkos_island::local::pair()?;
    let switched = |end| ChannelEnds { road: Road::Switched, ..end };
    Ok((switched(a), switched(b)))
}

/// Memory of either kind.
enum Memory {
    Arena(Block),
    Own(Vec<u8>),
}

impl Memory {
    fn new(endpoint: &Endpoint, dice: &mut Dice, len: usize) -> Self {
        if dice.below(3) == 0 {
            return Self::Own(vec![0; len]);
        }
        let block = endpoint.alloc(len, 64, None).expect("memory");
        let memory = Self::Arena(block);
        memory.fill(&vec![0; len]);
        memory
    }

    fn sink(&self) -> Sink {
        match self {
            Self::Arena(block) => block.sink(),
            // SAFETY: whoever uses it keeps the memory; nobody holds a reference to the bytes.
            Self::Own(bytes) => unsafe { Sink::from_raw(bytes.as_ptr().cast_mut(), bytes.len()) },
        }
    }

    fn source(&self) -> Source {
        self.sink().as_source()
    }

    fn fill(&self, bytes: &[u8]) {
        assert_eq!(self.sink().write(0, bytes), bytes.len());
    }

    fn bytes(&self) -> Vec<u8> {
        self.source().to_vec()
    }
}

/// What must be true when a request has ended.
enum Check {
    /// All of it went, or as much as the other side had room for.
    Sent,
    /// This message, as far as there is room.
    Received {
        number: u64,
        len: usize,
    },
    Read {
        expected: Vec<u8>,
    },
    Written,
    Found {
        value: u64,
    },
    Lent,
    Borrowed {
        number: u64,
        len: usize,
    },
}

/// A request under way.
struct Affair {
    at: usize,
    with: usize,
    request: RequestId,
    check: Check,
    /// Of an operation: its region.
    region: Option<u64>,
    memory: Memory,
}

/// A region, its user, and what must be in it.
struct Granted {
    name: u64,
    owner: usize,
    user: usize,
    memory: Memory,
    region: Region,
    key: Key,
    model: Vec<u8>,
}

/// A region that was revoked: nobody writes there any more.
struct Revoked {
    name: u64,
    memory: Memory,
    bytes: Vec<u8>,
}

/// A message or loan that is under way, and whose receive has not been posted.
struct Arrival {
    to: usize,
    from: usize,
    number: u64,
    len: usize,
    lent: bool,
}

struct World {
    dice: Dice,
    endpoints: Vec<Endpoint>,
    /// By both ends.
    ports: Vec<Vec<Option<Port>>>,
    affairs: Vec<Affair>,
    arrivals: Vec<Arrival>,
    regions: Vec<Granted>,
    revoked: Vec<Revoked>,
    held: Vec<(Loan, u64)>,
    /// Blocks that nobody uses, kept for a while.
    idle: Vec<Block>,
    next: u64,
    counts: [u64; 12],
}

impl World {
    fn new(seed: u64) -> Self {
        let endpoints: Vec<Endpoint> = (0..ENDPOINTS as u32).map(lonely).collect();
        let mut world = Self {
            dice: Dice::new(seed),
            ports: (0..ENDPOINTS).map(|_| vec![None; ENDPOINTS]).collect(),
            endpoints,
            affairs: Vec::new(),
            arrivals: Vec::new(),
            regions: Vec::new(),
            revoked: Vec::new(),
            held: Vec::new(),
            idle: Vec::new(),
            next: 1,
            counts: [0; 12],
        };
        for a in 0..ENDPOINTS {
            for b in 0..a {
                world.join(a, b);
            }
        }
        world
    }

    fn join(&mut self, a: usize, b: usize) {
        let make: Maker =
            if self.dice.below(3) == 0 { switched_pair } else { diolkos_island::local::pair };
        let (to_b, to_a) = join(make, &self.endpoints[a], &self.endpoints[b]);
        (self.ports[a][b], self.ports[b][a]) = (Some(to_b), Some(to_a));
    }

    fn port(&self, at: usize, peer: usize) -> Port {
        self.ports[at][peer].clone().expect("joined")
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn two(&mut self) -> (usize, usize) {
        let a = self.dice.below(ENDPOINTS as u64) as usize;
        (a, (a + 1 + self.dice.below(ENDPOINTS as u64 - 1) as usize) % ENDPOINTS)
    }

    fn one_region(&mut self) -> Option<usize> {
        let count = self.regions.len() as u64;
        (count > 0).then(|| self.dice.below(count) as usize)
    }

    fn step(&mut self) {
        let what = self.dice.below(100);
        let kind = match what {
            // What is under way waits for receives, and for loans to go back.
            _ if self.affairs.len() >= PENDING_MAX => self.dice.one_of(&[2, 2, 8, 11]),
            0..=17 => 1,
            18..=37 => 2,
            38..=45 => 3,
            46..=50 => 4,
            51..=74 => 5,
            75..=78 => 6,
            79..=84 => 7,
            85..=90 => 8,
            91..=94 => 9,
            95 if self.dice.below(20) == 0 => 10,
            _ => 11,
        };
        self.counts[kind] += 1;
        match kind {
            1 => self.send(),
            2 => self.receive(),
            3 => self.register(),
            4 => self.revoke(),
            5 => self.operate(),
            6 => self.alloc_or_free(),
            7 => self.lend(),
            8 => drop(self.held.pop().map(|(loan, number)| {
                check_loan(&loan, number);
            })),
            9 => self.fence(),
            10 => self.disconnect(),
            _ => {}
        }
        for endpoint in &self.endpoints {
            endpoint.progress().expect("progress");
        }
        self.settle();
    }

    fn begin(&mut self, at: usize, with: usize, request: RequestId, check: Check, memory: Memory) {
        self.affairs.push(Affair { at, with, request, check, region: None, memory });
    }

    fn send(&mut self) {
        let (from, to) = self.two();
        let (number, len) = (self.number(), self.dice.one_of(&LENGTHS));
        let memory = Memory::new(&self.endpoints[from], &mut self.dice, len);
        memory.fill(&pattern(number, len));
        let port = self.port(from, to);
        match port.endpoint.isend(memory.source(), port.peer, &info(number)) {
            Ok(Sent::Done) => {}
            Ok(Sent::Pending(request)) => self.begin(from, to, request, Check::Sent, memory),
            Err(Error::Busy) => return,
            Err(error) => panic!("{error}"),
        }
        self.arrivals.push(Arrival { to, from, number, len, lent: false });
    }

    fn receive(&mut self) {
        let count = self.arrivals.len() as u64;
        if count == 0 {
            return;
        }
        let chosen = self.dice.below(count) as usize;
        let Arrival { to, from, number, len, lent } = self.arrivals.swap_remove(chosen);
        let port = self.port(to, from);
        let selector = Selector { source: Some(port.peer), ..tag(number) };
        if lent {
            let request = port.endpoint.irecv_loan(&selector).expect("a receive");
            let nothing = Memory::Own(Vec::new());
            self.begin(to, from, request, Check::Borrowed { number, len }, nothing);
            return;
        }
        let room = if self.dice.below(5) == 0 { len / 2 } else { len };
        let memory = Memory::new(&self.endpoints[to], &mut self.dice, room);
        let request = port.endpoint.irecv(memory.sink(), &selector).expect("a receive");
        self.begin(to, from, request, Check::Received { number, len }, memory);
    }

    fn lend(&mut self) {
        let (from, to) = self.two();
        let (number, len) = (self.number(), self.dice.one_of(&LENGTHS));
        let memory = Memory::new(&self.endpoints[from], &mut self.dice, len);
        memory.fill(&pattern(number, len));
        let port = self.port(from, to);
        match port.endpoint.lend(memory.source(), port.peer, &info(number)) {
            Ok(request) => self.begin(from, to, request, Check::Lent, memory),
            Err(Error::Busy) => return,
            Err(error) => panic!("{error}"),
        }
        self.arrivals.push(Arrival { to, from, number, len, lent: true });
    }

    fn register(&mut self) {
        if self.regions.len() >= 20 {
            return;
        }
        let (owner, user) = self.two();
        let len = self.dice.one_of(&[8, 4096, 70_000, 2_000_000]);
        let memory = Memory::new(&self.endpoints[owner], &mut self.dice, len);
        let name = self.number();
        let model = pattern(name, len);
        memory.fill(&model);
        let port = self.port(owner, user);
        let bound = (self.dice.below(2) == 0).then_some(port.peer);
        let exposed = Exposed::ReadWrite(memory.sink());
        let region = port.endpoint.register(exposed, bound).expect("a region");
        if bound.is_none() && self.dice.below(2) == 0 {
            region.grant(port.peer).expect("granted");
        }
        let key = Key::decode(&region.key().encode()).expect("a key");
        self.regions.push(Granted { name, owner, user, memory, region, key, model });
    }

    /// Whether operations on a region are under way.
    fn is_busy(&self, name: u64) -> bool {
        self.affairs.iter().any(|affair| affair.region == Some(name))
    }

    fn revoke(&mut self) {
        let Some(chosen) = self.one_region() else { return };
        let granted = self.regions.swap_remove(chosen);
        self.give_up(granted);
    }

    /// Revokes a region, whatever is under way there.
    fn give_up(&mut self, granted: Granted) {
        let Granted { name, memory, region, model, .. } = granted;
        if !self.is_busy(name) {
            assert!(memory.bytes() == model, "region {name} differs from its model");
        }
        region.revoke().expect("revoked");
        let bytes = pattern(name ^ 0xffff, model.len());
        memory.fill(&bytes);
        self.revoked.push(Revoked { name, memory, bytes });
    }

    fn operate(&mut self) {
        let Some(chosen) = self.one_region() else { return };
        let granted = &mut self.regions[chosen];
        let Granted { name, owner, user, key, .. } = *granted;
        let port = self.ports[user][owner].clone().expect("joined");
        let room = granted.model.len();
        let len = (self.dice.one_of(&LENGTHS)).min(room);
        let offset = self.dice.below((room - len) as u64 + 1);
        let at = offset as usize;
        let what = self.dice.below(4);
        let (sent, check, memory) = match what {
            0 => {
                let memory = Memory::new(&port.endpoint, &mut self.dice, len);
                let expected = granted.model[at..at + len].to_vec();
                let sent = port.endpoint.rdma_read(memory.sink(), port.peer, &key, offset);
                (sent, Check::Read { expected }, memory)
            }
            1 => {
                let memory = Memory::new(&port.endpoint, &mut self.dice, len);
                self.next += 1;
                let bytes = pattern(self.next, len);
                memory.fill(&bytes);
                let sent = port.endpoint.rdma_write(memory.source(), port.peer, &key, offset, None);
                if sent.is_ok() {
                    granted.model[at..at + len].copy_from_slice(&bytes);
                }
                (sent, Check::Written, memory)
            }
            _ => {
                let at = 8 * self.dice.below(room as u64 / 8) as usize;
                let word = &mut granted.model[at..at + 8];
                let value = u64::from_le_bytes((&*word).try_into().expect("8 bytes"));
                let desired = self.dice.next();
                let fits = self.dice.below(2) == 0;
                let expected = if fits { value } else { value ^ 1 };
                let (op, after) = if what == 2 {
                    (AtomicOp::FetchAdd(desired), value.wrapping_add(desired))
                } else {
                    let after = if fits { desired } else { value };
                    (AtomicOp::CompareSwap { expected, desired }, after)
                };
                let sent = port.endpoint.rdma_atomic(port.peer, &key, at as u64, op);
                if sent.is_ok() {
                    word.copy_from_slice(&after.to_le_bytes());
                }
                (sent.map(Sent::Pending), Check::Found { value }, Memory::Own(Vec::new()))
            }
        };
        match sent {
            Ok(Sent::Pending(request)) => {
                let region = Some(name);
                self.affairs.push(Affair { at: user, with: owner, request, check, region, memory });
            }
            Ok(Sent::Done) => {
                if let Check::Read { expected } = check {
                    assert!(memory.bytes() == expected, "a read of region {name}");
                }
            }
            Err(Error::Busy) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn fence(&mut self) {
        let (at, with) = self.two();
        let port = self.port(at, with);
        if let Sent::Pending(request) = port.endpoint.rdma_fence(port.peer).expect("a fence") {
            self.begin(at, with, request, Check::Written, Memory::Own(Vec::new()));
        }
    }

    fn alloc_or_free(&mut self) {
        if self.idle.len() > 10 || self.dice.below(3) == 0 {
            self.idle.clear();
            return;
        }
        let (at, peer) = self.two();
        let port = self.port(at, peer);
        let peer = (self.dice.below(2) == 0).then_some(port.peer);
        let len = self.dice.one_of(&LENGTHS);
        let align = 1 << self.dice.below(16);
        let block = port.endpoint.alloc(len, align, peer).expect("memory");
        assert!((block.base().as_ptr() as usize).is_multiple_of(align));
        self.idle.push(block);
    }

    fn disconnect(&mut self) {
        let (a, b) = self.two();
        let port = self.port(a, b);
        port.endpoint.disconnect(port.peer).expect("a peer");
        let begin = Instant::now();
        while self.affairs.iter().any(|x| (x.at, x.with) == (a, b) || (x.at, x.with) == (b, a)) {
            assert!(begin.elapsed() < HUNG, "requests to a peer that left do not end");
            for endpoint in &self.endpoints {
                endpoint.progress().expect("progress");
            }
            self.settle_with(Some((a, b)));
        }
        self.arrivals.retain(|x| (x.to, x.from) != (a, b) && (x.to, x.from) != (b, a));
        let of_both = |x: &Granted| (x.owner, x.user) == (a, b) || (x.owner, x.user) == (b, a);
        while let Some(index) = self.regions.iter().position(of_both) {
            // Some of the last operations came through, some did not.
            let mut granted = self.regions.swap_remove(index);
            granted.model = granted.memory.bytes();
            self.give_up(granted);
        }
        self.join(a, b);
    }

    /// Takes in what has ended.
    fn settle(&mut self) {
        self.settle_with(None);
    }

    fn settle_with(&mut self, parted: Option<(usize, usize)>) {
        let mut index = 0;
        while index < self.affairs.len() {
            let Affair { at, request, .. } = self.affairs[index];
            match self.endpoints[at].test(request).expect("a request") {
                None => index += 1,
                Some(status) => {
                    let affair = self.affairs.swap_remove(index);
                    self.end(affair, &status, parted);
                }
            }
        }
        let affairs = &self.affairs;
        let busy = |name| affairs.iter().any(|affair| affair.region == Some(name));
        self.revoked.retain(|revoked| {
            if busy(revoked.name) {
                return true;
            }
            let unchanged = revoked.memory.bytes() == revoked.bytes;
            assert!(unchanged, "region {} was written after it was revoked", revoked.name);
            false
        });
    }

    fn end(&mut self, affair: Affair, status: &Status, parted: Option<(usize, usize)>) {
        let Affair { at, with, check, region, memory, request } = affair;
        let is_live = region.is_none_or(|name| self.regions.iter().any(|x| x.name == name));
        match status.code {
            StatusCode::Success | StatusCode::Truncated => {}
            StatusCode::Revoked if !is_live => return,
            code => {
                let pair = parted == Some((at, with)) || parted == Some((with, at));
                assert!(pair, "a request of {at} to {with} ended as {code:?}");
                drop(self.endpoints[at].take_loan(request));
                return;
            }
        }
        match check {
            Check::Sent | Check::Written => {}
            Check::Lent => assert_eq!(status.code, StatusCode::Success),
            Check::Received { number, len } => {
                let bytes = memory.bytes();
                let code =
                    if bytes.len() < len { StatusCode::Truncated } else { StatusCode::Success };
                assert_eq!((status.code, status.message_bytes), (code, len as u64));
                assert!(bytes == pattern(number, len)[..bytes.len()], "message {number}");
            }
            Check::Read { expected } => assert!(memory.bytes() == expected, "a read of {region:?}"),
            Check::Found { value } => assert_eq!(status.match_info, value, "an atomic"),
            Check::Borrowed { number, len } => {
                let loan = self.endpoints[at].take_loan(request).expect("an endpoint");
                let loan = loan.expect("a loan");
                assert_eq!(loan.len_bytes(), len);
                check_loan(&loan, number);
                self.held.push((loan, number));
            }
        }
    }

    /// Everything comes to an end, and nothing is left.
    fn finish(mut self) {
        let begin = Instant::now();
        while !self.affairs.is_empty() || !self.arrivals.is_empty() {
            assert!(begin.elapsed() < HUNG, "{} requests do not end", self.affairs.len());
            self.receive();
            for (loan, number) in self.held.drain(..) {
                check_loan(&loan, number);
            }
            for endpoint in &self.endpoints {
                endpoint.progress().expect("progress");
            }
            self.settle();
        }
        while let Some(granted) = self.regions.pop() {
            self.give_up(granted);
        }
        self.settle();
        self.held.clear();
        self.idle.clear();
        for endpoint in &self.endpoints {
            let counters = endpoint.counters().expect("counters");
            let left = (counters.requests, counters.posted);
            assert_eq!(left, (0, 0), "requests are left");
            assert_eq!(endpoint.arena().used_bytes, 0, "memory is left");
        }
    }
}

fn check_loan(loan: &Loan, number: u64) {
    assert!(loan.source().to_vec() == pattern(number, loan.len_bytes()), "loan {number}");
}

fn told(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("our descriptors").count()
}

#[test]
fn an_hour_of_operations_in_a_minute() {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock");
    let first = told("DIOLKOS_STRESS_SEED").unwrap_or(now.as_millis() as u64);
    let duration = Duration::from_secs(told("DIOLKOS_STRESS_SECONDS").unwrap_or(20));
    let begin = Instant::now();
    let before = descriptors();
    let (mut counts, mut seed) = ([0; 12], first);
    while begin.elapsed() < duration || seed == first {
        println!("DIOLKOS_STRESS_SEED={seed}");
        let mut world = World::new(seed);
        let _ = Envelope::default();
        for step in 0..5000 {
            // A loaded machine does less in the same time.
            if step % 100 == 0 && begin.elapsed() > duration {
                break;
            }
            world.step();
        }
        counts.iter_mut().zip(world.counts).for_each(|(sum, count)| *sum += count);
        world.finish();
        assert_eq!(descriptors(), before, "descriptors are left");
        seed += 1;
    }
    println!("{} worlds, {counts:?}", seed - first);
}
