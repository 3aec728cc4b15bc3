// SPDX-License-Identifier: Apache-2.0
//! Granted memory and regions: every test runs the same where memory can be granted and where
//! everything goes by copies; what differs is how it is reached, and that is checked.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use diolkos::{
    ArenaError, AtomicOp, Block, Endpoint, Error, Exposed, Key, OpenOptions, PeerId, Region, Road,
    Sent, Sink, Source, StatusCode,
};
use diolkos_island::local::Alone;

use crate::Maker;
use crate::port::{Port, info, join, lonely, pair, pattern, tag, until, wait};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// What a long transfer is long enough to be interrupted in.
const LONG: usize = 128 * MIB;

/// Whether memory can be granted over this channel.
pub fn grants(port: &Port) -> bool {
    let info = port.endpoint.peer_info(port.peer).expect("an endpoint").expect("a peer");
    info.road == Road::Direct
}

/// Arena memory with these bytes.
pub fn block(endpoint: &Endpoint, bytes: &[u8]) -> Block {
    let block = endpoint.alloc(bytes.len(), 64, None).expect("memory");
    assert_eq!(block.sink().write(0, bytes), bytes.len());
    block
}

/// Runs `act` while another thread makes progress at an endpoint.
pub fn served<T>(endpoint: &Endpoint, act: impl FnOnce() -> T) -> T {
    /// Ends the other thread, whatever becomes of this one.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) && endpoint.progress().is_ok() {
                std::thread::yield_now();
            }
        });
        let _stop = Stop(&stop);
        act()
    })
}

/// How an operation ended, at once or later.
pub fn outcome(at: &Endpoint, sent: Result<Sent, Error>) -> StatusCode {
    match sent {
        Ok(Sent::Done) => StatusCode::Success,
        Ok(Sent::Pending(request)) => wait(at, request).code,
        Err(Error::Denied) => StatusCode::Denied,
        Err(Error::OutOfRange) => StatusCode::OutOfRange,
        Err(Error::PeerGone(code)) => code,
        Err(error) => panic!("{error}"),
    }
}

/// Memory that somebody reads into or writes from; it must be kept until the request has ended.
fn source(bytes: &[u8]) -> Source {
    // SAFETY: every caller keeps `bytes` until its operation has ended.
    unsafe { Source::from_raw(bytes.as_ptr(), bytes.len()) }
}

fn sink(bytes: &mut [u8]) -> Sink {
    // SAFETY: as in `source`; nobody else has the bytes meanwhile.
    unsafe { Sink::from_raw(bytes.as_mut_ptr(), bytes.len()) }
}

impl Port {
    pub fn write(&self, bytes: &[u8], key: &Key, offset: u64) -> StatusCode {
        let sent = self.endpoint.rdma_write(source(bytes), self.peer, key, offset, None);
        outcome(&self.endpoint, sent)
    }

    pub fn read(&self, len: usize, key: &Key, offset: u64) -> Result<Vec<u8>, StatusCode> {
        let mut bytes = vec![0xee; len];
        let sent = self.endpoint.rdma_read(sink(&mut bytes), self.peer, key, offset);
        match outcome(&self.endpoint, sent) {
            StatusCode::Success => Ok(bytes),
            code => Err(code),
        }
    }

    pub fn atomic(&self, key: &Key, offset: u64, op: AtomicOp) -> Result<u64, StatusCode> {
        let status = match self.endpoint.rdma_atomic(self.peer, key, offset, op) {
            Ok(request) => wait(&self.endpoint, request),
            Err(error) => return Err(outcome(&self.endpoint, Err(error))),
        };
        if status.code == StatusCode::Success { Ok(status.match_info) } else { Err(status.code) }
    }
}

/// Memory of `owner` that `user` has the key of.
struct Stage {
    owner: Port,
    user: Port,
    block: Block,
    region: Region,
    key: Key,
}

fn stage(make: Maker, len: usize) -> Stage {
    let (owner, user) = pair(make);
    let block = owner.endpoint.alloc(len, 64, None).expect("memory");
    block.sink().write(0, &vec![0; len]);
    let region = owner.endpoint.register(Exposed::ReadWrite(block.sink()), None).expect("a region");
    let key = Key::decode(&region.key().encode()).expect("a key");
    Stage { owner, user, block, region, key }
}

fn part(block: &Block, offset: usize, len: usize) -> Vec<u8> {
    block.source().part(offset, len).to_vec()
}

/// The first word of a block, while others change it.
fn word(block: &Block) -> u64 {
    u64::from_le_bytes(part(block, 0, 8).try_into().expect("8 bytes"))
}

pub fn large_messages_leave_granted_memory_whole(make: Maker) {
    let (a, b) = pair(make);
    for (number, len) in (1..).zip([64 * KIB + 1, MIB, 20 * MIB]) {
        let bytes = pattern(number, len);
        let block = block(&a.endpoint, &bytes);
        let send = || {
            let sent = a.endpoint.isend(block.source(), a.peer, &info(1)).expect("a send");
            let Sent::Pending(request) = sent else { panic!("a large message waits") };
            request
        };
        // The receive first, then late, then too short.
        let receiving = b.irecv(len, &tag(1));
        let sending = send();
        let (status, received) = served(&a.endpoint, || receiving.wait(&b.endpoint));
        assert_eq!(status.expect("a receive").code, StatusCode::Success);
        assert!(received == bytes, "{len} bytes were garbled");
        let finish = |request| served(&b.endpoint, || wait(&a.endpoint, request));
        assert_eq!(finish(sending).code, StatusCode::Success);

        let sending = send();
        until("arrival", || b.endpoint.iprobe(&tag(1)).expect("a probe").is_some());
        served(&a.endpoint, || b.receive(number, len, &tag(1)));
        assert_eq!(finish(sending).code, StatusCode::Success);

        for room in [0, len / 2, len - 1] {
            let sending = send();
            let receiving = b.irecv(room, &tag(1));
            let (status, received) = served(&a.endpoint, || receiving.wait(&b.endpoint));
            let status = status.expect("a receive");
            assert_eq!(status.code, StatusCode::Truncated);
            assert_eq!(status.message_bytes, len as u64);
            assert_eq!(status.transferred_bytes, room as u64);
            assert!(received == bytes[..room]);
            assert_eq!(finish(sending).transferred_bytes, room as u64);
        }
    }
}

pub fn what_is_written_is_there_and_is_read_back(make: Maker) {
    let s = stage(make, 21 * MIB);
    let Stage { owner, user, key, .. } = &s;
    let mut private = vec![0_u8; 21 * MIB];
    let exposed = Exposed::ReadWrite(sink(&mut private));
    let copied = owner.endpoint.register(exposed, Some(owner.peer)).expect("a region");
    let lens = [0, 1, 8, 64 * KIB, 64 * KIB + 1, MIB + 3, 20 * MIB];
    served(&owner.endpoint, || {
        for (number, len) in (1..).zip(lens) {
            let (bytes, offset) = (pattern(number, len), 17 * number);
            for key in [key, copied.key()] {
                assert_eq!(user.write(&bytes, key, offset), StatusCode::Success);
                assert!(user.read(len, key, offset) == Ok(bytes.clone()), "{len} bytes");
            }
            assert!(part(&s.block, offset as usize, len) == bytes, "{len} bytes");
        }
    });
    use diolkos::Reach;
    let expected = if grants(user) { Reach::Granted } else { Reach::Copied };
    assert_eq!(user.endpoint.reach(user.peer, key).expect("a peer"), expected);
    let reach = user.endpoint.reach(user.peer, copied.key()).expect("a peer");
    assert_eq!(reach, Reach::Copied);
    copied.revoke().expect("revoked");
    let (offset, len) = (17 * lens.len(), 20 * MIB);
    assert!(private[offset..offset + len] == pattern(lens.len() as u64, len));
}

pub fn atomics_tell_what_was_there(make: Maker) {
    let s = stage(make, 4 * KIB);
    let swap = |expected, desired| AtomicOp::CompareSwap { expected, desired };
    served(&s.owner.endpoint, || {
        let at = |offset, op| s.user.atomic(&s.key, offset, op);
        assert_eq!(at(0, AtomicOp::FetchAdd(5)), Ok(0));
        assert_eq!(at(0, AtomicOp::FetchAdd(u64::MAX)), Ok(5));
        assert_eq!(at(0, swap(5, 9)), Ok(4));
        assert_eq!(at(0, swap(4, u64::MAX)), Ok(4));
        assert_eq!(at(0, AtomicOp::FetchAdd(2)), Ok(u64::MAX));
        assert_eq!(at(4 * KIB as u64 - 8, AtomicOp::FetchAdd(1)), Ok(0));
        for offset in [1, 4, 4 * KIB as u64 - 7, 4 * KIB as u64, u64::MAX - 7, u64::MAX] {
            let refused = at(offset, AtomicOp::FetchAdd(1));
            assert_eq!(refused, Err(StatusCode::OutOfRange), "{offset}");
        }
    });
    assert_eq!(word(&s.block), 1);
}

pub fn places_outside_a_region_are_refused(make: Maker) {
    let s = stage(make, 4 * KIB);
    let len = 4 * KIB as u64;
    // A key that claims more than there is says nothing to its owner.
    let longer = Key { length: u64::MAX >> 1, ..s.key };
    served(&s.owner.endpoint, || {
        for key in [&s.key, &longer] {
            for (offset, count) in [(len, 1), (len - 1, 2), (1, len), (u64::MAX, 1)] {
                let bytes = vec![1; count as usize];
                let wrong = StatusCode::OutOfRange;
                assert_eq!(s.user.write(&bytes, key, offset), wrong, "{offset} {count}");
                assert_eq!(s.user.read(count as usize, key, offset), Err(wrong));
            }
            assert_eq!(s.user.read(0, key, len), Ok(vec![]));
        }
    });
    assert!(part(&s.block, 0, 4 * KIB).iter().all(|byte| *byte == 0));
}

pub fn a_fence_waits_for_what_was_begun_before(make: Maker) {
    let s = stage(make, 4 * MIB);
    let (user, key) = (&s.user, &s.key);
    let buffers: Vec<Vec<u8>> = (0..5).map(|number| pattern(number, 4 * MIB)).collect();
    let mut back = vec![0; 4 * MIB];
    served(&s.owner.endpoint, || {
        let begun: Vec<Sent> = buffers
            .iter()
            .map(|bytes| user.endpoint.rdma_write(source(bytes), user.peer, key, 0, None))
            .collect::<Result<_, _>>()
            .expect("writes");
        let read = user.endpoint.rdma_read(sink(&mut back), user.peer, key, 0).expect("a read");
        let fence = user.endpoint.rdma_fence(user.peer);
        assert_eq!(outcome(&user.endpoint, fence), StatusCode::Success);
        assert!(part(&s.block, 0, 4 * MIB) == buffers[4], "the last one is there");
        for sent in begun.into_iter().chain([read]) {
            if let Sent::Pending(request) = sent {
                assert!(user.endpoint.is_complete(request).expect("a request"));
                assert_eq!(wait(&user.endpoint, request).code, StatusCode::Success);
            }
        }
    });
    assert!(back == buffers[4], "a read sees the writes before it");
}

pub fn a_notification_follows_its_data(make: Maker) {
    let s = stage(make, MIB);
    let (owner, user, key) = (&s.owner, &s.user, &s.key);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..50 {
                let receiving = owner.irecv(0, &tag(number));
                let (status, _) = receiving.wait(&owner.endpoint);
                let status = status.expect("a receive");
                assert_eq!((status.immediate, status.message_bytes), (7, 0));
                let len = if number % 2 == 0 { 8 } else { MIB };
                assert!(part(&s.block, 0, len) == pattern(number, len), "notified too early");
                // Lets the next one be written.
                owner.send(number, 0, 1000 + number);
            }
        });
        for number in 0..50 {
            let bytes = pattern(number, if number % 2 == 0 { 8 } else { MIB });
            let notify = diolkos::Envelope { immediate: 7, ..info(number) };
            let sent = user.endpoint.rdma_write(source(&bytes), user.peer, key, 0, Some(notify));
            assert_eq!(outcome(&user.endpoint, sent), StatusCode::Success);
            user.receive(number, 0, &tag(1000 + number));
        }
    });
}

pub fn keys_that_are_not_good_open_nothing(make: Maker) {
    let s = stage(make, 4 * KIB);
    let (owner, user) = (&s.owner, &s.user);
    let other = lonely(2);
    let (other_to_owner, owner_to_other) = join(make, &other, &owner.endpoint);
    let more = block(&owner.endpoint, &[3; 100]);
    let readable = owner.endpoint.register(Exposed::ReadOnly(more.source()), None).expect("one");
    let theirs = owner.endpoint.alloc(100, 64, None).expect("memory");
    let exposed = Exposed::ReadWrite(theirs.sink());
    let bound = owner.endpoint.register(exposed, Some(owner_to_other.peer)).expect("a region");
    let denied = bound.grant(owner.peer).err();
    assert!(matches!(denied, Some(Error::Denied)), "{denied:?}");

    let [low, high] = s.key.secret;
    let forged = [
        Key { secret: [low ^ 1, high], ..s.key },
        Key { secret: [low, high ^ 1 << 63], ..s.key },
        Key { secret: [0; 2], ..s.key },
        Key { region: s.key.region + 1000, ..s.key },
        Key { region: u32::MAX, ..s.key },
        Key { region: 0, ..s.key },
        Key { region: readable.key().region, ..s.key },
        *bound.key(),
    ];
    served(&owner.endpoint, || {
        for key in &forged {
            assert_eq!(user.write(&[1; 8], key, 0), StatusCode::Denied, "{key:?}");
            assert_eq!(user.read(8, key, 0), Err(StatusCode::Denied), "{key:?}");
            let atomic = user.atomic(key, 0, AtomicOp::FetchAdd(1));
            assert_eq!(atomic, Err(StatusCode::Denied), "{key:?}");
        }
        // One for reading does not write, whatever it claims.
        for key in [*readable.key(), Key { writable: true, ..*readable.key() }] {
            assert_eq!(user.read(100, &key, 0), Ok(vec![3; 100]));
            assert_eq!(user.write(&[1; 8], &key, 0), StatusCode::Denied);
            let atomic = user.atomic(&key, 0, AtomicOp::FetchAdd(1));
            assert_eq!(atomic, Err(StatusCode::Denied));
        }
        assert_eq!(other_to_owner.write(&[4; 100], bound.key(), 0), StatusCode::Success);
        // Stale ones.
        bound.revoke().expect("revoked");
        assert_eq!(other_to_owner.write(&[5; 100], bound.key(), 0), StatusCode::Revoked);
        drop(readable);
    });
    assert_eq!(part(&theirs, 0, 100), [4; 100]);
    assert_eq!(part(&more, 0, 100), [3; 100]);
    assert_eq!(word(&s.block), 0);
}

pub fn what_is_revoked_is_out_of_sight(make: Maker) {
    let s = stage(make, MIB);
    let (owner, user, key) = (&s.owner, &s.user, &s.key);
    s.block.sink().write(0, &pattern(1, MIB));
    s.region.grant(owner.peer).expect("granted");
    // A loan is a mapping in the hands of the peer.
    let envelope = info(1);
    let lent = owner.endpoint.lend(s.block.source(), owner.peer, &envelope).expect("lent");
    let loan = served(&owner.endpoint, || {
        assert!(user.read(MIB, key, 0) == Ok(pattern(1, MIB)));
        let request = user.endpoint.irecv_loan(&tag(1)).expect("a receive");
        assert_eq!(wait(&user.endpoint, request).code, StatusCode::Success);
        user.endpoint.take_loan(request).expect("an endpoint").expect("a loan")
    });
    assert_eq!(loan.is_copied(), !grants(user));
    s.region.revoke().expect("revoked");
    s.region.revoke().expect("again");
    s.block.sink().write(0, &pattern(2, MIB));
    assert!(loan.source().to_vec() == pattern(1, MIB), "the peer sees what is new");
    served(&owner.endpoint, || {
        assert_eq!(user.write(&[9; 8], key, 0), StatusCode::Revoked);
        assert_eq!(user.write(&[9; 8], key, 0), StatusCode::Revoked);
        assert_eq!(user.read(8, key, 0), Err(StatusCode::Revoked));
        assert_eq!(user.atomic(key, 0, AtomicOp::FetchAdd(1)), Err(StatusCode::Revoked));
        drop(loan);
        wait(&owner.endpoint, lent);
    });
    assert!(part(&s.block, 0, MIB) == pattern(2, MIB), "the peer changed what was revoked");
}

pub fn revoking_ends_a_long_transfer(make: Maker) {
    for writing in [true, false] {
        let s = stage(make, LONG);
        let (owner, user, key) = (&s.owner, &s.user, &s.key);
        let mut bytes = vec![1; LONG];
        s.block.sink().write(0, &vec![2; LONG]);
        s.region.grant(owner.peer).expect("granted");
        let (begun, seen) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let transfer = scope.spawn(|| {
                let memory = sink(&mut bytes);
                let sent = if writing {
                    user.endpoint.rdma_write(memory.as_source(), user.peer, key, 0, None)
                } else {
                    user.endpoint.rdma_read(memory, user.peer, key, 0)
                };
                begun.store(true, Ordering::Relaxed);
                until("the first bytes", || {
                    user.endpoint.progress().expect("progress");
                    let there = if writing { part(&s.block, 0, 1)[0] == 1 } else { true };
                    there || seen.load(Ordering::Relaxed)
                });
                seen.store(true, Ordering::Relaxed);
                outcome(&user.endpoint, sent)
            });
            until("a beginning", || {
                owner.endpoint.progress().expect("progress");
                seen.load(Ordering::Relaxed)
            });
            s.region.revoke().expect("revoked");
            s.block.sink().write(0, &vec![3; LONG]);
            let code = served(&owner.endpoint, || transfer.join().expect("the transfer"));
            assert_eq!(code, StatusCode::Revoked, "a transfer of {LONG} bytes, writing: {writing}");
        });
        assert!(part(&s.block, 0, LONG).iter().all(|byte| *byte == 3), "written after the revoke");
    }
}

pub fn memory_that_moves_loses_nothing(make: Maker) {
    const COUNT: u64 = 30_000;
    let (owner, user) = pair(make);
    let other = lonely(2);
    let (_, owner_to_other) = join(make, &other, &owner.endpoint);
    let block = owner.endpoint.alloc(16 * KIB, 64, None).expect("memory");
    block.sink().write(0, &[0; 16 * KIB]);
    let expose = |offset, len| {
        // SAFETY: inside the block, which outlives the regions.
        unsafe { Sink::from_raw(block.base().as_ptr().add(offset), len) }
    };
    let region = owner.endpoint.register(Exposed::ReadWrite(expose(0, 64)), None).expect("one");
    let key = *region.key();
    let done = AtomicBool::new(false);
    let moves = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _end = EndOnDrop(&done);
            for number in 0..COUNT {
                let before = user.atomic(&key, 0, AtomicOp::FetchAdd(1));
                assert_eq!(before, Ok(number), "a neighbour moved {moves:?} times");
                if number % 64 == 0 {
                    // Writes and reads find their data too.
                    let bytes = number.to_le_bytes();
                    assert_eq!(user.write(&bytes, &key, 8), StatusCode::Success);
                    assert_eq!(user.read(8, &key, 8), Ok(bytes.to_vec()));
                }
            }
        });
        while !done.load(Ordering::Relaxed) {
            let memory = expose(8 * KIB, 1000);
            let peer =
                [owner.peer, owner_to_other.peer][moves.load(Ordering::Relaxed) as usize % 2];
            let neighbour = if moves.load(Ordering::Relaxed) % 4 < 2 {
                owner.endpoint.register(Exposed::ReadWrite(memory), Some(peer))
            } else {
                owner.endpoint.register(Exposed::ReadOnly(memory.as_source()), Some(peer))
            };
            neighbour.expect("a region").revoke().expect("revoked");
            owner.endpoint.progress().expect("progress");
            moves.fetch_add(1, Ordering::Relaxed);
        }
    });
    assert!(moves.load(Ordering::Relaxed) > 0);
    assert_eq!(word(&block), COUNT);
}

/// Tells another thread that this one is through, or has failed.
struct EndOnDrop<'a>(&'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub fn memory_that_becomes_writable_stays_where_it_is(make: Maker) {
    let (owner, user) = pair(make);
    let bytes = pattern(1, MIB);
    let block = block(&owner.endpoint, &bytes);
    let exposed = Exposed::ReadOnly(block.source());
    let first = owner.endpoint.register(exposed, Some(owner.peer)).expect("a region");
    served(&owner.endpoint, || assert!(user.read(MIB, first.key(), 0) == Ok(bytes.clone())));
    let exposed = Exposed::ReadWrite(block.sink());
    let second = owner.endpoint.register(exposed, Some(owner.peer)).expect("a region");
    served(&owner.endpoint, || {
        assert_eq!(user.write(&[7; 8], second.key(), 8), StatusCode::Success);
        assert_eq!(user.read(8, first.key(), 8), Ok(vec![7; 8]));
        assert_eq!(user.write(&[8; 8], first.key(), 8), StatusCode::Denied);
        second.revoke().expect("revoked");
        block.sink().write(8, &[9; 8]);
        assert_eq!(user.read(8, first.key(), 8), Ok(vec![9; 8]));
        assert_eq!(user.write(&[8; 8], second.key(), 8), StatusCode::Revoked);
    });
}

pub fn both_sides_hammer_one_word(make: Maker) {
    const COUNT: u64 = 50_000;
    let s = stage(make, 4 * KIB);
    let (owner, user, key) = (&s.owner, &s.user, &s.key);
    s.region.grant(owner.peer).expect("granted");
    std::thread::scope(|scope| {
        let own = scope.spawn(|| {
            let to_self = Port { peer: PeerId::SELF, ..owner.clone() };
            for _ in 0..COUNT {
                to_self.atomic(key, 0, AtomicOp::FetchAdd(1)).expect("an atomic");
                owner.endpoint.progress().expect("progress");
            }
        });
        served(&owner.endpoint, || {
            let mut swapped = 0;
            for number in 0..COUNT {
                if number % 4 > 0 {
                    user.atomic(key, 0, AtomicOp::FetchAdd(1)).expect("an atomic");
                    continue;
                }
                let mut expected = 0;
                loop {
                    let op = AtomicOp::CompareSwap { expected, desired: expected + 1 };
                    let found = user.atomic(key, 0, op).expect("an atomic");
                    if found == expected {
                        break;
                    }
                    expected = found;
                }
                swapped += 1;
            }
            assert!(swapped > 0);
        });
        own.join().expect("the owner");
    });
    assert_eq!(word(&s.block), 2 * COUNT);
}

pub fn an_arena_has_a_limit(make: Maker) {
    let options = OpenOptions { arena_bytes: Some(8 << 20), ..OpenOptions::default() };
    let small = Endpoint::on_island(Box::new(Alone::new(5)), &options).expect("an endpoint");
    let (port, _) = join(make, &small, &lonely(6));
    let first = port.endpoint.alloc(5 * MIB, 64, None).expect("memory");
    match port.endpoint.alloc(4 * MIB, 64, None) {
        Err(Error::Arena(ArenaError::Full { asked_bytes, used_bytes, limit_bytes })) => {
            assert_eq!(asked_bytes, 4 << 20);
            assert!(used_bytes >= 5 << 20 && limit_bytes == 8 << 20);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!((small.arena().allocations, small.arena().limit_bytes), (1, 8 << 20));
    drop(first);
    assert_eq!((small.arena().allocations, small.arena().used_bytes), (0, 0));
    let again = port.endpoint.alloc(4 * MIB, 2 << 20, Some(port.peer)).expect("memory");
    assert!((again.base().as_ptr() as usize).is_multiple_of(2 << 20));
    for (len, align) in [(1, 3), (1, 0), (1, 4 << 20), (usize::MAX, 1)] {
        assert!(port.endpoint.alloc(len, align, None).is_err(), "{len} {align}");
    }
}

pub fn an_operation_ends_with_its_peer(make: Maker) {
    let s = stage(make, MIB);
    let bytes = vec![1; MIB];
    // The owner never makes progress, so this waits for the answer where the region is.
    let sent = s.user.endpoint.rdma_write(source(&bytes), s.user.peer, &s.key, 0, None);
    s.owner.endpoint.close();
    assert_eq!(outcome(&s.user.endpoint, sent), StatusCode::PeerClosed);
    assert_eq!(s.user.read(8, &s.key, 0), Err(StatusCode::PeerClosed));
    s.region.revoke().expect("of a closed endpoint");
}
